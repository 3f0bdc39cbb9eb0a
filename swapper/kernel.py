"""Owns the system calls that make a swap: what Python lacks, and the seam where tests stand in for old file systems.

When to call which, and what a crash in between leaves, is left to `links`, `durable` and `swapper`.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final, Protocol

EXCHANGE_UNSUPPORTED: Final = {
    errno.EINVAL: "the file system does not know RENAME_EXCHANGE",
    errno.ENOSYS: "the kernel or the C library has no renameat2",
    errno.EOPNOTSUPP: "a stacked or network file system refuses flags",
    errno.EPERM: "a seccomp filter forbids renameat2; if rename is forbidden too, it says so itself",
}
"""Errnos of `exchange` after which two renames are tried, each with its meaning."""

_RENAME_EXCHANGE: Final = 2


class Kernel(Protocol):
    """Calls that change or secure a directory; all raise OSError. Names are relative to `dir_fd`."""

    def exchange(self, first: str, second: str, *, dir_fd: int) -> None:
        """Exchange two names in one step."""

    def rename(self, source: str, target: str, *, dir_fd: int) -> None:
        """Rename, replacing `target` in one step."""

    def symlink(self, target: str, name: str, *, dir_fd: int) -> None:
        """Create the symbolic link `name`."""

    def fsync(self, fd: int) -> None:
        """Write a file's or a directory's data and metadata to the device."""

    def syncfs(self, fd: int) -> None:
        """Write the whole file system of `fd`; reports write-back errors since `fd` was opened (Linux >= 5.8)."""


class LinuxKernel:
    """The kernel that we run on."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def exchange(self, first: str, second: str, *, dir_fd: int) -> None:
        """See `Kernel.exchange`; ENOSYS also when the C library is older than the call."""
        try:
            renameat2 = self._libc.renameat2
        except AttributeError:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
        _check(renameat2(dir_fd, os.fsencode(first), dir_fd, os.fsencode(second), ctypes.c_uint(_RENAME_EXCHANGE)))

    def rename(self, source: str, target: str, *, dir_fd: int) -> None:
        """See `Kernel.rename`."""
        os.rename(source, target, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    def symlink(self, target: str, name: str, *, dir_fd: int) -> None:
        """See `Kernel.symlink`."""
        os.symlink(target, name, dir_fd=dir_fd)

    def fsync(self, fd: int) -> None:
        """See `Kernel.fsync`."""
        os.fsync(fd)

    def syncfs(self, fd: int) -> None:
        """See `Kernel.syncfs`."""
        _check(self._libc.syncfs(fd))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


LINUX: Final[Kernel] = LinuxKernel()
