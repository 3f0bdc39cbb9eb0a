"""Owns the evidence of one metric in one rollout: small, frozen, stored as JSON, and how an interval changes it. Pure.

What the evidence means is left to `checkpoint.verdicts.judging`; the arithmetic, to `checkpoint.verdicts.eprocess`.

Beside the evidence against the build it keeps, for hosts with failures, the evidence *without* that host. A host
without failures needs none: leaving it out only makes the others look worse, so the least of all such values is never
its own. For the same reason a host that fails for the first time may start from the evidence with it: that is not too
high. At most `SLOTS` are kept, and further hosts share them: then a slot holds the evidence without all its hosts.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from artifact import Refused
from checkpoint.verdicts.eprocess import NO_EVIDENCE, Sums, against_rate, compared, fresh_trust, upper_rate
from checkpoint.verdicts.metric import Metric
from checkpoint.verdicts.observed import Counts, History, Interval
from checkpoint.verdicts.ratio import Likelihood, seen_alone, seen_together

VERSION: Final = 1
SLOTS: Final = 32
"""Hosts whose failures are told apart; more of them share."""


class Without(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The evidence without one host, or without the hosts of a slot.

    Attributes:
        host: whose slot it is: the first that failed.
        sums: the evidence without all hosts of the slot.
        suspect: the host with most of the slot's failures, if one has most of them.
        votes: failures of the suspect above those of the slot's other hosts, at most.
        bad, total: of all hosts of the slot, in intervals in which they were there.
    """

    host: str
    sums: Sums
    suspect: str
    votes: float = 0.0
    bad: float = 0.0
    total: float = 0.0

    @property
    def is_of_one_host(self) -> bool:
        """Whether the suspect has at least half of the failures."""
        return self.votes * 2 >= self.bad


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is known of one metric in one rollout. Its JSON gives back exactly this, and so does a decoded one go on.

    Attributes:
        v: `VERSION`.
        intervals: sound intervals so far.
        sums: evidence against the build where there was something to compare with at the same time, or a limit.
        weak_sums: evidence from intervals in which only the past was there to compare with.
        without: evidence without single hosts.
        aside: hosts that do not count, since they were set aside.
        updated_bad, updated_total: of updated hosts, over the rollout.
        others_bad, others_total: of the others, in intervals in which both were there.
        expected: failures that updated hosts would have had if they were like the others.
        step_total, step_expected: the same of this step alone.
        step_intervals: sound intervals with data of updated hosts in this step.
        quiet_intervals: the last so many of them had no failure on updated hosts.
        unsound_intervals: intervals of this step that could not be used.
        seen: what tells how many times worse the build is; collected anew when a host is set aside.
    """

    v: int = VERSION
    intervals: int = 0
    sums: Sums = NO_EVIDENCE
    weak_sums: Sums = NO_EVIDENCE
    without: tuple[Without, ...] = ()
    aside: tuple[str, ...] = ()
    updated_bad: float = 0.0
    updated_total: float = 0.0
    others_bad: float = 0.0
    others_total: float = 0.0
    expected: float = 0.0
    step_total: float = 0.0
    step_expected: float = 0.0
    step_intervals: int = 0
    quiet_intervals: int = 0
    unsound_intervals: int = 0
    seen: Likelihood = Likelihood()


def decode_evidence(data: bytes) -> Evidence:
    """Decode strictly.

    Raises:
        Refused: no evidence of this version: judging on with it would be guessing.
    """
    try:
        evidence = msgspec.json.decode(data, type=Evidence)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"evidence is malformed: {error}", kind="evidence_invalid") from error
    all_sums = (evidence.sums, evidence.weak_sums, *(each.sums for each in evidence.without))
    if evidence.v != VERSION or any(len(sums) != len(NO_EVIDENCE) for sums in all_sums):
        raise Refused(
            f"evidence has version {evidence.v}, or other factors; this hotcold reads version {VERSION}: let the "
            "hotcold that began the rollout finish it, or start it anew",
            kind="evidence_version",
        )
    return evidence


def encode_evidence(evidence: Evidence) -> bytes:
    """As JSON, of a few KiB at most; equal evidence gives equal bytes."""
    return msgspec.json.encode(evidence)


def next_step(evidence: Evidence) -> Evidence:
    """Begin a step: evidence stays, what has to be seen before the step passes is seen anew."""
    return msgspec.structs.replace(
        evidence, step_total=0.0, step_expected=0.0, step_intervals=0, quiet_intervals=0, unsound_intervals=0
    )


def set_aside(evidence: Evidence, host: str) -> Evidence:
    """Count a host no more; a no-op if that is so already. What it did is taken out of the evidence if it has a slot.

    Evidence without the *other* hosts is collected anew: it held what this host did. So is what the ratio is made of.
    """
    if host in evidence.aside:
        return evidence
    own = next((each for each in evidence.without if host in (each.host, each.suspect)), None)
    kept = tuple(
        msgspec.structs.replace(each, sums=NO_EVIDENCE) for each in evidence.without if own is None or each is not own
    )
    return msgspec.structs.replace(
        evidence,
        sums=evidence.sums if own is None else own.sums,
        without=kept,
        aside=tuple(sorted((*evidence.aside, host))),
        updated_bad=evidence.updated_bad - (own.bad if own is not None else 0.0),
        updated_total=evidence.updated_total - (own.total if own is not None else 0.0),
        seen=Likelihood(),
    )


def take_back(evidence: Evidence, host: str) -> Evidence:
    """Let a host that was set aside count again, from now on; a no-op if it was not."""
    return msgspec.structs.replace(evidence, aside=tuple(each for each in evidence.aside if each != host))


class _Side(NamedTuple):
    bad: float
    exposure: float


class _Sides(NamedTuple):
    """One interval as it is compared."""

    metric: Metric
    weights: Mapping[str, float]
    updated: _Side
    others: _Side
    fresh: float


def absorb(metric: Metric, evidence: Evidence, interval: Interval, history: History | None) -> Evidence:
    """The evidence with one sound interval more. The order of hosts in it does not matter."""
    counted = sorted((each for each in interval.updated if each.host not in evidence.aside), key=lambda each: each.host)
    weights = history.weights() if history is not None and metric.weights == "history" else {}
    updated = _side(counted, weights)
    others = _side(sorted(interval.others, key=lambda each: each.host), weights)
    total = math.fsum(each.total for each in counted)
    has_rate = metric.limit is not None
    has_control = others.exposure > 0 and not has_rate
    rate = _tolerated_rate(metric, history)
    sums, weak_sums, without, expected = evidence.sums, evidence.weak_sums, evidence.without, 0.0
    if has_control or has_rate:
        sides = _Sides(metric, weights, updated, others, fresh_trust(evidence.intervals))
        sums = _add(sides, sums, updated)
        without = _without_each(sides, evidence, counted)
        expected = updated.exposure * (metric.limit or 0.0)
        if has_control:
            expected = updated.exposure * others.bad / others.exposure
    elif rate is not None:
        fresh = fresh_trust(evidence.intervals)
        weak_sums = against_rate(weak_sums, bad=updated.bad, exposure=updated.exposure, rate=rate, fresh=fresh)
        expected = updated.exposure * rate / metric.tolerance
    compared_with_others = has_control and updated.exposure > 0
    return msgspec.structs.replace(
        evidence,
        intervals=evidence.intervals + 1,
        sums=sums,
        weak_sums=weak_sums,
        without=without,
        updated_bad=evidence.updated_bad + updated.bad,
        updated_total=evidence.updated_total + total,
        others_bad=evidence.others_bad + (others.bad if compared_with_others else 0.0),
        others_total=evidence.others_total
        + (math.fsum(each.total for each in interval.others) if compared_with_others else 0.0),
        expected=evidence.expected + expected,
        step_total=evidence.step_total + total,
        step_expected=evidence.step_expected + expected,
        step_intervals=evidence.step_intervals + (total > 0),
        quiet_intervals=0 if updated.bad > 0 else evidence.quiet_intervals + (total > 0),
        seen=_seen(metric, evidence.seen, updated, others),
    )


def _seen(metric: Metric, seen: Likelihood, updated: _Side, others: _Side) -> Likelihood:
    if metric.limit is not None:
        return seen_alone(seen, bad=updated.bad, allowed=metric.limit * updated.exposure)
    return seen_together(
        seen,
        bad=updated.bad,
        exposure=updated.exposure,
        other_bad=others.bad,
        other_exposure=others.exposure,
    )


def _tolerated_rate(metric: Metric, history: History | None) -> float | None:
    if history is None or history.total <= 0:
        return None
    return metric.tolerance * upper_rate(history.bad, history.total)


def _side(counted: Sequence[Counts], weights: Mapping[str, float]) -> _Side:
    return _Side(
        math.fsum(each.bad for each in counted),
        math.fsum(each.total * weights.get(each.host, 1.0) for each in counted),
    )


def _add(sides: _Sides, sums: Sums, updated: _Side) -> Sums:
    metric, others = sides.metric, sides.others
    if metric.limit is not None:
        return against_rate(sums, bad=updated.bad, exposure=updated.exposure, rate=metric.limit, fresh=sides.fresh)
    return compared(
        sums,
        bad=updated.bad,
        exposure=updated.exposure,
        other_bad=others.bad,
        other_exposure=others.exposure,
        tolerance=metric.tolerance,
        fresh=sides.fresh,
    )


def _without_each(sides: _Sides, evidence: Evidence, counted: Sequence[Counts]) -> tuple[Without, ...]:
    slots = list(evidence.without)
    place = {each.host: number for number, each in enumerate(slots)}
    members: dict[int, list[Counts]] = {}
    for counts in counted:
        number = place.get(counts.host)
        if number is None and len(slots) < SLOTS:
            if counts.bad <= 0:
                continue
            number = place[counts.host] = len(slots)
            slots.append(Without(host=counts.host, sums=evidence.sums, suspect=counts.host))
        elif number is None:
            number = zlib.crc32(counts.host.encode()) % SLOTS
        members.setdefault(number, []).append(counts)
    return tuple(_next_without(sides, slot, members.get(number, ())) for number, slot in enumerate(slots))


def _next_without(sides: _Sides, slot: Without, members: Sequence[Counts]) -> Without:
    updated = sides.updated
    own = _side(members, sides.weights)
    # A difference of sums may be a hair below nothing.
    rest = _Side(max(0.0, updated.bad - own.bad), max(0.0, updated.exposure - own.exposure)) if members else updated
    suspect, votes = slot.suspect, slot.votes
    for counts in members:
        votes += counts.bad if counts.host == suspect else -counts.bad
        if votes < 0:
            suspect, votes = counts.host, -votes
    return Without(
        host=slot.host,
        sums=_add(sides, slot.sums, rest),
        suspect=suspect,
        votes=votes,
        bad=slot.bad + own.bad,
        total=slot.total + math.fsum(each.total for each in members),
    )
