"""Owns what an errno means to whoever must act on it; leaves raising system calls to the other modules.

Every `OSError` that leaves this package has been through `explained`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from artifact.errors import ConfigError, HotcoldError, TransientError

DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""No room: time or an operator makes some, and nothing was damaged."""

_KINDS: Final = {
    **dict.fromkeys(DISK_FULL, "disk_full"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE, errno.ENOMEM), "scarce"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "permission"),
    errno.EIO: "disk_error",
    errno.EROFS: "read_only",
    errno.EXDEV: "cross_device",
    errno.ENOTDIR: "layout",
}

_REMEDIES: Final[dict[str, tuple[type[HotcoldError], str]]] = {
    "disk_full": (TransientError, "free space or inodes on its file system (df -h, df -i): it is tried again"),
    "disk_error": (
        TransientError,
        "the device failed, see `dmesg`: what was being written is not trusted and has to be written anew",
    ),
    "scarce": (TransientError, "the host is out of descriptors or memory: it is tried again"),
    "os_error": (TransientError, "it is tried again"),
    "read_only": (ConfigError, "mount it read-write (after an I/O error, check the disk first)"),
    "permission": (
        ConfigError,
        "let uid {uid}, as which the agent runs, write there (owner, mode, or a sandbox's ReadWritePaths)",
    ),
    "layout": (ConfigError, "a part of this path is a file: move it aside, or configure another place"),
    "cross_device": (ConfigError, "root and releases must lie on one file system: remove the mount in between"),
}


@contextmanager
def explained(action: str, path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into the error of whoever must act.

    Raises:
        TransientError: kind `disk_full`, `disk_error` (EIO), `scarce` (descriptors, memory) or `os_error`.
        ConfigError: kind `read_only`, `permission`, `layout` (a file in the place of a directory) or `cross_device`.
    """
    try:
        yield
    except OSError as error:
        raise explain(error, action, path) from error


@contextmanager
def tolerating_full_disk() -> Iterator[None]:
    """Let a write wait that can be made up for later; every other error passes."""
    try:
        yield
    except TransientError as error:
        if error.kind != "disk_full":
            raise


def explain(error: OSError, action: str, path: Path) -> HotcoldError:
    """Return the error that says what failed, where, and what to do."""
    kind = _KINDS.get(error.errno or 0, "os_error")
    blame, remedy = _REMEDIES[kind]
    advice = remedy.format(uid=os.geteuid())
    return blame(f"cannot {action} {path}: {error.strerror or error}; {advice}", kind=kind)
