"""Owns how refusals get into the audit: who was refused what, from where, and why; in the background, and not too many.

Refusing is left to `checkpoint.web.gate`. What cannot be written is in the log in any case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from artifact import HotcoldError
from checkpoint.audit import Record
from checkpoint.insisting import Insistence
from checkpoint.web.limits import Limit
from checkpoint.writing import Writer
from fleet import Store

log = structlog.get_logger()

PER_MINUTE: Final = 20
"""So many are written singly; those beyond are counted, and the count is written."""

_MAX_WAITING: Final = 100
_MAX_TEXT: Final = 300
_ATTEMPTS: Final = 20


@dataclass(frozen=True)
class Denial:
    """One refusal."""

    by: str
    address: str
    what: str
    why: str
    at: datetime


class Denials:
    """Writes refusals into the audit of one app.

    Args:
        store: where the audit lies.
        app: the app.
        clock: monotonic seconds.
    """

    def __init__(self, store: Store, app: str, clock: Callable[[], float]) -> None:
        self._writer = Writer(store, app, Insistence(asyncio.sleep))
        self._app = app
        self._limit = Limit(PER_MINUTE, 60.0, clock)
        self._waiting: asyncio.Queue[Denial] = asyncio.Queue(_MAX_WAITING)
        self._uncounted = 0

    def add(self, denial: Denial) -> None:
        """Take note of a refusal. Never waits."""
        log.warning("refused", app=self._app, by=denial.by, address=denial.address, what=denial.what, why=denial.why)
        if self._waiting.full() or not self._limit.allows("all"):
            self._uncounted += 1
            return
        self._waiting.put_nowait(denial)

    async def write(self) -> None:
        """Write what is noted, until cancelled."""
        while True:
            denial = await self._waiting.get()
            try:
                await self._append(denial)
            except HotcoldError as error:
                log.warning("a refusal is not in the audit", kind=error.kind, error=str(error))

    async def _append(self, denial: Denial) -> None:
        count, self._uncounted = self._uncounted, 0
        more = f"; {count} more like it were refused before" if count else ""
        message = f"{denial.what} from {denial.address} was refused: {denial.why}{more}"
        record = Record(
            v=1, number=0, at=denial.at, by=plain(denial.by), via="ui", what="refused", message=plain(message)
        )
        for _ in range(_ATTEMPTS):
            if await self._writer.write([], [record]) is not None:
                return
            await asyncio.sleep(0.05)
        log.warning("a refusal is not in the audit", error="others write to it all the time")


def plain(text: str, limit: int = _MAX_TEXT) -> str:
    """Text without control characters, and not too long: it was chosen by whoever asked."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)[:limit]
