"""Owns what a failed file operation means to whoever must act; leaves raising it to where it happened."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from artifact.errors import ArtifactRejected, ConfigError, HotcoldError, TransientError


def disk_error(error: OSError, path: Path, doing: str, *, needed_bytes: int | None = None) -> HotcoldError:
    """The error to raise `from` an OSError met below `path`.

    Args:
        error: what the operating system said.
        path: the tree or file that was worked on.
        doing: what was done, e.g. "writing 'lib/a.py'".
        needed_bytes: how much the operation still had to write, if known.

    Returns:
        TransientError, kind `disk_full`: ENOSPC or EDQUOT.
        ConfigError, kind `disk_not_writable`: EROFS, EACCES or EPERM; time does not heal them.
        ArtifactRejected: ENAMETOOLONG, EMLINK or EILSEQ: names or links that this file system cannot hold.
        TransientError, kind `disk_error`: anything else, EIO above all.
    """
    what = f"{doing} in {path}: {error.strerror or error}"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            needed = "" if needed_bytes is None else f"{needed_bytes} bytes are still needed, "
            return TransientError(
                f"{what}; {needed}{_free(path)}: free some space or inodes, or raise the quota", kind="disk_full"
            )
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return ConfigError(
                f"{what}: make it writable for user {os.geteuid()} and check how it is mounted",
                kind="disk_not_writable",
            )
        case errno.ENAMETOOLONG | errno.EMLINK | errno.EILSEQ:
            return ArtifactRejected(
                f"{what}: this file system cannot hold it; rename it in the build", kind="archive_unstorable"
            )
        case _:
            return TransientError(f"{what}; look at the kernel's log for the disk's health", kind="disk_error")


def _free(path: Path) -> str:
    try:
        state = os.statvfs(path)
    except OSError as error:
        return f"how much is free is unknown ({error.strerror})"
    return f"{state.f_bavail * state.f_frsize} bytes and {state.f_favail} inodes are free"
