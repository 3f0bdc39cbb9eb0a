"""Owns what a deploy on this host would take: bytes and room, and whom it would wait for; nothing is changed by asking.

Whether there would be one is left to `hotcold.foresight`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import aiohttp

from agent.config import Settings
from agent.gauges import read_gauge
from agent.splay import splay_delay_s
from agent.workers import busy_workers, trees_in_use
from artifact import ManifestRef
from artifact.fetch import opened
from artifact.indexed import WITHOUT_INDEX, IndexedPull
from artifact.pullwire import Local, LocalBase
from artifact.ranges import NoPlaceGave
from artifact.source import SourceFailed
from fleet import Entry
from swapper import Disk, Release
from swapper.retention import list_spares


@dataclass(frozen=True)
class Fetch:
    """What would be fetched. Without an index, or ranges of it, only `fetched_bytes` is known: the whole artifact.

    Attributes:
        needed_bytes: on the disk, at most.
        from_url: where it begins.
    """

    fetched_bytes: int
    fetched_files: int | None
    entries: int | None
    needed_bytes: int | None
    from_url: str


async def estimate(settings: Settings, disk: Disk | None, build: ManifestRef) -> Fetch:
    """What fetching a build would take.

    Args:
        settings: of the agent.
        disk: what is on this host; None: nothing.
        build: that is wanted.

    Raises:
        TransientError, ArtifactRejected, ConfigError: as a pull before it writes.
    """
    layout = settings.identity.layout
    if build.index is None:
        return await _whole(settings, build)
    releases = () if disk is None else tuple(release for release in disk.releases if release.complete)
    hot = None if disk is None else disk.hot
    bases = sorted(releases, key=lambda release: release != hot)
    spare = None if disk is None else await asyncio.get_running_loop().run_in_executor(None, _spare, settings, disk)
    pull = IndexedPull(
        build,
        build.index,
        spare.path if spare is not None else layout.root,
        local=Local(
            own_table=None if spare is None else str(layout.table(spare.name)),
            bases=tuple(
                LocalBase(tree=str(base.path), table=str(layout.table(base.name))) for base in bases if base != spare
            ),
        ),
        settings=settings.pull,
        on_progress=lambda _: None,
        is_trusting=True,
    )
    try:
        found = await pull.estimate()
    except NoPlaceGave as error:
        if error.kinds.isdisjoint(WITHOUT_INDEX):
            raise
        return await _whole(settings, build)  # as the puller does
    return Fetch(found.fetched_bytes, found.fetched_files, found.entries, found.written_bytes, build.urls[0])


async def _whole(settings: Settings, build: ManifestRef) -> Fetch:
    """All of the artifact, from the first place that has it."""
    failure: SourceFailed | None = None
    for url in build.urls:
        try:
            async with opened(url, settings.pull):
                return Fetch(build.size, None, None, None, url)
        except SourceFailed as error:
            failure = error
    assert failure is not None  # noqa: S101 - a reference has at least one url
    raise failure


def _spare(settings: Settings, disk: Disk) -> Release | None:
    """The tree that would become the new one; as `Swapper.prepare_from_spare` chooses it."""
    releases = settings.releases
    for spare in list_spares(disk, keep=releases.keep, pinned=frozenset(releases.pinned)):
        if spare.complete and not trees_in_use([spare.path]):
            return spare
    return None


def wait_for_splay(settings: Settings, serial: int) -> list[str]:
    """What spreading the start of fetching means for this host."""
    if not settings.fetch.splay_s:
        return []
    delay_s = splay_delay_s(settings.fetch.splay_s, host=settings.identity.host, serial=serial)
    return [f"{delay_s:.1f} s before it fetches: this host's share of fetch.splay_s"]


def wait_for_slots(slots: Sequence[Entry] | None, slot_count: int | None) -> list[str]:
    """Who is in the way of leaving service. `slots` None: not known; `slot_count` None: no limit was ordered."""
    if slot_count is None:
        return []
    if slots is None:
        return [f"for one of {slot_count} slots, which Consul gives when it answers again"]
    holders = [entry.value.decode(errors="replace") or entry.key for entry in slots if entry.session is not None]
    if len(holders) < slot_count:
        return []
    return [f"for a slot: {slot_count} may be out of service, and {', '.join(holders)} are"]


async def wait_for_workers(settings: Settings, hot: Release | None) -> list[str]:
    """Who is busy in the build that serves; gauges that are commands are not run."""
    drain = settings.drain
    if hot is None:
        return []
    doors: tuple[int | str, ...] = (*drain.ports, *drain.sockets)
    look = partial(busy_workers, drain.workers, hot.path, doors)
    busy = list(await asyncio.get_running_loop().run_in_executor(None, look)) if drain.workers else []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        for gauge in drain.gauges:
            if gauge.command is None:
                busy += await read_gauge(gauge, session=session, environment={})
    return [f"for {worker.who}: {'; '.join(worker.reasons)}" for worker in busy]
