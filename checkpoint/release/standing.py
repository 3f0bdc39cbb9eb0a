"""Owns where builds run, by the orders of the tiers, and which are denied. Pure.

What hosts really run is left to `checkpoint.overview`; which commits a build lacks, to git.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from artifact import ManifestRef
from checkpoint.reading import TierKey
from fleet import Entry
from fleet.keys import ROOT, check_name

_WHOLE = 100.0


@dataclass(frozen=True)
class Share:
    """How much of a tier is ordered to run a build."""

    tier: str
    percent: float


class Denial(msgspec.Struct, frozen=True, kw_only=True):
    """A build that is not to be deployed: as much as is shown here of what Checkpoint keeps."""

    id: str
    digest: str
    by: str
    reason: str


class _Denials(msgspec.Struct, frozen=True, kw_only=True):
    denied: tuple[Denial, ...] = ()


def denials_key(app: str) -> str:
    """Key of the document with the denied builds, and the app's lock."""
    return f"{ROOT}/{check_name('app', app)}/checkpoint/lock"


def read_denials(entry: Entry | None) -> tuple[Denial, ...]:
    """The denied builds; none where nobody ever denied one, or where the document cannot be read.

    Rollouts refuse a denied build themselves, and refuse to start where they cannot read this: here it is only shown.
    """
    if entry is None:
        return ()
    try:
        return msgspec.json.decode(entry.value, type=_Denials).denied
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()


def denial_of(build: ManifestRef, denials: Iterable[Denial]) -> Denial | None:
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
