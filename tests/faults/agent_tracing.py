"""Owns running whole agents under strace: which calls a deploy makes, and a kill or an error at one of them.

strace counts calls for each thread. The agent is traced thread by thread, without what it starts; the process that
pulls is traced with all its threads, and a fault strikes each of them when it reaches that number, or, if it kills,
whichever is first. So the points of one run are, for each kind of call, the numbers up to the most that one thread
made.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from tests.faults.agent_victim import Task, encode_task

CHANGING = (
    "mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,fsync,fdatasync,syncfs,write,"
    "pwrite64,ftruncate,fchmod,chmod,fchmodat,utimensat,flock,ioctl"
)
"""A kill before one of these leaves every state that can be left: other calls change nothing, or these follow them."""

LOOKING = "open,openat,getdents64,readlink,readlinkat,read,pread64,newfstatat,statfs,fstatfs"
REPOSITORY = Path(__file__).parents[2]
Side = Literal["agent", "puller"]
_CALL = re.compile(r"^(?:(\d+) +)?(?:[\d.]+ +)?([a-z]\w+)\((.*)$")
_STOPPED = "stopped by SIGSTOP"
_LONGEST_S = 60.0


@dataclass(frozen=True)
class Point:
    """One call of a run: the `number`-th of its kind in its thread; `text` as strace shows it."""

    kind: str
    number: int
    text: str

    @property
    def phase(self) -> str:
        """What the call was for."""
        return phase_of(self.text)


@dataclass(frozen=True)
class Outcome:
    """How a life ended: its wait status, and what strace saw."""

    status: int
    log: str

    @property
    def is_hit(self) -> bool:
        return "(INJECTED)" in self.log or "+++ killed by SIGKILL" in self.log or _STOPPED in self.log

    def points(self, base: Path) -> list[Point]:
        """The calls on files of the host, each (kind, number) once.

        Calls on others, such as pipes and Python's own modules, count for the numbers and are left out.
        """
        counts: Counter[tuple[str, str]] = Counter()
        found: dict[tuple[str, int], Point] = {}
        for line in self.log.splitlines():
            match = _CALL.match(line)
            if match is None:
                continue
            thread, kind, rest = match[1] or "", match[2], match[3]
            counts[thread, kind] += 1
            number = counts[thread, kind]
            is_ours = str(base) in rest and (kind != "ioctl" or "FICLONE" in rest)
            if is_ours and (kind, number) not in found:
                found[kind, number] = Point(kind, number, f"{kind}({rest}")
        return list(found.values())


_PHASES = (
    ("the swap", r"^renameat2\(.*RENAME_EXCHANGE|^rename\w*\(.*\"cold\".*\"hot\""),
    ("aiming cold", r'"\.?(?:cold|hot)(?:\.new)?"|/root>\)|root/cold|root/hot'),
    ("order, refusal, absence", r"order\.json|refusal\.json|out-of-service|hold\.json"),
    ("counter and lock", r"counter|state/lock|^flock|^ftruncate"),
    ("table", r"state/tables"),
    ("record", r"state/releases"),
    ("state directory", r"/state>?"),
    ("making durable", r"^(?:syncfs|fsync|fdatasync)\("),
    ("removal", r"\.trash-"),
    ("tree", r"root/releases/"),
    ("release directory", r"root/releases"),
)


def phase_of(text: str) -> str:
    """Name what a call was for, by the file that it is about."""
    return next((name for name, pattern in _PHASES if re.search(pattern, text)), "other")


class Victims:
    """Forks agents that wait to be traced, and runs them under an injection."""

    def __init__(self, server: subprocess.Popen[str], directory: Path) -> None:
        self._server = server
        self._directory = directory

    def run(
        self, task: Task, side: Side, *, trace: str, inject: str | None = None, is_agent_killed: bool = False
    ) -> Outcome:
        """Run one life.

        Args:
            task: what the agent does.
            side: whose calls are traced, and struck. Of several pullers of one life, the first.
            trace: the kinds of calls.
            inject: as strace takes it.
            is_agent_killed: where the injection stops the puller, kill the agent at that moment.
        """
        log = self._directory / "log"
        log.unlink(missing_ok=True)
        strace = ["strace", "-y", "-s", "200", "-o", str(log), "-e", f"trace={trace}", "-e", "signal=all"]
        if inject is not None:
            strace += ["-e", f"inject={inject}"]
        if side == "puller":
            task = msgspec.structs.replace(task, python=str(self._wrapper(strace)))
        pid = int(self._ask(encode_task(task).decode()))
        if side == "agent":
            status = self._attached(strace, pid)
        elif is_agent_killed:
            status = self._killed_when_stopped(pid, log)
        else:
            status = int(self._ask("\n"))
        return Outcome(status, self._settled(log))

    def run_recorded(self, task: Task, *, trace: str) -> Outcome:
        """Run one life with all that it starts, in one log, with all bytes that are written."""
        log = self._directory / "log"
        strace = ["strace", "-f", "-y", "-xx", "-s", "1000000", "-o", str(log), "-e", f"trace={trace}"]
        pid = int(self._ask(encode_task(task).decode()))
        with subprocess.Popen([*strace, "-p", str(pid)], stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            attached = tracer.stderr.readline()
            if "attached" not in attached:
                self._ask("\n")
                pytest.skip(f"strace cannot trace here: {attached.strip()}")
            status = int(self._ask("\n"))
            tracer.wait()
        return Outcome(status, log.read_text(errors="replace"))

    def run_undisturbed(self, task: Task) -> int:
        """Run one life without a tracer; its exit status."""
        self._ask(encode_task(task).decode())
        return os.waitstatus_to_exitcode(int(self._ask("\n")))

    def _wrapper(self, strace: list[str]) -> Path:
        """A stand-in for the interpreter that traces the first process that it becomes."""
        wrapper, mark = self._directory / "python", self._directory / "used"
        mark.unlink(missing_ok=True)
        command = " ".join(f"'{word}'" for word in (*strace[:1], "-D", "-f", *strace[1:], sys.executable))
        wrapper.write_text(
            f'#!/bin/sh\nif [ -e {mark} ]; then exec {sys.executable} "$@"; fi\n: > {mark}\nexec {command} "$@"\n'
        )
        wrapper.chmod(0o755)
        return wrapper

    def _attached(self, strace: list[str], pid: int) -> int:
        threads = [
            word
            for thread in sorted(each.name for each in Path(f"/proc/{pid}/task").iterdir())
            for word in ("-p", thread)
        ]
        with subprocess.Popen([*strace, *threads], stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            for _ in range(len(threads) // 2):
                attached = tracer.stderr.readline()
                if "attached" not in attached:
                    self._ask("\n")
                    pytest.skip(f"strace cannot trace here: {attached.strip()}")
            return int(self._ask("\n"))

    def _killed_when_stopped(self, pid: int, log: Path) -> int:
        self._tell("\n")
        ends_s = time.monotonic() + _LONGEST_S
        while time.monotonic() < ends_s:
            if log.exists() and _STOPPED in log.read_text(errors="replace"):
                break
            if not Path(f"/proc/{pid}").exists():
                break
            time.sleep(0.002)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return int(self._line())

    def _settled(self, log: Path) -> str:
        """What a tracer wrote, once it has ended: it ends a moment after what it traces."""
        if not log.exists():
            return ""
        ends_s = time.monotonic() + _LONGEST_S
        while time.monotonic() < ends_s:
            text = log.read_text(errors="replace")
            if re.search(r"^(?:\d+ +)?\+\+\+ (?:exited|killed)", text, re.MULTILINE):
                return text
            time.sleep(0.002)
        raise AssertionError("the traced process has not ended")

    def _ask(self, line: str) -> str:
        self._tell(line)
        return self._line()

    def _tell(self, line: str) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(line)
        self._server.stdin.flush()

    def _line(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()


@contextmanager
def victims(directory: Path) -> Iterator[Victims]:
    """Start the process that forks agents."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (apt-get install strace)")
    directory.mkdir(parents=True, exist_ok=True)
    with (
        (directory / "stderr").open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "tests.faults.agent_victim", str(directory / "processes")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=REPOSITORY,
        ) as server,
    ):
        yield Victims(server, directory)
        assert server.stdin is not None
        server.stdin.close()
        assert server.wait(10) == 0
