"""Power loss in a model: what the recorded order of writes, renames and syncs allows, hot is whole, and agents go on.

The rules are weaker than any file system's, see `crash_states`.

Recorded are the agent and the process that pulls, in a deploy by change, in both ways of making durable, and in a
rollback.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
import traceback
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from artifact.table import STAT_FIELDS, read_table, stat_of, write_table
from tests.agent_builds import Builds, describe, make_builds, restated
from tests.agent_life import AgentHost, living
from tests.faults.agent_checks import live_on, served
from tests.faults.agent_tracing import Victims, victims
from tests.faults.agent_victim import Task
from tests.faults.crash_states import TRACED, Node, Recorder, State, Sync, write_tree
from tests.faults.sizes import IS_FULL, sampled, sized, tell_tally

pytestmark = pytest.mark.timeout(14400 if IS_FULL else 300)


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def builds(memory: Path) -> Builds:
    return make_builds(memory / "builds", ["b1", "b2", "b3", "b4", "b5"])


@pytest.fixture(scope="module")
def tracer(memory: Path) -> Iterator[Victims]:
    with victims(memory / "victims") as found:
        yield found


async def deploy_before(host: AgentHost, builds: Builds) -> None:
    async with living(host) as life:
        for serial, build_id in enumerate(("b1", "b2", "b3"), 1):
            life.order(serial, builds[build_id])
            await life.until_steady(builds[build_id])


class Lab:
    """A host, and all that happened on it in one life."""

    def __init__(
        self, name: str, *, durability: str, wanted: str, memory: Path, builds: Builds, tracer: Victims
    ) -> None:
        self.builds, self.wanted = builds, wanted
        self.host = AgentHost(memory / name, durability=durability)
        self.host.base.mkdir()
        asyncio.run(deploy_before(self.host, builds))
        restated(self.host.layout.tables, self.host.layout.releases)
        self.recorder = Recorder(self.host.base)
        outcome = tracer.run_recorded(Task(self.host, 4, builds[wanted]), trace=TRACED)
        assert outcome.status == 0
        self.recorder.read(outcome.log)
        _assert_same(self.recorder.live, self.host.base)
        assert served(self.host, builds) == wanted

    def states(self, *, is_synced: bool = True) -> list[State]:
        """Those that differ; without syncs, as if nothing had ever been durable."""
        if not is_synced:
            self.recorder.steps = [step for step in self.recorder.steps if not isinstance(step, Sync)]
        found: dict[tuple[object, ...], State] = {}
        for state in self.recorder.crash_states():
            found.setdefault((state.at == len(self.recorder.steps), state.root.key), state)
        return list(found.values())

    def check(self, state: State, *, is_lived_on: bool) -> None:
        """Put the state on the disk, look at it, and start on it; an agent may live on from there."""
        host = replace(self.host, base=self.host.base.with_name("crashed"))
        write_tree(state.root, host.base)
        try:
            _restate(state.root, host)
            is_done = state.at == len(self.recorder.steps)
            assert served(host, self.builds) in ({self.wanted} if is_done else {"b3", self.wanted})
            if is_lived_on:
                asyncio.run(live_on(host, self.builds, 4, self.wanted, "b5"))
                return
            swapper = host.open()
            disk = swapper.look()
            swapper.close()
            assert disk.problems == ()
            assert disk.standby is not None
            for release in disk.releases:
                assert not release.complete or describe(release.path) == self.builds.described(release.build_id)
        finally:
            shutil.rmtree(host.base)


def _assert_same(node: Node, path: Path) -> None:
    """The control of the recording: the model of what is there at the end is what is there.

    New nodes get the numbers of their inodes here.
    """
    assert path.is_symlink() == (node.kind == "link"), path
    node.inode = path.lstat().st_ino
    if node.kind == "file":
        assert path.read_bytes() == node.data, path
    if node.kind == "directory":
        assert {child.name for child in path.iterdir()} == node.entries.keys(), path
        for name, child in node.entries.items():
            _assert_same(child, path / name)


def _restate(root: Node, host: AgentHost) -> None:
    """Let the tables know the files that they would know: those whose inodes are the ones that were recorded.

    Also where the data was lost, for a file system might keep length and times without them.
    """
    for path in host.layout.tables.iterdir():
        table = read_table(path)
        tree = root.entries["root"].entries["releases"].entries.get(path.name)
        if table is None or table.entries is None or tree is None:
            continue
        stats = array("Q", table.entries.stats)
        for entry, name in enumerate(table.entries.paths):
            node: Node | None = tree
            for part in os.fsdecode(name).split("/"):
                node = None if node is None else node.entries.get(part)
            span = slice(entry * STAT_FIELDS, (entry + 1) * STAT_FIELDS)
            if node is not None and node.inode == stats[span.start]:
                stats[span] = array("Q", stat_of((host.layout.releases / path.name / os.fsdecode(name)).lstat()))
        entries = replace(table.entries, stats=stats, recorded_ns=time.time_ns() + 10**12)
        write_table(path, table.root, table.buckets, entries)


LIVES = {
    "change, syncfs": ("syncfs", "b4"),
    "change, fsync": ("fsync", "b4"),
    "rollback": ("syncfs", "b2"),
}


@pytest.mark.parametrize("name", LIVES)
def test_a_power_loss_after_any_call(name: str, memory: Path, builds: Builds, tracer: Victims) -> None:
    """Whatever was not synced is lost or not: hot is whole, old or new, new once the agent was done; it goes on."""
    durability, wanted = LIVES[name]
    directory = name.replace(", ", "-")
    lab = Lab(directory, durability=durability, wanted=wanted, memory=memory, builds=builds, tracer=tracer)
    states = lab.states()
    tally: Counter[str] = Counter()
    failures = []
    looked_at = sampled(states, 40, name)
    lived_on = {id(state) for state in looked_at[:: sized(5, 10)]}
    for state in looked_at:
        try:
            lab.check(state, is_lived_on=id(state) in lived_on)
        except Exception:  # noqa: BLE001 - all that goes wrong after a power loss is a failure of the test
            step = lab.recorder.steps[state.at - 1] if state.at else None
            failures.append(f"after step {state.at} ({step and step.text}), {state.how}:\n{traceback.format_exc()}")
        tally[state.how.partition(" ")[0].rstrip(",")] += 1
    tell_tally(f"power lost in a model, {name}, of {len(states)} states", tally)
    assert not failures, f"{len(failures)} of {sum(tally.values())}:\n" + "\n".join(failures)


def test_without_syncs_a_power_loss_does_harm(memory: Path, builds: Builds, tracer: Victims) -> None:
    """The control: among the states that were allowed if nothing was ever synced, the same check finds broken ones."""
    lab = Lab("control", durability="syncfs", wanted="b4", memory=memory, builds=builds, tracer=tracer)
    for state in sampled(lab.states(is_synced=False)[::-1], 300, "control"):
        try:
            lab.check(state, is_lived_on=True)
        except Exception:  # noqa: BLE001 - whichever promise it is that breaks first
            return
    pytest.fail("no state was found to be broken, although nothing was ever synced")
