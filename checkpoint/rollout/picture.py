"""Owns what a rollout looks like to people: its steps, where it stands, what it waits for, what to do next. Pure.

Drawing is left to the front ends: commands, pages and messages all show this.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from checkpoint.guards import Guards, Lease
from checkpoint.rollout import states as st
from checkpoint.rollout.advice import following
from checkpoint.rollout.kept_evidence import MetricView, metric_views
from checkpoint.rollout.ledger import Ongoing, Surroundings
from checkpoint.rollout.machine import named
from checkpoint.rollout.plan import Plan
from checkpoint.rollout.tally import Silent, Tally, tally
from checkpoint.rollout.timetable import Expected, expected
from checkpoint.windows import closing, is_endless


@dataclass(frozen=True)
class StepView:
    """One step.

    Attributes:
        standing: `done`, `current` or `ahead`.
        hosts: those that run the build from this step on, in the order of the plan.
        expected: when it would begin and end if nothing but windows held it up; None: it is done, or under way.
    """

    name: str
    tier: str
    percent: float
    host_count: int
    hosts: tuple[str, ...]
    standing: Literal["done", "current", "ahead"]
    expected: Expected | None = None


@dataclass(frozen=True)
class Picture:
    """A rollout as it stands.

    Attributes:
        index: what a decision about it is based on.
        waiting_for: why it does not go on, in words, the first reason first; empty: it does.
        following: what to do next, a command where there is one.
        engine: the one that leads, None: nobody does, so nothing goes on by itself.
        closes: when the present tier's window closes, None: not in sight, or closed.
        metrics: how each metric of the plan stands.
    """

    plan: Plan
    rollout: st.Rollout
    index: int
    steps: tuple[StepView, ...]
    tally: Tally
    guards: Guards
    lease: Lease | None
    waiting_for: tuple[str, ...]
    following: str
    engine: str | None
    closes: datetime | None
    metrics: tuple[MetricView, ...] = ()


def picture(  # noqa: PLR0917 - all that is known of a rollout
    ongoing: Ongoing,
    around: Surroundings,
    silent: Silent,
    engine: str | None,
    now: datetime,
    evidence: bytes | None = None,
) -> Picture:
    """Put together what is known. `evidence`: what the rollout's verdicts remember."""
    plan, rollout = ongoing.plan, ongoing.rollout
    counted = tally(plan, rollout, around.hosts, silent, now)
    closes = closing(plan.pipeline.calendar, plan.steps[rollout.phase.step].rule.tier, now)
    return Picture(
        plan=plan,
        rollout=rollout,
        index=ongoing.index,
        steps=tuple(steps(plan, rollout, now)),
        tally=counted,
        guards=around.guards,
        lease=around.lease,
        waiting_for=tuple(waiting_for(plan, rollout, counted)),
        following=following(plan, rollout),
        engine=engine,
        closes=None if closes is None or is_endless(closes) else closes,
        metrics=metric_views(plan, rollout, evidence),
    )


def steps(plan: Plan, rollout: st.Rollout | None, now: datetime) -> list[StepView]:
    """The plan's steps; `rollout` None: it has not started."""
    current = -1 if rollout is None else rollout.phase.step
    is_over = rollout is not None and isinstance(rollout.phase, st.Finished)
    ahead = expected(plan, now, max(0, current + (rollout is not None and not isinstance(rollout.phase, st.Ready))))
    times = {id(each.step): each for each in ahead}
    views = []
    for number, step in enumerate(plan.steps):
        if number < current or is_over:
            standing: Literal["done", "current", "ahead"] = "done"
        else:
            standing = "current" if number == current else "ahead"
        views.append(
            StepView(
                name=named(step),
                tier=step.rule.tier,
                percent=step.rule.percent,
                host_count=step.host_count,
                hosts=plan.hosts_of(number),
                standing=standing,
                expected=None if standing == "done" else times.get(id(step)),
            )
        )
    return views


def waiting_for(plan: Plan, rollout: st.Rollout, counted: Tally) -> list[str]:  # noqa: PLR0911 - a row for each phase
    """Why the rollout does not go on."""
    match rollout.phase:
        case st.Ready(holds=holds):
            return [hold.message for hold in holds]
        case st.Deploying():
            named_hosts = [f"{host}: {what}" for host, what in sorted({**counted.pending, **counted.missing}.items())]
            return [f"{len(counted.good)} of {counted.host_count} hosts run the build", *named_hosts]
        case st.Baking(until=until):
            late = [f"{host}: {what}" for host, what in sorted({**counted.pending, **counted.missing}.items())]
            return [f"bakes until {_time(until)}", *late]
        case st.Testing():
            test = plan.steps[rollout.phase.step].rule.smoke_test
            return ["the smoke test" + ("" if test is None else f" {test.command[0]}")]
        case st.Judging(wanting=wanting):
            return [wanting or "a verdict"]
        case st.Approving():
            return ["an approval"]
        case st.Paused(reason=reason, by=by):
            return [f"paused by {by}: {reason}"]
        case _:
            return []


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
