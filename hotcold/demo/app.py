"""Owns the app that the demo deploys to: worker processes that serve HTTP out of `hot`, and prove on a second socket.

What a page says is the build's own code, `shop/handler.py` in its tree; what the answers are worth is left to
`hotcold.demo.verdict`. Only the standard library is imported: a worker is to start fast and be small.

An app that must not lose or mix a request under a swap needs two habits, and this one shows them:

1. A request opens `hot` once and reads everything relative to that descriptor, so all of it is of one build.
2. Before it accepts, a worker opens `hot` and only *then* looks whether it is told to pause. The agent pauses first and
   only *then* looks who has `hot` open. So either the agent sees the worker and waits, or the worker sees the pause and
   leaves the request to the kernel's queue. There is no moment between.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from hotcold.demo.leash import die_with

SAMPLED_COUNT: Final = 12
"""Files that one request reads, spread over the tree."""
INDEX: Final = "shop/index.json"
HANDLER: Final = "shop/handler.py"
CURRENCY: Final = "EUR"
"""What is paid in by whoever does not say so, as in `GET /?currency=JPY`."""

_BACKLOG_COUNT: Final = 1024
_IDLE_S: Final = 0.2
_PAUSED_S: Final = 0.02
_CLIENT_TIMEOUT_S: Final = 10.0
_REQUEST_BYTES: Final = 16 * 1024
_CONTENT_LENGTH: Final = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)
_EXPECTS: Final = re.compile(rb"^expect: *100-continue", re.IGNORECASE | re.MULTILINE)
_CURRENCY: Final = re.compile(rb"^[A-Z]+ /\?currency=([A-Z]{3}) ")

Page = Callable[[Callable[[str], bytes], list[str], str], dict[str, Any]]


def main() -> None:
    """Listen, say where on the first line of stdout, and serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m hotcold.demo.app", description="The app of the demo.")
    parser.add_argument("--root", type=Path, required=True, help="the directory with the link `hot`")
    parser.add_argument("--pause", type=Path, required=True, help="while this file exists, clients have to wait")
    parser.add_argument("--warming", type=Path, required=True, help="while this file exists, probes have to wait")
    parser.add_argument("--workers", type=int, default=3)
    arguments = parser.parse_args()
    public, probe = _listen(), _listen()
    sys.stdout.write(json.dumps({"port": public.getsockname()[1], "probe_port": probe.getsockname()[1]}) + "\n")
    sys.stdout.flush()
    worker = Worker(public, probe, arguments.root / "hot", pause=arguments.pause, warming=arguments.warming)
    sys.exit(_supervise(worker, arguments.workers))


class Worker:
    """One worker process, with the sockets that it shares with the others."""

    def __init__(self, public: socket.socket, probe: socket.socket, hot: Path, *, pause: Path, warming: Path) -> None:
        self._public = public
        self._probe = probe
        self._hot = hot
        self._pause = pause
        self._warming = warming
        self._is_stopping = False

    def run(self) -> None:
        """Serve until SIGTERM; a request in hand is finished."""
        signal.signal(signal.SIGTERM, self._stop)
        while not self._is_stopping:
            waiting = ((self._probe, self._warming), (self._public, self._pause))
            listeners = [listener for listener, mark in waiting if not mark.exists()]
            idle_s = _IDLE_S if len(listeners) == len(waiting) else _PAUSED_S
            for listener in select.select(listeners, [], [], idle_s)[0]:
                self._serve_one(listener)

    def _stop(self, *_: object) -> None:
        self._is_stopping = True

    def _serve_one(self, listener: socket.socket) -> None:
        try:
            tree = os.open(self._hot, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # nothing was deployed here yet: clients wait in the kernel's queue
            time.sleep(_PAUSED_S)
            return
        try:
            # Only now, with `hot` open: see habit 2 above. The probe comes from the agent itself and is never paused.
            if listener is self._public and self._pause.exists():
                return
            try:
                connection, _ = listener.accept()
            except BlockingIOError:  # another worker was faster
                return
            with connection:
                _answer(connection, tree)
        finally:
            os.close(tree)


def _listen() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG_COUNT)
    listener.settimeout(0)
    return listener


def _supervise(worker: Worker, count: int) -> int:
    """Run workers until SIGTERM; the exit status. A worker that ends by itself ends the app: it must not."""
    parent_pid = os.getpid()
    pids: set[int] = set()

    def stop_all(*_: object) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop_all)
    # A worker must not inherit a handler that kills its siblings, nor miss a SIGTERM before it has its own.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            die_with(parent_pid)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            worker.run()
            os._exit(0)
        pids.add(pid)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    worst = 0
    while pids:
        pid, status = os.wait()
        pids.discard(pid)
        worst = max(worst, abs(os.waitstatus_to_exitcode(status)))
        if status:
            stop_all()
    return worst


def _answer(connection: socket.socket, tree: int) -> None:
    connection.settimeout(_CLIENT_TIMEOUT_S)
    try:
        head = _read_request(connection)
        if head is None:
            return
        asked = _CURRENCY.match(head)
        status, document = _page(tree, CURRENCY if asked is None else asked[1].decode())
        body = json.dumps(document).encode()
        fields = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(fields.encode() + b"Connection: close\r\n\r\n" + body)
    except (OSError, ValueError):  # the client went away; its loss, which it counts itself
        return


def _read_request(connection: socket.socket) -> bytes | None:
    """The head of a request that has come whole; None: the client went away."""
    request = b""
    while b"\r\n\r\n" not in request and len(request) < _REQUEST_BYTES:
        received = connection.recv(_REQUEST_BYTES)
        if not received:
            return None
        request += received
    head, _, body = request.partition(b"\r\n\r\n")
    found = _CONTENT_LENGTH.search(head)
    if found is None:
        return head
    if _EXPECTS.search(head):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    missing_bytes = min(int(found[1]), _REQUEST_BYTES) - len(body)
    while missing_bytes > 0:
        received = connection.recv(missing_bytes)
        if not received:
            return None
        missing_bytes -= len(received)
    return head


def _page(tree: int, currency: str) -> tuple[str, dict[str, Any]]:
    """The answer: a price, and for each file that was read, which build it says it is of."""
    release = str(Path(f"/proc/self/fd/{tree}").readlink())

    def read(name: str) -> bytes:
        with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=tree), "rb") as file:  # noqa: PTH123 - a descriptor
            return file.read()

    try:
        index = json.loads(read(INDEX))
        page = _code(f"{release}/{HANDLER}", read(HANDLER))
        names = random.sample(index["stamped"], SAMPLED_COUNT)
        shown = page(read, names, currency)
        builds = {INDEX: index["build"], **shown["builds"]}
    except Exception as error:  # noqa: BLE001 - whatever a build's own code raises is a 500, as in any app server
        return "500 Internal Server Error", {"error": f"{type(error).__name__}: {error}", "release": release}
    return "200 OK", {"release": release, "pid": os.getpid(), "price": shown["price"], "builds": builds}


@lru_cache(maxsize=8)
def _code(path: str, source: bytes) -> Page:
    """The build's code, compiled once, as app servers do."""
    names: dict[str, Any] = {}
    exec(compile(source, path, "exec"), names)  # noqa: S102 - running a build's code is what an app server is for
    page: Page = names["page"]
    return page


if __name__ == "__main__":
    main()
