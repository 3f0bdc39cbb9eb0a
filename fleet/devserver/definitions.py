"""Owns decoding services and checks as clients register them; leaves registering to the handlers.

The dev server runs nothing by itself, so of all checks it knows only those that wait to be told: TTL checks.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import msgspec

from fleet.devserver.answers import RequestRefused
from fleet.devserver.bodies import Duration, decode_duration, decode_fields, folded
from fleet.devserver.catalog import Check, Service, Status

DEREGISTER_AFTER_MIN_S = 60.0
_META_KEY = re.compile(r"[A-Za-z0-9_-]+")
_META_MAX_COUNT = 64
_META_KEY_MAX_COUNT = 128
_META_VALUE_MAX_COUNT = 512


class _CheckBody(msgspec.Struct, forbid_unknown_fields=True, rename=folded):
    name: str = ""
    status: str = ""
    notes: str = ""
    token: str = ""
    ttl: Duration = 0
    interval: Duration = 0
    timeout: Duration = 0
    deregister_critical_service_after: Duration = 0
    success_before_passing: int = 0
    failures_before_critical: int = 0
    http: str = ""
    tcp: str = ""
    grpc: str = ""
    script_args: list[str] = []
    docker_container_id: str = ""
    alias_node: str = ""
    alias_service: str = ""


class _ServiceCheckBody(_CheckBody, forbid_unknown_fields=True, rename=folded):
    check_id: str = ""


class _LoneCheckBody(_CheckBody, forbid_unknown_fields=True, rename=folded):
    id: str = ""
    service_id: str = ""


class _ServiceBody(msgspec.Struct, forbid_unknown_fields=True, rename=folded):
    id: str = ""
    name: str = ""
    tags: list[str] = []
    address: str = ""
    port: int = 0
    meta: dict[str, str] = {}
    weights: dict[str, int] = {}
    enable_tag_override: bool = False
    token: str = ""
    check: dict[str, Any] | None = None
    checks: list[dict[str, Any]] = []
    kind: str = ""
    tagged_addresses: dict[str, Any] = {}
    proxy: dict[str, Any] = {}
    connect: dict[str, Any] = {}


def decode_service(data: Any) -> tuple[Service, list[Check]]:
    """A service and its checks.

    Raises:
        RequestRefused: 400, malformed; 501, more than the dev server can do.
    """
    body = decode_fields(data, _ServiceBody)
    if not body.name:
        raise RequestRefused(400, "Missing service name")
    if body.kind or body.tagged_addresses or body.proxy or body.connect:
        raise RequestRefused(501, "the dev server knows no kinds, proxies or tagged addresses; use a real Consul")
    _check_meta(body.meta)
    service = Service(
        id=body.id or body.name,
        name=body.name,
        tags=tuple(body.tags),
        address=body.address,
        port=body.port,
        meta=body.meta,
        weights={"Passing": 1, "Warning": 1} | {name.title(): weight for name, weight in body.weights.items()},
        enable_tag_override=body.enable_tag_override,
    )
    definitions = [*([body.check] if body.check else []), *body.checks]
    checks = []
    for place, definition in enumerate(definitions, start=1):
        given = decode_fields(definition, _ServiceCheckBody)
        place_suffix = f":{place}" if len(definitions) > 1 else ""
        check = _ttl_check(
            given,
            check_id=given.check_id or f"service:{service.id}{place_suffix}",
            name=given.name or f"Service '{service.name}' check",
        )
        checks.append(belonging_to(service, check))
    return service, checks


def decode_check(data: Any) -> Check:
    """A check that is registered by itself; `service_id` says for which service, '' for the node.

    Raises:
        RequestRefused: 400, malformed; 501, more than the dev server can do.
    """
    body = decode_fields(data, _LoneCheckBody)
    if not body.name:
        raise RequestRefused(400, "Missing check name")
    return replace(_ttl_check(body, check_id=body.id or body.name, name=body.name), service_id=body.service_id)


def belonging_to(service: Service, check: Check) -> Check:
    """The check as one of `service`."""
    return replace(check, service_id=service.id, service_name=service.name, service_tags=service.tags)


def decode_status(text: str) -> Status | None:
    """The status, or None where it is none."""
    match text:
        case "passing":
            return "passing"
        case "warning":
            return "warning"
        case "critical":
            return "critical"
        case _:
            return None


def _ttl_check(body: _CheckBody, *, check_id: str, name: str) -> Check:
    ttl_s, interval_s = decode_duration(body.ttl), decode_duration(body.interval)
    if ttl_s > 0 and interval_s > 0:
        raise RequestRefused(400, "Invalid check: Interval and TTL cannot both be specified")
    active = (body.http, body.tcp, body.grpc, body.script_args, body.docker_container_id)
    if any((*active, body.alias_node, body.alias_service)):
        raise RequestRefused(501, f"the dev server can run no check {name!r}, only TTL checks; use a real Consul")
    if ttl_s <= 0:
        raise RequestRefused(400, "Invalid check: TTL must be > 0 for TTL checks")
    status = decode_status(body.status or "critical")
    if status is None:
        raise RequestRefused(400, "Status for checks must 'passing', 'warning', 'critical'")
    deregister_after_s = decode_duration(body.deregister_critical_service_after)
    return Check(
        id=check_id,
        name=name,
        status=status,
        notes=body.notes,
        ttl_s=ttl_s,
        deregister_after_s=max(DEREGISTER_AFTER_MIN_S, deregister_after_s) if deregister_after_s > 0 else 0.0,
    )


def _check_meta(meta: dict[str, str]) -> None:
    problem = "Invalid Service Meta"
    if len(meta) > _META_MAX_COUNT:
        raise RequestRefused(
            400, f"{problem}: Node metadata cannot contain more than {_META_MAX_COUNT} key/value pairs"
        )
    for key, value in meta.items():
        pair = f"{problem}: Couldn't load metadata pair ('{key}', '{value}')"
        if not key:
            raise RequestRefused(400, f"{pair}: Key cannot be blank")
        if not _META_KEY.fullmatch(key):
            raise RequestRefused(400, f"{pair}: Key contains invalid characters")
        if len(key) > _META_KEY_MAX_COUNT:
            raise RequestRefused(400, f"{pair}: Key is too long (limit: {_META_KEY_MAX_COUNT} characters)")
        if len(value) > _META_VALUE_MAX_COUNT:
            raise RequestRefused(400, f"{pair}: Value is too long (limit: {_META_VALUE_MAX_COUNT} characters)")
