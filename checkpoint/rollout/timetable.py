"""Owns when a step may begin: windows judged on the end of what remains, and the times that a plan expects. Pure.

Windows themselves are left to `checkpoint.windows`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from checkpoint.rollout import states as st
from checkpoint.rollout.plan import Plan, StepPlan
from checkpoint.windows import closing, earliest, freeze_at, is_endless


@dataclass(frozen=True)
class Expected:
    """One step on its way: `begins` None: in no window that is in sight."""

    step: StepPlan
    begins: datetime | None
    ends: datetime | None


def needed(plan: Plan, step: int) -> timedelta:
    """How long what must end before closing takes, if the step begins now."""
    if plan.steps[step].rule.clears == "step":
        return plan.steps[step].rule.length
    return sum((each.rule.length for each in plan.remaining(step)), timedelta())


def expected(plan: Plan, now: datetime, step: int = 0) -> tuple[Expected, ...]:
    """When each step from `step` on would begin and end if nobody and nothing held it up but windows."""
    times: list[Expected] = []
    at: datetime | None = now
    for number in range(step, len(plan.steps)):
        each = plan.steps[number]
        begins = None if at is None else earliest(plan.pipeline.calendar, each.rule.tier, at, needed(plan, number))
        at = None if begins is None else begins + each.rule.length
        times.append(Expected(each, begins, at))
    return tuple(times)


def window_hold(plan: Plan, rollout: st.Rollout, now: datetime) -> st.Hold | None:  # noqa: PLR0911 - reason by reason
    """What windows say against the next step beginning now; None: nothing."""
    step = rollout.phase.step
    tier = plan.steps[step].rule.tier
    calendar = plan.pipeline.calendar
    freeze = freeze_at(calendar, tier, now)
    if freeze is not None:
        return st.Hold(kind="freeze", message=f"{tier} is frozen until {_time(freeze.ends)}: {freeze.reason}")
    closes = closing(calendar, tier, now)
    if closes is not None and now + needed(plan, step) <= closes:
        return None
    chosen = rollout.closing
    if chosen is not None and chosen.choice == "finish" and chosen.until is not None and now < chosen.until:
        return None
    opens = earliest(calendar, tier, now, needed(plan, step))
    following = "in no window that is in sight" if opens is None else f"next at {_time(opens)}"
    if chosen is not None and chosen.choice == "hold" and tier in rollout.reached:
        return st.Hold(kind="closing", message=f"{tier} is held over closing, watched by {chosen.by}; {following}")
    if closes is None:
        return st.Hold(kind="window", message=f"{tier} is closed; {following}")
    what = f"what remains in {tier} takes {_span(needed(plan, step))} and would not end before {_time(closes)}"
    if tier in rollout.reached:
        return st.Hold(kind="closing", message=f"{what}: choose finish, hold or rollback; else {following}")
    return st.Hold(kind="window", message=f"{what}; {following}")


def unclear_closing(plan: Plan, rollout: st.Rollout, now: datetime) -> datetime | None:
    """When the tier closes, where a decision is due on that: hosts have the build, and the tier will not be through."""
    phase = rollout.phase
    rule = plan.steps[phase.step].rule
    if rule.tier not in rollout.reached:
        return None
    closes = closing(plan.pipeline.calendar, rule.tier, now)
    if closes is None or is_endless(closes):
        return None
    before = timedelta(seconds=plan.pipeline.commander.decide_before_s)
    if now + _left(plan, phase, now) <= closes or closes - now > before:
        return None
    return closes


def closing_in_question(plan: Plan, rollout: st.Rollout, now: datetime) -> tuple[datetime | None, datetime]:
    """The closing that a decision now is about, None: none; and until when going on beyond it may take.

    That is half as long again as what is left is expected to take, and an hour.
    """
    closes = None if rollout.closing is None else rollout.closing.at
    if closes is None and not rollout.is_ended:
        coming = closing(plan.pipeline.calendar, plan.steps[rollout.phase.step].rule.tier, now)
        closes = None if coming is None or is_endless(coming) else coming
    return closes, now + 1.5 * _left(plan, rollout.phase, now) + timedelta(hours=1)


def _left(plan: Plan, phase: st.Phase, now: datetime) -> timedelta:
    """What is left of the tier."""
    whole = sum((each.rule.length for each in plan.remaining(phase.step)), timedelta())
    length = plan.steps[phase.step].rule.length
    match phase:
        case st.Ready():
            return whole
        case st.Deploying():
            return whole - min(length, now - phase.since)
        case st.Baking():
            return whole - length + max(timedelta(), phase.until - now)
        case _:
            return whole - length


def _time(at: datetime) -> str:
    return at.isoformat(timespec="minutes")


def _span(length: timedelta) -> str:
    minutes = round(length.total_seconds() / 60)
    return f"{minutes} min"
