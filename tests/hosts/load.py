"""Owns load on a site, by wrk, which checks every answer; what the counts must be is left to the tests."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from tests.hosts.lab import MORTAL
from tests.hosts.site import PARTS

CONNECTIONS: Final = 8
_LONGEST_S: Final = 3600
_SCRIPT: Final = Path(__file__).with_name("load.lua")


class Counts(msgspec.Struct, frozen=True):
    """What became of the requests.

    Attributes:
        answers: how many came.
        failed: had a status other than 200, or were not whole.
        mixed: told of more than one build.
        stale: told of an older build than the answer before on the same connection.
        broken: connections that could not be made, broke, or had no answer in time.
        builds: how many builds one connection has seen, at most.
        seconds: how long it took.
        p99_ms: the 99th percentile of the time to an answer.
        example: one answer that should not have been.
    """

    answers: int
    failed: int
    mixed: int
    stale: int
    broken: int
    builds: int
    seconds: float
    p99_ms: float
    example: str


@dataclass
class Load:
    """Load under way; `counts` when it has ended."""

    counts: Counts | None = None

    @property
    def result(self) -> Counts:
        """The counts."""
        assert self.counts is not None, "the load has not ended"
        return self.counts


@contextmanager
def under_load(url: str) -> Iterator[Load]:
    """Ask for a page as often as it is answered, on connections that are kept, until the block ends.

    A thread of wrk for each connection, so that what one connection sees can be told in its order.
    """
    threads = [f"-t{CONNECTIONS}", f"-c{CONNECTIONS}", f"-d{_LONGEST_S}s", "--timeout", "30s"]
    load = Load()
    with subprocess.Popen(
        [*MORTAL, "wrk", *threads, "-s", _SCRIPT, url, "--", str(PARTS + 1)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as wrk:
        try:
            yield load
        finally:
            wrk.send_signal(signal.SIGINT)
            said, _ = wrk.communicate(timeout=60)
        assert wrk.returncode == 0, said
        load.counts = msgspec.json.decode(said.strip().rpartition("\n")[2], type=Counts)
