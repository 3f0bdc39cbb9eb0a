"""Owns opening an artifact safely: from a byte stream to a finished tree, whatever the format.

Fetching the bytes and checking their digest is left to `artifact.transfer`, the process and its sandbox to
`artifact.opener`, making the tree durable to the swapper.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final

from artifact.decompress import Metered, decompressed
from artifact.diskerrors import disk_error
from artifact.entries import CHUNK_BYTES, Entry, Reader
from artifact.limits import CpuTimeSpent, Limits, Meter
from artifact.tarstream import tar_entries
from artifact.tree import TreeWriter
from artifact.zipentries import zip_entries

_RESERVE_BYTES: Final = 4 << 20
"""Given back when memory runs out, so that there is some to say so."""


def extract(
    stream: Reader,
    archive_format: str,
    into: Path,
    *,
    archive_bytes: int,
    limits: Limits,
    on_entry: Callable[[int], None],
    confine: Callable[[], None] = lambda: None,
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
        confine: called before the first byte is read, when all that lies outside of `into` is open. What it raises is
            passed on. It enforces the limits of memory and CPU time, which are only reported here.

    Raises:
        ArtifactRejected: `archive_broken` (not what its format demands), `archive_hostile` (an entry that no build may
            have), `archive_too_big` (a limit), `archive_unstorable` (names that this file system cannot hold).
        TransientError: `disk_full`, `disk_error`.
        ConfigError: `disk_not_writable`.
    """
    meter = Meter(limits, archive_bytes)
    reserve = bytearray(_RESERVE_BYTES)
    with ExitStack() as opened:
        tree = opened.enter_context(TreeWriter(into, limits, meter, on_entry))
        # Beside the tree, on the file system that has room for builds; /tmp may be small or memory.
        spool = opened.enter_context(_spool(into.parent)) if archive_format == "zip" else None
        confine()
        try:
            if spool is not None:
                _save(stream, spool, into.parent)
                entries = _metered(zip_entries(spool), meter)
            else:
                entries = tar_entries(Metered(decompressed(stream, archive_format), meter))
            for entry in entries:
                tree.add(entry)
            tree.finish()
        except MemoryError as error:
            reserve.clear()
            raise meter.out_of_memory() from error
        except CpuTimeSpent as error:
            raise meter.out_of_time() from error


def _spool(beside: Path) -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(dir=beside, buffering=0)
    except OSError as error:
        raise disk_error(error, beside, "creating a temporary file for the zip archive") from error


def _save(stream: Reader, spool: IO[bytes], beside: Path) -> None:
    while data := stream.read(CHUNK_BYTES):
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[spool.write(rest) :]
        except OSError as error:
            raise disk_error(error, beside, "spooling the zip archive", needed_bytes=len(data)) from error


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
