"""Owns handing bytes from the event loop to one blocking thread, within bounded memory.

What the bytes are is left to `artifact.transfer` on one side and `artifact.extract` on the other.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Final

CAPACITY_BYTES: Final = 4 << 20


class HandoverAborted(Exception):
    """Raised in the reading thread: the writer has given up, nobody wants the tree any more."""


class Handover:
    """A pipe with an asynchronous writing and a blocking reading end.

    The reader sees the end only after `finish`: the writer can withhold it until it knows that the bytes are right.

    Args:
        loop: the writer's.
        capacity_bytes: the writer waits while at least so much is unread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self._loop = loop
        self._capacity_bytes = capacity_bytes
        self._changed = threading.Condition()
        self._room = asyncio.Event()
        self._chunks: deque[bytes] = deque()
        self._unread_bytes = 0
        self._current = memoryview(b"")
        self._finished = False
        self._aborted = False
        self._discarding = False

    async def put(self, chunk: bytes) -> None:
        """Hand over one chunk; waits for room, returns at once where nobody reads any more."""
        while True:
            with self._changed:
                if self._discarding:
                    return
                if self._unread_bytes < self._capacity_bytes:
                    self._chunks.append(chunk)
                    self._unread_bytes += len(chunk)
                    self._changed.notify()
                    return
                self._room.clear()
            await self._room.wait()

    def finish(self) -> None:
        """Let the reader come to the end."""
        with self._changed:
            self._finished = True
            self._changed.notify()

    def abort(self) -> None:
        """Make the reader's current and next `read` raise HandoverAborted."""
        with self._changed:
            self._aborted = True
            self._changed.notify()

    def discard(self) -> None:
        """Swallow what is put from now on: the reader has ended. To be called in the loop's thread."""
        with self._changed:
            self._discarding = True
            self._chunks.clear()
        self._room.set()

    def read(self, size: int, /) -> bytes:
        """Block for the next bytes, at most `size`; none at the end.

        Raises:
            HandoverAborted: the writer gave up.
        """
        if not self._current:
            with self._changed:
                self._changed.wait_for(lambda: self._chunks or self._finished or self._aborted)
                if self._aborted:
                    raise HandoverAborted
                if not self._chunks:
                    return b""
                chunk = self._chunks.popleft()
                self._current = memoryview(chunk)
                was_full = self._unread_bytes >= self._capacity_bytes
                self._unread_bytes -= len(chunk)
            if was_full:
                self._loop.call_soon_threadsafe(self._room.set)
        data = bytes(self._current[:size])
        self._current = self._current[size:]
        return data
