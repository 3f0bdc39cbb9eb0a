"""Owns the course of a rollout's metrics for charts: what each interval showed, few enough points for Consul. Pure.

No verdict is made of it: that is `checkpoint.verdicts`'s, from the evidence. Drawing is left to the pages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from checkpoint.rollout.kept_evidence import Kept
from checkpoint.verdicts import Interval
from checkpoint.verdicts.recording import Line, Observed, StepBegan

MAX_POINTS: Final = 240
"""Of one metric: four hours of minutes; a chart is hardly wider in dots."""
MAX_ALL_POINTS: Final = 2400
"""Of all metrics: they lie in one value of Consul, which takes 512 KiB, and a point some 100 bytes."""
MAX_MARKS: Final = 100
_DIGITS: Final = 5


class Point(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One metric in one interval, or in some neighbouring ones.

    Attributes:
        at: seconds since the epoch, of the last one.
        is_gap: nothing is known of it: the source failed, or said nothing of updated hosts.
        bad, total: of updated hosts.
        other_bad, other_total: of the others.
        log10_evidence, log10_without: the evidence, and the least without one host.
        estimate, lower, upper: the ratio with its interval; None where there is none.
    """

    at: int
    is_gap: bool
    bad: float = 0.0
    total: float = 0.0
    other_bad: float = 0.0
    other_total: float = 0.0
    log10_evidence: float = 0.0
    log10_without: float = 0.0
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None


class Mark(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A step's order, at seconds since the epoch."""

    at: int
    name: str


class Series(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The courses of all metrics of a rollout, by their names, and its steps' orders."""

    v: int = 1
    metrics: dict[str, tuple[Point, ...]] = {}
    marks: tuple[Mark, ...] = ()


def decode_series(value: bytes | None) -> Series:
    """What can be read; an empty one where it cannot: only pictures are lost."""
    if value is None:
        return Series()
    try:
        series = msgspec.json.decode(value, type=Series)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Series()
    return series if series.v == 1 else Series()


def continued(series: Series, kept: Kept, lines: Sequence[Line], now: datetime) -> Series:
    """The course with what was observed and ordered since.

    Args:
        series: until now.
        kept: evidence and verdicts as they are after it.
        lines: what was observed and decided.
        now: when.
    """
    metrics, marks = dict(series.metrics), list(series.marks)
    for line in lines:
        match line:
            case StepBegan(name=name):
                at = int((kept.ordered or now).timestamp())
                is_resumed = bool(marks) and marks[-1].name in {name, f"{name}, resumed"}
                marks.append(Mark(at, f"{name}, resumed" if is_resumed else name))
            case Observed(metric=name, interval=interval):
                before = metrics.get(name, ())
                point = _point(kept, name, interval, int((kept.at or now).timestamp()))
                # Another engine may have drawn it, and lost its place before it could write the evidence.
                metrics[name] = (*(each for each in before[-1:] if each.at < point.at), point)
                metrics[name] = (*before[:-1], *metrics[name])
            case _:
                pass
    limit = max(8, min(MAX_POINTS, MAX_ALL_POINTS // max(1, len(metrics))))
    bounded = {name: thinned(points, limit) for name, points in metrics.items()}
    return Series(metrics=bounded, marks=tuple(marks[-MAX_MARKS:]))


def thinned(points: tuple[Point, ...], limit: int) -> tuple[Point, ...]:
    """At most `limit` points: where there are more, each two of the older half become one."""
    while len(points) > limit:
        half = len(points) // 2
        half -= half % 2
        old = tuple(_merged(points[number], points[number + 1]) for number in range(0, half, 2))
        points = old + points[half:]
    return points


def _point(kept: Kept, name: str, interval: Interval, at: int) -> Point:
    judged = kept.metrics.get(name)
    aside = () if judged is None else judged.evidence.aside
    updated = [each for each in interval.updated if each.host not in aside]
    total = math.fsum(each.total for each in updated)
    if judged is None or judged.verdict is None or judged.problem or total <= 0:
        return Point(at, is_gap=True)
    verdict, ratio = judged.verdict, judged.verdict.ratio
    return Point(
        at,
        is_gap=False,
        bad=_short(math.fsum(each.bad for each in updated)),
        total=_short(total),
        other_bad=_short(math.fsum(each.bad for each in interval.others)),
        other_total=_short(math.fsum(each.total for each in interval.others)),
        log10_evidence=_short(verdict.log10_evidence),
        log10_without=_short(verdict.log10_without),
        estimate=None if ratio is None or ratio.estimate is None else _short(ratio.estimate),
        lower=None if ratio is None else _short(ratio.lower),
        upper=None if ratio is None or ratio.upper is None else _short(ratio.upper),
    )


def _short(value: float) -> float:
    """Digits enough for a picture."""
    return float(f"{value:.{_DIGITS}g}")


def _merged(one: Point, other: Point) -> Point:
    """Counts are added; evidence that was high stays to be seen, and all else is that of the later one."""
    if one.is_gap or other.is_gap:
        return msgspec.structs.replace(one if other.is_gap else other, at=other.at)
    return msgspec.structs.replace(
        other,
        bad=_short(one.bad + other.bad),
        total=_short(one.total + other.total),
        other_bad=_short(one.other_bad + other.other_bad),
        other_total=_short(one.other_total + other.other_total),
        log10_evidence=max(one.log10_evidence, other.log10_evidence),
        log10_without=max(one.log10_without, other.log10_without),
    )
