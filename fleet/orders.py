"""Owns the rules of orders: which build a host shall run, and which order it must refuse. Pure.

Reading and writing orders is left to the stores and to `checkpoint`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import datetime

from msgspec import UNSET

from artifact import ManifestRef, Refused
from fleet.documents import Order


def position(salt: str, host: str) -> float:
    """Place of a host in [0, 1): the first 53 bits of SHA-256 over `salt`, NUL, `host`.

    53 bits are what a double holds exactly, so that every implementation computes the same number.
    """
    digest = hashlib.sha256(f"{salt}\0{host}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)


def hosts_for_percent(host_count: int, percent: float) -> int:
    """How many of `host_count` hosts `percent` means: at least one, never rounded down, none only for 0 percent."""
    if percent <= 0 or host_count == 0:
        return 0
    return min(host_count, max(1, math.ceil(percent * host_count / 100 - 1e-9)))


def cutoff_for(hosts: Sequence[str], salt: str, percent: float) -> float:
    """The cutoff below which exactly `hosts_for_percent` of `hosts` lie.

    It lies midway between two hosts. Hosts that join later would fall on either side, which `Order.known_index`
    prevents. Without known hosts it is the plain fraction.
    """
    if percent >= 100:  # noqa: PLR2004 - a percentage
        return 1.0
    if not hosts:
        return max(0.0, percent / 100)
    wanted = hosts_for_percent(len(hosts), percent)
    places = sorted(position(salt, host) for host in hosts)
    if wanted == 0:
        return 0.0
    above = places[wanted] if wanted < len(places) else 1.0
    return (places[wanted - 1] + above) / 2 if above > places[wanted - 1] else above


def wanted_build(order: Order, host: str, joined: int | None = 0) -> ManifestRef | None:
    """The build this host shall run; None where the order leaves it as it is.

    Args:
        order: what stands in the tier's key.
        host: its name.
        joined: Consul's index at which the host reported for the first time; None: it has not. Only counts where
            `depends_on_joining`.
    """
    if order.cutoff >= 1.0:
        return order.build
    if is_newcomer(order, joined):
        return order.previous
    return order.build if position(order.salt, host) < order.cutoff else order.previous


def is_newcomer(order: Order | None, joined: int | None) -> bool:
    """Whether a host that joined then takes no part in the order's share: nobody chose it. Arguments as above."""
    if order is None or order.cutoff >= 1.0 or order.known_index is UNSET:
        return False
    return joined is None or joined > order.known_index


def depends_on_joining(order: Order, host: str) -> bool:
    """Whether it matters to this host's wanted build when it joined the tier."""
    return order.known_index is not UNSET and position(order.salt, host) < order.cutoff < 1.0


def check_obeyable(order: Order, *, app: str, tier: str, highest: Order | None, now: datetime) -> None:
    """Refuse an order that this host must not obey.

    Args:
        order: what stands in the tier's key.
        app: of this host.
        tier: of this host.
        highest: the order with the highest serial that this host obeyed, or None.
        now: wall-clock time, aware.

    Raises:
        Refused: for another app or tier, a serial that is lower or used for another order, or past `not_after`.
    """
    if (order.app, order.tier) != (app, tier):
        raise Refused(
            f"order is for {order.app}/{order.tier}, but this host serves {app}/{tier}: "
            "somebody wrote it into the wrong key",
            kind="order_wrong_tier",
        )
    if highest is not None:
        if order == highest:
            return
        if order.serial < highest.serial:
            raise Refused(
                f"order has serial {order.serial}, but this host already obeyed {highest.serial}: an old order "
                "has come back (a restored snapshot?); deploy again to give a higher one",
                kind="order_serial",
            )
        if order.serial == highest.serial:
            raise Refused(
                f"order re-uses serial {order.serial} with other contents; deploy again to give a higher one",
                kind="order_serial",
            )
    if order.not_after is not None:
        try:
            not_after = datetime.fromisoformat(order.not_after)
        except ValueError as error:
            raise Refused(
                f"order is malformed: not_after {order.not_after!r} is no time", kind="order_invalid"
            ) from error
        if not_after.tzinfo is None:
            raise Refused(f"order is malformed: not_after {order.not_after!r} has no time zone", kind="order_invalid")
        if now > not_after:
            raise Refused(f"order expired at {order.not_after}; deploy again", kind="order_expired")
