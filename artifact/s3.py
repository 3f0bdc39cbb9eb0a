"""Owns reading objects of S3 and of stores that speak its protocol, whole or by range; needs the extra `hotcold[s3]`.

Where the store is and who may read is found in the usual variables of the environment, or from the machine's role:
`AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and their like.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final
from urllib.parse import unquote, urlsplit

try:
    import obstore
    from obstore.exceptions import (
        BaseError,
        GenericError,
        PermissionDeniedError,
        UnauthenticatedError,
    )
    from obstore.store import S3Store
except ImportError as missing:
    from artifact.errors import ConfigError

    raise ConfigError("s3:// urls need the extra `s3`: install hotcold[s3] where this runs", kind="no_s3") from missing

from artifact.pullwire import PullSettings
from artifact.source import RateWatch, SourceFailed
from artifact.urls import shown

_CHUNK_BYTES: Final = 256 << 10
_KINDS: Final[tuple[tuple[type[Exception], str, str], ...]] = (
    (FileNotFoundError, "http_404", "upload the artifact there, or correct the url in the manifest"),
    (PermissionDeniedError, "http_403", "let this host's role or key read it"),
    (UnauthenticatedError, "http_401", "give this host a role, or a key in its environment"),
)


class S3Files:
    """Objects at `s3://bucket/key` urls; see `artifact.ranges.RangedFile`."""

    def __init__(self, settings: PullSettings) -> None:
        self._settings = settings
        self._stores: dict[str, S3Store] = {}

    def file(self, url: str) -> S3Object:
        """The object at a url.

        Raises:
            SourceFailed: kind `bad_url`.
        """
        parts = urlsplit(url)
        bucket, key = parts.netloc, unquote(parts.path).lstrip("/")
        if not bucket or not key:
            raise SourceFailed(f"{shown(url)} must be s3://bucket/key", kind="bad_url")
        if bucket not in self._stores:
            with _translated(url):
                # Silence and slowness are noticed here, whatever the size.
                self._stores[bucket] = s3_store(bucket, self._settings, timeout=timedelta(days=1))
        return S3Object(url, self._stores[bucket], key, self._settings)


def s3_store(bucket: str, settings: PullSettings, *, timeout: timedelta) -> S3Store:
    """The bucket, where the environment says that it is; nothing is tried again.

    Args:
        bucket: its name.
        settings: `connect_timeout_s` and `user_agent` of it count.
        timeout: longest time for one request.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return S3Store(
        bucket,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=settings.connect_timeout_s),
            "timeout": timeout,
            "user_agent": settings.user_agent,
        },
        retry_config={"max_retries": 0},  # trying again is left to the callers
    )


class S3Object:
    """One object."""

    def __init__(self, url: str, store: S3Store, key: str, settings: PullSettings) -> None:
        self.shown = shown(url)
        self._url = url
        self._store = store
        self._key = key
        self._settings = settings

    async def size(self) -> int:
        """Of the object, in bytes.

        Raises:
            SourceFailed: it cannot be had.
        """
        with _translated(self._url):
            async with asyncio.timeout(self._settings.stall_timeout_s):
                return (await obstore.head_async(self._store, self._key))["size"]

    async def read(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        """The bytes from `offset`, `size` of them; see `artifact.ranges.RangedFile`."""
        if size == 0:
            return
        received = 0
        async for chunk in self._chunks(offset, size):
            received += len(chunk)
            if received > size:
                raise SourceFailed(f"{self.shown} gave more bytes than it was asked for", kind="bad_range")
            yield chunk
        if received < size:
            raise SourceFailed(
                f"{self.shown} ended after {received} of {size} bytes of a range: is it another object?",
                kind="truncated",
            )

    async def _chunks(self, offset: int, size: int) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        rate = RateWatch(self._settings.min_rate_bytes, self._settings.rate_window_s)
        with _translated(self._url):
            async with asyncio.timeout(self._settings.stall_timeout_s):
                answer = await obstore.get_async(self._store, self._key, options={"range": (offset, offset + size)})
            stream = aiter(answer.stream(min_chunk_size=_CHUNK_BYTES))
            while True:
                began_s = loop.time()
                async with asyncio.timeout(self._settings.stall_timeout_s):
                    chunk = await anext(stream, None)
                if chunk is None:
                    return
                if rate.is_too_slow(loop.time() - began_s, len(chunk)):
                    raise SourceFailed(
                        f"{self.shown} gives less than {self._settings.min_rate_bytes} bytes per second: look at the "
                        "network between",
                        kind="too_slow",
                    )
                yield bytes(chunk)


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise SourceFailed(f"{shown(url)} was silent for too long: look at the store", kind="stalled") from error
    except (BaseError, OSError, ValueError) as error:
        for error_type, kind, advice in _KINDS:
            if isinstance(error, error_type):
                raise SourceFailed(f"{shown(url)}: {advice}", kind=kind) from error
        what = "connect_failed" if isinstance(error, GenericError) else SourceFailed.kind
        said = " ".join(str(error).split())[:300]
        raise SourceFailed(
            f"{shown(url)}: {said}; check AWS_REGION, AWS_ENDPOINT_URL and the network", kind=what
        ) from error
