"""Owns what the parts of the two living pages show: Train and a rollout, each part under the id of its element.

When they are drawn anew is left to `checkpoint.web.stream`; how they look, to the templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from checkpoint.audit import Record
from checkpoint.guards import Scheduled
from checkpoint.overview import Overview, Standing, TierView
from checkpoint.rollout import states as st
from checkpoint.rollout.picture import Picture
from checkpoint.web.grid import Grid, grid, running, runs_of
from checkpoint.web.live import Snapshot
from checkpoint.web.steps import applicable
from checkpoint.windows import Freeze, earliest, freeze_at

PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "train": ("banners", "now", "strip", "verdicts", "tiers", "command", "log"),
    "rollout": ("banners", "now", "strip", "verdicts", "metrics", "steps", "trouble", "log", "command"),
    "plain": ("banners",),
}
"""What is drawn anew on each kind of page."""

_LOG_LINES: Final = {"train": 12, "rollout": 60, "plain": 0}


@dataclass(frozen=True)
class StepRow:
    """One step with what was planned, and what is. `share` and `reached` are percentages of the tier's hosts."""

    name: str
    tier: str
    percent: float
    standing: str
    target: int
    actual: int
    reached: float
    share: float
    begins: datetime | None
    ends: datetime | None
    state: str


@dataclass(frozen=True)
class TierRow:
    """What runs on a tier. `drift` names hosts that do not run what is ordered, and are not on the way."""

    name: str
    build: str | None
    previous: str | None
    percent: float
    serial: int
    host_count: int
    good_count: int
    builds: tuple[tuple[str, int], ...]
    drift: tuple[str, ...]
    silent: tuple[str, ...]
    fault: str | None


def facts_of(kind: str, snapshot: Snapshot, number: int | None = None, *, order: Sequence[str] = ()) -> dict[str, Any]:
    """What the parts of a page need, besides the facts of every page."""
    shown = snapshot.shown
    records = [record for record, _ in snapshot.records if number is None or record.rollout == number]
    facts: dict[str, Any] = {
        "shown": shown,
        "kind": kind,
        "path_names": order,
        "rows": () if shown is None else step_rows(shown, snapshot.view),
        "tiers": tier_rows(snapshot.view, order),
        "points": () if shown is None or kind != "rollout" else points_of(shown, records),
        "grid": None if shown is None or kind != "rollout" else grid(shown, snapshot.view),
        "records": records[: _LOG_LINES[kind]],
        "buttons": () if shown is None else applicable(shown, snapshot.at),
        "deploys": deploys_of_the_day(snapshot),
        "freeze": None if shown is None else freeze_of(shown, snapshot.at),
        "opens": None if shown is None else opening_of(shown, snapshot.at),
        "lease": snapshot.lease,
        "is_commanded": snapshot.lease is not None and snapshot.lease.is_live(snapshot.at),
        "silent_count": sum(tier.counts.get(Standing.SILENT, 0) for tier in snapshot.view.tiers),
    }
    return facts


def step_rows(shown: Picture, view: Overview) -> tuple[StepRow, ...]:
    """The steps, target against actual."""
    runs = running(shown, view)
    phase = shown.rollout.phase
    rows = []
    for number, step in enumerate(shown.steps):
        size = len(shown.plan.tier(step.tier).hosts)
        actual = min(runs.get(step.tier, 0), step.host_count)
        state: str = step.standing
        if isinstance(phase, (st.RolledBack, st.Aborted)):
            state = "ahead" if number > phase.step else "stopped"
        elif number == phase.step and not shown.rollout.is_ended:
            state = "current"
        rows.append(
            StepRow(
                name=step.name,
                tier=step.tier,
                percent=step.percent,
                standing=step.standing,
                target=step.host_count,
                actual=actual,
                reached=100 * actual / max(1, size),
                share=100 * step.host_count / max(1, size),
                begins=None if step.expected is None else step.expected.begins,
                ends=None if step.expected is None else step.expected.ends,
                state=state,
            )
        )
    return tuple(rows)


def tier_rows(view: Overview, order: Sequence[str]) -> tuple[TierRow, ...]:
    """What runs where, and what should not be so; in the pipeline's order, then others."""
    places = {name: place for place, name in enumerate(order)}
    return tuple(
        _tier_row(tier) for tier in sorted(view.tiers, key=lambda tier: places.get(tier.key.tier, len(places)))
    )


def points_of(shown: Picture, records: Sequence[Record]) -> list[tuple[float, int]]:
    """(seconds since the epoch, hosts on the build) as far as the records tell: each step once its hosts arrived."""
    points: list[tuple[float, int]] = []
    for record in reversed(records):
        if record.what == "started":
            points.append((record.at.timestamp(), 0))
        elif record.what == "arrived" and record.step is not None:
            reached = {step.tier: step.host_count for step in shown.steps[: record.step + 1]}
            points.append((record.at.timestamp(), sum(reached.values())))
    return points


def _tier_row(tier: TierView) -> TierRow:
    order = tier.key.order
    builds: dict[str, int] = {}
    for host in tier.hosts:
        name = host.hot or "nothing"
        builds[name] = builds.get(name, 0) + 1
    return TierRow(
        name=tier.key.tier,
        build=None if order is None else order.build.id,
        previous=None if order is None or order.previous is None else order.previous.id,
        percent=0.0 if order is None else order.percent,
        serial=0 if order is None else order.serial,
        host_count=len(tier.hosts),
        good_count=tier.good_count,
        builds=tuple(sorted(builds.items(), key=lambda item: -item[1])),
        drift=tuple(host.host for host in tier.hosts if host.standing is Standing.FAILED),
        silent=tuple(host.host for host in tier.hosts if host.standing is Standing.SILENT),
        fault=None if tier.key.fault is None else str(tier.key.fault),
    )


def deploys_of_the_day(snapshot: Snapshot) -> Sequence[Scheduled]:
    """What is scheduled from now on."""
    return [each for each in snapshot.schedule.deploys if each.at > snapshot.at]


def freeze_of(shown: Picture, now: datetime) -> Freeze | None:
    """The freeze that the present tier is under."""
    tier = shown.plan.steps[shown.rollout.phase.step].rule.tier
    return freeze_at(shown.plan.pipeline.calendar, tier, now)


def opening_of(shown: Picture, now: datetime) -> datetime | None:
    """When the present step could begin, where its window does not let it begin now."""
    step = shown.plan.steps[shown.rollout.phase.step].rule
    begins = earliest(shown.plan.pipeline.calendar, step.tier, now, step.length)
    return None if begins is None or begins <= now else begins


def states_of(drawn: Grid, before: Grid | None, shown: Picture, buttons: Sequence[str]) -> dict[str, Any]:
    """What a page's script needs to bring grid and buttons up to date.

    Args:
        drawn: the grid now.
        before: as the page has it; None: as it was drawn some time ago.
        shown: the rollout.
        buttons: names of those that do something now.
    """
    return {
        "roster": drawn.roster,
        "runs": runs_of(drawn, before),
        "buttons": list(buttons),
        "index": shown.index,
        "phase": shown.rollout.phase_name,
    }
