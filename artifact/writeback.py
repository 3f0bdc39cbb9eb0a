"""Owns writing back while a tree is filled, so that little is left at the end; making it durable is the swapper's."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from artifact.diskerrors import disk_error

_INTERVAL_S: Final = 0.5


@contextmanager
def written_back(fd: int, path: Path) -> Iterator[None]:
    """Call syncfs on the file system of `fd` twice a second while the block runs.

    Raises:
        TransientError: kind `disk_error`: at the end of the block, if the device lost writes meanwhile.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    ended = threading.Event()
    failures: list[OSError] = []

    def write_back() -> None:
        while not ended.wait(_INTERVAL_S):
            if libc.syncfs(fd) != 0:
                number = ctypes.get_errno()
                failures.append(OSError(number, os.strerror(number)))
                return

    thread = threading.Thread(target=write_back, name="write-back")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if failures:
        raise disk_error(failures[0], path, "writing back") from failures[0]
