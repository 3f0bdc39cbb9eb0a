"""The dev server refuses like a real Consul what is malformed, forbidden, or about something that does not exist."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.consul_process import NO_CONSUL, ConsulDev, find_consul
from tests.devserver_sides import UNKNOWN, Side, Step, both_sides, delete, get, op, put, same, txn

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


@pytest.mark.parametrize(
    "step",
    [
        get("/v1/kv/"),
        put("/v1/kv/", "x"),
        delete("/v1/kv/"),
        put("/v1/kv/a?cas=x", "x"),
        put("/v1/kv/a?cas=-1", "x"),
        put("/v1/kv/a?cas", "x"),
        put("/v1/kv/a?flags=x", "x"),
        put("/v1/kv/a?flags=18446744073709551616", "x"),
        delete("/v1/kv/a?cas=x"),
        delete("/v1/kv/a?cas=1&recurse"),
        put(f"/v1/kv/a?acquire={UNKNOWN}&cas=1", "x"),
        put("/v1/kv/a?acquire=nope", "x"),
        put("/v1/kv/a?release=nope", "x"),
        put("/v1/kv/a?acquire=", "x"),
        put("/v1/kv/a?release=", "x"),
        put(f"/v1/kv/a?acquire={UNKNOWN}", "x"),
        get("/v1/kv/a?index=abc"),
        get("/v1/kv/a?index=-1"),
        get("/v1/kv/a?index=1&wait=1"),
        get("/v1/kv/a?wait=1"),
        get("/v1/kv/a?wait=x"),
        get("/v1/kv/a?stale&consistent"),
        get("/v1/kv/a?dc=other"),
        Step("POST", "/v1/kv/a", "x"),
        Step("PATCH", "/v1/kv/a", "x"),
        Step("OPTIONS", "/v1/kv/a"),
        Step("OPTIONS", "/v1/session/create"),
        get("/v1/txn"),
        put("/v1/txn", "{bad", vague=True),
        put("/v1/txn", "{}", vague=True),
        put("/v1/txn", '[{"KV":{"Verb":"set","Key":"a","Value":"M"}}]', vague=True),
        put("/v1/txn", '[{"Foo":{}}]'),
        put("/v1/txn", '[{"KV":{"Foo":1}}]'),
        put("/v1/txn", [{}]),
        put("/v1/txn", [5], vague=True),
        put("/v1/txn", [{"KV": None}]),
        put("/v1/txn", [{"KV": []}], vague=True),
        put("/v1/txn", vague=True),
        txn(op("set", 5), vague=True),
        txn(op("set", "a", Index="5"), vague=True),
        txn(op("set", "a", Flags=-5), vague=True),
        txn(*[op("get", "a")] * 65),
        txn(op("set", "a", Value="eHh4" * 131073)),
        get("/v1/session/create"),
        put("/v1/session/create", "{bad", vague=True),
        put("/v1/session/create", [], vague=True),
        put("/v1/session/create", {"TTL": 5}, vague=True),
        put("/v1/session/create", {"Name": 5}, vague=True),
        put("/v1/session/create", {"TTL": "9s"}),
        put("/v1/session/create", {"TTL": "24h1s"}),
        put("/v1/session/create", {"TTL": "9x"}),
        put("/v1/session/create", {"Behavior": "foo"}),
        put("/v1/session/create", {"LockDelay": "15x"}),
        put("/v1/session/create", {"Checks": ["nope"]}),
        put("/v1/session/create", {"Node": "nope"}),
        put("/v1/session/renew/"),
        put("/v1/session/renew/abc"),
        put(f"/v1/session/renew/{UNKNOWN}"),
        put("/v1/session/destroy/"),
        put("/v1/session/destroy/abc"),
        put(f"/v1/session/destroy/{UNKNOWN}"),
        get("/v1/session/info/"),
        get("/v1/session/node/"),
        get("/v1/session/node/other"),
        get(f"/v1/session/info/{UNKNOWN}"),
        put("/v1/agent/service/register", {}),
        put("/v1/agent/service/register", "{bad", vague=True),
        put("/v1/agent/service/register", {"Name": "web", "Unknown": 1}),
        put("/v1/agent/service/register", {"Name": "web", "Check": {"TTL": "abc"}}),
        put("/v1/agent/service/register", {"Name": "web", "Check": {"Interval": "10s"}}),
        put("/v1/agent/service/register", {"Name": "web", "Check": {"TTL": "10s", "Status": "bogus"}}),
        put("/v1/agent/service/register", vague=True),
        put("/v1/agent/service/register", [], vague=True),
        put("/v1/agent/service/register", {"Name": 5}, vague=True),
        put("/v1/agent/service/register", {"Name": "web", "Port": "80"}, vague=True),
        put("/v1/agent/service/register", {"Name": "web", "Meta": {"a": 1}}, vague=True),
        put("/v1/agent/service/register", {"Name": "web", "Meta": {"a b": "1"}}),
        put("/v1/agent/service/register", {"Name": "web", "Meta": {"": "1"}}),
        put("/v1/agent/service/register", {"Name": "web", "Meta": {"k" * 129: "1"}}),
        put("/v1/agent/service/register", {"Name": "web", "Meta": {"k" * 128: "1" * 513}}),
        put("/v1/agent/service/register", {"Name": "web", "Meta": {str(key): "" for key in range(65)}}),
        put("/v1/agent/service/register", {"Name": "web", "Check": {"ID": "x", "TTL": "10s"}}),
        put("/v1/agent/service/register", {"Name": "web", "Check": {"check_id": "x", "TTL": "10s"}}),
        put(
            "/v1/agent/service/register",
            {"Name": "web", "Check": {"TTL": "10s", "Interval": "10s", "HTTP": "http://x"}},
        ),
        put("/v1/agent/check/register", {"Name": "web", "CheckID": "x", "TTL": "10s"}),
        put("/v1/agent/check/register", {"Name": "web", "TTL": "10s", "service_id": "nope"}),
        get("/v1/agent/service/nope"),
        put("/v1/agent/service/deregister/nope"),
        put("/v1/agent/service/deregister/"),
        put("/v1/agent/service/maintenance/nope?enable=true"),
        put("/v1/agent/service/maintenance/nope"),
        put("/v1/agent/service/maintenance/nope?enable=x"),
        put("/v1/agent/service/maintenance/?enable=true"),
        put("/v1/agent/check/register", {}),
        put("/v1/agent/check/register", {"Name": "c"}),
        put("/v1/agent/check/register", "{bad", vague=True),
        put("/v1/agent/check/register", {"Name": "c", "TTL": "10s", "ServiceID": "nope"}),
        put("/v1/agent/check/deregister/nope"),
        put("/v1/agent/check/deregister/"),
        put("/v1/agent/check/pass/nope"),
        put("/v1/agent/check/warn/nope"),
        put("/v1/agent/check/fail/nope"),
        put("/v1/agent/check/pass/"),
        get("/v1/agent/check/pass/nope"),
        put("/v1/agent/check/update/nope", {"Status": "passing"}),
        put("/v1/agent/check/update/nope", {"Status": "bad"}),
        put("/v1/agent/check/update/nope", {}),
        put("/v1/agent/check/update/nope", "{bad", vague=True),
        get("/v1/health/service/"),
        get("/v1/health/service/nope"),
        get("/v1/health/checks/nope"),
        get("/v1/health/state/"),
        get("/v1/health/state/bogus"),
        get("/v1/health/node/"),
        get("/v1/health/node/nope"),
        get("/v1/catalog/service/"),
        get("/v1/catalog/service/nope"),
        get("/v1/nope"),
        get("/nope"),
        get("/v1/kv/a//b"),
        put("/v1/kv/a/../b?cas=0", "x"),
    ],
    ids=lambda step: f"{step.method} {step.path[:60]}",
)
async def test_refusals(sides: tuple[Side, Side], step: Step) -> None:
    """Each bad request, and each about something that does not exist, is answered alike and leaves no key."""
    await same(sides, step, ranks=False)
    await same(sides, get("/v1/kv/?keys"), ranks=False)
