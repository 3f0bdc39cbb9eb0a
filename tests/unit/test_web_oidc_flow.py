"""The way to a provider and back, what is remembered of it, and its configuration."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from artifact import ConfigError
from checkpoint.pipeline import parse_settings
from checkpoint.web.oidc.flows import LASTS_S, Flows
from checkpoint.web.oidc.opening import ATTEMPTS_PER_MINUTE
from checkpoint.web.oidc.provider import KEPT_S, PAUSE_S, Kept, Unreachable, read_secret
from checkpoint.web.oidc.settings import is_safe
from checkpoint.web.sealing import Seal
from tests.oidc_hostile import Hostile, hostile
from tests.oidc_world import is_out, said, says, told, world_of
from tests.web_world import WebWorld, web_world


@pytest.fixture
async def provider() -> AsyncIterator[Hostile]:
    async with hostile() as made:
        yield made


@pytest.fixture
async def web(provider: Hostile, tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with world_of(provider, tmp_path) as made:
        yield made


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
        provider.answers["/token"] = says("", 500)
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
