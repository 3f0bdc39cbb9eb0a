"""Who may what: every route for every role, and what tries to get around it."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from checkpoint.audit import read_head, verify
from checkpoint.rollout import events as ev
from checkpoint.web.gate import GUESSES_PER_MINUTE, HEADERS, WRITES_PER_MINUTE
from checkpoint.web.identity import LAUNCH_ID, RELOAD_S
from checkpoint.web.rights import ROUTES, Role, Route
from checkpoint.web.sealing import Seal
from checkpoint.web.signing_in import safe_path
from fleet.keys import audit_head_key, audit_prefix
from tests.web_world import ROLES, Answer, Client, WebWorld, web_world


@pytest.fixture
async def still(tmp_path: Path) -> AsyncIterator[WebWorld]:
    """A server whose limits on haste see no time pass, however long the machine takes."""
    async with web_world(tmp_path, monotonic=lambda: 1000.0) as made:
        yield made


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path) as made:
        yield made


FORMS = {
    "act": {"action": "pause", "reason": "looking", "index": "999999999"},
    "override": {"minutes": "5", "reason": "agreed"},
    "plan": {"build": "b1", "reason": "again"},
    "start": {"plan": "no plan"},
    "resend": {"webhook": "chat"},
    "command": {"deed": "take", "reason": ""},
    "lock": {"reason": "moving the database"},
    "unlock": {"reason": "moved"},
}
BECAUSE = {"reason": "because"}
ON_INDEX = {**BECAUSE, "index": 999_999_999}
BODIES: dict[str, dict[str, Any]] = {
    "api_plan": {"build": "b1", **BECAUSE},
    "api_start": {"plan": "no plan"},
    "api_act": {"action": "pause", **ON_INDEX},
    "api_set_aside": {"tier": "prod", "host": "prod-01", **ON_INDEX},
    "api_take_back": {"tier": "prod", "host": "prod-01", **ON_INDEX},
    "api_override": {"minutes": 5, **ON_INDEX},
    "api_take_command": {},
    "api_hand_over": {"to": "ben", **BECAUSE},
    "api_release_command": {},
    "api_lock": BECAUSE,
    "api_unlock": BECAUSE,
    "api_deny": {"build": "b1", **BECAUSE},
    "api_allow": {"build": "b1", **BECAUSE},
}
"""What each write of the API takes, as it would be done."""


def path_of(route: Route) -> str:
    path = re.sub(r"{number:[^/]+}", "1", route.path)
    path = path.replace("{tier}", "prod").replace("{host}", "prod-01")
    path = re.sub(r"{file:[^}]+}", "checkpoint.css", path)
    return path + ("?page=train" if route.name == "events" else "")


async def ask(client: Client, route: Route) -> Answer:
    if route.name == "events":
        async with client.session.get(client.url + path_of(route), allow_redirects=False) as response:
            return Answer(response.status, "", response.headers)
    if route.method == "GET":
        return await client.get(path_of(route))
    if route.path.startswith("/api/"):
        return await client.post(path_of(route), json=BODIES[route.name], headers={"X-CSRF-Token": client.csrf})
    return await client.post(path_of(route), FORMS.get(route.name, {}))


def is_refused(answer: Answer) -> bool:
    to_sign_in = answer.status == 303 and answer.headers["Location"].startswith("/sign-in")
    return answer.status in {401, 403} or to_sign_in


async def test_each_role_has_exactly_its_rights(web: WebWorld) -> None:
    """Every route as nobody and as every role: refused below the route's role, and then nothing is written."""
    await web.world.start()
    await web.shown()
    clients = {Role.NONE: web.client()} | {Role[role.upper()]: await web.as_(role) for role in ROLES}
    for route in ROUTES:
        if route.name in {"sign_out", "signed_in", "sign_in"}:
            continue  # their own tests
        for role, client in clients.items():
            before = await web.everything()
            answer = await ask(client, route)
            assert is_refused(answer) == (role < route.role), (route.name, role.name, answer)
            assert answer.status < 500, (route.name, role.name, answer)
            if route.path.startswith("/api/"):
                # What is sent is what each operation takes: nothing but rights and the state of things refuses it.
                assert answer.status in {200, 401, 403, 409}, (route.name, role.name, answer)
                assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
            if role < route.role:
                assert await web.everything() == before, (route.name, role.name)
            for name, value in HEADERS.items():
                assert answer.headers[name] == value, (route.name, name)


async def test_there_are_no_other_routes(web: WebWorld) -> None:
    """Everything that the server answers is in the table, and a method that is not is refused."""
    client = await web.as_("admin")
    for path in ("/rollouts/1/act", "/lock", "/new/start"):
        assert (await client.get(path)).status in {404, 405}
    assert (await client.get("/api/lock")).headers["Allow"] == "POST"
    for path in (
        "/nothing",
        "/api/nothing",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/rollouts/x",
        "/.git/config",
    ):
        assert (await client.get(path)).status == 404


async def test_without_a_word_of_the_session_nothing_is_done(web: WebWorld) -> None:
    """A form without, with another session's, or with a damaged forgery token; and requests that another site sends."""
    await web.world.start()
    await web.shown()
    client, other = await web.as_("deploy"), await web.as_("deploy")
    before = await web.everything()
    act = FORMS["act"]
    path = "/rollouts/1/act"
    for csrf in ("", "x", other.csrf, client.csrf[:-1], "\N{SNOWMAN}"):
        assert (await client.post(path, {"csrf": csrf, **act})).status == 403
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": client.url.replace("http:", "https:") + ".evil.example"},
    ):
        assert (await client.post(path, act, headers=headers)).status == 403, headers
    assert (await client.post(path, act, headers={"Host": "evil.example"})).status == 421
    assert await web.everything() == before
    assert (await client.post(path, act, headers={"Origin": client.url})).status == 303
    assert await web.everything() != before


async def test_a_session_ends_for_good(web: WebWorld) -> None:
    """A cookie that is replayed after signing out, altered, made with another key, or that has ended, is nobody's."""
    client = await web.as_("deploy")
    cookie = next(iter(client.session.cookie_jar)).value
    assert (await client.get("/")).status == 200
    assert (await client.post("/sign-out")).status == 303
    nobody = web.client()
    forged = Seal(b"k" * 32).close("session", b'{"token":"' + LAUNCH_ID.encode() + b'","id":"x"}', until_s=9e9)
    seal = web.serving.site.identities.seal
    for value in (
        cookie,
        cookie[:-2] + "xx",
        "x" + cookie[1:],
        forged,
        seal.close("session", b'{"token":"launch","id":"x"}', until_s=9e9),
        seal.close("plan", b'{"token":"launch","id":"x"}', until_s=9e9),
        seal.close("session", b"{}", until_s=time.time() - 1),
        "",
        ".",
        "a.b",
    ):
        answer = await nobody.get("/", headers={"Cookie": f"hotcold={value}"})
        assert answer.status == 303, value
        assert answer.headers["Location"] == "/sign-in?next=%2F"


async def test_a_token_that_is_taken_out_ends_its_sessions(web: WebWorld) -> None:
    """The tokens file is read again and again; also one that is damaged lets nobody in."""
    client = await web.as_("admin")
    bearer = {"Authorization": f"Bearer {web.tokens['admin']}"}
    assert (await web.client().get("/api/rollout", headers=bearer)).status == 200
    text = await asyncio.get_running_loop().run_in_executor(None, web.tokens_file.read_text)
    lines = [part for part in text.split("[[tokens]]") if "adminer" not in part]
    await asyncio.get_running_loop().run_in_executor(None, web.tokens_file.write_text, "[[tokens]]".join(lines))
    await _until_out(client)
    assert (await web.client().get("/api/rollout", headers=bearer)).status == 401
    reader = await web.as_("read")
    await asyncio.get_running_loop().run_in_executor(None, web.tokens_file.write_text, "damaged")
    await _until_out(reader)


async def _until_out(client: Client) -> None:
    async with asyncio.timeout(30 * RELOAD_S):
        while (await client.get("/")).status != 303:  # noqa: ASYNC110 - the server is asked
            await asyncio.sleep(0.05)


async def test_the_cookie_is_kept_from_scripts_and_other_sites(web: WebWorld) -> None:
    client = web.client()
    answer = await client.post("/sign-in", {"token": web.tokens["read"], "next": "/hosts"})
    said = answer.headers["Set-Cookie"]
    assert answer.headers["Location"] == "/hosts"
    assert all(part in said for part in ("HttpOnly", "SameSite=Strict", "Path=/"))
    assert "Secure" not in said


async def test_over_https_the_cookie_stays_there(tmp_path: Path) -> None:
    async with web_world(tmp_path) as first:
        pass
    web = f'tokens_file = "{first.tokens_file}"\npublic_url = "https://deploy.example.com"\n'
    async with web_world(tmp_path, web=web) as made:
        client = made.client()
        client.url = f"http://127.0.0.1:{made.serving.port}"
        answer = await client.post("/sign-in", {"token": first.tokens["read"]})
        assert answer.headers["Set-Cookie"].startswith("__Host-hotcold=")
        assert "Secure" in answer.headers["Set-Cookie"]


@pytest.mark.parametrize(
    ("asked", "led"),
    [
        ("/rollouts/1?x=1", "/rollouts/1?x=1"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nSet-Cookie: x=1", "/"),
        ("", "/"),
        ("hosts", "/"),
    ],
)
async def test_nobody_is_led_elsewhere_after_signing_in(web: WebWorld, asked: str, led: str) -> None:
    assert safe_path(asked) == led
    answer = await web.client().post("/sign-in", {"token": web.tokens["read"], "next": asked})
    assert (answer.status, answer.headers["Location"]) == (303, led)
    assert "x=1" not in answer.headers["Set-Cookie"]


async def test_guessing_is_slowed_down_and_told(still: WebWorld) -> None:
    """Wrong tokens are in the audit; too many are not even looked at, so the right one does not help either."""
    client = still.client()
    statuses = [(await client.post("/sign-in", {"token": f"hc_{n:08x}_{'x' * 43}"})).status for n in range(12)]
    assert statuses == [401] * GUESSES_PER_MINUTE + [429] * (12 - GUESSES_PER_MINUTE)
    assert (await client.post("/sign-in", {"token": still.tokens["read"]})).status == 429
    await _until_told(still, "a sign-in from 127.0.0.1 was refused: no such token")


async def test_who_presses_too_often_is_stopped(still: WebWorld) -> None:
    client = await still.as_("deploy")
    answers = [await client.post("/command", {"deed": "x"}) for _ in range(WRITES_PER_MINUTE + 2)]
    assert [each.status for each in answers[-2:]] == [429, 429]
    assert {each.status for each in answers[:WRITES_PER_MINUTE]} == {422}


async def test_every_refusal_is_in_the_audit_and_the_chain_stays_whole(web: WebWorld) -> None:
    """Refusals of role and of forgery are records, by name; a flood of them is counted instead of written."""
    await web.world.start()
    reader = await web.as_("read")
    assert (await reader.post("/lock", {"reason": "no"})).status == 403
    await _until_told(web, "POST /lock from 127.0.0.1 was refused: it needs the role deploy")
    deployer = await web.as_("deploy")
    assert (await deployer.post("/lock", {"csrf": "x", "reason": "no"})).status == 403
    await _until_told(web, "the form is of another session")
    for _ in range(60):
        assert (await reader.post("/lock", {"reason": "no"})).status == 403
    refused = [record for record in await web.audit() if '"what":"refused"' in record]
    assert len(refused) <= 25
    await web.world.act(ev.PauseRequested())
    async with asyncio.timeout(30):
        while True:
            head, _ = read_head(await web.world.store.read(audit_head_key("shop")))
            entries = await web.world.store.read_prefix(audit_prefix("shop"))
            if len(entries) == head.number:
                break
    assert list(verify(entries, head)) == []


async def _until_told(web: WebWorld, said: str) -> None:
    async with asyncio.timeout(30):
        while not any(said in json.loads(record)["message"] for record in await web.audit()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_trusted_proxy_names_people(tmp_path: Path) -> None:
    """Its header counts from its address only, once, and with a name that can be one."""
    table = (
        "[web.proxy]\ntrusted = ['127.0.0.1']\nuser_header = 'X-Forwarded-User'\n"
        "[web.proxy.roles]\nanna = 'admin'\n'ben@example.com' = 'deploy'\nmallory = 'none'\n"
    )
    async with web_world(tmp_path, web=table) as web:
        client = web.client()
        for headers, is_in in (
            ([("X-Forwarded-User", "anna")], True),
            ([("X-Forwarded-User", "ben@example.com")], True),
            ([("X-Forwarded-User", "somebody")], True),
            ([("X-Forwarded-User", "mallory")], False),
            ([("X-Forwarded-User", "anna"), ("X-Forwarded-User", "anna")], False),
            ([("X-Forwarded-User", "<script>")], False),
            ([("X-Forwarded-User", "anna, ben")], False),
            ([], False),
        ):
            answer = await client.get("/", headers=headers)
            assert (answer.status == 200) == is_in, headers
        page = await client.get("/new", headers={"X-Forwarded-User": "somebody"})
        assert page.status == 403
        # No cookie is involved, so the forgery token is bound to the name.
        page = await client.get("/", headers={"X-Forwarded-User": "anna"})
        found = re.search(r'name="csrf" value="([^"]+)"', page.text)
        assert found is not None
        for name, status in (("ben@example.com", 403), ("anna", 303)):
            form = {"csrf": found[1], "reason": "because"}
            assert (await client.post("/lock", form, headers={"X-Forwarded-User": name})).status == status


async def test_from_another_address_the_header_means_nothing(tmp_path: Path) -> None:
    table = "[web.proxy]\ntrusted = ['10.9.8.7']\ndefault_role = 'admin'\n"
    async with web_world(tmp_path, web=table) as web:
        answer = await web.client().get("/", headers={"X-Forwarded-User": "anna"})
        assert answer.status == 303


async def test_without_any_way_to_sign_in_the_printed_link_is_the_only_one(tmp_path: Path) -> None:
    async with web_world(tmp_path, web="") as web:
        link = web.serving.sign_in_url
        assert link is not None
        client = web.client()
        assert (await client.get("/")).status == 303
        assert (await client.get("/sign-in?token=wrong")).status == 401
        assert (await client.get(link.removeprefix(web.serving.url))).status == 303
        page = await client.get("/")
        assert page.status == 200
        assert "anna@desk" in page.text
