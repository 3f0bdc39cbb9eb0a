"""Owns that one process at a time writes: a lock on the state directory and one on the root.

Both are `flock`s, so the kernel gives them back however the holder dies; what is written under them is left to others.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from artifact.errors import ConfigError
from swapper.failures import DISK_FULL, explained
from swapper.layout import Layout


class Locks:
    """Both locks of one layout, held until `release`."""

    def __init__(self, lock_fd: int) -> None:
        self._lock_fd = lock_fd

    @classmethod
    def take(cls, layout: Layout, root_fd: int) -> Locks:
        """Take both locks or none.

        The root is locked too, so that an agent with the same root but another state directory is refused.
        The root's lock belongs to `root_fd` and ends when the caller closes that.

        Raises:
            ConfigError: kind `locked`, another process (named by its pid) holds one; `permission`, `read_only`.
        """
        with explained("open the lock", layout.lock):
            lock_fd = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _lock(lock_fd, layout.lock)
            _lock(root_fd, layout.root)
            _write_pid(lock_fd, layout.lock)
        except BaseException:
            os.close(lock_fd)
            raise
        return cls(lock_fd)

    def release(self) -> None:
        """Give the state directory's lock back; the file stays, for removing it would let two processes in."""
        os.close(self._lock_fd)


def _lock(fd: int, path: Path) -> None:
    with explained("lock", path):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"{path} is locked by {_holder(fd)}: one agent per root; stop the other one, or give this one "
                "a root and a state directory of its own",
                kind="locked",
            ) from error


def _write_pid(fd: int, path: Path) -> None:
    with explained("write the pid to", path):
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            # The pid serves humans; the lock holds without it, and a full disk must not keep an agent from starting.
            if error.errno not in DISK_FULL:
                raise


def _holder(fd: int) -> str:
    """Name the holder from the kernel's table, which cannot be stale as a written pid can."""
    found = os.fstat(fd)
    wanted = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        table = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        table = ""
    for line in table.splitlines():
        fields = line.split()
        if "FLOCK" in fields and wanted in fields and (pid := fields[4]).isdigit() and pid != "0":
            return f"process {pid}"
    return _written_holder(fd)


def _written_holder(fd: int) -> str:
    """Name the holder from the lock file: /proc/locks may be hidden, or show another pid namespace's locks as 0."""
    try:
        pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
    except OSError:  # the root: a directory cannot be read
        pid = ""
    return f"process {pid}" if pid.isdigit() else "another process"
