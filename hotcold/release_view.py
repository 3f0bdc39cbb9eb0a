"""Owns how builds look to people and as JSON; leaves what they are to `checkpoint.release`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from checkpoint.guards import Denied
from checkpoint.release import BuildKey, Standing
from checkpoint.release.commits import Commits
from checkpoint.release.standing import Share, denial_of, shares_of
from fleet import Build, Commit
from hotcold.terminal import many, size

_SHORT = 12
_WHOLE = 100.0


def table_of(keys: Sequence[BuildKey], standing: Standing, lacking: Mapping[str, Commits | None]) -> Table:
    """One row per build."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("build", "revision", "cut", "by", "commits", "not yet", "tiers", ""):
        table.add_column(column, no_wrap=column != "")
    for key in keys:
        build, missing = key.build, lacking.get(key.id)
        if build is None:
            table.add_row(key.id, "", "", "", "", "", "", Text(f"cannot be read: {key.fault}", "red"))
            continue
        denial = denial_of(build.build, standing.denials)
        remarks = [f"hotfix of {build.hotfix_of}"] if build.hotfix_of is not None else []
        remarks += [f"denied by {denial.by}: {denial.reason}"] if denial is not None else []
        table.add_row(
            Text(key.id),
            build.revision[:_SHORT],
            build.at,
            Text(build.by),
            str(build.commit_count),
            "" if missing is None else str(missing.count),
            Text(", ".join(map(_share, shares_of(build.build, standing.tiers)))),
            Text("; ".join(remarks), "" if denial is None else "red"),
        )
    return table


def lines_of(build: Build, standing: Standing, lacking: Commits | None) -> Iterator[str]:
    """One build, whole."""
    shares, denial = shares_of(build.build, standing.tiers), denial_of(build.build, standing.denials)
    yield f"build     {build.build.id} of {build.app}, {size(build.build.size)}, {build.build.format}"
    if denial is not None:
        yield f"denied    by {denial.by}: {denial.reason}"
    if build.hotfix_of is not None:
        yield f"mends     {build.hotfix_of}, by {', '.join(pick[:_SHORT] for pick in build.picks)}"
    yield f"cut       {build.at} by {build.by}"
    yield f"tiers     {', '.join(map(_share, shares)) or 'none is ordered to run it'}"
    yield f"revision  {build.revision}, branch {build.branch}, tag {build.tag}"
    yield f"manifest  {build.manifest}"
    yield f"digest    {build.build.digest}"
    if build.notes:
        yield f"notes     {build.notes}"
    yield ""
    yield f"in it, {many(build.commit_count, 'commit')} since {build.since or 'the beginning'}:"
    yield from _commits(build.commits, build.commit_count)
    if lacking is not None:
        yield ""
        yield f"not yet in it, {many(lacking.count, 'commit')}:"
        yield from _commits(lacking.shown, lacking.count)
    elif build.not_yet_count:
        yield ""
        yield f"not yet in it when it was recorded, {many(build.not_yet_count, 'commit')}:"
        yield from _commits(build.not_yet, build.not_yet_count)


def _commits(shown: Sequence[Commit], count: int) -> Iterator[str]:
    for commit in shown:
        yield f"  {commit.sha[:_SHORT]} {commit.subject} ({commit.author})"
    if len(shown) < count:
        yield f"  ... and {count - len(shown)} more"


def _share(share: Share) -> str:
    return share.tier if share.percent == _WHOLE else f"{share.tier} ({share.percent:g} %)"


def document(
    key: BuildKey, standing: Standing, lacking: Commits | None, *, with_commits: bool = False
) -> dict[str, Any]:
    """One build as JSON; `not_yet` and `not_yet_count` are null where no repository tells."""
    build = key.build
    if build is None:
        return {"id": key.id, "fault": str(key.fault)}
    denial: Denied | None = denial_of(build.build, standing.denials)
    shown: dict[str, Any] = {
        "id": key.id,
        "revision": build.revision,
        "branch": build.branch,
        "tag": build.tag,
        "manifest": build.manifest,
        "digest": build.build.digest,
        "by": build.by,
        "at": build.at,
        "since": build.since,
        "hotfix_of": build.hotfix_of,
        "picks": list(build.picks),
        "notes": build.notes,
        "tiers": {share.tier: share.percent for share in shares_of(build.build, standing.tiers)},
        "denied": None if denial is None else {"by": denial.by, "reason": denial.reason},
        "commit_count": build.commit_count,
        "not_yet_count": None if lacking is None else lacking.count,
    }
    if with_commits:
        shown["commits"] = [_commit(commit) for commit in build.commits]
        shown["not_yet"] = None if lacking is None else [_commit(commit) for commit in lacking.shown]
    return shown


def _commit(commit: Commit) -> dict[str, str]:
    return {"sha": commit.sha, "author": commit.author, "subject": commit.subject}
