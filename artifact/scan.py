"""Owns what of a directory goes into an artifact, in which order; refuses what no host would open.

Writing it down is left to `artifact.pack`. The rules for names are the hosts' own, `artifact.names`, so that a build
fails where it is made and not where it is deployed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from artifact.diskerrors import disk_error
from artifact.entries import EntryKind
from artifact.errors import ConfigError
from artifact.names import NameTable, reject

_SET_ID_BITS: Final = 0o6000
_REFUSED: Final = (
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISFIFO, "is a fifo"),
    (stat.S_ISCHR, "is a character device"),
    (stat.S_ISBLK, "is a block device"),
)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the tree as it was found.

    Attributes:
        name: below the tree, with `/`.
        mode: permission bits.
        mtime_ns, inode: to notice a change while packing.
        size: in bytes; 0 unless a file.
        target: of a symbolic link, else empty.
    """

    name: str
    kind: EntryKind
    mode: int
    mtime_ns: int
    inode: int
    size: int = 0
    target: str = ""


def scan(tree: Path) -> list[Found]:
    """Everything below `tree`, directories before what they hold, sorted by the bytes of the names.

    Hard links are found as files of their own.

    Raises:
        ArtifactRejected: an entry that a host would refuse, or nothing at all; names it.
        ConfigError: `tree` is no directory, or something in it cannot be read.
        TransientError: `disk_error`.
    """
    if not tree.is_dir():
        raise ConfigError(f"{tree} cannot be packed: it is no directory", kind="no_tree")
    names = NameTable()
    found = []
    try:
        for entry in _walk(tree):
            match entry.kind:
                case EntryKind.DIRECTORY:
                    names.add_directory(entry.name)
                case EntryKind.SYMLINK:
                    names.add_symlink(entry.name, entry.target)
                case _:
                    names.add_file(entry.name)
            found.append(entry)
    except OSError as error:
        where = tree if error.filename is None else Path(os.fsdecode(error.filename))
        raise disk_error(error, where, "reading the tree to pack") from error
    names.check_links()
    if not found:
        raise reject(".", f"is all there is in {tree}: an empty build would serve nothing", kind="tree_empty")
    return found


def _walk(tree: Path) -> Iterator[Found]:
    """Depth first, without recursion: a tree may be deeper than Python's stack."""
    ahead = _listing(tree, "")
    while ahead:
        found = ahead.pop()
        yield found
        if found.kind is EntryKind.DIRECTORY:
            ahead += _listing(tree / found.name, f"{found.name}/")


def _listing(directory: Path, prefix: str) -> list[Found]:
    with os.scandir(directory) as listing:
        entries = sorted(listing, key=lambda entry: os.fsencode(entry.name), reverse=True)
    return [_look_at(entry, prefix + entry.name) for entry in entries]


def _look_at(entry: os.DirEntry[str], name: str) -> Found:
    state = entry.stat(follow_symlinks=False)
    for is_refused, problem in _REFUSED:
        if is_refused(state.st_mode):
            raise reject(name, f"{problem}: remove it from the tree")
    if not stat.S_ISLNK(state.st_mode) and state.st_mode & _SET_ID_BITS:
        raise reject(
            name,
            f"is setuid or setgid (mode {stat.S_IMODE(state.st_mode):04o}): a build gives nobody another's rights; "
            "chmod ug-s",
        )
    kind, size, target = EntryKind.FILE, state.st_size, ""
    if stat.S_ISDIR(state.st_mode):
        kind, size = EntryKind.DIRECTORY, 0
    elif stat.S_ISLNK(state.st_mode):
        kind, size, target = EntryKind.SYMLINK, 0, os.readlink(entry.path)  # noqa: PTH115 - surrogates must survive
    return Found(
        name=name,
        kind=kind,
        mode=0o777 if kind is EntryKind.SYMLINK else state.st_mode & 0o777,
        mtime_ns=state.st_mtime_ns,
        inode=state.st_ino,
        size=size,
        target=target,
    )
