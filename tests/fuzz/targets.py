"""Owns what is fuzzed: one function for each reader of foreign bytes, and what may never happen in it.

A target takes any bytes and returns; what it raises is a finding. The engine is `fuzz`, the kept inputs lie in
`corpus/<target>`, and `test_fuzz_corpus` runs them without the engine. A new reader gets a function here, a line in
`TARGETS`, and a first input or two.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import zstandard

from artifact.errors import ArtifactRejected, Refused
from artifact.extract import extract
from artifact.index import decode_bucket, decode_root
from artifact.limits import Limits
from artifact.locate import reference
from artifact.manifest import decode_manifest, encode_manifest
from artifact.patch import decode_patch, expanded

LIMITS = Limits(max_bytes=1 << 18, max_files=200)
BASE = b"the file of an earlier build " * 50
KINDS = {"archive_broken", "archive_hostile", "archive_too_big", "archive_unstorable"}


def archive(archive_format: str) -> Callable[[bytes], None]:
    """The target for archives of one format: opened into a directory in memory, in which all must stay."""

    def target(data: bytes) -> None:
        with tempfile.TemporaryDirectory(dir=_memory(), prefix="hotcold-fuzz-") as name:
            site = Path(name)
            into = site / "into"
            into.mkdir()
            try:
                extract(
                    io.BytesIO(data), archive_format, into, archive_bytes=len(data), limits=LIMITS, on_entry=_ignore
                )
            except ArtifactRejected as error:
                if error.kind not in KINDS:
                    raise
            assert list(site.iterdir()) == [into]
            _check_inside(into)
            _make_removable(into)
            shutil.rmtree(into)

    return target


def manifest(data: bytes) -> None:
    """A manifest is refused, or says the same when it is written and read again."""
    try:
        found = decode_manifest(data)
    except Refused:
        return
    assert decode_manifest(encode_manifest(found)) == found
    try:
        reference(found, "https://builds.example.com/shop.json")
    except Refused:
        return


def index_root(data: bytes) -> None:
    """The root of an index, right by its digest, is refused or has places for all that it names."""
    try:
        root = decode_root(data)
    except ArtifactRejected as error:
        if error.kind != "index_broken":
            raise
        return
    assert len(root.frame_offsets) == len(root.bucket_offsets) == len(root) + 1


def index_bucket(data: bytes) -> None:
    """A bucket of an index, right by its digest: as it comes, and as what it is when it is decompressed."""
    for bucket in (data, zstandard.compress(data)):
        try:
            decode_bucket(bucket, hashlib.sha256(bucket).digest())
        except ArtifactRejected as error:
            if error.kind != "index_broken":
                raise


def patch(data: bytes) -> None:
    """A patch, of which nothing is verified before it is used."""
    try:
        found = decode_patch(data)
    except ValueError:
        return
    found.root(BASE)
    for number in range(min(len(found.files), 10)):
        try:
            assert len(expanded(found.blob(number), BASE, max_bytes=1 << 20)) <= 1 << 20
        except ValueError:
            continue


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "tar": archive("tar"),
    "tar.gz": archive("tar.gz"),
    "tar.zst": archive("tar.zst"),
    "zip": archive("zip"),
    "manifest": manifest,
    "index-root": index_root,
    "index-bucket": index_bucket,
    "patch": patch,
}


def _ignore(_: int) -> None:
    return


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _check_inside(into: Path) -> None:
    """No special file, no rights, no link out; names too deep to be opened by path are not looked at."""
    here = os.path.realpath(into)
    for directory, names, files in os.walk(into):
        for name in (*names, *files):
            path = Path(directory, name)
            try:
                mode = path.lstat().st_mode
            except OSError:
                continue
            assert stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode), path
            assert not mode & (stat.S_ISUID | stat.S_ISGID), path
            if stat.S_ISLNK(mode):
                led_to = os.path.realpath(path)
                assert led_to == here or led_to.startswith(f"{here}/"), path


def _make_removable(into: Path) -> None:
    """An archive may take the right to list and to change its directories away from us."""
    for directory, names, _ in os.walk(into):
        for name in names:
            path = Path(directory, name)
            if not path.is_symlink():
                path.chmod(0o700)
