"""Power loss on real file systems: what is left on the device at every flush, and what the next agent makes of it.

All writes and flushes of a deploy by change and of a rollback are recorded in the order in which they reached the
device. A state that a power loss can leave is: everything up to some flush, and any part of what was written since, in
pieces of 4 KiB, for a device reorders what is in its cache. Each state is mounted, so that the file system recovers as
after a power loss; then hot must be whole, old or new, new if the deploy was said to be done; and the next agent must
go on. The control does the same with an agent whose fsync and syncfs do nothing, and must fail.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.agent_builds import Builds, make_builds, restated
from tests.agent_life import AgentHost, living
from tests.faults.agent_checks import live_on, served
from tests.faults.agent_tracing import Victims, victims
from tests.faults.agent_victim import Task
from tests.faults.recording_disk import (
    Event,
    Flush,
    Mark,
    RecordingDisk,
    Write,
    make_file_system,
    mounted_image,
    recorded,
    require,
)
from tests.faults.sizes import IS_FULL, sampled, tell_tally

pytestmark = [pytest.mark.root, pytest.mark.timeout(7200 if IS_FULL else 300)]

PIECE_BYTES = 4096
DEPLOYED, WENT_BACK = "b4", "b3"
KINDS = ("ext4", "xfs", "btrfs")


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


@dataclass(frozen=True)
class Crash:
    """A state of the device: all `durable` events, and some pieces of the later ones.

    Attributes:
        durable: so many events, the last of which is a flush.
        later: the events after it that have begun.
        kept: `all`, `none`, or a seed by which each piece is kept or lost.
        promised: what was said to be done by then.
    """

    durable: int
    later: range
    kept: str
    promised: str | None


class Lab:
    """One kind of file system with a host on it, and the log of what was done there."""

    def __init__(self, kind: str, durability: str, directory: Path, builds: Builds) -> None:
        self.kind = kind
        self.builds = builds
        self._directory = directory
        self._mounted = directory / "mounted"
        self._mounted.mkdir(parents=True)
        self._base = directory / "base"
        self.host = AgentHost(self._mounted / "host", durability=durability)
        make_file_system(kind, self._base)
        with mounted_image(kind, self._base, self._mounted):
            asyncio.run(self._deploy_before())
            restated(self.host.layout.tables, self.host.layout.releases)
        self.log: Sequence[Event] = ()

    async def _deploy_before(self) -> None:
        self.host.base.mkdir()
        async with living(self.host) as life:
            for serial, build_id in enumerate(("b1", "b2", "b3"), 1):
                life.order(serial, self.builds[build_id])
                await life.until_steady(self.builds[build_id])

    def record(self, tracer: Victims, *, is_durable: bool = True) -> None:
        """A deploy by change, then a rollback; without durability, fsync and syncfs return at once."""
        image = self._directory / "recorded"
        shutil.copyfile(self._base, image)
        with recorded(self.kind, image, self._mounted, self._directory) as disk:
            for serial, build_id in ((4, DEPLOYED), (5, WENT_BACK)):
                task = Task(self.host, serial, self.builds[build_id])
                if is_durable:
                    assert tracer.run_undisturbed(task) == 0
                else:
                    calls = "fsync,syncfs,fdatasync"
                    assert tracer.run(task, "agent", trace=calls, inject=f"{calls}:retval=0").status == 0
                disk.mark(build_id)
            if not is_durable:
                _await_flush(disk)
        self.log = tuple(disk.log)
        image.unlink()

    def crashes(self) -> Iterator[Crash]:
        """For each flush: just after it; all until the next, none of it, and some of it."""
        promised = None
        ends = [number for number, event in enumerate(self.log) if isinstance(event, Flush)]
        for durable, end in zip((-1, *ends), (*ends, len(self.log)), strict=True):
            later = range(durable + 1, end)
            marks = [event.text for event in self.log[durable + 1 : end] if isinstance(event, Mark)]
            yield Crash(durable + 1, later, "none", promised)
            if any(isinstance(self.log[number], Write) for number in later):
                for kept in ("all", f"some {durable}", f"others {durable}"):
                    yield Crash(durable + 1, later, kept, promised)
            promised = marks[-1] if marks else promised

    def check(self, crash: Crash) -> None:
        """Make the state, mount it, look at it, and let an agent live on."""
        image = self._directory / "crashed"
        shutil.copyfile(self._base, image)
        chance = random.Random(crash.kept)
        with image.open("r+b") as file:
            for event in self.log[: crash.durable]:
                _apply(file.fileno(), event, lambda: True)
            if crash.kept != "none":
                for number in crash.later:
                    _apply(file.fileno(), self.log[number], lambda: crash.kept == "all" or chance.random() < 0.5)
        with mounted_image(self.kind, image, self._mounted):
            found = served(self.host, self.builds)
            assert (
                found
                in {None: {"b3", DEPLOYED}, DEPLOYED: {DEPLOYED, WENT_BACK}, WENT_BACK: {WENT_BACK}}[crash.promised]
            )
            # The order that counts is the key's, not the disk's.
            serial, wanted = (4, DEPLOYED) if crash.promised is None else (5, WENT_BACK)
            asyncio.run(live_on(self.host, self.builds, serial, wanted, "b5"))
        image.unlink()


def _await_flush(disk: RecordingDisk) -> None:
    """Wait until the file system commits its journal by itself, which it does once a second."""
    known, ends_s = len(disk.log), time.monotonic() + 20
    while time.monotonic() < ends_s and not any(isinstance(event, Flush) for event in disk.log[known:]):
        time.sleep(0.05)


def _apply(fd: int, event: Event, is_kept: object) -> None:
    assert callable(is_kept)
    if not isinstance(event, Write):
        return
    for start in range(0, len(event.data), PIECE_BYTES):
        if is_kept():
            os.pwrite(fd, event.data[start : start + PIECE_BYTES], event.offset + start)


@pytest.mark.parametrize(
    ("kind", "durability"),
    [
        (kind, durability)
        for kind in KINDS
        for durability in ("syncfs", "fsync")
        if IS_FULL or kind == "ext4" or durability == "syncfs"
    ],
)
def test_a_power_loss_at_any_flush(kind: str, durability: str, memory: Path, builds: Builds, tracer: Victims) -> None:
    """Whatever the device had not flushed is lost or not: hot is whole, a deploy that was done stays done."""
    require(kind)
    lab = Lab(kind, durability, memory / f"{kind}-{durability}", builds)
    lab.record(tracer)
    tally: Counter[str] = Counter()
    for crash in sampled(list(lab.crashes()), 5 if kind == "ext4" else 3, f"{kind} {durability}"):
        try:
            lab.check(crash)
        except Exception as error:
            raise AssertionError(f"{kind}, {durability}: {crash}") from error
        tally[f"{crash.kept.partition(' ')[0]} of the unflushed, {crash.promised or 'before the end'}"] += 1
    tell_tally(f"power lost, {kind}, {durability}", tally)


def test_without_flushes_a_power_loss_does_harm(memory: Path, builds: Builds, tracer: Victims) -> None:
    """The control: an agent whose fsync and syncfs do nothing leaves states that the same check finds to be broken."""
    require("ext4")
    lab = Lab("ext4", "syncfs", memory / "control", builds)
    lab.record(tracer, is_durable=False)
    for crash in lab.crashes():
        try:
            lab.check(crash)
        except Exception:  # noqa: BLE001 - whichever promise it is that breaks first
            return
    pytest.fail("no state of the device was found to be broken, although nothing was ever flushed")
