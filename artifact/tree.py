"""Owns creating an archive's entries below one directory; leaves judging names to `names`, reading to the formats.

Nothing outside the directory is touched even if a name slipped past `NameTable`: every step down is `openat` of one
component with `O_NOFOLLOW`, every file is created with `O_EXCL`, and symbolic links appear only after all files.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from artifact.diskerrors import disk_error
from artifact.entries import CHUNK_BYTES, Entry, EntryKind, Reader
from artifact.limits import Limits, Meter
from artifact.names import NameTable, Parts, reject

_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WORKING_MODE: Final = 0o700
_IMPLIED_MODE: Final = 0o755
_SET_ID_BITS: Final = 0o6000
_PERMISSIONS: Final = 0o777


class TreeWriter:
    """Creates entries below `root`, an existing empty directory; a context manager that owns its descriptors.

    Modes are the archive's `& 0o777` whatever the umask, owners are the running user's. The root's own mode is left
    as it is: a build packed from a private temporary directory must not become unreadable to workers.

    Raises (every method):
        ArtifactRejected: the entry must not be created; names it.
        TransientError: `disk_full`, `disk_error`.
        ConfigError: `disk_not_writable`.
    """

    def __init__(self, root: Path, limits: Limits, meter: Meter, on_entry: Callable[[int], None]) -> None:
        self._root = root
        self._meter = meter
        self._on_entry = on_entry
        self._names = NameTable(allow_case_collisions=limits.allow_case_collisions)
        self._symlinks: list[tuple[Parts, str, int]] = []
        self._directories: dict[Parts, tuple[int, int | None]] = {}
        self._entry_count = 0
        self._parent_fd = -1
        self._parent: Parts = ()

    def __enter__(self) -> Self:
        try:
            self._parent_fd = os.open(self._root, _DIRECTORY_FLAGS)
        except OSError as error:
            raise disk_error(error, self._root, "opening the directory to fill") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._parent_fd)

    def add(self, entry: Entry) -> None:
        """Create one entry; links and the final state of directories wait for `finish`."""
        self._meter.entry = entry.name
        if entry.mode & _SET_ID_BITS:
            raise reject(
                entry.name,
                f"is setuid or setgid (mode {entry.mode:04o}): a build gives nobody another's rights; chmod ug-s",
            )
        try:
            self._create(entry)
        except OSError as error:
            raise disk_error(error, self._root, f"creating {entry.name!a}", needed_bytes=entry.size) from error
        self._meter.check_count(len(self._names))
        self._entry_count += 1
        self._on_entry(self._entry_count)

    def finish(self) -> None:
        """Create symbolic links, then give directories their modes and times, each after all that it holds."""
        if not len(self._names):
            raise reject(".", "is all there is: the archive holds no files", kind="archive_broken")
        self._names.check_links()
        try:
            for parts, target, mtime_ns in self._symlinks:
                parent_fd = self._enter(parts[:-1])
                os.symlink(target, parts[-1], dir_fd=parent_fd)
                os.utime(parts[-1], ns=(mtime_ns, mtime_ns), dir_fd=parent_fd, follow_symlinks=False)
            for parts in sorted(self._directories, reverse=True):
                self._complete(parts, *self._directories[parts])
        except OSError as error:
            raise disk_error(error, self._root, "creating links and setting modes") from error

    def _create(self, entry: Entry) -> None:
        match entry.kind:
            case EntryKind.DIRECTORY:
                parts = self._names.add_directory(entry.name)
                if parts:
                    self._enter(parts)
                    self._directories[parts] = (entry.mode & _PERMISSIONS, entry.mtime_ns)
            case EntryKind.FILE:
                self._create_file(self._names.add_file(entry.name), entry)
            case EntryKind.SYMLINK:
                parts = self._names.add_symlink(entry.name, entry.target)
                self._symlinks.append((parts, entry.target, entry.mtime_ns))
            case EntryKind.HARD_LINK:
                parts, target = self._names.add_hard_link(entry.name, entry.target)
                self._create_hard_link(parts, target, entry)

    def _create_file(self, parts: Parts, entry: Entry) -> None:
        self._meter.expect(entry.size)
        fd = os.open(parts[-1], _FILE_FLAGS, _WORKING_MODE, dir_fd=self._enter(parts[:-1]))
        with closing(os.fdopen(fd, "wb", buffering=0)) as file:
            for chunk in entry.content:
                rest = memoryview(chunk)
                while rest:
                    rest = rest[file.write(rest) :]
            os.fchmod(fd, entry.mode & _PERMISSIONS)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def _create_hard_link(self, parts: Parts, target: Parts, entry: Entry) -> None:
        target_fd = os.dup(self._enter(target[:-1]))
        try:
            os.link(
                target[-1],
                parts[-1],
                src_dir_fd=target_fd,
                dst_dir_fd=self._enter(parts[:-1]),
                follow_symlinks=False,
            )
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # Landlock before version 2 forbids every link from one directory to another.
            self._copy(target_fd, target[-1], parts, entry)
        finally:
            os.close(target_fd)

    def _copy(self, source_dir_fd: int, source_name: str, parts: Parts, entry: Entry) -> None:
        """Create a file like one that is there; like a link it is counted as an entry, unlike one for its bytes too."""
        source_fd = os.open(source_name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source_dir_fd)
        with closing(os.fdopen(source_fd, "rb", buffering=0)) as source:
            state = os.fstat(source_fd)
            self._create_file(
                parts,
                Entry(
                    name=entry.name,
                    kind=EntryKind.FILE,
                    mode=state.st_mode & _PERMISSIONS,
                    mtime_ns=state.st_mtime_ns,
                    size=state.st_size,
                    content=self._counted(source),
                ),
            )

    def _counted(self, source: Reader) -> Iterator[bytes]:
        while chunk := source.read(CHUNK_BYTES):
            self._meter.expanded(len(chunk))
            yield chunk

    def _enter(self, parts: Parts) -> int:
        """A descriptor of the directory, created where needed; valid until the next call.

        One descriptor moves through the tree, so that depth costs no descriptors, and an archive in the order of its
        directories costs one step for each. `..` is safe here: nobody else may move the directories of a tree that
        is not finished, and the way up never passes the root.
        """
        shared = _shared_count(self._parent, parts)
        for _ in range(len(self._parent) - shared):
            self._step("..")
        for depth in range(shared, len(parts)):
            if parts[: depth + 1] not in self._directories:
                os.mkdir(parts[depth], _WORKING_MODE, dir_fd=self._parent_fd)
                self._directories[parts[: depth + 1]] = (_IMPLIED_MODE, None)
            self._step(parts[depth])
        self._parent = parts
        return self._parent_fd

    def _step(self, component: str) -> None:
        fd = os.open(component, _DIRECTORY_FLAGS, dir_fd=self._parent_fd)
        os.close(self._parent_fd)
        self._parent_fd = fd

    def _complete(self, parts: Parts, mode: int, mtime_ns: int | None) -> None:
        fd = os.open(parts[-1], _DIRECTORY_FLAGS, dir_fd=self._enter(parts[:-1]))
        try:
            os.fchmod(fd, mode)
            if mtime_ns is not None:
                os.utime(fd, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(fd)


def _shared_count(some: Parts, others: Parts) -> int:
    """How many leading components two paths share."""
    for count, (one, other) in enumerate(zip(some, others, strict=False)):
        if one != other:
            return count
    return min(len(some), len(others))
