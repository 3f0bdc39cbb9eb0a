"""Owns that a process which pulls is there before it is needed, where the configuration says so.

What such a process does is `artifact.pull`'s. Starting one takes longer than all else of a small deploy; keeping one
takes the memory of an interpreter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog

from artifact.pull import Puller

log = structlog.get_logger()


class ReadyPuller:
    """At most one process that waits for work; keep `run` in a task group.

    Args:
        is_wanted: whether one is to be kept ready; asked after each pull and at the start.
    """

    def __init__(self, is_wanted: Callable[[], bool]) -> None:
        self._is_wanted = is_wanted
        self._ready: Puller | None = None
        self._wanted = asyncio.Event()
        self._wanted.set()

    @property
    def is_waiting(self) -> bool:
        """Whether a process waits for work."""
        return self._ready is not None

    async def run(self) -> None:
        """Keep one ready until cancelled; then it is gone."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                if self._is_wanted() and self._ready is None:
                    try:
                        self._ready = await Puller.start()
                    except OSError as error:
                        # The next fetch tries it once more, and tells if it fails.
                        log.warning("cannot start a process ahead of its use", error=str(error))
        finally:
            if self._ready is not None:
                await self._ready.end()

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[Puller]:
        """A process for one pull: the one that waits, or a new one. It is gone when the block ends.

        Raises:
            OSError: none can be started.
        """
        puller, self._ready = self._ready, None
        if puller is not None and not puller.is_alive:
            await puller.end()  # somebody killed it
            puller = None
        if puller is None:
            puller = await Puller.start()
        try:
            yield puller
        finally:
            await puller.end()
            self._wanted.set()
