"""Owns what a sign-in under way must remember, and that it ends once: in a cookie, so that any instance may go on.

Asking the provider is left to `checkpoint.web.oidc.provider`. The cookie holds a random id and the page to go to,
sealed. State, nonce and verifier are words that only this server's key makes of the id: the cookie holds none of them.

What is promised: a sign-in ends in the browser in which it was begun, within `LASTS_S`, and once at this instance. Not
promised: that other instances know of that; there the provider refuses, which takes a code once.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from checkpoint.web.sealing import Seal

LASTS_S: Final = 600.0
MAX_FOLLOWING: Final = 1000

_PURPOSE: Final = "oidc"
_MAX_ENDED: Final = 10_000


class _Cookie(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: str
    following: str


@dataclass(frozen=True)
class Flow:
    """One sign-in under way.

    Attributes:
        id: tells it apart.
        following: the page to go to afterwards.
        state: comes back with the browser.
        nonce: comes back in the ID token.
        verifier: shows the token endpoint who has begun; its hash alone went through the browser.
    """

    id: str
    following: str
    state: str
    nonce: str
    verifier: str

    @property
    def challenge(self) -> str:
        """The verifier's hash, by the method `S256`."""
        return base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).decode().rstrip("=")


class Flows:
    """The sign-ins under way of one server.

    Args:
        seal: of the cookies.
        prefix: what their names begin with.
        wall: seconds since the epoch.
    """

    def __init__(self, seal: Seal, *, prefix: str, wall: Callable[[], float]) -> None:
        self._seal = seal
        self._prefix = prefix
        self._wall = wall
        self._ended: dict[str, float] = {}

    def begin(self, following: str) -> tuple[Flow, str]:
        """A new sign-in, and its cookie's value."""
        if len(following) > MAX_FOLLOWING:
            following = "/"
        cookie = _Cookie(id=secrets.token_hex(16), following=following)
        value = self._seal.close(_PURPOSE, msgspec.json.encode(cookie), until_s=self._wall() + LASTS_S)
        return self._flow(cookie), value

    def end(self, state: str, cookies: Mapping[str, str]) -> Flow | None:
        """The sign-in that a browser comes back from, which then is over; None: this browser has begun none such."""
        now_s = self._wall()
        raw = self._seal.open(_PURPOSE, cookies.get(self.cookie_name(state), ""), now_s=now_s)
        if raw is None:
            return None
        cookie = msgspec.json.decode(raw, type=_Cookie)
        if cookie.id in self._ended or not self._seal.is_word("oidc state", cookie.id, state):
            return None
        self._ended = {key: until_s for key, until_s in self._ended.items() if until_s > now_s}
        if len(self._ended) >= _MAX_ENDED:
            del self._ended[next(iter(self._ended))]
        self._ended[cookie.id] = now_s + LASTS_S
        return self._flow(cookie)

    def cookie_name(self, state: str) -> str:
        """One for each sign-in, so that several pages may begin one at the same time."""
        return f"{self._prefix}-oidc-{state[:8]}"

    def _flow(self, cookie: _Cookie) -> Flow:
        word = self._seal.word
        return Flow(
            id=cookie.id,
            following=cookie.following,
            state=word("oidc state", cookie.id),
            nonce=word("oidc nonce", cookie.id),
            verifier=word("oidc verifier", cookie.id),
        )
