"""Figures about many rollouts: from real ones, by the records that engines and people wrote of them."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from checkpoint.audit import Record, read_record
from checkpoint.chronicle import chronicle
from checkpoint.rollout import events as ev
from checkpoint.statistics import Span, Statistics, measure
from fleet import ConsulSettings, ConsulStore
from fleet.devserver import DevServer
from fleet.keys import audit_prefix
from tests.rollout_world import MONDAY, Fleet, RolloutWorld, names

SMALL = {"staging": 2, "canary": 3, "prod": 10}
WEEK = timedelta(weeks=1)


@pytest.fixture
async def world() -> AsyncIterator[RolloutWorld]:
    async with DevServer() as server, ConsulStore(ConsulSettings(address=server.address)) as store:
        fresh = RolloutWorld(store, Fleet(store, names(SMALL)))
        await fresh.order_everywhere()
        yield fresh


async def records_of(world: RolloutWorld) -> list[Record]:
    return [read_record(entry.value) for entry in await world.store.read_prefix(audit_prefix("shop"))]


async def lift(world: RolloutWorld, build_id: str) -> None:
    await world.desk.guarding.unlock(world.origin())
    await world.desk.guarding.allow(build_id, world.origin())


async def test_the_figures_of_real_rollouts(world: RolloutWorld) -> None:
    """A good one, one that the engine rolls back, one aborted, one that a person rolls back; a quiet week between."""
    await world.start("b2")
    await world.until(lambda now: now.rollout.is_ended, step_s=10.0)
    world.time.pass_(2 * WEEK.total_seconds())

    world.fleet.bad = {"b3"}
    await world.start("b3")
    await world.until_ended()
    await lift(world, "b3")
    world.fleet.bad = set()

    await world.start("b4")
    await world.until(lambda now: now.rollout.phase_name == "baking")
    await world.act(ev.AbortRequested())

    await world.start("b5")
    await world.until(lambda now: now.rollout.phase_name == "baking" and now.rollout.phase.step == 2)
    world.time.pass_(600.0)
    await world.act(ev.RollbackRequested())

    records = await records_of(world)
    by_what = {(record.rollout, record.what, record.step): record.at for record in records}
    cuts = {"b2": MONDAY - timedelta(hours=2), "b9": MONDAY}
    found = measure(records, cuts, world.time.wall)

    assert found.since == records[0].at
    assert (found.first_record, found.covered, found.cut_off, found.without_cut) == (1, (1, 4), 0, 0)
    overall = found.overall
    assert overall is not None
    assert (overall.started, overall.deploys, overall.under_way) == (4, 4, 0)
    assert (overall.finished, overall.aborted, overall.rolled_back) == (1, 1, 2)
    assert overall.rollback_rate == 0.5
    days = (world.time.wall - records[0].at) / timedelta(days=1)
    assert overall.deploys_per_day == pytest.approx(4 / days)
    lead_s = (by_what[1, "arrived", 6] - cuts["b2"]).total_seconds()
    assert overall.lead == Span(count=1, median_s=lead_s, p90_s=lead_s)
    lasted_s = (by_what[1, "finished", 6] - by_what[1, "started", 0]).total_seconds()
    assert lasted_s >= 7 * 60
    assert overall.duration == Span(count=1, median_s=lasted_s, p90_s=lasted_s)
    # The build failed its proof in staging at once. The last one was seen by a person: nobody knows when.
    assert overall.detect == Span(count=1, median_s=0.0, p90_s=0.0)
    assert overall.roll_back == Span(count=1, median_s=0.0, p90_s=0.0)

    assert [week.started for week in found.weeks] == [3, 0, 1]
    quiet = found.weeks[1]
    assert (quiet.deploys_per_day, quiet.rollback_rate, quiet.lead, quiet.duration) == (0.0, None, None, None)
    assert found.weeks[-1].begins == records[0].at
    assert found.weeks[-1].ends == found.weeks[1].begins == datetime(2026, 11, 30, tzinfo=UTC)


async def test_trouble_that_the_engine_sees_first_tells_when_it_was_detected(world: RolloutWorld) -> None:
    """Hosts fall silent, the engine pauses, a person rolls back five minutes later: both times are known."""
    await world.start()
    await world.until(lambda now: now.rollout.phase_name == "baking" and now.rollout.phase.step == 1, step_s=30.0)
    for host in ("canary-00", "canary-01"):
        await world.fleet.silence("canary", host)
    await world.until(lambda now: now.rollout.phase_name == "paused")
    world.time.pass_(300.0)
    await world.act(ev.RollbackRequested())
    records = await records_of(world)
    [run] = chronicle(records).values()
    found = measure(records, {}, world.time.wall).overall
    assert found is not None
    assert run.ordered is not None
    paused = next(record.at for record in records if record.what == "paused")
    detected_s = (paused - run.ordered).total_seconds()
    assert detected_s >= 900.0  # silent hosts count from their deadline on
    assert found.detect == Span(count=1, median_s=detected_s, p90_s=detected_s)
    assert found.roll_back == Span(count=1, median_s=300.0, p90_s=300.0)


async def test_a_pause_that_somebody_resumed_or_a_clock_detects_nothing(world: RolloutWorld) -> None:
    await world.start()
    await world.until(lambda now: now.rollout.phase_name == "baking" and now.rollout.phase.step == 1)
    world.time.wall += timedelta(hours=1)
    await world.until(lambda now: now.rollout.phase_name == "paused")
    await world.act(ev.RollbackRequested())
    found = measure(await records_of(world), {}, world.time.wall).overall
    assert found is not None
    assert (found.rolled_back, found.detect, found.roll_back) == (1, None, None)


async def test_a_step_that_was_passed_over_gives_no_lead_time(world: RolloutWorld) -> None:
    """Nobody saw all hosts run the build."""
    await world.start()
    await world.until(lambda now: now.rollout.phase_name == "baking" and now.rollout.phase.step == 5)
    await world.act(ev.AdvanceRequested())
    world.fleet.dead = {host for _, host in world.fleet.hosts}
    await world.until(lambda now: now.rollout.phase_name == "deploying" and now.rollout.phase.step == 6)
    await world.act(ev.AdvanceRequested())
    found = measure(await records_of(world), {"b2": MONDAY}, world.time.wall).overall
    assert found is not None
    assert (found.finished, found.lead) == (1, None)


async def test_a_rollout_that_finished_and_went_back_counts_as_rolled_back(world: RolloutWorld) -> None:
    await world.start()
    await world.until_ended()
    await world.act(ev.RollbackRequested())
    found = measure(await records_of(world), {"b2": MONDAY}, world.time.wall)
    assert found.overall is not None
    assert (found.overall.finished, found.overall.rolled_back, found.overall.rollback_rate) == (0, 1, 1.0)
    assert found.overall.duration is not None
    assert found.overall.lead is not None
    assert found.overall.deploys_per_day is None  # of less than a day there is no such figure


async def test_a_rollout_of_which_the_start_was_archived_counts_nowhere(world: RolloutWorld) -> None:
    await world.start()
    await world.until_ended()
    await world.start("b3")
    await world.until_ended()
    records = await records_of(world)
    cut = next(record.number for record in records if record.what == "arrived")
    found = measure(records[cut:], {}, world.time.wall)
    assert (found.first_record, found.covered, found.cut_off, found.without_cut) == (cut + 1, (2, 2), 1, 1)
    assert found.overall is not None
    assert found.overall.started == 1


def test_of_nothing_nothing_is_known() -> None:
    assert measure([], {}, MONDAY) == Statistics(
        since=None, first_record=0, covered=None, cut_off=0, without_cut=0, overall=None, weeks=()
    )


def record(number: int, what: str, at: datetime, message: str = "", step: int | None = None) -> Record:
    return Record(
        v=1,
        number=number,
        at=at,
        by="checkpoint@x",
        via="engine",
        what=what,
        message=message,
        rollout=number,
        step=step,
    )


@given(lengths=some.lists(some.integers(0, 10**6), min_size=1, max_size=60))
def test_medians_and_percentiles_are_of_the_times_that_there_were(lengths: list[int]) -> None:
    """Nine in ten did not exceed the 90th percentile, and it is one of the times."""
    records = []
    for number, length in enumerate(lengths, start=1):
        ends = MONDAY + timedelta(seconds=length)
        records += [
            record(number, "started", MONDAY, f"rollout {number} of b{number} starts: prod"),
            record(number, "ordered", MONDAY, "prod to 100 % is ordered: 1 hosts", 0),
            record(number, "finished", ends, step=0),
        ]
    found = measure(records, {}, MONDAY + WEEK)
    assert found.overall is not None
    duration = found.overall.duration
    assert duration is not None
    assert duration.count == len(lengths)
    assert duration.median_s == statistics.median(lengths)
    assert duration.p90_s in lengths
    assert sum(length <= duration.p90_s for length in lengths) >= 0.9 * len(lengths)
    assert sum(length < duration.p90_s for length in lengths) < 0.9 * len(lengths)


def test_clocks_that_contradict_each_other_give_no_time() -> None:
    records = [
        record(1, "started", MONDAY, "rollout 1 of b1 starts: prod"),
        record(1, "ordered", MONDAY, "prod to 100 % is ordered: 1 hosts", 0),
        record(1, "arrived", MONDAY, step=0),
        record(1, "finished", MONDAY - timedelta(seconds=5), step=0),
    ]
    found = measure(records, {"b1": MONDAY + timedelta(seconds=9)}, MONDAY).overall
    assert found is not None
    assert (found.finished, found.duration, found.lead) == (1, None, None)
