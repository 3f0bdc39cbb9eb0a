"""From a commit to what a host serves: cut, uploaded, deployed by a real agent, mended, deployed again."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from fleet import Build, ConsulSettings, ConsulStore, decode_build
from fleet.devserver import DevServer
from fleet.keys import builds_prefix
from tests.e2e.host import APP, TIER, Host, hotcold
from tests.release_world import LIB, Desk, commit, depot, new_repo


@dataclass(frozen=True)
class Place:
    """Where builds go: the table of the configuration, and what hosts and the command need in their environment."""

    upload: str
    environment: Mapping[str, str] = field(default_factory=dict)


@pytest.fixture
def directory(tmp_path: Path) -> Place:
    return Place(f'to = "{tmp_path}/files"')


@pytest.fixture
def http(tmp_path: Path) -> Iterator[Place]:
    with depot(tmp_path / "depot") as served:
        yield Place(f'to = "{served.address}/up"\nurl = "{served.address}"')


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"builds-{uuid.uuid4().hex}"
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=bucket)
    yield Place(f'to = "s3://{bucket}/shop"', environment)
    server.stop()


@pytest.fixture
async def store(dev_store: DevServer) -> AsyncIterator[ConsulStore]:
    async with ConsulStore(ConsulSettings(address=dev_store.address)) as opened:
        yield opened


async def builds(store: ConsulStore) -> list[Build]:
    return [decode_build(entry.value) for entry in await store.read_prefix(builds_prefix(APP))]


async def in_thread(work: Callable[[], Any]) -> Any:
    """Git and its like wait for processes; the store in this loop must answer meanwhile."""
    return await asyncio.get_running_loop().run_in_executor(None, work)


@pytest.fixture(params=["directory", "http", "s3"])
def place(request: pytest.FixtureRequest) -> Place:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Place)
    return found


async def test_a_release_is_served_by_a_host(
    place: Place, store: ConsulStore, dev_store: DevServer, new_host: Callable[..., Host], tmp_path: Path
) -> None:
    """Cut, deployed; the next build as a patch; a hotfix of the first: the host serves just that, from each place."""
    desk = Desk(tmp_path, dev_store.address, uploads=(place.upload,))
    await in_thread(lambda: new_repo(desk.repo))

    async def release(*words: str) -> Build:
        arguments = await in_thread(lambda: desk.arguments(*words))
        await hotcold(*arguments, consul=dev_store.address)
        return (await builds(store))[-1]

    async def deploy(build: Build) -> None:
        await hotcold("deploy", build.manifest, "--app", APP, "--tier", TIER, consul=dev_store.address)
        await host.until_steady(build.build.id)
        assert (host.hot / "build-id").read_text() == build.build.id

    host = new_host(environment=place.environment)
    host.start()
    first = await release("cut")
    await deploy(first)
    await in_thread(lambda: commit(desk.repo, "Third", page="three\n", lib__txt=f"{LIB}one line more\n"))
    second = await release("cut")
    assert second.build.index is not None
    assert len(second.build.index.patches) == 1
    await deploy(second)
    assert (host.hot / "page").read_text() == "three\n"
    fix = await in_thread(lambda: commit(desk.repo, "Fix", hotfixed="yes\n"))
    desk.build = f"{desk.build}; cp hotfixed dist/"
    mended = await release("hotfix", "--pick", fix, "--onto", first.build.id)
    assert mended.hotfix_of == first.build.id
    await deploy(mended)
    assert (host.hot / "page").read_text() == "two\n"
    assert (host.hot / "lib.txt").read_text() == LIB
    assert (host.hot / "hotfixed").read_text() == "yes\n"
    listed = await hotcold(*desk.arguments("list"), consul=dev_store.address)
    assert f"hotfix of {first.build.id}" in listed
    assert [line.split()[0] for line in listed.splitlines() if f" {TIER} " in line] == [mended.build.id]
