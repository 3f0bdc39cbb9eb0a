"""Owns one run of the demo from the first process to the last: set-up, both parts, staying up, orderly end.

What is told is left to `hotcold.demo.story` and `hotcold.demo.rollouts`, what is up to `hotcold.demo.world`, looks to
`hotcold.demo.screen`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.blocking import run_blocking
from artifact import HotcoldError
from fleet import consul_settings
from hotcold.demo.board import Board
from hotcold.demo.builds import APP
from hotcold.demo.children import Children
from hotcold.demo.host import TIER
from hotcold.demo.lookout import Lookout
from hotcold.demo.outcome import Findings, Outcome, StoreKind
from hotcold.demo.packing import pack_all
from hotcold.demo.rollouts.act import Act
from hotcold.demo.stage import StampedStore
from hotcold.demo.story import BUILDS, CHANGE, JobStage, tell
from hotcold.demo.world import Load, World, build_world, start_load, watch_hosts

_REFRESH_S: Final = 1.0


@dataclass(frozen=True)
class Plan:
    """What was asked for.

    Attributes:
        directory: empty; all that the run writes lies below it.
        consul: the binary to run as store; None: the embedded one.
        shows_job: play the first part.
        is_once: end when all has been told.
        file_count: files in each build of the first part.
        breath_s: after each step of the story.
        environment: of this process.
        command: how people start `hotcold`, for the hints.
    """

    directory: Path
    consul: Path | None
    shows_job: bool
    is_once: bool
    file_count: int
    breath_s: float
    environment: Mapping[str, str]
    command: str

    @property
    def store_kind(self) -> StoreKind:
        """What the store will be."""
        return "embedded" if self.consul is None else "consul"


class Run:
    """One run. `outcome` is right at any moment, also after a failure.

    Args:
        plan: what was asked for.
        board: of the first part.
        act: the second part; None: it is not played.
        on_act: told when it begins.
    """

    def __init__(self, plan: Plan, board: Board, act: Act | None, on_act: Callable[[], None] = lambda: None) -> None:
        self._plan = plan
        self._board = board
        self._act = act
        self._on_act = on_act
        self._findings = Findings()
        self._load: Load | None = None

    @property
    def outcome(self) -> Outcome:
        """The result of the first part so far, and of the second if it is played."""
        return self._findings.outcome(
            self._plan.store_kind, self._board.counts, None if self._act is None else self._act.outcome
        )

    @property
    def is_good(self) -> bool:
        """Whether all that was promised held in what was played."""
        is_job_good = not self._plan.shows_job or self.outcome.is_good
        return is_job_good and (self._act is None or self._act.outcome.is_good)

    async def run(self, stop: asyncio.Event) -> bool:
        """Do everything, and leave no process behind however it ends; whether all was told to its end.

        Args:
            stop: set when somebody has seen enough.

        Raises:
            HotcoldError: a step failed, or a process ended unasked.
        """
        try:
            async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
                telling = asyncio.create_task(self._tell(group, stack), name="story")
                try:
                    await _first_of(telling, stop)
                    if not telling.done():
                        return False
                    world, watching = await telling
                    if not self._plan.is_once:
                        await self._stay_up(world, stop)
                    watching.cancel()  # the last picture is of hosts that are up
                    await self._end_load()
                    return True
                finally:
                    telling.cancel()
                    await asyncio.wait([telling])
        except BaseExceptionGroup as errors:
            # Everything else in the group is what the first failure has dragged along.
            raise _root_of(errors) from errors

    async def _tell(self, group: asyncio.TaskGroup, stack: AsyncExitStack) -> tuple[World, asyncio.Task[None]]:
        plan, board = self._plan, self._board
        logs = plan.directory / "logs"
        await run_blocking(logs.mkdir)
        children = Children(group, logs, plan.environment)
        stack.push_async_callback(children.aclose)
        world = await build_world(plan.directory, children, plan.consul)
        watching = group.create_task(watch_hosts(world.hosts, board), name="hosts")
        stack.callback(watching.cancel)
        board.say(f"store ({plan.store_kind}), artifact server and three bare hosts are up, below {plan.directory}")
        if plan.shows_job:
            await self._show_job(world, group, stack)
        if self._act is not None:
            watching.cancel()
            await self._end_load()
            self._on_act()
            watching = await self._act.play(world, group, stack)
        return world, watching

    async def _show_job(self, world: World, group: asyncio.TaskGroup, stack: AsyncExitStack) -> None:
        plan, board = self._plan, self._board
        await pack_all(world.artifacts, plan.directory / "tree", BUILDS, plan.file_count, board)

        async def load() -> None:
            self._load = await start_load(world.children, world.hosts, board, group)

        store = await stack.enter_async_context(StampedStore(consul_settings({}, {"address": world.store})))
        with Lookout({host.name: host.hot for host in world.hosts}) as lookout:
            await tell(
                JobStage(
                    world=world,
                    store=store,
                    board=board,
                    lookout=lookout,
                    breath_s=plan.breath_s,
                    findings=self._findings,
                    start_load=load,
                )
            )

    async def _end_load(self) -> None:
        """Let clients finish what they have asked for; afterwards the counts are complete."""
        if self._load is not None:
            await self._load.stop()
            self._load = None
            self._board.outcome = self.outcome
        if self._act is not None:
            await self._act.stop_load()

    async def _stay_up(self, world: World, stop: asyncio.Event) -> None:
        board = self._board if self._act is None else self._act.board
        board.hints = _hints(world, self._plan.command) if self._act is None else self._act.hints(world)
        board.say("everything stays up, under load, until Ctrl-C", "bold")
        while not stop.is_set():
            if self._act is None:
                board.outcome = self.outcome
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REFRESH_S):
                    await stop.wait()


async def _first_of(task: asyncio.Task[Any], stop: asyncio.Event) -> None:
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()


def _root_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to tell: one of ours if there is one, else the first."""
    ours = errors.subgroup(HotcoldError)
    group: BaseException = errors if ours is None else ours
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def _hints(world: World, command: str) -> tuple[str, ...]:
    host = world.hosts[0]
    return (
        f"export CONSUL_HTTP_ADDR={world.store}",
        f"{command} fleet --app {APP} --watch",
        f"{command} status --watch --socket {host.socket}",
        f"{command} deploy {world.files}/{APP}-{CHANGE}.json --app {APP} --tier {TIER} --wait",
        f"{command} rollback --app {APP} --tier {TIER} --reason 'to see it' --wait",
        f"curl http://127.0.0.1:{host.port}/",
        f"curl --unix-socket {host.socket} http://agent/metrics",
    )
