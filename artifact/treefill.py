"""Owns changing one tree entry by entry: new inodes only, every step down an `openat` that follows no link.

What is to be changed is left to `artifact.plan`, where contents come from to `artifact.contents`. Every method may be
called from several threads, for different paths.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from artifact.diskerrors import disk_error
from artifact.errors import HotcoldError
from artifact.index import Row, broken
from artifact.table import Stat, stat_of

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WORKING_MODE: Final = 0o700
_NS: Final = 1_000_000_000
_WORTH_SHARING_BYTES: Final = 64 << 10
_FICLONE: Final = 0x40049409  # ioctl_ficlone(2)
_CANNOT_SHARE: Final = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ETXTBSY})
_CANNOT_LINK: Final = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOENT, errno.EOPNOTSUPP})
"""Another file system, too many names, a file of somebody else, no /proc, no links at all."""
_CHUNK_BYTES: Final = 1 << 20
_CACHED_DIRECTORIES: Final = 64
"""Descriptors that each thread keeps: entries of one directory follow each other."""


class ContentDiffers(Exception):
    """What was written, or should be, is not what its row says; nothing is left of it."""


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
        self._root = root
        self._may_be_made = directories
        self._is_secured = is_secured
        self._local = threading.local()
        self._caches: list[OrderedDict[bytes, int]] = []
        self._lock = threading.Lock()
        self._can_share = True
        self.root_fd = os.open(root, _DIRECTORY)

    def close(self) -> None:
        """Close every descriptor; no other thread may work here any more."""
        for cache in self._caches:
            for fd in cache.values():
                os.close(fd)
        os.close(self.root_fd)

    def create_files(self, rows: Iterable[Row], plain: memoryview) -> list[Stat]:
        """Write files that do not exist, each from its place in `plain`: the loop that a full pull spends its time in.

        Returns:
            Of each file, how it looks now.

        Raises:
            ArtifactRejected: kind `index_broken`: what is in the place of a file is not what its row says.
        """
        made: list[Stat] = []
        directory, parent = b"", self.root_fd
        for row in rows:
            content = plain[row.offset : row.offset + row.size]
            if len(content) != row.size or hashlib.sha256(content).digest() != row.digest:
                raise not_as_said(row)
            above, _, name = row.path.rpartition(b"/")
            if above != directory:  # else nothing has closed the descriptor since
                directory, parent = above, self._directory(above) if above else self.root_fd
            try:
                made.append(self._written(name, parent, row, content))
            except OSError as error:
                raise self.explained(error, "writing", row.path) from error
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
        name, parent = self._place(row.path)
        try:
            fd = os.open(name, _CREATE, row.mode, dir_fd=parent)
        except OSError as error:
            raise self.explained(error, "creating", row.path) from error
        return NewFile(self, row, fd, is_secured=self._is_secured)

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
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ContentDiffers
            if row.size >= _WORTH_SHARING_BYTES and self._can_share:
                shared = self._share_file(row, fd)
                if shared is not None:
                    return shared
            return self.create_file(row, _chunks_of_source(fd))
        finally:
            os.close(fd)

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
            if found.st_size != row.size or _digest_of_source(fd) != row.digest:
                raise ContentDiffers
            name, parent = self._place(row.path)
            try:
                # By its descriptor: what the path leads to may be another file by now.
                os.link(b"/proc/self/fd/%d" % fd, name, dst_dir_fd=parent)
            except OSError as error:
                if error.errno in _CANNOT_LINK:
                    return None
                raise self.explained(error, "linking", row.path) from error
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
        source_name, source_parent = self._place(source)
        try:
            source_parent = os.dup(source_parent)  # the next step may close it
            try:
                name, parent = self._place(target)
                os.rename(source_name, name, src_dir_fd=source_parent, dst_dir_fd=parent)
                return stat_of(os.stat(name, dir_fd=parent, follow_symlinks=False))
            finally:
                os.close(source_parent)
        except OSError as error:
            raise self.explained(error, "moving", target) from error

    def is_empty(self) -> bool:
        """Whether nothing is in the tree yet."""
        try:
            with os.scandir(self.root_fd) as entries:
                return next(entries, None) is None
        except OSError as error:
            raise self.explained(error, "listing", b".") from error

    def open_up(self, path: bytes) -> None:
        """Prepare a path that shall be a directory: what else stands there goes, what forbids writing is lifted."""
        name, parent = self._place(path, is_made=False)
        if parent < 0:
            return
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(name, dir_fd=parent)
            elif found.st_mode & _WORKING_MODE != _WORKING_MODE:
                os.chmod(name, _WORKING_MODE, dir_fd=parent)  # no link: nobody else changes this tree
        except FileNotFoundError:
            return
        except OSError as error:
            raise self.explained(error, "making room for", path) from error

    def finish_root(self) -> None:
        """Secure the root, where that is asked for."""
        if self._is_secured:
            try:
                os.fsync(self.root_fd)
            except OSError as error:
                raise self.explained(error, "securing", b".") from error

    def create_link(self, row: Row) -> Stat:
        """Make a symbolic link that does not exist."""
        name, parent = self._place(row.path)
        try:
            os.symlink(row.target, name, dir_fd=parent)
            os.utime(name, ns=(row.mtime_s * _NS, row.mtime_s * _NS), dir_fd=parent, follow_symlinks=False)
            return stat_of(os.stat(name, dir_fd=parent, follow_symlinks=False))
        except OSError as error:
            raise self.explained(error, "creating", row.path) from error

    def finish_directory(self, row: Row) -> Stat:
        """Give a directory, made where it is missing, its mode and time; what it holds must be complete."""
        fd = self._directory(row.path)
        try:
            os.fchmod(fd, row.mode)
            os.utime(fd, ns=(row.mtime_s * _NS, row.mtime_s * _NS))
            if self._is_secured:
                os.fsync(fd)
            return stat_of(os.fstat(fd))
        except OSError as error:
            raise self.explained(error, "finishing", row.path) from error

    def adopt_file(self, row: Row) -> Stat | None:
        """Keep what an interrupted pull left at the row's path if, read again, it is right; None if it is not."""
        try:
            name, parent = self._place(row.path)
            fd = os.open(name, _READ, dir_fd=parent)
        except (OSError, HotcoldError):
            return None
        try:
            found = os.fstat(fd)
            # One that has another name may belong to another tree as well.
            if not stat.S_ISREG(found.st_mode) or found.st_size != row.size or found.st_nlink != 1:
                return None
            if _digest(fd) != row.digest:
                return None
            if stat.S_IMODE(found.st_mode) != row.mode:
                os.fchmod(fd, row.mode)
            os.utime(fd, ns=(row.mtime_s * _NS, row.mtime_s * _NS))
            if self._is_secured:
                os.fsync(fd)
            return stat_of(os.fstat(fd))
        except OSError as error:
            raise self.explained(error, "reading again", row.path) from error
        finally:
            os.close(fd)

    def remove(self, path: bytes) -> None:
        """Remove what is at `path`, with all that it holds; fine if nothing is."""
        name, parent = self._place(path, is_made=False)
        if parent < 0:
            return
        try:
            _remove(name, parent)
        except OSError as error:
            raise self.explained(error, "removing", path) from error
        self._forget(path)

    def clear(self, path: bytes, is_wanted: Callable[[bytes], bool]) -> None:
        """Remove what the directory `path` holds and nobody wants; the root is the empty path."""
        fd = self._directory(path) if path else self.root_fd
        prefix = path + b"/" if path else b""
        try:
            with os.scandir(fd) as entries:
                found = [os.fsencode(entry.name) for entry in entries]
        except OSError as error:
            raise self.explained(error, "listing", path or b".") from error
        for name in found:
            if not is_wanted(prefix + name):
                self.remove(prefix + name)

    def _place(self, path: bytes, *, is_made: bool = True) -> tuple[bytes, int]:
        parent, _, name = path.rpartition(b"/")
        return name, self._directory(parent, is_made=is_made) if parent else self.root_fd

    def _directory(self, path: bytes, *, is_made: bool = True) -> int:
        """A descriptor of a directory, valid in this thread until the next call; -1 where it is not to be made."""
        cache = self._cache()
        fd = cache.get(path)
        if fd is not None:
            cache.move_to_end(path)
            return fd
        parent, _, name = path.rpartition(b"/")
        parent_fd = self._directory(parent, is_made=is_made) if parent else self.root_fd
        if parent_fd < 0:
            return -1
        fd = self._opened(path, name, parent_fd, is_made=is_made)
        if fd >= 0:
            cache[path] = fd
            if len(cache) > _CACHED_DIRECTORIES:
                os.close(cache.popitem(last=False)[1])
        return fd

    def _opened(self, path: bytes, name: bytes, parent: int, *, is_made: bool) -> int:
        try:
            return os.open(name, _DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            if not is_made:
                return -1
        except NotADirectoryError as error:
            if not is_made:
                return -1
            raise broken(f"{path!a} holds entries and is no directory") from error
        except OSError as error:
            raise self.explained(error, "opening", path) from error
        if path not in self._may_be_made:
            raise broken(f"the directory {path!a} is missing")
        try:
            with suppress(FileExistsError):  # another thread was faster
                os.mkdir(name, _WORKING_MODE, dir_fd=parent)
            return os.open(name, _DIRECTORY, dir_fd=parent)
        except OSError as error:
            raise self.explained(error, "creating", path) from error

    def _cache(self) -> OrderedDict[bytes, int]:
        cache: OrderedDict[bytes, int] | None = getattr(self._local, "cache", None)
        if cache is None:
            cache = self._local.cache = OrderedDict()
            with self._lock:
                self._caches.append(cache)
        return cache

    def _forget(self, path: bytes) -> None:
        """Forget descriptors of directories that were removed, in this thread; others have not begun by then."""
        cache = self._cache()
        for known in [known for known in cache if known == path or known.startswith(path + b"/")]:
            os.close(cache.pop(known))

    def explained(self, error: OSError, doing: str, path: bytes) -> HotcoldError:
        """What an OSError at `path` means."""
        if error.errno == errno.EEXIST:
            return broken(f"{path!a} is there already: it is listed twice, or in two spellings")
        return disk_error(error, self._root, f"{doing} {os.fsdecode(path)!a}")


class NewFile:
    """A file that is being written, by one thread at a time."""

    def __init__(self, tree: Tree, row: Row, fd: int, *, is_secured: bool) -> None:
        self._tree = tree
        self._row = row
        self._fd = fd
        self._is_secured = is_secured
        self._digest = hashlib.sha256()
        self._size = 0

    def share(self, source: int) -> bool:
        """Take the blocks of another file instead of writing; False where the file system cannot.

        What it then has is read once, for the digest.
        """
        try:
            fcntl.ioctl(self._fd, _FICLONE, source)
        except OSError as error:
            if error.errno in _CANNOT_SHARE:
                return False
            raise self._tree.explained(error, "sharing", self._row.path) from error
        try:
            for chunk in read_chunks(self._fd):
                self._digest.update(chunk)
                self._size += len(chunk)
        except OSError as error:
            raise self._tree.explained(error, "reading", self._row.path) from error
        return True

    def write(self, chunk: bytes | memoryview) -> None:
        """Append to it."""
        self._digest.update(chunk)
        self._size += len(chunk)
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            raise self._tree.explained(error, "writing", self._row.path) from error

    def finish(self) -> Stat:
        """Check what was written, and close.

        Raises:
            ContentDiffers: it is not what the row says; the file must be abandoned.
        """
        row = self._row
        if (self._size, self._digest.digest()) != (row.size, row.digest):
            raise ContentDiffers
        try:
            os.utime(self._fd, ns=(row.mtime_s * _NS, row.mtime_s * _NS))
            if self._is_secured:
                os.fsync(self._fd)
            found = stat_of(os.fstat(self._fd))
        except OSError as error:
            raise self._tree.explained(error, "writing", row.path) from error
        self._close()
        return found

    def abandon(self) -> None:
        """Leave nothing of it; fine after `finish` has failed."""
        self._close()
        self._tree.remove(self._row.path)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def not_as_said(row: Row) -> HotcoldError:
    """The error for a right frame that does not hold what a right index says."""
    return broken(f"{row.path!a} is not in its frame as the index says")


def read_chunks(fd: int) -> Iterable[bytes]:
    """A file's content from where it stands."""
    while data := os.read(fd, _CHUNK_BYTES):
        yield data


def _chunks_of_source(fd: int) -> Iterable[bytes]:
    try:
        yield from read_chunks(fd)
    except OSError as error:  # what cannot be read here is found elsewhere
        raise ContentDiffers from error


def _digest(fd: int) -> bytes:
    return _digest_of(read_chunks(fd))


def _digest_of_source(fd: int) -> bytes:
    return _digest_of(_chunks_of_source(fd))


def _digest_of(chunks: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()


def _remove(name: bytes, parent: int) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    else:
        return
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        os.fchmod(fd, _WORKING_MODE)
        with os.scandir(fd) as entries:
            found = [os.fsencode(entry.name) for entry in entries]
        for child in found:
            _remove(child, fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)
