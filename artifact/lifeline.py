"""Owns dying with one's parent, even by SIGKILL; leaves what else ends a process to its `main`."""

from __future__ import annotations

import os
import signal
from typing import Final

from artifact.kernel import LINUX

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(parent_pid: int) -> bool:
    """Ask the kernel for SIGKILL when the parent dies; False: it is dead already, and this process should end.

    Call it in the main thread, as early as possible: what the parent does before is not noticed. The kernel means the
    parent's thread that started this process.

    Raises:
        OSError: the kernel refuses.
    """
    LINUX.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent_pid
