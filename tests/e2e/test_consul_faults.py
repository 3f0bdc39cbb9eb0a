"""What befalls a real Consul befalls no app: no exit, no undo, no storm, and the host converges soon after."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleet.acl import agent_rules
from fleet.keys import service_name, tier_key
from tests.consul_process import (
    NO_CONSUL,
    ConsulClient,
    ConsulCluster,
    ConsulDev,
    ConsulServer,
    find_consul,
    get,
)
from tests.e2e.host import APP, TIER, Host, Shop, a_shop, until

pytestmark = [
    pytest.mark.consul,
    pytest.mark.skipif(find_consul() is None, reason=NO_CONSUL),
    pytest.mark.timeout(180),
]

WAIT_S = 2.0
"""One round of the watch: the longest that its question stays open."""
PATIENT_S = 90.0
"""For what Consul itself needs on a busy machine, elections above all."""


@dataclass
class World:
    """Servers, the host's own Consul agent, a commander who writes to a server, and the host, which runs b1."""

    servers: list[ConsulServer]
    local: ConsulServer
    shop: Shop
    host: Host
    pid: int = 0

    async def until_cut_off(self, *says: str) -> dict[str, Any]:
        """The status says so, since when, and why; what runs stays."""
        status = await self.host.until(
            f"cut off: {says}",
            lambda s: not s["store"]["is_connected"] and any(each in str(s["store"]["error"]) for each in says),
        )
        assert status["store"]["failing_for_s"] >= 0
        assert status["hot"]["build"] == "b1"
        return status

    async def converges(self, build_id: str = "b2") -> None:
        """The order that was written meanwhile is obeyed, by the same process, after one swap more."""
        began_s = time.monotonic()
        await self.host.until_steady(build_id)
        took_s = time.monotonic() - began_s
        # A question that had been asked before may still come to its bad end.
        await self.host.until("connected", lambda s: s["store"]["is_connected"])
        assert self.host.pid == self.pid
        assert self.host.is_alive()
        assert self.host.log.read_text().count('"event": "swapped"') == int(build_id.removeprefix("b"))
        print(f"obeyed {took_s:.1f} s after Consul was well again")  # noqa: T201


@asynccontextmanager
async def a_world(directory: Path, *, servers: int = 1, options: str = "") -> AsyncIterator[World]:
    with (
        ConsulCluster(directory / "consul", servers) as cluster,
        ConsulClient(directory / "local", cluster, options) as local,
    ):
        async with a_shop(directory / "shop", cluster.servers[0].address) as shop:
            host = a_host(directory / "host", local.address)
            try:
                await shop.order(shop.pack("b1"))
                host.start()
                await host.until_steady("b1")
                yield World(cluster.servers, local, shop, host, host.pid)
            finally:
                if host.is_alive():
                    host.kill()


def a_host(directory: Path, address: str, **environment: str) -> Host:
    host = Host(directory, address, environment=environment)
    directory.mkdir()
    host.write_config()
    with host.config_path.open("a") as config:  # the file ends in [consul]
        config.write(f"wait_s = {WAIT_S}\n")
    return host


async def test_its_consul_agent_is_down(short_path: Path) -> None:
    """The order that comes meanwhile is obeyed when the local agent is back."""
    async with a_world(short_path) as world:
        world.local.kill()
        await world.until_cut_off("refused", "Connect call failed", "Cannot connect")
        await world.shop.order(world.shop.pack("b2"))
        world.local.start()
        await world.converges()


async def test_its_consul_agent_flaps(short_path: Path) -> None:
    async with a_world(short_path) as world:
        for _ in range(4):
            world.local.kill()
            await world.until_cut_off("refused", "Connect call failed", "Cannot connect", "disconnected")
            world.local.start()
            await world.host.until("connected", lambda s: s["store"]["is_connected"])
        await world.shop.order(world.shop.pack("b2"))
        await world.converges()


async def test_its_consul_agent_hangs(short_path: Path) -> None:
    """It accepts connections and never answers."""
    async with a_world(short_path) as world:
        world.local.pause()
        await world.until_cut_off("no answer", "timed out", "Timeout", "timeout")
        await world.shop.order(world.shop.pack("b2"))
        world.local.resume()
        await world.converges()


async def test_the_servers_have_no_leader(short_path: Path) -> None:
    """Two of three are dead: every question is answered with 500."""
    async with a_world(short_path, servers=3) as world:
        for server in world.servers[1:]:
            server.kill()
        await world.until_cut_off("500", "leader")
        for server in world.servers[1:]:
            server.launch()
        build = world.shop.pack("b2")

        async def is_written() -> bool:
            try:
                await world.shop.order(build, serial=2)
            except Exception:  # noqa: BLE001 - whatever an election looks like
                return False
            return True

        await until("a leader", is_written, PATIENT_S)
        await world.converges()


async def test_its_consul_agent_is_cut_off_from_the_servers(short_path: Path) -> None:
    """The local agent answers, but reaches no server: they hang."""
    async with a_world(short_path) as world:
        world.servers[0].pause()
        await world.until_cut_off("")
        world.servers[0].resume()
        await world.shop.order(world.shop.pack("b2"))
        await world.converges()


async def test_its_consul_agent_lost_its_data(short_path: Path) -> None:
    """It starts with an empty directory, and so without the host's service: the host registers it again."""
    async with a_world(short_path) as world:
        world.local.kill()
        await world.until_cut_off("refused", "Connect call failed", "Cannot connect")
        shutil.rmtree(short_path / "local" / "data")
        await world.shop.order(world.shop.pack("b2"))
        world.local.start()
        await world.converges()

        async def is_registered() -> bool:
            services = json.loads(get(f"{world.local.address}/v1/agent/services") or "{}")
            return any(service["Service"] == service_name(APP) for service in services.values())

        await until("registered again", is_registered, PATIENT_S)


async def test_too_many_questions(short_path: Path) -> None:
    """The local agent lets hardly any question through and answers the others with 429."""
    async with a_world(short_path) as world:
        reconfigure(world, "limits { rpc_rate = 0.01 rpc_max_burst = 1 }")
        await world.until_cut_off("429", "rate limit")
        reconfigure(world, "limits { rpc_rate = 1000 rpc_max_burst = 1000 }")
        await world.shop.order(world.shop.pack("b2"))
        await world.converges()


def reconfigure(world: World, options: str) -> None:
    assert isinstance(world.local, ConsulClient)
    world.local.reconfigure(options)


async def test_no_connection_is_left_for_it(short_path: Path) -> None:
    """Others hold all connections that the local agent allows to one address; the host's agent starts all the same."""
    async with a_world(short_path, options="limits { http_max_conns_per_client = 8 }") as world:
        world.host.kill()
        host, _, port = world.local.address.removeprefix("http://").partition(":")
        with greedy(host, int(port), 12):
            world.host.start()
            world.pid = world.host.pid
            await world.until_cut_off("")
            await world.shop.order(world.shop.pack("b2"))
        await world.converges()


@contextmanager
def greedy(host: str, port: int, count: int) -> Iterator[None]:
    sockets = [socket.create_connection((host, port), timeout=10) for _ in range(count)]
    try:
        yield
    finally:
        for each in sockets:
            each.close()


async def test_the_key_is_deleted(short_path: Path) -> None:
    """An order that has gone asks nothing: what runs stays, and the status says so."""
    async with a_world(short_path) as world:
        await world.shop.store.delete(tier_key(APP, TIER))
        status = await world.host.until("told", lambda s: s["order_problem"] is not None)
        assert (status["order_problem"]["kind"], status["hot"]["build"]) == ("order_absent", "b1")
        await world.shop.order(world.shop.pack("b2"))
        await world.converges()


async def test_an_old_snapshot_is_restored(short_path: Path) -> None:
    """The order of yesterday is back, with a serial that was passed already: it is refused, and the next one obeyed."""
    async with a_world(short_path) as world:
        snapshot = short_path / "yesterday.snap"
        consul(world, "save", snapshot)
        await world.shop.order(world.shop.pack("b2"))
        await world.converges()
        consul(world, "restore", snapshot)
        status = await world.host.until("refused", lambda s: s["order_problem"] is not None)
        assert (status["order_problem"]["kind"], status["hot"]["build"]) == ("order_serial", "b2")
        await world.shop.order(world.shop.pack("b3"))
        await world.converges("b3")


def consul(world: World, verb: str, snapshot: Path) -> None:
    binary = find_consul()
    assert binary is not None
    command = [binary, "snapshot", verb, f"-http-addr={world.servers[0].address}", snapshot]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


async def test_its_token_is_revoked(short_path: Path) -> None:
    """Every question is answered with 403 until the token is there again."""
    master, secret = str(uuid.uuid4()), str(uuid.uuid4())
    acl = f'acl {{ enabled = true default_policy = "deny" tokens {{ master = "{master}" agent = "{master}" }} }}'
    # Else Consul goes on with what it knew of the token for half a minute.
    server = ConsulDev(short_path / "consul", f"-hcl={acl}", '-hcl=acl { token_ttl = "0s" policy_ttl = "0s" }')
    server.token = master

    def call(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{server.address}{path}", data, {"X-Consul-Token": master}, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    with server:
        node = call("GET", "/v1/agent/self")["Config"]["NodeName"]
        call("PUT", "/v1/acl/policy", {"Name": "agent", "Rules": agent_rules(APP, TIER, "web-1", node)})

        def grant() -> str:
            accessor: str = call("PUT", "/v1/acl/token", {"SecretID": secret, "Policies": [{"Name": "agent"}]})[
                "AccessorID"
            ]
            return accessor

        accessor = grant()
        host = a_host(short_path / "host", server.address, CONSUL_HTTP_TOKEN=secret)
        async with a_shop(short_path / "shop", server.address, token=master) as shop:
            world = World([server], server, shop, host)
            try:
                await shop.order(shop.pack("b1"))
                host.start()
                await host.until_steady("b1")
                world.pid = host.pid
                call("DELETE", f"/v1/acl/token/{accessor}")
                await world.until_cut_off("was refused")
                await shop.order(shop.pack("b2"))
                grant()
                await world.converges()
            finally:
                if host.is_alive():
                    host.kill()
