"""Owns answering what the charts of a rollout are drawn from, alive or past; leaves what that is to `metrics`.

Charts are kept current by the page's stream; see `checkpoint.web.stream`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from checkpoint.rollout.kept_evidence import MetricView, metric_views
from checkpoint.rollout.plan import Plan
from checkpoint.rollout.states import Rollout
from checkpoint.series import Series
from checkpoint.web.evidence import known_of
from checkpoint.web.live import Snapshot
from checkpoint.web.metrics import drawing, metric_rows, newest
from checkpoint.web.site import Site, site_of
from fleet.keys import evidence_key


@dataclass(frozen=True)
class Course:
    """A rollout with its metrics, and their course."""

    plan: Plan
    rollout: Rollout
    metrics: Sequence[MetricView]
    series: Series


async def charts(request: web.Request) -> web.Response:
    """The course of every metric of a rollout, as JSON; 404 where it is not kept."""
    course = await course_of(site_of(request), int(request.match_info["number"]))
    if course is None:
        return web.json_response({"error": "no_rollout", "message": "no such rollout is kept"}, status=404)
    return web.json_response(drawing(course.plan, course.rollout, course.metrics, course.series))


async def course_of(site: Site, number: int) -> Course | None:
    """The latest rollout as pages know it, a past one as it lies in Consul; None where it is not kept.

    Raises:
        StoreUnreachable: no answer.
        Refused: a document of it cannot be read.
    """
    snapshot = await site.snapshot()
    shown = None if snapshot is None else snapshot.shown
    if snapshot is not None and shown is not None and shown.plan.number == number:
        return Course(shown.plan, shown.rollout, shown.metrics, snapshot.series)
    past = await site.desk.ledger.past(number)
    if past is None:
        return None
    plan, rollout = past
    entries = await site.store.read_prefix(evidence_key(site.app, number)) if plan.pipeline.metrics else ()
    known = known_of(site.app, number, entries)
    return Course(plan, rollout, metric_views(plan, rollout, known.evidence), known.series)


def metric_facts(snapshot: Snapshot) -> dict[str, Any]:
    """What templates need to show the metrics of the rollout that is shown."""
    shown = snapshot.shown
    return {"metrics": () if shown is None else metric_rows(shown.metrics, snapshot.series)}


def news_of(snapshot: Snapshot) -> dict[str, Any] | None:
    """What open charts lack after a change; None where the rollout has no metrics."""
    shown = snapshot.shown
    if shown is None or not shown.metrics:
        return None
    return newest(shown.rollout, shown.metrics, snapshot.series)
