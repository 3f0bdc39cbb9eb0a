"""Archives made by other programs open to the tree that they were made from."""

import gzip
import io
import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifact.errors import ArtifactRejected
from artifact.extract import extract
from artifact.limits import Limits

MTIME_NS = 1_700_000_001_123_456_789


def open_archive(data: bytes, archive_format: str, into: Path, limits: Limits | None = None) -> list[int]:
    """Open `data` into the new directory `into`; the counts that were reported."""
    into.mkdir()
    counts: list[int] = []
    extract(
        io.BytesIO(data),
        archive_format,
        into,
        archive_bytes=len(data),
        limits=limits or Limits(),
        on_entry=counts.append,
    )
    return counts


def tree_of(root: Path, *, mtime_unit_ns: int = 1) -> dict[bytes, tuple[object, ...]]:
    """Everything below `root` that a build consists of."""
    found: dict[bytes, tuple[object, ...]] = {}
    for path in root.rglob("*"):
        state = path.lstat()
        key = os.fsencode(path.relative_to(root))
        mtime = state.st_mtime_ns // mtime_unit_ns
        if stat.S_ISLNK(state.st_mode):
            found[key] = ("link", str(path.readlink()))
        elif stat.S_ISDIR(state.st_mode):
            found[key] = ("directory", stat.S_IMODE(state.st_mode), mtime)
        else:
            found[key] = ("file", stat.S_IMODE(state.st_mode), mtime, path.read_bytes())
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with everything that a build may contain."""
    root = tmp_path / "tree"
    for directory in ("bin", "empty", "lib/deep/er"):
        (root / directory).mkdir(parents=True)
    names = ["plain", "bin/run", "lib/deep/er/é☃.txt", "two\nlines", "-rf", "n" * 255, os.fsdecode(b"\xff\xfe")]
    for number, name in enumerate(names):
        (root / name).write_bytes(bytes([number]) * (number * 700))
    (root / "big").write_bytes(os.urandom(700_000))
    (root / "bin/run").chmod(0o755)
    (root / "plain").chmod(0o400)
    (root / "bin/current").symlink_to("run")
    (root / "lib/deep/up").symlink_to("../../plain")
    (root / "lib/nowhere").symlink_to("not/there")
    os.link(root / "big", root / "lib/same-as-big")
    (root / "empty").chmod(0o555)
    (root / "lib").chmod(0o700)
    for path in [*root.rglob("*")]:
        os.utime(path, ns=(MTIME_NS, MTIME_NS), follow_symlinks=False)
    return root


@pytest.mark.parametrize("options", [["--format=gnu"], ["--format=pax"], ["--format=ustar"]])
@pytest.mark.parametrize(
    ("archive_format", "compress"),
    [
        ("tar", []),
        ("tar.gz", ["--gzip"]),
        ("tar.zst", ["--zstd"]),
    ],
)
def test_what_gnu_tar_packs_opens_to_the_same_tree(
    tree: Path, tmp_path: Path, archive_format: str, compress: list[str], options: list[str]
) -> None:
    """Names, contents, modes, times and links survive, in each of tar's own formats."""
    if options == ["--format=ustar"]:
        shutil.move(tree / ("n" * 255), tree / ("n" * 99))  # ustar cannot hold it
        os.utime(tree, ns=(MTIME_NS, MTIME_NS))
    packed = subprocess.run(
        ["tar", "-c", *options, *compress, "-C", str(tree), "."], check=True, capture_output=True
    ).stdout
    counts = open_archive(packed, archive_format, tmp_path / "out")
    unit = 1 if options == ["--format=pax"] else 1_000_000_000
    assert tree_of(tmp_path / "out", mtime_unit_ns=unit) == tree_of(tree, mtime_unit_ns=unit)
    assert counts == list(range(1, len(tree_of(tree)) + 2))  # the root is an entry
    assert (tmp_path / "out/big").samefile(tmp_path / "out/lib/same-as-big")


@pytest.mark.parametrize("options", [[], ["-0"], ["-9"]])
def test_what_info_zip_packs_opens_to_the_same_tree(tree: Path, tmp_path: Path, options: list[str]) -> None:
    """Modes and links come from the central directory, times from the extended timestamps."""
    archive = tmp_path / "a.zip"
    (tree / os.fsdecode(b"\xff\xfe")).unlink()  # zip's own locale handling rewrites it
    (tree / "two\nlines").unlink()
    os.utime(tree, ns=(MTIME_NS, MTIME_NS))
    subprocess.run(
        ["zip", "-q", "-r", "-y", *options, str(archive), "."],
        cwd=tree,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    open_archive(archive.read_bytes(), "zip", tmp_path / "out")
    assert tree_of(tmp_path / "out", mtime_unit_ns=10**9) == tree_of(tree, mtime_unit_ns=10**9)
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "out", "tree"}


def test_a_zip_without_unix_modes_gets_plain_ones(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("d/", "d/f"):
            info = zipfile.ZipInfo(name, (2024, 2, 29, 12, 0, 2))
            info.create_system = 0
            info.external_attr = 0x20
            archive.writestr(info, b"" if name.endswith("/") else b"content")
    open_archive(buffer.getvalue(), "zip", tmp_path / "out")
    when_ns = 1_709_208_002 * 10**9  # the archive's local time, taken for UTC
    assert tree_of(tmp_path / "out") == {
        b"d": ("directory", 0o755, when_ns),
        b"d/f": ("file", 0o644, when_ns, b"content"),
    }


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_what_python_packs_opens_to_the_same_tree(tree: Path, tmp_path: Path, tar_format: int) -> None:
    if tar_format == tarfile.USTAR_FORMAT:
        shutil.move(tree / ("n" * 255), tree / "n")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format, errors="surrogateescape") as archive:
        for path in sorted(tree.iterdir()):
            archive.add(path, path.name)
    open_archive(buffer.getvalue(), "tar", tmp_path / "out")
    unit = 1_000_000_000
    assert tree_of(tmp_path / "out", mtime_unit_ns=unit) == tree_of(tree, mtime_unit_ns=unit)


def test_git_archive_with_its_global_header_opens(tmp_path: Path) -> None:
    repository = tmp_path / "r"
    repository.mkdir()
    (repository / "f").write_text("content")
    git = ["git", "-C", str(repository), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "f"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "c"], check=True)
    packed = subprocess.run([*git, "archive", "HEAD"], check=True, capture_output=True).stdout
    open_archive(packed, "tar", tmp_path / "out")
    assert (tmp_path / "out/f").read_text() == "content"


def tar_with(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("cut", [1, 511, 700, 5000])
def test_several_gzip_members_and_zero_padding_are_one_stream(tmp_path: Path, cut: int) -> None:
    plain = tar_with("f", os.urandom(3000))
    packed = gzip.compress(plain[:cut]) + gzip.compress(plain[cut:]) + bytes(1000)
    open_archive(packed, "tar.gz", tmp_path / "out")
    assert (tmp_path / "out/f").read_bytes() == plain[512:3512]


def test_several_zstd_frames_are_one_stream(tmp_path: Path) -> None:
    plain = tar_with("f", os.urandom(3000))
    packed = zstandard.compress(plain[:700]) + zstandard.compress(plain[700:])
    open_archive(packed, "tar.zst", tmp_path / "out")
    assert (tmp_path / "out/f").read_bytes() == plain[512:3512]


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    """A daemon started under umask 077 makes the same tree; implied directories are readable by workers."""
    (tmp_path / "a.tar").write_bytes(tar_with("implied/f", b"x"))
    (tmp_path / "out").mkdir(mode=0o751)
    program = (
        "import os, sys; from pathlib import Path; from artifact.extract import extract; "
        "from artifact.limits import Limits; os.umask(0o077); data = open(sys.argv[1], 'rb'); "
        "extract(data, 'tar', Path(sys.argv[2]), archive_bytes=1, limits=Limits(), on_entry=lambda count: None)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.tar"), str(tmp_path / "out")], check=True)
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("out", "out/implied", "out/implied/f")}
    assert modes == {"out": 0o751, "out/implied": 0o755, "out/implied/f": 0o644}


def test_nothing_is_finished_before_the_stream_has_ended(tmp_path: Path) -> None:
    """Links and final modes wait for the end, so that a caller can withhold it until the digest is right."""

    class Withheld(Exception):
        pass

    class Stream(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            if not data:
                raise Withheld
            return data

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, target in (("d", tarfile.DIRTYPE, ""), ("d/l", tarfile.SYMTYPE, "x")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, target, 0o555
            archive.addfile(info)
    for archive_format, data in (("tar", buffer.getvalue()), ("tar.gz", gzip.compress(buffer.getvalue()))):
        into = tmp_path / archive_format
        into.mkdir()
        with pytest.raises(Withheld):
            extract(Stream(data), archive_format, into, archive_bytes=1, limits=Limits(), on_entry=lambda _: None)
        assert [path.name for path in into.rglob("*")] == ["d"]
        assert stat.S_IMODE((into / "d").stat().st_mode) == 0o700


def test_limits_count_entries_and_implied_directories(tmp_path: Path) -> None:
    data = tar_with("a/b/c", b"")
    open_archive(data, "tar", tmp_path / "three", Limits(max_files=3))
    with pytest.raises(ArtifactRejected, match=r"more than 2 entries.*'a/b/c'") as caught:
        open_archive(data, "tar", tmp_path / "two", Limits(max_files=2))
    assert caught.value.kind == "archive_too_big"


def test_a_pax_time_before_the_epoch_and_a_huge_id_are_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("f")
    info.mtime = -1.25
    info.uid = 10**12
    data = info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)
    open_archive(data, "tar", tmp_path / "out")
    assert (tmp_path / "out/f").stat().st_mtime_ns == -1_250_000_000


def test_the_unix_bytes_of_a_zip_name_survive_without_the_utf8_flag(tmp_path: Path) -> None:
    """Unix zips store raw bytes; read as code page 437 they would become another name on the disk."""
    raw = "naïve".encode() + b"\xff"
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0x21, 0, 0, 0, len(raw), 0) + raw
    central = (
        struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 0x031E, 20, 0, 0, 0, 0x21, 0, 0, 0, len(raw), 0, 0, 0, 0, 0o100644 << 16, 0
        )
        + raw
    )
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local), 0)
    open_archive(local + central + end, "zip", tmp_path / "out")
    assert [os.fsencode(path.name) for path in (tmp_path / "out").iterdir()] == [raw]


names = st.text(alphabet="abcé\udcff-. \n", min_size=1, max_size=6).filter(lambda name: name not in (".", ".."))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.dictionaries(
        st.lists(names, min_size=1, max_size=3).map(tuple), st.binary(max_size=3000), min_size=1, max_size=8
    ),
    mode=st.sampled_from([0o400, 0o644, 0o755, 0o777]),
    archive_format=st.sampled_from(["tar", "tar.gz", "tar.zst"]),
)
def test_random_trees_open_to_what_was_packed(
    tmp_path: Path, files: dict[tuple[str, ...], bytes], mode: int, archive_format: str
) -> None:
    files = {
        name: content
        for name, content in files.items()
        if not any(other[: len(name)] == name for other in files if other != name)
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", errors="surrogateescape") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo("/".join(name))
            info.size, info.mode = len(content), mode
            archive.addfile(info, io.BytesIO(content))
    compress = {"tar": bytes, "tar.gz": gzip.compress, "tar.zst": zstandard.compress}[archive_format]
    into = tmp_path / "out"
    shutil.rmtree(into, ignore_errors=True)
    open_archive(compress(buffer.getvalue()), archive_format, into, Limits(allow_case_collisions=True))
    opened = {
        tuple(part.decode("utf-8", "surrogateescape") for part in path.split(b"/")): (entry[1], entry[3])
        for path, entry in tree_of(into).items()
        if entry[0] == "file"
    }
    assert opened == {name: (mode, content) for name, content in files.items()}
