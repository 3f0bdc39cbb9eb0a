"""Owns the pages that are looked at: Train, a rollout, hosts, settings.

The past is left to `checkpoint.web.past`, what is pressed on pages to `checkpoint.web.steering`, and what keeps them
current to `checkpoint.web.stream`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from aiohttp import web

from artifact import HotcoldError
from checkpoint.rollout.ledger import KEPT_ROLLOUTS
from checkpoint.rollout.picture import steps
from checkpoint.web import messages
from checkpoint.web.charts import course_of, metric_facts
from checkpoint.web.drawing import facts_of
from checkpoint.web.live import Snapshot
from checkpoint.web.metrics import metric_rows
from checkpoint.web.rights import Role
from checkpoint.web.site import Site, person_of, site_of
from fleet import is_newcomer, position

RECENT: Final = 10


async def train(request: web.Request) -> web.Response:
    """What is rolled out, what runs where, what is next."""
    site = site_of(request)
    snapshot = await site.snapshot()
    if snapshot is None:
        return waiting(request)
    recent = await _recent(site, snapshot)
    return site.page(
        request,
        "train.html",
        **facts_of("train", snapshot, order=site.settings.pipeline.tiers),
        **metric_facts(snapshot),
        number=None,
        recent=recent,
    )


async def rollout(request: web.Request) -> web.Response:
    """One rollout: the latest alive, older ones as they ended."""
    site, number = site_of(request), int(request.match_info["number"])
    snapshot = await site.snapshot()
    if snapshot is None:
        return waiting(request)
    if snapshot.shown is None or snapshot.shown.plan.number < number:
        await site.catch_up()  # another instance may have started it a moment ago
        snapshot = site.live.snapshot or snapshot
    if snapshot.shown is not None and snapshot.shown.plan.number == number:
        facts = facts_of("rollout", snapshot, number) | metric_facts(snapshot)
        answer = site.page(request, "rollout.html", **facts, number=number)
        # Thousands of hosts make it long. Only a page that repeats nothing of the request may be packed: by the length
        # of one that does, somebody who can make a browser ask for it could guess at its forgery token.
        answer.enable_compression()
        return answer
    past = await course_of(site, number)
    if past is None:
        return site.message(
            request,
            f"No rollout {number} of {site.app} is kept; the latest {KEPT_ROLLOUTS} are.",
            status=404,
            title="No such rollout",
        )
    return site.page(
        request,
        "past.html",
        plan=past.plan,
        rollout=past.rollout,
        views=steps(past.plan, past.rollout, site.now()),
        metrics=metric_rows(past.metrics, past.series),
        records=[record for record, _ in snapshot.records if record.rollout == number],
        number=number,
        kind="plain",
        **banner(snapshot),
    )


async def hosts(request: web.Request) -> web.Response:
    """Every host, filtered."""
    site = site_of(request)
    snapshot = await site.snapshot()
    if snapshot is None:
        return waiting(request)
    wanted, tier = request.query.get("q", "")[:100], request.query.get("tier", "")[:64]
    trouble = request.query.get("trouble") == "1"
    found = [
        host
        for each in snapshot.view.tiers
        for host in each.hosts
        if tier in {"", host.tier}
        and (wanted in host.host or wanted in (host.hot or ""))
        and not (trouble and host.standing.name == "GOOD")
    ]
    return site.page(
        request,
        "hosts.html",
        hosts=found[:2000],
        found_count=len(found),
        q=wanted,
        tier=tier,
        trouble=trouble,
        names=[each.key.tier for each in snapshot.view.tiers],
        **banner(snapshot),
    )


async def host(request: web.Request) -> web.Response:
    """One host: what it runs, why, where it stands in the rollout, what was done about it."""
    site = site_of(request)
    tier, name = request.match_info["tier"], request.match_info["host"]
    snapshot = await site.snapshot()
    if snapshot is None:
        return waiting(request)
    view = next((each for t in snapshot.view.tiers for each in t.hosts if (each.tier, each.host) == (tier, name)), None)
    if view is None:
        return site.message(
            request, f"No host {name} has ever reported in tier {tier}.", status=404, title="No such host"
        )
    key = next((each for each in snapshot.hosts if (each.tier, each.host) == (tier, name)), None)
    order = next((each.key.order for each in snapshot.view.tiers if each.key.tier == tier), None)
    rank: dict[str, Any] | None = None
    if snapshot.shown is not None and any(each.name == tier for each in snapshot.shown.plan.tiers):
        names = snapshot.shown.plan.tier(tier).hosts
        first = next((step for step in snapshot.shown.steps if step.tier == tier and name in step.hosts), None)
        place = names.index(name) + 1 if name in names else None
        rank = {"place": place, "of": len(names), "step": first, "number": snapshot.shown.plan.number}
    aside = () if snapshot.shown is None else snapshot.shown.rollout.set_aside
    return site.page(
        request,
        "host.html",
        host=view,
        aside=next((each for each in aside if (each.tier, each.host) == (tier, name)), None),
        report=None if key is None else key.report,
        order=order,
        position=None if order is None else position(order.salt, name),
        is_newcomer=is_newcomer(order, None if key is None else key.joined),
        rank=rank,
        records=[record for record, _ in snapshot.records if name in record.message][:20],
        **banner(snapshot),
    )


async def settings(request: web.Request) -> web.Response:
    """What is configured; changed in the file, not here."""
    site = site_of(request)
    pipeline = site.settings.pipeline
    is_admin = person_of(request).role >= Role.ADMIN
    return site.page(
        request,
        "settings.html",
        pipeline=pipeline,
        webhooks=[(each.name, bare(each.url), each.format) for each in site.settings.webhooks],
        people=site.identities.names if is_admin else (),
        web=site.identities.settings,
        checklist=site.settings.checklist,
        hotfix_from=site.settings.hotfix_from,
        **await messages.facts(site),
        **banner(await site.snapshot()),
    )


def waiting(request: web.Request) -> web.Response:
    """Instead of a page, while Consul has not answered once."""
    return site_of(request).page(request, "waiting.html", status=503, kind="plain")


def bare(url: str) -> str:
    """A URL fit for a page: without user, password, path's secrets and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "/…" if parts.path.strip("/") else "", "", ""))


def banner(snapshot: Snapshot | None) -> dict[str, Any]:
    """What the banners of a page without living parts need."""
    return {} if snapshot is None else {"banner": facts_of("plain", snapshot)}


async def _recent(site: Site, snapshot: Snapshot) -> Sequence[Any]:
    """The rollouts before the present one, newest first; none where Consul does not answer."""
    if snapshot.shown is None or site.live.cut_off_s is not None:
        return ()
    latest = snapshot.shown.plan.number
    numbers = range(latest - 1, max(0, latest - 1 - RECENT), -1)
    try:
        found = await asyncio.gather(*(site.desk.ledger.past(number) for number in numbers))
    except HotcoldError:
        return ()
    return [each for each in found if each is not None]
