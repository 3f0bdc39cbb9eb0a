"""Owns which rights Landlock denies and allows, by the version of the kernel's interface; leaves calls to `kernel`.

Version 1 (Linux 5.13) knows files, 2 (5.19) links and renames between directories, 3 (6.2) truncation, 4 (6.7) TCP,
5 (6.10) ioctl on devices, 6 (6.12) signals and abstract Unix sockets. What later versions add is left as it is.

Not denied by any version: to look at metadata (`stat`, `readlink`), to change it (mode, owner, times), and what stands
open already.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from artifact.kernel import Kernel

_EXECUTE: Final = 1 << 0
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_MAKE_DIR: Final = 1 << 7
_MAKE_REG: Final = 1 << 8
_MAKE_SYM: Final = 1 << 12
_REFER: Final = 1 << 13

_FILE_RIGHTS_COUNT: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_FILE_RIGHTS_COUNT_NOW: Final = 16
_TCP_SINCE: Final = 4
_TCP: Final = 0b11
_SCOPES_SINCE: Final = 6
_SCOPES: Final = 0b11

FILL: Final = _WRITE_FILE | _READ_FILE | _READ_DIR | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER
"""To create regular files, directories and links, and read them again; neither to remove, truncate nor execute."""
READ: Final = _READ_FILE | _READ_DIR
"""To read files and list directories."""


def denied(version: int) -> tuple[int, int, int]:
    """All rights that this version can deny: over files, over the network, and scopes."""
    count = _FILE_RIGHTS_COUNT.get(version, _FILE_RIGHTS_COUNT_NOW)
    return (
        (1 << count) - 1,
        _TCP if version >= _TCP_SINCE else 0,
        _SCOPES if version >= _SCOPES_SINCE else 0,
    )


def restrict(kernel: Kernel, version: int, allowed: Sequence[tuple[int, int]]) -> None:
    """Deny this thread everything that the version can deny, but for `allowed`, for good.

    Args:
        kernel: to be asked.
        version: of its interface.
        allowed: descriptors of directories with the rights below them; rights that the version does not know count
            as they always did.

    Raises:
        OSError: nothing is in force.
    """
    files, network, scopes = denied(version)
    ruleset = kernel.landlock_ruleset(files=files, network=network, scopes=scopes)
    try:
        for directory, rights in allowed:
            kernel.landlock_allow(ruleset, directory, rights & files)
        kernel.landlock_restrict(ruleset)
    finally:
        os.close(ruleset)
