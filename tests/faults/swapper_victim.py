"""Owns the process that the swapper's fault tests kill: imports once, forks a child per run, waits to be traced.

Reads one JSON object per line: {"step": ..., "base": ..., "kernel": "new" | "old"}; answers with the child's pid
when that waits, then, once it was released by a further line and ended, with its wait status.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

from artifact.errors import HotcoldError
from swapper import LINUX, Swapper
from tests.swapper_host import DIGEST, Host, OldKernel, fill, idle

PR_SET_PTRACER = 0x59616D61
"""Lets a tracer that is no ancestor attach, where Yama forbids that to anybody but root."""

REFUSED = 3
"""Exit status of a child whose step raised one of our errors."""


class FillingFailed(Exception):
    """The test's own writes into the release failed, as an unpacker's would."""


def run(swapper: Swapper, step: str) -> None:
    """Carry out one step of a deploy; each finds what it needs on the disk."""
    disk = swapper.look()
    match step:
        case "deploy":
            release = swapper.prepare("new", DIGEST)
            try:
                fill(release)
            except OSError as error:
                raise FillingFailed from error
            swapper.swap_in(swapper.complete(release))
        case "swap_in":
            assert disk.cold is not None
            swapper.swap_in(disk.cold)
        case "prove":
            assert disk.hot is not None
            swapper.mark_proved(disk.hot)
        case "abandon":
            assert disk.cold is not None
            swapper.abandon(disk.cold)
        case "collect":
            swapper.collect(keep=2, pinned=(), in_use=idle)
        case _:
            raise ValueError(step)


def child(request: dict[str, str], gate: int) -> int:
    """Wait for the tracer, then do the one step; `open` is a step of its own."""
    host = Host(Path(request["base"]), OldKernel() if request["kernel"] == "old" else LINUX)
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
    is_open = request["step"] == "open"
    swapper = None if is_open else host.open()
    os.write(1, f"{os.getpid()}\n".encode())
    os.read(gate, 1)
    try:
        if swapper is None:
            host.open()
        else:
            run(swapper, request["step"])
    except HotcoldError as error:
        os.write(2, f"{error.kind}\n".encode())
        return REFUSED
    except FillingFailed:
        return REFUSED
    return 0


def main() -> None:
    """Serve until stdin ends."""
    while line := os.read(0, 65536):
        request = json.loads(line)
        gate, release = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(release)
            try:
                status = child(request, gate)
            except BaseException as error:  # noqa: BLE001 -- a foreign exception is what the test looks for
                os.write(2, f"{error!r}\n".encode())
                status = 4
            os._exit(status)
        os.close(gate)
        os.read(0, 1)
        os.write(release, b"\n")
        os.close(release)
        os.write(1, f"{os.waitpid(pid, 0)[1]}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
