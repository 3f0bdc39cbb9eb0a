"""The counting semaphore, as `fleet.store` promises it, on the dev server and on a real Consul."""

from __future__ import annotations

import asyncio
import uuid

import aiohttp
import pytest

from artifact import ConfigError
from checkpoint import look
from fleet import ConsulStore, Report, Slot, SlotLost, encode
from fleet.keys import host_key, slots_prefix


async def taken(store: ConsulStore, prefix: str, count: int, holder: str = "host") -> Slot:
    slot = await store.acquire_slot(prefix, count, holder=holder)
    assert slot is not None
    return slot


async def session_count(address: str, prefix: str) -> int:
    """Sessions that hold nothing count too: a leaked one would be seen here."""
    async with aiohttp.ClientSession() as client, client.get(f"{address}/v1/session/list") as response:
        return len([each for each in await response.json() if prefix in each["Name"]])


async def destroy(address: str, session: str) -> None:
    async with aiohttp.ClientSession() as client, client.put(f"{address}/v1/session/destroy/{session}") as response:
        assert response.status == 200


async def test_slots_are_taken_until_none_is_left(store: ConsulStore, address: str, prefix: str) -> None:
    slots = [await store.acquire_slot(prefix, 3, holder=f"{prefix}{number}") for number in range(5)]

    held = [slot for slot in slots if slot is not None]
    assert sorted(slot.key for slot in held) == [f"{prefix}0", f"{prefix}1", f"{prefix}2"]
    assert slots[3:] == [None, None]
    assert {entry.key: (entry.session, entry.value) for entry in await store.read_prefix(prefix)} == {
        slot.key: (slot.session, f"{prefix}{number}".encode()) for number, slot in enumerate(held)
    }
    assert await session_count(address, prefix) == 3


async def test_a_released_slot_is_free_at_once_and_its_session_is_gone(
    store: ConsulStore, address: str, prefix: str
) -> None:
    slot = await taken(store, prefix, 1, holder=prefix)

    await store.release_slot(slot)

    assert await session_count(address, prefix) == 0
    assert [(entry.value, entry.session) for entry in await store.read_prefix(prefix)] == [(b"", None)]
    await taken(store, prefix, 1)


async def test_releasing_twice_and_after_a_loss_is_harmless(store: ConsulStore, address: str, prefix: str) -> None:
    slot = await taken(store, prefix, 1)
    await store.release_slot(slot)
    successor = await taken(store, prefix, 1)

    await store.release_slot(slot)
    await store.renew_slot(successor)

    await destroy(address, successor.session)
    await store.release_slot(successor)


async def test_never_more_hosts_than_slots_work_at_once(store: ConsulStore, address: str, prefix: str) -> None:
    """Twenty contenders for three slots: the count is never exceeded and everybody gets a turn."""
    working: set[str] = set()
    most = 0

    async def host(name: str) -> None:
        nonlocal most
        watch = store.watch_prefix(prefix)
        async for _ in watch:
            slot = await store.acquire_slot(prefix, 3, holder=name)
            if slot is not None:
                break
        await watch.aclose()
        working.add(name)
        most = max(most, len(working))
        await store.renew_slot(slot)
        working.remove(name)
        await store.release_slot(slot)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(host(f"{prefix}{number}"))

    assert 1 <= most <= 3
    assert await session_count(address, prefix) == 0


async def test_a_lower_count_does_not_add_to_hosts_that_are_already_out(store: ConsulStore, prefix: str) -> None:
    slots = [await taken(store, prefix, 3) for _ in range(3)]
    lowest = next(slot for slot in slots if slot.key == f"{prefix}0")
    await store.release_slot(lowest)

    assert await store.acquire_slot(prefix, 1, holder="late") is None


async def test_renewing_tells_that_the_session_is_gone(store: ConsulStore, address: str, prefix: str) -> None:
    slot = await taken(store, prefix, 1)
    await store.renew_slot(slot)
    await destroy(address, slot.session)

    with pytest.raises(SlotLost, match=slot.key) as caught:
        await store.renew_slot(slot)

    assert caught.value.kind == "slot_lost"
    assert [entry.session for entry in await store.read_prefix(prefix)] == [None]


async def test_renewing_tells_that_another_holds_the_slot(store: ConsulStore, address: str, prefix: str) -> None:
    """The session lives, but the slot was taken from it: the session is ended too."""
    slot = await taken(store, prefix, 1, holder=prefix)
    async with (
        aiohttp.ClientSession() as client,
        client.put(f"{address}/v1/kv/{slot.key}?release={slot.session}") as response,
    ):
        assert await response.json()
    successor = await taken(store, prefix, 1, holder="the other")

    with pytest.raises(SlotLost, match="the other"):
        await store.renew_slot(slot)

    assert await session_count(address, prefix) == 0
    await store.renew_slot(successor)


async def test_a_former_life_of_the_same_holder_counts_like_anybody(store: ConsulStore, prefix: str) -> None:
    await taken(store, prefix, 1, holder="host")

    assert await store.acquire_slot(prefix, 1, holder="host") is None


@pytest.mark.parametrize("ttl_s", [0, 9.9, 86401])
async def test_a_ttl_that_consul_does_not_take_is_refused(store: ConsulStore, prefix: str, ttl_s: float) -> None:
    with pytest.raises(ConfigError, match="10 to 86400 s"):
        await store.acquire_slot(prefix, 1, holder="host", ttl_s=ttl_s)
    assert await store.read_prefix(prefix) == ()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("address", [pytest.param("consul", marks=pytest.mark.consul)], indirect=True)
async def test_the_slot_of_a_dead_holder_comes_free(store: ConsulStore, prefix: str) -> None:
    """Nobody renews: within twice the TTL and the lock delay somebody else gets it, and a watch tells when to try."""
    first = await store.acquire_slot(prefix, 1, holder="dead", ttl_s=10)
    assert first is not None
    watch = store.watch_prefix(prefix)

    async with asyncio.timeout(40):
        async for entries in watch:
            if entries[0].session is None:
                break
        second = None
        while second is None:
            second = await store.acquire_slot(prefix, 1, holder="heir", ttl_s=10)
            await asyncio.sleep(0.2)

    with pytest.raises(SlotLost):
        await store.renew_slot(first)


async def test_a_commander_sees_who_holds_which_slot(store: ConsulStore) -> None:
    """And no longer when it is given back."""
    app = f"app-{uuid.uuid4().hex[:8]}"
    report = Report(v=1, app=app, tier="prod", host="web-1", serial=1, highest=1, state="draining")
    await store.put(host_key(app, "prod", "web-1"), encode(report))
    slot = await store.acquire_slot(slots_prefix(app, "prod"), 1, holder="web-1")
    assert slot is not None

    async def seen() -> int | None:
        [tier] = (await look(store, app)).tiers
        return tier.hosts[0].slot

    assert await seen() == 0
    await store.release_slot(slot)
    assert await seen() is None
