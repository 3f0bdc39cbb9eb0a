"""Owns reading ranges of a file from the places that have it, in turn, with retries.

What the bytes should be is checked by those who ask; whole streams, and what failures mean, are `artifact.fetch`'s.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Final, Protocol, Self
from urllib.parse import urlsplit

import aiohttp

from artifact.entries import CHUNK_BYTES
from artifact.errors import TransientError
from artifact.fetch import MAX_REDIRECTS, HttpBody, SourceFailed, advice, http_session, opened_path, shown, translated
from artifact.pullwire import PullSettings

ATTEMPTS: Final = 5
"""Rounds over all places for one range; then the whole pull is tried again later, and goes on from there."""

_FIRST_PAUSE_S: Final = 0.1
_PARTIAL, _OK = 206, 200
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class RangedFile(Protocol):
    """A file at one place."""

    shown: str

    def read(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        """The bytes from `offset`, `size` of them, in chunks.

        Raises (while iterating):
            SourceFailed: they cannot be had from here now.
        """


class Consumer(Protocol):
    """Who takes a range.

    Attributes:
        accepted_bytes: from the start of the range; what lies behind is asked for again after a failure.
    """

    accepted_bytes: int

    async def consume(self, chunks: AsyncIterator[bytes]) -> None:
        """Take the chunks from `accepted_bytes` on; return early where they are wrong."""


class Places:
    """The places of an artifact and of what lies beside it. A context manager that owns connections.

    Args:
        urls: of the artifact, tried in turn.
        settings: timeouts and limits.
        chance: for the length of pauses.
        sleep: between rounds.
    """

    def __init__(
        self,
        urls: tuple[str, ...],
        settings: PullSettings,
        *,
        chance: random.Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._urls = urls
        self._settings = settings
        self._chance = chance
        self._sleep = sleep
        self._resources = AsyncExitStack()
        self._session: aiohttp.ClientSession | None = None
        self._preferred = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._resources.aclose()

    async def read(self, place: Callable[[str], str], offset: int, size: int, consumer: Consumer) -> None:
        """Let `consumer` take a range; from another place, or again, where that fails.

        Args:
            place: gives the file's url for an artifact's url.
            offset: of the range.
            size: of the range.
            consumer: takes it.

        Raises:
            TransientError: no place gave it; the message names each one's last failure.
        """
        failures: dict[str, SourceFailed] = {}
        for attempt in range(ATTEMPTS * len(self._urls)):
            number = (self._preferred + attempt) % len(self._urls)
            if attempt and attempt % len(self._urls) == 0:
                ceiling_s = _FIRST_PAUSE_S * 2 ** (attempt // len(self._urls))
                await self._sleep(self._chance.uniform(ceiling_s / 2, ceiling_s))
            url = place(self._urls[number])
            try:
                await self._read_once(url, offset, size, consumer)
            except SourceFailed as failure:
                failures[url] = failure
                if len(failures) == len(self._urls) and all(each.kind in _HOPELESS for each in failures.values()):
                    break
            else:
                self._preferred = number
                return
        kinds = {failure.kind for failure in failures.values()}
        raise TransientError(
            "; and ".join(str(failure) for failure in failures.values()),
            kind=kinds.pop() if len(kinds) == 1 else SourceFailed.kind,
        ) from next(reversed(failures.values()))

    async def _read_once(self, url: str, offset: int, size: int, consumer: Consumer) -> None:
        file = await self._file(url)
        async with aclosing(file.read(offset + consumer.accepted_bytes, size - consumer.accepted_bytes)) as chunks:
            await consumer.consume(chunks)
        if consumer.accepted_bytes < size:
            raise SourceFailed(
                f"{shown(url)} has other bytes than the index names, from {offset + consumer.accepted_bytes} on: "
                "upload the artifact again, and never change one that was published",
                kind="digest_mismatch",
            )

    async def _file(self, url: str) -> RangedFile:
        if urlsplit(url).scheme == "file":
            return _LocalFile(url, self._resources.enter_context(opened_path(url)))
        if self._session is None:
            self._session = await self._resources.enter_async_context(http_session(self._settings))
        return _HttpFile(url, self._session, self._settings)


_HOPELESS: Final = frozenset({"http_401", "http_403", "http_404", "http_410", "bad_url", "no_ranges"})
"""Failures that no second try mends within seconds."""


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


class _LocalFile:
    def __init__(self, url: str, fd: int) -> None:
        self.shown = url
        self._fd = fd

    async def read(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        end = offset + size
        while offset < end:
            await asyncio.sleep(0)  # a local disk never waits, and others in this loop must run
            try:
                data = os.pread(self._fd, min(CHUNK_BYTES, end - offset), offset)
            except OSError as error:
                raise SourceFailed(f"{self.shown} cannot be read: {error.strerror}; look at the disk") from error
            if not data:
                raise SourceFailed(f"{self.shown} ends at {offset}: copy the artifact there again", kind="truncated")
            offset += len(data)
            yield data
