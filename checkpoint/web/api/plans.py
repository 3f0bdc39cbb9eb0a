"""Owns how programs plan and start a rollout: the plan first, then exactly that plan, as on the pages.

What a plan is, and whether it may start, is left to `checkpoint.actions`.
"""

from __future__ import annotations

from datetime import timedelta

import msgspec
from aiohttp import web
from msgspec import UNSET

from artifact import ManifestRef, Refused
from artifact.locate import load_manifest, reference
from checkpoint.rollout.document import step_document
from checkpoint.rollout.picture import steps
from checkpoint.rollout.plan import Plan
from checkpoint.starting import check_confirmed, check_reachable, prospect
from checkpoint.web.api.answers import CheckLine, DoneAnswer, PlanAnswer
from checkpoint.web.api.knowing import build_facts, catch_up, tier_hosts
from checkpoint.web.api.requests import Planning, Start
from checkpoint.web.api.standing import build_of
from checkpoint.web.gate import Denied
from checkpoint.web.rights import Role
from checkpoint.web.site import origin_of, person_of, reason_in, site_of
from checkpoint.web.starting import PLAN_LASTS_S

_SEAL = "plan"


async def plan(request: web.Request, *, body: Planning) -> PlanAnswer:
    """What a rollout of a build would do; writes nothing."""
    site, person = site_of(request), person_of(request)
    build = await build_of(request, body.build) if body.build is not UNSET else await _described(request, body.manifest)
    made = await site.desk.plan(
        site.settings.pipeline,
        build,
        by=person.name,
        reason=reason_in(body.reason),
        first_tier=None if body.first_tier is UNSET else body.first_tier,
    )
    found = await prospect(site.desk, site.settings, made, person=person.name, now=site.now())
    content = person.name.encode() + b"\0" + msgspec.json.encode(made)
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
        sealed=site.identities.seal.close(_SEAL, content, until_s=site.now().timestamp() + PLAN_LASTS_S),
    )


async def start(request: web.Request, *, body: Start) -> DoneAnswer:
    """Start exactly a plan that was made before; who starts it is its commander."""
    site, person = site_of(request), person_of(request)
    content = site.identities.seal.open(_SEAL, body.plan, now_s=site.now().timestamp())
    name, _, document = (content or b"").partition(b"\0")
    if name != person.name.encode():
        raise Refused(
            "the plan is more than an hour old, or was made by somebody else: make another one", kind="plan_stale"
        )
    if body.override_min and person.role < Role.ADMIN:
        raise Denied(403, "only an admin starts a rollout under an override")
    made = msgspec.json.decode(document, type=Plan)
    override = timedelta(minutes=body.override_min) or None
    confirmed = check_confirmed(made, site.settings.checklist, body.confirmed)
    found = await prospect(site.desk, site.settings, made, person=person.name, now=site.now())
    check_reachable(found, is_overridden=override is not None)
    written = await site.desk.start(made, origin_of(request, made.reason), override, confirmed)
    await catch_up(site)
    return DoneAnswer(
        messages=tuple(record.message for record in written.records),
        rollout=written.rollout.number,
        phase=written.rollout.phase_name,
    )


async def _described(request: web.Request, manifest: str | msgspec.UnsetType) -> ManifestRef:
    """The build that a manifest describes.

    Raises:
        TransientError, Refused, ConfigError: it cannot be fetched, is none, or is of another app.
    """
    site = site_of(request)
    described, location = await load_manifest(str(manifest))
    if described.app != site.app:
        raise Refused(f"{location} is a build of {described.app!r}, not of {site.app!r}", kind="other_app")
    return reference(described, location)
