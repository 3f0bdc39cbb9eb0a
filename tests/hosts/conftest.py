"""Fixtures of the tests on real hosts: a lab for each module, one at a time on a machine's cores.

The tests run under `--dist worksteal`, which knows no groups; so a lock keeps two workers from having a lab at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.consul_process import NO_CONSUL, ConsulCluster, find_consul
from tests.hosts.fleet import Fleet, artifact_server
from tests.hosts.installed import installed_disk, one_at_a_time, wheels
from tests.hosts.lab import ADDRESS, MORTAL, Lab, why_impossible

TIMEOUT_S = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who waits for another worker's lab waits for all of its module."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))
            item.add_marker(pytest.mark.root)


@pytest.fixture(scope="session")
def shared_directory(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """One directory for all workers of this run."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


@pytest.fixture(scope="module")
def lab(shared_directory: Path) -> Iterator[Lab]:
    """A lab; the test is in its network."""
    if reason := why_impossible():
        pytest.skip(reason)
    with one_at_a_time(shared_directory / "hosts.lock"):
        wheels()  # while there is a way to packages
        with Lab() as lab:
            lab.join_network()
            yield lab


@pytest.fixture(scope="module")
def fleet(lab: Lab, shared_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three Consul servers and an artifact server in the lab, and no host yet."""
    if find_consul() is None:
        pytest.skip(NO_CONSUL)
    directory = tmp_path_factory.mktemp("fleet")
    disk = installed_disk(lab, shared_directory)
    # Without coordinates, or nodes write some of their own accord every now and then.
    cluster = ConsulCluster(directory / "consul", bind=ADDRESS, by=MORTAL, more=["-hcl=disable_coordinates = true"])
    with cluster, artifact_server(directory):
        yield Fleet(lab, cluster, directory, disk)
