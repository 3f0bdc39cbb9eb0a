"""Owns what a rollout's surroundings mean to it: from what is seen, the one event that comes next. Pure.

Seeing is left to `checkpoint.engine`, and what an event leads to, to `checkpoint.rollout.machine`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from checkpoint.guards import Guards, Lease
from checkpoint.reading import HostKey, TierKey
from checkpoint.rollout import events as ev
from checkpoint.rollout import states as st
from checkpoint.rollout.machine import named
from checkpoint.rollout.plan import Plan
from checkpoint.rollout.states import Rollout
from checkpoint.rollout.tally import Silent, Tally
from checkpoint.rollout.timetable import unclear_closing, window_hold
from checkpoint.rollout.verdict import Ruling


@dataclass(frozen=True)
class Tested:
    """What a smoke test ended in."""

    is_good: bool
    said: str


@dataclass(frozen=True)
class Seen:
    """Everything that counts for a rollout at one moment.

    Attributes:
        keys: of the plan's tiers, by name.
        hosts: reports of their hosts.
        tally: the present step's hosts.
        silent: agents that are not alive.
        lease: the commander's, None: nobody took it.
        ruling: on the present step, None: not asked yet.
        tested: what the present step's smoke test ended in, None: not yet.
        clock_problem: why the clock is not to be trusted, or None.
    """

    now: datetime
    keys: Mapping[str, TierKey]
    hosts: Sequence[HostKey]
    tally: Tally
    silent: Silent
    guards: Guards
    lease: Lease | None
    ruling: Ruling | None = None
    tested: Tested | None = None
    clock_problem: str | None = None


def next_event(plan: Plan, rollout: Rollout, seen: Seen) -> ev.Observation | None:  # noqa: PLR0911 - in the order of their weight
    """What happens to the rollout now; None: nothing yet."""
    phase = rollout.phase
    if rollout.is_ended:
        return None
    if _is_ordered(phase) and seen.ruling is not None and seen.ruling.outcome == "roll_back":
        return ev.BuildCondemned(seen.ruling.reason)
    if isinstance(phase, st.Paused):
        return _rejoined(plan, rollout, seen)
    trouble = _trouble(plan, rollout, seen)
    if trouble is not None:
        return trouble
    rejoined = _rejoined(plan, rollout, seen)
    if rejoined is not None:
        return rejoined
    closes = unclear_closing(plan, rollout, seen.now)
    if closes is not None and (rollout.closing is None or rollout.closing.at != closes):
        return ev.ClosingSeen(closes)
    return _of_phase(plan, rollout, seen)


def _of_phase(plan: Plan, rollout: Rollout, seen: Seen) -> ev.Observation | None:  # noqa: PLR0911 - a row for each phase
    phase, counted = rollout.phase, seen.tally
    match phase:
        case st.Ready():
            holds = tuple(_holds(plan, rollout, seen))
            if not holds:
                return ev.StepAllowed()
            return ev.StepHeld(holds) if holds != phase.holds else None
        case st.Deploying():
            return ev.HostsArrived(len(counted.good), counted.missing) if counted.is_done else None
        case st.Baking():
            return ev.BakeElapsed() if seen.now >= phase.until and counted.is_done else None
        case st.Testing():
            return None if seen.tested is None else ev.SmokeTestPassed(seen.tested.said)
        case st.Judging():
            ruling = seen.ruling
            if ruling is None:
                return None
            if ruling.outcome == "pass":
                return ev.VerdictGiven(ruling.reason)
            return ev.VerdictWanting(ruling.reason) if ruling.reason != phase.wanting else None
        case _:
            return None


def _holds(plan: Plan, rollout: Rollout, seen: Seen) -> Iterator[st.Hold]:
    override = rollout.override
    is_overridden = override is not None and seen.now < override.until
    lock = seen.guards.lock
    if lock is not None and not is_overridden:
        yield st.Hold(kind="lock", message=f"locked by {lock.by}: {lock.reason}")
    denied = seen.guards.denial(plan.build)
    if denied is not None and not is_overridden:
        yield st.Hold(kind="lock", message=f"{plan.build.id} is denied by {denied.by}: {denied.reason}")
    window = window_hold(plan, rollout, seen.now)
    if window is not None and not is_overridden:
        yield window
    if plan.pipeline.commander.required:
        if seen.lease is None:
            yield st.Hold(kind="commander", message="nobody is the commander: `hotcold commander take`")
        elif not seen.lease.is_live(seen.now):
            lapsed = f"the lease of {seen.lease.holder} lapsed at {seen.lease.until.isoformat(timespec='seconds')}"
            yield st.Hold(kind="commander", message=f"{lapsed}: `hotcold commander take`")


def _trouble(plan: Plan, rollout: Rollout, seen: Seen) -> ev.TroubleSeen | None:  # noqa: PLR0911 - reason by reason
    phase = rollout.phase
    if seen.clock_problem is not None:
        return ev.TroubleSeen("clock_jumped", seen.clock_problem)
    if not (isinstance(phase, st.Ready) and phase.is_accepted):
        present = plan.steps[phase.step].rule.tier
        for tier in dict.fromkeys((present, *rollout.reached)):
            changed = _changed_order(rollout, tier, seen, is_present=tier == present)
            if changed is not None:
                return changed
    if not _is_ordered(phase):
        return None
    if seen.ruling is not None and seen.ruling.outcome == "pause":
        return ev.TroubleSeen("verdict", seen.ruling.reason)
    if seen.tally.is_over_budget:
        missing = "; ".join(f"{host}: {what}" for host, what in sorted(seen.tally.missing.items())[:5])
        count, allowed = len(seen.tally.missing), seen.tally.allowed
        return ev.TroubleSeen(
            "budget", f"{count} of {seen.tally.host_count} hosts are not there, {allowed} may be ({missing})"
        )
    if isinstance(phase, st.Testing) and seen.tested is not None and not seen.tested.is_good:
        return ev.TroubleSeen("smoke_test", f"smoke test of {named(plan.steps[phase.step])}: {seen.tested.said}")
    return None


def _changed_order(rollout: Rollout, tier: str, seen: Seen, *, is_present: bool) -> ev.TroubleSeen | None:
    """Whether another order stands in the tier than the rollout knows.

    In the tier of the present step also whether hosts obeyed a later one than Consul has.
    """
    known, key = rollout.serials.get(tier, 0), seen.keys.get(tier, TierKey(tier))
    serial = key.claimed_serial
    reports = [host.report for host in seen.hosts if host.tier == tier and host.report is not None]
    highest = max((report.highest for report in reports if is_present), default=0)
    if highest > serial or serial < known:
        return ev.TroubleSeen(
            "store_went_back",
            f"order {max(highest, known)} of {tier} was obeyed, and order {serial} stands there: was Consul restored?",
        )
    if serial != known or (known and key.order is None):
        by = "somebody" if key.order is None else key.order.by or "somebody"
        what = "something that is no order" if key.order is None else f"{key.order.build.id} (order {serial})"
        return ev.TroubleSeen("order_replaced", f"{by} ordered {what} in {tier} meanwhile; resume to order it again")
    return None


def _rejoined(plan: Plan, rollout: Rollout, seen: Seen) -> ev.HostRejoined | None:
    tier, good = plan.steps[rollout.phase.step].rule.tier, set(seen.tally.good)
    back = (each for each in rollout.set_aside if each.tier == tier and each.host in good)
    return next((ev.HostRejoined(each.tier, each.host) for each in back), None)


def _is_ordered(phase: st.Phase) -> bool:
    return phase.is_ordered if isinstance(phase, st.Paused) else not isinstance(phase, st.Ready)
