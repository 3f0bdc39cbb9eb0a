"""Owns what programs are answered: one type for each operation, from which its schema is made. Pure.

What stands in them is left to the operations.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from checkpoint.audit import Record
from checkpoint.guards import Denied, Lease, Lock, Scheduled
from checkpoint.pipeline import Budget, Confirmation
from checkpoint.rollout.document import RolloutDocument, StepDocument
from checkpoint.rollout.summary import Summary, Unreadable
from checkpoint.verdicts import Verdict
from checkpoint.windows import Freeze, Moment, Window
from fleet import Report

StandingName = Literal["failed", "silent", "retrying", "held", "busy", "behind", "good"]


class _Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every key is there, also where it holds nothing."""


class _Fresh(_Answer, frozen=True):
    """What is known to this server.

    Attributes:
        index: highest Consul index of what is shown.
        at: when it was so.
        cut_off_since: since when Consul does not answer; null: it does.
    """

    index: int
    at: Moment
    cut_off_since: Moment | None


class LatestAnswer(_Fresh, frozen=True):
    """The latest rollout; null before the first. `actions`: what would do something now."""

    rollout: RolloutDocument | None
    actions: tuple[str, ...]


class RolloutsAnswer(_Answer, frozen=True):
    """Rollouts, the latest first. `next`: what to give as `before` for those after them; null: there are none."""

    rollouts: tuple[Summary, ...]
    unreadable: tuple[Unreadable, ...]
    next: int | None


class TierHosts(_Answer, frozen=True):
    """A tier of a plan: its hosts in the order in which steps reach them, and the build that the others run."""

    name: str
    hosts: tuple[str, ...]
    previous: str | None
    serial: int


class BuildFacts(_Answer, frozen=True):
    """A build, without the places that it is fetched from."""

    id: str
    digest: str
    size: int
    format: str
    is_signed: bool


class PastAnswer(_Answer, frozen=True):
    """A rollout by its number: where it stands, or how it ended; its steps; and the hosts that its plan names.

    `set_aside` names hosts that were not waited for, as `tier/host`; `index` is what a decision about it is based on,
    null where it is not the latest: nothing can be done to it any more.
    """

    summary: Summary
    index: int | None
    build: BuildFacts
    reached: tuple[str, ...]
    set_aside: tuple[str, ...]
    steps: tuple[StepDocument, ...]
    tiers: tuple[TierHosts, ...]


class MetricEvidence(_Answer, frozen=True):
    """What is known of one metric: its verdict, and the counts of updated hosts and of the others."""

    verdict: Verdict | None
    intervals: int
    step_intervals: int
    unsound_intervals: int
    updated_bad: float
    updated_total: float
    others_bad: float
    others_total: float
    expected: float


class EvidenceAnswer(_Answer, frozen=True):
    """What the verdicts of a rollout rest on, as the engine keeps it. `at`: when metrics were last asked."""

    rollout: int
    step: int | None
    at: Moment | None
    metrics: dict[str, MetricEvidence]


class OrderFacts(_Answer, frozen=True):
    """What a tier is ordered: `build` below the cutoff, `previous` above it."""

    serial: int
    build: str
    previous: str | None
    percent: float
    cutoff: float
    max_unavailable: int | None
    not_after: str | None
    reason: str
    by: str
    at: str


class TierFacts(_Answer, frozen=True):
    """One tier. `fault`: why its order cannot be read; null: it can."""

    tier: str
    order: OrderFacts | None
    fault: str | None
    host_count: int
    standings: dict[str, int]
    running: dict[str, int]


class TiersAnswer(_Fresh, frozen=True):
    """Every tier: its order, how many hosts stand how to it, and how many run which build."""

    tiers: tuple[TierFacts, ...]


class HostFacts(_Answer, frozen=True):
    """One host, and how it stands to its tier's order."""

    tier: str
    host: str
    standing: StandingName
    state: str
    hot: str | None
    wanted: str | None
    serial: int
    since: str
    health: str | None
    note: str


class HostsAnswer(_Fresh, frozen=True):
    """Hosts; `count` of all that were asked for, also of those beyond the limit."""

    count: int
    hosts: tuple[HostFacts, ...]


class HostRank(_Answer, frozen=True):
    """Where the latest rollout reaches a host: its place from 1, and the first step that takes it in."""

    rollout: int
    place: int | None
    of: int
    step: str | None


class HostAnswer(_Fresh, frozen=True):
    """One host. `report`: what it said last; `position` below the order's `cutoff` means the new build."""

    host: HostFacts
    report: Report | None
    order: OrderFacts | None
    position: float | None
    rank: HostRank | None


class AuditAnswer(_Answer, frozen=True):
    """Records, the newest first.

    `next`: what to give as `before` to go on; null: there are no more. A page may have fewer records than were asked
    for, and more may follow: only so many are looked through at a time.
    """

    records: tuple[Record, ...]
    next: int | None


class VerifyAnswer(_Answer, frozen=True):
    """Whether the audit is whole. `flaw`: the first thing that is wrong with it; `hash`: of the newest record."""

    is_whole: bool
    count: int
    flaw: str | None
    hash: str


class GuardsAnswer(_Answer, frozen=True):
    """What people have said beforehand; `commander` null: nobody has a live lease."""

    lock: Lock | None
    denied: tuple[Denied, ...]
    commander: Lease | None
    schedule: tuple[Scheduled, ...]


class ReleasedBuild(_Answer, frozen=True):
    """A build that can be planned by its id.

    Attributes:
        at, by, revision, commit_count: of its release; null: it is known from orders alone.
        tiers: those ordered to run it, with the share in percent.
        fault: why its record cannot be read; null: it can.
    """

    id: str
    at: str | None
    by: str | None
    revision: str | None
    commit_count: int | None
    hotfix_of: str | None
    tiers: dict[str, float]
    is_denied: bool
    fault: str | None


class BuildsAnswer(_Answer, frozen=True):
    """Builds that can be planned by their ids, the newest first."""

    builds: tuple[ReleasedBuild, ...]


class StepSetting(_Answer, frozen=True):
    """One step of the pipeline."""

    tier: str
    percent: float
    bake_s: float
    expect_s: float
    deadline_s: float
    approval: bool
    verdict: bool
    smoke_test: bool
    max_unavailable: int | str | None
    budget: Budget
    clears: Literal["tier", "step"]


class MetricSetting(_Answer, frozen=True):
    """What builds are judged by. `source`: where counts come from."""

    name: str
    kind: str
    tiers: tuple[str, ...]
    source: str


class WebhookSetting(_Answer, frozen=True):
    """Where messages go; the URL without what is secret in it."""

    name: str
    url: str
    format: str


class PersonSetting(_Answer, frozen=True):
    """Somebody with a token."""

    name: str
    role: str


class SettingsAnswer(_Answer, frozen=True):
    """What is configured, as this instance read it at its start. `people`: null to all but admins."""

    app: str
    instance: str
    steps: tuple[StepSetting, ...]
    windows: tuple[Window, ...]
    freezes: tuple[Freeze, ...]
    commander_required: bool
    lease_s: float
    metrics: tuple[MetricSetting, ...]
    webhooks: tuple[WebhookSetting, ...]
    people: tuple[PersonSetting, ...] | None


class CheckLine(_Answer, frozen=True):
    """What stands in a rollout's way: it `blocks` its start, a step `waits` for it, or it should be known."""

    kind: str
    weight: Literal["blocks", "waits", "warns"]
    what: str
    remedy: str


class PlanAnswer(_Answer, frozen=True):
    """A plan: which hosts each step reaches, and when, as windows have it. Nothing was written.

    Attributes:
        rollout: the number that it would have.
        obstacle: why it could not be started now; null: it could.
        checklist: all that stands in its way, the worst first.
        confirmations: what its start must confirm, by name: `[[checklist]]` of the configuration.
        sealed: what to start exactly this plan with, within the hour, by whoever made it.
    """

    rollout: int
    build: BuildFacts
    steps: tuple[StepDocument, ...]
    tiers: tuple[TierHosts, ...]
    obstacle: str | None
    checklist: tuple[CheckLine, ...]
    confirmations: tuple[Confirmation, ...]
    sealed: str


class DoneAnswer(_Answer, frozen=True):
    """What was done.

    Attributes:
        messages: what is in the audit, and what was left alone.
        rollout, phase: of the rollout after it; null where it was about none.
    """

    messages: tuple[str, ...]
    rollout: int | None
    phase: str | None
