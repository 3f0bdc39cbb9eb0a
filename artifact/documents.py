"""Owns getting an index: its root and the buckets that this host lacks, from tables, from a patch, or from its place.

What they mean is left to `artifact.index`, what follows from them to `artifact.plan`.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Final

from artifact.contents import Base
from artifact.errors import TransientError
from artifact.index import MAX_ROOT_BYTES, Bucket, Root, broken, decode_bucket, decode_root, digest_of
from artifact.manifest import IndexRef, ManifestRef, PatchRef
from artifact.patch import MAX_PATCH_BYTES, Patch, decode_patch
from artifact.ranges import Places
from artifact.table import Table
from artifact.urls import index_url, patch_url

GAP_BYTES: Final = 8 << 10
"""Buckets that are fetched although they are here, rather than asking twice."""
RUN_BYTES: Final = 2 << 20


class Buckets:
    """The buckets of an index, as bytes and decoded; each is checked before it is used.

    Args:
        root: of the index.
        data: the bytes of each bucket by number; all of them before `decoded` is called for one.
    """

    def __init__(self, root: Root, data: Mapping[int, bytes]) -> None:
        self._root = root
        self.data = data
        self._decoded: dict[int, Bucket] = {}

    def decoded(self, number: int) -> Bucket:
        """One bucket."""
        bucket = self._decoded.get(number)
        if bucket is None:
            bucket = self._decoded[number] = decode_bucket(self.data[number], self._root.digests[number])
        return bucket


async def fetch_patch(places: Places, patch: PatchRef, on_bytes: Callable[[int], None]) -> Patch | None:
    """The patch; None where it cannot be had, is broken or too large: one goes on without."""
    if patch.size > MAX_PATCH_BYTES:
        return None
    try:
        return decode_patch(await fetch_whole(places, lambda url: patch_url(url, patch), patch.size, on_bytes))
    except (TransientError, ValueError):
        return None


async def fetch_whole(
    places: Places, place: Callable[[str], str], size: int, on_bytes: Callable[[int], None] = lambda _: None
) -> bytes:
    """A file of known size, unchecked.

    Raises:
        TransientError: no place has it.
    """
    whole = _Whole(size, on_bytes)
    await places.read(place, 0, size, whole)
    return bytes(whole.data)


async def fetch_root(places: Places, ref: ManifestRef, index: IndexRef, on_bytes: Callable[[int], None]) -> Root:
    """The root, checked.

    Raises:
        TransientError: no place has it.
        ArtifactRejected: kind `index_broken`.
    """
    if index.size > MAX_ROOT_BYTES:
        raise broken(f"its root has {index.size} bytes, and at most {MAX_ROOT_BYTES} are read")
    whole = _Whole(index.size, on_bytes, is_right=lambda data: digest_of(data) == index.digest)
    await places.read(index_url, 0, index.size, whole)
    return decode_root(bytes(whole.data), artifact_bytes=ref.size)


async def gather_buckets(
    places: Places,
    root: Root,
    *,
    own: Table | None,
    bases: Iterable[Base],
    patch: Patch | None,
    on_bytes: Callable[[int], None],
) -> Buckets:
    """Every bucket of the index, fetched where it is not on this host.

    Args:
        places: where the index lies.
        root: of it.
        own: table of the tree that is changed, or None.
        bases: other releases; read only as long as something is missing.
        patch: what brought the root, or None.
        on_bytes: told how many bytes were received.

    Raises:
        TransientError: no place has them.
    """
    data: dict[int, bytes] = {}
    missing = set(range(len(root)))

    def take(digests: Iterable[bytes], buckets: Iterable[bytes]) -> None:
        here = dict(zip(digests, buckets, strict=True))
        for number in missing:
            bucket = here.get(root.digests[number])
            if bucket is not None and hashlib.sha256(bucket).digest() == root.digests[number]:
                data[number] = bucket
        missing.difference_update(data)

    if own is not None:
        take(own.root.digests, own.buckets)
    if patch is not None:
        right = {number: bucket for number, bucket in patch.buckets.items() if number in missing}
        data |= {number: bucket for number, bucket in right.items() if _is_right(bucket, root.digests[number])}
        missing.difference_update(data)
    for base in bases:
        if missing and base.table is not None:
            take(base.table.root.digests, base.table.buckets)
    for run in _runs(root, sorted(missing)):
        start, end = root.bucket_offsets[run.start], root.bucket_offsets[run.stop]
        await places.read(index_url, start, end - start, _BucketRun(root, run, data, on_bytes))
    return Buckets(root, data)


def _is_right(data: bytes, digest: bytes) -> bool:
    try:
        decode_bucket(data, digest)
    except ValueError:
        return False
    return True


def _runs(root: Root, numbers: Sequence[int]) -> list[range]:
    runs: list[range] = []
    offsets = root.bucket_offsets
    for number in numbers:
        if (
            runs
            and offsets[number] - offsets[runs[-1].stop] <= GAP_BYTES
            and offsets[number + 1] - offsets[runs[-1].start] <= RUN_BYTES
        ):
            runs[-1] = range(runs[-1].start, number + 1)
        else:
            runs.append(range(number, number + 1))
    return runs


class _Whole:
    """Takes a range as a whole; accepted when it is right."""

    def __init__(
        self, size: int, on_bytes: Callable[[int], None], is_right: Callable[[bytes], bool] = lambda _: True
    ) -> None:
        self._size = size
        self._on_bytes = on_bytes
        self._is_right = is_right
        self.data = bytearray()
        self.accepted_bytes = 0

    async def consume(self, chunks: AsyncIterator[bytes]) -> None:
        """Take all, or begin again."""
        self.data.clear()
        async for chunk in chunks:
            self._on_bytes(len(chunk))
            self.data += chunk
        if len(self.data) == self._size and self._is_right(bytes(self.data)):
            self.accepted_bytes = self._size


class _BucketRun:
    """Takes buckets that lie behind each other, one by one."""

    def __init__(self, root: Root, numbers: range, data: dict[int, bytes], on_bytes: Callable[[int], None]) -> None:
        self._root = root
        self._ahead = list(reversed(numbers))
        self._data = data
        self._on_bytes = on_bytes
        self.accepted_bytes = 0

    async def consume(self, chunks: AsyncIterator[bytes]) -> None:
        """Take each bucket that is complete; return at the first one that is wrong."""
        buffer = bytearray()
        async for chunk in chunks:
            self._on_bytes(len(chunk))
            buffer += chunk
            while self._ahead and len(buffer) >= self._root.bucket_sizes[self._ahead[-1]]:
                number = self._ahead[-1]
                size = self._root.bucket_sizes[number]
                bucket = bytes(buffer[:size])
                if not _is_right(bucket, self._root.digests[number]):
                    return
                del buffer[:size]
                self._data[number] = bucket
                self._ahead.pop()
                self.accepted_bytes += size
