"""Owns `/v1/session`; leaves what ends with a session to `fleet.devserver.state`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from aiohttp import web

from fleet.devserver.answers import RequestRefused, json_answer, query_headers
from fleet.devserver.bodies import Duration, decode_duration, decode_fields, decode_json, folded
from fleet.devserver.durations import nanoseconds, parse_duration
from fleet.devserver.http_kv import check_uuid
from fleet.devserver.queries import read_when_newer
from fleet.devserver.sessions import Session
from fleet.devserver.state import State
from fleet.devserver.waiting import Watch

DEFAULT_LOCK_DELAY_S = 15.0
TTL_MAX_S = 86400.0
_LOCK_DELAY_IN_SECONDS_BELOW = 1000
"""A lock delay given as a smaller number means seconds, a larger one nanoseconds."""


class _SessionBody(msgspec.Struct, rename=folded):
    name: str = ""
    node: str | None = None
    ttl: str = ""
    behavior: str = ""
    lock_delay: Duration = DEFAULT_LOCK_DELAY_S
    checks: list[str] | None = None
    node_checks: list[str] | None = None


class SessionHandlers:
    """Handlers of `/v1/session`."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def create(self, request: web.Request) -> web.Response:
        """Open a session."""
        raw = await request.read()
        body = decode_fields(decode_json(raw), _SessionBody) if raw else _SessionBody()
        if body.node not in {None, self._state.node.name}:
            raise RequestRefused(500, "Missing node registration")
        session = self._state.open_session(
            Session(
                id="",
                name=body.name,
                node=self._state.node.name,
                behavior=_behavior(body.behavior),
                lock_delay_s=_lock_delay_s(body.lock_delay),
                ttl=body.ttl,
                ttl_s=_ttl_s(body.ttl, self._state.session_ttl_min_s),
                checks=self._checks(body),
                create_index=0,
            )
        )
        return json_answer({"ID": session.id})

    def _checks(self, body: _SessionBody) -> tuple[str, ...]:
        given = body.checks if body.node_checks is None else body.node_checks
        names = ["serfHealth"] if given is None else given
        for name in names:
            check = self._state.catalog.check(name)
            if check is None:
                raise RequestRefused(500, f"Missing check '{name}' registration")
            if check.status == "critical":
                raise RequestRefused(500, f"Check '{name}' is in critical state")
        return tuple(names)

    async def renew(self, request: web.Request) -> web.Response:
        """Start a session's TTL again."""
        session = self._state.sessions.get(_session_id(request))
        if session is None:
            raise RequestRefused(404, f"Session id '{request.match_info['id']}' not found")
        self._state.sessions.renew(session, self._state.clock())
        return json_answer([_session_json(session)])

    async def destroy(self, request: web.Request) -> web.Response:
        """End a session; one that is gone is ended already."""
        session = self._state.sessions.get(_session_id(request))
        if session is not None:
            self._state.end_session(session)
        return json_answer(data=True)

    async def info(self, request: web.Request) -> web.Response:
        """One session in a list, which is empty where there is none."""
        session_id = _session_id(request)

        def read() -> tuple[int, Session | None]:
            return self._state.sessions.index, self._state.sessions.get(session_id)

        index, session = await read_when_newer(request, self._state.waiters, Watch("session", session_id), read)
        return json_answer([_session_json(session)] if session else [], headers=query_headers(index))

    async def list(self, request: web.Request) -> web.Response:
        """All sessions, or those of one node."""
        node = request.match_info.get("node", self._state.node.name)
        if not node:
            raise RequestRefused(400, "Missing node name")

        def read() -> tuple[int, list[Session]]:
            return self._state.sessions.index, self._state.sessions.all()

        watch = Watch("session", "", below=True)
        index, sessions = await read_when_newer(request, self._state.waiters, watch, read)
        shown = [_session_json(session) for session in sessions if session.node == node]
        return json_answer(shown, headers=query_headers(index))


def _session_id(request: web.Request) -> str:
    session_id = request.match_info["id"]
    if not session_id:
        raise RequestRefused(400, "Missing session")
    check_uuid(session_id)
    return session_id


def _behavior(text: str) -> Literal["release", "delete"]:
    match text:
        case "" | "release":
            return "release"
        case "delete":
            return "delete"
        case _:
            raise RequestRefused(500, f"Invalid Behavior setting '{text}'")


def _lock_delay_s(given: Duration) -> float:
    if not isinstance(given, str) and given < _LOCK_DELAY_IN_SECONDS_BELOW:
        return float(given)
    return decode_duration(given)


def _ttl_s(ttl: str, minimum_s: float) -> float:
    if not ttl:
        return 0.0
    try:
        ttl_s = parse_duration(ttl)
    except ValueError as error:
        raise RequestRefused(500, f"Session TTL '{ttl}' invalid: {error}") from error
    if not (ttl_s == 0 or minimum_s <= ttl_s <= TTL_MAX_S):
        raise RequestRefused(
            500, f"Invalid Session TTL '{nanoseconds(ttl_s)}', must be between [{minimum_s:g}s=24h0m0s]"
        )
    return ttl_s


def _session_json(session: Session) -> dict[str, Any]:
    return {
        "ID": session.id,
        "Name": session.name,
        "Node": session.node,
        "LockDelay": nanoseconds(session.lock_delay_s),
        "Behavior": session.behavior,
        "TTL": session.ttl,
        "NodeChecks": list(session.checks),
        "ServiceChecks": None,
        "CreateIndex": session.create_index,
        "ModifyIndex": session.create_index,
    }
