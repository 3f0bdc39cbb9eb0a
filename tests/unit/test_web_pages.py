"""What pages show and what presses do: escaping, stale presses, starting, the stream."""

from __future__ import annotations

import asyncio
import html
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from checkpoint.rollout import events as ev
from checkpoint.rollout import states as st
from fleet import ConsulStore, Order, Problem, encode
from fleet.keys import host_key, tier_key
from tests.commander_world import build
from tests.rollout_world import a_report
from tests.web_world import WebWorld, web_world

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}"


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path) as made:
        yield made


async def index_of(web: WebWorld) -> str:
    return str((await web.world.now()).index)


async def test_a_newcomer_is_told_what_to_do(tmp_path: Path) -> None:
    """Without a rollout every page says what comes first, in commands."""
    async with web_world(tmp_path, sizes={}) as web:
        client = await web.as_("admin")
        train = (await client.get("/")).text
        assert "hotcold install --app shop" in train
        assert "hotcold pack" in train
        assert 'href="/new"' in train
        assert "No host has reported yet" in (await client.get("/hosts")).text
        assert "Nothing was ever done" in (await client.get("/history")).text
        assert (await client.get("/rollouts/1")).status == 404
        assert (await client.get("/hosts/prod/web-1")).status == 404
        assert "It is whole" in (await client.get("/history/verify")).text


async def test_what_others_wrote_is_never_markup(web: WebWorld) -> None:
    """Build ids, reasons, problems and people's names, on every page, in the stream and in the log."""
    order = Order(v=1, app="shop", tier="canary", serial=2, build=build("b1", "1"), reason=EVIL, by=EVIL)
    await web.world.store.put(tier_key("shop", "canary"), encode(order))
    # No such document is decoded; what is said of it must not be markup either.
    hostile = json.loads(encode(order)) | {"tier": "other", "build": {"id": EVIL}, EVIL: EVIL}
    await web.world.store.put(tier_key("shop", "other"), json.dumps(hostile).encode())
    said = a_report(
        "prod", "prod-01", serial=2, state="rolled_back", hot=EVIL, since=EVIL, problem=Problem(kind="x", message=EVIL)
    )
    await web.world.store.put(host_key("shop", "prod", "prod-01"), encode(said))
    plan = await web.world.desk.plan(web.world.settings.pipeline, build("b2", "2"), by=EVIL, reason=EVIL)
    await web.world.desk.start(plan, ev.Origin(by=EVIL, via="cli", reason=EVIL, at=web.world.time.wall))
    await web.world.desk.guarding.lock(web.world.origin(reason=EVIL))
    await web.world.act(ev.PauseRequested(), EVIL, reason=EVIL)
    await web.shown()
    client = await web.as_("admin")
    shown = ""
    for path in ("/", "/rollouts/1", "/hosts", "/hosts/prod/prod-01", "/history", "/new", "/settings"):
        shown += (await client.get(path)).text
    shown += (await client.get(f"/hosts?q={html.escape('<script>')}&tier=<script>")).text
    shown += (await client.get("/history?who=<script>&what=<img>")).text
    shown += (await client.get("/new?manifest=<script>'\"")).text
    shown += (await client.post("/new/plan", {"manifest": EVIL, "reason": EVIL})).text
    shown += (await client.post("/rollouts/1/act", {"action": EVIL, "reason": EVIL, "index": "1"})).text
    shown += (await client.post("/sign-in", {"token": EVIL, "next": EVIL})).text
    for kind in ("train", "rollout"):
        shown += await _first(client.session, f"{client.url}/events?page={kind}&number=1")
    assert "<script>alert" not in shown
    assert "<img src=x" not in shown
    assert "&lt;script&gt;alert(1)" in shown
    assert not re.search(r"\son\w+=|style=|javascript:", re.sub(r"onerror=alert", "", shown))
    scripts = re.findall(r"<script[^>]*>", shown)
    assert scripts
    assert all(re.fullmatch(r'<script src="/static/[a-z0-9./-]+\?[0-9a-f]{12}"( defer)?>', each) for each in scripts)


async def _first(session: aiohttp.ClientSession, url: str, **facts: Any) -> str:
    """What a stream sends up to its first sign of life."""
    text = ""
    async with asyncio.timeout(60), session.get(url, **facts) as response:
        assert response.status == 200
        while "event: pulse" not in text or not text.endswith("\n\n"):
            text += (await response.content.readany()).decode()
    return text


async def test_a_stale_press_is_told_what_changed_and_does_nothing(web: WebWorld) -> None:
    """Approve, resume and advance; stopping works from a stale page, as long as it is about the same rollout."""
    await web.world.start()
    await web.world.settle()
    client = await web.as_("deploy")
    await web.world.desk.guarding.release_command(web.world.origin())
    index = await index_of(web)
    await web.world.act(ev.PauseRequested(), "bob@desk", reason="looking at errors")
    before = await web.everything()
    for action in ("resume", "advance", "approve"):
        form = {"action": action, "reason": "go", "index": index}
        answer = await client.post("/rollouts/1/act", form)
        assert answer.status == 409, answer
        assert "bob@desk: paused: looking at errors" in html.unescape(answer.text)
        fragment = await client.post("/rollouts/1/act", form, headers={"HX-Request": "true"})
        assert fragment.status == 409
        assert "<html" not in fragment.text
    assert await web.everything() == before
    stop = {"action": "rollback", "reason": "errors", "index": index}
    assert (await client.post("/rollouts/1/act", stop)).status == 303
    assert isinstance((await web.world.now()).rollout.phase, st.RolledBack)


async def test_a_press_about_a_rollout_that_was_replaced_does_nothing(web: WebWorld) -> None:
    await web.world.start()
    index = await index_of(web)
    await web.world.act(ev.AbortRequested())
    await web.world.start("b3")
    client = await web.as_("deploy")
    before = await web.everything()
    answer = await client.post("/rollouts/1/act", {"action": "rollback", "reason": "errors", "index": index})
    assert answer.status == 409
    assert "rollout 2 of b3 was started meanwhile" in answer.text
    assert await web.everything() == before


@pytest.mark.parametrize(
    "form",
    [
        {"action": "pause", "reason": "", "index": "5"},
        {"action": "pause", "reason": " \r\n ", "index": "5"},
        {"action": "pause", "reason": "x", "index": ""},
        {"action": "pause", "reason": "x", "index": "-1"},
        {"action": "pause", "reason": "x", "index": "9" * 40},
        {"action": "destroy", "reason": "x", "index": "5"},
        {"action": "set-aside", "reason": "x", "index": "999999", "tier": "prod", "host": "nobody"},
        {"reason": "x", "index": "5"},
        {},
    ],
)
async def test_a_press_with_a_wrong_field_does_nothing(web: WebWorld, form: dict[str, str]) -> None:
    await web.world.start()
    await web.world.desk.guarding.release_command(web.world.origin())
    client = await web.as_("deploy")
    before = await web.everything()
    answer = await client.post("/rollouts/1/act", form)
    assert answer.status == 422, answer
    assert await web.everything() == before


async def test_a_reason_is_one_printable_line_in_the_audit(web: WebWorld) -> None:
    """Line ends, control characters and length: nothing that was typed can look like another record."""
    await web.world.start()
    client = await web.as_("deploy")
    reason = "first\r\nSet-Cookie: a=b\x1b[31m\u202e" + "x" * 900
    answer = await client.post("/rollouts/1/act", {"action": "abort", "reason": reason, "index": await index_of(web)})
    assert answer.status == 303
    assert "a=b" not in str(answer.headers)
    record = json.loads((await web.audit())[-1])
    assert record["by"] == "deployer"
    assert record["via"] == "ui"
    assert record["reason"].startswith("first Set-Cookie: a=b\N{REPLACEMENT CHARACTER}[31m")
    assert record["reason"].isprintable()
    assert len(record["reason"]) == 500


async def test_a_rollout_is_planned_looked_at_and_started(web: WebWorld) -> None:
    """The plan that was shown is what runs; it writes nothing, is bound to its reader, and cannot be altered."""
    client = await web.as_("deploy")
    before = await web.everything()
    page = await client.post("/new/plan", {"build": "b1", "reason": "once more", "first_tier": "canary"})
    assert page.status == 200
    assert await web.everything() == before
    found = re.search(r'name="plan" value="([^"]+)"', page.text)
    assert found is not None
    sealed = html.unescape(found[1])
    admin = await web.as_("admin")
    for who, plan in ((admin, sealed), (client, sealed[:-1]), (client, "x" + sealed[1:]), (client, "")):
        assert (await who.post("/new/start", {"plan": plan})).status == 409
    assert (await client.post("/new/start", {"plan": sealed, "override": "30"})).status == 422
    assert await web.everything() == before
    answer = await client.post("/new/start", {"plan": sealed})
    assert (answer.status, answer.headers["Location"]) == (303, "/rollouts/1")
    ongoing = await web.world.now()
    assert [tier.name for tier in ongoing.plan.tiers] == ["canary", "prod"]
    assert (ongoing.plan.by, ongoing.plan.reason) == ("deployer", "once more")
    for tier in ongoing.plan.tiers:
        for host in tier.hosts[:1]:
            assert host in page.text
    assert (await client.post("/new/start", {"plan": sealed})).status in {409, 422}


@pytest.mark.parametrize("manifest", ["/etc/passwd", "file:///etc/passwd", "", "ftp://x/y", "\\\\x", "C:x", "x.json"])
async def test_only_urls_of_manifests_are_read(web: WebWorld, manifest: str) -> None:
    """Whoever may deploy may not read this machine's files."""
    client = await web.as_("deploy")
    answer = await client.post("/new/plan", {"manifest": manifest, "reason": "x"})
    assert answer.status == 422
    assert "give the URL of a manifest" in html.unescape(answer.text)
    assert "root:" not in answer.text


async def test_the_stream_sends_what_changed_and_ends_with_the_session(web: WebWorld) -> None:
    """First everything, then only the parts that look different; ids are Consul's; a page that comes back is told."""
    await web.world.start()
    await web.world.settle()
    await web.shown()
    client = await web.as_("deploy")
    url = f"{client.url}/events?page=rollout&number=1"
    async with asyncio.timeout(60), client.session.get(url) as response:
        text = ""
        while "event: pulse" not in text:
            text += (await response.content.readany()).decode()
        assert all(f'id="part-{name}"' in text for name in ("banners", "now", "strip", "steps", "trouble", "log"))
        index = await index_of(web)
        assert f'"index":{index}' in text
        await web.world.act(ev.PauseRequested(), reason="wait a moment")
        text = ""
        while "wait a moment" not in text or "event: states" not in text.split("wait a moment")[-1]:
            text += (await response.content.readany()).decode()
        assert '"phase":"paused"' in text
        assert 'id="part-log"' in text
        ids = [int(each) for each in re.findall(r"^id: (\d+)$", text, re.MULTILINE)]
        assert ids == sorted(ids)
        assert max(ids) >= (await web.world.now()).index
        assert (await client.post("/sign-out")).status == 303
        while "event: gone" not in text:
            text += (await response.content.readany()).decode()
    back = await web.as_("deploy")
    told = await _first(back.session, url, headers={"Last-Event-ID": "1"})
    assert '"missed":true' in told
    assert "wait a moment" in told
    told = await _first(back.session, url, headers={"Last-Event-ID": str(max(ids))})
    assert '"missed":false' in told


class CountingStore(ConsulStore):
    """Counts what is asked of the store, by prefix or key."""

    def __init__(self, *args: Any, **facts: Any) -> None:
        super().__init__(*args, **facts)
        self.counts: Counter[str] = Counter()

    def watch(self, key: str) -> Any:
        self.counts[f"watch {key}"] += 1
        return super().watch(key)

    def watch_prefix(self, prefix: str, **facts: Any) -> Any:
        self.counts[f"watch {prefix}"] += 1
        return super().watch_prefix(prefix, **facts)

    async def read(self, key: str) -> Any:
        self.counts["read"] += "/leader/" not in key  # who leads is asked every few seconds, whoever looks
        return await super().read(key)

    async def read_prefix(self, prefix: str) -> Any:
        self.counts["read"] += 1
        return await super().read_prefix(prefix)


async def test_a_hundred_pages_cost_one_watch_on_each_prefix(tmp_path: Path) -> None:
    """And a page that is opened asks Consul nothing at all."""
    async with web_world(tmp_path, store_kind=CountingStore) as web:
        store = web.world.store
        assert isinstance(store, CountingStore)
        await web.world.start()
        await web.shown()
        client = await web.as_("read")
        before = store.counts["read"]
        url = f"{client.url}/events?page=rollout&number=1"
        connector = aiohttp.TCPConnector(limit=0)
        jar = client.session.cookie_jar
        async with aiohttp.ClientSession(cookie_jar=jar, connector=connector) as session, asyncio.timeout(60):
            responses = [await session.get(url) for _ in range(100)]
            for response in responses:
                assert b"part-now" in await response.content.readany()
            assert (await client.get("/rollouts/1")).status == 200
            assert store.counts["read"] == before
            for response in responses:
                response.close()
        watches = {what: count for what, count in store.counts.items() if what.startswith("watch")}
        assert watches == dict.fromkeys(
            ("watch hotcold/shop/tiers/", "watch hotcold/shop/hosts/", "watch hotcold/shop/checkpoint/audit-head"), 1
        )


async def _told_of_one_host(web: WebWorld) -> tuple[str, int]:
    """The grid's event after the first host of prod began, and the bytes of everything that came with it."""
    await web.world.start()
    await web.world.settle()
    await web.shown()
    client = await web.as_("read")
    url = f"{client.url}/events?page=rollout&number=1"
    async with asyncio.timeout(60), client.session.get(url) as response:
        text = ""
        while "event: pulse" not in text or not text.endswith("\n\n"):
            text += (await response.content.readany()).decode()
        value = encode(a_report("prod", "prod-00", serial=1, hot=None, state="fetching"))
        await web.world.store.put(host_key("shop", "prod", "prod-00"), value)
        while True:
            # What comes of one snapshot arrives at once, and ends with a sign of life.
            text = ""
            while "event: pulse" not in text or not text.endswith("\n\n"):
                text += (await response.content.readany()).decode()
            [*_, states] = [each for each in text.split("\n\n") if each.startswith("event: states")] or [""]
            if '"b"' in states:
                return states, len(text)


async def test_an_update_is_as_long_for_a_large_fleet_as_for_a_small_one(tmp_path: Path) -> None:
    """One host that changes is a few characters of the grid, and figures."""
    found = []
    for count in (10, 300):
        place = tmp_path / str(count)
        place.mkdir()
        async with web_world(place, sizes={"staging": 1, "canary": 1, "prod": count}) as web:
            found.append(await _told_of_one_host(web))
    (small, small_bytes), (large, large_bytes) = found
    assert len(large) < 300
    assert len(large) - len(small) < 20
    assert large_bytes - small_bytes < 200


async def test_long_pages_are_packed_unless_they_repeat_what_was_asked(web: WebWorld) -> None:
    """The length of a packed page that repeats a request would let others guess at the secrets on it."""
    await web.world.start()
    await web.shown()
    client = await web.as_("deploy")
    static = re.findall(r'(?:src|href)="(/static/[^"]+)"', (await client.get("/rollouts/1")).text)
    for path, is_packed in (("/rollouts/1", True), *((each, True) for each in static), ("/hosts?q=x", False)):
        answer = await client.get(path, headers={"Accept-Encoding": "gzip"})
        assert (answer.headers.get("Content-Encoding") == "gzip") == is_packed, path
        plain = await client.get(path, headers={"Accept-Encoding": "identity"})
        assert "Content-Encoding" not in plain.headers
        if path.startswith("/static"):
            assert plain.text == answer.text


async def test_an_export_is_the_audit_and_the_chain_is_checked(web: WebWorld) -> None:
    await web.world.start()
    await web.shown()
    client = await web.as_("read")
    answer = await client.get("/history/export")
    assert answer.text.splitlines() == await web.audit()
    assert re.fullmatch(r'attachment; filename="shop-audit-[0-9TZ-]+\.jsonl"', answer.headers["Content-Disposition"])
    assert "It is whole" in (await client.get("/history/verify")).text
    entry = await web.world.store.read("hotcold/shop/checkpoint/audit/0000000001")
    assert entry is not None
    await web.world.store.put(entry.key, entry.value.replace(b"because", b"becausf"))
    page = await client.get("/history/verify")
    assert "It is not whole" in page.text
    assert "record 1 was altered" in page.text
