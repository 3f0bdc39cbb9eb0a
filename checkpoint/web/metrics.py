"""Owns how the metrics of a rollout are shown: chips, reasons in words, last values, and the data of charts. Pure.

How metrics stand is left to `checkpoint.rollout.kept_evidence`; drawing, to templates and `charts.js`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from checkpoint.rollout.kept_evidence import MetricView, Standing
from checkpoint.rollout.plan import Plan
from checkpoint.rollout.states import Aborted, RolledBack, Rollout
from checkpoint.series import Point, Series
from checkpoint.verdicts import Metric, z_scores
from checkpoint.verdicts.wording import as_number, times_in_words

_WORDS: Final[Mapping[Standing, str]] = {
    "go": "pass",
    "wait": "none",
    "set_aside_host": "fail: set a host aside",
    "pause": "fail: pause",
    "roll_back": "fail: roll back",
    "idle": "not asked",
}
_Z_WINDOW: Final = 15
_LOG10: Final = math.log(10)


@dataclass(frozen=True)
class MetricRow:
    """One metric on a page.

    Attributes:
        place: its number among the plan's metrics, for names of elements.
        words: its verdict in a few words.
        source: where its counts come from.
        last: what the last interval showed, as (what, value) in the order in which it is told.
    """

    place: int
    view: MetricView
    words: str
    source: str
    last: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """Of the metric."""
        return self.view.metric.name


def metric_rows(views: Sequence[MetricView], series: Series) -> tuple[MetricRow, ...]:
    """A row for each metric of the plan."""
    return tuple(
        MetricRow(
            place=place,
            view=view,
            words=_WORDS[view.standing],
            source=source_of(view.metric),
            last=_last(view, series.metrics.get(view.metric.name, ())),
        )
        for place, view in enumerate(views)
    )


def source_of(metric: Metric) -> str:
    """Where a metric's counts come from, without what nobody else should read: passwords, queries, arguments."""
    if metric.prometheus is not None:
        return f"Prometheus at {_host(metric.prometheus.url)}"
    if metric.http is not None:
        return f"HTTP from {_host(metric.http.url)}"
    if metric.command is not None:
        return f"the command {metric.command.argv[0]}"
    return "the agents' reports"


def drawing(plan: Plan, rollout: Rollout, views: Sequence[MetricView], series: Series) -> dict[str, Any]:
    """Everything that charts of a rollout are drawn from; see docs/checkpoint-ui.md."""
    return {
        "number": plan.number,
        "metrics": [_track(view, series.metrics.get(view.metric.name, ())) for view in views],
        "marks": _marks(rollout, series),
    }


def newest(rollout: Rollout, views: Sequence[MetricView], series: Series) -> dict[str, Any]:
    """The same, of the last point of each metric; `before` is when the last but one was, None where there is none."""
    tracks = []
    for view in views:
        points = series.metrics.get(view.metric.name, ())
        before = points[-2].at if len(points) > 1 else None
        tracks.append({**_track(view, points[-1:]), "before": before})
    return {"metrics": tracks, "marks": _marks(rollout, series)}


def _track(view: MetricView, points: Sequence[Point]) -> dict[str, Any]:
    metric = view.metric

    def each(value: Callable[[Point], float | None]) -> list[float | None]:
        return [None if point.is_gap else value(point) for point in points]

    return {
        "name": metric.name,
        "kind": metric.kind,
        "limit": metric.limit,
        "tolerance": metric.tolerance if metric.limit is None else 1.0,
        "lines": [
            {"name": "wait", "at": round(math.log10(metric.wait_at), 4)},
            {"name": "pause", "at": round(math.log10(metric.pause_at * view.among), 4)},
            {"name": "roll back", "at": round(math.log10(metric.roll_back_at * view.among), 4)},
        ],
        "at": [point.at for point in points],
        "updated": each(lambda point: _rate(point.bad, point.total)),
        "others": each(lambda point: _rate(point.other_bad, point.other_total)),
        "evidence": each(lambda point: point.log10_evidence),
        "without": each(lambda point: point.log10_without),
        "ratio": each(lambda point: point.estimate),
        "lower": each(lambda point: point.lower),
        "upper": each(lambda point: point.upper),
    }


def _marks(rollout: Rollout, series: Series) -> list[dict[str, Any]]:
    marks = [{"at": mark.at, "name": mark.name} for mark in series.marks]
    if isinstance(rollout.phase, (RolledBack, Aborted)):
        marks.append({"at": int(rollout.phase.since.timestamp()), "name": rollout.phase_name.replace("_", " ")})
    return marks


def _last(view: MetricView, points: Sequence[Point]) -> tuple[tuple[str, str], ...]:
    if not points:
        return ()
    point = points[-1]
    if point.is_gap:
        return (("Last interval", "nothing is known of it"),)
    metric, verdict = view.metric, view.verdict
    cells = [("Updated hosts", f"{_rate_in_words(metric, point.bad, point.total)}")]
    if metric.limit is not None:
        cells.append(("Limit", _as_rate(metric, metric.limit)))
    elif point.other_total > 0:
        cells.append(("Not yet updated", _rate_in_words(metric, point.other_bad, point.other_total)))
    else:
        cells.append(("Not yet updated", "none is left"))
    if point.lower is not None:
        cells.append(("Times as frequent", _ratio_in_words(point)))
    # The verdict has the digits that its reason has.
    known = point if verdict is None else verdict
    cells.append(("Evidence", as_number(known.log10_evidence * _LOG10)))
    if verdict is not None and not verdict.is_weak:
        cells.append(("Without any one host", as_number(known.log10_without * _LOG10)))
    score = _z_score(points)
    if score is not None:
        cells.append(("z-score, decides nothing", f"{score:+.1f}"))
    return tuple(cells)


def _ratio_in_words(point: Point) -> str:
    lower = 0.0 if point.lower is None else point.lower
    estimate = "" if point.estimate is None else f"{times_in_words(point.estimate)}, "
    if point.upper is None:
        return f"{estimate}at least {times_in_words(lower)}"
    return f"{estimate}{times_in_words(lower)} to {times_in_words(point.upper)}"


def _z_score(points: Sequence[Point]) -> float | None:
    rates = [point.bad / point.total for point in points if not point.is_gap and point.total > 0]
    return z_scores(rates, _Z_WINDOW)[-1] if rates else None


def _rate(bad: float, total: float) -> float | None:
    return float(f"{bad / total:.5g}") if total > 0 else None


def _rate_in_words(metric: Metric, bad: float, total: float) -> str:
    return f"{_as_rate(metric, bad / total)}: {bad:g} of {f'{total:,.0f}'.replace(',', ' ')}"


def _as_rate(metric: Metric, value: float) -> str:
    return f"{value * 100:.3g} %" if metric.kind == "share" else f"{value:.3g}"


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]
