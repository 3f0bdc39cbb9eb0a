"""Owns the deliveries on the settings page: what each webhook was told, and having it told once more.

The log is left to `checkpoint.deliveries`, sending to the engine that leads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from artifact import HotcoldError, Refused
from checkpoint.deliveries import Delivered
from checkpoint.web.site import Site, origin_of, reason_in, site_of


class Message(msgspec.Struct, frozen=True):
    """A row of the table. `can_be_resent`: it is the latest of its record, and its webhook is configured here."""

    webhook: str
    number: int
    delivery: Any
    is_waiting: bool
    can_be_resent: bool


async def facts(site: Site) -> Mapping[str, Any]:
    """What the table needs: rows, newest first; None where Consul does not answer, with the reason."""
    configured = {each.name for each in site.settings.webhooks}
    try:
        logs = await site.desk.deliveries.read() if site.live.cut_off_s is None else None
    except HotcoldError as error:
        return {"messages": None, "messages_fault": str(error), "failed": {}}
    if logs is None:
        return {"messages": None, "messages_fault": "Consul does not answer", "failed": {}}
    rows = [row for name, log in logs.items() for row in _rows(name, log, is_configured=name in configured)]
    rows.reverse()  # of one moment, the later ones first
    rows.sort(key=lambda row: row.delivery.at, reverse=True)
    failed = {name: len(log.failed) for name, log in logs.items() if log.failed and name in configured}
    return {"messages": rows, "messages_fault": "", "failed": failed}


def _rows(name: str, log: Delivered, *, is_configured: bool) -> list[Message]:
    latest = {each.number: each for each in log.deliveries}
    waiting = {each.number for each in log.again}
    return [
        Message(
            webhook=name,
            number=each.number,
            delivery=each,
            is_waiting=each is latest[each.number] and each.number in waiting,
            can_be_resent=is_configured and each is latest[each.number] and each.outcome != "delivered",
        )
        for each in log.deliveries
    ]


async def resend(request: web.Request) -> web.Response:
    """Have one message sent once more, or all to a webhook that failed."""
    site, form = site_of(request), await request.post()
    webhook, number = str(form.get("webhook", "")), str(form.get("number", ""))
    if webhook not in {each.name for each in site.settings.webhooks}:
        raise Refused(f"no webhook {webhook!r} is configured here, so nobody would send it", kind="no_webhook")
    if number and not (number.isdecimal() and len(number) < 10):  # noqa: PLR2004 - digits of a record
        raise Refused(f"{number!r} is no number of a record", kind="bad_field")
    who = origin_of(request, reason_in(str(form.get("reason", ""))))
    sent = await site.desk.deliveries.resend(webhook, [int(number)] if number else None, who)
    if request.headers.get("HX-Request") == "true":
        said = f"{webhook}: sent once more, records {', '.join(map(str, sent))}." if sent else "Nothing is to be sent."
        return site.message(request, said, status=200, tone="go" if sent else "calm", title="Done")
    raise web.HTTPSeeOther("/settings#deliveries")
