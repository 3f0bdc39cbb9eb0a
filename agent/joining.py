"""Owns how the agent learns of orders: watches its tier's key, and finds out when this host joined if that matters.

What an order asks is left to `agent.judging`. A host joined when its report was first written, by Consul's own count,
so that the commander's side, which froze a plan by the same count, comes to the same answer without any clock.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

import structlog

from agent.config import Identity, Settings
from agent.judging import must_know_joining
from artifact import HotcoldError
from fleet import Entry, Store
from fleet.keys import host_key, tier_key

log = structlog.get_logger()

RETRY_S: Final = (0.5, 1.5)


async def follow_orders(
    store: Store,
    identity: Identity,
    settings: Callable[[], Settings],
    *,
    see: Callable[[Entry | None, int | None], None],
    sleep: Callable[[float], Awaitable[None]],
    chance: random.Random,
) -> None:
    """Tell `see` of the tier's key and when this host joined, now and whenever the key changes, until cancelled.

    When it joined is asked for each order that depends on it. That order waits for the answer; a later one that does
    not depend on it, as every rollback, is told all the same.
    """
    is_new = asyncio.Event()
    latest: Entry | None = None
    is_complaining = False

    async def follow() -> None:
        nonlocal latest
        async with aclosing(store.watch(tier_key(identity.app, identity.tier))) as changes:
            async for entry in changes:
                latest = entry
                is_new.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(follow(), name="orders")
        while True:
            await is_new.wait()
            is_new.clear()
            entry = latest
            joined: int | None = None
            if entry is not None and must_know_joining(entry.value, settings()):
                try:
                    joined = await _joined(store, identity)
                except HotcoldError as error:
                    if not is_complaining:
                        log.warning("cannot see when this host joined: the order waits", error=str(error))
                    is_complaining = True
                    await sleep(chance.uniform(*RETRY_S))
                    is_new.set()
                    continue
            is_complaining = False
            see(entry, joined)


async def _joined(store: Store, identity: Identity) -> int | None:
    """None before the first report: such a host is in nobody's plan."""
    own = await store.read(host_key(identity.app, identity.tier, identity.host))
    return None if own is None else own.create_index
