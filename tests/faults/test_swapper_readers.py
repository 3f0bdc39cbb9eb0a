"""Readers that never pause while hot is swapped thousands of times: none fails, none sees two builds at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swapper import LINUX, Kernel
from tests.faults.sizes import IS_FULL, sized, tell_tally
from tests.swapper_host import Host, OldKernel

SWAPS = sized(10_000, 500)
READERS = 8

pytestmark = pytest.mark.timeout(3600 if IS_FULL else 120)

READER = """
import os, signal, sys
hot = sys.argv[1]
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
seen, reads, failed, mixed = set(), 0, 0, 0
def read(name, directory):
    fd = os.open(name, os.O_RDONLY, dir_fd=directory)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)
os.write(1, b"ready\\n")
while not stopped:
    try:
        target = os.readlink(hot)
        directory = os.open(hot, os.O_RDONLY | os.O_DIRECTORY)
        try:
            one, two = read("one", directory), read("sub/two", directory)
        finally:
            os.close(directory)
        read(hot + "/one", None)
        mixed += one != two
        seen.add(one)
    except OSError:
        failed += 1
    reads += 1
print(reads, failed, mixed, len(seen))
"""


class Readers:
    """What the processes saw, summed up after they stopped."""

    reads = failed = mixed = 0
    builds_seen = 0


@contextmanager
def reading(hot: Path) -> Iterator[Readers]:
    """Read through `hot` in several processes until the block ends."""
    processes = [
        subprocess.Popen([sys.executable, "-c", READER, str(hot)], stdout=subprocess.PIPE, text=True)
        for _ in range(READERS)
    ]
    seen = Readers()
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield seen
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            reads, failed, mixed, builds = map(int, process.communicate(timeout=20)[0].split())
            seen.reads += reads
            seen.failed += failed
            seen.mixed += mixed
            seen.builds_seen = max(seen.builds_seen, builds)


def make_two_builds(base: Path, kernel: Kernel) -> Host:
    host = Host(base, kernel)
    swapper = host.open()
    host.deploy(swapper, "old")
    host.deploy(swapper, "new")
    swapper.close()
    return host


@pytest.mark.parametrize("kernel", [LINUX, OldKernel()], ids=["exchange", "rename"])
def test_no_reader_fails_or_sees_two_builds_during_thousands_of_swaps(tmp_path: Path, kernel: Kernel) -> None:
    """Each way of swapping: readlink, opening the directory and opening a file through hot never fail."""
    host = make_two_builds(tmp_path, kernel)
    swapper = host.open()
    with reading(host.layout.hot) as seen:
        for _ in range(SWAPS):
            standby = swapper.look().standby
            assert standby is not None
            swapper.swap_in(standby)
    swapper.close()
    tell_tally(f"swaps under {READERS} readers", {"swaps": SWAPS, "reads": seen.reads})
    assert seen.reads > SWAPS
    assert (seen.failed, seen.mixed) == (0, 0)
    assert seen.builds_seen == 2
    host.assert_sound()


def _swap_by_hand(hot: Path, target: str) -> None:
    hot.unlink()
    hot.symlink_to(target)


def test_the_readers_do_notice_a_swap_that_is_not_atomic(tmp_path: Path) -> None:
    """The control: removing the link and making it anew, as `rm hot && ln -s` does, is seen by the same readers."""
    host = make_two_builds(tmp_path, LINUX)
    with reading(host.layout.hot) as seen:
        for number in range(20_000):  # so many, for each takes only microseconds
            _swap_by_hand(host.layout.hot, ("releases/old~1", "releases/new~2")[number % 2])
    assert seen.failed > 0


def test_a_release_is_never_hot_before_it_is_filled(tmp_path: Path) -> None:
    """Whole deploys, from an empty directory on, under the same readers."""
    host = make_two_builds(tmp_path, LINUX)
    swapper = host.open()
    with reading(host.layout.hot) as seen:
        for number in range(30):
            host.deploy(swapper, f"b{number}")
    swapper.close()
    assert (seen.failed, seen.mixed) == (0, 0)
    assert seen.builds_seen > 2
    host.assert_sound()
