"""Owns an agent's life inside a test's process: all of the agent but Consul, sockets and signals.

The loop, the machine, the workshop, the swapper and the process that pulls are the real ones. Orders are told as the
watch of the key would tell them. Only the pauses between attempts are shortened.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from agent.config import Settings, parse_settings
from agent.events import RepullRequested
from agent.maintenance import Maintenance
from agent.memory import Memory
from agent.ready import ReadyPuller
from agent.runner import Runner, Situation
from agent.slots import SlotKeeper
from agent.states import BackingOff, BuildRefused, RolledBack, Steady
from agent.work import Workshop
from artifact import ManifestRef
from fleet import ConsulStore, Entry, Order, encode
from fleet.keys import slots_prefix, tier_key
from swapper import LINUX, Disk, Kernel, Layout, Swapper
from tests.agent_builds import APP

TIER = "prod"
DEADLINE_S = 60.0
"""Far beyond what anything here takes, so that a busy machine fails nothing."""
_LONGEST_PAUSE_S = 0.01
_AT_REST = (Steady, RolledBack, BuildRefused)


@dataclass(frozen=True)
class AgentHost:
    """One host's directories and configuration."""

    base: Path
    keep: int = 3
    pinned: tuple[str, ...] = ()
    durability: str = "syncfs"
    probe: str = ""
    trees_are_read_only: bool = False

    @property
    def layout(self) -> Layout:
        return Layout(self.base / "root", self.base / "state")

    def open(self) -> Swapper:
        """Start on what is on the disk, as an agent does first."""
        return Swapper.open(self.layout, now=_now)

    def settings(self) -> Settings:
        pinned = ", ".join(f'"{name}"' for name in self.pinned)
        return parse_settings(
            f'app = "{APP}"\ntier = "{TIER}"\nhost = "web-1"\nroot = "{self.layout.root}"\n'
            f'state_dir = "{self.layout.state_dir}"\nsocket = "{self.base}/socket"\n'
            f'[releases]\nkeep = {self.keep}\npinned = [{pinned}]\ndurability = "{self.durability}"\n'
            f"{self.probe}{'[fetch]' if self.trees_are_read_only else ''}\n"
            f"{'trees_are_read_only = true' if self.trees_are_read_only else ''}\n",
            {},
        )


@dataclass
class Life:
    """One agent from start to end."""

    host: AgentHost
    runner: Runner
    swapper: Swapper
    workshop: Workshop
    problems: tuple[str, ...]
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def situation(self) -> Situation:
        return self.runner.situation

    def order(self, serial: int, build: ManifestRef) -> None:
        """Tell of the order in the tier's key."""
        order = Order(v=1, app=APP, tier=TIER, serial=serial, build=build)
        self.runner.see(Entry(tier_key(APP, TIER), encode(order), create_index=1, modify_index=serial))

    def repull(self) -> None:
        self.runner.post(RepullRequested())

    def disk(self) -> Disk:
        return self.swapper.look()

    async def until(self, what: str, is_reached: Callable[[Situation], bool]) -> Situation:
        """Wait for a situation, and until nothing is under way that would follow."""
        ends_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < ends_s:
            if is_reached(self.situation) and self.runner._jobs.is_idle and self.runner._inbox.empty():
                return self.situation
            self.changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), 0.02)
        raise AssertionError(f"not within {DEADLINE_S:.0f} s: {what}; {self.situation}")

    async def until_steady(self, build: ManifestRef) -> None:
        """Wait until the host runs the build and old trees are removed."""

        def is_reached(situation: Situation) -> bool:
            facts = situation.model.facts
            is_wanted = facts.goal is not None and facts.goal.build == build and not facts.is_repull_wanted
            return isinstance(situation.model.state, Steady) and is_wanted

        await self.until(f"steady on {build.id}", is_reached)

    async def until_tried(self, serial: int) -> None:
        """Wait until the order is obeyed, or its first attempt has failed."""
        ends_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < ends_s:
            facts, state = self.situation.model.facts, self.situation.model.state
            is_tried = isinstance(state, BackingOff) or (isinstance(state, _AT_REST) and self.runner._jobs.is_idle)
            if facts.goal is not None and facts.goal.serial == serial and is_tried:
                return
            await asyncio.sleep(0.002)
        raise AssertionError(f"not within {DEADLINE_S:.0f} s: order {serial} tried; {self.situation}")

    async def until_at_rest(self, serial: int) -> Situation:
        """Wait until all that the order asks for is done, or refused."""

        def is_reached(situation: Situation) -> bool:
            goal = situation.model.facts.goal
            return goal is not None and goal.serial == serial and isinstance(situation.model.state, _AT_REST)

        return await self.until(f"order {serial} obeyed or refused", is_reached)


@asynccontextmanager
async def living(host: AgentHost, *, kernel: Kernel = LINUX, pauses: list[float] | None = None) -> AsyncIterator[Life]:
    """Start an agent on what is on the disk; at the end of the block it is cut off, whatever it does.

    `pauses` takes down how long the agent's work wanted to wait each time.
    """

    async def pause(seconds: float) -> None:
        if pauses is not None:
            pauses.append(seconds)
        await _pause(seconds)

    settings = host.settings()
    swapper = Swapper.open(settings.identity.layout, now=_now, kernel=kernel)
    try:
        async with aiohttp.ClientSession() as http:
            memory = Memory(settings.identity.layout.state_dir)
            chance = random.Random(1)
            store = ConsulStore(settings.identity.consul)  # never asked: orders limit nothing, drains name no service
            slots = SlotKeeper(
                store,
                slots_prefix(APP, TIER),
                "web-1",
                lost=lambda: None,
                clock=time.monotonic,
                sleep=_pause,
                chance=chance,
            )
            workshop = Workshop(
                settings=lambda: settings,
                swapper=swapper,
                memory=memory,
                maintenance=Maintenance(store, memory, services=tuple, sleep=_pause, chance=chance),
                slots=slots,
                pullers=ReadyPuller(lambda: False),
                http=http,
                clock=time.monotonic,
                now=_now,
                sleep=pause,
                chance=chance,
            )
            changed = asyncio.Event()
            runner = Runner(
                settings=lambda: settings,
                swapper=swapper,
                memory=memory,
                workshop=workshop,
                clock=time.monotonic,
                now=_now,
                changed=lambda _: changed.set(),
                beat=lambda: None,
            )
            problems = await runner.wake()
            async with asyncio.TaskGroup() as group:
                loop = group.create_task(runner.run(group), name="loop")
                try:
                    yield Life(host, runner, swapper, workshop, problems, changed)
                finally:
                    loop.cancel()
    finally:
        swapper.close()


def leftovers(host: AgentHost, *, kept: Collection[str]) -> list[str]:
    """What is on the disk and should not be there while nothing is under way: trees, records, tables, links, files."""
    layout = host.layout
    found = [f"root: {path.name}" for path in layout.root.iterdir() if path.name not in {"hot", "cold", "releases"}]
    known = {"lock", "counter", "releases", "tables", "order.json"}
    found += [f"state: {path.name}" for path in layout.state_dir.iterdir() if path.name not in known]
    found += [f"tree: {path.name}" for path in layout.releases.iterdir() if path.name not in kept]
    found += [f"record: {path.name}" for path in layout.records.iterdir() if path.name[: -len(".json")] not in kept]
    found += [f"table: {path.name}" for path in layout.tables.iterdir() if path.name not in kept]
    return found


async def _pause(seconds: float) -> None:
    await asyncio.sleep(min(seconds, _LONGEST_PAUSE_S))


def _now() -> datetime:
    return datetime.now(UTC)
