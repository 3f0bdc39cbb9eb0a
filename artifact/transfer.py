"""Owns one attempt at one url: receive and hash an artifact, and hand it on to be opened at the same time.

Reading urls is left to `artifact.fetch`, the process that opens to `artifact.opening`, the choice of the url to
`artifact.puller`.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from contextlib import suppress

from artifact.errors import HotcoldError
from artifact.fetch import Source, opened
from artifact.manifest import ManifestRef
from artifact.opening import Opening, blames_archive
from artifact.pace import Pace
from artifact.pullwire import Progress, PullSettings
from artifact.source import SourceFailed
from artifact.urls import shown


async def transfer(
    ref: ManifestRef,
    url: str,
    opening: Opening,
    *,
    settings: PullSettings,
    on_progress: Callable[[Progress], None],
) -> None:
    """Feed `opening` from `url`.

    It sees the artifact's end only when size and digest are right, so that a wrong artifact gets no links and no final
    modes. Its process is gone when this returns or raises, cancellation included.

    Raises:
        SourceFailed: the url does not give the artifact that `ref` names: `size_mismatch`, `truncated`,
            `digest_mismatch`, or what `artifact.fetch` says.
        ArtifactRejected: it does, digest and all, and the archive must not be opened: no other url can help.
        TransientError, ConfigError: the disk or the sandbox, see `Opening.ended`; no other url can help.
    """

    def report(received_bytes: int) -> None:
        on_progress(
            Progress(bytes_done=received_bytes, bytes_total=ref.size, files_done=opening.entry_count, url=shown(url))
        )

    try:
        async with opened(url, settings) as source:
            await _receive(ref, url, source, opening=opening, pace=Pace(settings.max_rate_bytes), report=report)
        await opening.archive.finish()
        opening.archive.close()
        await opening.ended
    except BaseException:
        opening.kill()
        with suppress(HotcoldError):
            await opening.ended
        _raise_local_failure(opening)
        raise
    report(ref.size)


async def _receive(
    ref: ManifestRef,
    url: str,
    source: Source,
    *,
    opening: Opening,
    pace: Pace,
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
        await opening.archive.put(data)
        report(received_bytes)
        _raise_local_failure(opening)
        delay_s = pace.delay_s(len(data), time.monotonic())
        if delay_s:
            await asyncio.sleep(delay_s)
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


def _raise_local_failure(opening: Opening) -> None:
    """Stop at once where the disk or the sandbox failed; read on where the archive is to blame.

    Only the digest of the whole tells whether the build itself is bad, or this url gave something else.
    """
    error = opening.ended.exception() if opening.ended.done() else None
    if error is not None and not blames_archive(error):
        raise error


def _size_mismatch(url: str, ref: ManifestRef, got: str) -> SourceFailed:
    return SourceFailed(
        f"{shown(url)} has another size than build {ref.id}: expected {ref.size} bytes, got {got}; "
        "upload the artifact again, and never change one that was published",
        kind="size_mismatch",
    )
