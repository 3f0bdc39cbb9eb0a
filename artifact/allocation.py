"""Owns how this process's memory is kept between uses; how much is in use is left to others."""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGEST_BYTES: Final = 32 << 20


def keep_freed_memory() -> None:
    """Let large blocks be used again, rather than given back to the kernel and asked for anew.

    For a process that handles one frame of megabytes after the other, the kernel would otherwise clear as many pages as
    the build has. A C library without this call does as it likes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES)
        mallopt(_M_ARENA_MAX, 1)  # what one thread has freed, another one may use
        mallopt(_M_TRIM_THRESHOLD, 4 * _LARGEST_BYTES)


def give_back_freed_memory() -> None:
    """Give the kernel what is free now, also after `keep_freed_memory`: for a step that needs much, and comes once."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
