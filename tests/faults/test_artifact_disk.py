"""Disks that are full or read-only: who must act, what it says, and that a pull after mending succeeds."""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifact import ConfigError, ManifestRef, TransientError
from artifact.pack import pack
from artifact.pull import PullSettings, pull

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root"),
]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB and 40 inodes."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=40", "hotcold-test", str(path)], check=True)
    yield path
    subprocess.run(["umount", str(path)], check=True)


def published(tmp_path: Path, archive_format: str, *contents: bytes) -> ManifestRef:
    buffer = io.BytesIO()
    if archive_format == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            for number, content in enumerate(contents):
                archive.writestr(f"f{number}", content)
    else:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for number, content in enumerate(contents):
                info = tarfile.TarInfo(f"f{number}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    data = buffer.getvalue()
    path = tmp_path / f"a.{archive_format}"
    path.write_bytes(data)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return ManifestRef(
        id="1", urls=(path.as_uri(), path.as_uri()), digest=digest, size=len(data), format=archive_format
    )


@pytest.fixture
def into(small_disk: Path) -> Path:
    path = small_disk / "new"
    path.mkdir()
    return path


def start_again(into: Path) -> None:
    """As after a failed deploy: the directory is removed, and must have been all there was."""
    shutil.rmtree(into)
    assert names(into.parent) == set()  # a zip's spool has no name that could stay
    into.mkdir()


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


async def failure(ref: ManifestRef, into: Path, expected: type[Exception]) -> Exception:
    with pytest.raises(expected) as caught:
        await pull(ref, into, settings=PullSettings(), on_progress=lambda _: None)
    return caught.value


@pytest.mark.parametrize("archive_format", ["tar", "zip"])
async def test_a_full_disk_says_what_is_needed_and_free_and_heals(
    into: Path, tmp_path: Path, archive_format: str
) -> None:
    """It is not the url's fault: the second url is not tried. With less to hold, the next pull succeeds."""
    error = await failure(published(tmp_path, archive_format, b"x" * 600_000, b"y" * 600_000), into, TransientError)
    assert error.kind == "disk_full"
    assert str(into.parent) in str(error)
    assert "bytes are still needed" in str(error)
    assert "free some space" in str(error)
    start_again(into)
    small = published(tmp_path, archive_format, b"x" * 100_000)
    await pull(small, into, settings=PullSettings(), on_progress=lambda _: None)
    assert (into / "f0").read_bytes() == b"x" * 100_000


async def test_a_disk_without_inodes_is_full(into: Path, tmp_path: Path) -> None:
    error = await failure(published(tmp_path, "tar", *[b""] * 60), into, TransientError)
    assert error.kind == "disk_full"
    assert " 0 inodes are free" in str(error)


@pytest.mark.parametrize("archive_format", ["tar", "zip"])
async def test_a_read_only_disk_is_the_operators_to_mend(into: Path, tmp_path: Path, archive_format: str) -> None:
    make_read_only(into.parent)
    error = await failure(published(tmp_path, archive_format, b"x"), into, ConfigError)
    assert error.kind == "disk_not_writable"
    assert str(into.parent) in str(error)
    assert "Read-only file system" in str(error)
    assert names(into) == set()


def test_packing_onto_a_full_disk_leaves_nothing(small_disk: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "noise").write_bytes(os.urandom(3 << 20))
    with pytest.raises(TransientError, match="shop-1") as caught:
        pack(tree, app="shop", build_id="1", out=small_disk, created="now", on_progress=lambda _: None)
    assert caught.value.kind == "disk_full"
    assert names(small_disk) == set()
