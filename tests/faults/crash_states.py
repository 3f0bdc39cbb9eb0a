"""Owns a model of a file system that loses power: which operations happened, which are durable, what may be left.

The rules are weaker than those of any file system that we know, so that what survives here does not rest on one:

1. Data, length, mode and times of a file or link are durable after an fsync of it, or a syncfs, and not before. What is
   not durable may be lost for each write by itself; its place is then missing or reads as zeros.
2. An entry of a directory (create, link, unlink, rename) is durable after an fsync of the directory, or a syncfs, and
   not before: an fsync of the file itself does not secure its name. A rename between two directories needs both.
3. Each entry operation is atomic; rename and exchange are one operation.
4. Entry operations that are not durable may survive in any combination, also a later one without an earlier one of the
   same directory. File systems with a journal keep a prefix of them all; that is among the combinations.
5. What lies in a directory that is lost is lost.

What happened is read from strace's log. What a state means is left to the tests.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

TRACED: Final = (
    "openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,symlink,symlinkat,unlink,unlinkat,rmdir,write,pwrite64,"
    "ftruncate,fchmod,chmod,fchmodat,utimensat,fsync,fdatasync,syncfs,linkat,copy_file_range,sendfile,fallocate"
)
_EXHAUSTIVE_UP_TO: Final = 6
_RANDOM_STATES: Final = 6


@dataclass
class Node:
    """A file, directory or link."""

    kind: Literal["file", "directory", "link"]
    mode: int = 0o644
    mtime_ns: int = 0
    data: bytes = b""
    target: str = ""
    entries: dict[str, Node] = field(default_factory=dict)
    inode: int = 0

    def copy(self, known: dict[int, Node]) -> Node:
        """A deep copy; `known` maps the identities of the originals to the copies."""
        if id(self) not in known:
            twin = Node(self.kind, self.mode, self.mtime_ns, self.data, self.target, {}, self.inode)
            known[id(self)] = twin
            twin.entries = {name: node.copy(known) for name, node in self.entries.items()}
        return known[id(self)]

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for trees that cannot be told apart; times are left out."""
        entries = tuple((name, node.key) for name, node in sorted(self.entries.items()))
        return self.kind, self.mode, self.data, self.target, self.inode, entries


@dataclass(frozen=True)
class Operation:
    """One step. `nodes` are those whose sync makes it durable, all of them are needed; `apply` does it on a state.

    Attributes:
        text: as strace showed it, shortened.
        apply: carries it out, on the twin in some state that it is given of each live node.
        lose: leaves zeros in its place; None: it leaves nothing.
    """

    text: str
    nodes: tuple[Node, ...]
    apply: Callable[[Callable[[Node], Node]], None]
    lose: Callable[[Callable[[Node], Node]], None] | None = None


@dataclass(frozen=True)
class Sync:
    """Everything of `node` so far is durable; None: everything."""

    text: str
    node: Node | None


def read_tree(path: Path) -> Node:
    """What is on the disk, as a model."""
    state = path.lstat()
    node = Node("directory", stat.S_IMODE(state.st_mode), state.st_mtime_ns, inode=state.st_ino)
    if stat.S_ISLNK(state.st_mode):
        node.kind, node.target = "link", str(path.readlink())
    elif stat.S_ISREG(state.st_mode):
        node.kind, node.data = "file", path.read_bytes()
    else:
        node.entries = {child.name: read_tree(child) for child in path.iterdir()}
    return node


def write_tree(node: Node, path: Path) -> None:
    """The reverse of `read_tree`."""
    if node.kind == "link":
        path.symlink_to(node.target)
        os.utime(path, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)
        return
    if node.kind == "file":
        path.write_bytes(node.data)
    else:
        path.mkdir()
        for name, child in node.entries.items():
            write_tree(child, path / name)
    path.chmod(node.mode)
    os.utime(path, ns=(node.mtime_ns, node.mtime_ns))


class Recorder:
    """Reads strace's lines and carries each call out on a live model, of which it takes down the operations."""

    def __init__(self, base: Path) -> None:
        self.live = read_tree(base)
        self._base = str(base)
        self._first_of: dict[int, Node] = {}
        self._first = self.live.copy(self._first_of)
        self._positions: dict[int, int] = {}
        self.steps: list[Operation | Sync] = []

    def read(self, log: str) -> None:
        """Take in a log of `strace -f -y -xx -s ...`."""
        for line in _whole_lines(log):
            match = re.match(r"^(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)", line)
            if match is None or match[3].startswith("-"):
                continue
            self._take(match[1], _arguments(match[2]), line[:160])

    def _take(self, call: str, arguments: list[str], text: str) -> None:  # noqa: C901, PLR0912 - one row per call
        match call:
            case "openat":
                self._open(self._path(arguments[0], arguments[1]), arguments[2:], text)
            case "open":
                self._open(self._path("", arguments[0]), arguments[1], text)
            case "mkdir" | "mkdirat":
                self._create(self._path(*_at(arguments, call)), Node("directory", 0o700), text)
            case "symlink" | "symlinkat":
                place = self._path("", arguments[1]) if call == "symlink" else self._path(arguments[1], arguments[2])
                self._create(place, Node("link", 0o777, target=_string(arguments[0])), text)
            case "unlink" | "unlinkat" | "rmdir":
                self._unlink(self._path(*_at(arguments, call)), text)
            case "rename":
                self._rename(self._path("", arguments[0]), self._path("", arguments[1]), text, is_exchange=False)
            case "renameat" | "renameat2":
                is_exchange = call == "renameat2" and "EXCHANGE" in arguments[4]
                places = self._path(*arguments[0:2]), self._path(*arguments[2:4])
                self._rename(*places, text, is_exchange=is_exchange)
            case "write" | "pwrite64":
                self._write(arguments, text)
            case "ftruncate":
                self._truncate(self._opened(arguments[0]), int(arguments[1]), text)
            case "fchmod":
                self._set_mode(self._opened(arguments[0]), int(arguments[1], 8), text)
            case "chmod" | "fchmodat":
                path, mode = (
                    (self._path("", arguments[0]), arguments[1])
                    if call == "chmod"
                    else (self._path(*arguments[0:2]), arguments[2])
                )
                self._set_mode(None if path is None else self._find(path), int(mode, 8), text)
            case "utimensat":
                path = self._path(arguments[0], arguments[1])
                times = re.findall(r"tv_sec=(\d+)", ",".join(arguments))
                self._set_time(None if path is None else self._find(path), int(times[-1]) * 10**9, text)
            case "fsync" | "fdatasync":
                node = self._opened(arguments[0])
                if node is not None:
                    self.steps.append(Sync(text, node))
            case "syncfs":
                self.steps.append(Sync(text, None))
            case _:
                raise AssertionError(f"a call that the model does not know: {text}")

    # --- the calls --------------------------------------------------------------------------------------------------

    def _open(self, path: str | None, flags: list[str], text: str) -> None:
        if path is None:
            return
        node = self._find(path)
        if node is None and "O_CREAT" in flags[0]:
            node = Node("file", int(flags[1], 8))
            self._create(path, node, text)
        elif node is not None and "O_TRUNC" in flags[0]:
            self._truncate(node, 0, text)
        if node is not None:
            self._positions[id(node)] = 0

    def _create(self, path: str | None, node: Node, text: str) -> None:
        if path is None:
            return
        parent, name = self._parent(path)

        mode = node.mode  # set as it is created, not afterwards

        def apply(twin: Callable[[Node], Node]) -> None:
            twin(node).mode = mode
            twin(parent).entries[name] = twin(node)

        self._do(Operation(text, (parent,), apply))

    def _unlink(self, path: str | None, text: str) -> None:
        if path is None:
            return
        parent, name = self._parent(path)
        node = parent.entries[name]

        def apply(twin: Callable[[Node], Node]) -> None:
            if twin(parent).entries.get(name) is twin(node):
                del twin(parent).entries[name]

        self._do(Operation(text, (parent,), apply))

    def _rename(self, source: str | None, target: str | None, text: str, *, is_exchange: bool) -> None:
        if source is None or target is None:
            return
        (old, old_name), (new, new_name) = self._parent(source), self._parent(target)
        node, other = old.entries[old_name], new.entries.get(new_name)

        def apply(twin: Callable[[Node], Node]) -> None:
            if twin(old).entries.get(old_name) is twin(node):
                del twin(old).entries[old_name]
            twin(new).entries[new_name] = twin(node)
            if is_exchange and other is not None:
                twin(old).entries[old_name] = twin(other)

        self._do(Operation(text, (old,) if old is new else (old, new), apply))

    def _write(self, arguments: list[str], text: str) -> None:
        node = self._opened(arguments[0])
        if node is None:
            return
        data = _bytes(arguments[1])
        at = int(arguments[3]) if len(arguments) == 4 else self._positions[id(node)]
        self._positions[id(node)] = at + len(data)

        def apply(twin: Callable[[Node], Node]) -> None:
            _put(twin(node), at, data)

        def lose(twin: Callable[[Node], Node]) -> None:
            _put(twin(node), at, bytes(len(data)))

        self._do(Operation(text, (node,), apply, lose))

    def _truncate(self, node: Node | None, size: int, text: str) -> None:
        if node is None:
            return

        def apply(twin: Callable[[Node], Node]) -> None:
            twin(node).data = twin(node).data[:size]

        self._do(Operation(text, (node,), apply))

    def _set_mode(self, node: Node | None, mode: int, text: str) -> None:
        if node is None:
            return

        def apply(twin: Callable[[Node], Node]) -> None:
            twin(node).mode = mode

        self._do(Operation(text, (node,), apply))

    def _set_time(self, node: Node | None, mtime_ns: int, text: str) -> None:
        if node is None:
            return

        def apply(twin: Callable[[Node], Node]) -> None:
            twin(node).mtime_ns = mtime_ns

        self._do(Operation(text, (node,), apply))

    def _do(self, operation: Operation) -> None:
        operation.apply(lambda node: node)
        self.steps.append(operation)

    # --- names ------------------------------------------------------------------------------------------------------

    def _path(self, directory: str, name: str) -> str | None:
        """The path below the base; None where it is elsewhere. A descriptor alone (utimensat) names its own file."""
        opened = re.search(r"<(.*)>$", directory)
        text = "" if name == "NULL" else _string(name)
        path = os.path.normpath(os.path.join(_string(opened[1]) if opened else "", text))  # noqa: PTH118 - pure
        if path != self._base and not path.startswith(self._base + "/"):
            return None
        return path[len(self._base) :].strip("/")

    def _find(self, path: str) -> Node | None:
        node: Node | None = self.live
        for part in path.split("/") if path else ():
            node = None if node is None else node.entries.get(part)
        return node

    def _parent(self, path: str) -> tuple[Node, str]:
        parent, _, name = path.rpartition("/")
        node = self._find(parent)
        assert node is not None, path
        return node, name

    def _opened(self, descriptor: str) -> Node | None:
        path = self._path(descriptor, "NULL")
        return None if path is None else self._find(path)

    # --- the states -------------------------------------------------------------------------------------------------

    def crash_states(self) -> Iterator[State]:
        """Every state after each step: all combinations where few operations are not durable, else the telling ones.

        Those are: none, all; every prefix; each one alone lost; each one alone kept; and some at random. Each with lost
        data missing, and as zeros.
        """
        for at in range(len(self.steps) + 1):
            pending = _pending(self.steps[:at])
            for how, kept in _choices(at, pending):
                lost = frozenset(pending) - kept
                yield State(at, how, self._built(at, lost, is_zeroed=False))
                if any(isinstance(step := self.steps[number], Operation) and step.lose for number in lost):
                    yield State(at, f"{how}, zeros", self._built(at, lost, is_zeroed=True))

    def _built(self, at: int, lost: frozenset[int], *, is_zeroed: bool) -> Node:
        twins: dict[int, Node] = {}
        state = self._first.copy(twins)

        def twin(node: Node) -> Node:
            first = self._first_of.get(id(node))
            if first is not None:
                return twins[id(first)]
            if id(node) not in twins:  # made since: as it was before anything was done to it
                twins[id(node)] = Node(node.kind, target=node.target, inode=node.inode)
            return twins[id(node)]

        for number, step in enumerate(self.steps[:at]):
            if not isinstance(step, Operation):
                continue
            if number not in lost:
                step.apply(twin)
            elif is_zeroed and step.lose is not None:
                step.lose(twin)
        return state


@dataclass(frozen=True)
class State:
    """What a power loss left.

    Attributes:
        at: so many steps had happened.
        how: which of the operations that were not durable survived, in words.
        root: the file system.
    """

    at: int
    how: str
    root: Node


def _pending(steps: Sequence[Operation | Sync]) -> list[int]:
    """Numbers of the operations that are not durable (rules 1 and 2)."""
    missing: dict[int, list[Node]] = {}
    for number, step in enumerate(steps):
        if isinstance(step, Operation):
            missing[number] = list(step.nodes)
            continue
        for nodes in missing.values():
            nodes[:] = [node for node in nodes if step.node is not None and node is not step.node]
    return [number for number, nodes in missing.items() if nodes]


def _choices(at: int, pending: Sequence[int]) -> Iterator[tuple[str, frozenset[int]]]:
    every = frozenset(pending)
    if len(pending) <= _EXHAUSTIVE_UP_TO:
        for count in range(len(pending) + 1):
            for kept in itertools.combinations(pending, count):
                yield f"only {kept}", frozenset(kept)
        return
    yield "none", frozenset()
    yield "all", every
    for number in pending:
        before = frozenset(each for each in pending if each <= number)
        yield f"up to {number}", before
        yield f"all but {number}", every - {number}
        yield f"only {number}", frozenset({number})
    chance = random.Random(at)
    for number in range(_RANDOM_STATES):
        yield f"at random {number}", frozenset(each for each in pending if chance.random() < 0.5)


def _put(node: Node, at: int, piece: bytes) -> None:
    node.data = node.data[:at].ljust(at, b"\0") + piece + node.data[at + len(piece) :]


def _at(arguments: list[str], call: str) -> tuple[str, str]:
    return (arguments[0], arguments[1]) if call.endswith("at") else ("", arguments[0])


def _string(argument: str) -> str:
    return _bytes(argument).decode()


def _bytes(argument: str) -> bytes:
    """What strace shows in hexadecimal; cut off with dots it would not be whole."""
    assert not argument.endswith("."), argument[:80]
    return bytes.fromhex(argument.strip('"').replace("\\x", ""))


def _arguments(text: str) -> list[str]:
    """Split at commas outside of strings, braces and angle brackets; strings are all hexadecimal."""
    found, depth, start = [], 0, 0
    for match in re.finditer(r'"[^"]*"|[{\[<>}\]]|, ', text):
        token = match[0]
        if token in {"{", "[", "<"}:
            depth += 1
        elif token in {"}", "]", ">"}:
            depth -= 1
        elif token == ", " and depth == 0:
            found.append(text[start : match.start()])
            start = match.end()
    return [*found, text[start:]]


def _whole_lines(log: str) -> Iterator[str]:
    """Join the halves of calls that were interrupted by another thread's."""
    begun: dict[str, str] = {}
    for line in log.splitlines():
        thread, _, rest = line.partition(" ")
        if rest.rstrip().endswith("<unfinished ...>"):
            begun[thread] = line.rpartition(" <unfinished")[0]
        elif match := re.match(r" *<\.\.\. \w+ resumed>(.*)$", rest):
            yield begun.pop(thread, "") + match[1]
        else:
            yield line
