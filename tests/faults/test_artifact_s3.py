"""Artifacts in an S3-compatible store: whole and by range, and what is wrong when they are not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from artifact import ManifestRef, TransientError
from artifact.locate import load_manifest, reference
from artifact.pack import pack
from artifact.pull import Local, LocalBase, Progress, PullSettings, pull

BUCKET = "builds"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket; the environment says where it is, as on a host."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }.items():
        monkeypatch.setenv(name, value)
    try:
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        server.stop()


def upload(directory: Path) -> None:
    client = boto3.client("s3", region_name="us-east-1")
    for path in directory.iterdir():
        client.upload_file(str(path), BUCKET, f"shop/{path.name}")


def build(base: Path, build_id: str, content: str, archive_format: str = "tar.zst") -> Path:
    tree, out = base / build_id, base / "out"
    tree.mkdir()
    out.mkdir(exist_ok=True)
    (tree / "page").write_text(content)
    (tree / "same").write_bytes(bytes(range(256)) * 400)
    pack(
        tree,
        app="shop",
        build_id=build_id,
        out=out,
        created="2026-11-23T12:00:00Z",
        on_progress=lambda _: None,
        format=archive_format,
    )
    return out


async def located(build_id: str) -> ManifestRef:
    manifest, location = await load_manifest(f"s3://{BUCKET}/shop/shop-{build_id}.json")
    assert location == f"s3://{BUCKET}/shop/shop-{build_id}.json"
    return reference(manifest, location)


async def pulled(ref: ManifestRef, into: Path, *, bases: tuple[Path, ...] = ()) -> int:
    seen: list[Progress] = []
    into.mkdir()  # noqa: ASYNC240 - a test, on its own
    await pull(
        ref,
        into,
        settings=PullSettings(),
        on_progress=seen.append,
        local=Local(
            table=f"{into}.table", bases=tuple(LocalBase(tree=str(base), table=f"{base}.table") for base in bases)
        ),
    )
    return seen[-1].bytes_done


@pytest.mark.parametrize("archive_format", ["tar.zst", "tar.gz"])
async def test_a_build_is_found_and_pulled(store: str, tmp_path: Path, archive_format: str) -> None:
    """Manifest, index and frames, or the whole archive: the url of each is made of the manifest's."""
    upload(build(tmp_path, "1", "one", archive_format))
    ref = await located("1")
    assert ref.urls == (f"s3://{BUCKET}/shop/shop-1.{archive_format}",)
    await pulled(ref, tmp_path / "into")
    assert (tmp_path / "into/page").read_text() == "one"
    assert (tmp_path / "into/same").read_bytes() == (tmp_path / "1/same").read_bytes()
    assert store.startswith("http://127.0.0.1:")


async def test_only_what_is_missing_is_read(store: str, tmp_path: Path) -> None:
    """The second build's unchanged file comes from the first one's tree; ranges work."""
    build(tmp_path, "1", "one")
    upload(build(tmp_path, "2", "two"))
    first_bytes = await pulled(await located("1"), tmp_path / "into-1")
    second_bytes = await pulled(await located("2"), tmp_path / "into-2", bases=(tmp_path / "into-1",))
    assert (tmp_path / "into-2/page").read_text() == "two"
    assert 0 < second_bytes <= first_bytes
    assert store


async def test_a_missing_object_or_bucket_is_told(store: str, tmp_path: Path) -> None:
    """Each with the kind that HTTP has for it, and what to do."""
    out = build(tmp_path, "1", "one")
    upload(out)
    ref = await located("1")
    boto3.client("s3", region_name="us-east-1").delete_object(Bucket=BUCKET, Key="shop/shop-1.tar.zst")
    with pytest.raises(TransientError, match="upload the artifact there") as caught:
        await pulled(ref, tmp_path / "into")
    assert caught.value.kind == "http_404"
    with pytest.raises(TransientError, match=r"s3://nowhere/shop-1\.json"):
        await load_manifest("s3://nowhere/shop-1.json")
    assert store


async def test_a_store_that_is_down_is_told(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which variables to look at."""
    upload(build(tmp_path, "1", "one"))
    ref = await located("1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(TransientError, match="AWS_ENDPOINT_URL") as caught:
        await pulled(ref, tmp_path / "into")
    assert caught.value.kind == "connect_failed"
    assert store
