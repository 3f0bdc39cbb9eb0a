"""Owns everything that runs in the demo besides the story: store, artifact server, hosts, clients, and their start.

What happens to them is left to `hotcold.demo.story`, and what people see of it to `hotcold.demo.board`.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import aiohttp

from artifact import ConfigError
from hotcold.demo.board import Board
from hotcold.demo.children import Child, Children, DemoFailed
from hotcold.demo.host import Host
from hotcold.demo.load import decode_counts
from hotcold.demo.outcome import StoreKind

HOSTS: Final = ("web-1", "web-2", "web-3")
_READY_S: Final = 60.0
_LOOK_S: Final = 0.1


@dataclass(frozen=True)
class World:
    """What is up.

    Attributes:
        store_kind: what the store is.
        store: its address.
        artifacts: directory that the artifact server serves.
        files: its address.
    """

    directory: Path
    children: Children
    store_kind: StoreKind
    store: str
    artifacts: Path
    files: str
    hosts: tuple[Host, ...]


def choose_store(wanted: Literal["auto", "consul", "embedded"]) -> Path | None:
    """The consul binary to run, or None for the embedded store.

    Raises:
        ConfigError: `consul` is wanted and not on PATH.
    """
    binary = None if wanted == "embedded" else shutil.which("consul")
    if wanted == "consul" and binary is None:
        raise ConfigError("--store consul, but no `consul` is on PATH; put it there, or use --store embedded")
    return None if binary is None else Path(binary)


async def build_world(directory: Path, children: Children, consul: Path | None) -> World:
    """Start the store, the artifact server, and three bare hosts of production.

    Raises:
        DemoFailed: something did not become ready.
    """
    artifacts = directory / "artifacts"
    artifacts.mkdir()
    files = await children.start(
        "files", [sys.executable, "-m", "hotcold.demo.files", str(artifacts)], is_read=True, is_needed=True
    )
    store = await (_start_embedded(children) if consul is None else _start_consul(children, consul))
    hosts = tuple(Host(name, directory / name) for name in HOSTS)
    for host in hosts:
        await host.start(children, store)
    return World(
        directory,
        children,
        "embedded" if consul is None else "consul",
        store,
        artifacts,
        await files.line(),
        hosts,
    )


@dataclass(frozen=True)
class Load:
    """The clients' process, and the task that reads what they count.

    Attributes:
        address: where it answers for the counts; empty: nowhere.
    """

    process: Child
    reading: asyncio.Task[None]
    address: str = ""

    async def stop(self) -> None:
        """Let clients finish what they have asked for; afterwards the counts are complete."""
        await self.process.stop()
        await self.reading


async def start_load(
    children: Children,
    hosts: Sequence[Host],
    board: Board,
    group: asyncio.TaskGroup,
    *,
    options: Sequence[str] = (),
    is_served: bool = False,
) -> Load:
    """Let clients ask the hosts from now on; what they get appears on the board.

    Args:
        children: starts the clients.
        hosts: whom they ask.
        board: of these hosts.
        group: reads what the clients count.
        options: of `hotcold.demo.load`.
        is_served: let an address answer for the counts, too.
    """
    targets = [f"{host.name}={host.port}" for host in hosts]
    serve = ("--serve",) if is_served else ()
    argv = [sys.executable, "-m", "hotcold.demo.load", *targets, *serve, *options]
    load = await children.start("load", argv, is_read=True)
    address = await load.line() if is_served else ""

    async def read() -> None:
        async for line in load.lines():
            board.count(decode_counts(line))

    return Load(load, group.create_task(read(), name="counts"), address)


async def watch_hosts(hosts: Sequence[Host], board: Board) -> None:
    """Keep the board's view of the agents fresh until cancelled."""
    while True:
        for host in hosts:
            board.see(host.name, await host.status())
        await asyncio.sleep(_LOOK_S)


async def _start_embedded(children: Children) -> str:
    store = await children.start("store", [sys.executable, "-m", "fleet.devserver"], is_read=True, is_needed=True)
    return await store.line()


async def _start_consul(children: Children, binary: Path) -> str:
    http, server, lan, wan = _free_ports(4)
    address = f"http://127.0.0.1:{http}"
    await children.start(
        "store",
        [
            *(str(binary), "agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1", "-log-level=warn"),
            *(f"-http-port={http}", f"-server-port={server}", f"-serf-lan-port={lan}", f"-serf-wan-port={wan}"),
            *("-dns-port=-1", "-grpc-port=-1"),
        ],
        is_needed=True,
    )
    try:
        async with asyncio.timeout(_READY_S):
            while not await _has_leader(address):  # noqa: ASYNC110 - another process's state, there is no event
                await asyncio.sleep(_LOOK_S)
    except TimeoutError as error:
        raise DemoFailed(f"consul at {address} is not ready after {_READY_S:g} s; see store.log") from error
    return address


async def _has_leader(address: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{address}/v1/status/leader") as answer:
            return answer.ok and await answer.json() != ""
    except (aiohttp.ClientError, ValueError):
        return False


def _free_ports(count: int) -> list[int]:
    """TCP ports that nobody listens on now. Somebody else may take one before it is used; then the store says so."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
