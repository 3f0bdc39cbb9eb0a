"""Owns the processes that write small files, one for each core; fetching their frames is left to `artifact.delivery`.

Processes, not threads: a small file is five system calls and little else, and threads of one interpreter would wait for
each other after every one. Frames and buckets go over in shared memory, what is to be done and what became of it over a
socket. Only a pull into an empty tree has so much to write that this is worth it.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from artifact.errors import HotcoldError, TransientError
from artifact.index import Row, read_bucket
from artifact.lifeline import die_with_parent
from artifact.pullwire import Failed, as_error, failed
from artifact.table import Stat
from artifact.treefill import Tree
from artifact.unframe import WrongFrame, written

_SLOTS: Final = 2
"""Frames that a process has at once: the one that it writes, and the next."""
_SLOT_BYTES: Final = 4 << 20
_LENGTH: Final = struct.Struct("=I")


class _Start(msgspec.Struct, frozen=True, array_like=True):
    """The first message to a process: `directories` and `is_secured` as of a `Tree`."""

    directories: list[bytes]
    is_secured: bool


class _Write(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Write files that are wholly in a frame: it lies in a slot, its bucket behind it. `rows` are numbers in that."""

    slot: int
    frame_bytes: int
    bucket_bytes: int
    plain_bytes: int
    rows: list[int]


class _Copy(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Make files of local ones."""

    rows: list[Row]
    sources: list[bytes]
    is_linking: bool


class _Written(msgspec.Struct, frozen=True, array_like=True, tag=True):
    stats: list[Stat]


class _Copied(msgspec.Struct, frozen=True, array_like=True, tag=True):
    stats: list[Stat | None]


class _Wrong(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Other bytes than the bucket names."""


class _Broke(msgspec.Struct, frozen=True, array_like=True, tag=True):
    failed: Failed


_Task = _Write | _Copy
_Answer = _Written | _Copied | _Wrong | _Broke
_TASK: Final = msgspec.msgpack.Decoder(_Task)
_ANSWER: Final = msgspec.msgpack.Decoder(_Answer)


class Writers:
    """Processes that write into one tree. To be made before this process has threads, for it forks.

    Args:
        count: how many.
        into: the tree, which exists.

    Attributes:
        count: how many.
    """

    def __init__(self, count: int, into: Path) -> None:
        self._into = into
        self.count = count
        self._writers = [_begun(into) for _ in range(count)]
        self._free: asyncio.Queue[tuple[_Writer, int]] = asyncio.Queue()

    async def start(self, directories: Sequence[bytes], *, is_secured: bool) -> None:
        """Tell them of the tree; see `Tree`."""
        for writer in self._writers:
            await writer.start(_Start(list(directories), is_secured))
        for slot in range(_SLOTS):
            for writer in self._writers:
                self._free.put_nowait((writer, slot))

    @staticmethod
    def fits(frame: bytes, bucket: bytes) -> bool:
        """Whether these fit into a slot."""
        return len(frame) + len(bucket) <= _SLOT_BYTES

    async def write(self, frame: bytes, bucket: bytes, plain_bytes: int, rows: Sequence[int]) -> list[Stat]:
        """Have files written that are wholly in one frame.

        Args:
            frame: the frame, unchecked.
            bucket: its bucket, checked.
            plain_bytes: of the frame, decompressed.
            rows: numbers of the files in the bucket.

        Raises:
            WrongFrame, ArtifactRejected, TransientError, ConfigError: as `artifact.unframe.written`.
            TransientError: kind `puller_died`: the process ended.
        """
        async with self._slot() as (writer, slot):
            memory = writer.slots[slot]
            memory[: len(frame)] = frame
            memory[len(frame) : len(frame) + len(bucket)] = bucket
            answer = await writer.ask(_Write(slot, len(frame), len(bucket), plain_bytes, list(rows)))
        if isinstance(answer, _Wrong):
            raise WrongFrame
        if isinstance(answer, _Written):
            return answer.stats
        raise _error(answer)

    async def copy(self, rows: Sequence[Row], sources: Sequence[bytes], *, is_linking: bool) -> list[Stat | None]:
        """Have files made of local ones, as `Tree.take_file`: None for those that could not be.

        Raises:
            TransientError, ConfigError, ArtifactRejected: as `Tree.take_file`.
            TransientError: kind `puller_died`: the process ended.
        """
        async with self._slot() as (writer, _):
            answer = await writer.ask(_Copy(list(rows), list(sources), is_linking))
        if isinstance(answer, _Copied):
            return answer.stats
        raise _error(answer)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[tuple[_Writer, int]]:
        """A slot, for one task. Not given back after an error: what it is used for then is not known."""
        writer, slot = await self._free.get()
        yield writer, slot
        self._free.put_nowait((writer, slot))

    def close(self) -> None:
        """End them, in the middle of a file or not, and wait for that; fine if they have ended."""
        for writer in self._writers:
            writer.end()
        self._writers = []


class _Writer:
    """This side of one process."""

    def __init__(self, pid: int, link: socket.socket, slots: Sequence[mmap.mmap], into: Path) -> None:
        self.slots = slots
        self._pid = pid
        self._link = link
        self._into = into
        self._waiting: deque[asyncio.Future[_Answer]] = deque()
        self._reading: asyncio.Task[None] | None = None
        self._out: asyncio.StreamWriter | None = None

    async def start(self, start: _Start) -> None:
        answers, self._out = await asyncio.open_connection(sock=self._link)
        self._reading = asyncio.create_task(self._read(answers), name="writer")
        self._out.write(_framed(msgspec.msgpack.encode(start)))
        with suppress(ConnectionError):  # it has ended: whoever asks is told
            await self._out.drain()

    async def ask(self, task: _Task) -> _Answer:
        assert self._out is not None  # noqa: S101 - started
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        if self._reading is None or self._reading.done():
            self._give_up()
        else:
            self._out.write(_framed(msgspec.msgpack.encode(task)))
        return await answer

    async def _read(self, answers: asyncio.StreamReader) -> None:
        try:
            while True:
                [size] = _LENGTH.unpack(await answers.readexactly(_LENGTH.size))
                answer = _ANSWER.decode(await answers.readexactly(size))
                waiting = self._waiting.popleft()
                if not waiting.done():  # whoever asked may be gone
                    waiting.set_result(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self._give_up()

    def _give_up(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(
                    TransientError(
                        f"a process that wrote into {self._into} ended early: is memory short? The kernel's log says",
                        kind="puller_died",
                    )
                )

    def end(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        if self._out is not None:
            self._out.close()
        self._link.close()
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _begun(into: Path) -> _Writer:
    """Fork a process that waits for its tasks."""
    ours, theirs = socket.socketpair()
    slots = [mmap.mmap(-1, _SLOT_BYTES) for _ in range(_SLOTS)]
    parent_pid = os.getpid()
    pid = os.fork()
    if not pid:
        try:
            ours.close()
            if die_with_parent(parent_pid):
                _serve(theirs, slots, into)
        finally:
            os._exit(1)
    theirs.close()
    return _Writer(pid, ours, slots, into)


def _serve(link: socket.socket, slots: Sequence[mmap.mmap], into: Path) -> NoReturn:
    """Write what is asked for until nobody asks any more."""
    start = msgspec.msgpack.decode(_received(link), type=_Start)
    tree = Tree(into, frozenset(start.directories), is_secured=start.is_secured)
    while True:
        task = _TASK.decode(_received(link))
        try:
            answer = _written(task, slots, tree) if isinstance(task, _Write) else _copied(task, tree)
        except HotcoldError as error:
            answer = _Broke(failed(error))
        except Exception as error:  # noqa: BLE001 - it is told, whatever it is: this process has no other way to be heard
            told = f"a process that wrote into {into} failed: {type(error).__name__}: {error}; please report it"
            answer = _Broke(failed(TransientError(told, kind="puller_died")))
        link.sendall(_framed(msgspec.msgpack.encode(answer)))


def _written(task: _Write, slots: Sequence[mmap.mmap], tree: Tree) -> _Answer:
    memory = memoryview(slots[task.slot])
    frame = memory[: task.frame_bytes]
    bucket = read_bucket(memory[task.frame_bytes : task.frame_bytes + task.bucket_bytes])
    try:
        return _Written(written(tree, frame, bucket, (bucket.rows[at] for at in task.rows), task.plain_bytes))
    except WrongFrame:
        return _Wrong()


def _copied(task: _Copy, tree: Tree) -> _Answer:
    pairs = zip(task.rows, task.sources, strict=True)
    return _Copied([tree.take_file(row, source, is_linking=task.is_linking) for row, source in pairs])


def _error(answer: _Answer) -> HotcoldError:
    assert isinstance(answer, _Broke)  # noqa: S101 - each task has its own answer, and this one
    return as_error(answer.failed)


def _framed(message: bytes) -> bytes:
    return _LENGTH.pack(len(message)) + message


def _received(link: socket.socket) -> bytes:
    """One message; ends this process where there is none any more."""
    [size] = _LENGTH.unpack(_exactly(link, _LENGTH.size))
    return _exactly(link, size)


def _exactly(link: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = link.recv(count - len(data))
        if not part:
            os._exit(0)
        data += part
    return bytes(data)
