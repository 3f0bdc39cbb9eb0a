"""ID tokens and keys of a provider that lies: nobody gets in by one that is not what it must be."""

from __future__ import annotations

import base64
import contextlib
import hmac
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from artifact import Refused
from checkpoint.web.oidc.claims import merged, read_id_token, subject_of
from checkpoint.web.oidc.keys import read_keys, verified
from checkpoint.web.oidc.metadata import read_metadata
from checkpoint.web.oidc.provider import PAUSE_S
from checkpoint.web.oidc.settings import OidcTable
from tests.oidc_hostile import Hostile, as_json, elliptic, hostile, rsa, signed
from tests.oidc_world import is_out, part, said, told, world_of
from tests.web_world import WebWorld

DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture
async def provider() -> AsyncIterator[Hostile]:
    async with hostile() as made:
        yield made


@pytest.fixture
async def web(provider: Hostile, tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with world_of(provider, tmp_path) as made:
        yield made


# --- tokens -----------------------------------------------------------------------------------------------------------


def altered(claims: dict[str, Any]) -> str:
    head, _, signature = signed(as_json(claims | {"sub": "18"}), rsa("one")).split(".")
    return f"{head}.{part(claims)}.{signature}"


def forged(claims: dict[str, Any], secret: bytes) -> str:
    """Signed with what everybody knows, as if it were a secret."""
    head = f"{part({'alg': 'HS256', 'kid': 'one'})}.{part(claims)}"
    mac = base64.urlsafe_b64encode(hmac.digest(secret, head.encode(), "sha256")).decode().rstrip("=")
    return f"{head}.{mac}"


def public_pem() -> bytes:
    return rsa("one").as_pem(private=False)


@dataclass(frozen=True)
class In:
    """A time so many seconds from now, whenever that is."""

    seconds: float


def at_once(claims: dict[str, Any]) -> dict[str, Any]:
    """Claims whose times are reckoned from now."""
    now_s = int(time.time())
    return {name: now_s + value.seconds if isinstance(value, In) else value for name, value in claims.items()}


TOKENS: dict[str, tuple[Callable[[dict[str, Any]], str], str]] = {
    "alg none": (lambda claims: f"{part({'alg': 'none'})}.{part(claims)}.", "signed by 'none'"),
    "alg None": (lambda claims: f"{part({'alg': 'None', 'kid': 'one'})}.{part(claims)}.", "signed by 'None'"),
    "alg null": (lambda claims: f"{part({'alg': None})}.{part(claims)}.", "signed by 'None'"),
    "alg missing": (lambda claims: f"{part({'kid': 'one'})}.{part(claims)}.", "cannot be read"),
    "alg list": (lambda claims: f"{part({'alg': ['RS256']})}.{part(claims)}.", "signed by"),
    "HS256 with the public key": (lambda claims: forged(claims, public_pem()), "signed by 'HS256'"),
    "HS256 with the modulus": (lambda claims: forged(claims, str(rsa("one")["n"]).encode()), "signed by 'HS256'"),
    "another key under a known name": (lambda claims: signed(as_json(claims), rsa("two"), kid="one"), "is wrong"),
    "the key along with it": (
        lambda claims: signed(as_json(claims), rsa("two"), kid="one", jwk=rsa("two").as_dict(private=False)),
        "is wrong",
    ),
    "a key that nobody has published": (lambda claims: signed(as_json(claims), rsa("two")), "'two' that nobody knows"),
    "a curve's key under a known name": (
        lambda claims: signed(as_json(claims), elliptic("e"), kid="one", alg="ES256"),
        "that nobody knows",
    ),
    "altered": (altered, "is wrong"),
    "unsigned": (lambda claims: signed(as_json(claims), rsa("one")).rpartition(".")[0] + ".", "is wrong"),
    "two parts": (lambda claims: signed(as_json(claims), rsa("one")).rpartition(".")[0], "cannot be read"),
    "five parts": (lambda claims: signed(as_json(claims), rsa("one")) + ".a.b", "cannot be read"),
    "nothing": (lambda _: "", "cannot be read"),
    "snow": (lambda _: "\N{SNOWMAN}.\N{SNOWMAN}.\N{SNOWMAN}", "cannot be read"),
    "critical": (
        lambda claims: f"{part({'alg': 'RS256', 'kid': 'one', 'crit': ['x'], 'x': 1})}.{part(claims)}.AAAA",
        "cannot be checked",
    ),
    "deep": (lambda _: signed(b'{"iss":' + b"[" * 50_000, rsa("one")), "not what an ID token is"),
    "a deep head": (
        lambda claims: base64.urlsafe_b64encode(b'{"alg":' + b"[" * 5000).decode() + f".{part(claims)}.AAAA",
        "cannot be read",
    ),
    "no JSON": (lambda _: signed(b"{", rsa("one")), "not what an ID token is"),
    "a list": (lambda _: signed(b"[]", rsa("one")), "not what an ID token is"),
}


@pytest.mark.parametrize("name", TOKENS)
async def test_a_token_that_is_not_signed_as_it_must_be_lets_nobody_in(
    web: WebWorld, provider: Hostile, name: str
) -> None:
    provider.token, part_of_it = TOKENS[name]
    client = web.client()
    answer = await provider.sign_in(client)
    assert answer.status == 403
    assert "The ID token is not believed" in said(answer)
    assert part_of_it in said(answer)
    assert await is_out(client)
    await told(web, part_of_it)


CLAIMS: dict[str, tuple[dict[str, Any], str]] = {
    "another nonce": ({"nonce": "x"}, "nonce is of another sign-in"),
    "no nonce": ({"nonce": ""}, "nonce is of another sign-in"),
    "null nonce": ({"nonce": None}, "not what an ID token is"),
    "a foreign issuer": ({"iss": "https://evil.example"}, 'its issuer is "https://evil.example"'),
    "the issuer with a slash": ({"iss": "+/"}, "its issuer is"),
    "another audience": ({"aud": "another"}, "made for another client"),
    "no audience": ({"aud": []}, "made for another client"),
    "part of the audience": ({"aud": "check"}, "made for another client"),
    "many audiences": ({"aud": ["checkpoint", "another"]}, "made for several clients"),
    "another party": ({"aud": ["checkpoint", "another"], "azp": "another"}, "another client asked"),
    "another party for us alone": ({"azp": "another"}, "another client asked"),
    "ended": ({"exp": In(-61)}, "it ended"),
    "ended long ago": ({"exp": 0}, "it ended"),
    "without an end": ({"exp": None}, "not what an ID token is"),
    "with an end in words": ({"exp": "600"}, "not what an ID token is"),
    "with a true end": ({"exp": True}, "not what an ID token is"),
    "from the future": ({"iat": In(600)}, "in the future"),
    "for later": ({"nbf": In(600)}, "counts only in"),
    "of nobody": ({"sub": ""}, "names nobody"),
    "of a number": ({"sub": 17}, "not what an ID token is"),
    "of somebody long": ({"sub": "x" * 256}, "names nobody"),
}


@pytest.mark.parametrize("name", CLAIMS)
async def test_a_token_that_does_not_say_what_it_must_lets_nobody_in(
    web: WebWorld, provider: Hostile, name: str
) -> None:
    more, part_of_it = CLAIMS[name]
    more = {key: provider.issuer + "/" if value == "+/" else value for key, value in more.items()}
    provider.claims |= at_once(more)
    client = web.client()
    answer = await provider.sign_in(client)
    assert answer.status == 403
    assert part_of_it in said(answer)
    assert await is_out(client)
    await told(web, part_of_it)


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({}, {}),
        ({"exp": In(-20)}, {}),
        ({"iat": In(20), "nbf": In(20)}, {}),
        ({"exp": In(600.5)}, {}),
        ({"aud": ["checkpoint"]}, {}),
        ({"aud": ["another", "checkpoint"], "azp": "checkpoint"}, {}),
        ({"groups": "operators"}, {}),
        ({"groups": [7, None, ["operators"], "operators"]}, {}),
        ({}, {"alg": "PS256"}),
        ({}, {"alg": "RS512"}),
        ({}, {"kid": None}),
        ({}, {"x5c": ["A" * 4000]}),
    ],
)
async def test_what_is_good_is_taken(
    web: WebWorld, provider: Hostile, more: dict[str, Any], key: dict[str, Any]
) -> None:
    """Within the skew of clocks, in each form that the rules allow."""
    provider.claims |= at_once(more)
    provider.token = lambda claims: signed(as_json(claims), rsa("one"), **key)
    client = web.client()
    assert (await provider.sign_in(client)).status == 200
    assert not await is_out(client)


# --- keys -------------------------------------------------------------------------------------------------------------


def published(key: Any, **more: Any) -> dict[str, Any]:
    return dict(key.as_dict(private=False)) | more


@pytest.mark.parametrize(
    ("keys", "token", "part_of_it"),
    [
        ([published(rsa("one"), use="enc")], {}, "no public RSA or EC key"),
        ([published(rsa("one"), key_ops=["encrypt"])], {}, "no public RSA or EC key"),
        ([published(rsa("one"), alg="RS256")], {"alg": "PS256"}, "nobody knows"),
        ([published(rsa("one")), published(rsa("two"))], {"kid": None}, "does not say which key"),
        ([{"kty": "oct", "kid": "one", "k": "c2VjcmV0"}], {}, "no public RSA or EC key"),
        ([{"kty": "RSA", "kid": "one", "n": "AQAB", "e": "AQAB"}], {}, "no public RSA or EC key"),
        ([{"kty": "RSA", "kid": "one", "n": "A" * 4000, "e": "AQAB"}], {}, "no public RSA or EC key"),
        ([{"kty": "EC", "kid": "one", "crv": "P-1", "x": "AA", "y": "AA"}], {}, "no public RSA or EC key"),
        ([{"kty": "EC", "kid": "one", "crv": "P-256", "x": "AA", "y": "AA"}], {}, "no public RSA or EC key"),
        (["one", 7, None, {"kty": 7}, {"kid": "one"}], {}, "no public RSA or EC key"),
        ([], {}, "no public RSA or EC key"),
    ],
)
async def test_keys_that_are_not_for_it_verify_nothing(
    web: WebWorld, provider: Hostile, keys: list[Any], token: dict[str, Any], part_of_it: str
) -> None:
    provider.keys = keys
    provider.token = lambda claims: signed(as_json(claims), rsa("one"), **token)
    client = web.client()
    answer = await provider.sign_in(client)
    assert answer.status in {403, 502}
    assert part_of_it in said(answer)
    assert await is_out(client)


async def test_a_key_that_is_understood_counts_among_those_that_are_not(web: WebWorld, provider: Hostile) -> None:
    strange = [7, {"kty": "LMS", "kid": "x"}, {"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "one"}]
    provider.keys = [*strange, published(rsa("old", 2048)), published(elliptic("e")), published(elliptic("f", "P-384"))]
    provider.token = lambda claims: signed(as_json(claims), elliptic("e"), alg="ES256")
    client = web.client()
    assert (await provider.sign_in(client)).status == 200
    provider.token = lambda claims: signed(as_json(claims), elliptic("f", "P-384"), alg="ES384")
    assert (await provider.sign_in(client)).status == 200


async def test_a_flood_of_unknown_keys_asks_for_keys_once_in_a_while(web: WebWorld, provider: Hostile) -> None:
    began_s = time.monotonic()
    for number in range(20):
        provider.token = lambda claims, number=number: signed(as_json(claims), rsa("two"), kid=f"{number}")
        assert "that nobody knows" in said(await provider.sign_in(web.client()))
    may_be = 1 + (time.monotonic() - began_s) / PAUSE_S
    assert 1 <= provider.asked["/keys"] <= may_be
    assert provider.asked[DISCOVERY] == 1


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text(),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(), inner, max_size=4),
    max_leaves=12,
)
TABLE = OidcTable(issuer="https://a", client_id="c", roles={"r": "read"}, name_claim="n.m")
FIELDS = ("iss", "sub", "aud", "exp", "iat", "nonce", "azp", "nbf", "n", "groups", "email_verified")
GOOD_TOKEN = {"iss": "https://a", "sub": "1", "aud": "c", "exp": 9e9, "iat": 1, "nonce": "x", "n": {"m": "anna"}}


@given(some.dictionaries(some.sampled_from(FIELDS), JSON) | some.binary())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_signed_is_somebody_or_refused(content: dict[str, Any] | bytes) -> None:
    """No claims of any shape make another error than the one that has a page."""
    payload = content if isinstance(content, bytes) else as_json(GOOD_TOKEN | content)
    try:
        claims = read_id_token(payload, TABLE, nonce="x", now_s=1000.0)
        subject_of(merged(claims, as_json(GOOD_TOKEN | {"n": 7})), TABLE)
    except Refused:
        return
    assert isinstance(content, dict)
    assert (claims["iss"], claims["nonce"]) == ("https://a", "x")


@given(some.binary() | JSON.map(as_json), some.text(), some.lists(some.dictionaries(some.text(), some.text()) | JSON))
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_a_provider_answers_is_believed_or_refused(body: bytes, token: str, keys: list[Any]) -> None:
    kinds = [{"kty": kind, "n": token, "e": token, "crv": "P-256", "x": token, "y": token} for kind in ("RSA", "EC")]
    for read in (
        lambda: read_metadata(body, TABLE),
        lambda: read_keys(body, "keys"),
        lambda: read_keys(as_json({"keys": [*keys, *kinds]}), "keys"),
        lambda: verified(token, ()),
        lambda: verified(body.decode(errors="replace"), ()),
    ):
        with contextlib.suppress(Refused):
            read()
