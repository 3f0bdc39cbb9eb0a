"""A kill, or an error, at every system call of a whole agent's work: what is left, and that it ends as it should.

Struck are the agent (the thread of its loop and the one for blocking work) and the process that pulls for it, each with
the real code, on what a host looks like before a first deploy, a deploy by change, a rollback, a re-pull, a clean-up,
and before going on with a pull that was interrupted. `make test` takes a sample, `make faults` everything.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import re
import shutil
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.agent_builds import Builds, make_builds, restated
from tests.agent_life import AgentHost, living
from tests.faults.agent_checks import live_on, served
from tests.faults.agent_tracing import CHANGING, LOOKING, Outcome, Point, Side, Victims, victims
from tests.faults.agent_victim import STARTED_NOT, Task
from tests.faults.sizes import IS_FULL, sampled, tell_tally

pytestmark = pytest.mark.timeout(7200 if IS_FULL else 300)


@dataclass(frozen=True)
class Scenario:
    """One thing that an agent does.

    Attributes:
        name: of it.
        deployed: what was before, in this order.
        wanted: what is ordered.
        is_repull: it is asked for anew.
        keep_before, keep: how many trees stay, before and now.
        is_resumed: an earlier agent was killed while it pulled.
        is_linked: nobody writes into trees, so that what two of them have is linked.
        phases: of calls, by which the tally shows that the points lie where the work is; by side.
    """

    name: str
    deployed: tuple[str, ...]
    wanted: str
    is_repull: bool = False
    keep_before: int = 3
    keep: int = 3
    is_resumed: bool = False
    is_linked: bool = False
    sides: tuple[Side, ...] = ("agent", "puller")
    phases: frozenset[str] = frozenset()


_DEPLOY = frozenset({"record", "the swap", "aiming cold", "counter and lock", "making durable", "tree", "table"})
SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("first", (), "b1", phases=_DEPLOY | {"release directory"}),
        Scenario("change", ("b1", "b2", "b3"), "b4", phases=_DEPLOY | {"release directory"}),
        Scenario("rollback", ("b1", "b2", "b3"), "b2", sides=("agent",), phases=frozenset({"the swap", "record"})),
        Scenario("repull", ("b1", "b2", "b3"), "b3", is_repull=True, phases=_DEPLOY | {"removal"}),
        Scenario(
            "cleanup",
            ("b1", "b2", "b3", "b4"),
            "b4",
            keep_before=4,
            keep=2,
            sides=("agent",),
            phases=frozenset({"removal", "record"}),
        ),
        Scenario("resumed", ("b1", "b2", "b3"), "b4", is_resumed=True, phases=_DEPLOY),
        Scenario("linked", ("b1", "b2"), "b4", is_linked=True, phases=_DEPLOY | {"release directory"}),
    )
}
SIDES = [(scenario.name, side) for scenario in SCENARIOS.values() for side in scenario.sides]
NEXT = "b5"
_NUMBERS = itertools.count()

_MAKING = (
    r"^(?:mkdir|rename|link|symlink|write|pwrite64|fsync|fdatasync|syncfs|ftruncate|fchmod|utimens|ioctl|open.*O_CREAT)"
)
_CHANGING = r"^(?:mkdir|rename|link|symlink|unlink|rmdir|ftruncate|fchmod|chmod|utimens|open.*O_(?:WRONLY|RDWR))"
ERRORS = {
    "ENOSPC": _MAKING,
    "EDQUOT": _MAKING,
    "EROFS": _CHANGING,
    "EMFILE": r"^open",
    "EIO": r"",
}
"""Which calls can fail so."""
SAMPLED_ERROR = dict(
    zip(
        SIDES,
        ("ENOSPC", "EIO", "EIO", "ENOSPC", "EROFS", "EMFILE", "EIO", "EDQUOT", "EIO", "EROFS", "ENOSPC", "EDQUOT"),
        strict=True,
    )
)


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A directory in memory if there is such: a thousand deploys need no device, for a kill is no power loss."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def builds(memory: Path) -> Builds:
    return make_builds(memory / "builds", ["b1", "b2", "b3", "b4", "b5"])


@pytest.fixture(scope="module")
def tracer(memory: Path) -> Iterator[Victims]:
    with victims(memory / "victims") as found:
        yield found


class Trials:
    """One scenario, over and over on copies of the same host."""

    def __init__(self, scenario: Scenario, memory: Path, builds: Builds, tracer: Victims) -> None:
        self.scenario = scenario
        self.builds = builds
        self._tracer = tracer
        self._memory = memory
        self._template = AgentHost(
            memory / scenario.name, keep=scenario.keep_before, trees_are_read_only=scenario.is_linked
        )
        if not self._template.base.exists():
            self._template.base.mkdir()
            asyncio.run(self._deploy_before())
            if scenario.is_resumed:
                self._interrupt()

    async def _deploy_before(self) -> None:
        async with living(self._template) as life:
            for serial, build_id in enumerate(self.scenario.deployed, 1):
                life.order(serial, self.builds[build_id])
                await life.until_steady(self.builds[build_id])

    def _interrupt(self) -> None:
        """Kill an agent in the middle of the changes that a pull makes."""
        outcome = self._tracer.run(
            self._task(self._template),
            "puller",
            trace=CHANGING,
            inject="utimensat:signal=STOP:when=4",
            is_agent_killed=True,
        )
        assert outcome.is_hit

    def host(self) -> AgentHost:
        """A fresh copy."""
        host = replace(
            self._template, base=self._memory / f"trial-{self.scenario.name}-{next(_NUMBERS)}", keep=self.scenario.keep
        )
        shutil.copytree(self._template.base, host.base, symlinks=True)
        if host.layout.tables.exists():
            restated(host.layout.tables, host.layout.releases)
        return host

    def run(
        self, host: AgentHost, side: Side, trace: str, inject: str | None = None, *, is_agent_killed: bool = False
    ) -> Outcome:
        return self._tracer.run(self._task(host), side, trace=trace, inject=inject, is_agent_killed=is_agent_killed)

    def points(self, side: Side, trace: str) -> list[Point]:
        """All points of a run that nothing disturbs."""
        host = self.host()
        outcome = self.run(host, side, trace)
        assert outcome.status == 0
        points = outcome.points(host.base)
        assert served(host, self.builds) == self.scenario.wanted
        shutil.rmtree(host.base)
        return points

    def _task(self, host: AgentHost) -> Task:
        serial = len(self.scenario.deployed) + 1
        if self.scenario.name == "cleanup":
            serial -= 1  # the same order: nothing but the clean-up is to be done
        return Task(host, serial, self.builds[self.scenario.wanted], self.scenario.is_repull)

    def check(self, host: AgentHost, *, allowed: set[str | None]) -> None:
        """Hot is whole; the next agent does what is ordered; the deploy after that works; nothing is left over."""
        assert served(host, self.builds) in allowed
        task = self._task(host)
        asyncio.run(live_on(host, self.builds, task.serial, self.scenario.wanted, NEXT))


@dataclass(frozen=True)
class Blow:
    """One fault at one point.

    Attributes:
        inject: as strace takes it.
        statuses: with which the agent may end.
        is_agent_killed: at the moment at which the injection stops the process that pulls.
    """

    point: Point
    inject: str
    statuses: frozenset[int]
    is_agent_killed: bool = False


def strike(name: str, trials: Trials, side: Side, trace: str, blows: Sequence[Blow]) -> None:
    """Carry out each blow on a host of its own, and check what is left. All are tried before the test fails."""
    tally: Counter[str] = Counter()
    failures = []
    for blow in blows:
        host = trials.host()
        outcome = trials.run(host, side, trace, blow.inject, is_agent_killed=blow.is_agent_killed)
        if not outcome.is_hit:
            tally["missed"] += 1  # threads share the work otherwise each time
        else:
            tally[blow.point.phase] += 1
            status = os.waitstatus_to_exitcode(outcome.status)
            try:
                assert status in blow.statuses
                trials.check(host, allowed={trials.scenario.wanted} if status == 0 else old_or_new(trials.scenario))
            except Exception:  # noqa: BLE001 - all that goes wrong after a fault is a failure of the test
                failures.append(f"{blow.inject} at {blow.point}:\n{traceback.format_exc()}")
        shutil.rmtree(host.base)
    tell_tally(name, tally)
    assert not failures, f"{len(failures)} of {len(blows)}:\n" + "\n".join(failures)
    missed = tally.pop("missed", 0)
    assert missed <= max(2, len(blows) // 10)
    if IS_FULL:
        assert tally.keys() == {blow.point.phase for blow in blows}


def old_or_new(scenario: Scenario) -> set[str | None]:
    return {scenario.deployed[-1] if scenario.deployed else None, scenario.wanted}


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_a_kill_at_any_call(name: str, side: Side, memory: Path, builds: Builds, tracer: Victims) -> None:
    """kill -9 before each changing call: hot is old or new and whole, the next start goes on, nothing is left over.

    Where the process that pulls is struck, once it is killed alone, and its agent tries again; once the agent is killed
    at that moment.
    """
    trials = Trials(SCENARIOS[name], memory, builds, tracer)
    points = trials.points(side, CHANGING)
    blows = []
    for number, point in enumerate(sampled(points, 4, f"{name} {side}")):
        inject = f"{point.kind}:signal={{}}:when={point.number}"
        if side == "agent":
            blows.append(Blow(point, inject.format("KILL"), frozenset({-signal.SIGKILL})))
            continue
        if IS_FULL or number % 2:
            blows.append(Blow(point, inject.format("KILL"), frozenset({0})))
        if IS_FULL or not number % 2:
            blows.append(Blow(point, inject.format("STOP"), frozenset({-signal.SIGKILL}), is_agent_killed=True))
    strike(f"killed, {name}, {side}", trials, side, CHANGING, blows)


@pytest.mark.parametrize(
    ("name", "side", "error"),
    [(*each, error) for each in SIDES for error in ERRORS]
    if IS_FULL
    else [(*each, error) for each, error in SAMPLED_ERROR.items()],
)
def test_an_error_at_any_call(  # noqa: PLR0917 - fixtures
    name: str, side: Side, error: str, memory: Path, builds: Builds, tracer: Victims
) -> None:
    """Each call fails once: the agent tries again and ends on what was ordered, or does not start and says why.

    No such error is ever taken for the build's fault, which would refuse it.
    """
    trials = Trials(SCENARIOS[name], memory, builds, tracer)
    trace = f"{CHANGING},{LOOKING}"
    points = [point for point in trials.points(side, trace) if re.match(ERRORS[error], point.text)]
    blows = [
        Blow(point, f"{point.kind}:error={error}:when={point.number}", frozenset({0, STARTED_NOT}))
        for point in sampled(points, 3, f"{name} {side} {error}")
    ]
    strike(f"{error}, {name}, {side}", trials, side, trace, blows)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_points_lie_in_every_phase(name: str, memory: Path, builds: Builds, tracer: Victims) -> None:
    """The control: calls of every phase that this work has are among those that are struck."""
    scenario = SCENARIOS[name]
    trials = Trials(scenario, memory, builds, tracer)
    points = [point for side in scenario.sides for point in trials.points(side, CHANGING)]
    assert scenario.phases <= {point.phase for point in points}
    assert all(error in errno.errorcode.values() for error in ERRORS)


def test_linked_trees_are_linked(memory: Path, builds: Builds, tracer: Victims) -> None:
    """The control: what the builds have in common is one file, so that the points above lie among links."""
    trials = Trials(SCENARIOS["linked"], memory, builds, tracer)
    host = trials.host()
    outcome = trials.run(host, "puller", CHANGING)
    assert any(point.kind in {"link", "linkat"} for point in outcome.points(host.base))
    shutil.rmtree(host.base)
