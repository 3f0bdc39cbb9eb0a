"""The host's slot: waited for, renewed, given back, and known to be lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

from agent.slots import SPREAD_S, TTL_S, SlotKeeper
from fleet import Entry, Slot, SlotLost, StoreUnreachable


class Changes:
    """A watch that shows what the test puts in; at first that nobody holds a slot."""

    def __init__(self) -> None:
        self.shown: asyncio.Queue[tuple[Entry, ...]] = asyncio.Queue()
        self.shown.put_nowait(())
        self.is_closed = False

    def __aiter__(self) -> AsyncIterator[tuple[Entry, ...]]:
        return self

    async def __anext__(self) -> tuple[Entry, ...]:
        return await self.shown.get()

    async def aclose(self) -> None:
        self.is_closed = True


class Store:
    """Answers with what the test put in: a slot, None for "all taken", or an error."""

    def __init__(self, *answers: Slot | Exception | None) -> None:
        self.refused_twice = asyncio.Event()
        self.answers = list(answers)
        self.renewals: list[Exception | None] = []
        self.changes = Changes()
        self.released: list[Slot] = []

    def watch_prefix(self, _prefix: str) -> Changes:
        return self.changes

    async def acquire_slot(self, _prefix: str, _count: int, *, holder: str, ttl_s: float) -> Slot | None:
        assert (holder, ttl_s) == ("web-1", TTL_S)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if answer is None and self.answers[0] is not None:
            self.refused_twice.set()
        return answer

    async def renew_slot(self, _slot: Slot) -> None:
        answer = self.renewals.pop(0) if self.renewals else None
        if answer is not None:
            raise answer

    async def release_slot(self, slot: Slot) -> None:
        self.released.append(slot)


class Clock:
    """Sleeping moves it on at once."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)


class SlowClock(Clock):
    """Only short pauses end, and each is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses_s: list[float] = []

    async def sleep(self, seconds: float) -> None:
        if seconds > SPREAD_S:
            await asyncio.Event().wait()
        self.pauses_s.append(seconds)


SLOT = Slot("slots/0", "session", TTL_S)


def keeper(store: Store, lost: Callable[[], None], clock: Clock) -> SlotKeeper:
    return SlotKeeper(
        store,
        "slots/",
        "web-1",
        lost=lost,
        clock=clock,
        sleep=clock.sleep,
        chance=random.Random(1),
    )


async def test_waits_for_a_slot_and_asks_an_unreachable_store_again() -> None:
    """Taken slots are waited for by the watch; a store that cannot answer is asked until it does."""
    store = Store(None, None, StoreUnreachable("no leader"), SLOT)
    slots = keeper(store, lambda: None, Clock())

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        taking = group.create_task(slots.acquire(2))
        await store.refused_twice.wait()
        assert not taking.done()
        store.changes.shown.put_nowait(())

    assert store.changes.is_closed
    await slots.release()
    await slots.release()
    assert store.released == [SLOT]


def held(name: str, session: str | None) -> Entry:
    return Entry(key=f"slots/{name}", value=b"web-2", create_index=7, modify_index=7, session=session)


async def test_a_slot_that_comes_free_is_asked_for_at_once_and_one_that_is_held_is_not() -> None:
    """No pause stands before a change that frees a slot, but the moment that spreads those who wait."""
    store, clock = Store(None, SLOT), SlowClock()
    slots = keeper(store, lambda: None, clock)

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        taking = group.create_task(slots.acquire(2))
        await turns()
        assert len(store.answers) == 1
        for session in ("s3", "s4"):
            store.changes.shown.put_nowait((held("0", "s2"), held("1", session)))
            await turns()
        assert (len(store.answers), taking.done()) == (1, False)
        store.changes.shown.put_nowait((held("0", "s2"), held("1", None)))

    assert store.answers == []
    assert clock.pauses_s[0] == 0
    assert 0 < clock.pauses_s[1] <= SPREAD_S


async def turns() -> None:
    """Everything that can happen without the test has happened then."""
    for _ in range(50):
        await asyncio.sleep(0)


async def run_until_lost(store: Store, clock: Clock) -> int:
    lost, is_lost = 0, asyncio.Event()

    def note() -> None:
        nonlocal lost
        lost += 1
        is_lost.set()

    slots = keeper(store, note, clock)
    await slots.acquire(1)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        renewing = group.create_task(slots.run())
        await is_lost.wait()
        renewing.cancel()
    await slots.release()
    return lost


async def test_slot_whose_session_is_gone_is_lost() -> None:
    """The store says so: told once, and there is nothing left to give back."""
    store = Store(SLOT)
    store.renewals = [None, SlotLost("gone")]

    assert await run_until_lost(store, Clock()) == 1
    assert store.released == []


async def test_slot_that_nobody_confirms_for_its_ttl_is_lost() -> None:
    """An unreachable store promises nothing: unknown for longer than the TTL counts as lost, but not before."""
    store, clock = Store(SLOT), Clock()
    store.renewals = [StoreUnreachable("no leader")] * 10

    assert await run_until_lost(store, clock) == 1
    assert TTL_S < clock.now_s <= 2 * TTL_S
