"""Owns the loop of a watch: ask, pause, tell the reader; leaves every decision to `fleet.watch_rules`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from artifact import ConfigError
from fleet import watch_rules
from fleet.contact import ContactLog
from fleet.store import StoreUnreachable

T = TypeVar("T")

Ask = Callable[[int | None], Awaitable[tuple[int, T]]]
"""Asks once, blocking at that index, and returns the answer's index and contents."""


class Watcher(Generic[T]):
    """An asynchronous iterator over what a key, or a prefix, holds.

    An `__anext__` that is cancelled loses nothing: the next one goes on where it stood.

    Args:
        name: of what is watched, the source under which failures are reported.
        ask: asks Consul once; contents that are equal are no news.
        wait_s: that `ask` asks Consul for.
        log: told of answers and failures.
        clock: monotonic, in seconds.
        sleep: as `asyncio.sleep`.
        draw: a random number within 0 and its argument.
        rate_per_s: questions, after a burst.
    """

    def __init__(
        self,
        name: str,
        ask: Ask[T],
        *,
        wait_s: float,
        log: ContactLog,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        draw: Callable[[float], float],
        rate_per_s: float = watch_rules.RATE_PER_S,
    ) -> None:
        self._name = name
        self._ask = ask
        self._wait_s = wait_s
        self._log = log
        self._clock = clock
        self._sleep = sleep
        self._draw = draw
        self._rate_per_s = rate_per_s
        self._state: watch_rules.Watching[T] = watch_rules.Watching()
        self._scope: asyncio.Timeout | None = None
        self._closed = False

    def __aiter__(self) -> Watcher[T]:
        return self

    async def __anext__(self) -> T:
        """Wait for news.

        Raises:
            StopAsyncIteration: the watch was closed.
        """
        if self._closed:
            raise StopAsyncIteration
        try:
            # A scope without deadline: `aclose` sets one that has passed.
            async with asyncio.timeout(None) as self._scope:
                return await self._news()
        except TimeoutError:
            if self._closed:
                raise StopAsyncIteration from None
            raise
        finally:
            self._scope = None

    async def aclose(self) -> None:
        """End the watch, and an `__anext__` that waits in another task. Calling it twice is harmless."""
        self._closed = True
        self._log.forget(self._name)
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def _news(self) -> T:
        while True:
            await self._pause()
            asked_s = self._clock()
            try:
                index, contents = await self._ask(self._state.index)
            except (StoreUnreachable, ConfigError) as error:
                # Also for a refusal: a token may be granted, or rotated, at any time, and a daemon that stopped
                # watching would need a hand on every host.
                self._state = watch_rules.failed(self._state)
                self._log.failed(self._name, error)
                continue
            self._log.answered(self._name)
            self._state, is_news = watch_rules.answered(
                self._state,
                index=index,
                contents=contents,
                elapsed_s=self._clock() - asked_s,
                wait_s=self._wait_s,
            )
            if is_news:
                return contents

    async def _pause(self) -> None:
        backoff_s = self._draw(watch_rules.backoff_ceiling_s(self._state))
        await self._sleep(backoff_s + watch_rules.idle_pause_s(self._state))
        self._state, turn_s = watch_rules.take_turn(self._state, self._clock(), self._rate_per_s)
        await self._sleep(turn_s)
