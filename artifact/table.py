"""Owns the table of a release: which build its tree holds, and how every entry looked when it was written.

A table lets the next pull trust a file without reading it: by inode, size, modification and change time. It says
nothing of what the disk has lost since; reading files again is left to `hotcold verify`. A table that is missing, torn
or of another version is no error: the tree is then read instead.
"""

from __future__ import annotations

import hashlib
import os
import stat
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from artifact.errors import ArtifactRejected
from artifact.index import Bucket, Root, Row, decode_bucket, decode_root, digest_of

VERSION: Final = 1
STAT_FIELDS: Final = 4
RACY_NS: Final = 20_000_000
"""Change times have the grain of the kernel's clock tick: what was written so shortly before may change unseen."""

_MAGIC: Final = b"hotcold table\n"
_DIGEST_BYTES: Final = 32
_MODE: Final = 0o640
_REPLACE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
Stat = tuple[int, int, int, int]
"""Inode, size, modification time and change time in ns; of directories the size counts as 0."""


class _Document(msgspec.Struct, frozen=True, array_like=True):
    v: int
    recorded_ns: int
    root: bytes
    buckets: list[bytes]
    starts: list[int]
    paths: bytes
    stats: bytes
    links: dict[bytes, bytes]


@dataclass(frozen=True)
class Table:
    """What is known of one tree; entries stand in the order of buckets and of rows in them.

    Attributes:
        root: of the build's index.
        buckets: each bucket's bytes, as in the index file.
        starts: number of each bucket's first entry; one more, the number of entries.
        paths: of all entries.
        stats: of all entries, `STAT_FIELDS` numbers each.
        links: the target of each symbolic link, by path.
        recorded_ns: when, by the clock that gives change times.
    """

    root: Root
    buckets: Sequence[bytes]
    starts: Sequence[int]
    paths: Sequence[bytes]
    stats: array[int]
    links: Mapping[bytes, bytes]
    recorded_ns: int

    def bucket(self, number: int) -> Bucket:
        """Decode one bucket."""
        return decode_bucket(self.buckets[number], self.root.digests[number])

    def entries_of(self, bucket: int) -> range:
        """The numbers of a bucket's entries."""
        return range(self.starts[bucket], self.starts[bucket + 1])

    def changed(self, tree: Path, entries: range) -> Iterator[int]:
        """Those of `entries` that do not look as recorded, or cannot be told from such. Changes the working directory.

        Meant for a process of its own: short names cost half of what paths from the root do.
        """
        os.chdir(tree)  # noqa: TID251 - the caller's promise
        lstat, racy_ns, paths = os.lstat, self.recorded_ns - RACY_NS, self.paths
        numbers = iter(self.stats[entries.start * STAT_FIELDS : entries.stop * STAT_FIELDS])
        for entry, inode, size, mtime_ns, ctime_ns in zip(entries, numbers, numbers, numbers, numbers, strict=False):
            try:
                found = lstat(paths[entry])
            except OSError:
                yield entry
                continue
            if (
                found.st_ctime_ns != ctime_ns
                or found.st_ino != inode
                or found.st_mtime_ns != mtime_ns
                or (found.st_size != size and not stat.S_ISDIR(found.st_mode))
                or ctime_ns >= racy_ns
            ):
                yield entry


def stat_of(found: os.stat_result) -> Stat:
    """What a table keeps of a file's state."""
    size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return found.st_ino, size, found.st_mtime_ns, found.st_ctime_ns


def write_table(
    path: Path,
    *,
    root: Root,
    buckets: Sequence[bytes],
    starts: Sequence[int],
    paths: Sequence[bytes],
    stats: array[int],
    links: Mapping[bytes, bytes],
    recorded_ns: int,
) -> None:
    """Replace the table at `path`. Not durable: one that is torn by a power loss is found out by its checksum.

    Raises:
        OSError: the old table is untouched.
    """
    body = msgspec.msgpack.encode(
        _Document(
            VERSION,
            recorded_ns,
            root.data,
            list(buckets),
            list(starts),
            b"\0".join(paths),
            stats.tobytes(),
            dict(links),
        )
    )
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        # Not open(): this process may have no umask.
        with os.fdopen(os.open(temporary, _REPLACE, _MODE), "wb") as file:
            file.write(_MAGIC + digest_of(root.data).encode() + hashlib.sha256(body).digest())
            file.write(body)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def read_table(path: Path) -> Table | None:
    """The table at `path`; None where there is none that can be relied on."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    body_at = len(_MAGIC) + len(digest_of(b"")) + _DIGEST_BYTES
    body = memoryview(data)[body_at:]
    if not data.startswith(_MAGIC) or hashlib.sha256(body).digest() != data[body_at - _DIGEST_BYTES : body_at]:
        return None
    try:
        document = msgspec.msgpack.decode(body, type=_Document)
        root = decode_root(document.root)
    except (msgspec.DecodeError, ArtifactRejected):
        return None
    paths = document.paths.split(b"\0") if document.paths else []
    stats: array[int] = array("Q")
    stats.frombytes(document.stats)
    starts = document.starts
    is_sound = (
        document.v == VERSION
        and len(document.buckets) + 1 == len(starts) == len(root) + 1
        and starts[-1] == len(paths) == root.entries
        and len(stats) == len(paths) * STAT_FIELDS
    )
    if not is_sound:
        return None
    return Table(root, document.buckets, starts, paths, stats, document.links, document.recorded_ns)


def read_table_digest(path: Path) -> str | None:
    """The digest of the index of the build that the table at `path` describes, without reading the rest."""
    size = len(digest_of(b""))
    try:
        with path.open("rb") as file:
            data = file.read(len(_MAGIC) + size)
    except OSError:
        return None
    if not data.startswith(_MAGIC) or len(data) < len(_MAGIC) + size:
        return None
    return data[len(_MAGIC) :].decode("ascii", "replace")


def rows_of(table: Table, buckets: Sequence[int]) -> Iterator[tuple[int, Row]]:
    """The rows of some buckets, with the numbers of their entries."""
    for bucket in buckets:
        yield from zip(table.entries_of(bucket), table.bucket(bucket).rows, strict=True)
