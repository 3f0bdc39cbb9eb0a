"""Owns the agents that the fault tests kill: imports once, forks an agent per run, tells its pid, waits for a gate.

Reads one JSON object per line, a `Task`; answers with the agent's pid when it waits, then, once it was released by a
further line and has ended, with its wait status.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from pathlib import Path

import msgspec
import psutil

from agent import blocking
from agent.config import LogTable
from agent.logs import configure_logs
from agent.states import Steady
from artifact import HotcoldError, ManifestRef
from tests.agent_life import AgentHost, living

PR_SET_PTRACER = 0x59616D61
"""Lets a tracer that is no ancestor attach, where Yama forbids that to anybody but root."""

UNFORESEEN, STARTED_NOT, OTHERWISE = 3, 4, 5
"""Exit statuses: a foreign exception; one of our errors at the start; at rest, but not on what was ordered."""


class Task(msgspec.Struct, frozen=True):
    """What one agent does: start, hear the order, come to rest, end.

    Attributes:
        host: its directories and configuration.
        serial, build: the order.
        is_repull: a re-pull is asked for.
        python: what starts the process that pulls; None: the interpreter.
    """

    host: AgentHost
    serial: int
    build: ManifestRef
    is_repull: bool = False
    python: str | None = None


def encode_task(task: Task) -> bytes:
    """The task as one line."""
    return msgspec.json.encode(task, enc_hook=str) + b"\n"


def decode_task(line: bytes) -> Task:
    """The reverse of `encode_task`."""
    return msgspec.json.decode(line, type=Task, dec_hook=lambda kind, text: kind(text))


async def live(task: Task) -> int:
    """One life; its exit status."""
    try:
        async with living(task.host) as life:
            life.order(task.serial, task.build)
            if task.is_repull:
                life.repull()
                await life.until_steady(task.build)
            situation = await life.until_at_rest(task.serial)
            return 0 if isinstance(situation.model.state, Steady) else OTHERWISE
    except* HotcoldError as errors:
        os.write(2, f"{errors.exceptions}\n".encode())
    return STARTED_NOT


async def _gated(task: Task, gate: int) -> int:
    """The one thread for blocking work is there before the gate, so that a tracer finds all threads."""
    await blocking.run_blocking(os.getpid)
    os.write(1, f"{os.getpid()}\n".encode())
    os.read(gate, 1)
    return await live(task)


def main(processes: Path) -> None:
    """Serve until stdin ends; `processes` is to be created."""
    configure_logs(LogTable(), {}, sys.stderr)
    # Nobody lives in any tree here; and how many calls it takes to see that depends on what else runs on this machine.
    (processes / "999999999").mkdir(parents=True)  # psutil expects at least one
    psutil.PROCFS_PATH = str(processes)
    blocking._THREADS._max_workers = 1  # jobs follow each other anyway; so all their calls are one thread's
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
    while line := os.read(0, 65536):
        task = decode_task(line)
        gate, release = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(release)
            status = UNFORESEEN
            try:
                if task.python is not None:
                    sys.executable = task.python
                status = asyncio.run(_gated(task, gate))
            except BaseException as error:  # noqa: BLE001 -- a foreign exception is what the test looks for
                os.write(2, f"{error!r}\n".encode())
            os._exit(status)
        os.close(gate)
        os.read(0, 1)
        os.write(release, b"\n")
        os.close(release)
        os.write(1, f"{os.waitpid(pid, 0)[1]}\n".encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
