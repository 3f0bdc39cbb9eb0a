"""The page for a new rollout: builds, commits, checklist, confirmations, hotfix path; hosts set aside; who commands."""

from __future__ import annotations

import asyncio
import html
import re
import shlex
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web as server
from click import Context, Group

from artifact import ManifestRef
from checkpoint.audit import read_record
from checkpoint.release import record
from checkpoint.rollout import events as ev
from fleet import Build, Commit
from fleet.keys import audit_prefix, build_key
from hotcold.main import cli
from tests.commander_world import build
from tests.rollout_world import MONDAY, PIPELINE, no_pause
from tests.web_world import Answer, Client, WebWorld, web_world

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}"
ASKED = """
[[checklist]]
name = "support"
text = "Support knows what changes"
[[checklist]]
name = "data"
text = "Old and new build bear the database"
tiers = ["prod"]
"""
HOTFIX_PATH = f'hotfix_from = "canary"\n{PIPELINE}'


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path, pipeline=HOTFIX_PATH) as made:
        yield made


def released(build_id: str, since: str | None, *subjects: str, **facts: Any) -> Build:
    """A record; its manifest lies at a path, where only hosts look."""
    digit = build_id[-1]
    commits = tuple(
        Commit(sha=(subject.encode().hex() * 9)[:40], author="Carol", subject=subject) for subject in subjects
    )
    plain = Build(
        v=1,
        app="shop",
        build=build(build_id, digit),
        manifest=f"/srv/artifacts/{build_id}.json",
        revision=digit * 40,
        branch=f"release/{build_id}",
        tag=build_id,
        by="anna@deploy-1",
        at=f"2026-11-23T14:0{digit}:11+00:00",
        since=since,
        commits=commits,
        commit_count=len(commits),
    )
    return msgspec.structs.replace(plain, **facts)


async def release(web: WebWorld, *builds: Build) -> None:
    for each in builds:
        await record(web.world.store, each, web.world.desk.insistence, by=each.by, at=MONDAY, pause=no_pause)
    await web.shown()


def text_of(answer: Answer) -> str:
    """What people read."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def sealed_in(answer: Answer) -> str:
    found = re.search(r'name="plan" value="([^"]+)"', answer.text)
    assert found is not None, text_of(answer)
    return html.unescape(found[1])


async def planned(client: Client, build_id: str, **fields: str) -> Answer:
    answer = await client.post("/new/plan", {"build": build_id, "reason": "now", **fields})
    assert answer.status == 200, text_of(answer)
    return answer


async def when_shown(client: Client, path: str, text: str) -> Answer:
    """The page, as soon as it says that."""
    async with asyncio.timeout(60):
        while True:
            page = await client.get(path)
            if text in page.text:
                return page
            await asyncio.sleep(0.05)


async def test_releases_are_offered_the_newest_first_with_all_that_is_known(web: WebWorld) -> None:
    """Notes, revision, who, what runs it, denials with their reason, a damaged record, what only orders name."""
    await release(
        web,
        released("2026-11-23.2", "b1", "Coupons", notes="coupons for all"),
        released("2026-11-23.3", "2026-11-23.2", "Fix", hotfix_of="2026-11-23.2", picks=("f" * 40,)),
    )
    await web.world.store.put(build_key("shop", "2026-11-23.4"), b"{}")
    await web.world.desk.guarding.deny(build("2026-11-23.2", "2"), web.world.origin("bob@desk", reason="errors <now>"))
    await web.shown()
    client = await web.as_("deploy")
    page = await client.get("/new")
    assert re.findall(r'name="build" value="([^"]*)"', page.text) == [
        "2026-11-23.4",
        "2026-11-23.3",
        "2026-11-23.2",
        "b1",
        "",
    ]
    said = text_of(page)
    assert "2026-11-23.3 hotfix of 2026-11-23.2 1 commit since 2026-11-23.2 · 333333333333 · anna@deploy-1" in said
    assert "2026-11-23.2 denied coupons for all" in said
    assert "denied by bob@desk: errors <now>" in said
    assert "b1 canary prod staging not recorded by a release" in said
    assert "its record cannot be read" in said
    assert re.search(r'value="2026-11-23.4" disabled', page.text)
    assert re.search(r'value="2026-11-23.2" checked', (await client.get("/new?build=2026-11-23.2")).text)


async def test_many_releases_are_shown_in_parts(web: WebWorld) -> None:
    await release(web, *(released(f"2026-11-22.{number}", None, "x") for number in range(1, 26)))
    client = await web.as_("deploy")
    page = await client.get("/new")
    assert page.text.count('name="build" value="2026') == 20
    assert "Show 6 older builds" in text_of(page)
    assert (await client.get("/new?all=1")).text.count('name="build" value="2026') == 25


async def test_a_commit_message_is_never_markup(web: WebWorld) -> None:
    """Subject, author and sha of commits that are brought, taken out and lacking; notes, branch, who, picks."""
    evil = Commit(sha=EVIL, author=EVIL, subject=EVIL)
    other, third = (msgspec.structs.replace(evil, sha=f"{number}{EVIL}") for number in range(2))
    facts: dict[str, Any] = {"notes": EVIL, "branch": EVIL, "by": EVIL, "revision": EVIL, "picks": (EVIL,)}
    await release(
        web,
        released("b1", None, "Begin", **facts),
        released("b2", "b1", commits=(evil,), commit_count=1, not_yet=(other,), not_yet_count=1, **facts),
        released("b3", "b1", commits=(third,), commit_count=1, **facts),
    )
    client = await web.as_("admin")
    shown = (await client.get("/new")).text + (await client.get("/history")).text
    brings = await planned(client, "b2")
    assert "In it, and new: 1 commit" in text_of(brings)
    assert "Not in it: 2 commits" in text_of(brings)
    await web.world.start("b2")
    await web.world.until_ended()
    await web.shown()
    back = await planned(client, "b1")
    assert "Taken out again: 1 commit" in text_of(back)
    for text in (shown, brings.text, back.text):
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "&lt;script&gt;alert(1)" in text
        assert "{{7*7}}" in html.unescape(text)
    assert all("nerror" not in tag for tag in re.findall(r"<[a-z][^<>]*>", shown + brings.text + back.text))


async def test_commits_are_told_against_what_production_runs(web: WebWorld) -> None:
    """What the build brings and lacks; then back to the older one: what is taken out."""
    await release(
        web,
        released("b1", None, "Begin"),
        released("b2", "b1", "Checkout", "Search"),
        released("b3", "b1", "Search once more", hotfix_of="b1", picks=("5365617263" + "6" * 30,)),
    )
    client = await web.as_("deploy")
    said = text_of(await planned(client, "b2", first_tier=""))
    assert "Against b1 , which prod runs." in said
    assert "In it, and new: 2 commits" in said
    assert "Checkout Carol" in said
    await web.world.start("b2")
    await web.world.until_ended()
    await web.shown()
    said = text_of(await planned(client, "b1"))
    assert "It goes back to an older build." in said
    assert "Taken out again: 2 commits" in said
    said = text_of(await planned(client, "b2"))
    assert "prod is ordered to run b2 already" in said


async def test_a_hotfix_takes_its_path_by_itself(web: WebWorld) -> None:
    """As the record says; what is passed by is named, and the whole way is one press away."""
    await release(web, released("b1", None, "Begin"), released("b2", "b1", "Fix", hotfix_of="b1", picks=("f" * 40,)))
    client = await web.as_("deploy")
    assert '<option value="by-kind" selected>' in (await client.get("/new")).text
    page = await planned(client, "b2", first_tier="by-kind")
    said = text_of(page)
    assert "The hotfix path It begins at canary" in said
    assert "staging : no verdict, no 1 min of baking" in said
    assert "canary to 100 %" in said
    assert "staging to 100 %" not in said
    whole = text_of(await planned(client, "b2", first_tier=""))
    assert "staging to 100 %" in whole
    assert "The hotfix path" not in whole
    assert "staging to 100 %" in text_of(await planned(client, "b1", first_tier="by-kind"))
    answer = await client.post("/new/start", {"plan": sealed_in(page)})
    assert answer.status == 303
    assert [tier.name for tier in (await web.world.now()).plan.tiers] == ["canary", "prod"]


async def test_nothing_starts_before_all_is_confirmed(tmp_path: Path) -> None:
    """Each text that the configuration asks for is ticked, and stands in the audit; a made-up one is refused."""
    async with web_world(tmp_path, pipeline=f"{PIPELINE}{ASKED}") as web:
        client = await web.as_("deploy")
        settings = text_of(await client.get("/settings"))
        assert "Old and new build bear the database (prod)" in settings
        assert "Hotfixes begin at the first tier" in settings
        page = await planned(client, "b1")
        assert page.text.count('type="checkbox" name="confirm"') == 2
        before = await web.everything()
        sealed = sealed_in(page)
        for ticks in (
            [],
            ["support"],
            ["data"],
            ["support", "data", "made-up"],
            ["Support knows what changes", "data"],
        ):
            data = [("csrf", client.csrf), ("plan", sealed), *(("confirm", each) for each in ticks)]
            answer = await client.post("/new/start", data=data)
            assert answer.status == 422, ticks
            assert await web.everything() == before
        data = [("csrf", client.csrf), ("plan", sealed), ("confirm", "support"), ("confirm", "data")]
        assert (await client.post("/new/start", data=data)).status == 303
        last = read_record((await web.world.store.read_prefix(audit_prefix("shop")))[-1].value)
        assert (last.what, last.by) == ("started", "deployer")
        assert "confirmed: Support knows what changes; Old and new build bear the database" in last.message


async def test_what_blocks_is_said_before_and_refused_after(web: WebWorld) -> None:
    """A lock: on the form, and on the plan, whose button is dead for who cannot pierce it; pressed, it does nothing."""
    await web.world.desk.guarding.lock(web.world.origin("bob@desk", reason="the sale"))
    await web.shown()
    deployer, admin = await web.as_("deploy"), await web.as_("admin")
    assert "shop is locked by bob@desk" in text_of(await deployer.get("/new"))
    page = await planned(deployer, "b1")
    assert "It cannot start now: shop is locked by bob@desk" in text_of(page)
    assert re.search(r'<button class="go" disabled>Start rollout 1', page.text)
    before = await web.everything()
    answer = await deployer.post("/new/start", {"plan": sealed_in(page)})
    assert (answer.status, 'href="/new"' in answer.text) == (422, True)
    assert await web.everything() == before
    page = await planned(admin, "b1")
    assert re.search(r'<button class="go">Start rollout 1', page.text)
    assert (await admin.post("/new/start", {"plan": sealed_in(page), "override": "30"})).status == 303


async def test_somebody_elses_command_is_named_and_not_pierced(web: WebWorld) -> None:
    await web.world.desk.guarding.take_command(web.world.origin("bob@desk"), timedelta(hours=1))
    await web.shown()
    admin = await web.as_("admin")
    page = await planned(admin, "b1")
    assert "bob@desk has the command until 2026-11-23 16:00 UTC: ask for it before you start." in text_of(page)
    assert re.search(r'<button class="go" disabled>', page.text)
    assert (await admin.post("/new/start", {"plan": sealed_in(page), "override": "30"})).status == 422


@pytest.fixture
async def manifests() -> AsyncIterator[dict[str, bytes]]:
    """A server of manifests at `address`."""
    kept: dict[str, bytes] = {}

    async def answer(request: server.Request) -> server.Response:
        body = kept.get(request.match_info["name"])
        return server.Response(status=404) if body is None else server.Response(body=body)

    app = server.Application()
    app.router.add_get("/{name}", answer)
    runner = server.AppRunner(app, access_log=None)
    await runner.setup()
    await server.TCPSite(runner, "127.0.0.1", 0).start()
    kept["address"] = f"http://127.0.0.1:{runner.addresses[0][1]}".encode()
    try:
        yield kept
    finally:
        await runner.cleanup()


def manifest_of(ref: ManifestRef, **facts: Any) -> bytes:
    fields = {
        "v": 1,
        "app": "shop",
        "id": ref.id,
        "created": "2026-11-23T14:00:00Z",
        "urls": list(ref.urls),
        "digest": ref.digest,
        "size": ref.size,
        "format": ref.format,
    }
    return msgspec.json.encode(fields | facts)


async def test_the_manifest_of_a_release_is_looked_at(web: WebWorld, manifests: dict[str, bytes]) -> None:
    """There and the same: nothing to say. Gone, or another artifact: it does not start, without an override."""
    address = manifests["address"].decode()
    await release(web, released("b2", None, "x", manifest=f"{address}/b2.json"))
    ref = build("b2", "2")
    client = await web.as_("deploy")
    manifests["b2.json"] = manifest_of(ref)
    page = await planned(client, "b2")
    assert "manifest cannot be used" not in text_of(page)
    sealed = sealed_in(page)
    for content, said in (
        (None, "manifest cannot be used"),
        (manifest_of(ref, digest="sha256:" + "9" * 64), "recorded is"),
        (manifest_of(ref, signature="RWQ"), "another signature"),
    ):
        if content is None:
            del manifests["b2.json"]
        else:
            manifests["b2.json"] = content
        assert said in text_of(await planned(client, "b2"))
        before = await web.everything()
        assert (await client.post("/new/start", {"plan": sealed})).status == 422
        assert await web.everything() == before
    manifests["b2.json"] = manifest_of(ref)
    assert (await client.post("/new/start", {"plan": sealed})).status == 303


async def test_only_one_build_is_meant(web: WebWorld) -> None:
    client = await web.as_("deploy")
    both = {"build": "b1", "manifest": "https://builds.example.com/b2.json", "reason": "x"}
    answer = await client.post("/new/plan", both)
    assert (answer.status, "choose one of both" in text_of(answer)) == (422, True)
    answer = await client.post("/new/plan", {"build": "b9", "reason": "x"})
    assert (answer.status, "no build 'b9' is known here" in text_of(answer)) == (422, True)


async def test_the_pages_work_while_releases_cannot_be_read(web: WebWorld) -> None:
    """Consul is gone: the form says so, in a moment, and blocks."""
    client = await web.as_("deploy")
    await client.get("/new")
    await web.server.aclose()
    page = await when_shown(client, "/new", "Consul does not answer since")
    assert "The releases cannot be read" in text_of(page)


# --- hosts and the command --------------------------------------------------------------------------------------------


async def test_one_form_sets_many_hosts_aside_and_takes_them_back(web: WebWorld) -> None:
    """The button names its host; on the host's page, too; a stale index, or no reason, does nothing."""
    await web.world.start()
    await web.world.settle()
    await web.world.desk.guarding.release_command(web.world.origin())
    await web.world.fleet.silence("prod", "prod-03")
    client = await web.as_("deploy")
    await when_shown(client, "/rollouts/1", 'value="set-aside:prod/prod-03"')
    index = str((await web.world.now()).index)
    deed = {"action": "set-aside:prod/prod-03", "index": index}
    assert (await client.post("/rollouts/1/act", deed)).status == 422
    assert (await client.post("/rollouts/1/act", deed | {"reason": "disk"})).status == 303
    assert [each.host for each in (await web.world.now()).rollout.set_aside] == ["prod-03"]
    await web.shown()
    assert 'value="take-back:prod/prod-03"' in (await client.get("/rollouts/1")).text
    page = await client.get("/hosts/prod/prod-03")
    assert "Set aside in rollout 1 by deployer" in text_of(page)
    assert 'name="action" value="take-back"' in page.text
    back = {
        "action": "take-back",
        "tier": "prod",
        "host": "prod-03",
        "reason": "new disk",
        "back": "/hosts/prod/prod-03",
    }
    assert (await client.post("/rollouts/1/act", back | {"index": index})).status == 409
    answer = await client.post("/rollouts/1/act", back | {"index": str((await web.world.now()).index)})
    assert (answer.status, answer.headers["Location"]) == (303, "/hosts/prod/prod-03")
    assert (await web.world.now()).rollout.set_aside == ()
    idle = await client.post("/rollouts/1/act", back | {"index": str((await web.world.now()).index)})
    assert "it is not set aside" in text_of(idle)


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example", "/\\evil", "/rollouts/1/../..", "", "x"])
async def test_a_press_leads_nowhere_else(web: WebWorld, back: str) -> None:
    client = await web.as_("deploy")
    answer = await client.post("/command", {"deed": "take", "back": back})
    assert (answer.status, answer.headers["Location"]) == (303, "/")


async def test_the_command_is_taken_handed_over_and_given_back(web: WebWorld) -> None:
    """With notes; only from whom the page showed; by an admin only."""
    await web.world.start()
    await web.shown()
    deployer, admin = await web.as_("deploy"), await web.as_("admin")
    assert "take-from" not in (await deployer.get("/rollouts/1")).text
    assert 'value="take-from:anna@desk"' in (await admin.get("/rollouts/1")).text
    before = await web.everything()
    taking = {"deed": "take-from:anna@desk", "reason": "anna is ill", "back": "/rollouts/1"}
    for client, form in (
        (deployer, taking),
        (deployer, {"deed": "take"}),
        (admin, taking | {"deed": "take-from:bob@desk"}),
        (admin, taking | {"reason": ""}),
        (deployer, {"deed": "hand-over", "to": "carol", "reason": "x"}),
    ):
        assert (await client.post("/command", form)).status in {409, 422}
        assert await web.everything() == before
    answer = await admin.post("/command", taking)
    assert (answer.status, answer.headers["Location"]) == (303, "/rollouts/1")
    assert (await admin.post("/command", {"deed": "hand-over", "to": "deployer"})).status == 422
    over = {"deed": "hand-over", "to": "deployer", "reason": "canary is slow"}
    assert (await admin.post("/command", over)).status == 303
    lease = await web.world.desk.guarding.lease()
    assert lease is not None
    assert (lease.holder, lease.note) == ("deployer", "canary is slow")
    assert (await deployer.post("/command", {"deed": "release", "reason": "done"})).status == 303
    lease = await web.world.desk.guarding.lease()
    assert lease is not None
    assert not lease.is_live(web.world.time.wall)


async def test_before_closing_the_pages_ask_and_are_answered(tmp_path: Path) -> None:
    """The window closes before prod is through: every page leads to the choice; hold and finish are pressed."""
    window = "[[windows]]\nname = 'day'\nzone = 'UTC'\nopens = 09:00:00\ncloses = 15:18:00\ntiers = ['prod']\n"
    async with web_world(tmp_path, pipeline=f"{PIPELINE}{window}") as web:
        await web.world.start()
        await web.world.until(lambda now: now.rollout.phase.step == 3)
        web.world.fleet.dead = {host for _, host in web.world.fleet.hosts}
        await web.world.until(lambda now: now.rollout.closing is not None)
        await web.world.desk.guarding.release_command(web.world.origin())
        await web.shown()
        client = await web.as_("deploy")
        assert '<a href="/rollouts/1">choose</a>' in (await client.get("/hosts")).text
        for action, said in (("hold", "to hold over closing"), ("finish", "to go on until")):
            index = str((await web.world.now()).index)
            form = {"action": action, "reason": "on call: anna", "index": index}
            answer = await client.post("/rollouts/1/act", form, headers={"HX-Request": "true"})
            assert (answer.status, said in answer.text) == (200, True)
            closing = (await web.world.now()).rollout.closing
            assert closing is not None
            assert (closing.choice, closing.by) == (action, "deployer")


async def test_every_command_that_a_newcomer_is_shown_exists(tmp_path: Path) -> None:
    """Train, hosts and the form, for an app with nothing: each command of hotcold parses with its options."""
    async with web_world(tmp_path, sizes={}) as web:
        await web.world.store.delete("hotcold/shop/tiers/none")
        client = await web.as_("admin")
        text = "".join([(await client.get(path)).text for path in ("/", "/new", "/hosts")])
        shown = [html.unescape(each) for each in re.findall(r"<code>(.*?)</code>", text, re.DOTALL)]
        lines = [line for each in shown for line in each.splitlines() if line.startswith("hotcold ")]
        assert {line.split()[1] for line in lines} >= {"install", "pack", "release", "rollout", "checkpoint"}
        for line in lines:
            check_command(shlex.split(line)[1:])
        train = text_of(await client.get("/"))
        assert "staging ▸ canary ▸ prod" in train
        assert "hotcold install --app shop --tier staging" in train
        assert "no host of staging, canary, prod has ever reported" in text_of(await client.get("/new"))


async def test_a_newcomer_with_some_hosts_is_told_what_is_still_without(tmp_path: Path) -> None:
    async with web_world(tmp_path, sizes={"staging": 2}) as web:
        client = await web.as_("admin")
        assert "Still without a host: canary, prod" in text_of(await client.get("/"))


def check_command(words: list[str]) -> None:
    """It exists, and has every option that is given; nothing is run."""
    command: Any = cli
    rest = list(words)
    while isinstance(command, Group) and rest:
        name = rest.pop(0)
        found = command.get_command(Context(command), name)
        assert found is not None, words
        command = found
    if isinstance(command, Group):
        return
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= known, words


async def test_steering_of_old_is_still_understood(web: WebWorld) -> None:
    """A script that presses as pages did before: tier and host as fields of their own."""
    await web.world.start()
    await web.world.desk.guarding.release_command(web.world.origin())
    client = await web.as_("deploy")
    form = {"action": "set-aside", "tier": "prod", "host": "prod-01", "reason": "disk"}
    assert (await client.post("/rollouts/1/act", form | {"index": str((await web.world.now()).index)})).status == 303
    assert not (await web.world.act(ev.SetAsideRequested("prod", "prod-01"), "deployer@x")).is_done
