"""Owns the stream of a page: after every change the parts that look different now, and a sign of life in between.

What the parts show is left to `checkpoint.web.drawing`. An event's id is the highest Consul index that the page then
shows. A page that comes back with its `Last-Event-ID` is sent everything as it is now, so it has missed nothing; it is
told whether anything changed meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from checkpoint.web.charts import metric_facts, news_of
from checkpoint.web.drawing import PARTS, facts_of, states_of
from checkpoint.web.grid import Grid
from checkpoint.web.live import Snapshot
from checkpoint.web.rights import Person
from checkpoint.web.site import SITE, Site, site_of

T = TypeVar("T")

PULSE_S: Final = 2.0
"""A page that hears nothing for several of these says that what it shows is old."""
MAX_STREAMS: Final = 1000


class Streams:
    """Counts what is open, and makes once what several pages show of the same snapshot."""

    def __init__(self) -> None:
        self.count = 0
        self._made: dict[tuple[Any, ...], Any] = {}
        self._version = 0

    def once(self, snapshot: Snapshot, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """What `make` makes, or made of this snapshot before. `key` tells apart what the snapshot does not."""
        if snapshot.version != self._version:
            self._made.clear()
            self._version = snapshot.version
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made


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
        with contextlib.suppress(ConnectionResetError), site.live.looked_at():  # the page was left
            await response.prepare(request)
            await _feed(request, response, site, streams, kind, number or None)
    finally:
        streams.count -= 1
    return response


async def _feed(  # noqa: PLR0917 - one call, out of the way of the counting
    request: web.Request, response: web.StreamResponse, site: Site, streams: Streams, kind: str, number: int | None
) -> None:
    sent = _Sent()
    version, is_first = 0, True
    while not site.stopping.is_set():
        snapshot = await site.live.changed(version, 0.0 if is_first else PULSE_S)
        person = await site.identities.find(request)
        if person is None:
            await response.write(_event("gone", {"why": "the session has ended"}))
            return
        news = b""
        if snapshot is not None:
            version = snapshot.version
            news = _news(site, streams, snapshot, (kind, number), person, sent)
        await response.write(news + _pulse(site, request, is_first=is_first))
        is_first = False


@dataclass
class _Sent:
    """What a page shows by now: its parts by name, and its grid."""

    parts: dict[str, str] = field(default_factory=dict)
    grid: Grid | None = None


def _news(  # noqa: PLR0917 - likewise
    site: Site, streams: Streams, snapshot: Snapshot, page: tuple[str, int | None], person: Person, sent: _Sent
) -> bytes:
    """What a page lacks of a snapshot; it counts as sent."""
    kind, number = page
    shown = snapshot.shown
    if kind == "rollout" and (shown is None or shown.plan.number != number):
        # A page of a rollout that is not the latest any more: only the banner tells.
        kind = "plain"
    order = site.settings.pipeline.tiers
    facts = streams.once(
        snapshot,
        ("facts", kind, number),
        lambda: {**facts_of(kind, snapshot, number, order=order), **metric_facts(snapshot)},
    )
    own = {**site.facts(person, snapshot), **facts, "oob": True, "number": number}
    key = (kind, number, person.role, own["cut_off"] is None, site.live.broken)
    changed = []
    for name in PARTS[kind]:
        whole = (name, *key, person.session) if name == "command" else (name, *key)
        text = streams.once(snapshot, whole, lambda name=name: site.renderer(f"fragments/{name}.html", own))  # type: ignore[misc]
        if sent.parts.get(name) != text:
            sent.parts[name] = text
            changed.append(text)
    news = b""
    if changed:
        news = streams.once(
            snapshot, ("message", *changed), lambda: _message(f"id: {snapshot.index}\n", "".join(changed))
        )
    grid = facts["grid"]
    if shown is not None and grid is not None:
        before, sent.grid = sent.grid, grid
        news += streams.once(
            snapshot,
            ("states", number, None if before is None else before.roster, None if before is None else before.states),
            lambda: _event("states", states_of(grid, before, shown, facts["buttons"]), snapshot.index),
        )
    if kind == "rollout" and (course := news_of(snapshot)) is not None:
        text = streams.once(snapshot, ("charts",), lambda: msgspec.json.encode(course).decode())
        if sent.parts.get("charts") != text:
            sent.parts["charts"] = text
            news += _message(f"event: charts\nid: {snapshot.index}\n", text)
    return news


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
