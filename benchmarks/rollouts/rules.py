"""Owns the rules that are compared: ours, and what others decide by, on the same counts.

- z > 3: the share of failures on updated hosts against mean and standard deviation of the hour before, one point is
  enough; and the same with five points in a row.
- Mann-Whitney: at the end of each step, on the minutes since the rollout began; worse where the 98 percent confidence
  interval of the shift is above a quarter of its estimate; the control is as many other hosts as are updated.
- fixed threshold: more than 1 percent of requests fail on updated hosts, in five minutes.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from checkpoint.verdicts import Action, Counts, Evidence, History, Interval, Metric, judge, next_step, set_aside
from checkpoint.verdicts.metric import ReportsTable

_Z: Final = 3.0
_Z_98: Final = 2.3263478740408408
_ROW: Final = 5
_FIXED_SHARE: Final = 0.01
_FIXED_POINTS: Final = 5


@dataclass(frozen=True)
class Look:
    """One minute as a rule sees it.

    Attributes:
        interval: both sides.
        before: share of failures on the hosts that are updated now, in each of the 60 minutes before.
        is_step_end: whether the step's bake time is over.
        is_step_start: whether its first hosts have just been updated.
    """

    interval: Interval
    before: Callable[[], list[float]]
    is_step_end: bool
    is_step_start: bool


class Rule(Protocol):
    """What a rule says of each minute; it remembers what it needs.

    Attributes:
        lifts: whether a pause may end by itself.
        is_weak: whether its last word had no hosts to compare with.
        aside: hosts that it blamed.
    """

    lifts: bool
    is_weak: bool
    aside: tuple[str, ...]

    def look(self, look: Look) -> Action: ...


class _OfOthers:
    """What the other rules do not know."""

    lifts = False
    is_weak = False
    aside: tuple[str, ...] = ()


class Ours:
    """`checkpoint.verdicts`, as configured by default."""

    lifts = True

    def __init__(self, history: History, metric: Metric | None = None) -> None:
        self._metric = metric or Metric(name="errors", reports=ReportsTable())
        self._history = history
        self._evidence = Evidence()
        self.is_weak = False
        self.aside: tuple[str, ...] = ()
        self.reason = ""

    def look(self, look: Look) -> Action:
        if look.is_step_start:
            self._evidence = next_step(self._evidence)
        self._evidence, verdict = judge(self._metric, self._evidence, look.interval, history=self._history)
        self.is_weak, self.reason = verdict.is_weak, verdict.reason
        if verdict.host is not None:
            self._evidence = set_aside(self._evidence, verdict.host)
            self.aside = self._evidence.aside
        return verdict.action


class ZScore(_OfOthers):
    """So many points in a row that are three standard deviations above the hour before."""

    def __init__(self, points: int) -> None:
        self._points = points
        self._row = 0

    def look(self, look: Look) -> Action:
        now = share(look.interval.updated)
        if now is None:
            return "go"
        before = look.before()
        spread = statistics.stdev(before)
        self._row = self._row + 1 if spread > 0 and (now - statistics.fmean(before)) / spread > _Z else 0
        return "pause" if self._row >= self._points else "go"


class MannWhitney(_OfOthers):
    """Kayenta's rule on one metric."""

    def __init__(self) -> None:
        self._updated: list[float] = []
        self._others: list[float] = []

    def look(self, look: Look) -> Action:
        control = look.interval.others[: max(1, len(look.interval.updated))]
        updated, others = share(look.interval.updated), share(control)
        if updated is not None and others is not None:
            self._updated.append(updated)
            self._others.append(others)
        if not look.is_step_end or not self._updated:
            return "go"
        return "pause" if is_shifted_up(self._updated, self._others) else "go"


class Fixed(_OfOthers):
    """A share of failures that somebody thought of."""

    def __init__(self) -> None:
        self._count = 0

    def look(self, look: Look) -> Action:
        now = share(look.interval.updated)
        self._count += now is not None and now > _FIXED_SHARE
        return "pause" if self._count >= _FIXED_POINTS else "go"


RULES: Final[Mapping[str, Callable[[History], Rule]]] = {
    "hotcold": Ours,
    "z > 3": lambda _: ZScore(1),
    "z > 3, five in a row": lambda _: ZScore(_ROW),
    "Mann-Whitney": lambda _: MannWhitney(),
    "fixed 1 %": lambda _: Fixed(),
}


def share(counts: tuple[Counts, ...]) -> float | None:
    """Failures of requests; None where there are none."""
    total = sum(each.total for each in counts)
    return sum(each.bad for each in counts) / total if total > 0 else None


def is_shifted_up(updated: list[float], others: list[float]) -> bool:
    """Whether the 98 percent confidence interval of the shift lies above a quarter of the estimate.

    Interval and estimate (Hodges and Lehmann's) are order statistics of the differences, by the normal approximation
    with the correction for ties.
    """
    values = sorted((*updated, *others))
    if values[0] == values[-1]:
        return False
    differences = sorted(one - other for one in updated for other in others)
    estimate = statistics.median(differences)
    count = len(values)
    ties = sum(number**3 - number for number in _runs(values))
    spread = math.sqrt(len(differences) / 12 * (count + 1 - ties / (count * (count - 1))))
    rank = math.floor(len(differences) / 2 - _Z_98 * spread)
    return rank >= 0 and differences[rank] > 0.25 * abs(estimate)


def _runs(values: list[float]) -> list[int]:
    counts: dict[float, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return list(counts.values())
