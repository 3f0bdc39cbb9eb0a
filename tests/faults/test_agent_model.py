"""Any sequence of orders, re-pulls, rollbacks, crashes, full disks, meddling and pins: what an agent promises holds.

The agent is the real one, as in `agent_life`; so are the builds and the process that pulls. The model knows what was
ordered, which trees somebody meddled with, and which must not go.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent.states import BackingOff, BuildRefused, RolledBack, Steady
from tests.agent_builds import BAD, Builds, describe, make_builds
from tests.agent_life import AgentHost, Life, living
from tests.faults.sizes import IS_FULL, sized
from tests.swapper_host import FailingKernel

pytestmark = pytest.mark.timeout(14400 if IS_FULL else 300)

GOOD = ("b1", "b2", "b3", "b4")
BUILD_IDS = (*GOOD, "bad1", "bad2")
FULL = ("symlink", "fsync releases", "syncfs", "fsync state")
"""Calls that fail while the disk is full: at aiming a link, taking a tree over, making durable, remembering."""
_Result = TypeVar("_Result")


class Agents(RuleBasedStateMachine):
    """One host; `wanted` is the last order's build, `serial` its serial."""

    builds: Builds
    directory: Path

    @initialize(durability=st.sampled_from(["syncfs", "fsync"]), keep=st.sampled_from([2, 3]))
    def start(self, durability: str, keep: int) -> None:
        self.loop = asyncio.new_event_loop()
        base = Path(tempfile.mkdtemp(dir=self.directory))
        probe = (
            f'[probe]\ncommand = ["test", "!", "-e", "{base}/root/hot/{BAD}"]\ninterval_s = 0.01\ndeadline_s = 0.05\n'
        )
        self.host = AgentHost(base, keep=keep, durability=durability, probe=probe)
        self.kernel = FailingKernel()
        self.serial = 0
        self.wanted: str | None = None
        self.proved: set[str] = set()
        self.meddled: set[Path] = set()
        self.lived_in: dict[Path, subprocess.Popen[bytes]] = {}
        self.pinned: set[Path] = set()
        self._enter()

    # --- orders -----------------------------------------------------------------------------------------------------

    @rule(build_id=st.sampled_from(BUILD_IDS))
    def order(self, build_id: str) -> None:
        """A deploy, or a rollback where that build was there before."""
        self._order(build_id)
        self._come_to_rest()

    @precondition(lambda self: self.wanted is not None)
    @rule()
    def force(self) -> None:
        """A re-pull of what is ordered: also a refused build is tried again, and refused again."""
        swaps = self.life.workshop.observed.swap_count
        self.life.repull()
        self._do(self.life.until("pulled again", lambda s: not s.model.facts.is_repull_wanted and self._is_at_rest(s)))
        assert self.life.workshop.observed.swap_count > swaps
        self._learn()

    @rule()
    def roll_back(self) -> None:
        """To the standby: without a pull."""
        standby = self.life.disk().standby
        if standby is None or standby.build_id not in GOOD or standby.digest != self.builds[standby.build_id].digest:
            return
        self._order(standby.build_id)
        self._come_to_rest()
        assert self._hot().resolve() in {standby.path, *(r.path for r in self.life.disk().releases)}

    @rule(build_id=st.sampled_from(BUILD_IDS), ticks=st.integers(0, 400))
    def order_and_crash(self, build_id: str, ticks: int) -> None:
        """The agent is cut off somewhere in between, and the next one goes on."""
        self._order(build_id)
        self._do(_tick(ticks))
        self._exit()
        self._enter()
        self.life.order(self.serial, self.builds[build_id])
        self._come_to_rest()

    @precondition(lambda self: self.wanted is not None)
    @rule()
    def restart(self) -> None:
        """Nothing changes; above all, a refused build does not return."""
        before = self._hot().resolve() if self._hot().is_symlink() else None
        is_refused = isinstance(self.life.situation.model.state, RolledBack | BuildRefused)
        self._exit()
        self._enter()
        assert self.wanted is not None
        self.life.order(self.serial, self.builds[self.wanted])
        self._come_to_rest()
        if is_refused:
            assert self.life.workshop.observed.swap_count == 0
            assert isinstance(self.life.situation.model.state, RolledBack | BuildRefused)
            assert self._hot().resolve() == before

    @rule(build_id=st.sampled_from(GOOD), call=st.sampled_from(FULL))
    def order_on_a_full_disk(self, build_id: str, call: str) -> None:
        """Until there is room, what serves goes on serving; then the deploy ends."""
        before = self._hot().resolve() if self._hot().is_symlink() else None
        self.kernel.failing[call] = errno.ENOSPC
        self._order(build_id)
        self._do(self.life.until_tried(self.serial))
        if isinstance(self.life.situation.model.state, BackingOff):
            assert (self._hot().resolve() if self._hot().is_symlink() else None) == before
        del self.kernel.failing[call]
        self._come_to_rest()

    # --- what others do ---------------------------------------------------------------------------------------------

    @rule(data=st.data(), what=st.sampled_from(["change", "remove", "add", "mode"]))
    def meddle_with_a_tree(self, data: st.DataObject, what: str) -> None:
        """Somebody changes a tree that does not serve. It may serve later as it is; nothing of it gets into another."""
        trees = [release.path for release in self._not_hot()]
        if not trees:
            return
        tree = data.draw(st.sampled_from(trees))
        files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
        path = data.draw(st.sampled_from(files))
        match what:
            case "change":
                path.write_bytes(b"meddled")
            case "remove":
                path.unlink()
            case "add":
                path.with_name("added").write_text("meddled")
            case _:
                path.chmod(0o600)
        self.meddled.add(tree)

    @rule(
        what=st.sampled_from(["drop cold", "aim cold", "temporary link", "foreign tree", "torn tables", "no tables"]),
        data=st.data(),
    )
    def meddle_with_the_rest(self, what: str, data: st.DataObject) -> None:
        """Somebody changes links, tables, or puts things of their own there."""
        layout = self.host.layout
        match what:
            case "drop cold":
                layout.cold.unlink(missing_ok=True)
            case "aim cold" if self.life.disk().releases:
                release = data.draw(st.sampled_from([each.name for each in self.life.disk().releases]))
                layout.cold.unlink(missing_ok=True)
                layout.cold.symlink_to(f"releases/{release}")
            case "temporary link":
                (layout.root / ".hot.new").unlink(missing_ok=True)
                (layout.root / ".hot.new").symlink_to("nowhere")
            case "foreign tree":
                (layout.releases / "theirs").mkdir(exist_ok=True)
            case "torn tables":
                for path in layout.tables.iterdir():
                    path.write_bytes(path.read_bytes()[:-7])
            case "no tables":
                for path in layout.tables.iterdir():
                    path.unlink()

    @rule(data=st.data())
    def live_in(self, data: st.DataObject) -> None:
        """A process works in some tree, and goes on doing so."""
        trees = [release.path for release in self.life.disk().releases if release.path not in self.lived_in]
        if trees and not self.lived_in:
            tree = data.draw(st.sampled_from(trees))
            self.lived_in[tree] = subprocess.Popen(["sleep", "600"], cwd=tree)

    @precondition(lambda self: self.lived_in)
    @rule()
    def leave(self) -> None:
        """It ends."""
        _, process = self.lived_in.popitem()
        process.kill()
        process.wait()

    @rule(build_id=st.sampled_from(GOOD))
    def pin(self, build_id: str) -> None:
        """The operator pins a build instead of the one before, and restarts the agent."""
        self._exit()
        self.host = replace(self.host, pinned=(build_id,))
        self._enter()
        if self.wanted is not None:
            self.life.order(self.serial, self.builds[self.wanted])
            self._come_to_rest()
        self.pinned = {release.path for release in self.life.disk().releases if release.build_id == build_id}

    # --- what holds -------------------------------------------------------------------------------------------------

    @invariant()
    def hot_is_whole(self) -> None:
        """It is complete, and every file in it is that of its build."""
        disk = self.life.disk()
        assert (disk.hot is None) == (not self._hot().is_symlink())
        if disk.hot is not None:
            assert disk.hot.complete
            assert self._hot().resolve(strict=True) == disk.hot.path
            if disk.hot.path not in self.meddled:
                assert describe(disk.hot.path) == self.builds.described(disk.hot.build_id)

    @invariant()
    def what_is_needed_is_there(self) -> None:
        """Trees that are pinned or lived in stay; so does one to go back to, once there were two good builds."""
        for tree in (*self.pinned, *self.lived_in):
            assert tree.is_dir(), tree
        assert self.life.disk().standby is not None or len(self.proved) < 2

    @invariant()
    def the_agent_knows_what_is_there(self) -> None:
        """What the status would say of hot and standby is what the disk says."""
        facts, disk = self.life.situation.model.facts, self.life.disk()
        assert (facts.hot and facts.hot.name) == (disk.hot and disk.hot.name)
        if self.wanted is not None:
            assert (facts.standby and facts.standby.name) == (disk.standby and disk.standby.name)
        if disk.hot is not None and disk.hot.build_id.startswith(BAD):
            # Only where there was nothing to go back to.
            assert isinstance(self.life.situation.model.state, BuildRefused)
            assert disk.standby is None

    def teardown(self) -> None:
        """End it all."""
        if hasattr(self, "loop"):
            self._exit()
            self.loop.close()
            for process in self.lived_in.values():
                process.kill()
                process.wait()
            shutil.rmtree(self.host.base)

    # --- the rest ---------------------------------------------------------------------------------------------------

    def _order(self, build_id: str) -> None:
        self.serial += 1
        self.wanted = build_id
        self.life.order(self.serial, self.builds[build_id])

    def _come_to_rest(self) -> None:
        situation = self._do(self.life.until_at_rest(self.serial))
        assert self.wanted is not None
        assert isinstance(situation.model.state, Steady) == (self.wanted in GOOD), situation
        if self.wanted in GOOD:
            assert situation.model.facts.hot is not None
            assert situation.model.facts.hot.build_id == self.wanted
        self._learn()

    def _learn(self) -> None:
        hot = self.life.disk().hot
        if hot is not None and hot.proved:
            self.proved.add(hot.name)
        self.pinned |= {each.path for each in self.life.disk().releases if each.build_id in self.host.pinned}
        self.meddled &= {each.path for each in self.life.disk().releases}

    def _is_at_rest(self, situation: Any) -> bool:
        return isinstance(situation.model.state, Steady | RolledBack | BuildRefused)

    def _hot(self) -> Path:
        return self.host.layout.hot

    def _not_hot(self) -> list[Any]:
        disk = self.life.disk()
        return [release for release in disk.releases if release != disk.hot]

    def _enter(self) -> None:
        self._context: AbstractAsyncContextManager[Life] = living(self.host, kernel=self.kernel)
        self.life = self._do(self._context.__aenter__())

    def _exit(self) -> None:
        self._do(self._context.__aexit__(None, None, None))

    def _do(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return self.loop.run_until_complete(work)


async def _tick(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0.001)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as path:
        yield Path(path)


def test_any_sequence(directory: Path) -> None:
    """Hypothesis looks for a sequence after which a promise is broken."""
    Agents.builds = make_builds(directory / "builds", BUILD_IDS)
    Agents.directory = directory
    run_state_machine_as_test(
        Agents,
        settings=settings(
            max_examples=sized(120, 4),
            stateful_step_count=sized(25, 8),
            deadline=None,
            database=None,
            derandomize=not IS_FULL,
            suppress_health_check=list(HealthCheck),
        ),
    )
