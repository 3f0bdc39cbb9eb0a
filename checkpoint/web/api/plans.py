"""Owns how programs plan and start a rollout: the plan first, then exactly that plan, as on the pages.

What a plan is, and whether it may start, is left to `checkpoint.actions`.
"""

from __future__ import annotations

from datetime import timedelta

from aiohttp import web
from msgspec import UNSET

from checkpoint.rollout.document import step_document
from checkpoint.rollout.picture import steps
from checkpoint.starting import prospect
from checkpoint.web.api.answers import CheckLine, DoneAnswer, PlanAnswer
from checkpoint.web.api.knowing import build_facts, catch_up, tier_hosts
from checkpoint.web.api.requests import Planning, Start
from checkpoint.web.api.standing import build_of
from checkpoint.web.gate import Denied
from checkpoint.web.planned import described, sealed, started, unsealed
from checkpoint.web.rights import Role
from checkpoint.web.site import person_of, reason_in, site_of


async def plan(request: web.Request, *, body: Planning) -> PlanAnswer:
    """What a rollout of a build would do; writes nothing."""
    site, person = site_of(request), person_of(request)
    if body.build is UNSET:
        build = await described(request, str(body.manifest))
    else:
        build = await build_of(request, body.build)
    made = await site.desk.plan(
        site.settings.pipeline,
        build,
        by=person.name,
        reason=reason_in(body.reason),
        first_tier=None if body.first_tier is UNSET else body.first_tier,
    )
    found = await prospect(site.desk, site.settings, made, person=person.name, now=site.now())
    return PlanAnswer(
        rollout=made.number,
        build=build_facts(made.build),
        steps=tuple(step_document(each) for each in steps(made, None, site.now())),
        tiers=tier_hosts(made),
        obstacle=next((f"{line.what}: {line.remedy}" for line in found.blocking), None),
        checklist=tuple(
            CheckLine(kind=line.kind, weight=line.weight, what=line.what, remedy=line.remedy) for line in found.lines
        ),
        confirmations=found.confirmations,
        sealed=sealed(request, made),
    )


async def start(request: web.Request, *, body: Start) -> DoneAnswer:
    """Start exactly a plan that was made before; who starts it is its commander."""
    site, person = site_of(request), person_of(request)
    made = unsealed(request, body.plan)
    if body.override_min and person.role < Role.ADMIN:
        raise Denied(403, "only an admin starts a rollout under an override")
    override = timedelta(minutes=body.override_min) or None
    written = await started(request, made, override=override, confirmed=body.confirmed)
    await catch_up(site)
    return DoneAnswer(
        messages=tuple(record.message for record in written.records),
        rollout=written.rollout.number,
        phase=written.rollout.phase_name,
    )
