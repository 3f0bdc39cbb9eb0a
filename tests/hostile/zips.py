"""Zip archives that want out of their directory, or mean different things to different readers."""

from __future__ import annotations

import struct
import zipfile
import zlib

from tests.hostile.build import CENTRAL, END, EOCD, LOCAL, changed, entry, with_extra, zip_of
from tests.hostile.case import Family, Outcome

FILE, LINK, DIRECTORY = 0o100644, 0o120777, 0o040755
ONE = zip_of(("f", FILE, b"y" * 900))
STORED = zip_of(("f", FILE, b"y" * 900), method=zipfile.ZIP_STORED)


def of(family: Family, name: str, *entries: tuple[str, int, bytes], says: str) -> None:
    """Add a zip of these entries, to be refused by name."""
    family.add(name, "zip", zip_of(*entries), "archive_hostile", says=says)


def broken(family: Family, name: str, data: bytes, says: str = "", *more: Outcome) -> None:
    """Add a zip that is broken, or what else a version of zipfile may say of it."""
    family.add(name, "zip", data, "archive_broken", *more, says=says, tree={"f"})


escape = Family("zip: names and links that lead out", "Zip Slip (CVE-2018-1002200), unzip, 7-Zip (CVE-2025-11001)")
of(escape, "absolute", ("/tmp/evil", FILE, b""), says="'/tmp/evil' has the absolute name")
of(escape, "two slashes", ("//tmp/evil", FILE, b""), says="'//tmp/evil' has the absolute name")
of(escape, "climbing", ("../evil", FILE, b""), says="'../evil' climbs")
of(escape, "climbing in the middle", ("a/../../evil", FILE, b""), says="'a/../../evil' climbs")
of(escape, "climbing directory", ("../", DIRECTORY, b""), says="'../' climbs")
of(escape, "link out", ("l", LINK, b"../other"), says="'l' is a symbolic link to '../other', which leads out")
of(escape, "absolute link", ("l", LINK, b"/etc"), says="'l' is a symbolic link to the absolute path '/etc'")
of(escape, "file through a link", ("l", LINK, b"d"), ("l/f", FILE, b""), says="'l/f' lies below 'l'")
of(escape, "link and then a file there", ("l", LINK, b"../x"), ("l", FILE, b""), says="'l' is listed as a file")
of(escape, "link with an endless target", ("l", LINK, b"x" * 5000), says="'l' is a symbolic link with a target of 5000")
of(escape, "link without a target", ("l", LINK, b""), says="'l' is a symbolic link with the impossible target ''")
of(escape, "links in circles", ("a", LINK, b"b"), ("b", LINK, b"a"), says="which runs in circles")
escape.add("backslashes", "zip", zip_of(("..\\evil", FILE, b"")), "opened", tree={"..\\evil"})
escape.add("a drive", "zip", zip_of(("C:\\evil", FILE, b"")), "opened", tree={"C:\\evil"})
escape.add("a link that is a directory by its slash", "zip", zip_of(("l/", LINK, b"../x")), "opened", tree={"l"})

names = Family("zip: impossible names and entries", "NUL bytes, devices, duplicates, two names for one entry")
of(names, "NUL in the name", ("a\0b", FILE, b""), says="'a\\x00b' has a NUL")
of(names, "NUL before a climb", ("a\0/../../evil", FILE, b""), says="has a NUL")
of(names, "empty component", ("a//b", FILE, b""), says="'a//b' has an empty component")
of(names, "too long a component", ("x" * 256, FILE, b""), says="has a component longer than 255 bytes")
of(names, "too long a path", ("d/" * 2048 + "f", FILE, b""), says="longer than 4096 bytes")
of(names, "the root twice", ("./", DIRECTORY, b""), ("././", DIRECTORY, b""), says="(the root) is listed twice")
of(names, "a file as the root", (".", FILE, b""), says="'.' would replace the root")
of(names, "character device", ("dev", 0o020644, b""), says="'dev' is a device, fifo or socket")
of(names, "block device", ("dev", 0o060644, b""), says="'dev' is a device, fifo or socket")
of(names, "fifo", ("pipe", 0o010644, b""), says="'pipe' is a device, fifo or socket")
of(names, "socket", ("sock", 0o140644, b""), says="'sock' is a device, fifo or socket")
of(names, "setuid", ("su", 0o104755, b""), says="'su' is setuid")
of(names, "a name twice", ("f", FILE, b"one"), ("f", FILE, b"two"), says="'f' is listed as a file, but")
of(names, "a name twice, with a dot", ("f", FILE, b"one"), ("./f", FILE, b"two"), says="'./f' is listed")
of(names, "case", ("A", FILE, b""), ("a", FILE, b""), says="only by case or Unicode form")
of(names, "a file below a file", ("x", FILE, b""), ("x/y", FILE, b""), says="'x/y' lies below 'x'")
names.add(
    "an empty name", "zip", zip_of(("", FILE, b"x")), "archive_hostile", "archive_broken", says="has an empty name"
)
names.add(
    "a name of its own for other readers",
    "zip",
    with_extra(ONE, struct.pack("<HHBL", 0x7075, 5 + 7, 1, zlib.crc32(b"f")) + b"../evil"),
    "opened",
    "archive_broken",
    tree={"f"},
)
names.add("not UTF-8", "zip", zip_of(("x", FILE, b"")).replace(b"x", b"\xff"), "opened", tree={"\udcff"})
names.add(
    "said to be UTF-8",
    "zip",
    changed(zip_of(("x", FILE, b"")).replace(b"x", b"\xff"), CENTRAL, 8, "<H", 0x800),
    "archive_broken",
    says="not a sound zip archive",
)
names.add("a directory with content", "zip", zip_of(("d/", DIRECTORY, b"content")), "opened", tree={"d"})

lies = Family(
    "zip: directory, headers and contents disagree",
    "unzip (CVE-2014-8139, CVE-2014-8141), zipfile (CVE-2025-8291), Go (CVE-2021-33196)",
)
broken(lies, "another name before the content", changed(ONE, LOCAL, 30, "<c", b"g"), "'f' cannot be read")
broken(lies, "no header before the content", changed(ONE, LOCAL, 0, "<4s", b"XXXX"), "'f' cannot be read")
lies.add(
    "encrypted only before the content",
    "zip",
    changed(ONE, LOCAL, 6, "<H", 1),
    "archive_hostile",
    "opened",
    "archive_broken",
    tree={"f"},
)
broken(lies, "a wrong CRC", changed(ONE, CENTRAL, 16, "<L", 0x01020304), "'f' cannot be read (Bad CRC-32")
broken(lies, "more than there is", changed(STORED, CENTRAL, 20, "<LL", 5000, 5000), "'f' cannot be read")
broken(lies, "less than there is", changed(STORED, CENTRAL, 20, "<LL", 100, 100), "'f' cannot be read")
broken(lies, "less when expanded", changed(ONE, CENTRAL, 24, "<L", 10), "'f' cannot be read")
broken(lies, "content that is not deflated", changed(ONE, LOCAL, 31, "<8s", b"\xff" * 8), "'f' cannot be read")
broken(lies, "an offset outside", changed(ONE, CENTRAL, 42, "<L", 0x7FFFFFFF), "'f'")
broken(lies, "an offset into the directory", changed(ONE, CENTRAL, 42, "<L", ONE.index(CENTRAL)), "'f'")
broken(lies, "a directory outside", changed(ONE, EOCD, 16, "<L", 0x7FFFFFFF))
broken(lies, "a directory larger than all", changed(ONE, EOCD, 12, "<L", 0x7FFFFFFF), "not a sound zip archive")
broken(lies, "a directory that is cut", changed(ONE, EOCD, 12, "<L", 20), "not a sound zip archive")
broken(lies, "a name longer than the directory", changed(ONE, CENTRAL, 28, "<H", 0xFFFF), "", "opened")
broken(lies, "a comment longer than the file", changed(ONE, EOCD, 20, "<H", 999), "", "opened")
broken(lies, "extra fields that are cut", with_extra(ONE, struct.pack("<HH", 1, 200)), "not a sound zip archive")
broken(lies, "zip64 sizes that are not there", changed(ONE, CENTRAL, 24, "<L", 0xFFFFFFFF), "", "archive_too_big")
broken(
    lies,
    "zip64 sizes of exabytes",
    with_extra(changed(ONE, CENTRAL, 24, "<L", 0xFFFFFFFF), struct.pack("<HHQ", 1, 8, 1 << 62)),
    "'f'",
    "archive_too_big",
)
broken(
    lies,
    "zip64 offsets of exabytes",
    with_extra(changed(ONE, CENTRAL, 42, "<L", 0xFFFFFFFF), struct.pack("<HHQ", 1, 8, (1 << 64) - 1)),
    "'f'",
)
_ZIP64_END = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 1 << 60, 1 << 61)
broken(
    lies,
    "zip64 directory elsewhere",
    ONE[: ONE.rindex(EOCD)]
    + _ZIP64_END
    + struct.pack("<4sLQL", b"PK\6\7", 0, ONE.rindex(EOCD), 1)
    + ONE[ONE.rindex(EOCD) :],
    "not a sound zip archive",
)
broken(
    lies,
    "zip64 locator that points nowhere",
    ONE[: ONE.rindex(EOCD)] + struct.pack("<4sLQL", b"PK\6\7", 0, 1 << 60, 1) + ONE[ONE.rindex(EOCD) :],
    "",
    "opened",
)
broken(lies, "several volumes", changed(ONE, EOCD, 4, "<HH", 3, 2), "", "opened")
broken(lies, "more entries than there are", changed(ONE, EOCD, 8, "<HH", 0xFFFE, 0xFFFE), "", "opened")
broken(lies, "fewer entries than there are", changed(ONE, EOCD, 8, "<HH", 0, 0), "", "opened")
broken(lies, "no entries", zip_of(), "holds no files")
broken(lies, "no end", ONE[:-10], "not a sound zip archive")
broken(lies, "no directory", ONE[: ONE.index(CENTRAL)], "not a sound zip archive")
broken(lies, "an end alone", EOCD + bytes(17), "not a sound zip archive")
broken(lies, "an empty file", b"", "not a sound zip archive")
broken(lies, "a tar", entry("f") + END, "not a sound zip archive")
lies.add("a program before it", "zip", b"#!/bin/sh\nexit\n" + ONE, "opened", tree={"f"})
lies.add(
    "another archive in its comment",
    "zip",
    zip_of(("outer", FILE, b"x"), comment=zip_of(("../inner", FILE, b"x"))),
    "archive_hostile",
    "archive_broken",
)
lies.add(
    "deleted entries that only a stream sees", "zip", zip_of(("../evil", FILE, b"x"))[:40] + ONE, "opened", tree={"f"}
)

methods = Family(
    "zip: encryption and compression methods", "methods that expand in memory without bound, or need a password"
)
methods.add("encrypted", "zip", changed(ONE, CENTRAL, 8, "<H", 1), "archive_hostile", says="'f' is encrypted")
methods.add(
    "strongly encrypted", "zip", changed(ONE, CENTRAL, 8, "<H", 0x40), "archive_hostile", says="'f' is encrypted"
)
for number, what in (
    (1, "shrunk"),
    (6, "imploded"),
    (9, "deflate64"),
    (12, "bzip2"),
    (14, "lzma"),
    (93, "zstd"),
    (95, "xz"),
    (98, "PPMd"),
    (99, "AES"),
    (0xFFFF, "unknown"),
):
    methods.add(
        what,
        "zip",
        changed(ONE, CENTRAL, 10, "<H", number),
        "archive_hostile",
        says=f"'f' is compressed by method {number}",
    )

FAMILIES = (escape, names, lies, methods)
