"""The processes that write small files: one that dies, all that die with the pull, and what is left is gone on with."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest

from artifact import TransientError
from tests.builds import Depot, Entry, File, Packed, Releases, shape_of
from tests.faults.ranged_server import Answer, Fault, Request, serving, well
from tests.processes import children_of

ENTRIES: dict[str, Entry] = {
    f"d{number % 5}/f{number}": File(random.Random(number).randbytes(30_000)) for number in range(300)
}


@pytest.fixture(scope="module")
def depot(tmp_path_factory: pytest.TempPathFactory) -> Depot:
    return Depot(tmp_path_factory.mktemp("builds") / "depot")


@pytest.fixture(scope="module")
def build(depot: Depot) -> Packed:
    return depot.pack("1", ENTRIES)


@pytest.fixture
def host(tmp_path: Path) -> Releases:
    return Releases(tmp_path / "releases")


def in_the_middle(
    strike: Callable[[psutil.Process, list[psutil.Process]], None], struck: list[psutil.Process]
) -> Fault:
    """A fault that strikes the process that pulls, or those of it that write, before the third answer, once."""
    count = [0]

    async def fault(_: Request, answer: Answer, __: asyncio.StreamReader, ___: asyncio.StreamWriter) -> Answer:
        count[0] += 1
        if count[0] == 3:
            puller, *writers = children_of()  # a process comes before those that it has started
            struck.extend(writers)
            strike(puller, list(struck))
        return answer

    return fault


async def test_a_writer_that_dies_ends_the_pull_which_is_gone_on_with(
    host: Releases, depot: Depot, build: Packed
) -> None:
    struck: list[psutil.Process] = []
    fault = in_the_middle(lambda _, writers: writers[0].kill(), struck)
    async with serving(depot.path / "out", fault) as server:
        ref = msgspec.structs.replace(build.ref, urls=(f"{server.url}/{build.artifact.name}",))
        with pytest.raises(TransientError, match="is memory short") as caught:
            await host.pulling("r", ref)
        assert caught.value.kind == "puller_died"
        server.fault = well
        await host.pulling("r", ref, is_resumed=True)
    assert shape_of(host.tree("r")) == build.shape()


async def test_no_writer_outlives_the_process_that_pulls(host: Releases, depot: Depot, build: Packed) -> None:
    """They would write into a tree that somebody else has by then."""
    struck: list[psutil.Process] = []
    fault = in_the_middle(lambda puller, _: puller.kill(), struck)
    async with serving(depot.path / "out", fault) as server:
        ref = msgspec.structs.replace(build.ref, urls=(f"{server.url}/{build.artifact.name}",))
        with pytest.raises(TransientError):
            await host.pulling("r", ref)
    assert struck
    assert [each for each in struck if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []
