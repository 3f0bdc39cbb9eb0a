"""Hostile and broken archives: each is refused by name, and nothing appears outside the directory to fill."""

import gzip
import io
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifact.errors import ArtifactRejected
from artifact.extract import extract
from artifact.limits import Limits

END = bytes(1024)


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


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", *, link: str = "", mode: int = 0o644
) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, len(content)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + content + bytes(-len(content) % 512)


def raw_header(name: bytes, kind: bytes, size: int) -> bytes:
    """A header with a right checksum and whatever else."""
    block = bytearray(
        struct.pack("100s8s8s8s12s12s8s1s", name, b"644", b"0", b"0", b"%011o" % size, b"0", b" " * 8, kind)
    )
    block += b"\0" * 100 + b"ustar\0" + b"00"
    block += bytes(512 - len(block))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


HOSTILE_TARS = {
    "absolute": (entry("/tmp/evil"), "'/tmp/evil' has the absolute name"),
    "climbing": (entry("../evil"), r"'\.\./evil' climbs"),
    "climbing in the middle": (entry("a/../../evil"), "climbs"),
    "empty component": (entry("a//evil"), "'a//evil' has an empty component"),
    "too long a component": (entry("x" * 256), "'x+' has a component longer"),
    "link to an absolute path": (entry("l", tarfile.SYMTYPE, link="/etc"), "'l' .* absolute path '/etc'"),
    "link out": (entry("l", tarfile.SYMTYPE, link="../other"), "'l' .* leads out"),
    "link out by two links": (
        entry("d", tarfile.DIRTYPE)
        + entry("d/up", tarfile.SYMTYPE, link="..")
        + entry("l", tarfile.SYMTYPE, link="d/up/../other"),
        "'l' .* leads out",
    ),
    "file through a link": (
        entry("l", tarfile.SYMTYPE, link="../other") + entry("l/f", content=b"mine"),
        "'l/f' lies below 'l'",
    ),
    "file through a link that replaces a directory": (
        entry("d", tarfile.DIRTYPE) + entry("d", tarfile.SYMTYPE, link="../other") + entry("d/f", content=b"mine"),
        "'d' is listed as a symbolic link",
    ),
    "file over a link": (
        entry("l", tarfile.SYMTYPE, link="f") + entry("l", content=b"mine"),
        "'l' is listed as a file",
    ),
    "links in circles": (
        entry("a", tarfile.SYMTYPE, link="b") + entry("b", tarfile.SYMTYPE, link="a"),
        "'a' .* circles",
    ),
    "hard link out": (entry("h", tarfile.LNKTYPE, link="../other/f"), "'h' climbs"),
    "hard link to an absolute path": (entry("h", tarfile.LNKTYPE, link="/etc/passwd"), "'h' has the absolute"),
    "hard link to a link": (
        entry("l", tarfile.SYMTYPE, link="../other/f") + entry("h", tarfile.LNKTYPE, link="l"),
        "'h' is a hard link to 'l'",
    ),
    "hard link to a later file": (
        entry("h", tarfile.LNKTYPE, link="f") + entry("f"),
        "'h' is a hard link to 'f'",
    ),
    "hard link with content": (
        entry("f") + raw_header(b"h", tarfile.LNKTYPE, 512) + bytes(512),
        "'h' is a hard link with content",
    ),
    "character device": (entry("dev", tarfile.CHRTYPE), "'dev' is a character device"),
    "block device": (entry("dev", tarfile.BLKTYPE), "'dev' is a block device"),
    "fifo": (entry("pipe", tarfile.FIFOTYPE), "'pipe' is a fifo"),
    "sparse file": (raw_header(b"s", tarfile.GNUTYPE_SPARSE, 0), "'s' is a sparse file"),
    "unknown type": (raw_header(b"u", b"Z", 0), "'u' has the unknown type b'Z'"),
    "setuid": (entry("su", mode=0o4755), "'su' is setuid or setgid"),
    "setgid directory": (entry("d", tarfile.DIRTYPE, mode=0o2755), "'d' is setuid or setgid"),
    "a file twice": (entry("f") + entry("f"), "'f' is listed"),
    "a directory twice": (entry("d", tarfile.DIRTYPE) + entry("./d", tarfile.DIRTYPE), "'./d' is listed"),
    "names that differ by case": (entry("Makefile") + entry("makefile"), "'makefile', which differs from 'Makefile'"),
    "a file as the root": (entry("."), r"'\.' would replace the root"),
    "a link as the root": (entry(".", tarfile.SYMTYPE, link="x"), r"'\.' would replace the root"),
}


@pytest.mark.parametrize("case", HOSTILE_TARS)
def test_a_hostile_tar_is_refused_by_name(into: Path, case: str) -> None:
    """The first good entry may stay, the hostile one is not created, links are not at all."""
    data, message = HOSTILE_TARS[case]
    with pytest.raises(ArtifactRejected, match=message) as caught:
        open_archive(entry("first", content=b"good") + data + END, into)
    assert caught.value.kind == "archive_hostile"
    assert not any(path.is_symlink() for path in into.rglob("*"))


def zip_with(*entries: tuple[str, int, bytes]) -> bytes:
    """A zip of `(name, unix mode, content)`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mode, content in entries:
            info = zipfile.ZipInfo("placeholder")
            info.filename = info.orig_filename = name
            info.create_system = 3
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return buffer.getvalue()


HOSTILE_ZIPS = {
    "absolute": (zip_with(("/tmp/evil", 0o100644, b"")), "'/tmp/evil' has the absolute name"),
    "climbing": (zip_with(("../evil", 0o100644, b"")), r"'\.\./evil' climbs"),
    "NUL in the name": (zip_with(("a\0b", 0o100644, b"")), r"'a\\x00b' has a NUL"),
    "link out": (zip_with(("l", 0o120777, b"../other")), "'l' .* leads out"),
    "file through a link": (zip_with(("l", 0o120777, b"d"), ("l/f", 0o100644, b"")), "'l/f' lies below 'l'"),
    "endless link": (zip_with(("l", 0o120777, b"x" * 5000)), "'l' is a symbolic link with a target of 5000"),
    "device": (zip_with(("dev", 0o020644, b"")), "'dev' is a device, fifo or socket"),
    "socket": (zip_with(("sock", 0o140644, b"")), "'sock' is a device, fifo or socket"),
    "setuid": (zip_with(("su", 0o104755, b"")), "'su' is setuid"),
}


@pytest.mark.parametrize("case", HOSTILE_ZIPS)
def test_a_hostile_zip_is_refused_by_name(into: Path, case: str) -> None:
    data, message = HOSTILE_ZIPS[case]
    with pytest.raises(ArtifactRejected, match=message) as caught:
        open_archive(data, into, "zip")
    assert caught.value.kind == "archive_hostile"
    assert not any(path.is_symlink() for path in into.rglob("*"))


def test_a_zip_with_a_name_twice_is_refused(into: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("f", b"one")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("f", b"two")
    with pytest.raises(ArtifactRejected, match="'f' is listed"):
        open_archive(buffer.getvalue(), into, "zip")
    assert (into / "f").read_bytes() == b"one"


def test_an_encrypted_zip_is_refused(into: Path) -> None:
    data = bytearray(zip_with(("secret", 0o100644, b"x")))
    data[data.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(ArtifactRejected, match="'secret' is encrypted"):
        open_archive(bytes(data), into, "zip")
    assert list(into.iterdir()) == []


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_with_a_method_that_expands_without_bound_in_memory_is_refused(into: Path, method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("f", b"content")
    with pytest.raises(ArtifactRejected, match=f"'f' is compressed by method {method}"):
        open_archive(buffer.getvalue(), into, "zip")
    assert list(into.iterdir()) == []


SOUND = entry("f", content=bytes(range(256)) * 20) + entry("g", content=b"x" * 600) + END
GZIPPED, ZSTD, ZIPPED = gzip.compress(SOUND), zstandard.compress(SOUND), zip_with(("f", 0o100644, b"y" * 900))
CHECKED_ZSTD = zstandard.ZstdCompressor(write_checksum=True).compress(SOUND)

BROKEN = {
    "empty tar": ("tar", b"", "ends early, in a header"),
    "garbage tar": ("tar", b"garbage! " * 200, "no sound tar header at its start"),
    "html page": ("tar.gz", b"<html>not found</html>" * 100, "not sound gzip data"),
    "gzip as tar": ("tar", GZIPPED + bytes(512), "no sound tar header at its start"),
    "tar as gzip": ("tar.gz", SOUND, "not sound gzip data"),
    "tar as zstd": ("tar.zst", SOUND, "not sound zstd data"),
    "tar as zip": ("zip", SOUND, "not a sound zip archive"),
    "tar cut in a file": ("tar", SOUND[:1000], "ends early, in the content of 'f'"),
    "tar cut in padding": ("tar", SOUND[: -1024 - 100], "ends early, in the padding"),
    "tar cut in a header": ("tar", SOUND[: 512 + 5120 + 200], "ends early, in a header after 'f'"),
    "tar without its end": ("tar", SOUND[:-1024], "ends early, in a header after 'g'"),
    "tar with a broken header": ("tar", SOUND[:5632] + b"!" + SOUND[5633:], "no sound tar header after 'f'"),
    "two tars joined": ("tar", SOUND + SOUND, "other data follows its end"),
    "gzip cut": ("tar.gz", GZIPPED[:-4], "gzip data ends early"),
    "gzip cut in its header": ("tar.gz", GZIPPED[:5], "gzip data ends early"),
    "gzip empty": ("tar.gz", b"", "gzip data ends early"),
    "gzip with a wrong CRC": ("tar.gz", GZIPPED[:-8] + b"\0\0\0\0" + GZIPPED[-4:], "incorrect data check"),
    "gzip with a wrong length": ("tar.gz", GZIPPED[:-4] + b"\1\1\1\1", "incorrect length check"),
    "gzip with garbage behind": ("tar.gz", GZIPPED + b"garbage", "not sound gzip data"),
    "zstd cut": ("tar.zst", ZSTD[: len(ZSTD) // 2], "archive is broken"),
    "zstd empty": ("tar.zst", b"", "ends early, in a header"),
    "zstd with a wrong checksum": (
        "tar.zst",
        CHECKED_ZSTD[:-1] + bytes([CHECKED_ZSTD[-1] ^ 1]),
        "not sound zstd data",
    ),
    "zstd that needs 1 GiB of memory": ("tar.zst", b"\x28\xb5\x2f\xfd\x00\xa0" + bytes(20), "too much memory"),
    "zip cut": ("zip", ZIPPED[:-10], "not a sound zip archive"),
    "zip with a wrong CRC": (
        "zip",
        ZIPPED.replace(struct.pack("<L", zlib.crc32(b"y" * 900)), b"\1\2\3\4"),
        "'f' cannot be read",
    ),
    "only a root": ("tar", entry("./", tarfile.DIRTYPE) + END, "holds no files"),
    "no entries": ("tar", END, "holds no files"),
    "zip without entries": ("zip", zip_with(), "holds no files"),
    "pax header without a record's end": (
        "tar",
        raw_header(b"x", tarfile.XHDTYPE, 10) + b"10 path=ab".ljust(512, b"\0") + entry("f") + END,
        "malformed record",
    ),
    "pax header of a gigabyte": ("tar", raw_header(b"x", tarfile.XHDTYPE, 1 << 30), "header of 1073741824 bytes"),
    "GNU name of a gigabyte": ("tar", raw_header(b"x", tarfile.GNUTYPE_LONGNAME, 1 << 30), "of 1073741824 bytes"),
    "pax header at the end": (
        "tar",
        entry("f") + raw_header(b"x", tarfile.XHDTYPE, 10) + b"10 path=a\n".ljust(512, b"\0") + END,
        "belongs to no entry",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_archive_is_refused_with_a_reason(into: Path, case: str) -> None:
    archive_format, data, message = BROKEN[case]
    with pytest.raises(ArtifactRejected, match=message) as caught:
        open_archive(data, into, archive_format)
    assert caught.value.kind == "archive_broken"
    assert {path.name for path in into.iterdir()} <= {"f", "g"}


def bomb_stream(total_bytes: int) -> bytes:
    """A tar with one file of zeros."""
    return raw_header(b"zeros", tarfile.REGTYPE, total_bytes) + bytes(total_bytes) + END


BOMBS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("tar.gz", gzip.compress),
    "zstd": ("tar.zst", zstandard.compress),
    "zip": ("zip", lambda _: zip_with(("zeros", 0o100644, bytes(80 << 20)))),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_stops_at_the_ratio_before_it_reaches_the_disk(into: Path, kind: str) -> None:
    """80 MiB of zeros are refused as soon as their size is announced: not one byte of them is written."""
    archive_format, compress = BOMBS[kind]
    data = compress(bomb_stream(80 << 20))
    with pytest.raises(ArtifactRejected, match=r"'zeros' expands .* 67108864 bytes \(max_ratio 200") as caught:
        open_archive(data, into, archive_format)
    assert caught.value.kind == "archive_too_big"
    assert list(into.iterdir()) == []


def test_many_small_files_stop_at_the_byte_limit(into: Path) -> None:
    """No single entry is too big; the total counts while it is written, headers included."""
    data = b"".join(entry(f"f{number}", content=bytes(4096)) for number in range(100)) + END
    with pytest.raises(ArtifactRejected, match=r"more than 100000 bytes \(max_bytes\)") as caught:
        open_archive(data, into, limits=Limits(max_bytes=100_000))
    assert caught.value.kind == "archive_too_big"
    assert sum(path.stat().st_size for path in into.iterdir()) <= 100_000


def test_a_zip_that_lies_about_a_size_is_stopped_while_it_expands(into: Path) -> None:
    """The announced size passes the first check; what really comes out is counted too."""
    data = bytearray(zip_with(("zeros", 0o100644, bytes(1 << 20))))
    struct.pack_into("<L", data, data.index(b"PK\1\2") + 24, 1000)
    with pytest.raises(ArtifactRejected):
        open_archive(bytes(data), into, "zip", Limits(max_bytes=100_000))
    assert sum(path.stat().st_size for path in into.iterdir()) <= 100_000


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
