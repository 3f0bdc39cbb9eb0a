"""Owns the engine's time: wall-clock time that goes as steadily as the monotonic clock, and says when the two disagree.

What a jump means to a rollout is left to `checkpoint.rollout.watching`.

What is promised: a clock that is set while the engine leads moves no deadline; it pauses the rollout, once. Not
promised: an engine whose clock is wrong from its start.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

MAX_DRIFT_S: Final = 30.0
"""What clocks may be corrected by without anybody being asked."""


class SteadyClock:
    """Wall-clock time from one reading of it, and the monotonic time since then.

    Args:
        wall: wall-clock time, aware.
        monotonic: seconds.
    """

    def __init__(self, wall: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._anchor = (wall(), monotonic())

    def now(self) -> datetime:
        """The time."""
        at, began_s = self._anchor
        return at + timedelta(seconds=self._monotonic() - began_s)

    def jump(self) -> str | None:
        """Why the clock is not to be trusted; None where it is. The wall clock is believed again from then on."""
        wall, steady = self._wall(), self.now()
        by_s = (wall - steady).total_seconds()
        self._anchor = (wall, self._monotonic())
        if abs(by_s) <= MAX_DRIFT_S:
            return None
        return f"the clock of the engine jumped by {by_s:+.0f} s; check it, then resume"
