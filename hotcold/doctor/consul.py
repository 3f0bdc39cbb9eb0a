"""Owns the checks of Consul: does it answer, has it a leader, may this token do what the agent does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from artifact import ConfigError, HotcoldError
from fleet import StoreRefused, StoreUnreachable
from fleet.acl import agent_rights
from fleet.rights import Examination
from hotcold.doctor.finding import Finding
from hotcold.doctor.patient import Patient


def look_at_consul(patient: Patient) -> Sequence[Finding]:
    """Reachable, with a leader; and the rights of the token, where it is."""
    return asyncio.run(_look(patient))


async def _look(patient: Patient) -> Sequence[Finding]:
    identity = patient.settings.identity
    address = identity.consul.address
    async with Examination(identity.consul, grace_s=patient.patience_s) as examination:
        try:
            health = await examination.health()
        except StoreUnreachable as error:
            return (
                Finding(
                    "consul",
                    "wrong",
                    str(error),
                    f"what serves goes on serving; look at: curl {address}/v1/status/leader",
                ),
                Finding("rights", "unknown", "Consul does not answer"),
            )
        except ConfigError as error:
            return (Finding("consul", "wrong", str(error)), Finding("rights", "unknown", "Consul cannot be asked"))
        if not health.leader:
            return (
                Finding(
                    "consul",
                    "wrong",
                    f"{address} answers, and its cluster has no leader",
                    "consul operator raft list-peers",
                ),
                Finding("rights", "unknown", "without a leader nobody tells"),
            )
        return (
            Finding("consul", "ok", f"{address} answers; the leader is {health.leader}"),
            await _rights(patient, examination),
        )


async def _rights(patient: Patient, examination: Examination) -> Finding:
    identity = patient.settings.identity
    rights = agent_rights(identity.app, identity.tier, identity.host, identity.host)
    try:
        missing = await examination.missing(rights)
    except StoreRefused as error:
        return Finding("rights", "wrong", str(error), "give the agent a token that Consul knows")
    except HotcoldError as error:
        return Finding("rights", "unknown", str(error))
    if missing is None:
        return Finding("rights", "ok", "Consul asks for none: its access rules are off")
    if not missing:
        return Finding("rights", "ok", "the token may do all that the agent does")
    uses = ", ".join(right.use for right in missing)
    rules = "; ".join(right.rule for right in missing)
    return Finding(
        "rights",
        "wrong",
        f"the token may not {uses}; missing: {rules}",
        f"all that is needed: hotcold acl-policy --app {identity.app} --tier {identity.tier} --host {identity.host}",
    )
