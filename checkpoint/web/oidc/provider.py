"""Owns what is asked of the provider over the network: its documents, which are kept for a while, tokens, claims.

What is believed of the answers is left to `checkpoint.web.oidc.metadata`, `keys` and `claims`. Nothing is asked before
somebody wants to sign in, so that a provider that is down keeps no server from starting.

What is promised: nothing takes longer than `timeout_s`, and no answer more memory than `MAX_ANSWER_BYTES`; no redirect
is followed; a document is asked for at most once in `PAUSE_S`, whoever presses whatever how often; keys that the
provider has taken back are not believed for longer than `KEPT_S`. A new key is found with the first token it signs.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
import structlog

from artifact import ConfigError, HotcoldError, Refused, TransientError
from artifact.httperrors import said
from checkpoint.web.denials import plain
from checkpoint.web.oidc.claims import lacks, merged, read_id_token
from checkpoint.web.oidc.keys import PublicKey, UnknownKey, read_keys, verified
from checkpoint.web.oidc.metadata import DISCOVERY, Metadata, proof_of, read_metadata
from checkpoint.web.oidc.settings import OidcTable

log = structlog.get_logger()

KEPT_S: Final = 3600.0
PAUSE_S: Final = 5.0
MAX_ANSWER_BYTES: Final = 256 << 10
MAX_CONNECTIONS: Final = 16

_CHUNK_BYTES: Final = 16 << 10
_OK: Final = 200
_SERVER_ERROR: Final = 500

T = TypeVar("T")


class Unreachable(TransientError):
    """The provider gave no answer that it could have meant."""

    kind = "provider_unreachable"


class _TokenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    id_token: str
    access_token: str = ""


class _TokenError(msgspec.Struct, frozen=True, kw_only=True):
    error: str = ""
    error_description: str = ""


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A sign-in that went well: all claims of the person, and the ID token itself, which signs out again."""

    claims: dict[str, Any]
    id_token: str


class Kept(Generic[T]):
    """A document of the provider's, asked for when it is needed and not there, or old; by one request at a time.

    Args:
        fetch: asks for it.
        clock: monotonic seconds.
    """

    def __init__(self, fetch: Callable[[], Awaitable[T]], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = asyncio.Lock()
        self._value: T | None = None
        self._at_s = 0.0
        self._asked_s: float | None = None
        self._error: HotcoldError | None = None

    async def get(self) -> T:
        """The document, at most `KEPT_S` old.

        Raises:
            Unreachable, Refused: it is not to be had; for `PAUSE_S`, everybody is told so without asking again.
        """
        async with self._lock:
            if self._value is not None and self._clock() - self._at_s < KEPT_S:
                return self._value
            return await self._ask()

    async def newer(self, than: T) -> T | None:
        """Another document than that; None: there is none yet, or it was asked for less than `PAUSE_S` ago.

        Raises:
            Unreachable, Refused: as for `get`.
        """
        async with self._lock:
            if self._value is not None and self._value is not than:
                return self._value
            return None if self._is_pausing() else await self._ask()

    async def _ask(self) -> T:
        if self._error is not None and self._is_pausing():
            raise type(self._error)(str(self._error), kind=self._error.kind)
        try:
            self._value = await self._fetch()
        except HotcoldError as error:
            self._error = error
            raise
        else:
            self._error = None
            self._at_s = self._clock()
            return self._value
        finally:
            self._asked_s = self._clock()

    def _is_pausing(self) -> bool:
        return self._asked_s is not None and self._clock() - self._asked_s < PAUSE_S


class Provider:
    """The provider of one server.

    Args:
        table: which, and what is expected of it.
        http: asks; not closed.
        clock: monotonic seconds.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        table: OidcTable,
        http: aiohttp.ClientSession,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._table = table
        self._http = http
        self._wall = wall
        self._metadata = Kept(self._fetch_metadata, clock)
        self._keys = Kept(self._fetch_keys, clock)

    async def metadata(self) -> Metadata:
        """What the provider says of itself.

        Raises:
            Unreachable: no answer.
            Refused: an answer that is not believed.
        """
        return await self._metadata.get()

    async def redeem(self, code: str, *, redirect_uri: str, verifier: str, nonce: str) -> Signed:
        """Turn the code that a browser brought into the claims of a person.

        Raises:
            Unreachable: no answer.
            Refused: the provider does not take the code, or what it gives for it is not believed.
        """
        metadata = await self.metadata()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
            "client_id": self._table.client_id,
        }
        headers = {}
        way = proof_of(metadata, self._table)
        if way != "none":
            secret = await self.secret()
            if way == "client_secret_post":
                form["client_secret"] = secret
            else:
                del form["client_id"]
                pair = f"{quote(self._table.client_id, safe='')}:{quote(secret, safe='')}"
                headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        status, body = await self._request("POST", metadata.token_endpoint, form=form, headers=headers)
        if status != _OK:
            raise _refusal(self._table, metadata.token_endpoint, status, body)
        try:
            answer = msgspec.json.decode(body, type=_TokenAnswer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _lies(
                f"{metadata.token_endpoint} gave no ID token: {error}; is `openid` among the scopes?"
            ) from error
        payload = await self._verified(answer.id_token)
        claims = read_id_token(payload, self._table, nonce=nonce, now_s=self._wall())
        if lacks(claims, self._table) and metadata.userinfo_endpoint is not None and answer.access_token:
            claims = merged(claims, await self._userinfo(metadata.userinfo_endpoint, answer.access_token))
        return Signed(claims=claims, id_token=answer.id_token)

    async def secret(self) -> str:
        """The client's secret, read each time, so that it may be changed without a restart.

        Raises:
            ConfigError: it cannot be read.
        """
        # Reading only, so a thread that a cancelled caller leaves behind harms nothing.
        return await asyncio.get_running_loop().run_in_executor(None, read_secret, Path(self._table.client_secret_file))

    async def _verified(self, token: str) -> bytes:
        keys = await self._keys.get()
        try:
            return verified(token, keys)
        except UnknownKey:
            newer = await self._keys.newer(keys)
            if newer is None:
                raise
            return verified(token, newer)

    async def _userinfo(self, url: str, access_token: str) -> bytes:
        if not access_token.isascii() or not access_token.isprintable():
            raise _lies("the provider gave an access token that is none")
        status, body = await self._request("GET", url, headers={"Authorization": f"Bearer {access_token}"})
        if status != _OK:
            raise _refusal(self._table, url, status, body)
        return body

    async def _fetch_metadata(self) -> Metadata:
        url = self._table.issuer.rstrip("/") + DISCOVERY
        return read_metadata(await self._document(url), self._table)

    async def _fetch_keys(self) -> tuple[PublicKey, ...]:
        url = (await self.metadata()).jwks_uri
        return read_keys(await self._document(url), url)

    async def _document(self, url: str) -> bytes:
        status, body = await self._request("GET", url)
        if status != _OK:
            raise Unreachable(f"{url} answered {status} instead of 200")
        return body

    async def _request(
        self, method: str, url: str, *, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        body = bytearray()
        try:
            async with (
                asyncio.timeout(self._table.timeout_s),
                self._http.request(
                    method,
                    url,
                    data=form,
                    headers={"Accept": "application/json", **(headers or {})},
                    allow_redirects=False,
                ) as response,
            ):
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise _lies(f"{url} answered more than {MAX_ANSWER_BYTES >> 10} KiB")
                return response.status, bytes(body)
        except TimeoutError as error:
            raise Unreachable(f"{url} gave no answer within {self._table.timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable(f"{url} cannot be asked: {said(error)}") from error


def http_session() -> aiohttp.ClientSession:
    """A session that keeps no cookies, and goes through the environment's proxies."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=True,
    )


def read_secret(path: Path) -> str:
    """The client's secret.

    Raises:
        ConfigError: it cannot be read, is none, or others may read it.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path}: others may read the client's secret: chmod 600 {path}")
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(
            f"{path}: the client's secret cannot be read: {why}; see web.oidc.client_secret_file"
        ) from error
    if not secret or not secret.isprintable():
        raise ConfigError(f"{path}: holds no secret: one line is expected; see web.oidc.client_secret_file")
    return secret


def _refusal(table: OidcTable, url: str, status: int, body: bytes) -> HotcoldError:
    """What an answer means that is not 200: a server that fails may heal, one that refuses has said why."""
    if status >= _SERVER_ERROR:
        return Unreachable(f"{url} answered {status}: the provider has a fault")
    try:
        told = msgspec.json.decode(body, type=_TokenError)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        told = _TokenError()
    why = plain(": ".join(filter(None, (told.error, told.error_description))), 200) or f"it answered {status}"
    if told.error == "invalid_client":
        why += "; web.oidc.client_id and client_secret_file are what it knows this server by"
    return Refused(f"{table.shown} did not take the sign-in: {why}", kind="sign_in_refused")


def _lies(message: str) -> Refused:
    return Refused(message, kind="provider_invalid")
