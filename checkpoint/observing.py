"""Owns keeping an overview current: watches orders, reports and slots, and asks for the agents' health now and then.

What the entries mean is left to `checkpoint.overview`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Final, Self

from checkpoint.overview import Overview, overview
from checkpoint.reading import HostKey, TierKey, read_host_keys, read_slots, read_tier_keys
from fleet import Entry, ServiceHealth, Store, StoreRefused, StoreUnreachable
from fleet.keys import all_slots_prefix, hosts_prefix, service_name, tiers_prefix

HEALTH_INTERVAL_S: Final = 3.0
"""How often health is asked for: well below the TTL of an agent's check."""


async def look(store: Store, app: str, tier: str | None = None) -> Overview:
    """An app, or one tier of it, as it is now.

    Raises:
        StoreUnreachable: no answer.
        StoreRefused: the token may not read.
    """
    orders, reports, slots, services = await asyncio.gather(
        store.read_prefix(tiers_prefix(app)),
        store.read_prefix(hosts_prefix(app, tier)),
        store.read_prefix(all_slots_prefix(app)),
        store.services(service_name(app)),
    )
    return overview(app, _orders(app, tier, orders), read_host_keys(app, reports), services, read_slots(app, slots))


class Observer:
    """An overview that keeps itself current while its context is open. Never raises for an unreachable store.

    Args:
        store: where everything lies.
        app: the app.
        tier: only this one; None: all.
        health_interval_s: pause between two questions for the agents' health.
    """

    def __init__(
        self, store: Store, app: str, tier: str | None = None, *, health_interval_s: float = HEALTH_INTERVAL_S
    ) -> None:
        self._store = store
        self._app = app
        self._tier = tier
        self._health_interval_s = health_interval_s
        self._keys: tuple[TierKey, ...] | None = None
        self._hosts: tuple[HostKey, ...] | None = None
        self._services: Sequence[ServiceHealth] | None = None
        self._slots: Mapping[tuple[str, str], int] = {}
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._follow_orders(), name=f"orders of {self._app}"),
            asyncio.create_task(self._follow_reports(), name=f"reports of {self._app}"),
            asyncio.create_task(self._follow_slots(), name=f"slots of {self._app}"),
            asyncio.create_task(self._follow_health(), name=f"health of {self._app}"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def now(self) -> Overview | None:
        """The overview, None until orders and reports have been read once.

        Raises:
            Exception: whatever ended a watch: a programming error, or a store that refuses.
        """
        for task in self._tasks:
            if task.done():
                task.result()
        if self._keys is None or self._hosts is None:
            return None
        return overview(self._app, self._keys, self._hosts, self._services, self._slots)

    async def changed(self, timeout_s: float) -> None:
        """Wait for news, at most `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        self._changed.clear()

    async def _follow_orders(self) -> None:
        async with aclosing(self._store.watch_prefix(tiers_prefix(self._app))) as changes:
            async for entries in changes:
                self._keys = _orders(self._app, self._tier, entries)
                self._changed.set()

    async def _follow_reports(self) -> None:
        async with aclosing(self._store.watch_prefix(hosts_prefix(self._app, self._tier))) as changes:
            async for entries in changes:
                self._hosts = read_host_keys(self._app, entries)
                self._changed.set()

    async def _follow_slots(self) -> None:
        async with aclosing(self._store.watch_prefix(all_slots_prefix(self._app))) as changes:
            async for entries in changes:
                self._slots = read_slots(self._app, entries)
                self._changed.set()

    async def _follow_health(self) -> None:
        while True:
            try:
                services = await self._store.services(service_name(self._app))
            except (StoreUnreachable, StoreRefused):
                services = None  # orders and reports are worth showing without it
            if services != self._services:
                self._services = services
                self._changed.set()
            await asyncio.sleep(self._health_interval_s)


def _orders(app: str, tier: str | None, entries: Sequence[Entry]) -> tuple[TierKey, ...]:
    return tuple(key for key in read_tier_keys(app, entries) if tier in {None, key.tier})


def silent_hosts(hosts: Sequence[HostKey], services: Sequence[ServiceHealth] | None) -> frozenset[tuple[str, str]]:
    """(tier, host) of the agents whose check fails, or that are not registered; nobody where health is not known."""
    return silent_among(hosts, alive_agents(services))


def alive_agents(services: Sequence[ServiceHealth] | None) -> frozenset[tuple[str | None, str | None]] | None:
    """(tier, host) of the agents whose check does not fail; None: not known."""
    if services is None:
        return None
    return frozenset((each.meta.get("tier"), each.meta.get("host")) for each in services if each.status != "critical")


def silent_among(
    hosts: Sequence[HostKey], alive: frozenset[tuple[str | None, str | None]] | None
) -> frozenset[tuple[str, str]]:
    """(tier, host) of the hosts that are not among those alive; nobody where that is not known."""
    if alive is None:
        return frozenset()
    return frozenset(place for host in hosts if (place := (host.tier, host.host)) not in alive)
