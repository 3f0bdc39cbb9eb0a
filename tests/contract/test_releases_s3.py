"""Releases into an S3-compatible store: uploaded, read back, recorded; refusals are told."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from fleet import Build, decode_build
from fleet.keys import builds_prefix
from tests.commander_world import World, world
from tests.release_world import APP, LIB, Desk, commit, new_repo

BUCKET = "builds"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket; the environment says where it is."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }.items():
        monkeypatch.setenv(name, value)
    try:
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=BUCKET)
        yield BUCKET
    finally:
        server.stop()


@pytest.fixture
def here() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture
def desk(tmp_path: Path, here: World) -> Desk:
    new_repo(tmp_path / "repo")
    # The server keeps its objects for as long as the process lives.
    return Desk(tmp_path, here.address, uploads=(f'to = "s3://{BUCKET}/{tmp_path.name}/shop"',))


def builds(here: World) -> list[Build]:
    return [decode_build(entry.value) for entry in here.do(here.store.read_prefix(builds_prefix(APP)))]


def objects() -> set[str]:
    listed = boto3.client("s3", region_name="us-east-1").list_objects_v2(Bucket=BUCKET)
    return {each["Key"] for each in listed.get("Contents", [])}


def test_a_release_lies_in_the_bucket(bucket: str, desk: Desk, here: World) -> None:
    """Every file of it, a patch against the build before as well; hosts get the s3 address."""
    desk.run("cut")
    commit(desk.repo, "Third", lib__txt=f"{LIB}one line more\n")
    desk.run("cut")
    first, second = builds(here)
    prefix = f"{desk.directory.name}/shop"
    assert bucket in second.manifest
    for build in (first, second):
        name = f"{prefix}/shop-{build.build.id}"
        assert build.build.urls == (f"s3://{BUCKET}/{name}.tar.zst",)
        assert {f"{name}.json", f"{name}.tar.zst", f"{name}.tar.zst.index"} <= objects()
        kept = boto3.client("s3", region_name="us-east-1").get_object(Bucket=BUCKET, Key=f"{name}.tar.zst")
        assert kept["ContentLength"] == build.build.size
    assert second.build.index is not None
    assert len(second.build.index.patches) == 1
    assert any(key.startswith(f"{prefix}/shop-{second.build.id}.tar.zst.from-") for key in objects())


def test_a_bucket_that_is_not_there_is_told(bucket: str, desk: Desk, here: World) -> None:
    """Nothing is recorded; once it is there, the release goes on and sends nothing twice."""
    later = f"{bucket}-{uuid.uuid4().hex}"
    desk.uploads = (f'to = "s3://{later}/shop"',)
    result = desk.run("cut", exits=2)
    assert f"s3://{later}/shop: there is no such bucket" in result.stderr
    assert "release resume" in result.stdout
    assert builds(here) == []
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=later)
    desk.build = "exit 9"
    [build_id] = [path.name for path in desk.work.iterdir() if path.is_dir()]
    desk.run("resume", build_id)
    assert [build.build.id for build in builds(here)] == [build_id]
