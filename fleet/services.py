"""Owns services and their TTL checks on the local Consul agent; what they say is left to the callers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from consul import Check

from fleet import answers
from fleet.store import Service, ServiceHealth, StoreRefused, StoreUnreachable
from fleet.transport import AnsweredBadly, ConsulClient

# What Consul says, with a status that differs between versions, to a check that it does not know.
_UNKNOWN_CHECK: Final = ("does not have associated TTL", "Unknown check")


class Services:
    """Registers services, reports their checks, and reads the catalogue."""

    def __init__(self, client: ConsulClient) -> None:
        self._client = client
        self._seen: dict[str, answers.Lists[ServiceHealth]] = {}

    async def register(self, service: Service) -> None:
        """See `Store.register`.

        Consul writes to its log for every registration, even an identical one, hence the look before. A new check
        starts critical: a host is healthy when somebody says so, not because it exists.
        """
        if not await self._is_registered(service):
            await self._write(service)

    async def deregister(self, service: Service) -> None:
        """See `Store.deregister`."""
        try:
            await self._client.agent.service.deregister(service.id)
        except AnsweredBadly as error:
            if "Unknown service" not in error.answer.text:
                raise

    async def pass_check(self, service: Service, note: str) -> None:
        """See `Store.pass_check`."""
        await self._report(service, lambda: self._client.agent.check.ttl_pass(service.check_id, notes=note))

    async def fail_check(self, service: Service, note: str) -> None:
        """See `Store.fail_check`."""
        await self._report(service, lambda: self._client.agent.check.ttl_fail(service.check_id, notes=note))

    async def set_maintenance(self, service_id: str, *, on: bool, reason: str) -> None:
        """See `Store.set_maintenance`."""
        refused: AnsweredBadly | None = None
        try:
            done = await self._client.agent.service.maintenance(service_id, on, reason=reason or None)
        except AnsweredBadly as error:
            if "Unknown service" not in error.answer.text:
                raise
            done, refused = False, error
        if not done:
            raise StoreRefused(
                f"the local Consul agent knows no service {service_id!r}, so its maintenance mode cannot change; "
                "register it first, and check that the address is that of the host's own Consul agent",
                kind="unknown_service",
            ) from refused

    async def instances(self, name: str) -> tuple[ServiceHealth, ...]:
        """See `Store.services`."""
        # Not by py-consul's `health.service`, which reads all of thousands of instances anew at each look.
        read = self._seen.setdefault(name, answers.instances())
        datacenter = [("dc", self._client.dc)] if self._client.dc else None
        found: list[ServiceHealth] = await self._client.http.get(
            lambda response: read(response.body), f"/v1/health/service/{name}", params=datacenter
        )
        return tuple(sorted(found, key=lambda each: (each.id, each.node)))

    async def _is_registered(self, service: Service) -> bool:
        found = (await self._client.agent.services() or {}).get(service.id)
        if found is None or service.check_id not in (await self._client.agent.checks() or {}):
            return False
        seen = answers.convert(found, answers.ServiceSeen)
        return (seen.service, seen.meta or {}, list(seen.tags or []), seen.address, seen.port) == (
            service.name,
            _meta(service),
            list(service.tags),
            service.address,
            service.port,
        )

    async def _write(self, service: Service) -> None:
        check: dict[str, Any] = Check.ttl(f"{service.ttl_s:g}s")
        check |= {"CheckID": service.check_id, "Name": f"{service.name} is alive"}
        await self._client.agent.service.register(
            service.name,
            service_id=service.id,
            address=service.address,
            port=service.port,
            tags=list(service.tags),
            meta=_meta(service),
            check=check,
        )

    async def _report(self, service: Service, report: Callable[[], Awaitable[bool]]) -> None:
        if await self._is_heard(report):
            return
        await self._write(service)
        if not await self._is_heard(report):
            raise StoreUnreachable(
                f"Consul forgot the check {service.check_id!r} as soon as it was registered; does something else "
                "deregister it?"
            )

    async def _is_heard(self, report: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await report()
        except AnsweredBadly as error:
            if any(words in error.answer.text for words in _UNKNOWN_CHECK):
                return False
            raise


def _meta(service: Service) -> dict[str, str]:
    return {**service.meta, answers.TTL_META: f"{service.ttl_s:g}"}
