"""Owns asking an HTTP server for ranges; what failures mean is `artifact.fetch`'s, trying again `artifact.ranges`'."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Final, Self

import aiohttp

from artifact.fetch import MAX_REDIRECTS, HttpBody, advice, http_session, translated
from artifact.pullwire import PullSettings
from artifact.source import SourceFailed
from artifact.urls import shown

_PARTIAL, _OK = 206, 200
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class HttpFiles:
    """Files at http and https urls, over one set of connections; a context manager that owns them."""

    def __init__(self, settings: PullSettings) -> None:
        self._settings = settings
        self._session = http_session(settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    def file(self, url: str) -> _HttpFile:
        """The file at a url; see `artifact.ranges.RangedFile`."""
        return _HttpFile(url, self._session, self._settings)


class _HttpFile:
    def __init__(self, url: str, session: aiohttp.ClientSession, settings: PullSettings) -> None:
        self.shown = shown(url)
        self._url = url
        self._session = session
        self._settings = settings

    async def read(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        if size == 0:
            return
        headers = {"Range": f"bytes={offset}-{offset + size - 1}"}
        with translated(self._url, self._settings):
            async with asyncio.timeout(self._settings.stall_timeout_s):
                response = await self._session.get(self._url, headers=headers, max_redirects=MAX_REDIRECTS)
        async with response:
            self._check(response, offset, size)
            body = HttpBody(self._url, response, self._settings)
            received = 0
            while data := await body.chunk():
                received += len(data)
                if received > size:
                    raise SourceFailed(f"{self.shown} gave more bytes than it was asked for", kind="bad_range")
                yield data
        if received < size:
            raise SourceFailed(
                f"{self.shown} ended after {received} of {size} bytes of a range: look at the server and at proxies",
                kind="truncated",
            )

    def _check(self, response: aiohttp.ClientResponse, offset: int, size: int) -> None:
        if response.status == _OK:
            if offset == 0 and response.content_length == size:
                return
            raise SourceFailed(
                f"{self.shown} answers a request for a range with the whole: the server, or a proxy before it, must "
                "support ranges",
                kind="no_ranges",
            )
        if response.status != _PARTIAL:
            raise SourceFailed(
                f"{self.shown} answered {response.status} {response.reason or ''!a}: {advice(response.status)}",
                kind=f"http_{response.status}",
            )
        given = response.headers.get("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(given)
        if match is None or (int(match[1]), int(match[2])) != (offset, offset + size - 1):
            raise SourceFailed(
                f"{self.shown} gave the range {given!a} where {offset}-{offset + size - 1} was asked for: is it "
                "another file, or still being uploaded?",
                kind="bad_range",
            )
