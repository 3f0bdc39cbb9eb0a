"""Owns the waiters of blocking queries: who waits for what, and waking exactly those.

When something changed is left to the tables; how long a query waits, to `fleet.devserver.queries`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Table = Literal["kv", "session", "service", "check", "node"]
Change = tuple[Table, str]
"""A table and the name in it that changed."""


@dataclass(frozen=True)
class Watch:
    """One name of a table, or, with `below`, every name that begins with it."""

    table: Table
    name: str
    below: bool = False


class Waiters:
    """Futures by what they wait for, so that a change costs what it wakes, not what waits."""

    def __init__(self) -> None:
        self._waiting: dict[Watch, set[asyncio.Future[None]]] = {}
        self._closed = False

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def closed(self) -> bool:
        """Whether the server stops: whoever would wait must answer at once."""
        return self._closed

    async def wait(self, watch: Watch) -> None:
        """Return after the next change of what is watched, or when the server stops."""
        if self._closed:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(watch, set()).add(future)
        try:
            await future
        finally:
            waiting = self._waiting.get(watch)
            if waiting is not None:
                waiting.discard(future)
                if not waiting:
                    del self._waiting[watch]

    def wake(self, changes: Iterable[Change]) -> None:
        """Wake everybody who waits for one of `changes`."""
        changed = set(changes)
        if not changed:
            return
        woken = [Watch(table, name) for table, name in changed]
        woken += [
            watch
            for watch in self._waiting
            if watch.below and any(table == watch.table and name.startswith(watch.name) for table, name in changed)
        ]
        for watch in woken:
            self._release(watch)

    def open(self) -> None:
        """Let queries wait (again)."""
        self._closed = False

    def close(self) -> None:
        """Wake everybody and let nobody wait any more."""
        self._closed = True
        for watch in list(self._waiting):
            self._release(watch)

    def _release(self, watch: Watch) -> None:
        for future in self._waiting.pop(watch, ()):
            if not future.done():
                future.set_result(None)
