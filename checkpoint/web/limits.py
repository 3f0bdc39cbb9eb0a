"""Owns how often somebody may do something: a bucket each, refilled steadily. Pure but for the clock that it is given.

What is counted, and what is said to whoever is too fast, is left to the callers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_MAX_KNOWN: Final = 10_000


@dataclass
class _Bucket:
    level: float
    at_s: float


class Limit:
    """At most `count` at once, and `count` in each `span_s` after that, for each key.

    Args:
        count: how many.
        span_s: seconds.
        clock: monotonic seconds.
    """

    def __init__(self, count: int, span_s: float, clock: Callable[[], float]) -> None:
        self._count = count
        self._span_s = span_s
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def allows(self, key: str) -> bool:
        """Count one, unless it is one too many."""
        now_s = self._clock()
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= _MAX_KNOWN:
                self._forget(now_s)
            bucket = self._buckets[key] = _Bucket(float(self._count), now_s)
        refilled = (now_s - bucket.at_s) * self._count / self._span_s
        bucket.level, bucket.at_s = min(float(self._count), bucket.level + refilled), now_s
        if bucket.level < 1.0:
            return False
        bucket.level -= 1.0
        return True

    def _forget(self, now_s: float) -> None:
        """Drop the full buckets, which are as good as none; all of them where somebody fills the table on purpose."""
        self._buckets = {key: each for key, each in self._buckets.items() if now_s - each.at_s < self._span_s}
        if len(self._buckets) >= _MAX_KNOWN:
            self._buckets.clear()
