"""Owns who asks: a session's cookie, a bearer token, or the name that a trusted proxy gives.

What they may is left to `checkpoint.web.rights`, and the pages of signing in to `checkpoint.web.signing_in` and
`checkpoint.web.oidc`.

What is promised: a token that is taken out of its file ends its sessions within seconds; a session that was signed out
of does not work again at this instance. Not promised: that other instances know of that before it ends by itself; nor
that a provider's session has the rights of now: they are those of its sign-in, by the configuration of now.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
import structlog
from aiohttp import web

from artifact import ConfigError
from checkpoint.web.oidc.claims import Subject, role_of
from checkpoint.web.rights import Person, Role
from checkpoint.web.sealing import Seal
from checkpoint.web.settings import WebTable, networks
from checkpoint.web.tokens import NAME, Known, checked, read_tokens

log = structlog.get_logger()

RELOAD_S: Final = 2.0
LAUNCH_ID: Final = "launch"
"""The token of whoever started a server without any configured way to sign in."""

_MAX_BEARERS: Final = 256


class _Session(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """By a token, whose id it is, or by a provider, which has named somebody."""

    token: str = ""
    id: str
    subject: Subject | None = None


class Identities:
    """Tells people apart.

    Args:
        settings: how.
        seal: of the sessions.
        launcher: name of whoever started the server.
        wall: seconds since the epoch.
    """

    def __init__(self, settings: WebTable, seal: Seal, *, launcher: str, wall: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.seal = seal
        self._wall = wall
        self._tokens: Mapping[str, Known] = {}
        self._ended: dict[str, float] = {}
        self._bearers: dict[bytes, str] = {}
        self._networks = () if settings.proxy is None else networks(settings.proxy)
        self._complaint: str | None = None
        self.launch_token: str | None = None
        self._launcher: Person | None = None
        if not settings.has_sign_in:
            self.launch_token = secrets.token_urlsafe(32)
            self._launcher = Person(launcher, Role.ADMIN, LAUNCH_ID, "session")
        self.cookie = "__Host-hotcold" if settings.is_secure else "hotcold"

    def load(self) -> None:
        """Read the tokens file; call it off the loop.

        Raises:
            ConfigError: it is wrong.
        """
        if self.settings.tokens_file:
            self._tokens = read_tokens(Path(self.settings.tokens_file))

    async def keep_loaded(self) -> None:
        """Read the file again and again, until cancelled. One that is wrong lets nobody in: no token counts."""
        while True:
            await asyncio.sleep(RELOAD_S)
            try:
                await asyncio.get_running_loop().run_in_executor(None, self.load)
                self._complaint = None
            except ConfigError as error:
                self._tokens = {}
                if str(error) != self._complaint:
                    log.error("no token is accepted", error=str(error))  # noqa: TRY400 - the message is all there is to it
                self._complaint = str(error)

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """Name and role of everybody with a token."""
        return tuple(sorted((each.name, each.role.name.lower()) for each in self._tokens.values()))

    async def sign_in(self, token: str) -> tuple[Person, str] | None:
        """Who has the token, and the cookie's value of their new session; None: nobody has."""
        if self.launch_token is not None and secrets.compare_digest(token.encode(), self.launch_token.encode()):
            token_id = LAUNCH_ID
        else:
            known = await self._checked(token)
            if known is None:
                return None
            token_id = known.id
        return self._begun(_Session(token=token_id, id=secrets.token_hex(16)))

    def admit(self, subject: Subject) -> tuple[Person, str] | None:
        """Somebody whom the provider has signed in, and the cookie's value of their new session; None: may nothing."""
        return self._begun(_Session(id=secrets.token_hex(16), subject=subject))

    def _begun(self, session: _Session) -> tuple[Person, str] | None:
        person = self._of(session)
        until_s = self._wall() + self.settings.session_s
        cookie = self.seal.close("session", msgspec.json.encode(session), until_s=until_s)
        return None if person is None else (person, cookie)

    def is_by_provider(self, request: web.Request) -> bool:
        """Whether the provider has begun the request's session."""
        session = self._session(request.cookies.get(self.cookie, ""))
        return session is not None and session.subject is not None

    def end(self, request: web.Request) -> None:
        """Let the request's session not be used again."""
        session = self._session(request.cookies.get(self.cookie, ""))
        if session is not None:
            now_s = self._wall()
            self._ended = {key: until_s for key, until_s in self._ended.items() if until_s > now_s}
            self._ended[session.id] = now_s + self.settings.session_s

    async def find(self, request: web.Request) -> Person | None:
        """Who asks; None: nobody that is known."""
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return await self._bearer(token.strip())
        if self.is_proxy(request.remote):
            return self._proxied(request)
        session = self._session(request.cookies.get(self.cookie, ""))
        return None if session is None else self._of(session)

    def is_proxy(self, address: str | None) -> bool:
        """Whether a connection comes from the trusted proxy."""
        with contextlib.suppress(ValueError):
            peer = ipaddress.ip_address(address or "")
            return any(peer in network for network in self._networks)
        return False

    def client(self, request: web.Request) -> str:
        """Address of whoever asks; behind the trusted proxy, the last one that it names."""
        remote = request.remote or "?"
        if self.is_proxy(remote):
            return request.headers.get("X-Forwarded-For", remote).rpartition(",")[2].strip()[:64]
        return remote

    def csrf(self, person: Person) -> str:
        """The forgery token of somebody's session."""
        return self.seal.word("csrf", person.session)

    def is_csrf(self, person: Person, word: str) -> bool:
        """Whether it is theirs."""
        return self.seal.is_word("csrf", person.session, word)

    def _session(self, cookie: str) -> _Session | None:
        raw = self.seal.open("session", cookie, now_s=self._wall()) if cookie else None
        return None if raw is None else msgspec.json.decode(raw, type=_Session)

    def _of(self, session: _Session) -> Person | None:
        if session.id in self._ended:
            return None
        if session.subject is not None:
            return self._named(session.subject, session.id)
        if session.token == LAUNCH_ID:
            launcher = self._launcher
            return None if launcher is None else Person(launcher.name, launcher.role, session.id, "session")
        known = self._tokens.get(session.token)
        return None if known is None else Person(known.name, known.role, session.id, "session")

    def _named(self, subject: Subject, session_id: str) -> Person | None:
        table = self.settings.oidc
        role = Role.NONE if table is None else role_of(subject, table)
        return None if role is Role.NONE else Person(subject.name, role, session_id, "session")

    async def _checked(self, token: str) -> Known | None:
        return await asyncio.get_running_loop().run_in_executor(None, checked, token, self._tokens)

    async def _bearer(self, token: str) -> Person | None:
        # What was found good once is known by a plain hash, so that a script pays for scrypt once.
        short = hashlib.sha256(token.encode(errors="replace")).digest()
        token_id = self._bearers.get(short)
        known = None if token_id is None else self._tokens.get(token_id)
        if known is None:
            known = await self._checked(token)
            if known is None:
                return None
            if len(self._bearers) >= _MAX_BEARERS:
                self._bearers.clear()
            self._bearers[short] = known.id
        return Person(known.name, known.role, f"bearer {known.id}", "bearer")

    def _proxied(self, request: web.Request) -> Person | None:
        proxy = self.settings.proxy
        names = [] if proxy is None else request.headers.getall(proxy.user_header, [])
        # Two of them: one came from the client, and nobody can tell which.
        if proxy is None or len(names) != 1 or not NAME.fullmatch(names[0]):
            return None
        role = Role[proxy.roles.get(names[0], proxy.default_role).upper()]
        return None if role is Role.NONE else Person(names[0], role, f"proxy {names[0]}", "proxy")
