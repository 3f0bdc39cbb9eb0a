"""Owns patches: what turns the files of one earlier build into a new build's, in one small file. Pure.

Which files are patched is left to `artifact.pack`, using a patch to `artifact.plan`. Nothing rests on a patch: all that
comes out of it is verified against the index.

A blob is a zstd frame whose dictionary is the earlier build's file under the same path, or none: the file is new.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Final

import msgspec
import zstandard

from artifact.index import DIGEST_BYTES, MAX_ROOT_BYTES

MAX_FILE_BYTES: Final = 16 << 20
"""Of a file that is patched: old and new are held in memory at once."""

MAX_PATCH_BYTES: Final = 64 << 20
"""A larger one is not made and not used: a host holds it in memory while it pulls."""

_MAGIC: Final = b"hotcold patch 1\n"
_HEAD: Final = struct.Struct("<Q")
_ROOT_LEVEL: Final = 19
_MAX_WINDOW: Final = 64 << 20


class PatchedFile(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One blob of a patch.

    Attributes:
        bucket, row: which row of the new index it gives the content of.
        has_base: the dictionary is the earlier file of the same path; else there is none.
        size: of the blob.
    """

    bucket: int
    row: int
    has_base: bool
    size: int


class _Head(msgspec.Struct, frozen=True, array_like=True):
    base: bytes
    root: bytes
    buckets: list[tuple[int, bytes]]
    files: list[PatchedFile]


@dataclass(frozen=True)
class Patch:
    """A patch as it was read; nothing of it is verified.

    Attributes:
        base: digest of the earlier build's root.
        buckets: of the new index, those that the earlier one does not have, by number.
        files: what it has contents for.
    """

    base: bytes
    root_delta: bytes
    buckets: dict[int, bytes]
    files: Sequence[PatchedFile]
    data: bytes
    blobs_at: int

    @cached_property
    def _offsets(self) -> Sequence[int]:
        return tuple(accumulate((file.size for file in self.files), initial=self.blobs_at))

    def blob(self, number: int) -> bytes:
        """The blob of `files[number]`."""
        return self.data[self._offsets[number] : self._offsets[number + 1]]

    def root(self, base_root: bytes) -> bytes:
        """The new root's bytes, to be checked against the digest that was ordered; empty where the patch is broken."""
        try:
            return expanded(self.root_delta, base_root, max_bytes=MAX_ROOT_BYTES)
        except ValueError:
            return b""


def encode_patch(
    *,
    base_root: bytes,
    base_digest: bytes,
    root: bytes,
    buckets: Iterable[tuple[int, bytes]],
    files: Sequence[PatchedFile],
    blobs: Iterable[bytes],
) -> bytes:
    """The patch's bytes."""
    head = msgspec.msgpack.encode(
        _Head(base_digest, shrunk(root, base_root, level=_ROOT_LEVEL), list(buckets), list(files))
    )
    return b"".join((_MAGIC, _HEAD.pack(len(head)), head, *blobs))


def decode_patch(data: bytes) -> Patch:
    """Read a patch.

    Raises:
        ValueError: it is broken; hosts go on without it.
    """
    head_at = len(_MAGIC) + _HEAD.size
    if len(data) < head_at or not data.startswith(_MAGIC):
        raise ValueError("not a patch of a version that this hotcold reads")
    (head_bytes,) = _HEAD.unpack_from(data, len(_MAGIC))
    blobs_at = head_at + head_bytes
    try:
        head = msgspec.msgpack.decode(memoryview(data)[head_at:blobs_at], type=_Head)
    except msgspec.DecodeError as error:
        raise ValueError(f"its head is broken ({error})") from error
    if len(head.base) != DIGEST_BYTES or any(file.size < 0 for file in head.files):
        raise ValueError("its head is broken")
    if blobs_at + sum(file.size for file in head.files) != len(data):
        raise ValueError(f"it has {len(data)} bytes, and its head speaks of others")
    return Patch(head.base, head.root, dict(head.buckets), head.files, data, blobs_at)


def shrunk(data: bytes, base: bytes, *, level: int) -> bytes:
    """`data` as a zstd frame whose dictionary is `base`, if that is not empty."""
    # The window must reach back over the whole dictionary, or what lies far back in it is never found.
    window_log = max(10, (len(data) + len(base)).bit_length())
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=len(data), dict_size=len(base), window_log=min(window_log, 26), write_content_size=True
    )
    compressor = zstandard.ZstdCompressor(dict_data=_dictionary(base), compression_params=parameters)
    return compressor.compress(data)


def expanded(blob: bytes, base: bytes, *, max_bytes: int) -> bytes:
    """The reverse of `shrunk`.

    Raises:
        ValueError: the blob is broken, needs another dictionary, or gives more than `max_bytes`.
    """
    try:
        size = zstandard.frame_content_size(blob)
        if not 0 <= size <= max_bytes:
            raise ValueError(f"a blob gives {size} bytes where at most {max_bytes} are wanted")
        decompressor = zstandard.ZstdDecompressor(dict_data=_dictionary(base), max_window_size=_MAX_WINDOW)
        return decompressor.decompress(blob)
    except zstandard.ZstdError as error:
        raise ValueError(f"a blob is broken ({error})") from error


def _dictionary(base: bytes) -> zstandard.ZstdCompressionDict | None:
    return zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if base else None
