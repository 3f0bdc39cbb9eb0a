"""Owns which texts a commander confirms before a start, and that each was confirmed. Pure.

The texts are `[[checklist]]` of `checkpoint.toml`; writing them into the audit is left to `checkpoint.rollout.ledger`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from artifact import Refused
from checkpoint.pipeline import Confirmation
from checkpoint.rollout.plan import Plan


def asked_of(plan: Plan, confirmations: Sequence[Confirmation]) -> tuple[Confirmation, ...]:
    """Those that count for the tiers of a plan."""
    tiers = {tier.name for tier in plan.tiers}
    return tuple(each for each in confirmations if not each.tiers or tiers.intersection(each.tiers))


def check_confirmed(plan: Plan, confirmations: Sequence[Confirmation], given: Collection[str]) -> tuple[str, ...]:
    """The texts that were confirmed, for the audit.

    Args:
        plan: what is to be started.
        confirmations: all that are configured.
        given: names of those that were confirmed.

    Raises:
        Refused: kind `not_confirmed`: one is missing; `unknown_confirmation`: there is no such one.
    """
    asked = asked_of(plan, confirmations)
    unknown = sorted(set(given) - {each.name for each in confirmations})
    if unknown:
        names = ", ".join(each.name for each in asked) or "none is asked for"
        raise Refused(f"no confirmation {unknown[0]!r}: {names}", kind="unknown_confirmation")
    missing = [each for each in asked if each.name not in given]
    if missing:
        what = "".join(f"\n  {each.name}: {each.text}" for each in missing)
        raise Refused(f"not confirmed, so nothing was started:{what}", kind="not_confirmed")
    return tuple(each.text for each in asked)
