"""Bad input: a clear error, hot unchanged, the agent alive, and the next good order obeyed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from fleet import Order, encode
from fleet.keys import tier_key
from tests.e2e.host import APP, TIER, Host, Shop, hotcold

NewHost = Callable[..., Host]
PATIENCE = (
    "[fetch]\nretry_initial_s = 0.2\nretry_max_s = 0.5\n"
    "stall_timeout_s = 1\nmin_rate_bytes = 65536\nrate_window_s = 2\n"
)


async def serving_b1(shop: Shop, new_host: NewHost, config: str = PATIENCE) -> Host:
    host = new_host(config=config)
    host.start()
    await shop.order(shop.pack("b1"))
    await host.until_steady("b1")
    return host


async def goes_on(shop: Shop, host: Host, *, hot: str = "b1", others: tuple[str, ...] = ()) -> None:
    """The bad input changed nothing on disk, left nothing behind, and the next good order is obeyed."""
    assert host.is_alive()
    assert host.stamps() == {hot}
    await shop.order(shop.pack("b9"))
    await host.until_steady("b9")
    assert host.stamps() == {"b9"}
    assert sorted(path.name.split("~")[0] for path in (host.root / "releases").iterdir()) == sorted(
        [*others, hot, "b9"]
    )


def bad_order(shop: Shop, **changes: Any) -> bytes:
    order = Order(v=1, app=APP, tier=TIER, serial=2, build=shop.ref(shop.manifest("b1")))
    return encode(msgspec.structs.replace(order, **changes))


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda _: b"not json", "order_invalid", "order is not a JSON document"),
        (lambda _: b"", "order_invalid", "order is not a JSON document"),
        (lambda _: b"\xff\xfe", "order_invalid", "order is not"),
        (lambda _: b'{"v":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "order_invalid", "order is"),
        (lambda shop: bad_order(shop, reason="a\0b"), "order_invalid", "must be printable"),
        (lambda shop: bad_order(shop, max_unavailable=10**9), "order_invalid", "max_unavailable 1000000000 is above"),
        (lambda shop: bad_order(shop, v=2), "order_version", "order has version 2; this hotcold reads version 1"),
        (lambda shop: bad_order(shop)[:-1] + b',"colour":"red"}', "order_invalid", "unknown field `colour`"),
        (lambda shop: bad_order(shop, tier="canary"), "order_wrong_tier", "order is for shop/canary, but this host"),
        (lambda shop: bad_order(shop, serial=1, reason="other"), "order_serial", "re-uses serial 1"),
        (lambda shop: bad_order(shop, serial=0), "order_invalid", "serial 0 is not positive"),
        (lambda shop: bad_order(shop, cutoff=1.5), "order_invalid", "cutoff 1.5 is not within 0 and 1"),
        (lambda shop: bad_order(shop, not_after="2001-01-01T00:00:00+00:00"), "order_expired", "order expired at 2001"),
        (lambda shop: bad_order(shop).replace(b'"tar.zst"', b'"rar"'), "order_invalid", "format 'rar' is not one of"),
        (lambda shop: bad_order(shop).replace(b"http://", b"gopher://"), "order_invalid", "is not an absolute http://"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_bad_order(make: Callable[[Shop], bytes], kind: str, message: str, shop: Shop, new_host: NewHost) -> None:
    """An order that must not be obeyed is named in the status and in the report, and changes nothing."""
    host = await serving_b1(shop, new_host)

    await shop.write(make(shop))

    status = await host.until("refused", lambda s: s["order_problem"])
    assert status["order_problem"]["kind"] == kind
    assert message in status["order_problem"]["message"]
    assert (status["state"]["name"], status["highest_serial"]) == ("steady", 1)
    await goes_on(shop, host)


async def test_lower_serial_is_refused_over_restarts(shop: Shop, new_host: NewHost) -> None:
    """A store restored from an old snapshot does not send the host back, also after a restart."""
    host = await serving_b1(shop, new_host)
    old = await shop.store.read(tier_key(APP, TIER))
    await shop.order(shop.pack("b2"), serial=5)
    await host.until_steady("b2")
    host.stop()

    await shop.write(old.value)
    host.start()

    status = await host.until("refused", lambda s: s["order_problem"])
    assert status["order_problem"]["kind"] == "order_serial"
    assert "already obeyed 5" in status["order_problem"]["message"]
    assert (status["state"]["name"], status["highest_serial"]) == ("steady", 5)
    await goes_on(shop, host, hot="b2", others=("b1",))


async def test_deleted_key_changes_nothing(shop: Shop, new_host: NewHost) -> None:
    """A key that is gone means "keep what runs"."""
    host = await serving_b1(shop, new_host)

    await shop.store.delete(tier_key(APP, TIER))

    status = await host.until("absent", lambda s: s["order_problem"])
    assert status["order_problem"]["kind"] == "order_absent"
    assert (status["state"]["name"], status["highest_serial"]) == ("steady", 1)
    await goes_on(shop, host)


async def test_manifest_that_is_not_there(shop: Shop, new_host: NewHost) -> None:
    """The commander is told which address answered what; no order is written, and no host notices."""
    host = await serving_b1(shop, new_host)

    url = f"{shop.url}/shop-b2.json"

    told = await hotcold("deploy", url, "--app", APP, "--tier", TIER, consul=host.consul_address, exits=1)

    assert f"{url} answered 404" in told
    assert (await host.until_steady("b1"))["highest_serial"] == 1
    await goes_on(shop, host)


# --- artifact servers -------------------------------------------------------------------------------------------------


async def not_found(_: web.Request) -> web.StreamResponse:
    return web.Response(status=404)


async def wrong_bytes(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"\0" * int(request.query["size"]))


async def too_short(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"\0" * (int(request.query["size"]) - 1))


async def cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": request.query["size"]})
    await response.prepare(request)
    await response.write(b"x" * 100)
    request.transport.abort()
    return response


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(3600)
    return await not_found(request)


async def hang_half_way(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": request.query["size"]})
    await response.prepare(request)
    await response.write(b"x" * 100)
    await asyncio.sleep(3600)
    return response


async def drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": request.query["size"]})
    await response.prepare(request)
    while True:
        await response.write(b"x")
        await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (not_found, "404"),
        (wrong_bytes, "gave other bytes than build b2"),
        (too_short, "size"),
        (cut, "broke off"),
        (hang, "was silent for 1.0 s"),
        (hang_half_way, "was silent for 1.0 s"),
        (drip, "gives less than 65536 bytes per second"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_bad_artifact_server(
    behaviour: Callable[[web.Request], Awaitable[web.StreamResponse]], message: str, shop: Shop, new_host: NewHost
) -> None:
    """A build that cannot be fetched is tried again, and the status says what the server did."""
    host = await serving_b1(shop, new_host)
    build = shop.ref(shop.pack("b2", size_bytes=100_000))
    shop.behaviours["bad"] = behaviour
    bad = msgspec.structs.replace(build, urls=(f"{shop.url}/bad?size={build.size}",))

    await shop.order(bad)

    status = await host.until("backing off", lambda s: s["state"]["name"] == "backing_off" and s["problem"])
    assert message in status["problem"]["message"].lower()
    assert shop.url in status["problem"]["message"]
    assert status["retry_in_s"] is not None
    await goes_on(shop, host)


async def test_server_that_recovers_is_used(shop: Shop, new_host: NewHost) -> None:
    """An artifact that appears later is fetched by itself, without a new order."""
    host = await serving_b1(shop, new_host)
    build = shop.pack("b2")
    artifact = shop.directory / "artifacts" / "shop-b2.tar.zst"
    artifact.rename(shop.directory / "aside")
    await shop.order(build)
    await host.until_state("backing_off")

    (shop.directory / "aside").rename(artifact)

    await host.until_steady("b2")


# --- hostile archives -------------------------------------------------------------------------------------------------


def entry(name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


HOSTILE = {
    "absolute": [entry("/etc/owned")],
    "climbing": [entry("a/../../owned")],
    "link out": [entry("way", tarfile.SYMTYPE, link="../../..")],
    "through a link": [entry("way", tarfile.SYMTYPE, link="."), entry("way/owned")],
    "hard link out": [entry("way", tarfile.LNKTYPE, link="../../../etc/passwd")],
    "device": [entry("null", tarfile.CHRTYPE)],
    "fifo": [entry("pipe", tarfile.FIFOTYPE)],
    "setuid": [entry("su", mode=0o4755)],
    "twice": [entry("same"), entry("same")],
    "by case": [entry("Readme"), entry("README")],
}


@pytest.mark.parametrize("entries", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_archive(entries: list[tarfile.TarInfo], shop: Shop, new_host: NewHost) -> None:
    """A hostile archive is refused by the name of the entry, for good, and writes nothing anywhere."""
    host = await serving_b1(shop, new_host)
    before = {path for path in host.directory.rglob("*") if "state" not in path.parts}

    await shop.order(shop.tar("b2", [(info, b"x" if info.isreg() else b"") for info in entries]))

    status = await host.until_state("build_refused")
    assert status["problem"]["kind"] == "archive_hostile"
    assert entries[-1].name in status["problem"]["message"]
    assert {path for path in host.directory.rglob("*") if "state" not in path.parts} == before
    await goes_on(shop, host)


TOO_BIG = {
    "max_bytes = 1_000_000": [(entry("big"), bytes(2_000_000))],
    "max_files = 50": [(entry(f"file-{number}"), b"") for number in range(51)],
    "max_ratio = 100": [(entry("zeros"), bytes(80 << 20))],
}


@pytest.mark.parametrize("limit", TOO_BIG)
async def test_archive_beyond_a_limit(limit: str, shop: Shop, new_host: NewHost) -> None:
    """Bytes, files and ratio: what is too much is refused for good by the entry with which it becomes so."""
    host = await serving_b1(shop, new_host, f"{PATIENCE}{limit}\n")

    await shop.order(shop.tar("b2", TOO_BIG[limit], is_compressed=True))

    status = await host.until_state("build_refused")
    assert status["problem"]["kind"] == "archive_too_big"
    assert limit.partition(" ")[0] in status["problem"]["message"]
    assert repr(TOO_BIG[limit][-1][0].name) in status["problem"]["message"]
    await goes_on(shop, host)


# --- the host itself --------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(short_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    directory = short_path / "small"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(directory)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.decode().strip()}")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def fill(directory: Path) -> None:
    """Leave not one block free."""
    with (directory / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while ballast.write(b"\0" * 4096):
            pass


def remount(directory: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(directory)], check=True)


def on_small_disk(new_host: NewHost, small_disk: Path) -> Host:
    host: Host = new_host(config=PATIENCE, root=small_disk / "root")
    return host


@pytest.mark.root
async def test_full_disk(shop: Shop, new_host: NewHost, small_disk: Path) -> None:
    """A build that does not fit is removed and tried again; a smaller one works, and going back needs no room."""
    host = on_small_disk(new_host, small_disk)
    host.start()
    await shop.order(shop.pack("b1"))
    await host.until_steady("b1")

    await shop.order(shop.pack("b2", size_bytes=8_000_000))
    status = await host.until_state("backing_off")
    assert status["problem"]["kind"] == "disk_full"
    assert str(small_disk) in status["problem"]["message"]
    assert host.stamps() == {"b1"}

    await shop.order(shop.pack("b3"))
    await host.until_steady("b3")
    assert sorted(path.name.split("~")[0] for path in (host.root / "releases").iterdir()) == ["b1", "b3"]
    fill(small_disk)
    await shop.order(shop.manifest("b1"))
    await host.until_steady("b1")
    assert host.stamps() == {"b1"}


@pytest.mark.root
def test_unwritable_root(new_host: NewHost, small_disk: Path) -> None:
    """The agent does not start on a root that it cannot write, says which and what to do, and changes nothing."""
    host = on_small_disk(new_host, small_disk)
    remount(small_disk, "ro")

    host.start()

    assert host.process is not None
    assert host.process.wait(20) == 2
    assert f"{host.root}: Read-only file system; mount it read-write" in host.log.read_text()
    assert list(small_disk.iterdir()) == []


@pytest.mark.root
async def test_root_that_becomes_unwritable(shop: Shop, new_host: NewHost, small_disk: Path) -> None:
    """As after an I/O error: what serves goes on, the agent says what is wrong, and goes on once it is mended."""
    host = on_small_disk(new_host, small_disk)
    host.start()
    await shop.order(shop.pack("b1"))
    await host.until_steady("b1")
    remount(small_disk, "ro")

    await shop.order(shop.pack("b2"))
    status = await host.until_state("backing_off")
    assert status["problem"]["kind"] == "read_only"
    assert str(host.root) in status["problem"]["message"]
    assert host.stamps() == {"b1"}

    remount(small_disk, "rw")
    await host.until_steady("b2")
    await goes_on(shop, host, hot="b2", others=("b1",))


async def test_second_agent_on_the_same_root(shop: Shop, new_host: NewHost) -> None:
    """The second one, whatever its own state directory, names the first and leaves everything alone."""
    host = await serving_b1(shop, new_host)
    second = new_host("web-2", root=host.root)

    second.start()

    assert second.process is not None
    assert second.process.wait(20) == 2
    assert f"process {host.pid}" in second.log.read_text()
    await goes_on(shop, host)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('app = "shop"\ntier = "prod"\nroot = "/srv/shop"\nrot = 1\n', "unknown key `rot`; did you mean `root`?"),
        ('app = 5\ntier = "prod"\nroot = "/srv/shop"\n', "app = 5: Expected `str`, got `int`"),
        (None, "no such file"),
    ],
)
def test_agent_and_check_config_say_the_same(text: str | None, expected: str, tmp_path: Path) -> None:
    """A bad configuration gets the same message from both, and the same exit status."""
    path = tmp_path / "agent.toml"
    if text is not None:
        path.write_text(text)

    told = []
    for command in (["check-config", str(path)], ["agent", "--config", str(path)]):
        run = subprocess.run(
            [sys.executable, "-m", "hotcold", *command], check=False, capture_output=True, text=True, timeout=20
        )
        assert run.returncode == 2
        told.append(run.stderr)

    assert told[0] == told[1]
    assert str(path) in told[0]
    assert expected in told[0]
    assert "Traceback" not in told[0]


def test_reports_are_json(tmp_path: Path) -> None:
    """`check-config` shows no secret."""
    path = tmp_path / "agent.toml"
    path.write_text('app = "shop"\ntier = "prod"\nroot = "/srv/shop"\n[consul]\ntoken = "very-secret"\n')

    run = subprocess.run(
        [sys.executable, "-m", "hotcold", "check-config", str(path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )

    assert run.returncode == 0
    assert "very-secret" not in run.stdout + run.stderr
    assert "ok" in run.stdout
    assert json.dumps(str(path)).strip('"') in run.stdout
