"""Owns `/v1/health`, `/v1/catalog`, `/v1/status` and `/v1/agent/self`: what the catalogue shows of the one node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import web

from fleet.devserver.answers import RequestRefused, json_answer, query_headers
from fleet.devserver.catalog import Check, Service
from fleet.devserver.http_agent import check_json, tagged_addresses
from fleet.devserver.queries import read_when_newer
from fleet.devserver.state import State
from fleet.devserver.waiting import Watch

VERSION = "1.8.7"
"""The Consul whose answers are imitated."""
REVISION = "hotcold-devserver"
"""Stands where Consul tells its commit, so that nobody mistakes one for the other."""

_Result = TypeVar("_Result")
_PROXY: dict[str, Any] = {"MeshGateway": {}, "Expose": {}}


class CatalogHandlers:
    """Handlers that only read."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._catalog = state.catalog

    async def leader(self, request: web.Request) -> web.Response:
        """The address of the leader, which is this server."""
        return json_answer(request.host)

    async def peers(self, request: web.Request) -> web.Response:
        """The servers of the cluster."""
        return json_answer([request.host])

    async def agent_self(self, request: web.Request) -> web.Response:
        """Who answers."""
        node = self._state.node
        host, _, port = request.host.rpartition(":")
        return json_answer(
            {
                "Config": {
                    "Datacenter": node.datacenter,
                    "NodeName": node.name,
                    "NodeID": node.id,
                    "Revision": REVISION,
                    "Server": True,
                    "Version": VERSION,
                },
                "Member": {"Name": node.name, "Addr": host, "Port": int(port), "Tags": {}, "Status": 1},
                "Meta": {"consul-network-segment": ""},
            }
        )

    async def nodes(self, request: web.Request) -> web.Response:
        """The one node."""
        return await self._answer(request, Watch("node", ""), lambda: (1, [self._node_json("Meta")]))

    async def services(self, request: web.Request) -> web.Response:
        """The names of all services with their tags."""

        def read() -> tuple[int, dict[str, list[str]]]:
            tags: dict[str, set[str]] = {}
            for service in self._catalog.services():
                tags.setdefault(service.name, set()).update(service.tags)
            return self._catalog.services_index, {name: sorted(tags[name]) for name in sorted(tags)}

        return await self._answer(request, Watch("service", "", below=True), read)

    async def service(self, request: web.Request) -> web.Response:
        """All instances of a service."""
        name = _name(request, "Missing service name")

        def read() -> tuple[int, list[dict[str, Any]]]:
            found = _with_tags(request, self._catalog.services(name))
            return self._catalog.service_index(name), [self._instance_json(service) for service in found]

        return await self._answer(request, Watch("service", name), read)

    async def service_health(self, request: web.Request) -> web.Response:
        """All instances of a service with the checks that bear on them."""
        name = _name(request, "Missing service name")

        def read() -> tuple[int, list[dict[str, Any]]]:
            found = [(service, self._bearing_on(service)) for service in self._catalog.services(name)]
            wanted = {service.id for service in _with_tags(request, [service for service, _ in found])}
            if "passing" in request.query:
                found = [(service, checks) for service, checks in found if _all_passing(checks)]
            return self._catalog.service_index(name), [
                self._health_json(service, checks) for service, checks in found if service.id in wanted
            ]

        return await self._answer(request, Watch("service", name), read)

    async def service_checks(self, request: web.Request) -> web.Response:
        """The checks of all instances of a service."""
        name = _name(request, "Missing service name")
        return await self._checks(request, lambda check: check.service_name == name)

    async def state(self, request: web.Request) -> web.Response:
        """All checks in one status, or in any."""
        status = _name(request, "Missing check state")
        return await self._checks(request, lambda check: status in {"any", check.status})

    async def node_health(self, request: web.Request) -> web.Response:
        """All checks on one node."""
        name = _name(request, "Missing node name")
        return await self._checks(request, lambda _: name == self._state.node.name)

    async def _checks(self, request: web.Request, is_wanted: Callable[[Check], bool]) -> web.Response:
        def read() -> tuple[int, list[dict[str, Any]]]:
            found = [self._check_json(check) for check in self._catalog.checks() if is_wanted(check)]
            return self._catalog.checks_index, found

        return await self._answer(request, Watch("check", "", below=True), read)

    async def _answer(
        self, request: web.Request, watch: Watch, read: Callable[[], tuple[int, _Result]]
    ) -> web.Response:
        if "filter" in request.query:
            raise RequestRefused(501, "the dev server knows no filter expressions; use a real Consul")
        index, result = await read_when_newer(request, self._state.waiters, watch, read)
        headers = query_headers(index) | {"X-Consul-Effective-Consistency": _consistency(request)}
        return json_answer(result, headers=headers)

    def _bearing_on(self, service: Service) -> list[Check]:
        return self._catalog.checks_of("") + self._catalog.checks_of(service.id)

    def _check_json(self, check: Check) -> dict[str, Any]:
        return check_json(check, self._state.node.name, in_catalog=True)

    def _node_json(self, meta: str) -> dict[str, Any]:
        node = self._state.node
        addresses = dict.fromkeys(("lan", "lan_ipv4", "wan", "wan_ipv4"), node.address)
        return {
            "ID": node.id,
            "Node": node.name,
            "Address": node.address,
            "Datacenter": node.datacenter,
            "TaggedAddresses": addresses,
            meta: {"consul-network-segment": ""},
            "CreateIndex": 1,
            "ModifyIndex": 1,
        }

    def _health_json(self, service: Service, checks: list[Check]) -> dict[str, Any]:
        return {
            "Node": self._node_json("Meta"),
            "Service": {
                "ID": service.id,
                "Service": service.name,
                "Tags": list(service.tags),
                "Address": service.address,
                **tagged_addresses(service),
                "Meta": service.meta or None,
                "Port": service.port,
                "Weights": service.weights,
                "EnableTagOverride": service.enable_tag_override,
                "Proxy": _PROXY,
                "Connect": {},
                "CreateIndex": service.create_index,
                "ModifyIndex": service.modify_index,
            },
            "Checks": [self._check_json(check) for check in checks],
        }

    def _instance_json(self, service: Service) -> dict[str, Any]:
        return {
            **self._node_json("NodeMeta"),
            "ServiceKind": "",
            "ServiceID": service.id,
            "ServiceName": service.name,
            "ServiceTags": list(service.tags),
            "ServiceAddress": service.address,
            **{f"Service{name}": value for name, value in tagged_addresses(service).items()},
            "ServiceWeights": service.weights,
            "ServiceMeta": service.meta,
            "ServicePort": service.port,
            "ServiceEnableTagOverride": service.enable_tag_override,
            "ServiceProxy": _PROXY,
            "ServiceConnect": {},
            "CreateIndex": service.create_index,
            "ModifyIndex": service.modify_index,
        }


def _name(request: web.Request, missing: str) -> str:
    name = request.match_info["name"]
    if not name:
        raise RequestRefused(400, missing)
    return name


def _with_tags(request: web.Request, services: list[Service]) -> list[Service]:
    wanted = set(request.query.getall("tag", []))
    return [service for service in services if wanted <= set(service.tags)]


def _all_passing(checks: list[Check]) -> bool:
    return all(check.status == "passing" for check in checks)


def _consistency(request: web.Request) -> str:
    return next((mode for mode in ("stale", "consistent") if mode in request.query), "leader")
