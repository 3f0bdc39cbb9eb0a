"""Owns the isolation of a run: a PID and a mount namespace of its own, which the kernel clears away with the process.

Mounts, loop devices, servers and agents of a run that failed, was interrupted, or was killed outright are gone with
it, without a clean-up that could itself be interrupted. The network is left to `lab.net`.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from typing import Final

_INSIDE: Final = "HOTCOLD_BENCH_STAGE"


def enter_stage(module: str, arguments: Sequence[str]) -> None:
    """Go on inside: this process is replaced by one that runs `python -m module arguments` there, or is that one.

    Exits with a message where the machine cannot do it: not Linux, not root, no `unshare`.
    """
    if os.environ.pop(_INSIDE, None):
        # The first process of a PID namespace gets only the signals that it handles.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
        return
    if os.geteuid() != 0:
        sys.exit(f"{module}: needs root, for loop devices, mounts and network namespaces of its own; nothing was done")
    unshare = shutil.which("unshare")
    if unshare is None:
        sys.exit(f"{module}: needs `unshare` (Debian: util-linux); nothing was done")
    namespaces = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
    os.environ[_INSIDE] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(unshare, [unshare, *namespaces, "--", sys.executable, "-m", module, *arguments])
