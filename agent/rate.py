"""Owns how fast a fetch goes, as people want to know it: smoothed over some seconds. Pure but for what it remembers."""

from __future__ import annotations

from collections import deque
from typing import Final

_WINDOW_S: Final = 5.0


class Rate:
    """Bytes per second over the last seconds; to be told how many bytes there are so far, now and then."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now_s: float, bytes_done: int) -> None:
        """Take down how far it is; fewer bytes than before are another beginning."""
        if self._seen and bytes_done < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now_s, bytes_done))
        while len(self._seen) > 2 and self._seen[1][0] <= now_s - _WINDOW_S:  # noqa: PLR2004 - both ends
            self._seen.popleft()

    def bytes_per_s(self, now_s: float) -> float | None:
        """The rate; None while too little is known. It falls while nothing comes."""
        if len(self._seen) < 2:  # noqa: PLR2004 - both ends
            return None
        (began_s, began_bytes), (_, bytes_done) = self._seen[0], self._seen[-1]
        return (bytes_done - began_bytes) / (now_s - began_s) if now_s > began_s else None

    def left_s(self, now_s: float, bytes_left: int) -> float | None:
        """How long the rest takes at this rate; None where that cannot be told."""
        rate = self.bytes_per_s(now_s)
        return bytes_left / rate if rate else None
