"""Which hosts a plan reaches: exactly so many, the same for host and commander, and spread over zones."""

from __future__ import annotations

import itertools
import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from artifact import Refused
from checkpoint.reading import HostKey, TierKey
from checkpoint.rollout.events import Origin
from checkpoint.rollout.machine import begin
from checkpoint.rollout.orders import step_order
from checkpoint.rollout.plan import Plan, make_plan
from fleet import Order, wanted_build
from tests.commander_world import build
from tests.rollout_world import MONDAY, PIPELINE, a_plan, a_report
from tests.rollout_world import settings as parsed


@settings(max_examples=60, deadline=None)
@given(count=some.integers(1, 300), salt=some.text(min_size=1, max_size=8))
def test_a_host_comes_to_the_same_conclusion_as_the_plan(count: int, salt: str) -> None:
    """By the order alone, each host decides as the plan has it: exactly max(1, ceil(percent * hosts)) of them."""
    plan = a_plan(sizes={"staging": 1, "canary": 1, "prod": count}, salts=[salt])
    rollout, _ = begin(plan, Origin("anna", "cli", "", MONDAY))
    key = TierKey("prod", Order(v=1, app="shop", tier="prod", serial=1, build=build("b1", "1")), claimed_serial=1)
    hosts = [HostKey("prod", name, a_report("prod", name)) for name in plan.tier("prod").hosts]
    for number, step in enumerate(plan.steps):
        if step.rule.tier != "prod":
            continue
        order = step_order(plan, rollout, number, key=key, hosts=hosts, origin=Origin("anna", "cli", "", MONDAY))
        chosen = {host.host for host in hosts if wanted_build(order, host.host) == plan.build}
        assert chosen == set(plan.hosts_of(number))
        assert len(chosen) == max(1, math.ceil(step.rule.percent * count / 100 - 1e-9))
        assert order.previous == build("b1", "1")


def test_each_step_holds_the_one_before_it() -> None:
    plan = a_plan()
    steps = [set(plan.hosts_of(number)) for number, step in enumerate(plan.steps) if step.rule.tier == "prod"]
    assert all(one < other for one, other in itertools.pairwise(steps))


def test_another_salt_gives_another_order() -> None:
    """So that one machine is not the first of every rollout."""
    firsts = {a_plan(salts=[f"salt {number}"]).tier("prod").hosts[0] for number in range(40)}
    assert len(firsts) > 10


def test_a_plan_is_read_back_as_it_was_written() -> None:
    plan = a_plan()
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


def zoned(salts: list[str]) -> Plan:
    hosts = [HostKey("prod", f"web-{number:03}", a_report("prod", f"web-{number:03}")) for number in range(60)]
    zones = {("prod", host.host): f"zone-{number % 3}" for number, host in enumerate(hosts)}
    text = 'app = "shop"\n[[tiers]]\nname = "prod"\nsteps = [5, 10, 25, 50, 100]\n'
    facts = {"keys": [], "hosts": hosts, "zones": zones, "number": 1, "now": MONDAY, "by": "anna", "reason": "x"}
    return make_plan(parsed(text).pipeline, build("b2", "2"), salts=salts, **facts)  # type: ignore[arg-type]


def worst(plan: Plan) -> int:
    zones = plan.tier("prod").zones
    parts = [zones[: step.host_count] for step in plan.steps]
    return max(max(part.count(f"zone-{zone}") for zone in range(3)) - len(part) // 3 for part in parts)


def test_of_many_salts_the_one_that_spreads_best_is_taken() -> None:
    """The best of 32 is never worse than any one of them, and better than most."""
    salts = [f"salt {number}" for number in range(32)]
    alone = [worst(zoned([salt])) for salt in salts]
    assert worst(zoned(salts)) == min(alone)
    assert sum(each > min(alone) for each in alone) > 16


def refused(**changes: object) -> str:
    facts: dict[str, object] = {
        "keys": [],
        "hosts": [HostKey(tier, f"{tier}-1", a_report(tier, f"{tier}-1")) for tier in ("staging", "canary", "prod")],
        "zones": {},
        "salts": ["salt"],
        "number": 1,
        "now": MONDAY,
        "by": "anna",
        "reason": "x",
    }
    with pytest.raises(Refused) as caught:
        make_plan(parsed(PIPELINE).pipeline, build("b2", "2"), **facts | changes)  # type: ignore[arg-type]
    return str(caught.value)


def test_what_cannot_be_rolled_out_is_refused() -> None:
    """A tier without hosts proves nothing; a key with garbage, or an id in use, must be looked at first."""
    assert "no host of tier staging" in refused(hosts=[])
    fault = TierKey("prod", fault=Refused("no JSON"))
    assert "holds something that is no order: no JSON" in refused(keys=[fault])
    reused = Order(v=1, app="shop", tier="prod", serial=1, build=build("b2", "7"))
    assert "b2 is in use in tier prod" in refused(keys=[TierKey("prod", reused)])
    assert "no tier dogfood in the pipeline" in refused(first_tier="dogfood")
