"""Owns the wait for the workers to leave a tree: what is waited for, how long, and what a timeout means.

Who is busy is told by `agent.workers`; making workers leave is left to the operator's hooks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

import msgspec

from agent.blocking import run_blocking
from agent.workers import Busy, Match, busy_workers
from artifact import TransientError

_SHOWN_COUNT = 5


class DrainSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[drain]` table. Without `workers` nobody is waited for.

    Attributes:
        workers: who works in `hot`; a process that any entry describes is waited for.
        ports: local TCP ports on which a worker's connections count as work.
        timeout_s: how long to wait.
        policy: what a timeout means: give the deploy up for now, or swap under the workers that are left.
        poll_s: the pause between two looks.
    """

    workers: tuple[Match, ...] = ()
    ports: tuple[Annotated[int, msgspec.Meta(ge=1, le=65535)], ...] = ()
    timeout_s: Annotated[float, msgspec.Meta(ge=0)] = 60
    policy: Literal["abort", "proceed"] = "abort"
    poll_s: Annotated[float, msgspec.Meta(ge=0.02)] = 0.2

    def __post_init__(self) -> None:
        """Refuse ports without workers: they would look like a wait and be none."""
        if self.ports and not self.workers:
            raise ValueError("`ports` without `workers` waits for nobody; describe whose connections count")


@dataclass(frozen=True)
class Drained:
    """The wait is over. `proceeded_with` are the workers that policy `proceed` has swapped under."""

    waited_s: float
    proceeded_with: tuple[Busy, ...] = ()


class DrainTimedOut(TransientError):
    """Workers were still busy at the deadline, and the policy is `abort`. Nothing was changed.

    Attributes:
        busy: who, and why.
    """

    kind = "drain_timeout"

    def __init__(self, message: str, busy: Sequence[Busy]) -> None:
        super().__init__(message)
        self.busy = tuple(busy)


class Look(Protocol):
    """Tells, blocking, which workers are busy in a tree."""

    def __call__(self, matches: Iterable[Match], tree: Path, ports: Collection[int], /) -> Sequence[Busy]:
        """Return the busy workers; empty means drained."""
        ...


async def drain(
    settings: DrainSettings,
    tree: Path,
    *,
    on_waiting: Callable[[Sequence[Busy]], None] = lambda _busy: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    look: Look = busy_workers,
) -> Drained:
    """Wait until no worker is busy in `tree`.

    There is at least one look, and one after the deadline has passed, so that a timeout of 0 means "only if drained".

    Args:
        settings: who is waited for, and how long.
        tree: the release directory that serves, with no symbolic link in its path.
        on_waiting: told who is busy whenever that changes.
        clock: monotonic seconds.
        sleep: waits that many seconds.
        look: asked in a thread.

    Raises:
        DrainTimedOut: as the class says.
        ConfigError: the settings name a user that this host does not know.
    """
    started = clock()
    if not settings.workers:
        return Drained(waited_s=0.0)
    seen: Sequence[Busy] = ()
    while True:
        late = clock() - started >= settings.timeout_s
        busy = await run_blocking(look, settings.workers, tree, settings.ports)
        if not busy:
            return Drained(waited_s=clock() - started)
        if busy != seen:
            seen = busy
            on_waiting(busy)
        if late:
            break
        await sleep(min(settings.poll_s, max(0.0, started + settings.timeout_s - clock())))
    if settings.policy == "proceed":
        return Drained(waited_s=clock() - started, proceeded_with=tuple(busy))
    raise DrainTimedOut(
        f"after {settings.timeout_s:g} s {len(busy)} worker(s) are still busy in {tree}: {_describe(busy)}; "
        'let a drain hook stop or reload them, raise `drain.timeout_s`, or set `drain.policy` to "proceed"',
        busy,
    )


def _describe(busy: Sequence[Busy]) -> str:
    shown = [f"pid {worker.pid} ({worker.command}): {'; '.join(worker.reasons)}" for worker in busy[:_SHOWN_COUNT]]
    if len(busy) > _SHOWN_COUNT:
        shown.append(f"{len(busy) - _SHOWN_COUNT} more")
    return " | ".join(shown)
