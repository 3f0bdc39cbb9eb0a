"""Owns what every request passes before a handler sees it: the host's name, who asks, their role, forgery, haste.

Finding out who asks is left to `checkpoint.web.identity`. Nothing is served that `checkpoint.web.rights` does not list.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import quote, urlsplit

from aiohttp import web

from artifact import HotcoldError
from checkpoint.web import api_errors
from checkpoint.web.denials import Denial
from checkpoint.web.limits import Limit
from checkpoint.web.rights import BY_NAME, Person, Role, Route
from checkpoint.web.settings import is_loopback
from checkpoint.web.site import PERSON, Site

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with `no-referrer`, browsers call the origin of our own forms `null`
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
WRITES_PER_MINUTE: Final = 60
GUESSES_PER_MINUTE: Final = 10

_UNAVAILABLE: Final = {"store_unreachable": 503, "lost_race": 409, "stale": 409, "plan_stale": 409}


class Denied(Exception):
    """A request that is refused: `status` for machines, `why` for people. `is_told`: it goes into the audit."""

    def __init__(self, status: int, why: str, *, is_told: bool = True) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.is_told = is_told


class Gate:
    """The middleware of one site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._writes = Limit(WRITES_PER_MINUTE, 60.0, site.monotonic)
        self._guesses = Limit(GUESSES_PER_MINUTE, 60.0, site.monotonic)

    def middleware(self) -> Callable[..., Awaitable[web.StreamResponse]]:
        """As aiohttp wants it."""

        @web.middleware
        async def gate(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            try:
                return await self._let_in(request, handler)
            except web.HTTPException as error:
                if error.status >= 400:  # noqa: PLR2004 - a refusal of aiohttp's, without our page
                    return self._plain(request, error.status, error.reason, error.headers)
                raise

        return gate

    def may_guess(self, request: web.Request) -> bool:
        """Whether the address may try another token."""
        return self._guesses.allows(self._site.identities.client(request)) and self._guesses.allows("")

    async def _let_in(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        route = BY_NAME.get(request.match_info.route.name or "")
        person: Person | None = None
        try:
            self._check_host(request)
            if route is None:
                raise request.match_info.http_exception or web.HTTPNotFound
            person = None if route.name in {"health", "static"} else await self._site.identities.find(request)
            if person is not None:
                request[PERSON] = person
            await self._check(request, route, person)
        except Denied as denied:
            return self._refuse(request, route, person, denied)
        try:
            return await handler(request)
        except Denied as denied:
            return self._refuse(request, route, person, denied)
        except HotcoldError as error:
            status = _UNAVAILABLE.get(error.kind, 422)
            title = "The rollout has changed: nothing was done" if error.kind == "stale" else "Nothing was done"
            return self._site.message(request, str(error), status=status, title=title)

    def _check_host(self, request: web.Request) -> None:
        """Against names that point here from elsewhere: a page of theirs would be this server's own to a browser."""
        settings = self._site.identities.settings
        given = urlsplit(f"//{request.host}").hostname or ""
        public = urlsplit(settings.public_url).hostname
        listening = settings.address[0]
        known = {listening, public} - {None, "0.0.0.0", "::"}  # noqa: S104 - taken out
        is_ours = given in known or is_loopback(given) or (public is None and not is_loopback(listening))
        if not is_ours:
            raise Denied(421, f"this server is not {given!r}: set web.public_url to its name", is_told=False)

    async def _check(self, request: web.Request, route: Route, person: Person | None) -> None:
        if person is None and route.role > Role.NONE:
            raise Denied(401, "nobody is signed in", is_told=route.writes)
        if person is not None and person.role < route.role:
            raise Denied(403, f"it needs the role {route.role.name.lower()}, and this is {person.role.name.lower()}")
        if not route.writes:
            return
        self._check_origin(request)
        if person is None:
            return
        if person.via != "bearer":
            given = request.headers.get("X-CSRF-Token") or str((await request.post()).get("csrf", ""))
            if not self._site.identities.is_csrf(person, given):
                raise Denied(403, "the form is of another session: load the page again, and press once more")
        if not self._writes.allows(person.name):
            raise Denied(429, f"more than {WRITES_PER_MINUTE} actions in a minute: wait a little")

    def _check_origin(self, request: web.Request) -> None:
        fetched = request.headers.get("Sec-Fetch-Site")
        if fetched not in {None, "same-origin", "none"}:
            raise Denied(403, "another site sent the request")
        origin = request.headers.get("Origin")
        if origin is None:
            return
        public = urlsplit(self._site.identities.settings.public_url).netloc
        if urlsplit(origin).netloc not in {request.host, public} - {""}:
            raise Denied(403, "another site sent the request")

    def _refuse(
        self, request: web.Request, route: Route | None, person: Person | None, denied: Denied
    ) -> web.StreamResponse:
        if denied.is_told:
            by = "nobody" if person is None else person.name
            what = f"{request.method} {request.path}"
            address = self._site.identities.client(request)
            self._site.denials.add(Denial(by, address, what, denied.why, self._site.now()))
        is_background = request.headers.get("HX-Request") == "true"
        if denied.status == 401 and route is not None and route.kind == "page" and not is_background:  # noqa: PLR2004
            following = "" if request.method != "GET" else "?next=" + quote(request.path_qs, safe="")
            return web.Response(status=303, headers={"Location": f"/sign-in{following}"})
        if route is None or route.kind == "data":
            return self._plain(request, denied.status, denied.why)
        title = "Sign in again" if denied.status == 401 else "Not allowed"  # noqa: PLR2004
        return self._site.message(request, denied.why, status=denied.status, title=title)

    def _plain(
        self, request: web.Request, status: int, why: str, headers: Mapping[str, str] = MappingProxyType({})
    ) -> web.Response:
        allowed = {name: value for name, value in headers.items() if name == "Allow"}
        if request.path.startswith(api_errors.PREFIX):
            return api_errors.answer(status, why, headers=allowed)
        return web.Response(text=f"{why}\n", status=status, headers=allowed)


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Put the headers that protect pages on every answer, streams and refusals included."""
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
