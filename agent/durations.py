"""Owns how long things took since the agent started, as Prometheus counts it; leaves what is timed to the caller."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import Final

BOUNDS_S: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""A swap takes milliseconds, a drain minutes: both ends must show."""


class Durations:
    """One histogram, with the bounds that all of them have."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def note(self, duration_s: float) -> None:
        """Count one."""
        self._counts[bisect_left(BOUNDS_S, duration_s)] += 1
        self.sum_s += duration_s

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound in seconds, how many took at most so long); the last bound is +Inf."""
        return list(zip([*map(repr, BOUNDS_S), "+Inf"], map(float, accumulate(self._counts)), strict=True))
