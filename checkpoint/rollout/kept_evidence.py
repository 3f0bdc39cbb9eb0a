"""Owns what lies in Consul of a rollout's verdicts, and what people are shown of it: how each metric stands. Pure.

What evidence means is left to `checkpoint.verdicts`; collecting it, to `checkpoint.metric_judge`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import msgspec

from artifact import Refused
from checkpoint.rollout.plan import Plan
from checkpoint.rollout.states import Rollout
from checkpoint.verdicts import Action, Evidence, History, Metric, Verdict
from checkpoint.verdicts.observed import Counts
from checkpoint.verdicts.ratio import Ratio
from checkpoint.windows import Moment

JUDGE: Final = "metrics"
"""The name by which the judge of metrics keeps its evidence."""

Standing = Action | Literal["idle"]
"""What follows from a metric; `idle`: it says nothing of the present step."""


class AllKept(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the judges of one rollout remember, by their names."""

    v: int = 1
    judges: dict[str, msgspec.Raw] = {}


class Judged(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One metric in one rollout.

    Attributes:
        history: None: its source could not tell of the past.
        problem: why the last interval could not be used; empty: it could.
        readings: what its counters showed at the last look, for a next leader; of few hosts only.
    """

    evidence: Evidence = Evidence()
    verdict: Verdict | None = None
    history: History | None = None
    problem: str = ""
    readings: tuple[Counts, ...] = ()


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """All metrics in one rollout, as they lie in Consul.

    Attributes:
        step: the step that the evidence is of.
        ordered: when that was ordered, or resumed.
        at: when sources were last asked.
    """

    v: int = 1
    step: int = -1
    ordered: datetime | None = None
    at: datetime | None = None
    metrics: dict[str, Judged] = {}


def decode_kept(evidence: bytes, metrics: Sequence[Metric]) -> Kept:
    """What is kept of these metrics; nothing where nothing was.

    Raises:
        Refused: it is of another version, or damaged.
    """
    if not evidence:
        return Kept()
    try:
        kept = msgspec.json.decode(evidence, type=Kept)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"the metrics' evidence is malformed: {error}", kind="evidence_invalid") from error
    if kept.v != 1:
        raise Refused(f"the metrics' evidence has version {kept.v}; this hotcold reads 1", kind="evidence_version")
    names = {metric.name for metric in metrics}
    return msgspec.structs.replace(kept, metrics={name: each for name, each in kept.metrics.items() if name in names})


@dataclass(frozen=True)
class MetricView:
    """How one metric of a rollout stands.

    Attributes:
        standing: what follows from it.
        outcome: `pass`, `fail`, or `none`.
        reason: in words.
        verdict: of the last look; None: there was none in this step.
        problem: why its source said nothing usable in the last look; empty: it did.
        at: when its source was last asked.
        among: how many metrics may stop this step: lines are as many times higher.
    """

    metric: Metric
    standing: Standing
    outcome: Literal["pass", "fail", "none"]
    reason: str
    verdict: Verdict | None = None
    problem: str = ""
    at: datetime | None = None
    among: int = 1


def applying_to(tier: str, metrics: Sequence[Metric]) -> tuple[Metric, ...]:
    """The metrics that say something of a tier's steps: those without tiers, and those of its own."""
    return tuple(metric for metric in metrics if not metric.tiers or tier in metric.tiers)


def metric_views(plan: Plan, rollout: Rollout, evidence: bytes | None) -> tuple[MetricView, ...]:
    """Every metric of the plan, in its order; never raises for what lies in Consul.

    Args:
        plan: of the rollout.
        rollout: as it stands.
        evidence: the value of its key; None: there is none.
    """
    metrics = plan.pipeline.metrics
    if not metrics:
        return ()
    try:
        known = AllKept() if evidence is None else msgspec.json.decode(evidence, type=AllKept)
        kept, fault = decode_kept(bytes(known.judges.get(JUDGE, b"")), metrics), ""
    except (msgspec.DecodeError, UnicodeDecodeError, Refused) as error:
        kept, fault = Kept(), f"what was seen so far cannot be read: {error}"
    tier = plan.steps[rollout.phase.step].rule.tier
    return tuple(_view(metric, kept, fault, tier, metrics) for metric in metrics)


def _view(metric: Metric, kept: Kept, fault: str, tier: str, metrics: Sequence[Metric]) -> MetricView:
    is_asked = not metric.tiers or tier in metric.tiers
    among = max(1, len(applying_to(tier if is_asked else metric.tiers[-1], metrics)))
    if fault:
        return MetricView(metric, "wait", "none", fault, among=among)
    judged = kept.metrics.get(metric.name)
    verdict = None if judged is None else judged.verdict
    if not is_asked:
        return MetricView(metric, "idle", "none", f"it says nothing of {tier}", verdict, among=among)
    if judged is None or verdict is None:
        return MetricView(metric, "wait", "none", "not looked at yet in this step", among=among)
    reason = verdict.reason
    return MetricView(
        metric, verdict.action, verdict.outcome, reason, verdict, problem=judged.problem, at=kept.at, among=among
    )


class MetricDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one metric stands.

    Attributes:
        action: what follows from it; `idle`: it says nothing of the present step.
        host: whom the evidence speaks against, or null.
        is_weak: compared with the past instead of hosts that are not updated.
        log10_evidence, log10_without: see docs/verdicts.md; null: not looked at yet.
        problem: why the last interval could not be used; null: it could.
        at: when its source was last asked.
    """

    metric: str
    outcome: Literal["pass", "fail", "none"]
    action: Standing
    reason: str
    host: str | None
    is_weak: bool
    ratio: Ratio | None
    log10_evidence: float | None
    log10_without: float | None
    problem: str | None
    at: Moment | None


def view_document(view: MetricView) -> MetricDocument:
    """The same for machines; see docs/rollouts.md."""
    verdict = view.verdict
    return MetricDocument(
        metric=view.metric.name,
        outcome=view.outcome,
        action=view.standing,
        reason=view.reason,
        host=None if verdict is None else verdict.host,
        is_weak=verdict is not None and verdict.is_weak,
        ratio=None if verdict is None else verdict.ratio,
        log10_evidence=None if verdict is None else verdict.log10_evidence,
        log10_without=None if verdict is None else verdict.log10_without,
        problem=view.problem or None,
        at=view.at,
    )
