"""Owns what is remembered of each release, as files in the state directory; leaves what it means to `disk`.

A record is a hint with a strict format, the links and trees are the truth: a record that cannot be read is reported,
never fatal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from swapper.durable import TEMPORARY_SUFFIX, remove_temporary, write_durably
from swapper.failures import explained
from swapper.kernel import Kernel
from swapper.layout import parse_release_name

VERSION: Final = 1
_SUFFIX: Final = ".json"


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One release as remembered.

    Attributes:
        v: version of this document.
        name: of the release directory.
        build: id of the build that it holds.
        digest: of the build's artifact; empty when the record was lost and rebuilt.
        status: `filling` until every byte is durable, then `complete`.
        served: 0 if never hot, else a number that rises with each swap.
        proved: it was hot and healthy.
        created: RFC 3339 time.
        base: while filling: name of the release whose table tells what was in the tree before, None: nothing does.
        is_resumable: while filling: what is in the tree is of use for another preparation.
    """

    v: int
    name: str
    build: str
    digest: str
    status: Literal["filling", "complete"]
    served: int
    proved: bool
    created: str
    base: str | None = None
    is_resumable: bool = False


@dataclass(frozen=True)
class FoundRecords:
    """All records by release name, and why some could not be read, also by name."""

    readable: Mapping[str, Record]
    unreadable: Mapping[str, str]


class Records:
    """The directory of records."""

    def __init__(self, directory: Path, kernel: Kernel) -> None:
        self._directory = directory
        self._kernel = kernel

    def read(self) -> FoundRecords:
        """Read all records.

        Raises:
            TransientError: the device failed; a torn or foreign *content* is no error but `unreadable`.
        """
        readable: dict[str, Record] = {}
        unreadable: dict[str, str] = {}
        with explained("read the records in", self._directory):
            for path in sorted(self._directory.glob(f"[!.]*{_SUFFIX}")):
                name = path.name.removesuffix(_SUFFIX)
                try:
                    readable[name] = _decode(path.read_bytes(), name)
                except FileNotFoundError:  # removed since it was listed: the reader may be another thread
                    continue
                except ValueError as error:
                    unreadable[name] = f"{path}: {error}"
        return FoundRecords(readable, unreadable)

    def write(self, record: Record) -> None:
        """Create or replace a record, durably; raises as `write_durably`."""
        data = msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"
        write_durably(self._path(record.name), data, kernel=self._kernel)

    def remove(self, name: str) -> None:
        """Forget a release; a record that is already gone is fine. Not durable: one without a tree is removed again."""
        with explained("remove the record", self._path(name)):
            self._path(name).unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Remove what a crash in `write` left."""
        with explained("clean", self._directory):
            for path in self._directory.glob(f".*{TEMPORARY_SUFFIX}"):
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}{_SUFFIX}"


class Counter:
    """The highest number ever given to a release; it only rises, so that no path is used twice."""

    def __init__(self, path: Path, kernel: Kernel) -> None:
        self._path = path
        self._kernel = kernel

    def next(self, *, above: int) -> int:
        """Return a number that was never returned before and is > `above`; durable when it returns.

        A counter that is missing or damaged counts as 0: then only `above` keeps the promise.
        """
        with explained("read the counter", self._path):
            try:
                last = int(self._path.read_bytes())
            except (FileNotFoundError, ValueError):
                last = 0
        number = max(last, above) + 1
        write_durably(self._path, b"%d\n" % number, kernel=self._kernel)
        return number

    def remove_leftovers(self) -> None:
        """Remove what a crash in `next` left; other files of the state directory are not ours."""
        remove_temporary(self._path)


def _decode(data: bytes, name: str) -> Record:
    if not data.strip():
        raise ValueError("empty")
    record = msgspec.json.decode(data, type=Record)
    if record.v != VERSION:
        raise ValueError(f"version {record.v}, this hotcold reads {VERSION}")
    parsed = parse_release_name(record.name)
    if record.name != name or parsed is None or parsed[0] != record.build:
        raise ValueError(f"describes {record.name!r} of build {record.build!r}, not {name!r}")
    return record
