"""Owns real Consul processes for tests: one dev agent, or a cluster of three servers; leaves requests to the tests.

Every process is ended by its own handle, and every port was free when it was taken.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

NO_CONSUL: Final = "no consul binary: set HOTCOLD_CONSUL, put consul on PATH, or run scripts/get-consul"

_ROOT = Path(__file__).resolve().parent.parent
_READY_S = 20.0
LOOPBACK: Final = "127.0.0.1"


def find_consul() -> Path | None:
    """The binary that `scripts/get-consul` would print, without fetching one."""
    if named := os.environ.get("HOTCOLD_CONSUL"):
        return Path(named)
    if on_path := shutil.which("consul"):
        return Path(on_path)
    fetched = _ROOT / ".cache" / "consul" / "bin" / "consul"
    return fetched if fetched.exists() else None


def free_ports(count: int) -> list[int]:
    """TCP ports that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = _READY_S) -> None:
    """Poll a real process until `condition` holds."""
    end_s = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end_s:
            message = f"{what}: not within {deadline_s} s"
            raise TimeoutError(message)
        time.sleep(0.02)


def get(url: str, token: str = "") -> str | None:
    """Body of a 200 answer, else None."""
    try:
        request = urllib.request.Request(url, headers={"X-Consul-Token": token})
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.read().decode()
    except (urllib.error.URLError, OSError):
        return None


class ConsulServer:
    """One server process that can be killed, paused and started again on the same ports."""

    def __init__(
        self, directory: Path, arguments: Sequence[str], *, http_port: int, bind: str = LOOPBACK, by: Sequence[str] = ()
    ) -> None:
        binary = find_consul()
        if binary is None:
            raise FileNotFoundError(NO_CONSUL)
        self.address = f"http://{LOOPBACK}:{http_port}"
        self.token = ""
        self._command = [
            *by,
            str(binary),
            "agent",
            f"-bind={bind}",
            f"-client={LOOPBACK}",
            f"-http-port={http_port}",
            "-dns-port=-1",
            "-grpc-port=-1",
            "-log-level=warn",
            *arguments,
        ]
        self._log = directory / "consul.log"
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def log(self) -> str:
        """What the process said so far."""
        return self._log.read_text(errors="replace")

    def launch(self) -> None:
        """Start without waiting."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)

    def start(self) -> None:
        """Start, and wait until it serves."""
        self.launch()
        wait_until(self.is_ready, f"consul at {self.address} is ready: {self.log[-2000:]}")

    def is_ready(self) -> bool:
        """Whether it sees a leader and nodes in the catalogue: sessions need the node that they belong to."""
        leader = json.loads(get(f"{self.address}/v1/status/leader") or '""')
        return bool(leader and json.loads(get(f"{self.address}/v1/catalog/nodes", self.token) or "[]"))

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end; kill it where it does not."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Let it hang: the kernel still accepts connections for it."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        # One thread takes the signal when it is scheduled next; until then the others go on answering.
        wait_until(lambda: _are_stopped(process.pid), f"consul at {self.address} has stopped")

    def resume(self) -> None:
        """Let it go on."""
        self._running().send_signal(signal.SIGCONT)

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _are_stopped(pid: int) -> bool:
    # The state stands after the name, which is in brackets and may hold any character.
    states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]
    return set(states) == {"T"}


class ConsulDev(ConsulServer):
    """A dev agent, in memory: a restart forgets everything."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        http, server, lan, wan = free_ports(4)
        super().__init__(
            directory,
            ["-dev", f"-server-port={server}", f"-serf-lan-port={lan}", f"-serf-wan-port={wan}", *arguments],
            http_port=http,
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class ConsulCluster:
    """Servers with their data on disk, timed for quick elections.

    Args:
        directory: for their data and logs.
        count: how many.
        bind: the address at which they meet each other, and other machines' agents them.
        by: the beginning of a command that runs another one in its own place.
        more: further arguments.
    """

    def __init__(
        self, directory: Path, count: int = 3, *, bind: str = LOOPBACK, by: Sequence[str] = (), more: Sequence[str] = ()
    ) -> None:
        ports = free_ports(4 * count)
        http, server, lan, wan = (ports[at : at + count] for at in range(0, 4 * count, count))
        self.joins = [f"-retry-join={bind}:{port}" for port in lan]
        self._raft = {f"{bind}:{port}": index for index, port in enumerate(server)}
        self.servers = [
            ConsulServer(
                directory / f"server-{index}",
                [
                    "-server",
                    f"-bootstrap-expect={count}",
                    f"-node=server-{index}",
                    f"-data-dir={directory / f'server-{index}' / 'data'}",
                    f"-server-port={server[index]}",
                    f"-serf-lan-port={lan[index]}",
                    f"-serf-wan-port={wan[index]}",
                    "-retry-interval=1s",
                    "-hcl=performance { raft_multiplier = 1 }",
                    *self.joins,
                    *more,
                ],
                http_port=http[index],
                bind=bind,
                by=by,
            )
            for index in range(count)
        ]

    def __enter__(self) -> Self:
        for each in self.servers:
            each.launch()
        for each in self.servers:
            wait_until(each.is_ready, f"consul at {each.address} is ready")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self.servers:
            with suppress(ProcessLookupError):
                each.kill()

    @property
    def leader(self) -> ConsulServer:
        """The server that leads."""
        for each in self.servers:
            raft = json.loads(get(f"{each.address}/v1/status/leader") or '""')
            if raft:
                return self.servers[self._raft[raft]]
        message = "the cluster has no leader"
        raise LookupError(message)

    @property
    def followers(self) -> list[ConsulServer]:
        """The others."""
        leader = self.leader
        return [each for each in self.servers if each is not leader]


class ConsulClient(ConsulServer):
    """A host's own agent, which keeps nothing but what its host registers; `options` are HCL."""

    def __init__(self, directory: Path, cluster: ConsulCluster, options: str = "") -> None:
        http, lan = free_ports(2)
        self._options = directory / "options.hcl"
        super().__init__(
            directory,
            [
                "-node=client",
                f"-data-dir={directory / 'data'}",
                f"-serf-lan-port={lan}",
                "-retry-interval=1s",
                f"-config-file={self._options}",
                *cluster.joins,
            ],
            http_port=http,
        )
        self._options.write_text(options)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def reconfigure(self, options: str) -> None:
        """Let it read other options without a restart."""
        self._options.write_text(options)
        self._running().send_signal(signal.SIGHUP)
