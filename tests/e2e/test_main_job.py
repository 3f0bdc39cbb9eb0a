"""The main job with a real agent process: a key changes, the host pulls, drains, swaps, proves and reports."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from fleet import Order, Service, decode_report, encode
from fleet.keys import host_key, service_name, tier_key
from tests.e2e.host import APP, TIER, Host, Shop, hotcold, until
from tests.processes import orphan

NewHost = Callable[..., Host]


async def test_first_deploy_change_and_rollback(shop: Shop, new_host: NewHost) -> None:
    """A bare host gets its first build, a change, and goes back without any download."""
    host = new_host()
    host.start()
    await shop.order(shop.pack("b1"))
    await host.until_steady("b1")
    await shop.order(shop.pack("b2"))
    status = await host.until_steady("b2")
    assert status["standby"]["build"] == "b1"
    assert host.stamps() == {"b2"}

    for name in ("shop-b1.tar.zst", "shop-b2.tar.zst"):
        (shop.directory / "artifacts" / name).unlink()
    await shop.order(shop.manifest("b1"))
    status = await host.until_steady("b1")
    assert host.stamps() == {"b1"}
    assert status["cold"]["build"] == "b2"


async def test_log_tells_how_old_the_order_is(shop: Shop, new_host: NewHost) -> None:
    """Each change of state says how long ago the order was seen."""
    host = new_host()
    host.start()
    await shop.order(shop.pack("b1"))
    await host.until_steady("b1")

    lines = [json.loads(line) for line in host.log.read_text().splitlines()]
    states = [(line["state"], line["order_age_s"]) for line in lines if line["event"] == "state"]
    assert [name for name, _ in states] == ["fetching", "staged", "draining", "swapping", "proving", "steady"]
    ages = [age_s for _, age_s in states]
    assert ages == sorted(ages)
    assert 0 <= ages[0] < ages[-1]


async def test_report_and_check_arrive_in_consul(shop: Shop, new_host: NewHost) -> None:
    """What the commander reads: the host's own report, and a check that passes while the agent lives."""
    host = new_host()
    host.start()
    await shop.order(shop.pack("b1"))
    await host.until_steady("b1")

    async def reported() -> object:
        entry = await shop.store.read(host_key(APP, TIER, "web-1"))
        report = None if entry is None else decode_report(entry.value)
        return report if report and report.state == "steady" and report.hot == "b1" else None

    report = await until("the report", reported)
    assert (report.serial, report.wanted, report.problem) == (1, "b1", None)
    [health] = await shop.store.services(service_name(APP))
    assert (health.status, health.meta["host"]) == ("passing", "web-1")

    assert host.stop() == 0
    [health] = await shop.store.services(service_name(APP))
    assert (health.status, health.output) == ("critical", "agent stopped")


async def test_bad_build_goes_back_and_stays_refused(shop: Shop, new_host: NewHost) -> None:
    """A build that fails its probe is swapped back, remembered over a restart, and tried again by a new serial."""
    probe = '[probe]\ncommand = ["test", "!", "-e", "{}/bad"]\nsuccesses = 1\ninterval_s = 0.05\ndeadline_s = 1\n'
    host = new_host()
    host.write_config(probe.format(host.hot))
    host.start()
    good = shop.pack("b1")
    await shop.order(good)
    await host.until_steady("b1")
    bad = shop.pack("b2", extra="bad")
    await shop.order(bad)
    status = await host.until_state("rolled_back")
    assert (status["hot"]["build"], status["problem"]["kind"]) == ("b1", "proof_failed")
    assert host.stamps() == {"b1"}

    host.kill()
    host.start()
    status = await host.until_up()
    assert (status["state"]["name"], status["hot"]["build"]) == ("rolled_back", "b1")
    swaps = host.log.read_text().count('"event": "swapped"')
    await shop.order(bad)
    await host.until("tried again", lambda s: s["highest_serial"] == 3 and s["state"]["name"] == "rolled_back")
    assert host.log.read_text().count('"event": "swapped"') == swaps + 2
    await shop.order(good)
    await host.until("steady", lambda s: s["state"]["name"] == "steady" and s["problem"] is None)


async def test_status_tells_which_build_each_worker_really_uses(shop: Shop, new_host: NewHost) -> None:
    """A worker that was not told of the swap lives on in the build before, whatever `hot` shows."""
    host = new_host()
    host.write_config('[drain]\nworkers = [{ command = "--role=orphan$" }]\ntimeout_s = 0\npolicy = "proceed"\n')
    host.start()
    await shop.order(shop.pack("b1"))
    status = await host.until_steady("b1")
    assert status["artifacts"]["failing_for_s"] is None
    with orphan(host.hot.resolve()) as worker:
        await shop.order(shop.pack("b2"))
        status = await host.until_steady("b2")
        [use] = [use for use in status["workers"]["uses"] if worker.pid in use["pids"]]
        assert (use["build"], use["is_hot"]) == ("b1", False)
        assert f"in b1 (pid {worker.pid})" in await hotcold("status", "--socket", str(host.socket))


async def test_the_apps_service_is_in_maintenance_while_its_host_is_out(shop: Shop, new_host: NewHost) -> None:
    """In Consul's own words, from before the drain until the proof; and back after a kill in between."""
    service = Service(id="app-1", name="app", ttl_s=600)
    await shop.store.pass_check(service, "well")

    async def is_at(status: str) -> bool:
        return [each.status for each in await shop.store.services("app")] == [status]

    host = new_host()
    gate = host.config_path.with_name("gate")
    wait = f'argv = ["sh", "-c", "until [ -e {gate} ]; do sleep 0.02; done"]\n'
    host.write_config(f'[drain]\nconsul_services = ["app-1"]\n[hooks.after_drain]\n{wait}')
    host.start()
    build = shop.pack("b1")
    gate.touch()
    await shop.order(build)
    await host.until_steady("b1")
    await until("back in service", lambda: is_at("passing"))
    gate.unlink()
    await shop.order(shop.pack("b2"))
    await host.until_state("draining")
    await until("out of service", lambda: is_at("maintenance"))
    host.kill()
    gate.touch()
    host.start()
    await host.until_steady("b2")
    await until("back in service", lambda: is_at("passing"))


async def test_history_tells_a_deploy_over_a_kill(shop: Shop, new_host: NewHost) -> None:
    """Order, states, swap; a kill -9 takes nothing of it, and what comes after counts on."""
    host = new_host()
    host.start()
    await shop.order(shop.pack("b1"))
    await host.until_steady("b1")
    at = ["--socket", str(host.socket)]

    async def told() -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = json.loads(await hotcold("history", "--json", *at))
        return events

    first = await told()
    names = [event["event"] for event in first]
    assert names.index("order") < names.index("swapped")
    states = [event["facts"]["state"] for event in first if event["event"] == "state"]
    assert states == ["fetching", "staged", "draining", "swapping", "proving", "steady"]
    assert "as order 1 says" in await hotcold("why", *at)
    host.kill()
    host.start()
    await host.until_up()
    again = await told()
    assert again[: len(first)] == first
    assert [event["id"] for event in again] == list(range(1, len(again) + 1))
    assert "  swapped  build=b1  release=b1~1" in await hotcold("history", *at)


async def test_signals_and_requests(shop: Shop, new_host: NewHost) -> None:
    """SIGUSR1 and the socket pull anew into a new directory; SIGHUP takes a good file and refuses a bad one."""
    host = new_host()
    host.start()
    await shop.order(shop.pack("b1"))
    first = (await host.until_steady("b1"))["hot"]["name"]
    host.signal(signal.SIGUSR1)
    second = await host.until("another tree", lambda s: s["hot"]["name"] != first and s["state"]["name"] == "steady")
    assert (second["hot"]["build"], host.stamps()) == ("b1", {"b1"})

    host.config_path.write_text(host.config_path.read_text().replace("[fetch]", "[fetch]\nmax_byts = 1"))
    host.signal(signal.SIGHUP)
    status = await host.until("refused", lambda s: s["config"]["problem"])
    assert "did you mean `fetch.max_bytes`" in status["config"]["problem"]
    host.write_config("[releases]\nkeep = 7\n")
    host.signal(signal.SIGHUP)
    await host.until("accepted", lambda s: s["config"]["problem"] is None)
    host.config_path.write_text(host.config_path.read_text().replace('tier = "prod"', 'tier = "canary"'))
    host.signal(signal.SIGHUP)
    status = await host.until("needs a restart", lambda s: s["config"]["problem"])
    assert "needs a restart" in status["config"]["problem"]
    assert host.is_alive()


async def test_hold_and_slots(shop: Shop, new_host: NewHost) -> None:
    """A held host starts nothing until it is let go; with one slot, hosts go one after the other."""
    hook = '[hooks.after_drain]\nargv = ["sleep", "0.3"]\n'
    hosts = [new_host(f"web-{number}", hook) for number in range(3)]
    for host in hosts:
        host.start()
    await asyncio.gather(*(host.until_up() for host in hosts))
    await shop.order(shop.pack("b1"), max_unavailable=1)
    most_at_once = 0

    async def all_steady() -> bool:
        nonlocal most_at_once
        states = [(await host.status() or {}).get("state", {}).get("name") for host in hosts]
        most_at_once = max(most_at_once, sum(name in {"draining", "swapping", "proving"} for name in states))
        return set(states) == {"steady"} and all(host.hot.exists() for host in hosts)

    await until("all hosts are steady", all_steady)
    assert most_at_once == 1

    held = hosts[0]
    hold = ["--socket", str(held.socket)]
    await hotcold("hold", "--reason", "looking", *hold)
    await held.until_state("held")
    await shop.order(shop.pack("b2"))
    await hosts[1].until_steady("b2")
    assert (await held.status() or {})["hot"]["build"] == "b1"
    held.kill()
    held.start()
    await held.until_state("held")
    await hotcold("unhold", *hold)
    await held.until_steady("b2")


async def test_metrics_parse(shop: Shop, new_host: NewHost) -> None:
    """A Prometheus client reads every line, and finds the state and the builds."""
    host = new_host()
    host.start()
    await shop.order(shop.pack("b1"))
    await host.until_steady("b1")

    code, body = await host.get("/metrics")

    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    assert code == 200
    states = {sample.labels["state"]: sample.value for sample in families["hotcold_state"].samples}
    assert [name for name, value in states.items() if value] == ["steady"]
    roles = {sample.labels["role"]: sample.labels["build"] for sample in families["hotcold_build"].samples}
    assert roles == {"wanted": "b1", "hot": "b1"}
    assert families["hotcold_swaps"].samples[0].value == 1
    assert all(family.documentation for family in families.values())


async def test_service_manager_hears_all(shop: Shop, new_host: NewHost, short_path: Path) -> None:
    """READY after the start, STATUS at transitions, WATCHDOG by the loop, RELOADING, STOPPING."""
    path = short_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(0)
        heard: list[str] = []

        async def has(text: str) -> bool:
            while True:
                try:
                    heard.append(manager.recv(4096).decode())
                except BlockingIOError:
                    return any(text in message for message in heard)

        host = new_host(environment={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "2000000"})
        host.start()
        await until("READY", lambda: has("READY=1"))
        await shop.order(shop.pack("b1"))
        await until("STATUS", lambda: has("STATUS=steady, hot: b1"))
        heard.clear()
        await until("WATCHDOG", lambda: has("WATCHDOG=1"))
        host.signal(signal.SIGHUP)
        await until("RELOADING", lambda: has("RELOADING=1"))
        await until("READY again", lambda: has("READY=1"))
        assert await asyncio.get_running_loop().run_in_executor(None, host.stop) == 0
        await until("STOPPING", lambda: has("STOPPING=1"))


async def test_deploy_and_rollback_commands(shop: Shop, new_host: NewHost) -> None:
    """What an operator types: deploy, status, fleet, rollback; each by its own process."""
    host = new_host()
    host.start()
    await host.until_up()
    of_tier = ("--app", APP, "--tier", TIER)
    for build_id in ("b1", "b2"):
        shop.pack(build_id)
        await hotcold(
            "deploy",
            f"{shop.url}/shop-{build_id}.json",
            *of_tier,
            "--reason",
            build_id,
            "--wait",
            "30",
            consul=host.consul_address,
        )
    assert host.stamps() == {"b2"}
    status = json.loads(await hotcold("status", "--socket", str(host.socket), "--json"))
    assert status["hot"]["build"] == "b2"
    assert "b2" in await hotcold("fleet", *of_tier, consul=host.consul_address)
    await hotcold("rollback", *of_tier, "--reason", "charts are red", consul=host.consul_address)
    await host.until_steady("b1")
    await hotcold("rollback", *of_tier, "--reason", "again", consul=host.consul_address, exits=1)
    entry = await shop.store.read(tier_key(APP, TIER))
    assert json.loads(entry.value)["serial"] == 3


async def test_a_host_given_to_another_tier_obeys_that_tier(shop: Shop, new_host: NewHost) -> None:
    """The order that is remembered from another tier counts for nothing, its higher serial neither."""
    host = new_host()
    host.start()
    await shop.order(shop.pack("b1"), serial=120)
    await host.until_steady("b1")
    host.stop()
    host.config_path.write_text(host.config_path.read_text().replace('tier = "prod"', 'tier = "canary"'))
    host.start()

    order = Order(v=1, app=APP, tier="canary", serial=35, build=shop.ref(shop.pack("b2")))
    await shop.store.put(tier_key(APP, "canary"), encode(order))

    assert (await host.until_steady("b2"))["highest_serial"] == 35
