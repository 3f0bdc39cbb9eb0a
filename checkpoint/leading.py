"""Owns who leads: one of any number of engines of an app, by a lock that a session holds in Consul.

What the leader does is left to `checkpoint.engine`. Nothing rests on there being one leader only: each write names what
it was decided on. The lock keeps standbys from doing the same work.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from artifact import HotcoldError
from fleet import Slot, SlotLost, Store
from fleet.keys import leader_prefix

log = structlog.get_logger()

TTL_S: Final = 10.0
"""A leader that died is followed after one to two of these, and Consul's lock delay."""
ASKED_AGAIN_S: Final = (1.0, 2.0)


class LeadershipLost(Exception):
    """Somebody else may lead."""


async def lead(
    store: Store,
    app: str,
    holder: str,
    work: Callable[[], Awaitable[None]],
    *,
    ttl_s: float = TTL_S,
    chance: random.Random,
    clock: Callable[[], float],
) -> None:
    """Wait for the lock, work while it is ours, wait again; until cancelled.

    Args:
        store: where the lock lies.
        app: whose rollouts are led.
        holder: for people.
        work: runs while the lock is held; cancelled when it is lost.
        ttl_s: of the session.
        chance: spreads the standbys' questions.
        clock: monotonic seconds.
    """
    is_told = False
    while True:
        try:
            slot = await store.acquire_slot(leader_prefix(app), 1, holder=holder, ttl_s=ttl_s)
        except HotcoldError as error:
            log.warning("cannot ask for the lead", kind=error.kind, error=str(error))
            slot = None
        if slot is None:
            if not is_told:
                log.info("standing by", app=app)
                is_told = True
            await asyncio.sleep(chance.uniform(*ASKED_AGAIN_S))
            continue
        is_told = False
        log.info("leading", app=app, holder=holder)
        await _lead(store, slot, work, clock)
        log.warning("no longer leading", app=app)


async def _lead(store: Store, slot: Slot, work: Callable[[], Awaitable[None]], clock: Callable[[], float]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_keep(store, slot, clock), name="keep the lead")
            group.create_task(_as_coroutine(work), name="lead")
    except* LeadershipLost:
        pass
    finally:
        await _give_back(store, slot)


async def _as_coroutine(work: Callable[[], Awaitable[None]]) -> None:
    await work()
    raise LeadershipLost


async def _keep(store: Store, slot: Slot, clock: Callable[[], float]) -> None:
    renewed_s = clock()
    while True:
        await asyncio.sleep(slot.ttl_s / 3)
        try:
            await store.renew_slot(slot)
        except SlotLost as error:
            log.warning("the lead is lost", error=str(error))
            raise LeadershipLost from error
        except HotcoldError as error:
            if clock() - renewed_s > slot.ttl_s:
                raise LeadershipLost from error
        else:
            renewed_s = clock()


async def _give_back(store: Store, slot: Slot) -> None:
    """So that a standby follows at once; what cannot be given back ends by its TTL."""
    try:
        async with asyncio.timeout(5.0):
            await asyncio.shield(asyncio.create_task(store.release_slot(slot), name="give the lead back"))
    except (HotcoldError, TimeoutError) as error:
        log.info("the lead ends by its session", error=str(error))
