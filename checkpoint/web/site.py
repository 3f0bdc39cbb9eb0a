"""Owns what every handler needs at hand: the desk, the snapshot, people, templates; and how a page is answered.

What pages say is left to the handlers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from aiohttp import web

from checkpoint.actions import Desk
from checkpoint.pipeline import Settings
from checkpoint.rollout.events import Origin
from checkpoint.web.denials import Denials, plain
from checkpoint.web.identity import Identities
from checkpoint.web.live import Live, Snapshot
from checkpoint.web.oidc.opening import SignIn
from checkpoint.web.rendering import Renderer, Statics
from checkpoint.web.rights import Person, Role
from fleet import Store
from fleet.keys import audit_head_key

PERSON: Final = web.RequestKey("person", Person)
FIRST_WAIT_S: Final = 3.0
MAX_REASON: Final = 500


@dataclass(frozen=True)
class Site:
    """One server for one app.

    Attributes:
        name: of this instance, for people.
        oidc: signing in at a provider; None: there is none.
        now: wall-clock time, aware.
        monotonic: seconds.
        stopping: set when streams are to end.
    """

    name: str
    app: str
    settings: Settings
    store: Store
    desk: Desk
    live: Live
    identities: Identities
    oidc: SignIn | None
    denials: Denials
    renderer: Renderer
    statics: Statics
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    stopping: asyncio.Event

    def cut_off_since(self) -> datetime | None:
        """Since when Consul does not answer; None: it does."""
        since_s = self.live.cut_off_s
        return None if since_s is None else self.now() - timedelta(seconds=self.monotonic() - since_s)

    async def snapshot(self) -> Snapshot | None:
        """What is known now; shortly after the start it is waited for."""
        return self.live.snapshot or await self.live.changed(0, FIRST_WAIT_S)

    async def catch_up(self) -> None:
        """Wait until the snapshot shows what is in the audit now, but not for long: who pressed sees what it did."""
        entry = await self.store.read(audit_head_key(self.app))
        index = 0 if entry is None else entry.modify_index
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_WAIT_S):
                snapshot = self.live.snapshot
                while snapshot is None or snapshot.index < index:
                    version = 0 if snapshot is None else snapshot.version
                    snapshot = await self.live.changed(version, FIRST_WAIT_S) or snapshot

    def facts(self, person: Person | None, snapshot: Snapshot | None) -> dict[str, Any]:
        """What every template may use."""
        return {
            "app": self.app,
            "instance": self.name,
            "person": person,
            "may_deploy": person is not None and person.role >= Role.DEPLOY,
            "is_admin": person is not None and person.role >= Role.ADMIN,
            "csrf": "" if person is None else self.identities.csrf(person),
            "now": self.now(),
            "snap": snapshot,
            "cut_off": self.cut_off_since(),
            "broken": self.live.broken,
            "oob": False,
        }

    def page(self, request: web.Request, template: str, *, status: int = 200, **facts: Any) -> web.Response:
        """A whole page."""
        person = request.get(PERSON)
        text = self.renderer(template, {**self.facts(person, self.live.snapshot), "path": request.path, **facts})
        return web.Response(text=text, content_type="text/html", status=status)

    def message(
        self, request: web.Request, text: str, *, status: int, tone: str = "stop", title: str = "Nothing was done"
    ) -> web.Response:
        """What came of a request: a fragment for a page that asked in the background, else a page of its own."""
        facts = {"title": title, "text": text, "tone": tone, "back": _back(request)}
        if request.headers.get("HX-Request") == "true":
            return web.Response(
                text=self.renderer("fragments/outcome.html", facts), content_type="text/html", status=status
            )
        return self.page(request, "message.html", status=status, **facts)


SITE: Final = web.AppKey("site", Site)


def site_of(request: web.Request) -> Site:
    """The request's site."""
    return request.app[SITE]


def person_of(request: web.Request) -> Person:
    """Who asks; the gate has let nobody else in."""
    return request[PERSON]


def origin_of(request: web.Request, reason: str, *, decided_on: int | None = None) -> Origin:
    """The request as the audit sees it."""
    site, person = site_of(request), person_of(request)
    return Origin(by=person.name, via="ui", reason=reason, at=site.now(), decided_on=decided_on)


def reason_in(text: str) -> str:
    """A reason as it is written down: one line, printable, not too long."""
    return plain(" ".join(text.split()), MAX_REASON)


def _back(request: web.Request) -> str:
    number = request.match_info.get("number")
    if request.path.startswith("/new"):
        return "/new"
    return "/" if number is None else f"/rollouts/{number}"
