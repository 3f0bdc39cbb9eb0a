"""Owns reading ranges of a file from the places that have it, in turn, with retries.

What the bytes should be is checked by those who ask; asking servers is left to `artifact.httpranges`.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, aclosing
from typing import Final, Protocol, Self
from urllib.parse import urlsplit

from artifact.entries import CHUNK_BYTES
from artifact.errors import TransientError
from artifact.pace import Pace
from artifact.pullwire import PullSettings
from artifact.source import SourceFailed, opened_path
from artifact.urls import shown

ATTEMPTS: Final = 5
"""Rounds over all places for one range; then the whole pull is tried again later, and goes on from there."""

_FIRST_PAUSE_S: Final = 0.1


class NoPlaceGave(TransientError):
    """No place gave a range.

    Attributes:
        kinds: of each place's last failure.
    """

    def __init__(self, failures: Collection[SourceFailed]) -> None:
        self.kinds = frozenset(failure.kind for failure in failures)
        super().__init__(
            "; and ".join(map(str, failures)),
            kind=next(iter(self.kinds)) if len(self.kinds) == 1 else SourceFailed.kind,
        )


class RangedFile(Protocol):
    """A file at one place."""

    shown: str

    def read(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        """The bytes from `offset`, `size` of them, in chunks.

        Raises (while iterating):
            SourceFailed: they cannot be had from here now.
        """


class _Files(Protocol):
    def file(self, url: str) -> RangedFile:
        """The file at a url."""


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
        sleep: between rounds, and where `max_rate_bytes` demands it.
        attempts: rounds over all places for one range.
    """

    def __init__(
        self,
        urls: tuple[str, ...],
        settings: PullSettings,
        *,
        chance: random.Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        attempts: int = ATTEMPTS,
    ) -> None:
        self._urls = urls
        self._settings = settings
        self._chance = chance
        self._sleep = sleep
        self._attempts = attempts
        self._resources = AsyncExitStack()
        self._http: _Files | None = None
        self._s3: _Files | None = None
        self._pace = Pace(settings.max_rate_bytes)
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
            NoPlaceGave: the message names each place's last failure.
        """
        failures: dict[str, SourceFailed] = {}
        first = self._preferred  # others may prefer another one meanwhile, and none shall be left out here
        for attempt in range(self._attempts * len(self._urls)):
            number = (first + attempt) % len(self._urls)
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
        raise NoPlaceGave(failures.values()) from next(reversed(failures.values()))

    async def _read_once(self, url: str, offset: int, size: int, consumer: Consumer) -> None:
        file = await self._file(url)
        async with aclosing(file.read(offset + consumer.accepted_bytes, size - consumer.accepted_bytes)) as chunks:
            await consumer.consume(self._paced(chunks))
        if consumer.accepted_bytes < size:
            raise SourceFailed(
                f"{shown(url)} has other bytes than the index names, from {offset + consumer.accepted_bytes} on: "
                "upload the artifact again, and never change one that was published",
                kind="digest_mismatch",
            )

    async def _paced(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            delay_s = self._pace.delay_s(len(chunk), time.monotonic())
            if delay_s:
                await self._sleep(delay_s)
            yield chunk

    async def _file(self, url: str) -> RangedFile:
        if urlsplit(url).scheme == "file":
            return _LocalFile(url)
        if urlsplit(url).scheme == "s3":
            if self._s3 is None:
                # Only now: an extra, which need not be there.
                from artifact.s3 import S3Files  # noqa: PLC0415

                self._s3 = S3Files(self._settings)
            return self._s3.file(url)
        if self._http is None:
            # Only now: a pull that finds everything on this host does not pay for loading the client.
            from artifact.httpranges import HttpFiles  # noqa: PLC0415

            self._http = await self._resources.enter_async_context(HttpFiles(self._settings))
        return self._http.file(url)


_HOPELESS: Final = frozenset({"http_401", "http_403", "http_404", "http_410", "bad_url", "no_ranges"})
"""Failures that no second try mends within seconds."""


class _LocalFile:
    def __init__(self, url: str) -> None:
        self.shown = url

    async def read(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        end = offset + size
        with opened_path(self.shown) as fd:
            while offset < end:
                await asyncio.sleep(0)  # a local disk never waits, and others in this loop must run
                try:
                    data = os.pread(fd, min(CHUNK_BYTES, end - offset), offset)
                except OSError as error:
                    raise SourceFailed(f"{self.shown} cannot be read: {error.strerror}; look at the disk") from error
                if not data:
                    raise SourceFailed(
                        f"{self.shown} ends at {offset}: copy the artifact there again", kind="truncated"
                    )
                offset += len(data)
                yield data
