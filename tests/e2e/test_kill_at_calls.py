"""A real agent, with its real store and server, killed at system calls of a deploy: the next start ends it.

`tests/faults/test_agent_every_call.py` goes through every call, without Consul and sockets; this is a sample with them.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.host import Host, Shop, until
from tests.faults.sizes import IS_FULL, tell_tally

NewHost = Callable[..., Host]

POINTS = [
    *(("fsync", number) for number in range(1, 16)),
    *(("renameat", number) for number in range(1, 10)),
    *(("renameat2", 1), ("syncfs", 1), ("symlinkat", 1)),
    *(("unlink", number) for number in range(1, 4)),
    *(("unlinkat", number) for number in range(1, 30, 3)),
    *(("utimensat", number) for number in range(1, 12, 2)),
    *(("mkdirat", 1), ("fchmod", 1), ("rename", 1)),
]
"""strace counts for each thread of the agent, and of what it starts; whichever is first to get there is killed."""
SAMPLE = [("renameat2", 1), ("unlinkat", 7)]


@pytest.fixture
def tally() -> Iterator[Counter[str]]:
    counts: Counter[str] = Counter()
    yield counts
    tell_tally("whole agents killed", counts)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "number"), POINTS if IS_FULL else SAMPLE)
async def test_killed_at_a_call(kind: str, number: int, shop: Shop, new_host: NewHost, tally: Counter[str]) -> None:
    """Old or new serves at once, whole; the deploy is finished; three trees are left, as ever."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (apt-get install strace)")
    host = new_host()
    host.start()
    for build_id in ("b1", "b2", "b3"):
        await shop.order(shop.pack(build_id))
        await host.until_steady(build_id)
    assert host.stop() == 0

    log = host.directory / "strace"
    log.touch()
    inject = f"inject={kind}:signal=KILL:when={number}"
    host.command = ("strace", "-D", "-f", "-o", str(log), "-e", f"trace={kind}", "-e", inject, *Host.command)
    host.start()
    await shop.order(shop.pack("b4"))

    async def is_struck() -> bool:
        return not host.is_alive() or "+++ killed by SIGKILL" in log.read_text() or host.stamps() == {"b4"}

    await until(f"killed at {kind} {number}, or never so many", is_struck)
    tally["agent" if not host.is_alive() else "puller" if "+++ killed" in log.read_text() else "not so many"] += 1
    if host.is_alive():
        host.kill()
    assert host.stamps() in ({"b3"}, {"b4"})

    host.command = Host.command
    host.start()
    await host.until_steady("b4")
    assert host.stamps() == {"b4"}

    async def are_three_left() -> bool:
        return len(list((host.root / "releases").iterdir())) == 3

    await until("three trees are left", are_three_left)
    assert {path.name for path in host.root.iterdir()} == {"hot", "cold", "releases"}
