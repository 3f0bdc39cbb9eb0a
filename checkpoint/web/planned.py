"""Owns a plan on its way through a browser or a program: sealed when it was shown, and started exactly as it was.

What a plan is, and whether it may start, is left to `checkpoint.actions`, what is in its way to `checkpoint.starting`.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Final

import msgspec
from aiohttp import web

from artifact import ManifestRef, Refused
from artifact.locate import load_manifest, reference
from checkpoint.rollout.ledger import Written
from checkpoint.rollout.plan import Plan
from checkpoint.starting import check_confirmed, check_reachable, prospect
from checkpoint.web.site import origin_of, person_of, site_of

PLAN_LASTS_S: Final = 3600.0
_SEAL: Final = "plan"


async def described(request: web.Request, manifest: str) -> ManifestRef:
    """The build that the manifest at a URL describes.

    Raises:
        TransientError, ConfigError: it cannot be fetched.
        Refused: it is none, or is of another app.
    """
    app = site_of(request).app
    found, location = await load_manifest(manifest)
    if found.app != app:
        raise Refused(f"{location} is a build of {found.app!r}, not of {app!r}", kind="other_app")
    return reference(found, location)


def sealed(request: web.Request, made: Plan) -> str:
    """The plan, for whoever asks to bring back."""
    site, person = site_of(request), person_of(request)
    content = person.name.encode() + b"\0" + msgspec.json.encode(made)
    return site.identities.seal.close(_SEAL, content, until_s=site.now().timestamp() + PLAN_LASTS_S)


def unsealed(request: web.Request, text: str) -> Plan:
    """A plan that was brought back.

    Raises:
        Refused: kind `plan_stale`: it is too old, was changed, or is somebody else's.
    """
    site, person = site_of(request), person_of(request)
    content = site.identities.seal.open(_SEAL, text, now_s=site.now().timestamp())
    name, _, document = (content or b"").partition(b"\0")
    if name != person.name.encode():
        raise Refused(
            "the plan is more than an hour old, or was made by somebody else: make another one", kind="plan_stale"
        )
    return msgspec.json.decode(document, type=Plan)


async def started(
    request: web.Request, made: Plan, *, override: timedelta | None, confirmed: Collection[str]
) -> Written:
    """Start it. Whether this person may override was asked before.

    Args:
        request: of whoever starts it.
        made: the plan.
        override: how long windows, lock and slots do not count; None: they do.
        confirmed: names of what was confirmed.

    Raises:
        Refused: something is not confirmed, cannot be reached, or is in the way.
    """
    site, person = site_of(request), person_of(request)
    texts = check_confirmed(made, site.settings.checklist, confirmed)
    found = await prospect(site.desk, site.settings, made, person=person.name, now=site.now())
    check_reachable(found, is_overridden=override is not None)
    return await site.desk.start(made, origin_of(request, made.reason), override, texts)
