"""Owns how what there is to know before a start is written as text; leaves what it is to `checkpoint.starting`."""

from __future__ import annotations

from collections.abc import Iterator

from checkpoint.pipeline import Settings
from checkpoint.release.commits import Commits
from checkpoint.starting import Prospect, first_tier_of
from hotcold.terminal import many

_SHOWN = 20
_SHORT = 12
_MARKS = {"blocks": "✗", "waits": "‖", "warns": "!"}


def prospect_lines(found: Prospect, settings: Settings, *, is_started: bool = False) -> Iterator[str]:
    """What the build brings, what the plan leaves out, and the checklist; once started, only what still matters."""
    yield from _commit_lines(found)
    for each in found.skipped:
        yield f"  passes by {each.said}"
    hotfix_from = first_tier_of(found.release, settings.hotfix_from)
    if found.release is not None and found.release.hotfix_of is not None and not is_started:
        path = f": `--from-tier {hotfix_from}` takes the hotfix path" if hotfix_from and not found.skipped else ""
        yield f"  it is a hotfix of {found.release.hotfix_of}{path}"
    if not found.lines:
        yield "checklist: nothing is in its way"
    elif not is_started:
        yield f"checklist: {_summary(found)}"
    for line in found.lines:
        if is_started and line.weight == "blocks":
            continue  # it was pierced, or it would not have started
        yield f"  {_MARKS[line.weight]} {line.weight}: {line.what}"
        yield f"      {line.remedy}"
    if is_started:
        return
    if found.confirmations:
        yield "to be confirmed with the start:"
    for asked in found.confirmations:
        yield f"  --confirm {asked.name}  {asked.text}"
    yield f"commander: {found.command}"


def _summary(found: Prospect) -> str:
    weights = [line.weight for line in found.lines]
    counts = (("block it", "blocks"), ("hold its steps", "waits"), ("warn", "warns"))
    return ", ".join(f"{weights.count(weight)} {what}" for what, weight in counts if weight in weights)


def _commit_lines(found: Prospect) -> Iterator[str]:
    difference, tier = found.commits, found.base_tier
    against = "" if not difference.is_compared else f" that {difference.base} on {tier} has not"
    for gap in difference.gaps:
        yield f"commits: {gap}"
    if difference.brings.count:
        yield f"brings {many(difference.brings.count, 'commit')}{against}:"
        yield from _commits(difference.brings)
    if difference.takes_out.count:
        yield f"takes out {many(difference.takes_out.count, 'commit')} that {difference.base} on {tier} has:"
        yield from _commits(difference.takes_out)
    if difference.lacks.count:
        yield f"not in it, {many(difference.lacks.count, 'commit')}, as far as records tell:"
        yield from _commits(difference.lacks)


def _commits(commits: Commits) -> Iterator[str]:
    for commit in commits.shown[:_SHOWN]:
        yield f"  {commit.sha[:_SHORT]} {commit.subject} ({commit.author})"
    hidden = commits.count - len(commits.shown[:_SHOWN])
    if hidden > 0:
        yield f"  ... and {hidden} more"
