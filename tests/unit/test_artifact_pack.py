"""Packing: the same tree gives the same bytes, a build id is for ever, and what no host would open is refused."""

import asyncio
import io
import os
import shutil
import socket
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifact import ArtifactRejected, ConfigError, HotcoldError, Manifest, decode_manifest
from artifact.extract import extract
from artifact.frames import BIG_BYTES
from artifact.limits import Limits
from artifact.locate import load_manifest, reference
from artifact.pack import PACKED_FORMATS, PackProgress, git_revision, pack
from artifact.pull import PullSettings, pull

CREATED = "2026-11-23T12:00:00Z"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "lib/empty").mkdir(parents=True)
    (root / "bin").mkdir()
    (root / "bin/run").write_text("#!/bin/sh\n")
    (root / "bin/run").chmod(0o755)
    (root / "lib/private").write_bytes(os.urandom(300_000))
    (root / "lib/private").chmod(0o400)
    (root / "lib/two").hardlink_to(root / "lib/private")
    (root / "lib" / os.fsdecode(b"\xff\n" + b"n" * 253)).write_bytes(b"")
    (root / "current").symlink_to("bin/run")
    (root / "bin/nowhere").symlink_to("../not/yet")
    for path in root.rglob("*"):
        os.utime(path, ns=(1_700_000_000_987_654_321,) * 2, follow_symlinks=False)
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "dist"
    path.mkdir()
    return path


def ignore(_: PackProgress) -> None:
    """Nobody watches."""


def packed(tree: Path, out: Path, *, build_id: str = "1", archive_format: str = "tar.zst") -> Manifest:
    return pack(
        tree, app="shop", build_id=build_id, out=out, created=CREATED, on_progress=ignore, format=archive_format
    )


def shape(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Names, types, modes, whole seconds and contents."""
    found: dict[bytes, tuple[object, ...]] = {}
    for path in root.rglob("*"):
        state = path.lstat()
        if stat.S_ISLNK(state.st_mode):
            content: object = str(path.readlink())
        else:
            content = path.read_bytes() if stat.S_ISREG(state.st_mode) else None
        found[os.fsencode(path.relative_to(root))] = (state.st_mode, int(state.st_mtime), content)
    return found


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("archive_format", PACKED_FORMATS)
async def test_what_is_packed_is_located_and_pulled_as_it_was(
    tree: Path, out: Path, tmp_path: Path, archive_format: str
) -> None:
    """The whole way of a build: pack, manifest beside it, relative url, pull; hard links have become files."""
    manifest = await asyncio.get_running_loop().run_in_executor(
        None, lambda: packed(tree, out, archive_format=archive_format)
    )
    index = {"shop-1.tar.zst.index"} if archive_format == "tar.zst" else set()
    assert names(out) == {f"shop-1.{archive_format}", "shop-1.json"} | index
    into = tmp_path / "into"
    into.mkdir()
    loaded, location = await load_manifest(str(out / "shop-1.json"))
    assert loaded == manifest
    await pull(reference(loaded, location), into, settings=PullSettings(), on_progress=lambda _: None)
    assert shape(into) == shape(tree)
    assert not (into / "lib/two").samefile(into / "lib/private")


@pytest.mark.parametrize("archive_format", PACKED_FORMATS)
def test_the_same_tree_gives_the_same_bytes(tree: Path, out: Path, tmp_path: Path, archive_format: str) -> None:
    """A copy made in another order, by another inode and fraction of a second, packs to the same digest."""
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", "-d", "--preserve=mode,timestamps", str(tree), str(copy)], check=True)
    for path in copy.rglob("*"):
        os.utime(path, ns=(1_700_000_000_000_000_001,) * 2, follow_symlinks=False)
    first = packed(tree, out, archive_format=archive_format)
    second = packed(copy, out, build_id="2", archive_format=archive_format)
    assert (first.digest, first.size) == (second.digest, second.size)


def test_the_number_of_cores_does_not_change_the_bytes() -> None:
    """Packing relies on it: zstd cuts its jobs by level alone, once there is a worker thread."""
    data = os.urandom(3 << 20) * 8
    one, four = (
        zstandard.ZstdCompressor(level=9, threads=threads, write_checksum=True).compress(data) for threads in (1, 4)
    )
    assert one == four


def test_other_tars_read_what_is_packed(tree: Path, out: Path, tmp_path: Path) -> None:
    """No reader of ours is needed to look into an artifact; it names no user."""
    packed(tree, out)
    into = tmp_path / "into"
    into.mkdir()
    subprocess.run(["tar", "-x", "-p", "-f", str(out / "shop-1.tar.zst"), "-C", str(into)], check=True)
    assert shape(into) == shape(tree)
    listing = subprocess.run(
        ["tar", "-t", "-v", "--numeric-owner", "-f", str(out / "shop-1.tar.zst")], check=True, capture_output=True
    ).stdout
    assert all(b" 0/0 " in line for line in listing.splitlines())


def test_the_manifest_says_what_was_given(tree: Path, out: Path) -> None:
    manifest = pack(
        tree,
        app="shop",
        build_id="2026-11-23.3",
        out=out,
        created=CREATED,
        on_progress=ignore,
        format="tar.gz",
        level=1,
        url_base=("https://a.example/builds/", "http://b.example"),
        revision="c0ffee",
        notes="faster",
    )
    assert manifest == decode_manifest((out / "shop-2026-11-23.3.json").read_bytes())
    assert manifest.urls == (
        "https://a.example/builds/shop-2026-11-23.3.tar.gz",
        "http://b.example/shop-2026-11-23.3.tar.gz",
    )
    assert (manifest.created, manifest.revision, manifest.notes) == (CREATED, "c0ffee", "faster")
    assert manifest.size == (out / "shop-2026-11-23.3.tar.gz").stat().st_size
    assert stat.S_IMODE((out / "shop-2026-11-23.3.tar.gz").stat().st_mode) == 0o644


def test_packing_again_is_harmless_and_another_tree_is_refused(tree: Path, out: Path) -> None:
    first = packed(tree, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert packed(tree, out) == first
    (tree / "bin/run").write_text("#!/bin/bash\n")
    with pytest.raises(ConfigError, match="a build id is for ever") as caught:
        packed(tree, out)
    assert caught.value.kind == "build_exists"
    with pytest.raises(ConfigError, match="a build id is for ever"):
        packed(tree, out, archive_format="tar")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_crash_between_artifact_and_manifest_is_mended_by_packing_again(tree: Path, out: Path) -> None:
    first = packed(tree, out)
    (out / "shop-1.json").unlink()
    assert packed(tree, out) == first
    (out / "shop-1.json").unlink()
    (out / "shop-1.tar.zst").write_bytes(b"something else")
    with pytest.raises(ConfigError, match=r"shop-1\.tar\.zst exists"):
        packed(tree, out)
    assert names(out) == {"shop-1.tar.zst", "shop-1.tar.zst.index"}


def test_a_strange_file_in_the_manifests_place_is_kept(tree: Path, out: Path) -> None:
    (out / "shop-1.json").write_text("not ours")
    with pytest.raises(ConfigError, match="is no manifest"):
        packed(tree, out)
    assert (out / "shop-1.json").read_text() == "not ours"
    assert names(out) == {"shop-1.json"}


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "socket": (lambda root: make_socket(root / "s"), "'s' is a socket"),
    "fifo": (lambda root: os.mkfifo(root / "p"), "'p' is a fifo"),
    "setuid": (lambda root: (root / "bin/run").chmod(0o4755), "'bin/run' is setuid"),
    "setgid directory": (lambda root: (root / "lib").chmod(0o2755), "'lib' is setuid"),
    "link out": (lambda root: (root / "bin/l").symlink_to("../../x"), "'bin/l' .* leads out"),
    "absolute link": (lambda root: (root / "l").symlink_to(root / "bin"), "'l' .* absolute"),
    "links in circles": (lambda root: (root / "l").symlink_to("l"), "'l' .* circles"),
    "case": (lambda root: (root / "BIN").write_text(""), "'BIN' differs from 'bin'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_host_would_open_is_refused_while_packing(tree: Path, out: Path, case: str) -> None:
    spoil, message = REFUSED[case]
    spoil(tree)
    with pytest.raises(ArtifactRejected, match=message):
        packed(tree, out)
    assert names(out) == set()


def test_an_empty_or_missing_tree_is_refused(tmp_path: Path, out: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ArtifactRejected, match="an empty build"):
        packed(tmp_path / "nothing", out)
    with pytest.raises(ConfigError, match="it is no directory"):
        packed(tmp_path / "missing", out)
    assert names(out) == set()


@pytest.mark.parametrize("change", ["grows", "shrinks", "is replaced", "goes", "becomes a link"])
def test_a_file_that_changes_while_it_is_packed_is_an_error(tree: Path, out: Path, change: str) -> None:
    """The change is made when the first frame has been written, before the file's turn."""
    victim = tree / "lib/private"
    (tree / "a").write_bytes(bytes(BIG_BYTES + 1))

    def disturb(progress: PackProgress) -> None:
        if progress.files_done != 1 or progress.bytes_done <= BIG_BYTES:
            return
        match change:
            case "grows":
                with victim.open("ab") as file:
                    file.write(b"more")
            case "shrinks":
                os.truncate(victim, 1000)
            case "is replaced":
                content = victim.read_bytes()
                victim.unlink()
                (tree / "lib/.new").write_bytes(content)
                os.utime(tree / "lib/.new", ns=(1_700_000_000_987_654_321,) * 2)
                (tree / "lib/.new").rename(victim)
            case "goes":
                victim.unlink()
            case "becomes a link":
                victim.unlink()
                victim.symlink_to("two")

    with pytest.raises(HotcoldError, match="lib/private") as caught:
        pack(tree, app="shop", build_id="1", out=out, created=CREATED, on_progress=disturb)
    assert caught.value.kind == "tree_changed"
    assert names(out) == set()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"app": "../shop"}, "app '../shop'"),
        ({"build_id": "a/b"}, "build id 'a/b'"),
        ({"format": "zip"}, "tar.zst, tar.gz, tar"),
        ({"format": "tar.gz", "level": 10}, "within 1 and 9"),
        ({"level": 0}, "within 1 and 22"),
    ],
)
def test_impossible_arguments_name_what_is_allowed(
    tree: Path, out: Path, changed: dict[str, object], message: str
) -> None:
    arguments: dict[str, object] = {"app": "shop", "build_id": "1", "out": out, "created": CREATED}
    with pytest.raises(ConfigError, match=message):
        pack(tree, on_progress=ignore, **{**arguments, **changed})
    assert names(out) == set()


def test_the_output_may_not_lie_in_the_tree_and_must_exist(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lies within"):
        packed(tree, tree / "lib")
    with pytest.raises(ConfigError, match="create it first"):
        packed(tree, tmp_path / "missing")


def test_progress_reaches_both_totals(tree: Path, out: Path) -> None:
    seen: list[PackProgress] = []
    pack(tree, app="shop", build_id="1", out=out, created=CREATED, on_progress=seen.append)
    assert [entry.bytes_done for entry in seen] == sorted(entry.bytes_done for entry in seen)
    last = seen[-1]
    assert (last.files_done, last.bytes_done) == (last.files_total, last.bytes_total) == (len(shape(tree)), 600_010)


def test_the_revision_is_that_of_the_work_tree(tree: Path) -> None:
    assert git_revision(tree) is None
    git = ["git", "-C", str(tree), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert git_revision(tree) is None
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "c"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert git_revision(tree / "lib") == head


def test_a_tree_deeper_than_pythons_stack_is_packed_and_opened(tmp_path: Path, out: Path) -> None:
    depth = 1500
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    packed(tmp_path / "d", out, archive_format="tar")
    into = tmp_path / "into"
    into.mkdir()
    data = (out / "shop-1.tar").read_bytes()
    extract(io.BytesIO(data), "tar", into, archive_bytes=len(data), limits=Limits(), on_entry=lambda _: None)
    assert (into / "/".join("d" * (depth - 1))).is_dir()
    subprocess.run(["rm", "-rf", str(tmp_path / "d"), str(into)], check=True)  # pytest's own removal recurses


file_names = st.text(alphabet="abé\udcff-. \n", min_size=1, max_size=5).filter(lambda name: name not in (".", ".."))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.dictionaries(
        st.lists(file_names, min_size=1, max_size=3).map("/".join),
        st.tuples(st.binary(max_size=2000), st.sampled_from([0o400, 0o600, 0o755])),
        min_size=1,
        max_size=8,
    ),
    archive_format=st.sampled_from(PACKED_FORMATS),
)
def test_random_trees_survive_packing_and_opening(
    tmp_path: Path, content: dict[str, tuple[bytes, int]], archive_format: str
) -> None:
    root, out, into = tmp_path / "tree", tmp_path / "out", tmp_path / "into"
    for directory in (root, out, into):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
    for name, (data, mode) in content.items():
        path = root / name
        if any(parent.is_file() for parent in path.parents) or path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
    manifest = packed(root, out, archive_format=archive_format)
    data = (out / f"shop-1.{archive_format}").read_bytes()
    assert len(data) == manifest.size
    extract(io.BytesIO(data), archive_format, into, archive_bytes=len(data), limits=Limits(), on_entry=lambda _: None)
    assert shape(into) == shape(root)


def test_python_reads_the_packed_names(tree: Path, out: Path) -> None:
    packed(tree, out, archive_format="tar")
    with tarfile.open(out / "shop-1.tar", errors="surrogateescape") as archive:
        listed = archive.getnames()
    assert listed == sorted(listed, key=lambda name: os.fsencode(name).split(b"/"))
    assert {os.fsencode(name) for name in listed} == set(shape(tree))
