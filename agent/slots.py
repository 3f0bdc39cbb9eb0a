"""Owns this host's place among those that may be out of service at once: take it, keep it, give it back.

How slots lie in the store is left to `fleet.Store`; what a lost slot means, to the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog

from artifact import HotcoldError
from fleet import Entry, Slot, SlotLost, Store, StoreRefused, StoreUnreachable

log = structlog.get_logger()

ASKED_AGAIN_S = (5.0, 10.0)
SPREAD_S = 1.0
TTL_S = 60.0
"""A host that died frees its slot after one to two of these."""


class SlotKeeper:
    """Holds at most one slot. `run` renews it; its owner keeps that in a task group.

    Args:
        lost: called once when a held slot is gone.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        holder: str,
        *,
        lost: Callable[[], None],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        chance: random.Random,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._holder = holder
        self._lost = lost
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        self._slot: Slot | None = None
        self._renewed_at_s = 0.0
        self._taken = asyncio.Event()

    async def acquire(self, slot_count: int) -> None:
        """Wait until a slot is ours, for ever. A no-op while one is held."""
        if self._slot is not None:
            return
        spread_s = 0.0
        async with contextlib.aclosing(self._store.watch_prefix(self._prefix)) as changes:
            while True:
                entries = await self._next(changes)
                if entries is None or sum(entry.session is not None for entry in entries) < slot_count:
                    # Every release wakes all who wait: spread them, so that they do not all write at once.
                    await self._sleep(self._chance.uniform(0, spread_s))
                    if await self._take(slot_count):
                        return
                spread_s = SPREAD_S

    async def _next(self, changes: AsyncIterator[tuple[Entry, ...]]) -> tuple[Entry, ...] | None:
        """What the slots are after the next change; None where there was none for some time.

        A slot whose holder died stays locked for a delay, whose end wakes nobody: it must be asked for again.
        """
        change = asyncio.create_task(_next_of(changes), name="change of the slots")
        pause = asyncio.create_task(self._pause(), name="pause")
        try:
            await asyncio.wait((change, pause), return_when=asyncio.FIRST_COMPLETED)
            return change.result() if change.done() else None
        finally:
            change.cancel()
            pause.cancel()
            await asyncio.wait((change, pause))

    async def _pause(self) -> None:
        await self._sleep(self._chance.uniform(*ASKED_AGAIN_S))

    async def _take(self, slot_count: int) -> bool:
        """Whether a slot is ours now. An unreachable store is asked again until it answers."""
        while True:
            try:
                slot = await self._store.acquire_slot(self._prefix, slot_count, holder=self._holder, ttl_s=TTL_S)
            except (StoreUnreachable, StoreRefused) as error:
                log.warning("cannot take a slot", kind=error.kind, error=str(error))
                await self._sleep(self._chance.uniform(1, 5))
                continue
            if slot is None:
                return False
            self._slot, self._renewed_at_s = slot, self._clock()
            self._taken.set()
            return True

    async def release(self) -> None:
        """Give the slot back. A store that cannot be reached gets it back when the TTL ends."""
        slot, self._slot = self._slot, None
        self._taken.clear()
        if slot is None:
            return
        try:
            await self._store.release_slot(slot)
        except (StoreUnreachable, StoreRefused) as error:
            log.warning("cannot give the slot back; it frees itself", after_s=2 * slot.ttl_s, error=str(error))

    async def run(self) -> None:
        """Renew the held slot until cancelled."""
        while True:
            await self._taken.wait()
            await self._sleep(TTL_S / 3)
            await self._renew()

    async def _renew(self) -> None:
        slot = self._slot
        if slot is None:
            return
        try:
            await self._store.renew_slot(slot)
        except SlotLost as error:
            self._lose(slot, error)
        except (StoreUnreachable, StoreRefused) as error:
            log.warning("cannot renew the slot", slot=slot.key, error=str(error))
            if self._clock() - self._renewed_at_s > slot.ttl_s:
                # Nobody promises us the session any more: fail closed and start nothing new.
                self._lose(slot, error)
        else:
            self._renewed_at_s = self._clock()

    def _lose(self, slot: Slot, error: HotcoldError) -> None:
        if self._slot is slot:
            log.warning("slot lost", slot=slot.key, error=str(error))
            self._slot = None
            self._taken.clear()
            self._lost()


async def _next_of(changes: AsyncIterator[tuple[Entry, ...]]) -> tuple[Entry, ...]:
    return await anext(changes)
