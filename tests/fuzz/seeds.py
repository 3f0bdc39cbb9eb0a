"""Owns the inputs from which fuzzing begins: sound ones, and the small ones of the corpus of hostile archives."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import zstandard

from artifact.index import Kind, Row, encode_bucket, encode_root
from artifact.patch import PatchedFile, encode_patch, shrunk
from tests.fuzz.targets import BASE
from tests.hostile import FAMILIES

FORMATS_PAGE = Path(__file__).parents[2] / "docs" / "formats.md"


def seeds(target: str, max_bytes: int) -> Iterator[bytes]:
    """Inputs for one target, none longer than `max_bytes`."""
    return (data for data in _any_size(target) if len(data) <= max_bytes)


def _any_size(target: str) -> Iterator[bytes]:
    row = Row(b"d/f", Kind.FILE, 0o644, 1_700_000_000, 9, bytes(32), 512)
    bucket = encode_bucket(bytes(32), [row, Row(b"l", Kind.SYMLINK, 0o777, 0, 0, bytes(32), 0, b"d/f")])
    root = encode_root(
        entries=2,
        content_bytes=9,
        frame_sizes=[100],
        plain_sizes=[2048],
        bucket_sizes=[len(bucket)],
        digests=[bytes(range(32))],
    )
    match target:
        case "manifest":
            yield from (
                found.encode() for found in re.findall(r"```json\n(.*?)```", FORMATS_PAGE.read_text(), re.DOTALL)
            )
        case "index-root":
            yield root
        case "index-bucket":
            yield bucket
            yield zstandard.decompress(bucket)
        case "patch":
            blob = shrunk(BASE + b"and more", BASE, level=3)
            yield encode_patch(
                base_root=BASE,
                base_digest=bytes(32),
                root=root,
                buckets=[(0, bucket)],
                files=[PatchedFile(0, 0, has_base=True, size=len(blob))],
                blobs=[blob],
            )
        case _:
            for family in FAMILIES:
                if not family.name.startswith("bombs"):
                    yield from (case.make() for case in family.cases if case.archive_format == target)
