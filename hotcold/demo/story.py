"""Owns what happens in the demo, step by step, and how each step is judged.

Which processes there are is left to `hotcold.demo.world`; every order goes the way that `hotcold deploy` and
`hotcold rollback` go.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from checkpoint import Placed
from hotcold.demo.builds import APP, Code
from hotcold.demo.children import DemoFailed
from hotcold.demo.files import slow_mark
from hotcold.demo.host import TIER, Host
from hotcold.demo.outcome import Findings
from hotcold.demo.slowness import marked, upload
from hotcold.demo.stage import STEP_DEADLINE_S, Stage
from hotcold.demo.verdict import Verdict
from hotcold.status_document import Status

FIRST: Final = "1.0"
CHANGE: Final = "1.1"
BAD: Final = "1.2-bad"
REGRETTED: Final = "1.3"
LAST: Final = "1.4"
BUILDS: Final = {build: Code.BROKEN if build == BAD else Code.GOOD for build in (FIRST, CHANGE, BAD, REGRETTED, LAST)}

_TOLD_CHARACTERS: Final = 160
_RESTART_S: Final = 0.3
"""What a service manager takes to notice a dead agent and start it again."""


@dataclass(frozen=True)
class JobStage(Stage):
    """What a step works with.

    Attributes:
        start_load: lets clients ask all hosts from then on.
    """

    findings: Findings
    start_load: Callable[[], Awaitable[object]]

    async def deploy(self, build: str) -> float:
        """Order a build for all hosts; the monotonic time of the order."""
        self._say_ordered(await self.order(build))
        return self.store.put_at_s

    async def roll_back(self) -> float:
        """Order the build before; the monotonic time of the order."""
        self._say_ordered(await self.commander().roll_back(APP, TIER, reason="no good after all", by="the demo"))
        return self.store.put_at_s

    def _say_ordered(self, placed: Placed) -> None:
        before = placed.before.build.id if placed.before is not None else "nothing"
        self.board.say(f"order {placed.order.serial}: {before} → {placed.order.build.id}", "cyan")


async def deploy_first(stage: JobStage) -> None:
    """Step 1: nothing is there yet."""
    ordered_s = await stage.deploy(FIRST)
    await stage.until_all_run(FIRST)
    stage.board.say(f"{FIRST} runs everywhere after {time.monotonic() - ordered_s:.1f} s; clients come in", "green")
    await stage.start_load()


async def deploy_change(stage: JobStage) -> None:
    """Step 2: a change, under load."""
    await _deploy_measured(stage, CHANGE)


async def deploy_bad(stage: JobStage) -> None:
    """Step 3: every host must swap the bad build in, see that it fails, and go back by itself."""
    ordered_s = await stage.deploy(BAD)

    def went_back(host: Host, status: Status) -> bool:
        is_tried = status.state.name == "rolled_back" and status.order is not None and status.order.build == BAD
        is_back = status.hot is not None and status.hot.build == CHANGE
        return is_tried and is_back and not host.pause.exists()

    await stage.until(went_back, f"went back from {BAD} to {CHANGE}")
    tried = stage.flip_times(BAD, ordered_s)
    first = stage.hosts[0].name
    status = stage.board.hosts[first].status
    reason = "" if status is None or status.problem is None else status.problem.message
    stage.findings.bad_build_reverted = len(tried) == len(stage.hosts) and "500" in reason
    stage.board.say(
        f"{BAD} was tried on {len(tried)} hosts, failed its probe, and all went back to {CHANGE} by themselves", "green"
    )
    stage.board.say(f"{first} says why: {_last_attempt(reason)}", "dim")


async def roll_back(stage: JobStage) -> None:
    """Step 4: a build that is healthy, but that somebody regrets."""
    await _deploy_measured(stage, REGRETTED)
    await asyncio.sleep(stage.breath_s)
    ordered_s = await stage.roll_back()
    await stage.until_all_run(CHANGE)
    times_s = stage.flip_times(CHANGE, ordered_s)
    stage.findings.rollback_s.extend(times_s)
    stage.board.say(f"hot was {CHANGE} again {_milliseconds(times_s)} after the order", "green")


async def kill_agents(stage: JobStage) -> None:
    """Step 5: kill -9 in the middle of a deploy: one agent fetching, one draining, one proving."""
    fetching, draining, proving = stage.hosts
    in_hand, sent = asyncio.Event(), asyncio.Event()
    try:
        async with asyncio.timeout(STEP_DEADLINE_S), asyncio.TaskGroup() as group:
            uploading = group.create_task(upload(draining.port, in_hand=in_hand, may_end=sent), name="upload")
            await in_hand.wait()
            with marked(slow_mark(stage.artifact(LAST))) as end_fetch, marked(proving.warming) as end_warming:
                strikes = (
                    _Strike(stage, fetching, "fetching", lambda: _is_filling(fetching, LAST), end_fetch),
                    _Strike(stage, draining, "draining", draining.pause.exists, sent.set),
                    _Strike(stage, proving, "proving", lambda: _leads_to(proving, LAST), end_warming),
                )
                await stage.deploy(LAST)
                await asyncio.gather(*(strike.recover() for strike in strikes))
    except TimeoutError as error:
        raise DemoFailed(f"the deploy of {LAST} never came to where agents were to be killed") from error
    await stage.until_all_run(LAST)
    is_upload_whole = uploading.result() is Verdict.WHOLE
    stage.findings.recovered_after_kill = is_upload_whole and all(strike.found == strike.phase for strike in strikes)
    stage.board.say(f"all three agents went on by themselves; {LAST} runs everywhere", "green")


class _Strike:
    """Kills the agent of a host as soon as `condition` holds.

    Attributes:
        phase: what the agent is to be killed in.
        found: what it was killed in, from what it left on the disk.
    """

    def __init__(
        self, stage: JobStage, host: Host, phase: str, condition: Callable[[], bool], end_slowness: Callable[[], None]
    ) -> None:
        self.phase = phase
        self.found = ""
        self._stage = stage
        self._host = host
        self._end_slowness = end_slowness
        self._done = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        stage.lookout.ambush(condition, self._kill)

    def _kill(self) -> None:
        if self._host.agent is not None:
            self._host.agent.kill()
        self.found = _phase(self._host, LAST)
        self._loop.call_soon_threadsafe(self._done.set)

    async def recover(self) -> None:
        """Wait for the kill, let go what made the moment last, and start the agent again."""
        host, board = self._host, self._stage.board
        await self._done.wait()
        board.say(f"{host.name}: agent killed with -9 while {self.found}", "bold red")
        self._end_slowness()
        if host.agent is not None:
            await host.agent.ended()
        await asyncio.sleep(_RESTART_S)
        await host.start_agent(self._stage.world.children)
        board.say(f"{host.name}: agent started again")


@dataclass(frozen=True)
class Step:
    """One step of the story."""

    title: str
    play: Callable[[JobStage], Awaitable[None]]


STORY: Final = (
    Step("the first deploy, on three bare hosts", deploy_first),
    Step("a change, under load", deploy_change),
    Step("a build that fails its probe", deploy_bad),
    Step("a rollback", roll_back),
    Step("kill -9 in the middle of a deploy", kill_agents),
)


async def tell(stage: JobStage) -> None:
    """Play all steps.

    Raises:
        DemoFailed: a step did not end in time.
        HotcoldError: an order could not be given.
    """
    for number, step in enumerate(STORY, 1):
        stage.board.begin(number)
        await step.play(stage)
        await asyncio.sleep(stage.breath_s)
    stage.board.begin(len(STORY) + 1)


async def _deploy_measured(stage: JobStage, build: str) -> None:
    ordered_s = await stage.deploy(build)
    await stage.until_all_run(build)
    times_s = stage.flip_times(build, ordered_s)
    stage.findings.signal_to_hot_s.extend(times_s)
    stage.board.say(f"hot was {build} {_milliseconds(times_s)} after the order", "green")


def _phase(host: Host, build: str) -> str:
    """What a killed agent was doing, from what it left on the disk. The app is told to pause until the proof."""
    if _leads_to(host, build):
        return "proving" if host.pause.exists() else "steady"
    return "draining" if host.pause.exists() else "fetching"


def _is_filling(host: Host, build: str) -> bool:
    """Whether the release directory of `build` has its first entries."""
    return any(True for release in host.root.glob(f"releases/{build}~*") for _ in release.iterdir())


def _leads_to(host: Host, build: str) -> bool:
    return host.hot.is_symlink() and host.hot.readlink().name.rpartition("~")[0] == build


def _milliseconds(times_s: Iterable[float]) -> str:
    return ", ".join(f"{time_s * 1000:.0f}" for time_s in sorted(times_s)) + " ms"


def _last_attempt(reason: str) -> str:
    """The last attempt in the message of a failed proof; all of it where there is none."""
    found = re.findall(r"attempts? \d+ .*?(?= \| |; look at|$)", reason)
    text = found[-1] if found else reason
    return text if len(text) <= _TOLD_CHARACTERS else f"{text[:_TOLD_CHARACTERS]}…"
