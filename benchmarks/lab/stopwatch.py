"""Owns how a command of a peer is timed: until it ends, and until what it wrote is durable."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class Failed(Exception):
    """A command did not do what it was measured for; the message has its last words."""


@dataclass(frozen=True)
class Timing:
    """One run.

    Attributes:
        done_s: until the command had ended; its data may be in memory only.
        durable_s: until the file system had also written everything back.
        cpu_s: user and system time of the command and its children; servers and write-back are not in it.
        peak_bytes: resident memory of its largest process.
    """

    done_s: float
    durable_s: float
    cpu_s: float
    peak_bytes: int


def settle() -> None:
    """Write back what earlier runs left, so that the next one does not pay for it."""
    os.sync()


def timed(argv: Sequence[str], target: Path, log: Path) -> Timing:
    """Run a command that writes to the file system of `target`.

    Raises:
        Failed: it ended with another status than 0.
    """
    settle()
    with log.open("wb") as output:
        started_s = time.monotonic()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        done_s = time.monotonic() - started_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Failed(f"{argv} ended with {process.returncode}: {log.read_text(errors='replace')[-2000:]}")
    subprocess.run(["sync", "-f", target], check=True)
    durable_s = time.monotonic() - started_s
    return Timing(done_s, durable_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
