"""Owns descriptors of a tree's directories, one step after the other: an `openat` that follows no link.

What is made in them is left to `artifact.treefill`. Every method may be called from several threads.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

from artifact.diskerrors import disk_error
from artifact.errors import HotcoldError
from artifact.index import broken

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
WORKING_MODE: Final = 0o700
"""Of a directory that is not finished."""
_CACHED: Final = 64
"""Descriptors that each thread keeps: entries of one directory follow each other."""


class Directories:
    """The directories below `root`, which exists.

    Args:
        root: of the tree.
        may_be_made: paths that may be created as directories on the way to others.

    Attributes:
        root_fd: of the root.
    """

    def __init__(self, root: Path, may_be_made: Collection[bytes]) -> None:
        self._root = root
        self._may_be_made = may_be_made
        self._local = threading.local()
        self._caches: list[OrderedDict[bytes, int]] = []
        self._lock = threading.Lock()
        self.root_fd = os.open(root, DIRECTORY)

    def close(self) -> None:
        """Close every descriptor; no other thread may work here any more."""
        for cache in self._caches:
            for fd in cache.values():
                os.close(fd)
        os.close(self.root_fd)

    def place(self, path: bytes, *, is_made: bool = True) -> tuple[bytes, int]:
        """A path's last component, and a descriptor of what holds it, as `opened`."""
        parent, _, name = path.rpartition(b"/")
        return name, self.opened(parent, is_made=is_made) if parent else self.root_fd

    def opened(self, path: bytes, *, is_made: bool = True) -> int:
        """A descriptor of a directory, valid in this thread until the next call; -1 where it is not to be made.

        Raises:
            ArtifactRejected: kind `index_broken`: it is missing and may not be made, or is something else.
            TransientError, ConfigError: the disk.
        """
        cache = self._cache()
        fd = cache.get(path)
        if fd is not None:
            cache.move_to_end(path)
            return fd
        parent, _, name = path.rpartition(b"/")
        parent_fd = self.opened(parent, is_made=is_made) if parent else self.root_fd
        if parent_fd < 0:
            return -1
        fd = self._step(path, name, parent_fd, is_made=is_made)
        if fd >= 0:
            cache[path] = fd
            if len(cache) > _CACHED:
                os.close(cache.popitem(last=False)[1])
        return fd

    def _step(self, path: bytes, name: bytes, parent: int, *, is_made: bool) -> int:
        try:
            return os.open(name, DIRECTORY, dir_fd=parent)
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
                os.mkdir(name, WORKING_MODE, dir_fd=parent)
            return os.open(name, DIRECTORY, dir_fd=parent)
        except OSError as error:
            raise self.explained(error, "creating", path) from error

    def _cache(self) -> OrderedDict[bytes, int]:
        cache: OrderedDict[bytes, int] | None = getattr(self._local, "cache", None)
        if cache is None:
            cache = self._local.cache = OrderedDict()
            with self._lock:
                self._caches.append(cache)
        return cache

    def forget(self, path: bytes) -> None:
        """Forget descriptors of directories that were removed, in this thread; others have not begun by then."""
        cache = self._cache()
        for known in [known for known in cache if known == path or known.startswith(path + b"/")]:
            os.close(cache.pop(known))

    def explained(self, error: OSError, doing: str, path: bytes) -> HotcoldError:
        """What an OSError at `path` means."""
        if error.errno == errno.EEXIST:
            return broken(f"{path!a} is there already: it is listed twice, or in two spellings")
        return disk_error(error, self._root, f"{doing} {os.fsdecode(path)!a}")
