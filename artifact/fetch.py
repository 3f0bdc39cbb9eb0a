"""Owns reading one url as a stream of raw bytes, and what each failure of it means.

What the bytes should be is left to `artifact.transfer`; trying again to the agent.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final, Protocol, Self
from urllib.parse import urlsplit

import aiohttp

from artifact.entries import CHUNK_BYTES
from artifact.errors import ConfigError
from artifact.httperrors import said
from artifact.pullwire import PullSettings
from artifact.source import RateWatch, SourceFailed, opened_path
from artifact.urls import shown

MAX_REDIRECTS: Final = 5
_OK: Final = 200
_READ_BUFFER_BYTES: Final = 512 << 10

_MEANINGS: Final[tuple[tuple[tuple[type[Exception], ...], str, str], ...]] = (
    (
        (aiohttp.TooManyRedirects, aiohttp.NonHttpUrlRedirectClientError, aiohttp.InvalidUrlRedirectClientError),
        "bad_redirect",
        f"at most {MAX_REDIRECTS} redirects, to http or https, are followed",
    ),
    ((aiohttp.InvalidURL,), "bad_url", "correct the url in the manifest"),
    ((aiohttp.ClientSSLError, ssl.SSLError), "tls_failed", "check its certificate, and this host's ca_cert and clock"),
    ((aiohttp.ClientConnectorDNSError,), "dns_failed", "check the name in the url and this host's resolver"),
    (
        (aiohttp.ClientHttpProxyError, aiohttp.ClientProxyConnectionError),
        "proxy_failed",
        "check the proxy in the environment",
    ),
    ((aiohttp.ClientConnectorError,), "connect_failed", "is the server up, and does it listen there?"),
    (
        (aiohttp.ClientPayloadError,),
        "truncated",
        "the body broke off or is malformed: look at the server and at proxies between",
    ),
)
"""What aiohttp's errors mean: the first class that fits decides, so special ones stand before their parents."""


class Source(Protocol):
    """An opened url.

    Attributes:
        size_bytes: what the server announces, or None.
    """

    size_bytes: int | None

    async def chunk(self) -> bytes:
        """The next bytes, none at the end.

        Raises:
            SourceFailed: the stream broke, stalled or drips; the kind says which.
        """


@asynccontextmanager
async def opened(url: str, settings: PullSettings) -> AsyncIterator[Source]:
    """Open an `http`, `https`, `s3` or `file` url.

    `http` follows the environment's proxies and at most `MAX_REDIRECTS` redirects, to `http` and `https` only; the
    content encoding is left as it is, because the digest is over the bytes that lie on the server.

    Raises:
        SourceFailed: no such place, refused, not answering, or an answer that is not the artifact.
        ConfigError: `ca_cert` cannot be read.
    """
    if urlsplit(url).scheme == "file":
        with _opened_file(url) as source:
            yield source
        return
    if urlsplit(url).scheme == "s3":
        # Only now: an extra, which need not be there.
        from artifact.s3 import S3Files  # noqa: PLC0415

        yield await _S3Source.of(S3Files(settings).file(url))
        return
    async with http_session(settings) as session:
        with translated(url, settings):
            async with asyncio.timeout(settings.stall_timeout_s):
                response = await session.get(url, max_redirects=MAX_REDIRECTS)
        async with response:
            if response.status != _OK:
                raise SourceFailed(
                    f"{shown(url)} answered {response.status} {response.reason or ''!a}: {advice(response.status)}",
                    kind=f"http_{response.status}",
                )
            yield _HttpSource(url, response, settings)


def http_session(settings: PullSettings) -> aiohttp.ClientSession:
    """A session that asks for the bytes that lie on the server, through the environment's proxies.

    Raises:
        ConfigError: `ca_cert` cannot be read.
    """
    return aiohttp.ClientSession(
        # The context that aiohttp has made already, where no other is asked for: making one takes 30 ms.
        connector=aiohttp.TCPConnector(ssl=True if settings.ca_cert is None else _tls(settings.ca_cert), limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_s),
        headers={"Accept-Encoding": "identity", "User-Agent": settings.user_agent},
        read_bufsize=_READ_BUFFER_BYTES,
        trust_env=True,
        auto_decompress=False,
    )


class HttpBody:
    """The chunks of one response, each within the deadline for silence, all above the least rate."""

    def __init__(self, url: str, response: aiohttp.ClientResponse, settings: PullSettings) -> None:
        self._url = url
        self._content = response.content
        self._settings = settings
        self._rate = RateWatch(settings.min_rate_bytes, settings.rate_window_s)
        transport = None if response.connection is None else response.connection.transport
        self._socket = None if transport is None else transport.get_extra_info("socket")

    async def chunk(self) -> bytes:
        """The next bytes, none at the end.

        Raises:
            SourceFailed: kind `stalled`, `too_slow`, `truncated` and others.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        with translated(self._url, self._settings):
            if self._socket is not None:
                # Servers that wait for full segments (nginx's tcp_nopush) wait for our delayed acknowledgement as
                # well: 40 ms for each small range.
                with suppress(OSError):  # closed, by a server that does so after each answer: the rest is here already
                    self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            async with asyncio.timeout(self._settings.stall_timeout_s):
                data = await self._content.readany()
        if data and self._rate.is_too_slow(loop.time() - began_s, len(data)):
            raise SourceFailed(
                f"{shown(self._url)} gives less than {self._settings.min_rate_bytes} bytes per second: "
                "look at the server's load and the network between",
                kind="too_slow",
            )
        return data


class _HttpSource(HttpBody):
    def __init__(self, url: str, response: aiohttp.ClientResponse, settings: PullSettings) -> None:
        super().__init__(url, response, settings)
        self.size_bytes = response.content_length


class _WholeObject(Protocol):
    async def size(self) -> int:
        """Of the object."""

    def read(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        """Its bytes."""


class _S3Source:
    def __init__(self, size_bytes: int, chunks: AsyncGenerator[bytes, None]) -> None:
        self.size_bytes: int | None = size_bytes
        self._chunks = chunks

    @classmethod
    async def of(cls, whole: _WholeObject) -> Self:
        size_bytes = await whole.size()
        return cls(size_bytes, whole.read(0, size_bytes))

    async def chunk(self) -> bytes:
        return await anext(self._chunks, b"")


class _FileSource:
    def __init__(self, url: str, fd: int) -> None:
        self.size_bytes: int | None = os.fstat(fd).st_size
        self._url = url
        self._fd = fd

    async def chunk(self) -> bytes:
        await asyncio.sleep(0)  # a local disk never waits, and others in this loop must run
        try:
            return os.read(self._fd, CHUNK_BYTES)
        except OSError as error:
            raise SourceFailed(f"{self._url} cannot be read: {error.strerror}; look at the disk's health") from error


@contextmanager
def _opened_file(url: str) -> Iterator[Source]:
    with opened_path(url) as fd:
        yield _FileSource(url, fd)


def _tls(ca_cert: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_cert)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"ca_cert {ca_cert!r} cannot be used ({error}): it must be a readable PEM file of authorities",
            kind="bad_ca_cert",
        ) from error


@contextmanager
def translated(url: str, settings: PullSettings) -> Iterator[None]:
    """Turn the transport's errors into SourceFailed; the most specific class decides."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise SourceFailed(
            f"{shown(url)} accepted no connection within {settings.connect_timeout_s} s: "
            "is it up, is a firewall between?",
            kind="connect_timeout",
        ) from error
    except TimeoutError as error:
        raise SourceFailed(
            f"{shown(url)} was silent for {settings.stall_timeout_s} s: look at the server", kind="stalled"
        ) from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        kind, remedy = _meaning(error)
        raise SourceFailed(f"{shown(url)}: {said(error)}; {remedy}", kind=kind) from error


def _meaning(error: Exception) -> tuple[str, str]:
    for kinds, kind, advice in _MEANINGS:
        if isinstance(error, kinds):
            return kind, advice
    return SourceFailed.kind, "the answer broke off or is no sound HTTP: look at the server"


def advice(status: int) -> str:
    """What to do about an answer that is not the artifact."""
    match status:
        case 401 | 403:
            return "let this host read it"
        case 404 | 410:
            return "upload the artifact there, or correct the url in the manifest"
        case 407:
            return "check the proxy in the environment"
        case _ if status >= 500:  # noqa: PLR2004 - the server errors of HTTP
            return "look at the server"
        case _:
            return "a plain 200 with the artifact is needed"
