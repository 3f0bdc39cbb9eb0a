"""Owns the orders that a rollout writes: the share of a step, and the way back. Pure.

Writing them is left to `checkpoint.rollout.ledger`, and orders by hand to `checkpoint.ordering`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from artifact import Refused
from checkpoint.ordering import Wish, known_index, next_order, rollback_order
from checkpoint.reading import HostKey, TierKey
from checkpoint.rollout.events import Origin
from checkpoint.rollout.machine import named
from checkpoint.rollout.plan import Plan, StepPlan
from checkpoint.rollout.states import Rollout
from fleet import Order, position
from fleet.documents import MAX_TEXT


def step_order(
    plan: Plan, rollout: Rollout, step: int, *, key: TierKey, hosts: Sequence[HostKey], origin: Origin
) -> Order:
    """The order of one step: the plan's cutoff and salt, so that exactly the planned hosts run the build.

    While the rollout has an override, it lifts the limit on hosts out of service too.

    Args:
        plan: what is rolled out.
        rollout: as it will stand with the order.
        step: which.
        key: the tier's key.
        hosts: reports of the tier's hosts.
        origin: who, and when.
    """
    planned = plan.steps[step]
    override = rollout.override
    is_pierced = override is not None and origin.at < override.until
    wish = Wish(
        app=plan.app,
        tier=planned.rule.tier,
        build=plan.build,
        percent=planned.rule.percent,
        max_unavailable=0 if is_pierced else planned.rule.max_unavailable,
        reason=_text(f"rollout {plan.number}, {named(planned)}: {plan.reason}"),
        by=_text(plan.by),
    )
    order = next_order(wish, key, hosts, salt=plan.salt, at=_stamp(origin.at))
    # Hosts may have come or gone since the plan was made; the plan's share stands, of the hosts that it knew.
    tier = plan.tier(planned.rule.tier)
    known: int | msgspec.UnsetType = msgspec.UNSET
    if planned.cutoff < 1.0:
        chosen, all_planned = set(plan.hosts_of(step)), set(tier.hosts)
        new = [host.joined for host in hosts if host.host not in all_planned and _is_below(plan, planned, host)]
        known = known_index([host.joined for host in hosts if host.host in chosen], new)
    return msgspec.structs.replace(
        order, salt=plan.salt, cutoff=planned.cutoff, previous=tier.previous, known_index=known
    )


def _is_below(plan: Plan, step: StepPlan, host: HostKey) -> bool:
    return position(plan.salt, host.host) < step.cutoff


def back_orders(
    plan: Plan,
    tiers: Sequence[str],
    reason: str,
    *,
    keys: Mapping[str, TierKey],
    hosts: Sequence[HostKey],
    origin: Origin,
) -> tuple[dict[str, Order], dict[str, str]]:
    """The orders that take tiers back from the rollout's build, without a limit on hosts out of service.

    Returns:
        The orders by tier, and why there is none for each of the other tiers.
    """
    orders: dict[str, Order] = {}
    left: dict[str, str] = {}
    for tier in tiers:
        key = keys.get(tier, TierKey(tier))
        current = key.order
        if current is None or (current.build.id, current.build.digest) != (plan.build.id, plan.build.digest):
            left[tier] = "no order there" if current is None else f"{current.build.id} is ordered there"
            continue
        try:
            orders[tier] = rollback_order(
                key,
                [host for host in hosts if host.tier == tier],
                max_unavailable=0,
                reason=_text(f"rollback of rollout {plan.number}: {reason}"),
                by=_text(origin.by),
                at=_stamp(origin.at),
            )
        except Refused as error:
            left[tier] = str(error)
    return orders, left


def _text(text: str) -> str:
    """What an order may hold: printable, and not too long."""
    return "".join(each if each.isprintable() else " " for each in text)[:MAX_TEXT]


def _stamp(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
