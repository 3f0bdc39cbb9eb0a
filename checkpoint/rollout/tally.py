"""Owns how a step's hosts stand to it: who runs the build, who said no, who is silent or overdue. Pure.

What follows from that is left to `checkpoint.rollout.watching`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from checkpoint.following import FAILED_STATES
from checkpoint.pipeline import Budget
from checkpoint.reading import HostKey
from checkpoint.rollout.plan import Plan
from checkpoint.rollout.states import Rollout
from fleet import Report

Silent = Collection[tuple[str, str]]
"""(tier, host) of the agents that are not alive."""

_FEW_FAILURES: Final = 4
"""A build passes by reports alone where fewer than one in so many of its hosts failed its proof."""


@dataclass(frozen=True)
class Tally:
    """A step's hosts, each under one heading, with what it does where that matters.

    Attributes:
        good: run the build, steadily, and are alive.
        unproved: failed the build's proof; also in `failed`.
        failed: rolled back, or refuse the build or the order.
        silent: their agents are not alive.
        overdue: had their time, and are neither good nor failed.
        pending: on the way.
        set_aside: not waited for.
    """

    good: tuple[str, ...] = ()
    unproved: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=dict)
    overdue: Mapping[str, str] = field(default_factory=dict)
    pending: Mapping[str, str] = field(default_factory=dict)
    set_aside: tuple[str, ...] = ()
    is_late: bool = False
    allowed: int = 0

    @property
    def host_count(self) -> int:
        """Hosts that count."""
        return len(self.good) + len(self.failed) + len(self.silent) + len(self.overdue) + len(self.pending)

    @property
    def missing(self) -> Mapping[str, str]:
        """Hosts that count against the budget once the step is judged."""
        return {**self.failed, **self.silent, **self.overdue}

    @property
    def is_done(self) -> bool:
        """Whether the hosts run the build, but for what the budget allows; never without one that does."""
        return bool(self.good) and not self.pending and len(self.missing) <= self.allowed

    @property
    def is_over_budget(self) -> bool:
        """Whether more failed than is allowed; hosts that are only silent count from their deadline on."""
        late = len(self.silent) if self.is_late else 0
        return len(self.failed) + len(self.overdue) + late > self.allowed


def tally(plan: Plan, rollout: Rollout, hosts: Sequence[HostKey], silent: Silent, now: datetime) -> Tally:
    """Judge the reports of the present step's hosts.

    Hosts that joined since the plan was made are not waited for. Where the order gives them the build, because it is
    for the whole tier, they count once they run it, or have failed.
    """
    step = plan.steps[rollout.phase.step]
    tier = step.rule.tier
    planned = frozenset(plan.tier(tier).hosts)
    reports = {host.host: host for host in hosts if host.tier == tier}
    aside = {each.host for each in rollout.set_aside if each.tier == tier}
    is_late = rollout.ordered is not None and now >= rollout.ordered + timedelta(seconds=step.rule.deadline_s)
    found = _Headings()
    serial = rollout.serials.get(tier, 0)
    for name in plan.hosts_of(rollout.phase.step):
        found.add(name, reports.get(name), plan.build.id, serial, is_silent=(tier, name) in silent, is_late=is_late)
    for name in sorted(reports.keys() - planned) if step.cutoff >= 1.0 else ():
        joined = _Headings()
        joined.add(name, reports[name], plan.build.id, serial, is_silent=(tier, name) in silent, is_late=is_late)
        if joined.good or joined.failed:
            found.add(name, reports[name], plan.build.id, serial, is_silent=False, is_late=is_late)
    counted = [name for name in found.all if name not in aside or name in found.good]
    return Tally(
        good=tuple(found.good),
        unproved=tuple(name for name in found.unproved if name not in aside),
        failed=_without(found.failed, aside),
        silent=_without(found.silent, aside),
        overdue=_without(found.overdue, aside),
        pending=_without(found.pending, aside),
        set_aside=tuple(name for name in found.all if name in aside and name not in found.good),
        is_late=is_late,
        allowed=allowance(step.rule.budget, len(counted)),
    )


def allowance(budget: Budget, host_count: int) -> int:
    """How many of so many hosts may fail: never all of them."""
    allowed = max(budget.count, math.floor(budget.percent * host_count / 100))
    return max(0, min(allowed, host_count - 1))


def is_condemned(seen: Tally, budget: Budget) -> bool:
    """Whether several hosts, beyond the budget, failed the build's proof: one alone accuses itself, not the build."""
    return len(seen.unproved) > seen.allowed and len(seen.unproved) >= budget.roll_back_after


def doubt(seen: Tally) -> str | None:
    """Why reports alone give no verdict for the step; None: they let it pass."""
    if not seen.is_done:
        return f"{len(seen.good)} of {seen.host_count} hosts run the build"
    if len(seen.unproved) * _FEW_FAILURES >= seen.host_count:
        return (
            f"{', '.join(seen.unproved)} failed the proof, of {seen.host_count} hosts: too few to tell the host from "
            "the build; set it aside, advance, or roll back"
        )
    return None


class _Headings:
    """Collects hosts under their headings."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self.good: list[str] = []
        self.unproved: list[str] = []
        self.failed: dict[str, str] = {}
        self.silent: dict[str, str] = {}
        self.overdue: dict[str, str] = {}
        self.pending: dict[str, str] = {}

    def add(
        self, name: str, host: HostKey | None, build_id: str, serial: int, *, is_silent: bool, is_late: bool
    ) -> None:
        self.all.append(name)
        report = None if host is None else host.report
        obeys = report is not None and report.serial == serial
        if report is not None and obeys and report.state in FAILED_STATES:
            self.failed[name] = FAILED_STATES[report.state] + _because(report)
            if report.state == "rolled_back" or (report.problem is not None and report.problem.kind == "proof_failed"):
                self.unproved.append(name)
        elif report is not None and _refuses(report):
            self.failed[name] = "does not obey the order" + _because(report)
        elif is_silent:
            self.silent[name] = "silent" + ("" if report is None else f", last {report.state.replace('_', ' ')}")
        elif report is not None and obeys and report.state == "steady" and report.hot == build_id:
            self.good.append(name)
        else:
            (self.overdue if is_late else self.pending)[name] = _doing(host, obeys=obeys)


def _refuses(report: Report) -> bool:
    kind = "" if report.problem is None else report.problem.kind
    return kind.startswith("order_") and kind != "order_absent"


def _doing(host: HostKey | None, *, obeys: bool) -> str:
    if host is None:
        return "no report"
    if host.report is None:
        return f"its report cannot be read: {host.fault}"
    if not obeys:
        return "has not obeyed the order yet" + _because(host.report)
    return host.report.state.replace("_", " ") + _because(host.report)


def _because(report: Report) -> str:
    is_news = report.problem is not None and report.problem.kind != "order_absent"
    return f": {report.problem.message}" if is_news and report.problem is not None else ""


def _without(hosts: Mapping[str, str], aside: Collection[str]) -> Mapping[str, str]:
    return {name: what for name, what in hosts.items() if name not in aside}
