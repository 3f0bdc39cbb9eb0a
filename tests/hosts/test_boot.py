"""Machines that lose power in the middle of a deploy, and machines that start without a network."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.consul_process import wait_until
from tests.hosts.fleet import Fleet, page
from tests.hosts.host import APP, Host
from tests.hosts.site import PARTS, PHP_FPM

PROBE = '\n[probe]\nurl = "http://127.0.0.1/index.php"\n'
BALLAST_BYTES = 4 << 20
# What each phase needs, to last until the power is cut.
PHASES = {
    "fetching": f"{PROBE}\n[fetch]\nmax_rate_bytes = 400000\nretry_initial_s = 0.2\n",
    "draining": f'{PROBE}\n[drain]\nworkers = [{{ executable = "{PHP_FPM}" }}, {{ command = "^sleep 12345$" }}]\n',
    "proving": '\n[probe]\ncommand = ["sleep", "12345"]\ntimeout_s = 600\ndeadline_s = 600\n',
}


@pytest.fixture(scope="module")
def host(fleet: Fleet) -> Host:
    host = fleet.new_host("web-1")
    host.configure(PROBE)
    host.boot()
    fleet.pack("b0001")
    fleet.deploy("b0001")
    host.until_steady("b0001")
    return host


def is_whole(host: Host, build_id: str) -> bool:
    """Whether what serves is a build, and all of it, by its files."""
    hot = host.machine.root / "srv" / APP / host.hot
    return all(build_id in (hot / f"part-{number}.php").read_text() for number in range(PARTS))


@pytest.mark.parametrize("phase", PHASES)
def test_power_is_cut_in_the_middle_of_a_deploy(fleet: Fleet, host: Host, phase: str) -> None:
    """After the next boot, from the same disk, `hot` is one whole build; then the deploy is finished."""
    before, after = f"{phase}-1", f"{phase}-2"
    fleet.pack(before)
    fleet.deploy(before)
    host.until_steady(before)
    fleet.pack(after, ballast=os.urandom(BALLAST_BYTES))
    host.configure(PHASES[phase])
    host.machine.run("systemctl", "restart", "hotcold-agent@shop")
    host.until_state("steady")
    # Someone stands in the tree, so that a drain waits.
    with host.in_background("sleep", "12345", cwd=f"/srv/{APP}/{host.hot}"):
        fleet.deploy(after)
        host.until(phase, lambda s: s["state"]["name"] == phase and has_begun(s))
        host.machine.cut_power()

    host.configure(PROBE)
    host.machine.boot()
    serving = after if phase == "proving" else before
    assert is_whole(host, serving) or is_whole(host, after)
    host.until_steady(after)
    assert is_whole(host, after)
    assert page(host) == (200, f"{after}\n" * (PARTS + 1))
    left = {each.name for each in (host.machine.root / "srv" / APP / "releases").iterdir()}
    assert len(left) <= 3, left


def has_begun(status: dict[str, Any]) -> bool:
    progress = status["progress"]
    return status["state"]["name"] != "fetching" or (progress is not None and progress["bytes_done"] > 0)


def test_a_machine_starts_without_a_network(fleet: Fleet, host: Host) -> None:
    """The agent runs, and what is deployed serves; with the cable in, the host does what was ordered meanwhile."""
    build = (host.until_state("steady")["hot"] or {})["build"]
    host.machine.cut_power()
    fleet.pack("network-1")
    fleet.deploy("network-1")
    host.machine.switch_on(is_plugged=False)
    status = host.until("knows that it is cut off", lambda s: s["store"]["failing_for_s"] is not None)
    assert status["hot"]["build"] == build
    asked = "import urllib.request as r; print(r.urlopen('http://127.0.0.1/index.php').read().decode())"
    assert host.machine.run("python3", "-c", asked).split() == [build] * (PARTS + 1)

    fleet.lab.set_cable("web-1", is_in=True)
    host.until_steady("network-1", 120)
    wait_until(lambda: page(host) == (200, "network-1\n" * (PARTS + 1)), "it can be reached", 60)
