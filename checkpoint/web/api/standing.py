"""Owns what programs read of what is settled beforehand: guards, schedule, builds, configuration.

Changing guards is left to `checkpoint.web.api.deeds`; configuration is changed in its file.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from artifact import ManifestRef, Refused
from checkpoint.guards import Guards
from checkpoint.insisting import Insistence
from checkpoint.pipeline import StepRule
from checkpoint.reading import TierKey
from checkpoint.release.finding import find_build
from checkpoint.release.records import BuildKey, read_builds
from checkpoint.release.standing import shares_of
from checkpoint.verdicts import Metric
from checkpoint.web.api.answers import (
    BuildsAnswer,
    GuardsAnswer,
    MetricSetting,
    PersonSetting,
    ReleasedBuild,
    SettingsAnswer,
    StepSetting,
    WebhookSetting,
)
from checkpoint.web.choosing import known_builds
from checkpoint.web.pages import bare
from checkpoint.web.rights import Role
from checkpoint.web.site import Site, person_of, site_of


async def guards(request: web.Request) -> GuardsAnswer:
    """The lock, denied builds, the commander and the schedule, as they stand in Consul now."""
    site = site_of(request)
    guarding = site.desk.guarding
    found, lease, schedule = await asyncio.gather(guarding.guards(), guarding.lease(), guarding.schedule())
    return GuardsAnswer(
        lock=found.lock,
        denied=found.denied,
        commander=lease if lease is not None and lease.is_live(site.now()) else None,
        schedule=schedule.deploys,
    )


async def builds(request: web.Request) -> BuildsAnswer:
    """Builds that can be planned by their ids: those that were released, and those that orders name."""
    site = site_of(request)
    keys, denied = await asyncio.gather(_released(site), site.desk.guarding.guards())
    snapshot = await site.snapshot()
    tiers = () if snapshot is None else tuple(tier.key for tier in snapshot.view.tiers)
    released = {key.id for key in keys}
    ordered = {name: build for name, build in known_builds(snapshot).items() if name not in released}
    return BuildsAnswer(
        builds=(
            *(_released_build(key, tiers, denied) for key in keys),
            *(_ordered_build(build, tiers, denied) for build in ordered.values()),
        )
    )


async def settings(request: web.Request) -> SettingsAnswer:
    """What is configured; changed in the file, not here."""
    site = site_of(request)
    pipeline = site.settings.pipeline
    is_admin = person_of(request).role >= Role.ADMIN
    return SettingsAnswer(
        app=site.app,
        instance=site.name,
        steps=tuple(map(_step, pipeline.steps)),
        windows=pipeline.calendar.windows,
        freezes=pipeline.calendar.freezes,
        commander_required=pipeline.commander.required,
        lease_s=pipeline.commander.lease_s,
        metrics=tuple(map(_metric, pipeline.metrics)),
        webhooks=tuple(
            WebhookSetting(name=each.name, url=bare(each.url), format=each.format) for each in site.settings.webhooks
        ),
        people=tuple(PersonSetting(name=name, role=role) for name, role in site.identities.names) if is_admin else None,
    )


async def build_of(request: web.Request, build_id: str) -> ManifestRef:
    """A build by its id: as orders name it, else as it was released.

    Raises:
        Refused: no such build is known; the message names those nearest to it.
        StoreUnreachable: no answer for about a quarter of a minute.
    """
    site = site_of(request)
    known = known_builds(await site.snapshot()).get(build_id)
    if known is not None:
        return known
    return (await find_build(site.store, site.app, build_id, Insistence(asyncio.sleep))).build


async def _released(site: Site) -> tuple[BuildKey, ...]:
    return await read_builds(site.store, site.app, Insistence(asyncio.sleep))


def _released_build(key: BuildKey, tiers: tuple[TierKey, ...], guards: Guards) -> ReleasedBuild:
    if key.build is None:
        return _row(key.id, fault=str(key.fault or Refused("it cannot be read")))
    record = key.build
    return ReleasedBuild(
        id=key.id,
        at=record.at,
        by=record.by,
        revision=record.revision,
        commit_count=record.commit_count,
        hotfix_of=record.hotfix_of,
        tiers={share.tier: share.percent for share in shares_of(record.build, tiers)},
        is_denied=guards.denial(record.build) is not None,
        fault=None,
    )


def _ordered_build(build: ManifestRef, tiers: tuple[TierKey, ...], guards: Guards) -> ReleasedBuild:
    shares = {share.tier: share.percent for share in shares_of(build, tiers)}
    return _row(build.id, shares=shares, is_denied=guards.denial(build) is not None)


def _row(
    build_id: str, *, shares: dict[str, float] | None = None, is_denied: bool = False, fault: str | None = None
) -> ReleasedBuild:
    return ReleasedBuild(
        id=build_id,
        at=None,
        by=None,
        revision=None,
        commit_count=None,
        hotfix_of=None,
        tiers=shares or {},
        is_denied=is_denied,
        fault=fault,
    )


def _step(step: StepRule) -> StepSetting:
    return StepSetting(
        tier=step.tier,
        percent=step.percent,
        bake_s=step.bake_s,
        expect_s=step.expect_s,
        deadline_s=step.deadline_s,
        approval=step.approval,
        verdict=step.verdict,
        smoke_test=step.smoke_test is not None,
        max_unavailable=step.max_unavailable,
        budget=step.budget,
        clears=step.clears,
    )


def _metric(metric: Metric) -> MetricSetting:
    sources = {
        "reports": metric.reports,
        "prometheus": metric.prometheus,
        "command": metric.command,
        "http": metric.http,
    }
    source = next((name for name, table in sources.items() if table is not None), "")
    return MetricSetting(name=metric.name, kind=metric.kind, tiers=metric.tiers, source=source)
