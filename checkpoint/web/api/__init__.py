"""The JSON API: the same facts and deeds as the pages, with the same rights; described by OpenAPI.

Each operation is a typed function. What it takes and gives is read from its annotations, both to parse requests and to
describe them. Roles stand in `checkpoint.web.rights`, and what a refusal looks like in `checkpoint.web.api_errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from checkpoint.web.api import deeds, hosts, plans, records, rollouts, standing
from checkpoint.web.api.description import openapi as described
from checkpoint.web.api.operations import Handler, Operation, operation
from checkpoint.web.site import site_of


async def description(request: web.Request) -> dict[str, Any]:
    """This API in OpenAPI."""
    return openapi(site_of(request).app)


OPERATIONS: Final[tuple[Operation, ...]] = (
    operation("api_rollout", rollouts.latest),
    operation("api_rollouts", rollouts.past),
    operation("api_past_rollout", rollouts.one),
    operation("api_evidence", rollouts.evidence),
    operation("api_plan", plans.plan),
    operation("api_start", plans.start),
    operation("api_act", deeds.act),
    operation("api_set_aside", deeds.set_aside),
    operation("api_take_back", deeds.take_back),
    operation("api_override", deeds.override),
    operation("api_tiers", hosts.tiers),
    operation("api_hosts", hosts.hosts),
    operation("api_host", hosts.one),
    operation("api_builds", standing.builds),
    operation("api_guards", standing.guards),
    operation("api_take_command", deeds.take),
    operation("api_hand_over", deeds.hand_over),
    operation("api_release_command", deeds.release),
    operation("api_lock", deeds.lock),
    operation("api_unlock", deeds.unlock),
    operation("api_deny", deeds.deny),
    operation("api_allow", deeds.allow),
    operation("api_audit", records.records),
    operation("api_verify_audit", records.verified),
    operation("api_settings", standing.settings),
    operation("api_description", description),
)
HANDLERS: Final[Mapping[str, Handler]] = {each.name: each.handle for each in OPERATIONS}
"""What answers each route of `checkpoint.web.rights` whose name begins with `api_`."""


def openapi(app: str) -> dict[str, Any]:
    """The description of an app's API."""
    return described(app, OPERATIONS)
