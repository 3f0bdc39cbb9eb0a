"""Shows that the demo's second part shows what it says, on Checkpoint's own pages, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from hotcold.demo.rollouts.pipeline import FLEET

PATIENCE_S = 300.0
FEW_FILES = 300

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the demo makes its own directory. A short path, for the names of sockets."""
    directory = Path(tempfile.mkdtemp(prefix="hc-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    yield directory
    shutil.rmtree(directory)


Demo = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def demo(place: Path) -> Iterator[Demo]:
    """Starts demos, which end with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str, **environment: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "hotcold", "demo", "--store=embedded", f"--files={FEW_FILES}", "--json", *options]
        environment = {**os.environ, "TMPDIR": str(place), **environment}
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def processes_of(place: Path, process: subprocess.Popen[str]) -> dict[int, str]:
    """Every process that the demo has started: all of them inherit where its directory is."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == process.pid:
            continue
        try:
            if f"TMPDIR={place}\0".encode() in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


@dataclass
class Told:
    """What a demo says on standard error, read all the time, so that it never waits for its reader."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()

    def until(self, word: str) -> str:
        """The first line with `word`."""

        def found() -> str | None:
            return next((line for line in self.lines if word in line), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None or not self._reading.is_alive(), PATIENCE_S)
            line = found()
        assert line is not None, f"{word!r} was never said: {''.join(self.lines)}"
        return line

    def has(self, word: str) -> bool:
        with self._news:
            return any(word in line for line in self.lines)

    def ended(self) -> tuple[int, str]:
        """Exit status and standard output."""
        assert self.process.stdout is not None
        output = self.process.stdout.read()
        status = self.process.wait(60)
        self._reading.join(60)
        return status, output


class Visitor:
    """Somebody with the link."""

    def __init__(self, link: str) -> None:
        self.url = "{0.scheme}://{0.netloc}".format(urlsplit(link))
        self.port = urlsplit(link).port
        self._opener = build_opener(HTTPCookieProcessor(CookieJar()))
        self._opener.open(link, timeout=30).close()

    def page(self, path: str) -> str:
        with self._opener.open(self.url + path, timeout=30) as answer:
            assert answer.status == 200
            text: str = answer.read().decode()
            return text

    def api(self, path: str) -> Any:
        return json.loads(self.page(path))


def assert_nothing_left(place: Path, process: subprocess.Popen[str], *ports: int | None) -> None:
    assert processes_of(place, process) == {}
    assert list(place.iterdir()) == []
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port or 0), timeout=30)


def test_both_rollouts_are_seen_on_the_pages(place: Path, demo: Demo) -> None:
    """All steps of the good one; the bad one stopped at canary, by itself; then it stays up, until Ctrl-C."""
    process = demo("--show=all", "--stay")
    told = Told(process)
    visitor = Visitor(told.until("/sign-in?token="))
    seen: set[tuple[int, str]] = set()
    while not told.has("until Ctrl-C"):
        assert process.poll() is None, told.lines
        shown = visitor.api("/api/rollout")["rollout"]
        if shown is not None:
            number = shown["rollout"]
            current = [step["name"] for step in shown["steps"] if step["standing"] == "current"]
            seen |= {(number, name) for name in (shown["phase"], *current)}
            assert shown["build"] in visitor.page(f"/rollouts/{number}")
        time.sleep(0.2)  # looks, waits for nothing
    # A stalled machine may hide some steps from who looks now and then; the audit has them all.
    assert len({step for number, step in seen if number == 1}) >= 3
    assert len({step for number, step in seen if number == 2}) >= 2
    assert not {(1, "paused"), (1, "rolled_back"), (2, "prod to 10 %")} & seen
    hosts = visitor.api("/api/hosts")["hosts"]
    assert {(host["tier"], host["host"]) for host in hosts} == {(tier, each) for tier in FLEET for each in FLEET[tier]}
    assert {host["hot"] for host in hosts} == {"2.1"}
    train = visitor.page("/")
    assert "rolled back" in train
    assert "Locked" in train
    said = [record["message"] for record in visitor.api("/api/audit")["records"]]
    ordered = [message.partition(" is ordered")[0] for message in reversed(said) if " is ordered" in message]
    first = ["staging to 100 %", "dogfood to 100 %", "canary to 100 %"]
    prod = [f"prod to {percent} %" for percent in (10, 25, 50, 75, 100)]
    assert ordered == [*first, *prod, *first]
    assert any("smoke test passed" in message for message in said)
    assert any("2.2-no-yen is rolled back" in message and "failed-requests" in message for message in said)

    process.send_signal(signal.SIGINT)
    status, output = told.ended()
    assert status == 0, told.lines
    outcome = json.loads(output)
    assert (outcome["failed"], outcome["mixed"], outcome["bad_build_reverted"]) == (0, 0, True)
    shown = outcome["checkpoint"]
    assert list(shown) == ["hosts", "good", "bad", "mixed", "steered_by"]
    assert (shown["hosts"], shown["mixed"], shown["steered_by"]) == (9, 0, None)
    assert shown["good"]["finished"] is True
    assert shown["good"]["failed"] == 0
    assert shown["good"]["requests"] > 500
    bad = shown["bad"]
    assert (bad["stopped_at"], bad["hosts_reached"], bad["failed_elsewhere"]) == ("canary to 100 %", 4, 0)
    assert 0 < bad["failed"] < bad["requests"] / 2
    assert 0 < bad["detect_ms"] < PATIENCE_S * 1000
    assert 0 < bad["rollback_ms"] < PATIENCE_S * 1000
    assert_nothing_left(place, process, visitor.port)


def test_who_steers_on_the_pages_takes_over(place: Path, demo: Demo) -> None:
    """Somebody rolls the good build back: the demo says so, stays up, and does not call it a failure."""
    process = demo("--show=checkpoint", "--stay")
    told = Told(process)
    told.until("rollout 1: 2.1")
    checkpoint = next(line for line in processes_of(place, process).values() if "checkpoint serve" in line).split()
    store = checkpoint[checkpoint.index("--consul") + 1]
    subprocess.run(
        [*(sys.executable, "-m", "hotcold", "rollout", "rollback", "--app=shop", "--reason=mine"), f"--consul={store}"],
        check=True,
        timeout=60,
    )
    told.until("the demo steps back")
    told.until("until Ctrl-C")
    process.send_signal(signal.SIGINT)
    status, output = told.ended()
    assert status == 0, told.lines
    shown = json.loads(output)["checkpoint"]
    assert shown["steered_by"]
    assert shown["good"]["finished"] is False
    assert_nothing_left(place, process)


def once(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


def impatiently(process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)


def by_closing_the_terminal(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGHUP)


@pytest.mark.parametrize(
    ("word", "end"),
    [
        ("packing", once),
        ("at the artifact server", impatiently),
        ("clients come in", once),
        ("/sign-in?token=", impatiently),
        ("staging to 100 %: 1 host", by_closing_the_terminal),
    ],
)
def test_an_interrupt_leaves_nothing(
    place: Path, demo: Demo, word: str, end: Callable[[subprocess.Popen[str]], None]
) -> None:
    """No process, no directory, no port; the exit status says that not all was shown."""
    process = demo("--show=checkpoint")
    told = Told(process)
    line = told.until(word)
    end(process)
    status, output = told.ended()
    assert status == 130, told.lines
    assert json.loads(output)["checkpoint"]["bad"]["stopped_at"] is None
    assert_nothing_left(place, process, *([urlsplit(line.strip()).port] if "/sign-in" in line else []))


def test_a_browser_is_asked_to_open_the_link(place: Path, demo: Demo) -> None:
    """By the desktop's own means, and nobody waits for it: it is left alone at the end."""
    opened = place / "opened"
    browser = place / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >{opened}.new && mv {opened}.new {opened}\nexec sleep 60\n')
    browser.chmod(0o755)
    process = demo("--show=checkpoint", "--browser", BROWSER=f"{browser} %s")
    told = Told(process)
    link = told.until("/sign-in?token=").strip()
    end_s = time.monotonic() + PATIENCE_S
    while not opened.exists():
        assert time.monotonic() < end_s
        time.sleep(0.05)
    assert opened.read_text().strip() == link
    process.send_signal(signal.SIGINT)
    assert told.ended()[0] == 130
    left = processes_of(place, process)
    for pid in left:
        os.kill(pid, signal.SIGTERM)
    assert [line for line in left.values() if "hotcold" in line.replace(str(place), "")] == []
    with pytest.raises(URLError):
        Visitor(link)
