"""The dev server answers like a real Consul, request by request, in long sequences and in blocking queries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.consul_process import NO_CONSUL, ConsulDev, find_consul
from tests.devserver_sides import SETTLE_S, UNKNOWN, Side, Step, both_sides, delete, get, op, put, same, same_soon, txn

pytestmark = pytest.mark.consul


@pytest.fixture(scope="module")
def consul_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Consul of this module's own, because its tests want to find nothing else in it."""
    if find_consul() is None:
        pytest.skip(NO_CONSUL)
    with ConsulDev(tmp_path_factory.mktemp("consul"), "-node=dev") as consul:
        yield consul.address


@pytest.fixture
async def sides(consul_address: str) -> AsyncIterator[tuple[Side, Side]]:
    async with both_sides(consul_address) as sides:
        yield sides


async def test_reading_and_writing_keys(sides: tuple[Side, Side]) -> None:
    """Values, flags, lists, separators, raw bodies, deletions, and the index each read shows."""
    await same(
        sides,
        get("/v1/kv/k/none"),
        get("/v1/kv/k/none?raw"),
        get("/v1/kv/k/?keys"),
        get("/v1/kv/k/?recurse"),
        put("/v1/kv/k/a", "hello"),
        get("/v1/kv/k/a"),
        get("/v1/kv/k/a?raw"),
        put("/v1/kv/k/a", "hello"),
        get("/v1/kv/k/a"),
        put("/v1/kv/k/a?flags=7", "hello"),
        get("/v1/kv/k/a"),
        put("/v1/kv/k/a", b"\x00\xff"),
        get("/v1/kv/k/a?stale"),
        get("/v1/kv/k/a?consistent"),
        get("/v1/kv/k/a?dc=dc1"),
        put("/v1/kv/k/empty"),
        get("/v1/kv/k/empty"),
        get("/v1/kv/k/empty?raw"),
        put("/v1/kv/k/dir/1", "1"),
        put("/v1/kv/k/dir/2", "2"),
        put("/v1/kv/k/with%20space%2Fand%C3%A9", "2"),
        get("/v1/kv/k/with%20space/and%C3%A9"),
        get("/v1/kv/k/?keys"),
        get("/v1/kv/k/?keys&separator=/"),
        get("/v1/kv/k/d?keys&separator=/"),
        get("/v1/kv/k/dir/?recurse"),
        get("/v1/kv/?keys"),
        get("/v1/kv/?recurse"),
        delete("/v1/kv/k/dir/2"),
        get("/v1/kv/k/dir/?recurse"),
        get("/v1/kv/k/dir/2"),
        get("/v1/kv/k/a"),
        delete("/v1/kv/k/dir/2"),
        get("/v1/kv/k/dir/?recurse"),
        delete("/v1/kv/k/dir/?recurse"),
        get("/v1/kv/k/dir/?recurse"),
        get("/v1/kv/k/?keys"),
        delete("/v1/kv/k?recurse"),
        get("/v1/kv/k/?keys"),
        put("/v1/kv/k/max", "x" * (512 * 1024)),
        get("/v1/kv/k/?keys"),
        put("/v1/kv/k/big", "x" * (512 * 1024 + 1)),
        get("/v1/kv/k/big"),
    )


async def test_check_and_set(sides: tuple[Side, Side]) -> None:
    """0 means "does not exist"; anything else the modify index; deleting what is gone succeeds."""
    await same(
        sides,
        put("/v1/kv/c/a?cas=5", "1"),
        put("/v1/kv/c/a?cas=0", "1"),
        put("/v1/kv/c/a?cas=0", "2"),
        get("/v1/kv/c/a", save_index="m1"),
        put("/v1/kv/c/a?cas=<m1>", "1"),
        get("/v1/kv/c/a"),
        put("/v1/kv/c/a?cas=<m1>", "2"),
        put("/v1/kv/c/a?cas=<m1>", "3"),
        get("/v1/kv/c/a", save_index="m2"),
        delete("/v1/kv/c/a?cas=0"),
        delete("/v1/kv/c/a?cas=<m1>"),
        delete("/v1/kv/c/a?cas=<m2>"),
        delete("/v1/kv/c/a?cas=<m2>"),
        get("/v1/kv/c/a"),
    )


async def test_sessions_and_locks(sides: tuple[Side, Side]) -> None:
    """Locking, locking again, plain writes under a lock, releasing, ending a session, the lock delay."""
    await same(
        sides,
        put("/v1/session/create", {"TTL": "20s", "Checks": [], "LockDelay": "0s"}, save="s1"),
        put("/v1/session/create", {"ttl": "60s", "checks": [], "lockdelay": 30, "behavior": "delete"}, save="s2"),
        put("/v1/session/create", save="s3"),
        put("/v1/session/create", {"Name": "n", "LockDelay": "1500ms", "Foo": 1}, save="s4"),
        get("/v1/session/list"),
        get("/v1/session/node/dev"),
        get("/v1/session/info/<s2>"),
        put("/v1/session/renew/<s1>"),
        put("/v1/session/renew/<s3>"),
        put("/v1/kv/l/1?acquire=<s1>", "me"),
        get("/v1/kv/l/1"),
        put("/v1/kv/l/1?acquire=<s1>", "me"),
        get("/v1/kv/l/1"),
        put("/v1/kv/l/1?acquire=<s1>&flags=3", "me again"),
        get("/v1/kv/l/1"),
        put("/v1/kv/l/1?acquire=<s2>", "other"),
        put("/v1/kv/l/1?release=<s2>", "other"),
        get("/v1/kv/l/1"),
        put("/v1/kv/l/1", "plain"),
        get("/v1/kv/l/1"),
        put("/v1/kv/l/1?release=<s1>", "done"),
        get("/v1/kv/l/1"),
        put("/v1/kv/l/1?release=<s1>", "done"),
        put("/v1/kv/l/1?acquire=<s2>", "next"),
        get("/v1/kv/l/1"),
        put("/v1/kv/l/none?release=<s1>", "x"),
        get("/v1/kv/l/none"),
        put("/v1/kv/l/2?acquire=<s1>", "x"),
        put("/v1/session/destroy/<s1>"),
        get("/v1/kv/l/2"),
        get("/v1/kv/l/?recurse"),
        put("/v1/session/renew/<s1>"),
        put("/v1/kv/l/2?acquire=<s2>", "no delay"),
        put("/v1/session/destroy/<s2>"),
        get("/v1/kv/l/?recurse"),
        get("/v1/kv/l/2"),
        put("/v1/kv/l/2?acquire=<s3>", "delayed"),
        txn(op("lock", "l/2", Session="<s3>")),
        put("/v1/kv/l/2", "plain writes are not delayed"),
        put("/v1/kv/l/3?acquire=<s3>", "another key is not delayed"),
        delete("/v1/kv/l/3"),
        put("/v1/kv/l/3?acquire=<s3>", "again"),
        get("/v1/kv/l/3"),
        get("/v1/session/info/<s1>"),
        get("/v1/session/list"),
    )


async def test_transactions(sides: tuple[Side, Side]) -> None:
    """Every verb, when it can be done and when it cannot; what failed, and that nothing of it remains."""
    await same(
        sides,
        put("/v1/session/create", {"Checks": [], "LockDelay": "0s"}, save="s1"),
        put("/v1/session/create", {"Checks": [], "LockDelay": "0s"}, save="s2"),
        put("/v1/kv/t/a", "1"),
        get("/v1/kv/t/a", save_index="a"),
        put("/v1/txn", []),
        txn(op("set", "t/x", Value="MQ==", Flags=9), op("get", "t/x"), op("delete", "t/x")),
        txn(op("set", "t/n", Value=None), op("get", "t/n"), op("delete", "t/none")),
        txn(op("cas", "t/c", Index=0, Value="eA=="), op("cas", "t/d", Value="eA=="), op("get-tree", "t/")),
        txn(op("check-not-exists", "t/z"), op("delete-cas", "t/z", Index=3), op("delete-tree", "t/c")),
        txn(op("check-session", "t/a"), op("check-not-exists", "t/z")),
        txn(op("get", "t/a"), op("get-tree", "none/")),
        txn(op("get", "t/none")),
        txn(op("bogus", "t/a")),
        txn(op("set", "", Value="MQ=="), op("get", "")),
        txn(op("get-tree", ""), op("check-index", "t/none", Index=0)),
        txn(
            op("set", "t/lost", Value="MQ=="),
            op("cas", "t/a", Index=1, Value="MQ=="),
            op("get", "t/none"),
            op("check-index", "t/a", Index=5),
            op("check-index", "t/none", Index=5),
            op("check-not-exists", "t/a"),
            op("delete-cas", "t/a", Index=3),
            op("check-session", "t/a", Session=UNKNOWN),
            op("check-session", "t/none", Session=UNKNOWN),
            op("lock", "t/a", Session=UNKNOWN),
            op("lock", "t/a"),
            op("unlock", "t/a", Session=UNKNOWN),
            op("unlock", "t/a"),
            op("bogus", "t/a"),
        ),
        get("/v1/kv/t/?recurse"),
        put("/v1/txn", '[{"KV": {"Verb": "check-index", "Key": "t/a", "Index": <a>}}]'),
        put("/v1/txn", '[{"KV": {"Verb": "cas", "Key": "t/a", "Index": <a>, "Value": "MQ=="}}]'),
        put("/v1/txn", '[{"KV": {"Verb": "cas", "Key": "t/a", "Index": <a>, "Value": "Mg=="}}]'),
        put("/v1/txn", '[{"KV": {"Verb": "delete-cas", "Key": "t/a", "Index": <a>}}]'),
        txn(op("lock", "t/l", Session="<s1>", Value="eA=="), op("check-session", "t/l", Session="<s1>")),
        txn(op("check-session", "t/l", Session="<s2>")),
        txn(op("lock", "t/l", Session="<s2>")),
        txn(op("unlock", "t/l", Session="<s2>")),
        txn(op("unlock", "t/l", Session="<s1>", Value="eQ==")),
        txn(op("get", "t/l")),
        txn(*[op("set", f"t/many/{number:02}", Value="eA==") for number in range(64)]),
        get("/v1/kv/t/many/?keys"),
        txn(op("delete-tree", "t/many/")),
        get("/v1/kv/t/?recurse"),
    )


async def test_services_and_checks(sides: tuple[Side, Side]) -> None:
    """Registering, reporting, registering again, and removing, as the agent shows it."""
    checks = [{"CheckID": "web-1:alive", "Name": "alive", "TTL": "30s", "Notes": "n"}]
    web = {"ID": "web-1", "Name": "web", "Tags": ["a"], "Meta": {"k": "v"}, "Port": 80, "Address": "127.0.0.1"}
    await same(
        sides,
        put("/v1/agent/service/register", {"Name": "plain"}),
        put("/v1/agent/service/register", web | {"Checks": checks}),
        put("/v1/agent/service/register", {"id": "web-2", "name": "web", "check": {"ttl": "30s", "status": "passing"}}),
        put("/v1/agent/service/register", {"id": "w3", "name": "web", "checks": [{"ttl": "30s"}, {"ttl": "9s"}]}),
        put("/v1/agent/service/register", {"Name": "six", "Address": "::1", "Weights": {"Passing": 5, "Warning": 2}}),
        put("/v1/agent/service/register", {"Name": "host", "Address": "example.org", "EnableTagOverride": True}),
        get("/v1/agent/services"),
        get("/v1/agent/service/web-1"),
        get("/v1/agent/service/plain"),
        get("/v1/agent/checks"),
        put("/v1/agent/check/pass/web-1:alive?note=hello%20there"),
        put("/v1/agent/check/warn/service:web-2?note=w"),
        put("/v1/agent/check/fail/service:w3:1?note=f"),
        put("/v1/agent/check/update/service:w3:2", {"Status": "passing", "Output": "x" * 5000}),
        put("/v1/agent/check/update/web-1:alive", {"Status": "bad"}),
        get("/v1/agent/checks"),
        put("/v1/agent/service/register", web | {"Meta": {"k": "v2"}, "Tags": [], "Checks": checks}),
        get("/v1/agent/service/web-1"),
        get("/v1/agent/checks"),
        put("/v1/agent/check/register", {"Name": "c", "TTL": "10s", "ServiceID": "web-1", "Notes": "z"}),
        put("/v1/agent/check/register", {"Name": "of node", "ID": "n", "TTL": "10s", "Status": "passing"}),
        put("/v1/agent/check/pass/c?note=p"),
        put("/v1/agent/check/register", {"Name": "c", "TTL": "10s", "ServiceID": "web-1", "Notes": "new"}),
        get("/v1/agent/checks"),
        put("/v1/agent/check/deregister/c"),
        put("/v1/agent/service/deregister/w3"),
        get("/v1/agent/checks"),
        get("/v1/agent/services"),
        ranks=False,
    )


async def test_health_and_catalogue(sides: tuple[Side, Side]) -> None:
    """What the catalogue shows of services, checks and the node as they come, change and go."""
    check = {"CheckID": "web-1:alive", "Name": "alive", "TTL": "30s"}
    web = {"ID": "web-1", "Name": "web", "Tags": ["a", "b"], "Port": 80, "Address": "127.0.0.1", "Check": check}
    reads = (
        get("/v1/health/service/web"),
        get("/v1/health/service/web?passing"),
        get("/v1/health/service/web?tag=a"),
        get("/v1/health/service/web?tag=a&tag=b&passing=1"),
        get("/v1/health/service/web?tag=nope"),
        get("/v1/health/service/web?stale"),
        get("/v1/health/checks/web"),
        get("/v1/health/state/any"),
        get("/v1/health/state/critical"),
        get("/v1/health/state/warning"),
        get("/v1/health/state/passing"),
        get("/v1/health/node/dev"),
        get("/v1/catalog/services"),
        get("/v1/catalog/service/web"),
        get("/v1/catalog/service/web?tag=b"),
        get("/v1/catalog/nodes"),
        get("/v1/status/leader"),
        get("/v1/status/peers"),
    )
    await same_soon(sides, *reads)
    for write in (
        put("/v1/agent/service/register", web),
        put("/v1/agent/service/register", {"ID": "web-2", "Name": "web", "Tags": ["b"], "Meta": {"k": "v"}}),
        put("/v1/agent/check/pass/web-1:alive?note=up"),
        put("/v1/agent/check/pass/web-1:alive?note=only%20the%20output%20changes"),
        put("/v1/agent/check/warn/web-1:alive?note=hm"),
        put("/v1/agent/check/register", {"Name": "of-node", "TTL": "30s"}),
        put("/v1/agent/check/pass/of-node"),
        put("/v1/agent/service/maintenance/web-1?enable=true"),
        put("/v1/agent/service/maintenance/web-1?enable=True&reason=ignored"),
        put("/v1/agent/service/maintenance/web-2?enable=1&reason=why"),
        put("/v1/agent/service/maintenance/web-1?enable=false"),
        put("/v1/agent/service/maintenance/web-1?enable=false"),
        put("/v1/agent/service/register", web | {"Tags": [], "Meta": {"k": "v2"}}),
        put("/v1/agent/check/deregister/of-node"),
        put("/v1/agent/service/deregister/web-2"),
        put("/v1/agent/service/deregister/web-1"),
    ):
        await same(sides, write, ranks=False)
        await same_soon(sides, *reads)


@pytest.mark.parametrize(
    ("path", "write"),
    [
        ("/v1/kv/w/a", put("/v1/kv/w/a", "2")),
        ("/v1/kv/w/a", put("/v1/kv/w/a?flags=1", "1")),
        ("/v1/kv/w/a", delete("/v1/kv/w/a")),
        ("/v1/kv/w/a", delete("/v1/kv/w?recurse")),
        ("/v1/kv/w/?recurse", put("/v1/kv/w/b", "2")),
        ("/v1/kv/w/?recurse", delete("/v1/kv/w/a")),
        ("/v1/kv/w/?keys", txn(op("set", "w/b", Value="eA=="), op("delete", "w/a"))),
        ("/v1/kv/w/none", put("/v1/kv/w/none", "1")),
        ("/v1/session/list", put("/v1/session/create")),
        ("/v1/health/service/w", put("/v1/agent/service/register", {"Name": "w"})),
        ("/v1/catalog/services", put("/v1/agent/service/register", {"Name": "w"})),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.method} {value.path}",
)
async def test_what_wakes_a_blocked_query(sides: tuple[Side, Side], path: str, write: Step) -> None:
    """A blocked query returns for the same change, with the same answer."""
    answers = []
    for side in sides:
        await side.ask(put("/v1/kv/w/a", "1"))
        await side.ask(get(path))
        known = side.last_index
        sign = "&" if "?" in path else "?"
        async with asyncio.timeout(SETTLE_S), asyncio.TaskGroup() as tasks:
            blocked = tasks.create_task(side.ask(get(f"{path}{sign}index={known}&wait=60s")))
            tasks.create_task(side.ask(write))
        assert side.last_index > known
        answers.append(blocked.result())
    assert answers[1] == answers[0]


@pytest.mark.parametrize(
    ("path", "write"),
    [
        ("/v1/kv/w/a", put("/v1/kv/w/a", "1")),
        ("/v1/kv/w/a", put("/v1/kv/w/b", "1")),
        ("/v1/kv/w/?recurse", put("/v1/kv/x", "1")),
        ("/v1/kv/w/a", put("/v1/kv/w/a?cas=1", "1")),
        ("/v1/kv/w/a", txn(op("set", "w/a", Value="eA=="), op("get", "w/none"))),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.method} {value.path}",
)
async def test_what_does_not_wake_a_blocked_query(sides: tuple[Side, Side], path: str, write: Step) -> None:
    """The query sleeps through its wait and returns the index that it came with."""
    for side in sides:
        await side.ask(put("/v1/kv/w/a", "1"))
        await side.ask(put("/v1/kv/w/c", "1"))
        async with side.http.get(side.address + path) as answer:
            known = answer.headers["X-Consul-Index"]
        sign = "&" if "?" in path else "?"
        async with asyncio.timeout(SETTLE_S), asyncio.TaskGroup() as tasks:
            url = f"{side.address}{path}{sign}index={known}&wait=300ms"
            began_s = asyncio.get_running_loop().time()
            blocked = tasks.create_task(side.http.get(url).__aenter__())
            tasks.create_task(side.ask(write))
        assert asyncio.get_running_loop().time() - began_s >= 0.3
        assert blocked.result().headers["X-Consul-Index"] == known
        blocked.result().release()
