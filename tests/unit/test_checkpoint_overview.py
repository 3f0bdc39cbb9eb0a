"""What a commander sees of an app, and when an order counts as carried out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from artifact import Refused
from checkpoint import HostKey, HostView, Observer, Standing, TierKey, follow, look, overview, progress
from checkpoint.overview import Overviews
from checkpoint.reading import HostReader, read_host_keys
from fleet import ConsulSettings, ConsulStore, Entry, Order, Service, ServiceHealth, encode
from fleet.devserver import DevServer
from fleet.keys import host_key, service_id, service_name, tier_key
from tests.commander_world import build, host, problem, report, write_reports

ORDER = Order(v=1, app="shop", tier="prod", serial=7, build=build("b2"), previous=build("b1"))
PROBE = problem("proof_failed", "answered 500")


def view(known: HostKey, order: Order | None = ORDER, health: str | None = "passing") -> HostView:
    services = None if health is None else [ServiceHealth(service_id("shop", "prod", "web-1"), "n", health, "", {})]
    if health == "absent":
        services = []
    seen = overview("shop", [TierKey("prod", order)], [known], services)
    return seen.tiers[0].hosts[0]


@pytest.mark.parametrize(
    ("facts", "standing"),
    [
        ({"serial": 7, "hot": "b2"}, Standing.GOOD),
        ({"serial": 7, "hot": "b1"}, Standing.FAILED),
        ({"serial": 7, "hot": "b1", "state": "fetching"}, Standing.BUSY),
        ({"serial": 7, "hot": "b1", "state": "a state of a later version"}, Standing.BUSY),
        ({"serial": 7, "hot": "b1", "state": "rolled_back", "problem": PROBE}, Standing.FAILED),
        ({"serial": 7, "hot": "b1", "state": "build_refused", "problem": PROBE}, Standing.FAILED),
        ({"serial": 7, "hot": "b1", "state": "backing_off", "problem": PROBE}, Standing.RETRYING),
        ({"serial": 7, "hot": "b1", "state": "held"}, Standing.HELD),
        ({"serial": 6, "hot": "b1"}, Standing.BEHIND),
        ({"serial": 6, "hot": "b1", "state": "rolled_back", "problem": PROBE}, Standing.BEHIND),
        ({"serial": 6, "hot": "b1", "state": "held"}, Standing.HELD),
        ({"serial": 6, "hot": "b1", "problem": problem("order_serial", "lower")}, Standing.FAILED),
        ({"serial": 0, "hot": None, "problem": problem("order_absent", "no key")}, Standing.BEHIND),
    ],
)
def test_a_living_host_stands_as_it_says(facts: dict[str, Any], standing: Standing) -> None:
    """State, build and serial decide; what it did under an earlier order is not held against it."""
    assert view(host("web-1", **facts)).standing is standing


@pytest.mark.parametrize("health", ["critical", "absent"])
@pytest.mark.parametrize("serial", [6, 7])
def test_the_last_words_of_a_silent_host_prove_nothing(health: str, serial: int) -> None:
    """A host whose agent is not alive is never counted as good, whatever it said last."""
    seen = view(host("web-1", serial=serial, hot="b2"), health=health)
    assert seen.standing is Standing.SILENT
    assert seen.note


@pytest.mark.parametrize("health", ["passing", "warning", "maintenance", None])
def test_a_host_that_is_not_known_to_be_silent_is_believed(health: str | None) -> None:
    """Maintenance is how a host leaves service on purpose, and unknown health is no accusation."""
    assert view(host("web-1", serial=7, hot="b2"), health=health).standing is Standing.GOOD


def test_a_damaged_report_is_a_failed_host() -> None:
    """It is shown with what is wrong with it, and what it should run."""
    seen = view(HostKey("prod", "web-1", None, Refused("not JSON")))
    assert (seen.standing, seen.wanted) == (Standing.FAILED, "b2")
    assert "not JSON" in seen.note


def test_without_an_order_steady_is_good() -> None:
    """Nothing is asked, so nothing is missing."""
    assert view(host("web-1", hot="b9"), order=None).standing is Standing.GOOD


def test_who_needs_an_eye_comes_first() -> None:
    """Hosts stand by urgency, then by name; tiers by name, also those that only a host names."""
    hosts = [
        host("web-4", serial=7, hot="b2"),
        host("web-3", serial=7, hot="b2"),
        host("web-2", serial=7, state="rolled_back", problem=PROBE),
        HostKey("canary", "web-1", None, Refused("no JSON")),
    ]
    seen = overview("shop", [TierKey("prod", ORDER)], hosts, None)
    assert [tier.key.tier for tier in seen.tiers] == ["canary", "prod"]
    prod = seen.tiers[1]
    assert [each.host for each in prod.hosts] == ["web-2", "web-3", "web-4"]
    assert (prod.good_count, prod.counts) == (2, {Standing.FAILED: 1, Standing.GOOD: 2})


def test_an_order_is_carried_out_when_every_host_runs_what_it_asks() -> None:
    """Steady alone is not enough: it must be this order, and the build that it asks of this host."""
    hosts = (
        host("good", serial=7, hot="b2"),
        host("other-build", serial=7, hot="b1"),
        host("earlier-order", serial=6, hot="b2"),
        host("busy", serial=7, hot="b2", state="proving"),
        host("back", serial=7, hot="b1", state="rolled_back", problem=PROBE),
        host("no", serial=7, hot="b1", state="build_refused", problem=PROBE),
        HostKey("prod", "damaged", None, Refused("no JSON")),
    )
    now = progress(ORDER, hosts)
    assert now.done == ("good",)
    assert now.failed == {"back": "rolled back: answered 500", "no": "refused the build: answered 500"}
    assert set(now.pending) == {"other-build", "earlier-order", "busy", "damaged"}
    assert (now.is_settled, now.is_success, now.host_count) == (False, False, 7)


def test_no_host_is_no_success() -> None:
    """An empty tier is not a finished one."""
    now = progress(ORDER, ())
    assert (now.is_settled, now.is_success) == (False, False)


def test_a_failed_host_settles_without_success() -> None:
    """Nothing more comes of this serial on that host."""
    now = progress(ORDER, (host("a", serial=7, hot="b2"), host("b", serial=7, state="rolled_back", problem=PROBE)))
    assert (now.is_settled, now.is_success) == (True, False)


def test_a_higher_serial_ends_the_wait() -> None:
    """What the hosts do now is another order's business."""
    now = progress(ORDER, (host("a", serial=8, hot="b2"),))
    assert (now.superseded_by, now.is_settled, now.is_success) == (8, True, False)
    assert now.done == ()


def test_hosts_beyond_the_share_are_done_with_what_they_have() -> None:
    """Where no build before is known, whatever they run is what is wanted."""
    order = Order(v=1, app="shop", tier="prod", serial=7, build=build("b2"), cutoff=0.0)
    assert progress(order, (host("a", serial=7, hot="b0"),)).is_success


@pytest.fixture
async def store() -> AsyncIterator[ConsulStore]:
    async with DevServer() as server, ConsulStore(ConsulSettings(address=server.address)) as connected:
        yield connected


async def test_following_ends_with_the_last_host(store: ConsulStore) -> None:
    """Each change is told; the last one told is the settled one."""
    await write_reports(store, [report("web-1", serial=6, hot="b1"), report("web-2", serial=6, hot="b1")])
    told = []
    async with asyncio.timeout(20):
        async for step in follow(store, ORDER):
            told.append(step)
            done = len(step.done)
            await write_reports(store, [report(f"web-{min(2, done + 1)}", serial=7, hot="b2")])
    assert [len(step.done) for step in told] == [0, 1, 2]
    assert told[-1].is_success


async def test_looking_at_one_tier_leaves_out_the_others(store: ConsulStore) -> None:
    """Orders, reports and health come together; another tier's are not shown."""
    await store.put(tier_key("shop", "prod"), encode(ORDER))
    await store.put(tier_key("shop", "canary"), b"garbage")
    await write_reports(store, [report("web-1", serial=7, hot="b2"), report("web-2", serial=7, hot="b2")])
    alive = Service(id=service_id("shop", "prod", "web-1"), name=service_name("shop"), ttl_s=60)
    await store.register(alive)
    await store.pass_check(alive, "steady")
    seen = await look(store, "shop", "prod")
    assert [tier.key.tier for tier in seen.tiers] == ["prod"]
    assert [(each.host, each.standing) for each in seen.tiers[0].hosts] == [
        ("web-2", Standing.SILENT),
        ("web-1", Standing.GOOD),
    ]
    canary = (await look(store, "shop")).tiers[0].key
    assert canary.order is None
    assert canary.fault is not None


async def test_an_observer_follows_orders_reports_and_health(store: ConsulStore) -> None:
    """What changes in the store is seen without asking again."""
    alive = Service(id=service_id("shop", "prod", "web-1"), name=service_name("shop"), ttl_s=60)
    await store.register(alive)
    await store.pass_check(alive, "steady")

    async def until(standing: Standing | None) -> None:
        async with asyncio.timeout(20):
            while True:
                seen = observer.now
                hosts = [each.standing for tier in (seen.tiers if seen else ()) for each in tier.hosts]
                if hosts == ([] if standing is None else [standing]) and seen is not None:
                    return
                await observer.changed(1.0)

    async with Observer(store, "shop", health_interval_s=0.02) as observer:
        await until(None)
        await store.put(tier_key("shop", "prod"), encode(ORDER))
        await write_reports(store, [report("web-1", serial=6, hot="b1")])
        await until(Standing.BEHIND)
        await write_reports(store, [report("web-1", serial=7, hot="b2")])
        await until(Standing.GOOD)
        await store.fail_check(alive, "gone")
        await until(Standing.SILENT)


def test_hosts_of_which_nothing_changed_keep_their_views() -> None:
    """Looking again at thousands of hosts costs what changed; and everything that a view shows makes it anew."""
    key = TierKey("prod", ORDER)
    one, two = host("web-1", serial=7, hot="b2"), host("web-2", serial=7, hot="b2")
    services = [ServiceHealth(service_id("shop", "prod", name), "n", "passing", "", {}) for name in ("web-1", "web-2")]
    overviews = Overviews("shop")
    before = overviews([key], [one, two], services)
    assert overviews([key], [one, two], services).tiers[0] is before.tiers[0]

    changed = host("web-2", serial=7, hot="b1")
    for keys, hosts, health, slots in (
        ([key], [one, changed], services, None),
        ([key], [one, two], services[:1], None),
        ([key], [one, two], services, {("prod", "web-2"): 3}),
    ):
        after = overviews(keys, hosts, health, slots)
        assert after == overview("shop", keys, hosts, health, slots)
        assert next(each for each in after.tiers[0].hosts if each.host == "web-1") is before.tiers[0].hosts[0]
        assert after != before

    later = [TierKey("prod", Order(v=1, app="shop", tier="prod", serial=8, build=build("b3")))]
    assert overviews(later, [one, two], services) == overview("shop", later, [one, two], services)
    assert [each.host for each in overviews([key], [one], services).tiers[0].hosts] == ["web-1"]


def test_reports_that_did_not_change_are_not_read_again() -> None:
    """Whatever came, changed, went, or cannot be read: the same as reading all of them."""
    entries = [
        Entry(host_key("shop", "prod", name), encode(report(name, serial=7, hot="b2")), 1, 1)
        for name in ("web-1", "web-2")
    ]
    read = HostReader("shop")
    before = read(entries)
    assert before == read_host_keys("shop", entries)
    for now in (
        [entries[0], Entry(entries[1].key, encode(report("web-2", serial=8, hot="b3")), 1, 2)],
        [entries[0], Entry(entries[1].key, b"{", 1, 3)],
        [entries[0]],
    ):
        after = read(now)
        assert after[0] is before[0]
        assert [(each.host, each.report) for each in after] == [
            (each.host, each.report) for each in read_host_keys("shop", now)
        ]
