"""The dev server over HTTP: blocking queries, expiry by the clock, transactions, start and stop."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest

from fleet.devserver import DevServer

DEADLINE_S = 10.0


@dataclass
class Clock:
    """Monotonic seconds that pass when told to."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Client:
    """One HTTP client of one server."""

    server: DevServer
    http: aiohttp.ClientSession

    async def call(self, method: str, path: str, body: object = None) -> tuple[int, int, object]:
        """Status, index (0: none) and decoded body."""
        data = body if isinstance(body, str | bytes | None) else json.dumps(body)
        async with self.http.request(method, self.server.address + path, data=data, allow_redirects=False) as answer:
            raw = await answer.read()
            is_json = answer.content_type == "application/json"
            shown = json.loads(raw) if is_json else raw.decode()
            return answer.status, int(answer.headers.get("X-Consul-Index", 0)), shown

    def blocked(self, path: str) -> asyncio.Task:
        return asyncio.create_task(asyncio.wait_for(self.call("GET", path), DEADLINE_S))

    async def until_waiting(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while self.server.waiting_count != count:  # noqa: ASYNC110 - the server tells a count, not an event
                await asyncio.sleep(0.002)

    async def session(self, **fields: object) -> str:
        status, _, answer = await self.call("PUT", "/v1/session/create", {"Checks": []} | fields)
        assert status == 200, answer
        return answer["ID"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(clock: Clock) -> AsyncIterator[Client]:
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        DevServer(clock=clock, session_ttl_min_s=0.1) as server,
        aiohttp.ClientSession(connector=connector) as http,
    ):
        yield Client(server, http)


async def test_a_blocked_query_returns_when_its_key_changes(client: Client) -> None:
    """Only a change of the key itself wakes, at once, with the new value and a higher index."""
    await client.call("PUT", "/v1/kv/a", "1")
    _, index, _ = await client.call("GET", "/v1/kv/a")
    blocked = client.blocked(f"/v1/kv/a?index={index}&wait=60s")
    await client.until_waiting(1)
    await client.call("PUT", "/v1/kv/ab", "sibling")
    await client.call("PUT", "/v1/kv/a", "1")
    assert client.server.waiting_count == 1
    await client.call("PUT", "/v1/kv/a", "2")
    status, higher, entries = await blocked
    assert (status, entries[0]["Value"]) == (200, "Mg==")
    assert higher == entries[0]["ModifyIndex"] > index
    assert client.server.waiting_count == 0


async def test_deleting_and_creating_wake_too(client: Client) -> None:
    """A deleted key answers 404 with a higher index, and that index waits for its return."""
    await client.call("PUT", "/v1/kv/a", "1")
    _, index, _ = await client.call("GET", "/v1/kv/a")
    blocked = client.blocked(f"/v1/kv/a?index={index}")
    await client.until_waiting(1)
    await client.call("DELETE", "/v1/kv/a")
    status, gone_index, body = await blocked
    assert (status, body) == (404, "")
    assert gone_index > index
    blocked = client.blocked(f"/v1/kv/a?index={gone_index}")
    await client.until_waiting(1)
    await client.call("PUT", "/v1/kv/a", "back")
    status, back_index, _ = await blocked
    assert status == 200
    assert back_index > gone_index


async def test_a_blocked_list_wakes_for_keys_below_its_prefix_only(client: Client) -> None:
    """Writes beside the prefix wake nobody; one below it, even a deletion, does."""
    await client.call("PUT", "/v1/kv/p/1", "1")
    _, index, _ = await client.call("GET", "/v1/kv/p/?recurse")
    for path, write in (("recurse", ("PUT", "/v1/kv/p/2")), ("keys", ("DELETE", "/v1/kv/p/2"))):
        blocked = client.blocked(f"/v1/kv/p/?{path}&index={index}")
        await client.until_waiting(1)
        await client.call("PUT", "/v1/kv/q/1", path)
        assert client.server.waiting_count == 1
        await client.call(*write)
        _, higher, entries = await blocked
        assert higher > index
        index = higher
    assert entries == ["p/1"]


async def test_a_wait_that_ends_shows_what_there_is(client: Client) -> None:
    """After `wait` the answer comes with the old index."""
    await client.call("PUT", "/v1/kv/a", "1")
    _, index, entries = await client.call("GET", "/v1/kv/a")
    assert await client.call("GET", f"/v1/kv/a?index={index}&wait=20ms") == (200, index, entries)


async def test_an_index_from_the_future_waits_and_then_shows_the_real_one(client: Client) -> None:
    """As after a restored snapshot: lower writes do not wake, the answer carries the lower index."""
    await client.call("PUT", "/v1/kv/a", "1")
    blocked = client.blocked("/v1/kv/a?index=1000000&wait=300ms")
    await client.until_waiting(1)
    await client.call("PUT", "/v1/kv/a", "2")
    _, index, entries = await blocked
    assert index == entries[0]["ModifyIndex"] < 1000000
    assert entries[0]["Value"] == "Mg=="


async def test_hundreds_of_blocked_queries_all_wake_and_leave_nothing(client: Client) -> None:
    """One write reaches every watcher."""
    await client.call("PUT", "/v1/kv/a", "1")
    _, index, _ = await client.call("GET", "/v1/kv/a")
    blocked = [client.blocked(f"/v1/kv/a?index={index}") for _ in range(300)]
    await client.until_waiting(300)
    await client.call("PUT", "/v1/kv/a", "2")
    async with asyncio.timeout(DEADLINE_S):
        answers = await asyncio.gather(*blocked)
    assert {entries[0]["Value"] for _, _, entries in answers} == {"Mg=="}
    assert client.server.waiting_count == 0


async def test_a_client_that_goes_away_leaves_no_waiter(client: Client) -> None:
    """A cancelled query is forgotten at once."""
    blocked = client.blocked("/v1/kv/a?index=1000")
    await client.until_waiting(1)
    blocked.cancel()
    await client.until_waiting(0)


async def test_a_failed_transaction_changes_nothing_and_wakes_nobody(client: Client) -> None:
    """One operation that cannot be done undoes those before it."""
    await client.call("PUT", "/v1/kv/t/a", "1")
    before = await client.call("GET", "/v1/kv/t/?recurse")
    blocked = client.blocked(f"/v1/kv/t/?recurse&index={before[1]}")
    await client.until_waiting(1)
    operations = [
        {"KV": {"Verb": "set", "Key": "t/b", "Value": "Mg=="}},
        {"KV": {"Verb": "delete", "Key": "t/a"}},
        {"KV": {"Verb": "cas", "Key": "t/c", "Index": 7, "Value": "Mg=="}},
    ]
    status, _, answer = await client.call("PUT", "/v1/txn", operations)
    assert status == 409
    assert answer["Errors"] == [{"OpIndex": 2, "What": 'failed to set key "t/c", index is stale'}]
    assert await client.call("GET", "/v1/kv/t/?recurse") == before
    assert client.server.waiting_count == 1
    blocked.cancel()


async def test_a_transaction_shows_its_changes_all_at_once(client: Client) -> None:
    """A watcher of the prefix wakes once and sees all of it, at one index."""
    _, index, _ = await client.call("GET", "/v1/kv/t/?recurse")
    blocked = client.blocked(f"/v1/kv/t/?recurse&index={index}")
    await client.until_waiting(1)
    operations = [{"KV": {"Verb": "set", "Key": f"t/{n}", "Value": "eA=="}} for n in range(64)]
    status, _, answer = await client.call("PUT", "/v1/txn", operations)
    assert status == 200
    assert len(answer["Results"]) == 64
    _, _, entries = await blocked
    assert len(entries) == 64
    assert len({entry["ModifyIndex"] for entry in entries}) == 1


async def test_a_session_ends_after_twice_its_ttl_and_lets_go(client: Client, clock: Clock) -> None:
    """Its lock is free for others after the lock delay, counted from the end."""
    lost = await client.session(TTL="10s", LockDelay="5s")
    other = await client.session()
    assert (await client.call("PUT", f"/v1/kv/l?acquire={lost}", "x"))[2] is True
    clock.now_s += 15.0
    assert (await client.call("PUT", f"/v1/session/renew/{lost}"))[0] == 200
    clock.now_s += 19.9
    assert (await client.call("PUT", f"/v1/kv/l?acquire={other}", "y"))[2] is False
    clock.now_s += 0.1
    assert (await client.call("PUT", f"/v1/session/renew/{lost}"))[0] == 404
    _, _, entries = await client.call("GET", "/v1/kv/l")
    assert "Session" not in entries[0]
    clock.now_s += 4.9
    assert (await client.call("PUT", f"/v1/kv/l?acquire={other}", "y"))[2] is False
    clock.now_s += 0.2
    assert (await client.call("PUT", f"/v1/kv/l?acquire={other}", "y"))[2] is True


async def test_a_session_of_behaviour_delete_takes_its_keys_with_it(client: Client) -> None:
    """Ephemeral keys go with their session, and their watchers hear of it."""
    session = await client.session(Behavior="delete", LockDelay="0s")
    await client.call("PUT", f"/v1/kv/l?acquire={session}", "x")
    _, index, _ = await client.call("GET", "/v1/kv/l")
    blocked = client.blocked(f"/v1/kv/l?index={index}")
    await client.until_waiting(1)
    await client.call("PUT", f"/v1/session/destroy/{session}")
    assert (await blocked)[0] == 404


async def test_time_alone_wakes_watchers() -> None:
    """With the real clock, a session that runs out wakes whoever waits for its key, without any request."""
    async with DevServer(session_ttl_min_s=0.01) as server, aiohttp.ClientSession() as http:
        client = Client(server, http)
        session = await client.session(TTL="50ms", LockDelay="0s")
        await client.call("PUT", f"/v1/kv/l?acquire={session}", "x")
        _, index, _ = await client.call("GET", "/v1/kv/l")
        async with asyncio.timeout(DEADLINE_S):
            _, _, entries = await client.call("GET", f"/v1/kv/l?index={index}")
        assert "Session" not in entries[0]


async def test_a_check_that_runs_out_wakes_whoever_watches_the_service(client: Client, clock: Clock) -> None:
    """The service leaves the passing ones one TTL after its last report."""
    body = {"Name": "web", "Check": {"TTL": "10s", "Status": "passing"}}
    await client.call("PUT", "/v1/agent/service/register", body)
    _, index, found = await client.call("GET", "/v1/health/service/web?passing")
    assert len(found) == 1
    blocked = client.blocked(f"/v1/health/service/web?passing&index={index}")
    await client.until_waiting(1)
    clock.now_s += 10.0
    await client.call("GET", "/v1/status/leader")
    _, higher, found = await blocked
    assert higher > index
    assert found == []


async def test_a_session_that_depends_on_a_check_ends_with_it(client: Client) -> None:
    """A check that turns critical invalidates the sessions that name it; a missing one refuses them."""
    check = {"Name": "c", "TTL": "10s", "Status": "passing"}
    await client.call("PUT", "/v1/agent/check/register", check)
    session = await client.session(Checks=["serfHealth", "c"])
    await client.call("PUT", "/v1/agent/check/fail/c")
    assert (await client.call("GET", f"/v1/session/info/{session}"))[2] == []
    status, _, text = await client.call("PUT", "/v1/session/create", {"Checks": ["c"]})
    assert (status, text) == (500, "Check 'c' is in critical state")


async def test_the_catalogue_of_the_node_wakes_when_services_come_and_go(client: Client) -> None:
    """Watching the names of services works like watching keys."""
    _, index, _ = await client.call("GET", "/v1/catalog/services")
    blocked = client.blocked(f"/v1/catalog/services?index={index}")
    await client.until_waiting(1)
    await client.call("PUT", "/v1/agent/service/register", {"Name": "web", "Tags": ["b", "a"]})
    _, index, names = await blocked
    assert names == {"consul": [], "web": ["a", "b"]}
    blocked = client.blocked(f"/v1/health/service/web?index={index}")
    await client.until_waiting(1)
    await client.call("PUT", "/v1/agent/service/deregister/web")
    assert (await blocked)[2] == []


async def test_registering_can_drop_the_checks_that_are_no_longer_named(client: Client) -> None:
    """Without `replace-existing-checks` a check that is no longer named stays."""
    two = [{"CheckID": "one", "TTL": "10s"}, {"CheckID": "two", "TTL": "10s"}]
    await client.call("PUT", "/v1/agent/service/register", {"Name": "web", "Checks": two})
    await client.call("PUT", "/v1/agent/service/register", {"Name": "web", "Checks": two[:1]})
    assert set((await client.call("GET", "/v1/agent/checks"))[2]) == {"one", "two"}
    path = "/v1/agent/service/register?replace-existing-checks=true"
    await client.call("PUT", path, {"Name": "web", "Checks": two[:1]})
    assert set((await client.call("GET", "/v1/agent/checks"))[2]) == {"one"}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/acl/tokens", None),
        ("GET", "/v1/agent/members", None),
        ("PUT", "/v1/snapshot", "x"),
        ("GET", "/v1/health/service/web?filter=x", None),
        ("GET", "/v1/agent/service/web?hash=x", None),
        ("PUT", "/v1/agent/service/register", '{"Name": "w", "Check": {"HTTP": "http://x", "Interval": "1s"}}'),
        ("PUT", "/v1/agent/service/register", '{"Name": "w", "Kind": "connect-proxy"}'),
        ("PUT", "/v1/txn", '[{"Node": {"Verb": "get"}}]'),
    ],
)
async def test_what_the_dev_server_lacks_is_refused_clearly(
    client: Client, method: str, path: str, body: str | None
) -> None:
    """What Consul has and this has not answers 501 and says what to do, rather than something wrong."""
    status, _, text = await client.call(method, path, body)
    assert status == 501
    assert "use a real Consul" in text


async def test_stopping_answers_what_waits_and_a_restart_keeps_port_and_data(client: Client) -> None:
    """A stop looks like Consul's: 200 with the old index, then connections are refused until the restart."""
    await client.call("PUT", "/v1/kv/a", "1")
    _, index, entries = await client.call("GET", "/v1/kv/a")
    blocked = client.blocked(f"/v1/kv/a?index={index}")
    await client.until_waiting(1)
    address = client.server.address
    await client.server.aclose()
    assert await blocked == (200, index, entries)
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.call("GET", "/v1/kv/a")
    await client.server.aclose()
    await client.server.start()
    await client.server.start()
    assert client.server.address == address
    assert await client.call("GET", "/v1/kv/a") == (200, index, entries)


async def test_a_taken_port_is_an_error_and_leaves_nothing_open(client: Client) -> None:
    """Starting on a taken port fails and can be tried again."""
    port = int(client.server.address.rpartition(":")[2])
    other = DevServer(port=port)
    with pytest.raises(OSError, match="address already in use"):
        await other.start()
    await client.server.aclose()
    await other.start()
    await other.aclose()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_prints_its_address_and_stops_on_a_signal(number: signal.Signals) -> None:
    """`python -m fleet.devserver` serves until it is told to stop, and exits 0."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fleet.devserver", stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(DEADLINE_S):
        address = (await process.stdout.readline()).decode().strip()
        async with aiohttp.ClientSession() as http, http.get(f"{address}/v1/status/leader") as answer:
            assert f"http://{await answer.json()}" == address
        process.send_signal(number)
        assert await process.wait() == 0


async def test_the_command_refuses_a_taken_port(client: Client) -> None:
    """The message says which address and what to do; the exit status is 1."""
    port = client.server.address.rpartition(":")[2]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fleet.devserver", "--port", port), stderr=asyncio.subprocess.PIPE
    )
    _, text = await process.communicate()
    assert process.returncode == 1
    assert f"127.0.0.1:{port}" in text.decode()
    assert "choose another --port" in text.decode()
