"""Owns what the agent tells its service manager: the sd_notify protocol.

What is said when is left to `agent.runner`. Without a service manager every message is dropped; a message that cannot
be delivered is dropped too, because a deploy must not depend on who watches it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

_MICROSECONDS: Final = 1_000_000


class Notifier:
    """A line to the service manager named in `environment`; never raises, never blocks, may be closed twice.

    Args:
        environment: `NOTIFY_SOCKET` (a path, or an abstract name after `@`), `WATCHDOG_USEC`, `WATCHDOG_PID`.
        pid: the process that the watchdog must have meant.
        monotonic_ns: CLOCK_MONOTONIC, which the manager compares its own with.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        pid: int | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._monotonic_ns = monotonic_ns
        self._socket: socket.socket | None = None
        self.watchdog_interval_s: Final = _watchdog_interval_s(environment, os.getpid() if pid is None else pid)
        """How often `watchdog` should be called, or None if nobody waits for it."""

    def ready(self, status: str) -> None:
        """Say that the start, or a reload, has finished."""
        self._send("READY=1", f"STATUS={_one_line(status)}")

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._send(f"STATUS={_one_line(text)}")

    def watchdog(self) -> None:
        """Say that the event loop still turns."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Say that the configuration is being read again; `ready` must follow, also when the new one was refused."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={self._monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """Say that the agent is on its way out."""
        self._send("STOPPING=1", f"STATUS={_one_line(status)}")

    def close(self) -> None:
        """Close the socket; later messages are dropped."""
        self._address = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        with contextlib.suppress(OSError):  # a manager that is gone or overrun; see the module docstring
            if self._socket is None:
                kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                self._socket = socket.socket(socket.AF_UNIX, kind)
            self._socket.sendto("\n".join(lines).encode(errors="replace"), self._address)


def _address(name: str) -> str | None:
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None  # vsock and the like: hosts run the agent, not the other way round


def _watchdog_interval_s(environment: Mapping[str, str], pid: int) -> float | None:
    try:
        period_s = int(environment["WATCHDOG_USEC"]) / _MICROSECONDS
        meant_pid = int(environment.get("WATCHDOG_PID", pid))
    except (KeyError, ValueError):
        return None
    # Half the period is what sd_watchdog_enabled(3) recommends.
    return period_s / 2 if meant_pid == pid and period_s > 0 else None


def _one_line(text: str) -> str:
    return " ".join(text.split())
