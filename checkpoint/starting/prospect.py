"""Owns reading what there is to know before a start, once, for commands and pages alike; it writes nothing.

What it means is left to `checkpoint.starting.checklist` and `checkpoint.release.difference`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from artifact import ConfigError, HotcoldError, Refused
from artifact.locate import load_manifest, reference
from checkpoint.actions import Desk
from checkpoint.observing import look
from checkpoint.overview import Overview
from checkpoint.pipeline import Confirmation, Settings
from checkpoint.release.difference import Difference, difference
from checkpoint.release.records import read_builds
from checkpoint.rollout.plan import Plan
from checkpoint.starting.checklist import Line, Situation, checklist, commands_of
from checkpoint.starting.confirming import asked_of
from checkpoint.starting.path import Skipped, skipped
from fleet import Build

LOOK_S: Final = 10.0
"""Longest time for the manifest: a page waits for it."""
_WHOLE: Final = 100.0
_SEEN: Final = ("http://", "https://", "s3://")


@dataclass(frozen=True)
class Prospect:
    """All that there is to know before a plan is started.

    Attributes:
        release: the record of its build; None: it has none.
        base_tier: the tier whose build the commits are told against: the plan's last.
        commits: what the build brings there.
        skipped: tiers of the pipeline that the plan passes by.
        lines: the checklist, the worst first.
        confirmations: what the commander is asked to confirm.
        command: who commands, and what a start makes of that.
    """

    plan: Plan
    release: Build | None
    base_tier: str
    commits: Difference
    skipped: tuple[Skipped, ...]
    lines: tuple[Line, ...]
    confirmations: tuple[Confirmation, ...]
    command: str

    @property
    def blocking(self) -> tuple[Line, ...]:
        """Lines because of which it cannot start."""
        return tuple(line for line in self.lines if line.weight == "blocks")


def check_reachable(found: Prospect, *, is_overridden: bool) -> None:
    """Refuse what Consul alone cannot tell; the rest is refused by the desk.

    Raises:
        Refused: kind `manifest_unreachable`, and no override pierces that.
    """
    fault = next((line for line in found.lines if line.kind == "manifest_unreachable"), None)
    if fault is not None and not is_overridden:
        raise Refused(f"nothing was started: {fault.what}; {fault.remedy}", kind=fault.kind)


async def prospect(desk: Desk, settings: Settings, plan: Plan, *, person: str, now: datetime) -> Prospect:
    """Read records, guards and hosts as they stand now, and the manifest.

    The pipeline is the plan's own; the rest of the configuration is as it is now.

    Raises:
        StoreUnreachable: no answer.
        Refused: a document cannot be read.
        ConfigError: the configuration is another app's.
    """
    if settings.pipeline.app != desk.app:
        raise ConfigError(
            f"the configuration is for {settings.pipeline.app!r}, not for {desk.app!r}: name its own with --config"
        )
    settings = msgspec.structs.replace(settings, pipeline=plan.pipeline)
    keys, view, around, engine, latest = await asyncio.gather(
        read_builds(desk.store, desk.app, desk.insistence),
        look(desk.store, desk.app),
        desk.ledger.surroundings(),
        desk.leader(),
        desk.ledger.latest(),
    )
    release = next((key.build for key in keys if key.id == plan.build.id), None)
    if release is not None and release.build.digest != plan.build.digest:
        release = None  # another artifact of that name
    situation = Situation(
        at=now,
        person=person,
        view=view,
        guards=around.guards,
        lease=around.lease,
        engine=engine,
        latest=None if latest is None else latest.rollout,
    )
    if release is None:
        keys = tuple(key for key in keys if key.id != plan.build.id)
    last = plan.tiers[-1]
    return Prospect(
        plan=plan,
        release=release,
        base_tier=last.name,
        commits=difference(plan.build.id, _runs(plan, view), keys),
        skipped=skipped(settings.pipeline, plan),
        lines=checklist(
            situation,
            settings,
            plan=plan,
            release=release,
            manifest_fault=await check_manifest(release),
        ),
        confirmations=asked_of(plan, settings.checklist),
        command=commands_of(situation, settings),
    )


def _runs(plan: Plan, view: Overview) -> str | None:
    """Id of the build that the plan's last tier runs now."""
    last = plan.tiers[-1]
    order = next((tier.key.order for tier in view.tiers if tier.key.tier == last.name), None)
    if order is not None and order.build.id == plan.build.id and order.percent >= _WHOLE:
        return order.build.id
    return None if last.previous is None else last.previous.id


async def check_manifest(release: Build | None) -> str | None:
    """Why the manifest of a recorded build cannot be used; None: it can, or only hosts can reach it."""
    if release is None or not release.manifest.startswith(_SEEN):
        return None
    try:
        async with asyncio.timeout(LOOK_S):
            found, location = await load_manifest(release.manifest)
            given = reference(found, location)
    except TimeoutError:
        return f"{release.manifest} did not answer within {LOOK_S:g} s"
    except HotcoldError as error:
        return str(error)
    known = release.build
    if (given.id, given.digest) != (known.id, known.digest):
        return f"{release.manifest} is of {given.id}, {given.digest}, and recorded is {known.digest}"
    if given.signature != known.signature:
        return f"{release.manifest} has another signature than the one that was recorded"
    return None
