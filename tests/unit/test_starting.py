"""Before a start: each line of the checklist, that what blocks is refused, confirmations, and the hotfix path."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from artifact import ConfigError, Refused
from checkpoint.audit import read_record
from checkpoint.guards import Denied, Guards, Lease, Lock
from checkpoint.overview import Overview, overview
from checkpoint.pipeline import Confirmation, Settings, default_settings, parse_settings
from checkpoint.reading import HostKey, TierKey
from checkpoint.release import record
from checkpoint.rollout import events as ev
from checkpoint.rollout.plan import Plan
from checkpoint.rollout.states import Finished, Ready, Rollout, SetAside
from checkpoint.starting import (
    Line,
    Situation,
    asked_of,
    check_confirmed,
    check_reachable,
    checklist,
    commands_of,
    first_tier_of,
    prospect,
    skipped,
)
from fleet import Build, ConsulStore, Order, Problem, ServiceHealth, consul_settings
from fleet.devserver import DevServer
from fleet.keys import audit_prefix, leader_prefix, service_id
from tests.commander_world import build
from tests.rollout_world import MONDAY, PIPELINE, SIZES, Fleet, RolloutWorld, a_plan, a_report, names, no_pause

FULL = f"""{PIPELINE}
[[metrics]]
name = "errors"
source = {{ prometheus = "http://127.0.0.1:1", query = "x" }}
[[webhooks]]
name = "chat"
url = "https://hooks.example.com/x"
"""


def silent_config() -> Settings:
    """A configuration of which the checklist says nothing."""
    plain = parse_settings(PIPELINE)
    return msgspec.structs.replace(
        plain,
        pipeline=msgspec.structs.replace(plain.pipeline, metrics=(msgspec.UNSET,)),  # type: ignore[arg-type]
        webhooks=(msgspec.UNSET,),  # type: ignore[arg-type]
    )


SETTINGS = silent_config()
PLAN = a_plan()


def a_view(*, silent: int = 0, tiers: tuple[str, ...] = ("staging", "canary", "prod"), **states: str) -> Overview:
    """Hosts that run `b1`; the first `silent` of prod's plan are silent; `states` are of hosts, with `_` for `-`."""
    ordered = Order(v=1, app="shop", tier="", serial=1, build=build("b1", "1"))
    tier_keys = [TierKey(tier, msgspec.structs.replace(ordered, tier=tier), claimed_serial=1) for tier in tiers]
    hosts, health = [], []
    gone = set(PLAN.tier("prod").hosts[:silent])
    for tier, host in names(SIZES):
        if tier not in tiers:
            continue
        state = states.get(host.replace("-", "_"), "steady")
        problem = Problem(kind="proof_failed", message="answered 500") if state == "rolled_back" else None
        hosts.append(HostKey(tier, host, a_report(tier, host, serial=1, hot="b1", state=state, problem=problem)))
        status = "critical" if host in gone else "passing"
        health.append(ServiceHealth(service_id("shop", tier, host), "n", status, "", {}))
    return overview("shop", tier_keys, hosts, health)


def a_rollout(**facts: object) -> Rollout:
    done = Rollout(v=1, number=7, app="shop", build_id="b0", salt="s", phase=Finished(step=0, since=MONDAY), serials={})
    return msgspec.structs.replace(done, **facts)


CALM = Situation(
    at=MONDAY, person="anna@desk", view=a_view(), guards=Guards(), lease=None, engine="checkpoint@a", latest=a_rollout()
)
READY = Ready(step=0, since=MONDAY)
LOCK = Lock(by="bob", reason="the sale", at=MONDAY)
DENIED = Denied(id="b2", digest="sha256:" + "2" * 64, by="bob", reason="errors", at=MONDAY)
LEASE = Lease(holder="bob@desk", since=MONDAY, until=MONDAY + timedelta(hours=1))
HOTFIX = Build(
    v=1,
    app="shop",
    build=build("b2", "2"),
    manifest="https://builds.example.com/b2.json",
    revision="1" * 40,
    branch="release/b0",
    tag="b2",
    by="anna",
    at="2026-11-24T12:00:00+00:00",
    hotfix_of="b0",
)
CLOSED = f"{PIPELINE}\n[[windows]]\nname = 'night'\nzone = 'UTC'\nopens = 22:00:00\ncloses = 23:00:00\n"
FROZEN = f"{PIPELINE}\n[[freezes]]\nreason = 'the sale'\nbegins = 2026-11-20T00:00:00Z\nends = 2026-11-30T00:00:00Z\n"
FOREVER = f"{CLOSED}{FROZEN.removeprefix(PIPELINE)}".replace("2026-11-30", "2027-11-30")


def planned(text: str) -> Settings:
    """The calendar of a text, with what else is silent."""
    calendar = parse_settings(text).pipeline.calendar
    return msgspec.structs.replace(SETTINGS, pipeline=msgspec.structs.replace(SETTINGS.pipeline, calendar=calendar))


def told(lines: tuple[Line, ...]) -> dict[str, str]:
    assert all(line.what and line.remedy for line in lines)
    return {line.kind: line.weight for line in lines}


def test_a_calm_situation_has_nothing_in_the_way() -> None:
    assert checklist(CALM, SETTINGS) == ()
    assert checklist(CALM, SETTINGS, plan=PLAN) == ()


@pytest.mark.parametrize("plan", [None, PLAN])
@pytest.mark.parametrize(
    ("situation", "settings", "kind", "weight", "said"),
    [
        (replace(CALM, cut_off_since=MONDAY), SETTINGS, "store_unreachable", "blocks", "does not answer since"),
        (
            replace(CALM, latest=a_rollout(phase=Ready(step=0, since=MONDAY))),
            SETTINGS,
            "rollout_under_way",
            "blocks",
            "7",
        ),
        (replace(CALM, guards=Guards(lock=LOCK)), SETTINGS, "locked", "blocks", "locked by bob"),
        (replace(CALM, lease=LEASE), SETTINGS, "not_the_commander", "blocks", "bob@desk has the command"),
        (replace(CALM, view=a_view(tiers=("staging", "prod"))), SETTINGS, "no_hosts", "blocks", "canary"),
        (replace(CALM, engine=None), SETTINGS, "no_engine", "waits", "no step is taken"),
        (replace(CALM, latest=None), SETTINGS, "first_rollout", "warns", "first rollout of shop"),
        (CALM, msgspec.structs.replace(SETTINGS, webhooks=()), "no_webhooks", "warns", "notifications"),
        (CALM, parse_settings(PIPELINE), "no_metrics", "warns", "metrics"),
        (replace(CALM, view=a_view(silent=1)), SETTINGS, "silent", "warns", "is silent"),
        (replace(CALM, view=a_view(prod_03="rolled_back")), SETTINGS, "drift", "warns", "prod/prod-03 is not as"),
        (replace(CALM, view=a_view(prod_03="held")), SETTINGS, "held", "warns", "prod/prod-03 is held"),
        (
            replace(
                CALM,
                latest=a_rollout(
                    set_aside=(SetAside(tier="prod", host="prod-01", by="bob", reason="disk", at=MONDAY),)
                ),
            ),
            SETTINGS,
            "set_aside",
            "warns",
            "prod/prod-01",
        ),
        (CALM, planned(FROZEN), "freeze", "waits", "the sale"),
        (CALM, planned(CLOSED), "window", "waits", "22:00"),
    ],
)
def test_each_line_says_how_it_is_and_what_to_do(  # noqa: PLR0917 - a row of the table
    situation: Situation, settings: Settings, kind: str, weight: str, said: str, plan: Plan | None
) -> None:
    """Before a build is chosen, and with its plan."""
    made = plan if plan is None else msgspec.structs.replace(plan, pipeline=settings.pipeline)
    lines = checklist(situation, settings, plan=made)
    found = next(line for line in lines if line.kind == kind)
    assert (found.weight, said in found.what) == (weight, True), found
    weights = [line.weight for line in lines]
    assert weights == sorted(weights, key=("blocks", "waits", "warns").index)


def test_lines_about_a_build() -> None:
    """Denied, unreachable, unsigned, running already, mending another, without a way back, never in a window."""
    denied = checklist(replace(CALM, guards=Guards(denied=(DENIED,))), SETTINGS, plan=PLAN)
    assert told(denied) == {"build_denied": "blocks"}
    assert "denied by bob" in denied[0].what
    assert told(checklist(CALM, SETTINGS, plan=PLAN, manifest_fault="404")) == {"manifest_unreachable": "blocks"}
    assert told(checklist(CALM, SETTINGS, plan=PLAN, release=HOTFIX)) == {"mends_another": "warns"}
    mends = msgspec.structs.replace(HOTFIX, hotfix_of="b1")
    assert checklist(CALM, SETTINGS, plan=PLAN, release=mends) == ()
    again = msgspec.structs.replace(PLAN, build=build("b1", "1"))
    assert told(checklist(CALM, SETTINGS, plan=again)) == {"runs_already": "warns"}
    new = msgspec.structs.replace(
        PLAN, tiers=tuple(msgspec.structs.replace(each, previous=None) for each in PLAN.tiers)
    )
    assert told(checklist(CALM, SETTINGS, plan=new)) == {"no_way_back": "warns"}
    signed = msgspec.structs.replace(build("b1", "1"), signature="RW...")
    order = Order(v=1, app="shop", tier="canary", serial=1, build=signed)
    others = tuple(tier for tier in CALM.view.tiers if tier.key.tier != "canary")
    canary = next(tier for tier in CALM.view.tiers if tier.key.tier == "canary")
    tiers = (*others, replace(canary, key=replace(canary.key, order=order)))
    lines = checklist(replace(CALM, view=replace(CALM.view, tiers=tiers)), SETTINGS, plan=PLAN)
    assert told(lines) == {"not_signed": "warns"}
    never = msgspec.structs.replace(PLAN, pipeline=planned(FOREVER).pipeline)
    assert told(checklist(CALM, SETTINGS, plan=never)) == {"freeze": "waits", "no_window": "waits"}


def test_silent_hosts_hold_a_step_only_beyond_its_budget() -> None:
    """Of 20 hosts of prod the step to 10 % reaches 2, and 1 of them may be missing."""
    assert told(checklist(replace(CALM, view=a_view(silent=1)), SETTINGS, plan=PLAN)) == {"silent": "warns"}
    [line] = checklist(replace(CALM, view=a_view(silent=2)), SETTINGS, plan=PLAN)
    assert (line.kind, line.weight) == ("silent", "waits")
    assert "prod to 10 % reaches 2 hosts, 2 of them silent, and 1 may be missing" in line.what
    assert told(checklist(replace(CALM, view=a_view(silent=20)), SETTINGS)) == {"silent": "waits"}


def test_who_commands_is_said() -> None:
    assert "By starting you take the command" in commands_of(CALM, SETTINGS)
    assert "bob@desk has the command until" in commands_of(replace(CALM, lease=LEASE), SETTINGS)
    assert "you keep the command" in commands_of(replace(CALM, lease=LEASE, person="bob@phone"), SETTINGS)
    lapsed = msgspec.structs.replace(LEASE, until=MONDAY)
    assert "you take the command" in commands_of(replace(CALM, lease=lapsed), SETTINGS)
    free = parse_settings(f"{PIPELINE}\n[commander]\nrequired = false\n")
    assert "asks for no commander" in commands_of(replace(CALM, lease=LEASE), free)
    assert "not_the_commander" not in told(checklist(replace(CALM, lease=LEASE), free))


# --- confirmations and the path ---------------------------------------------------------------------------------------

ASKED = (
    Confirmation(name="support", text="Support knows"),
    Confirmation(name="dogfood", text="Nobody demos", tiers=("dogfood",)),
    Confirmation(name="data", text="Both builds bear the database", tiers=("prod", "dogfood")),
)


def test_all_that_is_asked_must_be_confirmed() -> None:
    assert [each.name for each in asked_of(PLAN, ASKED)] == ["support", "data"]
    assert check_confirmed(PLAN, ASKED, ["data", "support"]) == ("Support knows", "Both builds bear the database")
    assert check_confirmed(PLAN, (), []) == ()
    assert check_confirmed(PLAN, ASKED, ["data", "support", "dogfood"])[-1] == "Both builds bear the database"
    with pytest.raises(Refused, match=r"(?s)not confirmed.*data: Both builds") as caught:
        check_confirmed(PLAN, ASKED, ["support"])
    assert caught.value.kind == "not_confirmed"
    with pytest.raises(Refused, match="no confirmation 'suport': support, data"):
        check_confirmed(PLAN, ASKED, ["suport"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[checklist]]\nname = 'a b'\ntext = 'x'", "confirmation 'a b'"),
        ("[[checklist]]\nname = 'a'\ntext = ' '", 'checklist "a": text must be one line'),
        ("[[checklist]]\nname = 'a'\ntext = \"x\\ny\"", 'checklist "a": text must be one line'),
        ("[[checklist]]\nname = 'a'\ntext = 'x'\ntiers = ['prd']", 'checklist "a": no tier prd'),
        ("[[checklist]]\nname = 'a'\ntext = 'x'\n[[checklist]]\nname = 'a'\ntext = 'y'", "stands there twice"),
    ],
)
def test_a_wrong_checklist_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_settings(f"{PIPELINE}\n{text}\n")
    with pytest.raises(ConfigError, match='hotfix_from = "prd": no such tier'):
        parse_settings(f'hotfix_from = "prd"\n{PIPELINE}')


def test_a_hotfix_begins_where_the_pipeline_lets_it() -> None:
    """The default pipeline: at canary; another one says so itself."""
    assert default_settings("shop").hotfix_from == "canary"
    assert parse_settings('app = "shop"').hotfix_from == "canary"
    assert parse_settings(PIPELINE).hotfix_from is None
    assert first_tier_of(HOTFIX, "canary") == "canary"
    assert first_tier_of(HOTFIX, None) is None
    assert first_tier_of(msgspec.structs.replace(HOTFIX, hotfix_of=None), "canary") is None
    assert first_tier_of(None, "canary") is None


def test_what_is_passed_by_is_named_with_what_it_would_have_shown() -> None:
    whole = default_settings("shop").pipeline
    short = msgspec.structs.replace(PLAN, tiers=PLAN.tiers[1:])
    assert [each.said for each in skipped(whole, short)] == [
        "staging: no smoke test (/etc/hotcold/smoke-test), no verdict, no 1 min of baking, no approval",
        "dogfood: no verdict, no 10 min of baking",
    ]
    assert skipped(SETTINGS.pipeline, PLAN) == ()


# --- read from a store, and refused -----------------------------------------------------------------------------------


@pytest.fixture
async def world() -> AsyncIterator[RolloutWorld]:
    async with DevServer() as server, ConsulStore(consul_settings({}, {"address": server.address})) as store:
        made = RolloutWorld(store, Fleet(store, names({"staging": 1, "canary": 1, "prod": 4})))
        await made.order_everywhere()
        yield made


async def _under_way(world: RolloutWorld) -> None:
    await world.start("b3")


async def _locked(world: RolloutWorld) -> None:
    await world.desk.guarding.lock(world.origin("bob@desk"))


async def _denied(world: RolloutWorld) -> None:
    await world.desk.guarding.deny(build("b2", "2"), world.origin("bob@desk"))


async def _commanded(world: RolloutWorld) -> None:
    await world.desk.guarding.take_command(world.origin("bob@desk"), timedelta(hours=1))


@pytest.mark.parametrize(
    ("deed", "kind"),
    [
        (_under_way, "rollout_under_way"),
        (_locked, "locked"),
        (_denied, "build_denied"),
        (_commanded, "not_the_commander"),
    ],
)
async def test_what_is_said_to_block_is_refused(
    world: RolloutWorld, deed: Callable[[RolloutWorld], Awaitable[None]], kind: str
) -> None:
    """The list and the desk agree; and so they do where an override pierces it."""
    plan = await world.desk.plan(world.settings.pipeline, build("b2", "2"), by="anna@desk", reason="x")
    found = await prospect(world.desk, world.settings, plan, person="anna@desk", now=world.time.wall)
    assert found.blocking == ()
    await deed(world)
    found = await prospect(world.desk, world.settings, plan, person="anna@desk", now=world.time.wall)
    assert [line.kind for line in found.blocking] == [kind]
    with pytest.raises(Refused) as caught:
        await world.desk.start(plan, world.origin())
    assert caught.value.kind == kind
    if found.blocking[0].is_pierced:
        await world.desk.start(plan, world.origin(), timedelta(minutes=5))
        return
    with pytest.raises(Refused) as caught:
        await world.desk.start(plan, world.origin(), timedelta(minutes=5))
    assert caught.value.kind == kind


async def test_everything_is_read_and_what_is_confirmed_is_in_the_audit(world: RolloutWorld) -> None:
    """Records, commits, an engine that leads; the first record of the rollout tells what was confirmed and left out."""
    await world.store.acquire_slot(leader_prefix("shop"), 1, holder="checkpoint@deploy-1", ttl_s=600.0)
    base = msgspec.structs.replace(HOTFIX, build=build("b1", "1"), hotfix_of=None, notes="what runs")
    fix = msgspec.structs.replace(HOTFIX, hotfix_of="b1", since="b1", manifest="/srv/artifacts/b2.json")
    for each in (base, fix):
        await record(world.store, each, world.desk.insistence, by="anna", at=MONDAY, pause=no_pause)
    settings = msgspec.structs.replace(world.settings, checklist=ASKED)
    plan = await world.desk.plan(settings.pipeline, build("b2", "2"), by="anna@desk", reason="x", first_tier="canary")
    found = await prospect(world.desk, settings, plan, person="anna@desk", now=world.time.wall)
    assert found.release == fix
    assert (found.commits.base, found.base_tier, found.commits.gaps) == ("b1", "prod", ())
    assert [each.tier for each in found.skipped] == ["staging"]
    assert [each.name for each in found.confirmations] == ["support", "data"]
    assert told(found.lines) == {"first_rollout": "warns", "no_metrics": "warns", "no_webhooks": "warns"}
    texts = check_confirmed(plan, settings.checklist, ["support", "data"])
    await world.desk.start(plan, world.origin(), None, texts)
    last = read_record((await world.store.read_prefix(audit_prefix("shop")))[-1].value)
    assert last.message == (
        "rollout 1 of b2 starts: canary -> prod, without staging; "
        "confirmed: Support knows; Both builds bear the database"
    )


async def test_a_manifest_that_cannot_be_had_is_refused_but_for_an_override(world: RolloutWorld) -> None:
    """A recorded build whose store is gone; nobody listens at that address."""
    lost = msgspec.structs.replace(HOTFIX, manifest="http://127.0.0.1:1/b2.json")
    await record(world.store, lost, world.desk.insistence, by="anna", at=MONDAY, pause=no_pause)
    plan = await world.desk.plan(world.settings.pipeline, build("b2", "2"), by="anna@desk", reason="x")
    found = await prospect(world.desk, world.settings, plan, person="anna@desk", now=world.time.wall)
    assert [line.kind for line in found.blocking] == ["manifest_unreachable"]
    with pytest.raises(Refused, match="nothing was started: its manifest cannot be used"):
        check_reachable(found, is_overridden=False)
    check_reachable(found, is_overridden=True)


async def test_a_record_of_another_artifact_is_not_taken_for_the_builds(world: RolloutWorld) -> None:
    other = msgspec.structs.replace(HOTFIX, build=build("b2", "9"))
    await record(world.store, other, world.desk.insistence, by="anna", at=MONDAY, pause=no_pause)
    plan = await world.desk.plan(world.settings.pipeline, build("b2", "2"), by="anna@desk", reason="x")
    found = await prospect(world.desk, world.settings, plan, person="anna@desk", now=world.time.wall)
    assert (found.release, found.commits.brings.count) == (None, 0)
    assert "was not recorded" in found.commits.gaps[0]


async def test_a_host_is_taken_back(world: RolloutWorld) -> None:
    """It is waited for again; once more, and of one that never was set aside, changes nothing."""
    await world.start()
    assert not (await world.act(ev.TakeBackRequested("prod", "prod-01"))).is_done
    await world.act(ev.SetAsideRequested("prod", "prod-01"))
    acted = await world.act(ev.TakeBackRequested("prod", "prod-01"), reason="the disk is new")
    assert [each.message for each in acted.written.records] == ["prod/prod-01 is waited for again: the disk is new"]
    assert (await world.now()).rollout.set_aside == ()
    assert not (await world.act(ev.TakeBackRequested("prod", "prod-01"))).is_done
    await world.act(ev.AbortRequested())
    assert not (await world.act(ev.TakeBackRequested("prod", "prod-01"))).is_done
