"""Owns fetching frames and handing each to those who write: what is fetched together, checked, decompressed, cut out.

Reading ranges is left to `artifact.ranges`, creating files to `artifact.treefill`, the choice of files to
`artifact.plan`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, TypeVar

from artifact.documents import Buckets
from artifact.errors import HotcoldError
from artifact.index import Root, broken
from artifact.newfile import ContentDiffers, NewFile, not_as_said
from artifact.plan import Wanted
from artifact.ranges import Places
from artifact.table import Stat
from artifact.treefill import Tree
from artifact.unframe import WrongFrame, decompressed, is_right, written
from artifact.writers import Writers

RUN_BYTES: Final = 2 << 20
"""Of one request: large enough that its latency does not matter, small enough to have several in flight."""
GAP_BYTES: Final = 32 << 10
"""Unwanted bytes that are fetched rather than asking twice."""
IN_FLIGHT: Final = 4
BIG_AT_ONCE: Final = 2
"""Files in frames of their own: a frame is held several times over on its way, and theirs have megabytes."""

_Done = TypeVar("_Done")


@dataclass(frozen=True)
class Run:
    """Frames that one request fetches.

    Attributes:
        frames: numbers, without a gap.
        wanted: the files to write, by number of the frame in which each begins.
        is_big: the frames are those of one file.
    """

    frames: range
    wanted: dict[int, list[Wanted]]
    is_big: bool = False


def plan_runs(root: Root, wanted: Iterable[Wanted]) -> list[Run]:
    """What to ask for, in the artifact's order."""
    by_frame: defaultdict[int, list[Wanted]] = defaultdict(list)
    for each in wanted:
        by_frame[each.frame].append(each)
    runs: list[Run] = []
    for number in sorted(by_frame):
        files = by_frame[number]
        last = max(_last_frame(root, number, file) for file in files)
        if last > number:
            if len(files) > 1:
                raise broken(f"{files[0].row.path!a} and others share frames that go on in the next")
            runs.append(Run(range(number, last + 1), {number: files}, is_big=True))
        elif runs and _fits(root, runs[-1], number):
            before = runs[-1]
            runs[-1] = Run(range(before.frames.start, number + 1), {**before.wanted, number: files})
        else:
            runs.append(Run(range(number, number + 1), {number: files}))
    return runs


def _fits(root: Root, run: Run, number: int) -> bool:
    offsets = root.frame_offsets
    return (
        not run.is_big
        and offsets[number] - offsets[run.frames.stop] <= GAP_BYTES
        and offsets[number + 1] - offsets[run.frames.start] <= RUN_BYTES
    )


def _last_frame(root: Root, number: int, wanted: Wanted) -> int:
    missing = wanted.row.offset + wanted.row.size - root.plain_sizes[number]
    while missing > 0:
        number += 1
        if number >= len(root):
            raise broken(f"{wanted.row.path!a} goes on behind the last frame")
        missing -= root.plain_sizes[number]
    return number


class Delivery:
    """Fetches runs, several at a time, and has their files written.

    Args:
        root: of the build's index.
        buckets: of that index.
        places: where the artifact lies.
        tree: where the files go.
        writers: processes that check, decompress and write frames of small files, or None.
        executor: threads that do the same, of large files at least.
        on_bytes: told how many bytes were received.
        on_files: told of finished files and how they look; called in the loop.
    """

    def __init__(
        self,
        root: Root,
        buckets: Buckets,
        places: Places,
        tree: Tree,
        *,
        writers: Writers | None,
        executor: Executor,
        on_bytes: Callable[[int], None],
        on_files: Callable[[Sequence[Wanted], Sequence[Stat]], None],
    ) -> None:
        self._root = root
        self._buckets = buckets
        self._places = places
        self._tree = tree
        self._writers = writers
        self._big = asyncio.Semaphore(BIG_AT_ONCE)
        self._executor = executor
        self._on_bytes = on_bytes
        self._on_files = on_files

    async def deliver(self, runs: Iterable[Run]) -> None:
        """Fetch and write all. No thread works any more when it returns, raises, or is cancelled.

        After an error, processes may, until their owner has ended them.

        Raises:
            TransientError: the network or the disk.
            ConfigError: the disk.
            ArtifactRejected: the frames are right and do not hold what the index says.
        """
        ahead = iter(runs)
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(IN_FLIGHT):
                    group.create_task(self._fetch(ahead), name=f"fetch-{number}")
        except* HotcoldError as errors:
            raise first_of(errors) from errors

    async def _fetch(self, runs: Iterator[Run]) -> None:
        for run in runs:
            if run.is_big:
                async with self._big:
                    await self._fetch_big(run)
            else:
                await self._fetch_small(run)

    async def _fetch_small(self, run: Run) -> None:
        async def take(number: int, frame: bytes) -> bool:
            wanted = run.wanted.get(number)
            if wanted is None:  # only fetched because it lies between two that are wanted
                return True
            try:
                self._on_files(wanted, await self._written(number, frame, wanted))
            except WrongFrame:
                return False
            return True

        await self._read(run, take)

    async def _written(self, number: int, frame: bytes, wanted: Sequence[Wanted]) -> list[Stat]:
        plain_bytes = self._root.plain_sizes[number]
        data = self._buckets.data[number]
        if self._writers is not None and self._writers.fits(frame, data):
            return await self._writers.write(frame, data, plain_bytes, [each.at for each in wanted])
        bucket, rows = self._buckets.decoded(number), [each.row for each in wanted]
        return await self._in_thread(lambda: written(self._tree, frame, bucket, rows, plain_bytes))

    async def _fetch_big(self, run: Run) -> None:
        [wanted] = run.wanted[run.frames.start]
        file = self._tree.begin_file(wanted.row)
        missing = wanted.row.size

        def add(number: int, frame: bytes) -> bool:
            nonlocal missing
            if not is_right(frame, self._buckets.decoded(number)):
                return False
            offset = wanted.row.offset if number == run.frames.start else 0
            part = decompressed(frame, self._root.plain_sizes[number])[offset : offset + missing]
            file.write(part)
            missing -= len(part)
            return True

        async def take(number: int, frame: bytes) -> bool:
            return await self._in_thread(lambda: add(number, frame))

        try:
            await self._read(run, take)
            self._on_files([wanted], [_finished(file, wanted)])
        except BaseException:
            file.abandon()
            raise

    async def _read(self, run: Run, take: Callable[[int, bytes], Awaitable[bool]]) -> None:
        start, end = self._root.frame_offsets[run.frames.start], self._root.frame_offsets[run.frames.stop]
        frames = _Frames(run.frames, self._root.frame_sizes, on_bytes=self._on_bytes, take=take)
        await self._places.read(lambda url: url, start, end - start, frames)

    async def _in_thread(self, work: Callable[[], _Done]) -> _Done:
        """In a thread, which is waited for even where this is cancelled: it writes into the tree."""
        return await finished(asyncio.get_running_loop().run_in_executor(self._executor, work))


class _Frames:
    """Cuts a run's chunks into frames and has each taken; see `artifact.ranges.Consumer`."""

    def __init__(
        self,
        frames: range,
        sizes: Sequence[int],
        *,
        on_bytes: Callable[[int], None],
        take: Callable[[int, bytes], Awaitable[bool]],
    ) -> None:
        self._frames = iter(frames)
        self._sizes = sizes
        self._on_bytes = on_bytes
        self._take = take
        self.accepted_bytes = 0
        self._next()

    async def consume(self, chunks: AsyncIterator[bytes]) -> None:
        """Take each frame that is complete; return at the first one that is wrong."""
        self._begin()
        async for chunk in chunks:
            self._on_bytes(len(chunk))
            rest = memoryview(chunk)
            while rest and self._number is not None:
                part = rest[: self._missing]
                self._parts.append(part)
                self._missing -= len(part)
                rest = rest[len(part) :]
                if not self._missing:
                    frame = b"".join(self._parts)
                    if not await self._take(self._number, frame):
                        return
                    self.accepted_bytes += len(frame)
                    self._next()

    def _next(self) -> None:
        self._number = next(self._frames, None)
        self._begin()

    def _begin(self) -> None:
        self._missing = 0 if self._number is None else self._sizes[self._number]
        self._parts: list[memoryview] = []


async def finished(work: asyncio.Future[_Done]) -> _Done:
    """Wait for work in a thread to its end, also where the waiting is cancelled, which is then passed on."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def first_of(errors: BaseExceptionGroup[HotcoldError]) -> HotcoldError:
    """The first error of a group of tasks; the others are told about by it."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, HotcoldError)  # noqa: S101 - the group was split by this class
    return error


def _finished(file: NewFile, wanted: Wanted) -> Stat:
    try:
        return file.finish()
    except ContentDiffers:
        raise not_as_said(wanted.row) from None
