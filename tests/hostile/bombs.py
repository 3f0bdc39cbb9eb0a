"""Archives that become far more than they are: bytes, files, depth, memory, time."""

from __future__ import annotations

import gzip
import struct
import tarfile
import zlib

import zstandard

from artifact import Limits
from tests.hostile.build import CENTRAL, END, changed, entry, pax, raw_header, symlink, zip_of
from tests.hostile.case import Family

MANY = 80 << 20


def zeros_tar(size: int) -> bytes:
    return raw_header(b"zeros", size=size) + bytes(size) + END


size_bombs = Family(
    "bombs: bytes", "42.zip, go-getter (CVE-2023-0475), unzip and zipfile (CVE-2019-13232, CVE-2024-0450)"
)
_RATIO = "'zeros' expands the archive to more than 67108864 bytes (max_ratio 200"
size_bombs.add("gzip", "tar.gz", lambda: gzip.compress(zeros_tar(MANY), mtime=0), "archive_too_big", says=_RATIO)
size_bombs.add("zstd", "tar.zst", lambda: zstandard.compress(zeros_tar(MANY)), "archive_too_big", says=_RATIO)
size_bombs.add("zip", "zip", lambda: zip_of(("zeros", 0o100644, bytes(MANY))), "archive_too_big", says=_RATIO)
size_bombs.add(
    "zip that lies about it",
    "zip",
    lambda: changed(zip_of(("zeros", 0o100644, bytes(MANY))), CENTRAL, 24, "<L", 1000),
    "archive_broken",
    "archive_too_big",
    says="'zeros'",
)
size_bombs.add(
    "a size of exbibytes",
    "tar",
    raw_header(b"f", size=b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7),
    "archive_too_big",
    says="'f'",
)
size_bombs.add(
    "a pax size of exbibytes", "tar", pax({"size": str((1 << 63) - 1)}) + entry("f"), "archive_too_big", says="'f'"
)
size_bombs.add("a pax size beyond 64 bits", "tar", pax({"size": "9" * 19}) + entry("f"), "archive_too_big", says="'f'")
size_bombs.add(
    "many small files",
    "tar",
    b"".join(entry(f"f{number}", content=bytes(4096)) for number in range(100)) + END,
    "archive_too_big",
    says="more than 100000 bytes (max_bytes)",
    limits=Limits(max_bytes=100_000),
)
size_bombs.add(
    "zeros behind the end",
    "tar.gz",
    lambda: gzip.compress(entry("f") + END + bytes(MANY), mtime=0),
    "archive_too_big",
    says="max_ratio",
)
size_bombs.add(
    "headers that belong to nothing",
    "tar.gz",
    lambda: gzip.compress(pax({"comment": "c" * 900_000}) * 90, mtime=0),
    "archive_too_big",
    says="max_ratio",
)


def overlapping_zip(count: int) -> bytes:
    """Many names in the directory for one compressed file."""
    one = zip_of(("f00000", 0o100644, bytes(1 << 20)))
    start, end = one.index(CENTRAL), one.rindex(b"PK\5\6")
    records = [one[start:end].replace(b"f00000", f"f{number:05}".encode()) for number in range(count)]
    directory_bytes = b"".join(records)
    return (
        one[:start]
        + directory_bytes
        + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory_bytes), start, 0)
    )


size_bombs.add(
    "zip of overlapping files", "zip", lambda: overlapping_zip(500), "archive_broken", "archive_too_big", says="'f0"
)
size_bombs.add(
    "an archive in an archive",
    "tar",
    entry("bomb.tar.gz", content=gzip.compress(bytes(1 << 20), mtime=0)) + END,
    "opened",
    tree={"bomb.tar.gz"},
)

count_bombs = Family("bombs: files and depth", "inodes; node-tar (CVE-2024-28863)")
count_bombs.add(
    "files",
    "tar.gz",
    lambda: gzip.compress(b"".join(entry(f"f{number}") for number in range(600)) + END, mtime=0),
    "archive_too_big",
    says="more than 500 entries (max_files), the first too many is 'f500'",
    limits=Limits(max_files=500),
)
count_bombs.add(
    "directories that paths imply",
    "tar.gz",
    lambda: gzip.compress(b"".join(entry(f"{number}/d/d/d/f") for number in range(600)) + END, mtime=0),
    "archive_too_big",
    says="(max_files)",
    limits=Limits(max_files=500),
)
count_bombs.add(
    "links",
    "tar.gz",
    lambda: gzip.compress(b"".join(symlink(f"l{number}", "x") for number in range(600)) + END, mtime=0),
    "archive_too_big",
    says="(max_files)",
    limits=Limits(max_files=500),
)
count_bombs.add(
    "zip entries",
    "zip",
    lambda: zip_of(*((f"f{number}", 0o100644, b"") for number in range(600))),
    "archive_too_big",
    says="(max_files)",
    limits=Limits(max_files=500),
)
count_bombs.add(
    "depth",
    "tar",
    pax({"path": "d/" * 2047 + "f"}) + entry("x") + END,
    "opened",
    tree={"d/" * depth + "d" for depth in range(2047)} | {"d/" * 2047 + "f"},
)
count_bombs.add(
    "more depth than a path has",
    "tar",
    pax({"path": "d/" * 3000 + "f"}) + entry("x") + END,
    "archive_hostile",
    says="longer than 4096",
)
count_bombs.add(
    "depth by turns",
    "tar",
    b"".join(pax({"path": ("a/" if number % 2 else "b/") * 500 + f"f{number}"}) + entry("x") for number in range(40))
    + END,
    "opened",
    tree={letter + f"/{letter}" * depth for letter in "ab" for depth in range(500)}
    | {("a/" if number % 2 else "b/") * 500 + f"f{number}" for number in range(40)},
)

cost_bombs = Family("bombs: memory and time", "names that add up, links that lead in detours; Go (CVE-2022-2879)")


def long_names(count: int) -> bytes:
    """Each name costs kilobytes of memory, and compresses to nothing."""
    names = (f"{number:08}/" + "/".join(["n" * 250] * 15) for number in range(count))
    return b"".join(pax({"path": name}) + entry("f") for name in names) + END


def link_maze(count: int) -> bytes:
    """Each link leads, with sixteen hundred steps, into a chain of as many links as may be followed."""
    detour = "a/../" * 800
    chain = [symlink(f"chain{number}", f"{detour}chain{number + 1}") for number in range(39)]
    return b"".join([*chain, *(symlink(f"link{number}", f"{detour}chain0") for number in range(count))]) + END


def many_keys(count: int) -> bytes:
    """Global headers whose keys stay for the rest of the archive."""
    headers = (pax({f"{number}.{key}": "v" * 40 for key in range(5000)}, tarfile.XGLTYPE) for number in range(count))
    return b"".join(headers) + entry("f") + END


cost_bombs.add(
    "names that fill the memory",
    "tar.gz",
    lambda: gzip.compress(long_names(3000), mtime=0),
    "archive_too_big",
    says="83886080 bytes of memory (max_memory_bytes), the last entry was ",
    limits=Limits(max_memory_bytes=80 << 20, max_ratio=10_000),
)
cost_bombs.add(
    "keys that fill the memory",
    "tar.gz",
    lambda: gzip.compress(many_keys(60), mtime=0),
    "archive_too_big",
    says="(max_memory_bytes), before its first entry",
    limits=Limits(max_memory_bytes=64 << 20, max_ratio=10_000),
)
cost_bombs.add(
    "a zip directory that fills the memory",
    "zip",
    lambda: zip_of(*((f"{number:040}", 0o100644, b"") for number in range(60_000)), method=0),
    "archive_too_big",
    says="(max_memory_bytes), before its first entry",
    limits=Limits(max_memory_bytes=48 << 20),
)
cost_bombs.add(
    "a zstd window that fills the memory",
    "tar.zst",
    lambda: windowed(27),
    "archive_too_big",
    says="(max_memory_bytes)",
    limits=Limits(max_memory_bytes=80 << 20),
)
cost_bombs.add("a zstd window that is large", "tar.zst", lambda: windowed(27), "opened", tree={"f"})
cost_bombs.add(
    "links that take hours",
    "tar.gz",
    lambda: gzip.compress(link_maze(5000), mtime=0),
    "archive_too_big",
    says="1 s of CPU time (max_cpu_s), the last entry was 'link",
    limits=Limits(max_cpu_s=1),
)


def windowed(log: int) -> bytes:
    """A zstd stream whose reader must keep so much of it."""
    parameters = zstandard.ZstdCompressionParameters(window_log=log)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = b"".join(zlib.crc32(struct.pack("<L", number)).to_bytes(4, "little") for number in range(1 << 18))
    return compressor.compress(entry("f", content=content) + END) + compressor.flush()


FAMILIES = (size_bombs, count_bombs, cost_bombs)
