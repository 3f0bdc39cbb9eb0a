"""A quiet fleet costs nothing: memory, CPU time, and writes to Consul's log."""

from __future__ import annotations

import json
import time

import msgspec
import psutil
import pytest

from tests.consul_process import ConsulCluster, get
from tests.faults.sizes import sized, tell_tally
from tests.hosts.fleet import Fleet
from tests.hosts.host import AGENT, Host

QUIET_S = sized(600, 15)
REST_S = 6
MOST_ROUNDS = 3
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


def raft(cluster: ConsulCluster) -> tuple[int, int]:
    """The term, which changes with the leader, and the index of the newest entry that is committed."""
    told = json.loads(get(f"{cluster.leader.address}/v1/agent/self") or "{}")["Stats"]["raft"]
    return int(told["term"]), int(told["commit_index"])


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


class Quiet(msgspec.Struct, frozen=True):
    """What a time without any order has cost."""

    took_s: float
    cpu_shares: tuple[float, ...]
    entries: int
    has_changed: bool


def stay_quiet(fleet: Fleet, agents: list[psutil.Process]) -> Quiet | None:
    """Measure; None where Consul has elected another leader meanwhile, which writes entries of its own."""
    wait_for_rest(fleet.cluster)
    known, started_s = newest_change(fleet.cluster), time.monotonic()
    term, index = raft(fleet.cluster)
    before_s = [cpu_s(agent) for agent in agents]
    time.sleep(QUIET_S)
    took_s = time.monotonic() - started_s
    shares = tuple((cpu_s(agent) - used_s) / took_s for agent, used_s in zip(agents, before_s, strict=True))
    term_now, index_now = raft(fleet.cluster)
    has_changed = newest_change(fleet.cluster) != known
    return Quiet(took_s, shares, index_now - index, has_changed) if term_now == term else None


def test_a_quiet_fleet_costs_nothing(fleet: Fleet, hosts: list[Host]) -> None:
    agents = [host.agent() for host in hosts]
    quiet = next(filter(None, (stay_quiet(fleet, agents) for _ in range(MOST_ROUNDS))), None)
    assert quiet is not None, "a leader of Consul does not stay one here"
    largest_bytes = max(map(memory_bytes, agents))
    print(quiet, f"{largest_bytes / 2**20:.1f} MiB")  # noqa: T201 - figures are the point
    tell_tally("quiet fleet", {"raft entries": quiet.entries, "seconds": int(quiet.took_s)})
    assert not quiet.has_changed
    assert quiet.entries <= quiet.took_s / BARRIER_EVERY_S + 1
    assert largest_bytes < MEMORY_LIMIT_BYTES
    assert max(quiet.cpu_shares) < CPU_LIMIT + 2 * TICK_S / quiet.took_s
    assert {host.machine.run("systemctl", "show", "-P", "NRestarts", AGENT).strip() for host in hosts} == {"0"}


def wait_for_rest(cluster: ConsulCluster) -> None:
    """Until what the last deploy has to tell is told: nothing is written for a while."""
    last, since_s = raft(cluster), time.monotonic()
    while time.monotonic() - since_s < REST_S:
        time.sleep(0.5)
        if (now := raft(cluster)) != last:
            last, since_s = now, time.monotonic()


def memory_bytes(agent: psutil.Process) -> int:
    """What the agent and its children hold."""
    return sum(process.memory_info().rss for process in (agent, *agent.children(recursive=True)))
