"""Owns z-scores of a series, for charts alone: no verdict is made of them. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def z_scores(values: Sequence[float], window: int) -> tuple[float | None, ...]:
    """How many standard deviations each value is above the mean of the `window` values before it.

    None where fewer came before, or where they were all the same.
    """
    scores: list[float | None] = []
    for number, value in enumerate(values):
        before = values[max(0, number - window) : number]
        spread = statistics.stdev(before) if len(before) == window > 1 else 0.0
        scores.append((value - statistics.fmean(before)) / spread if spread > 0 else None)
    return tuple(scores)
