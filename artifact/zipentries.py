"""Owns reading a zip archive's entries; leaves judging them to `names` and `tree`.

A zip is read from a whole file, never from a stream: its central directory, at the very end, alone says which entries
exist, under which names and of which types. Local headers may lack sizes, lie, or belong to deleted entries, and two
readers that trust different ones see two different builds.
"""

from __future__ import annotations

import errno
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import IO, Final

from artifact.entries import CHUNK_BYTES, Entry, EntryKind, broken
from artifact.names import MAX_PATH_BYTES, reject

_UNIX: Final = 3
_ENCRYPTED: Final = 0x1
_STRONGLY_ENCRYPTED: Final = 0x40
_UTF8: Final = 0x800
_TIMESTAMPS: Final = 0x5455
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others expand in memory without bound
_TYPES: Final = {
    0: EntryKind.FILE,
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFLNK: EntryKind.SYMLINK,
}
_BROKEN: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    struct.error,
    NotImplementedError,
    ValueError,
    OverflowError,
)
"""What zipfile raises for broken archives; the last two where offsets or encodings are nonsense."""


def zip_entries(spool: IO[bytes]) -> Iterator[Entry]:
    """The entries of the zip archive in `spool`, in the order of its central directory.

    Raises:
        ArtifactRejected: `archive_broken`, encrypted, or an entry of a type that no build may contain.
    """
    try:
        archive = zipfile.ZipFile(spool)
    except (*_BROKEN, OSError) as error:
        raise broken(f"not a sound zip archive ({error}): is it complete, and really a .zip?") from error
    with archive:
        for info in archive.infolist():
            yield _entry(archive, info)


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Entry:
    name = _name(info)
    if info.flag_bits & (_ENCRYPTED | _STRONGLY_ENCRYPTED):
        raise reject(name, "is encrypted, and hosts know no password: pack without encryption")
    if info.compress_type not in _METHODS:
        raise reject(name, f"is compressed by method {info.compress_type}: only stored and deflated are read")
    unix_mode = info.external_attr >> 16 if info.create_system == _UNIX else 0
    kind = _TYPES.get(stat.S_IFMT(unix_mode))
    if kind is None:
        raise reject(name, f"is a device, fifo or socket (mode {unix_mode:06o})")
    if name.endswith("/"):
        kind = EntryKind.DIRECTORY
    mtime_ns = _mtime_s(info) * 1_000_000_000
    if kind is EntryKind.DIRECTORY:
        return Entry(name=name, kind=kind, mode=stat.S_IMODE(unix_mode) if unix_mode else 0o755, mtime_ns=mtime_ns)
    if kind is EntryKind.SYMLINK:
        return Entry(name=name, kind=kind, mode=0o777, mtime_ns=mtime_ns, target=_target(archive, info, name))
    return Entry(
        name=name,
        kind=kind,
        mode=stat.S_IMODE(unix_mode) if unix_mode else 0o644,
        mtime_ns=mtime_ns,
        size=info.file_size,
        content=_content(archive, info, name),
    )


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Iterator[bytes]:
    try:
        with archive.open(info) as member:
            while data := member.read(CHUNK_BYTES):
                yield data
    except _BROKEN as error:
        raise broken(f"entry {name!a} cannot be read ({error})") from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise broken(f"entry {name!a} is said to lie outside of the archive") from error  # a seek to nonsense
    except RuntimeError as error:  # zipfile's word for a local header that claims encryption
        raise reject(name, f"cannot be read ({error})") from error


def _target(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> str:
    if info.file_size > MAX_PATH_BYTES:
        raise reject(name, f"is a symbolic link with a target of {info.file_size} bytes")
    return b"".join(_content(archive, info, name)).decode("utf-8", "surrogateescape")


def _name(info: zipfile.ZipInfo) -> str:
    """The name as its writer meant it.

    Unix programs write the bytes of the file system without setting the UTF-8 flag, which zipfile then shows as code
    page 437: going back to the bytes restores them.
    """
    name = info.orig_filename  # `filename` is cut at a NUL, which must be refused instead
    if info.flag_bits & _UTF8 or info.create_system != _UNIX:
        return name
    return name.encode("cp437").decode("utf-8", "surrogateescape")


def _mtime_s(info: zipfile.ZipInfo) -> int:
    """UTC from the extended timestamp if there is one; else the DOS time, taken for UTC so that all hosts agree."""
    extra = info.extra
    while len(extra) >= 4:  # noqa: PLR2004 - the size of a field's header
        field, size = struct.unpack_from("<HH", extra)
        if field == _TIMESTAMPS and size >= 5 and len(extra) >= 9 and extra[4] & 1:  # noqa: PLR2004 - flags and time
            return int(struct.unpack_from("<i", extra, 5)[0])
        extra = extra[4 + size :]
    try:
        return int(datetime(*info.date_time, tzinfo=UTC).timestamp())
    except ValueError:
        return 0  # month 0 or day 0: the writer knew no time
