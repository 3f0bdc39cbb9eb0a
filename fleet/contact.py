"""Owns the book-keeping behind `Contact`: who reached the store, who does not, and since when.

What counts as an answer is left to the callers.
"""

from __future__ import annotations

from collections.abc import Callable

from fleet.store import Contact


class ContactLog:
    """Keeps one live `Contact` true for several concurrent sources.

    A watch that fails stays a failure while other requests succeed, because an agent whose watch is refused is cut
    off from orders however well its heartbeat arrives.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.contact = Contact()
        self._clock = clock
        self._failing: dict[str, tuple[float, str]] = {}

    def answered(self, source: str) -> None:
        """`source` got a good answer."""
        self.contact.last_answer_s = self._clock()
        self.forget(source)

    def failed(self, source: str, error: Exception) -> None:
        """`source` got none; the time of its first failure in a row stands."""
        now_s = self._clock()
        since_s, _ = self._failing.pop(source, (now_s, ""))
        self._failing[source] = (since_s, str(error))
        self._publish()

    def forget(self, source: str) -> None:
        """`source` has ended or is well: its failures count no longer."""
        if self._failing.pop(source, None) is not None:
            self._publish()

    def _publish(self) -> None:
        if not self._failing:
            self.contact.failing_since_s, self.contact.error = None, None
            return
        self.contact.failing_since_s = min(since_s for since_s, _ in self._failing.values())
        self.contact.error = next(reversed(self._failing.values()))[1]
