"""Owns packing a tree as frames on all cores: frames in their order to the artifact, then the index, then a patch.

How a frame is made is left to `artifact.frames`, what a patch is to `artifact.patch`, file names to `artifact.pack`.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol, TypeVar

from artifact.frames import Frame, FrameMaker, cut
from artifact.index import Kind, Row, encode_root
from artifact.patch import MAX_FILE_BYTES, MAX_PATCH_BYTES, PatchedFile, encode_patch, shrunk
from artifact.previous import LocatedContent, Previous
from artifact.scan import Found
from artifact.tarwrite import unchanged_content

_WORTH_PROCESSES_BYTES: Final = 16 << 20
"""A smaller tree is packed before other processes would have started."""
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
        rows: the rows of each bucket.
    """

    def __init__(self) -> None:
        self.root = b""
        self.buckets: list[bytes] = []
        self.rows: list[list[Row]] = []
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
        self.rows.append(frame.rows)

    def finish(self) -> None:
        """Make the root."""
        self.root = encode_root(
            entries=sum(map(len, self.rows)),
            content_bytes=self._content_bytes,
            frame_sizes=self._frame_sizes,
            plain_sizes=self._plain_sizes,
            bucket_sizes=map(len, self.buckets),
            digests=(hashlib.sha256(bucket).digest() for bucket in self.buckets),
        )


class Workers:
    """Calls module-level functions in other processes, or here where that is not worth it; results in order."""

    def __init__(self, executor: ProcessPoolExecutor | None, count: int) -> None:
        self._executor = executor
        self._count = count

    def map(self, work: Callable[..., _Done], jobs: Iterable[tuple[object, ...]]) -> Iterator[_Done]:
        """`work(*job)` of each job, in the order of the jobs."""
        if self._executor is None:
            yield from (work(*job) for job in jobs)
            return
        pending: deque[Future[_Done]] = deque()
        for job in jobs:
            pending.append(self._executor.submit(work, *job))
            if len(pending) >= self._count * _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@contextmanager
def workers_for(found: Sequence[Found], count: int | None = None) -> Iterator[Workers]:
    """Workers for a tree.

    Args:
        found: its entries.
        count: of processes, None: one for each core.
    """
    count = count or len(os.sched_getaffinity(0))
    if count == 1 or sum(entry.size for entry in found) < _WORTH_PROCESSES_BYTES:
        yield Workers(None, 1)
        return
    # Not forked from here: the caller may have threads, such as one that draws progress.
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as executor:
        try:
            yield Workers(executor, count)
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise


def frame_tree(
    tree: Path,
    found: Sequence[Found],
    sink: Sink,
    *,
    level: int,
    newest_s: int | None,
    previous: Previous | None,
    workers: Workers,
    on_group: Callable[[Sequence[Found]], None],
) -> Framed:
    """Write the tree's frames to `sink`.

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
    for number, (bucket, rows) in enumerate(zip(framed.buckets, framed.rows, strict=True)):
        if hashlib.sha256(bucket).digest() in known:
            continue
        buckets.append((number, bucket))
        for at, row in enumerate(rows):
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


def _make(
    tree: Path, level: int, newest_s: int | None, group: Sequence[Found], former: Mapping[bytes, Row]
) -> list[Frame]:
    return FrameMaker(tree, level=level, newest_s=newest_s).make(group, former)


def _shrink(tree: Path, entry: Found, base: LocatedContent | None) -> bytes:
    content = b"".join(unchanged_content(tree, entry, MAX_FILE_BYTES))
    return shrunk(content, b"" if base is None else base.read(), level=_PATCH_LEVEL)
