"""Owns which releases may go: a pure decision over what is on the disk; leaves the removing to `removal`.

Failed and unproved releases go first, then the proved ones that served longest ago.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from swapper.disk import Disk, Release


@dataclass(frozen=True)
class Collected:
    """What `Swapper.collect` did, by release name.

    Attributes:
        removed: gone, in that order, what an earlier call had left included.
        kept: still there, with the reason.
        failed: could not be removed, with the error; tried again the next time.
    """

    removed: tuple[str, ...]
    kept: Mapping[str, str]
    failed: Mapping[str, str]


def split_removable(
    disk: Disk, *, keep: int, pinned: Collection[str], filling: Collection[str]
) -> tuple[tuple[Release, ...], dict[str, str]]:
    """Return the releases that may go, the least useful first, and for each other one why it stays.

    Args:
        disk: what is there.
        keep: how many successful releases stay, hot and standby included.
        pinned: ids of builds that stay.
        filling: names of releases that are being prepared.
    """
    kept: dict[str, str] = {}
    for reason, release in (("hot", disk.hot), ("standby", disk.standby), ("cold", disk.cold)):
        if release is not None:
            kept.setdefault(release.name, reason)
    for release in disk.releases:
        if release.name in filling:
            kept.setdefault(release.name, "being prepared")
        if release.build_id in pinned:
            kept.setdefault(release.name, "pinned")
    serving = {release.name for release in (disk.hot, disk.standby) if release is not None}
    room = max(0, keep - len(serving))
    successes = [release for release in disk.releases if release.complete and release.proved]
    spares = [release for release in successes if release.name not in serving]
    for release in sorted(spares, key=lambda release: -release.served)[:room]:
        kept.setdefault(release.name, f"one of the {keep} successful releases to keep")
    removable = [release for release in disk.releases if release.name not in kept]
    removable.sort(key=lambda release: (release.complete and release.proved, release.served))
    return tuple(removable), kept


def list_spares(disk: Disk, *, keep: int, pinned: Collection[str]) -> tuple[Release, ...]:
    """Return the releases whose trees may become the next build's, the least useful first.

    They are those that would have to go for it: one place fewer than `keep` is left beside the next build.
    """
    removable, _kept = split_removable(disk, keep=keep - 1, pinned=pinned, filling=())
    return removable
