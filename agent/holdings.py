"""Owns what a process is and holds, as /proc tells it: command, units, directories, open files, mappings, sockets.

Which processes are asked, and what follows from the answer, is left to `agent.workers`. /proc is read directly because
psutil shows only regular files among the open ones and parses the host's whole socket table once per process.
"""

# A Path per link would cost more than reading the link, and a host has many thousands of them.
# ruff: noqa: PTH115, PTH116, PTH208

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_LINKS: Final = {"cwd": "working directory", "exe": "executable", "root": "root directory"}
_DELETED: Final = " (deleted)"
_SOCKET: Final = "socket:["
# 01 is ESTABLISHED. 08 is CLOSE_WAIT: the client may have closed only its sending half and still await its answer.
_BUSY_STATES: Final = "01|08"
_CONNECTED: Final = "03"  # of Unix sockets
_READ_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class Holdings:
    """What one process holds; a process that ended meanwhile holds nothing.

    Attributes:
        links: (what it is, path) of working directory, executable and root directory.
        open_paths: the paths of its open files and directories.
        mapped: the text of its memory map, where paths stand one per line.
        socket_inodes: the sockets that it has open.
        unseen: what could not be read for lack of permission.
    """

    links: tuple[tuple[str, str], ...] = ()
    open_paths: tuple[str, ...] = ()
    mapped: bytes = b""
    socket_inodes: frozenset[str] = frozenset()
    unseen: tuple[str, ...] = ()

    def inside(self, tree: Path) -> Iterator[str]:
        """Yield a sentence for each kind of holding inside `tree`, deleted files included."""
        for what, path in self.links:
            if _is_inside(path, str(tree)):
                yield f"{what} {path}"
        held = [path for path in self.open_paths if _is_inside(path, str(tree))]
        if held:
            yield f"open {held[0]}" + _and_more(len(held))
        mapped = _mapped_inside(self.mapped, tree)
        if mapped:
            yield f"mapping of {mapped[0]}" + _and_more(len(mapped))

    def entries_of(self, directory: Path) -> dict[str, str]:
        """The entries of a directory that it holds something in, each with one path as evidence; deleted ones too."""
        prefix = f"{directory}/"
        mapped = _mapped_inside(self.mapped, directory)
        paths = (*(path for _, path in self.links), *self.open_paths, *mapped)
        inside = [path.removesuffix(_DELETED) for path in paths if path.startswith(prefix)]
        return {path[len(prefix) :].partition("/")[0]: path for path in reversed(inside)}


@dataclass(frozen=True)
class Birth:
    """What stays the same as long as a process lives, and tells it from a later one of the same number.

    Attributes:
        started: clock ticks after boot.
        parent: the process that it descends from at the moment.
    """

    started: int
    parent: int


def birth_of(pid: int) -> Birth | None:
    """When and from whom a process comes; None if it has ended, whether or not somebody waits for its end."""
    # The state stands after the name, which is in brackets and may hold any character; see proc(5).
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    if not fields or fields[0] in {b"Z", b"X"}:
        return None
    return Birth(started=int(fields[19]), parent=int(fields[1]))


def command_line(pid: int) -> str:
    """Join the arguments by blanks; threads of the kernel, and processes that have ended, have none."""
    return _read(f"/proc/{pid}/cmdline").rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")


def effective_user(pid: int) -> int | None:
    """Return the user's number, or None if the process has ended."""
    try:
        # The directory belongs to the effective user, also where a change of user has left the files in it to root.
        return os.stat(f"/proc/{pid}").st_uid
    except (FileNotFoundError, ProcessLookupError):
        return None


def executable(pid: int) -> str | None:
    """Return the path of the executable; None for threads of the kernel and processes that have ended.

    Raises:
        PermissionError: only the process's own user, or CAP_SYS_PTRACE, may know.
    """
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(_DELETED)
    except (FileNotFoundError, ProcessLookupError):
        return None


def units_of(pid: int) -> Iterator[str]:
    """Yield the systemd units and slices around a process."""
    return unit_names(_read(f"/proc/{pid}/cgroup").decode(errors="replace"))


def unit_names(cgroup: str) -> Iterator[str]:
    """Yield the units and slices that a /proc/PID/cgroup of either hierarchy names, some of them repeatedly.

    "0::/system.slice/shop.service" in the unified one; the old one has a line like that for each controller.
    """
    for line in cgroup.splitlines():
        yield from filter(None, line.split(":", 2)[-1].split("/"))


def read_holdings(pid: int) -> Holdings:
    """Read what process `pid` holds.

    Paths are those of the process's own mount name space: a container that sees a release directory under another path
    is not recognised.
    """
    unseen: list[str] = []
    links = []
    for name, what in _LINKS.items():
        try:
            links.append((what, os.readlink(f"/proc/{pid}/{name}")))
        except PermissionError:
            unseen.append(what)
        except OSError:  # ended meanwhile, or a thread of the kernel
            continue
    paths: list[str] = []
    inodes: list[str] = []
    try:
        for target in _descriptors(pid):
            if target.startswith("/"):
                paths.append(target)
            elif target.startswith(_SOCKET):
                inodes.append(target[len(_SOCKET) : -1])
    except PermissionError:
        unseen.append("open files")
    try:
        mapped = _read(f"/proc/{pid}/maps")
    except PermissionError:
        mapped = b""
        unseen.append("mappings")
    return Holdings(tuple(links), tuple(paths), mapped, frozenset(inodes), tuple(unseen))


@dataclass
class Connections:
    """The connections on some doors, each network name space read once; make a new one for each look.

    Attributes:
        doors: local TCP ports, and paths of Unix sockets that somebody listens on.
    """

    doors: Collection[int | str]
    _by_name_space: dict[int, dict[str, int | str]] = field(default_factory=dict)

    def of(self, pid: int, holdings: Holdings) -> Iterator[str]:
        """Yield a sentence for each door at which the process has connections that may still want an answer."""
        if not self.doors or not holdings.socket_inodes:
            return
        doors_by_inode = self._table(pid)
        used = [doors_by_inode[inode] for inode in holdings.socket_inodes & doors_by_inode.keys()]
        for door in sorted(set(used), key=str):
            count = used.count(door)
            yield f"{count} connection{'s' if count > 1 else ''} on {'port ' if isinstance(door, int) else ''}{door}"

    def _table(self, pid: int) -> dict[str, int | str]:
        try:
            name_space = os.stat(f"/proc/{pid}/ns/net").st_ino
        except (FileNotFoundError, ProcessLookupError):  # ended, and its connections with it
            return {}
        except PermissionError:
            name_space = -pid  # unknown, so shared with nobody
        if name_space not in self._by_name_space:
            self._by_name_space[name_space] = dict(self._parsed(pid))
        return self._by_name_space[name_space]

    def _parsed(self, pid: int) -> Iterator[tuple[str, int | str]]:
        yield from self._parsed_tcp(pid)
        paths = "|".join(re.escape(door) for door in self.doors if isinstance(door, str))
        if paths:
            # number, references, protocol, flags, type, state, inode, path: only the end that was accepted has the path
            pattern = re.compile(rf"^[0-9a-f]+: (?:\S+ ){{4}}{_CONNECTED} +(\d+) ({paths})$".encode(), re.MULTILINE)
            for inode, path in pattern.findall(_read(f"/proc/{pid}/net/unix")):
                yield inode.decode(), os.fsdecode(path)

    def _parsed_tcp(self, pid: int) -> Iterator[tuple[str, int]]:
        ports = "|".join(f"{door:04X}" for door in self.doors if isinstance(door, int))
        if not ports:
            return
        # sl, local address, remote address, state, queues, timer, retransmits, uid, timeout, inode: see proc(5)
        line = rf"^ *\d+: [0-9A-F]+:({ports}) \S+ (?:{_BUSY_STATES}) \S+ \S+ \S+ +\d+ +\d+ (\d+)"
        pattern = re.compile(line.encode(), re.MULTILINE)
        for table in ("tcp", "tcp6"):
            for port, inode in pattern.findall(_read(f"/proc/{pid}/net/{table}")):
                yield inode.decode(), int(port, 16)


def _descriptors(pid: int) -> Iterator[str]:
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except (FileNotFoundError, ProcessLookupError):
        return
    for number in numbers:
        try:
            yield os.readlink(f"/proc/{pid}/fd/{number}")
        except (FileNotFoundError, ProcessLookupError):
            continue


def _read(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return b""
    try:
        parts = []
        while part := os.read(descriptor, _READ_BYTES):
            parts.append(part)
        return b"".join(parts)
    except ProcessLookupError:
        return b""
    finally:
        os.close(descriptor)


def _is_inside(path: str, tree: str) -> bool:
    return path.startswith(tree) and (path == tree or path[len(tree)] == "/" or path == tree + _DELETED)


def _mapped_inside(mapped: bytes, tree: Path) -> list[str]:
    # The kernel escapes only line breaks, and a release directory has none in its path.
    prefix = os.fsencode(tree) + b"/"
    if prefix not in mapped:
        return []
    found = {line[line.find(b"/") :] for line in mapped.splitlines() if line.find(prefix) == line.find(b"/") > 0}
    return sorted(map(os.fsdecode, found))


def _and_more(count: int) -> str:
    return f" and {count - 1} more" if count > 1 else ""
