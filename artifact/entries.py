"""Owns what an archive's entry is, whatever the format; leaves reading them to the formats, judging to `names`."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import Protocol

import msgspec

from artifact.errors import ArtifactRejected

CHUNK_BYTES = 256 << 10
"""How much is read and written at once."""


class Reader(Protocol):
    """A blocking byte stream: at most `size` bytes, at least one, or none at its end."""

    def read(self, size: int, /) -> bytes:
        """The next bytes."""


class EntryKind(Enum):
    """The kinds of entries that a host creates; all others are refused by the format's reader."""

    FILE = auto()
    DIRECTORY = auto()
    SYMLINK = auto()
    HARD_LINK = auto()


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry as the archive states it, nothing of it judged yet but its type.

    Attributes:
        name: as in the archive, bytes that are not UTF-8 as surrogates.
        mode: permission bits, at most 0o7777.
        mtime_ns: since the epoch.
        size: of the content, in bytes; 0 unless a file.
        target: of a link, else empty.
        content: of a file: its chunks, to be consumed before the next entry is asked for.
    """

    name: str
    kind: EntryKind
    mode: int
    mtime_ns: int
    size: int = 0
    target: str = ""
    content: Iterable[bytes] = ()


def broken(problem: str) -> ArtifactRejected:
    """The error for an archive that is not what its format demands."""
    return ArtifactRejected(f"archive is broken: {problem}", kind="archive_broken")
