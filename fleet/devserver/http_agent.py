"""Owns `/v1/agent`: registering services and checks, reporting them, maintenance.

What the catalogue makes of them is left to `fleet.devserver.catalog` and `fleet.devserver.http_catalog`.
"""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Any

import msgspec
from aiohttp import web

from fleet.devserver.answers import RequestRefused, empty_answer, json_answer
from fleet.devserver.bodies import decode_fields, decode_json, folded
from fleet.devserver.catalog import Check, Service, Status
from fleet.devserver.definitions import belonging_to, decode_check, decode_service, decode_status
from fleet.devserver.state import State

_MAINTENANCE = "_service_maintenance:"
_NO_REASON = "Maintenance mode is enabled for this service, but no reason was provided. This is a default message."
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class _Report(msgspec.Struct, rename=folded):
    status: str = ""
    output: str = ""


def tagged_addresses(service: Service) -> dict[str, Any]:
    """The service's address by kind of network; nothing where it has none of its own."""
    try:
        family = ipaddress.ip_address(service.address).version
    except ValueError:
        return {}
    place = {"Address": service.address, "Port": service.port}
    return {"TaggedAddresses": {f"lan_ipv{family}": place, f"wan_ipv{family}": place}}


def check_json(check: Check, node: str, *, in_catalog: bool) -> dict[str, Any]:
    """A check as the agent knows it, or as the catalogue shows it."""
    return {
        "Node": node,
        "CheckID": check.id,
        "Name": check.name,
        "Status": check.status,
        "Notes": check.notes,
        "Output": check.shown_output if in_catalog else check.output,
        "ServiceID": check.service_id,
        "ServiceName": check.service_name,
        "ServiceTags": list(check.service_tags),
        "Type": check.type,
        "Definition": {},
        "CreateIndex": check.create_index if in_catalog else 0,
        "ModifyIndex": check.modify_index if in_catalog else 0,
    }


class AgentHandlers:
    """Handlers of `/v1/agent`."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def services(self, _request: web.Request) -> web.Response:
        """All services by id."""
        return json_answer({service.id: _service_json(service) for service in self._registered()})

    async def service(self, request: web.Request) -> web.Response:
        """One service, with a hash of what it says."""
        if "hash" in request.query:
            raise RequestRefused(501, "the dev server cannot wait for a hash; use a real Consul")
        service_id = request.match_info["id"]
        service = self._state.catalog.service(service_id)
        if service is None:
            raise RequestRefused(404, f"unknown service ID: {service_id}")
        shown = _service_json(service)
        digest = hashlib.blake2b(msgspec.json.encode(shown), digest_size=8).hexdigest()
        return json_answer(shown | {"ContentHash": digest}, headers={"X-Consul-Contenthash": digest})

    async def register_service(self, request: web.Request) -> web.Response:
        """Register or replace a service with its checks."""
        service, checks = decode_service(decode_json(await request.read()))
        catalog, at = self._state.catalog, self._state.next_index()
        catalog.put_service(service, at)
        for check in checks:
            catalog.put_check(check, at, self._state.clock())
        if "replace-existing-checks" in request.query:
            wanted = {check.id for check in checks}
            for check in catalog.checks_of(service.id):
                if check.id not in wanted:
                    catalog.remove_check(check.id, at)
        return self._done()

    async def deregister_service(self, request: web.Request) -> web.Response:
        """Remove a service and its checks; an unknown one is removed already."""
        service_id = request.match_info["id"]
        if not service_id:
            raise RequestRefused(500, "ServiceID missing")
        self._state.catalog.remove_service(service_id, self._state.next_index())
        return self._done()

    async def maintain_service(self, request: web.Request) -> web.Response:
        """Take a service out of, or back into, what is healthy."""
        service_id = request.match_info["id"]
        if not service_id:
            raise RequestRefused(400, "Missing service ID")
        enable = _enable(request)
        catalog = self._state.catalog
        service = catalog.service(service_id)
        if service is None:
            raise RequestRefused(404, f'No service registered with ID "{service_id}"')
        check = Check(
            id=f"{_MAINTENANCE}{service_id}",
            name="Service Maintenance Mode",
            notes=request.query.get("reason") or _NO_REASON,
            type="maintenance",
        )
        if not enable:
            catalog.remove_check(check.id, self._state.next_index())
        elif catalog.check(check.id) is None:
            catalog.put_check(belonging_to(service, check), self._state.next_index(), self._state.clock())
        return self._done()

    async def checks(self, _request: web.Request) -> web.Response:
        """All registered checks by id."""
        return json_answer(
            {
                check.id: check_json(check, self._state.node.name, in_catalog=False)
                for check in self._state.catalog.checks()
                if check.type
            }
        )

    async def register_check(self, request: web.Request) -> web.Response:
        """Register or replace a check."""
        check = decode_check(decode_json(await request.read()))
        if check.service_id:
            service = self._state.catalog.service(check.service_id)
            if service is None:
                raise RequestRefused(500, f'ServiceID "{check.service_id}" does not exist')
            check = belonging_to(service, check)
        self._state.catalog.put_check(check, self._state.next_index(), self._state.clock())
        return self._done()

    async def deregister_check(self, request: web.Request) -> web.Response:
        """Remove a check; an unknown one is removed already."""
        check_id = request.match_info["id"]
        if not check_id:
            raise RequestRefused(500, "CheckID missing")
        self._state.catalog.remove_check(check_id, self._state.next_index())
        return self._done()

    async def pass_check(self, request: web.Request) -> web.Response:
        """Report a TTL check as passing."""
        return self._update(request, "passing", request.query.get("note", ""))

    async def warn_check(self, request: web.Request) -> web.Response:
        """Report a TTL check as warning."""
        return self._update(request, "warning", request.query.get("note", ""))

    async def fail_check(self, request: web.Request) -> web.Response:
        """Report a TTL check as critical."""
        return self._update(request, "critical", request.query.get("note", ""))

    async def update_check(self, request: web.Request) -> web.Response:
        """Report a TTL check with a long output."""
        report = decode_fields(decode_json(await request.read()), _Report)
        status = decode_status(report.status)
        if status is None:
            raise RequestRefused(400, f"Invalid check status: '{report.status}'")
        return self._update(request, status, report.output)

    def _update(self, request: web.Request, status: Status, output: str) -> web.Response:
        check_id, state = request.match_info["id"], self._state
        if not state.catalog.update_check(check_id, status, output, state.next_index(), state.clock()):
            raise RequestRefused(500, f'CheckID "{check_id}" does not have associated TTL')
        return self._done()

    def _registered(self) -> list[Service]:
        return [service for service in self._state.catalog.services() if service.id != "consul"]

    def _done(self) -> web.Response:
        self._state.check_sessions()
        self._state.publish()
        return empty_answer()


def _enable(request: web.Request) -> bool:
    text = request.query.get("enable", "")
    if not text:
        raise RequestRefused(400, "Missing value for enable")
    if text not in _TRUE | _FALSE:
        raise RequestRefused(400, f'Invalid value for enable: "{text}"')
    return text in _TRUE


def _service_json(service: Service) -> dict[str, Any]:
    return {
        "ID": service.id,
        "Service": service.name,
        "Tags": list(service.tags),
        "Meta": service.meta,
        "Port": service.port,
        "Address": service.address,
        **tagged_addresses(service),
        "Weights": service.weights,
        "EnableTagOverride": service.enable_tag_override,
    }
