"""Owns the second part of the demo from its builds to its end: hosts of four tiers, load, Checkpoint, two rollouts.

What happens in a rollout, and what it shows, is left to `hotcold.demo.rollouts.story`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from agent.blocking import run_blocking
from checkpoint.actions import Desk
from checkpoint.pipeline import load_settings
from fleet import consul_settings
from hotcold.demo.board import Board
from hotcold.demo.builds import APP
from hotcold.demo.host import Host
from hotcold.demo.lookout import Lookout
from hotcold.demo.packing import pack_all
from hotcold.demo.rollouts.outcome import RolloutFindings, RolloutsOutcome
from hotcold.demo.rollouts.pages import Pages, serve
from hotcold.demo.rollouts.pipeline import CUSTOMERS, FLEET, configuration
from hotcold.demo.rollouts.story import BUILDS, SPARE, START, RolloutStage, TakenOver, roll_out_bad, roll_out_good
from hotcold.demo.stage import Stage, StampedStore
from hotcold.demo.world import Load, World, start_load, watch_hosts
from hotcold.terminal import duration

FILE_COUNT: Final = 400
"""Files in each build, at most: here it is about rollouts, not about trees."""

_CONFIG: Final = "checkpoint.toml"
_CLIENTS: Final = ("--clients", "2", "--pause-s", "0.08", "--customers", *CUSTOMERS)
_LOOKOUT_PAUSE_S: Final = 0.004


@dataclass(frozen=True)
class Wishes:
    """What was asked for.

    Attributes:
        file_count: files in each build, unless that is more than `FILE_COUNT`.
        breath_s: after each step.
        arrival_s: so that whoever has just been given the link sees the first rollout begin.
        person: who starts the rollouts, and is signed in by the link.
        command: how people start `hotcold`, for the hints.
    """

    file_count: int
    breath_s: float
    arrival_s: float
    person: str
    command: str


class Act:
    """The second part. `outcome` is right at any moment, also after a failure.

    Args:
        wishes: what was asked for.
        board: of the hosts of all tiers.
        on_served: told where the pages are, as soon as they are.
    """

    def __init__(self, wishes: Wishes, board: Board, on_served: Callable[[Pages], None]) -> None:
        self.board = board
        self.pages: Pages | None = None
        self._wishes = wishes
        self._on_served = on_served
        self._findings = RolloutFindings()
        self._load: Load | None = None

    @property
    def outcome(self) -> RolloutsOutcome:
        """The result so far."""
        return self._findings.outcome(len(self.board.hosts), sum(count.mixed for count in self.board.counts))

    async def play(self, world: World, group: asyncio.TaskGroup, stack: AsyncExitStack) -> asyncio.Task[None]:
        """Play all of it, in a world of some hosts of production; what it starts stays up until the stack ends.

        Returns:
            The task that looks at the hosts.

        Raises:
            DemoFailed: a step did not end in time.
            HotcoldError: an order could not be given.
        """
        self.board.begin(1)
        setting, watching = await self._set_up(world, group, stack)
        self._load = await start_load(
            world.children, setting.hosts, self.board, group, options=_CLIENTS, is_served=True
        )
        config = world.directory / _CONFIG
        staging = next(host for host in setting.hosts if host.tier == "staging")
        await run_blocking(config.write_text, configuration(self._load.address, staging.port))
        settings = await run_blocking(load_settings, config)
        self.pages = await serve(world.children, config, world.store)
        self._on_served(self.pages)
        self.board.say(f"the first rollout begins in {duration(self._wishes.arrival_s)}")
        await asyncio.sleep(self._wishes.arrival_s)
        await self._roll_out(
            RolloutStage(
                world=setting.world,
                store=setting.store,
                board=setting.board,
                lookout=setting.lookout,
                breath_s=setting.breath_s,
                desk=_desk(setting.store),
                pipeline=settings.pipeline,
                findings=self._findings,
                person=self._wishes.person,
            )
        )
        self.board.begin(len(self.board.steps) + 1)
        return watching

    async def _set_up(
        self, world: World, group: asyncio.TaskGroup, stack: AsyncExitStack
    ) -> tuple[Stage, asyncio.Task[None]]:
        """Hosts of all tiers, all of which run the first of the builds; and the task that looks at them."""
        board, wishes = self.board, self._wishes
        files = min(wishes.file_count, FILE_COUNT)
        await pack_all(world.artifacts, world.directory / "tree-of-rollouts", BUILDS, files, board)
        known = {host.name: host for host in world.hosts}
        tiers = [(tier, name) for tier, names in FLEET.items() for name in names]
        hosts = tuple(known.get(name) or Host(name, world.directory / name, tier=tier) for tier, name in tiers)
        store = await stack.enter_async_context(StampedStore(consul_settings({}, {"address": world.store})))
        lookout = stack.enter_context(Lookout({host.name: host.hot for host in hosts}, pause_s=_LOOKOUT_PAUSE_S))
        stage = Stage(replace(world, hosts=hosts), store, board, lookout, wishes.breath_s)
        for tier in FLEET:  # before the new hosts are there, so that they begin with it
            await stage.order(START, tier)
        await asyncio.gather(*(host.start(world.children, world.store) for host in hosts if host.name not in known))
        watching = group.create_task(watch_hosts(hosts, board), name="hosts of all tiers")
        stack.callback(watching.cancel)
        await stage.until_all_run(START)
        board.say(f"{len(hosts)} hosts in {', '.join(FLEET)} run {START}; clients come in", "green")
        return stage, watching

    async def _roll_out(self, stage: RolloutStage) -> None:
        try:
            for number, play in enumerate((roll_out_good, roll_out_bad), 2):
                self.board.begin(number)
                await play(stage)
                await asyncio.sleep(stage.breath_s)
        except TakenOver as taken:
            self._findings.steered_by = taken.by
            self.board.say(f"the demo steps back, for somebody else steers: {taken.by}", "yellow")

    def hints(self, world: World) -> tuple[str, ...]:
        """What people may try, now that all is up."""
        return (
            "# on the pages: lift the lock that the rollback has set; New rollout of",
            f"#   {world.files}/{APP}-{SPARE}.json",
            f"export CONSUL_HTTP_ADDR={world.store}",
            f"{self._wishes.command} fleet --app {APP}",
            f"{self._wishes.command} rollout watch --app {APP}",
        )

    async def stop_load(self) -> None:
        """Let clients finish what they have asked for; afterwards the counts are complete."""
        if self._load is not None:
            await self._load.stop()


def _desk(store: StampedStore) -> Desk:
    return Desk(
        store,
        APP,
        now=lambda: datetime.now(UTC),
        new_salt=lambda: secrets.token_hex(8),
        pause=asyncio.sleep,
    )
