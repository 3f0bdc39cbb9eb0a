"""Owns finding a released build by its id, and what is said where there is none.

What a record holds is left to `checkpoint.release.records`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final

from artifact import Refused
from checkpoint.insisting import Insistence
from checkpoint.release.records import BuildKey, read_builds
from fleet import Build, Store

NEAR: Final = 3
"""So many ids are named where one is not known."""


async def find_build(store: Store, app: str, build_id: str, insistence: Insistence) -> Build:
    """The record of a build.

    Raises:
        Refused: kind `unknown_build`: there is none; the message names those nearest to it. Other kinds: its record
            cannot be read.
        StoreUnreachable: no answer for about a quarter of a minute.
        StoreRefused: the token may not read.
    """
    keys = await read_builds(store, app, insistence)
    found = next((key for key in keys if key.id == build_id), None)
    if found is None:
        raise Refused(unknown(app, build_id, keys), kind="unknown_build")
    if found.build is None:
        fault = found.fault or Refused("it cannot be read")
        raise Refused(
            f"the record of build {build_id} cannot be read: {fault}; give the path or URL of its manifest",
            kind=fault.kind,
        )
    return found.build


def unknown(app: str, build_id: str, keys: Sequence[BuildKey]) -> str:
    """What is wrong with an id that has no record, and what to do."""
    remedy = "or give the path or URL of its manifest, which ends in .json"
    if not keys:
        return (
            f"build {build_id} is not known, for no build of {app} was released yet: `hotcold release cut --app {app}` "
            f"makes one, {remedy}"
        )
    near = near_ids(build_id, [key.id for key in keys])
    return (
        f"build {build_id} of {app} was never released; {'near it are' if len(near) > 1 else 'near it is'} "
        f"{', '.join(near)}: `hotcold release list --app {app}` shows all, {remedy}"
    )


def near_ids(build_id: str, known: Sequence[str]) -> list[str]:
    """The known ids that are written most like another one, the likest first; else the first of them, the newest."""
    return difflib.get_close_matches(build_id, known, n=NEAR) or list(known[:NEAR])
