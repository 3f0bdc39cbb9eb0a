"""Hosts that join a tier during a rollout, on both stores: they run what the whole tier was admitted to last."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from checkpoint.rollout import events as ev
from checkpoint.rollout import states as st
from fleet import ConsulStore
from fleet.keys import host_key
from tests.rollout_world import SIZES, Fleet, RolloutWorld

NEWCOMERS = [f"prod-{number}" for number in range(100, 130)]
"""So many that, were they to draw places, some would take part in each share."""


@pytest.fixture
async def world(store: ConsulStore) -> AsyncIterator[RolloutWorld]:
    fresh = RolloutWorld(store, Fleet(store))
    await fresh.order_everywhere()
    yield fresh
    for entry in await store.read_prefix("hotcold/shop/"):
        await store.delete(entry.key)
    for tier, host in fresh.fleet.hosts:
        await store.deregister(fresh.fleet.service(tier, host))


async def reach(world: RolloutWorld, name: str, step: int) -> None:
    await world.until(lambda ongoing: (ongoing.rollout.phase_name, ongoing.rollout.phase.step) == (name, step))


def builds(world: RolloutWorld, tier: str, hosts: list[str]) -> set[str | None]:
    return {world.fleet.hot.get((tier, host)) for host in hosts}


def of_the_plan(world: RolloutWorld, build_id: str) -> int:
    return len([host for host in world.fleet.running("prod", build_id) if host not in NEWCOMERS])


async def test_in_a_tier_that_is_through_it_runs_the_new_build(world: RolloutWorld) -> None:
    await world.start()
    await reach(world, "baking", 2)
    await world.fleet.add("canary", "canary-9")
    assert builds(world, "canary", ["canary-9"]) == {"b2"}
    await reach(world, "baking", 4)


async def test_in_a_tier_that_was_not_reached_it_runs_the_build_before(world: RolloutWorld) -> None:
    await world.start()
    await reach(world, "baking", 0)
    await world.fleet.add("prod", *NEWCOMERS)
    assert builds(world, "prod", NEWCOMERS) == {"b1"}
    plan = (await world.now()).plan
    for step in (2, 3):
        await reach(world, "baking", step)
        assert builds(world, "prod", NEWCOMERS) == {"b1"}
        assert sorted(world.fleet.running("prod", "b2")) == sorted(plan.hosts_of(step))


@pytest.mark.parametrize("has_reported", [False, True])
async def test_at_25_percent_it_runs_the_build_before_and_the_share_stays_exact(
    world: RolloutWorld, *, has_reported: bool
) -> None:
    """Whether it sees the order before it has reported, or after."""
    plan = await world.start()
    await reach(world, "baking", 3)
    if has_reported:
        world.fleet.dead.update(NEWCOMERS)
        await world.fleet.add("prod", *NEWCOMERS)
        for host in NEWCOMERS:
            await world.fleet.report("prod", host)
        world.fleet.dead.clear()
        await world.fleet.turn()
    else:
        await world.fleet.add("prod", *NEWCOMERS)
    assert builds(world, "prod", NEWCOMERS) == {"b1"}
    for step, count in ((3, 5), (4, 10), (5, 15)):
        await reach(world, "baking", step)
        assert sorted(world.fleet.running("prod", "b2")) == sorted(plan.hosts_of(step))
        assert of_the_plan(world, "b2") == count
    await world.until_ended()
    assert len(world.fleet.running("prod", "b2")) == SIZES["prod"] + len(NEWCOMERS)


async def test_after_an_abort_at_25_percent_it_runs_the_build_before(world: RolloutWorld) -> None:
    await world.start()
    await reach(world, "baking", 3)
    await world.act(ev.AbortRequested())
    await world.fleet.add("prod", *NEWCOMERS)
    assert builds(world, "prod", NEWCOMERS) == {"b1"}
    assert of_the_plan(world, "b2") == 5
    # The next rollout knows them: they count, and what all were admitted to is still the first build.
    plan = await world.start("b3")
    assert plan.tier("prod").previous is not None
    assert plan.tier("prod").previous.id == "b1"
    assert len(plan.tier("prod").hosts) == SIZES["prod"] + len(NEWCOMERS)
    await reach(world, "baking", 3)
    assert sorted(world.fleet.running("prod", "b3")) == sorted(plan.hosts_of(3))
    assert len(plan.hosts_of(3)) == 13


async def test_after_a_rollback_it_runs_the_build_before(world: RolloutWorld) -> None:
    await world.start()
    await reach(world, "baking", 3)
    await world.act(ev.RollbackRequested())
    await world.fleet.add("prod", *NEWCOMERS)
    await world.fleet.add("canary", "canary-9")
    assert builds(world, "prod", NEWCOMERS) == {"b1"}
    assert builds(world, "canary", ["canary-9"]) == {"b1"}


async def test_without_an_engine_it_runs_the_build_before(world: RolloutWorld) -> None:
    """Nobody but the store lives: what a host needs to know is in the order."""
    await world.start()
    await reach(world, "baking", 3)
    await world.fleet.add("prod", *NEWCOMERS)
    assert builds(world, "prod", NEWCOMERS) == {"b1"}


async def test_a_host_that_lost_its_disk_keeps_its_place(world: RolloutWorld) -> None:
    """It has reported before: it is no newcomer, and the share stays exact."""
    plan = await world.start()
    await reach(world, "baking", 3)
    again = plan.hosts_of(3)[0]
    world.fleet.obeyed.pop(("prod", again))
    world.fleet.hot.pop(("prod", again))
    await world.fleet.turn()
    assert world.fleet.hot["prod", again] == "b2"
    assert sorted(world.fleet.running("prod", "b2")) == sorted(plan.hosts_of(3))


async def test_a_first_rollout_leaves_newcomers_without_a_build_until_all_have_it(store: ConsulStore) -> None:
    """Nothing was ever admitted, so there is nothing to run."""
    world = RolloutWorld(store, Fleet(store))
    await world.fleet.start()
    try:
        plan = await world.start()
        await reach(world, "baking", 3)
        await world.fleet.add("prod", *NEWCOMERS)
        assert builds(world, "prod", NEWCOMERS) == {None}
        assert sorted(world.fleet.running("prod", "b2")) == sorted(plan.hosts_of(3))
        await world.until_ended()
        assert builds(world, "prod", NEWCOMERS) == {"b2"}
    finally:
        for entry in await store.read_prefix("hotcold/shop/"):
            await store.delete(entry.key)
        for tier, host in world.fleet.hosts:
            await store.deregister(world.fleet.service(tier, host))


async def test_nobody_waits_for_a_newcomer_at_100_percent_but_its_failed_proof_counts(world: RolloutWorld) -> None:
    """It was not there when the order's time began to run; what it says of the build is evidence all the same."""
    await world.start()
    await reach(world, "baking", 6)
    world.time.pass_(3600.0)  # past every deadline of the step
    world.fleet.dead.update(NEWCOMERS[:10])
    await world.fleet.add("prod", *NEWCOMERS[:10])
    for host in NEWCOMERS[:10]:
        await world.fleet.report("prod", host)
    ended = await world.until_ended()
    assert isinstance(ended.rollout.phase, st.Finished)


async def test_newcomers_at_100_percent_that_fail_their_proof_condemn_the_build(world: RolloutWorld) -> None:
    await world.start()
    await reach(world, "baking", 6)
    world.fleet.unproved = dict.fromkeys(NEWCOMERS, "b2")
    await world.fleet.add("prod", *NEWCOMERS)
    ended = await world.until_ended()
    assert isinstance(ended.rollout.phase, st.RolledBack)
    assert "30 of 50 hosts failed the proof" in ended.rollout.phase.reason


async def test_a_host_of_the_plan_whose_report_was_deleted_keeps_its_place(world: RolloutWorld) -> None:
    """The next order's index is drawn so that it is known again."""
    plan = await world.start()
    await reach(world, "baking", 2)
    back = next(host for host in plan.hosts_of(3) if host not in plan.hosts_of(2))
    await world.store.delete(host_key("shop", "prod", back))
    await world.fleet.report("prod", back)
    await world.act(ev.AdvanceRequested())
    await world.engine.look()
    await world.engine.step()
    await world.fleet.turn()
    assert sorted(world.fleet.running("prod", "b2")) == sorted(plan.hosts_of(3))
