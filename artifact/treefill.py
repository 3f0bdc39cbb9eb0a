"""Owns changing one tree entry by entry: new inodes only, every step down an `openat` that follows no link.

What is to be changed is left to `artifact.plan`, where contents come from to `artifact.contents`. Every method may be
called from several threads, for different paths.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from artifact.directories import DIRECTORY, WORKING_MODE, Directories
from artifact.errors import HotcoldError
from artifact.index import Row
from artifact.newfile import ContentDiffers, NewFile, chunks_of_source, digest_of_chunks, not_as_said, read_chunks
from artifact.table import Stat, stat_of

_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NS: Final = 1_000_000_000
_WORTH_SHARING_BYTES: Final = 64 << 10
_CANNOT_LINK: Final = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOENT, errno.EOPNOTSUPP})
"""Another file system, too many names, a file of somebody else, no /proc, no links at all."""


class Tree:
    """The tree below `root`, which exists. A context manager; `close` gives descriptors back.

    Files are created with the mode that they shall have: this process must have no umask.

    Raises (every method but the constructor):
        TransientError: `disk_full`, `disk_error`.
        ConfigError: `disk_not_writable`.
        ArtifactRejected: `archive_unstorable`, or `index_broken`: a path leads through what is no directory.
    """

    def __init__(self, root: Path, directories: Collection[bytes], *, is_secured: bool) -> None:
        """Open the root.

        Args:
            root: of the tree.
            directories: paths that may be created as directories on the way to others.
            is_secured: fsync every file that is written, and every directory that is finished.
        """
        self._directories = Directories(root, directories)
        self._is_secured = is_secured
        self._can_share = True

    @property
    def root_fd(self) -> int:
        """A descriptor of the root."""
        return self._directories.root_fd

    def close(self) -> None:
        """Close every descriptor; no other thread may work here any more."""
        self._directories.close()

    def create_files(self, rows: Iterable[Row], plain: memoryview) -> list[Stat]:
        """Write files that do not exist, each from its place in `plain`: the loop that a full pull spends its time in.

        Returns:
            Of each file, how it looks now.

        Raises:
            ArtifactRejected: kind `index_broken`: what is in the place of a file is not what its row says.
        """
        made: list[Stat] = []
        directory, parent = b"", self._directories.root_fd
        for row in rows:
            content = plain[row.offset : row.offset + row.size]
            if len(content) != row.size or hashlib.sha256(content).digest() != row.digest:
                raise not_as_said(row)
            above, _, name = row.path.rpartition(b"/")
            if above != directory:  # else nothing has closed the descriptor since
                directory, parent = above, self._directories.opened(above) if above else self._directories.root_fd
            try:
                made.append(self._written(name, parent, row, content))
            except OSError as error:
                raise self._directories.explained(error, "writing", row.path) from error
        return made

    def _written(self, name: bytes, parent: int, row: Row, content: memoryview) -> Stat:
        """Write a verified file; after an error nothing is left of it."""
        fd = os.open(name, _CREATE, row.mode, dir_fd=parent)
        try:
            rest = content[os.write(fd, content) :] if content else content
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.utime(fd, ns=(row.mtime_s * _NS, row.mtime_s * _NS))
            if self._is_secured:
                os.fsync(fd)
            return stat_of(os.fstat(fd))
        except BaseException:
            with suppress(OSError):
                os.unlink(name, dir_fd=parent)
            raise
        finally:
            os.close(fd)

    def create_file(self, row: Row, chunks: Iterable[bytes | memoryview]) -> Stat:
        """Write a file that does not exist.

        Raises:
            ContentDiffers: the chunks are not what the row says; nothing is left of it.
        """
        file = self.begin_file(row)
        try:
            for chunk in chunks:
                file.write(chunk)
            return file.finish()
        except BaseException:
            file.abandon()
            raise

    def begin_file(self, row: Row) -> NewFile:
        """Create a file that does not exist, to be written piece by piece; it must be finished or abandoned."""
        name, parent = self._directories.place(row.path)
        try:
            fd = os.open(name, _CREATE, row.mode, dir_fd=parent)
        except OSError as error:
            raise self._directories.explained(error, "creating", row.path) from error
        return NewFile(self._directories, row, fd, is_secured=self._is_secured)

    def take_file(self, row: Row, source: bytes, *, is_linking: bool) -> Stat | None:
        """Make a file that does not exist from a local one; None where that is not what the row says.

        Args:
            row: of the file.
            source: path of the local one.
            is_linking: give it another name, where that is possible, instead of copying it.
        """
        try:
            return (self.link_file(row, source) if is_linking else None) or self.copy_file(row, source)
        except ContentDiffers:
            return None

    def copy_file(self, row: Row, source: bytes) -> Stat:
        """Make a file that does not exist from a local one: its blocks are shared where the file system can.

        Raises:
            ContentDiffers: the local file cannot be read, or is not what the row says; nothing is left of it.
        """
        try:
            fd = os.open(source, _READ)
        except OSError as error:
            raise ContentDiffers from error
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size != row.size:
                raise ContentDiffers
            if row.size < _WORTH_SHARING_BYTES:
                return self._copy_small_file(row, fd)
            if self._can_share:
                shared = self._share_file(row, fd)
                if shared is not None:
                    return shared
            return self.create_file(row, chunks_of_source(fd))
        finally:
            os.close(fd)

    def _copy_small_file(self, row: Row, source: int) -> Stat:
        """In one piece: most files are small, and each call counts."""
        content = b"".join(chunks_of_source(source, row.size))
        if len(content) != row.size or hashlib.sha256(content).digest() != row.digest:
            raise ContentDiffers
        name, parent = self._directories.place(row.path)
        try:
            return self._written(name, parent, row, memoryview(content))
        except OSError as error:
            raise self._directories.explained(error, "writing", row.path) from error

    def link_file(self, row: Row, source: bytes) -> Stat | None:
        """Give a local file, read once for its digest, another name that does not exist.

        Returns:
            How it looks then; None where it has another mode or time, or cannot have one more name there: copy it.

        Raises:
            ContentDiffers: the local file cannot be read, or has other content than the row says.
        """
        try:
            fd = os.open(source, _READ)
        except OSError as error:
            raise ContentDiffers from error
        try:
            found = os.fstat(fd)
            looks = (stat.S_IFMT(found.st_mode), stat.S_IMODE(found.st_mode), found.st_mtime_ns)
            if looks != (stat.S_IFREG, row.mode, row.mtime_s * _NS):
                return None
            if found.st_size != row.size or digest_of_chunks(chunks_of_source(fd)) != row.digest:
                raise ContentDiffers
            name, parent = self._directories.place(row.path)
            try:
                # By its descriptor: what the path leads to may be another file by now.
                os.link(b"/proc/self/fd/%d" % fd, name, dst_dir_fd=parent)
            except OSError as error:
                if error.errno in _CANNOT_LINK:
                    return None
                raise self._directories.explained(error, "linking", row.path) from error
            return stat_of(os.fstat(fd))
        finally:
            os.close(fd)

    def _share_file(self, row: Row, source: int) -> Stat | None:
        """Let a new file share the blocks of another; None where this file system cannot."""
        file = self.begin_file(row)
        try:
            if not file.share(source):
                self._can_share = False
                file.abandon()
                return None
            return file.finish()
        except BaseException:
            file.abandon()
            raise

    def rename(self, source: bytes, target: bytes) -> Stat:
        """Move a file that was written here to its place, which is free."""
        source_name, source_parent = self._directories.place(source)
        try:
            source_parent = os.dup(source_parent)  # the next step may close it
            try:
                name, parent = self._directories.place(target)
                os.rename(source_name, name, src_dir_fd=source_parent, dst_dir_fd=parent)
                return stat_of(os.stat(name, dir_fd=parent, follow_symlinks=False))
            finally:
                os.close(source_parent)
        except OSError as error:
            raise self._directories.explained(error, "moving", target) from error

    def is_empty(self) -> bool:
        """Whether nothing is in the tree yet."""
        try:
            with os.scandir(self._directories.root_fd) as entries:
                return next(entries, None) is None
        except OSError as error:
            raise self._directories.explained(error, "listing", b".") from error

    def open_up(self, path: bytes) -> None:
        """Prepare a path that shall be a directory: what else stands there goes, what forbids writing is lifted."""
        name, parent = self._directories.place(path, is_made=False)
        if parent < 0:
            return
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(name, dir_fd=parent)
            elif found.st_mode & WORKING_MODE != WORKING_MODE:
                os.chmod(name, WORKING_MODE, dir_fd=parent)  # no link: nobody else changes this tree
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._directories.explained(error, "making room for", path) from error

    def finish_root(self) -> None:
        """Secure the root, where that is asked for."""
        if self._is_secured:
            try:
                os.fsync(self._directories.root_fd)
            except OSError as error:
                raise self._directories.explained(error, "securing", b".") from error

    def create_link(self, row: Row) -> Stat:
        """Make a symbolic link that does not exist."""
        name, parent = self._directories.place(row.path)
        try:
            os.symlink(row.target, name, dir_fd=parent)
            os.utime(name, ns=(row.mtime_s * _NS, row.mtime_s * _NS), dir_fd=parent, follow_symlinks=False)
            return stat_of(os.stat(name, dir_fd=parent, follow_symlinks=False))
        except OSError as error:
            raise self._directories.explained(error, "creating", row.path) from error

    def finish_directory(self, row: Row) -> Stat:
        """Give a directory, made where it is missing, its mode and time; what it holds must be complete."""
        fd = self._directories.opened(row.path)
        try:
            os.fchmod(fd, row.mode)
            os.utime(fd, ns=(row.mtime_s * _NS, row.mtime_s * _NS))
            if self._is_secured:
                os.fsync(fd)
            return stat_of(os.fstat(fd))
        except OSError as error:
            raise self._directories.explained(error, "finishing", row.path) from error

    def adopt_file(self, row: Row) -> Stat | None:
        """Keep what an interrupted pull left at the row's path if, read again, it is right; None if it is not."""
        try:
            name, parent = self._directories.place(row.path)
            fd = os.open(name, _READ, dir_fd=parent)
        except (OSError, HotcoldError):
            return None
        try:
            found = os.fstat(fd)
            # One that has another name may belong to another tree as well.
            if not stat.S_ISREG(found.st_mode) or found.st_size != row.size or found.st_nlink != 1:
                return None
            if digest_of_chunks(read_chunks(fd)) != row.digest:
                return None
            if stat.S_IMODE(found.st_mode) != row.mode:
                os.fchmod(fd, row.mode)
            os.utime(fd, ns=(row.mtime_s * _NS, row.mtime_s * _NS))
            if self._is_secured:
                os.fsync(fd)
            return stat_of(os.fstat(fd))
        except OSError as error:
            raise self._directories.explained(error, "reading again", row.path) from error
        finally:
            os.close(fd)

    def remove(self, path: bytes) -> None:
        """Remove what is at `path`, with all that it holds; fine if nothing is."""
        name, parent = self._directories.place(path, is_made=False)
        if parent < 0:
            return
        try:
            _remove(name, parent)
        except OSError as error:
            raise self._directories.explained(error, "removing", path) from error
        self._directories.forget(path)

    def clear(self, path: bytes, is_wanted: Callable[[bytes], bool]) -> None:
        """Remove what the directory `path` holds and nobody wants; the root is the empty path."""
        fd = self._directories.opened(path) if path else self._directories.root_fd
        prefix = path + b"/" if path else b""
        try:
            with os.scandir(fd) as entries:
                found = [os.fsencode(entry.name) for entry in entries]
        except OSError as error:
            raise self._directories.explained(error, "listing", path or b".") from error
        for name in found:
            if not is_wanted(prefix + name):
                self.remove(prefix + name)


def _remove(name: bytes, parent: int) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    else:
        return
    fd = os.open(name, DIRECTORY, dir_fd=parent)
    try:
        os.fchmod(fd, WORKING_MODE)
        with os.scandir(fd) as entries:
            found = [os.fsencode(entry.name) for entry in entries]
        for child in found:
            _remove(child, fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)
