"""Consul's maintenance mode: on before a drain, off afterwards, whatever happens between."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.maintenance import Maintenance
from agent.memory import Memory
from fleet import StoreRefused, StoreUnreachable


class Store:
    """Remembers what is in maintenance mode; answers with errors first, where the test put some in."""

    def __init__(self) -> None:
        self.out: dict[str, str] = {}
        self.errors: list[Exception] = []
        self.asked = 0

    async def set_maintenance(self, service_id: str, *, on: bool, reason: str = "") -> None:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        if on:
            self.out[service_id] = reason
        else:
            self.out.pop(service_id, None)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path)


async def pause(_: float) -> None:
    await asyncio.sleep(0)


def maintenance(store: Store, memory: Memory, *services: str) -> Maintenance:
    return Maintenance(store, memory, services=lambda: services, sleep=pause, chance=random.Random(1))


@asynccontextmanager
async def running(kept: Maintenance) -> AsyncIterator[None]:
    task = asyncio.create_task(kept.run())
    try:
        yield
    finally:
        task.cancel()


async def until_back(memory: Memory) -> None:
    async with asyncio.timeout(10):
        while memory.recall().out_of_service is not None:  # noqa: ASYNC110 - the file is what counts
            await asyncio.sleep(0.005)


async def test_services_leave_and_come_back(store: Store, memory: Memory) -> None:
    """With the reason; all that are configured; and nothing is asked where none is."""
    kept = maintenance(store, memory, "a", "b")
    await kept.leave("a deploy")
    assert store.out == {"a": "a deploy", "b": "a deploy"}
    async with running(kept):
        kept.come_back()
        await until_back(memory)
    assert store.out == {}
    await maintenance(store, memory).leave("a deploy")
    assert store.asked == 4


async def test_a_store_that_is_away_hinders_no_deploy_and_hears_of_the_return_later(
    store: Store, memory: Memory
) -> None:
    kept = maintenance(store, memory, "a")
    store.errors = [StoreUnreachable("away")]
    await kept.leave("a deploy")
    store.out = {"a": "it had arrived"}
    store.errors = [StoreUnreachable("away")] * 3
    async with running(kept):
        kept.come_back()
        await until_back(memory)
    assert store.out == {}


async def test_a_service_that_is_not_registered_needs_no_maintenance(store: Store, memory: Memory) -> None:
    kept = maintenance(store, memory, "gone", "a")
    store.errors = [StoreRefused("no such service", kind="unknown_service")]
    await kept.leave("a deploy")
    assert store.out == {"a": "a deploy"}
    store.errors = [StoreRefused("no such service", kind="unknown_service")]
    async with running(kept):
        kept.come_back()
        await until_back(memory)
    assert store.out == {}


async def test_a_missing_right_ends_the_drain_before_it_begins(store: Store, memory: Memory) -> None:
    """The host would seem to be out of service and would not be."""
    store.errors = [StoreRefused("no", kind="store_denied")]
    with pytest.raises(StoreRefused):
        await maintenance(store, memory, "a").leave("a deploy")


async def test_the_next_life_brings_back_what_the_last_one_took_out(store: Store, memory: Memory) -> None:
    """Also when the configuration names other services by then."""
    await maintenance(store, memory, "a").leave("a deploy")
    following = maintenance(store, memory, "other")
    following.come_back()
    await following.finish()
    assert store.out == {}
    await following.finish()
    assert store.asked == 2


async def test_leaving_again_takes_back_a_return_that_is_still_due(store: Store, memory: Memory) -> None:
    kept = maintenance(store, memory, "a")
    await kept.leave("one")
    kept.come_back()
    await kept.leave("two")
    await kept.finish()
    assert store.out == {"a": "two"}
