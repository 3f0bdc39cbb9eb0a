"""Owns who may do what: every route with the role that it needs. Pure; a route that is not listed here is not served.

Finding out who asks is left to `checkpoint.web.identity`, and answering to the handlers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

RoleName = Literal["none", "read", "deploy", "admin"]
"""A role as it stands in a configuration."""


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


RETURN_PATH: Final = "/sign-in/oidc/return"
"""Where a provider sends people back to: this path of `web.public_url`, and no other."""
SIGNED_OUT_PATH: Final = "/sign-out/done"

ROUTES: Final = (
    Route("GET", "/healthz", "health", Role.NONE, "data"),
    Route("GET", "/static/{file:[a-z0-9./-]+}", "static", Role.NONE, "data"),
    Route("GET", "/sign-in", "sign_in", Role.NONE),
    Route("POST", "/sign-in", "signed_in", Role.NONE),
    Route("GET", "/sign-in/oidc", "oidc_begin", Role.NONE),
    Route("GET", RETURN_PATH, "oidc_return", Role.NONE),
    Route("POST", "/sign-out", "sign_out", Role.READ),
    Route("GET", SIGNED_OUT_PATH, "oidc_signed_out", Role.NONE),
    Route("GET", "/", "train", Role.READ),
    Route("GET", "/rollouts/{number:[0-9]{1,9}}", "rollout", Role.READ),
    Route("GET", "/rollouts/{number:[0-9]{1,9}}/charts", "charts", Role.READ, "data"),
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
    Route("GET", "/api/rollouts", "api_rollouts", Role.READ, "data"),
    Route("GET", "/api/rollouts/{number:[0-9]{1,9}}", "api_past_rollout", Role.READ, "data"),
    Route("GET", "/api/rollouts/{number:[0-9]{1,9}}/evidence", "api_evidence", Role.READ, "data"),
    Route("POST", "/api/plans", "api_plan", Role.DEPLOY, "data"),
    Route("POST", "/api/rollouts", "api_start", Role.DEPLOY, "data"),
    Route("POST", "/api/rollouts/{number:[0-9]{1,9}}/act", "api_act", Role.DEPLOY, "data"),
    Route("POST", "/api/rollouts/{number:[0-9]{1,9}}/set-aside", "api_set_aside", Role.DEPLOY, "data"),
    Route("POST", "/api/rollouts/{number:[0-9]{1,9}}/take-back", "api_take_back", Role.DEPLOY, "data"),
    Route("POST", "/api/rollouts/{number:[0-9]{1,9}}/override", "api_override", Role.ADMIN, "data"),
    Route("GET", "/api/tiers", "api_tiers", Role.READ, "data"),
    Route("GET", "/api/hosts", "api_hosts", Role.READ, "data"),
    Route("GET", "/api/hosts/{tier}/{host}", "api_host", Role.READ, "data"),
    Route("GET", "/api/builds", "api_builds", Role.READ, "data"),
    Route("GET", "/api/guards", "api_guards", Role.READ, "data"),
    Route("POST", "/api/command/take", "api_take_command", Role.DEPLOY, "data"),
    Route("POST", "/api/command/hand-over", "api_hand_over", Role.DEPLOY, "data"),
    Route("POST", "/api/command/release", "api_release_command", Role.DEPLOY, "data"),
    Route("POST", "/api/lock", "api_lock", Role.DEPLOY, "data"),
    Route("POST", "/api/unlock", "api_unlock", Role.ADMIN, "data"),
    Route("POST", "/api/deny", "api_deny", Role.DEPLOY, "data"),
    Route("POST", "/api/allow", "api_allow", Role.ADMIN, "data"),
    Route("GET", "/api/audit", "api_audit", Role.READ, "data"),
    Route("GET", "/api/audit/verify", "api_verify_audit", Role.READ, "data"),
    Route("GET", "/api/settings", "api_settings", Role.READ, "data"),
    Route("GET", "/api/openapi.json", "api_description", Role.READ, "data"),
)
BY_NAME: Final = {route.name: route for route in ROUTES}
