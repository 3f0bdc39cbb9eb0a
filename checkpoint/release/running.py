"""Owns running the commands that an operator configured: live output, all of it kept, a deadline, nothing left behind.

Which commands, and what their success means, is left to `checkpoint.release.cutting`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from artifact import ConfigError

_READ_BYTES: Final = 64 * 1024
_LOOK_S: Final = 0.2
"""How often a command whose output is silent is asked whether it has ended."""


@dataclass(frozen=True)
class Ran:
    """How a command ended.

    Attributes:
        status: its exit status; negative: the signal that ended it.
        timed_out: whether it had to be ended at its deadline.
    """

    status: int
    timed_out: bool = False

    @property
    def is_good(self) -> bool:
        """Whether it exited with 0, in time."""
        return self.status == 0 and not self.timed_out


def run(
    argv: Sequence[str],
    *,
    directory: Path,
    environment: Mapping[str, str],
    timeout_s: float,
    log: Path,
    show: Callable[[bytes], None],
) -> Ran:
    """Run a command to its end, without a shell; its process group is ended at the deadline, and when we are.

    Args:
        argv: program and arguments.
        directory: where it runs.
        environment: all of it.
        timeout_s: longest time.
        log: file that its output is appended to.
        show: gets the same output as it comes.

    Raises:
        ConfigError: kind `bad_command`: it cannot be started.
    """
    with log.open("ab", buffering=0) as kept:
        kept.write(f"$ {' '.join(argv)}\n".encode())
        try:
            process = subprocess.Popen(  # noqa: S603 - what the operator configured, without a shell
                list(argv),
                cwd=directory,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise ConfigError(
                f"{argv[0]} cannot be run in {directory}: {error.strerror}; give a program that is there",
                kind="bad_command",
            ) from error

        def take(data: bytes) -> None:
            kept.write(data)
            show(data)

        with process:
            try:
                timed_out = not _follow(process, time.monotonic() + timeout_s, take)
            finally:
                # What it left running in its group goes, too: a build must not write on while its tree is packed.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return Ran(process.returncode, timed_out)


def _follow(process: subprocess.Popen[bytes], deadline_s: float, take: Callable[[bytes], None]) -> bool:
    """Pass output on until the command has ended; False: it has not, at the deadline.

    Its end counts, not that of its output: what it started may hold that open for ever.
    """
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    output = process.stdout.fileno()
    is_open = True
    while True:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            return False
        has_ended = process.poll() is not None
        wait_s = 0.0 if has_ended else min(_LOOK_S, left_s)
        if is_open and select.select([output], [], [], wait_s)[0]:
            data = os.read(output, _READ_BYTES)
            is_open = bool(data)
            if data:
                take(data)
        elif has_ended:
            return True
        elif not is_open:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait_s)
