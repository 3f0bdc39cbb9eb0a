"""Owns what several operations ask of the site: its snapshot, how fresh it is, orders and builds as facts.

What is answered is left to the operations.
"""

from __future__ import annotations

import contextlib
from typing import Any

from aiohttp import web

from artifact import HotcoldError, ManifestRef
from checkpoint.rollout.plan import Plan
from checkpoint.web.api.answers import BuildFacts, OrderFacts, TierHosts
from checkpoint.web.live import Snapshot
from checkpoint.web.site import Site, site_of
from fleet import Order, StoreUnreachable


async def snapshot_of(request: web.Request) -> Snapshot:
    """What is known now.

    Raises:
        StoreUnreachable: nothing yet.
    """
    snapshot = await site_of(request).snapshot()
    if snapshot is None:
        raise StoreUnreachable("Consul has not answered since this server started")
    return snapshot


async def catch_up(site: Site) -> None:
    """Who acts, and reads then, sees what it did. What was done is not undone by a store that is gone by now."""
    with contextlib.suppress(HotcoldError):
        await site.catch_up()


def freshness(request: web.Request, snapshot: Snapshot) -> dict[str, Any]:
    """How old a snapshot is, as the fields of an answer."""
    return {"index": snapshot.index, "at": snapshot.at, "cut_off_since": site_of(request).cut_off_since()}


def build_facts(build: ManifestRef) -> BuildFacts:
    """A build without its addresses, which may have secrets in them."""
    return BuildFacts(
        id=build.id,
        digest=build.digest,
        size=build.size,
        format=build.format,
        is_signed=build.signature is not None,
    )


def order_facts(order: Order | None) -> OrderFacts | None:
    """An order without the addresses of its builds."""
    if order is None:
        return None
    return OrderFacts(
        serial=order.serial,
        build=order.build.id,
        previous=None if order.previous is None else order.previous.id,
        percent=order.percent,
        cutoff=order.cutoff,
        max_unavailable=order.max_unavailable,
        not_after=order.not_after,
        reason=order.reason,
        by=order.by,
        at=order.at,
    )


def tier_hosts(plan: Plan) -> tuple[TierHosts, ...]:
    """The tiers of a plan."""
    return tuple(
        TierHosts(
            name=tier.name,
            hosts=tier.hosts,
            previous=None if tier.previous is None else tier.previous.id,
            serial=tier.serial,
        )
        for tier in plan.tiers
    )
