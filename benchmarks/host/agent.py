"""Owns one host with a real agent: started on a bare root, told to deploy by the real command, read by its log.

There are no workers, hooks or probe: what is left of a deploy is fetching, making durable, and exchanging the links.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.host.builds import APP, Build
from benchmarks.lab import Net, settle
from benchmarks.peers.peer import clear

TIER: Final = "prod"
_STORE: Final = "http://127.0.0.1:18500"
_DEADLINE_S: Final = 900.0
_POLL_S: Final = 0.02
_CONFIG: Final = """\
app = "{app}"
tier = "{tier}"
host = "bench-1"
root = "{root}"
state_dir = "{state}"
socket = "{socket}"

[consul]
address = "{store}"

[log]
format = "json"
"""


class DeployFailed(Exception):
    """The agent did not do as it was ordered; the message has the end of its log."""


@dataclass(frozen=True)
class Deployed:
    """What the agent's log says of one order.

    Attributes:
        staged_s: from order seen to cold complete, verified and durable.
        swapped_s: from order seen to the links exchanged and durable.
        steady_s: from order seen to the end of all work that readers could wait for.
        swap_s: the exchange alone, with the fsync of the directory.
        cpu_s: of the agent and its children, until it was steady.
        release: the directory that is hot now.
    """

    staged_s: float
    swapped_s: float
    steady_s: float
    swap_s: float
    cpu_s: float
    release: Path


class AgentHost:
    """A host in `directory`; `running` starts its store and its agent."""

    def __init__(self, directory: Path, net: Net, *, program: Sequence[str] = ("-m", "hotcold", "agent")) -> None:
        self.socket = directory / "socket"
        self.pid = 0
        self._directory = directory
        self._net = net
        self._program = program
        self._root = directory / "root"
        self._log = directory / "agent.log"
        self._read_bytes = 0

    @contextmanager
    def running(self) -> Iterator[AgentHost]:
        """Begin with an empty root; end the processes, and leave the root for a look at it."""
        clear(self._directory)
        config = self._directory / "agent.toml"
        config.write_text(
            _CONFIG.format(
                app=APP,
                tier=TIER,
                root=self._root,
                state=self._directory / "state",
                socket=self.socket,
                store=_STORE,
            )
        )
        with ExitStack() as stack:
            port = _STORE.rpartition(":")[2]
            self._start(stack, ["-m", "hotcold", "dev-store", "--port", port], self._directory / "store.log")
            agent = self._start(stack, [*self._program, "--config", str(config)], self._log)
            # `nsenter` becomes what it starts, so that this is the agent's own.
            self.pid = agent.pid
            self._await("started", lambda line: line["event"] == "started")
            yield self
            agent.send_signal(signal.SIGTERM)
            if agent.wait(timeout=_DEADLINE_S):
                raise DeployFailed(f"the agent ended with {agent.returncode}:\n{self._end_of_log()}")

    def deploy(self, build: Build) -> Deployed:
        """Order a build for the tier, and wait until the agent is steady on it.

        Raises:
            DeployFailed: the agent failed, or was not steady within 15 minutes.
        """
        return self._order(build, ["deploy", build.url])

    def roll_back(self, build: Build) -> Deployed:
        """Order the build before, which must be `build`, and wait in the same way."""
        return self._order(build, ["rollback", "--reason", "measured"])

    def _order(self, build: Build, command: Sequence[str]) -> Deployed:
        self._settle()
        tier = ["--app", APP, "--tier", TIER, "--consul", _STORE]
        cpu_before_s = self._cpu_s()
        done = subprocess.run(
            self._net.on_client([sys.executable, "-m", "hotcold", *command, *tier]),
            check=False,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise DeployFailed(f"`hotcold {command[0]}` ended with {done.returncode}:\n{done.stderr}")
        lines = self._await(f"steady on {build.id}", _has_come_to_rest)
        return self._read(build, lines, self._cpu_s() - cpu_before_s)

    def _read(self, build: Build, lines: Sequence[Mapping[str, Any]], cpu_s: float) -> Deployed:
        orders = [line["build"] for line in lines if line["event"] == "order"]
        swaps = [line for line in lines if line["event"] == "swapped"]
        ages = {line["state"]: line["order_age_s"] for line in lines if line["event"] == "state"}
        if orders != [build.id] or len(swaps) != 1 or "backing_off" in ages or "steady" not in ages:
            raise DeployFailed(f"this was not the plain way to {build.id}: {ages}\n{self._end_of_log()}")
        return Deployed(
            staged_s=ages["staged"],
            swapped_s=ages["proving"],
            steady_s=ages["steady"],
            swap_s=swaps[0]["took_us"] / 1e6,
            cpu_s=cpu_s,
            release=(self._root / "hot").resolve(),
        )

    def _start(self, stack: ExitStack, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CONSUL_")}
        file = stack.enter_context(log.open("wb"))
        argv = self._net.on_client([sys.executable, *arguments])
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment)
        stack.enter_context(process)
        stack.callback(process.kill)
        return process

    def _await(self, what: str, test: Callable[[Mapping[str, Any]], bool]) -> list[Mapping[str, Any]]:
        """The lines of the log since the last call, up to the one that passes the test."""
        ends_s = time.monotonic() + _DEADLINE_S
        seen: list[Mapping[str, Any]] = []
        with self._log.open("rb") as file:
            file.seek(self._read_bytes)
            while True:
                line = file.readline()
                if line.endswith(b"\n"):
                    self._read_bytes += len(line)
                    seen.append(_parsed(line))
                    if test(seen[-1]):
                        return seen
                    continue
                file.seek(self._read_bytes)
                if self._has_ended() or time.monotonic() > ends_s:
                    raise DeployFailed(f"not {what}:\n{self._end_of_log()}")
                time.sleep(_POLL_S)

    def _has_ended(self) -> bool:
        return not any(
            process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family(self.pid)[:1]
        )

    def _settle(self) -> None:
        """Let what follows a deploy come to its end: removal of old trees, reports, write-back."""
        while True:
            before_s = self._cpu_s()
            time.sleep(0.5)
            if self._cpu_s() - before_s < 0.1:
                break
        settle()

    def _cpu_s(self) -> float:
        """Of the agent, of its children, and of those that have ended."""
        total_s = 0.0
        for process in family(self.pid):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total_s += times.user + times.system + times.children_user + times.children_system
        return total_s

    def _end_of_log(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it; those that end meanwhile may be missing."""
    try:
        agent = psutil.Process(pid)
        return [agent, *agent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _has_come_to_rest(line: Mapping[str, Any]) -> bool:
    return line["event"] == "state" and line["state"] in {"steady", "rolled_back", "build_refused"}


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        parsed: dict[str, Any] = json.loads(line)
    except ValueError:
        return {"event": "said", "text": line.decode(errors="replace")}  # a warning of the interpreter
    return parsed
