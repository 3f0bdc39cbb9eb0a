"""Owns what is asked of a source, what it may answer, and what is made of lies. Pure.

How the answer is got is left to each source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import msgspec

from artifact import TransientError
from checkpoint.verdicts.observed import Counts, Interval, Kind, fault_of_counts
from fleet import Report

_NAMED: Final = 5
"""Hosts that are told one by one; of further ones only the number."""


class SourceFailed(TransientError):
    """A source gave no answer that can be used: nothing is known of the interval."""

    kind = "source_failed"


@dataclass(frozen=True)
class Asked:
    """What is to be known.

    Attributes:
        app: whose hosts they are.
        tiers: tiers of the hosts.
        updated: hosts on the new build, but none that was swapped within the interval.
        others: hosts that are not updated yet.
        interval_s: the last so many seconds.
        reports: what the agents say at present; for `[metrics.reports]` alone.
        last_look: when sources were last asked, maybe by another engine; None: never in this rollout.
        readings: what counters showed then, where nothing but this look lies in between.
    """

    app: str
    tiers: tuple[str, ...]
    updated: tuple[str, ...]
    others: tuple[str, ...]
    interval_s: float
    reports: tuple[Report, ...] = ()
    last_look: datetime | None = None
    readings: tuple[Counts, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a source said: counts, in any order, and what was odd about hosts of which it says nothing."""

    counts: tuple[Counts, ...]
    oddities: Mapping[str, str] = field(default_factory=dict)


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What commands and URLs answer."""

    hosts: tuple[Counts, ...]


def decode_answer(data: bytes, where: str) -> Answer:
    """Read `{"hosts": [{"host": "web-1", "bad": 3, "total": 18300}, ...]}`.

    Raises:
        SourceFailed: it is something else.
    """
    try:
        return Answer(msgspec.json.decode(data, type=_Document).hosts)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SourceFailed(
            f"{where} answered {data[:80]!r}: {error}; expected is "
            '{"hosts": [{"host": "...", "bad": 0, "total": 0}]}'
        ) from error


def interval_of(asked: Asked, answer: Answer, kind: Kind) -> Interval:
    """Sort an answer into both sides. One lie spoils the whole of it: who errs on one host may err on others."""
    updated, others = set(asked.updated), set(asked.others)
    seen: dict[str, Counts] = {}
    strangers = sorted({*(each.host for each in answer.counts), *answer.oddities} - updated - others)
    if strangers:
        return Interval(problem=f"the source speaks of host {strangers[0]}, of which it was not asked")
    for counts in sorted(answer.counts, key=lambda each: each.host):
        if counts.host in seen:
            return Interval(problem=f"the source speaks of host {counts.host} twice")
        if fault := fault_of_counts(counts, kind):
            return Interval(problem=f"the source says what cannot be: {fault}")
        seen[counts.host] = counts
    return Interval(
        updated=tuple(seen[host] for host in sorted(updated) if host in seen),
        others=tuple(seen[host] for host in sorted(others) if host in seen),
        silent=tuple(sorted(updated - seen.keys())),
        notes=_notes(answer.oddities),
    )


def _notes(oddities: Mapping[str, str]) -> tuple[str, ...]:
    notes = [f"{host}: {what}" for host, what in sorted(oddities.items())]
    more = len(notes) - _NAMED
    return (*notes[:_NAMED], f"and of {more} more hosts") if more > 0 else tuple(notes)


class Counters:
    """What counters showed last, for differences. A counter that fell was reset: its host is skipped once."""

    def __init__(self) -> None:
        self._last: dict[str, Counts] = {}

    @property
    def last(self) -> tuple[Counts, ...]:
        """What every counter showed last."""
        return tuple(self._last.values())

    def begin(self, hosts: Iterable[str], readings: Iterable[Counts]) -> None:
        """Before a look at these hosts: take up what another engine read, and forget who is not looked at.

        A host that is left out of a look changes its build; what it counted before belongs to neither side.
        """
        known = {each.host: each for each in readings} | self._last
        self._last = {host: known[host] for host in hosts if host in known}

    def differences(self, readings: Iterable[Counts]) -> Answer:
        """Counts since the reading before; of hosts that had none, nothing."""
        made: list[Counts] = []
        oddities: dict[str, str] = {}
        for now in readings:
            last = self._last.get(now.host)
            self._last[now.host] = now
            if last is None:
                oddities[now.host] = "its counters were read for the first time"
            elif now.bad < last.bad or now.total < last.total:
                oddities[now.host] = (
                    f"its counters were reset: bad {last.bad:g} to {now.bad:g}, total {last.total:g} to {now.total:g}"
                )
            else:
                made.append(Counts(now.host, now.bad - last.bad, now.total - last.total))
        return Answer(tuple(made), oddities)
