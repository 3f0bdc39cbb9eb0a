"""A drain waits for evidence, tells who is waited for, and means what its policy says when time is up."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
import psutil
import pytest

from agent.drain import Drained, DrainSettings, DrainTimedOut, drain
from agent.gauges import Gauge
from agent.workers import Busy, Match

TREE = Path("/srv/shop/releases/3~1")
WORKERS = (Match(unit="shop.service"),)
ONE = Busy(11, "php-fpm: pool www", ("working directory /srv/shop/releases/3~1",))
TWO = Busy(12, "php-fpm: pool www", ("1 connection on port 80", "open /srv/shop/releases/3~1/index.php"))


async def no_server(gauge: Gauge) -> Sequence[Busy]:
    """Nobody is configured to be asked."""
    raise AssertionError(gauge)


class Host:
    """A clock that only sleeping moves, and workers that leave at given times."""

    def __init__(self, *leaving: tuple[Busy, float]) -> None:
        self.now_s = 1000.0
        self.leaving = leaving
        self.looks: list[float] = []
        self.asked: set[object] = set()
        self.told: list[list[int]] = []

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds

    def look(self, matches: Iterable[Match], tree: Path, doors: Collection[int | str]) -> Sequence[Busy]:
        self.looks.append(self.now_s - 1000)
        self.asked.add((tuple(matches), tree, tuple(doors)))
        return [busy for busy, at_s in self.leaving if self.now_s - 1000 < at_s]

    def on_waiting(self, busy: Sequence[Busy]) -> None:
        self.told.append([worker.pid for worker in busy])

    async def drain(self, settings: DrainSettings) -> Drained:
        return await drain(
            settings,
            TREE,
            ask=no_server,
            on_waiting=self.on_waiting,
            clock=self.clock,
            sleep=self.sleep,
            look=self.look,
        )


async def test_without_workers_everything_is_drained() -> None:
    """Nobody is described, so nobody is looked for."""
    host = Host((ONE, 99))
    assert await host.drain(DrainSettings()) == Drained(waited_s=0)
    assert host.looks == []


async def test_idle_workers_are_drained_at_the_first_look() -> None:
    """One look, with the workers, the tree and the ports of the settings, and nothing to tell."""
    host = Host()
    assert await host.drain(DrainSettings(workers=WORKERS, ports=(80,))) == Drained(waited_s=0)
    assert host.looks == [0]
    assert host.asked == {(WORKERS, TREE, (80,))}
    assert host.told == []


async def test_it_waits_until_the_last_worker_has_left() -> None:
    """Each change of who is busy is told once, and the wait ends at the first look that sees nobody."""
    host = Host((ONE, 1.1), (TWO, 2.1))
    drained = await host.drain(DrainSettings(workers=WORKERS, poll_s=0.5))
    assert drained == Drained(waited_s=2.5)
    assert host.told == [[11, 12], [12]]
    assert host.looks == [0, 0.5, 1, 1.5, 2, 2.5]


async def test_a_timeout_gives_the_deploy_up_and_names_everybody() -> None:
    """The error says who, what they run, why they count, and what to do."""
    host = Host((ONE, 99), (TWO, 99))
    with pytest.raises(DrainTimedOut) as caught:
        await host.drain(DrainSettings(workers=WORKERS, timeout_s=1.2, poll_s=0.5))
    assert caught.value.kind == "drain_timeout"
    assert caught.value.busy == (ONE, TWO)
    for part in ("after 1.2 s 2 worker(s)", str(TREE), "pid 11 (php-fpm: pool www): working directory", "drain.policy"):
        assert part in str(caught.value)
    assert "pid 12 (php-fpm: pool www): 1 connection on port 80; open /srv" in str(caught.value)
    assert host.looks == pytest.approx([0, 0.5, 1, 1.2])


async def test_a_crowd_is_named_in_part() -> None:
    """The message stays readable; the error carries all of them."""
    crowd = tuple(Busy(pid, "worker", ("open /x",)) for pid in range(200))
    with pytest.raises(DrainTimedOut, match=r"195 more") as caught:
        await Host(*((busy, 99) for busy in crowd)).drain(DrainSettings(workers=WORKERS, timeout_s=0))
    assert caught.value.busy == crowd
    assert len(str(caught.value)) < 600


async def test_policy_proceed_swaps_under_those_that_are_left() -> None:
    """Who was left is in the answer."""
    host = Host((ONE, 0.2), (TWO, 99))
    drained = await host.drain(DrainSettings(workers=WORKERS, timeout_s=1, policy="proceed"))
    assert drained == Drained(waited_s=1, proceeded_with=(TWO,))


@pytest.mark.parametrize("busy", [True, False])
async def test_a_timeout_of_nothing_means_only_if_drained(*, busy: bool) -> None:
    """There is exactly one look, and it decides."""
    host = Host((ONE, 99 if busy else 0))
    settings = DrainSettings(workers=WORKERS, timeout_s=0)
    if busy:
        with pytest.raises(DrainTimedOut):
            await host.drain(settings)
    else:
        assert await host.drain(settings) == Drained(waited_s=0)
    assert host.looks == [0]


async def test_an_error_of_the_look_is_not_drained() -> None:
    """What cannot be seen is never taken for empty."""

    def look(*_: object) -> list[Busy]:
        raise OSError("no /proc")

    with pytest.raises(OSError, match="no /proc"):
        await drain(DrainSettings(workers=WORKERS), TREE, ask=no_server, look=look)


async def test_it_can_be_cancelled_while_it_waits() -> None:
    """A newer order does not wait for the deadline."""
    waiting = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def sleep(_: float) -> None:
        waiting.set()
        await loop.create_future()

    host = Host((ONE, 99))
    task = asyncio.create_task(drain(DrainSettings(workers=WORKERS), TREE, ask=no_server, sleep=sleep, look=host.look))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[psutil.Process]:
    """Start a worker in `tmp_path` that is no descendant of ours, as a service is none of the agent."""
    says = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    argv = ["sh", "-c", 'cd "$1" && "$2" -c "$3" drain-me &', "sh", tmp_path, sys.executable, says]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        process = psutil.Process(int(shell.stdout.readline()))
    yield process
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


async def test_a_real_worker_is_waited_for(tmp_path: Path, worker: psutil.Process) -> None:
    """An orphan with its working directory in the tree is busy, and drained once it has ended."""
    told: list[Sequence[Busy]] = []

    def on_waiting(busy: Sequence[Busy]) -> None:
        told.append(busy)
        worker.kill()

    settings = DrainSettings(workers=(Match(command=r" drain-me$"),), timeout_s=30, poll_s=0.02)
    drained = await drain(settings, tmp_path, ask=no_server, on_waiting=on_waiting)
    assert drained.proceeded_with == ()
    assert told == [[Busy(worker.pid, told[0][0].command, (f"working directory {tmp_path}",))]]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"ports": [80]}, "`ports` without `workers`"),
        ({"sockets": ["/run/a"]}, "`sockets` without `workers`"),
        ({"workers": [{"unit": "a.service"}], "sockets": ["a"]}, "an absolute path"),
        ({"workers": [{"pid_file": "a"}]}, "an absolute path"),
        ({"workers": [{"unit": "a.service"}], "ports": [0]}, r"`int` >= 1 - at `\$.ports\[0\]`"),
        ({"workers": [{}]}, r"at least one of .* at `\$.workers\[0\]`"),
        ({"policy": "wait"}, "Invalid enum value 'wait'"),
        ({"timeout_s": -1}, r"at `\$.timeout_s`"),
        ({"poll_s": 0}, r"at `\$.poll_s`"),
        ({"timeout": 5}, "unknown field `timeout`"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(document: dict[str, object], message: str) -> None:
    """The message names the key."""
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(document, DrainSettings)
