"""Owns reading a release again, whole: what in it is not what its build's index says, although it may look so.

When that is done, and what follows, is left to `hotcold verify` and to the agent's scrub; nothing is changed here.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from artifact.index import Bucket, Kind, Row
from artifact.table import Table, read_table

_CHUNK_BYTES: Final = 256 << 10
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class NothingKnown(Exception):
    """No index of the release is on this host: it came from an archive that `hotcold pack` did not make."""


@dataclass(frozen=True)
class Difference:
    """One entry that is not as its build says. `path` is printable."""

    path: str
    problem: str


def verify_tree(tree: Path, table_path: Path, *, read: Callable[[int], None] = lambda _: None) -> Iterator[Difference]:
    """Compare every entry below `tree` with the build's index; in the index's order, then what is too much.

    Blocks, for as long as it takes to read all files.

    Args:
        tree: a complete release.
        table_path: its table, which holds the index. What the table says of how files looked does not count here.
        read: told how many bytes were read, now and then; it may wait, to spare the disk, or raise, to end this.

    Raises:
        NothingKnown: there is no table, or its index is damaged.
        OSError: the tree itself cannot be read.
    """
    table = read_table(table_path)
    if table is None:
        raise NothingKnown(f"no index of {tree.name} is known")
    wanted: set[bytes] = set()
    with os.scandir(tree):
        pass  # a tree that is gone is an error, not a thousand differences
    prefix = os.fsencode(tree) + b"/"
    for bucket in _buckets(tree, table):
        for row in bucket.rows:
            wanted.add(row.path)
            problem = _problem(prefix + row.path, row, read)
            if problem is not None:
                yield Difference(_printable(row.path), problem)
    for path in _walk(prefix, b""):
        if path not in wanted:
            yield Difference(_printable(path), "is not part of the build")


def _buckets(tree: Path, table: Table) -> Iterator[Bucket]:
    for number in range(len(table.root)):
        try:
            yield table.bucket(number)
        except ValueError as error:
            raise NothingKnown(f"the index of {tree.name} is damaged") from error


def _problem(path: bytes, row: Row, read: Callable[[int], None]) -> str | None:
    try:
        found = os.lstat(path)
        kind = _kind(found)
        if kind != row.kind:
            return f"is {_NAMES[kind]} and should be {_NAMES[row.kind]}"
        if row.kind == Kind.SYMLINK:
            return None if os.readlink(path) == row.target else "points elsewhere"  # noqa: PTH115 - names are bytes
        if stat.S_IMODE(found.st_mode) != row.mode:
            return f"has mode {stat.S_IMODE(found.st_mode):04o} and should have {row.mode:04o}"
        return None if row.kind == Kind.DIRECTORY else _problem_of_content(path, found.st_size, row, read)
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _problem_of_content(path: bytes, size: int, row: Row, read: Callable[[int], None]) -> str | None:
    if size != row.size:
        return f"has {size} bytes and should have {row.size}"
    return None if _digest(path, read) == row.digest else "has another content"


def _digest(path: bytes, read: Callable[[int], None]) -> bytes:
    digest = hashlib.sha256()
    fd = os.open(path, _READ)
    try:
        while data := os.read(fd, _CHUNK_BYTES):
            digest.update(data)
            read(len(data))
    finally:
        os.close(fd)
    return digest.digest()


_OTHER: Final = -1
_NAMES: Final = {
    Kind.FILE: "a file",
    Kind.DIRECTORY: "a directory",
    Kind.SYMLINK: "a symbolic link",
    _OTHER: "something else",
}


def _kind(found: os.stat_result) -> int:
    if stat.S_ISREG(found.st_mode):
        return Kind.FILE
    if stat.S_ISDIR(found.st_mode):
        return Kind.DIRECTORY
    return Kind.SYMLINK if stat.S_ISLNK(found.st_mode) else _OTHER


def _walk(prefix: bytes, directory: bytes) -> Iterator[bytes]:
    ahead = [directory]
    while ahead:
        parent = ahead.pop()
        try:
            with os.scandir(prefix + parent) as entries:
                found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        except OSError:
            continue  # told above, where it was compared
        for name, is_directory in found:
            path = parent + b"/" + name if parent else name
            yield path
            if is_directory:
                ahead.append(path)


def _printable(path: bytes) -> str:
    return ascii(os.fsdecode(path))[1:-1]
