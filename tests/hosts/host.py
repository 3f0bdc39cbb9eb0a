"""Owns a host as hotcold's users have it: a machine with an agent as its unit, a Consul agent, nginx and PHP-FPM.

What is deployed to it is left to `tests.hosts.fleet`.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil

from hotcold.socket_client import AgentUnreachable, ask
from tests.consul_process import find_consul, wait_until
from tests.hosts.lab import MORTAL, Lab
from tests.hosts.machine import Machine
from tests.hosts.site import PHP_FPM, PHP_UNIT, install_site

APP, TIER = "shop", "prod"
AGENT: Final = f"hotcold-agent@{APP}.service"
STATE_S: Final = 60.0
"""Far beyond what anything here takes, so that a busy machine fails nothing."""
_WANTS: Final = "/etc/systemd/system/multi-user.target.wants"
_BASICS: Final = f"""app = "{APP}"
tier = "{TIER}"
root = "/srv/{APP}"
"""
_QUICK: Final = """
[fetch]
retry_initial_s = 0.2
retry_max_s = 1
"""


class Host:
    """One host; switched off at first, so that its disk can be prepared."""

    def __init__(self, lab: Lab, name: str, *, number: int, disk: Path, joins: Sequence[str]) -> None:
        self.machine = Machine(lab, name, number=number, lowers=[disk])
        self.name = name
        self.url = f"http://{self.machine.address}"
        self._install_consul(joins)
        install_site(self.machine)
        self.configure("")
        # As `systemctl enable` and README's step 4 leave it; the owner is known to the machine alone.
        self.machine.write("/etc/tmpfiles.d/shop.conf", f"d /srv/{APP} 0755 hotcold hotcold -\n")
        (self.machine.disk / _WANTS[1:] / AGENT).symlink_to("/etc/systemd/system/hotcold-agent@.service")

    def _install_consul(self, joins: Sequence[str]) -> None:
        # Consul tells its servers of a new text of a check at once, and not five minutes later: so a test sees each.
        unit = f"""[Unit]
Description=Consul agent
[Service]
Type=notify
ExecStart={find_consul()} agent -data-dir=/var/lib/consul -node={self.name} -bind={self.machine.address} \\
    -client=127.0.0.1 -dns-port=-1 -retry-interval=1s "-hcl=disable_coordinates = true" \\
    "-hcl=check_update_interval = \\"1s\\"" {" ".join(joins)}
Restart=always
[Install]
WantedBy=multi-user.target
"""
        self.machine.write("/etc/systemd/system/consul.service", unit)
        self.machine.write(f"{_WANTS}/.keep", "")
        (self.machine.disk / _WANTS[1:] / "consul.service").symlink_to("/etc/systemd/system/consul.service")

    def configure(self, text: str) -> None:
        """Write the agent's configuration, beside what is the same in all tests."""
        quick = "" if "[fetch]" in text else _QUICK
        self.machine.write(f"/etc/hotcold/{APP}.toml", f"{_BASICS}{quick}{text}")

    def drop_in(self, unit: str, name: str, text: str) -> None:
        """Add to a unit, as `systemctl edit` does."""
        self.machine.write(f"/etc/systemd/system/{unit}.d/{name}.conf", text)
        self.machine.run("systemctl", "daemon-reload")

    def undo_drop_in(self, unit: str, name: str) -> None:
        """Take it away again."""
        self.machine.run("rm", f"/etc/systemd/system/{unit}.d/{name}.conf")
        self.machine.run("systemctl", "daemon-reload")

    def boot(self, *, is_plugged: bool = True) -> None:
        """Switch it on, and wait for the agent."""
        self.machine.boot(is_plugged=is_plugged)
        self.until("up", lambda _: True)

    def restart_agent(self) -> None:
        """Restart, and wait for its answer."""
        self.machine.run("systemctl", "restart", AGENT)

    @property
    def hot(self) -> str:
        """The release directory that serves, as its link names it."""
        return str((self.machine.root / "srv" / APP / "hot").readlink())

    def status(self) -> dict[str, Any] | None:
        """The status document, or None while nobody answers."""
        try:
            return ask(self.machine.root / "run" / "hotcold" / f"{APP}.sock", "GET", "/v1/status")
        except AgentUnreachable:
            return None

    def until(self, what: str, test: Callable[[dict[str, Any]], object], deadline_s: float = STATE_S) -> dict[str, Any]:
        """Wait for a status that passes the test."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            status = self.status()
            if status is not None and test(status):
                found.append(status)
            return bool(found)

        try:
            wait_until(look, f"{self.name}: {what}", deadline_s)
        except TimeoutError as error:
            said = self.machine.journal(AGENT)[-4000:]
            message = f"{error}\nlast status: {self.status()}\n{said}"
            raise AssertionError(message) from None
        return found[0]

    def until_steady(self, build_id: str, deadline_s: float = STATE_S) -> dict[str, Any]:
        """Wait until it serves a build and has nothing left to do."""
        return self.until(
            f"steady on {build_id}",
            lambda s: s["state"]["name"] == "steady" and s["hot"] is not None and s["hot"]["build"] == build_id,
            deadline_s,
        )

    def until_state(self, name: str) -> dict[str, Any]:
        """Wait for a state."""
        return self.until(name, lambda s: s["state"]["name"] == name)

    def agent_pid(self) -> int:
        """The agent's process number on the host, by systemd."""
        return int(self.machine.run("systemctl", "show", "-P", "MainPID", AGENT))

    def agent(self) -> psutil.Process:
        """The agent's process, as it is seen from outside."""
        wanted = self.agent_pid()
        for process in psutil.Process(self.machine.pid).children(recursive=True):
            if _number_inside(process.pid) == wanted:
                return process
        message = f"no process {wanted} on {self.name}"
        raise LookupError(message)

    @contextmanager
    def in_background(self, *argv: str, cwd: str) -> Iterator[None]:
        """Let a command run in the host until the block ends, or the host."""
        inside = ["nsenter", "-t", str(self.machine.pid), "-a", f"--wd={self.machine.root}{cwd}"]
        with subprocess.Popen([*MORTAL, *inside, *argv]) as process:
            try:
                yield
            finally:
                for each in psutil.Process(process.pid).children() if process.poll() is None else ():
                    with suppress(psutil.NoSuchProcess):
                        each.kill()

    def php_workers(self) -> list[int]:
        """The process numbers on the host of PHP-FPM's workers."""
        return [int(pid) for pid in self.machine.run("pgrep", "-u", "www-data", "-x", PHP_FPM).split()]

    def fail_log(self) -> str:
        """What its servers complained of."""
        return self.machine.journal(PHP_UNIT)


def _number_inside(pid: int) -> int:
    """The number of a process in the innermost name space that it is in."""
    found = re.search(r"^NSpid:.*?(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0
