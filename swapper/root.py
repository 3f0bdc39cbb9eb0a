"""Owns that root and state directory exist and are fit for use; leaves what lies in them to `disk`."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from artifact.errors import ConfigError
from swapper.durable import make_directory
from swapper.failures import explained
from swapper.kernel import Kernel
from swapper.layout import Layout

_PUBLIC_MODE = 0o755  # workers run as other users
_STATE_MODE = 0o750


def make_fit(layout: Layout, kernel: Kernel) -> None:
    """Create what is missing and refuse what cannot work.

    Raises:
        ConfigError: kind `layout`, `cross_device`, `read_only` or `permission`; nothing that existed was changed.
        TransientError: no room for a directory, or the device failed.
    """
    _provide(layout.root, _PUBLIC_MODE, kernel)
    if layout.releases.is_symlink():
        raise ConfigError(
            f"{layout.releases} is a symbolic link; it must be a directory on the file system of {layout.root}: point "
            "`root` itself at the place where releases shall lie",
            kind="layout",
        )
    _provide(layout.releases, _PUBLIC_MODE, kernel)
    _provide(layout.state_dir, _STATE_MODE, kernel)
    _provide(layout.records, _STATE_MODE, kernel)
    _provide(layout.tables, _STATE_MODE, kernel)
    if layout.releases.stat().st_dev != layout.root.stat().st_dev:
        raise ConfigError(
            f"{layout.releases} is another file system than {layout.root}, so a swap could not be secured: mount that "
            "file system at the root instead",
            kind="cross_device",
        )


def _provide(path: Path, mode: int, kernel: Kernel) -> None:
    make_directory(path, mode=mode, kernel=kernel)
    if not path.is_dir():
        raise ConfigError(f"{path} is not a directory: move it aside, or configure another place", kind="layout")
    if os.access(path, os.W_OK | os.X_OK, effective_ids=True):
        return
    with explained("write in", path):
        number = errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(number, os.strerror(number))
