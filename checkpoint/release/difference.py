"""Owns which commits a build brings, takes out and lacks beside the one that runs, by the records alone. Pure.

Reading the records is left to `checkpoint.release.records`, and asking git, which knows more, to `release show`.
A commit that was picked counts as the one that it was picked from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from checkpoint.release.commits import Commits
from checkpoint.release.records import BuildKey
from fleet import Build, Commit

_NONE: Final = Commits()


@dataclass(frozen=True)
class Difference:
    """What becomes different by running a build in place of another; commits are the newest first.

    Attributes:
        build: its id.
        base: id of the build that it takes the place of; None: nothing runs there.
        brings: commits that the build has, and the base has not.
        takes_out: commits that the base has, and the build has not: what is gone again.
        lacks: what else was on the main branch and is not in it.
        gaps: what the records do not tell, a sentence each.
        is_compared: whether both are recorded; if not, `brings` is what came in since the build before.
    """

    build: str
    base: str | None
    brings: Commits = _NONE
    takes_out: Commits = _NONE
    lacks: Commits = _NONE
    gaps: tuple[str, ...] = ()
    is_compared: bool = True

    @property
    def is_back(self) -> bool:
        """Whether it only takes out: an older build than the base."""
        return bool(self.takes_out.count) and not self.brings.count


def difference(build_id: str, base_id: str | None, keys: Sequence[BuildKey]) -> Difference:
    """What a build is beside the one that runs.

    Args:
        build_id: the build.
        base_id: the one that runs; None: none does.
        keys: records, the newest first.
    """
    records = {key.id: key.build for key in keys if key.build is not None}
    build = records.get(build_id)
    if build is None:
        said = f"{build_id} was not recorded by a release: its commits are unknown"
        return Difference(build_id, base_id, gaps=(said,), is_compared=False)
    names = _names(records.values())
    line = tuple(_line(build, records))
    lacks = _lacking(build, line, keys, names)
    if base_id == build_id:
        return Difference(build_id, base_id, lacks=lacks, gaps=(f"{build_id} runs there already",))
    base = None if base_id is None else records.get(base_id)
    if base is None:
        why = "nothing runs there yet" if base_id is None else f"{base_id}, which runs there, was not recorded"
        since = "" if build.since is None else f" since {build.since}"
        own = Commits(build.commits, build.commit_count)
        said = f"{why}: shown is what came in{since}"
        return Difference(build_id, base_id, own, lacks=lacks, gaps=(said,), is_compared=False)
    other = tuple(_line(base, records))
    both = {each.build.id for each in line} & {each.build.id for each in other}
    ours, theirs = _until(line, both), _until(other, both)
    brings, takes_out = _without(ours, theirs, names), _without(theirs, ours, names)
    gaps: tuple[str, ...] = (
        () if both else (f"no record joins {build_id} and {base_id}: more may differ than is shown",)
    )
    if ours and theirs and _hidden(ours) + _hidden(theirs):
        gaps += ("a record names only the newest of its commits: more may differ, or less, than is counted",)
    gone = {names.get(each.sha, each.sha) for each in takes_out.shown}
    rest = tuple(each for each in lacks.shown if names.get(each.sha, each.sha) not in gone)
    left = Commits(rest, len(rest) + lacks.count - len(lacks.shown))
    return Difference(build_id, base_id, brings, takes_out, left, gaps)


def _line(build: Build, records: Mapping[str, Build]) -> Iterator[Build]:
    """The build, the one that its commits are counted from, and so on, as far as records go."""
    seen: set[str] = set()
    at: Build | None = build
    while at is not None and at.build.id not in seen:
        seen.add(at.build.id)
        yield at
        at = None if at.since is None else records.get(at.since)


def _until(line: Sequence[Build], both: set[str]) -> tuple[Build, ...]:
    return tuple(takewhile(lambda each: each.build.id not in both, line))


def _names(builds: Iterable[Build]) -> dict[str, str]:
    """The sha that each picked commit was picked from, where the record tells."""
    names: dict[str, str] = {}
    for build in builds:
        if build.hotfix_of is not None and len(build.picks) == len(build.commits) == build.commit_count:
            # Picks stand in the order in which they were applied, commits the newest first.
            names |= {each.sha: pick for each, pick in zip(build.commits, reversed(build.picks), strict=True)}
    return names


def _without(ours: Sequence[Build], theirs: Sequence[Build], names: Mapping[str, str]) -> Commits:
    known = {names.get(each.sha, each.sha) for build in theirs for each in build.commits}
    found = _unlike((each for build in ours for each in build.commits), known, names)
    return Commits(found, len(found) + _hidden(ours))


def _unlike(commits: Iterable[Commit], known: set[str], names: Mapping[str, str]) -> tuple[Commit, ...]:
    """The commits that are not known, each once."""
    found: dict[str, Commit] = {}
    for each in commits:
        name = names.get(each.sha, each.sha)
        if name not in known:
            found.setdefault(name, each)
    return tuple(found.values())


def _hidden(builds: Iterable[Build]) -> int:
    """Commits that records count and do not name."""
    return sum(build.commit_count - len(build.commits) for build in builds)


def _lacking(build: Build, line: Sequence[Build], keys: Sequence[BuildKey], names: Mapping[str, str]) -> Commits:
    """What is in newer builds, or was on the main branch when one was recorded, and is not in this one."""
    known = {names.get(each.sha, each.sha) for of in line for each in of.commits}
    ours = {each.build.id for each in line}
    records = {key.id: key.build for key in keys if key.build is not None}
    newest = next((key.build for key in keys if key.build is not None), None)
    newest_cut = next((key.build for key in keys if key.build is not None and key.build.hotfix_of is None), None)
    commits: list[Commit] = []
    for each in (newest, newest_cut):
        if each is not None:
            commits += each.not_yet
            commits += (one for of in _until(tuple(_line(each, records)), ours) for one in of.commits)
    found = _unlike([*commits, *build.not_yet], known, names)
    # Only its own record tells of more than it names; what others do not name may be in this one.
    return Commits(found, max(len(found), build.not_yet_count))
