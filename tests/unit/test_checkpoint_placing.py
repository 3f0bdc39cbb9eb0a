"""How an order gets into its key, whatever the network and other people do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from artifact import Refused
from checkpoint import Commander, Wish
from checkpoint.insisting import RETRY_PAUSES_S
from fleet import ConsulSettings, ConsulStore, Order, StoreUnreachable, decode_order, encode
from fleet.devserver import DevServer
from fleet.keys import tier_key
from tests.commander_world import LossyStore, build, report, write_reports

KEY = tier_key("shop", "prod")


@pytest.fixture
async def store() -> AsyncIterator[ConsulStore]:
    async with DevServer() as server, ConsulStore(ConsulSettings(address=server.address)) as connected:
        yield connected


def wish(build_id: str, **facts: Any) -> Wish:
    return Wish(app="shop", tier="prod", build=build(build_id), by="anna", **facts)


class Chance:
    """A commander whose clock stands still, whose salts count, and who notes how long it waited."""

    def __init__(self, store: Any) -> None:
        self.waited: list[float] = []
        self.told: list[StoreUnreachable] = []
        self._salts = iter(f"salt {number}" for number in range(100))
        self.commander = Commander(
            store,
            now=lambda: datetime(2026, 11, 23, 10, tzinfo=UTC),
            new_salt=lambda: next(self._salts),
            pause=self._pause,
            on_retry=self.told.append,
        )

    async def _pause(self, seconds: float) -> None:
        self.waited.append(seconds)


async def stored(store: ConsulStore) -> Order:
    entry = await store.read(KEY)
    assert entry is not None
    return decode_order(entry.value)


async def deploy(store: Any, build_id: str, **facts: Any) -> Order:
    return (await Chance(store).commander.deploy(wish(build_id, **facts))).order


async def test_what_is_returned_is_what_is_stored(store: ConsulStore) -> None:
    """The order, what it replaced, and who is chosen of those that have reported."""
    await deploy(store, "b1")
    await write_reports(store, [report(f"web-{number}", serial=1) for number in range(8)])
    placed = await Chance(store).commander.deploy(wish("b2", percent=25))
    assert placed.order == await stored(store)
    assert placed.before is not None
    assert placed.before.build == build("b1")
    assert (placed.order.serial, placed.host_count, len(placed.chosen)) == (2, 8, 2)
    assert placed.order.at == "2026-11-23T10:00:00+00:00"


@pytest.mark.parametrize(
    "faults",
    [["lost question"], ["lost answer"], ["lost question"] * 3 + ["lost answer"] * 2, ["lost answer", "lost question"]],
)
async def test_lost_messages_order_once(store: ConsulStore, faults: Sequence[str]) -> None:
    """Whether the question or the answer was lost, the order is written exactly once, and its fate is known."""
    await deploy(store, "b1")
    lossy = LossyStore(store, faults)
    chance = Chance(lossy)
    placed = await chance.commander.deploy(wish("b2"))
    assert placed.order == await stored(store)
    assert placed.order.serial == 2
    assert lossy.put_count == len(faults) + 1
    assert len(chance.waited) == len(chance.told) == len(faults)


async def test_a_store_that_never_answers_is_given_up(store: ConsulStore) -> None:
    """After the last pause the failure is the caller's; nothing was written here."""
    await deploy(store, "b1")
    chance = Chance(LossyStore(store, ["lost question"] * 100))
    with pytest.raises(StoreUnreachable):
        await chance.commander.deploy(wish("b2"))
    assert chance.waited == list(RETRY_PAUSES_S)
    assert (await stored(store)).build == build("b1")


async def test_somebody_who_ordered_meanwhile_is_not_overwritten(store: ConsulStore) -> None:
    """The loser learns who won, and writes nothing."""
    await deploy(store, "b1")

    async def bob_deploys() -> None:
        await Chance(store).commander.deploy(
            Wish(app="shop", tier="prod", build=build("b7"), by="bob", reason="hotfix", percent=10)
        )

    with pytest.raises(Refused, match=r"bob ordered b7 for 10 % \(serial 2, 'hotfix'\)") as caught:
        await deploy(LossyStore(store, [bob_deploys]), "b2")
    assert caught.value.kind == "lost_race"
    assert (await stored(store)).build == build("b7")


async def test_a_key_deleted_meanwhile_is_not_written(store: ConsulStore) -> None:
    """Deleting is somebody's decision too."""
    await deploy(store, "b1")

    async def delete() -> None:
        await store.delete(KEY)

    with pytest.raises(Refused, match="it was deleted"):
        await deploy(LossyStore(store, [delete]), "b2")
    assert await store.read(KEY) is None


async def test_a_rollback_outruns_the_next_step_of_the_same_rollout(store: ConsulStore) -> None:
    """A step that only raised the share does not stop the rollback of that build."""
    await deploy(store, "b1")
    await deploy(store, "b2", percent=10)

    async def next_step() -> None:
        await deploy(store, "b2", percent=50)

    lossy = LossyStore(store, [next_step])
    placed = await Chance(lossy).commander.roll_back("shop", "prod", reason="errors", by="anna")
    assert placed.order == await stored(store)
    assert (placed.order.serial, placed.order.build) == (4, build("b1"))


async def test_a_rollback_of_what_is_no_longer_ordered_is_refused(store: ConsulStore) -> None:
    """When other builds were ordered meanwhile, "the build before" means something else: a person decides."""
    await deploy(store, "b1")
    await deploy(store, "b2")

    async def another() -> None:
        await deploy(store, "b3")

    with pytest.raises(Refused, match="anna ordered b3") as caught:
        await Chance(LossyStore(store, [another])).commander.roll_back("shop", "prod", reason="errors", by="anna")
    assert caught.value.kind == "lost_race"
    assert (await stored(store)).build == build("b3")


GARBAGE = [b"", b"{", b"\xff", b'{"v":1}', b'{"v":2,"serial":40}', b'{"v":1,"serial":"x"}', b"[]"]


@pytest.mark.parametrize("value", GARBAGE)
async def test_garbage_is_left_alone_until_told_otherwise(store: ConsulStore, value: bytes) -> None:
    """What is no order may be a newer version's: it is replaced only on demand, and then above its serial."""
    await store.put(KEY, value)
    for attempt in (
        Chance(store).commander.deploy(wish("b2")),
        Chance(store).commander.roll_back("shop", "prod", reason="x", by="anna"),
    ):
        with pytest.raises(Refused, match="--replace-malformed"):
            await attempt
    entry = await store.read(KEY)
    assert entry is not None
    assert entry.value == value
    placed = await Chance(store).commander.deploy(wish("b2"), replace_malformed=True)
    assert await stored(store) == placed.order
    assert placed.order.serial == (41 if b"40" in value else 1)


async def test_an_order_for_another_tier_is_no_order_here(store: ConsulStore) -> None:
    """A document copied into the wrong key is not rolled forward from."""
    await deploy(store, "b1")
    entry = await store.read(KEY)
    assert entry is not None
    await store.put(tier_key("shop", "canary"), entry.value)
    with pytest.raises(Refused, match="wrong key"):
        await Chance(store).commander.deploy(Wish(app="shop", tier="canary", build=build("b2")))


async def test_damaged_reports_still_count_as_hosts(store: ConsulStore) -> None:
    """A host whose report cannot be read is a host of the tier: the share is counted with it."""
    await write_reports(store, [report("web-1", serial=3), report("web-2", serial=3)])
    await store.put("hotcold/shop/hosts/prod/web-3", b"{")
    await store.put("hotcold/shop/hosts/prod/web-4", encode(report("web-9", serial=99)))
    placed = await Chance(store).commander.deploy(wish("b1", percent=50))
    assert (placed.host_count, len(placed.chosen), placed.order.serial) == (4, 2, 4)
