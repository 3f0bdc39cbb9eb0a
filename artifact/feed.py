"""Owns the asynchronous writing end of the pipe whose reading end, and meaning, is `artifact.handover`."""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import suppress
from typing import Final

from artifact.handover import END

_PIPE_BYTES: Final = 1 << 20


class Feed:
    """The writing end: bounded by the pipe, which holds a megabyte.

    Args:
        fd: of a pipe; owned from now on, until `close`.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._is_deaf = False
        os.set_blocking(fd, False)
        with suppress(OSError):  # above the user's share: the pipe stays small, which is slower
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    async def put(self, chunk: bytes) -> None:
        """Hand over some bytes; waits for room, returns at once where nobody reads any more."""
        rest = memoryview(chunk)
        while rest and not self._is_deaf:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                await self._writable()
            except BrokenPipeError:
                self._is_deaf = True

    async def finish(self) -> None:
        """Let the reader come to the end; to be called when all bytes were put, and are right."""
        await self.put(END)

    def close(self) -> None:
        """Make the reader's next `read` raise HandoverAborted unless it was let to the end; twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        is_writable = asyncio.Event()
        loop.add_writer(self._fd, is_writable.set)
        try:
            await is_writable.wait()
        finally:
            loop.remove_writer(self._fd)
