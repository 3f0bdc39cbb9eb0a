"""Owns what a rollout's tests need around them: a pipeline, hosts that obey orders, time set by hand, an engine.

The hosts use the agents' own rules (`check_obeyable`, `wanted_build`), documents and keys; they have no trees.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from artifact import Refused
from checkpoint.actions import Acted, Desk
from checkpoint.clock import SteadyClock
from checkpoint.engine import Engine
from checkpoint.pipeline import Settings, parse_settings
from checkpoint.reading import HostKey, TierKey
from checkpoint.rollout import events as ev
from checkpoint.rollout.ledger import Ongoing
from checkpoint.rollout.plan import Plan, make_plan
from checkpoint.rollout.verdict import Judge
from fleet import (
    Order,
    Problem,
    Report,
    Service,
    Store,
    check_obeyable,
    decode_order,
    depends_on_joining,
    encode,
    wanted_build,
)
from fleet.keys import host_key, service_id, service_name, tier_key
from tests.commander_world import build

MONDAY = datetime(2026, 11, 23, 15, tzinfo=UTC)
"""10:00 in New York."""

PIPELINE = """
app = "shop"
[[tiers]]
name = "staging"
bake_s = 60
[[tiers]]
name = "canary"
bake_s = 60
[[tiers]]
name = "prod"
steps = [10, 25, 50, 75, 100]
bake_s = 60
"""
SIZES = {"staging": 2, "canary": 3, "prod": 20}


def settings(text: str = PIPELINE) -> Settings:
    return parse_settings(text)


def names(sizes: Mapping[str, int] = SIZES) -> list[tuple[str, str]]:
    return [(tier, f"{tier}-{number:02}") for tier, count in sizes.items() for number in range(count)]


def a_report(tier: str, host: str, **facts: Any) -> Report:
    facts = {"serial": 0, "state": "steady", **facts}
    return Report(v=1, app="shop", tier=tier, host=host, **{"highest": facts["serial"], **facts})


def a_plan(text: str = PIPELINE, *, sizes: Mapping[str, int] = SIZES, salts: Iterable[str] = ("salt",)) -> Plan:
    """A plan over hosts that run `b1` by order 1."""
    ordered = Order(v=1, app="shop", tier="", serial=1, build=build("b1", "1"))

    keys = [
        TierKey(tier, msgspec.structs.replace(ordered, tier=tier), modify_index=1, claimed_serial=1) for tier in sizes
    ]
    hosts = [HostKey(tier, host, a_report(tier, host, serial=1, hot="b1")) for tier, host in names(sizes)]
    return make_plan(
        settings(text).pipeline,
        build("b2", "2"),
        keys=keys,
        hosts=hosts,
        zones={},
        salts=salts,
        number=1,
        now=MONDAY,
        by="anna@desk",
        reason="checkout fix",
    )


def by(
    person: str = "anna@desk", *, at: datetime = MONDAY, reason: str = "because", index: int | None = None
) -> ev.Origin:
    return ev.Origin(by=person, via="cli", reason=reason, at=at, decided_on=index)


class Time:
    """Wall and monotonic time, set by hand."""

    def __init__(self, at: datetime = MONDAY) -> None:
        self.wall = at
        self.monotonic_s = 1000.0

    def pass_(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.monotonic_s += seconds

    def clock(self) -> SteadyClock:
        return SteadyClock(lambda: self.wall, lambda: self.monotonic_s)


@dataclass
class Fleet:
    """Hosts that look at their tier's order when told to, and report.

    Attributes:
        bad: ids of builds that fail their proof.
        dead: hosts that do nothing.
        obeyed: every order that each host obeyed, in order.
    """

    store: Store
    hosts: list[tuple[str, str]] = field(default_factory=names)
    bad: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    unproved: dict[str, str] = field(default_factory=dict)
    zones: dict[str, str] = field(default_factory=dict)
    obeyed: dict[tuple[str, str], list[Order]] = field(default_factory=dict)
    hot: dict[tuple[str, str], str | None] = field(default_factory=dict)
    report_count: int = 0

    async def start(self) -> None:
        """Register every agent, and report for the first time."""
        for tier, host in self.hosts:
            await self.store.pass_check(self.service(tier, host), "steady")
        await self.turn(is_first=True)

    def service(self, tier: str, host: str) -> Service:
        meta = {"app": "shop", "tier": tier, "host": host}
        if host in self.zones:
            meta["zone"] = self.zones[host]
        return Service(id=service_id("shop", tier, host), name=service_name("shop"), ttl_s=600.0, meta=meta)

    async def silence(self, tier: str, host: str) -> None:
        self.dead.add(host)
        await self.store.fail_check(self.service(tier, host), "gone")

    async def wake(self, tier: str, host: str) -> None:
        self.dead.discard(host)
        await self.store.pass_check(self.service(tier, host), "steady")

    async def report(self, tier: str, host: str) -> None:
        """Let a host say that it is there, before it has looked at any order."""
        await self.store.put(host_key("shop", tier, host), encode(a_report(tier, host)))

    async def turn(self, *, is_first: bool = False) -> None:
        """Every host sees its tier's key once."""
        orders: dict[str, Order | None] = {}
        for tier in {tier for tier, _ in self.hosts}:
            entry = await self.store.read(tier_key("shop", tier))
            orders[tier] = None if entry is None else decode_order(entry.value)
        for tier, host in self.hosts:
            if host in self.dead:
                continue
            order = orders[tier]
            joined = 0 if order is None or not depends_on_joining(order, host) else await self._joined(tier, host)
            said = self._obey(tier, host, order, joined, is_first=is_first)
            if said is not None:
                await self.store.put(host_key("shop", tier, host), encode(said))
                self.report_count += 1

    async def _joined(self, tier: str, host: str) -> int | None:
        own = await self.store.read(host_key("shop", tier, host))
        return None if own is None else own.create_index

    async def add(self, tier: str, *hosts: str) -> None:
        """Hosts that nobody knew start their agents."""
        for host in hosts:
            self.hosts.append((tier, host))
            await self.store.pass_check(self.service(tier, host), "steady")
        await self.turn(is_first=True)

    def _obey(self, tier: str, host: str, order: Order | None, joined: int | None, *, is_first: bool) -> Report | None:
        obeyed = self.obeyed.setdefault((tier, host), [])
        highest = obeyed[-1] if obeyed else None
        if order is None or order == highest:
            return a_report(tier, host, hot=self.hot.get((tier, host))) if is_first and highest is None else None
        try:
            check_obeyable(order, app="shop", tier=tier, highest=highest, now=MONDAY)
        except Refused as error:
            serial = 0 if highest is None else highest.serial
            problem = Problem(kind=error.kind, message=str(error))
            return a_report(tier, host, serial=serial, hot=self.hot.get((tier, host)), problem=problem)
        obeyed.append(order)
        wanted = wanted_build(order, host, joined)
        wanted_id = None if wanted is None else wanted.id
        if wanted_id is not None and (wanted_id in self.bad or self.unproved.get(host) == wanted_id):
            problem = Problem(kind="proof_failed", message="answered 500")
            state = "rolled_back"
            return a_report(
                tier,
                host,
                serial=order.serial,
                state=state,
                wanted=wanted_id,
                hot=self.hot.get((tier, host)),
                problem=problem,
            )
        if wanted_id is not None:
            self.hot[tier, host] = wanted_id
        return a_report(tier, host, serial=order.serial, wanted=wanted_id, hot=self.hot.get((tier, host)))

    def running(self, tier: str, build_id: str) -> list[str]:
        return [host for each, host in self.hosts if each == tier and self.hot.get((tier, host)) == build_id]


class RolloutWorld:
    """A store with hosts that run `b1`, a desk, and an engine that is driven by hand."""

    def __init__(
        self, store: Store, fleet: Fleet, text: str = PIPELINE, judges: Mapping[str, Judge] | None = None
    ) -> None:
        self.store = store
        self.fleet = fleet
        self.settings = settings(text)
        self.time = Time()
        self.judges = judges
        self.desk = self.new_desk(store)
        self.engine = self.new_engine(store)

    def new_desk(self, store: Store) -> Desk:
        salts = iter(f"salt-{number}" for number in range(10_000))
        return Desk(store, "shop", now=lambda: self.time.wall, new_salt=lambda: next(salts), pause=no_pause)

    def new_engine(self, store: Store) -> Engine:
        return Engine(
            store, self.settings.pipeline, name="checkpoint@test", clock=self.time.clock(), judges=self.judges
        )

    async def order_everywhere(self, build_id: str = "b1") -> None:
        for tier in {tier for tier, _ in self.fleet.hosts}:
            order = Order(v=1, app="shop", tier=tier, serial=1, build=build(build_id, build_id[-1]))
            await self.store.put(tier_key("shop", tier), encode(order))
        await self.fleet.start()

    def origin(self, person: str = "anna@desk", reason: str = "because", index: int | None = None) -> ev.Origin:
        return by(person, at=self.time.wall, reason=reason, index=index)

    async def start(self, build_id: str = "b2", **facts: Any) -> Plan:
        plan = await self.desk.plan(
            self.settings.pipeline, build(build_id, build_id[-1]), by="anna@desk", reason="checkout fix"
        )
        await self.desk.start(plan, self.origin(), **facts)
        return plan

    async def act(self, event: ev.Command, person: str = "anna@desk", **facts: Any) -> Acted:
        return await self.desk.act(event, self.origin(person, **facts))

    async def settle(self, engine: Engine | None = None) -> Ongoing:
        """Let the engine and the hosts do all that they can at this moment."""
        engine = engine or self.engine
        while True:
            await self.fleet.turn()
            await engine.look()
            if not await engine.step():
                return await self.now()

    async def now(self) -> Ongoing:
        ongoing = await self.desk.ledger.latest()
        assert ongoing is not None
        return ongoing

    async def phase(self) -> tuple[str, int]:
        rollout = (await self.now()).rollout
        return rollout.phase_name, rollout.phase.step

    async def until(self, condition: Callable[[Ongoing], bool], *, step_s: float = 30.0, turns: int = 400) -> Ongoing:
        """Let time pass until the rollout is as wanted."""
        for _ in range(turns):
            ongoing = await self.settle()
            if condition(ongoing):
                return ongoing
            self.time.pass_(step_s)
        raise AssertionError(f"never: {ongoing.rollout}")

    async def until_ended(self) -> Ongoing:
        return await self.until(lambda ongoing: ongoing.rollout.is_ended)


async def no_pause(_: float) -> None:
    await asyncio.sleep(0)


Deed = Callable[[], Awaitable[None]]
