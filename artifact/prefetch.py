"""Owns fetching a patch while the process that will use it is starting; all else is fetched by that process itself.

The agent has its HTTP client loaded, a new process would load its own first, which takes longer than a small deploy.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

from artifact.documents import fetch_whole
from artifact.errors import HotcoldError
from artifact.manifest import ManifestRef, PatchRef
from artifact.pullwire import Local, PullSettings
from artifact.ranges import Places
from artifact.table import read_table_digest
from artifact.urls import patch_url

_MAX_BYTES: Final = 4 << 20
"""What the agent holds in memory for it; a larger patch is worth the other process's own client."""


async def prefetch_patch(ref: ManifestRef, local: Local, settings: PullSettings) -> bytes:
    """A small patch for a release that is on this host; empty where there is none, or it cannot be had.

    Nothing of it is looked at here. Failures are left to the process that pulls: it tries again.
    """
    patch = _usable(ref, local)
    if patch is None:
        return b""
    try:
        async with Places(ref.urls, settings, chance=random.Random(), attempts=1) as places:  # noqa: S311 - for pauses
            return await fetch_whole(places, lambda url: patch_url(url, patch), patch.size)
    except HotcoldError:
        return b""


def _usable(ref: ManifestRef, local: Local) -> PatchRef | None:
    """The tables' first bytes are read in the loop's thread: a hundred bytes that were written by the last deploy."""
    if ref.index is None or not ref.index.patches:
        return None
    here = {read_table_digest(Path(base.table)) for base in local.bases}
    return next((patch for patch in ref.index.patches if patch.base in here and patch.size <= _MAX_BYTES), None)
