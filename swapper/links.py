"""Owns the two links: reading, aiming and exchanging `hot` and `cold`.

Which release deserves to be hot is left to others. Readers open paths through `hot` at any moment, so it is never
absent once it exists: each change is one rename.
"""

from __future__ import annotations

import errno
import os
import posixpath
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from artifact.errors import ConfigError
from swapper.failures import explain, explained
from swapper.kernel import EXCHANGE_UNSUPPORTED, Kernel
from swapper.layout import COLD, HOT, RELEASES, parse_release_name

How = Literal["exchange", "rename", "first"]
"""`exchange`: one call flips both links. `rename`: `hot`, then `cold`. `first`: `cold` became `hot`, there was none."""

_TEMPORARY: Final = {HOT: ".hot.new", COLD: ".cold.new"}


@dataclass(frozen=True)
class Link:
    """What stands at `hot` or `cold`.

    Attributes:
        path: of the link.
        release: the name it points to inside `releases`, or None.
        foreign: what stands there instead of a link of ours, or None.
    """

    path: Path
    release: str | None = None
    foreign: str | None = None

    def require_ours(self) -> None:
        """Raise ConfigError (kind `foreign_link`) if something stands here that we did not make."""
        if self.foreign is not None:
            raise ConfigError(f"{self.path} {self.foreign}", kind="foreign_link")


class Links:
    """The links of one root; the caller keeps `root_fd` open and is the only writer."""

    def __init__(self, root: Path, root_fd: int, kernel: Kernel) -> None:
        self._root = root
        self._fd = root_fd
        self._kernel = kernel

    def read(self, name: str) -> Link:
        """Say what stands at `name`, without following it."""
        path = self._root / name
        try:
            target = os.readlink(name, dir_fd=self._fd)
        except FileNotFoundError:
            return Link(path)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise explain(error, "read", path) from error
            return Link(path, foreign=f"is not a symbolic link: move it aside (mv {path} {path}.old), then try again")
        parent, release = posixpath.split(posixpath.normpath(self._root / target))
        if parent != posixpath.normpath(self._root / RELEASES) or parse_release_name(release) is None:
            remedy = f"remove the link (rm {path}; its target stays), then try again"
            return Link(path, foreign=f"points to {target}, which is no release of ours: {remedy}")
        return Link(path, release=release)

    def aim(self, name: str, release: str) -> None:
        """Point `name` to `release`, in one step. Not durable by itself: the next `flip` or `sync` secures it."""
        with explained("aim", self._root / name):
            self._place_temporary(name, f"{RELEASES}/{release}")
            # Crash before: the link as it was, and a temporary link that is removed at the next start. After: aimed.
            self._kernel.rename(_TEMPORARY[name], name, dir_fd=self._fd)

    def drop_cold(self) -> None:
        """Remove `cold`; fine if it is gone. There is no such call for `hot`."""
        with explained("remove", self._root / COLD), suppress(FileNotFoundError):
            os.unlink(COLD, dir_fd=self._fd)

    def flip(self) -> How:
        """Make what `cold` points to hot, and the former hot cold; durable when it returns.

        Raises:
            TransientError, ConfigError: before the commit nothing has changed. Kind `disk_error` may also come from
                securing the directory *after* it: read the links to know.
        """
        with explained("swap", self._root / HOT):
            how = self._flip()
            self._kernel.fsync(self._fd)
        return how

    def remove_leftovers(self) -> None:
        """Remove temporary links that a crash left; anything else under their names is not ours and stays."""
        for temporary in _TEMPORARY.values():
            with explained("remove", self._root / temporary):
                if _is_link(temporary, self._fd):
                    os.unlink(temporary, dir_fd=self._fd)

    def _flip(self) -> How:
        try:
            former = os.readlink(HOT, dir_fd=self._fd)
        except FileNotFoundError:
            # Crash before: no hot, the release waits in cold. After: it is hot, and there is no cold.
            self._kernel.rename(COLD, HOT, dir_fd=self._fd)
            return "first"
        try:
            # Crash before: old is hot, new is cold. After: the other way round. There is no state in between.
            self._kernel.exchange(HOT, COLD, dir_fd=self._fd)
        except OSError as error:
            if error.errno not in EXCHANGE_UNSUPPORTED:
                raise
            self._flip_by_rename(former)
            return "rename"
        return "exchange"

    def _flip_by_rename(self, former: str) -> None:
        target = os.readlink(COLD, dir_fd=self._fd)
        self._place_temporary(HOT, target)
        self._place_temporary(COLD, former)  # both before the first rename: a full disk changes nothing
        # Crash before: nothing changed but temporary links. After: both links show new; the next start aims cold anew.
        self._kernel.rename(_TEMPORARY[HOT], HOT, dir_fd=self._fd)
        self._kernel.rename(_TEMPORARY[COLD], COLD, dir_fd=self._fd)

    def _place_temporary(self, name: str, target: str) -> None:
        temporary = _TEMPORARY[name]
        try:
            self._kernel.symlink(target, temporary, dir_fd=self._fd)
        except FileExistsError:
            self.remove_leftovers()
            self._kernel.symlink(target, temporary, dir_fd=self._fd)


def _is_link(name: str, dir_fd: int) -> bool:
    try:
        os.readlink(name, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EINVAL}:
            return False
        raise
    return True
