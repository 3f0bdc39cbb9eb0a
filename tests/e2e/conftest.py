"""Fixtures of the end-to-end tests: a store, builds, hosts that never outlive their test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from fleet.devserver import DevServer
from tests.e2e.host import Host, Shop, a_shop

MEMORY = Path("/dev/shm")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory with a short name (Unix sockets), in memory where there is one."""
    base = MEMORY if MEMORY.is_dir() else None
    directory = Path(tempfile.mkdtemp(prefix="hc-", dir=base))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
async def dev_store() -> AsyncIterator[DevServer]:
    async with DevServer() as server:
        yield server


@pytest.fixture
async def shop(short_path: Path, dev_store: DevServer) -> AsyncIterator[Shop]:
    async with a_shop(short_path / "shop", dev_store.address) as shop:
        yield shop


@pytest.fixture
def new_host(short_path: Path, dev_store: DevServer) -> Iterator[Callable[..., Host]]:
    hosts: list[Host] = []

    def make(name: str = "web-1", config: str = "", **rest: object) -> Host:
        host = Host(short_path / name, dev_store.address, name, config, **rest)
        host.directory.mkdir()
        host.write_config()
        hosts.append(host)
        return host

    yield make
    for host in hosts:
        if host.is_alive():
            host.kill()
