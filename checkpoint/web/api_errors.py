"""Owns how the API says that something was not done: one shape, a status for machines, and what to do.

Why it was not done is said by whoever refused; pages say the same in their own way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from aiohttp import web

from artifact import HotcoldError, IllegalTransition

PREFIX: Final = "/api/"

STATUSES: Final[Mapping[int, str]] = {
    400: "the request is not as it must be: nothing was done",
    401: "nobody is signed in",
    403: "the role does not allow it, or another site sent the request",
    404: "there is no such thing",
    405: "not with this method",
    409: "it cannot be done as things stand, or they changed since that index: nothing was done",
    413: "the body is too large",
    415: "the body is not application/json",
    421: "this server has another name",
    429: "too many actions in a minute",
    500: "an error of this server",
    503: "Consul does not answer, or does not let this server",
}
"""What each status means."""

_NEXT: Final[Mapping[int, str]] = {
    400: "send it as /api/openapi.json describes it",
    401: "send `Authorization: Bearer TOKEN`; `hotcold checkpoint token new` makes one",
    403: "ask somebody with the role; /api/openapi.json says which each operation needs",
    404: "look at the lists: /api/rollouts, /api/hosts, /api/tiers, /api/builds",
    405: "use a method that the header Allow names",
    409: "look at /api/rollout and /api/guards, and decide again",
    413: "send less",
    415: "send JSON, with `Content-Type: application/json`",
    421: "set web.public_url to the name by which it is asked",
    429: "wait a minute",
    500: "look at this server's log",
    503: "look whether Consul answers, and try again; hosts keep what they run",
}
_NEXT_BY_KIND: Final[Mapping[str, str]] = {
    "stale": "read /api/rollout, and decide again on its index",
    "plan_stale": "make another plan, and look at it",
    "not_applicable": "nothing: it is so already, or there is nothing to do it to",
    "not_the_commander": "ask the commander; pausing, aborting and rolling back are open to all with the role deploy",
    "locked": "find out why it is locked; an admin lifts it by /api/unlock",
    "build_denied": "find out why it is denied; an admin lifts it by /api/allow",
    "rollout_under_way": "finish, abort or roll back that rollout first",
    "unknown_build": "look at /api/builds, or give the URL of its manifest",
}
_STATUS_BY_KIND: Final[Mapping[str, int]] = {
    **dict.fromkeys(("bad_field", "no_reason"), 400),
    **dict.fromkeys(("unknown_build", "unknown_host", "unknown_tier", "unknown_rollout"), 404),
    **dict.fromkeys(("store_unreachable", "store_refused"), 503),
}


class Error(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Why something was not done."""

    kind: Annotated[str, msgspec.Meta(description="a stable word; `http_` and the status where there is no other")]
    message: Annotated[str, msgspec.Meta(description="what happened, for people")]
    next: Annotated[str, msgspec.Meta(description="what to do")]


def status_of(error: HotcoldError) -> int:
    """The status that an error of ours is told with."""
    if isinstance(error, IllegalTransition):
        return 500
    return _STATUS_BY_KIND.get(error.kind, 409)


def answer(
    status: int, message: str, *, kind: str | None = None, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An error as it is sent."""
    kind = kind or f"http_{status}"
    following = _NEXT_BY_KIND.get(kind) or _NEXT.get(status, "look at /api/openapi.json")
    body = msgspec.json.encode(Error(kind=kind, message=message or STATUSES.get(status, ""), next=following))
    challenge = {"WWW-Authenticate": "Bearer"} if status == 401 else {}  # noqa: PLR2004 - nobody is signed in
    return web.Response(
        status=status,
        body=body,
        content_type="application/json",
        charset="utf-8",
        headers={**challenge, **(headers or {})},
    )
