"""Owns one attempt at one url: receive, hash and open an artifact at the same time.

Reading urls is left to `artifact.fetch`, opening to `artifact.extract`, the choice of the url to `artifact.puller`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

from artifact.errors import ArtifactRejected
from artifact.extract import extract
from artifact.fetch import Source, SourceFailed, opened, shown
from artifact.handover import Handover, HandoverAborted
from artifact.manifest import ManifestRef
from artifact.pullwire import Progress, PullSettings


async def transfer(
    ref: ManifestRef, url: str, into: Path, *, settings: PullSettings, on_progress: Callable[[Progress], None]
) -> None:
    """Fill the empty directory `into` from `url`.

    The opening thread sees the artifact's end only when size and digest are right, so that a wrong artifact gets no
    links and no final modes. It has ended when this returns or raises, cancellation included.

    Raises:
        SourceFailed: the url does not give the artifact that `ref` names: `size_mismatch`, `truncated`,
            `digest_mismatch`, or what `artifact.fetch` says.
        ArtifactRejected: it does, digest and all, and the archive must not be opened: no other url can help.
        TransientError, ConfigError: the disk, as in `artifact.extract`; no other url can help.
    """
    loop = asyncio.get_running_loop()
    handover = Handover(loop)
    files_done = 0

    def count_files(count: int) -> None:
        nonlocal files_done
        files_done = count

    def report(received_bytes: int) -> None:
        on_progress(Progress(bytes_done=received_bytes, bytes_total=ref.size, files_done=files_done, url=shown(url)))

    def open_archive() -> None:
        extract(handover, ref.format, into, archive_bytes=ref.size, limits=settings.limits, on_entry=count_files)

    opening = loop.run_in_executor(None, open_archive)
    opening.add_done_callback(lambda _: handover.discard())
    try:
        async with opened(url, settings) as source:
            await _receive(ref, url, source, handover=handover, opening=opening, report=report)
    except BaseException:
        handover.abort()
        await _settled(opening)
        raise
    handover.finish()
    await opening
    report(ref.size)


async def _receive(
    ref: ManifestRef,
    url: str,
    source: Source,
    *,
    handover: Handover,
    opening: asyncio.Future[None],
    report: Callable[[int], None],
) -> None:
    if source.size_bytes not in (None, ref.size):
        raise _size_mismatch(url, ref, f"{source.size_bytes} bytes")
    digest = hashlib.sha256()
    received_bytes = 0
    while data := await source.chunk():
        received_bytes += len(data)
        if received_bytes > ref.size:
            raise _size_mismatch(url, ref, "more")
        digest.update(data)
        await handover.put(data)
        report(received_bytes)
        _raise_local_failure(opening)
    if received_bytes < ref.size:
        raise SourceFailed(
            f"{shown(url)} ended after {received_bytes} of {ref.size} bytes: upload the artifact again",
            kind="truncated",
        )
    got = f"sha256:{digest.hexdigest()}"
    if got != ref.digest:
        raise SourceFailed(
            f"{shown(url)} gave other bytes than build {ref.id}: expected {ref.digest}, got {got}; "
            "upload the artifact again, and never change one that was published",
            kind="digest_mismatch",
        )


def _raise_local_failure(opening: asyncio.Future[None]) -> None:
    """Stop at once where the disk failed; read on where the archive was refused.

    Only the digest of the whole tells whether the build itself is bad, or this url gave something else.
    """
    if not opening.done():
        return
    error = opening.exception()
    if error is not None and not isinstance(error, ArtifactRejected):
        raise error


async def _settled(opening: asyncio.Future[None]) -> None:
    try:
        await opening
    except (HandoverAborted, ArtifactRejected):
        return


def _size_mismatch(url: str, ref: ManifestRef, got: str) -> SourceFailed:
    return SourceFailed(
        f"{shown(url)} has another size than build {ref.id}: expected {ref.size} bytes, got {got}; "
        "upload the artifact again, and never change one that was published",
        kind="size_mismatch",
    )
