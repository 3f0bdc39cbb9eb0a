"""A provider that fails, hangs or gives nonsense: told by the page, never waited for; and whom it may name."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web as server

from checkpoint.web.oidc.claims import Subject, find_claim, role_of
from checkpoint.web.oidc.provider import PAUSE_S
from checkpoint.web.oidc.settings import OidcTable
from checkpoint.web.rights import Role
from tests.oidc_hostile import Hostile, hostile
from tests.oidc_world import is_out, off_loop, said, says, world_of
from tests.web_world import Client, WebWorld

DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture
async def provider() -> AsyncIterator[Hostile]:
    async with hostile() as made:
        yield made


@pytest.fixture
async def web(provider: Hostile, tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with world_of(provider, tmp_path) as made:
        yield made


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


TOKEN_ANSWERS: dict[str, tuple[Any, int, str]] = {
    "fails": (says("oops", 500), 503, "answered 500: the provider has a fault"),
    "is away": (says("", 503), 503, "answered 503"),
    "hangs": (_hang, 503, "no answer within 0.5 s"),
    "drips": (_drip, 503, "no answer within 0.5 s"),
    "hangs up": (_cut, 503, "cannot be asked"),
    "talks for ever": (says(b" " * 300_000), 502, "answered more than 256 KiB"),
    "talks HTML": (says("<h1>Welcome"), 502, "gave no ID token"),
    "gives no ID token": (says('{"access_token": "x"}'), 502, "gave no ID token"),
    "gives a number": (says('{"id_token": 7}'), 502, "gave no ID token"),
    "leads elsewhere": (says("", 302, Location="/elsewhere"), 403, "it answered 302"),
    "refuses": (says('{"error": "invalid_grant"}', 400), 403, "did not take the sign-in: invalid_grant"),
    "does not know us": (says('{"error": "invalid_client"}', 401), 403, "client_secret_file"),
    "refuses with markup": (says('{"error": "<script>alert(1)</script>\\r\\n"}', 400), 403, "<script>"),
    "refuses in no words": (says("[]", 400), 403, "it answered 400"),
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
        (says("", 404), 503, "answered 404"),
        (says("", 302, Location="/elsewhere"), 503, "answered 302"),
        (says("<html>"), 502, "no discovery document"),
        (says(b"\xff\xfe"), 502, "no discovery document"),
        (says(b'{"x":' + b"[" * 100_000), 502, "no discovery document"),
        (says(b" " * 300_000), 502, "more than 256 KiB"),
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
    await off_loop(lambda: file.touch(mode=0o600))
    await off_loop(lambda: file.write_text("a:b c%\n"))
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
        await off_loop(lambda: file.write_text("new"))
        await provider.sign_in(web.client())
        assert provider.forms[-1]["client_secret"] == "new"
        await off_loop(file.unlink)
        answer = await provider.sign_in(web.client())
        assert answer.status == 502
        assert "client's secret cannot be read" in said(answer)
    provider.metadata["token_endpoint_auth_methods_supported"] = ["private_key_jwt"]
    await off_loop(lambda: file.touch(mode=0o600))
    await off_loop(lambda: file.write_text("new"))
    async with world_of(provider, tmp_path, client_secret_file=f'"{file}"') as web:
        assert "takes clients by private_key_jwt" in said(await web.client().get("/sign-in/oidc"))


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
        ({}, says("eyJ.eyJ.x"), 403, "gave no claims"),
        ({}, says("", 500), 503, "answered 500"),
        ({}, says('{"error": "invalid_token"}', 401), 403, "invalid_token"),
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
