"""What a rollout costs Consul and Checkpoint, for fleets of several sizes; and whether every share is exact.

    python -m benchmarks.bench_rollout [--hosts 10 --hosts 100 --hosts 1000 --hosts 5000]

Three real Consul servers, one engine as a process, and hosts that have everything but trees: the agents' own watch,
rules, reports and checks (`benchmarks.rollout_hosts`). The pipeline is staging, canary, and prod by 10, 25, 50, 75 and
100 percent. Hosts ask the servers directly, where in a fleet each asks a Consul agent of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from artifact import ManifestRef
from benchmarks.options import ROOT
from checkpoint.actions import Desk
from checkpoint.audit import read_record
from checkpoint.pipeline import load_settings
from checkpoint.rollout.events import Origin
from checkpoint.rollout.plan import Plan
from fleet import ConsulSettings, ConsulStore, Order, StoreUnreachable, encode
from fleet.keys import audit_prefix, tier_key

_SIZES: Final = (10, 100, 1_000, 5_000)
_WORKERS: Final = 2
_DEADLINE_S: Final = 900.0
_BAKE_S: Final = 2.0
PIPELINE: Final = f"""
app = "shop"
[[tiers]]
name = "staging"
bake_s = {_BAKE_S}
[[tiers]]
name = "canary"
bake_s = {_BAKE_S}
[[tiers]]
name = "prod"
steps = [10, 25, 50, 75, 100]
bake_s = {_BAKE_S}
"""


@dataclass(frozen=True)
class Cost:
    """What one rollout took, over all its steps."""

    hosts: int
    exact_steps: str
    told_s: float
    step_s: float
    writes_per_host: float
    engine_writes: int
    engine_cpu_s: float
    engine_rss_bytes: int
    servers_cpu_s: float
    hosts_cpu_s: float
    took_s: float


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--hosts", type=int, action="append", help="of production; may be repeated")
    arguments = options.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    print(
        "| hosts | steps with exact shares | last host told, s | step without bake, s | Consul writes per host | "
        "writes of Checkpoint | its CPU, ms per host | its memory, MiB | CPU of the hosts, ms each | "
        "of Consul, ms per host |"
    )
    print("| ---: " * 10 + "|")
    for count in arguments.hosts or _SIZES:
        with tempfile.TemporaryDirectory(prefix="hc-") as place:
            cost = asyncio.run(_measure(Path(place), count))
        print(
            f"| {cost.hosts:,} | {cost.exact_steps} | {cost.told_s:.2f} | {cost.step_s:.2f} | "
            f"{cost.writes_per_host:.2f} | {cost.engine_writes} | {1000 * cost.engine_cpu_s / cost.hosts:.1f} | "
            f"{cost.engine_rss_bytes / 2**20:.0f} | {1000 * cost.hosts_cpu_s / cost.hosts:.1f} | "
            f"{1000 * cost.servers_cpu_s / cost.hosts:.1f} |",
            flush=True,
        )


async def _measure(place: Path, count: int) -> Cost:
    with cluster(place) as (addresses, servers), contextlib.ExitStack() as processes:
        hosts = [
            ("staging", "staging-0"),
            ("canary", "canary-0"),
            *(("prod", f"web-{each:05}") for each in range(count)),
        ]
        async with ConsulStore(ConsulSettings(address=addresses[0])) as store:
            await until_led(store)
            for tier in ("staging", "canary", "prod"):
                order = Order(v=1, app="shop", tier=tier, serial=1, build=build_of("b1"))
                await store.put(tier_key("shop", tier), encode(order))
            logs, others = [], []
            for number in range(_WORKERS):
                log, names = place / f"told-{number}", place / f"hosts-{number}"
                names.write_text(json.dumps(hosts[number::_WORKERS]))
                address = addresses[(number + 1) % len(addresses)]
                program = _process("benchmarks.rollout_hosts", address, str(names), str(log))
                others.append(processes.enter_context(program))
                logs.append(log)
            await until(lambda: sum(len(_told(log)) for log in logs) >= len(hosts), "hosts obey the first order")
            config = place / "checkpoint.toml"
            config.write_text(PIPELINE)
            engine = processes.enter_context(
                _process("hotcold", "checkpoint", "run", "--app", "shop", "--config", str(config), consul=addresses[0])
            )
            return await _roll_out(place, store, _Programs(engine, others, servers), logs, len(hosts))


class _Programs(NamedTuple):
    """What runs: the engine, the processes that hold the hosts, Consul's servers."""

    engine: psutil.Popen
    hosts: list[psutil.Popen]
    servers: list[psutil.Popen]

    def cpu_s(self) -> tuple[float, float, float]:
        """What each of the three has used so far, over all its processes."""
        kinds = ([self.engine], self.hosts, self.servers)
        engine_s, hosts_s, servers_s = (sum(sum(each.cpu_times()[:2]) for each in kind) for kind in kinds)
        return engine_s, hosts_s, servers_s


async def _roll_out(place: Path, store: ConsulStore, programs: _Programs, logs: list[Path], host_count: int) -> Cost:
    desk = Desk(store, "shop", now=lambda: datetime.now(UTC), new_salt=lambda: "sample", pause=asyncio.sleep)
    plan = await desk.plan(
        load_settings(place / "checkpoint.toml").pipeline, build_of("b2"), by="bench", reason="bench"
    )
    before, began_s = programs.cpu_s(), time.monotonic()
    await desk.start(plan, Origin(by="bench", via="cli", reason="bench", at=datetime.now(UTC)))
    rss_bytes = 0
    checked = -1
    while True:
        ongoing = await desk.ledger.latest()
        assert ongoing is not None
        phase = ongoing.rollout
        rss_bytes = max(rss_bytes, programs.engine.memory_info().rss)
        if phase.phase_name == "baking" and phase.phase.step > checked:
            checked = phase.phase.step
            _check_share(plan, checked, logs)
        if phase.is_ended or time.monotonic() - began_s > _DEADLINE_S:
            break
        await asyncio.sleep(0.2)
    if phase.phase_name != "finished" or checked != len(plan.steps) - 1:
        raise SystemExit(f"the rollout is {phase.phase_name} at step {phase.phase.step}: {phase.phase}")
    took_s = time.monotonic() - began_s
    engine_s, hosts_s, servers_s = (after - former for after, former in zip(programs.cpu_s(), before, strict=True))
    records = [read_record(entry.value) for entry in await store.read_prefix(audit_prefix("shop"))]
    ordered = {
        record.step: record.at.timestamp() for record in records if record.what == "ordered" and record.step is not None
    }
    arrived = {
        record.step: record.at.timestamp() for record in records if record.what == "arrived" and record.step is not None
    }
    told = [each for log in logs for each in _told(log) if each.tier == "prod" and each.serial > 1]
    first: dict[tuple[int, str], float] = {}
    for each in told:
        first.setdefault((each.serial, each.host), each.at_s)
    steps_of_prod = [step for step in sorted(ordered) if plan.steps[step].rule.tier == "prod"]
    last = [
        max(at_s for (serial, _), at_s in first.items() if serial == number) - ordered[step]
        for number, step in enumerate(steps_of_prod, start=2)
    ]
    steps = len(plan.steps)
    return Cost(
        hosts=host_count - 2,
        exact_steps=f"{checked + 1} of {steps}",
        told_s=max(last),
        step_s=max(arrived[step] - ordered[step] for step in ordered),
        writes_per_host=len(told) / (host_count - 2),
        engine_writes=len(records),
        engine_cpu_s=engine_s,
        engine_rss_bytes=rss_bytes,
        servers_cpu_s=servers_s,
        hosts_cpu_s=hosts_s,
        took_s=took_s - steps * _BAKE_S,
    )


def _check_share(plan: Plan, step: int, logs: list[Path]) -> None:
    """Exactly the planned hosts run the build."""
    tier = plan.steps[step].rule.tier
    hot: dict[str, str] = {}
    for log in logs:
        hot |= {each.host: each.build for each in _told(log) if each.tier == tier and each.state == "steady"}
    running = {host for host, build in hot.items() if build == "b2"}
    if running != set(plan.hosts_of(step)):
        raise SystemExit(f"step {step}: {len(running)} hosts run the build, {len(plan.hosts_of(step))} should")


class Told(NamedTuple):
    """One report of one host."""

    tier: str
    host: str
    serial: int
    at_s: float
    build: str
    state: str


def _told(log: Path) -> list[Told]:
    """All reports so far; a line that is being written is left for later."""
    if not log.exists():
        return []
    whole = log.read_text().rpartition("\n")[0].splitlines()
    rows = (line.split() for line in whole)
    return [Told(tier, host, int(serial), float(at), build, state) for tier, host, serial, at, build, state in rows]


def build_of(build_id: str) -> ManifestRef:
    digest = f"sha256:{ord(build_id[-1]):064x}"
    return ManifestRef(id=build_id, urls=(f"http://127.0.0.1/{build_id}",), digest=digest, size=1, format="tar")


async def until(condition: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + _DEADLINE_S
    while not condition():
        if time.monotonic() > end_s:
            raise SystemExit(f"not within {_DEADLINE_S:g} s: {what}")
        await asyncio.sleep(0.2)


async def until_led(store: ConsulStore) -> None:
    """Wait until the servers have elected a leader."""
    end_s = time.monotonic() + _DEADLINE_S
    while time.monotonic() < end_s:
        with contextlib.suppress(StoreUnreachable):
            await store.put("hotcold/ready", b"")
            return
        await asyncio.sleep(0.2)
    raise SystemExit("the servers have elected no leader")


@contextlib.contextmanager
def _process(module: str, *arguments: str, consul: str = "") -> Iterator[psutil.Popen]:
    process = psutil.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "CONSUL_HTTP_ADDR": consul},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def cluster(place: Path) -> Iterator[tuple[list[str], list[psutil.Popen]]]:
    """Three servers; hosts of one address may open as many connections as they need."""
    binary = subprocess.run(
        [ROOT / "scripts" / "get-consul"], capture_output=True, text=True, check=True
    ).stdout.strip()
    ports = iter(free_ports(12))
    servers = [{"http": next(ports), "server": next(ports), "lan": next(ports), "wan": next(ports)} for _ in range(3)]
    with contextlib.ExitStack() as running:
        programs = [
            running.enter_context(_server(binary, place / f"server-{number}", number, server, servers))
            for number, server in enumerate(servers)
        ]
        yield [f"http://127.0.0.1:{server['http']}" for server in servers], programs


@contextlib.contextmanager
def _server(
    binary: str, directory: Path, number: int, server: Mapping[str, int], servers: list[dict[str, int]]
) -> Iterator[psutil.Popen]:
    directory.mkdir()
    argv = [
        *(binary, "agent", "-server", "-bootstrap-expect=3", f"-node=server-{number}", "-bind=127.0.0.1"),
        *("-client=127.0.0.1", "-dns-port=-1", "-grpc-port=-1", "-log-level=warn", f"-data-dir={directory / 'data'}"),
        *(f"-http-port={server['http']}", f"-server-port={server['server']}"),
        *(f"-serf-lan-port={server['lan']}", f"-serf-wan-port={server['wan']}", "-retry-interval=1s"),
        "-hcl=performance { raft_multiplier = 1 } limits { http_max_conns_per_client = 10000 }",
        *(f"-retry-join=127.0.0.1:{each['lan']}" for each in servers),
    ]
    with (directory / "log").open("wb") as log:
        process = psutil.Popen(argv, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


if __name__ == "__main__":
    main()
