"""Owns the scrub: reading hot and standby again, slowly, now and then; what differs is told, and nothing is changed.

The comparing is `artifact.verify`'s. An operator decides what to do about a difference: `hotcold repull` is at hand.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec
import structlog

from agent.blocking import run_until_cancelled
from artifact import HotcoldError
from swapper import Layout, Release, Swapper

log = structlog.get_logger()

_NAMED: Final = 20
"""Differences that the status names; a tree that was replaced has as many as it has files."""
_IDLE_S: Final = 3600.0


class ScrubTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[scrub]`: reading hot and standby again in the background. `interval_h` 0: never."""

    interval_h: float = 0.0
    max_rate_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        """Refuse what makes no sense; msgspec adds where it stands."""
        if self.interval_h < 0:
            raise ValueError("`interval_h` must not be negative")
        if self.max_rate_bytes <= 0:
            raise ValueError("`max_rate_bytes` must be greater than 0")


@dataclass(frozen=True)
class Scrubbed:
    """What the last scrub of a tree found.

    Attributes:
        build: the tree's.
        at: when it ended.
        took_s: how long it took.
        difference_count: how many entries differ.
        differences: the first of them, in words.
        problem: why the tree could not be compared, or None.
    """

    build: str
    at: datetime
    took_s: float
    difference_count: int
    differences: tuple[str, ...]
    problem: str | None


class _Ended(Exception):
    """The agent stops: the rest of the tree is not read."""


class Scrubber:
    """Scrubs for ever; keep `run` in a task group.

    Attributes:
        found: of each tree that was scrubbed last, hot first.
    """

    def __init__(
        self,
        *,
        settings: Callable[[], ScrubTable],
        layout: Layout,
        swapper: Swapper,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._layout = layout
        self._swapper = swapper
        self._now = now
        self._sleep = sleep
        self.found: tuple[Scrubbed, ...] = ()

    async def run(self) -> None:
        """Scrub at every interval; a configuration that is read again counts from the next one."""
        while True:
            interval_h = self._settings().interval_h
            await self._sleep(interval_h * 3600 if interval_h else _IDLE_S)
            if interval_h:
                await self.scrub()

    async def scrub(self) -> None:
        """Scrub hot and standby once."""
        self.found = await run_until_cancelled(self._scrub)
        for scrubbed in self.found:
            if scrubbed.difference_count:
                log.error(
                    "scrub found differences: `hotcold verify` names all, `hotcold repull` makes the build anew",
                    build=scrubbed.build,
                    differences=scrubbed.difference_count,
                    first=scrubbed.differences[0],
                )

    def _scrub(self, is_cancelled: Callable[[], bool]) -> tuple[Scrubbed, ...]:
        try:
            disk = self._swapper.look()
        except HotcoldError as error:
            log.warning("cannot scrub", error=str(error))
            return self.found
        try:
            return tuple(
                self._read_again(release, is_cancelled) for release in (disk.hot, disk.standby) if release is not None
            )
        except _Ended:
            return self.found

    def _read_again(self, release: Release, is_cancelled: Callable[[], bool]) -> Scrubbed:
        # Only now: most agents never scrub, and need not hold what it takes.
        from artifact.verify import NothingKnown, verify_tree  # noqa: PLC0415

        pace = Pace(self._settings().max_rate_bytes, clock=time.monotonic, sleep=time.sleep)

        def read(count_bytes: int) -> None:
            if is_cancelled():
                raise _Ended
            pace.spend(count_bytes)

        began_s, count, named, problem = time.monotonic(), 0, [], None
        try:
            for difference in verify_tree(release.path, self._layout.table(release.name), read=read):
                count += 1
                if count <= _NAMED:
                    named.append(f"{difference.path} {difference.problem}")
        except (NothingKnown, OSError) as error:
            problem = str(error)
        return Scrubbed(release.build_id, self._now(), time.monotonic() - began_s, count, tuple(named), problem)


class Pace:
    """Keeps a rate over a long time, in a thread of its own: whoever is ahead of it sleeps.

    Args:
        max_rate_bytes: per second.
        clock: monotonic seconds.
        sleep: blocks.
    """

    def __init__(self, max_rate_bytes: int, *, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._max_rate_bytes = max_rate_bytes
        self._clock = clock
        self._sleep = sleep
        self._free_at_s = clock()

    def spend(self, count_bytes: int) -> None:
        """Count bytes, and sleep until they are due."""
        now_s = self._clock()
        self._free_at_s = max(self._free_at_s, now_s) + count_bytes / self._max_rate_bytes
        if self._free_at_s > now_s:
            self._sleep(self._free_at_s - now_s)
