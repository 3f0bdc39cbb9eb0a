"""A quiet fleet costs nothing: memory, CPU time, and writes to Consul's log."""

from __future__ import annotations

import json
import time

import psutil
import pytest

from tests.consul_process import ConsulCluster, get
from tests.faults.sizes import sized, tell_tally
from tests.hosts.fleet import Fleet
from tests.hosts.host import AGENT, Host

QUIET_S = sized(600, 25)
MEMORY_LIMIT_BYTES = 60 << 20
CPU_LIMIT = 0.001
TICK_S = 0.01
BARRIER_EVERY_S = 60
"""A leader of Consul writes an empty entry of its own so often, also with no client at all."""


@pytest.fixture(scope="module")
def hosts(fleet: Fleet) -> list[Host]:
    hosts = [fleet.new_host(f"web-{number}") for number in (1, 2)]
    fleet.pack("b0001")
    for host in hosts:
        host.configure('\n[probe]\nurl = "http://127.0.0.1/index.php"\n')
        host.boot()
    fleet.deploy("b0001")
    for host in hosts:
        host.until_steady("b0001")
    return hosts


def commit_index(cluster: ConsulCluster) -> int:
    told = json.loads(get(f"{cluster.leader.address}/v1/agent/self") or "{}")
    return int(told["Stats"]["raft"]["commit_index"])


def newest_change(cluster: ConsulCluster) -> dict[str, str | None]:
    """The whole of what Consul keeps for us: keys with their indexes, services, checks and sessions."""
    return {
        path: get(f"{cluster.leader.address}/v1/{path}")
        for path in (
            "kv/hotcold/?recurse",
            "catalog/service/hotcold-shop",
            "health/checks/hotcold-shop",
            "session/list",
        )
    }


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def test_a_quiet_fleet_costs_nothing(fleet: Fleet, hosts: list[Host]) -> None:
    agents = [host.agent() for host in hosts]
    wait_for_rest(fleet.cluster)
    known, index, started_s = newest_change(fleet.cluster), commit_index(fleet.cluster), time.monotonic()
    used_s = [cpu_s(agent) for agent in agents]

    time.sleep(QUIET_S)

    took_s = time.monotonic() - started_s
    shares = [(cpu_s(agent) - used) / took_s for agent, used in zip(agents, used_s, strict=True)]
    written = commit_index(fleet.cluster) - index
    sizes = [memory_bytes(agent) for agent in agents]
    used = {host.name: f"{share:.3%} of a core" for host, share in zip(hosts, shares, strict=True)}
    print(f"{took_s:.0f} s, {used}, {max(sizes) / 2**20:.1f} MiB, {written} entries")  # noqa: T201 - figures are the point
    tell_tally("quiet fleet", {"raft entries": written, "seconds": int(took_s)})
    assert newest_change(fleet.cluster) == known
    assert written <= took_s / BARRIER_EVERY_S + 1
    assert max(sizes) < MEMORY_LIMIT_BYTES
    assert max(shares) < CPU_LIMIT + 2 * TICK_S / took_s
    assert {host.machine.run("systemctl", "show", "-P", "NRestarts", AGENT).strip() for host in hosts} == {"0"}


def wait_for_rest(cluster: ConsulCluster) -> None:
    """Until what the last deploy has to tell is told: nothing is written for a while."""
    last, since_s = commit_index(cluster), time.monotonic()
    while time.monotonic() - since_s < 8:
        time.sleep(0.5)
        if (now := commit_index(cluster)) != last:
            last, since_s = now, time.monotonic()


def memory_bytes(agent: psutil.Process) -> int:
    """What the agent and its children hold."""
    return sum(process.memory_info().rss for process in (agent, *agent.children(recursive=True)))
