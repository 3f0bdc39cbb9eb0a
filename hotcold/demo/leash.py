"""Owns that no process of the demo outlives the one that started it, however that one ends.

`python -m hotcold.demo.leash PARENT COMMAND...` becomes COMMAND, with the kernel's promise to kill it when its parent
dies. What is started, and its orderly end, is left to `hotcold.demo.children`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_ORPHAN: Final = 1


def die_with(parent_pid: int) -> None:
    """Have this process killed as soon as the thread that started it ends; at once if `parent_pid` is gone already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(_ORPHAN)


def main() -> None:
    """Become the command."""
    parent_pid, command = int(sys.argv[1]), sys.argv[2:]
    die_with(parent_pid)
    # Children of this one must not ignore what Python ignores.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execvp(command[0], command)  # noqa: S606 - no shell is what is wanted


if __name__ == "__main__":
    main()
