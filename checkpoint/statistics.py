"""Owns the figures about many rollouts: how fast, how often, how many went back, overall and by week. Pure.

What is known of each rollout is left to `checkpoint.chronicle`. What is not known is None and counts nowhere: a figure
always says of how many rollouts it is.

What they mean. *Deploy*: a rollout that ordered at least one host to run its build; of the week in which it started.
*Lead time*: from the cut of the build to the moment when all hosts of the last tier ran it. *Duration*: from start to
finish. *Time to detect*, of a rollout that was rolled back: from the first order to the moment when the engine saw
trouble, by pausing or by rolling back; not known where only people saw it. *Time to roll back*: from then to the order
back; zero where the engine rolled back at once. *Rollback rate*: of the deploys that have ended.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from checkpoint.audit import Record
from checkpoint.chronicle import Run, chronicle

HIGH: Final = 0.9
_DAY_S: Final = 86400.0


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Times of some rollouts, in seconds: the median, and what nine in ten did not exceed."""

    count: int
    median_s: float
    p90_s: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures about the rollouts that started within a time.

    Attributes:
        begins: of that time.
        ends: of that time; not later than now.
        started: rollouts that started, whatever became of them.
        deploys: those that ordered at least one host.
        finished, aborted, rolled_back: deploys that ended so; one that finished and was rolled back later counts there.
        under_way: deploys that have not ended.
        deploys_per_day: over all days of that time; None: it lasted less than a day.
        rollback_rate: rolled back, of the deploys that ended; None: none did.
    """

    begins: datetime
    ends: datetime
    started: int
    deploys: int
    finished: int
    aborted: int
    rolled_back: int
    under_way: int
    deploys_per_day: float | None
    rollback_rate: float | None
    lead: Span | None
    duration: Span | None
    detect: Span | None
    roll_back: Span | None


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an app's rollouts.

    Attributes:
        since: when the first record was written that is still there; None: there is none.
        first_record: its number; above 1: those before it were archived.
        covered: numbers of the rollouts that count, the first and the last; None: there is none.
        cut_off: rollouts of which the start is not in the records: they count nowhere.
        without_cut: deploys that finished and have no lead time, because their build has no record.
        weeks: from Monday 00:00 UTC, the newest first; weeks without a rollout are among them.
    """

    since: datetime | None
    first_record: int
    covered: tuple[int, int] | None
    cut_off: int
    without_cut: int
    overall: Figures | None
    weeks: tuple[Figures, ...]


def measure(records: Sequence[Record], cuts: Mapping[str, datetime], now: datetime) -> Statistics:
    """The figures.

    Args:
        records: of the audit, in their order.
        cuts: when each build was cut, by its id, where that is known.
        now: wall-clock time, aware.
    """
    runs = chronicle(records).values()
    known = [run for run in runs if run.started is not None]
    since = records[0].at if records else None
    overall = None if since is None else _figures(known, cuts, since, max(now, since))
    return Statistics(
        since=since,
        first_record=records[0].number if records else 0,
        covered=(known[0].number, known[-1].number) if known else None,
        cut_off=len(runs) - len(known),
        without_cut=sum(run.finished is not None and run.build not in cuts for run in known),
        overall=overall,
        weeks=() if since is None else _weeks(known, cuts, since, max(now, since)),
    )


def _weeks(runs: Sequence[Run], cuts: Mapping[str, datetime], since: datetime, now: datetime) -> tuple[Figures, ...]:
    weeks = []
    begins = _monday(since)
    while begins <= now:
        ends = begins + timedelta(weeks=1)
        those = [run for run in runs if run.started is not None and begins <= run.started < ends]
        weeks.append(_figures(those, cuts, max(begins, since), min(ends, now)))
        begins = ends
    return tuple(reversed(weeks))


def _monday(at: datetime) -> datetime:
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=day.weekday())


def _figures(runs: Sequence[Run], cuts: Mapping[str, datetime], begins: datetime, ends: datetime) -> Figures:
    deploys = [run for run in runs if run.ordered is not None]
    ended = [run for run in deploys if run.outcome != "under_way"]
    back = [run for run in ended if run.outcome == "rolled_back"]
    days = (ends - begins).total_seconds() / _DAY_S
    return Figures(
        begins=begins,
        ends=ends,
        started=len(runs),
        deploys=len(deploys),
        finished=sum(run.outcome == "finished" for run in ended),
        aborted=sum(run.outcome == "aborted" for run in ended),
        rolled_back=len(back),
        under_way=len(deploys) - len(ended),
        deploys_per_day=len(deploys) / days if days >= 1 else None,
        rollback_rate=len(back) / len(ended) if ended else None,
        lead=_span(deploys, lambda run: _between(cuts.get(run.build), run.complete)),
        duration=_span(deploys, lambda run: _between(run.started, run.finished)),
        detect=_span(back, lambda run: _between(run.ordered, _detected(run))),
        roll_back=_span(back, lambda run: _between(_detected(run), run.ended)),
    )


def _detected(run: Run) -> datetime | None:
    """When the engine saw that something was wrong; None: people saw it first, nobody knows when."""
    if run.doubted is not None:
        return run.doubted
    return run.ended if run.is_by_engine else None


def _between(begins: datetime | None, ends: datetime | None) -> float | None:
    """Seconds; None where an end is not known, or clocks of two machines contradict each other."""
    if begins is None or ends is None or ends < begins:
        return None
    return (ends - begins).total_seconds()


def _span(runs: Iterable[Run], of: Callable[[Run], float | None]) -> Span | None:
    times = sorted(each for each in map(of, runs) if each is not None)
    if not times:
        return None
    return Span(count=len(times), median_s=statistics.median(times), p90_s=times[math.ceil(HIGH * len(times)) - 1])
