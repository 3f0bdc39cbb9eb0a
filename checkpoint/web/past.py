"""Owns the pages about the past: the audit with its filters, its export, its check, and figures about rollouts.

What passes a filter is left to `checkpoint.sifting`, figures to `checkpoint.statistics`, the chain to
`checkpoint.audit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from aiohttp import web

from artifact import Refused
from checkpoint.audit import number_of, verify
from checkpoint.audit_reading import read_chain, readable
from checkpoint.measuring import read_statistics
from checkpoint.sifting import Sieve, as_csv, sift
from checkpoint.web.pages import banner, waiting
from checkpoint.web.site import site_of
from fleet.keys import audit_prefix

PAGE: Final = 100
"""Records on one page: those whose numbers differ in the last two digits."""
MAX_FOUND: Final = 500
_MAX_TEXT: Final = 100
_FIELDS: Final = ("who", "what", "tier", "build", "from", "to")


async def history(request: web.Request) -> web.Response:
    """The audit, newest first; filters read all of it."""
    site = site_of(request)
    snapshot = await site.snapshot()
    if snapshot is None:
        return waiting(request)
    sieve = sieve_of(request.query)
    last = max(snapshot.head.number, 0) // PAGE
    asked = request.query.get("page", "")
    page = min(int(asked), last) if asked.isdecimal() and len(asked) < 9 else last  # noqa: PLR2004 - digits of a page
    if sieve.is_open:
        found = readable(await site.store.read_prefix(f"{audit_prefix(site.app)}{page:08}"))
    else:
        chain = await read_chain(site.store, site.app)
        found = sift(readable(chain.entries), sieve)
    return site.page(
        request,
        "history.html",
        records=found[-MAX_FOUND:][::-1],
        found_count=len(found),
        asked={name: request.query.get(name, "").strip()[:_MAX_TEXT] for name in _FIELDS},
        is_filtered=not sieve.is_open,
        query="" if sieve.is_open else request.rel_url.raw_query_string,
        tiers=sorted({tier.key.tier for tier in snapshot.view.tiers}),
        page=page,
        last=last,
        head=snapshot.head,
        **banner(snapshot),
    )


async def statistics(request: web.Request) -> web.Response:
    """How fast rollouts are, how many there are, and how many went back."""
    site = site_of(request)
    found = await read_statistics(site.store, site.app, site.now())
    most = max((week.deploys for week in found.weeks), default=0)
    return site.page(request, "statistics.html", found=found, most=most, **banner(await site.snapshot()))


async def verified(request: web.Request) -> web.Response:
    """Whether the audit is whole."""
    site = site_of(request)
    chain = await read_chain(site.store, site.app)
    return site.page(
        request,
        "verify.html",
        count=len(chain.entries),
        flaw=next(verify(chain.entries, chain.head, chain.anchor), None),
        head=chain.head,
        anchor=chain.anchor,
        **banner(site.live.snapshot),
    )


async def export(request: web.Request) -> web.Response:
    """The records that are wanted: as they lie in Consul, one a line, or as CSV."""
    site, sieve = site_of(request), sieve_of(request.query)
    form = request.query.get("format", "jsonl")
    if form not in {"jsonl", "csv"}:
        raise Refused(f"no format {form!r}: jsonl, csv", kind="bad_field")
    chain = await read_chain(site.store, site.app)
    if form == "csv":
        body = "".join(as_csv(sift(readable(chain.entries), sieve))).encode()
    else:
        wanted = None if sieve.is_open else {record.number for record in sift(readable(chain.entries), sieve)}
        entries = [entry for entry in chain.entries if wanted is None or number_of(entry) in wanted]
        body = b"".join(entry.value.replace(b"\n", b" ") + b"\n" for entry in entries)
    name = f"{site.app}-audit-{site.now():%Y-%m-%dT%H%M%SZ}.{form}"
    return web.Response(
        body=body,
        content_type="text/csv" if form == "csv" else "application/x-ndjson",
        charset="utf-8" if form == "csv" else None,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def sieve_of(query: Mapping[str, Any]) -> Sieve:
    """What the form asks for; days are UTC's, the last one whole.

    Raises:
        Refused: a day is no date.
    """
    text = {name: str(query.get(name, "")).strip()[:_MAX_TEXT] for name in _FIELDS}
    until = _day(text["to"])
    return Sieve(
        by=text["who"],
        what=text["what"],
        tier=text["tier"],
        build=text["build"],
        since=_day(text["from"]),
        until=None if until is None else until + timedelta(days=1),
    )


def _day(text: str) -> datetime | None:
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise Refused(f"{text!r} is no date: give 2026-11-24", kind="bad_field") from error
    return datetime.combine(min(day, date(9999, 1, 1)), time(), UTC)
