"""Owns one run of the demo from the first process to the last: set-up, story, staying up, orderly end.

What is told is left to `hotcold.demo.story`, what is up to `hotcold.demo.world`, looks to `hotcold.demo.screen`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.blocking import run_blocking
from artifact import HotcoldError
from fleet import consul_settings
from hotcold.demo.board import Board, Doing
from hotcold.demo.builds import APP, Workpiece
from hotcold.demo.children import Children
from hotcold.demo.host import TIER
from hotcold.demo.lookout import Lookout
from hotcold.demo.outcome import Findings, Outcome, StoreKind
from hotcold.demo.story import BAD, BUILDS, CHANGE, Stage, StampedStore, tell
from hotcold.demo.world import Load, World, build_world, start_load, watch_hosts


@dataclass(frozen=True)
class Plan:
    """What was asked for.

    Attributes:
        directory: empty; all that the run writes lies below it.
        consul: the binary to run as store; None: the embedded one.
        is_once: end when the story has been told.
        file_count: files in each build.
        breath_s: after each step of the story.
        environment: of this process.
        command: how people start `hotcold`, for the hints.
    """

    directory: Path
    consul: Path | None
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
    """One run. `outcome` is right at any moment, also after a failure."""

    def __init__(self, plan: Plan, board: Board) -> None:
        self._plan = plan
        self._board = board
        self._findings = Findings()
        self._load: Load | None = None

    @property
    def outcome(self) -> Outcome:
        """The result so far."""
        return self._findings.outcome(self._plan.store_kind, self._board.counts)

    async def run(self, stop: asyncio.Event) -> bool:
        """Do everything, and leave no process behind however it ends; whether the story was told to its end.

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
                    if self._load is not None:
                        await self._load.stop()
                    self._board.outcome = self.outcome
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
        watching = group.create_task(watch_hosts(world, board), name="hosts")
        stack.callback(watching.cancel)
        board.say(f"store ({plan.store_kind}), artifact server and three bare hosts are up, below {plan.directory}")
        await self._pack_all(world.artifacts)

        async def load() -> None:
            self._load = await start_load(world, board, group)

        store = await stack.enter_async_context(StampedStore(consul_settings({}, {"address": world.store})))
        with Lookout({host.name: host.hot for host in world.hosts}) as lookout:
            await tell(Stage(world, store, board, self._findings, lookout, load, plan.breath_s))
        return world, watching

    async def _pack_all(self, artifacts: Path) -> None:
        plan, board = self._plan, self._board
        board.say(f"packing {len(BUILDS)} builds of {plan.file_count} files")
        board.doing = Doing("copying files", 0.0)
        workpiece = await run_blocking(Workpiece, plan.directory / "tree", plan.file_count)
        sizes = []
        for number, build in enumerate(BUILDS):

            def show(share: float, number: int = number, build: str = build) -> None:
                board.doing = Doing(f"packing {build}", (number + share) / len(BUILDS))

            manifest = await run_blocking(workpiece.pack, build, out=artifacts, is_bad=build == BAD, on_progress=show)
            sizes.append(manifest.size)
        board.doing = None
        board.say(
            f"the builds, {workpiece.size_bytes / 1e6:.0f} MB each ({max(sizes) / 1e6:.0f} MB packed), "
            "are at the artifact server"
        )

    async def _stay_up(self, world: World, stop: asyncio.Event) -> None:
        board = self._board
        board.hints = _hints(world, self._plan.command)
        board.say("everything stays up, under load, until Ctrl-C", "bold")
        while not stop.is_set():
            board.outcome = self.outcome
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
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
