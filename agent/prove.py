"""Owns the proof that a build works where it serves: successes in a row within a deadline, and the watch that follows.

What a proof or its failure leads to is left to `agent.machine`, one look at the build to `agent.probes`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp

from agent.probes import Probe, ProbeSettings, Unproved
from artifact import HotcoldError

_TOLD_COUNT: Final = 5


@dataclass(frozen=True)
class Attempt:
    """One attempt: when, counted from the first, and what was seen. `saw` begins with "ok" on success."""

    number: int
    at_s: float
    is_success: bool
    saw: str
    is_final: bool = False


@dataclass(frozen=True)
class Proved:
    """The build is proved."""

    took_s: float
    attempt_count: int


class ProofFailed(HotcoldError):
    """The build did not prove itself in time, or fell ill while it was watched. It still serves.

    Swapping back is the caller's.

    Attributes:
        attempts: the last few attempts.
    """

    kind = "proof_failed"

    def __init__(self, message: str, attempts: tuple[Attempt, ...], *, kind: str | None = None) -> None:
        super().__init__(message, kind=kind)
        self.attempts = attempts


class _Attempts:
    """Attempts of one proof or watch, counted and kept as far as they are told of."""

    def __init__(self, probe: Probe, clock: Callable[[], float]) -> None:
        self._probe = probe
        self._clock = clock
        self._started_s = clock()
        self.count = 0
        self.told: deque[Attempt] = deque(maxlen=_TOLD_COUNT)

    @property
    def for_s(self) -> float:
        """Since the first could have begun."""
        return self._clock() - self._started_s

    async def make(self, timeout_s: float) -> Attempt:
        """Look once, and never raise for what is seen."""
        at_s = self.for_s
        self.count += 1
        try:
            attempt = Attempt(self.count, at_s, is_success=True, saw=await self._probe.look(timeout_s))
        except Unproved as error:
            attempt = Attempt(self.count, at_s, is_success=False, saw=str(error), is_final=error.is_final)
        self.told.append(attempt)
        return attempt


async def prove(
    settings: ProbeSettings,
    *,
    session: aiohttp.ClientSession,
    environment: Mapping[str, str],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Proved:
    """Probe until `successes` attempts in a row have succeeded.

    Args:
        settings: what is probed, and how often.
        session: for `url`; its own timeouts and proxies should be off.
        environment: for `command`, as for a hook.
        clock: monotonic seconds.
        sleep: waits that many seconds.

    Raises:
        ProofFailed: the deadline came first, or can no longer be met; says what the last attempts saw.
        asyncio.CancelledError: the caller was cancelled; a probe command has ended.
    """
    if not settings.is_given:
        return Proved(took_s=0.0, attempt_count=0)
    attempts = _Attempts(Probe(settings, session=session, environment=environment), clock)
    streak = 0
    while (at_s := attempts.for_s) < settings.deadline_s:
        attempt = await attempts.make(min(settings.timeout_s, settings.deadline_s - at_s))
        streak = streak + 1 if attempt.is_success else 0
        if streak >= settings.successes:
            return Proved(took_s=attempts.for_s, attempt_count=attempts.count)
        if attempt.is_final or attempts.for_s + settings.interval_s >= settings.deadline_s:
            break
        await sleep(settings.interval_s)
    raise ProofFailed(
        f"{settings.name} did not succeed {settings.successes} time(s) in a row "
        f"within {settings.deadline_s:g} s; {' | '.join(_tell(attempts.told))}; look at the build's own log, "
        "or, if it only starts slowly, raise `probe.deadline_s`",
        tuple(attempts.told),
    )


async def watch(
    settings: ProbeSettings,
    *,
    session: aiohttp.ClientSession,
    environment: Mapping[str, str],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Probe a proved build for `watch_s` while it serves; arguments as for `prove`.

    Raises:
        ProofFailed: `watch_failures` attempts in a row have failed, or the unit crashes again and again (kind
            `watch_failed`).
        asyncio.CancelledError: the caller was cancelled; a probe command has ended.
    """
    attempts = _Attempts(Probe(settings, session=session, environment=environment), clock)
    streak = 0
    while attempts.for_s < settings.watch_s:
        attempt = await attempts.make(settings.timeout_s)
        streak = 0 if attempt.is_success else streak + 1
        if attempt.is_final or streak >= settings.watch_failures:
            raise ProofFailed(
                f"it was proved, and {attempts.for_s:.1f} s later {settings.name} failed {streak} time(s) in a row; "
                f"{' | '.join(_tell(attempts.told))}; look at the build's own log",
                tuple(attempts.told),
                kind="watch_failed",
            )
        await sleep(settings.interval_s)


def _tell(attempts: Iterable[Attempt]) -> Iterator[str]:
    """One sentence for each attempt; those in a row that saw the same share one."""
    for saw, group in itertools.groupby(attempts, key=lambda attempt: attempt.saw):
        alike = list(group)
        last = alike[-1]
        which = f"attempts {alike[0].number} to {last.number}, the last" if len(alike) > 1 else f"attempt {last.number}"
        yield f"{which} at {last.at_s:.1f} s: {saw}"
