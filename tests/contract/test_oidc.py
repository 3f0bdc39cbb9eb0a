"""Signing in at a real provider, through the whole flow: each role, refusals, new keys, outages, signing out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from yarl import URL

pytest.importorskip("oauth2_provider", reason="needs a provider: pip install django-oauth-toolkit")

from checkpoint.web.rights import ROUTES, Role
from tests.oidc_process import OidcSite, Somebody
from tests.web_world import Answer, Client, WebWorld, web_world

PEOPLE = {"rita": "read", "dora": "deploy", "adam": "admin"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcSite]:
    with OidcSite(tmp_path_factory.mktemp("provider")) as running:
        yield running


@asynccontextmanager
async def world_of(site: OidcSite, directory: Path, **more: str) -> AsyncIterator[WebWorld]:
    listen = f"127.0.0.1:{site.public_port}"
    async with web_world(directory, web=site.table(**more), listen=listen) as web:
        yield web


@pytest.fixture
async def web(site: OidcSite, tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with world_of(site, tmp_path) as made:
        yield made


def somebody(web: WebWorld, name: str) -> Somebody:
    session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar())
    web.sessions.append(session)
    return Somebody(session, name)


def path_of(web: WebWorld, url: str) -> str:
    assert url.startswith(web.serving.url + "/"), url
    return url.removeprefix(web.serving.url)


async def begin(client: Client, following: str = "/hosts") -> str:
    """Where the button leads."""
    answer = await client.get(f"/sign-in/oidc?next={following}")
    assert answer.status == 303, answer
    return answer.headers["Location"]


async def sign_in(web: WebWorld, client: Client, who: Somebody, following: str = "/hosts") -> Answer:
    """The whole flow; the page at which it ends."""
    back = await who.go(await begin(client, following))
    return await client.get(path_of(web, back))


def cookies_of(client: Client) -> dict[str, str]:
    """What the browser sends with every request."""
    kept = client.session.cookie_jar.filter_cookies(URL(client.url))
    return {name: cookie.value for name, cookie in kept.items()}


def role_on(page: str) -> str:
    found = re.search(r'<span class="chip role">(\w+)</span></span>', page)
    return "" if found is None else found[1]


async def told(web: WebWorld, part: str) -> None:
    """Wait until the audit has a refusal that says so."""
    async with asyncio.timeout(30):
        while not any(part in record and '"what":"refused"' in record for record in await web.audit()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("name", "role"), PEOPLE.items())
async def test_groups_of_the_provider_give_each_role_its_rights(web: WebWorld, name: str, role: str) -> None:
    """From the button to the page that was wanted, and then every page by the role's rights."""
    client = web.client()
    form = (await client.get("/sign-in?next=%2Fhosts%3Fq%3Dprod")).text
    assert "Sign in at localhost" in form
    assert 'name="token"' not in form
    href = re.search(r'href="(/sign-in/oidc[^"]*)"', form)
    assert href is not None
    start = await client.get(unescape(href[1]))
    back = await somebody(web, name).go(start.headers["Location"])
    page = await client.get(path_of(web, back))
    assert page.status == 200, page
    assert '<meta http-equiv="refresh" content="0;url=/hosts?q=prod">' in page.text
    assert f"Signed in as {name}" in page.text

    shown = await client.get("/")
    assert role_on(shown.text) == role
    assert f"{name} <span" in shown.text
    for route in ROUTES:
        if route.method == "GET" and "{" not in route.path and route.name != "events":
            answer = await client.get(route.path)
            assert (answer.status == 403) == (Role[role.upper()] < route.role), (route.name, answer)
    found = re.search(r'name="csrf" value="([^"]+)"', shown.text)
    assert found is not None
    client.csrf = found[1]
    lock = await client.post("/lock", {"reason": "moving the database"})
    assert lock.status == (403 if role == "read" else 303)
    if role != "read":
        assert any(f'"by":"{name}"' in record and '"what":"locked"' in record for record in await web.audit())


async def test_what_is_sent_to_the_provider_is_fixed_and_fresh(web: WebWorld) -> None:
    """PKCE, state and nonce, new each time; the address to come back to is that of the configuration, whoever asks."""
    client = web.client()
    first, second = [parse_qs(urlsplit(await begin(client)).query) for _ in range(2)]
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name][0]) == 43
        assert first[name] != second[name]
    assert len({*first["state"], *first["nonce"], *first["code_challenge"]}) == 3
    assert first["code_challenge_method"] == ["S256"]
    assert first["scope"] == ["openid profile email"]
    answer = await client.get("/sign-in/oidc?redirect_uri=https://evil.example/", headers={"Host": "localhost"})
    query = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert query["redirect_uri"] == [web.serving.url + "/sign-in/oidc/return"]
    cookies = answer.headers["Set-Cookie"]
    assert all(part in cookies for part in ("HttpOnly", "SameSite=Lax", "Max-Age=600"))
    assert not any(query[name][0] in cookies for name in ("state", "nonce"))


async def test_whoever_has_no_role_is_told_so(web: WebWorld) -> None:
    """The provider knows them, the configuration does not: no session, by name in the audit."""
    client = web.client()
    page = await sign_in(web, client, somebody(web, "norman"))
    assert page.status == 403
    assert "knows you as norman, but you have no role here" in unescape(page.text)
    assert (await client.get("/")).status == 303
    await told(web, '"by":"norman"')


@pytest.mark.parametrize(
    ("more", "name", "role"),
    [
        ({"default_role": '"read"'}, "norman", "read"),
        ({"roles": '{staff = "none", deployers = "deploy"}', "default_role": '"read"'}, "norman", ""),
        ({"name_claim": '"email"'}, "dora", "deploy"),
        ({"client_id": '"public"', "client_secret_file": ""}, "adam", "admin"),
    ],
)
async def test_other_configurations(site: OidcSite, tmp_path: Path, more: dict[str, str], name: str, role: str) -> None:
    """A role for everybody, a group that has none, names by address, and a client without a secret."""
    async with world_of(site, tmp_path, **more) as web:
        client = web.client()
        page = await sign_in(web, client, somebody(web, name))
        assert page.status == (200 if role else 403)
        shown = (await client.get("/")).text
        assert role_on(shown) == role
        if "name_claim" in more:
            assert "dora@example.com" in shown


async def test_claims_that_the_id_token_lacks_come_from_the_userinfo_endpoint(tmp_path: Path) -> None:
    directory = tmp_path / "provider"
    await _off_loop(directory.mkdir)
    site = OidcSite(directory, thin=True)
    await _off_loop(site.start)
    try:
        async with world_of(site, tmp_path) as web:
            client = web.client()
            assert (await sign_in(web, client, somebody(web, "dora"))).status == 200
            assert role_on((await client.get("/")).text) == "deploy"
    finally:
        await _off_loop(site.kill)


async def test_a_sign_in_ends_once_and_where_it_was_begun(web: WebWorld) -> None:
    """Replayed, in another browser, with another sign-in's state or code: nobody gets a session."""
    client, other, who = web.client(), web.client(), somebody(web, "adam")
    back = path_of(web, await who.go(await begin(client)))
    cookies = cookies_of(client)
    stolen = await other.get(back)
    assert stolen.status == 400
    assert "begun in another browser" in stolen.text
    await told(web, "was not begun in this browser")
    await begin(other)
    assert (await other.get(back)).status == 400
    assert (await client.get(back)).status == 200
    again = await client.get(back)
    assert (again.status, again.headers["Location"]) == (303, "/")
    # Whoever has seen both the address and the cookies is too late.
    header = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    assert (await other.get(back, headers=header)).status == 400
    assert (await other.get("/")).status == 303
    # A code of one sign-in in another: its verifier is not theirs.
    third = web.client()
    own = parse_qs(urlsplit(await begin(third)).query)["state"][0]
    code = parse_qs(urlsplit(await who.go(await begin(client))).query)["code"][0]
    mixed = await third.get(f"/sign-in/oidc/return?state={own}&code={code}&iss={_quoted(web)}")
    assert mixed.status == 403
    assert (await third.get("/")).status == 303
    await told(web, "did not take the sign-in")


def _quoted(web: WebWorld) -> str:
    oidc = web.serving.site.settings.web.oidc
    assert oidc is not None
    return oidc.issuer


async def test_a_code_counts_once(web: WebWorld, site: OidcSite, tmp_path: Path) -> None:
    """Another instance, which has not seen the sign-in end, asks the provider; that refuses."""
    client, who = web.client(), somebody(web, "adam")
    back = path_of(web, await who.go(await begin(client)))
    cookies = cookies_of(client)
    assert (await client.get(back)).status == 200
    header = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    async with web_world(tmp_path, web=site.table()) as second:
        assert second.serving.port != web.serving.port
        again = second.client()
        again.url = f"http://127.0.0.1:{second.serving.port}"
        page = await again.get(back, headers=header)
        assert page.status == 403
        assert "invalid_grant" in page.text


async def test_a_person_who_declines_is_told_so(site: OidcSite, tmp_path: Path) -> None:
    async with world_of(site, tmp_path, client_id='"asking"') as web:
        client, who = web.client(), somebody(web, "adam")
        async with who.session.get(await begin(client)) as form:  # to the form of signing in
            login = str(form.url)
        allowing = await who.press_in(login)
        declined = await client.get(path_of(web, await who.press(allowing, None)))
        assert declined.status == 403
        assert "access_denied" in declined.text
        await told(web, "access_denied")
        again = await client.get(path_of(web, await who.press(await begin(client), "allow")))
        assert again.status == 200
        assert role_on((await client.get("/")).text) == "admin"


async def test_a_session_is_one_like_the_others(web: WebWorld) -> None:
    """Kept from scripts and other sites, no longer than configured, gone when signed out of, also at the provider."""
    client, who = web.client(), somebody(web, "dora")
    page = await sign_in(web, client, who)
    said = next(each for each in page.headers.getall("Set-Cookie") if each.startswith("hotcold="))
    assert all(part in said for part in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"))
    shown = await client.get("/")
    cookie = cookies_of(client)["hotcold"]
    found = re.search(r'name="csrf" value="([^"]+)"', shown.text)
    assert found is not None
    client.csrf = found[1]
    out = await client.post("/sign-out")
    assert (out.status, out.headers["Location"]) == (303, "/sign-out/done")
    replayed = await web.client().get("/", headers={"Cookie": f"hotcold={cookie}"})
    assert replayed.status == 303

    done = await client.get("/sign-out/done")
    link = re.search(r'href="([^"]+)">Sign out at localhost too', done.text)
    assert link is not None
    assert "id_token_hint=" in link[1]
    assert "id_token_hint=" not in (await client.get("/sign-out/done")).text
    # The provider knows whose session is meant, asks nothing, and sends the browser back.
    assert await who.go(unescape(link[1])) == web.serving.url + "/sign-out/done"
    who.name = "rita"
    await sign_in(web, client, who)
    assert role_on((await client.get("/")).text) == "read"


async def test_a_session_ends_when_it_is_configured_to(site: OidcSite, tmp_path: Path) -> None:
    async with world_of(site, tmp_path) as web:
        client = web.client()
        await sign_in(web, client, somebody(web, "rita"))
        assert (await client.get("/")).status == 200
        identities, cookie = web.serving.site.identities, cookies_of(client)["hotcold"]
    text = site.table().replace("[web.oidc]", "session_s = 1\n[web.oidc]")
    listen = f"127.0.0.1:{site.public_port}"
    async with web_world(tmp_path, web=text, listen=listen) as web:
        # The key is the same: so is the session of before, until its own end.
        assert (await web.client().get("/", headers={"Cookie": f"hotcold={cookie}"})).status == 200
        client = web.client()
        await sign_in(web, client, somebody(web, "rita"))
        async with asyncio.timeout(30):
            while (await client.get("/")).status != 303:  # noqa: ASYNC110 - the server is asked
                await asyncio.sleep(0.1)
    assert identities.settings.session_s == 43_200


async def test_roles_are_those_of_the_configuration_of_now(site: OidcSite, tmp_path: Path) -> None:
    """A group that lost its role, another client or no provider at all: sessions of before have nothing any more."""
    async with world_of(site, tmp_path) as web:
        client = web.client()
        await sign_in(web, client, somebody(web, "dora"))
        cookie = cookies_of(client)["hotcold"]
    for more, role in (
        ({}, "deploy"),
        ({"roles": '{deployers = "admin"}'}, "admin"),
        ({"roles": '{operators = "admin"}'}, ""),
        ({"client_id": '"public"'}, ""),
        ({"issuer": '"https://login.example.com"'}, ""),
    ):
        async with world_of(site, tmp_path, **more) as web:
            assert role_on((await web.client().get("/", headers={"Cookie": f"hotcold={cookie}"})).text) == role
    async with web_world(tmp_path) as web:
        assert (await web.client().get("/", headers={"Cookie": f"hotcold={cookie}"})).status == 303


async def test_a_new_key_of_the_provider_is_found_by_itself(site: OidcSite, tmp_path: Path) -> None:
    """The provider comes back with another key and without the old one; nobody restarts anything here."""
    try:
        async with world_of(site, tmp_path) as web:
            assert (await sign_in(web, web.client(), somebody(web, "rita"))).status == 200
            await _off_loop(site.kill)
            await _off_loop(lambda: site.start(key=2))
            client = web.client()
            async with asyncio.timeout(60):  # keys are asked for once in some seconds
                while (page := await sign_in(web, client, somebody(web, "dora"))).status != 200:
                    assert "that nobody knows" in page.text
                    await asyncio.sleep(1.0)
            assert role_on((await client.get("/")).text) == "deploy"
    finally:
        await _off_loop(site.kill)
        await _off_loop(site.start)


async def test_without_the_provider_those_who_are_in_go_on(site: OidcSite, tmp_path: Path) -> None:
    """Down from the start, and down later: the page says what happened and what to do, and everything else works."""
    await _off_loop(site.kill)
    try:
        async with world_of(site, tmp_path) as web:
            page = await web.client().get("/sign-in/oidc")
            assert page.status == 503
            assert "Nobody can sign in at localhost now" in page.text
            assert "Try again in a moment" in page.text
            await _off_loop(site.start)
            client, late = web.client(), web.client()
            async with asyncio.timeout(60):
                while (await client.get("/sign-in/oidc")).status == 503:  # noqa: ASYNC110 - told, for some seconds
                    await asyncio.sleep(1.0)
            await sign_in(web, client, somebody(web, "dora"))
            back = path_of(web, await somebody(web, "rita").go(await begin(late)))
            await _off_loop(site.kill)
            lost = await late.get(back)
            assert lost.status == 503
            assert "cannot be asked" in lost.text
            shown = await client.get("/")
            assert role_on(shown.text) == "deploy"
            found = re.search(r'name="csrf" value="([^"]+)"', shown.text)
            assert found is not None
            client.csrf = found[1]
            assert (await client.post("/lock", {"reason": "moving the database"})).status == 303
            assert (await client.post("/sign-out")).status == 303
            assert "Signed out" in (await client.get("/sign-out/done")).text
            assert not any("cannot be asked" in record for record in await web.audit())
    finally:
        await _off_loop(site.kill)
        await _off_loop(site.start)


async def test_a_secret_that_is_wrong_is_told_to_whoever_runs_the_server(site: OidcSite, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    await _off_loop(lambda: wrong.touch(mode=0o600))
    await _off_loop(lambda: wrong.write_text("nothing like it"))
    async with world_of(site, tmp_path, client_secret_file=f'"{wrong}"') as web:
        page = await sign_in(web, web.client(), somebody(web, "adam"))
        assert page.status == 403
        assert "client_secret_file" in page.text


async def _off_loop(work: Callable[[], object]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, work)
