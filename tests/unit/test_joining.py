"""When an agent finds out that it is a newcomer: by its own report in a store, asked for only where it matters."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import msgspec
import pytest

from agent.config import Settings, parse_settings
from agent.joining import follow_orders
from agent.judging import judge
from artifact import ManifestRef
from fleet import ConsulSettings, ConsulStore, Entry, Order, Report, StoreUnreachable, encode, position
from fleet.devserver import DevServer
from fleet.keys import host_key, tier_key

NEW, OLD = (
    ManifestRef(id=name, urls=(f"http://127.0.0.1:1/{name}",), digest="sha256:" + digit * 64, size=1, format="tar")
    for name, digit in (("new", "1"), ("old", "2"))
)
PARTIAL = Order(
    v=1,
    app="shop",
    tier="prod",
    serial=2,
    build=NEW,
    previous=OLD,
    percent=50.0,
    cutoff=(position("salt", "web-1") + 1) / 2,
    salt="salt",
)
OWN = host_key("shop", "prod", "web-1")
KEY = tier_key("shop", "prod")
NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
async def store() -> AsyncIterator[ConsulStore]:
    async with DevServer() as server, ConsulStore(ConsulSettings(address=server.address)) as connected:
        yield connected


def settings() -> Settings:
    return parse_settings('app = "shop"\ntier = "prod"\nhost = "web-1"\nroot = "/srv/shop"\n', {})


class CountingStore:
    """A real store that counts what is read, and does not answer as often as it is told to."""

    def __init__(self, store: ConsulStore) -> None:
        self._store = store
        self.watch = store.watch
        self.read_count = 0
        self.failures_left = 0

    async def read(self, key: str) -> Entry | None:
        self.read_count += 1
        if self.failures_left:
            self.failures_left -= 1
            raise StoreUnreachable("no leader")
        return await self._store.read(key)


class Agent:
    """What the agent's loop would be told, judged as it would judge it."""

    def __init__(self) -> None:
        self.seen: asyncio.Queue[tuple[int, str | None]] = asyncio.Queue()

    def see(self, entry: Entry | None, joined: int | None) -> None:
        if entry is not None:
            goal = judge(entry.value, settings(), highest=None, now=NOW, joined=joined).goal
            self.seen.put_nowait((goal.serial, None if goal.build is None else goal.build.id))

    async def next(self) -> tuple[int, str | None]:
        async with asyncio.timeout(30):
            return await self.seen.get()


@asynccontextmanager
async def following(store: CountingStore, sleep: Callable[[float], Awaitable[None]]) -> AsyncIterator[Agent]:
    agent = Agent()
    task = asyncio.create_task(
        follow_orders(
            store,  # type: ignore[arg-type]
            settings().identity,
            settings,
            see=agent.see,
            sleep=sleep,
            chance=random.Random(1),
        )
    )
    try:
        yield agent
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


async def report(store: ConsulStore) -> int:
    said = Report(v=1, app="shop", tier="prod", host="web-1", serial=0, highest=0, state="steady")
    await store.put(OWN, encode(said))
    entry = await store.read(OWN)
    assert entry is not None
    return entry.create_index


async def order(store: ConsulStore, serial: int = 2, **facts: object) -> None:
    await store.put(KEY, encode(msgspec.structs.replace(PARTIAL, serial=serial, **facts)))


async def test_a_host_that_was_known_takes_its_place(store: ConsulStore) -> None:
    """By one question for each such order."""
    counting = CountingStore(store)
    known = await report(store)
    await order(store, known_index=known)
    async with following(counting, no_sleep) as agent:
        assert await agent.next() == (2, "new")
        await report(store)
        await order(store, 3, known_index=known)
        assert await agent.next() == (3, "new")
    assert counting.read_count == 2


async def test_a_host_that_reported_later_runs_the_build_before(store: ConsulStore) -> None:
    counting = CountingStore(store)
    joined = await report(store)
    await order(store, known_index=joined - 1)
    async with following(counting, no_sleep) as agent:
        assert await agent.next() == (2, "old")


async def test_a_host_that_never_reported_is_new_and_asks_again_for_the_next_order(store: ConsulStore) -> None:
    counting = CountingStore(store)
    await order(store, known_index=10_000)
    async with following(counting, no_sleep) as agent:
        assert await agent.next() == (2, "old")
        await report(store)
        await order(store, 3, known_index=10_000)
        assert await agent.next() == (3, "new")


@pytest.mark.parametrize("facts", [{}, {"cutoff": 1.0, "known_index": 1}, {"cutoff": 0.0, "known_index": 1}])
async def test_nothing_is_asked_where_it_does_not_matter(store: ConsulStore, facts: dict[str, object]) -> None:
    counting = CountingStore(store)
    await order(store, **facts)
    async with following(counting, no_sleep) as agent:
        await agent.next()
    assert counting.read_count == 0


async def test_an_order_waits_for_the_answer_and_a_rollback_does_not(store: ConsulStore) -> None:
    """The store gives orders and not this answer: nothing is guessed, and what needs no answer is told at once."""
    counting = CountingStore(store)
    counting.failures_left = 10**9
    asked = asyncio.Event()

    async def sleep(_: float) -> None:
        asked.set()
        await asyncio.sleep(0.001)

    known = await report(store)
    await order(store, known_index=known)
    async with following(counting, sleep) as agent:
        async with asyncio.timeout(30):
            await asked.wait()
        assert agent.seen.empty()
        await order(store, 3, build=OLD, previous=OLD, cutoff=1.0, percent=100.0)
        assert await agent.next() == (3, "old")
        await order(store, 4, known_index=known)
        asked.clear()
        async with asyncio.timeout(30):
            await asked.wait()
        counting.failures_left = 0
        assert await agent.next() == (4, "new")
