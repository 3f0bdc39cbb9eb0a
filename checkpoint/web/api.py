"""Owns the JSON API: the same facts and actions as the pages, with the same rights; described by OpenAPI.

What the facts are is left to `checkpoint.rollout.picture` and `checkpoint.overview`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from aiohttp import web

from artifact import Refused
from checkpoint.rollout.picture import document
from checkpoint.web.live import Snapshot
from checkpoint.web.rights import ROUTES
from checkpoint.web.site import site_of
from checkpoint.web.steering import HOST_DEEDS, perform
from checkpoint.web.steps import BUTTONS
from fleet import StoreUnreachable

MAX_RECORDS: Final = 200


async def rollout(request: web.Request) -> web.Response:
    """The latest rollout, as `hotcold rollout status --json` shows it; null before the first."""
    snapshot = await _snapshot(request)
    body = {"rollout": None if snapshot.shown is None else document(snapshot.shown), **_freshness(request, snapshot)}
    return web.json_response(body)


async def hosts(request: web.Request) -> web.Response:
    """Every host, and how it stands to its tier's order."""
    snapshot = await _snapshot(request)
    found = [
        {
            "tier": host.tier,
            "host": host.host,
            "standing": host.standing.name.lower(),
            "state": host.state,
            "hot": host.hot,
            "wanted": host.wanted,
            "serial": host.serial,
            "health": host.health,
            "note": host.note,
        }
        for tier in snapshot.view.tiers
        for host in tier.hosts
    ]
    return web.json_response({"hosts": found, **_freshness(request, snapshot)})


async def audit(request: web.Request) -> web.Response:
    """The latest records, newest first."""
    snapshot = await _snapshot(request)
    records = [msgspec.to_builtins(record) for record, _ in snapshot.records]
    return web.json_response({"records": records[:MAX_RECORDS], **_freshness(request, snapshot)})


async def act(request: web.Request) -> web.Response:
    """Do something to a rollout, decided on an index of it."""
    try:
        body = msgspec.json.decode(await request.read(), type=dict[str, str | int])
        number = int(body.get("rollout", 0))
    except (msgspec.DecodeError, ValueError) as error:
        raise Refused(f"the body is no JSON object of texts and numbers: {error}", kind="bad_field") from error
    form = {key: str(value) for key, value in body.items()}
    acted = await perform(request, number, form.get("action", ""), form)
    said = [record.message for record in acted.written.records]
    return web.json_response({"done": acted.is_done, "phase": acted.written.rollout.phase_name, "messages": said})


async def description(request: web.Request) -> web.Response:
    """This API in OpenAPI."""
    return web.json_response(openapi(site_of(request).app))


def openapi(app: str) -> dict[str, Any]:
    """The description; one path for each route below `/api/`."""
    paths: dict[str, Any] = {}
    for route in ROUTES:
        if not route.path.startswith("/api/"):
            continue
        operation: dict[str, Any] = {
            "operationId": route.name,
            "summary": _SUMMARIES[route.name],
            "description": f"Needs the role {route.role.name.lower()}.",
            "responses": {
                "200": {"description": "OK", "content": {"application/json": {"schema": _SCHEMAS[route.name]}}},
                **{code: {"$ref": f"#/components/responses/{code}"} for code in ("401", "403", "421", "503")},
            },
        }
        if route.writes:
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ACTION}}}
            operation["responses"] |= {
                code: {"$ref": f"#/components/responses/{code}"} for code in ("409", "422", "429")
            }
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": f"hotcold Checkpoint of {app}", "version": "1"},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {
                code: {"description": said, "content": {"application/json": {"schema": _ERROR}}}
                for code, said in _ERRORS.items()
            },
        },
    }


_FRESH: Final = {
    "index": {"type": "integer", "description": "highest Consul index of what is shown"},
    "at": {"type": "string", "format": "date-time"},
    "cut_off_since": {"type": ["string", "null"], "description": "since when Consul does not answer; null: it does"},
}


def _shaped(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": [name, *_FRESH], "properties": {name: schema, **_FRESH}}


_SUMMARIES: Final = {
    "api_rollout": "The latest rollout; null before the first.",
    "api_hosts": "Every host, and how it stands to its tier's order.",
    "api_audit": f"The latest records of the audit, newest first, at most {MAX_RECORDS}.",
    "api_act": "Do something to a rollout, decided on an index of it.",
    "api_description": "This description.",
}
_SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "api_rollout": _shaped("rollout", {"type": ["object", "null"]}),
    "api_hosts": _shaped("hosts", {"type": "array", "items": {"type": "object"}}),
    "api_audit": _shaped("records", {"type": "array", "items": {"type": "object"}}),
    "api_act": {
        "type": "object",
        "required": ["done", "phase", "messages"],
        "properties": {
            "done": {"type": "boolean", "description": "false: it does not apply, and nothing was written"},
            "phase": {"type": "string"},
            "messages": {"type": "array", "items": {"type": "string"}},
        },
    },
    "api_description": {"type": "object"},
}
_ACTION: Final = {
    "type": "object",
    "required": ["rollout", "action", "reason", "index"],
    "properties": {
        "rollout": {"type": "integer", "description": "number of the rollout that is meant"},
        "action": {"type": "string", "enum": [*BUTTONS, *HOST_DEEDS]},
        "reason": {"type": "string"},
        "index": {"type": "integer", "description": "`rollout.index` that the decision was made on"},
        "tier": {"type": "string", "description": "of the host to set aside or take back"},
        "host": {"type": "string", "description": "to set aside or take back"},
    },
}
_ERROR: Final = {
    "type": "object",
    "required": ["error", "message"],
    "properties": {"error": {"type": "string"}, "message": {"type": "string"}},
}
_ERRORS: Final = {
    "401": "nobody is signed in",
    "403": "the role does not allow it, or a forged request",
    "409": "it changed since that index: nothing was done",
    "421": "another server's name",
    "422": "it cannot be done as asked: nothing was done",
    "429": "too many actions in a minute",
    "503": "Consul does not answer",
}


async def _snapshot(request: web.Request) -> Snapshot:
    snapshot = await site_of(request).snapshot()
    if snapshot is None:
        raise StoreUnreachable("Consul has not answered since this server started")
    return snapshot


def _freshness(request: web.Request, snapshot: Snapshot) -> dict[str, Any]:
    since = site_of(request).cut_off_since()
    return {
        "index": snapshot.index,
        "at": snapshot.at.isoformat(),
        "cut_off_since": None if since is None else since.isoformat(),
    }
