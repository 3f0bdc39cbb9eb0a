"""The course of metrics for charts, and how metrics stand: what is kept, how much, and what of it is a gap."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as changed

from checkpoint.rollout import states
from checkpoint.rollout.kept_evidence import AllKept, Judged, Kept, metric_views, view_document
from checkpoint.rollout.machine import begin
from checkpoint.series import (
    MAX_ALL_POINTS,
    MAX_MARKS,
    MAX_POINTS,
    Mark,
    Point,
    Series,
    continued,
    decode_series,
    thinned,
)
from checkpoint.verdicts import Counts, Evidence, Interval, Metric, judge
from checkpoint.verdicts.metric import ReportsTable
from checkpoint.verdicts.recording import Line, Observed, StepBegan
from tests.rollout_world import MONDAY, PIPELINE, a_plan, by

METRIC = Metric(name="errors", reports=ReportsTable())
GOOD = Interval(
    updated=(Counts("new-0", 3.0, 600.0), Counts("new-1", 1.0, 600.0)), others=(Counts("old-0", 2.0, 1200.0),)
)
LOST = Interval(problem="no answer within 10 s")
METRICS = """
[[metrics]]
name = "errors"
command = { argv = ["count"] }
[[metrics]]
name = "deploys"
tiers = ["prod"]
limit = 0.02
reports = {}
"""


def at(number: int) -> int:
    return int((MONDAY + timedelta(minutes=number)).timestamp())


def run(*intervals: Interval, series: Series | None = None, start: int = 0, aside: tuple[str, ...] = ()) -> Series:
    """One look a minute."""
    series, evidence = series or Series(), Evidence(aside=aside)
    for number, interval in enumerate(intervals, start):
        evidence, verdict = judge(METRIC, evidence, interval)
        moment = MONDAY + timedelta(minutes=number)
        judged = Judged(evidence=evidence, verdict=verdict, problem=interval.problem or "")
        kept = Kept(at=moment, metrics={"errors": judged})
        series = continued(series, kept, [Observed(at="", metric="errors", interval=interval)], moment)
    return series


def test_an_interval_becomes_a_point() -> None:
    """Sums of both sides, evidence and ratio; without hosts that are set aside."""
    (point,) = run(GOOD).metrics["errors"]
    assert (point.at, point.is_gap) == (at(0), False)
    assert (point.bad, point.total, point.other_bad, point.other_total) == (4, 1200, 2, 1200)
    assert point.estimate == pytest.approx(2, rel=1e-3)
    assert point.lower is not None
    assert point.upper is not None
    assert point.lower < 2 < point.upper
    (point,) = run(GOOD, aside=("new-0",)).metrics["errors"]
    assert (point.bad, point.total) == (1, 600)


def test_a_source_that_failed_is_a_gap_and_no_zero() -> None:
    """And so is one that says nothing of any updated host."""
    points = run(GOOD, LOST, Interval(others=GOOD.others), GOOD).metrics["errors"]
    assert [point.is_gap for point in points] == [False, True, True, False]


def test_a_point_that_another_engine_drew_is_not_drawn_twice() -> None:
    series = run(GOOD, GOOD)
    again = run(GOOD, series=series, start=1)
    assert [point.at for point in again.metrics["errors"]] == [at(0), at(1)]


def test_orders_of_steps_are_marked() -> None:
    """A step that was resumed says so; marks are bounded."""
    series = Series()
    for number, name in enumerate(("canary", "canary", "canary", "prod to 10 %")):
        kept = Kept(ordered=MONDAY + timedelta(minutes=number))
        series = continued(series, kept, [StepBegan(at="", name=name)], MONDAY)
    assert [mark.name for mark in series.marks] == ["canary", "canary, resumed", "canary, resumed", "prod to 10 %"]
    assert series.marks[1].at == at(1)
    lines: list[Line] = [StepBegan(at="", name=f"step {number}") for number in range(3 * MAX_MARKS)]
    assert len(continued(series, Kept(), lines, MONDAY).marks) == MAX_MARKS


@settings(deadline=None, max_examples=30)
@given(st.lists(st.booleans(), max_size=700), st.integers(8, 60))
def test_long_courses_are_thinned(gaps: list[bool], limit: int) -> None:
    """Never more points than allowed; the newer half as it was; sums are kept, and times rise."""
    points: tuple[Point, ...] = ()
    for number, is_gap in enumerate(gaps):
        point = Point(number, is_gap=True) if is_gap else Point(number, is_gap=False, bad=1.0, total=2.0)
        points = thinned((*points, point), limit)
    assert len(points) <= limit
    times = [point.at for point in points]
    assert times == sorted(set(times))
    if gaps:
        assert times[-1] == len(gaps) - 1
    assert sum(point.bad for point in points) == gaps.count(False)
    newest = min(len(gaps), limit // 4)
    assert times[len(times) - newest :] == list(range(len(gaps) - newest, len(gaps)))


def test_however_many_metrics_it_fits_into_consul() -> None:
    """Its limit for a value is 512 KiB; with one metric, a rollout of a working day is a few of them."""
    long = dict.fromkeys(("bad", "total", "other_bad", "other_total", "log10_evidence", "log10_without"), -1.2346e-109)
    ends = dict.fromkeys(("estimate", "lower", "upper"), 0.12346)
    wide = Point(1_764_000_000, is_gap=False, **long, **ends)
    for count in (1, 10, 100):
        series = Series(
            metrics={
                f"metric-{number}-of-a-long-name": tuple(
                    changed(wide, at=wide.at + minute) for minute in range(MAX_POINTS)
                )
                for number in range(count)
            },
            marks=tuple(Mark(1_764_000_000, "a-tier-of-a-long-name to 12.5 %, resumed") for _ in range(MAX_MARKS)),
        )
        stored = msgspec.json.encode(continued(series, Kept(), [], MONDAY))
        assert len(stored) <= (512 << 10) * 0.75
        assert len(stored) <= 150 * min(count * MAX_POINTS, MAX_ALL_POINTS) + 16_000


def test_what_cannot_be_read_is_begun_anew() -> None:
    for value in (None, b"", b"{", b'{"v": 2}', b'{"v": 1, "metrics": {"errors": [[1]]}}'):
        assert decode_series(value) == Series()
    series = run(GOOD, LOST)
    assert decode_series(msgspec.json.encode(series)) == series


def rollout_at(step: int) -> states.Rollout:
    rollout, _ = begin(a_plan(PIPELINE + METRICS), by())
    return changed(rollout, phase=states.Baking(step=step, since=MONDAY, until=MONDAY))


def stored(kept: Kept) -> bytes:
    return msgspec.json.encode(AllKept(judges={"metrics": msgspec.Raw(msgspec.json.encode(kept))}))


def test_every_metric_of_the_plan_stands_somewhere() -> None:
    """Not for this tier, not looked at yet, judged, and judged with a source that fails now."""
    plan = a_plan(PIPELINE + METRICS)
    errors, deploys = metric_views(plan, rollout_at(0), None)
    assert (errors.standing, errors.outcome, errors.reason) == ("wait", "none", "not looked at yet in this step")
    assert (deploys.standing, deploys.reason) == ("idle", "it says nothing of staging")
    assert (errors.among, deploys.among) == (1, 2)

    evidence, verdict = judge(METRIC, Evidence(), GOOD)
    kept = Kept(at=MONDAY, metrics={"errors": Judged(evidence=evidence, verdict=verdict, problem="gone")})
    view, _ = metric_views(plan, rollout_at(2), stored(kept))
    assert (view.standing, view.outcome, view.reason) == (verdict.action, verdict.outcome, verdict.reason)
    assert (view.problem, view.at, view.among) == ("gone", MONDAY, 2)
    document = view_document(view)
    assert document.ratio is not None
    assert document.ratio.estimate == pytest.approx(2)
    assert document.problem == "gone"
    assert view_document(deploys).ratio is None
    assert metric_views(a_plan(), rollout_at(0), stored(kept)) == ()


@pytest.mark.parametrize(
    "value", [b"x", b'{"v": 1, "judges": {"metrics": 5}}', b'{"v":1,"judges":{"metrics":{"v":2}}}', b"\xff"]
)
def test_damaged_evidence_is_told_and_no_verdict(value: bytes) -> None:
    for view in metric_views(a_plan(PIPELINE + METRICS), rollout_at(2), value):
        assert (view.standing, view.outcome) == ("wait", "none")
        assert "cannot be read" in view.reason
