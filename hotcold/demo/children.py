"""Owns the processes of the demo: started on a leash, watched, ended in order, their words kept in log files.

What each of them is, is left to `hotcold.demo.world`.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from artifact import HotcoldError

_GRACE_S: Final = 10.0
_FIRST_LINE_S: Final = 30.0
_TOLD_CHARACTERS: Final = 2000

# The demo brings its own store and servers: what the shell says of others must not reach its processes.
_FOREIGN: Final = re.compile(r"CONSUL_.*|.*_proxy|NOTIFY_SOCKET|WATCHDOG_.*", re.IGNORECASE)


class DemoFailed(HotcoldError):
    """The demo did not go as it must; the message says where, and which log tells more."""

    kind = "demo_failed"


class Child:
    """One process. Its standard error goes to a log, and so does its standard output where nobody reads that."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._log = log
        self._is_to_end = False

    async def lines(self) -> AsyncIterator[bytes]:
        """What it writes to standard output, until it ends."""
        while line := await self._stdout.readline():
            yield line

    async def line(self) -> str:
        """Its next line; the first one says that it is ready.

        Raises:
            DemoFailed: it ended, or said nothing in time.
        """
        try:
            async with asyncio.timeout(_FIRST_LINE_S):
                if line := await self._stdout.readline():
                    return line.decode().strip()
        except TimeoutError as error:
            raise DemoFailed(f"{self.name} is not ready after {_FIRST_LINE_S:g} s: {self._last_words()}") from error
        raise DemoFailed(f"{self.name} ended before it was ready: {self._last_words()}")

    @property
    def _stdout(self) -> asyncio.StreamReader:
        assert self._process.stdout is not None, "started without `is_read`"  # noqa: S101 - a programmer's error
        return self._process.stdout

    async def guard(self) -> None:
        """Wait until it ends.

        Raises:
            DemoFailed: nobody had asked it to.
        """
        status = await self._process.wait()
        if not self._is_to_end:
            raise DemoFailed(f"{self.name} ended with status {status}: {self._last_words()}")

    def kill(self) -> None:
        """End it by SIGKILL; from any thread."""
        self._signal(signal.SIGKILL)

    async def stop(self) -> None:
        """Ask it to end, wait, kill it if it does not. Calling this twice, or after its end, is harmless."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_GRACE_S):
                await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    async def ended(self) -> None:
        """Wait for its end."""
        await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        self._is_to_end = True
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _last_words(self) -> str:
        text = self._log.read_text(errors="replace").strip()
        return f"see {self._log}: ...{text[-_TOLD_CHARACTERS:]}" if text else f"{self._log} is empty"


class Children:
    """Starts processes, and ends those that are left.

    Args:
        group: fails with `DemoFailed` when a process ends unasked.
        logs: directory for the logs.
        environment: of this process; what would lead to other stores or servers is taken out.
    """

    def __init__(self, group: asyncio.TaskGroup, logs: Path, environment: Mapping[str, str]) -> None:
        self._group = group
        self._waves: tuple[list[Child], list[Child]] = ([], [])
        self._logs = logs
        self._environment = {name: value for name, value in environment.items() if not _FOREIGN.fullmatch(name)}

    async def start(self, name: str, argv: Sequence[str], *, is_read: bool = False, is_needed: bool = False) -> Child:
        """Start a process.

        Args:
            name: of the process and its log.
            argv: what it runs.
            is_read: somebody reads its standard output.
            is_needed: others need it to stop in peace, so it ends after them.
        """
        log = self._logs / f"{name}.log"
        leash = (sys.executable, "-m", "hotcold.demo.leash", str(os.getpid()))
        with log.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                *leash,
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if is_read else file,
                stderr=file,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for the demo alone, which then ends them in order
            )
        child = Child(name, process, log)
        self._waves[is_needed].append(child)
        self._group.create_task(child.guard(), name=f"guard of {name}")
        return child

    async def aclose(self) -> None:
        """End all that are left: first those that nobody needs. Calling this twice is harmless."""
        for wave in self._waves:
            await asyncio.gather(*(child.stop() for child in wave))
