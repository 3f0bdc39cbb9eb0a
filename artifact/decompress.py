"""Owns turning a compressed stream into the tar stream inside it; leaves limits to `limits`, tar to `tarstream`."""

from __future__ import annotations

import zlib
from typing import IO, Final, cast

import zstandard

from artifact.entries import CHUNK_BYTES, Reader, broken
from artifact.limits import Meter

MAX_ZSTD_WINDOW_BYTES: Final = 128 << 20
"""Memory that a zstd archive may ask of a host; what `zstd --long=27` writes and `zstd -d` reads by default."""

_ZSTD_OUT_OF_MEMORY: Final = "not enough memory"
_GZIP: Final = 16 + zlib.MAX_WBITS


def decompressed(stream: Reader, archive_format: str) -> Reader:
    """The tar stream inside `stream`, for the formats `tar`, `tar.gz` and `tar.zst`.

    Its `read` raises ArtifactRejected (kind `archive_broken`) where the compression is broken.
    """
    match archive_format:
        case "tar.gz":
            return _Gunzip(stream)
        case "tar.zst":
            return _Unzstd(stream)
        case _:
            return stream


class Metered:
    """Counts what it hands on, so that no limit is passed before the bytes are written."""

    def __init__(self, stream: Reader, meter: Meter) -> None:
        self._stream = stream
        self._meter = meter

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size`.

        Raises:
            ArtifactRejected: kind `archive_too_big`, or what the stream under it raises.
        """
        data = self._stream.read(size)
        self._meter.expanded(len(data))
        return data


class _Gunzip:
    """One gzip member after the other, as `cat a.gz b.gz` and `pigz -i` write them; zlib checks CRC and length."""

    def __init__(self, stream: Reader) -> None:
        self._stream = stream
        self._member = zlib.decompressobj(_GZIP)
        self._compressed = b""
        self._at_member_start = True
        self._seen_member = False

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size`: the rest of the compressed ones waits, so that no bomb fills the memory."""
        while True:
            self._compressed = self._compressed or self._stream.read(CHUNK_BYTES)
            if self._at_member_start and self._seen_member:
                self._compressed = self._compressed.lstrip(b"\0")  # padding to a block or tape record is legal
                if not self._compressed:
                    padding = self._stream.read(CHUNK_BYTES)
                    if not padding:
                        return b""
                    self._compressed = padding
                    continue
            if not self._compressed:
                raise broken("the gzip data ends early: upload it again, and check that packing ended well")
            data = self._inflate(size)
            if data:
                return data

    def _inflate(self, size: int) -> bytes:
        try:
            data = self._member.decompress(self._compressed, size)
        except zlib.error as error:
            raise broken(f"not sound gzip data ({error}): is it really a .tar.gz?") from error
        self._at_member_start = False
        self._compressed = self._member.unconsumed_tail
        if self._member.eof:
            self._compressed = self._member.unused_data
            self._member = zlib.decompressobj(_GZIP)
            self._at_member_start = self._seen_member = True
        return data


class _Unzstd:
    """One zstd frame after the other. A cut in the last frame shows as the tar stream's missing end."""

    def __init__(self, stream: Reader) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW_BYTES)
        self._frames = decompressor.stream_reader(
            # The stubs ask for a whole IO, the code calls `read(size)` alone.
            cast(IO[bytes], stream),
            read_size=CHUNK_BYTES,
            read_across_frames=True,
            closefd=False,
        )

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size`."""
        try:
            return self._frames.read(size)
        except zstandard.ZstdError as error:
            if _ZSTD_OUT_OF_MEMORY in str(error):
                raise MemoryError from error  # this host's limit, no fault of the data
            raise broken(
                f"not sound zstd data ({error}): is it really a .tar.zst, packed with a window of at most "
                f"{MAX_ZSTD_WINDOW_BYTES >> 20} MiB?"
            ) from error
