"""The service manager hears of start, reload, state and stop; nobody else is ever disturbed."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.notify import Notifier


@contextlib.contextmanager
def _manager(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(5)
        yield manager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with _manager(str(tmp_path / "notify")) as manager:
        yield manager


@pytest.fixture
def notifier(manager: socket.socket) -> Iterator[Notifier]:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()}, monotonic_ns=lambda: 5_000_999)
    yield notifier
    notifier.close()


def test_each_message_is_one_datagram(manager: socket.socket, notifier: Notifier) -> None:
    """The words are those of sd_notify(3), and a reload carries the clock that the manager asks for."""
    notifier.ready("steady on 3~1")
    notifier.status("draining")
    notifier.watchdog()
    notifier.reloading()
    notifier.stopping("asked to")
    assert [manager.recv(4096) for _ in range(5)] == [
        b"READY=1\nSTATUS=steady on 3~1",
        b"STATUS=draining",
        b"WATCHDOG=1",
        b"RELOADING=1\nMONOTONIC_USEC=5000",
        b"STOPPING=1\nSTATUS=asked to",
    ]


def test_a_status_cannot_smuggle_in_a_second_message(manager: socket.socket, notifier: Notifier) -> None:
    """Line breaks in a text, such as an order's reason, become blanks."""
    notifier.status("waiting\nMAINPID=1\r\nfor\ud800")
    assert manager.recv(4096) == b"STATUS=waiting MAINPID=1 for?"


def test_an_abstract_socket_is_reached() -> None:
    """An address that begins with @ is a name in the abstract name space."""
    name = f"hotcold-test-{os.getpid()}"
    with _manager("\0" + name) as manager, contextlib.closing(Notifier({"NOTIFY_SOCKET": "@" + name})) as notifier:
        notifier.watchdog()
        assert manager.recv(4096) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1", "/nowhere/at/all", "/" + 200 * "long/"])
def test_a_manager_that_cannot_be_reached_is_no_error(address: str) -> None:
    """No manager, a strange address or a dead socket: the message is dropped."""
    notifier = Notifier({"NOTIFY_SOCKET": address} if address else {})
    notifier.ready("steady")
    notifier.close()


def test_a_manager_that_does_not_read_never_blocks_the_agent(manager: socket.socket, notifier: Notifier) -> None:
    """What no longer fits in the manager's queue is dropped, and what did fit is intact."""
    for _ in range(2000):
        notifier.watchdog()
    assert manager.recv(4096) == b"WATCHDOG=1"


def test_a_closed_notifier_is_silent(manager: socket.socket, notifier: Notifier) -> None:
    """Closing twice is fine, and nothing is said afterwards."""
    notifier.watchdog()
    notifier.close()
    notifier.close()
    notifier.status("late")
    assert manager.recv(4096) == b"WATCHDOG=1"
    manager.setblocking(False)  # noqa: FBT003 - the socket's own signature
    with pytest.raises(BlockingIOError):
        manager.recv(4096)


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15.0),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0", "WATCHDOG_PID": "7"}, None),
        ({"WATCHDOG_USEC": "soon", "WATCHDOG_PID": "7"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "me"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_twice_a_period_if_it_means_this_process(
    environment: dict[str, str], interval_s: float | None
) -> None:
    """Half the period for the process that is meant; nothing for another, or for nonsense."""
    assert Notifier(environment, pid=7).watchdog_interval_s == interval_s
