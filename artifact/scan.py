"""Owns what of a directory goes into an artifact, in which order; refuses what no host would open.

Writing it down is left to `artifact.pack`. The rules for names are the hosts' own, `artifact.names`, so that a build
fails where it is made and not where it is deployed.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Final, Self

import msgspec

from artifact.diskerrors import disk_error
from artifact.entries import EntryKind
from artifact.errors import ConfigError
from artifact.names import check_collisions, check_length, check_link, check_targets, reject

_SET_ID_BITS: Final = 0o6000
_REFUSED: Final = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a fifo",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
_TOLD_TOGETHER: Final = 64
"""Entries that are handed on at once: less is slower, more makes others wait for their first."""


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


class Scan:
    """Everything below a tree, directories before what they hold, sorted by the bytes of the names.

    A thread of its own looks; who iterates gets what it has found, while it goes on. To be used as a context manager
    around one iteration. Hard links are found as files of their own.

    Iterating raises, at the latest when it ends:
        ArtifactRejected: an entry that a host would refuse, or nothing at all; names it.
        ConfigError: `tree` is no directory, or something in it cannot be read.
        TransientError: `disk_error`.

    Attributes:
        files: how many entries were found so far; all, when the iteration has ended.
        content_bytes: of files so far.
    """

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._found: SimpleQueue[list[Found] | None] = SimpleQueue()
        self._is_stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._look, name="scan", daemon=True)
        self.files = 0
        self.content_bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopped = True
        self._thread.join()

    def __iter__(self) -> Iterator[Found]:
        while (found := self._found.get()) is not None:
            yield from found
        if self._error is not None:
            raise self._error

    def _look(self) -> None:
        try:
            for found in _walk(self._tree):
                self.files += len(found)
                self.content_bytes += sum(entry.size for entry in found)
                self._found.put(found)
                if self._is_stopped:
                    break
        except BaseException as error:  # noqa: BLE001 - whoever iterates raises it
            self._error = error
        finally:
            self._found.put(None)


def scan(tree: Path) -> list[Found]:
    """Everything below `tree` at once; raises as `Scan` does."""
    with Scan(tree) as found:
        return list(found)


def _walk(tree: Path) -> Iterator[list[Found]]:
    """Depth first, without recursion: a tree may be deeper than Python's stack."""
    if not tree.is_dir():
        raise ConfigError(f"{tree} cannot be packed: it is no directory", kind="no_tree")
    links: dict[str, str] = {}
    part: list[Found] = []
    try:
        ahead = _listing(os.fspath(tree), "")
        if not ahead:
            raise reject(".", f"is all there is in {tree}: an empty build would serve nothing", kind="tree_empty")
        while ahead:
            found = ahead.pop()
            part.append(found)
            if found.kind is EntryKind.DIRECTORY:
                ahead += _listing(f"{tree}/{found.name}", f"{found.name}/")
            elif found.kind is EntryKind.SYMLINK:
                check_link(found.name, found.target)
                links[found.name] = found.target
            if len(part) >= _TOLD_TOGETHER:
                yield part
                part = []
    except OSError as error:
        where = tree if error.filename is None else Path(os.fsdecode(error.filename))
        raise disk_error(error, where, "reading the tree to pack") from error
    check_targets(links)
    yield part


def _listing(directory: str, prefix: str) -> list[Found]:
    with os.scandir(directory) as listing:
        entries = sorted(listing, key=lambda entry: os.fsencode(entry.name), reverse=True)
    found = [_look_at(entry, prefix + entry.name) for entry in entries]
    check_collisions(entry.name for entry in found)
    return found


def _look_at(entry: os.DirEntry[str], name: str) -> Found:
    check_length(name)
    state = entry.stat(follow_symlinks=False)
    kind, size, target = EntryKind.FILE, state.st_size, ""
    match stat.S_IFMT(state.st_mode):
        case stat.S_IFREG:
            pass
        case stat.S_IFDIR:
            kind, size = EntryKind.DIRECTORY, 0
        case stat.S_IFLNK:
            kind, size, target = EntryKind.SYMLINK, 0, os.readlink(entry.path)  # noqa: PTH115 - surrogates must survive
        case other:
            raise reject(name, f"is {_REFUSED[other]}: remove it from the tree")
    if kind is not EntryKind.SYMLINK and state.st_mode & _SET_ID_BITS:
        raise reject(
            name,
            f"is setuid or setgid (mode {stat.S_IMODE(state.st_mode):04o}): a build gives nobody another's rights; "
            "chmod ug-s",
        )
    return Found(
        name=name,
        kind=kind,
        mode=0o777 if kind is EntryKind.SYMLINK else state.st_mode & 0o777,
        mtime_ns=state.st_mtime_ns,
        inode=state.st_ino,
        size=size,
        target=target,
    )
