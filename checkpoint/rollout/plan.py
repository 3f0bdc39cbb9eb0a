"""Owns a rollout's plan: which hosts each step reaches, frozen before anything is written. Pure.

When the steps may begin is left to `checkpoint.rollout.timetable`, and what becomes of them to
`checkpoint.rollout.machine`.

A host's place in its tier is the position that its name has under the plan's salt, so a host can compute it offline,
and one key per tier says it all. Of several salts the one is taken whose steps are spread best over zones. What is
promised: exactly `max(1, ceil(percent * hosts))` of the hosts that were known, and another order each time. Not
promised: a host of every zone in every step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from artifact import ManifestRef, Refused
from checkpoint.ordering import admitted_build
from checkpoint.pipeline import Pipeline, StepRule
from checkpoint.reading import HostKey, TierKey
from checkpoint.windows import Moment
from fleet import cutoff_for, hosts_for_percent, position

VERSION: Final = 1
SALT_COUNT: Final = 32
"""Salts that are tried where hosts say their zones."""


class TierPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One tier as the plan found it.

    Attributes:
        hosts: in the order in which steps reach them.
        zones: the zone of each, "" where it says none; empty: no host says one.
        previous: what the tier was admitted at: what new hosts, and hosts not reached yet, run.
        serial: of the order that stood there; 0: none.
    """

    name: str
    hosts: tuple[str, ...]
    zones: tuple[str, ...] = ()
    previous: ManifestRef | None = None
    serial: int = 0


class StepPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One step: the first `host_count` hosts of its tier, those with a position below `cutoff`."""

    rule: StepRule
    host_count: int
    cutoff: float


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a rollout does, whole; written once, never changed.

    Attributes:
        number: of the rollout, rising for the app.
        salt: decides every tier's order of hosts.
        by, reason: who asked for it, and why.
    """

    v: int
    number: int
    app: str
    build: ManifestRef
    salt: str
    tiers: tuple[TierPlan, ...]
    steps: tuple[StepPlan, ...]
    pipeline: Pipeline
    made: Moment
    by: str
    reason: str

    def tier(self, name: str) -> TierPlan:
        """The tier of that name.

        Raises:
            KeyError: not in the plan.
        """
        found = next((tier for tier in self.tiers if tier.name == name), None)
        if found is None:
            raise KeyError(name)
        return found

    def hosts_of(self, step: int) -> tuple[str, ...]:
        """Hosts that shall run the build once that step is ordered."""
        return self.tier(self.steps[step].rule.tier).hosts[: self.steps[step].host_count]

    def remaining(self, step: int) -> tuple[StepPlan, ...]:
        """That step and those after it in its tier."""
        tier = self.steps[step].rule.tier
        return tuple(each for each in self.steps[step:] if each.rule.tier == tier)

    def is_first_of_tier(self, step: int) -> bool:
        """Whether no step before it is of the same tier."""
        return step == 0 or self.steps[step - 1].rule.tier != self.steps[step].rule.tier


def make_plan(
    pipeline: Pipeline,
    build: ManifestRef,
    *,
    keys: Sequence[TierKey],
    hosts: Sequence[HostKey],
    zones: Mapping[tuple[str, str], str],
    salts: Iterable[str],
    number: int,
    now: datetime,
    by: str,
    reason: str,
    first_tier: str | None = None,
) -> Plan:
    """Freeze which hosts each step reaches.

    Args:
        pipeline: what to go through.
        build: what to roll out.
        keys: orders of the app's tiers.
        hosts: its hosts.
        zones: zone of (tier, host), where known.
        salts: to choose from; one is enough where no host says a zone.
        number: of the rollout.
        now: wall-clock time, aware.
        by: who.
        reason: why.
        first_tier: leave out what stands before it; None: nothing.

    Raises:
        Refused: a tier has no hosts, a key is no order, the tier is unknown, or the build's id is used otherwise.
    """
    by_tier = {key.tier: key for key in keys}
    names = {tier: sorted(host.host for host in hosts if host.tier == tier) for tier in pipeline.tiers}
    steps = _from(pipeline, first_tier)
    tiers = tuple(dict.fromkeys(step.tier for step in steps))
    for tier in tiers:
        _check(build, by_tier.get(tier, TierKey(tier)), names[tier], tier)
    salt = _best_salt(steps, names, zones, list(salts))
    return Plan(
        v=VERSION,
        number=number,
        app=pipeline.app,
        build=build,
        salt=salt,
        tiers=tuple(
            _tier(build, by_tier.get(tier, TierKey(tier)), hosts, zones, _ordered(names[tier], salt)) for tier in tiers
        ),
        steps=tuple(
            StepPlan(
                rule=step,
                host_count=hosts_for_percent(len(names[step.tier]), step.percent),
                cutoff=cutoff_for(names[step.tier], salt, step.percent),
            )
            for step in steps
        ),
        pipeline=pipeline,
        made=now,
        by=by,
        reason=reason,
    )


def _from(pipeline: Pipeline, first_tier: str | None) -> tuple[StepRule, ...]:
    if first_tier is None:
        return pipeline.steps
    if first_tier not in pipeline.tiers:
        raise Refused(f"no tier {first_tier} in the pipeline: {', '.join(pipeline.tiers)}", kind="unknown_tier")
    tiers = pipeline.tiers[pipeline.tiers.index(first_tier) :]
    return tuple(step for step in pipeline.steps if step.tier in tiers)


def _check(build: ManifestRef, key: TierKey, hosts: Sequence[str], tier: str) -> None:
    if not hosts:
        raise Refused(
            f"no host of tier {tier} has ever reported: start its agents, or take the tier out of the pipeline",
            kind="no_hosts",
        )
    if key.fault is not None:
        raise Refused(f"the key of tier {tier} holds something that is no order: {key.fault}", kind="order_invalid")
    for known in (key.order.build, key.order.previous) if key.order is not None else ():
        if known is not None and known.id == build.id and known.digest != build.digest:
            raise Refused(
                f"build id {build.id} is in use in tier {tier} for another artifact: pack it again under a new id",
                kind="build_id_reused",
            )


def _tier(
    build: ManifestRef,
    key: TierKey,
    hosts: Sequence[HostKey],
    zones: Mapping[tuple[str, str], str],
    ordered: Sequence[str],
) -> TierPlan:
    name, order = key.tier, key.order
    if order is None:
        previous = None
    elif (order.build.id, order.build.digest) == (build.id, build.digest):
        previous = order.previous
    else:
        previous = admitted_build(order, [host for host in hosts if host.tier == name])
    known = tuple(zones.get((name, host), "") for host in ordered)
    return TierPlan(
        name=name,
        hosts=tuple(ordered),
        zones=known if any(known) else (),
        previous=previous,
        serial=0 if order is None else order.serial,
    )


def _ordered(hosts: Sequence[str], salt: str) -> list[str]:
    return sorted(hosts, key=lambda host: position(salt, host))


def _best_salt(
    steps: Sequence[StepRule],
    names: Mapping[str, Sequence[str]],
    zones: Mapping[tuple[str, str], str],
    salts: Sequence[str],
) -> str:
    if not zones:
        return salts[0]
    return min(salts, key=lambda salt: _unevenness(steps, names, zones, salt))


def _unevenness(
    steps: Sequence[StepRule], names: Mapping[str, Sequence[str]], zones: Mapping[tuple[str, str], str], salt: str
) -> float:
    """The worst difference, over steps and zones, between a zone's hosts in a step and its fair share of them."""
    worst = 0.0
    ordered = {tier: _ordered(hosts, salt) for tier, hosts in names.items()}
    for step in steps:
        hosts = ordered[step.tier]
        whole = Counter(zones.get((step.tier, host), "") for host in hosts)
        reached = hosts[: hosts_for_percent(len(hosts), step.percent)]
        part = Counter(zones.get((step.tier, host), "") for host in reached)
        differences = (abs(part[zone] - count * len(reached) / len(hosts)) for zone, count in whole.items())
        worst = max(worst, *differences)
    return worst
