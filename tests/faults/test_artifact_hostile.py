"""Hostile and broken archives beyond the corpus of `tests.hostile`: chance, mutation, and what is on the disk after."""

import gzip
import io
import shutil
import stat
import struct
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifact.errors import ArtifactRejected
from artifact.extract import extract
from artifact.limits import Limits
from tests.hostile.bombs import size_bombs
from tests.hostile.build import END, entry, raw_header, zip_of
from tests.hostile.case import Case


@pytest.fixture
def into(tmp_path: Path) -> Iterator[Path]:
    """The directory to fill, in the middle of things that an archive might want to change."""
    site = tmp_path / "site"
    into = site / "releases" / "new"
    into.mkdir(parents=True)
    (site / "canary").write_text("alive")
    (site / "releases" / "other").mkdir()
    (site / "releases" / "other" / "f").write_text("theirs")
    yield into
    outside = {
        str(path.relative_to(site)): path.lstat().st_mode
        for path in site.rglob("*")
        if path != into and not path.is_relative_to(into)
    }
    assert set(outside) == {"canary", "releases", "releases/other", "releases/other/f"}
    assert not any(stat.S_ISLNK(mode) for mode in outside.values())
    assert (site / "canary").read_text() == "alive"
    assert (site / "releases" / "other" / "f").read_text() == "theirs"


def open_archive(data: bytes, into: Path, archive_format: str = "tar", limits: Limits | None = None) -> None:
    extract(
        io.BytesIO(data),
        archive_format,
        into,
        archive_bytes=len(data),
        limits=limits or Limits(),
        on_entry=lambda _: None,
    )


@pytest.mark.parametrize("case", size_bombs.cases[:3], ids=lambda case: case.name)
def test_a_bomb_stops_at_the_ratio_before_it_reaches_the_disk(into: Path, case: Case) -> None:
    """80 MiB of zeros are refused as soon as their size is announced: not one byte of them is written."""
    with pytest.raises(ArtifactRejected, match="max_ratio"):
        open_archive(case.make(), into, case.archive_format)
    assert list(into.iterdir()) == []


def test_a_limit_of_bytes_holds_on_the_disk(into: Path) -> None:
    """No single entry is too big; the total counts while it is written, headers included."""
    data = b"".join(entry(f"f{number}", content=bytes(4096)) for number in range(100)) + END
    with pytest.raises(ArtifactRejected, match="max_bytes"):
        open_archive(data, into, limits=Limits(max_bytes=100_000))
    assert 80_000 < sum(path.stat().st_size for path in into.iterdir()) <= 100_000


def test_a_zip_that_lies_about_a_size_is_stopped_while_it_expands(into: Path) -> None:
    """The announced size passes the first check; what really comes out is counted too."""
    data = bytearray(zip_of(("zeros", 0o100644, bytes(1 << 20))))
    struct.pack_into("<L", data, data.index(b"PK\1\2") + 24, 1000)
    with pytest.raises(ArtifactRejected):
        open_archive(bytes(data), into, "zip", Limits(max_bytes=100_000))
    assert sum(path.stat().st_size for path in into.iterdir()) <= 100_000


def test_of_two_entries_for_one_place_the_first_one_stays(into: Path) -> None:
    data = zip_of(("f", 0o100644, b"one"), ("f", 0o100644, b"two"))
    with pytest.raises(ArtifactRejected, match="'f' is listed"):
        open_archive(data, into, "zip")
    assert (into / "f").read_bytes() == b"one"


def test_a_highly_compressible_start_does_not_condemn_a_sound_archive(into: Path) -> None:
    """The ratio is judged against the whole archive: 70 MiB of zeros first, then a megabyte of noise."""
    noise = zlib.compress(b"".join(struct.pack("<L", n * 2654435761 % 2**32) for n in range(400_000)), 0)
    data = gzip.compress(raw_header(b"zeros", b"0", 70 << 20) + bytes(70 << 20) + entry("noise", content=noise) + END)
    assert (71 << 20) / len(data) < 200
    open_archive(data, into, "tar.gz")
    assert (into / "zeros").stat().st_size == 70 << 20


def test_collisions_of_case_can_be_allowed(into: Path) -> None:
    open_archive(entry("A") + entry("a") + END, into, limits=Limits(allow_case_collisions=True))
    assert {path.name for path in into.iterdir()} == {"A", "a"}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=2000),
    archive_format=st.sampled_from(["tar", "tar.gz", "tar.zst", "zip"]),
    wrap=st.booleans(),
)
def test_random_bytes_raise_nothing_but_our_errors(into: Path, data: bytes, archive_format: str, wrap: bool) -> None:  # noqa: FBT001 - hypothesis passes by keyword
    if wrap and archive_format == "tar.gz":
        data = gzip.compress(data)
    elif wrap and archive_format == "tar.zst":
        data = zstandard.compress(data)
    _open_and_clear(into, data, archive_format)


MUTABLE = (
    entry("d", tarfile.DIRTYPE, mode=0o755)
    + entry("d/f", content=b"content")
    + entry("l", tarfile.SYMTYPE, link="d/f")
    + entry("h", tarfile.LNKTYPE, link="d/f")
    + entry("long/" + "n" * 200, content=b"x")
    + END
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, len(MUTABLE) // 512 - 1),
            st.sampled_from([0, 1, 2, 100, 101, 124, 135, 136, 156, 157, 158, 257, 345, 346, 400]),
            st.sampled_from([0, 32, 46, 47, 48, 49, 50, 51, 53, 55, 65, 75, 76, 83, 103, 120, 128, 255]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_mutated_tars_never_escape_and_raise_nothing_but_our_errors(
    into: Path, changes: list[tuple[int, int, int]]
) -> None:
    """Headers are changed and their checksums corrected, so that the change is really looked at."""
    data = bytearray(MUTABLE)
    for block, offset, value in changes:
        data[block * 512 + offset] = value
        header = data[block * 512 : block * 512 + 512]
        header[148:156] = b" " * 8
        data[block * 512 + 148 : block * 512 + 156] = b"%06o\0 " % sum(header)
    _open_and_clear(into, bytes(data), "tar")


ZIPPED = zip_of(("f", 0o100644, b"y" * 900))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(ZIPPED) - 1), value=st.integers(0, 255), second=st.integers(0, len(ZIPPED) - 1))
def test_mutated_zips_never_escape_and_raise_nothing_but_our_errors(
    into: Path, at: int, value: int, second: int
) -> None:
    data = bytearray(ZIPPED)
    data[at] = value
    data[second] ^= value
    _open_and_clear(into, bytes(data), "zip")


def _open_and_clear(into: Path, data: bytes, archive_format: str) -> None:
    """A refusal or a success that stays inside; any other exception fails the test."""
    try:
        with suppress(ArtifactRejected):
            open_archive(data, into, archive_format, Limits(max_bytes=1 << 20))
        for path in into.rglob("*"):
            assert path.resolve().is_relative_to(into.resolve())
    finally:
        for path in into.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
