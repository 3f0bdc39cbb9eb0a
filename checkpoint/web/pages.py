"""Owns the pages that are looked at: Train, a rollout, hosts, history, settings.

What is pressed on them is left to `checkpoint.web.steering`, and what keeps them current to `checkpoint.web.stream`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from aiohttp import web

from artifact import HotcoldError, Refused
from checkpoint.audit import Record, read_head, read_record, verify
from checkpoint.rollout.ledger import KEPT_ROLLOUTS
from checkpoint.rollout.picture import steps
from checkpoint.web.drawing import facts_of
from checkpoint.web.live import Snapshot
from checkpoint.web.rights import Role
from checkpoint.web.site import Site, person_of, site_of
from fleet import Entry, position
from fleet.keys import audit_head_key, audit_prefix

RECENT: Final = 10
PAGE: Final = 100
"""Records on one page of the history: those whose numbers differ in the last two digits."""


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
        answer = site.page(request, "rollout.html", **facts_of("rollout", snapshot, number), number=number)
        # Thousands of hosts make it long. Only a page that repeats nothing of the request may be packed: by the length
        # of one that does, somebody who can make a browser ask for it could guess at its forgery token.
        answer.enable_compression()
        return answer
    past = await site.desk.ledger.past(number)
    if past is None:
        return site.message(
            request,
            f"No rollout {number} of {site.app} is kept; the latest {KEPT_ROLLOUTS} are.",
            status=404,
            title="No such rollout",
        )
    plan, state = past
    return site.page(
        request,
        "past.html",
        plan=plan,
        rollout=state,
        views=steps(plan, state, site.now()),
        records=[record for record, _ in snapshot.records if record.rollout == number],
        number=number,
        kind="plain",
        **_banner(snapshot),
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
        **_banner(snapshot),
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
    return site.page(
        request,
        "host.html",
        host=view,
        report=None if key is None else key.report,
        order=order,
        position=None if order is None else position(order.salt, name),
        rank=rank,
        records=[record for record, _ in snapshot.records if name in record.message][:20],
        **_banner(snapshot),
    )


async def history(request: web.Request) -> web.Response:
    """The audit, newest first; filters read all of it."""
    site = site_of(request)
    snapshot = await site.snapshot()
    if snapshot is None:
        return waiting(request)
    who, what = request.query.get("who", "").strip()[:64], request.query.get("what", "").strip()[:100]
    last = max(snapshot.head.number, 0) // PAGE
    asked = request.query.get("page", "")
    page = min(int(asked), last) if asked.isdecimal() and len(asked) < 9 else last  # noqa: PLR2004 - digits of a page
    prefix = audit_prefix(site.app)
    if who or what:
        entries: Iterable[Entry] = await site.store.read_prefix(prefix)
        records = [each for each in _records(entries) if who in each.by and _tells(each, what)][-5 * PAGE :]
    else:
        records = _records(await site.store.read_prefix(f"{prefix}{page:08}"))
    return site.page(
        request,
        "history.html",
        records=records[::-1],
        who=who,
        what=what,
        page=page,
        last=last,
        head=snapshot.head,
        **_banner(snapshot),
    )


async def verified(request: web.Request) -> web.Response:
    """Whether the audit is whole."""
    site = site_of(request)
    entries, head_entry = await _whole(site)
    flaw = next(verify(entries, read_head(head_entry)[0]), None)
    return site.page(
        request,
        "verify.html",
        count=len(entries),
        flaw=flaw,
        head=read_head(head_entry)[0],
        **_banner(site.live.snapshot),
    )


async def export(request: web.Request) -> web.Response:
    """The audit as it lies in Consul, one record a line."""
    site = site_of(request)
    entries, _ = await _whole(site)
    body = b"".join(entry.value.replace(b"\n", b" ") + b"\n" for entry in entries)
    name = f"{site.app}-audit-{site.now():%Y-%m-%dT%H%M%SZ}.jsonl"
    return web.Response(
        body=body,
        content_type="application/x-ndjson",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
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
        **_banner(await site.snapshot()),
    )


def waiting(request: web.Request) -> web.Response:
    """Instead of a page, while Consul has not answered once."""
    return site_of(request).page(request, "waiting.html", status=503, kind="plain")


def bare(url: str) -> str:
    """A URL fit for a page: without user, password, path's secrets and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "/…" if parts.path.strip("/") else "", "", ""))


def _banner(snapshot: Snapshot | None) -> dict[str, Any]:
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


def _records(entries: Iterable[Entry]) -> list[Record]:
    records = []
    for entry in entries:
        try:
            records.append(read_record(entry.value))
        except Refused:
            continue  # the check of the chain names it
    return records


def _tells(record: Record, text: str) -> bool:
    said = f"{record.what} {record.message} {record.reason} {record.phase} rollout {record.rollout}"
    return text.casefold() in said.casefold()


async def _whole(site: Site) -> tuple[tuple[Entry, ...], Entry | None]:
    """All records and the head, read again until nothing was appended in between."""
    while True:
        head = await site.store.read(audit_head_key(site.app))
        entries = await site.store.read_prefix(audit_prefix(site.app))
        if await site.store.read(audit_head_key(site.app)) == head:
            return entries, head
