"""Owns one file while it is written: what goes into it is digested on the way, and checked at its end.

Where it stands in the tree is left to `artifact.treefill`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterable
from typing import Final

from artifact.directories import Directories
from artifact.errors import HotcoldError
from artifact.index import Row, broken
from artifact.table import Stat, stat_of

_NS: Final = 1_000_000_000
_FICLONE: Final = 0x40049409  # ioctl_ficlone(2)
_CANNOT_SHARE: Final = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ETXTBSY})
_CHUNK_BYTES: Final = 1 << 20


class ContentDiffers(Exception):
    """What was written, or should be, is not what its row says; nothing is left of it."""


class NewFile:
    """A file that is being written, by one thread at a time."""

    def __init__(self, directories: Directories, row: Row, fd: int, *, is_secured: bool) -> None:
        self._directories = directories
        self._row = row
        self._fd = fd
        self._is_secured = is_secured
        self._digest = hashlib.sha256()
        self._size = 0

    def share(self, source: int) -> bool:
        """Take the blocks of another file instead of writing; False where the file system cannot.

        What it then has is read once, for the digest.
        """
        try:
            fcntl.ioctl(self._fd, _FICLONE, source)
        except OSError as error:
            if error.errno in _CANNOT_SHARE:
                return False
            raise self._directories.explained(error, "sharing", self._row.path) from error
        try:
            for chunk in read_chunks(self._fd):
                self._digest.update(chunk)
                self._size += len(chunk)
        except OSError as error:
            raise self._directories.explained(error, "reading", self._row.path) from error
        return True

    def write(self, chunk: bytes | memoryview) -> None:
        """Append to it."""
        self._digest.update(chunk)
        self._size += len(chunk)
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            raise self._directories.explained(error, "writing", self._row.path) from error

    def finish(self) -> Stat:
        """Check what was written, and close.

        Raises:
            ContentDiffers: it is not what the row says; the file must be abandoned.
        """
        row = self._row
        if (self._size, self._digest.digest()) != (row.size, row.digest):
            raise ContentDiffers
        try:
            os.utime(self._fd, ns=(row.mtime_s * _NS, row.mtime_s * _NS))
            if self._is_secured:
                os.fsync(self._fd)
            found = stat_of(os.fstat(self._fd))
        except OSError as error:
            raise self._directories.explained(error, "writing", row.path) from error
        self._close()
        return found

    def abandon(self) -> None:
        """Leave nothing of it; fine after `finish` has failed."""
        self._close()
        name, parent = self._directories.place(self._row.path)
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._directories.explained(error, "removing", self._row.path) from error

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def not_as_said(row: Row) -> HotcoldError:
    """The error for a right frame that does not hold what a right index says."""
    return broken(f"{row.path!a} is not in its frame as the index says")


def read_chunks(fd: int, size: int | None = None) -> Iterable[bytes]:
    """A file's content from where it stands, to its end or `size` bytes of it."""
    rest = _CHUNK_BYTES if size is None else size
    while data := os.read(fd, min(rest, _CHUNK_BYTES)):
        yield data
        if size is not None:
            rest -= len(data)


def chunks_of_source(fd: int, size: int | None = None) -> Iterable[bytes]:
    """A local file's content, as `read_chunks`.

    Raises:
        ContentDiffers: it cannot be read.
    """
    try:
        yield from read_chunks(fd, size)
    except OSError as error:  # what cannot be read here is found elsewhere
        raise ContentDiffers from error


def digest_of_chunks(chunks: Iterable[bytes]) -> bytes:
    """SHA-256 of a content."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()
