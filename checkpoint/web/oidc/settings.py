"""Owns the `[web.oidc]` table of `checkpoint.toml`: which provider signs people in, and who of them may what; strict.

Asking the provider is left to `checkpoint.web.oidc.provider`. Nothing here imports a server or a library of signatures:
the engine's own configuration is read without them.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

import msgspec

from artifact import ConfigError
from checkpoint.web.rights import RoleName

MAX_SKEW_S: Final = 300.0
MAX_TIMEOUT_S: Final = 60.0

_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


class OidcTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[web.oidc]`: an OpenID Connect provider that signs people in.

    Attributes:
        issuer: the provider, exactly as it calls itself; its discovery document lies below.
        client_id: as the provider knows this server.
        client_secret_file: holds the secret that goes with it; empty: a public client.
        label: what the button calls the provider; empty: its host.
        scopes: what is asked for; `openid` always.
        name_claim: the claim that names a person in the audit.
        roles_claim: the claim whose values give roles; one inside others with dots in between.
        roles: role of each value; somebody with several has the highest.
        default_role: of people of whom `roles` has no value.
        clock_skew_s: how far the provider's clock may be off.
        timeout_s: how long one answer of the provider's may take.
    """

    issuer: str
    client_id: str
    client_secret_file: str = ""
    label: str = ""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    name_claim: str = "preferred_username"
    roles_claim: str = "groups"
    roles: dict[str, RoleName] = {}
    default_role: RoleName = "none"
    clock_skew_s: float = 60.0
    timeout_s: float = 10.0

    @property
    def shown(self) -> str:
        """What people read."""
        return self.label or (urlsplit(self.issuer).hostname or self.issuer)


def check_oidc(oidc: OidcTable, public_url: str) -> None:
    """Refuse what cannot be meant, and what would send codes in the clear.

    Raises:
        ConfigError: names the key, what was found and what is allowed.
    """
    _check_issuer(oidc.issuer)
    if not is_safe(public_url):
        raise ConfigError(
            f'web.public_url = "{public_url}": with [web.oidc], give the address that the provider sends people back '
            "to, as in https://deploy.example.com; http:// only where it is this machine"
        )
    _check_request(oidc)
    _check_people(oidc)
    if not 0 <= oidc.clock_skew_s <= MAX_SKEW_S:
        raise ConfigError(f"web.oidc.clock_skew_s = {oidc.clock_skew_s:g}: must be from 0 to {MAX_SKEW_S:g}")
    if not 0 < oidc.timeout_s <= MAX_TIMEOUT_S:
        raise ConfigError(
            f"web.oidc.timeout_s = {oidc.timeout_s:g}: must be greater than 0, and at most {MAX_TIMEOUT_S:g}"
        )


def _check_request(oidc: OidcTable) -> None:
    if not oidc.client_id or not oidc.client_id.isprintable():
        raise ConfigError(f'web.oidc.client_id = "{oidc.client_id}": give the id that the provider has for this server')
    if "openid" not in oidc.scopes:
        raise ConfigError(f'web.oidc.scopes = {list(oidc.scopes)}: "openid" must be among them')
    for scope in oidc.scopes:
        if not _SCOPE.fullmatch(scope):
            raise ConfigError(
                f'web.oidc.scopes: "{scope}" cannot be a scope: printable ASCII, no space, quote or backslash'
            )


def _check_people(oidc: OidcTable) -> None:
    if not oidc.name_claim:
        raise ConfigError('web.oidc.name_claim is empty: give the claim that names people, as in "email"')
    if {*oidc.roles.values(), oidc.default_role} == {"none"}:
        raise ConfigError(
            '[web.oidc] gives nobody a role: give web.oidc.roles, as in roles = {deployers = "deploy"}, or a '
            "web.oidc.default_role"
        )
    if oidc.roles and not oidc.roles_claim:
        raise ConfigError(
            'web.oidc.roles_claim is empty: give the claim whose values are in web.oidc.roles, as in "groups"'
        )


def _check_issuer(issuer: str) -> None:
    parts = urlsplit(issuer)
    if not is_safe(issuer) or parts.query or parts.fragment or parts.username is not None:
        raise ConfigError(
            f'web.oidc.issuer = "{issuer}": give the provider\'s own name for itself, as in https://login.example.com; '
            "http:// only where it is this machine"
        )


def is_safe(url: str) -> bool:
    """Whether what goes to a URL is kept from others: by https, or since it stays on this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and _is_here(host)))


def _is_here(host: str) -> bool:
    return host in {"localhost", "::1"} or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None
