"""Owns the web server of a run: a real nginx that serves the library, and what it says it has served."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.lab.net import Net

PORT: Final = 18080
_STARTED_WITHIN_S: Final = 10.0
_LOGGED_WITHIN_S: Final = 0.05

# `tcp_nopush` stays off, as nginx itself has it: on, as Debian has it, it costs clients that ask for many small things
# up to 44 ms each on loopback, and some of the peers do.
_CONFIG: Final = """\
daemon off;
worker_processes auto;
pid {scratch}/nginx.pid;
error_log {scratch}/nginx-error.log;
events {{ worker_connections 1024; }}
http {{
    log_format served '$status $bytes_sent $body_bytes_sent';
    access_log {log} served;
    sendfile on;
    keepalive_requests 100000;
    client_body_temp_path {scratch}/nginx-body;
    proxy_temp_path {scratch}/nginx-proxy;
    fastcgi_temp_path {scratch}/nginx-fastcgi;
    uwsgi_temp_path {scratch}/nginx-uwsgi;
    scgi_temp_path {scratch}/nginx-scgi;
    server {{
        listen {port};
        root {root};
    }}
}}
"""


@dataclass(frozen=True)
class Served:
    """What went out since the last count: requests, and bytes with headers."""

    request_count: int
    sent_bytes: int


class Nginx:
    """A running server; made by `serving`."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self._log = log
        self._read_bytes = 0

    def count(self) -> Served:
        """What was served since the last call."""
        time.sleep(_LOGGED_WITHIN_S)  # a request is logged just after its last byte
        with self._log.open("rb") as file:
            file.seek(self._read_bytes)
            lines = file.read()
        self._read_bytes += len(lines)
        sizes = [int(line.split()[1]) for line in lines.splitlines()]
        return Served(len(sizes), sum(sizes))

    @staticmethod
    @contextmanager
    def serving(root: Path, net: Net, scratch: Path) -> Iterator[Nginx]:
        """Serve `root` until the context ends."""
        log = scratch / "nginx-access.log"
        log.unlink(missing_ok=True)
        log.touch()
        config = scratch / "nginx.conf"
        config.write_text(_CONFIG.format(scratch=scratch, log=log, port=PORT, root=root))
        url = f"http://{net.address}:{PORT}"
        with subprocess.Popen(net.on_server(["nginx", "-e", scratch / "nginx-error.log", "-c", config])) as process:
            try:
                _await(net.on_client(["curl", "-s", "-o", "/dev/null", url]), process)
                server = Nginx(url, log)
                server.count()
                yield server
            finally:
                process.terminate()


def _await(probe: list[str], process: subprocess.Popen[bytes]) -> None:
    ends_s = time.monotonic() + _STARTED_WITHIN_S
    while subprocess.run(probe, check=False).returncode:
        if process.poll() is not None or time.monotonic() > ends_s:
            raise RuntimeError("nginx does not answer; see above")
        time.sleep(0.05)
