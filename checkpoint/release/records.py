"""Owns the records of released builds in Consul: reading them, and writing one, once, together with the audit's.

What a record says is left to `checkpoint.release.cutting`, and where builds run to `checkpoint.release.standing`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from artifact import Refused
from checkpoint.audit import Record
from checkpoint.insisting import Insistence
from checkpoint.release.naming import order_of
from checkpoint.writing import Writer
from fleet import Build, Entry, Put, Store, decode_build, encode
from fleet.keys import build_key, builds_prefix

_ATTEMPTS: Final = 50
"""Everything that is done to an app appends to one audit: so often others may come first."""
_PAUSE_S: Final = 0.05
_SHORT: Final = 12


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


async def record(
    store: Store,
    build: Build,
    insistence: Insistence,
    *,
    by: str,
    at: datetime,
    pause: Callable[[float], Awaitable[None]],
) -> bool:
    """Write a record where there is none, and in the same transaction the audit's, which tells of it.

    Args:
        store: where everything lies.
        build: what is recorded.
        insistence: asks again where the store does not answer.
        by: who records it; somebody else may have begun it, as the record says.
        at: now, aware.
        pause: waits that many seconds.

    Returns:
        False where this very artifact was recorded already: somebody else went on. Nothing was written then.

    Raises:
        Refused: kind `build_recorded`: another artifact has that id; `audit_damaged`; `lost_race`. Nothing was written.
        StoreUnreachable: no answer for about a quarter of a minute; both records or neither may be there.
        StoreRefused: the token may not write.
    """
    key = build_key(build.app, build.build.id)
    writer = Writer(store, build.app, insistence)
    told = Record(
        v=1,
        number=0,
        at=at,
        by=by,
        via="cli",
        what="released" if build.hotfix_of is None else "hotfix_released",
        message=told_of(build),
        reason=build.notes or "",
        next=f"hotcold rollout plan {build.manifest} --app {build.app}",
    )
    for _ in range(_ATTEMPTS):
        entry = await insistence.ask(lambda: store.read(key))
        if entry is not None:
            _check_same(build, entry)
            return False
        if await writer.write([Put(key, encode(build), cas=0)], [told]) is not None:
            return True
        await pause(_PAUSE_S)
    raise Refused(
        f"others write to {build.app} all the time; build {build.build.id} is not recorded yet: go on with "
        f"`hotcold release resume {build.build.id} --app {build.app}`",
        kind="lost_race",
    )


def told_of(build: Build) -> str:
    """What the audit says of a release."""
    origin = f"of {build.revision[:_SHORT]} on {build.branch}"
    if build.hotfix_of is not None:
        picks = ", ".join(pick[:_SHORT] for pick in build.picks)
        return f"hotfix {build.build.id} is released, {origin}: mends {build.hotfix_of} by picking {picks}"
    commits = "1 commit" if build.commit_count == 1 else f"{build.commit_count} commits"
    since = "" if build.since is None else f" since {build.since}"
    return f"build {build.build.id} is released, {origin}: {commits}{since}"


def _check_same(build: Build, entry: Entry) -> None:
    found = _read(build.app, entry).build
    if found is None or (found.build.digest, found.revision) != (build.build.digest, build.revision):
        raise Refused(
            f"{entry.key} has another record: build {build.build.id} is somebody else's; nothing was written. "
            "Cut the next build with --new",
            kind="build_recorded",
        )
