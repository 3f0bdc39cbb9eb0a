"""What an interrupted pull leaves is gone on with, and what only looks right is not trusted: tables, patches, files."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
from collections.abc import Awaitable, Iterator
from pathlib import Path

import msgspec
import pytest

from artifact import ManifestRef, TransientError
from artifact.table import read_table
from tests.builds import Depot, Entry, File, Link, Packed, Releases, held_inodes, inodes_of, shape_of, stats_of
from tests.faults.pull_many import ManyPulls, many_pulls
from tests.faults.ranged_server import Answer, Fault, Request, serving, well
from tests.processes import children_of

ENTRIES: dict[str, Entry] = {
    **{f"d{number % 5}/f{number}": File(random.Random(number).randbytes(30_000)) for number in range(200)},
    "big": File(random.Random(1000).randbytes(9 << 20)),
    "link": Link("d1"),
}
NEXT: dict[str, Entry] = {
    **{f"d{number % 5}/f{number}": File(random.Random(number + 20).randbytes(30_000)) for number in range(200)},
    "e/big": File(random.Random(1000).randbytes(9 << 20)),
    "d0/f1": File(b"other"),
    "link": Link("d2"),
}


@pytest.fixture(scope="module")
def depot(tmp_path_factory: pytest.TempPathFactory) -> Depot:
    return Depot(tmp_path_factory.mktemp("builds") / "depot")


@pytest.fixture(scope="module")
def build(depot: Depot) -> Packed:
    return depot.pack("1", ENTRIES)


@pytest.fixture(scope="module")
def following(depot: Depot, build: Packed) -> Packed:
    return depot.pack("2", NEXT, against=build)


@pytest.fixture
def host(tmp_path: Path) -> Releases:
    return Releases(tmp_path / "releases")


@pytest.fixture(scope="module")
def pulls() -> Iterator[ManyPulls]:
    with many_pulls() as started:
        yield started


def ref_at(build: Packed, url: str) -> ManifestRef:
    return msgspec.structs.replace(build.ref, urls=(f"{url}/{build.artifact.name}",))


def killing(after: int) -> Fault:
    """A fault that kills the process that pulls, in the middle of the answer to a request, once."""
    count = [0]

    async def fault(
        _: Request, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Answer | None:
        count[0] += 1
        if count[0] != after + 1:
            return answer
        writer.write(
            f"HTTP/1.1 206 P\r\n{answer.headers[0]}\r\nContent-Length: {answer.length}\r\n\r\n".encode()
            + answer.body[: len(answer.body) // 2]
        )
        await writer.drain()
        for child in children_of():
            child.kill()
        await reader.read()
        return None

    return fault


async def ended(pulling: Awaitable[int]) -> None:
    """A pull that was killed, or was faster; not one that found anything wrong."""
    kinds = set()
    try:
        await pulling
    except TransientError as error:
        kinds.add(error.kind)
    assert kinds <= {"puller_died"}


@pytest.mark.parametrize("after", range(7))
async def test_a_pull_that_was_killed_at_any_request_is_gone_on_with(
    host: Releases, depot: Depot, build: Packed, after: int
) -> None:
    """As an agent does that was killed: the same call again. What was finished is kept, by its inode."""
    fault = killing(after)
    async with serving(depot.path / "out", fault) as server:
        ref = ref_at(build, server.url)
        with pytest.raises(TransientError) as caught:
            await host.pulling("r", ref)
        assert caught.value.kind == "puller_died"
        server.fault = well
        with held_inodes(host.tree("r")) as inodes:
            left = {name: inode for name, inode in inodes.items() if name != "big"}
            whole = {name for name in left if (host.tree("r") / name).stat().st_size == 30_000}
            received = await host.pulling("r", ref, is_resumed=True)
            now = inodes_of(host.tree("r"))
    assert shape_of(host.tree("r")) == build.shape()
    assert {name for name in whole if now[name] == left[name]} == whole
    assert received <= build.manifest.size + build.index.stat().st_size
    if after > 5:  # root, rows, and four ranges at once: the next request means that one of those is finished
        assert whole


@pytest.mark.parametrize("after", range(0, 8, 2))
async def test_a_spare_whose_pull_was_killed_is_gone_on_with_also_by_another_build(
    host: Releases, depot: Depot, build: Packed, following: Packed, after: int
) -> None:
    """The table tells of the tree before; what the interrupted pull made of it is read again, or goes."""
    await host.pulling("r1", build.ref)
    await host.pulling("s1", build.ref)
    for spare, then in (("r", following), ("s", build)):
        host.settle(f"{spare}1")
        host.take_over(f"{spare}1", f"{spare}2")
        fault = killing(after)
        async with serving(depot.path / "out", fault) as server:
            await ended(host.pulling(f"{spare}2", ref_at(following, server.url), own=f"{spare}1"))
        host.take_over(f"{spare}2", f"{spare}3")
        await host.pulling(f"{spare}3", then.ref, own=f"{spare}1", is_resumed=True)
        assert shape_of(host.tree(f"{spare}3")) == then.shape()


@pytest.mark.parametrize("delay_s", [0.02, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.6])
async def test_a_pull_that_is_killed_at_any_moment_of_its_own_work_is_gone_on_with(
    host: Releases, build: Packed, following: Packed, delay_s: float
) -> None:
    """Without a network there is no request to kill it at, so the clock decides; it is right wherever that hits."""
    await host.pulling("hot", build.ref)
    await host.pulling("r1", build.ref)
    host.settle("r1")
    host.take_over("r1", "r2")
    task = asyncio.create_task(host.pulling("r2", following.ref, own="r1", bases=["hot"]))
    await asyncio.sleep(delay_s)
    for child in children_of():
        child.kill()
    await ended(task)
    await host.pulling("r2", following.ref, own="r1", bases=["hot"], is_resumed=True)
    assert shape_of(host.tree("r2")) == following.shape()
    assert shape_of(host.tree("hot")) == build.shape()


def test_a_repull_trusts_nothing(host: Releases, build: Packed) -> None:
    """No table, no other release: everything is received, whatever is on the host."""
    host.pull("hot", build.ref)
    received = host.pull("r", build.ref)
    assert received >= build.manifest.size - build.root().frame_sizes[-1]
    assert shape_of(host.tree("r")) == build.shape()


# --- what only looks right --------------------------------------------------------------------------------------------


def answered(pulls: ManyPulls, host: Releases, name: str, ref: ManifestRef, **arguments: object) -> None:
    host.tree(name).mkdir(exist_ok=True)
    kind, told = pulls.pull(ref, host.tree(name), host.local(name, **arguments))
    assert kind == "done", told


def small(depot: Depot) -> tuple[Packed, Packed]:
    """Two builds of a few files, the second with a patch; made once."""
    entries: dict[str, Entry] = {f"d/f{number}": File(random.Random(number).randbytes(40_000)) for number in range(9)}
    first = depot.pack("s1", {**entries, "l": Link("d")})
    entries["d/f3"] = File(b"changed" + random.Random(3).randbytes(40_000))
    return first, depot.pack("s2", {**entries, "d/new": File(b"new"), "l": Link("d")}, against=first)


@pytest.fixture(scope="module")
def two(depot: Depot) -> tuple[Packed, Packed]:
    return small(depot)


@pytest.mark.parametrize("part", range(12))
def test_a_table_with_any_byte_damaged_is_as_good_as_none(
    host: Releases, pulls: ManyPulls, two: tuple[Packed, Packed], part: int
) -> None:
    """Magic, digests, sizes, root, buckets, paths, numbers: of the tree and of hot; flipped, and cut off there."""
    first, second = two
    answered(pulls, host, "hot", first.ref)
    right = host.table("hot").read_bytes()
    for at in range(part, len(right), 12 * 5 if part else 12):
        for damaged in (right[:at] + bytes([right[at] ^ 0x41]) + right[at + 1 :], right[:at]):
            shutil.rmtree(host.tree("r"), ignore_errors=True)
            subprocess.run(["cp", "-a", str(host.tree("hot")), str(host.tree("r"))], check=True)
            host.table("hot").write_bytes(damaged)
            host.table("own").write_bytes(damaged)
            answered(pulls, host, "r", second.ref, own="own", bases=["hot"], is_resumed=True)
            assert shape_of(host.tree("r")) == second.shape(), at
            if at % 5:
                break


def test_the_table_of_another_tree_is_found_out(host: Releases, pulls: ManyPulls, two: tuple[Packed, Packed]) -> None:
    """By inode and time, although names and digests are those of the same build; and of another build."""
    first, second = two
    answered(pulls, host, "hot", first.ref)
    answered(pulls, host, "other", second.ref)
    for table in ("hot", "other"):
        host.settle(table)
        subprocess.run(["cp", "-a", str(host.tree("hot")), str(host.tree("r"))], check=True)
        (host.tree("r") / "d/f5").write_bytes(random.Random(99).randbytes(40_000))
        os.utime(host.tree("r") / "d/f5", (1_700_000_000, 1_700_000_000))
        answered(pulls, host, "r", second.ref, own=table)
        assert shape_of(host.tree("r")) == second.shape()
        shutil.rmtree(host.tree("r"))


def test_a_missing_table_leaves_the_tree_to_be_read(
    host: Releases, pulls: ManyPulls, two: tuple[Packed, Packed]
) -> None:
    first, second = two
    answered(pulls, host, "r1", first.ref)
    host.table("r1").unlink()
    with held_inodes(host.tree("r1")) as before:
        answered(pulls, host, "r1", second.ref, own="r1", is_resumed=True)
        after = inodes_of(host.tree("r1"))
    assert shape_of(host.tree("r1")) == second.shape()
    assert {name for name in before if before[name] == after[name]} == {f"d/f{number}" for number in range(9)} - {
        "d/f3"
    }
    assert read_table(host.table("r1")) is not None


@pytest.mark.parametrize("part", range(8))
def test_a_patch_with_any_byte_damaged_costs_only_its_saving(
    host: Releases, pulls: ManyPulls, tmp_path: Path, part: int
) -> None:
    """Head, root, buckets, blobs: flipped and cut off there."""
    depot = Depot(tmp_path / "depot")
    first, second = small(depot)
    answered(pulls, host, "hot", first.ref)
    [patch] = second.patches
    right = patch.read_bytes()
    for number, at in enumerate(range(part, len(right), 8 * 19)):
        damaged = right[:at] + bytes([right[at] ^ 0x41]) + right[at + 1 :] if number % 3 else right[:at]
        patch.write_bytes(damaged)
        shutil.rmtree(host.tree("r"), ignore_errors=True)
        answered(pulls, host, "r", second.ref, bases=["hot"])
        assert shape_of(host.tree("r")) == second.shape(), at


def test_a_patch_for_another_build_is_not_used(host: Releases, pulls: ManyPulls, tmp_path: Path) -> None:
    """In the place of the right one: its base is not here; or it is, and what the patch gives is not the build."""
    depot = Depot(tmp_path / "depot")
    first, second = small(depot)
    foreign = depot.pack(
        "3", {"d/f3": File(b"3" * 90_000), "n": File(random.Random(5).randbytes(90_000))}, against=None
    )
    third = depot.pack(
        "4", {"d/f3": File(b"4" * 90_000), "n": File(random.Random(5).randbytes(90_000))}, against=foreign
    )
    [patch], [other] = second.patches, third.patches
    patch.write_bytes(other.read_bytes())
    answered(pulls, host, "hot", first.ref)
    answered(pulls, host, "standby", foreign.ref)
    answered(pulls, host, "r", second.ref, bases=["hot"])
    answered(pulls, host, "s", second.ref, bases=["hot", "standby"])
    assert shape_of(host.tree("r")) == shape_of(host.tree("s")) == second.shape()


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB and 120 inodes."""
    if os.geteuid() != 0:
        pytest.skip("mounts need root")
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m,nr_inodes=120", "hotcold-test", str(path)], check=True)
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_disk_that_is_too_small_is_told_before_anything_is_made(
    small_disk: Path, pulls: ManyPulls, build: Packed
) -> None:
    """Bytes, and how many are missing."""
    host = Releases(small_disk / "releases")
    host.tree("r").mkdir()
    kind, told = pulls.pull(build.ref, host.tree("r"), host.local("r"))
    assert kind == "disk_full"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    assert f"{free} are free" in str(told)
    assert str(host.tree("r")) in str(told)
    assert list(host.tree("r").iterdir()) == []


def test_a_disk_without_inodes_is_told_before_anything_is_made(
    small_disk: Path, pulls: ManyPulls, tmp_path: Path
) -> None:
    build = Depot(tmp_path / "depot").pack("1", {f"f{number}": File(b"1") for number in range(150)})
    host = Releases(small_disk / "releases")
    host.tree("r").mkdir()
    kind, told = pulls.pull(build.ref, host.tree("r"), host.local("r"))
    assert kind == "disk_full"
    assert "150 inodes are needed" in str(told)
    assert list(host.tree("r").iterdir()) == []


def test_what_goes_first_counts_as_room_and_more_is_told_without_a_change(
    small_disk: Path, pulls: ManyPulls, tmp_path: Path
) -> None:
    """A tree that is turned into the next build needs room for what it lacks alone."""
    depot = Depot(tmp_path / "depot")
    first = depot.pack("1", {f"f{number}": File(random.Random(number).randbytes(100_000)) for number in range(60)})
    second = depot.pack("2", {f"f{number}": File(random.Random(-number).randbytes(140_000)) for number in range(60)})
    host = Releases(small_disk / "releases")
    answered(pulls, host, "r", first.ref)
    host.settle("r")
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(free - 1_000_000))
    before = stats_of(host.tree("r"))
    kind, told = pulls.pull(second.ref, host.tree("r"), host.local("r", own="r"))
    assert kind == "disk_full", told
    assert stats_of(host.tree("r")) == before
    ballast.write_bytes(bytes(free - 4_000_000))
    answered(pulls, host, "r", second.ref, own="r")
    assert shape_of(host.tree("r")) == second.shape()
