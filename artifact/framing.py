"""Owns packing a tree as frames on all cores: frames in their order to the artifact, then the index, then a patch.

How a frame is made is left to `artifact.frames`, what a patch is to `artifact.patch`, file names to `artifact.pack`.
"""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Final, Protocol, Self, TypeVar

from artifact.allocation import keep_freed_memory
from artifact.frames import Frame, FrameMaker, cut
from artifact.index import Kind, Row, decode_bucket, encode_root
from artifact.patch import MAX_FILE_BYTES, MAX_PATCH_BYTES, PatchedFile, encode_patch, shrunk
from artifact.previous import LocatedContent, Previous
from artifact.scan import Found
from artifact.tarwrite import unchanged_content

WORTH_PROCESSES: Final = 16
"""Fewer jobs, of some hundred KiB each, are done before other processes would have started."""
_AHEAD: Final = 4
"""Groups under way for each process: enough to keep it busy, few enough to hold in memory."""
_PATCH_LEVEL: Final = 9

_Done = TypeVar("_Done")


class Sink(Protocol):
    """Where the artifact's bytes go."""

    def write(self, data: bytes, /) -> int:
        """Write all of `data`."""


class Framed:
    """What `frame_tree` wrote.

    Attributes:
        root: the root's bytes.
        buckets: each bucket's bytes.
    """

    def __init__(self) -> None:
        self.root = b""
        self.buckets: list[bytes] = []
        self._entries = 0
        self._frame_sizes: list[int] = []
        self._plain_sizes: list[int] = []
        self._content_bytes = 0

    @property
    def artifact_bytes(self) -> int:
        """Of all frames."""
        return sum(self._frame_sizes)

    def add(self, frame: Frame) -> None:
        """Take the next frame into the index."""
        self._frame_sizes.append(len(frame.data))
        self._plain_sizes.append(frame.plain_bytes)
        self._content_bytes += frame.content_bytes
        self.buckets.append(frame.bucket)
        self._entries += frame.entries

    def finish(self) -> None:
        """Make the root."""
        self.root = encode_root(
            entries=self._entries,
            content_bytes=self._content_bytes,
            frame_sizes=self._frame_sizes,
            plain_sizes=self._plain_sizes,
            bucket_sizes=map(len, self.buckets),
            digests=(hashlib.sha256(bucket).digest() for bucket in self.buckets),
        )


class Workers:
    """Calls module-level functions in other processes, or here where that is not worth it; results in order.

    To be closed, as a context manager.

    Args:
        count: of processes, None: one for each core.
    """

    def __init__(self, count: int | None = None) -> None:
        self._count = count or len(os.sched_getaffinity(0))
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=kind is not None)

    def map(self, work: Callable[..., _Done], jobs: Iterable[tuple[object, ...]]) -> Iterator[_Done]:
        """`work(*job)` of each job, in the order of the jobs."""
        ahead = iter(jobs)
        first = list(islice(ahead, WORTH_PROCESSES))
        if self._count == 1 or len(first) < WORTH_PROCESSES:
            yield from (work(*job) for job in chain(first, ahead))
            return
        if self._executor is None:
            # Not forked from here: the caller may have threads, such as one that draws progress.
            self._executor = ProcessPoolExecutor(
                self._count, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare
            )
        pending: deque[Future[_Done]] = deque()
        for job in chain(first, ahead):
            pending.append(self._executor.submit(work, *job))
            while len(pending) >= self._count * _AHEAD or (pending and pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def frame_tree(
    tree: Path,
    found: Iterable[Found],
    sink: Sink,
    *,
    level: int,
    newest_s: int | None,
    previous: Previous | None,
    workers: Workers,
    on_group: Callable[[Sequence[Found]], None],
) -> Framed:
    """Write the tree's frames to `sink`; `on_group` is told what they hold.

    Raises:
        ConfigError, TransientError: as `FrameMaker.make`.
    """
    former = {} if previous is None else {row.path: row for bucket in previous.buckets for row in bucket.rows}
    framed = Framed()
    groups: deque[Sequence[Found]] = deque()

    def jobs() -> Iterator[tuple[object, ...]]:
        for group in cut(found):
            groups.append(group)
            paths = (os.fsencode(entry.name) for entry in group) if former else ()
            yield tree, level, newest_s, group, {path: former[path] for path in paths if path in former}

    for frames in workers.map(_make, jobs()):
        for frame in frames:
            sink.write(frame.data)
            framed.add(frame)
        on_group(groups.popleft())
    end = FrameMaker(tree, level=level, newest_s=newest_s).make_end()
    sink.write(end.data)
    framed.add(end)
    framed.finish()
    return framed


def make_patch(
    tree: Path, found: Sequence[Found], framed: Framed, previous: Previous, *, workers: Workers
) -> bytes | None:
    """The patch from `previous` to what was framed; None where it would be no use.

    Of no use is one that is not smaller than half of the artifact, or larger than `MAX_PATCH_BYTES`.

    Raises:
        ConfigError: kind `artifact_unusable` or `tree_changed`.
    """
    before = previous.rows()
    known = frozenset(previous.root.digests)
    entries = {os.fsencode(entry.name): entry for entry in found}
    files: list[tuple[int, int, bool]] = []
    jobs: list[tuple[object, ...]] = []
    buckets = []
    for number, bucket in enumerate(framed.buckets):
        digest = hashlib.sha256(bucket).digest()
        if digest in known:
            continue
        buckets.append((number, bucket))
        for at, row in enumerate(decode_bucket(bucket, digest).rows):
            old = before.get(row.path)
            is_same = old is not None and old[1].digest == row.digest
            if row.kind != Kind.FILE or is_same or row.size > MAX_FILE_BYTES:
                continue
            if old is not None and (old[1].kind != Kind.FILE or not 0 < old[1].size <= MAX_FILE_BYTES):
                old = None
            files.append((number, at, old is not None))
            jobs.append((tree, entries[row.path], previous.located_content(*old) if old else None))
    blobs = list(workers.map(_shrink, jobs))
    patch = encode_patch(
        base_root=previous.root.data,
        base_digest=bytes.fromhex(previous.root.digest.removeprefix("sha256:")),
        root=framed.root,
        buckets=buckets,
        files=[PatchedFile(*file, size=len(blob)) for file, blob in zip(files, blobs, strict=True)],
        blobs=blobs,
    )
    return patch if len(patch) * 2 < framed.artifact_bytes and len(patch) <= MAX_PATCH_BYTES else None


def _prepare() -> None:
    keep_freed_memory()
    gc.disable()  # there are no cycles in what is made here


def _make(
    tree: Path, level: int, newest_s: int | None, group: Sequence[Found], former: Mapping[bytes, Row]
) -> list[Frame]:
    return FrameMaker(tree, level=level, newest_s=newest_s).make(group, former)


def _shrink(tree: Path, entry: Found, base: LocatedContent | None) -> bytes:
    content = b"".join(unchanged_content(tree, entry, MAX_FILE_BYTES))
    return shrunk(content, b"" if base is None else base.read(), level=_PATCH_LEVEL)
