"""Owns how a plan and a rollout are written as text; leaves what they are to `checkpoint.rollout.picture`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from checkpoint.rollout.kept_evidence import MetricView
from checkpoint.rollout.picture import Picture, StepView, steps
from checkpoint.rollout.plan import Plan
from hotcold.terminal import ago, many

_NAMED_HOSTS = 6
_MARKS = {"done": "✓", "current": "▸", "ahead": "·"}


def plan_lines(plan: Plan, now: datetime) -> Iterator[str]:
    """Hosts, times and windows of what would be done."""
    yield f"rollout {plan.number} of {plan.build.id} for {plan.app}: {plan.reason}"
    for tier in plan.tiers:
        old = "nothing" if tier.previous is None else tier.previous.id
        zones = f", {many(len(set(tier.zones)), 'zone')}" if tier.zones else ""
        yield f"  {tier.name}: {many(len(tier.hosts), 'host')}{zones}, now {old}"
    yield from _steps(steps(plan, None, now), now)
    for window in plan.pipeline.calendar.windows:
        tiers = ", ".join(window.tiers) or "all tiers"
        days = ", ".join(window.days)
        yield f"  window {window.name!r}: {tiers}, {days}, {window.opens:%H:%M} to {window.closes:%H:%M} {window.zone}"
    for freeze in plan.pipeline.calendar.freezes:
        yield f"  freeze until {freeze.ends.isoformat(timespec='minutes')}: {freeze.reason}"


def status_lines(shown: Picture, now: datetime, *, show_hosts: bool = False) -> Iterator[str]:
    """Where a rollout stands."""
    plan, rollout = shown.plan, shown.rollout
    since = ago(rollout.phase.since.isoformat(), now)
    yield f"rollout {plan.number} of {plan.build.id} for {plan.app}, by {plan.by}: {plan.reason}"
    phase = rollout.phase_name.replace("_", " ")
    yield f"  {phase} since {since}, at step {rollout.phase.step + 1} of {len(plan.steps)}"
    yield from _steps(shown.steps, now)
    counted = shown.tally
    if not rollout.is_ended:
        parts = [f"{len(counted.good)} of {counted.host_count} hosts of this step run it"]
        groups = (("failed", counted.failed), ("silent", counted.silent), ("overdue", counted.overdue))
        parts += [f"{len(hosts)} {word}" for word, hosts in groups if hosts]
        if counted.set_aside:
            parts.append(f"{len(counted.set_aside)} set aside: {', '.join(counted.set_aside)}")
        yield f"  {'; '.join(parts)}; {counted.allowed} may fail"
    for reason in shown.waiting_for[: None if show_hosts else _NAMED_HOSTS]:
        yield f"  waits for: {reason}"
    yield from _metrics(shown.metrics)
    if shown.lease is not None:
        state = "until" if shown.lease.is_live(now) else "lapsed at"
        note = f": {shown.lease.note}" if shown.lease.note else ""
        yield f"  commander: {shown.lease.holder} {state} {shown.lease.until.isoformat(timespec='seconds')}{note}"
    if not rollout.is_ended:
        yield f"  engine: {shown.engine or f'NONE, so no step is taken: hotcold checkpoint run --app {plan.app}'}"
    if rollout.override is not None and rollout.override.until > now:
        until = rollout.override.until.isoformat(timespec="seconds")
        yield f"  OVERRIDDEN until {until} by {rollout.override.by}: {rollout.override.reason}"
    if shown.closes is not None and not rollout.is_ended:
        yield f"  window: open until {shown.closes.isoformat(timespec='minutes')}"
    if shown.guards.lock is not None:
        yield f"  LOCKED by {shown.guards.lock.by}: {shown.guards.lock.reason}"
    for denied in shown.guards.denied:
        yield f"  denied: {denied.id} by {denied.by}: {denied.reason}"
    yield f"  next: {shown.following}"
    yield f"  index: {shown.index}"


def _steps(views: Sequence[StepView], now: datetime) -> Iterator[str]:
    for view in views:
        times = view.expected
        if times is None:
            when = ""
        elif times.begins is None or times.ends is None:
            when = "in no window that is in sight"
        else:
            when = f"{_clock(times.begins, now)} to {_clock(times.ends, now)}"
        hosts = ", ".join(view.hosts[:_NAMED_HOSTS]) + (" ..." if len(view.hosts) > _NAMED_HOSTS else "")
        line = f"  {_MARKS[view.standing]} {view.name:<16} {many(view.host_count, 'host'):>10}  {when:<32} {hosts}"
        yield line.rstrip()


def _metrics(views: Sequence[MetricView]) -> Iterator[str]:
    for view in views:
        what = view.standing.replace("_", " ")
        said = view.outcome if view.standing in {"go", "wait", "idle"} else f"{view.outcome}, {what}"
        yield f"  metric {view.metric.name}: {said}: {view.reason}"
        if view.problem and view.problem not in view.reason:
            yield f"  metric {view.metric.name}: its source failed: {view.problem}"


def _clock(at: datetime, now: datetime) -> str:
    local = at.astimezone()
    return local.strftime("%H:%M" if local.date() == now.astimezone().date() else "%a %d %b %H:%M")
