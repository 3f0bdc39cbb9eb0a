"""Owns the wait for the workers to leave a tree: what is waited for, how long, and what a timeout means.

Which processes are busy is told by `agent.workers`, what servers say of themselves by `agent.gauges`. Making workers
leave is left to the operator's hooks, until the time is up and the policy is `terminate`.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, Protocol

import msgspec

from agent.blocking import run_blocking
from agent.gauges import Gauge
from agent.workers import Busy, Match, busy_workers, signal_workers
from artifact import TransientError

_SHOWN_COUNT = 5
_KILLED_WITHIN_S = 5.0
"""What the kernel may take to end a process; one that waits for a dead disk takes longer."""


class DrainSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[drain]` table. Without `workers` and `gauges` nobody is waited for.

    Attributes:
        workers: who works in `hot`; a process that any entry describes is waited for.
        ports: local TCP ports on which a worker's connections count as work.
        sockets: paths of Unix sockets on which they count likewise.
        gauges: servers that are asked how much they still have to do.
        consul_services: ids of the app's own services on this host's Consul agent, in maintenance mode from before the
            drain until the build is proved or the host is back.
        timeout_s: how long to wait.
        policy: what a timeout means: give the deploy up for now; swap under the workers that are left; or end them by
            SIGTERM, after `kill_after_s` by SIGKILL, and give up only if that does not help.
        kill_after_s: how long a worker may take to end itself.
        poll_s: the pause between two looks.
    """

    workers: tuple[Match, ...] = ()
    ports: tuple[Annotated[int, msgspec.Meta(ge=1, le=65535)], ...] = ()
    sockets: tuple[str, ...] = ()
    gauges: tuple[Gauge, ...] = ()
    consul_services: tuple[Annotated[str, msgspec.Meta(min_length=1)], ...] = ()
    timeout_s: Annotated[float, msgspec.Meta(ge=0)] = 60
    policy: Literal["abort", "proceed", "terminate"] = "abort"
    kill_after_s: Annotated[float, msgspec.Meta(ge=0)] = 10
    poll_s: Annotated[float, msgspec.Meta(ge=0.02)] = 0.2

    def __post_init__(self) -> None:
        """Refuse ports without workers: they would look like a wait and be none."""
        for doors, name in ((self.ports, "ports"), (self.sockets, "sockets")):
            if doors and not self.workers:
                raise ValueError(f"`{name}` without `workers` waits for nobody; describe whose connections count")
        for path in self.sockets:
            if not path.startswith(("/", "@")):
                raise ValueError(f"`sockets` has {path!r}; each must be an absolute path, or @ and an abstract name")
        if self.policy == "terminate" and not self.workers:
            raise ValueError('`policy = "terminate"` without `workers` ends nobody; describe whom')


@dataclass(frozen=True)
class Drained:
    """The wait is over.

    Attributes:
        waited_s: how long it took.
        proceeded_with: the workers that policy `proceed` has swapped under.
        terminated: those that policy `terminate` has ended.
    """

    waited_s: float
    proceeded_with: tuple[Busy, ...] = ()
    terminated: tuple[Busy, ...] = ()


class DrainTimedOut(TransientError):
    """Workers were still busy at the deadline, or outlived their end, and the policy is not `proceed`. No link changed.

    Attributes:
        busy: who, and why.
    """

    kind = "drain_timeout"

    def __init__(self, message: str, busy: Sequence[Busy]) -> None:
        super().__init__(message)
        self.busy = tuple(busy)


class Look(Protocol):
    """Tells, blocking, which workers are busy in a tree."""

    def __call__(self, matches: Iterable[Match], tree: Path, doors: Collection[int | str], /) -> Sequence[Busy]:
        """Return the busy workers; empty means drained."""
        ...


class Ask(Protocol):
    """Asks a server whether it still works."""

    async def __call__(self, gauge: Gauge, /) -> Sequence[Busy]:
        """Return why it is busy; empty means drained."""
        ...


class End(Protocol):
    """Sends a signal, blocking, to those of some workers that are still there."""

    def __call__(self, matches: Iterable[Match], pids: Collection[int], number: signal.Signals, /) -> None:
        """Send it."""
        ...


async def drain(
    settings: DrainSettings,
    tree: Path,
    *,
    ask: Ask,
    on_waiting: Callable[[Sequence[Busy]], None] = lambda _busy: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    look: Look = busy_workers,
    end: End = signal_workers,
) -> Drained:
    """Wait until no worker is busy in `tree`.

    There is at least one look, and one after the deadline has passed, so that a timeout of 0 means "only if drained".

    Args:
        settings: who is waited for, and how long.
        tree: the release directory that serves, with no symbolic link in its path.
        ask: asked of each gauge.
        on_waiting: told who is busy whenever that changes.
        clock: monotonic seconds.
        sleep: waits that many seconds.
        look: asked in a thread.
        end: called in a thread.

    Raises:
        DrainTimedOut: as the class says.
        ConfigError: the settings name a user that this host does not know, or workers may not be signalled.
    """
    started = clock()
    if not settings.workers and not settings.gauges:
        return Drained(waited_s=0.0)
    wait = _Wait(settings, tree, on_waiting, clock, sleep, look, ask)
    busy = await wait.until(started + settings.timeout_s)
    terminated = tuple(worker for worker in busy if worker.pid is not None) if settings.policy == "terminate" else ()
    if terminated:
        busy = await wait.end(busy, end)
    if not busy:
        return Drained(waited_s=clock() - started, terminated=terminated)
    if settings.policy == "proceed":
        return Drained(waited_s=clock() - started, proceeded_with=tuple(busy))
    raise DrainTimedOut(
        f"after {clock() - started:.3g} s {len(busy)} worker(s) are still busy in {tree}: {_describe(busy)}; "
        'let a drain hook stop or reload them, raise `drain.timeout_s`, or set `drain.policy` to "proceed"',
        busy,
    )


@dataclass
class _Wait:
    """Looks until nobody is busy, or a time has come; tells who is whenever that changes."""

    settings: DrainSettings
    tree: Path
    on_waiting: Callable[[Sequence[Busy]], None]
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[object]]
    look: Look
    ask: Ask
    seen: Sequence[Busy] = ()

    async def until(self, deadline: float) -> Sequence[Busy]:
        """Wait; who is still busy when the clock shows `deadline`."""
        while True:
            is_late = self.clock() >= deadline
            busy = await self._look()
            if busy and busy != self.seen:
                self.seen = busy
                self.on_waiting(busy)
            if is_late or not busy:
                return busy
            await self.sleep(min(self.settings.poll_s, max(0.0, deadline - self.clock())))

    async def end(self, busy: Sequence[Busy], end: End) -> Sequence[Busy]:
        """End the processes among those that are busy; who is still busy then."""
        for number, patience_s in ((signal.SIGTERM, self.settings.kill_after_s), (signal.SIGKILL, _KILLED_WITHIN_S)):
            pids = [worker.pid for worker in busy if worker.pid is not None]
            await run_blocking(end, self.settings.workers, pids, number)
            busy = await self.until(self.clock() + patience_s)
            if not any(worker.pid is not None for worker in busy):
                break
        return busy

    async def _look(self) -> Sequence[Busy]:
        answers = await asyncio.gather(*(self.ask(gauge) for gauge in self.settings.gauges))
        workers = self.settings.workers
        doors: tuple[int | str, ...] = (*self.settings.ports, *self.settings.sockets)
        processes = await run_blocking(self.look, workers, self.tree, doors) if workers else ()
        return [*processes, *chain.from_iterable(answers)]


def _describe(busy: Sequence[Busy]) -> str:
    shown = [f"{worker.who}: {'; '.join(worker.reasons)}" for worker in busy[:_SHOWN_COUNT]]
    if len(busy) > _SHOWN_COUNT:
        shown.append(f"{len(busy) - _SHOWN_COUNT} more")
    return " | ".join(shown)
