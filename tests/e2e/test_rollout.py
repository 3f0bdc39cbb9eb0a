"""Rollouts with real agents and real engines, by the commands that an operator types; engines are killed on the way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.devserver import DevServer
from tests.e2e.host import Host, Shop, hotcold, until

PROBE = '[probe]\ncommand = ["sh", "-c", "! test -e {hot}/bad"]\nsuccesses = 1\ninterval_s = 0.1\ndeadline_s = 1\n'
PIPELINE = """
app = "shop"
[[tiers]]
name = "staging"
bake_s = 0.2
approval = true
smoke_test = {{ command = ["{smoke}"] }}
[[tiers]]
name = "canary"
bake_s = 0.2
[[tiers]]
name = "prod"
steps = [10, 25, 50, 75, 100]
bake_s = 0.2
"""
HOSTS = {"staging": 1, "canary": 2, "prod": 4}


class Engine:
    """An engine as a process."""

    def __init__(self, directory: Path, consul: str, config: Path, name: str) -> None:
        self.log = directory / f"{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hotcold", "checkpoint", "run", "--app", "shop", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"CONSUL_HTTP_ADDR": consul},
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def new_engine(short_path: Path, dev_store: DevServer) -> Iterator[Callable[[], Engine]]:
    """Engines that never outlive their test. The smoke test leaves a line for each run."""
    smoke = short_path / "smoke-test"
    smoke.write_text(f'#!/bin/sh\necho "$HOTCOLD_BUILD on $HOTCOLD_TIER" >> {short_path}/smoked\n')
    smoke.chmod(0o755)
    config = short_path / "checkpoint.toml"
    config.write_text(PIPELINE.format(smoke=smoke))
    engines: list[Engine] = []

    def make() -> Engine:
        engines.append(Engine(short_path, dev_store.address, config, f"engine-{len(engines)}"))
        return engines[-1]

    yield make
    for engine in engines:
        if engine.process.poll() is None:
            engine.kill()


@pytest.fixture
async def hosts(new_host: Callable[..., Host], shop: Shop, dev_store: DevServer) -> list[Host]:
    """Seven agents that run `b1`."""
    made = []
    for tier, count in HOSTS.items():
        for number in range(count):
            host = new_host(f"{tier}-{number}", tier=tier)
            host.write_config(PROBE.format(hot=host.hot))
            host.start()
            made.append(host)
    shop.pack("b1")
    for host in made:
        await host.until_up()
    for tier in HOSTS:
        await hotcold(
            *("deploy", f"{shop.url}/shop-b1.json", "--app", "shop", "--tier", tier, "--wait", "60"),
            consul=dev_store.address,
        )
    return made


async def status(consul: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await hotcold("rollout", "status", "--app", "shop", "--json", consul=consul))
    return found


async def start(shop: Shop, consul: str, directory: Path, build_id: str) -> str:
    return await hotcold(
        *("rollout", "start", f"{shop.url}/shop-{build_id}.json", "--app", "shop", "--reason", "checkout fix"),
        *("--config", str(directory / "checkpoint.toml")),
        consul=consul,
    )


@pytest.mark.timeout(900)
async def test_staging_to_the_whole_fleet_with_engines_that_are_killed(
    short_path: Path, shop: Shop, dev_store: DevServer, hosts: list[Host], new_engine: Callable[[], Engine]
) -> None:
    """kill -9 of the leader in the middle of the percentages: a standby goes on from the same step."""
    consul = dev_store.address
    shop.pack("b2")
    first, second = new_engine(), new_engine()
    shown = await start(shop, consul, short_path, "b2")
    assert re.search(r"prod to 25 % +1 host ", shown)
    await hotcold("rollout", "watch", "--app", "shop", "--until", "approving", "--timeout", "4m", consul=consul)
    assert (short_path / "smoked").read_text() == "b2 on staging\n"
    refused = await hotcold(
        "rollout", "approve", "--app", "shop", "--reason", "x", "--index", "1", consul=consul, exits=1
    )
    assert "changed since index 1" in refused
    await hotcold("rollout", "approve", "--app", "shop", "--reason", "looked at staging", consul=consul)

    async def is_in_prod() -> bool:
        return (await status(consul))["step"] >= 3

    await until("the percentages have begun", is_in_prod, 240)
    leader = first if "leading" in first.log.read_text() else second
    assert f"(pid {leader.process.pid})" in (await status(consul))["engine"]
    leader.kill()
    await hotcold("rollout", "watch", "--app", "shop", "--timeout", "5m", consul=consul)
    for host in hosts:
        assert (await host.until_steady("b2"))["hot"]["build"] == "b2"
    told = await hotcold("audit", "show", "--app", "shop", "--last", "100", consul=consul)
    assert told.count(" is ordered: ") == 7
    assert "looked at staging" in told
    assert "whole" in await hotcold("audit", "verify", "--app", "shop", consul=consul)


@pytest.mark.timeout(900)
async def test_a_bad_build_is_stopped_at_canary_and_goes_back_by_itself(
    short_path: Path, shop: Shop, dev_store: DevServer, hosts: list[Host], new_engine: Callable[[], Engine]
) -> None:
    """Staging cannot see what is wrong; both canaries fail the proof; production never hears of it."""
    consul = dev_store.address
    shop.pack("b2", extra="bad")
    for host in hosts:
        if host.tier == "staging":
            host.write_config("")
            host.kill()
            host.start()
            await host.until_steady("b1")
    new_engine()
    await start(shop, consul, short_path, "b2")
    await hotcold("rollout", "watch", "--app", "shop", "--until", "approving", "--timeout", "4m", consul=consul)
    await hotcold("rollout", "approve", "--app", "shop", "--reason", "looks fine", consul=consul)
    said = await hotcold("rollout", "watch", "--app", "shop", "--timeout", "4m", consul=consul, exits=1)
    assert "rolled back" in said
    for host in hosts:
        assert (await host.until_steady("b1"))["hot"]["build"] == "b1"
    seen = await status(consul)
    assert (seen["phase"], seen["denied"], seen["lock"] is not None) == ("rolled_back", ["b2"], True)
    url = f"{shop.url}/shop-b2.json"
    denied = await hotcold("deploy", url, "--app", "shop", "--tier", "prod", consul=consul, exits=1)
    assert "build b2 is denied by checkpoint@" in denied
    for host in hosts:
        if host.tier == "prod":
            assert (await host.status() or {})["highest_serial"] == 1
