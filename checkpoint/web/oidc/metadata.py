"""Owns what a provider says of itself: its discovery document, and which of it is believed. Pure.

Fetching it is left to `checkpoint.web.oidc.provider`.
"""

from __future__ import annotations

from typing import Final, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from artifact import Refused
from checkpoint.web.oidc.settings import OidcTable, is_safe

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""What an ID token may be signed with: a pair of keys, of which the provider alone has the private one."""
DISCOVERY: Final = "/.well-known/openid-configuration"

Proof = Literal["client_secret_basic", "client_secret_post", "none"]


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """The members of a discovery document that are used; others are not looked at."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    end_session_endpoint: str | None = None
    id_token_signing_alg_values_supported: tuple[str, ...] = ("RS256",)
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


def read_metadata(body: bytes, table: OidcTable) -> Metadata:
    """A discovery document that is believed.

    Raises:
        Refused: it is none, is another provider's, or leads to what cannot be used.
    """
    where = table.issuer.rstrip("/") + DISCOVERY
    try:
        found = msgspec.json.decode(body, type=Metadata)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _lies(f"{where} is no discovery document: {error}; check web.oidc.issuer") from error
    if found.issuer != table.issuer:
        raise _lies(
            f'{where} is of another issuer, "{found.issuer[:200]}": web.oidc.issuer must be what the provider calls '
            "itself"
        )
    named = {
        "authorization_endpoint": found.authorization_endpoint,
        "token_endpoint": found.token_endpoint,
        "jwks_uri": found.jwks_uri,
        "userinfo_endpoint": found.userinfo_endpoint,
        "end_session_endpoint": found.end_session_endpoint,
    }
    for name, url in named.items():
        if url is not None and not is_safe(url):
            raise _lies(f'{where}: {name} is "{url[:200]}", which is neither https nor on this machine')
    if not set(ALGORITHMS) & set(found.id_token_signing_alg_values_supported):
        raise _lies(
            f"{where}: ID tokens are signed by {', '.join(found.id_token_signing_alg_values_supported)[:200]}; "
            f"{', '.join(ALGORITHMS)} are taken"
        )
    proof_of(found, table)
    return found


def proof_of(metadata: Metadata, table: OidcTable) -> Proof:
    """How this server proves to the token endpoint who it is.

    Raises:
        Refused: in no way that the provider takes.
    """
    if not table.client_secret_file:
        return "none"
    for way in ("client_secret_basic", "client_secret_post"):
        if way in metadata.token_endpoint_auth_methods_supported:
            return way
    raise _lies(
        f"{table.shown} takes clients by {', '.join(metadata.token_endpoint_auth_methods_supported)[:200]}; "
        "a secret is sent by client_secret_basic or client_secret_post only"
    )


def with_query(url: str, facts: dict[str, str]) -> str:
    """A URL with more in its query; what is there stays."""
    parts = urlsplit(url)
    query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), *facts.items()])
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def _lies(message: str) -> Refused:
    return Refused(message, kind="provider_invalid")
