"""Owns the verdict of a rollout's metrics while it runs: asks their sources now and then, and remembers the evidence.

What counts mean is left to `checkpoint.verdicts`, and what follows, to the rollout. The evidence lies in Consul beside
the rollout's state, so that a next leader goes on with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import msgspec
import structlog

from checkpoint.rollout.kept_evidence import Judged, Kept, applying_to, decode_kept
from checkpoint.rollout.machine import named
from checkpoint.rollout.verdict import Answer, Outcome, Question, Ruling
from checkpoint.verdicts import (
    Action,
    Evidence,
    History,
    Interval,
    Metric,
    combine,
    judge,
    next_step,
    set_aside,
    take_back,
    with_interval,
)
from checkpoint.verdicts.observed import fault_in
from checkpoint.verdicts.recording import Decided, Line, Observed, StepBegan, TakenBack
from checkpoint.verdicts.sources import Asked, Sources
from fleet import Report

log = structlog.get_logger()

INTERVAL_S: Final = 30.0
HISTORY_S: Final = 3600.0
"""So long before the rollout counts as the past."""
MAX_HISTORIES: Final = 300
"""Hosts whose past and counters are kept one by one; of more only the sum, for the evidence must fit into Consul."""
LATE: Final = 1.5
"""A look that comes so many intervals after the one before it is about all the time since then."""

_OUTCOMES: Final[Mapping[Action, Outcome]] = {
    "go": "pass",
    "wait": "none",
    "set_aside_host": "pause",
    "pause": "pause",
    "roll_back": "roll_back",
}
_SETTLED_STATES: Final = frozenset({"steady", "watching", "rolled_back", "held"})


Record = Callable[[Question, Mapping[str, History], Sequence[Line]], Awaitable[None]]
"""Told of a rollout, of what is known of the time before it by metric, and of what was observed or decided since."""


Plot = Callable[[Question, Kept, Sequence[Line]], Awaitable[None]]
"""Told of a rollout, of its evidence, and of what was observed or decided since: for charts."""


async def _nobody(_question: Question, _known: object, _lines: Sequence[Line]) -> None:
    pass


class MetricJudge:
    """Gives rulings by metrics; `aclose` ends what it asks.

    Sources are asked beside the rollout, which goes on meanwhile: a slow one delays its verdict, and no rollback.

    Args:
        metrics: those of the engine's own configuration; a plan with others is not judged by them.
        sources: of these metrics; open as long as this is.
        interval_s: pause between two looks, and what a look is about.
        record: told of everything that was observed and decided, for a replay.
        plot: the same, with the evidence, for charts.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        sources: Sources,
        *,
        interval_s: float = INTERVAL_S,
        record: Record | None = None,
        plot: Plot | None = None,
    ) -> None:
        self._metrics = tuple(metrics)
        self._sources = sources
        self._interval = timedelta(seconds=interval_s)
        self._record: Record = record or _nobody
        self._plot: Plot = plot or _nobody
        self._asking: tuple[object, asyncio.Task[_Look]] | None = None

    async def aclose(self) -> None:
        """End what is being asked. Calling it twice is harmless."""
        await self._forget()

    async def ask(self, question: Question) -> Answer:
        """The ruling as of the last look at every source.

        Raises:
            Refused: the evidence in Consul cannot be read.
        """
        metrics = question.plan.pipeline.metrics
        lacking = [metric.name for metric in metrics if metric not in self._metrics]
        if lacking:
            what = (
                f"metric {', '.join(lacking)} of the plan is not in this engine's own configuration, so it is not asked"
            )
            return Answer(Ruling("none", what), question.evidence)
        asked_for = applying(question)
        if not asked_for:
            tier = question.plan.steps[question.rollout.phase.step].rule.tier
            return Answer(Ruling("pass", f"none is for {tier}" if metrics else "none is configured"), question.evidence)
        kept, lines = _turned(decode_kept(question.evidence, metrics), question)
        which = (question.rollout.number, kept.step, kept.ordered, kept.at)
        if self._asking is not None and self._asking[0] != which:
            await self._forget()
        if self._asking is None and _is_due(kept, question.now, self._interval):
            task = asyncio.create_task(self._look(question, kept), name="metrics")
            self._asking = (which, task)
        if self._asking is not None and self._asking[1].done():
            look = self._asking[1].result()
            self._asking = None
            kept, judged = self._judged(kept, look, question)
            lines = (*lines, *judged)
        if lines:
            await self._record(question, _histories(kept), lines)
            await self._plot(question, kept, lines)
        return Answer(_ruling(kept, asked_for), msgspec.json.encode(kept))

    async def _forget(self) -> None:
        if self._asking is not None:
            task, self._asking = self._asking[1], None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _look(self, question: Question, kept: Kept) -> _Look:
        intervals: dict[str, Interval] = {}
        histories: dict[str, History] = {}
        length, is_one_step = _since_last_look(kept, question.now, self._interval)
        for metric in applying(question):
            updated, others = sides(question, metric, length)
            known = kept.metrics.get(metric.name, Judged())
            if known.history is None and not metric.has_counters:
                # Of hosts that run the build already, the last hour would tell what the build does, and excuse it.
                past = await self._sources.observe(metric, _asked(question, metric, (), others, HISTORY_S))
                if past.problem is None and past.others:
                    histories[metric.name] = _bounded(with_interval(History({}), past))
            asked = replace(
                _asked(question, metric, updated, others, length.total_seconds()),
                last_look=kept.at,
                readings=known.readings if is_one_step else (),
            )
            seen = await self._sources.observe(metric, asked)
            if known.history is None and metric.has_counters and seen.problem is None and seen.others:
                # Counters tell of no past; what hosts without the build do at first is the next best.
                histories[metric.name] = _bounded(with_interval(History({}), Interval(others=seen.others)))
            intervals[metric.name] = seen
        return _Look(question.now, intervals, histories)

    def _judged(self, kept: Kept, look: _Look, question: Question) -> tuple[Kept, tuple[Line, ...]]:
        """The evidence with one look more."""
        metrics = dict(kept.metrics)
        lines: list[Line] = []
        at = look.at.isoformat(timespec="seconds")
        for metric in applying(question):
            known = kept.metrics.get(metric.name, Judged())
            history = known.history or look.histories.get(metric.name)
            interval = look.intervals[metric.name]
            evidence, verdict = judge(metric, known.evidence, interval, history=history, among=len(look.intervals))
            readings = self._sources.readings(metric)
            metrics[metric.name] = Judged(
                evidence=evidence,
                verdict=verdict,
                history=history,
                problem=fault_in(interval, metric.kind) or "",
                readings=readings if len(readings) <= MAX_HISTORIES else (),
            )
            lines.append(Observed(at=at, metric=metric.name, interval=interval))
        kept = msgspec.structs.replace(kept, at=look.at, metrics=metrics)
        said = combine([each.verdict for name, each in metrics.items() if name in look.intervals and each.verdict])
        if _OUTCOMES[said.action] in {"pause", "roll_back"}:
            lines.append(Decided(at=at, action=said.action, by="metrics", reason=said.reason, host=said.host))
            log.info("verdict", app=question.plan.app, action=said.action, reason=said.reason)
        return kept, tuple(lines)


class _Look(msgspec.Struct, frozen=True):
    """What all sources said at one moment."""

    at: datetime
    intervals: dict[str, Interval]
    histories: dict[str, History]


def applying(question: Question) -> tuple[Metric, ...]:
    """The metrics that say something of the present step: those without tiers, and those of its tier."""
    tier = question.plan.steps[question.rollout.phase.step].rule.tier
    return applying_to(tier, question.plan.pipeline.metrics)


def sides(question: Question, metric: Metric, interval: timedelta) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Hosts on the build, and hosts that are not; without those that changed within the interval, or are under way."""
    # A metric of reports counts deploys, those that fail above all: there the hosts that were ordered to run the build
    # are the one side, wherever they stand.
    tiers = metric.tiers or tuple(tier.name for tier in question.plan.tiers)
    updated, others = list[str](), list[str]()
    admitted = _admitted(question)
    for host in question.hosts:
        report = host.report
        if host.tier not in tiers:
            continue
        if metric.reports is not None:
            is_updated = (host.tier, host.host) in admitted
        elif report is not None and _is_settled(report, question.now - interval):
            is_updated = report.hot == question.plan.build.id
        else:
            continue
        (updated if is_updated else others).append(host.host)
    return tuple(updated), tuple(others)


def _admitted(question: Question) -> frozenset[tuple[str, str]]:
    """Hosts that were ordered to run the build so far."""
    plan, rollout = question.plan, question.rollout
    present = plan.steps[rollout.phase.step].rule.tier
    return frozenset(
        (tier, host)
        for tier in rollout.reached
        for host in (plan.hosts_of(rollout.phase.step) if tier == present else plan.tier(tier).hosts)
    )


def _is_settled(report: Report, since: datetime) -> bool:
    try:
        entered = datetime.fromisoformat(report.since)
    except ValueError:
        return False
    return report.state in _SETTLED_STATES and entered.tzinfo is not None and entered <= since


def _asked(
    question: Question, metric: Metric, updated: tuple[str, ...], others: tuple[str, ...], interval_s: float
) -> Asked:
    tiers = metric.tiers or tuple(tier.name for tier in question.plan.tiers)
    reports = tuple(host.report for host in question.hosts if host.report is not None and host.tier in tiers)
    return Asked(
        app=question.plan.app, tiers=tiers, updated=updated, others=others, interval_s=interval_s, reports=reports
    )


def _turned(kept: Kept, question: Question) -> tuple[Kept, tuple[Line, ...]]:
    """The evidence as it counts for the present step, and what to record of the turn.

    Whoever resumes after a pause has looked at the evidence and takes the risk: it is collected anew from there on.
    """
    rollout, lines = question.rollout, list[Line]()
    at = question.now.isoformat(timespec="seconds")
    step, ordered = rollout.phase.step, rollout.ordered
    metrics = dict(kept.metrics)
    if (kept.step, kept.ordered) != (step, ordered):
        is_resumed = kept.step == step
        lines.append(StepBegan(at=at, name=named(question.plan.steps[step])))
        for name, each in metrics.items():
            evidence = Evidence(aside=each.evidence.aside) if is_resumed else next_step(each.evidence)
            metrics[name] = Judged(evidence=evidence, history=each.history, readings=each.readings)
    aside = {each.host for each in rollout.set_aside}
    counted = {host for each in metrics.values() for host in each.evidence.aside}
    for host in sorted(aside - counted):
        lines.append(Decided(at=at, action="set_aside_host", host=host))
        metrics = _each(metrics, partial(set_aside, host=host))
    for host in sorted(counted - aside):
        lines.append(TakenBack(at=at, host=host))
        metrics = _each(metrics, partial(take_back, host=host))
    return msgspec.structs.replace(kept, step=step, ordered=ordered, metrics=metrics), tuple(lines)


def _each(metrics: Mapping[str, Judged], change: Callable[[Evidence], Evidence]) -> dict[str, Judged]:
    return {name: msgspec.structs.replace(each, evidence=change(each.evidence)) for name, each in metrics.items()}


def _histories(kept: Kept) -> dict[str, History]:
    return {name: each.history for name, each in kept.metrics.items() if each.history is not None}


def _is_due(kept: Kept, now: datetime, interval: timedelta) -> bool:
    return kept.at is None or now >= kept.at + interval or now < kept.at


def _since_last_look(kept: Kept, now: datetime, interval: timedelta) -> tuple[timedelta, bool]:
    """What a look is about, and whether the one before it was in the same step.

    It is about the usual interval, or about all the time since the last look where nobody looked for longer: because no
    engine led, or Consul or a source did not answer. Hosts that changed their build in it count on neither side, once.
    """
    if kept.at is None or kept.ordered is None or not kept.ordered <= kept.at <= now:
        return interval, False
    elapsed = now - kept.at
    return (elapsed if elapsed > LATE * interval else interval), True


def _bounded(history: History) -> History:
    if len(history.hosts) <= MAX_HISTORIES:
        return history
    return History({"": (history.bad, history.total)})


def _ruling(kept: Kept, metrics: Sequence[Metric]) -> Ruling:
    names = {metric.name for metric in metrics}
    verdicts = [each.verdict for name, each in kept.metrics.items() if name in names and each.verdict is not None]
    missing = [metric.name for metric in metrics if kept.metrics.get(metric.name, Judged()).verdict is None]
    said = combine(verdicts)
    if missing and _OUTCOMES[said.action] in {"pass", "none"}:
        return Ruling("none", f"{', '.join(missing)}: not looked at yet in this step")
    advice = f"; `hotcold rollout set-aside {said.host}`, then resume, if you agree" if said.host else ""
    return Ruling(_OUTCOMES[said.action], said.reason + advice)
