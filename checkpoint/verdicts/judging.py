"""Owns what evidence means: pass, fail or none, what to do, and why in words with the counts. Pure.

How evidence grows is left to `checkpoint.verdicts.evidence`; carrying out an action, to the rollout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from checkpoint.verdicts.eprocess import acquits, log_evidence
from checkpoint.verdicts.evidence import Evidence, Without, absorb
from checkpoint.verdicts.metric import Metric
from checkpoint.verdicts.observed import History, Interval, fault_in
from checkpoint.verdicts.ratio import Ratio, ratio_of
from checkpoint.verdicts.wording import as_number, counts_in_words, evidence_in_words

Outcome = Literal["pass", "fail", "none"]
Action = Literal["go", "wait", "set_aside_host", "pause", "roll_back"]

SEVERITY: Final[tuple[Action, ...]] = ("go", "wait", "set_aside_host", "pause", "roll_back")
"""From the mildest to the gravest."""

_ACQUITTED: Final = 10.0
"""How much likelier the other updated hosts must be to be well, before one of them is blamed alone."""

_NAMED: Final = 5
"""Hosts that fit into a sentence."""

_WEAK_SHARE: Final = 2.0
"""Half of the false alarms that are allowed are spent on the estimate of the past; so the line is twice as high."""


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What one metric, or all of them, say.

    Attributes:
        outcome: `pass`, `fail`, or `none`: not known yet. None never promotes.
        action: what follows: only `go` promotes.
        reason: why, in words, with the counts.
        metric: whose verdict it is; several are joined by commas.
        host: whom the evidence speaks against instead of the build, with `set_aside_host`.
        is_weak: compared with the past instead of hosts that are not updated.
        log10_evidence: decimal logarithm of the evidence against the build.
        log10_without: the same without the one host whose absence lowers it most.
        ratio: how many times as often updated hosts fail as the others, or as the limit allows; None: not known, or of
            several metrics.
    """

    outcome: Outcome
    action: Action
    reason: str
    metric: str = ""
    host: str | None = None
    is_weak: bool = False
    log10_evidence: float = 0.0
    log10_without: float = 0.0
    ratio: Ratio | None = None


def judge(
    metric: Metric,
    evidence: Evidence,
    interval: Interval,
    *,
    history: History | None = None,
    among: int = 1,
) -> tuple[Evidence, Verdict]:
    """Take one interval into account, and say where the metric stands.

    An interval that cannot be true changes no evidence. Evidence that is grave already stays so.

    Args:
        metric: what is judged, and by which limits.
        evidence: of this metric in this rollout, so far.
        interval: what was observed since.
        history: counts before the rollout; gives weights, and is the control where none is left.
        among: how many metrics may stop this rollout; lines rise by it, so that false stops do not.
    """
    fault = fault_in(interval, metric.kind)
    if fault is None:
        evidence = absorb(metric, evidence, interval, history)
    else:
        evidence = msgspec.structs.replace(
            evidence, quiet_intervals=0, unsound_intervals=evidence.unsound_intervals + 1
        )
    return evidence, _Judgement(metric, evidence, interval, fault, among, has_history=history is not None).verdict()


def combine(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict of several: the gravest action, and `pass` only where every one passes."""
    if not verdicts:
        return Verdict(outcome="none", action="wait", reason="no metric is configured: there is nothing to go by")
    gravest = max(verdicts, key=lambda each: SEVERITY.index(each.action))
    outcomes = {each.outcome for each in verdicts}
    outcome: Outcome = "fail" if "fail" in outcomes else "none" if "none" in outcomes else "pass"
    said = [each for each in verdicts if each.outcome == outcome]
    return Verdict(
        outcome=outcome,
        action=gravest.action,
        reason="; ".join(f"{each.metric}: {each.reason}" if each.metric else each.reason for each in said),
        metric=", ".join(each.metric for each in said if each.metric),
        host=gravest.host,
        is_weak=any(each.is_weak for each in said),
        log10_evidence=max(each.log10_evidence for each in verdicts),
        log10_without=max(each.log10_without for each in verdicts),
        ratio=verdicts[0].ratio if len(verdicts) == 1 else None,
    )


class _Judgement:
    """One look at one metric's evidence."""

    def __init__(
        self,
        metric: Metric,
        evidence: Evidence,
        interval: Interval,
        fault: str | None,
        among: int,
        *,
        has_history: bool,
    ) -> None:
        self._metric = metric
        self._evidence = evidence
        self._interval = interval
        self._fault = fault
        self._among = among
        self._has_history = has_history
        self._all = log_evidence(evidence.sums)
        self._weak = log_evidence(evidence.weak_sums)
        self._ratio = ratio_of(evidence.seen, is_of_a_limit=metric.limit is not None)
        ranked = sorted((log_evidence(each.sums), each.host, each) for each in evidence.without)
        # Hosts without failures have no slot, and without one of them the evidence is not lower.
        self._least = min(self._all, ranked[0][0]) if ranked else self._all
        self._second = min(self._all, ranked[1][0]) if len(ranked) > 1 else self._all
        self._culprit: Without | None = ranked[0][2] if ranked else None

    def verdict(self) -> Verdict:
        pause = math.log(self._metric.pause_at * self._among)
        if self._all >= pause:
            return self._against(pause)
        if self._weak >= pause + math.log(_WEAK_SHARE):
            line = as_number(pause + math.log(_WEAK_SHARE))
            counts = counts_in_words(self._evidence, None)  # that of the others says nothing of the past
            reason = f"{counts}; {evidence_in_words(self._weak)}, pause line {line}"
            return self._say("fail", "pause", f"compared with the past alone: {reason}", is_weak=True)
        return self._not_against()

    def _against(self, pause: float) -> Verdict:
        roll_back = math.log(self._metric.roll_back_at * self._among)
        wait = math.log(self._metric.wait_at)
        counts = counts_in_words(self._evidence, self._ratio)
        line = f"pause line {as_number(pause)}"
        if self._least >= roll_back:
            without = f"without any one host still {as_number(self._least)}, roll-back line {as_number(roll_back)}"
            return self._say("fail", "roll_back", f"{counts}; {evidence_in_words(self._all)}, {without}")
        reason = f"{counts}; {evidence_in_words(self._all)}, {line}"
        culprit = self._culprit
        if culprit is None:
            return self._say("fail", "pause", reason)
        own = f"{culprit.suspect} alone has {culprit.bad:g} of the failures"
        if self._has_one_host:
            return self._say("fail", "pause", f"{reason}; with one updated host, build and host cannot be told apart")
        without = f"without it the evidence is {as_number(self._least)}"
        if len(self._evidence.aside) >= self._metric.max_set_aside:
            return self._say("fail", "pause", f"{reason}; {own}, {without}, but no more hosts may be set aside")
        is_blamed = self._least < wait <= self._second and culprit.is_of_one_host
        if is_blamed and acquits(culprit.sums) >= math.log(_ACQUITTED):
            why = f"{own}, {without}, and the others are as good as before: it is the host"
            return self._say("fail", "set_aside_host", f"{reason}; {why}", host=culprit.suspect)
        return self._say("fail", "pause", f"{reason}; {own}, {without}: build and host cannot be told apart yet")

    def _not_against(self) -> Verdict:
        evidence = self._evidence
        lack = self._unusable()
        if lack is not None:
            return self._say("none", "wait", lack)
        counts = counts_in_words(evidence, None if self._is_weak else self._ratio)
        strongest = max(self._all, self._weak)
        lack = self._unseen()
        if strongest >= math.log(self._metric.wait_at):
            lack = f"{evidence_in_words(strongest)}: waiting for more"
        if lack is not None:
            return self._say("none", "wait", f"{counts}; {lack}", is_weak=self._is_weak)
        return self._say("pass", "go", f"{counts}; {evidence_in_words(strongest)}", is_weak=self._is_weak)

    def _unusable(self) -> str | None:
        """Why the interval says nothing of the build, or None."""
        if self._fault is not None:
            return f"no verdict on this interval: {self._fault}"
        aside = self._evidence.aside
        counted = [each for each in self._interval.updated if each.host not in aside]
        silent = sorted(host for host in self._interval.silent if host not in aside)
        notes = "".join(f"; {note}" for note in self._interval.notes)
        if not counted:
            return f"nothing is known of any updated host{notes}"
        if len(silent) > self._metric.max_silent * (len(counted) + len(silent)):
            names = ", ".join(silent[:_NAMED]) + (", ..." if len(silent) > _NAMED else "")
            return f"{len(silent)} of {len(counted) + len(silent)} updated hosts are silent: {names}{notes}"
        if self._is_weak and not self._has_history:
            return "there is neither another host nor a history to compare with"
        return None

    def _unseen(self) -> str | None:
        """What has to be seen yet before the step may pass, or None."""
        metric, evidence = self._metric, self._evidence
        if evidence.step_total <= 0 or evidence.step_total < metric.min_total:
            return f"{evidence.step_total:g} of at least {max(metric.min_total, 1):g} seen in this step"
        if evidence.step_expected >= metric.min_expected or evidence.quiet_intervals >= metric.quiet_intervals:
            return None
        return (
            f"a good build had {evidence.step_expected:.2g} failures to expect in this step, {metric.min_expected:g} "
            f"are needed, or {metric.quiet_intervals} quiet intervals ({evidence.quiet_intervals} so far)"
        )

    @property
    def _has_one_host(self) -> bool:
        hosts = {*(each.host for each in self._interval.updated), *self._interval.silent}
        return len(hosts - set(self._evidence.aside)) <= 1

    @property
    def _is_weak(self) -> bool:
        """Whether nothing is there to compare with but the past."""
        return self._metric.limit is None and not any(each.total > 0 for each in self._interval.others)

    def _say(
        self, outcome: Outcome, action: Action, reason: str, *, host: str | None = None, is_weak: bool = False
    ) -> Verdict:
        weak = ", weak: compared with the past" if is_weak and outcome == "pass" else ""
        return Verdict(
            outcome=outcome,
            action=action,
            reason=reason + weak,
            metric=self._metric.name,
            host=host,
            is_weak=is_weak,
            log10_evidence=max(self._all, self._weak if is_weak else self._all) / math.log(10),
            log10_without=self._least / math.log(10),
            ratio=self._ratio,
        )
