"""Owns the status socket: HTTP on a Unix socket for operators, probes and Prometheus.

What is told is left to `agent.status` and `agent.metrics`; what is asked for becomes a command of the loop.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from agent.blocking import run_blocking
from agent.config import SocketAccess
from agent.events import Command, HoldLifted, HoldPlaced, RefusalLifted, RepullRequested
from agent.history import Event, History
from agent.metrics import exposition
from agent.peers import name_of, objection, peer_of
from agent.states import Refusal
from agent.work import Observed
from artifact import ConfigError

log = structlog.get_logger()

_SHOWN_EVENTS = 100
_KEPT_ALIVE_S = 15.0
_READING = frozenset({"GET", "HEAD"})


class _HoldRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: str


class _ForgetRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    build: str | None = None


@dataclass(frozen=True)
class Writers:
    """Who beside root and the agent's own user may give orders: members of `group`; None: nobody.

    `config_path` names the file that says so, for who is refused.
    """

    group: str | None
    config_path: str


class StatusServer:
    """Serves until `aclose`.

    Args:
        path: of the socket.
        access: who may open it, and so look.
        writers: who may also give orders; asked at each one.
        status: the document, made anew at each call.
        unhealthy: why the agent is not healthy, or None.
        post: hands a command to the loop.
        refusal: the build that is refused, if one is.
        history: what has happened.
    """

    def __init__(
        self,
        path: Path,
        access: SocketAccess,
        *,
        writers: Callable[[], Writers],
        status: Callable[[], Awaitable[dict[str, Any]]],
        observed: Observed,
        unhealthy: Callable[[], str | None],
        post: Callable[[Command], None],
        refusal: Callable[[], Refusal | None],
        history: History,
    ) -> None:
        self._path = path
        self._access = access
        self._writers = writers
        self._status = status
        self._observed = observed
        self._unhealthy = unhealthy
        self._post = post
        self._refusal = refusal
        self._history = history
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. A socket that a former life left is replaced.

        Raises:
            ConfigError: the path is taken by something else, too long, or not writable.
        """
        application = web.Application(middlewares=[_errors_as_json, self._only_writers_write])
        application.add_routes(
            [
                web.get("/v1/status", self._get_status),
                web.get("/v1/history", self._get_history),
                web.get("/v1/events", self._get_events),
                web.get("/healthz", self._get_health),
                web.get("/metrics", self._get_metrics),
                web.post("/v1/repull", self._post_repull),
                web.post("/v1/forget", self._post_forget),
                web.post("/v1/hold", self._post_hold),
                web.post("/v1/unhold", self._post_unhold),
            ]
        )
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._runner = runner
        listener = _listen(self._path, self._access)
        await web.SockSite(runner, listener).start()

    async def aclose(self) -> None:
        """Stop listening and remove the socket. Calling it twice is harmless."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            self._path.unlink(missing_ok=True)

    @web.middleware
    async def _only_writers_write(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Whoever opened the socket may look; who gives orders is asked for, and remembered."""
        if request.method in _READING:
            return await handler(request)
        connection = None if request.transport is None else request.transport.get_extra_info("socket")
        if connection is None:
            return _problem(403, "not_allowed", "the connection is gone, so nobody knows whose order this is")
        peer, writers = peer_of(connection), self._writers()
        refused = await run_blocking(objection, peer, writers.group, writers.config_path)
        user = await run_blocking(name_of, peer.uid)
        if refused is not None:
            log.warning("order at the socket refused", call=request.path, user=user)
            return _problem(403, "not_allowed", refused)
        log.info("order at the socket", call=request.path, user=user)
        return await handler(request)

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

    async def _post_forget(self, request: web.Request) -> web.Response:
        try:
            asked = msgspec.json.decode(await request.read() or b"{}", type=_ForgetRequest)
        except msgspec.DecodeError as error:
            return _problem(400, "bad_request", f'the body must be {{}} or {{"build": "..."}}: {error}')
        refusal = self._refusal()
        if refusal is None:
            return _problem(409, "nothing_refused", "no build is refused on this host, so there is nothing to forget")
        if asked.build not in {None, refusal.build_id}:
            return _problem(
                409, "nothing_refused", f"build {asked.build} is not refused on this host; {refusal.build_id} is"
            )
        self._post(RefusalLifted())
        problem = msgspec.to_builtins(refusal.problem)
        return _json({"accepted": True, "build": refusal.build_id, "problem": problem}, status=202)

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


def _listen(path: Path, access: SocketAccess) -> socket.socket:
    if os.path.lexists(path) and not stat.S_ISSOCK(path.lstat().st_mode):
        raise ConfigError(f"socket {path}: something that is no socket is there; remove it or configure another")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The locks of root and state directory are ours: whoever listened here before is dead.
        path.unlink(missing_ok=True)
        listener.bind(os.fspath(path))
        if access.group is not None:
            shutil.chown(path, group=access.group)
        # Last: until now nobody but the owner can connect.
        path.chmod(access.mode)
    except LookupError as error:
        listener.close()
        raise ConfigError(
            f'access.group = "{access.group}": this host knows no such group; create it, or correct the name'
        ) from error
    except OSError as error:
        listener.close()
        if error.errno == errno.EPERM and access.group is not None:
            raise ConfigError(
                f'access.group = "{access.group}": the agent\'s user is not in that group, so it cannot give it the '
                f"socket; add it (usermod -aG {access.group} USER; the unit's SupplementaryGroups= does it, too)"
            ) from error
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
