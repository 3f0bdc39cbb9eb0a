"""Watching keys and prefixes, as `fleet.store` promises it, on the dev server and on a real Consul."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from fleet import ConsulStore, Entry, consul_settings

SOON_S = 10.0


async def following(watch: AsyncIterator) -> object:
    return await asyncio.wait_for(anext(watch), SOON_S)


def value(entry: Entry | None) -> bytes | None:
    return None if entry is None else entry.value


async def test_a_watch_tells_what_is_there_then_each_change_deletion_and_return(
    store: ConsulStore, prefix: str
) -> None:
    key = f"{prefix}key"
    watch = store.watch(key)

    assert await following(watch) is None
    for write, expected in (
        (store.put(key, b"1"), b"1"),
        (store.put(key, b"2"), b"2"),
        (store.delete(key), None),
        (store.put(key, b""), b""),
    ):
        told = asyncio.create_task(following(watch))
        assert await write
        assert value(await told) == expected
    await watch.aclose()


async def test_a_change_between_two_questions_is_not_missed(store: ConsulStore, prefix: str) -> None:
    key = f"{prefix}key"
    watch = store.watch(key)
    assert await following(watch) is None

    await store.put(key, b"1")
    await store.put(key, b"2")

    assert value(await following(watch)) == b"2"


async def test_what_changes_nothing_is_not_told(store: ConsulStore, prefix: str) -> None:
    """The same value again, other keys, and a key that comes and goes unseen: the next news is the next change."""
    key = f"{prefix}key"
    await store.put(key, b"1")
    watch = store.watch(key)
    assert value(await following(watch)) == b"1"
    told = asyncio.create_task(following(watch))

    await store.put(key, b"1")
    await store.put(f"{key}/below", b"other")
    await store.put(f"{prefix}keyed", b"other")
    await store.put(key, b"2")

    assert value(await told) == b"2"


async def test_of_many_quick_writes_the_last_one_always_arrives(store: ConsulStore, prefix: str) -> None:
    key = f"{prefix}key"
    watch = store.watch(key)
    seen = []

    async def reader() -> None:
        async for entry in watch:
            seen.append(value(entry))
            if value(entry) == b"299":
                return

    reading = asyncio.create_task(reader())
    for number in range(300):
        await store.put(key, b"%d" % number)
    await asyncio.wait_for(reading, SOON_S)

    assert len(seen) < 100, "a burst is thinned out"
    numbers = [int(each) for each in seen if each is not None]
    assert numbers == sorted(numbers)


async def test_a_prefix_watch_tells_all_entries_whenever_one_comes_changes_or_goes(
    store: ConsulStore, prefix: str
) -> None:
    watch = store.watch_prefix(f"{prefix}in/")
    assert await following(watch) == ()

    async def after(write: object) -> dict[str, bytes]:
        told = asyncio.create_task(following(watch))
        assert await write
        return {entry.key.removeprefix(prefix): entry.value for entry in await told}

    await store.put(f"{prefix}out", b"")
    assert await after(store.put(f"{prefix}in/a", b"1")) == {"in/a": b"1"}
    assert await after(store.put(f"{prefix}in/b", b"2")) == {"in/a": b"1", "in/b": b"2"}
    assert await after(store.put(f"{prefix}in/a", b"3")) == {"in/a": b"3", "in/b": b"2"}
    assert await after(store.delete(f"{prefix}in/b")) == {"in/a": b"3"}


async def test_entries_that_did_not_change_are_the_same_objects(store: ConsulStore, prefix: str) -> None:
    """So whoever follows thousands of hosts makes anew only what is drawn from the others."""
    await store.put(f"{prefix}a", b"1")
    await store.put(f"{prefix}b", b"1")
    watch = store.watch_prefix(prefix)
    before = await following(watch)
    await store.put(f"{prefix}b", b"2")
    after = await following(watch)
    assert after[0] is before[0]
    assert (before[1].value, after[1].value) == (b"1", b"2")


async def test_a_prefix_watch_tells_that_a_slot_was_taken_and_given_back(store: ConsulStore, prefix: str) -> None:
    watch = store.watch_prefix(prefix)
    assert await following(watch) == ()

    slot = await store.acquire_slot(prefix, 1, holder="host")
    assert slot is not None
    assert [entry.session for entry in await following(watch)] == [slot.session]
    await store.release_slot(slot)
    assert [entry.session for entry in await following(watch)] == [None]


async def test_a_cancelled_wait_loses_nothing(store: ConsulStore, prefix: str) -> None:
    """The iterator goes on after `wait_for` ran out."""
    key = f"{prefix}key"
    watch = store.watch(key)
    assert await following(watch) is None
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(watch), 0.05)

    await store.put(key, b"1")

    assert value(await following(watch)) == b"1"


@pytest.mark.parametrize("closed", ["watch", "store"])
async def test_closing_ends_a_waiting_reader_at_once(address: str, prefix: str, closed: str) -> None:
    async with ConsulStore(consul_settings({}, {"address": address})) as store:
        watch = store.watch(f"{prefix}key")
        assert await following(watch) is None
        waiting = asyncio.create_task(anext(watch))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting), 0.05)

        await (watch.aclose() if closed == "watch" else store.aclose())

        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(waiting, 1)
        with pytest.raises(StopAsyncIteration):
            await anext(watch)


async def test_twenty_watches_never_starve_a_write(store: ConsulStore, prefix: str) -> None:
    watches = [store.watch(f"{prefix}{number}") for number in range(20)]
    await asyncio.gather(*(following(watch) for watch in watches))
    waiting = [asyncio.create_task(following(watch)) for watch in watches]

    async with asyncio.timeout(2):
        for number in range(20):
            await store.put(f"{prefix}{number}", b"now")

    assert {value(entry) for entry in await asyncio.gather(*waiting)} == {b"now"}


async def test_a_watch_outlives_the_end_of_its_wait(address: str, prefix: str) -> None:
    """An ended blocking query is no news."""
    async with ConsulStore(consul_settings({}, {"address": address, "wait_s": 0.1})) as store:
        watch = store.watch(f"{prefix}key")
        assert await following(watch) is None
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 0.6)
        assert store.contact.error is None
