"""Owns which builds the page for a new rollout offers, and what it says of each. Pure.

Reading the records is left to the page, and what a chosen build would do to `checkpoint.starting`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from artifact import ManifestRef
from checkpoint.guards import Denied
from checkpoint.release.records import BuildKey
from checkpoint.release.standing import Share, shares_of
from checkpoint.web.live import Snapshot
from fleet import Build

SHOWN = 20


@dataclass(frozen=True)
class Choice:
    """One build that may be rolled out.

    Attributes:
        release: its record; None: it is only known from orders.
        at: when it was cut, None where nobody knows.
        denied: why it may not be deployed; None: it may.
        shares: the tiers that are ordered to run it.
        fault: why its record cannot be read; it cannot be chosen then.
    """

    id: str
    release: Build | None
    at: datetime | None = None
    denied: Denied | None = None
    shares: tuple[Share, ...] = ()
    fault: str | None = None


def choices(keys: Sequence[BuildKey], snapshot: Snapshot | None) -> tuple[Choice, ...]:
    """Every build that is recorded, the newest first, then those that only orders name."""
    tiers = () if snapshot is None else tuple(tier.key for tier in snapshot.view.tiers)
    recorded = {key.id for key in keys}
    found = []
    for key in keys:
        if key.build is None:
            found.append(Choice(key.id, None, fault=str(key.fault)))
            continue
        found.append(
            Choice(
                key.id,
                key.build,
                at=_moment(key.build.at),
                denied=_denial(key.build.build, snapshot),
                shares=shares_of(key.build.build, tiers),
            )
        )
    others = (each for id_, each in known_builds(snapshot).items() if id_ not in recorded)
    found += (Choice(each.id, None, denied=_denial(each, snapshot), shares=shares_of(each, tiers)) for each in others)
    return tuple(found)


def known_builds(snapshot: Snapshot | None) -> Mapping[str, ManifestRef]:
    """The builds that orders and the latest plan name, by their ids; those that are ordered now come first."""
    if snapshot is None:
        return {}
    orders = [tier.key.order for tier in snapshot.view.tiers if tier.key.order is not None]
    found = [order.build for order in orders] + [order.previous for order in orders if order.previous is not None]
    if snapshot.shown is not None:
        found.append(snapshot.shown.plan.build)
    return {each.id: each for each in reversed(found)}


def _denial(build: ManifestRef, snapshot: Snapshot | None) -> Denied | None:
    return None if snapshot is None else snapshot.guards.denial(build)


def _moment(at: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(at)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
