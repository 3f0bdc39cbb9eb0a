"""Owns reading many rollouts, the latest first; leaves what is told of each to `checkpoint.rollout.summary`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from artifact import Refused
from checkpoint.rollout.ledger import KEPT_ROLLOUTS, Ledger
from checkpoint.rollout.summary import Summary, Unreadable, summary

_AT_ONCE: Final = 8
"""A plan names every host: of many at once, all would lie in memory and in Consul's queue."""


async def list_rollouts(
    ledger: Ledger, now: datetime, *, count: int = KEPT_ROLLOUTS, before: int | None = None
) -> tuple[Summary | Unreadable, ...]:
    """Rows of the rollouts that are kept, the latest first; one that is damaged hides no other.

    Args:
        ledger: of the app.
        now: wall-clock time, aware.
        count: how many at most.
        before: only those with a lower number; None: all.

    Raises:
        StoreUnreachable: no answer for about a quarter of a minute.
    """
    latest, _ = await ledger.pointer()
    top = latest if before is None else min(latest, before - 1)
    numbers = range(top, max(0, latest - KEPT_ROLLOUTS, top - count), -1)
    rows: list[Summary | Unreadable] = []
    for part in _parts(numbers):
        found = await asyncio.gather(*(_row(ledger, number, now) for number in part))
        rows += [row for row in found if row is not None]
    return tuple(rows)


async def _row(ledger: Ledger, number: int, now: datetime) -> Summary | Unreadable | None:
    try:
        past = await ledger.past(number)
    except Refused as error:
        return Unreadable(rollout=number, fault=str(error))
    return None if past is None else summary(*past, now)


def _parts(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for begin in range(0, len(numbers), _AT_ONCE):
        yield numbers[begin : begin + _AT_ONCE]
