"""Owns removing trees: renamed out of the way first, then emptied, without following a link.

Which tree may go is left to `retention` and `recovery`. Emptying a big tree takes seconds on a slow disk; a caller may
have it end early.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from swapper.kernel import Kernel
from swapper.layout import TRASH_PREFIX

_DEPTH_MAX: Final = 64
"""Deeper directories are moved up, so that no tree exhausts descriptors or the stack."""

_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class RemovalInterrupted(Exception):
    """The caller had the removal end early; the rest of the tree is left."""


def discard(name: str, *, releases_fd: int, kernel: Kernel) -> None:
    """Remove the release directory `name`; fine if it is gone.

    Raises:
        OSError: what is left is called `.trash-...`; `empty_trash` goes on with it.
    """
    empty_trash(set_aside(name, releases_fd=releases_fd, kernel=kernel), releases_fd=releases_fd)


def set_aside(name: str, *, releases_fd: int, kernel: Kernel) -> str:
    """Take the name from the release directory `name`, durably; what `empty_trash` is to be given. Fine if it is gone.

    Raises:
        OSError: it has its name still, or may get it back after a power loss.
    """
    trash = f"{TRASH_PREFIX}{name}"
    with suppress(FileNotFoundError):
        kernel.rename(name, trash, dir_fd=releases_fd)
    # Without this a power loss could give back the name on a half emptied tree that its record calls complete.
    kernel.fsync(releases_fd)
    return trash


def empty_trash(trash: str, *, releases_fd: int, is_interrupted: Callable[[], bool] = lambda: False) -> None:
    """Remove the tree `trash` in `releases_fd`; fine if it is gone.

    Raises:
        OSError: the first failure; the rest of the tree is left.
        RemovalInterrupted: `is_interrupted` said so.
    """
    with suppress(FileNotFoundError):
        _Remover(trash, releases_fd, is_interrupted).run()


class _Remover:
    def __init__(self, trash: str, releases_fd: int, is_interrupted: Callable[[], bool]) -> None:
        self._trash = trash
        self._releases_fd = releases_fd
        self._is_interrupted = is_interrupted
        self._pending = [trash]
        self._moved_count = 0

    def run(self) -> None:
        while self._pending:
            self._remove_directory(self._pending.pop(), self._releases_fd, depth=0)

    def _remove_directory(self, name: str, parent: int, depth: int) -> None:
        fd = _open_writable(name, parent)
        try:
            with os.scandir(fd) as entries:
                found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            for child, is_directory in found:
                if self._is_interrupted():
                    raise RemovalInterrupted
                if not is_directory:
                    os.unlink(child, dir_fd=fd)
                elif depth == _DEPTH_MAX:
                    self._move_up(child, fd)
                else:
                    self._remove_directory(child, fd, depth + 1)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=parent)

    def _move_up(self, name: str, parent: int) -> None:
        os.close(_open_writable(name, parent))  # a directory that changes its parent must be writable itself
        self._moved_count += 1
        moved = f"{self._trash}.{self._moved_count}"
        os.rename(name, moved, src_dir_fd=parent, dst_dir_fd=self._releases_fd)
        self._pending.append(moved)


def _open_writable(name: str, parent: int) -> int:
    """Open a directory to be emptied, making it ours to empty if its mode forbids that."""
    with suppress(PermissionError):
        fd = os.open(name, _OPEN, dir_fd=parent)
        if os.access(".", os.W_OK | os.X_OK, dir_fd=fd, effective_ids=True):
            return fd
        os.fchmod(fd, 0o700)
        return fd
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{handle}", 0o700)  # noqa: PTH101 -- fchmod refuses O_PATH; this cannot follow a link
    finally:
        os.close(handle)
    return os.open(name, _OPEN, dir_fd=parent)
