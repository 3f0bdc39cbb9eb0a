"""Where a manifest lies, and which absolute urls follow from that."""

import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web

from artifact import ConfigError, Manifest, Refused, TransientError, encode_manifest
from artifact.locate import MAX_MANIFEST_BYTES, absolute, load_manifest, reference

MANIFEST = Manifest(
    v=1,
    app="shop",
    id="7",
    urls=("shop-7.tar",),
    digest="sha256:" + "0" * 64,
    size=5,
    format="tar",
    created="2026-11-23T12:00:00Z",
    signature="signed",
)


def with_urls(*urls: str) -> Manifest:
    return Manifest(**{**{name: getattr(MANIFEST, name) for name in MANIFEST.__struct_fields__}, "urls": urls})


@pytest.mark.parametrize(
    ("location", "url", "expected"),
    [
        ("http://h/builds/m.json", "shop-7.tar", "http://h/builds/shop-7.tar"),
        ("https://h:8/b/m.json?token=x", "../c/a.tar", "https://h:8/c/a.tar"),
        ("https://h/b/m.json", "https://cdn.example/a.tar?sig=%2F", "https://cdn.example/a.tar?sig=%2F"),
        ("https://h/b/m.json", "a #1.tar", "https://h/b/a%20%231.tar"),
        ("file:///srv/b/m.json", "a.tar", "file:///srv/b/a.tar"),
        ("/srv/with space/m.json", "a.tar", "file:///srv/with%20space/a.tar"),
    ],
)
def test_relative_urls_are_resolved_against_the_manifests_place(location: str, url: str, expected: str) -> None:
    ref = reference(with_urls(url), location)
    assert ref.urls == (expected,)
    assert (ref.id, ref.digest, ref.size, ref.format, ref.signature) == ("7", MANIFEST.digest, 5, "tar", "signed")


def test_a_relative_path_is_taken_from_the_working_directory() -> None:
    assert absolute("dist/m.json") == (Path.cwd() / "dist/m.json").as_uri()


def test_a_manifest_that_no_host_could_use_is_refused_with_its_place() -> None:
    for bad in (with_urls(), with_urls("ftp://h/a.tar")):
        with pytest.raises(Refused, match=r"http://h/m\.json") as caught:
            reference(bad, "http://h/m.json")
        assert caught.value.kind == "manifest_invalid"


@pytest.mark.parametrize("location", ["gopher://h/m.json", "ftp://h/m.json"])
async def test_an_unknown_scheme_names_those_that_are_read(location: str) -> None:
    with pytest.raises(ConfigError, match="http://, https://, s3:// or file://"):
        await load_manifest(location)


async def test_a_manifest_is_read_from_a_server_and_its_failures_are_named() -> None:
    async def answer(request: web.Request) -> web.Response:
        match request.path:
            case "/m.json":
                return web.Response(body=encode_manifest(MANIFEST))
            case "/page":
                return web.Response(text="<html>")
            case "/huge":
                return web.Response(body=bytes(MAX_MANIFEST_BYTES + 1))
            case _:
                return web.Response(status=404)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    base = f"http://{host}:{port}"
    try:
        assert await load_manifest(f"{base}/m.json") == (MANIFEST, f"{base}/m.json")
        with pytest.raises(TransientError, match=f"{base}/gone answered 404") as gone:
            await load_manifest(f"{base}/gone")
        assert gone.value.kind == "http_404"
        with pytest.raises(Refused, match=f"{base}/page: this is not a manifest"):
            await load_manifest(f"{base}/page")
        with pytest.raises(Refused, match="not the artifact's"):
            await load_manifest(f"{base}/huge")
    finally:
        await runner.cleanup()


async def test_a_missing_file_and_a_binary_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match=r"missing\.json cannot be opened"):
        await load_manifest(str(tmp_path / "missing.json"))
    for content in (b"\xff\xfe\x00" * 10, b'{"v": 1, "app": "\xff"}'):
        (tmp_path / "binary.json").write_bytes(content)
        with pytest.raises(Refused, match=r"binary\.json") as caught:
            await load_manifest(str(tmp_path / "binary.json"))
        assert caught.value.kind == "manifest_invalid"


def test_the_idle_agents_imports_stay_light() -> None:
    """What the agent holds for ever must not carry what only its child and the command need."""
    program = (
        "import sys, artifact, artifact.pull; "
        "print([name for name in ('aiohttp', 'zstandard', 'tarfile', 'zipfile', 'ssl') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() in ("[]", "['ssl']")  # asyncio itself may load ssl
