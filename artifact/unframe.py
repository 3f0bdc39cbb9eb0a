"""Owns what is done with one frame: check it, decompress it, write the files that are wholly in it.

Fetching frames is left to `artifact.delivery`, creating files to `artifact.treefill`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import zstandard

from artifact.index import Bucket, Row, broken
from artifact.table import Stat
from artifact.treefill import Tree


def is_right(frame: bytes | memoryview, bucket: Bucket) -> bool:
    """Whether these are the bytes that the bucket speaks of; to be asked before anything else is done with them."""
    return hashlib.sha256(frame).digest() == bucket.frame


def decompressed(frame: bytes | memoryview, plain_bytes: int) -> memoryview:
    """What is in a right frame.

    Raises:
        ArtifactRejected: kind `index_broken`: it is not `plain_bytes` long, or no frame at all.
    """
    try:
        if zstandard.frame_content_size(frame) != plain_bytes:
            raise broken(f"a frame does not have {plain_bytes} bytes")
        return memoryview(zstandard.ZstdDecompressor().decompress(frame))
    except zstandard.ZstdError as error:
        raise broken(f"a frame is no frame ({error})") from error


def written(tree: Tree, frame: bytes | memoryview, bucket: Bucket, rows: Iterable[Row], plain_bytes: int) -> list[Stat]:
    """Write files that are wholly in a frame; how each looks now.

    Raises:
        WrongFrame: these are other bytes; nothing was written.
        ArtifactRejected, TransientError, ConfigError: as `Tree.create_files`, or the frame does not hold them.
    """
    if not is_right(frame, bucket):
        raise WrongFrame
    return tree.create_files(rows, decompressed(frame, plain_bytes))


class WrongFrame(Exception):
    """Other bytes than the index names: another place may have the right ones."""
