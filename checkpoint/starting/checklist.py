"""Owns the checklist before a start: what blocks it, what it waits for, what to know, each with a remedy. Pure.

Refusing a start is left to `checkpoint.actions`, which refuses what is said to block here; holding its steps, to the
engine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from checkpoint.guards import Guards, Lease
from checkpoint.overview import HostView, Overview, Standing, TierView
from checkpoint.pipeline import Settings
from checkpoint.rollout.events import Origin
from checkpoint.rollout.machine import begin, named
from checkpoint.rollout.plan import Plan
from checkpoint.rollout.states import Rollout
from checkpoint.rollout.tally import allowance
from checkpoint.rollout.timetable import expected, window_hold
from checkpoint.windows import earliest, freeze_at
from fleet import Build

Weight = Literal["blocks", "waits", "warns"]
WEIGHTS: Final[tuple[Weight, ...]] = ("blocks", "waits", "warns")
PIERCED: Final = frozenset({"locked", "build_denied", "window", "freeze", "manifest_unreachable"})
"""Kinds that an override takes out of the way."""

_NAMED: Final = 5
_DRIFTING: Final = frozenset({Standing.FAILED, Standing.RETRYING})


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        kind: a word for machines; of what blocks, that of the refusal.
        weight: `blocks`: it cannot start; `waits`: it starts, and a step waits for this; `warns`: it should be known.
        what: how it is.
        remedy: what to do.
    """

    kind: str
    weight: Weight
    what: str
    remedy: str

    @property
    def is_pierced(self) -> bool:
        """Whether an override takes it out of the way."""
        return self.kind in PIERCED


@dataclass(frozen=True)
class Situation:
    """What stands there before a rollout.

    Attributes:
        at: now.
        person: who would start it.
        view: tiers and hosts.
        engine: the one that leads; None: none does.
        latest: the rollout before, None: there was none.
        cut_off_since: since when Consul does not answer; None: it does.
    """

    at: datetime
    person: str
    view: Overview
    guards: Guards
    lease: Lease | None
    engine: str | None
    latest: Rollout | None
    cut_off_since: datetime | None = None


def checklist(
    now: Situation,
    settings: Settings,
    *,
    plan: Plan | None = None,
    release: Build | None = None,
    manifest_fault: str | None = None,
) -> tuple[Line, ...]:
    """All that stands in the way, the worst first.

    Args:
        now: what stands there.
        settings: the configuration.
        plan: what would be started; None: no build was chosen yet.
        release: the record of the plan's build; None: it has none.
        manifest_fault: why its manifest cannot be used; None: it can, or there was none to look at.
    """
    lines = [*_of_app(now, settings), *_of_hosts(now, settings, plan)]
    if plan is None:
        lines += _of_first_tier(now, settings)
    else:
        lines += [*_of_build(now, plan, release, manifest_fault), *_of_times(now, plan)]
    return tuple(sorted(lines, key=lambda line: WEIGHTS.index(line.weight)))


def commands_of(now: Situation, settings: Settings) -> str:
    """Who commands, and what a start makes of that."""
    lease, lease_s = now.lease, settings.pipeline.commander.lease_s
    if not settings.pipeline.commander.required:
        return "The pipeline asks for no commander: the command stays as it is."
    others = _others_lease(now, settings)
    if others is not None:
        return f"{others.holder} has the command until {_time(others.until)}: ask for it before you start."
    verb = "keep" if lease is not None and lease.is_live(now.at) else "take"
    return f"By starting you {verb} the command for {lease_s / 60:g} min; acting on the rollout renews that."


def _others_lease(now: Situation, settings: Settings) -> Lease | None:
    """The lease that keeps this person from starting."""
    lease = now.lease
    is_others = lease is not None and lease.is_live(now.at) and not lease.is_of(now.person)
    return lease if is_others and settings.pipeline.commander.required else None


def _of_app(now: Situation, settings: Settings) -> Iterator[Line]:
    app = settings.pipeline.app
    if now.cut_off_since is not None:
        since = f"Consul does not answer since {_time(now.cut_off_since)}"
        yield Line("store_unreachable", "blocks", since, "wait, or see `hotcold doctor`; hosts keep what they run")
    if now.latest is not None and not now.latest.is_ended:
        phase = now.latest.phase_name.replace("_", " ")
        under_way = f"rollout {now.latest.number} of {now.latest.build_id} is under way ({phase})"
        yield Line("rollout_under_way", "blocks", under_way, "let it finish, or abort it or roll it back")
    if now.guards.lock is not None:
        lock = now.guards.lock
        what = f"{app} is locked by {lock.by} since {_time(lock.at)}: {lock.reason}"
        yield Line("locked", "blocks", what, f"lift it when that is settled: `hotcold rollout unlock --app {app}`")
    lease = _others_lease(now, settings)
    if lease is not None:
        what = f"{lease.holder} has the command until {_time(lease.until)}"
        remedy = f"ask {lease.holder} to hand it over: `hotcold commander hand-over NAME --app {app}`"
        yield Line("not_the_commander", "blocks", what, remedy)
    if now.engine is None:
        remedy = f"start one: `hotcold checkpoint serve --app {app}`, or `checkpoint run`"
        yield Line("no_engine", "waits", "no engine leads, so no step is taken", remedy)
    if now.latest is None:
        what = f"it is the first rollout of {app}"
        yield Line("first_rollout", "warns", what, "start it when there is time to look at every step")
    if not settings.pipeline.metrics:
        what = "no metrics are configured: verdicts rest on what hosts report of their probes"
        yield Line("no_metrics", "warns", what, "watch your charts, and add `[[metrics]]` to checkpoint.toml")
    if not settings.webhooks:
        what = "no notifications are configured: nobody is told but by looking"
        yield Line("no_webhooks", "warns", what, "keep this page open, and add `[[webhooks]]` to checkpoint.toml")


def _of_hosts(now: Situation, settings: Settings, plan: Plan | None) -> Iterator[Line]:
    app = settings.pipeline.app
    names = settings.pipeline.tiers if plan is None else tuple(tier.name for tier in plan.tiers)
    known = {tier.key.tier: tier for tier in now.view.tiers}
    empty = [name for name in names if name not in known or not known[name].hosts]
    if empty:
        what = f"no host of {', '.join(empty)} has ever reported"
        remedy = f"start its agents (`hotcold-agent@{app}`), or take the tier out of checkpoint.toml"
        yield Line("no_hosts", "blocks", what, remedy)
    tiers = [known[name] for name in names if name in known]
    for tier in tiers:
        if tier.key.fault is not None:
            what = f"the key of tier {tier.key.tier} holds something that is no order: {tier.key.fault}"
            yield Line("order_invalid", "blocks", what, f"`hotcold deploy --tier {tier.key.tier}` writes a good one")
    hosts = [host for tier in tiers for host in tier.hosts]
    yield from _of_silent(hosts, plan)
    drifting = [host for host in hosts if host.standing in _DRIFTING]
    if drifting:
        what = f"{_hosts(drifting)} not as ordered"
        yield Line("drift", "warns", what, "look at each first (`hotcold fleet`): the build is not the cause")
    held = [host for host in hosts if host.standing is Standing.HELD]
    if held:
        yield Line(
            "held", "warns", f"{_hosts(held)} held by an operator", "they count as overdue: `hotcold resume` there"
        )
    if now.latest is not None and now.latest.set_aside:
        aside = ", ".join(f"{each.tier}/{each.host}" for each in now.latest.set_aside)
        what = f"set aside in rollout {now.latest.number}, and never back: {aside}"
        yield Line("set_aside", "warns", what, "they count again: mend them, or set them aside anew")


def _of_silent(hosts: Sequence[HostView], plan: Plan | None) -> Iterator[Line]:
    silent = {(host.tier, host.host): host for host in hosts if host.standing is Standing.SILENT}
    if not silent:
        return
    remedy = "bring their agents back, or set them aside once it has started"
    for number, step in enumerate(() if plan is None else plan.steps):
        assert plan is not None  # noqa: S101 - it has steps
        reached = plan.hosts_of(number)
        gone = [name for name in reached if (step.rule.tier, name) in silent]
        allowed = allowance(step.rule.budget, len(reached))
        if len(gone) > allowed:
            what = (
                f"{named(step)} reaches {len(reached)} hosts, {len(gone)} of them silent, and {allowed} may be missing"
            )
            yield Line("silent", "waits", f"{what}: it pauses at their deadline", remedy)
            return
    if plan is None:
        by_tier: dict[str, int] = defaultdict(int)
        for host in hosts:
            by_tier[host.tier] += 1
        gone_tiers = [tier for tier in by_tier if all((tier, h.host) in silent for h in hosts if h.tier == tier)]
        if gone_tiers:
            yield Line("silent", "waits", f"every host of {', '.join(gone_tiers)} is silent", remedy)
            return
    yield Line("silent", "warns", f"{_hosts(list(silent.values()))} silent", remedy)


def _of_first_tier(now: Situation, settings: Settings) -> Iterator[Line]:
    calendar, tier = settings.pipeline.calendar, settings.pipeline.tiers[0]
    freeze = freeze_at(calendar, tier, now.at)
    if freeze is not None:
        what = f"{tier} is frozen until {_time(freeze.ends)}: {freeze.reason}"
        yield Line("freeze", "waits", what, "wait for its end, or start under an override")
    elif earliest(calendar, tier, now.at, timedelta()) != now.at:
        opens = earliest(calendar, tier, now.at, timedelta())
        what = f"{tier} is closed" + ("" if opens is None else f" until {_time(opens)}")
        yield Line("window", "waits", what, "start now, and its first step waits; or start under an override")


def _of_build(now: Situation, plan: Plan, release: Build | None, manifest_fault: str | None) -> Iterator[Line]:
    build, app = plan.build, plan.app
    denied = now.guards.denial(build)
    if denied is not None:
        what = f"build {build.id} is denied by {denied.by} since {_time(denied.at)}: {denied.reason}"
        remedy = f"choose another build, or lift it: `hotcold rollout unlock --build {build.id} --app {app}`"
        yield Line("build_denied", "blocks", what, remedy)
    if manifest_fault is not None:
        remedy = "bring the artifact store back, or choose another build: hosts would not get it either"
        yield Line("manifest_unreachable", "blocks", f"its manifest cannot be used: {manifest_fault}", remedy)
    tiers = {tier.key.tier: tier for tier in now.view.tiers}
    yield from _of_signature(plan, [tiers[tier.name] for tier in plan.tiers if tier.name in tiers])
    new = [tier.name for tier in plan.tiers if tier.previous is None]
    if new and now.latest is not None:
        what = f"nothing runs on {', '.join(new)} yet: there is no build to go back to"
        yield Line("no_way_back", "warns", what, "be ready to mend forward")
    last = plan.tiers[-1]
    order = None if last.name not in tiers else tiers[last.name].key.order
    if order is not None and order.build.id == build.id and order.percent >= 100:  # noqa: PLR2004 - all of it
        what = f"{last.name} is ordered to run {build.id} already"
        yield Line("runs_already", "warns", what, "start it only if hosts shall be ordered to it once more")
    if release is not None and release.hotfix_of is not None:
        runs = None if last.previous is None else last.previous.id
        if runs not in {release.hotfix_of, build.id}:
            what = f"{build.id} mends {release.hotfix_of}, but {last.name} runs {runs or 'nothing'}"
            yield Line("mends_another", "warns", what, "see below what it takes out: it may be more than the fault")


def _of_signature(plan: Plan, tiers: Sequence[TierView]) -> Iterator[Line]:
    if plan.build.signature is not None:
        return
    signed = [
        tier.key.tier for tier in tiers if tier.key.order is not None and tier.key.order.build.signature is not None
    ]
    if signed:
        what = f"it is not signed, and what runs on {', '.join(signed)} is: hosts with trusted_keys refuse it"
        yield Line("not_signed", "warns", what, "sign it: `hotcold sign`, or `release.key` for the next one")


def _of_times(now: Situation, plan: Plan) -> Iterator[Line]:
    origin = Origin(by=now.person, via="engine", reason="", at=now.at)
    hold = window_hold(plan, begin(plan, origin)[0], now.at)
    if hold is not None:
        what = f"the first step waits: {hold.message}"
        kind = "freeze" if hold.kind == "freeze" else "window"
        yield Line(kind, "waits", what, "start now, and it begins by itself; or start under an override")
    never = [named(each.step) for each in expected(plan, now.at) if each.begins is None]
    if never:
        what = f"{never[0]} fits into no window within 60 days"
        yield Line(
            "no_window", "waits", what, "shorten its bake, widen the window, or end the freeze in checkpoint.toml"
        )


def _hosts(hosts: Sequence[HostView]) -> str:
    """`3 hosts (a, b, c) are`, and no more than a few names."""
    names = ", ".join(f"{host.tier}/{host.host}" for host in hosts[:_NAMED])
    more = f" and {len(hosts) - _NAMED} more" if len(hosts) > _NAMED else ""
    return f"{len(hosts)} hosts ({names}{more}) are" if len(hosts) > 1 else f"{names} is"


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
