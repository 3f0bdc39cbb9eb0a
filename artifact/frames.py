"""Owns cutting a tree into frames, and making each: a piece of one tar archive, compressed on its own, with its bucket.

Which entries there are is left to `artifact.scan`, where the frames go to `artifact.pack`.

Frames are cut by content, so that a change moves few of them: after an entry whose name says so, by a hash, and never
below `MIN_BYTES` or above `MAX_BYTES`. A file above `BIG_BYTES` has frames of its own. Joined, the frames are a
`.tar.zst` that any tar reads.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import zstandard

from artifact.entries import EntryKind
from artifact.index import DIGEST_BYTES, MAX_SECONDS, MIN_SECONDS, Kind, Row, encode_bucket
from artifact.scan import Found
from artifact.tarwrite import END, header, padding, unchanged_content

MIN_BYTES: Final = 256 << 10
MAX_BYTES: Final = 1 << 20
BIG_BYTES: Final = 4 << 20
_CUT_EVERY: Final = 8
"""One entry in so many ends a frame."""

_NO_DIGEST: Final = bytes(DIGEST_BYTES)
_NS: Final = 1_000_000_000
_BLOCK: Final = 512
_SHORT_NAME: Final = 100
"""Longer ones need a header of their own."""
_KINDS: Final = {EntryKind.FILE: Kind.FILE, EntryKind.DIRECTORY: Kind.DIRECTORY, EntryKind.SYMLINK: Kind.SYMLINK}


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """One finished frame.

    Attributes:
        data: compressed, as it lies in the artifact.
        plain_bytes: its size, decompressed.
        bucket: compressed, as it lies in the index file.
        entries: rows in the bucket.
        content_bytes: of the files whose headers are in it.
    """

    data: bytes
    plain_bytes: int
    bucket: bytes
    entries: int
    content_bytes: int


def cut(found: Iterable[Found]) -> Iterator[list[Found]]:
    """The entries, group by group; a group makes one frame, a big file alone as many as it needs."""
    group: list[Found] = []
    size = 0
    for entry in found:
        if entry.size > BIG_BYTES:
            if group:
                yield group
            yield [entry]
            group, size = [], 0
            continue
        group.append(entry)
        size += _header_bytes(entry) + entry.size + -entry.size % _BLOCK
        if size >= MAX_BYTES or (size >= MIN_BYTES and zlib.crc32(os.fsencode(entry.name)) % _CUT_EVERY == 0):
            yield group
            group, size = [], 0
    if group:
        yield group


def _header_bytes(entry: Found) -> int:
    """About how much the entry's headers take, so that no number of long names makes a frame too large for readers."""
    name_bytes = len(entry.name) + len(entry.target)
    return _BLOCK if name_bytes <= _SHORT_NAME else 3 * _BLOCK + name_bytes


class FrameMaker:
    """Makes frames of groups; the same group gives the same bytes, in whichever process.

    Args:
        tree: the tree's root.
        level: of compression.
        newest_s: later modification times are set to this, None: kept as they are.
    """

    def __init__(self, tree: Path, *, level: int, newest_s: int | None) -> None:
        self._tree = tree
        self._newest_s = newest_s
        self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)

    def make(self, group: Sequence[Found], former: Mapping[bytes, Row]) -> list[Frame]:
        """The group's frames.

        Args:
            group: from `cut`.
            former: rows of an earlier build by path: what has the same content keeps its modification time.

        Raises:
            ConfigError: kind `tree_changed`, or something cannot be read.
            TransientError: the disk.
        """
        if len(group) == 1 and group[0].size > BIG_BYTES:
            return self._make_big(group[0], former)
        plain = bytearray()
        rows = []
        for entry in group:
            content = b"".join(unchanged_content(self._tree, entry, BIG_BYTES)) if entry.size else b""
            digest = hashlib.sha256(content).digest() if entry.kind is EntryKind.FILE else _NO_DIGEST
            mtime_s = self._mtime_s(entry, digest, former)
            plain += header(entry, mtime_s)
            rows.append(_row(entry, digest, mtime_s, len(plain)))
            plain += content
            plain += padding(entry.size)
        return [self._frame(plain, rows)]

    def make_end(self) -> Frame:
        """The frame that ends the archive."""
        return self._frame(END, [])

    def _make_big(self, entry: Found, former: Mapping[bytes, Row]) -> list[Frame]:
        """One frame for each `BIG_BYTES`. The file is read twice: its first frame holds the digest of the whole."""
        digest = hashlib.sha256()
        for chunk in unchanged_content(self._tree, entry):
            digest.update(chunk)
        mtime_s = self._mtime_s(entry, digest.digest(), former)
        head = header(entry, mtime_s)
        rows = [_row(entry, digest.digest(), mtime_s, len(head))]
        frames = []
        plain = bytearray(head)
        for chunk in unchanged_content(self._tree, entry):
            plain += chunk
            if len(plain) >= BIG_BYTES:
                frames.append(self._frame(plain, rows))
                plain, rows = bytearray(), []
        plain += padding(entry.size)
        if plain:
            frames.append(self._frame(plain, rows))
        return frames

    def _mtime_s(self, entry: Found, digest: bytes, former: Mapping[bytes, Row]) -> int:
        mtime_s = entry.mtime_ns // _NS
        before = former.get(os.fsencode(entry.name)) if former else None
        is_same = before is not None and (before.kind, before.digest) == (_KINDS[entry.kind], digest)
        if before is not None and is_same and before.target == os.fsencode(entry.target):
            mtime_s = before.mtime_s
        elif self._newest_s is not None:
            mtime_s = min(mtime_s, self._newest_s)
        return min(max(mtime_s, MIN_SECONDS), MAX_SECONDS)

    def _frame(self, plain: bytes | bytearray, rows: list[Row]) -> Frame:
        data = self._compressor.compress(plain)
        bucket = encode_bucket(hashlib.sha256(data).digest(), rows)
        return Frame(data, len(plain), bucket, len(rows), sum(row.size for row in rows))


def _row(entry: Found, digest: bytes, mtime_s: int, offset: int) -> Row:
    return Row(
        os.fsencode(entry.name),
        int(_KINDS[entry.kind]),
        entry.mode,
        mtime_s,
        entry.size,
        digest,
        offset,
        os.fsencode(entry.target),
    )
