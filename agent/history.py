"""Owns what has happened on this host: the agent's own log, kept on its disk and told to those who listen.

Every event that the agent logs from `info` on is one, whatever level the log shows. Serving them is left to
`agent.server`, naming them to those who log.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from agent.blocking import run_blocking

FILE: Final = "history.jsonl"
KEPT_IN_MEMORY: Final = 1000
"""Events that a listener can come back for."""
MAX_FILE_BYTES: Final = 4 << 20
"""Then the file becomes the older one of two."""

_APPEND: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
_MODE: Final = 0o640  # hooks may have said more than everybody should read


class Event(msgspec.Struct, frozen=True):
    """One event.

    Attributes:
        id: counts up, over restarts too.
        at: RFC 3339 time in UTC.
        event: what happened, such as `state` or `swapped`.
        level: as in the log.
        facts: what belongs to it.
    """

    id: int
    at: str
    event: str
    level: str
    facts: dict[str, Any] = {}


class History:
    """The events of one host. Made by `open`; `run` writes them down while it runs.

    A disk that cannot be written loses events, and nothing else.
    """

    def __init__(self, path: Path, kept: Iterable[Event], loop: asyncio.AbstractEventLoop) -> None:
        self._path = path
        self._loop = loop
        self._kept = deque(kept, maxlen=KEPT_IN_MEMORY)
        self._unwritten: list[Event] = []
        self._happened = asyncio.Event()

    @classmethod
    async def open(cls, state_dir: Path) -> Self:
        """Read what a former life has kept; lines that are none are passed over."""
        path = state_dir / FILE
        return cls(path, await run_blocking(_read, path), asyncio.get_running_loop())

    @property
    def last_id(self) -> int:
        """Of the newest event; 0 before the first."""
        return self._kept[-1].id if self._kept else 0

    def note(self, _logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Take down what is logged, from any thread; a processor of structlog."""
        with suppress(RuntimeError):  # the loop has ended, and the agent with it
            self._loop.call_soon_threadsafe(self._take, dict(entry))
        return entry

    def events(self, *, after: int = 0, limit: int | None = None) -> list[Event]:
        """The newest `limit` of those after the event `after`, in their order."""
        found = [event for event in self._kept if event.id > after]
        return found if limit is None else found[max(0, len(found) - limit) :]

    async def beyond(self, after: int, timeout_s: float) -> list[Event]:
        """Those after the event `after`, waited for; empty if none came in time. Those that are too old are missing."""
        happened = self._happened
        if not self.events(after=after):
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await happened.wait()
        return self.events(after=after)

    async def run(self) -> None:
        """Write down what happens, until cancelled; what is left then is written at once."""
        try:
            while True:
                happened = self._happened
                lines, self._unwritten = self._unwritten, []
                if lines:
                    await run_blocking(self._append, lines)
                else:
                    await happened.wait()
        finally:
            self._append(self._unwritten)
            self._unwritten = []

    def _append(self, events: Iterable[Event]) -> None:
        data = b"".join(msgspec.json.encode(event, enc_hook=str) + b"\n" for event in events)
        with suppress(OSError):  # as the class says
            if self._path.exists() and self._path.stat().st_size + len(data) > MAX_FILE_BYTES:
                self._path.replace(_older(self._path))
            with os.fdopen(os.open(self._path, _APPEND, _MODE), "ab") as file:
                file.write(data)

    def _take(self, entry: Mapping[str, Any]) -> None:
        facts = {key: value for key, value in entry.items() if key not in {"timestamp", "event", "level"}}
        event = Event(
            id=self.last_id + 1,
            at=str(entry.get("timestamp", "")),
            event=str(entry.get("event", "")),
            level=str(entry.get("level", "")),
            facts=facts,
        )
        self._kept.append(event)
        self._unwritten.append(event)
        happened, self._happened = self._happened, asyncio.Event()
        happened.set()


def _older(path: Path) -> Path:
    return path.with_suffix(".old.jsonl")


def _read(path: Path) -> list[Event]:
    kept: deque[Event] = deque(maxlen=KEPT_IN_MEMORY)
    for each in (_older(path), path):
        kept.extend(_events_in(each))
    return list(kept)


def _events_in(path: Path) -> Iterator[Event]:
    decoder = msgspec.json.Decoder(Event)
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        with suppress(msgspec.DecodeError):  # a power loss may tear the last line, or leave zeros
            yield decoder.decode(line)
