"""Tar archives that want out of their directory, want rights, or mean different things to different readers."""

from __future__ import annotations

import tarfile

from tests.hostile.build import (
    END,
    base256,
    directory,
    entry,
    hard_link,
    long_name,
    padded,
    pax,
    raw_header,
    record,
    summed,
    symlink,
)
from tests.hostile.case import Family

absolute = Family(
    "absolute names", "GNU tar, tarfile (CVE-2007-4559), npm tar (CVE-2021-32804), go-getter (CVE-2022-30321)"
)
absolute.hostile("one slash", entry("/tmp/evil"), says="'/tmp/evil' has the absolute name")
absolute.hostile("two slashes", entry("//tmp/evil"), says="'//tmp/evil' has the absolute name")
absolute.hostile("four slashes", entry("////tmp/evil"), says="'////tmp/evil' has the absolute name")
absolute.hostile("the root of the file system", directory("/"), says="has an empty name")
absolute.hostile("a directory", directory("/tmp/evil"), says="'/tmp/evil' has the absolute name")
absolute.hostile("a link", symlink("/tmp/evil", "x"), says="'/tmp/evil' has the absolute name")
absolute.hostile("climbing from the root", entry("/../evil"), says="'/../evil' has the absolute name")
absolute.hostile("in a pax header", pax({"path": "/tmp/evil"}), entry("fine"), says="'/tmp/evil' has the absolute name")
absolute.hostile("in a GNU long name", long_name(b"/tmp/evil\0"), entry("fine"), says="'/tmp/evil' has the absolute")
absolute.hostile("by the prefix", raw_header(b"evil", prefix=b"/tmp"), says="'/tmp/evil' has the absolute name")
absolute.hostile("an empty prefix", raw_header(b"/evil", prefix=b""), says="'/evil' has the absolute name")
absolute.harmless("of another system", entry("C:\\evil"), entry("C:/evil"), tree={"C:\\evil", "C:", "C:/evil"})

climbing = Family(
    "names that climb", "GNU tar (CVE-2001-1267), Zip Slip (CVE-2018-1002200), go-getter (CVE-2022-30322)"
)
climbing.hostile("at the start", entry("../evil"), says="'../evil' climbs")
climbing.hostile("in the middle", entry("a/../../evil"), says="'a/../../evil' climbs")
climbing.hostile("and back into the tree", entry("a/../b"), says="'a/../b' climbs")
climbing.hostile("at the end", directory("a/.."), says="'a/..' climbs")
climbing.hostile("nothing else", directory(".."), says="'..' climbs")
climbing.hostile("with a slash behind", directory("../"), says="'..' climbs")
climbing.hostile("behind a dot", entry("./../evil"), says="'./../evil' climbs")
climbing.hostile("behind many dots", entry("./././../evil"), says="'./././../evil' climbs")
climbing.hostile("far", entry("../" * 60 + "evil"), says="climbs with '..'")
climbing.hostile("a directory first", directory("a"), entry("a/../../evil"), says="'a/../../evil' climbs")
climbing.hostile("in a pax header", pax({"path": "../evil"}), entry("fine"), says="'../evil' climbs")
climbing.hostile("in a GNU long name", long_name(b"../evil\0"), entry("fine"), says="'../evil' climbs")
climbing.hostile("by the prefix", raw_header(b"evil", prefix=b".."), says="'../evil' climbs")
climbing.hostile("split over prefix and name", raw_header(b"../evil", prefix=b"a"), says="'a/../evil' climbs")
climbing.hostile(
    "by a global pax header", pax({"path": "../evil"}, tarfile.XGLTYPE), entry("fine"), says="'../evil' climbs"
)
climbing.harmless("by backslashes, which are letters here", entry("..\\..\\evil"), tree={"..\\..\\evil"})
climbing.harmless("by three dots and by blanks", entry(".../f"), entry(".. /f"), tree={"...", ".../f", ".. ", ".. /f"})
climbing.harmless(
    "by overlong UTF-8", entry("\udcc0\udcae\udcc0\udcae/f"), tree={"\udcc0\udcae" * 2, "\udcc0\udcae\udcc0\udcae/f"}
)
climbing.harmless("by full-width dots", entry("\uff0e\uff0e/f"), tree={"\uff0e\uff0e", "\uff0e\uff0e/f"})
climbing.harmless("percent-encoded", entry("%2e%2e%2fevil"), tree={"%2e%2e%2fevil"})

names = Family("impossible names", "path limits, NUL bytes and empty components of many readers")
names.hostile("empty component", entry("a//evil"), says="'a//evil' has an empty component")
names.hostile("empty name in a pax header", pax({"path": ""}), entry("fine"), says="has an empty name")
names.hostile("empty name", raw_header(b""), says="has an empty name")
names.hostile("too long a component", entry("x" * 256), says="has a component longer than 255 bytes")
names.hostile("too long a component of two-byte letters", entry("é" * 128), says="has a component longer than 255")
names.hostile("too long a path", pax({"path": "d/" * 2048 + "f"}), entry("fine"), says="longer than 4096 bytes")
names.hostile("NUL in a pax header", pax({"path": "a\0b"}), entry("fine"), says="'a\\x00b' has a NUL")
names.hostile("NUL before a climb", pax({"path": "a\0/../../evil"}), entry("fine"), says="has a NUL")
names.hostile("a file as the root", entry("."), says="'.' would replace the root")
names.hostile("a link as the root", symlink(".", "x"), says="'.' would replace the root")
names.hostile("a hard link as the root", hard_link("./.", "first"), says="'./.' would replace the root")
names.hostile("the root twice", directory("."), directory("./"), says="(the root) is listed twice")
names.harmless("NUL ends a GNU long name", long_name(b"short\0/../../evil"), entry("fine"), tree={"short"})
names.harmless("line breaks and escapes", entry("a\nb"), entry("\x1b[2J"), tree={"a\nb", "\x1b[2J"})
names.harmless(
    "an option", entry("-rf"), entry("--checkpoint-action=exec=sh"), tree={"-rf", "--checkpoint-action=exec=sh"}
)
names.harmless("not UTF-8", entry("\udcff\udcfe"), tree={"\udcff\udcfe"})
names.harmless("right to left", entry("\u202egnp.exe"), tree={"\u202egnp.exe"})
names.harmless("devices of another system", entry("NUL"), entry("aux.txt"), tree={"NUL", "aux.txt"})
names.harmless("the longest", entry("x" * 255), tree={"x" * 255})
names.harmless("dots and slashes that mean nothing", directory("./d/./"), entry("./d/./f"), tree={"d", "d/f"})

links = Family(
    "symbolic links that lead out",
    "npm tar (CVE-2021-32803, CVE-2021-37701), tarfile (CVE-2025-4517, CVE-2025-4330), pip (CVE-2025-8869), "
    "GNU tar (CVE-2025-45582), go-getter (CVE-2025-8959), tar-fs (CVE-2024-12905)",
)
links.hostile("absolute", symlink("l", "/etc"), says="'l' is a symbolic link to the absolute path '/etc'")
links.hostile(
    "to the root of the file system", symlink("l", "/"), says="'l' is a symbolic link to the absolute path '/'"
)
links.hostile("up", symlink("l", "../other"), says="'l' is a symbolic link to '../other', which leads out")
links.hostile("to the directory around", symlink("l", ".."), says="'l' is a symbolic link to '..', which leads out")
links.hostile("up and back", symlink("l", "../new/first"), says="which leads out")
links.hostile("down and further up", symlink("l", "d/../../other"), says="'l' is a symbolic link to 'd/../../other'")
links.hostile("up from a directory", symlink("a/b/l", "../../../other"), says="'a/b/l' is a symbolic link")
links.hostile(
    "through a link that leads up",
    directory("d"),
    symlink("d/up", ".."),
    symlink("l", "d/up/../other"),
    says="'l' is a",
)
links.hostile("through a link that comes later", symlink("l", "z/../other"), symlink("z", "."), says="which leads out")
links.hostile(
    "a chain whose last link leads out",
    symlink("a", "b"),
    symlink("b", "c"),
    symlink("c", "../other"),
    says="leads out",
)
links.hostile(
    "longer than a path may be, once resolved",
    directory("d" * 247),
    *(symlink(f"{'d' * 247}/{chr(97 + number)}", "d" * 247 if number else ".") for number in range(16)),
    symlink("l", "d" * 247 + "/a/../../../other"),
    says="which leads out",
)
links.hostile("with a slash behind", symlink("l", "../other/"), says="which leads out")
links.hostile("with dots and slashes", symlink("l", ".//.//..//other"), says="which leads out")
links.hostile(
    "in a pax header", pax({"linkpath": "../other"}), symlink("l", "fine"), says="'../other', which leads out"
)
links.hostile(
    "in a GNU long link", long_name(b"../other\0", tarfile.GNUTYPE_LONGLINK), symlink("l", "x"), says="leads out"
)
links.hostile(
    "file through a link", symlink("l", "../other"), entry("l/f", content=b"mine"), says="'l/f' lies below 'l'"
)
links.hostile("directory through a link", symlink("l", "../other"), directory("l/d"), says="'l/d' lies below 'l'")
links.hostile("link through a link", symlink("l", "../other"), symlink("l/f", "x"), says="'l/f' lies below 'l'")
links.hostile("hard link through a link", symlink("l", "."), hard_link("l/f", "first"), says="'l/f' lies below 'l'")
links.hostile("file through a link that stays inside", symlink("l", "d"), entry("l/f"), says="'l/f' lies below 'l'")
links.hostile(
    "file through a link that replaces a directory",
    directory("d"),
    symlink("d", "../other"),
    entry("d/f", content=b"mine"),
    says="'d' is listed as a symbolic link",
)
links.hostile(
    "file through a link that replaces an implied directory",
    entry("d/f"),
    symlink("d", "../other"),
    says="'d' is listed",
)
links.hostile("file over a link", symlink("l", "f"), entry("l", content=b"mine"), says="'l' is listed as a file")
links.hostile("directory over a link", symlink("l", ".."), directory("l"), says="'l' is listed as a directory")
links.hostile(
    "link over a link", symlink("l", "first"), symlink("l", "../other"), says="'l' is listed as a symbolic link"
)
links.hostile("with a slash in its name", symlink("l/", "../other"), says="which leads out")
links.harmless("to nothing", symlink("l", "not/there"), tree={"l"})
links.harmless("up within the tree", entry("f"), symlink("a/l", "../f"), tree={"f", "a", "a/l"})
links.harmless("to itself as a directory", symlink("d/l", "."), tree={"d", "d/l"})
links.harmless("with backslashes", symlink("l", "..\\..\\other"), tree={"l"})

circles = Family("links in circles and nonsense targets", "ELOOP, empty and overlong targets")
circles.hostile("of one", symlink("l", "l"), says="'l' is a symbolic link to 'l', which runs in circles")
circles.hostile("of two", symlink("a", "b"), symlink("b", "a"), says="which runs in circles")
circles.hostile("by a directory", symlink("l", "l/x"), says="which runs in circles")
circles.hostile(
    "a chain of more than forty", *(symlink(f"l{number}", f"l{number + 1}") for number in range(45)), says="in circles"
)
circles.hostile("empty target", symlink("l", ""), says="'l' is a symbolic link with the impossible target ''")
circles.hostile("empty in a pax header", pax({"linkpath": ""}), symlink("l", "x"), says="the impossible target ''")
circles.hostile(
    "NUL in the target", pax({"linkpath": "a\0b"}), symlink("l", "x"), says="the impossible target 'a\\x00b'"
)
circles.hostile(
    "too long a target", pax({"linkpath": "a/" * 2048}), symlink("l", "x"), says="target is longer than 4095"
)
circles.hostile(
    "too long a component", pax({"linkpath": "a" * 256}), symlink("l", "x"), says="component longer than 255"
)

hard_links = Family(
    "hard links", "libarchive (CVE-2016-5418), tar-fs (CVE-2025-48387), tarfile (CVE-2025-4138), npm tar"
)
hard_links.hostile("up", hard_link("h", "../other/f"), says="'h' climbs with '..' in its hard link target")
hard_links.hostile(
    "absolute", hard_link("h", "/etc/passwd"), says="'h' has the absolute hard link target '/etc/passwd'"
)
hard_links.hostile("empty", hard_link("h", ""), says="'h' has an empty hard link target")
hard_links.hostile("to a symbolic link", symlink("l", "first"), hard_link("h", "l"), says="'h' is a hard link to 'l'")
hard_links.hostile(
    "through a symbolic link", symlink("l", "."), hard_link("h", "l/first"), says="a hard link to 'l/first'"
)
hard_links.hostile("to a directory", directory("d"), hard_link("h", "d"), says="'h' is a hard link to 'd'")
hard_links.hostile("to the root", hard_link("h", "."), says="'h' is a hard link to '.'")
hard_links.hostile("to a later file", hard_link("h", "f"), entry("f"), says="'h' is a hard link to 'f'")
hard_links.hostile("to itself", hard_link("h", "h"), says="'h' is a hard link to 'h'")
hard_links.hostile("to nothing", hard_link("h", "nothing"), says="'h' is a hard link to 'nothing'")
hard_links.hostile("over its target", hard_link("first", "first"), says="'first' is listed as a file")
hard_links.hostile(
    "with content",
    raw_header(b"h", tarfile.LNKTYPE, 512, link=b"first"),
    bytes(512),
    says="'h' is a hard link with content",
)
hard_links.hostile(
    "with content by a pax header", pax({"size": "512"}), hard_link("h", "first"), bytes(512), says="with content"
)
hard_links.hostile("and then a file over it", hard_link("h", "first"), entry("h", content=b"x"), says="'h' is listed")
hard_links.harmless("of a link of a link", entry("a"), hard_link("b", "a"), hard_link("c", "b"), tree={"a", "b", "c"})

special = Family(
    "devices and other special files", "device nodes, sparse files (GNU tar CVE-2018-20482, CVE-2019-9923)"
)
special.hostile("character device", entry("dev", tarfile.CHRTYPE), says="'dev' is a character device")
special.hostile("block device", entry("dev", tarfile.BLKTYPE), says="'dev' is a block device")
special.hostile("fifo", entry("pipe", tarfile.FIFOTYPE), says="'pipe' is a fifo")
special.hostile("sparse file", raw_header(b"s", tarfile.GNUTYPE_SPARSE), says="'s' is a sparse file")
special.hostile("sparse file, pax 0.0", pax({"GNU.sparse.size": "99"}), entry("s"), says="'s' is a sparse file")
special.hostile("sparse file, pax 0.1", pax({"GNU.sparse.map": "0,1"}), entry("s"), says="'s' is a sparse file")
special.hostile(
    "sparse file, pax 1.0",
    pax({"GNU.sparse.major": "1", "GNU.sparse.name": "s"}),
    entry("x"),
    says="'x' is a sparse file",
)
special.hostile(
    "sparse for all", pax({"GNU.sparse.size": "99"}, tarfile.XGLTYPE), entry("s"), says="'s' is a sparse file"
)
for kind, what in (
    (b"V", "volume label"),
    (b"M", "part of another volume"),
    (b"D", "GNU dump directory"),
    (b"A", "ACL"),
):
    special.hostile(what, raw_header(b"u", kind), says=f"'u' has the unknown type {kind!r}")
special.hostile("unknown type", raw_header(b"u", b"Z"), says="'u' has the unknown type b'Z'")
special.hostile("type of a control character", raw_header(b"u", b"\1"), says="'u' has the unknown type b'\\x01'")
special.hostile("type of a high byte", raw_header(b"u", b"\xff"), says="'u' has the unknown type b'\\xff'")
special.harmless("contiguous file, which is a file", entry("c", tarfile.CONTTYPE, b"x"), tree={"c"})

rights = Family("rights", "setuid programs, sticky and world-writable bits")
rights.hostile("setuid", entry("su", mode=0o4755), says="'su' is setuid or setgid (mode 4755)")
rights.hostile("setgid", entry("sg", mode=0o2755), says="'sg' is setuid or setgid (mode 2755)")
rights.hostile("setgid directory", entry("d", tarfile.DIRTYPE, mode=0o2755), says="'d' is setuid or setgid")
rights.hostile("both", entry("su", mode=0o6777), says="'su' is setuid or setgid (mode 6777)")
rights.hostile("in base 256", raw_header(b"su", mode=base256(0o4755, 8)), says="'su' is setuid or setgid")
rights.harmless("sticky", entry("d", tarfile.DIRTYPE, mode=0o1777), tree={"d"})
rights.harmless("none at all", entry("f", mode=0), tree={"f"})
rights.harmless("owned by others", raw_header(b"f", uid=b"7777777\0", gid=base256(2**31 - 2, 8)), tree={"f"})

twice = Family("two entries for one place", "who extracts first or last sees another build")
twice.hostile("a file", entry("f"), entry("f"), says="'f' is listed as a file, but the archive already has a file")
twice.hostile("a file, with a dot", entry("f"), entry("./f"), says="'./f' is listed")
twice.hostile("a directory", directory("d"), directory("./d"), says="'./d' is listed")
twice.hostile("a directory over a file", entry("x"), directory("x"), says="'x' is listed as a directory")
twice.hostile("a file over a directory", directory("x"), entry("x"), says="'x' is listed as a file")
twice.hostile("a file over an implied directory", entry("x/y"), entry("x"), says="'x' is listed as a file")
twice.hostile("a file below a file", entry("x"), entry("x/y"), says="'x/y' lies below 'x', which is a file")
twice.hostile("a file below a hard link", hard_link("x", "first"), entry("x/y"), says="'x/y' lies below 'x'")

case = Family(
    "names that differ by case or form alone",
    "git (CVE-2021-21300), npm tar (CVE-2021-37712): ext4 and others may fold",
)
case.hostile(
    "case", entry("Makefile"), entry("makefile"), says="'makefile', which differs from 'Makefile' only by case"
)
case.hostile("case of a directory", entry("Src/a"), entry("src/b"), says="which differs from 'Src' only by case")
case.hostile("a link and a directory", symlink("D", "x"), entry("d/f"), says="only by case or Unicode form")
case.hostile("composed and decomposed", entry("\u00e9"), entry("e\u0301"), says="only by case or Unicode form")
case.hostile("sharp s", entry("stra\u00dfe"), entry("STRASSE"), says="only by case or Unicode form")
case.hostile("Kelvin sign", entry("\u212a"), entry("k"), says="only by case or Unicode form")
case.hostile("Greek final sigma", entry("\u03c3"), entry("\u03c2"), says="only by case or Unicode form")
case.hostile("long s", entry("\u017f"), entry("S"), says="only by case or Unicode form")
case.harmless("letters that only look alike", entry("a"), entry("\u0430"), tree={"a", "\u0430"})

numbers = Family(
    "numbers in headers", "GNU tar (CVE-2022-48303), tarfile (CVE-2025-8194), 32- and 64-bit overflows of many readers"
)
numbers.broken("negative size", entry("f"), raw_header(b"n", size=base256(-512)), says="'n' has the negative size -512")
numbers.broken("negative pax size", pax({"size": "-1"}), entry("n"), says="'n' has the malformed size '-1'")
numbers.broken("pax size in hex", pax({"size": "0x10"}), entry("n"), says="'n' has the malformed size '0x10'")
numbers.broken("pax size without digits", pax({"size": ""}), entry("n"), says="'n' has the malformed size ''")
numbers.broken("pax size of other digits", pax({"size": "\u0661"}), entry("n"), says="'n' has the malformed size")
numbers.broken("pax size with a blank", pax({"size": " 1"}), entry("n"), says="'n' has the malformed size ' 1'")
numbers.broken("pax size of many digits", pax({"size": "9" * 400}), entry("n"), says="'n' has the malformed size")
numbers.broken("size that is no number", raw_header(b"n", size=b"zzzzzzzzzzz\0"), says="no sound tar header")
numbers.broken("mode that is no number", raw_header(b"n", mode=b"rwxrwxr\0"), says="no sound tar header")
numbers.broken(
    "pax time that is no number", pax({"mtime": "nan"}), entry("n"), says="'n' has the malformed modification time"
)
numbers.broken(
    "pax time without end", pax({"mtime": "inf"}), entry("n"), says="'n' has the malformed modification time"
)
numbers.broken(
    "pax time with an exponent", pax({"mtime": "1e9999"}), entry("n"), says="'n' has the malformed modification"
)
numbers.hostile(
    "time after the end of days", pax({"mtime": "99999999999"}), entry("n"), says="which no file system holds"
)
numbers.hostile("time before all files", pax({"mtime": "-99999999999"}), entry("n"), says="which no file system holds")
numbers.hostile("time in base 256", raw_header(b"n", mtime=base256(1 << 80)), says="which no file system holds")
numbers.harmless("time before the epoch", pax({"mtime": "-1.5"}), entry("n"), tree={"n"})
numbers.harmless("time with many digits", pax({"mtime": "1." + "3" * 300}), entry("n"), tree={"n"})
numbers.harmless("owner in base 256", raw_header(b"n", uid=base256(-2, 8)), tree={"n"})

desync = Family(
    "two sizes for one entry", "tar-rs and its family (CVE-2025-62518): content of one reader is entries of another"
)
_smuggled = entry("smuggled", content=b"evil")
desync.harmless(
    "pax says more", pax({"size": str(len(_smuggled))}), raw_header(b"f", size=0), padded(_smuggled), tree={"f"}
)
desync.harmless(
    "pax says nothing, the header says something",
    pax({"size": "0"}),
    raw_header(b"f", size=1024),
    entry("g"),
    tree={"f", "g"},
)
desync.harmless(
    "pax says it twice, the last one counts",
    pax(record("size", "0") + record("size", str(len(_smuggled)))),
    raw_header(b"f"),
    padded(_smuggled),
    tree={"f"},
)
desync.harmless(
    "pax of all entries says nothing",
    pax({"size": "0"}, tarfile.XGLTYPE),
    raw_header(b"f", size=512),
    entry("g"),
    tree={"f", "g"},
)
desync.harmless("a directory with a size", raw_header(b"d/", tarfile.DIRTYPE, 512), entry("d/f"), tree={"d", "d/f"})
desync.harmless("a link with a size", raw_header(b"l", tarfile.SYMTYPE, 512, link=b"g"), entry("g"), tree={"l", "g"})
desync.harmless("a file with a slash", raw_header(b"d/", size=512), entry("d/f"), tree={"d", "d/f"})

extended = Family(
    "extended headers",
    "tarfile (CVE-2019-20907, CVE-2024-6232), Go (CVE-2022-2879), GNU tar (CVE-2023-39804)",
)
extended.broken("a record of length nought", pax(b"0 path=a\n"), entry("f"), END, says="a malformed record")
extended.broken("a record of length one", pax(b"1 \n"), entry("f"), END, says="a malformed record")
extended.broken(
    "a record that is longer than its header", pax(b"99 path=a\n"), entry("f"), END, says="a malformed record"
)
extended.broken(
    "a record of a gigantic length", pax(b"9" * 300 + b" path=a\n"), entry("f"), END, says="a malformed record"
)
extended.broken("a record of a negative length", pax(b"-9 path=a\n"), entry("f"), END, says="a malformed record")
extended.broken("a record without its line break", pax(b"10 path=abX"), entry("f"), END, says="a malformed record")
extended.broken("a record without =", pax(b"8 patha\n"), entry("f"), END, says="a record without '='")
extended.broken("a record without length", pax(b"path=a\n"), entry("f"), END, says="a malformed record")
extended.broken("a length in hex", pax(b"0xa path=a\n"), entry("f"), END, says="a malformed record")
extended.broken(
    "a second record that is broken", pax(record("path", "a") + b"7 x=\n"), entry("f"), END, says="at byte 9"
)
extended.broken("cut", pax({"path": "a"})[:700], says="it ends early, in an extended header")
extended.broken("of a gigabyte", pax(b"", size=1 << 30), says="an extended header of 1073741824 bytes")
extended.broken(
    "of a negative size", raw_header(b"x", tarfile.XHDTYPE, size=base256(-512)), says="an extended header of -512"
)
extended.broken("for all, of a gigabyte", pax(b"", tarfile.XGLTYPE, size=1 << 30), says="header of 1073741824 bytes")
extended.broken("GNU name of a gigabyte", raw_header(b"L", b"L", 1 << 30), says="of 1073741824 bytes")
extended.broken("GNU link of a gigabyte", raw_header(b"K", b"K", 1 << 30), says="of 1073741824 bytes")
extended.broken("at the end", entry("f"), pax({"path": "a"}), END, says="belongs to no entry")
extended.broken("GNU name at the end", entry("f"), long_name(b"a\0"), END, says="belongs to no entry")
extended.hostile("GNU name that is empty", long_name(b"\0"), entry("f"), says="has an empty name")
extended.harmless("empty", pax(b""), entry("f"), tree={"f"})
extended.harmless("one behind the other", pax({"path": "a"}), pax({"mtime": "1"}), entry("f"), tree={"a"})
extended.harmless(
    "for all, behind one for the next", pax({"path": "a"}), pax({"comment": "c"}, b"g"), entry("f"), tree={"a"}
)
extended.harmless("of ten thousand keys", pax({f"k{number}": "v" for number in range(10_000)}), entry("f"), tree={"f"})
extended.harmless(
    "with bytes that are no text", pax(b"12 path=\xff\xfe\xfd\n"), entry("f"), tree={"\udcff\udcfe\udcfd"}
)
extended.harmless("that says binary", pax({"hdrcharset": "BINARY", "path": "a"}), entry("f"), tree={"a"})
extended.harmless("with attributes of security", pax({"SCHILY.xattr.security.capability": "x"}), entry("f"), tree={"f"})

structure = Family("broken structure", "readers that take a broken header for the end see half a build")
structure.broken("empty file", says="ends early, in a header")
structure.broken("half a header", entry("f")[:300], says="ends early, in a header")
structure.broken("no end", entry("f"), says="ends early, in a header after 'f'")
structure.broken("no entries", END, says="holds no files")
structure.broken("only a root", directory("./"), END, says="holds no files")
structure.broken("garbage", b"garbage! " * 200, says="no sound tar header at its start")
structure.broken(
    "garbage behind a first entry", entry("f"), b"garbage!" * 64, END, says="no sound tar header after 'f'"
)
structure.broken(
    "a wrong checksum", entry("f"), entry("g")[:9] + b"!" + entry("g")[10:], END, says="no sound tar header after 'f'"
)
structure.broken(
    "an empty checksum", entry("f"), raw_header(b"g")[:148] + bytes(8) + raw_header(b"g")[156:], END, says="after 'f'"
)
structure.broken("two archives joined", entry("f"), END, entry("g"), END, says="other data follows its end after 'f'")
structure.broken("data behind the end", entry("f"), END, b"x", says="other data follows its end")
structure.broken("one byte far behind the end", entry("f"), END, bytes(9000), b"x", says="other data follows its end")
structure.broken("content that is missing", raw_header(b"f", size=4096), bytes(1024), says="in the content of 'f'")
structure.broken("padding that is missing", raw_header(b"f", size=5), b"12345", says="in the padding after a file")
structure.broken("a header of blanks", entry("f"), b" " * 512, END, says="no sound tar header after 'f'")
structure.harmless("one block of zeros as the end", entry("f"), tree={"f"})
structure.harmless(
    "of before POSIX", entry("f"), summed(raw_header(b"g", magic=b"")[:257] + bytes(255)), tree={"f", "g"}
)
structure.harmless(
    "padding that is no zeros", raw_header(b"f", size=5), b"12345", b"?" * 507, entry("g"), tree={"f", "g"}
)

FAMILIES = (
    absolute,
    climbing,
    names,
    links,
    circles,
    hard_links,
    special,
    rights,
    twice,
    case,
    numbers,
    desync,
    extended,
    structure,
)
