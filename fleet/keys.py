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


def service_name(app: str) -> str:
    """Name of the Consul service that the app's agents register."""
    return f"hotcold-{check_name('app', app)}"


def service_id(app: str, tier: str, host: str) -> str:
    """Id of one host's service: unique even where hosts share a Consul agent."""
    return f"{service_name(app)}-{check_name('tier', tier)}-{check_name('host', host)}"
