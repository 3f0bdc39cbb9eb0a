"""Owns who may do what: every route with the role that it needs. Pure; a route that is not listed here is not served.

Finding out who asks is left to `checkpoint.web.identity`, and answering to the handlers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal


class Role(IntEnum):
    """What somebody may; each may all that those before it may."""

    NONE = 0
    READ = 1
    DEPLOY = 2
    ADMIN = 3


@dataclass(frozen=True)
class Person:
    """Who asks.

    Attributes:
        name: as it stands in the audit.
        session: what forgery tokens are bound to.
        via: how they are known; `bearer` requests cannot be forged by a page, so they need no forgery token.
    """

    name: str
    role: Role
    session: str
    via: Literal["session", "proxy", "bearer"]


@dataclass(frozen=True)
class Route:
    """One route. `kind` says how a refusal is told: `page` by a page, `data` by JSON or a bare status."""

    method: Literal["GET", "POST"]
    path: str
    name: str
    role: Role
    kind: Literal["page", "data"] = "page"

    @property
    def writes(self) -> bool:
        """Whether it needs a forgery token, and counts against the limit of writes."""
        return self.method == "POST"


ROUTES: Final = (
    Route("GET", "/healthz", "health", Role.NONE, "data"),
    Route("GET", "/static/{file:[a-z0-9./-]+}", "static", Role.NONE, "data"),
    Route("GET", "/sign-in", "sign_in", Role.NONE),
    Route("POST", "/sign-in", "signed_in", Role.NONE),
    Route("POST", "/sign-out", "sign_out", Role.READ),
    Route("GET", "/", "train", Role.READ),
    Route("GET", "/rollouts/{number:[0-9]{1,9}}", "rollout", Role.READ),
    Route("POST", "/rollouts/{number:[0-9]{1,9}}/act", "act", Role.DEPLOY),
    Route("POST", "/rollouts/{number:[0-9]{1,9}}/override", "override", Role.ADMIN),
    Route("GET", "/new", "new", Role.DEPLOY),
    Route("POST", "/new/plan", "plan", Role.DEPLOY),
    Route("POST", "/new/start", "start", Role.DEPLOY),
    Route("GET", "/hosts", "hosts", Role.READ),
    Route("GET", "/hosts/{tier}/{host}", "host", Role.READ),
    Route("GET", "/history", "history", Role.READ),
    Route("GET", "/history/verify", "verify", Role.READ),
    Route("GET", "/history/export", "export", Role.READ, "data"),
    Route("GET", "/history/statistics", "statistics", Role.READ),
    Route("GET", "/settings", "settings", Role.READ),
    Route("POST", "/deliveries/resend", "resend", Role.DEPLOY),
    Route("POST", "/command", "command", Role.DEPLOY),
    Route("POST", "/lock", "lock", Role.DEPLOY),
    Route("POST", "/unlock", "unlock", Role.ADMIN),
    Route("GET", "/events", "events", Role.READ, "data"),
    Route("GET", "/api/rollout", "api_rollout", Role.READ, "data"),
    Route("GET", "/api/hosts", "api_hosts", Role.READ, "data"),
    Route("GET", "/api/audit", "api_audit", Role.READ, "data"),
    Route("POST", "/api/rollout/act", "api_act", Role.DEPLOY, "data"),
    Route("GET", "/api/openapi.json", "api_description", Role.READ, "data"),
)
BY_NAME: Final = {route.name: route for route in ROUTES}
