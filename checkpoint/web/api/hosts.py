"""Owns what programs read of tiers and hosts: what is ordered, what runs, and how each host stands to that.

How a host stands is left to `checkpoint.overview`.
"""

from __future__ import annotations

from collections import Counter
from typing import cast

from aiohttp import web
from msgspec import UNSET

from artifact import Refused
from checkpoint.overview import HostView, Standing, TierView
from checkpoint.rollout.picture import Picture
from checkpoint.web.api.answers import (
    HostAnswer,
    HostFacts,
    HostRank,
    HostsAnswer,
    StandingName,
    TierFacts,
    TiersAnswer,
)
from checkpoint.web.api.knowing import freshness, order_facts, snapshot_of
from checkpoint.web.api.requests import HostPath, HostsQuery
from fleet import position


async def tiers(request: web.Request) -> TiersAnswer:
    """Every tier: its order, how its hosts stand to it, and what they run."""
    snapshot = await snapshot_of(request)
    return TiersAnswer(tiers=tuple(_tier(tier) for tier in snapshot.view.tiers), **freshness(request, snapshot))


async def hosts(request: web.Request, *, query: HostsQuery) -> HostsAnswer:
    """Hosts, and how each stands to its tier's order; those that somebody must look at come first in each tier."""
    snapshot = await snapshot_of(request)
    found = [host for tier in snapshot.view.tiers for host in tier.hosts if _is_wanted(host, query)]
    shown = found[query.offset : query.offset + query.limit]
    return HostsAnswer(count=len(found), hosts=tuple(map(_host, shown)), **freshness(request, snapshot))


async def one(request: web.Request, *, path: HostPath) -> HostAnswer:
    """One host: its report, its order, and where the latest rollout reaches it."""
    snapshot = await snapshot_of(request)
    tier = next((each for each in snapshot.view.tiers if each.key.tier == path.tier), None)
    view = next((each for each in tier.hosts if each.host == path.host), None) if tier is not None else None
    if tier is None or view is None:
        raise Refused(f"no host {path.host} has ever reported in tier {path.tier}", kind="unknown_host")
    key = next((each for each in snapshot.hosts if (each.tier, each.host) == (path.tier, path.host)), None)
    order = tier.key.order
    return HostAnswer(
        host=_host(view),
        report=None if key is None else key.report,
        order=order_facts(order),
        position=None if order is None else position(order.salt, path.host),
        rank=_rank(snapshot.shown, path),
        **freshness(request, snapshot),
    )


def _is_wanted(host: HostView, query: HostsQuery) -> bool:
    if query.tier is not UNSET and host.tier != query.tier:
        return False
    if query.name not in host.host and query.name not in (host.hot or ""):
        return False
    if query.standing == "trouble":
        return host.standing is not Standing.GOOD
    return query.standing in {"any", _standing(host.standing)}


def _standing(standing: Standing) -> StandingName:
    return cast("StandingName", standing.name.lower())


def _host(host: HostView) -> HostFacts:
    return HostFacts(
        tier=host.tier,
        host=host.host,
        standing=_standing(host.standing),
        state=host.state,
        hot=host.hot,
        wanted=host.wanted,
        serial=host.serial,
        since=host.since,
        health=host.health,
        note=host.note,
    )


def _tier(tier: TierView) -> TierFacts:
    return TierFacts(
        tier=tier.key.tier,
        order=order_facts(tier.key.order),
        fault=None if tier.key.fault is None else str(tier.key.fault),
        host_count=len(tier.hosts),
        standings={_standing(standing): count for standing, count in sorted(tier.counts.items())},
        running=dict(sorted(Counter(host.hot for host in tier.hosts if host.hot is not None).items())),
    )


def _rank(shown: Picture | None, path: HostPath) -> HostRank | None:
    """Where the latest rollout reaches a host; None where its plan leaves the tier out."""
    tier = next((each for each in shown.plan.tiers if each.name == path.tier), None) if shown is not None else None
    if shown is None or tier is None:
        return None
    step = next((each for each in shown.steps if each.tier == path.tier and path.host in each.hosts), None)
    place = tier.hosts.index(path.host) + 1 if path.host in tier.hosts else None
    name = None if step is None else step.name
    return HostRank(rollout=shown.plan.number, place=place, of=len(tier.hosts), step=name)
