"""Owns the question whether two trees are the same, and in which respects.

It is how every peer, and we, are checked for a correct result: a fast tool that leaves something out has not won.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Final

_CHUNK_BYTES: Final = 1 << 20
_SHOWN: Final = 5


class Exactness(Enum):
    """How much a tool promises to keep. Names, bytes and link targets are always compared.

    `MODES`: all permission bits, and empty directories too. `EXECUTABLE`: only whether the owner may execute a file,
    which is all that some tools carry; they may also drop empty directories.
    """

    MODES = "modes"
    EXECUTABLE = "executable"


@dataclass(frozen=True)
class Differences:
    """Paths below the two trees."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    changed_bytes: int

    @property
    def is_none(self) -> bool:
        return not (self.added or self.removed or self.changed)

    @property
    def summary(self) -> str:
        counts = f"{len(self.added)} added, {len(self.removed)} removed, {len(self.changed)} changed"
        shown = ", ".join(islice((*self.added, *self.removed, *self.changed), _SHOWN))
        return f"{counts}, {self.changed_bytes / 1e6:.2f} MB of new content; {shown}"


def walk(tree: Path, *, with_directories: bool = False) -> dict[str, os.DirEntry[str]]:
    """Everything in the tree by its path, without following links; directories only where asked for."""
    found: dict[str, os.DirEntry[str]] = {}
    folders = deque([""])
    while folders:
        folder = folders.popleft()
        with os.scandir(tree / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                is_folder = entry.is_dir(follow_symlinks=False)
                if is_folder:
                    folders.append(path)
                if with_directories or not is_folder:
                    found[path] = entry
    return found


def compare(old: Path, new: Path, exactness: Exactness = Exactness.MODES) -> Differences:
    """What of `new` is not as in `old`; `changed` includes other modes and other kinds of things."""
    is_exact = exactness is Exactness.MODES
    before, after = (walk(tree, with_directories=is_exact) for tree in (old, new))
    changed = [path for path in before.keys() & after.keys() if not _is_same(before[path], after[path], exactness)]
    added = sorted(after.keys() - before.keys())
    files = (after[path].stat(follow_symlinks=False) for path in (*changed, *added))
    return Differences(
        tuple(added),
        tuple(sorted(before.keys() - after.keys())),
        tuple(sorted(changed)),
        sum(each.st_size for each in files if stat.S_ISREG(each.st_mode)),
    )


def tally(tree: Path) -> str:
    """The tree in numbers."""
    entries = [entry.stat(follow_symlinks=False) for entry in walk(tree, with_directories=True).values()]
    files = [entry for entry in entries if stat.S_ISREG(entry.st_mode)]
    folders = sum(stat.S_ISDIR(entry.st_mode) for entry in entries)
    links = sum(stat.S_ISLNK(entry.st_mode) for entry in entries)
    size = sum(entry.st_size for entry in files)
    return f"{len(files):,} files, {folders:,} directories, {links:,} links, {size / 1e6:,.1f} MB"


def _is_same(one: os.DirEntry[str], other: os.DirEntry[str], exactness: Exactness) -> bool:
    first, second = (entry.stat(follow_symlinks=False) for entry in (one, other))
    if stat.S_IFMT(first.st_mode) != stat.S_IFMT(second.st_mode):
        return False
    if stat.S_ISLNK(first.st_mode):
        return Path(one.path).readlink() == Path(other.path).readlink()
    bits = 0o7777 if exactness is Exactness.MODES else 0o100
    if (first.st_mode ^ second.st_mode) & bits:
        return False
    return not stat.S_ISREG(first.st_mode) or (
        first.st_size == second.st_size and _has_same_bytes(Path(one.path), Path(other.path))
    )


def _has_same_bytes(one: Path, other: Path) -> bool:
    with one.open("rb", buffering=0) as first, other.open("rb", buffering=0) as second:
        while True:
            ours, theirs = first.read(_CHUNK_BYTES), second.read(_CHUNK_BYTES)
            if ours != theirs:
                return False
            if not ours:
                return True
