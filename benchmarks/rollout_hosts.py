"""Hosts without trees: the agents' own watch, rules, reports and checks, many in one process.

    python -m benchmarks.rollout_hosts ADDRESS HOSTS LOG

HOSTS is a file with a JSON array of [tier, host]. Each report is a line of LOG: tier, host, serial, when, build, state.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

from fleet import (
    ConsulSettings,
    ConsulStore,
    Order,
    Report,
    Service,
    StoreUnreachable,
    check_obeyable,
    decode_order,
    encode,
    wanted_build,
)
from fleet.keys import host_key, service_id, service_name, tier_key

_TTL_S: Final = 3600.0
_CHANGING: Final = ("fetching", "draining", "proving", "steady")
"""What a host reports on its way from one build to another."""


def main() -> None:
    address, hosts, log = sys.argv[1:]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    asyncio.run(_serve(address, [(tier, host) for tier, host in json.loads(Path(hosts).read_text())], Path(log)))


async def _serve(address: str, hosts: list[tuple[str, str]], log: Path) -> None:
    starting = asyncio.Semaphore(50)
    with log.open("w") as told:
        async with ConsulStore(ConsulSettings(address=address)) as store, asyncio.TaskGroup() as group:
            for tier, host in hosts:
                group.create_task(_live(store, tier, host, told, starting))


async def _live(store: ConsulStore, tier: str, host: str, told: TextIO, starting: asyncio.Semaphore) -> None:
    meta = {"app": "shop", "tier": tier, "host": host}
    service = Service(id=service_id("shop", tier, host), name=service_name("shop"), ttl_s=_TTL_S, meta=meta)
    async with starting:
        await _insist(lambda: store.pass_check(service, "steady"))
    highest: Order | None = None
    async with aclosing(store.watch(tier_key("shop", tier))) as changes:
        async for entry in changes:
            if entry is None:
                continue
            order = decode_order(entry.value)
            if order == highest:
                continue
            check_obeyable(order, app="shop", tier=tier, highest=highest, now=datetime.now(UTC))
            former, highest = highest, order
            build = wanted_build(order, host)
            build_id = None if build is None else build.id
            is_other = former is not None and wanted_build(former, host) != build
            for state in _CHANGING if is_other else ("steady",):
                hot = build_id if state in {"proving", "steady"} else None
                at = datetime.now(UTC).isoformat(timespec="milliseconds")
                facts = {"serial": order.serial, "highest": order.serial, "wanted": build_id, "hot": hot, "since": at}
                report = Report(v=1, app="shop", tier=tier, host=host, state=state, **facts)  # type: ignore[arg-type]
                told.write(f"{tier} {host} {order.serial} {time.time():.3f} {build_id} {state}\n")
                told.flush()
                value = encode(report)
                await _insist(lambda value=value: store.put(host_key("shop", tier, host), value))  # type: ignore[misc]


async def _insist(question: Callable[[], Awaitable[object]]) -> None:
    """As an agent does, for ever."""
    while True:
        try:
            await question()
        except StoreUnreachable:
            await asyncio.sleep(1.0)
        else:
            return


if __name__ == "__main__":
    main()
