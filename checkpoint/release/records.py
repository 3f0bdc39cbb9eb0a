"""Owns the records of released builds in Consul: reading them, and writing one, once.

What a record says is left to `checkpoint.release.cutting`, and where builds run to `checkpoint.release.standing`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from artifact import Refused
from checkpoint.insisting import Insistence
from checkpoint.release.naming import order_of
from fleet import Build, Entry, Store, decode_build, encode
from fleet.keys import build_key, builds_prefix


@dataclass(frozen=True)
class BuildKey:
    """One record as it stands; `build` None: it cannot be read, see `fault`."""

    id: str
    build: Build | None
    fault: Refused | None = None


def read_build_keys(app: str, entries: Iterable[Entry]) -> tuple[BuildKey, ...]:
    """Judge the records of an app, the newest first; never raises for their content."""
    keys = [_read(app, entry) for entry in entries]
    # Of ids that are not ours only the time is known.
    return tuple(sorted(keys, key=lambda key: (order_of(key.id), key.build.at if key.build else ""), reverse=True))


def _read(app: str, entry: Entry) -> BuildKey:
    build_id = entry.key.rpartition("/")[2]
    try:
        build = decode_build(entry.value)
    except Refused as error:
        return BuildKey(build_id, None, error)
    if (build.app, build.build.id) != (app, build_id):
        said = f"build {build.build.id} of {build.app}"
        return BuildKey(build_id, None, Refused(f"is of {said}: it lies in the wrong key", kind="build_invalid"))
    return BuildKey(build_id, build)


async def read_builds(store: Store, app: str, insistence: Insistence) -> tuple[BuildKey, ...]:
    """Every record of an app, the newest first.

    Raises:
        StoreUnreachable: no answer for about a quarter of a minute.
        StoreRefused: the token may not read.
    """
    return read_build_keys(app, await insistence.ask(lambda: store.read_prefix(builds_prefix(app))))


async def record(store: Store, build: Build, insistence: Insistence) -> bool:
    """Write a record where there is none.

    Returns:
        False where this very artifact was recorded already: a former answer was lost, or somebody else went on.

    Raises:
        Refused: kind `build_recorded`: another artifact has that id; nothing was written.
        StoreUnreachable: no answer for about a quarter of a minute; it may or may not be there.
        StoreRefused: the token may not write.
    """
    key = build_key(build.app, build.build.id)
    if await insistence.ask(lambda: store.put(key, encode(build), cas=0)):
        return True
    entry = await insistence.ask(lambda: store.read(key))
    found = None if entry is None else _read(build.app, entry).build
    if found is None or (found.build.digest, found.revision) != (build.build.digest, build.revision):
        raise Refused(
            f"{key} has another record: build {build.build.id} is somebody else's; nothing was written. "
            "Cut the next build with --new",
            kind="build_recorded",
        )
    return False
