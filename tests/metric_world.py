"""Owns what tests and pictures need of metrics in a rollout: counts by fixed seeds, judged and kept as an engine does.

Sources are left out: the tests of `checkpoint.metric_judge` have them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import msgspec

from benchmarks.rollouts.world import poisson
from checkpoint.rollout.kept_evidence import JUDGE, AllKept, Judged, Kept, applying_to
from checkpoint.rollout.ledger import Ongoing
from checkpoint.rollout.machine import named
from checkpoint.rollout.plan import Plan
from checkpoint.series import Series, continued
from checkpoint.verdicts import Counts, Interval, Metric, judge, next_step
from checkpoint.verdicts.recording import Line, Observed, StepBegan
from fleet import Store
from fleet.keys import evidence_key, series_key
from tests.rollout_world import RolloutWorld

METRICS: Final = """
[[metrics]]
name = "errors"
[metrics.prometheus]
url = "http://anna:secret@prometheus.example:9090"
bad = 'bad{app="$app"}'
total = 'total{app="$app"}'

[[metrics]]
name = "slow-checkouts"
roll_back_at = 1000
command = { argv = ["/usr/local/bin/count-slow", "--token", "secret"] }

[[metrics]]
name = "deploys"
limit = 0.02
quiet_intervals = 5
reports = {}
"""
MINUTE: Final = timedelta(minutes=1)
REQUESTS: Final = 600.0


@dataclass
class Course:
    """Metrics of the latest rollout, minute by minute.

    Attributes:
        rates: share of requests that fail, by metric.
        worse: how many times as often on updated hosts, by metric.
        lost: metrics whose source fails, with what it said.
    """

    world: RolloutWorld
    seed: int = 7
    rates: dict[str, float] = field(default_factory=dict)
    worse: dict[str, float] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    kept: Kept = field(default_factory=Kept)
    series: Series = field(default_factory=Series)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    async def minutes(self, count: int) -> None:
        """Let so many pass, and write what they showed."""
        ongoing = await self.world.now()
        for _ in range(count):
            self.world.time.pass_(MINUTE.total_seconds())
            self._minute(ongoing, self.world.time.wall)
        await self.write(self.world.store, ongoing.plan)

    async def write(self, store: Store, plan: Plan) -> None:
        """Evidence first, as it would be read without the other."""
        evidence = AllKept(judges={JUDGE: msgspec.Raw(msgspec.json.encode(self.kept))})
        for key, document in (
            (evidence_key(plan.app, plan.number), evidence),
            (series_key(plan.app, plan.number), self.series),
        ):
            entry = await store.read(key)
            index = 0 if entry is None else entry.modify_index
            assert await store.put(key, msgspec.json.encode(document), cas=index)

    def _minute(self, ongoing: Ongoing, now: datetime) -> None:
        plan, phase = ongoing.plan, ongoing.rollout.phase
        metrics = applying_to(plan.steps[phase.step].rule.tier, plan.pipeline.metrics)
        judged, lines = dict(self.kept.metrics), list[Line]()
        if self.kept.step != phase.step:
            lines.append(StepBegan(at="", name=named(plan.steps[phase.step])))
            judged = {
                name: Judged(evidence=next_step(each.evidence), history=each.history) for name, each in judged.items()
            }
        for metric in metrics:
            interval = self._interval(metric, ongoing)
            known = judged.get(metric.name, Judged())
            evidence, verdict = judge(metric, known.evidence, interval, among=len(metrics))
            problem = interval.problem or ""
            judged[metric.name] = Judged(evidence=evidence, verdict=verdict, problem=problem)
            lines.append(Observed(at="", metric=metric.name, interval=interval))
        self.kept = Kept(step=phase.step, ordered=now, at=now, metrics=judged)
        self.series = continued(self.series, self.kept, lines, now)

    def _interval(self, metric: Metric, ongoing: Ongoing) -> Interval:
        if metric.name in self.lost:
            return Interval(problem=self.lost[metric.name])
        rate, worse = self.rates.get(metric.name, 0.004), self.worse.get(metric.name, 1.0)
        plan, step = ongoing.plan, ongoing.rollout.phase.step
        updated = plan.hosts_of(step)
        others = [host for host in plan.tier(plan.steps[step].rule.tier).hosts if host not in updated]
        if metric.reports is not None:
            return Interval(updated=tuple(Counts(host, 0.0, 1.0) for host in updated))
        return Interval(
            updated=tuple(self._counts(host, rate * worse) for host in updated),
            others=tuple(self._counts(host, rate) for host in others),
        )

    def _counts(self, host: str, rate: float) -> Counts:
        total = float(round(REQUESTS * self._chance.uniform(0.8, 1.2)))
        return Counts(host, float(min(total, poisson(self._chance, rate * total))), total)
