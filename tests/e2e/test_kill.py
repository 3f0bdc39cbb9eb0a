"""Killed or stopped at any moment: hot stays whole, the status is right at once, and the next start goes on."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.host import Host, Shop, until

NewHost = Callable[..., Host]

PAUSED = "paused"
GATE = 'argv = ["sh", "-c", "touch {0}.reached; while [ -e {0} ]; do sleep 0.02; done; {1}"]\ntimeout_s = 60\n'
PROBE = '[probe]\ncommand = ["test", "!", "-e", "{}/bad"]\ninterval_s = 0.05\ndeadline_s = 0.5\n'
POINTS = ("before_fetch", "staged", "before_drain", "after_drain", "after_swap", "proved")


def hooks(host: Host) -> str:
    """Hooks that stop at a gate while its file exists, and take the host out of, and back into, service."""
    paused = host.directory / PAUSED
    does = {"before_drain": f"touch {paused}"} | dict.fromkeys(("proved", "reverted", "failed"), f"rm -f {paused}")
    points = (*POINTS, "reverted", "failed")
    return "".join(
        f"[hooks.{point}]\n{GATE.format(host.directory / point, does.get(point, 'true'))}" for point in points
    ) + PROBE.format(host.hot)


async def gated(shop: Shop, new_host: NewHost) -> Host:
    host = new_host()
    host.write_config(hooks(host))
    host.start()
    await shop.order(shop.pack("b1"))
    await host.until_steady("b1")
    for reached in host.directory.glob("*.reached"):
        reached.unlink()
    return host


async def reach(host: Host, point: str) -> None:
    reached = host.directory / f"{point}.reached"

    async def is_reached() -> bool:
        return reached.exists()

    await until(f"hook {point}", is_reached)
    reached.unlink()


@contextmanager
def a_reader_of(host: Host) -> Iterator[Counter[str]]:
    """Read through hot all the time; more than one build in one look, or no look at all, is counted as `broken`."""
    seen: Counter[str] = Counter()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                stamps = host.stamps()
            except OSError as error:
                seen[f"broken: {error}"] += 1
                continue
            seen[stamps.pop() if len(stamps) == 1 else f"broken: {stamps}"] += 1

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
    assert not [name for name in seen if name.startswith("broken")], seen


async def until_trees(host: Host, count: int) -> None:
    """Wait until so many trees are left: old ones are removed after a deploy is over, not as a part of it."""

    async def are_gone() -> bool:
        return len(list((host.root / "releases").iterdir())) == count

    await until(f"{count} release directories are left", are_gone)


@pytest.mark.parametrize("point", POINTS)
async def test_killed_at_each_point(point: str, shop: Shop, new_host: NewHost) -> None:
    """After kill -9 the status is right at once; the deploy is finished and the host is back in service."""
    host = await gated(shop, new_host)
    (host.directory / point).touch()
    is_swapped = point in {"after_swap", "proved"}

    with a_reader_of(host) as seen:
        await shop.order(shop.pack("b2"))
        await reach(host, point)
        host.kill()
        host.start()
        status = await host.until_up()
        assert status["hot"]["build"] == ("b2" if is_swapped else "b1")
        assert status["hot"]["path"] == str(host.hot.resolve())
        (host.directory / point).unlink()
        status = await host.until_steady("b2")

        async def is_back() -> bool:
            return not (host.directory / PAUSED).exists()

        await until("back in service", is_back)
    assert set(seen) <= {"b1", "b2"}
    assert (status["standby"]["build"], status["problem"]) == ("b1", None)
    assert len(list((host.root / "releases").iterdir())) == 2


async def test_killed_while_going_back(shop: Shop, new_host: NewHost) -> None:
    """Killed after a failed proof, the next life ends rolled back and in service, and does not try again."""
    host = await gated(shop, new_host)
    (host.directory / "reverted").touch()

    with a_reader_of(host) as seen:
        await shop.order(shop.pack("b2", extra="bad"))
        await reach(host, "reverted")
        host.kill()
        host.start()
        status = await host.until_up()
        assert (status["hot"]["build"], status["problem"]["kind"]) == ("b1", "proof_failed")
        (host.directory / "reverted").unlink()
        await host.until_state("rolled_back")

        async def is_back() -> bool:
            return not (host.directory / PAUSED).exists()

        await until("back in service", is_back)
    assert host.log.read_text().count('"event": "swapped"') == 3  # b1, b2, b1
    assert set(seen) <= {"b1", "b2"}


@pytest.mark.parametrize("point", POINTS)
async def test_stopped_at_each_point(point: str, shop: Shop, new_host: NewHost) -> None:
    """SIGTERM finishes or abandons: it ends in time, with the host in service, and the next start goes on."""
    host = await gated(shop, new_host)
    (host.directory / point).touch()
    await shop.order(shop.pack("b2"))
    await reach(host, point)

    assert host.process is not None
    host.process.terminate()
    if point in {"after_swap", "proved"}:
        await host.until("stopping", lambda _: '"event": "stopping"' in host.log.read_text())
        (host.directory / point).unlink()
    assert await asyncio.to_thread(host.process.wait, 30) == 0  # noqa: TID251 - a test may abandon it

    assert not (host.directory / PAUSED).exists()
    assert host.stamps() == {"b2" if point in {"after_swap", "proved"} else "b1"}
    (host.directory / point).unlink(missing_ok=True)
    host.start()
    await host.until_steady("b2")


async def test_killed_at_random_moments(shop: Shop, new_host: NewHost) -> None:
    """Twelve kills anywhere in twelve deploys: each time one whole build, right status, and the deploy ends.

    The tally shows where the kills hit, so that a green run says what it covered.
    """
    chance = random.Random(20261123)
    host = new_host(config='[hooks.staged]\nargv = ["sleep", "0.1"]\n[hooks.after_swap]\nargv = ["sleep", "0.1"]\n')
    host.start()
    await shop.order(shop.pack("b0", size_bytes=3_000_000))
    await host.until_steady("b0")
    tally: Counter[str] = Counter()

    with a_reader_of(host) as seen:
        for number in range(1, 13):
            build = shop.pack(f"b{number}", size_bytes=3_000_000)
            await shop.order(build)
            await asyncio.sleep(chance.uniform(0, 0.9))
            tally[(await host.until_up())["state"]["name"]] += 1
            host.kill()
            on_disk = host.stamps()
            host.start()
            status = await host.until_up()
            assert {status["hot"]["build"]} in (on_disk, {build.id})
            await host.until_steady(build.id)
    print("killed in", dict(tally), "readers saw", dict(seen))  # noqa: T201 - the tally is the point
    assert len(tally) >= 2, tally
    await until_trees(host, 3)


async def test_killed_before_old_trees_are_removed(shop: Shop, new_host: NewHost) -> None:
    """Removing comes after the deploy is over, and a life that is steady at once still makes up for it."""
    host = new_host(config="[releases]\nkeep = 3\n")
    host.start()
    for number in range(1, 4):
        await shop.order(shop.pack(f"b{number}"))
        await host.until_steady(f"b{number}")
    await until_trees(host, 3)
    host.kill()

    host.write_config("[releases]\nkeep = 2\n")  # as if the third tree had become too old just before the kill
    host.start()

    await host.until_steady("b3")
    await until_trees(host, 2)


async def test_release_in_use_is_kept(shop: Shop, new_host: NewHost, short_path: Path) -> None:
    """A tree that a process still works in is never removed, and goes once the process has left."""
    host = new_host(config="[releases]\nkeep = 2\n")
    host.start()
    await shop.order(shop.pack("b1"))
    await host.until_steady("b1")
    tree = host.hot.resolve()
    worker = await asyncio.create_subprocess_exec("sleep", "60", cwd=tree)
    try:
        for name in ("b2", "b3", "b4"):
            await shop.order(shop.pack(name))
            await host.until_steady(name)
        assert (tree / "part-0").read_text() == "b1"
    finally:
        worker.kill()
        await worker.wait()
    await shop.order(shop.pack("b5"))
    await host.until_steady("b5")

    async def is_gone() -> bool:
        return not tree.exists()

    await until("removed", is_gone)
    assert short_path in tree.parents
