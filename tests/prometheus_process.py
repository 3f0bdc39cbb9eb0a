"""Owns a real Prometheus for tests, and hosts that it scrapes; leaves queries to the tests."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.consul_process import free_ports, get, wait_until

NO_PROMETHEUS: Final = "no prometheus on PATH: install Debian's package `prometheus`"
_READY_S: Final = 60.0


def find_prometheus() -> str | None:
    """The binary, if there is one."""
    return shutil.which("prometheus")


class ScrapedHosts:
    """Several hosts behind one server: `/web-1` shows the counters of web-1; a host that was taken down shows 503."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._counters = {host: [0, 0] for host in hosts}
        self._down: set[str] = set()
        shown = self._shown

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = shown(self.path.strip("/"))
                self.send_response(503 if text is None else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write((text or "").encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="scraped hosts")

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def hosts(self) -> list[str]:
        return list(self._counters)

    def serve(self, host: str, *, bad: int, total: int) -> None:
        """Let a host serve requests, of which some fail."""
        with self._lock:
            self._counters[host][0] += bad
            self._counters[host][1] += total

    def take_down(self, host: str) -> None:
        """Let it answer scrapes no more."""
        with self._lock:
            self._down.add(host)

    def _shown(self, host: str) -> str | None:
        with self._lock:
            if host in self._down or host not in self._counters:
                return None
            bad, total = self._counters[host]
        outcomes = {"ok": total - bad, "bad": bad}
        return "".join(f'requests_total{{app="shop",outcome="{name}"}} {count}\n' for name, count in outcomes.items())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Prometheus:
    """One server that scrapes each host every second."""

    def __init__(self, directory: Path, scraped: ScrapedHosts) -> None:
        self._scraped = scraped
        self._directory = directory
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        targets = "".join(
            f"      - targets: ['127.0.0.1:{scraped.port}']\n"
            f"        labels: {{__metrics_path__: '/{host}', host: '{host}'}}\n"
            for host in scraped.hosts
        )
        config = directory / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: shop\n    static_configs:\n" + targets
        )
        self._command = [
            find_prometheus() or "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._wait(lambda: get(f"{self.url}/-/ready") is not None, "prometheus is ready")

    def kill(self) -> None:
        """With SIGKILL; a no-op if it does not run."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
            self._process = None

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(lambda: self._died() or condition(), what, _READY_S)
        if self._died():
            raise RuntimeError(f"prometheus ended: {(self._directory / 'log').read_text()[-2000:]}")

    def _died(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def deadline(seconds: float = _READY_S) -> Callable[[], bool]:
    """Whether the time is over."""
    end_s = time.monotonic() + seconds
    return lambda: time.monotonic() > end_s
