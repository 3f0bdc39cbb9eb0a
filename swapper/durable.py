"""Owns making bytes survive a power loss: files replaced whole, directories created, trees written back.

What the bytes mean, and in which order they are secured, is left to the callers.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from swapper.failures import explained
from swapper.kernel import LINUX, Kernel

TEMPORARY_SUFFIX: Final = ".tmp"
"""`write_durably` writes `.<name>.tmp` first; a crash leaves it, the next write of the name replaces it."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def write_durably(path: Path, data: bytes, *, mode: int = 0o644, kernel: Kernel = LINUX) -> None:
    """Replace `path` by `data`: readers, and a crash, see the old bytes or the new, whole.

    When it returns, a power loss no longer brings the old bytes back. It is not for two writers of one path at once.

    Raises:
        TransientError: kind `disk_full` and others of `explained`; the old file is untouched, the temporary removed.
            After kind `disk_error` the new bytes may be in place but not durable.
        ConfigError: kind `read_only` or `permission`.
    """
    temporary = _temporary(path.name)
    with explained("write", path), opened_directory(path.parent) as directory:
        try:
            _write_synced(temporary, data, mode, directory, kernel)
            # Crash before: the old file, and a temporary that nobody reads. After: old or new, each whole.
            kernel.rename(temporary, path.name, dir_fd=directory)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
            raise
        kernel.fsync(directory)


def remove_temporary(path: Path) -> None:
    """Remove what a crash in `write_durably(path, ...)` left; fine if there is nothing."""
    with explained("clean up after", path):
        path.with_name(_temporary(path.name)).unlink(missing_ok=True)


def make_directory(path: Path, *, mode: int, kernel: Kernel = LINUX) -> None:
    """Create `path` and its missing parents, durably; an existing directory is left as it is.

    Args:
        path: the directory.
        mode: of the directories created, whatever the umask.
        kernel: the system calls.

    Raises:
        ConfigError: kind `read_only` or `permission`.
        TransientError: kind `disk_full` and others of `explained`.
    """
    with explained("create the directory", path):
        missing = [parent for parent in (path, *path.parents) if not parent.exists()]
        for directory in reversed(missing):
            directory.mkdir(exist_ok=True)
            directory.chmod(mode)
            with opened_directory(directory.parent) as parent:
                kernel.fsync(parent)


def sync_tree(root_fd: int, kernel: Kernel) -> None:
    """Write back a tree file by file: slower than syncfs, but spares the host's other writers.

    A file that its mode forbids us to open is secured by one syncfs of `root_fd` instead.

    Raises:
        OSError: also EIO for write-back errors that nobody has seen yet.
    """
    try:
        for _path, _directories, files, directory in os.fwalk(".", dir_fd=root_fd, onerror=_raise):
            for name in files:
                _sync_file(name, directory, kernel)
            kernel.fsync(directory)
    except PermissionError:
        kernel.syncfs(root_fd)


@contextmanager
def opened_directory(path: str | Path, *, dir_fd: int | None = None) -> Iterator[int]:
    """Give a descriptor of the directory `path`; links in its last component are followed."""
    descriptor = os.open(path, _DIRECTORY, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _temporary(name: str) -> str:
    return f".{name}{TEMPORARY_SUFFIX}"


def _write_synced(name: str, data: bytes, mode: int, directory: int, kernel: Kernel) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, mode, dir_fd=directory)
    try:
        remaining = memoryview(data)
        while remaining:
            remaining = remaining[os.write(descriptor, remaining) :]
        kernel.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(name: str, directory: int, kernel: Kernel) -> None:
    if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        return  # a link has no data of its own: its directory's fsync secures it
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        kernel.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise(error: OSError) -> None:
    raise error
