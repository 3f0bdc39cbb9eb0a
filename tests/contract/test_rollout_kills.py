"""A leader that dies at every write of a rollout, before and after it: the next one goes on as if nothing was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from checkpoint.audit import read_head, read_record, verify
from checkpoint.rollout import events as ev
from fleet import ConsulStore, Entry, StoreUnreachable
from fleet.keys import audit_head_key, audit_prefix, checkpoint_prefix, rollout_state_key
from fleet.store import Operation
from tests.commander_world import build
from tests.rollout_world import Fleet, RolloutWorld

PIPELINE = """
app = "shop"
[[tiers]]
name = "staging"
bake_s = 60
approval = true
smoke_test = { command = ["true"] }
[[tiers]]
name = "prod"
steps = [25, 100]
bake_s = 60
"""
SIZES = {"staging": 2, "prod": 8}


class Killed(BaseException):
    """The process is gone."""


class MortalStore:
    """A real store whose user dies at the n-th transaction; `after`: once it was written; `lost`: a message is lost."""

    def __init__(self, store: ConsulStore, dies_at: int = 0, *, after: bool = False, lost: bool = False) -> None:
        self._store = store
        self._dies_at = dies_at
        self._after = after
        self._lost = lost
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def transact(self, operations: Sequence[Operation]) -> bool:
        self.count += 1
        if self.count != self._dies_at:
            return await self._store.transact(operations)
        if self._lost and not self._after:
            raise StoreUnreachable("the question was lost")
        if not self._after:
            raise Killed
        answer = await self._store.transact(operations)
        assert answer
        raise StoreUnreachable("the answer was lost") if self._lost else Killed


@pytest.fixture
async def fleet(store: ConsulStore) -> AsyncIterator[Fleet]:
    hosts = [(tier, f"{tier}-{number}") for tier, count in SIZES.items() for number in range(count)]
    yield Fleet(store, hosts)
    for entry in await store.read_prefix("hotcold/shop/"):
        await store.delete(entry.key)
    for tier, host in hosts:
        await store.deregister(Fleet(store).service(tier, host))


async def run(store: Any, fleet: Fleet, *, bad: bool) -> RolloutWorld:
    """A rollout from its start to its end; whoever dies is followed by somebody who knows nothing."""
    world = RolloutWorld(store, fleet, PIPELINE)
    await world.order_everywhere()
    if bad:
        fleet.unproved = {host: "b2" for tier, host in fleet.hosts if tier == "prod"}
    plan = await world.desk.plan(world.settings.pipeline, build("b2", "2"), by="anna@desk", reason="checkout fix")
    limit = world.time.wall + timedelta(hours=2)
    while world.time.wall < limit:
        try:
            if await world.desk.ledger.latest() is None:
                await world.desk.start(plan, world.origin())
            ongoing = await world.settle()
            if ongoing.rollout.is_ended:
                return world
            if ongoing.rollout.phase_name == "approving":
                await world.act(ev.ApproveRequested())
            if ongoing.rollout.phase_name == "testing":
                await asyncio.sleep(0.01)  # a real process runs
            else:
                world.time.pass_(20)
        except (Killed, StoreUnreachable):
            world.desk = world.new_desk(store)
            world.engine = world.new_engine(store)
    raise AssertionError((await world.now()).rollout)


async def outcome(store: ConsulStore, world: RolloutWorld) -> dict[str, Any]:
    """What must be the same, however often somebody died."""
    entries: tuple[Entry, ...] = await store.read_prefix(audit_prefix("shop"))
    head, _ = read_head(await store.read(audit_head_key("shop")))
    assert list(verify(entries, head)) == []
    ongoing = await world.now()
    return {
        "phase": (ongoing.rollout.phase_name, ongoing.rollout.phase.step),
        "serials": ongoing.rollout.serials,
        "audit": [read_record(entry.value).what for entry in entries],
        "orders": {
            host: [(order.serial, order.build.id, order.percent) for order in orders]
            for (_, host), orders in world.fleet.obeyed.items()
        },
        "keys": [entry.key for entry in await store.read_prefix(checkpoint_prefix("shop"))],
    }


async def fresh(store: ConsulStore, fleet: Fleet) -> Fleet:
    for entry in await store.read_prefix("hotcold/shop/"):
        await store.delete(entry.key)
    return Fleet(store, fleet.hosts)


@pytest.mark.parametrize("bad", [False, True], ids=["good", "bad"])
@pytest.mark.parametrize("lost", [False, True], ids=["killed", "message-lost"])
async def test_a_leader_that_dies_at_any_write(store: ConsulStore, fleet: Fleet, *, bad: bool, lost: bool) -> None:
    """Every transaction of the rollout, before and after: same end, every order once, in one chain."""
    counting = MortalStore(store)
    wanted = await outcome(store, await run(counting, fleet, bad=bad))
    assert wanted["phase"][0] == ("rolled_back" if bad else "finished")
    assert counting.count >= (8 if bad else 12)
    assert rollout_state_key("shop", 1) in wanted["keys"]
    for number in range(1, counting.count + 1):
        for after in (False, True):
            mortal = MortalStore(store, number, after=after, lost=lost)
            found = await outcome(store, await run(mortal, await fresh(store, fleet), bad=bad))
            assert mortal.count >= number
            assert found == wanted, (number, after)
