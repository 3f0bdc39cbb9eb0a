"""Owns putting one file to a place and looking what lies there: a directory, an HTTP server that takes PUT, S3.

In which order a build's files go, and what is tried again, is left to `checkpoint.release.uploading`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol
from urllib.parse import quote, urlsplit

from artifact import ConfigError, PullSettings, TransientError
from artifact.diskerrors import disk_error
from artifact.fetch import http_session, opened, translated
from artifact.publish import publish, unpublished
from artifact.source import SourceFailed
from artifact.urls import shown
from checkpoint.release.settings import UploadTable

_SETTINGS: Final = PullSettings()
_PASSING: Final = frozenset({408, 425, 429})
_SERVER_ERROR: Final = 500
_ABSENT: Final = frozenset({"http_404", "http_410"})
_HEADER: Final = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_COPY_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Content:
    """What a file holds: its size in bytes, and `sha256:` with 64 hex digits."""

    size: int
    digest: str


class Place(Protocol):
    """Where files go.

    Attributes:
        table: as it is configured.
    """

    table: UploadTable

    def find(self, name: str) -> Content | None:
        """What lies there under a name; None: nothing.

        Raises:
            TransientError, ConfigError: it cannot be told.
        """

    def put(self, name: str, path: Path) -> None:
        """Put a file there; what lies there is replaced.

        Raises:
            TransientError: trying again may help.
            ConfigError: it will not.
        """


def place_of(table: UploadTable, environment: Mapping[str, str]) -> Place:
    """The place that a table names.

    Raises:
        ConfigError: its headers cannot be had, or the extra for S3 is missing.
    """
    match urlsplit(table.to).scheme:
        case "http" | "https":
            return HttpPlace(table, headers_of(table, environment))
        case "s3":
            # Only now: an extra, which need not be there.
            from checkpoint.release.s3 import S3Place  # noqa: PLC0415

            return S3Place(table)
        case _:
            return DirectoryPlace(table)


def content_of(path: Path) -> Content:
    """What a file on this machine holds."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Content(os.fstat(file.fileno()).st_size, f"sha256:{digest}")


def content_at(url: str) -> Content | None:
    """What lies at an address, read as a host would; None: nothing.

    Raises:
        SourceFailed: it cannot be read.
    """
    try:
        return asyncio.run(_read(url))
    except SourceFailed as failure:
        if failure.kind in _ABSENT:
            return None
        raise


async def _read(url: str) -> Content:
    hashed, size = hashlib.sha256(), 0
    async with opened(url, _SETTINGS) as source:
        while data := await source.chunk():
            hashed.update(data)
            size += len(data)
    return Content(size, f"sha256:{hashed.hexdigest()}")


def headers_of(table: UploadTable, environment: Mapping[str, str]) -> dict[str, str]:
    """The headers of a file and of a variable, which no argument list ever holds.

    Raises:
        ConfigError: kind `bad_headers`; no message tells what was in there.
    """
    texts = []
    if table.headers_file is not None:
        try:
            texts.append((table.headers_file, Path(table.headers_file).read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError(f"{table.headers_file}: headers cannot be read: {reason}", kind="bad_headers") from error
    if table.headers_env is not None:
        if table.headers_env not in environment:
            raise ConfigError(f"${table.headers_env} is not set: headers for {table.to} are there", kind="bad_headers")
        texts.append((f"${table.headers_env}", environment[table.headers_env]))
    found = {}
    for place, text in texts:
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            match = _HEADER.fullmatch(line)
            if match is None:
                raise ConfigError(f"{place}, line {number}: is no header: give `Name: value`", kind="bad_headers")
            found[match[1]] = match[2].strip()
    return found


class DirectoryPlace:
    """A directory of this machine, or one that is mounted here."""

    def __init__(self, table: UploadTable) -> None:
        self.table = table
        self._directory = Path(table.to)

    def find(self, name: str) -> Content | None:
        """See `Place`."""
        try:
            return content_of(self._directory / name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise disk_error(error, self._directory, f"reading {name}") from error

    def put(self, name: str, path: Path) -> None:
        """See `Place`; whoever reads the directory sees the whole file or none, also after a crash."""
        with unpublished(self._directory) as file:
            try:
                with path.open("rb") as source:
                    shutil.copyfileobj(source, file, _COPY_BYTES)
            except OSError as error:
                raise disk_error(error, self._directory, f"writing {name}") from error
            publish(file, self._directory / name)


class HttpPlace:
    """An HTTP server that takes PUT, as nginx's dav module does."""

    def __init__(self, table: UploadTable, headers: Mapping[str, str]) -> None:
        self.table = table
        self._headers = dict(headers)

    def find(self, name: str) -> Content | None:
        """See `Place`."""
        return asyncio.run(self._find(self._url(name)))

    def put(self, name: str, path: Path) -> None:
        """See `Place`."""
        url = self._url(name)
        with path.open("rb") as file:
            status = asyncio.run(self._put(url, file, path.stat().st_size))
        if not 200 <= status < 300:  # noqa: PLR2004 - the class of success
            raise _failure("PUT", url, status)

    def _url(self, name: str) -> str:
        return f"{self.table.to.rstrip('/')}/{quote(name)}"

    async def _find(self, url: str) -> Content | None:
        hashed, size = hashlib.sha256(), 0
        async with http_session(_SETTINGS) as session:
            with translated(url, _SETTINGS):
                async with _limited("GET", url, self.table), session.get(url, headers=self._headers) as answer:
                    if answer.status in {404, 410}:
                        return None
                    if answer.status != 200:  # noqa: PLR2004 - the whole file
                        raise _failure("GET", url, answer.status)
                    async for data in answer.content.iter_any():
                        hashed.update(data)
                        size += len(data)
        return Content(size, f"sha256:{hashed.hexdigest()}")

    async def _put(self, url: str, file: IO[bytes], size: int) -> int:
        # Said by hand, so that an empty file and every version of the client send a length, never chunks.
        headers = self._headers | {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        async with http_session(_SETTINGS) as session:
            with translated(url, _SETTINGS):
                # A redirect is refused: it would send the body, and what is secret in its headers, elsewhere.
                async with (
                    _limited("PUT", url, self.table),
                    session.put(url, data=file, headers=headers, allow_redirects=False) as answer,
                ):
                    await answer.read()
                    return answer.status


@asynccontextmanager
async def _limited(method: str, url: str, table: UploadTable) -> AsyncIterator[None]:
    limit = asyncio.timeout(table.timeout_s)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise SourceFailed(
            f"{method} {shown(url)} was not done after {table.timeout_s:g} s: raise timeout_s, or look at the network",
            kind="too_slow",
        ) from error


_ADVICE: Final[Mapping[int, str]] = {
    **dict.fromkeys((401, 403), "it does not let us; are headers_file or headers_env right?"),
    **dict.fromkeys((404, 409), "is there such a directory on the server?"),
    **dict.fromkeys((405, 501), "the server does not take PUT there; is `to` right?"),
    413: "the file is larger than the server takes",
    **dict.fromkeys((301, 302, 303, 307, 308), "redirects are not followed with an upload; give the final address"),
}


def _failure(method: str, url: str, status: int) -> TransientError | ConfigError:
    """What an answer means: those that time may heal are tried again, the others are the operator's."""
    advice = _ADVICE.get(status, "look at the server and its log")
    is_passing = status in _PASSING or (status >= _SERVER_ERROR and status not in _ADVICE)
    kind = TransientError if is_passing else ConfigError
    return kind(f"{method} {shown(url)} answered {status}: {advice}", kind=f"http_{status}")
