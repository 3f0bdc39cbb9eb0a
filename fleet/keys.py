"""Owns the names of everything that lies in Consul; leaves what stands there to `fleet.documents`.

Names come from `[A-Za-z0-9._-]` only: newer Consul servers refuse others, and its HTTP path normalisation turns
`a/../b` into `b`, so a name that could climb is refused before it is sent.
"""

from __future__ import annotations

import re

from artifact.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
ROOT = "hotcold"


def check_name(what: str, name: str) -> str:
    """Return `name` if it can stand in a key.

    Raises:
        ConfigError: it cannot; the message says which name and what is allowed.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise ConfigError(
            f"{what} {name!r} cannot be used in a Consul key: "
            "letters, digits, '.', '_' and '-' are allowed, at most 63, the first a letter or digit, without '..'",
            kind="bad_name",
        )
    return name


def tier_key(app: str, tier: str) -> str:
    """Key of the tier's order."""
    return f"{ROOT}/{check_name('app', app)}/tiers/{check_name('tier', tier)}"


def tiers_prefix(app: str) -> str:
    """Prefix of all orders of an app."""
    return f"{ROOT}/{check_name('app', app)}/tiers/"


def build_key(app: str, build_id: str) -> str:
    """Key of the record of one build that was released."""
    return f"{builds_prefix(app)}{check_name('build', build_id)}"


def builds_prefix(app: str) -> str:
    """Prefix of the records of all builds that were released."""
    return f"{ROOT}/{check_name('app', app)}/builds/"


def host_key(app: str, tier: str, host: str) -> str:
    """Key of one host's report."""
    return f"{hosts_prefix(app, tier)}{check_name('host', host)}"


def hosts_prefix(app: str, tier: str | None = None) -> str:
    """Prefix of the reports of a tier, or of all tiers."""
    prefix = f"{ROOT}/{check_name('app', app)}/hosts/"
    return prefix if tier is None else f"{prefix}{check_name('tier', tier)}/"


def slots_prefix(app: str, tier: str) -> str:
    """Prefix of the tier's slots: `<prefix>0` to `<prefix>N-1`."""
    return f"{ROOT}/{check_name('app', app)}/slots/{check_name('tier', tier)}/"


def checkpoint_prefix(app: str) -> str:
    """Prefix of all that Checkpoint keeps of an app."""
    return f"{ROOT}/{check_name('app', app)}/checkpoint/"


def rollout_key(app: str) -> str:
    """Key that names the app's latest rollout."""
    return f"{checkpoint_prefix(app)}rollout"


def plan_key(app: str, number: int) -> str:
    """Key of one rollout's plan."""
    return f"{checkpoint_prefix(app)}rollouts/{number}/plan"


def rollout_state_key(app: str, number: int) -> str:
    """Key of one rollout's state."""
    return f"{checkpoint_prefix(app)}rollouts/{number}/state"


def evidence_key(app: str, number: int) -> str:
    """Key of what verdicts of one rollout remember."""
    return f"{checkpoint_prefix(app)}rollouts/{number}/evidence"


def series_key(app: str, number: int) -> str:
    """Key of the course of one rollout's metrics; what begins with `evidence_key` is read together."""
    return f"{evidence_key(app, number)}-series"


def lock_key(app: str) -> str:
    """Key of the app's lock and of its denied builds."""
    return f"{checkpoint_prefix(app)}lock"


def commander_key(app: str) -> str:
    """Key of the commander's lease."""
    return f"{checkpoint_prefix(app)}commander"


def schedule_key(app: str) -> str:
    """Key of the schedule of deploys."""
    return f"{checkpoint_prefix(app)}schedule"


def audit_head_key(app: str) -> str:
    """Key that names the audit's latest record."""
    return f"{checkpoint_prefix(app)}audit-head"


def audit_anchor_key(app: str) -> str:
    """Key that names the audit's latest record that was archived."""
    return f"{checkpoint_prefix(app)}audit-anchor"


def audit_key(app: str, number: int) -> str:
    """Key of one record of the audit; keys sort as the records."""
    return f"{audit_prefix(app)}{number:010}"


def audit_prefix(app: str) -> str:
    """Prefix of the audit's records."""
    return f"{checkpoint_prefix(app)}audit/"


def delivery_key(app: str, webhook: str) -> str:
    """Key of what was delivered to one webhook."""
    return f"{deliveries_prefix(app)}{check_name('webhook', webhook)}"


def deliveries_prefix(app: str) -> str:
    """Prefix of what was delivered to all webhooks."""
    return f"{checkpoint_prefix(app)}deliveries/"


def leader_prefix(app: str) -> str:
    """Prefix of the one slot that the leading engine holds."""
    return f"{checkpoint_prefix(app)}leader/"


def all_slots_prefix(app: str) -> str:
    """Prefix of the slots of all tiers of an app."""
    return f"{ROOT}/{check_name('app', app)}/slots/"


def service_name(app: str) -> str:
    """Name of the Consul service that the app's agents register."""
    return f"hotcold-{check_name('app', app)}"


def service_id(app: str, tier: str, host: str) -> str:
    """Id of one host's service: unique even where hosts share a Consul agent."""
    return f"{service_name(app)}-{check_name('tier', tier)}-{check_name('host', host)}"
