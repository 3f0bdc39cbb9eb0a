"""Owns what programs read of rollouts: the latest, all that are kept, one of them, and what its verdicts rest on.

What a rollout is, is left to `checkpoint.rollout`.
"""

from __future__ import annotations

import msgspec
from aiohttp import web
from msgspec import UNSET

from artifact import Refused
from checkpoint.rollout.document import document, step_document
from checkpoint.rollout.kept_evidence import JUDGE, AllKept, Judged, Kept
from checkpoint.rollout.listing import list_rollouts
from checkpoint.rollout.picture import steps
from checkpoint.rollout.summary import Summary, Unreadable, summary
from checkpoint.web.api.answers import EvidenceAnswer, LatestAnswer, MetricEvidence, PastAnswer, RolloutsAnswer
from checkpoint.web.api.knowing import build_facts, freshness, snapshot_of, tier_hosts
from checkpoint.web.api.requests import RolloutPath, RolloutsQuery
from checkpoint.web.site import Site, site_of
from checkpoint.web.steps import applicable
from fleet.keys import evidence_key


async def latest(request: web.Request) -> LatestAnswer:
    """The latest rollout as it stands; null before the first."""
    snapshot = await snapshot_of(request)
    shown = snapshot.shown
    return LatestAnswer(
        rollout=None if shown is None else document(shown),
        actions=() if shown is None else applicable(shown, snapshot.at),
        **freshness(request, snapshot),
    )


async def past(request: web.Request, *, query: RolloutsQuery) -> RolloutsAnswer:
    """The rollouts that are kept, the latest first."""
    site = site_of(request)
    before = None if query.before is UNSET else query.before
    # One more than is asked for tells whether there are more.
    rows = await list_rollouts(site.desk.ledger, site.now(), count=query.limit + 1, before=before)
    shown = rows[: query.limit]
    return RolloutsAnswer(
        rollouts=tuple(row for row in shown if isinstance(row, Summary)),
        unreadable=tuple(row for row in shown if isinstance(row, Unreadable)),
        next=shown[-1].rollout if len(rows) > len(shown) else None,
    )


async def one(request: web.Request, *, path: RolloutPath) -> PastAnswer:
    """One rollout by its number: its steps, and how it stands or ended."""
    site = site_of(request)
    found = await site.desk.ledger.past(path.number)
    if found is None:
        raise _unknown(site, path.number)
    plan, state = found
    ongoing = await site.desk.ledger.latest()
    is_latest = ongoing is not None and ongoing.rollout.number == path.number
    return PastAnswer(
        summary=summary(plan, state, site.now()),
        index=ongoing.index if ongoing is not None and is_latest else None,
        build=build_facts(plan.build),
        reached=state.reached,
        set_aside=tuple(f"{each.tier}/{each.host}" for each in state.set_aside),
        steps=tuple(step_document(each) for each in steps(plan, state, site.now())),
        tiers=tier_hosts(plan),
    )


async def evidence(request: web.Request, *, path: RolloutPath) -> EvidenceAnswer:
    """What the verdicts of one rollout rest on, as it is kept."""
    site = site_of(request)
    if await site.desk.ledger.past(path.number) is None:
        raise _unknown(site, path.number)
    key = evidence_key(site.app, path.number)
    entry = await site.store.read(key)
    kept = Kept()
    if entry is not None:
        try:
            judges = msgspec.json.decode(entry.value, type=AllKept).judges
            kept = msgspec.json.decode(judges[JUDGE], type=Kept) if JUDGE in judges else kept
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refused(f"{key} cannot be read: {error}", kind="document_invalid") from error
    return EvidenceAnswer(
        rollout=path.number,
        step=None if kept.step < 0 else kept.step,
        at=kept.at,
        metrics={name: _metric(judged) for name, judged in kept.metrics.items()},
    )


def _metric(judged: Judged) -> MetricEvidence:
    known = judged.evidence
    return MetricEvidence(
        verdict=judged.verdict,
        intervals=known.intervals,
        step_intervals=known.step_intervals,
        unsound_intervals=known.unsound_intervals,
        updated_bad=known.updated_bad,
        updated_total=known.updated_total,
        others_bad=known.others_bad,
        others_total=known.others_total,
        expected=known.expected,
    )


def _unknown(site: Site, number: int) -> Refused:
    return Refused(f"no rollout {number} of {site.app} is kept", kind="unknown_rollout")
