"""Owns how long a commander insists where the store does not answer; leaves what is asked to the callers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from fleet import StoreUnreachable

# One commander among few, so no jitter; long enough for a cluster to elect a leader.
RETRY_PAUSES_S: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0)

_Answer = TypeVar("_Answer")


class Insistence:
    """Asks again while there is no answer.

    Args:
        pause: waits that many seconds.
        on_retry: told of each failure that is tried again.
    """

    def __init__(
        self,
        pause: Callable[[float], Awaitable[None]],
        on_retry: Callable[[StoreUnreachable], None] = lambda _: None,
    ) -> None:
        self._pause = pause
        self._on_retry = on_retry

    async def ask(self, question: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """The answer.

        Raises:
            StoreUnreachable: none for about a quarter of a minute.
        """
        for pause_s in RETRY_PAUSES_S:
            try:
                return await question()
            except StoreUnreachable as error:
                self._on_retry(error)
                await self._pause(pause_s)
        return await question()
