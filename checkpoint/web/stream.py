"""Owns the stream of a page: after every change the parts that look different now, and a sign of life in between.

What the parts show is left to `checkpoint.web.drawing`. An event's id is the highest Consul index that the page then
shows. A page that comes back with its `Last-Event-ID` is sent everything as it is now, so it has missed nothing; it is
told whether anything changed meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import msgspec
from aiohttp import web

from checkpoint.web.charts import metric_facts, news_of
from checkpoint.web.drawing import PARTS, facts_of, states_of
from checkpoint.web.live import Snapshot
from checkpoint.web.rights import Person
from checkpoint.web.site import SITE, Site, site_of

PULSE_S: Final = 2.0
"""A page that hears nothing for several of these says that what it shows is old."""
MAX_STREAMS: Final = 1000


class Streams:
    """Counts what is open, and draws shared parts once for all pages that show them."""

    def __init__(self) -> None:
        self.count = 0
        self._drawn: dict[tuple[Any, ...], str] = {}
        self._version = 0

    def part(self, site: Site, name: str, snapshot: Snapshot, facts: dict[str, Any], key: tuple[Any, ...]) -> str:
        """The text of a part. `key` tells apart what the snapshot does not."""
        if snapshot.version != self._version:
            self._drawn.clear()
            self._version = snapshot.version
        whole = (name, *key)
        if whole not in self._drawn:
            self._drawn[whole] = site.renderer(f"fragments/{name}.html", facts)
        return self._drawn[whole]


STREAMS: Final = web.AppKey("streams", Streams)


async def events(request: web.Request) -> web.StreamResponse:
    """Serve one page's stream until the page is left, its session ends, or the server stops."""
    site, streams = site_of(request), request.app[STREAMS]
    kind = request.query.get("page", "plain")
    number = int(request.query.get("number", "0")[:9] or 0) if request.query.get("number", "0").isdecimal() else 0
    if kind not in PARTS or streams.count >= MAX_STREAMS:
        raise web.HTTPBadRequest if kind not in PARTS else web.HTTPServiceUnavailable
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
    )
    streams.count += 1
    try:
        with contextlib.suppress(ConnectionResetError):  # the page was left
            await response.prepare(request)
            await _feed(request, response, site, streams, kind, number or None)
    finally:
        streams.count -= 1
    return response


async def _feed(  # noqa: PLR0917 - one call, out of the way of the counting
    request: web.Request, response: web.StreamResponse, site: Site, streams: Streams, kind: str, number: int | None
) -> None:
    sent: dict[str, str] = {}
    version, is_first = 0, True
    while not site.stopping.is_set():
        snapshot = await site.live.changed(version, 0.0 if is_first else PULSE_S)
        person = await site.identities.find(request)
        if person is None:
            await response.write(_event("gone", {"why": "the session has ended"}))
            return
        if snapshot is not None:
            version = snapshot.version
            await _send(response, site, streams, snapshot, (kind, number), person, sent)
        await response.write(_pulse(site, request, is_first=is_first))
        is_first = False


async def _send(  # noqa: PLR0917 - likewise
    response: web.StreamResponse,
    site: Site,
    streams: Streams,
    snapshot: Snapshot,
    page: tuple[str, int | None],
    person: Person,
    sent: dict[str, str],
) -> None:
    kind, number = page
    if kind == "rollout" and (snapshot.shown is None or snapshot.shown.plan.number != number):
        # A page of a rollout that is not the latest any more: only the banner tells.
        kind = "plain"
    key = (kind, number, person.role, site.cut_off_since() is None, site.live.broken)
    facts = {
        **site.facts(person, snapshot),
        **facts_of(kind, snapshot, number, order=site.settings.pipeline.tiers),
        **metric_facts(snapshot),
        "oob": True,
        "number": number,
    }
    changed = []
    for name in PARTS[kind]:
        whole = (*key, person.session) if name == "command" else key
        text = streams.part(site, name, snapshot, facts, whole)
        if sent.get(name) != text:
            sent[name] = text
            changed.append(text)
    if changed:
        await response.write(_message(f"id: {snapshot.index}\n", "".join(changed)))
    if kind == "rollout" and snapshot.shown is not None and facts["grid"] is not None:
        states = states_of(facts["grid"], snapshot.shown, facts["buttons"], snapshot.shown.index)
        await response.write(_event("states", states, snapshot.index))
    if kind == "rollout" and (news := news_of(snapshot)) is not None:
        text = msgspec.json.encode(news).decode()
        if sent.get("charts") != text:
            sent["charts"] = text
            await response.write(_message(f"event: charts\nid: {snapshot.index}\n", text))


def _pulse(site: Site, request: web.Request, *, is_first: bool) -> bytes:
    snapshot, since = site.live.snapshot, site.cut_off_since()
    facts: dict[str, Any] = {
        "now": site.now().isoformat(),
        "drawn": None if snapshot is None else snapshot.at.isoformat(),
        "cut_off": None if since is None else since.isoformat(timespec="seconds"),
    }
    last = request.headers.get("Last-Event-ID", "")
    if is_first and last.isdecimal() and snapshot is not None:
        facts["missed"] = snapshot.index != int(last)
    return _event("pulse", facts)


def _event(name: str, facts: dict[str, Any], index: int | None = None) -> bytes:
    identity = "" if index is None else f"id: {index}\n"
    return _message(f"event: {name}\n{identity}", msgspec.json.encode(facts).decode())


def _message(head: str, text: str) -> bytes:
    # A carriage return would end the line of a field as well.
    lines = "".join(f"data: {line}\n" for line in text.replace("\r", " ").split("\n"))
    return f"{head}{lines}\n".encode()


async def stop(app: web.Application) -> None:
    """End the streams at their next sign of life, so that the server can stop."""
    app[SITE].stopping.set()
    await asyncio.sleep(0)
