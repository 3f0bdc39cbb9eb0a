"""Owns what an operation of the API is: a typed function, and how a request becomes its arguments and its answer.

The functions are left to their modules, and the description of their types to `checkpoint.web.api.description`: both
are made from the same annotations, so that the description is what is parsed.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from artifact import HotcoldError
from checkpoint.web import api_errors
from checkpoint.web.gate import Denied
from checkpoint.web.rights import BY_NAME, Route

log = structlog.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Function = Callable[..., Awaitable[Any]]

JSON: Final = "application/json"
MAX_QUERY: Final = 16


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        summary: what it does, in a line.
        path, query, body: what it takes, as types; None: nothing there.
        answer: what it gives.
    """

    name: str
    summary: str
    path: Any
    query: Any
    body: Any
    answer: Any
    function: _Function

    @property
    def route(self) -> Route:
        """Its route, with the role that it needs."""
        return BY_NAME[self.name]

    @property
    def statuses(self) -> tuple[int, ...]:
        """With which errors it may answer; every one of them is documented."""
        # 409 also where something is read: what lies in Consul may be damaged, or of another version.
        found = {400, 401, 409, 421, 500, 503}
        if self.path is not None or self.route.writes:
            found.add(404)
        if self.route.writes:
            found |= {403, 413, 415, 429}
        if self.route.role.name != "READ":
            found.add(403)
        return tuple(sorted(found))

    async def handle(self, request: web.Request) -> web.Response:
        """Answer a request that the gate let in."""
        try:
            arguments = await self._arguments(request)
        except _NotAsked as error:
            return api_errors.answer(error.status, str(error), kind=error.kind)
        try:
            found = await self.function(request, **arguments)
        except HotcoldError as error:
            return api_errors.answer(api_errors.status_of(error), str(error), kind=error.kind)
        except (web.HTTPException, Denied):
            raise
        except Exception:
            log.exception("an operation failed", operation=self.name)
            return api_errors.answer(500, f"{self.name} failed: whether anything was done, the audit tells")
        return web.Response(body=msgspec.json.encode(found), content_type=JSON, charset="utf-8")

    async def _arguments(self, request: web.Request) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        if self.path is not None:
            try:
                arguments["path"] = msgspec.convert(dict(request.match_info), self.path, strict=False)
            except msgspec.ValidationError as error:
                raise _NotAsked(404, f"there is nothing at {request.path}: {error}", kind="http_404") from error
        query = _query(request)
        if self.query is not None:
            try:
                arguments["query"] = msgspec.convert(query, self.query, strict=False)
            except msgspec.ValidationError as error:
                raise _NotAsked(400, f"the query is not as it must be: {error}") from error
        elif query:
            raise _NotAsked(400, f"the query is not as it must be: {min(query)!r} is not asked for here")
        if self.body is not None:
            arguments["body"] = await self._body(request)
        return arguments

    async def _body(self, request: web.Request) -> Any:
        if request.content_type != JSON:
            raise _NotAsked(415, f"the body is {request.content_type}, not {JSON}", kind="not_json")
        data = await request.read()
        try:
            return msgspec.convert(_with_integers(msgspec.json.decode(data)), self.body)
        except UnicodeDecodeError as error:
            raise _NotAsked(400, f"the body is not UTF-8: {error.reason} at byte {error.start}") from error
        except (msgspec.DecodeError, RecursionError) as error:
            raise _NotAsked(400, f"the body is not as it must be: {error}") from error


class _NotAsked(Exception):
    """A request that is none: `status` for machines."""

    def __init__(self, status: int, message: str, *, kind: str = "bad_field") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


def _with_integers(value: Any) -> Any:
    """The value with 46.0 as 46: JSON has one kind of number, and schemas call both an integer."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_with_integers(each) for each in value]
    if isinstance(value, dict):
        return {name: _with_integers(each) for name, each in value.items()}
    return value


def _query(request: web.Request) -> Mapping[str, str]:
    """What is asked for; a name that stands there twice means two things, so it means nothing."""
    found: dict[str, str] = {}
    for name, value in request.query.items():
        if name in found:
            raise _NotAsked(400, f"the query is not as it must be: {name!r} stands there twice")
        if len(found) == MAX_QUERY:
            raise _NotAsked(400, "the query is not as it must be: it has too many names")
        found[name] = value
    return found


def operation(name: str, function: _Function) -> Operation:
    """An operation from a function `(request, *, path, query, body) -> answer`; it has those of the three it needs."""
    hints = typing.get_type_hints(function, include_extras=True)
    summary = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
    return Operation(
        name=name,
        summary=summary,
        path=hints.get("path"),
        query=hints.get("query"),
        body=hints.get("body"),
        answer=hints["return"],
        function=function,
    )
