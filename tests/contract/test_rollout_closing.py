"""Windows over a whole rollout: what cannot end before closing does not start, and before closing somebody chooses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from checkpoint.rollout import events as ev
from checkpoint.rollout import states as st
from checkpoint.rollout.timetable import expected
from fleet import ConsulStore
from tests.rollout_world import Fleet, RolloutWorld, Time

# 5 steps of 5 + 5 minutes: prod takes 50 minutes.
PIPELINE = """
app = "shop"
[[tiers]]
name = "staging"
bake_s = 60
[[tiers]]
name = "prod"
steps = [10, 25, 50, 75, 100]
bake_s = 300
expect_s = 300
[[windows]]
name = "office"
zone = "Europe/Berlin"
opens = 09:00:00
closes = 17:00:00
tiers = ["prod"]
holidays = [2026-11-25]
"""
HOSTS = [("staging", "staging-0"), *(("prod", f"prod-{number}") for number in range(10))]


def utc(hour: int, minute: int = 0, day: int = 23, month: int = 11) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


@pytest.fixture
async def world(store: ConsulStore) -> AsyncIterator[RolloutWorld]:
    fresh = RolloutWorld(store, Fleet(store, HOSTS), PIPELINE)
    await fresh.order_everywhere()
    yield fresh
    for entry in await store.read_prefix("hotcold/shop/"):
        await store.delete(entry.key)
    for tier, host in HOSTS:
        await store.deregister(fresh.fleet.service(tier, host))


def begin_at(world: RolloutWorld, at: datetime) -> None:
    world.time = Time(at)
    world.engine = world.new_engine(world.store)


async def holds(world: RolloutWorld) -> list[st.Hold]:
    phase = (await world.settle()).rollout.phase
    return list(phase.holds) if isinstance(phase, st.Ready) else []


async def keep_command(world: RolloutWorld, hours: int = 100) -> None:
    await world.desk.guarding.take_command(world.origin(), timedelta(hours=hours))


async def test_a_tier_that_cannot_be_through_before_closing_does_not_start(world: RolloutWorld) -> None:
    """15:10 UTC is 16:10 in Berlin: staging goes, prod waits for the day after the next, the 25th being a holiday."""
    begin_at(world, utc(15, 10, day=24))
    plan = await world.start()
    await keep_command(world)
    await world.until(lambda ongoing: ongoing.rollout.phase.step == 1)
    [hold] = await holds(world)
    assert hold.kind == "window"
    assert "what remains in prod takes 50 min and would not end before 2026-11-24T16:00" in hold.message
    assert "next at 2026-11-26T08:00" in hold.message
    assert world.fleet.running("prod", "b2") == []
    begins = expected(plan, utc(15, 10, day=24))[1].begins
    assert begins == utc(8, day=26)
    world.time.pass_((begins - world.time.wall).total_seconds())
    ended = await world.until_ended()
    assert isinstance(ended.rollout.phase, st.Finished)


async def test_the_same_tier_starts_a_little_earlier(world: RolloutWorld) -> None:
    begin_at(world, utc(15, 5))
    await world.start()
    await world.until(lambda ongoing: ongoing.rollout.phase.step == 1 and ongoing.rollout.phase_name == "baking")


async def in_the_middle_before_closing(world: RolloutWorld) -> None:
    """Half of prod has the build, a pause took its time, and the rest will not be done before closing."""
    begin_at(world, utc(14, 0))
    await world.start()
    await keep_command(world)
    await world.until(lambda ongoing: ongoing.rollout.phase.step == 3 and ongoing.rollout.phase_name == "baking")
    await world.act(ev.PauseRequested())
    world.time.pass_((utc(15, 50) - world.time.wall).total_seconds())
    await world.act(ev.ResumeRequested({}))


async def test_before_closing_somebody_must_choose_and_nothing_goes_on_until_then(world: RolloutWorld) -> None:
    await in_the_middle_before_closing(world)
    ongoing = await world.settle()
    assert ongoing.rollout.closing == st.Closing(at=utc(16))
    await world.until(lambda each: each.rollout.phase_name == "ready")
    [hold] = await holds(world)
    assert hold.kind == "closing"
    assert "choose finish, hold or rollback" in hold.message


async def test_finish_goes_on_beyond_closing(world: RolloutWorld) -> None:
    await in_the_middle_before_closing(world)
    assert (await world.act(ev.ClosingDecided("finish"), reason="I stay")).is_done
    assert not (await world.act(ev.ClosingDecided("finish"), reason="I stay")).is_done
    ended = await world.until_ended()
    assert isinstance(ended.rollout.phase, st.Finished)
    assert world.time.wall > utc(16)


async def test_finish_does_not_hold_for_ever(world: RolloutWorld) -> None:
    """After the time that it was given for, the closed window counts again."""
    await in_the_middle_before_closing(world)
    await world.act(ev.ClosingDecided("finish"), reason="I stay")
    await world.act(ev.PauseRequested())
    world.time.pass_(6 * 3600)
    await world.act(ev.ResumeRequested({}))
    await world.until(lambda each: each.rollout.phase_name == "ready")
    assert [hold.kind for hold in await holds(world)] == ["window"]


async def test_hold_stays_over_closing_with_its_owner_and_goes_on_when_it_opens(world: RolloutWorld) -> None:
    await in_the_middle_before_closing(world)
    await world.act(ev.ClosingDecided("hold"), reason="on call: anna")
    await world.until(lambda each: each.rollout.phase_name == "ready")
    [hold] = await holds(world)
    assert "prod is held over closing, watched by anna@desk; next at 2026-11-24T08:00" in hold.message
    ran = sorted(world.fleet.running("prod", "b2"))
    world.time.pass_((utc(7, 59, day=24) - world.time.wall).total_seconds())
    assert [each.kind for each in await holds(world)] == ["closing"]
    assert sorted(world.fleet.running("prod", "b2")) == ran
    world.time.pass_(60)
    ended = await world.until_ended()
    assert isinstance(ended.rollout.phase, st.Finished)


async def test_a_rollback_needs_no_window(world: RolloutWorld) -> None:
    await in_the_middle_before_closing(world)
    world.time.pass_((utc(23) - world.time.wall).total_seconds())
    assert (await world.act(ev.RollbackRequested(), "bob@phone", reason="errors")).is_done
    await world.fleet.turn()
    assert world.fleet.running("prod", "b2") == []


async def test_an_override_pierces_the_window_until_it_expires(world: RolloutWorld) -> None:
    begin_at(world, utc(20))
    await world.start(override=timedelta(minutes=20))
    await keep_command(world)
    await world.until(lambda each: each.rollout.phase.step == 3)
    await world.until(lambda each: each.rollout.phase_name == "ready" and bool(each.rollout.phase.holds))  # type: ignore[union-attr]
    assert world.time.wall >= utc(20, 20)
    assert 0 < len(world.fleet.running("prod", "b2")) < 10


async def test_clocks_that_change_inside_a_window_are_counted(store: ConsulStore) -> None:
    """29 March 2026: from 01:00 to 03:45 in Berlin are 105 minutes, so what takes 50 must start by 01:55."""
    text = PIPELINE.replace("09:00:00", "01:00:00").replace("17:00:00", "03:45:00")
    text = text.replace("holidays = [2026-11-25]", 'days = ["sun"]')
    world = RolloutWorld(store, Fleet(store, HOSTS), text)
    await world.order_everywhere()
    begin_at(world, utc(0, 40, day=29, month=3))  # 01:40; by the wall it is two hours to closing, and really 65 minutes
    await world.start()
    await world.until(lambda each: each.rollout.phase.step == 1)
    assert (await world.settle()).rollout.phase_name == "baking"
    await world.act(ev.RollbackRequested(), reason="again, later")
    await world.desk.guarding.unlock(world.origin())
    begin_at(world, utc(0, 56, day=29, month=3))  # 49 minutes before 03:45
    await world.start("b3")
    await keep_command(world)
    await world.until(lambda each: each.rollout.phase.step == 1)
    [hold] = await holds(world)
    assert "would not end before 2026-03-29T01:45" in hold.message
    for entry in await store.read_prefix("hotcold/shop/"):
        await store.delete(entry.key)
    for tier, host in HOSTS:
        await store.deregister(world.fleet.service(tier, host))
