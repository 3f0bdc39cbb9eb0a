"""Services, TTL checks and maintenance, as `fleet.store` promises them, on the dev server and on a real Consul."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest

from fleet import ConsulStore, Service, ServiceHealth, StoreRefused


@pytest.fixture
async def service(store: ConsulStore) -> AsyncIterator[Service]:
    name = f"web-{uuid.uuid4().hex[:8]}"
    service = Service(id=f"{name}-host1", name=name, ttl_s=30, meta={"build": "b1"}, tags=["prod"], port=8080)
    yield service
    await store.deregister(service)


async def seen(store: ConsulStore, service: Service, status: str | None) -> ServiceHealth | None:
    """The only instance, once the catalogue shows it with `status` (None: once it shows none)."""
    async with asyncio.timeout(10):
        while True:
            found = await store.services(service.name)
            if [each.status for each in found] == ([] if status is None else [status]):
                return found[0] if found else None
            await asyncio.sleep(0.02)


async def catalogue_index(address: str, service: Service) -> str:
    url = f"{address}/v1/health/service/{service.name}"
    async with aiohttp.ClientSession() as client, client.get(url) as response:
        (instance,) = await response.json()
    return str((instance["Service"]["ModifyIndex"], [check["ModifyIndex"] for check in instance["Checks"]]))


async def test_a_new_service_is_critical_until_somebody_says_that_it_lives(
    store: ConsulStore, service: Service
) -> None:
    await store.register(service)
    assert await seen(store, service, "critical")

    await store.pass_check(service, "steady b1")

    health = await seen(store, service, "passing")
    assert health is not None
    assert (health.id, health.output, health.meta) == (service.id, "steady b1", {"build": "b1"})


async def test_registering_again_keeps_the_status_and_writes_nothing(
    store: ConsulStore, address: str, service: Service
) -> None:
    await store.register(service)
    await store.pass_check(service, "steady")
    await seen(store, service, "passing")
    before = await catalogue_index(address, service)

    await store.register(service)
    await store.register(replace(service, meta=dict(service.meta), tags=tuple(service.tags)))

    assert await catalogue_index(address, service) == before
    assert await seen(store, service, "passing")


@pytest.mark.parametrize("change", [{"meta": {"build": "b2"}}, {"tags": ["canary"]}, {"port": 1}, {"ttl_s": 60.0}])
async def test_registering_with_a_difference_writes_it_and_keeps_the_status(
    store: ConsulStore, address: str, service: Service, change: dict
) -> None:
    await store.register(service)
    await store.pass_check(service, "steady")
    await seen(store, service, "passing")
    before = await catalogue_index(address, service)

    await store.register(replace(service, **change))

    async with asyncio.timeout(10):
        while True:
            if await catalogue_index(address, service) != before:
                break
            await asyncio.sleep(0.02)
    assert await seen(store, service, "passing")


async def test_failing_turns_critical_and_passing_turns_back(store: ConsulStore, service: Service) -> None:
    await store.register(service)
    await store.pass_check(service, "steady")
    await seen(store, service, "passing")

    await store.fail_check(service, "rolled back")
    health = await seen(store, service, "critical")
    assert health is not None
    assert health.output == "rolled back"

    await store.pass_check(service, "steady")
    assert await seen(store, service, "passing")


@pytest.mark.parametrize(("report", "status"), [("pass_check", "passing"), ("fail_check", "critical")])
async def test_a_forgotten_registration_is_made_anew(
    store: ConsulStore, service: Service, report: str, status: str
) -> None:
    """A Consul agent that lost its data forgets its services; the next report brings them back."""
    await store.register(service)
    await store.deregister(service)
    await seen(store, service, None)

    await getattr(store, report)(service, "here again")

    health = await seen(store, service, status)
    assert health is not None
    assert health.meta == {"build": "b1"}
    # A note reaches the catalogue with a change of status; alone it takes minutes, by Consul's design.
    assert health.output == ("here again" if status == "passing" else "")


async def test_deregistering_twice_is_harmless(store: ConsulStore, service: Service) -> None:
    await store.register(service)
    await store.deregister(service)
    await store.deregister(service)

    await seen(store, service, None)


async def test_maintenance_takes_a_service_out_and_brings_it_back(store: ConsulStore, service: Service) -> None:
    await store.register(service)
    await store.pass_check(service, "steady")

    await store.set_maintenance(service.id, on=True, reason="swapping")
    health = await seen(store, service, "maintenance")
    assert health is not None
    assert health.output == "steady"
    await store.set_maintenance(service.id, on=True, reason="swapping")

    await store.set_maintenance(service.id, on=False)
    await store.set_maintenance(service.id, on=False)
    assert await seen(store, service, "passing")


async def test_maintenance_of_an_unknown_service_is_refused_by_name(store: ConsulStore) -> None:
    for on in (True, False):
        with pytest.raises(StoreRefused, match="'nobody'") as caught:
            await store.set_maintenance("nobody", on=on)
        assert caught.value.kind == "unknown_service"


async def test_instances_come_sorted_each_with_its_own_health(store: ConsulStore, service: Service) -> None:
    other = replace(service, id=f"{service.name}-host0", meta={})
    try:
        await store.pass_check(service, "one")
        await store.fail_check(other, "zero")
        async with asyncio.timeout(10):
            while True:
                found = await store.services(service.name)
                if {each.status for each in found} == {"passing", "critical"}:
                    break
                await asyncio.sleep(0.02)

        assert [(each.id, each.status, each.meta) for each in found] == [
            (other.id, "critical", {}),
            (service.id, "passing", {"build": "b1"}),
        ]
    finally:
        await store.deregister(other)


async def test_an_unknown_service_has_no_instances(store: ConsulStore) -> None:
    assert await store.services("nobody") == ()


@pytest.mark.timeout(30)
async def test_a_check_that_nobody_reports_turns_critical_after_its_ttl(store: ConsulStore, service: Service) -> None:
    short = replace(service, ttl_s=1.0)
    await store.register(short)
    await store.pass_check(short, "last words")
    await seen(store, short, "passing")

    assert await seen(store, short, "critical")
