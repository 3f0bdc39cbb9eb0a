"""Owns reading a tar stream strictly: ustar, pax and GNU long names. Judging entries is left to `names` and `tree`.

Not `tarfile.open`: it takes a broken header after the first entry for the end of the archive, reads extended headers
of any size into memory and keeps every entry. Single header blocks are still its `TarInfo.frombuf`'s.

Not read, but refused by name: sparse files, devices, fifos, volume labels, multi-volume parts.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from typing import Final, NoReturn

from artifact.entries import CHUNK_BYTES, Entry, EntryKind, Reader, broken
from artifact.names import reject

_BLOCK: Final = tarfile.BLOCKSIZE
_ZEROS: Final = bytes(_BLOCK)
_MAX_EXTENSION_BYTES: Final = 1 << 20
_MTIME_RANGE_S: Final = (-(1 << 31), 1 << 34)  # what ext4 and xfs hold
_NS: Final = 1_000_000_000
_PAX_LENGTH: Final = re.compile(rb"([0-9]{1,9}) ")
_PAX_TIME: Final = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]*))?")
_PAX_SIZE: Final = re.compile(r"[0-9]{1,19}")

_EXTENSIONS: Final = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
_LONG_NAMES: Final = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_FILES: Final = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_REFUSED: Final = {
    tarfile.CHRTYPE: "is a character device",
    tarfile.BLKTYPE: "is a block device",
    tarfile.FIFOTYPE: "is a fifo",
    tarfile.GNUTYPE_SPARSE: "is a sparse file: pack without --sparse",
}


def tar_entries(stream: Reader) -> Iterator[Entry]:
    """The archive's entries, each to be consumed before the next one is asked for.

    After the last one the stream is read to its end, which must be zeros: that also checks what a compression appends.

    Raises:
        ArtifactRejected: `archive_broken`, or an entry of a type that no build may contain.
    """
    return _TarReader(stream).entries()


class _TarReader:
    def __init__(self, stream: Reader) -> None:
        self._stream = stream
        self._unread_bytes = 0
        self._padding_bytes = 0
        self._name = ""
        self._global: dict[str, str] = {}

    def entries(self) -> Iterator[Entry]:
        extended: dict[str, str] = {}
        while True:
            block = self._exactly(_BLOCK, "a header")
            if block == _ZEROS:
                if extended:
                    raise broken("it ends after an extended header that belongs to no entry")
                self._check_end()
                return
            header = _decode_header(block, self._name)
            if header.type in _EXTENSIONS:
                records = _pax_records(self._extension(header))
                if header.type == tarfile.XGLTYPE:
                    self._global.update(records)
                else:
                    extended = records | extended
            elif header.type in _LONG_NAMES:
                text = self._extension(header).split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
                extended["path" if header.type == tarfile.GNUTYPE_LONGNAME else "linkpath"] = text
            else:
                yield self._entry(header, self._global | extended)
                self._skip_rest()
                extended = {}

    def _entry(self, header: tarfile.TarInfo, extended: dict[str, str]) -> Entry:
        name = self._name = extended.get("path", header.name)
        if header.type in _REFUSED:
            raise reject(name, _REFUSED[header.type])
        if any(key.startswith("GNU.sparse.") for key in extended):
            raise reject(name, _REFUSED[tarfile.GNUTYPE_SPARSE])
        mtime_ns = _mtime_ns(extended["mtime"], name) if "mtime" in extended else int(header.mtime) * _NS
        low, high = _MTIME_RANGE_S
        if not low <= mtime_ns // _NS < high:
            raise reject(name, f"has the modification time {mtime_ns // _NS}, which no file system holds")
        size = _size(extended["size"], name) if "size" in extended else header.size
        if size < 0:
            raise reject(name, f"has the negative size {size}", kind="archive_broken")
        mode, target = header.mode & 0o7777, extended.get("linkpath", header.linkname)
        if header.type == tarfile.DIRTYPE or (header.type in _FILES and name.endswith("/")):
            return Entry(name=name, kind=EntryKind.DIRECTORY, mode=mode, mtime_ns=mtime_ns)
        if header.type == tarfile.SYMTYPE:
            # Links show 0777; no bit of their mode means anything on Linux.
            return Entry(name=name, kind=EntryKind.SYMLINK, mode=0o777, mtime_ns=mtime_ns, target=target)
        if header.type == tarfile.LNKTYPE:
            if size:
                raise reject(name, "is a hard link with content of its own, which tar programs read differently")
            return Entry(name=name, kind=EntryKind.HARD_LINK, mode=mode, mtime_ns=mtime_ns, target=target)
        if header.type not in _FILES:
            raise reject(name, f"has the unknown type {header.type!r}")
        self._begin_content(size)
        return Entry(
            name=name, kind=EntryKind.FILE, mode=mode, mtime_ns=mtime_ns, size=size, content=self._content(name)
        )

    def _extension(self, header: tarfile.TarInfo) -> bytes:
        if not 0 <= header.size <= _MAX_EXTENSION_BYTES:
            raise broken(f"an extended header of {header.size} bytes follows {self._name!a}")
        data = self._exactly(header.size, "an extended header")
        self._exactly(-header.size % _BLOCK, "an extended header")
        return data

    def _begin_content(self, size: int) -> None:
        self._unread_bytes, self._padding_bytes = size, -size % _BLOCK

    def _content(self, name: str) -> Iterator[bytes]:
        while self._unread_bytes:
            data = self._stream.read(min(CHUNK_BYTES, self._unread_bytes))
            if not data:
                self._ended(f"the content of {name!a}")
            self._unread_bytes -= len(data)
            yield data

    def _skip_rest(self) -> None:
        for _ in self._content(self._name):
            pass
        self._exactly(self._padding_bytes, "the padding after a file")
        self._padding_bytes = 0

    def _exactly(self, size: int, what: str) -> bytes:
        parts = []
        missing = size
        while missing:
            data = self._stream.read(missing)
            if not data:
                self._ended(what)
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def _ended(self, what: str) -> NoReturn:
        after = f" after {self._name!a}" if self._name else ""
        raise broken(f"it ends early, in {what}{after}: upload it again, and check that packing ended well")

    def _check_end(self) -> None:
        while data := self._stream.read(CHUNK_BYTES):
            if data.strip(b"\0"):
                raise broken(f"other data follows its end after {self._name!a}: are two archives joined?")


def _decode_header(block: bytes, previous: str) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError) as error:
        where = f"after {previous!a}" if previous else "at its start: is it really a tar archive?"
        raise broken(f"no sound tar header {where} ({error})") from error


def _pax_records(data: bytes) -> dict[str, str]:
    """Decode records of `length key=value` and a newline; the length counts itself."""
    records = {}
    at = 0
    while at < len(data):
        match = _PAX_LENGTH.match(data, at)
        end = at + int(match[1]) if match else at
        if match is None or not match.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise broken(f"a malformed record stands in an extended header at byte {at}")
        key, equals, value = data[match.end() : end - 1].partition(b"=")
        if not equals:
            raise broken(f"a record without '=' stands in an extended header at byte {at}")
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        at = end
    return records


def _mtime_ns(text: str, name: str) -> int:
    match = _PAX_TIME.fullmatch(text)
    if match is None:
        raise reject(name, f"has the malformed modification time {text!a}", kind="archive_broken")
    sign, seconds, fraction = match[1], match[2], (match[3] or "")[:9]
    total = int(seconds) * _NS + int(fraction.ljust(9, "0"))
    return -total if sign else total


def _size(text: str, name: str) -> int:
    if _PAX_SIZE.fullmatch(text) is None:
        raise reject(name, f"has the malformed size {text!a}", kind="archive_broken")
    return int(text)
