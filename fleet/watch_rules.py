"""Owns the rules of a correct blocking query: `(state, what came back) → (state, whether it is news)`. Pure.

Asking, sleeping and drawing random numbers is left to `fleet.watcher`.

Consul's index is a hint, not a truth: it can go backwards, come back early without a change, or rise because of keys
that we do not watch. So only the entries themselves decide what is news, and the index only decides how to ask next.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

BACKOFF_BASE_S: Final = 0.25
BACKOFF_CAP_S: Final = 60.0
"""Longest pause after failures; the watch never gives up."""

BURST_COUNT: Final = 5
RATE_PER_S: Final = 2.0
"""After `BURST_COUNT` questions at once, this many per second."""

IDLE_BACKOFF_CAP_S: Final = 8.0
"""Longest pause while Consul keeps waking us for nothing, or answers only every other time."""

T = TypeVar("T")


class Unseen:
    """Stands for the contents before the first answer, because None means that the key does not exist."""


UNSEEN: Final = Unseen()


@dataclass(frozen=True)
class Watching(Generic[T]):
    """Where a watch stands.

    Attributes:
        index: to send with the next question; None: ask without blocking.
        seen: contents last told to the reader.
        failure_count: failures since the last answer.
        idle_count: failures, and answers before their time without news, since the last news or quiet wait.
        tokens: questions that may be asked at once.
        refilled_s: monotonic time for which `tokens` is right.
    """

    index: int | None = None
    seen: T | Unseen = UNSEEN
    failure_count: int = 0
    idle_count: int = 0
    tokens: float = BURST_COUNT
    refilled_s: float | None = None


def answered(
    state: Watching[T], *, index: int, contents: T, elapsed_s: float, wait_s: float
) -> tuple[Watching[T], bool]:
    """Take an answer in.

    Args:
        state: that the question was asked in.
        index: that came with the answer.
        contents: of the key or prefix; equal ones are no news.
        elapsed_s: between question and answer.
        wait_s: that was asked for.

    Returns:
        The next state, and whether the reader must be told `contents`.
    """
    is_early = state.index is not None and elapsed_s < wait_s
    is_news = state.seen is UNSEEN or state.seen != contents
    # An answer to a plain question says nothing about how busy the store keeps us.
    idle_count = state.idle_count
    if is_news or (state.index is not None and not is_early):
        idle_count = 0
    elif is_early:
        idle_count += 1
    next_state = replace(
        state,
        index=_next_index(state.index, index, is_early=is_early),
        seen=contents,
        failure_count=0,
        idle_count=idle_count,
    )
    return next_state, is_news


def _next_index(sent: int | None, returned: int, *, is_early: bool) -> int | None:
    returned = max(returned, 1)  # 0 would mean "do not block", and the watch would spin.
    if sent is None:
        return returned
    if returned < sent:
        return None  # A restored snapshot or a new cluster: no write would wake us up to the old index.
    if returned == sent and is_early:
        return None  # A restore wakes with the answer from before it; the truth is one plain question away.
    return returned


def failed(state: Watching[T]) -> Watching[T]:
    """Take a failure in: whatever the index meant, it may mean nothing to the server that answers next."""
    return replace(state, index=None, failure_count=state.failure_count + 1, idle_count=state.idle_count + 1)


def backoff_ceiling_s(state: Watching[T]) -> float:
    """Upper end of the random pause after failures; 0 without one."""
    if state.failure_count == 0:
        return 0.0
    # The exponent is bounded because 2.0 ** n overflows after some hours of failures.
    return min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** min(state.failure_count, 16))


def idle_pause_s(state: Watching[T]) -> float:
    """Pause while asking more brings nothing.

    Each write to any key wakes us where ours does not exist, and a store that flaps needs no fleet that asks it at the
    full rate between two failures.
    """
    excess = state.idle_count - BURST_COUNT
    return 0.0 if excess <= 0 else min(IDLE_BACKOFF_CAP_S, 0.5 * 2.0 ** min(excess, 16))


def take_turn(state: Watching[T], now_s: float, rate_per_s: float = RATE_PER_S) -> tuple[Watching[T], float]:
    """Take a token for one question, of those that come back at `rate_per_s`.

    Returns:
        The next state, and how long to wait before asking.
    """
    since_s = 0.0 if state.refilled_s is None else max(0.0, now_s - state.refilled_s)
    tokens = min(float(BURST_COUNT), state.tokens + since_s * rate_per_s) - 1.0
    return replace(state, tokens=tokens, refilled_s=now_s), max(0.0, -tokens / rate_per_s)
