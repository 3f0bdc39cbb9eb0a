"""Owns which path and method goes to which handler, and what every request has in common."""

from __future__ import annotations

import html
import posixpath
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from fleet.devserver.answers import RequestRefused, empty_answer, text_answer
from fleet.devserver.http_agent import AgentHandlers
from fleet.devserver.http_catalog import CatalogHandlers
from fleet.devserver.http_kv import KvHandlers
from fleet.devserver.http_sessions import SessionHandlers
from fleet.devserver.http_txn import TxnHandlers
from fleet.devserver.queries import check_query
from fleet.devserver.state import State

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Methods = Mapping[str, _Handler]
_KNOWN_TO_CONSUL = (
    "acl|agent|catalog|config|connect|coordinate|discovery-chain|event|health|internal|operator|query|snapshot"
)


def make_app(state: State) -> web.Application:
    """The application that serves `state`."""
    app = web.Application(middlewares=[_clean_paths])
    for path, methods in _routes(state).items():
        app.router.add_route("*", path, _dispatcher(state, methods))
    app.router.add_route("*", f"/v1/{{part:{_KNOWN_TO_CONSUL}}}{{rest:(/.*)?}}", _refuse_unsupported)
    app.router.add_route("*", "/{rest:.*}", _refuse_unknown)
    return app


def _routes(state: State) -> dict[str, _Methods]:
    kv, txn, sessions = KvHandlers(state), TxnHandlers(state), SessionHandlers(state)
    agent, catalog = AgentHandlers(state), CatalogHandlers(state)
    return {
        "/v1/kv/{key:.*}": {"GET": kv.get, "PUT": kv.put, "DELETE": kv.delete},
        "/v1/txn": {"PUT": txn.put},
        "/v1/session/create": {"PUT": sessions.create},
        "/v1/session/renew/{id:.*}": {"PUT": sessions.renew},
        "/v1/session/destroy/{id:.*}": {"PUT": sessions.destroy},
        "/v1/session/info/{id:.*}": {"GET": sessions.info},
        "/v1/session/list": {"GET": sessions.list},
        "/v1/session/node/{node:.*}": {"GET": sessions.list},
        "/v1/status/leader": {"GET": catalog.leader},
        "/v1/status/peers": {"GET": catalog.peers},
        "/v1/agent/self": {"GET": catalog.agent_self},
        "/v1/agent/services": {"GET": agent.services},
        "/v1/agent/service/register": {"PUT": agent.register_service},
        "/v1/agent/service/deregister/{id:.*}": {"PUT": agent.deregister_service},
        "/v1/agent/service/maintenance/{id:.*}": {"PUT": agent.maintain_service},
        "/v1/agent/service/{id:.*}": {"GET": agent.service},
        "/v1/agent/checks": {"GET": agent.checks},
        "/v1/agent/check/register": {"PUT": agent.register_check},
        "/v1/agent/check/deregister/{id:.*}": {"PUT": agent.deregister_check},
        "/v1/agent/check/pass/{id:.*}": {"PUT": agent.pass_check},
        "/v1/agent/check/warn/{id:.*}": {"PUT": agent.warn_check},
        "/v1/agent/check/fail/{id:.*}": {"PUT": agent.fail_check},
        "/v1/agent/check/update/{id:.*}": {"PUT": agent.update_check},
        "/v1/health/service/{name:.*}": {"GET": catalog.service_health},
        "/v1/health/checks/{name:.*}": {"GET": catalog.service_checks},
        "/v1/health/state/{name:.*}": {"GET": catalog.state},
        "/v1/health/node/{name:.*}": {"GET": catalog.node_health},
        "/v1/catalog/services": {"GET": catalog.services},
        "/v1/catalog/service/{name:.*}": {"GET": catalog.service},
        "/v1/catalog/nodes": {"GET": catalog.nodes},
    }


def _dispatcher(state: State, methods: _Methods) -> _Handler:
    allow = {"Allow": ",".join(["OPTIONS", *methods])}

    async def dispatch(request: web.Request) -> web.StreamResponse:
        if request.method == "OPTIONS":
            return empty_answer(headers=allow)
        handler = methods.get(request.method)
        if handler is None:
            return text_answer(405, f"method {request.method} not allowed", allow)
        state.expire()
        try:
            check_query(request, state.node.datacenter)
            return await handler(request)
        except RequestRefused as refusal:
            return text_answer(refusal.status, str(refusal))

    return dispatch


async def _refuse_unsupported(request: web.Request) -> web.Response:
    return text_answer(501, f"the dev server does not know {request.path}; use a real Consul")


async def _refuse_unknown(_request: web.Request) -> web.Response:
    return empty_answer(status=404)


@web.middleware
async def _clean_paths(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Redirect `a//b` and `a/../b` as Go's server does, so that such keys fail here as they fail there."""
    clean = posixpath.normpath(request.path) + ("/" if request.path.endswith("/") and request.path != "/" else "")
    if clean == request.path:
        return await handler(request)
    location = str(request.rel_url.with_path(clean).with_query(request.query))
    headers = {"Location": location}
    if request.method != "GET":
        return empty_answer(status=301, headers=headers)
    page = f'<a href="{html.escape(location)}">Moved Permanently</a>.\n\n'
    return web.Response(text=page, status=301, headers=headers, content_type="text/html")
