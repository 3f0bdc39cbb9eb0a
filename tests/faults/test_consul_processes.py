"""Real Consul processes that are killed, hang, restart or go back in time under a watch."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet import ConsulStore, Entry, SlotLost, StoreUnreachable, consul_settings
from fleet.watcher import Watcher
from tests.consul_process import NO_CONSUL, ConsulCluster, ConsulDev, ConsulServer, find_consul

pytestmark = [pytest.mark.consul, pytest.mark.timeout(120)]

KEY = "hotcold/web/tiers/prod"
DEADLINE_S = 60.0


@pytest.fixture
def consul(tmp_path: Path) -> Iterator[ConsulDev]:
    if find_consul() is None:
        pytest.skip(NO_CONSUL)
    with ConsulDev(tmp_path) as dev:
        yield dev


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ConsulCluster]:
    if find_consul() is None:
        pytest.skip(NO_CONSUL)
    with ConsulCluster(tmp_path) as three:
        yield three


def store_at(server: ConsulServer, *, wait_s: float = 5.0, grace_s: float = 10.0) -> ConsulStore:
    return ConsulStore(consul_settings({}, {"address": server.address, "wait_s": wait_s}), grace_s=grace_s)


async def until(watch: Watcher[Entry | None], value: bytes | None) -> list[bytes | None]:
    """Everything that is told up to `value`."""
    told = []
    async with asyncio.timeout(DEADLINE_S):
        async for entry in watch:
            told.append(None if entry is None else entry.value)
            if told[-1] == value:
                return told
    raise AssertionError


async def put_once_possible(store: ConsulStore, value: bytes) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                assert await store.put(KEY, value)
            except StoreUnreachable:
                await asyncio.sleep(0.1)
            else:
                return


async def blocking(function: Callable[[], None]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, function)


async def test_a_watch_survives_kill_9_and_a_restart_that_forgot_everything(consul: ConsulDev) -> None:
    """The new server's index is lower: a watch that kept the old one would sleep."""
    async with store_at(consul) as store:
        for number in range(50):
            await store.put("other", b"%d" % number)
        await store.put(KEY, b"1")
        watch = store.watch(KEY)
        assert await until(watch, b"1") == [b"1"]
        following = asyncio.create_task(until(watch, b"2"))
        await asyncio.sleep(0)

        consul.kill()
        with pytest.raises(StoreUnreachable):
            await store.read(KEY)
        assert store.contact.failing_since_s is not None
        assert "does the Consul agent run" in (store.contact.error or "")
        await blocking(consul.start)
        await put_once_possible(store, b"2")

        assert await following in ([b"2"], [None, b"2"])
        assert store.contact.error is None


async def test_a_hanging_agent_is_noticed_and_left_when_it_comes_back(consul: ConsulDev) -> None:
    async with store_at(consul, wait_s=0.5, grace_s=0.5) as store:
        watch = store.watch(KEY)
        assert await until(watch, None) == [None]
        following = asyncio.create_task(until(watch, b"1"))
        consul.pause()
        try:
            with pytest.raises(StoreUnreachable, match=r"no answer within 0\.5 s"):
                await store.read(KEY)
        finally:
            consul.resume()
        await put_once_possible(store, b"1")

        assert await following == [b"1"]


async def test_a_slot_whose_store_was_wiped_is_lost(consul: ConsulDev) -> None:
    async with store_at(consul) as store:
        slot = await store.acquire_slot("hotcold/web/slots/prod/", 1, holder="h1")
        assert slot is not None
        consul.kill()
        with pytest.raises(StoreUnreachable):
            await store.renew_slot(slot)
        await blocking(consul.start)

        with pytest.raises(SlotLost):
            await store.renew_slot(slot)


async def test_watches_through_every_server_outlive_kill_9_of_the_leader(cluster: ConsulCluster) -> None:
    """Also the one through the killed server, once that is back.

    A leader that was just elected may answer from before it applied its log, so older states may come in between;
    orders carry serials for that. The last value always arrives.
    """
    leader = cluster.leader
    writer = store_at(cluster.followers[0])
    stores = [store_at(server) for server in cluster.servers]
    try:
        await writer.put(KEY, b"1")
        watches = [store.watch(KEY) for store in stores]
        assert [await until(watch, b"1") for watch in watches] == [[b"1"]] * 3
        following = [asyncio.create_task(until(watch, b"2")) for watch in watches]
        await asyncio.sleep(0)

        leader.kill()
        await put_once_possible(writer, b"2")
        survivors = [task for task, server in zip(following, cluster.servers, strict=True) if server is not leader]
        assert [seen[-1] for seen in await asyncio.gather(*survivors)] == [b"2"] * 2

        leader.launch()
        assert [seen[-1] for seen in await asyncio.gather(*following)] == [b"2"] * 3
    finally:
        for store in [writer, *stores]:
            await store.aclose()


async def test_a_restored_snapshot_is_told_within_a_wait(cluster: ConsulCluster) -> None:
    """The restore wakes watches with the value from before it; they look again."""

    def snapshot() -> bytes:
        with urllib.request.urlopen(f"{cluster.leader.address}/v1/snapshot", timeout=30) as response:
            return response.read()

    def restore() -> None:
        request = urllib.request.Request(f"{cluster.leader.address}/v1/snapshot", good, method="PUT")
        with urllib.request.urlopen(request, timeout=30) as response:
            assert response.status == 200

    async with store_at(cluster.followers[0], wait_s=5.0) as store:
        await store.put(KEY, b"good")
        good = await asyncio.get_running_loop().run_in_executor(None, snapshot)
        await store.put(KEY, b"bad")
        watch = store.watch(KEY)
        assert await until(watch, b"bad") == [b"bad"]
        following = asyncio.create_task(until(watch, b"good"))
        await asyncio.sleep(0.2)  # Until the query is most probably open; right in both cases.

        await blocking(restore)

        async with asyncio.timeout(5 + 5 / 16 + 5):
            assert await following == [b"good"]
