"""Owns what is beside the hosts: a cluster of Consul servers, an artifact server, the commander; and makes hosts.

What happens to them is left to the tests. All is reached from the lab's network, which the test must have joined.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from artifact.pack import pack
from tests.consul_process import ConsulCluster, wait_until
from tests.hosts.host import APP, TIER, Host
from tests.hosts.lab import ADDRESS, MORTAL, Lab
from tests.hosts.site import write_tree

ARTIFACTS_PORT: Final = 8000
_FIRST_NUMBER: Final = 11
_COMMAND_S: Final = 120.0


class Fleet:
    """Hosts, and what they need."""

    def __init__(self, lab: Lab, cluster: ConsulCluster, directory: Path, disk: Path) -> None:
        self.lab = lab
        self.cluster = cluster
        self.directory = directory
        self._disk = disk
        self._hosts: list[Host] = []

    def new_host(self, name: str) -> Host:
        """Make a host that is off."""
        number = _FIRST_NUMBER + len(self._hosts)
        host = Host(self.lab, name, number=number, disk=self._disk, joins=self.cluster.joins)
        self._hosts.append(host)
        return host

    def pack(self, build_id: str, *, ballast: bytes = b"") -> None:
        """Make a build of the site and put it on the artifact server."""
        tree = self.directory / "trees" / build_id
        write_tree(tree, build_id)
        if ballast:
            (tree / "ballast").write_bytes(ballast)
        pack(
            tree,
            app=APP,
            build_id=build_id,
            out=self.directory / "artifacts",
            created="2026-11-23T00:00:00+00:00",
            on_progress=lambda _: None,
        )

    def deploy(self, build_id: str, *more: str) -> str:
        """Order a build that was packed, as a commander does."""
        url = f"http://{ADDRESS}:{ARTIFACTS_PORT}/{APP}-{build_id}.json"
        return self.command("deploy", url, "--app", APP, "--tier", TIER, "--reason", f"test of {build_id}", *more)

    def command(self, *arguments: str) -> str:
        """Run `hotcold` beside the hosts; its standard output."""
        done = subprocess.run(
            [*MORTAL, sys.executable, "-m", "hotcold", *arguments],
            env=os.environ | {"CONSUL_HTTP_ADDR": self.cluster.servers[0].address},
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_S,
        )
        assert done.returncode == 0, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout


def page(host: Host, path: str = "/index.php", port: int = 80) -> tuple[int, str]:
    """Ask a host's web server once: status and text."""
    connection = http.client.HTTPConnection(host.machine.address, port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@contextmanager
def artifact_server(directory: Path) -> Iterator[None]:
    """Serve `directory`/artifacts by nginx at the lab's address."""
    artifacts = directory / "artifacts"
    artifacts.mkdir(parents=True)
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = directory / "nginx.conf"
    # One process, so that none is left when that one ends.
    configuration.write_text(
        f"daemon off;\nmaster_process off;\npid {directory}/nginx.pid;\nerror_log stderr;\nuser root;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}"
        f"server {{\nlisten {ADDRESS}:{ARTIFACTS_PORT};\nroot {artifacts};\n}}\n}}\n"
    )
    with (
        (directory / "nginx.log").open("wb") as log,
        subprocess.Popen([*MORTAL, "nginx", "-c", configuration, "-e", "stderr"], stderr=log) as process,
    ):
        try:
            wait_until(_is_serving, f"nginx serves {artifacts}: {(directory / 'nginx.log').read_text()}")
            yield
        finally:
            process.terminate()
            process.wait()


def _is_serving() -> bool:
    connection = http.client.HTTPConnection(ADDRESS, ARTIFACTS_PORT, timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status > 0
    except OSError:
        return False
    finally:
        connection.close()
