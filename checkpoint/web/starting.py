"""Owns how a rollout is started from a page: choose a build, look at the plan, start exactly that plan.

What the plan is, and whether it may start, is left to `checkpoint.actions`, what is in its way to
`checkpoint.starting`. The plan travels through the browser, sealed, so that what was looked at is what is started,
whichever instance is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from artifact import HotcoldError, ManifestRef, Refused
from checkpoint.release.records import BuildKey, read_build_keys
from checkpoint.rollout.picture import StepView, steps
from checkpoint.rollout.plan import Plan
from checkpoint.starting import (
    Line,
    Situation,
    checklist,
    commands_of,
    first_tier_of,
    prospect,
)
from checkpoint.web.choosing import SHOWN, choices, known_builds
from checkpoint.web.live import Snapshot
from checkpoint.web.planned import described, sealed, started, unsealed
from checkpoint.web.rights import Role
from checkpoint.web.site import Site, person_of, reason_in, site_of
from checkpoint.web.steering import MAX_OVERRIDE_MIN
from checkpoint.windows import closing, is_endless
from fleet import Build
from fleet.keys import builds_prefix

BY_KIND: Final = "by-kind"
"""What is chosen as the first tier where the build's record is to decide it."""
_FIELDS: Final = ("manifest", "build", "first_tier", "reason")


async def new(request: web.Request) -> web.Response:
    """The form: which build, from which tier on, why."""
    return await _form_page(request, {})


async def plan(request: web.Request) -> web.Response:
    """What would be done, what the build brings, and what is in the way; writes nothing."""
    site, form = site_of(request), await request.post()
    given = {key: str(form.get(key, "")).strip() for key in _FIELDS}
    given["reason"] = reason_in(given["reason"])
    person = person_of(request).name
    try:
        if not given["reason"]:
            raise Refused("a reason is missing: it stands in the audit, and others read it there", kind="no_reason")
        build, release = await _build(request, given["manifest"], given["build"])
        first_tier = given["first_tier"] or None
        if first_tier == BY_KIND:
            first_tier = first_tier_of(release, site.settings.hotfix_from)
        made = await site.desk.plan(
            site.settings.pipeline, build, by=person, reason=given["reason"], first_tier=first_tier
        )
        found = await prospect(site.desk, site.settings, made, person=person, now=site.now())
    except HotcoldError as error:
        return await _form_page(request, given, problem=str(error), status=422)
    views = steps(made, None, site.now())
    is_admin = person_of(request).role >= Role.ADMIN
    return site.page(
        request,
        "plan.html",
        plan=made,
        found=found,
        views=[(view, _closes(made, view)) for view in views],
        sealed=sealed(request, made),
        given=given,
        is_stuck=any(not (line.is_pierced and is_admin) for line in found.blocking),
    )


async def start(request: web.Request) -> web.Response:
    """Start exactly the plan that was shown."""
    site, form = site_of(request), await request.post()
    person = person_of(request)
    made = unsealed(request, str(form.get("plan", "")))
    minutes = str(form.get("override", "0") or "0")
    if not minutes.isdecimal() or int(minutes[:6]) > MAX_OVERRIDE_MIN:
        raise Refused(f"an override lasts at most {MAX_OVERRIDE_MIN} minutes", kind="bad_field")
    if int(minutes) and person.role < Role.ADMIN:
        raise Refused("only an admin starts a rollout under an override", kind="not_allowed")
    override = timedelta(minutes=int(minutes)) or None
    ticked = [str(each) for each in form.getall("confirm", [])]
    await started(request, made, override=override, confirmed=ticked)
    await site.catch_up()
    raise web.HTTPSeeOther(f"/rollouts/{made.number}")


async def _form_page(
    request: web.Request, given: Mapping[str, str], *, problem: str = "", status: int = 200
) -> web.Response:
    site = site_of(request)
    snapshot = await site.snapshot()
    keys, fault = await _records(site)
    found = choices(keys, snapshot)
    is_all = request.query.get("all") == "1"
    fields = dict.fromkeys(_FIELDS, "") | {
        "manifest": request.query.get("manifest", "")[:2000],
        "build": request.query.get("build", "")[:128],
        "first_tier": "" if site.settings.hotfix_from is None else BY_KIND,
    }
    situation = None if snapshot is None else _situation(site, snapshot, person_of(request).name)
    lines: Sequence[Line] = () if situation is None else checklist(situation, site.settings)
    return site.page(
        request,
        "new.html",
        status=status,
        given=fields | dict(given),
        problem=problem,
        choices=found if is_all else found[:SHOWN],
        left_count=0 if is_all else max(0, len(found) - SHOWN),
        fault=fault,
        names=site.settings.pipeline.tiers,
        hotfix_from=site.settings.hotfix_from,
        by_kind=BY_KIND,
        lines=lines,
        command="" if situation is None else commands_of(situation, site.settings),
    )


def _situation(site: Site, snapshot: Snapshot, person: str) -> Situation:
    return Situation(
        at=site.now(),
        person=person,
        view=snapshot.view,
        guards=snapshot.guards,
        lease=snapshot.lease,
        engine=snapshot.engine,
        latest=None if snapshot.shown is None else snapshot.shown.rollout,
        cut_off_since=site.cut_off_since(),
    )


async def _records(site: Site) -> tuple[tuple[BuildKey, ...], str | None]:
    """The releases, or why they cannot be read: the page is of use without them."""
    try:
        return read_build_keys(site.app, await site.store.read_prefix(builds_prefix(site.app))), None
    except HotcoldError as error:
        return (), str(error)


async def _build(request: web.Request, manifest: str, build: str) -> tuple[ManifestRef, Build | None]:
    """The build that was chosen, with its record where it has one."""
    site = site_of(request)
    keys, _ = await _records(site)
    if build and manifest:
        raise Refused("a build was chosen and a manifest given: choose one of both", kind="bad_field")
    if build:
        release = next((key.build for key in keys if key.id == build), None)
        if release is not None:
            return release.build, release
        known = known_builds(await site.snapshot()).get(build)
        if known is None:
            raise Refused(f"no build {build!r} is known here: give the URL of its manifest", kind="unknown_build")
        return known, None
    # A path would let whoever may deploy read this machine's files.
    if urlsplit(manifest).scheme not in {"http", "https", "s3"}:
        raise Refused(
            "choose a build, or give the URL of a manifest, which begins with https:// (or http://, s3://)",
            kind="bad_field",
        )
    found = await described(request, manifest)
    return found, next((key.build for key in keys if key.build is not None and key.build.build == found), None)


def _closes(made: Plan, view: StepView) -> datetime | None:
    """When the window closes in which a step would run; None: it has none, or none is in sight."""
    if view.expected is None or view.expected.begins is None:
        return None
    closes = closing(made.pipeline.calendar, view.tier, view.expected.begins)
    return None if closes is None or is_endless(closes) else closes
