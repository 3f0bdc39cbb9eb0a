"""Owns what machines read of a rollout: one typed document, the same for commands and for the API. Pure.

What a rollout looks like to people is left to `checkpoint.rollout.picture`, which this is made from.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from checkpoint.rollout.kept_evidence import MetricDocument, view_document
from checkpoint.rollout.picture import Picture, StepView
from checkpoint.rollout.tally import Tally
from checkpoint.windows import Moment


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every key is there, also where it holds nothing."""


class StepDocument(_Part, frozen=True):
    """One step; `begins` and `ends` are expected times, null where it is done, under way, or nothing is in sight."""

    name: str
    tier: str
    percent: float
    host_count: int
    standing: Literal["done", "current", "ahead"]
    begins: Moment | None
    ends: Moment | None


class HostsDocument(_Part, frozen=True):
    """The hosts of the present step: names, with what they do where they do not run the build."""

    good: tuple[str, ...]
    failed: dict[str, str]
    silent: dict[str, str]
    overdue: dict[str, str]
    pending: dict[str, str]
    set_aside: tuple[str, ...]
    may_fail: int


class CommanderDocument(_Part, frozen=True):
    """Who commands, or commanded last, until when."""

    holder: str
    until: Moment


class LockDocument(_Part, frozen=True):
    """Why nothing new starts."""

    by: str
    reason: str


class RolloutDocument(_Part, frozen=True):
    """The latest rollout as it stands.

    Attributes:
        since: when it came into its phase.
        step: index into `steps`.
        index: of Consul: what a decision about the rollout is based on.
        waiting_for: why it does not go on, the first reason first; empty: it does.
        next: what to do next.
        engine: the one that leads; null: no step is taken.
        denied: ids of builds.
        set_aside: hosts that are not waited for, as `tier/host`.
        closes: when the present tier's window closes; null: not in sight, or closed.
    """

    app: str
    rollout: int
    build: str
    by: str
    reason: str
    phase: str
    since: Moment
    step: int
    index: int
    waiting_for: tuple[str, ...]
    next: str
    engine: str | None
    steps: tuple[StepDocument, ...]
    hosts: HostsDocument
    metrics: tuple[MetricDocument, ...]
    commander: CommanderDocument | None
    lock: LockDocument | None
    denied: tuple[str, ...]
    set_aside: tuple[str, ...]
    override_until: Moment | None
    closes: Moment | None


def document(shown: Picture) -> RolloutDocument:
    """The document; see docs/rollouts.md."""
    rollout, plan, lease, lock = shown.rollout, shown.plan, shown.lease, shown.guards.lock
    return RolloutDocument(
        app=plan.app,
        rollout=plan.number,
        build=plan.build.id,
        by=plan.by,
        reason=plan.reason,
        phase=rollout.phase_name,
        since=rollout.phase.since,
        step=rollout.phase.step,
        index=shown.index,
        waiting_for=shown.waiting_for,
        next=shown.following,
        engine=shown.engine,
        steps=tuple(step_document(step) for step in shown.steps),
        hosts=_hosts(shown.tally),
        metrics=tuple(view_document(view) for view in shown.metrics),
        commander=None if lease is None else CommanderDocument(holder=lease.holder, until=lease.until),
        lock=None if lock is None else LockDocument(by=lock.by, reason=lock.reason),
        denied=tuple(denied.id for denied in shown.guards.denied),
        set_aside=tuple(f"{each.tier}/{each.host}" for each in rollout.set_aside),
        override_until=None if rollout.override is None else rollout.override.until,
        closes=shown.closes,
    )


def step_document(step: StepView) -> StepDocument:
    """One step."""
    times = step.expected
    return StepDocument(
        name=step.name,
        tier=step.tier,
        percent=step.percent,
        host_count=step.host_count,
        standing=step.standing,
        begins=None if times is None else times.begins,
        ends=None if times is None else times.ends,
    )


def _hosts(counted: Tally) -> HostsDocument:
    return HostsDocument(
        good=tuple(counted.good),
        failed=dict(counted.failed),
        silent=dict(counted.silent),
        overdue=dict(counted.overdue),
        pending=dict(counted.pending),
        set_aside=tuple(counted.set_aside),
        may_fail=counted.allowed,
    )
