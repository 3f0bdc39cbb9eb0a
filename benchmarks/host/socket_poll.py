"""Owns how fast the status socket answers, asked over and over from outside while the agent works."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_INTERVAL_S: Final = 0.02
_TIMEOUT_S: Final = 30.0


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("agent", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class SocketPoll:
    """Asks while its context lasts, each time on a connection of its own, as monitoring does.

    Attributes:
        latencies_s: from before the connect until the answer is read, one for each answer.
        failed_count: questions without an answer of status 200.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.latencies_s: list[float] = []
        self.failed_count = 0
        self._path = path
        self._what = what
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="socket poll", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._is_over.wait(_INTERVAL_S):
            started_s = time.monotonic()
            connection = _Connection(self._path)
            try:
                connection.request("GET", self._what)
                response = connection.getresponse()
                response.read()
                is_answered = response.status == http.client.OK
            except (OSError, http.client.HTTPException):
                is_answered = False
            finally:
                connection.close()
            if is_answered:
                self.latencies_s.append(time.monotonic() - started_s)
            else:
                self.failed_count += 1
