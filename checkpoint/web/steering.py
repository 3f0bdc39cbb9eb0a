"""Owns what is pressed: actions on a rollout, command, lock; each is one call of `checkpoint.actions`.

Who may press is left to the gate, what a press means to `checkpoint.web.steps`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

from aiohttp import web

from artifact import Refused
from checkpoint.actions import Acted
from checkpoint.rollout import events as ev
from checkpoint.rollout.ledger import Ongoing
from checkpoint.web.rights import Role
from checkpoint.web.site import origin_of, person_of, reason_in, site_of
from checkpoint.web.steps import BUTTONS

MAX_OVERRIDE_MIN = 24 * 60
HOST_DEEDS: Final[Mapping[str, Callable[[str, str], ev.Command]]] = {
    "set-aside": ev.SetAsideRequested,
    "take-back": ev.TakeBackRequested,
}
"""What is done about one host of a rollout."""
_IDLE: Final[Mapping[str, str]] = {"set-aside": "it is set aside already", "take-back": "it is not set aside"}
_BACK: Final = re.compile(r"/|/rollouts/[0-9]{1,9}|/new|/hosts/[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")
"""Pages that a press may lead back to."""


async def act(request: web.Request) -> web.Response:
    """Do something to the latest rollout, decided on the index that the page showed."""
    form = await _form(request)
    number = int(request.match_info["number"])
    name = form.get("action", "")
    acted = await perform(request, number, name, form)
    idle = BUTTONS[name].idle if name in BUTTONS else _IDLE[name.partition(":")[0]]
    return await _answer(request, number, acted, idle, form)


async def perform(request: web.Request, number: int, name: str, form: Mapping[str, str]) -> Acted:
    """The same for pages and the API.

    Raises:
        Refused: the action or a field is not as it must be, another rollout is the latest, or the desk refuses.
    """
    reason = _reason(form)
    # A page has one form for many hosts, so a button names its host: `set-aside:prod/web-7`.
    deed, _, target = name.partition(":")
    tier, _, host = target.partition("/") if target else (form.get("tier", ""), "", form.get("host", ""))
    if deed in HOST_DEEDS:
        event: ev.Command = HOST_DEEDS[deed](tier, host)
    elif name in BUTTONS:
        event = BUTTONS[name].event()
    else:
        raise Refused(f"no action {name!r}: {', '.join((*BUTTONS, *HOST_DEEDS))}", kind="unknown_action")
    index = form.get("index", "")
    if not index.isdecimal() or len(index) > 18:  # noqa: PLR2004 - digits of an index
        raise Refused("the index that the decision was made on is missing: load the page again", kind="no_index")
    await _check_latest(request, number)
    return await site_of(request).desk.act(event, origin_of(request, reason, decided_on=int(index)))


async def override(request: web.Request) -> web.Response:
    """Pierce windows, locks and slots for some minutes, or no longer."""
    form = await _form(request)
    number = int(request.match_info["number"])
    minutes = form.get("minutes", "")
    if not minutes.isdecimal() or not 0 <= int(minutes[:6]) <= MAX_OVERRIDE_MIN:
        raise Refused(f"minutes must be from 0 to {MAX_OVERRIDE_MIN}; 0 ends an override", kind="bad_field")
    reason = _reason(form)
    await _check_latest(request, number)
    event = ev.OverrideRequested(timedelta(minutes=int(minutes)))
    acted = await site_of(request).desk.act(event, origin_of(request, reason))
    return await _answer(request, number, acted, "there is nothing to override", form)


async def command(request: web.Request) -> web.Response:
    """Take the command, take it from somebody, hand it over, or give it back."""
    form, site = await _form(request), site_of(request)
    guarding, reason = site.desk.guarding, reason_in(form.get("reason", ""))
    length = timedelta(seconds=site.settings.pipeline.commander.lease_s)
    # Whom the page showed as the commander: another one is asked about anew.
    deed, _, seen = form.get("deed", "").partition(":")
    back = _back(form)
    if deed == "take":
        await guarding.take_command(origin_of(request, reason), length)
        return await _done(request, back, "You have the command.")
    if deed == "take-from":
        if person_of(request).role < Role.ADMIN:
            raise Refused("only an admin takes the command from somebody else", kind="not_the_commander")
        await guarding.take_command(origin_of(request, _reason(form)), length, force=True, seen=seen)
        return await _done(request, back, "You have the command.")
    if deed == "hand-over":
        to = form.get("to", "").strip()
        if not to or not to.isprintable() or len(to) > 64:  # noqa: PLR2004 - characters of a name
            raise Refused("name who takes over", kind="bad_field")
        await guarding.hand_over(to, origin_of(request, _reason(form)), length)
        return await _done(request, back, f"{to} has the command.")
    if deed == "release":
        is_done = await guarding.release_command(origin_of(request, reason))
        return await _done(request, back, "You are no longer the commander." if is_done else "Nobody had the command.")
    raise Refused(f"no such deed: {deed!r}", kind="bad_field")


async def lock(request: web.Request) -> web.Response:
    """Let nothing new start."""
    form = await _form(request)
    is_done = await site_of(request).desk.guarding.lock(origin_of(request, _reason(form)))
    return await _done(request, _back(form), "Locked: nothing new starts." if is_done else "It was locked already.")


async def unlock(request: web.Request) -> web.Response:
    """Lift the lock, or the denial of a build."""
    form = await _form(request)
    guarding, who = site_of(request).desk.guarding, origin_of(request, _reason(form))
    build = form.get("build", "")
    if build:
        is_done = await guarding.allow(build, who)
        return await _done(
            request, _back(form), f"{build} is allowed again." if is_done else f"{build} was not denied."
        )
    is_done = await guarding.unlock(who)
    return await _done(request, _back(form), "Unlocked." if is_done else "It was not locked.")


async def _form(request: web.Request) -> dict[str, str]:
    return {key: value for key, value in (await request.post()).items() if isinstance(value, str)}


def _reason(form: Mapping[str, str]) -> str:
    reason = reason_in(form.get("reason", ""))
    if not reason:
        raise Refused("a reason is missing: it stands in the audit, and others read it there", kind="no_reason")
    return reason


async def _check_latest(request: web.Request, number: int) -> None:
    latest: Ongoing | None = await site_of(request).desk.ledger.latest()
    if latest is not None and latest.rollout.number != number:
        raise Refused(
            f"rollout {latest.rollout.number} of {latest.rollout.build_id} was started meanwhile, so nothing was done "
            f"to rollout {number}",
            kind="stale",
        )


def _back(form: Mapping[str, str], usual: str = "/") -> str:
    """The page that was pressed on, where it says so."""
    given = form.get("back", "")
    return given if _BACK.fullmatch(given) else usual


async def _answer(request: web.Request, number: int, acted: Acted, idle: str, form: Mapping[str, str]) -> web.Response:
    if not acted.is_done:
        rollout = acted.written.rollout
        text = f"Rollout {rollout.number} is {rollout.phase_name.replace('_', ' ')}; {idle}."
        return site_of(request).message(request, text, status=200, tone="calm", title="Nothing to do")
    said = [record.message for record in acted.written.records]
    said += [f"{tier} is left as it is: {why}" for tier, why in acted.written.left.items()]
    return await _done(request, _back(form, f"/rollouts/{number}"), "; ".join(said))


async def _done(request: web.Request, where: str, text: str) -> web.Response:
    if request.headers.get("HX-Request") == "true":
        return site_of(request).message(request, text, status=200, tone="go", title="Done")
    await site_of(request).catch_up()
    raise web.HTTPSeeOther(where)
