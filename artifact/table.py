"""Owns the table of a release: which build its tree holds, and how every entry looked when it was written.

A table lets the next pull trust a file without reading it: by inode, size, modification and change time. It says
nothing of what the disk has lost since; reading files again is left to `hotcold verify`. A table that is missing, torn
or of another version is no error: the tree is then read instead.
"""

from __future__ import annotations

import hashlib
import os
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from operator import attrgetter, eq
from pathlib import Path
from typing import Final

import msgspec

from artifact.errors import ArtifactRejected
from artifact.index import Bucket, Root, Row, decode_bucket, decode_root, digest_of

VERSION: Final = 1
STAT_FIELDS: Final = 4
RACY_NS: Final = 20_000_000
"""Change times have the grain of the kernel's clock tick: what was written so shortly before may change unseen."""

_MAGIC: Final = b"hotcold table 1\n"
_DIGEST_BYTES: Final = 32
_ROOT_DIGEST_CHARS: Final = len(digest_of(b""))
_SIZE: Final = struct.Struct("<Q")
_HEAD_BYTES: Final = len(_MAGIC) + _ROOT_DIGEST_CHARS + _SIZE.size + _DIGEST_BYTES
"""The magic, the root's digest as in an order, the size of the index section, SHA-256 of the entries section."""
_LOOKED_AT_TOGETHER: Final = 256
_MODE: Final = 0o640
_REPLACE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
Stat = tuple[int, int, int, int]
"""Inode, size, modification time and change time in ns."""


class _Index(msgspec.Struct, frozen=True, array_like=True):
    """The first section: the index. It needs no checksum, for a digest is known of each part."""

    v: int
    root: bytes
    buckets: list[bytes]


class _Entries(msgspec.Struct, frozen=True, array_like=True):
    """The second section: the entries."""

    recorded_ns: int
    starts: list[int]
    paths: bytes
    stats: bytes
    links: dict[bytes, bytes]


@dataclass(frozen=True)
class Entries:
    """How the entries of a tree looked; they stand in the order of buckets and of rows in them.

    Attributes:
        starts: number of each bucket's first entry; one more, the number of entries.
        paths: of all entries.
        stats: of all entries, `STAT_FIELDS` numbers each.
        links: the target of each symbolic link, by path.
        recorded_ns: when, by the clock that gives change times.
    """

    starts: Sequence[int]
    paths: Sequence[bytes]
    stats: array[int]
    links: Mapping[bytes, bytes]
    recorded_ns: int

    def of_bucket(self, bucket: int) -> range:
        """The numbers of a bucket's entries."""
        return range(self.starts[bucket], self.starts[bucket + 1])

    def changed(self, tree: Path, entries: range, *, is_linked: bool = False) -> Iterator[int]:
        """Those of `entries` that do not look as recorded, or cannot be told from such. Changes the working directory.

        Meant for a process of its own: short names cost half of what paths from the root do.

        Args:
            tree: where they are.
            entries: their numbers.
            is_linked: files were given other names, and lost them: their change times count for nothing.
        """
        os.chdir(tree)  # noqa: TID251 - the caller's promise
        look = _stat_of_linked if is_linked else stat_of
        for start in range(entries.start, entries.stop, _LOOKED_AT_TOGETHER):
            part = range(start, min(start + _LOOKED_AT_TOGETHER, entries.stop))
            recorded = self.stats[part.start * STAT_FIELDS : part.stop * STAT_FIELDS]
            latest_ns = max(recorded[STAT_FIELDS - 1 :: STAT_FIELDS])
            if is_linked:
                recorded[STAT_FIELDS - 1 :: STAT_FIELDS] = recorded[STAT_FIELDS - 2 :: STAT_FIELDS]
            try:
                found = array("Q", chain.from_iterable(map(look, map(os.lstat, self.paths[part.start : part.stop]))))
            except (OSError, OverflowError):  # something is gone, or has a time before 1970
                found = array("Q")
            if found != recorded or latest_ns >= self.recorded_ns - RACY_NS:
                yield from (entry for entry in part if not self._is_unchanged(entry, is_linked=is_linked))

    def _is_unchanged(self, entry: int, *, is_linked: bool) -> bool:
        recorded = self.stats[entry * STAT_FIELDS : (entry + 1) * STAT_FIELDS]
        counting = STAT_FIELDS - 1 if is_linked else STAT_FIELDS
        try:
            found = stat_of(os.lstat(self.paths[entry]))
        except OSError:
            return False
        return found[:counting] == tuple(recorded[:counting]) and recorded[-1] < self.recorded_ns - RACY_NS


class Table:
    """What is known of one tree: the index of its build, and its entries; each part is read when it is asked for.

    Attributes:
        root: of the build's index.
        buckets: each bucket's bytes, as in the index file.
    """

    def __init__(self, root: Root, buckets: Sequence[bytes], entries: memoryview, digest: bytes) -> None:
        self.root = root
        self.buckets = buckets
        self._entries = entries
        self._digest = digest

    @property
    def is_right(self) -> bool:
        """Whether no bucket is damaged."""
        digests = (hashlib.sha256(bucket).digest() for bucket in self.buckets)
        return all(map(eq, digests, self.root.digests))

    def bucket(self, number: int) -> Bucket:
        """Decode one bucket.

        Raises:
            ValueError: the table is damaged there.
        """
        return decode_bucket(self.buckets[number], self.root.digests[number])

    @cached_property
    def entries(self) -> Entries | None:
        """How they looked; None where that cannot be relied on."""
        if hashlib.sha256(self._entries).digest() != self._digest:
            return None
        try:
            document = msgspec.msgpack.decode(self._entries, type=_Entries)
        except msgspec.DecodeError:
            return None
        paths = document.paths.split(b"\0") if document.paths else []
        stats: array[int] = array("Q")
        stats.frombytes(document.stats[: len(document.stats) // stats.itemsize * stats.itemsize])
        is_sound = (
            len(document.starts) == len(self.root) + 1
            and document.starts[-1] == len(paths) == self.root.entries
            and len(stats) == len(paths) * STAT_FIELDS
        )
        return Entries(document.starts, paths, stats, document.links, document.recorded_ns) if is_sound else None


stat_of: Final[Callable[[os.stat_result], Stat]] = attrgetter("st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
"""What a table keeps of a file's state."""
_stat_of_linked: Final[Callable[[os.stat_result], Stat]] = attrgetter("st_ino", "st_size", "st_mtime_ns", "st_mtime_ns")


def write_table(path: Path, root: Root, buckets: Sequence[bytes], entries: Entries) -> None:
    """Replace the table at `path`. Not durable: one that is torn by a power loss is found out.

    Raises:
        OSError: the old table is untouched.
    """
    index = msgspec.msgpack.encode(_Index(VERSION, root.data, list(buckets)))
    body = msgspec.msgpack.encode(
        _Entries(
            entries.recorded_ns,
            list(entries.starts),
            b"\0".join(entries.paths),
            entries.stats.tobytes(),
            dict(entries.links),
        )
    )
    head = (_MAGIC, root.digest.encode(), _SIZE.pack(len(index)), hashlib.sha256(body).digest())
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        # Not open(): this process may have no umask.
        with os.fdopen(os.open(temporary, _REPLACE, _MODE), "wb", buffering=0) as file:
            for part in (b"".join(head), index, body):
                rest = memoryview(part)
                while rest:
                    rest = rest[file.write(rest) :]
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def read_table(path: Path) -> Table | None:
    """The table at `path`; None where there is none that can be relied on."""
    try:
        data = memoryview(path.read_bytes())
    except OSError:
        return None
    if len(data) < _HEAD_BYTES or bytes(data[: len(_MAGIC)]) != _MAGIC:
        return None
    size_at = len(_MAGIC) + _ROOT_DIGEST_CHARS
    (index_bytes,) = _SIZE.unpack_from(data, size_at)
    entries_at = _HEAD_BYTES + index_bytes
    try:
        index = msgspec.msgpack.decode(data[_HEAD_BYTES:entries_at], type=_Index)
        root = decode_root(index.root)
    except (msgspec.DecodeError, ArtifactRejected):
        return None
    is_sound = (
        index.v == VERSION and len(index.buckets) == len(root) and root.digest.encode() == data[len(_MAGIC) : size_at]
    )
    return (
        Table(root, index.buckets, data[entries_at:], bytes(data[_HEAD_BYTES - _DIGEST_BYTES : _HEAD_BYTES]))
        if is_sound
        else None
    )


def read_table_digest(path: Path) -> str | None:
    """The digest of the index of the build that the table at `path` describes, without reading the rest."""
    try:
        with path.open("rb") as file:
            data = file.read(len(_MAGIC) + _ROOT_DIGEST_CHARS)
    except OSError:
        return None
    if not data.startswith(_MAGIC) or len(data) < len(_MAGIC) + _ROOT_DIGEST_CHARS:
        return None
    return data[len(_MAGIC) :].decode("ascii", "replace")


def rows_of(table: Table, buckets: Iterable[int]) -> Iterator[Row]:
    """The rows of some buckets; those of damaged ones are left out."""
    for bucket in buckets:
        with suppress(ValueError):
            yield from table.bucket(bucket).rows
