"""Owns HTTP to Consul: connections, timeouts, tokens, TLS, and the translation of every failure into our errors.

Sits under py-consul, whose own transport times long polls out, loses statuses and headers, and reads tokens and TLS
settings differently from Consul's tools. What requests mean is left to py-consul and `fleet.consul`.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
from consul import ConsulException, NotFound, aio, base
from yarl import URL

from artifact import ConfigError
from artifact.httperrors import said
from fleet.acl import rule_needed
from fleet.contact import ContactLog
from fleet.settings import ConsulSettings
from fleet.store import StoreRefused, StoreUnreachable
from fleet.tls import tls_context

GRACE_S: Final = 10.0
"""Time for an answer beyond the asked wait; a server without leader takes 7 s to say so."""

REQUESTS: Final = "requests"
"""Source under which the transport reports to the `ContactLog`."""

_CONNECT_S: Final = 5.0
_WAIT = re.compile(r"([0-9.]+)s")
_OK: Final = 200
_REDIRECT: Final = range(300, 400)
_CLIENT_ERROR: Final = range(400, 500)
# 404: there is none. 409: the transaction did not match. Both are answers that the callbacks understand.
_ANSWERS: Final = frozenset({404, 409})
_TOO_LARGE: Final = 413
_TOO_MANY_REQUESTS: Final = 429
_TOKEN_REFUSED: Final = 403


@dataclass(frozen=True)
class Answer:
    """What Consul said when it was not what we asked for."""

    status: int
    headers: Mapping[str, str]
    text: str


class AnsweredNo(StoreRefused):
    """Consul refused; `answer` holds its words."""

    def __init__(self, message: str, answer: Answer, *, kind: str | None = None) -> None:
        super().__init__(message, kind=kind)
        self.answer = answer


class AnsweredBadly(StoreUnreachable):
    """Consul answered that it cannot at the moment; `answer` holds its words."""

    def __init__(self, message: str, answer: Answer) -> None:
        super().__init__(message)
        self.answer = answer


class Transport(base.HTTPClient):  # type: ignore[misc] # py-consul is untyped
    """The HTTP client that py-consul calls: one connection pool without limit, so that no long poll starves a write.

    Args:
        settings: where Consul is.
        log: told of every answer and every failure.
        grace_s: see `GRACE_S`.
    """

    def __init__(self, settings: ConsulSettings, log: ContactLog, *, grace_s: float = GRACE_S) -> None:
        super().__init__()
        self._settings = settings
        self._log = log
        self._grace_s = grace_s
        self._is_unix = settings.address.startswith("unix://")
        self.base_uri = "http://localhost" if self._is_unix else settings.address
        self._opening = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        self._token = settings.token
        self.closed = False

    def get(self, callback: Callable[[Any], Any], path: str, params: Any = None, **_: Any) -> Any:
        """Ask; what py-consul passes beyond these is decided here, not per call."""
        return self._request(callback, "GET", path, params, None)

    def put(self, callback: Callable[[Any], Any], path: str, params: Any = None, data: Any = "", **_: Any) -> Any:
        """Write."""
        return self._request(callback, "PUT", path, params, data)

    def delete(self, callback: Callable[[Any], Any], path: str, params: Any = None, data: Any = "", **_: Any) -> Any:
        """Delete."""
        return self._request(callback, "DELETE", path, params, data)

    def post(self, callback: Callable[[Any], Any], path: str, params: Any = None, data: Any = "", **_: Any) -> Any:
        """Post; no request of ours does, but py-consul's interface has it."""
        return self._request(callback, "POST", path, params, data)

    async def open(self) -> None:
        """Read token and certificates and make the connection pool; connects to nothing yet.

        Raises:
            ConfigError: a file that the settings name cannot be used.
        """
        await self._opened()

    async def close(self) -> None:
        """Close every connection; pending requests fail. Calling it twice is harmless."""
        self.closed = True
        if self._session is not None:
            await self._session.close()

    async def _opened(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self.closed:
                raise StoreUnreachable("this connection to Consul was closed", kind="store_closed")
            if self._session is None:
                if self._settings.token_file is not None:
                    self._token = await self._read_token(self._settings.token_file)
                self._session = aiohttp.ClientSession(
                    connector=await self._connector(),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    # Consul would compress each answer for a client that mostly sits on the same machine.
                    headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                )
            return self._session

    async def _connector(self) -> aiohttp.BaseConnector:
        if self._is_unix:
            return aiohttp.UnixConnector(path=self._settings.address.removeprefix("unix://"), limit=0)
        if not self.base_uri.startswith("https:"):
            return aiohttp.TCPConnector(limit=0)
        # Reading only, so a thread that a cancelled caller leaves behind harms nothing; likewise in `_read_token`.
        context = await asyncio.get_running_loop().run_in_executor(None, tls_context, self._settings)
        return aiohttp.TCPConnector(limit=0, ssl=context)

    async def _read_token(self, file: str) -> str:
        try:
            text = await asyncio.get_running_loop().run_in_executor(None, Path(file).read_text)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"cannot read Consul's token from {file}: {error}; check token_file (CONSUL_HTTP_TOKEN_FILE)",
                kind="token_file",
            ) from error
        token = text.strip()
        if not token or not token.isprintable():
            raise ConfigError(
                f"{file} holds no token: one line is expected; check token_file (CONSUL_HTTP_TOKEN_FILE)",
                kind="token_file",
            )
        return token

    async def _token_rotated(self) -> bool:
        """Read the token file again; whether it holds another token now."""
        if self._settings.token_file is None:
            return False
        try:
            token = await self._read_token(self._settings.token_file)
        except ConfigError:
            return False  # Half-written by a rotation: the refusal is the better message, and the next one retries.
        rotated, self._token = token != self._token, token
        return rotated

    async def _request(
        self,
        callback: Callable[[Any], Any],
        method: str,
        path: str,
        params: Sequence[tuple[str, Any]] | None,
        data: Any,
    ) -> Any:
        """Send, and hand a good answer to `callback`.

        Raises:
            StoreRefused: Consul answered "no".
            StoreUnreachable: no answer, or none that a healthy Consul gives.
            ConfigError: a file that the settings name cannot be used.
            NotFound: by a callback for which "there is none" is no answer.
        """
        answer = await self._send(method, path, params, data)
        if answer.status == _TOKEN_REFUSED and await self._token_rotated():
            answer = await self._send(method, path, params, data)
        try:
            self._check(method, path, answer)
            result = callback(base.Response(answer.status, answer.headers, answer.text))
        except StoreRefused:
            self._log.forget(REQUESTS)  # It answered, if only "no".
            raise
        except StoreUnreachable as error:
            self._log.failed(REQUESTS, error)
            raise
        except NotFound:
            self._log.answered(REQUESTS)
            raise
        except (ConsulException, ValueError, TypeError, KeyError, AttributeError) as error:
            broken = StoreUnreachable(
                f"{self._where(method, path)} answered {answer.status} with what no Consul sends "
                f"({answer.text[:80]!r}): {error}; is there a proxy between?"
            )
            self._log.failed(REQUESTS, broken)
            raise broken from error
        self._log.answered(REQUESTS)
        return result

    async def _send(self, method: str, path: str, params: Sequence[tuple[str, Any]] | None, data: Any) -> Answer:
        session = await self._opened()
        timeout_s = self._timeout_s(params)
        url = URL(self._url(path, params), encoded=True)
        try:
            async with session.request(
                method,
                url,
                data=data,
                headers=self._headers(),
                timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(_CONNECT_S, timeout_s)),
                allow_redirects=False,
                server_hostname=self._settings.tls_server_name,
                middlewares=() if _is_repeatable(method, params) else (_send_once,),
            ) as response:
                return Answer(response.status, response.headers, (await response.read()).decode())
        except TimeoutError as error:
            failure = StoreUnreachable(
                f"{self._where(method, path)} gave no answer within {timeout_s:g} s; is the Consul agent healthy?"
            )
            self._log.failed(REQUESTS, failure)
            raise failure from error
        except (aiohttp.ClientError, OSError, ValueError, _Interrupted) as error:
            if self.closed:
                raise StoreUnreachable("this connection to Consul was closed", kind="store_closed") from error
            failure = StoreUnreachable(
                f"{self._where(method, path)} failed: {said(error)}; "
                "does the Consul agent run, and is its address (CONSUL_HTTP_ADDR) right?"
            )
            self._log.failed(REQUESTS, failure)
            raise failure from error

    def _check(self, method: str, path: str, answer: Answer) -> None:
        where, said = self._where(method, path), answer.text.strip()[:200]
        if answer.status == _OK or answer.status in _ANSWERS:
            if answer.headers.get("X-Consul-Results-Filtered-By-ACLs", "").lower() == "true":
                # A list with holes reads like "the others were deleted".
                raise AnsweredNo(
                    f"{where} left entries out that the token may not see; grant {rule_needed(method, path)}", answer
                )
            return
        if answer.status == _TOKEN_REFUSED:
            raise AnsweredNo(
                f"{where} was refused ({said}); the token needs {rule_needed(method, path)}",
                answer,
                kind="store_denied",
            )
        if answer.status == _TOO_LARGE:
            raise AnsweredNo(
                f"{where} is too large for Consul ({said}); its limit is 512 KiB", answer, kind="too_large"
            )
        if answer.status in _REDIRECT:
            raise AnsweredNo(
                f"{where} was redirected to {answer.headers.get('Location')}, which is not followed because it would "
                "take the token along; set the address (CONSUL_HTTP_ADDR) to where Consul is",
                answer,
            )
        if answer.status in _CLIENT_ERROR and answer.status != _TOO_MANY_REQUESTS:
            raise AnsweredNo(f"{where} was refused with status {answer.status}: {said}", answer)
        raise AnsweredBadly(f"{where} answered {answer.status}: {said}; it is retried", answer)

    def _headers(self) -> dict[str, str]:
        headers = {}
        if self._token is not None:
            headers["X-Consul-Token"] = self._token
        if self._settings.http_auth is not None:
            headers["Authorization"] = f"Basic {base64.b64encode(self._settings.http_auth.encode()).decode()}"
        return headers

    def _timeout_s(self, params: Sequence[tuple[str, Any]] | None) -> float:
        """The asked wait, the 1/16 that Consul adds to spread its clients, and the grace."""
        wait = _WAIT.fullmatch(str(dict(params or ()).get("wait", "0s")))
        wait_s = float(wait[1]) if wait else 0.0
        return wait_s + wait_s / 16 + self._grace_s

    def _url(self, path: str, params: Sequence[tuple[str, Any]] | None) -> str:
        query = f"?{urlencode(params)}" if params else ""
        return f"{self.base_uri}{quote(path, safe='/:')}{query}"

    def _where(self, method: str, path: str) -> str:
        return f"Consul at {self._settings.address}: {method} {path}"


class ConsulClient(aio.Consul):  # type: ignore[misc] # py-consul is untyped
    """py-consul's asyncio API over our transport. It reads no environment."""

    def __init__(self, transport: Transport, *, datacenter: str | None) -> None:
        self._transport = transport
        # Host, port, scheme and verify are given so that the constructor asks no environment for them; they are
        # not used.
        super().__init__(host="localhost", port=0, scheme="http", verify=True, dc=datacenter)
        # The constructor prefers $CONSUL_HTTP_TOKEN to its argument; the transport adds the right one.
        self.token = None

    def http_connect(self, *_: Any, **__: Any) -> Transport:
        """Hand py-consul our transport."""
        return self._transport


class _Interrupted(Exception):
    """A request broke off on the way."""


def _is_repeatable(method: str, params: Sequence[tuple[str, Any]] | None) -> bool:
    """Whether aiohttp may silently send the request again after a broken connection.

    Not a write: the first one may have arrived, and then a check-and-set that we won would be answered with False.
    Not a blocking query: another server may answer the second one, to whom its index means nothing.
    """
    return method == "GET" and "index" not in dict(params or ())


async def _send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending the request again; see `_is_repeatable`."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _Interrupted(str(error) or type(error).__name__) from error
