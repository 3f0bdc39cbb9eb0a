"""Owns what programs do: steer a rollout, take and give the command, lock and lift, deny and allow.

What a deed means is left to `checkpoint.actions`, who may to the gate. A deed that does not apply is refused, so that
200 always means that something was written, and is in the audit.
"""

from __future__ import annotations

from datetime import timedelta

from aiohttp import web

from artifact import Refused
from checkpoint.rollout import events as ev
from checkpoint.web.api.answers import DoneAnswer
from checkpoint.web.api.knowing import catch_up
from checkpoint.web.api.requests import (
    Act,
    Aside,
    Back,
    Because,
    HandingOver,
    OfBuild,
    Overriding,
    Releasing,
    RolloutPath,
    Taking,
)
from checkpoint.web.api.standing import build_of
from checkpoint.web.gate import Denied
from checkpoint.web.rights import Role
from checkpoint.web.site import Site, origin_of, person_of, reason_in, site_of
from checkpoint.web.steps import BUTTONS


async def act(request: web.Request, *, path: RolloutPath, body: Act) -> DoneAnswer:
    """Approve, resume, pause, advance, finish or hold over closing, abort, roll back."""
    button = BUTTONS[body.action]
    return await _steer(request, path, body, button.event(), idle=button.idle)


async def set_aside(request: web.Request, *, path: RolloutPath, body: Aside) -> DoneAnswer:
    """Do not wait for a host; it rejoins by itself once it does what is ordered."""
    event = ev.SetAsideRequested(body.tier, body.host)
    return await _steer(request, path, body, event, idle=f"{body.host} is not waited for")


async def take_back(request: web.Request, *, path: RolloutPath, body: Back) -> DoneAnswer:
    """Wait again for a host that was set aside."""
    event = ev.TakeBackRequested(body.tier, body.host)
    return await _steer(request, path, body, event, idle=f"{body.host} is not set aside")


async def override(request: web.Request, *, path: RolloutPath, body: Overriding) -> DoneAnswer:
    """Pierce windows, freezes, lock and slots for some minutes, or no longer."""
    event = ev.OverrideRequested(timedelta(minutes=body.minutes))
    return await _steer(request, path, body, event, idle="there is nothing to override")


async def take(request: web.Request, *, body: Taking) -> DoneAnswer:
    """Become the commander, or go on being it."""
    site, person = site_of(request), person_of(request)
    if body.force and person.role < Role.ADMIN:
        raise Denied(403, "only an admin takes the command from somebody else")
    lease = await site.desk.guarding.take_command(
        origin_of(request, reason_in(body.reason)), _lease_length(site), force=body.force
    )
    until = lease.until.isoformat(timespec="seconds")
    return await _done(site, f"{lease.holder} is the commander until {until}")


async def hand_over(request: web.Request, *, body: HandingOver) -> DoneAnswer:
    """Make somebody else the commander."""
    site = site_of(request)
    lease = await site.desk.guarding.hand_over(body.to, origin_of(request, reason_in(body.reason)), _lease_length(site))
    until = lease.until.isoformat(timespec="seconds")
    return await _done(site, f"{lease.holder} is the commander until {until}")


async def release(request: web.Request, *, body: Releasing) -> DoneAnswer:
    """Be the commander no longer; a rollout holds before its next step."""
    site = site_of(request)
    is_done = await site.desk.guarding.release_command(origin_of(request, reason_in(body.reason)))
    return await _done(site, "nobody is the commander", None if is_done else "nobody had the command")


async def lock(request: web.Request, *, body: Because) -> DoneAnswer:
    """Let nothing new start."""
    site = site_of(request)
    is_done = await site.desk.guarding.lock(origin_of(request, reason_in(body.reason)))
    return await _done(site, f"{site.app} is locked", None if is_done else f"{site.app} is locked already")


async def unlock(request: web.Request, *, body: Because) -> DoneAnswer:
    """Lift the lock; denied builds stay denied."""
    site = site_of(request)
    is_done = await site.desk.guarding.unlock(origin_of(request, reason_in(body.reason)))
    return await _done(site, f"{site.app} is unlocked", None if is_done else f"{site.app} is not locked")


async def deny(request: web.Request, *, body: OfBuild) -> DoneAnswer:
    """Deny a build, until somebody allows it again."""
    site = site_of(request)
    build = await build_of(request, body.build)
    is_done = await site.desk.guarding.deny(build, origin_of(request, reason_in(body.reason)))
    return await _done(site, f"build {body.build} is denied", None if is_done else f"{body.build} is denied already")


async def allow(request: web.Request, *, body: OfBuild) -> DoneAnswer:
    """Let a denied build be deployed again."""
    site = site_of(request)
    is_done = await site.desk.guarding.allow(body.build, origin_of(request, reason_in(body.reason)))
    return await _done(site, f"build {body.build} is allowed again", None if is_done else f"{body.build} is not denied")


async def _steer(
    request: web.Request, path: RolloutPath, body: Act | Aside | Overriding, event: ev.Command, *, idle: str
) -> DoneAnswer:
    """Do something to the latest rollout, decided on an index.

    Raises:
        Refused: it is not the latest, has changed, somebody else commands, or it does not apply.
    """
    site, number = site_of(request), path.number
    latest = await site.desk.ledger.latest()
    if latest is None or number > latest.rollout.number or number < 1:
        raise Refused(f"no rollout {number} of {site.app} was ever started", kind="unknown_rollout")
    if latest.rollout.number != number:
        raise Refused(
            f"rollout {latest.rollout.number} of {latest.rollout.build_id} was started meanwhile, so nothing was done "
            f"to rollout {number}",
            kind="stale",
        )
    acted = await site.desk.act(event, origin_of(request, reason_in(body.reason), decided_on=body.index))
    rollout = acted.written.rollout
    if not acted.is_done:
        raise _idle(f"rollout {rollout.number} is {rollout.phase_name.replace('_', ' ')}; {idle}")
    await catch_up(site)
    return DoneAnswer(
        messages=(
            *(record.message for record in acted.written.records),
            *(f"{tier} is left as it is: {why}" for tier, why in acted.written.left.items()),
        ),
        rollout=rollout.number,
        phase=rollout.phase_name,
    )


async def _done(site: Site, message: str, idle: str | None = None) -> DoneAnswer:
    """What was done to no rollout; `idle`: why it was not."""
    if idle is not None:
        raise _idle(idle)
    await catch_up(site)
    return DoneAnswer(messages=(message,), rollout=None, phase=None)


def _idle(message: str) -> Refused:
    return Refused(f"{message}: nothing was done", kind="not_applicable")


def _lease_length(site: Site) -> timedelta:
    return timedelta(seconds=site.settings.pipeline.commander.lease_s)
