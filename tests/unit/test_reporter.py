"""What Consul hears: the latest report until it has arrived, a stable note, and nothing twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from agent.config import Identity
from agent.reporter import Reporter
from agent.runner import Situation
from agent.states import Facts, Fetching, Goal, Model, Steady, Tree
from artifact import ManifestRef
from fleet import ConsulSettings, Report, Service, StoreUnreachable, decode_report
from swapper import Layout

BUILD = ManifestRef(id="b", urls=("http://127.0.0.1/b",), digest="sha256:" + "0" * 64, size=1, format="tar")
SITUATION = Situation(Model(Facts(), Steady()), None, None, datetime(2026, 11, 23, tzinfo=UTC), 0.0)
FETCHING = replace(SITUATION, model=Model(Facts(goal=Goal(1, BUILD)), Fetching(BUILD)))
DONE = replace(
    SITUATION, model=Model(Facts(goal=Goal(1, BUILD), hot=Tree("b~1", "b", BUILD.digest, proved=True)), Steady())
)


BEAT_S = 6.0
"""A fifth of the TTL."""


class Store:
    """Keeps what is written; fails as often as it is told to."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.notes: list[str] = []
        self.failures_left = 0
        self.wrote = asyncio.Event()

    async def put(self, key: str, value: bytes) -> bool:
        assert key == "hotcold/shop/hosts/prod/web-1"
        if self.failures_left:
            self.failures_left -= 1
            raise StoreUnreachable("no leader")
        self.reports.append(decode_report(value))
        self.wrote.set()
        return True

    async def pass_check(self, service: Service, note: str) -> None:
        assert service.id == "hotcold-shop-prod-web-1"
        self.notes.append(note)

    async def fail_check(self, _service: Service, note: str) -> None:
        self.notes.append(f"failed: {note}")


class Sleeper:
    """Time that passes only when the test says so; remembers how long everybody wanted to sleep."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []
        self.is_retrying = asyncio.Event()
        self.wake = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        if seconds < BEAT_S:
            self.is_retrying.set()
        await (self.wake if seconds < BEAT_S else asyncio.Event()).wait()


@asynccontextmanager
async def reporting(store: Store, sleeper: Sleeper) -> AsyncIterator[Reporter]:
    identity = Identity("shop", "prod", "web-1", Layout(Path("/r"), Path("/s")), Path("/x"), ConsulSettings())
    reporter = Reporter(store, identity, ttl_s=30, sleep=sleeper, chance=random.Random(1))
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        running = group.create_task(reporter.run(group))
        yield reporter
        running.cancel()


async def test_each_situation_is_reported_once() -> None:
    """Equal situations cost no write; a change is written with what the host wants and has."""
    store = Store()
    async with reporting(store, Sleeper()) as reporter:
        for situation in (FETCHING, DONE):
            reporter.tell(situation)
            await store.wrote.wait()
            store.wrote.clear()
            reporter.tell(situation)

    assert [(report.state, report.wanted, report.hot) for report in store.reports] == [
        ("fetching", "b", None),
        ("steady", "b", "b"),
    ]


async def test_failed_report_is_sent_later_and_only_the_latest() -> None:
    """A store that fails hears nothing old once it answers again."""
    store, sleeper = Store(), Sleeper()
    store.failures_left = 1
    async with reporting(store, sleeper) as reporter:
        reporter.tell(FETCHING)
        await sleeper.is_retrying.wait()
        reporter.tell(DONE)
        sleeper.wake.set()
        await store.wrote.wait()

    assert [report.state for report in store.reports] == ["steady"]


async def test_check_beats_several_times_per_ttl_with_a_stable_note() -> None:
    """A stall of seconds must not make the check flap, and an unchanged note costs the servers nothing."""
    store, sleeper = Store(), Sleeper()
    async with reporting(store, sleeper) as reporter:
        reporter.tell(DONE)
        await store.wrote.wait()
        await reporter.say_stopped()

    assert BEAT_S in sleeper.slept_s
    assert store.notes[0] in {"starting", "steady, hot: b"}
    assert store.notes[-1] == "failed: agent stopped"
