"""Owns whether this host obeys an order, and what the order then asks of it. Pure, and so quick that the loop may wait.

The rules are `fleet.orders`' and `artifact.trust`'s; keeping and pursuing the order is left to `agent.runner`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agent.config import Settings
from agent.states import Goal
from artifact import Refused
from fleet import Order, check_obeyable, decode_order, depends_on_joining, wanted_build


@dataclass(frozen=True)
class Judged:
    """An order that is obeyed.

    Attributes:
        goal: what it asks of this host.
        signer: id of the trusted key that signed the goal's build; None where no key is trusted, or no build wanted.
    """

    order: Order
    goal: Goal
    signer: str | None


def must_know_joining(value: bytes, settings: Settings) -> bool:
    """Whether it matters when this host joined its tier, to what the document in the tier's key asks of it."""
    try:
        return depends_on_joining(decode_order(value), settings.identity.host)
    except Refused:
        return False


def judge(
    value: bytes, settings: Settings, *, highest: Order | None, now: datetime, joined: int | None = None
) -> Judged:
    """What the document in the tier's key asks of this host.

    Args:
        value: the document.
        settings: of this host.
        highest: the order with the highest serial that this host obeyed, or None.
        now: wall-clock time, aware.
        joined: Consul's index at which this host reported for the first time; None: it has not.

    Raises:
        Refused: it must not be obeyed; kinds of `decode_order`, `check_obeyable` and `TrustedKeys.signer`.
    """
    order = decode_order(value)
    check_obeyable(order, app=settings.identity.app, tier=settings.identity.tier, highest=highest, now=now)
    return uphold(order, settings, joined)


def uphold(order: Order, settings: Settings, joined: int | None = None) -> Judged:
    """What an order that was obeyed asks of this host, if it may still be obeyed by the keys that are trusted now.

    The build that this host shall run needs the signature, also if it is on the disk already; the other one of the
    order does not.

    Raises:
        Refused: kinds of `TrustedKeys.signer`. See `withdrawn`.
    """
    identity, trusted = settings.identity, settings.trusted_keys
    build = wanted_build(order, identity.host, joined)
    signer = None if trusted is None or build is None else trusted.signer(identity.app, build)
    return Judged(order, Goal(order.serial, build, order.max_unavailable), signer)


def withdrawn(order: Order) -> Goal:
    """What is left of an order that was obeyed and cannot be upheld: its serial, and to keep what runs."""
    return Goal(order.serial, None, order.max_unavailable)
