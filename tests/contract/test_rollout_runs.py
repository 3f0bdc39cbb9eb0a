"""A whole rollout, on the embedded store and on a real Consul: steps, pauses, rollbacks, people, audit."""

from __future__ import annotations

import asyncio
import math
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from artifact import Refused
from checkpoint.audit import read_head, read_record, verify
from checkpoint.guards import Guards, read_document
from checkpoint.rollout import events as ev
from checkpoint.rollout import states as st
from checkpoint.rollout.ledger import Ongoing
from checkpoint.rollout.verdict import Answer, Question, Ruling
from fleet import ConsulStore, Order, StoreUnreachable, consul_settings, decode_order, encode
from fleet.keys import audit_head_key, audit_prefix, host_key, lock_key, tier_key
from fleet.store import Operation
from tests.commander_world import build
from tests.consul_process import ConsulDev, find_consul
from tests.rollout_world import PIPELINE, SIZES, Fleet, RolloutWorld, names

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rollouts.md"
APPROVED = PIPELINE.replace('name = "canary"', 'name = "canary"\napproval = true')


@pytest.fixture
async def world(store: ConsulStore) -> AsyncIterator[RolloutWorld]:
    fresh = RolloutWorld(store, Fleet(store))
    await fresh.order_everywhere()
    yield fresh
    await clean(fresh)


@pytest.fixture
async def approving(store: ConsulStore) -> AsyncIterator[RolloutWorld]:
    fresh = RolloutWorld(store, Fleet(store), APPROVED)
    await fresh.order_everywhere()
    yield fresh
    await clean(fresh)


async def clean(world: RolloutWorld) -> None:
    for entry in await world.store.read_prefix("hotcold/shop/"):
        await world.store.delete(entry.key)
    for tier, host in world.fleet.hosts:
        await world.store.deregister(world.fleet.service(tier, host))


async def order_of(world: RolloutWorld, tier: str) -> Order:
    entry = await world.store.read(tier_key("shop", tier))
    assert entry is not None
    return decode_order(entry.value)


async def guards_of(world: RolloutWorld) -> Guards:
    entry = await world.store.read(lock_key("shop"))
    return Guards() if entry is None else read_document(entry, Guards)


async def assert_audit_is_whole(world: RolloutWorld) -> list[str]:
    entries = await world.store.read_prefix(audit_prefix("shop"))
    head, _ = read_head(await world.store.read(audit_head_key("shop")))
    assert list(verify(entries, head)) == []
    return [read_record(entry.value).what for entry in entries]


def at(name: str, step: int | None = None) -> Any:
    return lambda ongoing: ongoing.rollout.phase_name == name and (step is None or ongoing.rollout.phase.step == step)


async def test_each_step_reaches_exactly_its_share(world: RolloutWorld) -> None:
    """At the end of every step the build runs on the planned hosts and on no others; in the end on all."""
    plan = await world.start()
    for number, step in enumerate(plan.steps):
        await world.until(at("baking", number))
        tier = step.rule.tier
        assert len(plan.hosts_of(number)) == max(1, math.ceil(step.rule.percent * SIZES[tier] / 100))
        assert sorted(world.fleet.running(tier, "b2")) == sorted(plan.hosts_of(number))
        assert (await order_of(world, tier)).percent == step.rule.percent
    ended = await world.until_ended()
    assert isinstance(ended.rollout.phase, st.Finished)
    for tier, count in SIZES.items():
        assert len(world.fleet.running(tier, "b2")) == count
    # Nobody was told twice: a first order, and one for each step of the tier.
    steps_of = {tier: sum(step.rule.tier == tier for step in plan.steps) for tier in SIZES}
    assert all(len(orders) == 1 + steps_of[tier] for (tier, _), orders in world.fleet.obeyed.items())
    what = await assert_audit_is_whole(world)
    assert (what[0], what[-1], what.count("ordered")) == ("started", "finished", len(plan.steps))


async def test_a_bad_build_is_stopped_at_the_first_tier_and_goes_back_by_itself(world: RolloutWorld) -> None:
    """Two hosts of staging fail its proof: rolled back, locked, denied; no other tier ever hears of it."""
    world.fleet.bad = {"b2"}
    await world.start()
    ended = await world.until_ended()
    assert isinstance(ended.rollout.phase, st.RolledBack)
    assert ended.rollout.reached == ("staging",)
    order = await order_of(world, "staging")
    assert (order.build, order.percent, order.max_unavailable) == (build("b1", "1"), 100.0, None)
    await world.fleet.turn()
    assert world.fleet.running("staging", "b1") == ["staging-00", "staging-01"]
    assert (await order_of(world, "canary")).serial == 1
    guards = await guards_of(world)
    assert guards.lock is not None
    assert [denied.id for denied in guards.denied] == ["b2"]
    await assert_audit_is_whole(world)


async def test_one_host_that_fails_accuses_itself_and_is_not_a_verdict(world: RolloutWorld) -> None:
    """One of three canaries fails the proof: within the budget, but too few to tell, so nothing is promoted."""
    world.fleet.unproved = {"canary-01": "b2"}
    await world.start()
    ongoing = await world.until(at("judging", 1))
    world.time.pass_(3600)
    ongoing = await world.settle()
    assert isinstance(ongoing.rollout.phase, st.Judging)
    assert "canary-01 failed the proof, of 3 hosts" in ongoing.rollout.phase.wanting
    await world.act(ev.SetAsideRequested("canary", "canary-01"))
    await world.act(ev.SetAsideRequested("canary", "canary-01"))  # once more changes nothing
    await world.until(at("baking", 2))


async def test_a_silent_host_is_named_set_aside_and_rejoins(world: RolloutWorld) -> None:
    """Two dead hosts of a step are more than may fail: paused at their deadline; set aside, it goes on without them."""
    plan = await world.start()
    await world.until(at("baking", 3))
    dead = plan.hosts_of(4)[-2:]
    for host in dead:
        await world.fleet.silence("prod", host)
    paused = await world.until(at("paused"))
    assert isinstance(paused.rollout.phase, st.Paused)
    assert paused.rollout.phase.cause == "budget"
    assert all(f"{host}: silent" in paused.rollout.phase.reason for host in dead)
    for host in dead:
        await world.act(ev.SetAsideRequested("prod", host))
    await world.act(ev.ResumeRequested({}))
    await world.until(at("baking", 5))
    for host in dead:
        await world.fleet.wake("prod", host)
    ended = await world.until_ended()
    assert isinstance(ended.rollout.phase, st.Finished)
    assert ended.rollout.set_aside == ()
    assert len(world.fleet.running("prod", "b2")) == SIZES["prod"]


async def test_a_host_that_never_obeys_is_overdue(world: RolloutWorld) -> None:
    """Alive, but deaf: after the deadline it counts."""
    world.fleet.dead = {"canary-00", "canary-01"}
    await world.start()
    paused = await world.until(at("paused"))
    assert isinstance(paused.rollout.phase, st.Paused)
    assert "canary-00: has not obeyed the order yet" in paused.rollout.phase.reason


async def test_pause_and_resume_are_no_ops_where_they_do_not_apply(world: RolloutWorld) -> None:
    await world.start()
    await world.until(at("baking", 0))
    assert (await world.act(ev.ResumeRequested({}))).is_done is False
    assert (await world.act(ev.PauseRequested(), "bob@x")).is_done is True
    index = (await world.now()).index
    assert (await world.act(ev.PauseRequested())).is_done is False
    assert (await world.now()).index == index
    world.time.pass_(36000)
    assert (await world.settle()).index == index
    await world.desk.guarding.take_command(world.origin(), timedelta(hours=2))
    assert (await world.act(ev.ResumeRequested({}))).is_done is True
    assert await world.phase() == ("deploying", 0)
    ended = await world.until_ended()
    for event in (
        ev.PauseRequested(),
        ev.ResumeRequested({}),
        ev.AbortRequested(),
        ev.AdvanceRequested(),
        ev.ApproveRequested(),
    ):
        assert (await world.act(event)).is_done is False
    assert (await world.now()).index == ended.index


async def test_an_approval_is_waited_for_and_may_come_beforehand(approving: RolloutWorld) -> None:
    await approving.start()
    await approving.until(at("approving", 1))
    approving.time.pass_(600)
    assert (await approving.settle()).rollout.phase_name == "approving"
    assert (await approving.act(ev.ApproveRequested())).is_done
    assert await approving.phase() == ("ready", 2)
    await approving.act(ev.RollbackRequested(), reason="once more")
    await approving.desk.guarding.unlock(approving.origin())
    await approving.start("b3")
    await approving.until(at("baking", 1))
    assert (await approving.act(ev.ApproveRequested())).is_done
    assert not (await approving.act(ev.ApproveRequested())).is_done
    await approving.until(at("baking", 2))


async def test_a_stale_decision_is_refused_and_told_what_changed(approving: RolloutWorld) -> None:
    """Two commanders look at one page; the second to press learns what the first did."""
    await approving.start()
    page = await approving.until(at("approving", 1))
    await approving.act(ev.AdvanceRequested(), index=page.index, reason="looks fine")
    with pytest.raises(Refused, match=r"passed over by anna@desk: looks fine") as caught:
        await approving.act(ev.AdvanceRequested(), index=page.index)
    assert caught.value.kind == "stale"
    assert await approving.phase() == ("ready", 2)


async def test_a_rollback_from_a_stale_page_is_done_if_it_is_the_same_rollout(world: RolloutWorld) -> None:
    await world.start()
    page = await world.until(at("baking", 1))
    await world.until(at("baking", 3))
    acted = await world.act(ev.RollbackRequested(), "bob@laptop", index=page.index, reason="errors")
    assert acted.is_done
    assert set(acted.written.orders) == {"staging", "canary", "prod"}
    await world.desk.guarding.unlock(world.origin())
    await world.start("b3")
    with pytest.raises(Refused, match="changed since") as caught:
        await world.act(ev.RollbackRequested(), index=page.index, reason="errors")
    assert caught.value.kind == "stale"
    assert (await world.now()).rollout.phase_name == "ready"


async def test_a_rollback_needs_no_engine_and_every_host_goes_back(world: RolloutWorld) -> None:
    """Also for a rollout that was finished; the second one does nothing; the build stays denied."""
    await world.start()
    await world.until_ended()
    del world.engine
    assert (await world.act(ev.RollbackRequested(), "bob@laptop", reason="errors")).is_done
    await world.fleet.turn()
    for tier, count in SIZES.items():
        assert len(world.fleet.running(tier, "b1")) == count
    assert not (await world.act(ev.RollbackRequested(), reason="errors")).is_done
    with pytest.raises(Refused, match="b2 is denied by bob@laptop") as caught:
        await world.start("b2")
    assert caught.value.kind == "build_denied"
    with pytest.raises(Refused, match="locked by bob@laptop"):
        await world.start("b3")
    await world.desk.guarding.unlock(world.origin())
    with pytest.raises(Refused, match="b2 is denied"):
        await world.start("b2")
    assert await world.desk.guarding.allow("b2", world.origin())
    await world.start("b2")
    await assert_audit_is_whole(world)


async def test_only_one_rollout_is_under_way(world: RolloutWorld) -> None:
    await world.start()
    with pytest.raises(Refused, match="rollout 1 of b2 is under way"):
        await world.start("b3")
    await world.act(ev.AbortRequested(), reason="postponed")
    await world.start("b3")
    assert (await world.now()).rollout.number == 2


async def test_a_plan_runs_as_it_was_shown_or_not_at_all(world: RolloutWorld) -> None:
    plan = await world.desk.plan(world.settings.pipeline, build("b2", "2"), by="anna@desk", reason="x")
    assert await world.desk.ledger.latest() is None
    other = Order(v=1, app="shop", tier="prod", serial=2, build=build("b7", "7"))
    await world.store.put(tier_key("shop", "prod"), encode(other))
    with pytest.raises(Refused, match="orders of prod changed") as caught:
        await world.desk.start(plan, world.origin())
    assert caught.value.kind == "plan_stale"
    fresh = await world.desk.plan(world.settings.pipeline, build("b2", "2"), by="anna@desk", reason="x")
    await world.desk.start(fresh, world.origin())
    assert (await world.now()).plan == fresh


async def test_an_order_by_somebody_else_pauses_and_is_replaced_after_resuming(world: RolloutWorld) -> None:
    await world.start()
    await world.until(at("baking", 2))
    current = await order_of(world, "prod")
    other = Order(v=1, app="shop", tier="prod", serial=current.serial + 1, build=build("b7", "7"), by="mallory")
    await world.store.put(tier_key("shop", "prod"), encode(other))
    paused = await world.until(at("paused"))
    assert isinstance(paused.rollout.phase, st.Paused)
    assert "mallory ordered b7 (order 3) in prod" in paused.rollout.phase.reason
    assert await order_of(world, "prod") == other
    await world.act(ev.ResumeRequested({}))
    await world.until(at("baking", 2))
    again = await order_of(world, "prod")
    assert (again.build, again.previous, again.serial, again.percent) == (build("b2", "2"), build("b1", "1"), 4, 10.0)
    await world.until_ended()
    assert len(world.fleet.running("prod", "b2")) == SIZES["prod"]


async def test_a_store_restored_from_an_old_snapshot_pauses_and_goes_on_above_it(world: RolloutWorld) -> None:
    """All of Consul goes back to an earlier step; hosts do not. Nobody is sent back, nothing is promoted unasked."""
    await world.start()
    await world.until(at("baking", 2))
    snapshot = await world.store.read_prefix("hotcold/shop/")
    await world.until(at("baking", 4))
    ran = sorted(world.fleet.running("prod", "b2"))
    hosts = {(tier, host): await world.store.read(host_key("shop", tier, host)) for tier, host in world.fleet.hosts}
    for entry in await world.store.read_prefix("hotcold/shop/"):
        await world.store.delete(entry.key)
    for entry in snapshot:
        await world.store.put(entry.key, entry.value)
    await world.fleet.turn()
    assert sorted(world.fleet.running("prod", "b2")) == ran
    # An agent writes its report anew when it refuses the old order; the others write at their next transition.
    assert all(entry is not None for entry in hosts.values())
    paused = await world.until(at("paused"))
    assert isinstance(paused.rollout.phase, st.Paused)
    assert paused.rollout.phase.cause == "store_went_back"
    assert "was Consul restored?" in paused.rollout.phase.reason
    await world.act(ev.ResumeRequested({}))
    ended = await world.until_ended()
    assert isinstance(ended.rollout.phase, st.Finished)
    assert len(world.fleet.running("prod", "b2")) == SIZES["prod"]
    serials = [order.serial for order in world.fleet.obeyed["prod", "prod-00"]]
    assert serials == sorted(set(serials))


async def test_a_lapsed_lease_holds_the_train(world: RolloutWorld) -> None:
    """The lease of the one who started it ends after two hours without a deed; taking it lets the rollout go on."""
    await world.start()
    await world.until(at("baking", 2))
    world.time.pass_(3 * 3600)
    ongoing = await world.settle()
    assert isinstance(ongoing.rollout.phase, st.Ready)
    assert [hold.kind for hold in ongoing.rollout.phase.holds] == ["commander"]
    assert "the lease of anna@desk lapsed" in ongoing.rollout.phase.holds[0].message
    lease = await world.desk.guarding.take_command(world.origin("bob@laptop"), timedelta(hours=2))
    assert lease.holder == "bob@laptop"
    assert (await world.settle()).rollout.phase_name == "baking"


async def test_only_the_commander_steers_and_everybody_may_stop(world: RolloutWorld) -> None:
    await world.start()
    await world.until(at("baking", 0))
    for event in (ev.AdvanceRequested(), ev.ApproveRequested(), ev.OverrideRequested(timedelta(minutes=1))):
        with pytest.raises(Refused, match="anna@desk is the commander until") as caught:
            await world.act(event, "bob@laptop")
        assert caught.value.kind == "not_the_commander"
    assert (await world.act(ev.PauseRequested(), "bob@laptop")).is_done
    with pytest.raises(Refused):
        await world.act(ev.ResumeRequested({}), "bob@laptop")
    await world.desk.guarding.hand_over("bob", world.origin(reason="lunch"), timedelta(hours=1))
    assert (await world.act(ev.ResumeRequested({}), "bob@laptop")).is_done
    assert (await world.act(ev.RollbackRequested(), "carol@phone", reason="errors")).is_done


async def test_a_lock_holds_the_next_step_and_an_override_pierces_it(world: RolloutWorld) -> None:
    await world.start()
    await world.until(at("baking", 1))
    await world.desk.guarding.lock(world.origin("bob@laptop", "the database is being moved"))
    held = await world.until(at("ready", 2))
    world.time.pass_(60)
    held = await world.settle()
    assert isinstance(held.rollout.phase, st.Ready)
    assert [hold.kind for hold in held.rollout.phase.holds] == ["lock"]
    await world.act(ev.OverrideRequested(timedelta(minutes=10)), reason="agreed with bob")
    assert (await world.settle()).rollout.phase_name == "baking"
    assert (await order_of(world, "prod")).max_unavailable is None
    world.time.pass_(700)  # the override has expired
    held = await world.settle()
    assert await world.phase() == ("ready", 3)
    assert await world.desk.guarding.unlock(world.origin())
    assert (await world.settle()).rollout.phase_name == "baking"


async def test_a_clock_that_jumps_pauses_and_cuts_no_bake_short(world: RolloutWorld) -> None:
    await world.start()
    await world.until(at("baking", 0))
    world.time.wall += timedelta(hours=5)
    paused = await world.settle()
    assert isinstance(paused.rollout.phase, st.Paused)
    assert paused.rollout.phase.cause == "clock_jumped"
    assert "jumped by +18000 s" in paused.rollout.phase.reason
    await world.desk.guarding.take_command(world.origin(), timedelta(hours=2))
    await world.act(ev.ResumeRequested({}))
    assert (await world.settle()).rollout.phase_name == "baking"
    world.time.wall -= timedelta(hours=5)
    assert (await world.settle()).rollout.phase_name == "paused"


class Scripted:
    """A judge that says what it is told, and counts in its evidence how often it was asked."""

    def __init__(self) -> None:
        self.says = Ruling("pass", "41 errors, as many as elsewhere")
        self.seen: list[bytes] = []

    async def ask(self, question: Question) -> Answer:
        self.seen.append(question.evidence)
        return Answer(self.says, b"%d" % (int(question.evidence or b"0") + 1))


@pytest.mark.parametrize(("outcome", "phase"), [("pause", "paused"), ("roll_back", "rolled_back"), ("none", "judging")])
async def test_verdicts_stop_and_none_never_promotes(store: ConsulStore, outcome: Any, phase: str) -> None:
    """The reason is kept in words; evidence lies in Consul, so that another leader goes on counting."""
    judge = Scripted()
    world = RolloutWorld(store, Fleet(store), judges={"errors": judge})
    await world.order_everywhere()
    await world.start()
    await world.until(at("baking", 2))
    judge.says = Ruling(outcome, "17 times as many errors")
    world.engine = world.new_engine(store)
    count = len(judge.seen)
    ongoing: Ongoing = await world.until(at(phase))
    assert int(judge.seen[count]) >= int(judge.seen[count - 1])
    if outcome != "none":
        assert "errors: 17 times as many errors" in ongoing.rollout.phase.reason  # type: ignore[union-attr]
    else:
        world.time.pass_(3600)
        assert (await world.settle()).rollout.phase_name == "judging"
        assert len(world.fleet.running("prod", "b2")) == 2
    await clean(world)


async def test_evidence_against_the_build_rolls_back_also_while_paused(store: ConsulStore) -> None:
    judge = Scripted()
    world = RolloutWorld(store, Fleet(store), judges={"errors": judge})
    await world.order_everywhere()
    await world.start()
    await world.until(at("baking", 2))
    await world.act(ev.PauseRequested())
    judge.says = Ruling("roll_back", "17 times as many errors")
    ended = await world.settle()
    assert isinstance(ended.rollout.phase, st.RolledBack)
    await clean(world)


async def test_zones_spread_the_steps(store: ConsulStore) -> None:
    """Of many salts the one is taken whose steps are nearest to each zone's share."""
    fleet = Fleet(store)
    fleet.zones = {host: f"zone-{number % 4}" for number, (_, host) in enumerate(names())}
    world = RolloutWorld(store, fleet)
    await world.order_everywhere()
    plan = await world.start()
    prod = plan.tier("prod")
    assert len(prod.zones) == len(prod.hosts)
    for count in (10, 15):
        shares = [prod.zones[:count].count(f"zone-{number}") for number in range(4)]
        assert max(shares) - min(shares) <= 2
    await clean(world)


async def test_an_order_that_must_not_be_written_pauses_with_the_reason(world: RolloutWorld) -> None:
    """The id of the build is used in a later tier for another artifact, by an order that was written after the plan."""
    await world.start()
    await world.until(at("baking", 1))
    reused = Order(v=1, app="shop", tier="prod", serial=1, build=build("b2", "9"))
    await world.store.put(tier_key("shop", "prod"), encode(reused))
    paused = await world.until(at("paused"))
    assert isinstance(paused.rollout.phase, st.Paused)
    assert paused.rollout.phase.cause == "cannot_go_on"
    assert "b2 is in use in shop/prod for another artifact" in paused.rollout.phase.reason
    assert await order_of(world, "prod") == reused


@pytest.mark.consul
async def test_by_hand_with_consul_and_jq(consul_dev: ConsulDev) -> None:
    """What docs/rollouts.md says for the day when hotcold is gone: the tier goes back, the rollout pauses."""
    if shutil.which("jq") is None:
        pytest.skip("no jq")
    [block] = re.findall(r"<!-- by hand -->\n```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    async with ConsulStore(consul_settings({}, {"address": consul_dev.address})) as store:
        world = RolloutWorld(store, Fleet(store))
        await world.order_everywhere()
        await world.start()
        await world.until(at("baking", 3))
        assert len(world.fleet.running("prod", "b2")) == 5
        binary = find_consul()
        assert binary is not None
        path = f"{binary.parent}:{os.environ['PATH']}"
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euc", block),
            env={"PATH": path, "CONSUL_HTTP_ADDR": consul_dev.address},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, out.decode()
        await world.fleet.turn()
        assert world.fleet.running("prod", "b2") == []
        paused = await world.until(at("paused"))
        assert isinstance(paused.rollout.phase, st.Paused)
        assert paused.rollout.phase.cause == "order_replaced"
        assert (await world.act(ev.RollbackRequested(), reason="as was done by hand")).is_done
        await clean(world)


class Meddled:
    """A real store where somebody else acts just before the next transaction, or which answers nothing."""

    def __init__(self, store: ConsulStore) -> None:
        self._store = store
        self.before: Callable[[], Awaitable[object]] | None = None
        self.is_gone = False

    def __getattr__(self, name: str) -> Any:
        if self.is_gone:
            return self._nothing
        return getattr(self._store, name)

    async def _nothing(self, *_: object, **__: object) -> None:
        raise StoreUnreachable("no answer")

    async def transact(self, operations: Sequence[Operation]) -> bool:
        if self.is_gone:
            raise StoreUnreachable("no answer")
        if self.before is not None:
            deed, self.before = self.before, None
            await deed()
        return await self._store.transact(operations)


async def test_two_who_press_at_once_advance_one_step(world: RolloutWorld) -> None:
    """Both see the same step, without an index; the second write is refused, and told of the first."""
    await world.start()
    await world.until(at("baking", 2))
    meddled = Meddled(world.store)  # type: ignore[arg-type]
    desk = world.new_desk(meddled)  # type: ignore[arg-type]
    meddled.before = lambda: world.act(ev.AdvanceRequested(), reason="looks fine")
    with pytest.raises(Refused, match="passed over by anna@desk: looks fine") as caught:
        await desk.act(ev.AdvanceRequested(), world.origin(reason="me too"))
    assert caught.value.kind == "stale"
    assert await world.phase() == ("ready", 3)
    what = await assert_audit_is_whole(world)
    assert what.count("done") == 3


async def test_a_rollback_wins_over_a_step_that_is_taken_at_that_moment(world: RolloutWorld) -> None:
    """The step is written first, the rollback finds it, and takes that back, too."""
    await world.start()
    await world.until(at("baking", 1))
    await world.act(ev.AdvanceRequested())
    meddled = Meddled(world.store)  # type: ignore[arg-type]
    desk = world.new_desk(meddled)  # type: ignore[arg-type]
    meddled.before = world.engine.step
    await world.engine.look()
    acted = await desk.act(ev.RollbackRequested(), world.origin("bob@laptop", "errors"))
    assert set(acted.written.orders) == {"staging", "canary", "prod"}
    assert (await order_of(world, "prod")).build == build("b1", "1")
    await world.fleet.turn()
    assert [host for tier in SIZES for host in world.fleet.running(tier, "b2")] == []
    assert (await assert_audit_is_whole(world))[-2:] == ["ordered", "rolled_back"]


async def test_a_step_that_loses_against_a_rollback_writes_nothing(world: RolloutWorld) -> None:
    """The other way round: the engine finds its state changed, and the next look shows the rollback."""
    await world.start()
    await world.until(at("baking", 1))
    await world.act(ev.AdvanceRequested())
    meddled = Meddled(world.store)  # type: ignore[arg-type]
    engine = world.new_engine(meddled)  # type: ignore[arg-type]
    await engine.look()
    meddled.before = lambda: world.act(ev.RollbackRequested(), "bob@laptop", reason="errors")
    assert await engine.step()
    assert not await engine.step()
    assert (await order_of(world, "prod")).serial == 1
    assert await world.phase() == ("rolled_back", 2)


async def test_an_engine_that_is_cut_off_goes_on_from_what_it_finds(world: RolloutWorld) -> None:
    """While it hears nothing, hosts take the step and one fails; nothing is promoted; then it counts what is there."""
    await world.start()
    await world.until(at("baking", 1))
    world.time.pass_(60)
    meddled = Meddled(world.store)  # type: ignore[arg-type]
    engine = world.new_engine(meddled)  # type: ignore[arg-type]
    await engine.look()
    while await world.phase() != ("deploying", 2):
        assert await engine.step()
    meddled.is_gone = True
    await world.fleet.turn()  # the hosts are not cut off
    index = (await world.now()).index
    with pytest.raises(StoreUnreachable):
        async with asyncio.timeout(60):
            await engine.look()
    world.time.pass_(7000)
    assert (await world.now()).index == index
    meddled.is_gone = False
    ongoing = await world.settle(engine)
    assert (ongoing.rollout.phase_name, ongoing.rollout.phase.step) == ("baking", 2)
    assert len(world.fleet.running("prod", "b2")) == 2


@pytest.mark.parametrize("count", [10, 100])
async def test_shares_are_exact_and_writes_follow_the_hosts(store: ConsulStore, count: int) -> None:
    """Each host writes once for each order of its tier; Checkpoint writes as much for a hundred hosts as for ten."""
    hosts = [
        ("staging", "staging-0"),
        ("canary", "canary-0"),
        *(("prod", f"web-{number:03}") for number in range(count)),
    ]
    world = RolloutWorld(store, Fleet(store, hosts))
    await world.order_everywhere()
    before = world.fleet.report_count
    assert before == len(hosts)
    plan = await world.start()
    for number, step in enumerate(plan.steps):
        await world.until(at("baking", number))
        running = world.fleet.running(step.rule.tier, "b2")
        assert len(running) == math.ceil(step.rule.percent * (count if step.rule.tier == "prod" else 1) / 100)
        assert sorted(running) == sorted(plan.hosts_of(number))
    await world.until_ended()
    assert world.fleet.report_count - before == 2 + 5 * count
    assert len(await assert_audit_is_whole(world)) == 29
    await clean(world)


async def test_a_tier_without_a_build_before_is_left_and_named(store: ConsulStore) -> None:
    """Nothing was ever ordered in staging before: there is nothing to go back to, which is in the audit, too."""
    world = RolloutWorld(store, Fleet(store))
    await world.fleet.start()
    world.fleet.bad = {"b2"}
    await world.start()
    await world.until_ended()
    entries = await world.store.read_prefix(audit_prefix("shop"))
    last = read_record(entries[-1].value)
    assert last.what == "rolled_back"
    assert "staging is left as it is: nothing to go back to: order" in last.message
    assert (await guards_of(world)).lock is not None
    await clean(world)


async def test_another_rollout_under_a_number_that_was_seen_is_not_taken_for_it(world: RolloutWorld) -> None:
    """Consul went back to before the rollout, and another one was started: a leader that lived on reads its plan."""
    snapshot = await world.store.read_prefix("hotcold/shop/")
    await world.start()
    await world.until(at("baking", 0))
    for entry in await world.store.read_prefix("hotcold/shop/"):
        await world.store.delete(entry.key)
    for entry in snapshot:
        await world.store.put(entry.key, entry.value)
    world.desk = world.new_desk(world.store)
    world.desk._new_salt = lambda: "another"
    await world.start("b3")
    await world.until(at("paused"))  # hosts of staging obeyed what is gone
    await world.act(ev.ResumeRequested({}))
    await world.until_ended()
    assert len(world.fleet.running("prod", "b3")) == SIZES["prod"]
    assert world.fleet.running("prod", "b2") == []
