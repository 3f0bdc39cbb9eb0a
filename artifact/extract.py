"""Owns opening an artifact safely: from a byte stream to a finished tree, whatever the format.

Fetching the bytes and checking their digest is left to `artifact.transfer`, making the tree durable to the swapper.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from artifact.decompress import Metered, decompressed
from artifact.diskerrors import disk_error
from artifact.entries import CHUNK_BYTES, Entry, Reader
from artifact.limits import Limits, Meter
from artifact.tarstream import tar_entries
from artifact.tree import TreeWriter
from artifact.zipentries import zip_entries


def extract(
    stream: Reader,
    archive_format: str,
    into: Path,
    *,
    archive_bytes: int,
    limits: Limits,
    on_entry: Callable[[int], None],
) -> None:
    """Fill the existing empty directory `into` with the archive's entries.

    Blocks. Reads `stream` to its end before it creates the first symbolic link or gives a directory its final mode:
    a caller that withholds the end until the digest is known leaves nothing finished that is not what was asked for.
    What remains after an error is unspecified, but lies within `into` alone and its directories are writable.

    Args:
        stream: the artifact's bytes. What its `read` raises is passed on.
        archive_format: one of `artifact.FORMATS`.
        into: the directory to fill.
        archive_bytes: size of the whole artifact, against which the expansion ratio is judged.
        limits: what the archive may become.
        on_entry: called after each entry with the number of entries so far.

    Raises:
        ArtifactRejected: `archive_broken` (not what its format demands), `archive_hostile` (an entry that no build may
            have), `archive_too_big` (a limit), `archive_unstorable` (names that this file system cannot hold).
        TransientError: `disk_full`, `disk_error`.
        ConfigError: `disk_not_writable`.
    """
    meter = Meter(limits, archive_bytes)
    if archive_format == "zip":
        _extract_zip(stream, into, limits, meter, on_entry)
    else:
        tar = Metered(decompressed(stream, archive_format), meter)
        _fill(tar_entries(tar), into, limits, meter, on_entry)


def _fill(entries: Iterable[Entry], into: Path, limits: Limits, meter: Meter, on_entry: Callable[[int], None]) -> None:
    with TreeWriter(into, limits, meter, on_entry) as tree:
        for entry in entries:
            tree.add(entry)
        tree.finish()


def _extract_zip(stream: Reader, into: Path, limits: Limits, meter: Meter, on_entry: Callable[[int], None]) -> None:
    """Spool beside the tree, on the file system that has room for builds; /tmp may be small or memory."""
    beside = into.parent
    try:
        spool = tempfile.TemporaryFile(dir=beside, buffering=0)  # noqa: SIM115 - creating it may fail otherwise than using it
    except OSError as error:
        raise disk_error(error, beside, "creating a temporary file for the zip archive") from error
    with spool:
        while data := stream.read(CHUNK_BYTES):
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[spool.write(rest) :]
            except OSError as error:
                raise disk_error(error, beside, "spooling the zip archive", needed_bytes=len(data)) from error
        _fill(_metered(zip_entries(spool), meter), into, limits, meter, on_entry)


def _metered(entries: Iterable[Entry], meter: Meter) -> Iterable[Entry]:
    """Count a zip's content as it expands: overlapping entries count once for each name, as they are written."""
    for entry in entries:
        yield Entry(
            name=entry.name,
            kind=entry.kind,
            mode=entry.mode,
            mtime_ns=entry.mtime_ns,
            size=entry.size,
            target=entry.target,
            content=_counted(entry.content, meter),
        )


def _counted(chunks: Iterable[bytes], meter: Meter) -> Iterable[bytes]:
    for chunk in chunks:
        meter.expanded(len(chunk))
        yield chunk
