"""Owns reading what is on the disk and saying what it means: which release is hot, cold, standby, and what is wrong.

Changes nothing; what to do about it is left to `recovery`, `retention` and `swapper`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from swapper.failures import explained
from swapper.layout import COLD, HOT, TRASH_PREFIX, Layout, parse_release_name
from swapper.links import Link, Links
from swapper.records import FoundRecords, Record, Records


@dataclass(frozen=True)
class Release:
    """One release directory that we made.

    Attributes:
        name: of the directory, `<build id>~<n>`; never used twice.
        build_id: the build that it holds.
        digest: of the build's artifact; empty if the record was lost.
        path: of the directory.
        complete: every byte of it is durable.
        served: 0 if it was never hot, else a number that rises with each swap.
        proved: it was hot and healthy.
    """

    name: str
    build_id: str
    digest: str
    path: Path
    complete: bool
    served: int
    proved: bool


@dataclass(frozen=True)
class Disk:
    """The state of one root, as found.

    Attributes:
        hot: what workers serve, or None before the first deploy (or if the link dangles: see `problems`).
        cold: the standby, the release in preparation, or what was last taken out of service.
        standby: where a rollback goes: complete, proved, not hot, the last that served. None if there is no such.
        releases: all, in the order of their numbers.
        problems: what an operator should know, each with what to do.
    """

    hot: Release | None
    cold: Release | None
    standby: Release | None
    releases: tuple[Release, ...]
    problems: tuple[str, ...]

    def find(self, name: str) -> Release | None:
        """Return the release called `name`, or None."""
        return next((release for release in self.releases if release.name == name), None)


@dataclass(frozen=True)
class Survey:
    """A `Disk` and the leftovers around it.

    Attributes:
        disk: what others may know.
        hot_link: what stands at `hot`.
        cold_link: what stands at `cold`.
        records: the readable ones, by name.
        orphans: names of records without a tree.
        trash: names of trees on their way out.
        highest_number: in any name found, ours or not; 0 if there is none.
    """

    disk: Disk
    hot_link: Link
    cold_link: Link
    records: Mapping[str, Record]
    orphans: tuple[str, ...]
    trash: tuple[str, ...]
    highest_number: int

    @property
    def filling(self) -> tuple[str, ...]:
        """Names of releases whose preparation has not ended, apart from a hot one."""
        return tuple(
            release.name
            for release in self.disk.releases
            if release.name in self.records and not release.complete and release != self.disk.hot
        )

    @property
    def highest_served(self) -> int:
        """The highest `served` of any release, 0 if none was ever hot."""
        return max((release.served for release in self.disk.releases), default=0)


def survey(layout: Layout, links: Links, records: Records) -> Survey:
    """Read links, trees and records.

    Raises:
        TransientError, ConfigError: the disk cannot be read; what is *found* there is never an error but a problem.
    """
    hot_link, cold_link = links.read(HOT), links.read(COLD)
    found = records.read()
    with explained("list", layout.releases):
        names = sorted((path.name for path in layout.releases.iterdir()), key=_by_number)
    recorded = found.readable.keys() | found.unreadable.keys()
    known = recorded | {hot_link.release}  # a hot tree is a release, even if its record was lost
    releases = tuple(describe(layout, name, found.readable.get(name)) for name in names if name in known)
    by_name = {release.name: release for release in releases}
    hot = by_name.get(hot_link.release or "")
    standby = choose_standby(releases, hot_link.release)
    trash = tuple(name for name in names if name.startswith(TRASH_PREFIX))
    foreign = [name for name in names if name not in known and name not in trash]
    disk = Disk(
        hot=hot,
        cold=by_name.get(cold_link.release or ""),
        standby=standby,
        releases=releases,
        problems=(
            *_link_problems(hot_link, cold_link, names),
            *_hot_problems(hot),
            *_record_problems(layout, found, names),
            *(_foreign_problem(layout, name) for name in foreign),
        ),
    )
    return Survey(
        disk=disk,
        hot_link=hot_link,
        cold_link=cold_link,
        records=found.readable,
        orphans=tuple(sorted(recorded - set(names))),
        trash=trash,
        highest_number=max((_by_number(name.removeprefix(TRASH_PREFIX))[0] for name in (*names, *recorded)), default=0),
    )


def choose_standby(releases: tuple[Release, ...], hot: str | None) -> Release | None:
    """Return where a rollback from `hot` goes, or None."""
    worthy = [release for release in releases if release.complete and release.proved and release.name != hot]
    return max(worthy, key=lambda release: release.served, default=None)


def describe(layout: Layout, name: str, record: Record | None) -> Release:
    """Return the release `name` as its record says, or as incomplete if the record cannot be read."""
    path = layout.releases / name
    if record is None:
        parsed = parse_release_name(name)
        build_id = parsed[0] if parsed else name
        return Release(name, build_id, digest="", path=path, complete=False, served=0, proved=False)
    return Release(
        name=name,
        build_id=record.build,
        digest=record.digest,
        path=path,
        complete=record.status == "complete",
        served=record.served,
        proved=record.proved,
    )


def _by_number(name: str) -> tuple[int, str]:
    parsed = parse_release_name(name)
    return (parsed[1] if parsed else 0), name


def _link_problems(hot: Link, cold: Link, names: list[str]) -> Iterator[str]:
    for link in (hot, cold):
        if link.foreign is not None:
            yield f"{link.path} {link.foreign}"
        elif link.release is not None and link.release not in names:
            yield f"{link.path} points to {link.release}, which does not exist: deploy a build, or roll back"


def _hot_problems(hot: Release | None) -> Iterator[str]:
    if hot is not None and not hot.complete:
        yield f"hot release {hot.name} was never completed: deploy it again, or roll back"
    elif hot is not None and not hot.digest:
        yield f"the record of hot release {hot.name} was lost, its digest is unknown: deploy a build to be sure of it"


def _record_problems(layout: Layout, found: FoundRecords, names: list[str]) -> Iterator[str]:
    for name, reason in found.unreadable.items():
        if name in names:
            yield f"record {reason}: {layout.releases / name} counts as incomplete and will be collected"


def _foreign_problem(layout: Layout, name: str) -> str:
    path = layout.releases / name
    return f"{path} has no record in {layout.records}, so it is left alone: remove it by hand if nobody needs it"
