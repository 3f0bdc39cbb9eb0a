"""Deploys under full load: no request fails, none sees two builds, none an old one after a new one; and the control."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.sizes import sized, tell_tally
from tests.hosts.fleet import Fleet, page
from tests.hosts.host import AGENT, Host
from tests.hosts.load import Counts, under_load
from tests.hosts.site import OPCACHE, PARTS, PHP_UNIT, set_opcache, write_tree

SWAPS = sized(100, 6)
RELOADS = sized(20, 3)
COPIES = sized(50, 12)
PAUSE_S = 0.4
MOST_ROUNDS = 8
UPDATE_PROTECTION_S = 3
"""PHP caches no file that is younger than two seconds."""
PLAIN = "/srv/plain"
CONFIG = """
[probe]
url = "http://127.0.0.1/index.php"
"""


@pytest.fixture(scope="module")
def host(fleet: Fleet) -> Host:
    """A host whose deploys wait for nobody: each request resolves `hot` once."""
    host = fleet.new_host("web-1")
    host.configure(CONFIG)
    host.boot()
    return host


def tell(what: str, opcache: str, counts: Counts) -> None:
    print(what, opcache, counts)  # noqa: T201 - figures are the point
    tell_tally(
        f"{what}, opcache {opcache}",
        {"answers": counts.answers, "failed": counts.failed, "mixed": counts.mixed, "stale": counts.stale},
    )


@pytest.mark.parametrize("opcache", OPCACHE)
def test_no_request_notices_a_deploy(fleet: Fleet, host: Host, opcache: str) -> None:
    """One deploy after the other, while all cores are busy with requests; each answer is checked."""
    set_opcache(host.machine, opcache)
    letter = "ab"[list(OPCACHE).index(opcache)]
    builds = [f"{letter}{number:04}" for number in range(SWAPS + 1)]
    for build in builds:
        fleet.pack(build)
    fleet.deploy(builds[0])
    host.until_steady(builds[0])
    with under_load(f"{host.url}/index.php") as load:
        for build in builds[1:]:
            fleet.deploy(build)
            host.until_steady(build)
            assert page(host) == (200, f"{build}\n" * (PARTS + 1))
    counts = load.result
    tell(f"{SWAPS} deploys under load", opcache, counts)
    assert (counts.failed, counts.mixed, counts.stale, counts.broken) == (0, 0, 0, 0), counts
    assert counts.builds == SWAPS + 1


def test_no_request_notices_a_reload_of_php(fleet: Fleet, host: Host) -> None:
    """A reload after each swap, where PHP-FPM waits for its workers, as docs/operating.md says that it should."""
    unit = PHP_UNIT.removesuffix(".service")
    set_opcache(host.machine, "default", patience="10s")
    host.machine.run("systemctl", "enable", "--now", f"hotcold-reload@{unit}.path")
    host.configure(f'{CONFIG}\n[hooks.after_swap]\nargv = ["hotcold-ask", "reload", "{unit}"]\n')
    host.machine.run("systemctl", "reload", AGENT)
    builds = [f"c{number:04}" for number in range(RELOADS + 1)]
    for build in builds:
        fleet.pack(build)
    fleet.deploy(builds[0])
    host.until_steady(builds[0])
    with under_load(f"{host.url}/index.php") as load:
        for build in builds[1:]:
            fleet.deploy(build)
            host.until_steady(build)
    host.configure(CONFIG)
    host.machine.run("systemctl", "reload", AGENT)
    counts = load.result
    tell(f"{RELOADS} deploys with reloads under load", "default", counts)
    assert (counts.failed, counts.mixed, counts.stale, counts.broken) == (0, 0, 0, 0), counts


def copy_in_place(host: Host, tree: Path) -> None:
    """Deploy as many do: by a copy over what serves."""
    subprocess.run(["cp", "-r", f"{tree}/.", host.machine.root / PLAIN[1:]], check=True)


def keep_copying(host: Host, trees: list[Path]) -> Counts:
    """Copies under load, with a pause after each."""
    with under_load(f"{host.url}:81/index.php") as load:
        for tree in trees:
            copy_in_place(host, tree)
            time.sleep(PAUSE_S)
    return load.result


@pytest.fixture
def plain_trees(host: Host, tmp_path: Path) -> list[Path]:
    """Builds beside a directory where the first of them serves, and PHP has it in its cache."""
    trees = [tmp_path / f"y{number:04}" for number in range(COPIES + 1)]
    for tree in trees:
        write_tree(tree, tree.name)
    host.machine.run("rm", "-rf", PLAIN)
    host.machine.run("mkdir", PLAIN)
    return trees


def test_requests_do_notice_a_copy_in_place(host: Host, plain_trees: list[Path]) -> None:
    """The control: the same load and the same check see what is wrong with it.

    A copy takes its time, and PHP looks every two seconds whether a file has changed. When the one meets the other, it
    serves two builds at once until it looks again.
    """
    set_opcache(host.machine, "default")
    copy_in_place(host, plain_trees[0])
    rounds: list[Counts] = []
    while len(rounds) < MOST_ROUNDS and not any(counts.mixed + counts.failed for counts in rounds):
        rounds.append(keep_copying(host, plain_trees[1:]))
        tell(f"{COPIES} copies in place under load", "default", rounds[-1])
    assert any(counts.mixed + counts.failed for counts in rounds), rounds


def test_a_copy_in_place_is_never_served_where_php_does_not_look(host: Host, plain_trees: list[Path]) -> None:
    """The control for the other mode: the old build serves on, for ever."""
    set_opcache(host.machine, "validate_timestamps=0")
    copy_in_place(host, plain_trees[0])
    time.sleep(UPDATE_PROTECTION_S)
    page(host, port=81)
    counts = keep_copying(host, plain_trees[1:3])
    tell("2 copies in place under load", "validate_timestamps=0", counts)
    assert counts.builds == 1
    assert page(host, port=81) == (200, f"{plain_trees[0].name}\n" * (PARTS + 1))
