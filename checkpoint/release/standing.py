"""Owns where builds run, by the orders of the tiers, and which are denied. Pure.

What hosts really run is left to `checkpoint.overview`; which commits a build lacks, to git.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from artifact import ManifestRef, Refused
from checkpoint.guards import Denied, Guards, read_document
from checkpoint.reading import TierKey
from fleet import Entry

_WHOLE = 100.0


@dataclass(frozen=True)
class Share:
    """How much of a tier is ordered to run a build."""

    tier: str
    percent: float


def read_denials(entry: Entry | None) -> tuple[Denied, ...]:
    """The denied builds; none where nobody ever denied one, or where the document cannot be read.

    Rollouts refuse a denied build themselves, and refuse to start where they cannot read this: here it is only shown.
    """
    if entry is None:
        return ()
    try:
        return read_document(entry, Guards).denied
    except Refused:
        return ()


def denial_of(build: ManifestRef, denials: Iterable[Denied]) -> Denied | None:
    """Why a build is denied, by its id or its digest; None: it is not."""
    return next((each for each in denials if build.id == each.id or build.digest == each.digest), None)


def shares_of(build: ManifestRef, tiers: Iterable[TierKey]) -> tuple[Share, ...]:
    """The tiers that are ordered to run a build, wholly or in part."""
    shares = []
    for tier in tiers:
        order = tier.order
        if order is None:
            continue
        percent = 0.0
        if order.build.id == build.id:
            percent += order.percent
        if order.previous is not None and order.previous.id == build.id:
            percent += _WHOLE - order.percent
        if percent > 0:
            shares.append(Share(tier.tier, percent))
    return tuple(shares)
