"""Owns what the agent's privileges mean for its children: nothing, they get none of them.

What the agent itself may do is left to its unit, which grants capabilities to look at other users' processes.
"""

from __future__ import annotations

import ctypes
from typing import Final

_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4


def keep_capabilities_from_children() -> None:
    """Let programs that this thread starts from now on run without the agent's capabilities; the agent keeps them.

    Call it in the thread that starts them. Only ambient capabilities, those that systemd gives to a service without
    root, are meant: the children of an agent that runs as root are root. Calling it again changes nothing.
    """
    # A kernel that refuses knows no ambient capabilities, so there is nothing to keep.
    ctypes.CDLL(None).prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
