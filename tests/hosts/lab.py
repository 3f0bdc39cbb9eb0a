"""Owns the lab: name spaces of the suite's own, with disks in memory and a bridge, in which hosts are booted.

What runs on a host is left to `tests.hosts.host`. Nothing of a lab outlives it, nor the process that made it, however
that one ends: the lab's first process reads a pipe that only this one holds, and on its end takes everything along.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from tests.consul_process import wait_until

ADDRESS: Final = "10.77.0.1"
"""Where hosts reach what runs beside them."""
BRIDGE: Final = "hosts"
MORTAL: Final = ("setpriv", "--pdeathsig", "KILL")
"""Begins a command that ends when the thread ends that started it, however that is."""
TOOLS: Final = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "ip": "iproute2",
    "nginx": "nginx-light",
    "wrk": "wrk",
    "systemd-analyze": "systemd",
    "dbus-daemon": "dbus",
}
_MANAGER: Final = Path("/lib/systemd/systemd")
_CLONE_NEWNET: Final = 0x40000000
_LAB_SCRIPT: Final = """
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=0755 lab /mnt
mkdir /mnt/cgroup
mount -t cgroup2 cgroup2 /mnt/cgroup
mkdir "/mnt/cgroup/$1"
end() {
    kill -KILL -1 2>/dev/null || true
    for _ in $(seq 100); do
        find "/mnt/cgroup/$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
        [ -d "/mnt/cgroup/$1" ] || break
        sleep 0.05
    done
}
trap 'end "$1"' EXIT
ip link set lo up
ip link add "$2" type bridge forward_delay 0
ip addr add "$3/24" dev "$2"
ip link set "$2" up
echo ready
read -r _ || true
"""
_PROBE_SCRIPT: Final = """
set -eu
mount --make-rprivate /
mount -t tmpfs lab /mnt
mkdir /mnt/up /mnt/work /mnt/root /mnt/cgroup
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work /mnt/root
mount -t cgroup2 cgroup2 /mnt/cgroup
mkdir "/mnt/cgroup/$1"
rmdir "/mnt/cgroup/$1"
ip link add "$2" type bridge
ip link add left type veth peer name right
"""


def why_impossible() -> str | None:
    """Why no hosts can be made here, in words for a skipped test, or None."""
    if os.geteuid() != 0:
        return "hosts are made of name spaces and mounts, which needs root"
    missing = {package for tool, package in TOOLS.items() if shutil.which(tool) is None}
    missing |= set() if _MANAGER.exists() else {"systemd"}
    missing |= set() if any(Path("/usr/sbin").glob("php-fpm*")) else {"php-fpm"}
    if missing:
        return f"hosts need {', '.join(sorted(missing))} (Debian: apt-get install)"
    spaces = ["unshare", "--pid", "--mount", "--net", "--uts", "--ipc", "--fork"]
    tried = subprocess.run(
        [*spaces, "sh", "-c", _PROBE_SCRIPT, "sh", _group_name("probe"), BRIDGE],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = " ".join(tried.stderr.split())
    return f"this machine does not let hosts be made: {said}" if tried.returncode != 0 else None


def _group_name(what: str) -> str:
    return f"hotcold-{what}-{os.getpid()}"


class Lab:
    """Name spaces of processes, mounts and network. Enter it to make them; leave it, and all is gone."""

    def __init__(self) -> None:
        self.group = _group_name("hosts")
        self._process: subprocess.Popen[str] | None = None
        self._own_net_fd: int | None = None
        self.pid = 0
        self.children: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        spaces = ["unshare", "--pid", "--mount", "--net", "--fork", "--kill-child", "--mount-proc"]
        self._process = subprocess.Popen(
            [*spaces, "sh", "-c", _LAB_SCRIPT, "lab", self.group, BRIDGE, ADDRESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", "the lab was not made; see above"
        [first] = psutil.Process(self._process.pid).children()
        self.pid = first.pid
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self.leave_network()
        with self._process:  # closes both pipes, then waits
            pass
        for child in self.children:
            child.wait(60)

    @property
    def files(self) -> Path:
        """The directory of the lab's disks, as it is seen from outside."""
        return Path(f"/proc/{self.pid}/root/mnt")

    def join_network(self) -> None:
        """Let this thread, and what it starts, be beside the hosts: its sockets are the lab's from now on."""
        if self._own_net_fd is None:
            self._own_net_fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            fd = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            _enter_network(fd)
            os.close(fd)

    def leave_network(self) -> None:
        """Go back to the network that this thread came from."""
        if self._own_net_fd is not None:
            _enter_network(self._own_net_fd)
            os.close(self._own_net_fd)
            self._own_net_fd = None

    def enter(self, *argv: str) -> list[str]:
        """The command that runs another one in the lab, outside of all hosts."""
        return ["nsenter", "-t", str(self.pid), "-p", "-m", "-n", *argv]

    def plug(self, host: str, pid: int) -> None:
        """Lay a cable from the bridge to a host, given by a process in its network name space."""
        port = port_of(host)
        ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(pid), inside=self)
        ip("link", "set", port, "master", BRIDGE, "up", inside=self)

    def set_cable(self, host: str, *, is_in: bool) -> None:
        """Pull a host's cable out of the bridge, or put it in again."""
        ip("link", "set", port_of(host), "up" if is_in else "down", inside=self)

    def wait_until_unplugged(self, host: str) -> None:
        """Wait until a host's cable is gone: the kernel takes it down some time after its last process."""
        wait_until(lambda: not self._has_link(port_of(host)), f"{port_of(host)} is gone")

    def _has_link(self, name: str) -> bool:
        shown = ["nsenter", "-t", str(self.pid), "-n", "ip", "link", "show", name]
        return subprocess.run(shown, capture_output=True, check=False).returncode == 0


def port_of(host: str) -> str:
    """The bridge's port for a host."""
    return f"v-{host}"


def ip(*arguments: str, inside: Lab) -> None:
    """Run `ip` in the lab's network; process numbers among the arguments are those that this process sees."""
    done = subprocess.run(
        ["nsenter", "-t", str(inside.pid), "-n", "ip", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


def _enter_network(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
