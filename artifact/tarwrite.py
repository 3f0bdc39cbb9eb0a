"""Owns writing entries of a tree as tar: headers, and content that did not change meanwhile.

Compression and frames are left to `artifact.pack` and `artifact.frames`.
"""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from artifact.diskerrors import disk_error
from artifact.entries import CHUNK_BYTES, EntryKind
from artifact.errors import ConfigError
from artifact.scan import Found

END: Final = bytes(2 * tarfile.BLOCKSIZE)
"""What an archive ends with."""

_FIELD: Final = 100
"""Bytes that a name and a target may have without an extended header."""
_OCTAL_LIMIT: Final = 8**11
_NO_OWNER: Final = "0000000\0" * 2
_END_OF_USTAR: Final = f"{'ustar':\0<6}{'00':\0<249}"
"""Magic and version; no names of user and group, no device, no prefix."""
_TYPES: Final = {
    EntryKind.FILE: tarfile.REGTYPE,
    EntryKind.DIRECTORY: tarfile.DIRTYPE,
    EntryKind.SYMLINK: tarfile.SYMTYPE,
}

_CHECKSUM_AFTER: Final = {
    kind: sum(b" " * 8) + sum(of_type) + sum(_END_OF_USTAR.encode()) for kind, of_type in _TYPES.items()
}
"""What an entry without a target adds to its checksum after the times; the checksum itself counts as blanks."""


def header(entry: Found, mtime_s: int) -> bytes:
    """The entry's header blocks, extended ones included where they are needed.

    Most need none, and are put together here: tarfile gives the same bytes, in ten times the time.
    """
    name = entry.name if entry.kind is not EntryKind.DIRECTORY else entry.name + "/"
    is_plain = name.isascii() and entry.target.isascii() and len(name) <= _FIELD and len(entry.target) <= _FIELD
    if is_plain and 0 <= mtime_s < _OCTAL_LIMIT and entry.size < _OCTAL_LIMIT:
        before = f"{name}{'':\0<{_FIELD - len(name)}}{entry.mode:07o}\0{_NO_OWNER}{entry.size:011o}\0{mtime_s:011o}\0"
        checksum = sum(before.encode()) + _CHECKSUM_AFTER[entry.kind] + sum(entry.target.encode())
        after = f"{checksum:06o}\0 {_TYPES[entry.kind].decode()}{entry.target:\0<100}{_END_OF_USTAR}"
        return (before + after).encode()
    info = tarfile.TarInfo(entry.name)
    info.type = _TYPES[entry.kind]
    info.mode, info.mtime, info.size, info.linkname = entry.mode, mtime_s, entry.size, entry.target
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size: int) -> bytes:
    """What fills the last block of a content of `size` bytes."""
    return bytes(-size % tarfile.BLOCKSIZE)


def unchanged_content(tree: Path, entry: Found, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """The file's bytes, exactly as many as the header says, in chunks.

    Raises:
        ConfigError: kind `tree_changed`: it is not, before and after, the file that was found.
        TransientError: the disk.
    """
    path = f"{tree}/{entry.name}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _changed(path) from error
    except OSError as error:
        if error.errno == errno.ELOOP:  # O_NOFOLLOW's word for a symbolic link
            raise _changed(path) from error
        raise disk_error(error, Path(path), "reading the tree to pack") from error
    try:
        missing = entry.size
        while missing:
            data = os.read(fd, min(chunk_bytes, missing))
            if not data:
                raise _changed(path)
            missing -= len(data)
            yield data
        state = os.fstat(fd)
    except OSError as error:
        raise disk_error(error, Path(path), "reading the tree to pack") from error
    finally:
        os.close(fd)
    if (state.st_ino, state.st_size, state.st_mtime_ns) != (entry.inode, entry.size, entry.mtime_ns):
        raise _changed(path)


def _changed(path: str) -> ConfigError:
    return ConfigError(
        f"{path} changed while the tree was packed: pack a tree that nobody writes to", kind="tree_changed"
    )
