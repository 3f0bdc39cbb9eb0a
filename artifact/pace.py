"""Owns how fast bytes may come: a token bucket over all connections of a pull. Pure.

Waiting is left to `artifact.ranges` and `artifact.transfer`, the rate to the operator.
"""

from __future__ import annotations

from typing import Final

_BURST_S: Final = 0.25


class Pace:
    """Says after each part that came how long to wait before the next is taken.

    At first, and after a pause, a quarter of a second's bytes are free. Who does not read makes the sender wait.

    Args:
        rate_bytes: per second; 0: no limit.
    """

    def __init__(self, rate_bytes: int) -> None:
        self._rate_bytes = rate_bytes
        self._paid_until_s: float | None = None

    def delay_s(self, count_bytes: int, now_s: float) -> float:
        """Count bytes that came, and return how long to wait.

        Args:
            count_bytes: that came.
            now_s: by a clock that never goes back.
        """
        if not self._rate_bytes:
            return 0.0
        earliest_s = now_s - _BURST_S
        begin_s = earliest_s if self._paid_until_s is None else max(self._paid_until_s, earliest_s)
        self._paid_until_s = begin_s + count_bytes / self._rate_bytes
        return max(0.0, self._paid_until_s - now_s)
