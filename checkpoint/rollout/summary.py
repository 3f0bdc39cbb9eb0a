"""Owns a rollout in one row: what was rolled out, by whom, when, for how long, and how it ended. Pure.

Reading rollouts is left to `checkpoint.rollout.listing`, drawing rows to the front ends.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from checkpoint.rollout import states as st
from checkpoint.rollout.plan import Plan
from checkpoint.windows import Moment


class Summary(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One rollout, past or under way.

    Attributes:
        rollout: its number.
        by, reason: who asked for it, and why.
        planned: when its plan was made, from which on it counts.
        since: when it came into its phase.
        ended: when it ended; null: it is under way.
        lasted_s: seconds from `planned` until it ended, or until now.
        step, step_count: how far it came, counted from 0.
        tiers: those of its plan.
        stopped_by, because: who aborted, rolled back or paused it, and why; empty: nobody did.
    """

    rollout: int
    build: str
    phase: str
    by: str
    reason: str
    planned: Moment
    since: Moment
    ended: Moment | None
    lasted_s: float
    step: int
    step_count: int
    tiers: tuple[str, ...]
    stopped_by: str
    because: str


class Unreadable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rollout whose documents cannot be read, and why."""

    rollout: int
    fault: str


def summary(plan: Plan, rollout: st.Rollout, now: datetime) -> Summary:
    """The row of a rollout."""
    phase = rollout.phase
    ended = phase.since if rollout.is_ended else None
    by, because = (phase.by, phase.reason) if isinstance(phase, st.Paused | st.Aborted | st.RolledBack) else ("", "")
    return Summary(
        rollout=plan.number,
        build=plan.build.id,
        phase=rollout.phase_name,
        by=plan.by,
        reason=plan.reason,
        planned=plan.made,
        since=phase.since,
        ended=ended,
        lasted_s=max(0.0, ((ended or now) - plan.made).total_seconds()),
        step=phase.step,
        step_count=len(plan.steps),
        tiers=tuple(tier.name for tier in plan.tiers),
        stopped_by=by,
        because=because,
    )
