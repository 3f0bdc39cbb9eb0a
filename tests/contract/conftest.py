"""Owns the stores under contract: the embedded dev server and a real Consul, both behind the same client."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fleet import ConsulStore, consul_settings
from fleet.devserver import DevServer
from tests.consul_process import NO_CONSUL, ConsulDev, find_consul


@pytest.fixture(scope="session")
def consul_dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulDev]:
    """One dev agent for all tests that leave it running."""
    if find_consul() is None:
        pytest.skip(NO_CONSUL)
    with ConsulDev(tmp_path_factory.mktemp("consul")) as consul:
        yield consul


@pytest.fixture(params=["dev", pytest.param("consul", marks=pytest.mark.consul)])
async def address(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Where the store under test listens."""
    if request.param == "consul":
        yield request.getfixturevalue("consul_dev").address
        return
    async with DevServer() as server:
        yield server.address


@pytest.fixture
async def store(address: str) -> AsyncIterator[ConsulStore]:
    """A client of the store under test, with a wait short enough to see it end."""
    async with ConsulStore(consul_settings({}, {"address": address, "wait_s": 3.0})) as opened:
        yield opened


@pytest.fixture
def prefix() -> str:
    """A place of its own for each test."""
    return f"hotcold-test/{uuid.uuid4().hex}/"


@pytest.fixture
def consul_binary() -> Path:
    """The real binary."""
    binary = find_consul()
    if binary is None:
        pytest.skip(NO_CONSUL)
    return binary
