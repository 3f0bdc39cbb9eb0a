"""Owns access to an earlier build where the next one is packed: its index, whole, and its files' contents.

What a host does with builds that it has is left to `artifact.table` and `artifact.plan`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import zstandard

from artifact.errors import ConfigError, TransientError
from artifact.fetch import opened
from artifact.index import Bucket, Root, Row, decode_bucket, decode_root, digest_of, located
from artifact.locate import load_manifest, reference
from artifact.manifest import IndexRef, ManifestRef
from artifact.pullwire import PullSettings
from artifact.source import SourceFailed, opened_path
from artifact.urls import index_url


@dataclass(frozen=True)
class Previous:
    """An earlier build, all of whose index is here and whose frames can be read.

    Attributes:
        id: the build.
        root, buckets: its index.
        artifact: the file with its frames.
    """

    id: str
    root: Root
    buckets: tuple[Bucket, ...]
    artifact: Path

    def rows(self) -> dict[bytes, tuple[int, Row]]:
        """Every row by path, with the number of its frame."""
        return {row.path: (number, row) for number, row in located(enumerate(self.buckets))}

    def located_content(self, number: int, row: Row) -> LocatedContent:
        """Where a file's content lies; `row` is of the bucket `number`."""
        spans, missing = [], row.offset + row.size
        while missing > 0 and number < len(self.root):
            spans.append((self.root.frame_offsets[number], self.root.frame_sizes[number]))
            missing -= self.root.plain_sizes[number]
            number += 1
        return LocatedContent(self.artifact, tuple(spans), row)


@dataclass(frozen=True)
class LocatedContent:
    """A file's content in an artifact; to be handed to another process.

    Attributes:
        artifact: the file with the frames.
        frames: offset and size of those that hold the content.
        row: the file's.
    """

    artifact: Path
    frames: tuple[tuple[int, int], ...]
    row: Row

    def read(self) -> bytes:
        """The content.

        Raises:
            ConfigError: kind `artifact_unusable`: the artifact does not hold it.
        """
        try:
            with self.artifact.open("rb") as file:
                plain = b"".join(
                    zstandard.ZstdDecompressor().decompress(os.pread(file.fileno(), size, offset))
                    for offset, size in self.frames
                )
        except (OSError, zstandard.ZstdError) as error:
            raise self._unusable(str(error)) from error
        content = plain[self.row.offset : self.row.offset + self.row.size]
        if hashlib.sha256(content).digest() != self.row.digest:
            raise self._unusable("its content differs from the index")
        return content

    def _unusable(self, problem: str) -> ConfigError:
        return ConfigError(
            f"{os.fsdecode(self.row.path)!a} cannot be taken from {self.artifact} ({problem}): pack without --against, "
            "or against a build whose artifact is whole",
            kind="artifact_unusable",
        )


@contextmanager
def opened_previous(location: str, *, settings: PullSettings | None = None) -> Iterator[Previous]:
    """The build whose manifest lies at `location`, a path or url; what is not a local file is fetched for so long.

    Raises:
        ConfigError: kind `no_index`: it was not packed as `tar.zst` by `hotcold pack`; `artifact_unusable`: index or
            artifact are not what the manifest says.
        TransientError: it cannot be fetched.
    """
    with tempfile.TemporaryDirectory(prefix="hotcold-previous-") as directory:
        yield asyncio.run(_load(location, Path(directory), settings or PullSettings()))


async def _load(location: str, directory: Path, settings: PullSettings) -> Previous:
    manifest, place = await load_manifest(location, settings=settings)
    ref = reference(manifest, place)
    if ref.index is None:
        raise ConfigError(
            f"build {ref.id} has no index: only a build that `hotcold pack` made as tar.zst can be packed against",
            kind="no_index",
        )
    failures = []
    for url in ref.urls:
        try:
            artifact = await _local(url, directory / "artifact", settings)
            data = (await _local(index_url(url), directory / "index", settings)).read_bytes()
        except SourceFailed as failure:
            failures.append(str(failure))
            continue
        return _opened(ref, ref.index, data, artifact)
    raise TransientError(f"build {ref.id} cannot be fetched: {'; and '.join(failures)}", kind="artifact_unreachable")


async def _local(url: str, path: Path, settings: PullSettings) -> Path:
    parts = urlsplit(url)
    if parts.scheme == "file":
        with opened_path(url):
            return Path(unquote(parts.path))
    async with opened(url, settings) as source:
        with path.open("wb") as file:
            while data := await source.chunk():
                file.write(data)
    return path


def _opened(ref: ManifestRef, index: IndexRef, data: bytes, artifact: Path) -> Previous:
    root_data = data[: index.size]
    if digest_of(root_data) != index.digest:
        raise ConfigError(f"the index of build {ref.id} is not the one of its manifest", kind="artifact_unusable")
    root = decode_root(root_data, artifact_bytes=ref.size)
    ends = root.bucket_offsets
    try:
        buckets = tuple(
            decode_bucket(data[ends[number] : ends[number + 1]], digest) for number, digest in enumerate(root.digests)
        )
    except ValueError as error:
        raise ConfigError(f"the index of build {ref.id} is damaged: {error}", kind="artifact_unusable") from error
    return Previous(ref.id, root, buckets, artifact)
