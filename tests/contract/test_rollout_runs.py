"""A whole rollout, on the embedded store and on a real Consul: plan, steps, pauses, rollbacks, audit."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from checkpoint.rollout import states as st
from fleet import ConsulStore
from fleet.keys import checkpoint_prefix
from tests.rollout_world import SIZES, Fleet, RolloutWorld


@pytest.fixture
async def world(store: ConsulStore) -> AsyncIterator[RolloutWorld]:
    fresh = RolloutWorld(store, Fleet(store))
    await fresh.order_everywhere()
    yield fresh
    for entry in await store.read_prefix("hotcold/shop/"):
        await store.delete(entry.key)
    for tier, host in fresh.fleet.hosts:
        await store.deregister(fresh.fleet.service(tier, host))


async def test_a_good_build_reaches_every_host(world: RolloutWorld) -> None:
    plan = await world.start()
    counts = []

    async def seen() -> None: ...

    ended = await world.until_ended()
    assert isinstance(ended.rollout.phase, st.Finished)
    for tier, count in SIZES.items():
        assert len(world.fleet.running(tier, "b2")) == count
