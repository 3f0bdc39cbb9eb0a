"""py-consul, unchanged, against the dev server: what the adapter builds on works there."""

import asyncio
import base64
from collections.abc import AsyncIterator

import consul
import consul.aio
import pytest

from fleet.devserver import DevServer

# py-consul passes aiohttp a deprecated argument; the adapter brings its own transport and does not.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

DEADLINE_S = 10.0


@pytest.fixture
async def client() -> AsyncIterator[consul.aio.Consul]:
    async with DevServer() as server:
        host, port = server.address.removeprefix("http://").split(":")
        client = consul.aio.Consul(host=host, port=int(port))
        yield client
        await client.http.close()


def operation(verb: str, key: str, value: bytes = b"", **more: object) -> dict:
    return {"KV": {"Verb": verb, "Key": key, "Value": base64.b64encode(value).decode()} | more}


async def test_keys(client: consul.aio.Consul) -> None:
    """Values are bytes, missing keys None, lists and conditions work."""
    assert (await client.kv.get("a/1"))[1] is None
    assert await client.kv.put("a/1", b"\x00\xff", cas=0)
    assert not await client.kv.put("a/1", b"x", cas=0)
    index, entry = await client.kv.get("a/1")
    assert (entry["Value"], str(entry["ModifyIndex"])) == (b"\x00\xff", index)
    assert await client.kv.put("a/2", "", flags=2**64 - 1)
    _, entries = await client.kv.get("a/", recurse=True)
    assert [(entry["Key"], entry["Value"], entry["Flags"]) for entry in entries] == [
        ("a/1", b"\x00\xff", 0),
        ("a/2", None, 2**64 - 1),
    ]
    assert (await client.kv.get("", keys=True, separator="/"))[1] == ["a/"]
    assert not await client.kv.delete("a/1", cas=1)
    assert await client.kv.delete("a/1", cas=entry["ModifyIndex"])
    assert await client.kv.delete("a/", recurse=True)
    assert (await client.kv.get("a/", recurse=True))[1] is None


async def test_waiting(client: consul.aio.Consul) -> None:
    """A blocked get returns what another client has written."""
    await client.kv.put("a", "1")
    index, _ = await client.kv.get("a")
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        blocked = tasks.create_task(client.kv.get("a", index=index, wait="60s"))
        tasks.create_task(client.kv.put("a", "2"))
    assert blocked.result()[1]["Value"] == b"2"


async def test_transactions(client: consul.aio.Consul) -> None:
    """A conflict raises with the reason in its text."""
    done = await client.txn.put([operation("set", "a", b"1"), operation("get", "a")])
    assert done["Errors"] is None
    assert [result["KV"]["Value"] for result in done["Results"]] == [None, "MQ=="]
    with pytest.raises(consul.ConsulException, match=r"409.*index is stale"):
        await client.txn.put([operation("cas", "a", b"2", Index=1)])


async def test_sessions_and_locks(client: consul.aio.Consul) -> None:
    """A lock has one holder; a renewed session that is gone raises NotFound."""
    session = await client.session.create(ttl=10, checks=[], lock_delay=0, behavior="delete")
    other = await client.session.create(name="other")
    assert await client.kv.put("l", "me", acquire=session)
    assert not await client.kv.put("l", "me", acquire=other)
    assert (await client.session.renew(session))["ID"] == session
    assert {one["ID"] for one in (await client.session.list())[1]} == {session, other}
    assert (await client.session.info(session))[1]["Behavior"] == "delete"
    assert await client.session.destroy(session)
    assert (await client.session.info(session))[1] is None
    assert (await client.kv.get("l"))[1] is None
    with pytest.raises(consul.NotFound):
        await client.session.renew(session)
    with pytest.raises(consul.ConsulException, match="invalid session"):
        await client.kv.put("l", "me", acquire=session)


async def test_services_checks_and_maintenance(client: consul.aio.Consul) -> None:
    """A service is healthy while its TTL check passes and it is not in maintenance."""
    check = consul.Check.ttl("30s")
    assert await client.agent.service.register("web", "w1", port=80, meta={"build": "7"}, tags=["t"], check=check)
    assert (await client.health.service("web", passing=True))[1] == []
    assert await client.agent.check.ttl_pass("service:w1", notes="up")
    _, (healthy,) = await client.health.service("web", passing=True, tag="t")
    assert healthy["Service"]["Meta"] == {"build": "7"}
    assert (await client.agent.service_definition("w1"))["Port"] == 80
    assert not await client.agent.service.maintenance("unknown", True)  # noqa: FBT003 - their signature
    assert await client.agent.service.maintenance("w1", True, reason="why")  # noqa: FBT003 - their signature
    assert (await client.health.service("web", passing=True))[1] == []
    assert (await client.agent.checks())["_service_maintenance:w1"]["Notes"] == "why"
    assert await client.agent.service.maintenance("w1", False)  # noqa: FBT003 - their signature
    assert len((await client.health.state("passing"))[1]) == 2
    assert await client.agent.check.ttl_fail("service:w1", notes="down")
    assert [one["Output"] for one in (await client.health.checks("web"))[1]] == ["down"]
    assert await client.agent.service.deregister("w1")
    assert set(await client.agent.services()) == set()
    with pytest.raises(consul.ConsulException, match="does not have associated TTL"):
        await client.agent.check.ttl_pass("service:w1")


async def test_node_and_status(client: consul.aio.Consul) -> None:
    """The server names itself as its own leader and only node."""
    assert await client.status.leader() in await client.status.peers()
    assert (await client.agent.self())["Config"]["NodeName"] == "dev"
    assert [node["Node"] for node in (await client.catalog.nodes())[1]] == ["dev"]
    assert set((await client.catalog.services())[1]) == {"consul"}
    assert [check["CheckID"] for check in (await client.health.node("dev"))[1]] == ["serfHealth"]
