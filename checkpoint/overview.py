"""Owns what a commander sees of an app: each tier's order, and how every host stands to it. Pure.

Reading is left to `checkpoint.observing`, and drawing to the command.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, auto
from functools import cached_property
from operator import attrgetter
from typing import NamedTuple

from checkpoint.reading import HostKey, TierKey
from fleet import Order, Report, ServiceHealth, wanted_build
from fleet.keys import service_id


class Standing(IntEnum):
    """How a host stands to its tier's order; what an operator must look at first comes first."""

    FAILED = auto()
    """It rolled back, refused, or runs something else without being on the way."""
    SILENT = auto()
    """Its agent is not alive: what it said last may not be true any more."""
    RETRYING = auto()
    """An attempt failed; another follows by itself."""
    HELD = auto()
    """Its operator said: start nothing."""
    BUSY = auto()
    """On the way."""
    BEHIND = auto()
    """Alive, but it has not seen the order yet."""
    GOOD = auto()
    """It runs what is wanted, steadily."""


_STATES: Mapping[str, Standing] = {
    "rolled_back": Standing.FAILED,
    "build_refused": Standing.FAILED,
    "backing_off": Standing.RETRYING,
    "held": Standing.HELD,
}


@dataclass(frozen=True)
class HostView:
    """One host.

    Attributes:
        state: as reported, or `unknown`.
        hot: id of the build that serves, None: nothing, or unknown.
        wanted: id of the build that the tier's order asks for; None: what it has.
        serial: of the order that the host obeys, 0: none.
        since: RFC 3339 time at which it entered `state`, or empty.
        health: passing, warning, critical, maintenance; absent: no such service; None: not known.
        slot: number of the slot that it holds, by which it may be out of service; None: it holds none.
        note: what an operator should know of it, or empty.
    """

    tier: str
    host: str
    standing: Standing
    state: str = "unknown"
    hot: str | None = None
    wanted: str | None = None
    serial: int = 0
    since: str = ""
    health: str | None = None
    slot: int | None = None
    note: str = ""


@dataclass(frozen=True)
class TierView:
    """One tier; hosts stand in the order of their standing, then by name."""

    key: TierKey
    hosts: tuple[HostView, ...]

    @cached_property
    def counts(self) -> Mapping[Standing, int]:
        """How many hosts have each standing; those that no host has are missing."""
        return Counter(host.standing for host in self.hosts)

    @property
    def good_count(self) -> int:
        """Hosts that run what is wanted."""
        return self.counts.get(Standing.GOOD, 0)


@dataclass(frozen=True)
class Overview:
    """An app; tiers by name."""

    app: str
    tiers: tuple[TierView, ...]


def overview(
    app: str,
    keys: Sequence[TierKey],
    hosts: Sequence[HostKey],
    services: Iterable[ServiceHealth] | None,
    slots: Mapping[tuple[str, str], int] | None = None,
) -> Overview:
    """Put together what is known.

    Args:
        app: the app.
        keys: orders of its tiers.
        hosts: reports of its hosts; a tier that only they name is shown too.
        services: health of its agents; None: not known.
        slots: number of the slot that each (tier, host) holds.
    """
    return Overviews(app)(keys, hosts, services, slots)


class Overviews:
    """Makes one overview after the other: hosts of which nothing changed keep their views, so a change costs a change.

    Args:
        app: the app.
    """

    def __init__(self, app: str) -> None:
        self._app = app
        self._views: dict[tuple[str, str], tuple[_Basis, HostView]] = {}
        self._tiers: dict[str, tuple[TierKey, list[HostView], TierView]] = {}

    def __call__(
        self,
        keys: Sequence[TierKey],
        hosts: Sequence[HostKey],
        services: Iterable[ServiceHealth] | None,
        slots: Mapping[tuple[str, str], int] | None = None,
    ) -> Overview:
        """As `overview`."""
        health = None if services is None else {service.id: service.status for service in services}
        by_tier = {key.tier: key for key in keys}
        views: dict[str, list[HostView]] = {name: [] for name in sorted({*by_tier, *(host.tier for host in hosts)})}
        known, self._views = self._views, {}
        for host in hosts:
            key, place = by_tier.get(host.tier), (host.tier, host.host)
            before = known.get(place)
            service = service_id(self._app, *place) if before is None else before[0].service
            basis = _Basis(
                order=None if key is None else key.order,
                host=host,
                service=service,
                health=None if health is None else health.get(service, "absent"),
                slot=None if slots is None else slots.get(place),
            )
            if before is None or not before[0].is_same(basis):
                before = (basis, _host_view(basis))
            self._views[place] = before
            views[host.tier].append(before[1])
        tiers = tuple(self._tier(by_tier.get(name, TierKey(name)), found) for name, found in views.items())
        return Overview(self._app, tiers)

    def _tier(self, key: TierKey, views: list[HostView]) -> TierView:
        before = self._tiers.get(key.tier)
        if before is not None and (before[0], before[1]) == (key, views):
            return before[2]
        by_name = sorted(views, key=attrgetter("host"))
        made = TierView(key, tuple(sorted(by_name, key=attrgetter("standing"))))
        self._tiers[key.tier] = (key, views, made)
        return made


class _Basis(NamedTuple):
    """What a host's view is made from."""

    order: Order | None
    host: HostKey
    service: str
    health: str | None
    slot: int | None

    def is_same(self, other: _Basis) -> bool:
        """Whether the view would be the same, as far as that is seen at a glance."""
        return (
            self.order is other.order
            and self.host is other.host
            and self.health == other.health
            and self.slot == other.slot
        )


def _host_view(basis: _Basis) -> HostView:
    order, host, _, health, slot = basis
    wanted = None if order is None else wanted_build(order, host.host, host.joined)
    wanted_id = None if wanted is None else wanted.id
    report = host.report
    if report is None:
        note = f"its report cannot be read: {host.fault}"
        return HostView(host.tier, host.host, Standing.FAILED, wanted=wanted_id, health=health, slot=slot, note=note)
    is_behind = order is not None and report.serial < order.serial
    standing = _standing(report, wanted_id, is_behind=is_behind)
    if health in {"critical", "absent"}:
        standing = Standing.SILENT
    return HostView(
        tier=host.tier,
        host=host.host,
        standing=standing,
        state=report.state,
        hot=report.hot,
        wanted=wanted_id,
        serial=report.serial,
        since=report.since,
        health=health,
        slot=slot,
        note=_note(host, health, behind=order.serial if order is not None and is_behind else None),
    )


def _standing(report: Report, wanted: str | None, *, is_behind: bool) -> Standing:
    kind = "" if report.problem is None else report.problem.kind
    if kind.startswith("order_") and kind != "order_absent":
        return Standing.FAILED  # it sees the order, and will not obey it
    if is_behind and report.state != "held":
        return Standing.BEHIND
    if report.state == "steady":
        return Standing.GOOD if wanted in {None, report.hot} else Standing.FAILED
    return _STATES.get(report.state, Standing.BUSY)


def _note(host: HostKey, health: str | None, *, behind: int | None) -> str:
    parts = []
    if health in {"critical", "absent"}:
        parts.append("its agent is silent" if health == "critical" else "no agent is registered")
    if health == "maintenance":
        parts.append("in maintenance")
    if behind is not None:
        parts.append(f"has not obeyed order {behind}")
    if host.report is not None and host.report.problem is not None:
        parts.append(host.report.problem.message)
    return "; ".join(parts)
