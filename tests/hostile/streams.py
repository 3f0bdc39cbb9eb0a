"""Compressed streams that are broken, or ask for more than a host should give; cuts and flipped bits of all formats."""

from __future__ import annotations

import gzip
import random
import struct
import zlib
from collections.abc import Iterator

import zstandard

from tests.hostile.build import END, directory, entry, hard_link, symlink, zip_of
from tests.hostile.case import Family

NOISE = random.Random(7).randbytes(700)
SOUND = (
    directory("d")
    + entry("d/f", content=NOISE)
    + symlink("l", "d/f")
    + hard_link("h", "d/f")
    + entry("long/" + "n" * 200, content=b"x" * 600)
    + END
)
TREE = {"d", "d/f", "l", "h", "long", "long/" + "n" * 200}


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def frame(data: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


GZIP, ZSTD = gzipped(SOUND), frame(SOUND, write_checksum=True)
ZIP = zip_of(("d/", 0o040755, b""), ("d/f", 0o100644, NOISE), ("l", 0o120777, b"d/f"), ("g", 0o100644, b"x" * 600))
SAMPLES = {"tar": SOUND, "tar.gz": GZIP, "tar.zst": ZSTD, "zip": ZIP}

gz = Family("gzip: broken streams", "zlib (CVE-2022-37434) and readers that take a broken end for the end")
gz.add("empty", "tar.gz", b"", "archive_broken", says="gzip data ends early")
gz.add("cut in its header", "tar.gz", GZIP[:5], "archive_broken", says="gzip data ends early")
gz.add("cut before its checksum", "tar.gz", GZIP[:-8], "archive_broken", says="gzip data ends early")
gz.add("a wrong CRC", "tar.gz", GZIP[:-8] + b"\0\0\0\0" + GZIP[-4:], "archive_broken", says="incorrect data check")
gz.add("a wrong length", "tar.gz", GZIP[:-4] + b"\1\1\1\1", "archive_broken", says="incorrect length check")
gz.add("garbage behind", "tar.gz", GZIP + b"garbage", "archive_broken", says="not sound gzip data")
gz.add("a cut member behind", "tar.gz", GZIP + GZIP[:9], "archive_broken", says="gzip data ends early")
gz.add("a second archive behind", "tar.gz", GZIP + GZIP, "archive_broken", says="other data follows its end")
gz.add("no gzip", "tar.gz", SOUND, "archive_broken", says="not sound gzip data")
gz.add("a page of HTML", "tar.gz", b"<html>not found</html>" * 100, "archive_broken", says="not sound gzip data")
gz.add("zlib, not gzip", "tar.gz", zlib.compress(SOUND), "archive_broken", says="not sound gzip data")
gz.add("an unknown method", "tar.gz", GZIP[:2] + b"\7" + GZIP[3:], "archive_broken", says="not sound gzip data")
gz.add("flags of the future", "tar.gz", GZIP[:3] + b"\xe0" + GZIP[4:], "archive_broken", says="not sound gzip data")
gz.add(
    "a header checksum that is wrong", "tar.gz", GZIP[:3] + b"\2" + GZIP[4:10] + b"\0\0" + GZIP[10:], "archive_broken"
)
gz.add("gzip in gzip", "tar.gz", gzipped(GZIP), "archive_broken", says="no sound tar header")
gz.add("a block of the reserved type", "tar.gz", GZIP[:10] + b"\7" + GZIP[11:], "archive_broken", says="gzip data")
gz.add(
    "the largest extra field",
    "tar.gz",
    GZIP[:3] + b"\4" + GZIP[4:10] + struct.pack("<H", 65535) + bytes(65535) + GZIP[10:],
    "opened",
    tree=TREE,
)
gz.add(
    "a name without end", "tar.gz", GZIP[:3] + b"\x08" + GZIP[4:10] + b"n" * 99_999, "archive_broken", says="ends early"
)
gz.add("a name that climbs", "tar.gz", GZIP[:3] + b"\x08" + GZIP[4:10] + b"../evil\0" + GZIP[10:], "opened", tree=TREE)
gz.add("ten thousand empty members", "tar.gz", gzipped(b"") * 10_000 + GZIP, "opened", tree=TREE)
gz.add("padding", "tar.gz", GZIP + bytes(10_000), "opened", tree=TREE)

zstd = Family("zstd: broken streams", "windows that take memory, dictionaries, frames of old versions")
zstd.add("empty", "tar.zst", b"", "archive_broken", says="ends early, in a header")
zstd.add("cut", "tar.zst", ZSTD[: len(ZSTD) // 2], "archive_broken", says="ends early")
zstd.add("cut before its checksum", "tar.zst", ZSTD[:-4], "archive_broken", "opened", tree=TREE)
zstd.add("a wrong checksum", "tar.zst", ZSTD[:-1] + bytes([ZSTD[-1] ^ 1]), "archive_broken", says="not sound zstd data")
zstd.add("no zstd", "tar.zst", SOUND, "archive_broken", says="not sound zstd data")
zstd.add("gzip", "tar.zst", GZIP, "archive_broken", says="not sound zstd data")
zstd.add("garbage behind", "tar.zst", ZSTD + b"garbage!", "archive_broken", says="not sound zstd data")
zstd.add("a second archive behind", "tar.zst", ZSTD + ZSTD, "archive_broken", says="other data follows its end")
zstd.add(
    "a window of a gigabyte",
    "tar.zst",
    b"\x28\xb5\x2f\xfd\x00\xa0" + bytes(20),
    "archive_broken",
    says="too much memory",
)
zstd.add(
    "a window of exabytes", "tar.zst", b"\x28\xb5\x2f\xfd\x00\xff" + bytes(20), "archive_broken", says="not sound zstd"
)
zstd.add(
    "a dictionary", "tar.zst", b"\x28\xb5\x2f\xfd\x01\x58\x07" + bytes(20), "archive_broken", says="not sound zstd"
)
zstd.add(
    "a reserved bit", "tar.zst", ZSTD[:4] + bytes([ZSTD[4] | 8]) + ZSTD[5:], "archive_broken", says="not sound zstd"
)
zstd.add(
    "a block of the reserved type",
    "tar.zst",
    b"\x28\xb5\x2f\xfd\x00\x58\x07\0\0",
    "archive_broken",
    says="not sound zstd",
)
zstd.add(
    "another size than it says", "tar.zst", b"\x28\xb5\x2f\xfd\x20\x09\x01\x00\x00", "archive_broken", says="zstd data"
)
for version in range(1, 8):
    magic = 0x1EB52FFD if version == 1 else 0xFD2FB520 + version
    layout = ">L" if version == 1 else "<L"
    zstd.add(
        f"a frame of version 0.{version}",
        "tar.zst",
        struct.pack(layout, magic) + ZSTD[4:],
        "archive_broken",
        says="archive is broken",
    )
zstd.add("skippable frames", "tar.zst", struct.pack("<LL", 0x184D2A50, 5) + b"hello" + ZSTD, "opened", tree=TREE)
zstd.add(
    "a skippable frame of gigabytes", "tar.zst", struct.pack("<LL", 0x184D2A5F, 0xFFFFFFFF) + ZSTD, "archive_broken"
)
zstd.add("a thousand empty frames", "tar.zst", frame(b"") * 1000 + ZSTD, "opened", tree=TREE)

FAMILIES = (gz, zstd)


def cut(archive_format: str, step: int) -> Iterator[tuple[int, bytes]]:
    """The sample of a format, truncated at every `step`-th byte."""
    data = SAMPLES[archive_format]
    for at in range(step // 2, len(data), step):
        yield at, data[:at]


def flipped(archive_format: str, count: int) -> Iterator[tuple[int, bytes]]:
    """The sample of a format, each time with one bit flipped at another place."""
    data = SAMPLES[archive_format]
    for bit in sorted(random.Random(11).sample(range(8 * len(data)), count)):
        flipped_data = bytearray(data)
        flipped_data[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(flipped_data)
