"""Signing in at a provider that lies, fails or attacks: nobody gets in, and the page says what happened."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web as server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from artifact import ConfigError, Refused
from checkpoint.pipeline import parse_settings
from checkpoint.web.oidc.claims import Subject, find_claim, merged, read_id_token, role_of, subject_of
from checkpoint.web.oidc.flows import LASTS_S, Flows
from checkpoint.web.oidc.keys import read_keys, verified
from checkpoint.web.oidc.metadata import read_metadata
from checkpoint.web.oidc.opening import ATTEMPTS_PER_MINUTE
from checkpoint.web.oidc.provider import KEPT_S, PAUSE_S, Kept, Unreachable, read_secret
from checkpoint.web.oidc.settings import OidcTable, is_safe
from checkpoint.web.rights import Role
from checkpoint.web.sealing import Seal
from tests.oidc_hostile import Hostile, as_json, elliptic, hostile, rsa, signed
from tests.web_world import Answer, Client, WebWorld, web_world

DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture
async def provider() -> AsyncIterator[Hostile]:
    async with hostile() as made:
        yield made


@asynccontextmanager
async def world_of(provider: Hostile, directory: Path, **more: Any) -> AsyncIterator[WebWorld]:
    """`public_url` names this machine, but no port of it: nobody follows it here."""
    async with web_world(directory, sizes={}, web=provider.table(**more)) as web:
        yield at_its_port(web)


def at_its_port(web: WebWorld) -> WebWorld:
    made, url = web.client, f"http://127.0.0.1:{web.serving.port}"

    def client(**facts: Any) -> Client:
        found = made(**facts)
        found.url = url
        return found

    web.client = client  # type: ignore[method-assign]
    return web


@pytest.fixture
async def web(provider: Hostile, tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with world_of(provider, tmp_path) as made:
        yield made


async def told(web: WebWorld, part: str) -> None:
    """Wait until the audit has a refusal that says so."""
    async with asyncio.timeout(30):
        while not any(part in json.loads(record)["message"] for record in await web.audit()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def is_out(client: Client) -> bool:
    return (await client.get("/")).status == 303


def said(answer: Answer) -> str:
    """What the banner of the page says."""
    found = re.search(r'role="alert">(.*?)</p>', answer.text, re.DOTALL)
    return "" if found is None else unescape(found[1])


# --- tokens -----------------------------------------------------------------------------------------------------------


def part(content: Any) -> str:
    return base64.urlsafe_b64encode(as_json(content)).decode().rstrip("=")


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


# --- answers ----------------------------------------------------------------------------------------------------------


async def _hang(_: server.Request) -> server.StreamResponse:
    await asyncio.sleep(3600)
    raise AssertionError


async def _drip(request: server.Request) -> server.StreamResponse:
    response = server.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)


async def _cut(request: server.Request) -> server.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return server.Response()


def _says(body: bytes | str, status: int = 200, **headers: str) -> Callable[[server.Request], Any]:
    async def answer(_: server.Request) -> server.Response:
        return server.Response(
            body=body.encode() if isinstance(body, str) else body,
            status=status,
            headers={"Content-Type": "application/json", **headers},
        )

    return answer


TOKEN_ANSWERS: dict[str, tuple[Any, int, str]] = {
    "fails": (_says("oops", 500), 503, "answered 500: the provider has a fault"),
    "is away": (_says("", 503), 503, "answered 503"),
    "hangs": (_hang, 503, "no answer within 0.5 s"),
    "drips": (_drip, 503, "no answer within 0.5 s"),
    "hangs up": (_cut, 503, "cannot be asked"),
    "talks for ever": (_says(b" " * 300_000), 502, "answered more than 256 KiB"),
    "talks HTML": (_says("<h1>Welcome"), 502, "gave no ID token"),
    "gives no ID token": (_says('{"access_token": "x"}'), 502, "gave no ID token"),
    "gives a number": (_says('{"id_token": 7}'), 502, "gave no ID token"),
    "leads elsewhere": (_says("", 302, Location="/elsewhere"), 403, "it answered 302"),
    "refuses": (_says('{"error": "invalid_grant"}', 400), 403, "did not take the sign-in: invalid_grant"),
    "does not know us": (_says('{"error": "invalid_client"}', 401), 403, "client_secret_file"),
    "refuses with markup": (_says('{"error": "<script>alert(1)</script>\\r\\n"}', 400), 403, "<script>"),
    "refuses in no words": (_says("[]", 400), 403, "it answered 400"),
}


async def in_spite_of_stalls(provider: Hostile, client: Client) -> None:
    """Sign in; what is too short for a provider that hangs may be too short for a machine that does."""
    for _ in range(5):
        if (await client.get("/sign-in/oidc")).status == 303 and (await provider.sign_in(client)).status == 200:
            return
        await asyncio.sleep(PAUSE_S)
    raise AssertionError


@pytest.mark.parametrize("name", TOKEN_ANSWERS)
async def test_a_token_endpoint_that_does_not_answer_as_it_should(provider: Hostile, tmp_path: Path, name: str) -> None:
    """Told by a page, never waited for; whoever is in stays in."""
    handler, status, part_of_it = TOKEN_ANSWERS[name]
    more = {"timeout_s": "0.5"} if handler in {_hang, _drip} else {}
    async with world_of(provider, tmp_path, **more) as web:
        insider = web.client()
        await in_spite_of_stalls(provider, insider)
        provider.answers["/token"] = handler
        client = web.client()
        answer = await provider.sign_in(client)
        assert (answer.status, part_of_it in said(answer)) == (status, True), said(answer)
        assert "<script>" not in answer.text
        assert await is_out(client)
        assert not await is_out(insider)
        assert provider.asked["/elsewhere"] == 0


DISCOVERIES: dict[str, tuple[dict[str, Any], str]] = {
    "another issuer": ({"issuer": "https://evil.example"}, "of another issuer"),
    "no issuer": ({"issuer": None}, "no discovery document"),
    "codes in the clear": ({"token_endpoint": "http://login.example.com/token"}, "neither https nor"),
    "keys in the clear": ({"jwks_uri": "http://127.0.0.1.evil.example/keys"}, "neither https nor"),
    "a script": ({"authorization_endpoint": "javascript:alert(1)"}, "neither https nor"),
    "an end of sessions that is a script": ({"end_session_endpoint": "javascript:alert(1)"}, "neither https nor"),
    "shared secrets only": ({"id_token_signing_alg_values_supported": ["HS256", "none"]}, "signed by HS256, none"),
    "a list": ({"jwks_uri": ["x"]}, "no discovery document"),
}


@pytest.mark.parametrize("name", DISCOVERIES)
async def test_a_discovery_document_that_is_not_believed(web: WebWorld, provider: Hostile, name: str) -> None:
    more, part_of_it = DISCOVERIES[name]
    provider.metadata |= more
    answer = await web.client().get("/sign-in/oidc")
    assert answer.status == 502
    assert part_of_it in said(answer)
    assert "Tell whoever runs this server" in said(answer)
    assert (await web.client().get("/sign-out/done")).status == 200


@pytest.mark.parametrize(
    ("handler", "status", "part_of_it"),
    [
        (_says("", 404), 503, "answered 404"),
        (_says("", 302, Location="/elsewhere"), 503, "answered 302"),
        (_says("<html>"), 502, "no discovery document"),
        (_says(b"\xff\xfe"), 502, "no discovery document"),
        (_says(b'{"x":' + b"[" * 100_000), 502, "no discovery document"),
        (_says(b" " * 300_000), 502, "more than 256 KiB"),
        (_hang, 503, "no answer within 0.5 s"),
        (_cut, 503, "cannot be asked"),
    ],
)
async def test_a_discovery_document_that_does_not_come(
    provider: Hostile, tmp_path: Path, handler: Any, status: int, part_of_it: str
) -> None:
    """Many press at once: the provider is asked once, and all are told."""
    provider.answers[DISCOVERY] = handler
    async with world_of(provider, tmp_path, timeout_s="0.5" if handler is _hang else "20") as web:
        began_s = time.monotonic()
        client = web.client()
        answers = await asyncio.gather(*(client.get("/sign-in/oidc") for _ in range(20)))
        # A request to which nothing was answered is sent once more by the client.
        may_be = (1 + (time.monotonic() - began_s) / PAUSE_S) * (2 if handler is _cut else 1)
        assert {answer.status for answer in answers} == {status}
        assert part_of_it in said(answers[-1])
        assert provider.asked[DISCOVERY] <= may_be
        assert provider.asked["/elsewhere"] == 0


async def test_a_client_is_known_by_the_way_that_the_provider_takes(provider: Hostile, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    await _off_loop(lambda: file.touch(mode=0o600))
    await _off_loop(lambda: file.write_text("a:b c%\n"))
    async with world_of(provider, tmp_path, client_secret_file=f'"{file}"') as web:
        await provider.sign_in(web.client())
        assert "client_secret" not in provider.forms[-1]
        pair = base64.b64decode(provider.headers[-1]["Authorization"].removeprefix("Basic ")).decode()
        assert pair == "checkpoint:a%3Ab%20c%25"
    provider.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
    async with world_of(provider, tmp_path, client_secret_file=f'"{file}"') as web:
        await provider.sign_in(web.client())
        assert provider.forms[-1]["client_secret"] == "a:b c%"
        assert "Authorization" not in provider.headers[-1]
        # Changed, and read again; then gone, which is ours to mend.
        await _off_loop(lambda: file.write_text("new"))
        await provider.sign_in(web.client())
        assert provider.forms[-1]["client_secret"] == "new"
        await _off_loop(file.unlink)
        answer = await provider.sign_in(web.client())
        assert answer.status == 502
        assert "client's secret cannot be read" in said(answer)
    provider.metadata["token_endpoint_auth_methods_supported"] = ["private_key_jwt"]
    await _off_loop(lambda: file.touch(mode=0o600))
    await _off_loop(lambda: file.write_text("new"))
    async with world_of(provider, tmp_path, client_secret_file=f'"{file}"') as web:
        assert "takes clients by private_key_jwt" in said(await web.client().get("/sign-in/oidc"))


async def _off_loop(work: Callable[[], object]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, work)


# --- people -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "table", "part_of_it"),
    [
        ({"preferred_username": None}, {}, 'no claim "preferred_username"'),
        ({"preferred_username": ["a"]}, {}, 'no claim "preferred_username"'),
        (
            {"email": "anna@example.com", "email_verified": ["x"]},
            {"name_claim": '"email"', "roles": '{x = "read"}'},
            "role",
        ),
        ({"preferred_username": "<b>mallory"}, {}, 'calls you "<b>mallory"'),
        ({"preferred_username": "anna admin"}, {}, "cannot stand in the audit"),
        ({"preferred_username": "m" * 64}, {}, "cannot stand in the audit"),
        ({"email": "anna@example.com", "email_verified": False}, {"name_claim": '"email"'}, "not verified"),
        ({"email": "anna@example.com", "email_verified": "false"}, {"name_claim": '"email"'}, "not verified"),
        ({"groups": []}, {}, "you have no role here"),
        ({"groups": {"operators": True}}, {}, "you have no role here"),
        ({"groups": "operators lookers"}, {}, "you have no role here"),
        ({"groups": None}, {}, "you have no role here"),
    ],
)
async def test_people_without_a_name_or_a_role(
    provider: Hostile, tmp_path: Path, more: dict[str, Any], table: dict[str, str], part_of_it: str
) -> None:
    provider.claims |= more
    async with world_of(provider, tmp_path, **table) as web:
        client = web.client()
        answer = await provider.sign_in(client)
        assert answer.status == 403
        assert part_of_it in said(answer)
        assert await is_out(client)


async def test_roles_deep_in_a_claim(provider: Hostile, tmp_path: Path) -> None:
    provider.claims |= {"realm_access": {"roles": ["lookers"]}}
    async with world_of(provider, tmp_path, roles_claim='"realm_access.roles"') as web:
        client = web.client()
        assert (await provider.sign_in(client)).status == 200
        assert '<span class="chip role">read</span>' in (await client.get("/")).text


@pytest.mark.parametrize(
    ("userinfo", "handler", "status", "part_of_it"),
    [
        ({"sub": "17", "groups": ["operators"]}, None, 200, ""),
        ({"sub": "17", "groups": ["operators"], "preferred_username": "anna"}, None, 200, "mallory"),
        ({"sub": "18", "groups": ["operators"]}, None, 403, "told of somebody else"),
        ({"groups": ["operators"]}, None, 403, "told of somebody else"),
        ({}, _says("eyJ.eyJ.x"), 403, "gave no claims"),
        ({}, _says("", 500), 503, "answered 500"),
        ({}, _says('{"error": "invalid_token"}', 401), 403, "invalid_token"),
    ],
)
async def test_what_the_userinfo_endpoint_adds(  # noqa: PLR0917 - two fixtures, and a table of four columns
    web: WebWorld, provider: Hostile, userinfo: dict[str, Any], handler: Any, status: int, part_of_it: str
) -> None:
    """Only of the same person, and nothing that was signed is overruled."""
    provider.metadata["userinfo_endpoint"] = f"{provider.issuer}/userinfo"
    del provider.claims["groups"]
    provider.userinfo = userinfo
    if handler is not None:
        provider.answers["/userinfo"] = handler
    client = web.client()
    answer = await provider.sign_in(client)
    assert answer.status == status
    assert part_of_it in unescape(answer.text)
    assert await is_out(client) == (status != 200)


def test_a_claim_is_found_by_its_name_before_its_path() -> None:
    claims = {"https://example.com/roles": ["a"], "a.b": 1, "a": {"b": 2, "c": {"d": 3}}, "e": None}
    assert find_claim(claims, "https://example.com/roles") == ["a"]
    assert find_claim(claims, "a.b") == 1
    assert find_claim(claims, "a.c.d") == 3
    for missing in ("a.x", "a.b.c", "e", "e.f", "", "."):
        assert find_claim(claims, missing) is None


def test_a_role_is_the_highest_and_of_this_provider_only() -> None:
    table = OidcTable(
        issuer="https://a", client_id="c", roles={"r": "read", "d": "deploy", "n": "none"}, default_role="admin"
    )

    def role(*values: str, issuer: str = "https://a", client: str = "c") -> Role:
        return role_of(Subject(issuer=issuer, client=client, sub="1", name="x", values=values), table)

    assert [role("r", "d"), role("n"), role("n", "r"), role(), role("x")] == [
        Role.DEPLOY,
        Role.NONE,
        Role.READ,
        Role.ADMIN,
        Role.ADMIN,
    ]
    assert role("d", issuer="https://b") is Role.NONE
    assert role("d", client="e") is Role.NONE


# --- the way there and back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "led"),
    [
        ("/rollouts/1?x=1&y=2", "/rollouts/1?x=1&y=2"),
        ("/hosts?q=a;url=//evil.example", "/hosts?q=a;url=//evil.example"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nSet-Cookie: x=1", "/"),
        ('/"><script>alert(1)</script>', '/"><script>alert(1)</script>'),
        ("/" + "a" * 2000, "/"),
    ],
)
async def test_nobody_is_led_elsewhere_after_signing_in(web: WebWorld, provider: Hostile, asked: str, led: str) -> None:
    answer = await provider.sign_in(web.client(), asked)
    assert answer.status == 200
    found = re.search(r'<meta http-equiv="refresh" content="0;url=([^"]*)">', answer.text)
    assert found is not None
    assert unescape(found[1]) == led
    assert "<script>alert" not in answer.text
    assert "Location" not in answer.headers


@pytest.mark.parametrize(
    ("more", "part_of_it"),
    [
        ({"iss": "https://evil.example"}, "another provider sent you back"),
        ({"iss": ""}, "another provider sent you back"),
        ({"code": ""}, "without a code"),
        ({"code": "c" * 5000}, "without a code"),
        ({"error": "access_denied", "error_description": "<script>no</script>"}, "access_denied: <script>no</script>"),
        ({"error": 'x"\x00'}, "did not sign you in: an error"),
        ({"error": "server_error", "code": ""}, "server_error"),
    ],
)
async def test_what_comes_back_must_be_of_this_provider_and_a_code(
    web: WebWorld, provider: Hostile, more: dict[str, str], part_of_it: str
) -> None:
    client = web.client()
    answer = await provider.sign_in(client, **more)
    assert answer.status == 403
    assert part_of_it.lower() in said(answer).lower()
    assert "<script>no" not in answer.text
    assert provider.forms == []
    assert await is_out(client)


async def test_a_provider_that_names_itself_must_do_so(web: WebWorld, provider: Hostile) -> None:
    provider.metadata["authorization_response_iss_parameter_supported"] = True
    client = web.client()
    assert (await provider.sign_in(client)).status == 403
    assert (await provider.sign_in(client, iss=provider.issuer)).status == 200


async def test_a_state_must_be_that_of_a_sign_in_of_this_browser(web: WebWorld, provider: Hostile) -> None:
    """None, another one, twice, another purpose's cookie: refused before the provider is asked anything."""
    client = web.client()
    start = await client.get("/sign-in/oidc")
    state = parse_qs(urlsplit(start.headers["Location"]).query)["state"][0]
    name, value = start.headers["Set-Cookie"].partition(";")[0].split("=", 1)
    seal = web.serving.site.identities.seal
    other = seal.close("session", b'{"id":"x","following":"/"}', until_s=9e9)
    for cookie, query in (
        (value, ""),
        (value, "?code=c"),
        (value, "?code=c&state="),
        (value, f"?code=c&state={state[:-1]}x"),
        (value, f"?code=c&state={state}&state={state}"),
        (value, f"?code=c&state={state[:8]}"),
        (value, "?code=c&state=%F0%9F%98%80%00%0D%0A"),
        (other, f"?code=c&state={state}"),
        (value[:-2] + "xx", f"?code=c&state={state}"),
        ("", f"?code=c&state={state}"),
    ):
        headers = {"Cookie": f"{name}={cookie}"}
        answer = await web.client().get(f"/sign-in/oidc/return{query}", headers=headers)
        assert answer.status == 400, query
        assert "begun in another browser" in said(answer)
        assert "hotcold=" not in answer.headers.get("Set-Cookie", "")
    # Nor does the cookie of a sign-in open a session.
    assert (await web.client().get("/", headers={"Cookie": f"hotcold={value}"})).status == 303
    assert provider.forms == []
    await told(web, "was not begun in this browser")


def test_a_sign_in_ends_in_time_and_once() -> None:
    now_s = [1000.0]
    flows = Flows(Seal(b"k" * 32), prefix="hotcold", wall=lambda: now_s[0])
    flow, cookie = flows.begin("/hosts")
    cookies = {flows.cookie_name(flow.state): cookie}
    assert len({flow.id, flow.state, flow.nonce, flow.verifier, flow.challenge}) == 5
    assert 43 <= len(flow.verifier) <= 128
    now_s[0] += LASTS_S
    assert flows.end(flow.state, cookies) is None
    now_s[0] -= 1.0
    assert Flows(Seal(b"x" * 32), prefix="hotcold", wall=lambda: now_s[0]).end(flow.state, cookies) is None
    assert flows.end(flow.state, cookies) == flow
    assert flows.end(flow.state, cookies) is None
    second, other = flows.begin("/")
    assert flows.end(second.state, {flows.cookie_name(second.state): cookie}) is None
    assert flows.end(second.state, {flows.cookie_name(second.state): other}) == second


async def test_attempts_are_limited(web: WebWorld) -> None:
    client = web.client()
    count = 0
    async with asyncio.timeout(60):  # a slow machine gets more of them back meanwhile
        while (answer := await client.get("/sign-in/oidc")).status == 303:
            count += 1
    assert count >= ATTEMPTS_PER_MINUTE
    assert answer.status == 429
    assert "wait a minute" in said(answer)
    await told(web, f"more than {ATTEMPTS_PER_MINUTE} attempts in a minute")


async def test_over_https_all_cookies_stay_there(provider: Hostile, tmp_path: Path) -> None:
    provider.metadata["end_session_endpoint"] = f"{provider.issuer}/end"
    async with world_of(provider, tmp_path, public_url="https://deploy.example.com") as web:
        start = await web.client().get("/sign-in/oidc?next=/hosts")
        query = parse_qs(urlsplit(start.headers["Location"]).query)
        assert query["redirect_uri"] == ["https://deploy.example.com/sign-in/oidc/return"]
        assert query["tenant"] == ["7"]
        flow = start.headers["Set-Cookie"]
        assert flow.startswith("__Host-hotcold-oidc-")
        assert all(part in flow for part in ("Secure", "HttpOnly", "Path=/;", "SameSite=Lax"))
        provider.nonce = query["nonce"][0]
        headers = {"Cookie": flow.partition(";")[0]}
        page = await web.client().get(f"/sign-in/oidc/return?code=c&state={query['state'][0]}", headers=headers)
        set_cookies = page.headers.getall("Set-Cookie")
        session = next(each for each in set_cookies if each.startswith("__Host-hotcold="))
        hint = next(each for each in set_cookies if each.startswith("__Secure-hotcold-hint="))
        gone = next(each for each in set_cookies if each.startswith("__Host-hotcold-oidc-"))
        for cookie in (session, hint):
            assert all(part in cookie for part in ("Secure", "HttpOnly", "SameSite=Strict")), cookie
        assert "Path=/sign-out/done" in hint
        assert "Max-Age=0" in gone
        out = await web.client().get("/sign-out/done", headers={"Cookie": hint.partition(";")[0]})
        link = re.search(r'href="([^"]+)">Sign out at', out.text)
        assert link is not None
        told_back = parse_qs(urlsplit(unescape(link[1])).query)
        assert told_back["post_logout_redirect_uri"] == ["https://deploy.example.com/sign-out/done"]
        assert told_back["client_id"] == ["checkpoint"]
        assert len(told_back["id_token_hint"]) == 1


async def test_tokens_may_stand_beside_a_provider(provider: Hostile, tmp_path: Path) -> None:
    """Both ways on one page, both kinds of sessions, and tokens where the provider is down."""
    async with web_world(tmp_path) as first:
        pass
    before = f'tokens_file = "{first.tokens_file}"\n'
    async with world_of(provider, tmp_path, before=before, label='"Work & <Play>"') as web:
        assert web.serving.sign_in_url is None
        form = await web.client().get("/sign-in")
        assert "Sign in at Work &amp; &lt;Play&gt;" in form.text
        assert 'name="token"' in form.text
        client = web.client()
        assert (await client.sign_in(first.tokens["deploy"])).status == 303
        assert (await client.post("/sign-out")).headers["Location"] == "/sign-in"
        insider = web.client()
        await provider.sign_in(insider)
        settings = unescape((await insider.get("/settings")).text)
        assert "Whom Work & <Play> signs in, by their groups" in settings
        assert "operators" in settings
        provider.answers["/token"] = _says("", 500)
        assert "or sign in by a token" in said(await provider.sign_in(client))


async def test_without_a_provider_there_is_no_way_to_it(tmp_path: Path) -> None:
    async with web_world(tmp_path) as web:
        for path in ("/sign-in/oidc", "/sign-in/oidc/return?code=c&state=s", "/sign-out/done"):
            assert (await web.client().get(path)).status == 404
        assert "/sign-in/oidc" not in (await web.client().get("/sign-in")).text


# --- what is kept -----------------------------------------------------------------------------------------------------


async def test_documents_are_kept_and_asked_for_again_and_failures_are_remembered_for_a_moment() -> None:
    now_s, asked, fails = [0.0], [0], [False]

    async def fetch() -> tuple[int, ...]:
        asked[0] += 1
        if fails[0]:
            raise Unreachable("no answer")
        return (asked[0],)

    kept = Kept(fetch, lambda: now_s[0])
    first = await kept.get()
    now_s[0] += KEPT_S - 1
    assert await kept.get() is first
    assert asked == [1]
    newer = await kept.newer(first)
    assert newer == (2,)
    assert await kept.newer(newer) is None
    assert await kept.newer(first) is newer
    assert asked == [2]
    fails[0] = True
    now_s[0] += KEPT_S
    for _ in range(3):
        with pytest.raises(Unreachable, match="no answer"):
            await kept.get()
    assert asked == [3]
    now_s[0] += PAUSE_S
    fails[0] = False
    assert await kept.get() == (4,)


# --- configuration ----------------------------------------------------------------------------------------------------

GOOD = {
    "issuer": '"https://login.example.com"',
    "client_id": '"checkpoint"',
    "roles": '{operators = "admin"}',
}


@pytest.mark.parametrize(
    ("more", "public_url", "part_of_it"),
    [
        ({"issuer": '"http://login.example.com"'}, None, "web.oidc.issuer"),
        ({"issuer": '"login.example.com"'}, None, "web.oidc.issuer"),
        ({"issuer": '"https://login.example.com?x=1"'}, None, "web.oidc.issuer"),
        ({"issuer": '"https://a:b@login.example.com"'}, None, "web.oidc.issuer"),
        ({"issuer": '"https://login.example.com:x"'}, None, "web.oidc.issuer"),
        ({"issuer": ""}, None, "issuer"),
        ({}, "", "web.public_url"),
        ({}, "http://deploy.example.com", "web.public_url"),
        ({"client_id": '""'}, None, "web.oidc.client_id"),
        ({"scopes": '["profile"]'}, None, "openid"),
        ({"scopes": '["openid", "a b"]'}, None, "a b"),
        ({"name_claim": '""'}, None, "web.oidc.name_claim"),
        ({"roles_claim": '""'}, None, "web.oidc.roles_claim"),
        ({"roles": ""}, None, "gives nobody a role"),
        ({"roles": '{a = "none"}'}, None, "gives nobody a role"),
        ({"roles": '{a = "root"}'}, None, "root"),
        ({"clock_skew_s": "-1"}, None, "web.oidc.clock_skew_s"),
        ({"clock_skew_s": "3600"}, None, "web.oidc.clock_skew_s"),
        ({"timeout_s": "0"}, None, "web.oidc.timeout_s"),
        ({"timeout_s": "600"}, None, "web.oidc.timeout_s"),
        ({"client_secret": '"x"'}, None, "client_secret"),
    ],
)
def test_a_wrong_table_is_refused_by_name(more: dict[str, str], public_url: str | None, part_of_it: str) -> None:
    lines = "".join(f"{name} = {value}\n" for name, value in (GOOD | more).items() if value)
    url = "https://deploy.example.com" if public_url is None else public_url
    with pytest.raises(ConfigError, match=re.escape(part_of_it)):
        parse_settings(f'app = "shop"\n[web]\npublic_url = "{url}"\n[web.oidc]\n{lines}')


def test_a_good_table_is_a_way_to_sign_in_and_stands_beside_no_proxy() -> None:
    lines = "".join(f"{name} = {value}\n" for name, value in GOOD.items())
    text = 'app = "shop"\n[web]\nlisten = "0.0.0.0:8090"\npublic_url = "https://deploy.example.com"\n'
    web = parse_settings(f"{text}[web.oidc]\n{lines}").web
    assert web.has_sign_in
    assert web.oidc is not None
    assert web.oidc.shown == "login.example.com"
    with pytest.raises(ConfigError, match=r"\[web.oidc\] and \[web.proxy\]"):
        parse_settings(f"{text}proxy = {{trusted = ['10.0.0.7']}}\n[web.oidc]\n{lines}")


def test_only_https_and_this_machine_are_safe() -> None:
    for url in ("https://a", "https://a:8443/x", "http://localhost:1/", "http://127.0.0.1", "http://[::1]:8/x"):
        assert is_safe(url), url
    for url in (
        "http://a",
        "http://localhost.a",
        "http://127.0.0.1.a",
        "ftp://localhost",
        "https://",
        "//a",
        "",
        "http://[::1",
    ):
        assert not is_safe(url), url


def test_a_secret_is_kept_from_others(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.touch(mode=0o600)
    file.write_text(" s3cret\n")
    assert read_secret(file) == "s3cret"
    for text, mode, part_of_it in (
        ("s", 0o640, "chmod 600"),
        ("", 0o600, "holds no secret"),
        ("a\nb", 0o600, "holds no secret"),
    ):
        file.write_text(text)
        file.chmod(mode)
        with pytest.raises(ConfigError, match=part_of_it):
            read_secret(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_secret(tmp_path / "none")
