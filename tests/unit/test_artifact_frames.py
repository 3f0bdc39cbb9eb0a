"""Frames and patches: the same bytes wherever they are made, readable by any tar, and a change moves few of them."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifact import ConfigError, decode_manifest
from artifact.entries import EntryKind
from artifact.frames import BIG_BYTES, MAX_BYTES, cut
from artifact.framing import Framed, Workers, frame_tree
from artifact.index import MAX_FRAME_BYTES, decode_bucket, decode_root, digest_of
from artifact.pack import pack
from artifact.patch import decode_patch
from artifact.previous import opened_previous
from artifact.scan import Found, scan
from artifact.tarwrite import header
from tests.builds import CREATED, THEN_S, Depot, Directory, Entry, File, Link, Packed, ignore, shape_of, write_tree


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


STRANGE: dict[str, Entry] = {
    os.fsdecode(b"\xff\xfe\n\t"): File(b"bytes"),
    "quote'\"`$": File(b"quotes"),
    " ": File(b"a space"),
    "-rf": File(b"a dash"),
    "é/日本": File(b"letters"),
    "n" * 255: File(b"long"),
    "/".join(["d" * 90] * 12): File(b"deep"),
    "long-link": Link("x" * 200),
    "empty/empty": Directory(0o700),
    "private": File(b"private", 0o400),
    "open": File(b"open", 0o777),
    "nothing": File(),
    "old": File(b"old", mtime_s=0),
    "older": File(b"older", mtime_s=-86_400),
    "later": File(b"later", mtime_s=1 << 33),
}


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path / "depot")


def many(count: int, size: int = 6000) -> dict[str, Entry]:
    """Files of noise in some directories."""
    return {f"d{number % 11}/f{number}": File(noise(number, size)) for number in range(count)}


def framed(tree: Path, workers: Workers) -> tuple[bytes, Framed]:
    """Frames and index of a tree."""

    class Sink:
        def __init__(self) -> None:
            self.data = bytearray()

        def write(self, data: bytes, /) -> int:
            self.data += data
            return len(data)

    sink = Sink()
    result = frame_tree(
        tree, scan(tree), sink, level=3, newest_s=None, previous=None, workers=workers, on_group=lambda _: None
    )
    return bytes(sink.data), result


PACK = """
import hashlib, sys
from pathlib import Path
from artifact.framing import WORTH_PROCESSES, Workers, frame_tree
from artifact.frames import cut
from artifact.scan import scan

class Sink:
    digest = hashlib.sha256()

    def write(self, data):
        self.digest.update(data)
        return len(data)

tree, count = Path(sys.argv[1]), int(sys.argv[2])
found = scan(tree)
assert len(list(cut(found))) > WORTH_PROCESSES
with Workers(count) as workers:
    framed = frame_tree(
        tree, found, Sink(), level=3, newest_s=None, previous=None, workers=workers, on_group=lambda _: None
    )
print(Sink.digest.hexdigest(), hashlib.sha256(framed.root + b"".join(framed.buckets)).hexdigest())
"""


def test_other_processes_make_the_same_bytes(tmp_path: Path) -> None:
    """Frames, buckets and root: as many cores as there are, in whichever order they finish."""
    tree = write_tree(tmp_path / "tree", {**many(900), "big": File(noise(1, 18 << 20)), "z": File(b"z")})
    alone, shared = (
        subprocess.run(
            [sys.executable, "-c", PACK, str(tree), count], check=True, capture_output=True, text=True
        ).stdout
        for count in ("1", "3")
    )
    assert alone == shared
    assert len(alone.split()) == 2


def test_the_same_tree_gives_the_same_index_and_patch(depot: Depot, tmp_path: Path) -> None:
    """A copy of both trees, packed elsewhere: not a byte differs."""
    entries = many(60)
    changed = {**entries, "d1/f1": File(noise(1, 5000) + b"changed"), "new": File(b"new")}
    first = depot.pack("1", entries)
    second = depot.pack("2", changed, against=first)
    other = Depot(tmp_path / "other")
    again = other.pack("2", changed, against=other.pack("1", entries))
    assert second.manifest == again.manifest
    assert second.index.read_bytes() == again.index.read_bytes()
    assert [path.read_bytes() for path in second.patches] == [path.read_bytes() for path in again.patches]
    assert len(second.patches) == 1


@pytest.mark.parametrize("reader", ["tar --zstd -xpf", "bsdtar -xpf", "zstd and tar"])
def test_any_tar_reads_it_to_the_same_tree(depot: Depot, tmp_path: Path, reader: str) -> None:
    """Names of any bytes, long names, modes, times before 1970 and after 2106, links, empty directories."""
    program = reader.split(maxsplit=1)[0]
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    build = depot.pack("1", {**STRANGE, "big": File(noise(1, BIG_BYTES + 1)), **many(40)})
    into = tmp_path / "into"
    into.mkdir()
    if reader == "zstd and tar":
        plain = subprocess.run(["zstd", "-dcq", str(build.artifact)], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-xpf", "-", "-C", str(into)], check=True, input=plain)
    else:
        subprocess.run([*reader.split(), str(build.artifact), "-C", str(into)], check=True)
    assert shape_of(into) == shape_of(build.tree)
    tested = subprocess.run(["zstd", "-tq", str(build.artifact)], check=False) if shutil.which("zstd") else None
    assert tested is None or tested.returncode == 0


@pytest.mark.parametrize("change", ["one changed", "one added", "one removed", "one grown"])
def test_one_change_moves_few_frames(depot: Depot, change: str) -> None:
    """Cuts are made by content: frames before the change stay, and those behind it come back into step."""
    entries = many(1500)
    before = depot.pack("1", entries)
    match change:
        case "one changed":
            entries["d5/f720"] = File(noise(99, 6000))
        case "one added":
            entries["d5/added"] = File(noise(99, 6000))
        case "one removed":
            del entries["d5/f720"]
        case "one grown":
            entries["d5/f720"] = File(noise(99, 300_000))
    after = depot.pack("2", entries)
    moved = set(after.root().digests) - set(before.root().digests)
    assert len(after.root()) > 15
    assert 1 <= len(moved) <= 4


def test_a_file_above_four_mebibytes_has_frames_of_its_own(depot: Depot) -> None:
    """What is around it does not move when it changes, and it does not when they do."""
    entries = {**many(20), "d5/big": File(noise(1, 9 << 20)), "limit": File(noise(2, BIG_BYTES))}
    build = depot.pack("1", entries)
    buckets, root = build.buckets(), build.root()
    [at] = [number for number, bucket in enumerate(buckets) if any(row.path == b"d5/big" for row in bucket.rows)]
    assert [len(bucket.rows) for bucket in buckets[at : at + 3]] == [1, 0, 0]
    assert sum(root.plain_sizes[at : at + 3]) == (9 << 20) + 512
    assert all(size >= BIG_BYTES for size in root.plain_sizes[at : at + 2])
    [with_limit] = [bucket for bucket in buckets if any(row.path == b"limit" for row in bucket.rows)]
    assert len(with_limit.rows) >= 1
    changed = depot.pack("2", {**entries, "d5/big": File(noise(3, 9 << 20))})
    moved = set(changed.root().digests) - set(root.digests)
    assert len(moved) == 3


@given(
    name=st.text(st.characters(codec="ascii", exclude_characters="\0/"), min_size=1, max_size=102) | st.just("ä"),
    kind=st.sampled_from([EntryKind.FILE, EntryKind.DIRECTORY, EntryKind.SYMLINK]),
    mode=st.integers(0, 0o777),
    mtime_s=st.integers(-2, 8**11 + 1) | st.sampled_from([0, 8**11 - 1, 8**11]),
    size=st.integers(0, 1 << 40) | st.sampled_from([8**11 - 1, 8**11]),
    target=st.text(st.sampled_from("a/."), min_size=1, max_size=102),
)
def test_headers_are_those_that_tarfile_writes(  # noqa: PLR0917 - what hypothesis draws
    name: str, kind: EntryKind, mode: int, mtime_s: int, size: int, target: str
) -> None:
    found = Found(
        name=name,
        kind=kind,
        mode=mode,
        mtime_ns=0,
        inode=1,
        size=size if kind is EntryKind.FILE else 0,
        target=target if kind is EntryKind.SYMLINK else "",
    )
    info = tarfile.TarInfo(name)
    info.mode, info.mtime, info.size, info.linkname = mode, mtime_s, found.size, found.target
    info.type = {EntryKind.FILE: tarfile.REGTYPE, EntryKind.DIRECTORY: tarfile.DIRTYPE}.get(kind, tarfile.SYMTYPE)
    assert header(found, mtime_s) == info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def test_no_group_becomes_larger_than_a_reader_allows(tmp_path: Path) -> None:
    """Many entries with the longest names and targets: headers and rows count, too."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(2500):
        (tree / f"{number:0255}").symlink_to("/".join(["t" * 250] * 16))
    with Workers(1) as workers:
        _, result = framed(tree, workers)
    root = decode_root(result.root)
    assert max(root.plain_sizes) <= MAX_FRAME_BYTES / 2
    assert all(
        len(decode_bucket(bucket, digest).rows) < 1000
        for bucket, digest in zip(result.buckets, root.digests, strict=True)
    )
    assert root.entries == 2500


def test_groups_are_cut_between_the_least_and_the_largest_size(tmp_path: Path) -> None:
    found = scan(write_tree(tmp_path / "tree", many(800)))
    sizes = [sum(entry.size for entry in group) for group in cut(found)]
    assert max(sizes) <= MAX_BYTES
    assert min(sizes[:-1]) >= 200_000
    assert [entry for group in cut(found) for entry in group] == found


def test_times_are_cut_to_the_epoch_that_was_asked_for(depot: Depot) -> None:
    """SOURCE_DATE_EPOCH: later ones become it, earlier ones stay."""
    build = depot.pack("1", {"old": File(mtime_s=5), "new": File(mtime_s=THEN_S)}, newest_s=1_000_000)
    assert {row.path: row.mtime_s for row in build.rows().values()} == {b"old": 5, b"new": 1_000_000}


def test_times_that_no_host_takes_become_the_nearest_that_all_do(depot: Depot) -> None:
    tree = write_tree(depot.path / "trees" / "1", {"a": File(), "b": File()})
    os.utime(tree / "a", (1 << 36, 1 << 36))
    os.utime(tree / "b", (-(1 << 33), -(1 << 33)))
    if (tree / "a").stat().st_mtime < 1 << 36 or (tree / "b").stat().st_mtime > -(1 << 33):
        pytest.skip("this file system cuts such times itself")
    build = depot.pack_tree("1", tree)
    assert {row.path: row.mtime_s for row in build.rows().values()} == {b"a": (1 << 34) - 1, b"b": -(1 << 31)}


def test_what_did_not_change_keeps_its_time_against_the_build_before(depot: Depot) -> None:
    """A fresh checkout gives every file a new time; only what changed counts as changed."""
    first = depot.pack("1", {"same": File(b"same"), "changed": File(b"1"), "l": Link("same"), "m": File(b"m")})
    later = {
        "same": File(b"same", mtime_s=THEN_S + 9),
        "changed": File(b"2", mtime_s=THEN_S + 9),
        "l": Link("same", mtime_s=THEN_S + 9),
        "m": File(b"m", 0o600, mtime_s=THEN_S + 9),
    }
    second = depot.pack("2", later, against=first)
    assert {path: row.mtime_s - THEN_S for path, row in second.rows().items()} == {
        b"same": 0,
        b"changed": 9,
        b"l": 0,
        b"m": 0,
    }
    assert second.rows()[b"m"].mode == 0o600
    third = depot.pack("3", {**later, "changed": File(b"1", mtime_s=THEN_S + 99)}, against=second)
    assert third.rows()[b"changed"].mtime_s == THEN_S + 99


def test_a_patch_is_as_small_as_the_change(depot: Depot) -> None:
    """A few bytes within large files, also far from where they were: the files themselves do not count."""
    entries: dict[str, Entry] = {f"f{number}": File(noise(number, 400_000)) for number in range(8)}
    first = depot.pack("1", entries)
    moved = noise(3, 400_000)
    entries["f3"] = File(moved[200_000:] + b"changed" + moved[:200_000])
    second = depot.pack("2", entries, against=first)
    [patch] = second.patches
    assert patch.stat().st_size < 2000
    assert second.manifest.index is not None
    assert second.manifest.index.patches[0].base == first.root().digest


def test_a_patch_that_would_be_half_of_the_artifact_is_not_made(depot: Depot) -> None:
    first = depot.pack("1", {f"f{number}": File(noise(number, 20_000)) for number in range(10)})
    second = depot.pack("2", {f"f{number}": File(noise(number + 4, 20_000)) for number in range(10)}, against=first)
    third = depot.pack("3", {f"f{number}": File(noise(number + 50, 20_000)) for number in range(10)}, against=first)
    assert (len(second.patches), len(third.patches)) == (0, 0)
    assert third.manifest.index is not None
    assert third.manifest.index.patches == ()


def test_a_file_too_large_for_memory_is_left_out_of_the_patch(tmp_path: Path) -> None:
    """It is fetched by its frames; everything else is still patched. By the command, which uses other processes."""
    entries: dict[str, Entry] = {**many(3), "huge": File(bytes(17 << 20)), "pad": File(noise(0, 200_000))}
    first = write_tree(tmp_path / "first", entries)
    second = write_tree(
        tmp_path / "second", {**entries, "huge": File(bytes(17 << 20) + b"1"), "d1/f1": File(b"changed")}
    )
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-m", "hotcold", "pack", "--app", "shop", "--out", str(out)]
    subprocess.run([*command, "--id", "1", str(first)], check=True, capture_output=True)
    against = ["--against", str(out / "shop-1.json")]
    subprocess.run([*command, "--id", "2", *against, str(second)], check=True, capture_output=True)
    [path] = out.glob("shop-2.tar.zst.from-*")
    patch = decode_patch(path.read_bytes())
    build = Packed(second, decode_manifest((out / "shop-2.json").read_bytes()), out / "shop-2.json")
    buckets = build.buckets()
    assert {buckets[file.bucket].rows[file.row].path for file in patch.files} == {b"d1/f1"}
    assert path.stat().st_size < 5000


@pytest.mark.parametrize(
    ("damage", "kind"),
    [("no index", "artifact_unreachable"), ("index cut", "artifact_unusable"), ("index changed", "artifact_unusable")],
)
def test_a_build_before_that_is_damaged_is_told_and_leaves_nothing(depot: Depot, damage: str, kind: str) -> None:
    first = depot.pack("1", many(3))
    data = bytearray(first.index.read_bytes())
    match damage:
        case "no index":
            first.index.unlink()
        case "index cut":
            first.index.write_bytes(data[:-5])
        case _:
            data[10] ^= 1
            first.index.write_bytes(data)
    with pytest.raises(Exception, match=r"build 1|index") as caught:
        depot.pack("2", many(4), against=first)
    assert getattr(caught.value, "kind", None) == kind
    assert not list((depot.path / "out").glob("shop-2*"))


def test_frames_of_the_build_before_that_are_damaged_are_told(depot: Depot) -> None:
    """A patch that was made with wrong bytes would help nobody."""
    first = depot.pack("1", {**many(3), "pad": File(noise(0, 200_000))})
    data = bytearray(first.artifact.read_bytes())
    data[len(data) // 2] ^= 1
    first.artifact.write_bytes(data)
    with pytest.raises(ConfigError, match="cannot be taken from") as caught:
        depot.pack("2", {**many(3, size=5999), "pad": File(noise(0, 199_999))}, against=first)
    assert caught.value.kind == "artifact_unusable"
    assert not list((depot.path / "out").glob("shop-2*"))


def test_a_build_without_an_index_cannot_be_packed_against(depot: Depot, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "plain", many(3))
    out = depot.path / "out"
    pack(tree, app="shop", build_id="0", out=out, created=CREATED, on_progress=ignore, format="tar.gz")
    with pytest.raises(ConfigError, match="has no index") as caught, opened_previous(str(out / "shop-0.json")):
        pass
    assert caught.value.kind == "no_index"


def test_the_index_names_every_byte_of_the_artifact(depot: Depot) -> None:
    build: Packed = depot.pack("1", STRANGE)
    root = build.root()
    assert root.frame_offsets[-1] == build.manifest.size == build.artifact.stat().st_size
    assert root.bucket_offsets[-1] == build.index.stat().st_size
    assert root.digest == digest_of(root.data)
    assert {path: row.kind for path, row in build.rows().items()}.keys() == shape_of(build.tree).keys()
