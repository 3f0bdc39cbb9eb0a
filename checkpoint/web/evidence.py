"""Owns what pages know of a rollout's metrics: one watch on evidence and course of the latest rollout, whoever looks.

What they mean is left to `checkpoint.rollout.kept_evidence` and `checkpoint.series`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from checkpoint.rollout.plan import Plan
from checkpoint.series import Series, decode_series
from fleet import Entry, Store
from fleet.keys import evidence_key, series_key


@dataclass(frozen=True)
class Known:
    """Of one rollout. `index` is the highest Consul index of it, 0 where there is nothing."""

    evidence: bytes | None = None
    series: Series = field(default_factory=Series)
    index: int = 0


def known_of(app: str, number: int, entries: Sequence[Entry]) -> Known:
    """What the entries below the key of a rollout's evidence tell."""
    values = {entry.key: entry for entry in entries}
    evidence, series = values.get(evidence_key(app, number)), values.get(series_key(app, number))
    found = [entry for entry in (evidence, series) if entry is not None]
    return Known(
        evidence=None if evidence is None else evidence.value,
        series=decode_series(None if series is None else series.value),
        index=max((entry.modify_index for entry in found), default=0),
    )


class EvidenceWatch:
    """Follows one rollout's evidence, and another one's when told; `aclose` ends it.

    Args:
        store: where it lies.
        app: the app.
        changed: called after every change.
    """

    def __init__(self, store: Store, app: str, changed: Callable[[], None]) -> None:
        self._store = store
        self._app = app
        self._changed = changed
        self._number: int | None = None
        self._known: Known | None = None
        self.task: asyncio.Task[None] | None = None

    async def aclose(self) -> None:
        """End the watch. Calling it twice is harmless."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def turn(self, plan: Plan | None) -> None:
        """Follow this rollout from now on; without metrics there is nothing to follow."""
        number = None if plan is None or not plan.pipeline.metrics else plan.number
        if number == self._number:
            return
        await self.aclose()
        self._number, self._known, self.task = number, None, None
        if number is not None:
            self.task = asyncio.create_task(self._follow(number), name=f"evidence of {self._app}")

    @property
    def now(self) -> Known | None:
        """What is known; None until the store has answered."""
        return Known() if self._number is None else self._known

    async def _follow(self, number: int) -> None:
        async with aclosing(self._store.watch_prefix(evidence_key(self._app, number))) as changes:
            async for entries in changes:
                self._known = known_of(self._app, number, entries)
                self._changed()
