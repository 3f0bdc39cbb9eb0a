"""Owns the index of an artifact that we made: its root, its buckets of rows, and what their bytes must be. Pure.

Making one is left to `artifact.frames` and `artifact.pack`, reading it from servers to `artifact.documents`, using it
to `artifact.plan`. docs/formats.md describes the bytes, so that others can read and write them.

The chain of trust: an order names the root's digest, the root each bucket's, a bucket its frame's and each file's.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import accumulate
from typing import Annotated, Final

import msgspec
import zstandard
from msgspec import Meta

from artifact.errors import ArtifactRejected

VERSION: Final = 1
DIGEST_BYTES: Final = 32
MAX_ROOT_BYTES: Final = 64 << 20
"""A million frames: far more than a build has, and little enough to be read at once."""
MAX_FRAME_BYTES: Final = 8 << 20
"""Of a frame, decompressed: what one worker holds in memory."""
MAX_BUCKET_BYTES: Final = 16 << 20
"""Of a bucket, decompressed."""

MIN_SECONDS: Final = -(1 << 31)
MAX_SECONDS: Final = (1 << 34) - 1
"""Modification times that every file system takes lie between 1901 and 2514."""

_LEVEL: Final = 3  # of buckets: half of them are digests, which no level compresses
_WORDS: Final = "I"


class Kind(IntEnum):
    """What a row describes."""

    FILE = 0
    DIRECTORY = 1
    SYMLINK = 2


_Mode = Annotated[int, Meta(ge=0, le=0o777)]
_Seconds = Annotated[int, Meta(ge=MIN_SECONDS, le=MAX_SECONDS)]
_Count = Annotated[int, Meta(ge=0, lt=1 << 48)]
_Digest = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry of the tree.

    Attributes:
        path: below the tree's root, `/` between components, no `.` or `..`; bytes, as Linux has them.
        kind: a `Kind`.
        mode: permission bits; of a symbolic link 0o777.
        mtime_s: modification time, whole seconds since the epoch.
        size: of the content in bytes; 0 unless a file.
        digest: SHA-256 of the content; zeros unless a file.
        offset: of the content in the frame's decompressed bytes; what does not fit goes on at the start of the next.
        target: of a symbolic link, else empty.
    """

    path: Annotated[bytes, Meta(min_length=1, max_length=4096)]
    kind: Annotated[int, Meta(ge=0, le=2)]
    mode: _Mode
    mtime_s: _Seconds
    size: _Count
    digest: _Digest
    offset: _Count
    target: bytes = b""


class Bucket(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The rows of one frame, in the frame's order.

    Attributes:
        frame: SHA-256 of the frame as it lies in the artifact.
        rows: of the entries whose headers are in the frame.
    """

    frame: _Digest
    rows: list[Row]


class _RootDocument(msgspec.Struct, frozen=True, array_like=True):
    v: int
    entries: _Count
    content_bytes: _Count
    frame_sizes: bytes
    plain_sizes: bytes
    bucket_sizes: bytes
    digests: bytes


@dataclass(frozen=True)
class Root:
    """The first part of an index: one frame and one bucket each, by number.

    Attributes:
        entries: rows in all buckets.
        content_bytes: of all files.
        frame_sizes: bytes of each frame in the artifact, where one follows the other.
        plain_sizes: bytes of each frame, decompressed.
        bucket_sizes: bytes of each bucket in the index file, where they follow the root.
        digests: SHA-256 of each bucket as it lies in the index file.
        data: the root's own bytes.
    """

    entries: int
    content_bytes: int
    frame_sizes: Sequence[int]
    plain_sizes: Sequence[int]
    bucket_sizes: Sequence[int]
    digests: tuple[bytes, ...]
    data: bytes

    def __len__(self) -> int:
        """How many frames, and how many buckets."""
        return len(self.digests)

    @cached_property
    def frame_offsets(self) -> Sequence[int]:
        """Where each frame begins in the artifact; one more, its end."""
        return (0, *accumulate(self.frame_sizes))

    @cached_property
    def bucket_offsets(self) -> Sequence[int]:
        """Where each bucket begins in the index file; one more, its end."""
        return tuple(accumulate(self.bucket_sizes, initial=len(self.data)))

    @cached_property
    def digest(self) -> str:
        """As in an `IndexRef`."""
        return digest_of(self.data)


def digest_of(data: bytes) -> str:
    """SHA-256 as documents carry it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def encode_bucket(frame: bytes, rows: Sequence[Row]) -> bytes:
    """The bucket's bytes in the index file."""
    data = msgspec.msgpack.encode(Bucket(frame, list(rows)))
    return zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(data)


def encode_root(
    *,
    entries: int,
    content_bytes: int,
    frame_sizes: Iterable[int],
    plain_sizes: Iterable[int],
    bucket_sizes: Iterable[int],
    digests: Iterable[bytes],
) -> bytes:
    """The root's bytes."""
    return msgspec.msgpack.encode(
        _RootDocument(
            VERSION,
            entries,
            content_bytes,
            _packed(frame_sizes),
            _packed(plain_sizes),
            _packed(bucket_sizes),
            b"".join(digests),
        )
    )


def decode_root(data: bytes, *, artifact_bytes: int | None = None) -> Root:
    """Decode a root whose digest was checked.

    Args:
        data: its bytes.
        artifact_bytes: size of the artifact that it must describe, None: unknown.

    Raises:
        ArtifactRejected: kind `index_broken`.
    """
    try:
        document = msgspec.msgpack.decode(data, type=_RootDocument)
    except msgspec.DecodeError as error:
        raise broken(f"its root is no root ({error})") from error
    if document.v != VERSION:
        raise broken(f"it has version {document.v}; this hotcold reads version {VERSION}: upgrade it")
    count = len(document.digests) // DIGEST_BYTES
    frames, plain, buckets = map(_unpacked, (document.frame_sizes, document.plain_sizes, document.bucket_sizes))
    if len(document.digests) % DIGEST_BYTES or not len(frames) == len(plain) == len(buckets) == count:
        raise broken("its root names different numbers of frames, buckets and digests")
    if max(plain, default=0) > MAX_FRAME_BYTES or max(frames, default=0) > _compressed_bound(MAX_FRAME_BYTES):
        raise broken(f"a frame is larger than {MAX_FRAME_BYTES} bytes")
    if max(buckets, default=0) > _compressed_bound(MAX_BUCKET_BYTES):
        raise broken(f"a bucket is larger than {MAX_BUCKET_BYTES} bytes")
    if 0 in frames or 0 in buckets:
        raise broken("a frame or a bucket has no bytes")
    if artifact_bytes is not None and sum(frames) != artifact_bytes:
        raise broken(f"its frames make {sum(frames)} bytes, the artifact has {artifact_bytes}")
    digests = tuple(document.digests[at : at + DIGEST_BYTES] for at in range(0, len(document.digests), DIGEST_BYTES))
    return Root(document.entries, document.content_bytes, frames, plain, buckets, digests, data)


_BUCKET: Final = msgspec.msgpack.Decoder(Bucket)


def decode_bucket(data: bytes, digest: bytes) -> Bucket:
    """Check and decode a bucket; nothing of it is decompressed before its digest is right.

    Raises:
        ArtifactRejected: kind `index_broken`: right by its digest, and not a bucket.
        ValueError: other bytes than the root names; another place may have the right ones.
    """
    if hashlib.sha256(data).digest() != digest:
        raise ValueError("other bytes than the index's root names")
    return read_bucket(data)


def read_bucket(data: bytes | memoryview) -> Bucket:
    """Decode a bucket whose digest was checked.

    Raises:
        ArtifactRejected: kind `index_broken`.
    """
    try:
        if zstandard.frame_content_size(data) not in range(1, MAX_BUCKET_BYTES + 1):
            raise broken(f"a bucket is empty, of unknown size, or larger than {MAX_BUCKET_BYTES} bytes")
        return _BUCKET.decode(zstandard.ZstdDecompressor().decompress(data))
    except (zstandard.ZstdError, msgspec.DecodeError) as error:
        raise broken(f"a bucket is no bucket ({error})") from error


def located(buckets: Iterable[tuple[int, Bucket]]) -> Iterator[tuple[int, Row]]:
    """Every row with the number of its frame."""
    for number, bucket in buckets:
        for row in bucket.rows:
            yield number, row


def broken(problem: str) -> ArtifactRejected:
    """The error for an index that its author got wrong: its digest is right."""
    return ArtifactRejected(f"the artifact's index is broken: {problem}", kind="index_broken")


def _compressed_bound(size: int) -> int:
    """What zstd makes at most of `size` bytes."""
    return size + (size >> 8) + 128


def _packed(numbers: Iterable[int]) -> bytes:
    words = array(_WORDS, numbers)
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()


def _unpacked(data: bytes) -> Sequence[int]:
    words = array(_WORDS)
    if len(data) % words.itemsize:
        raise broken("its root has a list of sizes that is cut")
    words.frombytes(data)
    if sys.byteorder == "big":
        words.byteswap()
    return words
