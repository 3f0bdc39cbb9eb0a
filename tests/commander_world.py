"""Owns what a commander's tests need around them: builds, reports, a store that answers, and one that loses answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from artifact import ManifestRef
from checkpoint import HostKey
from fleet import ConsulSettings, ConsulStore, Entry, Order, Problem, Report, StoreUnreachable, decode_order, encode
from fleet.devserver import DevServer
from fleet.keys import host_key
from fleet.store import Operation


def build(build_id: str, digit: str = "0") -> ManifestRef:
    """A build that nobody fetches; `digit` makes another artifact of the same id."""
    digest = "sha256:" + digit * 64
    url = f"http://127.0.0.1:1/{build_id}.tar"
    return ManifestRef(id=build_id, urls=(url,), digest=digest, size=1, format="tar")


def report(host: str, *, serial: int = 0, state: str = "steady", **facts: Any) -> Report:
    """What a host of shop/prod says; by default it obeyed what it says."""
    facts.setdefault("highest", serial)
    return Report(v=1, app="shop", tier="prod", host=host, serial=serial, state=state, **facts)


def host(name: str, **facts: Any) -> HostKey:
    """A host of shop/prod with that report."""
    return HostKey("prod", name, report(name, **facts))


def problem(kind: str, message: str) -> Problem:
    """Why something is not as wanted."""
    return Problem(kind=kind, message=message)


async def write_reports(store: ConsulStore, reports: Sequence[Report]) -> None:
    """Put reports where hosts put them."""
    for said in reports:
        await store.put(host_key(said.app, said.tier, said.host), encode(said))


class LossyStore:
    """A real store behind a bad network: each fault in `faults` hits the next put or transaction.

    `lost question` fails before the write arrives, `lost answer` after it; a callable is somebody else's deed just
    before ours.
    """

    def __init__(self, store: ConsulStore, faults: Sequence[str | Callable[[], Awaitable[None]]]) -> None:
        self._store = store
        self._faults = list(faults)
        self.put_count = 0

    async def read(self, key: str) -> Entry | None:
        return await self._store.read(key)

    async def read_prefix(self, prefix: str) -> tuple[Entry, ...]:
        return await self._store.read_prefix(prefix)

    async def put(self, key: str, value: bytes, *, cas: int | None = None) -> bool:
        return await self._badly(lambda: self._store.put(key, value, cas=cas))

    async def transact(self, operations: Sequence[Operation]) -> bool:
        return await self._badly(lambda: self._store.transact(operations))

    async def _badly(self, write: Callable[[], Awaitable[bool]]) -> bool:
        self.put_count += 1
        fault = self._faults.pop(0) if self._faults else None
        if callable(fault):
            await fault()
        if fault == "lost question":
            raise StoreUnreachable("the question was lost")
        answer = await write()
        if fault == "lost answer":
            raise StoreUnreachable("the answer was lost")
        return answer


class Loop:
    """An event loop in a thread, for servers beside a test that has none."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Any) -> Any:
        """The result of a coroutine."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=20)

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class World:
    """An embedded store and a client of it, to be used from tests without a loop."""

    def __init__(self, loop: Loop, address: str, store: ConsulStore) -> None:
        self._loop = loop
        self.address = address
        self.store = store

    def do(self, work: Any) -> Any:
        """The result of a coroutine that uses `store`."""
        return self._loop.run(work)

    def order(self, key: str) -> Order | None:
        """The order in a key."""
        entry = self.do(self.store.read(key))
        return None if entry is None else decode_order(entry.value)


@contextmanager
def world() -> Iterator[World]:
    """A fresh store."""
    loop = Loop()
    server = DevServer()
    try:
        loop.run(server.start())
        store = loop.run(_connect(server.address))
        try:
            yield World(loop, server.address, store)
        finally:
            loop.run(store.aclose())
            loop.run(server.aclose())
    finally:
        loop.close()


async def _connect(address: str) -> ConsulStore:
    return ConsulStore(ConsulSettings(address=address))


class RecordedAgent:
    """What answers on an agent's socket: one status document, and every other request noted."""

    def __init__(self, document: Any) -> None:
        self.document = document
        self.asked: list[tuple[str, Any]] = []
        self.answer: tuple[int, Any] = (202, {"accepted": True})
        self.events: list[Any] = []
        self.limits: list[str | None] = []

    async def status(self, _: web.Request) -> web.Response:
        return web.json_response(self.document)

    async def history(self, request: web.Request) -> web.Response:
        self.limits.append(request.query.get("limit"))
        return web.json_response({"events": self.events})

    async def other(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, await request.json() if request.can_read_body else None))
        code, body = self.answer
        return web.json_response(body, status=code)


@contextmanager
def agent_at(path: str, document: Any) -> Iterator[RecordedAgent]:
    """Serve a recorded agent on a Unix socket."""
    agent = RecordedAgent(document)
    loop = Loop()
    application = web.Application()
    application.add_routes(
        [
            web.get("/v1/status", agent.status),
            web.get("/v1/history", agent.history),
            web.post("/v1/{what}", agent.other),
        ]
    )
    runner = web.AppRunner(application, access_log=None)

    async def start() -> None:
        await runner.setup()
        await web.UnixSite(runner, path).start()

    try:
        loop.run(start())
        yield agent
        loop.run(runner.cleanup())
    finally:
        loop.close()
