"""Ten thousand deploys in one agent's life: what it holds at the end is what it held soon after the start."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.faults.long_life import Sample
from tests.faults.sizes import IS_FULL, sized, tell_tally

REPOSITORY = Path(__file__).parents[2]
DEPLOYS = sized(10_000, 60)
GROWTH_BYTES = sized(4 << 20, 2 << 20)
"""Of memory, from the second sample to the last: caches settle, and a leak of 1 KiB for each deploy shows."""
THREADS = 12
"""The main one, six for blocking work, and what a resolver and a watcher of children may take."""
GROWTH_OBJECTS = 500
"""Of objects of Python's: a leak of one for each ten deploys shows in the full run."""

pytestmark = pytest.mark.timeout(6 * 3600 if IS_FULL else 300)


@pytest.fixture
def memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as directory:
        yield Path(directory)


def test_nothing_grows_with_the_number_of_deploys(memory: Path) -> None:
    """Descriptors, threads, tasks, children, files: the same. Memory: flat. Each deploy is a pull by change."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.long_life", str(memory), str(DEPLOYS)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    samples = msgspec.json.decode(done.stdout, type=list[Sample])
    tell_tally(
        f"{DEPLOYS} deploys in one life",
        {"KiB at first": samples[1].memory_bytes >> 10, "KiB at the end": samples[-1].memory_bytes >> 10},
    )
    assert samples[-1].deploys == DEPLOYS
    for what in ("descriptors", "tasks", "children", "files", "state_files"):
        seen = [getattr(sample, what) for sample in samples[1:]]
        assert len(set(seen)) == 1, (what, seen)
    # Threads are started when they are first needed, up to the number that the pools have.
    assert max(sample.threads for sample in samples) <= THREADS, samples
    assert samples[-1].memory_bytes - samples[1].memory_bytes <= GROWTH_BYTES, samples
    assert samples[-1].objects - samples[1].objects <= GROWTH_OBJECTS, samples
