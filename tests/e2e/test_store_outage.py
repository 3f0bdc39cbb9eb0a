"""Consul in trouble: nothing is undone or stopped, and every host converges once orders can be read again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import pytest

from fleet.devserver import DevServer
from tests.consul_process import NO_CONSUL, ConsulCluster, ConsulDev, find_consul, free_ports
from tests.e2e.host import Host, Shop, a_shop

NewHost = Callable[..., Host]
needs_consul = pytest.mark.skipif(find_consul() is None, reason=NO_CONSUL)


@asynccontextmanager
async def hosts_at(directory: Path, *addresses: str) -> AsyncIterator[list[Host]]:
    hosts = [Host(directory / f"h{number}", address, f"web-{number}") for number, address in enumerate(addresses)]
    try:
        for host in hosts:
            host.start()
        await asyncio.gather(*(host.until_up() for host in hosts))
        yield hosts
    finally:
        for host in hosts:
            if host.is_alive():
                host.kill()


@needs_consul
@pytest.mark.consul
async def test_main_job_on_a_real_consul(short_path: Path) -> None:
    """One real Consul: deploy, change, go back, and the agent's own restart."""
    with ConsulDev(short_path / "consul") as consul:
        async with a_shop(short_path / "shop", consul.address) as shop, hosts_at(short_path, consul.address) as [host]:
            for name in ("b1", "b2"):
                await shop.order(shop.pack(name), max_unavailable=1)
                await host.until_steady(name)
            host.kill()
            host.start()
            await host.until_steady("b2")
            await shop.order(shop.manifest("b1"))
            await host.until_steady("b1")


@needs_consul
@pytest.mark.consul
async def test_leader_killed_in_the_middle_of_a_deploy(short_path: Path) -> None:
    """Three servers, three hosts, each at another server: the leader dies by kill -9 while they fetch.

    The hosts whose server lives converge without it; the one whose server died keeps what it runs, and converges when
    that server is back.
    """
    with ConsulCluster(short_path / "consul") as cluster:
        addresses = [server.address for server in cluster.servers]
        leader = cluster.leader
        witness = next(server for server in cluster.servers if server is not leader)
        async with AsyncExitStack() as stack:
            shop = await stack.enter_async_context(a_shop(short_path / "shop", witness.address))
            hosts = await stack.enter_async_context(hosts_at(short_path, *addresses))
            await shop.order(shop.pack("b1"))
            await asyncio.gather(*(host.until_steady("b1") for host in hosts))
            pids = [host.pid for host in hosts]

            await shop.order(shop.pack("b2", size_bytes=20_000_000))
            leader.kill()
            alive = [host for host in hosts if host.consul_address != leader.address]
            await asyncio.gather(*(host.until_steady("b2") for host in alive))

            latest = shop.pack("b3")
            await _retried(lambda: shop.order(latest))
            await asyncio.gather(*(host.until_steady("b3") for host in alive))
            [cut_off] = [host for host in hosts if host not in alive]
            status = await cut_off.until("says that it is cut off", lambda s: not s["store"]["is_connected"])
            assert status["store"]["failing_for_s"] > 0
            assert cut_off.stamps() in ({"b1"}, {"b2"})

            leader.start()
            await cut_off.until_steady("b3")
            assert [host.pid for host in hosts] == pids
            assert all(host.is_alive() for host in hosts)


async def _retried(write: Callable[[], object]) -> None:
    """As the commander does while a new leader is elected."""
    for _ in range(40):
        try:
            await write()
        except Exception:  # noqa: BLE001 - whatever an election looks like; the last one passes
            await asyncio.sleep(0.5)
        else:
            return
    await write()


async def test_outage_of_the_store(short_path: Path) -> None:
    """A store that dies under a deploy stops nothing; the agent starts without it and goes on with its last order."""
    [port] = free_ports(1)
    async with AsyncExitStack() as stack:
        server = DevServer(port=port)
        await server.__aenter__()
        shop = await stack.enter_async_context(a_shop(short_path / "shop", server.address))
        [host] = await stack.enter_async_context(hosts_at(short_path, server.address))
        await shop.order(shop.pack("b1"))
        await host.until_steady("b1")
        gate = asyncio.Event()
        build = shop.pack("b2")

        async def slowly(_request: object) -> object:
            from aiohttp import web  # noqa: PLC0415 - only here

            await gate.wait()
            return web.FileResponse(shop.directory / "artifacts" / "shop-b2.tar.zst")

        shop.behaviours["shop-b2.tar.zst"] = slowly
        await shop.order(build)
        await host.until_state("fetching")

        await server.__aexit__(None, None, None)
        gate.set()
        await host.until_steady("b2")
        await host.until("cut off", lambda s: not s["store"]["is_connected"])

        host.kill()
        host.start()
        status = await host.until_steady("b2")
        assert (status["highest_serial"], status["order"]["build"]) == (2, "b2")

        async with DevServer(port=port) as empty:
            status = await host.until("asked again", lambda s: s["order_problem"])
            assert status["order_problem"]["kind"] == "order_absent"
            assert host.stamps() == {"b2"}
            await shop.order(shop.pack("b3"))
            await host.until_steady("b3")
            assert empty.address == host.consul_address


async def test_idle_agent_costs_nothing(dev_store: DevServer, shop: Shop, new_host: NewHost) -> None:
    """Idle: under 60 MiB resident, next to no processor time, one open request to Consul."""
    host = new_host()
    host.start()
    await shop.order(shop.pack("b1"))
    await host.until_steady("b1")
    process = psutil.Process(host.pid)
    assert process.children(recursive=True) == []
    before = process.cpu_times()
    began_s = time.monotonic()

    await asyncio.sleep(60)

    spent = process.cpu_times()
    spent_s = spent.user + spent.system - before.user - before.system
    share = spent_s / (time.monotonic() - began_s)
    resident_mib = process.memory_info().rss / 1024**2
    print(f"idle: {share:.2%} of one core, {resident_mib:.1f} MiB, {dev_store.waiting_count} open requests")  # noqa: T201
    assert share < 0.01
    assert resident_mib < 60
    assert dev_store.waiting_count == 1
