"""Owns the status socket: HTTP on a Unix socket for operators, probes and Prometheus.

What is told is left to `agent.status` and `agent.metrics`; what is asked for becomes a command of the loop.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from agent.events import Command, HoldLifted, HoldPlaced, RepullRequested
from agent.history import Event, History
from agent.metrics import exposition
from agent.work import Observed
from artifact import ConfigError

SOCKET_MODE = 0o660
"""Members of the socket's group may look and ask; the directory decides who reaches it."""


_SHOWN_EVENTS = 100
_KEPT_ALIVE_S = 15.0


class _HoldRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: str


class StatusServer:
    """Serves until `aclose`.

    Args:
        path: of the socket.
        status: the document, made anew at each call.
        unhealthy: why the agent is not healthy, or None.
        post: hands a command to the loop.
        history: what has happened.
    """

    def __init__(
        self,
        path: Path,
        *,
        status: Callable[[], Awaitable[dict[str, Any]]],
        observed: Observed,
        unhealthy: Callable[[], str | None],
        post: Callable[[Command], None],
        history: History,
    ) -> None:
        self._path = path
        self._status = status
        self._observed = observed
        self._unhealthy = unhealthy
        self._post = post
        self._history = history
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. A socket that a former life left is replaced.

        Raises:
            ConfigError: the path is taken by something else, too long, or not writable.
        """
        application = web.Application(middlewares=[_errors_as_json])
        application.add_routes(
            [
                web.get("/v1/status", self._get_status),
                web.get("/v1/history", self._get_history),
                web.get("/v1/events", self._get_events),
                web.get("/healthz", self._get_health),
                web.get("/metrics", self._get_metrics),
                web.post("/v1/repull", self._post_repull),
                web.post("/v1/hold", self._post_hold),
                web.post("/v1/unhold", self._post_unhold),
            ]
        )
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._runner = runner
        listener = _listen(self._path)
        await web.SockSite(runner, listener).start()

    async def aclose(self) -> None:
        """Stop listening and remove the socket. Calling it twice is harmless."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            self._path.unlink(missing_ok=True)

    async def _get_status(self, _request: web.Request) -> web.Response:
        return _json(await self._status())

    async def _get_history(self, request: web.Request) -> web.Response:
        limit = request.query.get("limit", str(_SHOWN_EVENTS))
        if not limit.isdecimal():
            return _problem(400, "bad_request", f"limit={limit}: must be a number of events")
        return _json({"events": msgspec.to_builtins(self._history.events(limit=int(limit)), enc_hook=str)})

    async def _get_events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events; a `Last-Event-ID` that the listener has seen is where it goes on."""
        text = request.headers.get("Last-Event-ID", str(self._history.last_id))
        if not text.isdecimal():
            return _problem(400, "bad_request", f"Last-Event-ID: {text}: must be the number of an event")
        seen = int(text)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                events = await self._history.beyond(seen, _KEPT_ALIVE_S)
                # A comment where nothing happened: else nobody notices that the listener is gone.
                await response.write(b"".join(map(_as_sent, events)) or b":\n\n")
                seen = events[-1].id if events else seen
        return response

    async def _get_health(self, _request: web.Request) -> web.Response:
        reason = self._unhealthy()
        return web.Response(status=200 if reason is None else 503, text=f"{reason or 'ok'}\n")

    async def _get_metrics(self, _request: web.Request) -> web.Response:
        body = exposition(await self._status(), self._observed)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _post_repull(self, _request: web.Request) -> web.Response:
        order = (await self._status())["order"]
        if order is None or order["build"] is None:
            return _problem(409, "nothing_ordered", "no order asks this host for a build, so there is nothing to pull")
        self._post(RepullRequested())
        return _json({"accepted": True, "build": order["build"]}, status=202)

    async def _post_hold(self, request: web.Request) -> web.Response:
        try:
            hold = msgspec.json.decode(await request.read(), type=_HoldRequest)
        except msgspec.DecodeError as error:
            return _problem(400, "bad_request", f'the body must be {{"reason": "..."}}: {error}')
        self._post(HoldPlaced(hold.reason))
        return _json({"accepted": True}, status=202)

    async def _post_unhold(self, _request: web.Request) -> web.Response:
        self._post(HoldLifted())
        return _json({"accepted": True}, status=202)


def _listen(path: Path) -> socket.socket:
    if os.path.lexists(path) and not stat.S_ISSOCK(path.lstat().st_mode):
        raise ConfigError(f"socket {path}: something that is no socket is there; remove it or configure another")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The locks of root and state directory are ours: whoever listened here before is dead.
        path.unlink(missing_ok=True)
        listener.bind(os.fspath(path))
        path.chmod(SOCKET_MODE)
    except OSError as error:
        listener.close()
        if error.errno is None or error.errno == errno.ENAMETOOLONG:  # bind() says "path too long" without a number
            raise ConfigError(f"socket {path}: the path must be shorter than 108 bytes: {error}") from error
        raise ConfigError(f"socket {path}: cannot listen: {error}; give the agent's user the directory") from error
    return listener


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _problem(error.status, "http", f"{request.method} {request.path}: {error.reason}")


def _as_sent(event: Event) -> bytes:
    data = msgspec.json.encode(event, enc_hook=str)
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.id, " ".join(event.event.split()).encode(), data)


def _json(document: dict[str, Any], *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(document) + b"\n", content_type="application/json")


def _problem(status: int, kind: str, message: str) -> web.Response:
    return _json({"error": {"kind": kind, "message": message}}, status=status)
