"""The commands of an operator on a host, against a real agent."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tarfile
from collections.abc import Callable
from typing import Any

from aiohttp import web

from agent.memory import REFUSAL
from fleet.keys import slots_prefix, tier_key
from tests.e2e.host import APP, TIER, Host, Shop, hotcold
from tests.listening import listening

NewHost = Callable[..., Host]
PROBE = '[probe]\ncommand = ["test", "!", "-e", "{}/bad"]\nsuccesses = 1\ninterval_s = 0.05\ndeadline_s = 1\n'


async def test_a_forgotten_build_is_tried_again_and_stays_so(shop: Shop, new_host: NewHost) -> None:
    """The cause is mended, the operator says so, and the build is proved without a new order or a download."""
    host = new_host()
    host.write_config(PROBE.format(host.directory))
    host.start()
    await shop.order(shop.pack("b1"))
    await host.until_steady("b1")
    (host.directory / "bad").touch()
    await shop.order(shop.pack("b2"))
    await host.until_state("rolled_back")
    assert (host.state_dir / REFUSAL).exists()
    socket = ("--socket", str(host.socket))
    assert "b9 is not refused on this host; b2 is" in await hotcold("forget", "b9", *socket, exits=1)

    for path in (shop.directory / "artifacts").glob(f"{APP}-b2*"):
        path.unlink()
    (host.directory / "bad").unlink()
    said = await hotcold("forget", "b2", *socket)
    assert said.startswith("build b2 is no longer refused; it was for: ")
    await host.until_steady("b2")
    assert host.stamps() == {"b2"}
    assert not (host.state_dir / REFUSAL).exists()
    assert "nothing to forget" in await hotcold("forget", *socket, exits=1)

    assert host.stop() == 0
    host.start()
    await host.until_steady("b2")
    asked = [line for line in (await hotcold("history", *socket)).splitlines() if "order at the socket" in line]
    assert asked
    assert "call=/v1/forget" in asked[-1]


# --- plan -------------------------------------------------------------------------------------------------------------


async def planned(host: Host, exits: int) -> dict[str, Any]:
    """What `hotcold plan` says of a host, and that the host is afterwards as it was."""
    before = on_disk(host)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hotcold", "plan", "--config", str(host.config_path), "--timeout", "60", "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == exits, (out.decode(), err.decode())
    assert on_disk(host) == before
    said: dict[str, Any] = json.loads(out)
    return said


def on_disk(host: Host) -> list[tuple[str, int]]:
    """Every name in root and state directory, with when it was changed; not what a running agent writes of itself."""
    found = [path for base in (host.root, host.state_dir) for path in base.rglob("*")]
    return sorted(
        (str(path), path.lstat().st_mtime_ns) for path in found if not path.name.startswith("history") and path.is_dir()
    )


async def test_plan_says_what_an_agent_would_do_and_the_agent_does_it(shop: Shop, new_host: NewHost) -> None:
    """A fetch with its size, a swap to what is here, nothing; each is then seen to happen."""
    host = new_host(config=HOOKED)
    host.start()
    await host.until_up()
    said = await planned(host, 0)
    assert (said["verdict"], said["message"]) == ("nothing", "nothing: no order is known")
    await shop.order(shop.pack("b1", files=20))
    await host.until_steady("b1")
    assert "steady" in (await planned(host, 0))["agent"]
    assert host.stop() == 0

    first = shop.manifest("b1")
    await shop.order(shop.pack("b2", size_bytes=3 << 20))
    said = await planned(host, 3)
    assert (said["verdict"], said["wanted"], said["hot"], said["agent"]) == ("fetch", "b2", "b1", None)
    assert said["fetch"]["fetched_files"] == 21
    assert said["fetch"]["entries"] == 21
    assert 3 << 20 < said["fetch"]["fetched_bytes"] < 4 << 20
    assert said["fetch"]["needed_bytes"] >= 3 << 20
    assert said["hooks"] == {"staged": ["true"], "after_swap": ["true", "reload"]}
    assert said["waits"] == []
    assert said["probe"] == "true exits with 0, 1 in a row within 60 s"

    await shop.order(first)
    assert (await planned(host, 0))["message"] == "nothing: build b1 serves, as order 3 says"
    shown = await hotcold("plan", "--config", str(host.config_path))
    assert "would  nothing: build b1 serves, as order 3 says" in shown
    await shop.order(shop.manifest("b2"))
    host.start()
    await host.until_steady("b2")
    assert host.stop() == 0
    await shop.order(first)
    said = await planned(host, 3)
    assert (said["verdict"], said["wanted"], said["fetch"]) == ("swap", "b1", None)
    host.start()
    await host.until_steady("b1")


HOOKED = (
    '[hooks.staged]\nargv = ["true"]\n[hooks.after_swap]\nargv = ["true", "reload"]\n'
    '[hooks.failed]\nargv = ["false"]\n[probe]\ncommand = ["true"]\n'
)


async def test_plan_fetches_only_what_the_host_lacks(shop: Shop, new_host: NewHost) -> None:
    """Of a build that shares most of its files only the index and the others are counted."""
    host = new_host()
    host.start()
    await shop.order(shop.pack("b1", size_bytes=3 << 20))
    await host.until_steady("b1")
    assert host.stop() == 0
    tree = shop.directory / "tree-b1"
    for name in ("part-0", "part-1"):
        (tree / name).write_text("b2")
    await shop.order(shop.pack_tree("b2", tree))
    said = await planned(host, 3)
    assert said["fetch"]["fetched_files"] == 2
    assert said["fetch"]["entries"] == 21
    assert said["fetch"]["fetched_bytes"] < 64 << 10


async def test_plan_knows_that_a_server_without_ranges_gives_everything(shop: Shop, new_host: NewHost) -> None:
    """The agent takes the artifact whole then, and so is it counted; a foreign archive likewise."""
    host = new_host()
    host.start()
    await shop.order(shop.pack("b1"))
    await host.until_steady("b1")
    assert host.stop() == 0
    manifest = shop.pack("b2", size_bytes=1 << 20)

    async def whole(request: web.Request) -> web.Response:
        return web.Response(body=(shop.directory / "artifacts" / request.match_info["name"]).read_bytes())

    for path in (shop.directory / "artifacts").glob(f"{APP}-b2.tar.zst*"):
        shop.behaviours[path.name] = whole
    await shop.order(manifest)
    fetch = (await planned(host, 3))["fetch"]
    assert (fetch["fetched_bytes"], fetch["entries"]) == (manifest.size, None)
    foreign = shop.tar("b3", [(tarfile.TarInfo("part-0"), b"b3")])
    await shop.order(foreign)
    fetch = (await planned(host, 3))["fetch"]
    assert (fetch["fetched_bytes"], fetch["entries"]) == (foreign.size, None)
    (shop.directory / "artifacts" / "b3.tar").unlink()
    said = await planned(host, 4)
    assert (said["verdict"], said["problem"]["kind"]) == ("stuck", "http_404")


async def test_plan_says_who_is_waited_for(shop: Shop, new_host: NewHost) -> None:
    """A worker in the build that serves, and the hosts that hold the slots."""
    config = '[drain]\nworkers = [{ command = "HOTCOLD_TEST_WORKER" }]\n[fetch]\nsplay_s = 100.0\n'
    host = new_host(config=config.replace("splay_s = 100.0", "splay_s = 0.0"))
    host.start()
    await shop.order(shop.pack("b1"))
    await host.until_steady("b1")
    assert host.stop() == 0
    host.write_config(config)
    await shop.order(shop.pack("b2"), max_unavailable=1)
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "input()", "HOTCOLD_TEST_WORKER"), cwd=host.hot, stdin=asyncio.subprocess.PIPE
    )
    slot = await shop.store.acquire_slot(slots_prefix(APP, TIER), 1, holder="web-9")
    assert slot is not None
    said = await planned(host, 3)
    worker.stdin.close()
    await worker.wait()
    splay, of_slot, of_worker = said["waits"]
    assert "fetch.splay_s" in splay
    assert of_slot == "for a slot: 1 may be out of service, and web-9 are"
    assert f"pid {worker.pid}" in of_worker
    assert "cwd" in of_worker or "working directory" in of_worker


async def test_plan_says_why_nothing_would_happen(shop: Shop, new_host: NewHost) -> None:
    """Held, refused, an order of the past, an artifact that is gone, no Consul: each with its reason."""
    host = new_host()
    host.write_config(PROBE.format(host.directory))
    host.start()
    await shop.order(shop.pack("b1"))
    await host.until_steady("b1")
    (host.directory / "bad").touch()
    await shop.order(shop.pack("b2"))
    await host.until_state("rolled_back")
    said = await planned(host, 4)
    assert said["verdict"] == "refused"
    assert "build b2 is refused here" in said["message"]
    assert "hotcold forget --app shop" in said["step"]

    await hotcold("hold", "--socket", str(host.socket), "--reason", "anna debugs")
    await host.until_state("held")
    said = await planned(host, 4)
    assert (said["verdict"], "held: anna debugs" in said["message"]) == ("held", True)
    assert said["step"] == "hotcold unhold --app shop"
    await hotcold("unhold", "--socket", str(host.socket))
    await host.until_state("rolled_back")
    assert host.stop() == 0

    await shop.order(shop.pack("b3"))
    for path in (shop.directory / "artifacts").glob(f"{APP}-b3*"):
        path.unlink()
    said = await planned(host, 4)
    assert (said["verdict"], said["problem"]["kind"]) == ("stuck", "http_404")

    await shop.order(shop.manifest("b1"), serial=1)
    said = await planned(host, 4)
    assert (said["verdict"], said["problem"]["kind"]) == ("refused", "order_serial")

    await shop.store.delete(tier_key(APP, TIER))
    assert (await planned(host, 4))["problem"]["kind"] == "order_absent"

    host.consul_address = "http://127.0.0.1:1"
    host.write_config()
    said = await planned(host, 4)
    assert (said["order_from"], said["problem"]["kind"]) == ("memory", "store_unreachable")


# --- doctor -----------------------------------------------------------------------------------------------------------


async def test_doctor_beside_a_running_agent_finds_it_well_and_leaves_no_trace(shop: Shop, new_host: NewHost) -> None:
    """Looked at while it serves; the disk and what Consul holds are as before, and the next deploy goes through."""
    host = new_host(config='[probe]\ncommand = ["true"]\n')
    host.start()
    await shop.order(shop.pack("b1"))
    await host.until_steady("b1")
    kept, stored = on_disk(host), await shop.store.read_prefix("hotcold/")
    etc = host.directory / "etc"
    arguments = ("doctor", "--config", str(host.config_path), "--etc", str(etc), "--json", "--timeout", "60")
    said = json.loads(await hotcold(*arguments, consul=host.consul_address))
    levels = {finding["check"]: finding["level"] for finding in said["findings"]}
    assert said["ok"]
    for check in ("config", "agent", "permissions", "layout", "consul", "rights", "artifacts"):
        assert levels[check] == "ok", said
    assert [name for name, _ in on_disk(host)] == [name for name, _ in kept]
    assert not [name for name in os.listdir(host.root) if "doctor" in name]  # noqa: PTH208 - a listing of a test's own
    assert await shop.store.read_prefix("hotcold/") == stored
    await shop.order(shop.pack("b2"))
    await host.until_steady("b2")


async def test_doctor_ends_in_time_where_consul_says_nothing(new_host: NewHost) -> None:
    """A server that takes connections and never answers holds up nobody."""

    async def say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass

    async with listening(say_nothing) as port:
        host = new_host()
        host.consul_address = f"http://127.0.0.1:{port}"
        host.write_config()
        host.root.mkdir()
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "hotcold",
                "doctor",
                "--config",
                str(host.config_path),
                "--timeout",
                "10",
                "--json",
            ),
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"CONSUL_HTTP_ADDR": ""},
        )
        async with asyncio.timeout(60):
            out, _ = await process.communicate()
    levels = {finding["check"]: finding["level"] for finding in json.loads(out)["findings"]}
    assert process.returncode == 1
    assert levels["consul"] == "wrong"
    assert levels["layout"] == "ok"
