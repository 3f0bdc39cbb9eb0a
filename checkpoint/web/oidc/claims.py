"""Owns what an ID token must say to be believed, and what of it makes a person: name, and values that give roles. Pure.

Signatures are left to `checkpoint.web.oidc.keys`: nothing here is called with a payload whose signature was not good.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from artifact import Refused
from checkpoint.web.oidc.settings import OidcTable
from checkpoint.web.rights import Role
from checkpoint.web.tokens import NAME

MAX_SUBJECT: Final = 255
_MISSING: Final = object()


class _IdToken(msgspec.Struct, frozen=True, kw_only=True):
    iss: str
    sub: str
    aud: str | tuple[str, ...]
    exp: float
    iat: float
    nonce: str = ""
    azp: str | None = None
    nbf: float | None = None


class Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whom the provider has signed in.

    Attributes:
        issuer: who says so.
        client: for whom it was said: our client id.
        sub: the provider's own id of them.
        name: as it stands in the audit.
        values: those of the claim of roles that the configuration knew at the sign-in.
    """

    issuer: str
    client: str
    sub: str
    name: str
    values: tuple[str, ...]


def read_id_token(payload: bytes, table: OidcTable, *, nonce: str, now_s: float) -> dict[str, Any]:
    """All claims of an ID token that was made by this issuer, for this server, for this sign-in, and counts now.

    Args:
        payload: signed by the provider.
        table: what is expected.
        nonce: of the sign-in.
        now_s: seconds since the epoch.

    Raises:
        Refused: it says something else.
    """
    try:
        token = msgspec.json.decode(payload, type=_IdToken)
        claims = msgspec.json.decode(payload, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(f"it is not what an ID token is: {error}") from error
    if token.iss != table.issuer:
        raise _bad(f'its issuer is "{token.iss[:100]}"')
    audience = (token.aud,) if isinstance(token.aud, str) else token.aud
    if table.client_id not in audience:
        raise _bad("it was made for another client")
    # With several audiences, another of them could pass on what it was given; the authorized party says who asked.
    if len(set(audience)) > 1 and token.azp is None:
        raise _bad("it was made for several clients, and does not say which of them asked")
    if token.azp is not None and token.azp != table.client_id:
        raise _bad("another client asked for it")
    _check_times(token, now_s, table.clock_skew_s)
    if not hmac.compare_digest(token.nonce.encode(errors="replace"), nonce.encode()):
        raise _bad("its nonce is of another sign-in")
    if not 0 < len(token.sub) <= MAX_SUBJECT:
        raise _bad("it names nobody")
    return claims


def _check_times(token: _IdToken, now_s: float, skew_s: float) -> None:
    if token.exp <= now_s - skew_s:
        raise _bad(f"it ended {now_s - token.exp:.0f} s ago; check the clocks of both machines")
    if token.iat > now_s + skew_s:
        raise _bad(f"it is from {token.iat - now_s:.0f} s in the future; check the clocks of both machines")
    if token.nbf is not None and token.nbf > now_s + skew_s:
        raise _bad(f"it counts only in {token.nbf - now_s:.0f} s; check the clocks of both machines")


def lacks(claims: Mapping[str, Any], table: OidcTable) -> bool:
    """Whether the userinfo endpoint has to be asked too: the name, or the values that give roles, are not there."""
    wanted = [table.name_claim, *([table.roles_claim] if table.roles else [])]
    return any(find_claim(claims, name) is None for name in wanted)


def merged(claims: Mapping[str, Any], userinfo: bytes) -> dict[str, Any]:
    """Claims with those of the userinfo endpoint; what was signed goes first.

    Raises:
        Refused: they are no claims, or another person's.
    """
    try:
        more = msgspec.json.decode(userinfo, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"the userinfo endpoint gave no claims: {error}", kind="userinfo_invalid") from error
    if more.get("sub") != claims.get("sub"):
        raise Refused("the userinfo endpoint told of somebody else", kind="userinfo_invalid")
    return {**more, **claims}


def subject_of(claims: Mapping[str, Any], table: OidcTable) -> Subject:
    """The person whom claims describe.

    Raises:
        Refused: they have no name that can stand in the audit.
    """
    name = find_claim(claims, table.name_claim)
    if not isinstance(name, str):
        raise Refused(
            f'{table.shown} gave no claim "{table.name_claim}" to name you by: web.oidc.name_claim and web.oidc.scopes '
            "say what is asked for",
            kind="no_name",
        )
    if not NAME.fullmatch(name):
        raise Refused(
            f'{table.shown} calls you "{name[:100]}", which cannot stand in the audit, as letters, digits and . _ + @ '
            "- can: let web.oidc.name_claim be another claim",
            kind="no_name",
        )
    # Where anybody may type in any address, an address is nobody's name.
    if table.name_claim == "email" and claims.get("email_verified") in (False, "false"):
        raise Refused(f"{table.shown} has not verified that {name} is your address", kind="no_name")
    values = tuple(sorted(values_of(claims, table.roles_claim) & table.roles.keys()))
    return Subject(issuer=table.issuer, client=table.client_id, sub=claims["sub"], name=name, values=values)


def values_of(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    """The words of a claim that is one word or a list of them."""
    found = find_claim(claims, name)
    given = found if isinstance(found, list) else [found]
    return frozenset(each for each in given if isinstance(each, str))


def role_of(subject: Subject, table: OidcTable) -> Role:
    """What somebody may, by the configuration as it is now; nothing where it names another provider or client."""
    if (subject.issuer, subject.client) != (table.issuer, table.client_id):
        return Role.NONE
    given = [table.roles[value] for value in subject.values if value in table.roles]
    return max((Role[role.upper()] for role in given), default=Role[table.default_role.upper()])


def find_claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or by its path through others, with dots in between; None: it is not there."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part, _MISSING) if isinstance(found, dict) else _MISSING
    return None if found is _MISSING else found


def _bad(what: str) -> Refused:
    return Refused(f"the ID token is not believed: {what}", kind="id_token_invalid")
