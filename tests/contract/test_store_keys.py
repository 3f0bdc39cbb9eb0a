"""Reading, writing and transactions, as `fleet.store` promises them, on the dev server and on a real Consul."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from fleet import CheckUnchanged, ConsulStore, Delete, Put, StoreRefused, StoreUnreachable, consul_settings


async def modify_index(store: ConsulStore, key: str) -> int:
    entry = await store.read(key)
    assert entry is not None
    return entry.modify_index


async def test_a_key_that_was_never_written_reads_as_none(store: ConsulStore, prefix: str) -> None:
    assert await store.read(f"{prefix}none") is None
    assert await store.read_prefix(prefix) == ()


@pytest.mark.parametrize("value", [b"", b"text", bytes(range(256)), "é".encode(), b"x" * (512 * 1024)])
async def test_a_value_comes_back_as_it_was_written(store: ConsulStore, prefix: str, value: bytes) -> None:
    """Any bytes, up to Consul's limit; an empty value is no missing key."""
    assert await store.put(f"{prefix}key", value)

    entry = await store.read(f"{prefix}key")

    assert entry is not None
    assert (entry.key, entry.value, entry.session) == (f"{prefix}key", value, None)
    assert entry.create_index == entry.modify_index > 0


async def test_a_value_above_the_limit_is_refused_with_its_size_and_nothing_is_written(
    store: ConsulStore, prefix: str
) -> None:
    with pytest.raises(StoreRefused, match="524289 bytes") as caught:
        await store.put(f"{prefix}key", b"x" * (512 * 1024 + 1))

    assert caught.value.kind == "too_large"
    assert await store.read(f"{prefix}key") is None


async def test_put_with_cas_0_only_creates(store: ConsulStore, prefix: str) -> None:
    assert await store.put(f"{prefix}key", b"first", cas=0)
    assert not await store.put(f"{prefix}key", b"second", cas=0)

    entry = await store.read(f"{prefix}key")
    assert entry is not None
    assert entry.value == b"first"


async def test_put_with_cas_only_replaces_what_was_read(store: ConsulStore, prefix: str) -> None:
    await store.put(f"{prefix}key", b"first")
    read = await modify_index(store, f"{prefix}key")

    assert await store.put(f"{prefix}key", b"second", cas=read)
    assert not await store.put(f"{prefix}key", b"third", cas=read)
    assert not await store.put(f"{prefix}other", b"third", cas=read)

    assert [entry.value for entry in await store.read_prefix(prefix)] == [b"second"]


async def test_of_many_concurrent_writers_with_the_same_cas_exactly_one_wins(store: ConsulStore, prefix: str) -> None:
    await store.put(f"{prefix}key", b"0")
    read = await modify_index(store, f"{prefix}key")

    won = await asyncio.gather(*(store.put(f"{prefix}key", b"%d" % n, cas=read) for n in range(1, 21)))

    assert sum(won) == 1
    entry = await store.read(f"{prefix}key")
    assert entry is not None
    assert entry.value == b"%d" % (won.index(True) + 1)


async def test_delete_is_done_for_a_key_that_does_not_exist(store: ConsulStore, prefix: str) -> None:
    assert await store.delete(f"{prefix}key")
    assert await store.delete(f"{prefix}key", cas=7)

    await store.put(f"{prefix}key", b"")
    assert await store.delete(f"{prefix}key")
    assert await store.read(f"{prefix}key") is None


async def test_delete_with_cas_only_deletes_what_was_read(store: ConsulStore, prefix: str) -> None:
    await store.put(f"{prefix}key", b"first")
    read = await modify_index(store, f"{prefix}key")
    await store.put(f"{prefix}key", b"second")

    assert not await store.delete(f"{prefix}key", cas=read)
    assert await store.delete(f"{prefix}key", cas=await modify_index(store, f"{prefix}key"))
    assert await store.read(f"{prefix}key") is None


async def test_a_prefix_reads_sorted_and_only_below_itself(store: ConsulStore, prefix: str) -> None:
    for name in ("b", "a/2", "a/10", "ab"):
        await store.put(f"{prefix}{name}", name.encode())

    below = await store.read_prefix(f"{prefix}a/")

    assert [(entry.key, entry.value) for entry in below] == [(f"{prefix}a/10", b"a/10"), (f"{prefix}a/2", b"a/2")]


@pytest.mark.parametrize("key", ["/a", "a//b", "a/../b", "..", "a b", "a:b", "", "ä", "a\n"])
async def test_a_key_that_not_every_consul_takes_is_refused_before_it_is_sent(store: ConsulStore, key: str) -> None:
    """HTTP path normalisation would otherwise turn `a/../b` into `b`."""
    for refused in (
        lambda: store.read(key),
        lambda: store.put(key, b""),
        lambda: store.delete(key),
        lambda: store.transact([Put(key, b"")]),
    ):
        with pytest.raises(Exception, match="is no key that every Consul takes") as caught:
            await refused()
        assert caught.value.kind == "bad_name"


class TestTransact:
    async def test_all_operations_are_carried_out(self, store: ConsulStore, prefix: str) -> None:
        await store.put(f"{prefix}old", b"old")
        await store.put(f"{prefix}seen", b"seen")

        done = await store.transact(
            [
                Put(f"{prefix}set", bytes(range(256))),
                Put(f"{prefix}new", b"new", cas=0),
                Delete(f"{prefix}old", cas=await modify_index(store, f"{prefix}old")),
                CheckUnchanged(f"{prefix}seen", await modify_index(store, f"{prefix}seen")),
                CheckUnchanged(f"{prefix}nothing", 0),
            ]
        )

        assert done
        values = {entry.key.removeprefix(prefix): entry.value for entry in await store.read_prefix(prefix)}
        assert values == {"set": bytes(range(256)), "new": b"new", "seen": b"seen"}

    @pytest.mark.parametrize("conflict", ["put", "create", "delete", "check", "check missing", "check present"])
    async def test_one_conflict_undoes_all(self, store: ConsulStore, prefix: str, conflict: str) -> None:
        await store.put(f"{prefix}key", b"first")
        stale = await modify_index(store, f"{prefix}key")
        await store.put(f"{prefix}key", b"second")
        operation = {
            "put": Put(f"{prefix}key", b"third", cas=stale),
            "create": Put(f"{prefix}key", b"third", cas=0),
            "delete": Delete(f"{prefix}key", cas=stale),
            "check": CheckUnchanged(f"{prefix}key", stale),
            "check missing": CheckUnchanged(f"{prefix}nothing", stale),
            "check present": CheckUnchanged(f"{prefix}key", 0),
        }[conflict]
        before = await store.read_prefix(prefix)

        assert not await store.transact([Put(f"{prefix}other", b"1"), operation, Put(f"{prefix}key", b"fourth")])

        assert await store.read_prefix(prefix) == before

    async def test_64_operations_fit_and_65_are_refused_before_they_are_sent(
        self, store: ConsulStore, prefix: str
    ) -> None:
        operations = [Put(f"{prefix}{number}", b"") for number in range(65)]

        with pytest.raises(StoreRefused, match="65 operations"):
            await store.transact(operations)
        assert await store.read_prefix(prefix) == ()

        assert await store.transact(operations[:64])
        assert len(await store.read_prefix(prefix)) == 64

    async def test_no_operation_is_done_already(self, store: ConsulStore) -> None:
        assert await store.transact([])


async def test_contact_tells_of_answers_and_failures(address: str, prefix: str) -> None:
    """Without an answer there is no contact; the first failure's time stands until the next answer."""
    ticks = itertools.count(100)
    async with ConsulStore(consul_settings({}, {"address": address}), clock=lambda: float(next(ticks))) as store:
        assert (store.contact.last_answer_s, store.contact.failing_since_s, store.contact.error) == (None, None, None)
        await store.read(f"{prefix}key")
        assert store.contact.last_answer_s == 100
        assert store.contact.error is None


async def test_after_closing_every_call_fails_at_once(address: str) -> None:
    store = ConsulStore(consul_settings({}, {"address": address}))
    await store.read("key")
    await store.aclose()
    await store.aclose()

    with pytest.raises(StoreUnreachable) as caught:
        await store.read("key")
    assert caught.value.kind == "store_closed"
