"""Owns hosts that report at a steady pace, so that a page always has something to show; what they cost is not measured.

How a page shows it is left to `benchmarks.bench_pages`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp

from fleet import ConsulStore, Order, Report, decode_order, encode, wanted_build
from fleet.keys import host_key, service_id, service_name, tier_key

_AT_ONCE: Final = 40
_DEPLOYING: Final = 20
"""Hosts that are on their way at the same time."""
_SHOWN: Final = {"fetching": "b", "steady": "n"}
"""Letters of the grid that a host's reports change it to."""


@dataclass
class Flow:
    """Hosts of an app, all of which obey: `per_s` reports a second while there are hosts to change.

    Attributes:
        sent: wall-clock time at which a report was sent that a page shows as that letter, by (host, letter).
        report_count: reports so far.
    """

    store: ConsulStore
    consul: str
    app: str
    hosts: Sequence[tuple[str, str]]
    per_s: float
    sent: dict[tuple[str, str], float] = field(default_factory=dict)
    report_count: int = 0

    async def start(self, orders: dict[str, Order]) -> None:
        """Register everybody, and report that they run what is ordered."""
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one(http: aiohttp.ClientSession, tier: str, host: str) -> None:
            async with limit:
                async with http.put(f"{self.consul}/v1/catalog/register", json=self._node(tier, host)) as answer:
                    answer.raise_for_status()
                await self._report(tier, host, orders[tier], "steady")

        async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
            for tier, host in self.hosts:
                group.create_task(one(http, tier, host))

    def _node(self, tier: str, host: str) -> dict[str, Any]:
        """A node of its own, as in a fleet: thousands of services on one would take minutes to register."""
        service = service_id(self.app, tier, host)
        alive = {"CheckID": f"{service}:alive", "Name": "alive", "Status": "passing", "ServiceID": service}
        meta = {"app": self.app, "tier": tier, "host": host}
        known = {"ID": service, "Service": service_name(self.app), "Meta": meta}
        return {"Node": host, "Address": "127.0.0.1", "Service": known, "Check": alive}

    async def run(self) -> None:
        """Obey one order after the other, until cancelled."""
        obeyed: dict[str, int] = {}
        waiting: deque[Iterator[tuple[str, str, Order, str]]] = deque()
        under_way: deque[Iterator[tuple[str, str, Order, str]]] = deque()
        due_s = asked_s = time.monotonic()
        async with asyncio.TaskGroup() as writes:
            while True:
                if (not waiting and not under_way) or time.monotonic() > asked_s + 1.0:
                    asked_s = time.monotonic()
                    for tier in dict.fromkeys(tier for tier, _ in self.hosts):
                        entry = await self.store.read(tier_key(self.app, tier))
                        order = None if entry is None else decode_order(entry.value)
                        if order is not None and order.serial > obeyed.get(tier, 1):
                            obeyed[tier] = order.serial
                            waiting.extend(self._changes(tier, order))
                while waiting and len(under_way) < _DEPLOYING:
                    under_way.append(waiting.popleft())
                if under_way:
                    change = under_way.popleft()
                    report = next(change, None)
                    if report is None:
                        continue
                    under_way.append(change)
                    writes.create_task(self._report(*report))
                due_s = max(due_s + 1 / self.per_s, time.monotonic() - 1.0)
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    def _changes(self, tier: str, order: Order) -> Iterator[Iterator[tuple[str, str, Order, str]]]:
        """The reports of each host on its way: those that get the build first, then those that keep what they have."""
        of_tier = [host for each, host in self.hosts if each == tier]
        running = {host for host, letter in self.sent if letter == "n"}
        changing = [host for host in of_tier if wanted_build(order, host) == order.build and host not in running]
        for host in changing:
            yield iter([(tier, host, order, state) for state in ("fetching", "draining", "proving", "steady")])
        for host in sorted({*of_tier} - {*changing}):
            yield iter([(tier, host, order, "steady")])

    async def _report(self, tier: str, host: str, order: Order, state: str) -> None:
        build = wanted_build(order, host)
        name = None if build is None else build.id
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        facts = {"serial": order.serial, "highest": order.serial, "wanted": name, "since": at}
        facts["hot"] = name if state in {"proving", "steady"} else None
        report = Report(v=1, app=self.app, tier=tier, host=host, state=state, **facts)  # type: ignore[arg-type]
        if order.serial > 1 and state in _SHOWN and build == order.build:
            self.sent.setdefault((host, _SHOWN[state]), time.time())
        self.report_count += 1
        await self.store.put(host_key(self.app, tier, host), encode(report))
