"""Owns looking at every entry of a tree with all cores, while something else goes on; what to look for is `table`'s.

Processes, not threads: most of the time of a look is Python's own, which threads would take in turns.
"""

from __future__ import annotations

import os
from array import array
from itertools import pairwise
from pathlib import Path
from typing import Final

from artifact.errors import TransientError
from artifact.table import STAT_FIELDS, Entries

_WORTH_A_PROCESS: Final = 4000


class StatCheck:
    """A look that has begun. To be started before this process has threads; to be ended by `changed`.

    Args:
        entries: how they were.
        tree: where they are.
        is_linked: as in `Entries.changed`.
    """

    def __init__(self, entries: Entries, tree: Path, *, is_linked: bool = False) -> None:
        self._entries = entries
        self._tree = tree
        count = len(entries.paths)
        shares = max(1, min(len(os.sched_getaffinity(0)), count // _WORTH_A_PROCESS))
        bounds = [count * share // shares for share in range(shares + 1)]
        self._looks = [_begin(entries, tree, range(start, end), is_linked=is_linked) for start, end in pairwise(bounds)]

    def changed(self) -> set[int]:
        """The numbers of the entries that do not look as recorded. Blocks until all is looked at.

        Raises:
            TransientError: kind `puller_died`: a process ended without an answer.
        """
        found: set[int] = set()
        for pid, fd in self._looks:
            with os.fdopen(fd, "rb") as pipe:
                data = pipe.read()
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
                raise TransientError(f"looking at {self._tree} ended early: is memory short?", kind="puller_died")
            numbers: array[int] = array("Q")
            numbers.frombytes(data)
            found.update(numbers)
        self._looks = []
        return found | self._below_replaced(found)

    def _below_replaced(self, changed: set[int]) -> set[int]:
        """What lies below a directory that is another one now: it may look as recorded, through a link, and be gone."""
        paths, stats = self._entries.paths, self._entries.stats
        replaced = {paths[entry] for entry in changed if _inode(self._tree, paths[entry]) != stats[entry * STAT_FIELDS]}
        if not replaced:
            return set()
        below: set[bytes] = set(replaced)
        found = set()
        for path, entry in sorted((path, entry) for entry, path in enumerate(paths)):  # what holds comes before
            if path.rpartition(b"/")[0] in below:
                below.add(path)
                found.add(entry)
        return found


def _inode(tree: Path, path: bytes) -> int | None:
    try:
        return os.lstat(os.fsencode(tree) + b"/" + path).st_ino
    except OSError:
        return None


def _begin(entries: Entries, tree: Path, share: range, *, is_linked: bool) -> tuple[int, int]:
    """Fork a process that writes the changed entries to a pipe; its pid and the pipe's end."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writable)
        return pid, readable
    status = 1
    try:
        os.close(readable)
        data = array("Q", entries.changed(tree, share, is_linked=is_linked)).tobytes()
        while data:
            data = data[os.write(writable, data) :]
        status = 0
    finally:
        os._exit(status)
