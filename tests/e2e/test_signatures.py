"""Signed deploys with real agents: what is not signed by a trusted key is not even fetched, and hot stays as it is."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest
from aiohttp import web

from artifact import Manifest, ManifestRef
from artifact.keyfiles import read_secret_key
from artifact.secretkey import SecretKey
from artifact.signing import signature_by
from fleet import decode_report
from fleet.keys import host_key
from tests.e2e.host import APP, TIER, Host, Shop, hotcold, until

NewHost = Callable[..., Host]
CI, NEXT = (
    SecretKey(id_, seed) for id_, seed in ((b"\x01key-one", bytes(range(32))), (b"\x02key-two", bytes(range(32, 64))))
)


def trusting(*keys: SecretKey) -> str:
    return f"trusted_keys = {json.dumps([key.public.line() for key in keys])}\n"


def signed(shop: Shop, build: Manifest, key: SecretKey = CI) -> ManifestRef:
    return msgspec.structs.replace(shop.ref(build), signature=signature_by(key, build))


def count_fetches(shop: Shop, build_id: str) -> list[str]:
    """From now on, one entry per request for the build's artifact, which is not given."""
    asked: list[str] = []

    async def refuse(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=500)

    shop.behaviours[f"{APP}-{build_id}.tar.zst"] = refuse
    return asked


async def serving_b1(shop: Shop, new_host: NewHost, *keys: SecretKey) -> Host:
    host = new_host(config=trusting(*keys))
    host.start()
    await shop.order(signed(shop, shop.pack("b1")))
    await host.until_steady("b1")
    return host


async def reload(host: Host, *keys: SecretKey) -> None:
    """Trust these keys from now on; ends when that is so."""
    said = "configuration read again"
    count = host.log.read_text().count(said)
    host.write_config(trusting(*keys))
    host.signal(signal.SIGHUP)

    async def is_read() -> bool:
        return host.log.read_text().count(said) > count

    await until(said, is_read)


async def test_the_whole_way_by_commands(shop: Shop, new_host: NewHost) -> None:
    """A new key, builds that are signed as they are packed, deploys, and a rollback that carries its signature."""
    secret, artifacts = shop.directory / "ci.key", shop.directory / "artifacts"
    made = await hotcold("key", "new", str(secret), "--no-password")
    host = new_host(config=f'trusted_keys = ["{shop.directory / "ci.pub"}"]\n')
    host.start()
    for name in ("b1", "b2"):
        tree = shop.directory / name
        tree.mkdir()
        (tree / "part-0").write_text(name)
        packed = await hotcold(
            "pack", str(tree), "--app", APP, "--id", name, "--out", str(artifacts), "--key", str(secret)
        )
        assert "signed    by key " in packed
        await hotcold(
            "deploy", f"{shop.url}/{APP}-{name}.json", "--app", APP, "--tier", TIER, consul=host.consul_address
        )
        status = await host.until_steady(name)
        assert f"key id      {status['order']['signed_by']}\n" in made

    await hotcold("rollback", "--app", APP, "--tier", TIER, "--reason", "back", consul=host.consul_address)

    status = await host.until_steady("b1")
    assert status["order"]["signed_by"] == read_secret_key(secret, bytes).public.key_id
    assert status["order_problem"] is None
    assert f"signed by key {status['order']['signed_by']}" in await hotcold("status", "--socket", str(host.socket))


def unsigned(shop: Shop) -> ManifestRef:
    return shop.ref(shop.pack("b2"))


def foreign(shop: Shop) -> ManifestRef:
    return signed(shop, shop.pack("b2"), NEXT)


def of_another_build(shop: Shop) -> ManifestRef:
    other = signed(shop, shop.manifest("b1"))
    return msgspec.structs.replace(shop.ref(shop.pack("b2")), signature=other.signature)


def of_other_bytes(shop: Shop) -> ManifestRef:
    """The signed id, and another artifact under it: what write access to Consul and to the artifacts could do."""
    one, other = signed(shop, shop.pack("b2")), shop.ref(shop.pack("b3"))
    return msgspec.structs.replace(other, id="b2", signature=one.signature)


def of_another_app(shop: Shop) -> ManifestRef:
    build = shop.pack("b2")
    signature = signature_by(CI, msgspec.structs.replace(build, app="bank"))
    return msgspec.structs.replace(shop.ref(build), signature=signature)


def altered(shop: Shop) -> ManifestRef:
    build = signed(shop, shop.pack("b2"))
    lines = (build.signature or "").split("\n")
    lines[3] = "A" * 86 + "=="
    return msgspec.structs.replace(build, signature="\n".join(lines))


def junk(shop: Shop) -> ManifestRef:
    return msgspec.structs.replace(shop.ref(shop.pack("b2")), signature="x" * 300_000)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (unsigned, "build_unsigned", f"one of these keys signed: {CI.public.key_id}. "),
        (
            foreign,
            "signature_untrusted",
            f"by key {NEXT.public.key_id}, which is not trusted here; trusted: {CI.public.key_id}. ",
        ),
        (of_another_build, "signature_mismatch", "signed 'hotcold app:shop build:b1', not 'hotcold app:shop build:b2'"),
        (of_other_bytes, "signature_mismatch", f"are not what key {CI.public.key_id} signed under this id"),
        (of_another_app, "signature_mismatch", "signed 'hotcold app:bank build:b2', not 'hotcold app:shop build:b2'"),
        (altered, "signature_mismatch", f"was altered, or key {CI.public.key_id} never made it"),
        (junk, "signature_malformed", "it has 300000 characters"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_what_nobody_trusted_signed_is_not_even_fetched(
    make: Callable[[Shop], ManifestRef], kind: str, message: str, shop: Shop, new_host: NewHost
) -> None:
    """Status and report say why; hot stays, and the next good order is obeyed, under any higher serial."""
    host = await serving_b1(shop, new_host, CI)
    build = make(shop)
    asked = count_fetches(shop, "b2")

    await shop.order(build, serial=1_000_000)

    status = await host.until("refused", lambda s: s["order_problem"])
    assert status["order_problem"]["kind"] == kind
    assert message in status["order_problem"]["message"]
    assert status["problem"] == status["order_problem"]
    assert (status["state"]["name"], status["highest_serial"]) == ("steady", 1)
    assert (status["order"]["build"], status["order"]["signed_by"]) == ("b1", CI.public.key_id)

    async def reported() -> object:
        entry = await shop.store.read(host_key(APP, TIER, host.name))
        problem = None if entry is None else decode_report(entry.value).problem
        return None if problem is None else problem.kind

    assert await until("the report", reported) == kind
    await hotcold("status", "--socket", str(host.socket), exits=4)
    assert host.stamps() == {"b1"}
    assert [path.name for path in (host.root / "releases").iterdir()] == ["b1~1"]
    assert asked == []

    await shop.order(signed(shop, shop.pack("b9")), serial=2)
    status = await host.until_steady("b9")
    assert status["order_problem"] is None


async def test_going_back_to_a_build_on_the_disk_needs_the_signature_too(shop: Shop, new_host: NewHost) -> None:
    """Else whoever writes the key could order any tree that was ever deployed, under any id."""
    host = await serving_b1(shop, new_host, CI)
    await shop.order(signed(shop, shop.pack("b2")))
    await host.until_steady("b2")

    await shop.order(shop.manifest("b1"))

    status = await host.until("refused", lambda s: s["order_problem"])
    assert status["order_problem"]["kind"] == "build_unsigned"
    assert host.stamps() == {"b2"}
    await shop.order(signed(shop, shop.manifest("b1")))
    await host.until_steady("b1")


async def test_only_the_build_of_this_host_counts(shop: Shop, new_host: NewHost) -> None:
    """Beyond the cutoff, an unsigned `build` is no obstacle, and an unsigned `previous` is one."""
    host = await serving_b1(shop, new_host, CI)
    one, other = signed(shop, shop.pack("b2")), shop.ref(shop.pack("b3"))

    await shop.order(other, previous=one, cutoff=0.0, percent=1.0)
    await host.until_steady("b2")

    await shop.order(one, previous=other, cutoff=0.0, percent=1.0)
    status = await host.until("refused", lambda s: s["order_problem"])
    assert status["order_problem"]["kind"] == "build_unsigned"
    assert host.stamps() == {"b2"}


async def test_a_key_takes_over_from_another_by_reload(shop: Shop, new_host: NewHost) -> None:
    """The new key's order waits in Consul, is obeyed as soon as the key is trusted, and the old key can go."""
    host = await serving_b1(shop, new_host, CI)
    await shop.order(signed(shop, shop.pack("b2"), NEXT))
    await host.until("refused", lambda s: s["order_problem"])

    await reload(host, CI, NEXT)
    status = await host.until_steady("b2")
    assert (status["order"]["signed_by"], status["order_problem"]) == (NEXT.public.key_id, None)

    await reload(host, NEXT)
    await shop.order(signed(shop, shop.manifest("b1")))
    status = await host.until("refused", lambda s: s["order_problem"])
    assert status["order_problem"]["kind"] == "signature_untrusted"
    assert host.stamps() == {"b2"}


async def test_a_key_that_is_revoked_leaves_what_runs(shop: Shop, new_host: NewHost) -> None:
    """The order loses its voice, also over a restart and for a re-pull; the build stays; a re-signed one is obeyed."""
    host = await serving_b1(shop, new_host, CI)

    await reload(host, NEXT)
    status = await host.until("revoked", lambda s: s["order_problem"])
    assert status["order_problem"]["kind"] == "signature_untrusted"
    assert (status["state"]["name"], status["hot"]["build"]) == ("steady", "b1")
    assert (status["order"]["build"], status["order"]["signed_by"]) == (None, None)

    await hotcold("repull", "--socket", str(host.socket), exits=1)
    host.kill()
    host.start()
    status = await host.until("still revoked", lambda s: s["order_problem"])
    assert (status["state"]["name"], status["highest_serial"]) == ("steady", 1)
    assert host.stamps() == {"b1"}

    await shop.order(signed(shop, shop.manifest("b1"), NEXT))
    status = await host.until("obeyed", lambda s: s["order"]["serial"] == 2)
    assert (status["order"]["signed_by"], status["order_problem"]) == (NEXT.public.key_id, None)
    assert [path.name for path in (host.root / "releases").iterdir()] == ["b1~1"]


async def test_a_key_that_is_revoked_stops_a_deploy_before_the_swap(shop: Shop, new_host: NewHost) -> None:
    """A fetch under way is abandoned; trusted again, it goes on without another order."""
    host = await serving_b1(shop, new_host, CI)
    build = signed(shop, shop.pack("b2", size_bytes=100_000))
    let_go = asyncio.Event()

    async def hang(_: web.Request) -> web.StreamResponse:
        await let_go.wait()
        return web.Response(status=500)

    shop.behaviours[f"{APP}-b2.tar.zst"] = hang
    await shop.order(build)
    await host.until_state("fetching")

    await reload(host, NEXT)
    status = await host.until("revoked", lambda s: s["order_problem"] and s["cold"] is None and s["progress"] is None)
    assert (status["state"]["name"], status["hot"]["build"]) == ("steady", "b1")
    await until("the child is gone", lambda: no_children(host))
    assert host.stamps() == {"b1"}

    let_go.set()
    del shop.behaviours[f"{APP}-b2.tar.zst"]
    await reload(host, CI)
    await host.until_steady("b2")


async def no_children(host: Host) -> bool:
    return psutil.Process(host.pid).children() == []


async def test_a_remembered_order_is_judged_at_the_start(shop: Shop, new_host: NewHost) -> None:
    """Keys that were configured while the agent was down count for the order that it finds in its memory."""
    host = new_host()
    host.start()
    await shop.order(shop.pack("b1"))
    await host.until_steady("b1")
    asked = count_fetches(shop, "b2")
    await shop.order(shop.pack("b2"))
    await host.until_state("backing_off")
    host.stop()
    asked.clear()

    host.write_config(trusting(CI))
    host.start()

    status = await host.until("judged", lambda s: s["order_problem"])
    assert (status["order_problem"]["kind"], status["highest_serial"]) == ("build_unsigned", 2)
    assert (status["state"]["name"], status["hot"]["build"]) == ("steady", "b1")
    assert asked == []


async def test_keys_that_cannot_be_read_are_refused_and_the_old_stay(shop: Shop, new_host: NewHost) -> None:
    """A reload never opens the door: neither a missing file nor a typo leaves the host without trusted keys."""
    host = await serving_b1(shop, new_host, CI)
    host.write_config('trusted_keys = ["/nonexistent/ci.pub"]\n')
    host.signal(signal.SIGHUP)
    status = await host.until("refused", lambda s: s["config"]["problem"])
    assert 'trusted_keys[0] = "/nonexistent/ci.pub": ' in status["config"]["problem"]

    await shop.order(shop.pack("b2"))

    status = await host.until("refused", lambda s: s["order_problem"])
    assert status["order_problem"]["kind"] == "build_unsigned"


async def test_trusting_keys_costs_little_memory(shop: Shop, new_host: NewHost) -> None:
    """Side by side with an agent that trusts none, which does not even load the library that verifies."""
    hosts = [new_host("plain"), new_host("trusting", trusting(CI))]
    for host in hosts:
        host.start()
    await shop.order(signed(shop, shop.pack("b1")))
    for host in hosts:
        await host.until_steady("b1")

    resident_mib = [psutil.Process(host.pid).memory_info().rss / 1024**2 for host in hosts]
    print("resident: {:.1f} MiB, with trusted keys {:.1f} MiB".format(*resident_mib))  # noqa: T201
    mapped = [{Path(part.path).name for part in psutil.Process(host.pid).memory_maps()} for host in hosts]
    assert [any("sodium" in name for name in names) for names in mapped] == [False, True]
    assert resident_mib[1] < 60
