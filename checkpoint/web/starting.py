"""Owns how a rollout is started from a page: choose a build, look at the plan, start exactly that plan.

What the plan is, and whether it may start, is left to `checkpoint.actions`. The plan travels through the browser,
sealed, so that what was looked at is what is started, whichever instance is asked.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from artifact import HotcoldError, ManifestRef, Refused
from artifact.locate import load_manifest, reference
from checkpoint.guards import check_guards
from checkpoint.rollout.picture import steps
from checkpoint.rollout.plan import Plan
from checkpoint.web.live import Snapshot
from checkpoint.web.rights import Role
from checkpoint.web.site import origin_of, person_of, reason_in, site_of
from checkpoint.web.steering import MAX_OVERRIDE_MIN

PLAN_LASTS_S: Final = 3600.0


async def new(request: web.Request) -> web.Response:
    """The form: which build, from which tier on, why."""
    return await _form_page(request, {})


async def plan(request: web.Request) -> web.Response:
    """What would be done; writes nothing."""
    site, form = site_of(request), await request.post()
    given = {key: str(form.get(key, "")).strip() for key in ("manifest", "build", "first_tier", "reason")}
    given["reason"] = reason_in(given["reason"])
    try:
        if not given["reason"]:
            raise Refused("a reason is missing: it stands in the audit, and others read it there", kind="no_reason")
        build = await _build(request, given["manifest"], given["build"])
        made = await site.desk.plan(
            site.settings.pipeline,
            build,
            by=person_of(request).name,
            reason=given["reason"],
            first_tier=given["first_tier"] or None,
        )
    except HotcoldError as error:
        return await _form_page(request, given, problem=str(error), status=422)
    content = person_of(request).name.encode() + b"\0" + msgspec.json.encode(made)
    sealed = site.identities.seal.close("plan", content, until_s=site.now().timestamp() + PLAN_LASTS_S)
    return site.page(
        request,
        "plan.html",
        plan=made,
        views=steps(made, None, site.now()),
        sealed=sealed,
        obstacle=await _obstacle(request, made),
    )


async def start(request: web.Request) -> web.Response:
    """Start exactly the plan that was shown."""
    site, form = site_of(request), await request.post()
    person = person_of(request)
    content = site.identities.seal.open("plan", str(form.get("plan", "")), now_s=site.now().timestamp())
    name, _, document = (content or b"").partition(b"\0")
    if name != person.name.encode():
        raise Refused("the plan is more than an hour old, or was made by somebody else: make another one", kind="stale")
    made = msgspec.json.decode(document, type=Plan)
    minutes = str(form.get("override", "0") or "0")
    if not minutes.isdecimal() or int(minutes[:6]) > MAX_OVERRIDE_MIN:
        raise Refused(f"an override lasts at most {MAX_OVERRIDE_MIN} minutes", kind="bad_field")
    if int(minutes) and person.role < Role.ADMIN:
        raise Refused("only an admin starts a rollout under an override", kind="not_allowed")
    override = timedelta(minutes=int(minutes)) or None
    await site.desk.start(made, origin_of(request, made.reason), override)
    await site.catch_up()
    raise web.HTTPSeeOther(f"/rollouts/{made.number}")


async def _form_page(
    request: web.Request, given: dict[str, str], *, problem: str = "", status: int = 200
) -> web.Response:
    site = site_of(request)
    snapshot = await site.snapshot()
    return site.page(
        request,
        "new.html",
        status=status,
        given={"manifest": request.query.get("manifest", "")[:2000], "build": "", "first_tier": "", "reason": ""}
        | given,
        problem=problem,
        known=known_builds(snapshot),
        names=site.settings.pipeline.tiers,
        denied={each.id: each for each in snapshot.guards.denied} if snapshot is not None else {},
    )


def known_builds(snapshot: Snapshot | None) -> dict[str, ManifestRef]:
    """The builds that orders and the latest plan name, by their ids; those that are ordered now come first."""
    if snapshot is None:
        return {}
    orders = [tier.key.order for tier in snapshot.view.tiers if tier.key.order is not None]
    found = [order.build for order in orders] + [order.previous for order in orders if order.previous is not None]
    if snapshot.shown is not None:
        found.append(snapshot.shown.plan.build)
    return {each.id: each for each in reversed(found)}


async def _build(request: web.Request, manifest: str, build: str) -> ManifestRef:
    site = site_of(request)
    if build:
        known = known_builds(await site.snapshot()).get(build)
        if known is None:
            raise Refused(f"no build {build!r} is known here: give the URL of its manifest", kind="unknown_build")
        return known
    # A path would let whoever may deploy read this machine's files.
    if urlsplit(manifest).scheme not in {"http", "https", "s3"}:
        raise Refused("give the URL of a manifest, which begins with https:// (or http://, s3://)", kind="bad_field")
    described, location = await load_manifest(manifest)
    if described.app != site.app:
        raise Refused(f"{location} is a build of {described.app!r}, not of {site.app!r}", kind="other_app")
    return reference(described, location)


async def _obstacle(request: web.Request, made: Plan) -> str | None:
    """Why the plan could not be started now; None: it could."""
    snapshot: Any = await site_of(request).snapshot()
    if snapshot is None:
        return None
    if snapshot.shown is not None and not snapshot.shown.rollout.is_ended:
        rollout = snapshot.shown.rollout
        return f"rollout {rollout.number} of {rollout.build_id} is under way: finish, abort or roll it back first"
    try:
        check_guards(snapshot.guards, made.build, remedy="or start under an override")
    except Refused as refused:
        return str(refused)
    return None
