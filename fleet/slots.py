"""Owns the tier's counting semaphore on Consul: slot keys held by sessions.

Each slot is one key, locked by the holder's session, so the limit is the number of keys and no loop of
check-and-set is needed. When to hold a slot is left to the agent. Slots limit how many hosts work at once; they do not
stop a bad build from going round.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Final

from consul.exceptions import NotFound

from artifact import ConfigError
from fleet import answers
from fleet.store import Entry, Slot, SlotLost, StoreUnreachable
from fleet.transport import ConsulClient

LOCK_DELAY_S: Final = 5
"""How long Consul keeps a slot shut after its session was lost (not after a release).

A holder notices a lost session at its next renewal; this is the time for what it has in flight. Consul's default of
15 s would hold up a tier whose operator destroys the session of a dead host; 0 would let the next one in at once.
"""

MIN_TTL_S: Final = 10.0
MAX_TTL_S: Final = 86400.0

_CLEANUP_S: Final = 5.0


class Slots:
    """Takes, renews and gives back slots.

    Args:
        client: asks Consul.
        rng: picks among free slots, so that contenders do not all try the same one first.
    """

    def __init__(self, client: ConsulClient, *, rng: random.Random) -> None:
        self._client = client
        self._rng = rng

    async def acquire(self, prefix: str, count: int, *, holder: str, ttl_s: float) -> Slot | None:
        """See `Store.acquire_slot`. Writes nothing while all slots are visibly taken."""
        if not MIN_TTL_S <= ttl_s <= MAX_TTL_S:
            raise ConfigError(
                f"a slot's TTL is {ttl_s:g} s; Consul allows {MIN_TTL_S:g} to {MAX_TTL_S:g} s", kind="config_value"
            )
        free = await self._free(prefix, count)
        if not free:
            return None
        session = await self._client.session.create(
            name=f"hotcold slot for {holder}",
            # No health checks: a restart of the Consul agent must not take the slot from a host in mid-drain.
            checks=[],
            lock_delay=LOCK_DELAY_S,
            behavior="release",
            ttl=round(ttl_s),
        )
        session = answers.convert(session, str)
        key = None
        try:
            key = await self._take_one(free, holder, session)
        finally:
            if key is None:
                await self._abandon(session)
        return None if key is None else Slot(key=key, session=session, ttl_s=ttl_s)

    async def renew(self, slot: Slot) -> None:
        """See `Store.renew_slot`."""
        try:
            await self._client.session.renew(slot.session)
        except NotFound as error:
            raise SlotLost(
                f"the session {slot.session} that held {slot.key} is gone: it was not renewed for {slot.ttl_s:g} s, or "
                "somebody destroyed it"
            ) from error
        _, data = await self._client.kv.get(slot.key)
        found = answers.entry(data)
        if found is None or found.session != slot.session:
            holder = "nobody" if found is None or found.session is None else found.value.decode(errors="replace")
            await self._abandon(slot.session)
            raise SlotLost(f"{slot.key} is held by {holder} now; our session {slot.session} was ended")

    async def release(self, slot: Slot) -> None:
        """See `Store.release_slot`."""
        # Releasing before destroying, because destroying a session that holds a lock starts the lock delay.
        await self._client.kv.put(slot.key, b"", release=slot.session)
        await self._client.session.destroy(slot.session)

    async def _free(self, prefix: str, count: int) -> list[str]:
        _, data = await self._client.kv.get(prefix, recurse=True)
        held = {entry.key for entry in answers.entries(data) if _is_slot(entry, prefix) and entry.session is not None}
        # Slots beyond `count` are counted too: an order that lowers the limit must not add to hosts already out.
        if len(held) >= count:
            return []
        free = [key for key in (f"{prefix}{number}" for number in range(count)) if key not in held]
        self._rng.shuffle(free)
        return free

    async def _take_one(self, free: list[str], holder: str, session: str) -> str | None:
        for key in free:
            if answers.convert(await self._client.kv.put(key, holder.encode(), acquire=session), bool):
                return key
        return None

    async def _abandon(self, session: str) -> None:
        # Best effort with a deadline, also while being cancelled: what is left behind ends by its TTL.
        with contextlib.suppress(StoreUnreachable, ConfigError, TimeoutError):
            async with asyncio.timeout(_CLEANUP_S):
                await self._client.session.destroy(session)


def _is_slot(entry: Entry, prefix: str) -> bool:
    return entry.key.removeprefix(prefix).isdecimal()
