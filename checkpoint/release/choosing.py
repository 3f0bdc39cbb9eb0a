"""Owns which build is meant: the one to mend, the one before, the one that was begun and never recorded. Pure.

What is then done is left to `checkpoint.release.cutting`. Records come as `read_build_keys` gives them: the newest
first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from artifact import Refused
from checkpoint.reading import TierKey
from checkpoint.release.naming import Begun, order_of
from checkpoint.release.records import BuildKey
from fleet import Build


def unfinished_of(begun: Iterable[Begun], keys: Sequence[BuildKey]) -> tuple[Begun, ...]:
    """Releases that were begun and have no record, the newest last. One before a recorded build was left for good."""
    recorded = {key.id for key in keys}
    newest = max(map(order_of, recorded), default=("", 0))
    found = [each for each in begun if each.id not in recorded and order_of(each.id) > newest]
    return tuple(sorted(found, key=lambda each: order_of(each.id)))


def build_with(commit: str, keys: Sequence[BuildKey]) -> str | None:
    """Id of the newest build that was made from a commit; None: there is none."""
    return next((key.id for key in keys if key.build is not None and key.build.revision == commit), None)


def build_named(build_id: str, keys: Sequence[BuildKey]) -> Build:
    """The build with an id.

    Raises:
        Refused: kind `no_build`: it is not recorded; `build_invalid`: its record cannot be read.
    """
    key = next((key for key in keys if key.id == build_id), None)
    if key is None:
        raise Refused(f"build {build_id} is not recorded: see `hotcold release list`", kind="no_build")
    if key.build is None:
        raise Refused(f"the record of build {build_id} cannot be read: {key.fault}", kind="build_invalid")
    return key.build


def build_to_mend(keys: Sequence[BuildKey], tiers: Iterable[TierKey]) -> Build:
    """The build that a hotfix is for where nobody says it: only where there is no doubt.

    Raises:
        Refused: kind `which_build`: tiers differ, or there is none.
    """
    ordered = {tier.tier: tier.order.build.id for tier in tiers if tier.order is not None}
    if len(set(ordered.values())) == 1:
        return build_named(next(iter(ordered.values())), keys)
    if ordered:
        runs = ", ".join(f"{tier} runs {build_id}" for tier, build_id in sorted(ordered.items()))
        raise Refused(f"which build is to be mended? {runs}: name it with --onto", kind="which_build")
    newest = next((key.build for key in keys if key.build is not None), None)
    if newest is None:
        raise Refused("no build is recorded that could be mended: cut one first", kind="which_build")
    return newest


def build_before(begun: Begun, keys: Sequence[BuildKey]) -> Build | None:
    """The build that this one is told apart from: the one that it mends, or the newest before it."""
    if begun.hotfix_of is not None:
        return next((key.build for key in keys if key.id == begun.hotfix_of), None)
    older = (key.build for key in keys if key.build is not None and order_of(key.id) < order_of(begun.id))
    return next(older, None)
