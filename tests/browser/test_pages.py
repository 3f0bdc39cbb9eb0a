"""Checkpoint's pages in a real browser: every page and action, live, stale, cut off, killed, by keyboard, plain."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

pytest.importorskip("playwright.async_api", reason="needs Playwright: pip install playwright")

from playwright.async_api import Browser, Page, expect

from checkpoint.rollout import events as ev
from checkpoint.rollout import states as st
from fleet import ConsulStore, consul_settings
from fleet.devserver import DevServer
from tests.browser.browsing import CHROMIUM, DEADLINE_MS, NO_CHROMIUM, PHONE, Visitor, chromium, visitor
from tests.rollout_world import PIPELINE, Fleet, RolloutWorld, names
from tests.web_world import SMALL, WebWorld, made_tokens, web_world

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM),
    pytest.mark.timeout(300),
]
expect.set_options(timeout=DEADLINE_MS)

PAGES = (
    "/",
    "/rollouts/1",
    "/new",
    "/hosts",
    "/hosts/prod/prod-01",
    "/history",
    "/history/verify",
    "/history/statistics",
    "/settings",
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def web(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path) as made:
        yield made


@contextlib.asynccontextmanager
async def somebody(browser: Browser, web: WebWorld, role: str = "admin", **facts: Any) -> AsyncIterator[Visitor]:
    async with visitor(browser, web.serving.url, **facts) as made:
        await made.sign_in(web.tokens[role])
        yield made


async def in_trouble(web: WebWorld) -> None:
    """A rollout in the middle of prod, with hosts in every kind of trouble."""
    await web.world.start()
    await web.world.until(lambda now: now.rollout.phase_name == "baking" and now.rollout.phase.step == 3)
    web.world.fleet.unproved = {"prod-03": "b2"}
    await web.world.fleet.silence("prod", "prod-05")
    await web.world.until(lambda now: now.rollout.phase.step == 4)
    await web.world.settle()
    await web.shown()


async def press(page: Page, name: str, reason: str) -> None:
    await page.get_by_label("Reason").first.fill(reason)
    await page.get_by_role("button", name=name, exact=True).click()


async def test_every_page_is_clean_in_every_light_and_size(browser: Browser, web: WebWorld) -> None:
    """Light, dark, phone: no serious fault by axe, no complaint, no request outside, nothing wider than the screen."""
    await in_trouble(web)
    for facts in ({"color_scheme": "light"}, {"color_scheme": "dark"}, {"color_scheme": "light", **PHONE}):
        async with visitor(browser, web.serving.url, **facts) as who:
            await who.open("/sign-in")
            assert await who.faults() == []
            await who.sign_in(web.tokens["admin"])
            for path in PAGES:
                page = await who.open(path)
                await who.live()
                assert await who.faults() == [], (path, facts)
                width = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
                assert width <= 0, (path, facts)
            background = await page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
            assert (background == "rgb(14, 18, 22)") == (facts["color_scheme"] == "dark")
            who.assert_clean()


async def test_a_newcomer_is_led_to_the_first_deploy(browser: Browser, tmp_path: Path) -> None:
    async with web_world(tmp_path, sizes={}) as web, somebody(browser, web) as who:
        await expect(who.page.get_by_role("heading", name="No rollout yet")).to_be_visible()
        assert await who.faults() == []
        await who.page.get_by_role("link", name="Choose the build").click()
        await who.page.get_by_label("Reason").fill("the first one")
        await who.page.get_by_label("Manifest of the build").fill("/etc/passwd")
        await who.page.get_by_role("button", name="Show the plan").click()
        await expect(who.page.get_by_role("alert")).to_contain_text("give the URL of a manifest")
        assert await who.faults() == []


async def test_a_rollout_is_started_steered_and_rolled_back(browser: Browser, tmp_path: Path) -> None:
    """Plan, start, approve, pause, resume, advance, override, abort, roll back, lift: all by pressing, all live."""
    pipeline = PIPELINE.replace('name = "staging"\n', 'name = "staging"\napproval = true\n')
    async with web_world(tmp_path, pipeline=pipeline) as web, somebody(browser, web) as who:
        page = await who.open("/new")
        await page.get_by_role("radio", name="b1").check()
        await page.get_by_label("Reason").fill("once more")
        await page.get_by_role("button", name="Show the plan").click()
        await expect(page.get_by_text("nothing is written yet")).to_be_visible()
        assert await who.faults() == []
        await page.get_by_role("button", name="Start rollout 1").click()
        await page.wait_for_url("**/rollouts/1")
        chip = page.locator("#part-now .chip")
        await expect(chip).to_have_text("ready")
        await web.world.until(lambda now: now.rollout.phase_name == "approving")
        await expect(chip).to_have_text("approving")
        await press(page, "Approve", "staging looks well")
        await expect(page.locator("#outcome")).to_contain_text("approved by adminer")
        await expect(page.get_by_label("Reason").first).to_have_value("")
        await web.world.settle()
        await expect(chip).to_have_text("baking")
        await press(page, "Pause", "look at errors")
        await expect(chip).to_have_text("paused")
        await expect(page.get_by_role("button", name="Pause", exact=True)).to_be_hidden()
        await press(page, "Resume", "it was the database")
        await expect(chip).to_have_text("deploying")
        await press(page, "Advance", "the metric is broken")
        await expect(chip).to_have_text("ready")
        await page.get_by_text("Override windows, lock and slots").click()
        await page.get_by_label("Reason").nth(1).fill("agreed with bob")
        await page.get_by_role("button", name="Override", exact=True).click()
        await expect(page.locator("#part-banners")).to_contain_text("agreed with bob")
        await press(page, "Abort", "postponed")
        await expect(chip).to_have_text("aborted")
        await press(page, "Roll back", "errors since 14:05")
        await expect(chip).to_have_text("rolled back")
        await expect(page.locator("#part-banners")).to_contain_text("Locked by adminer")
        await expect(page.locator("#nothing")).to_be_visible()
        assert isinstance((await web.world.now()).rollout.phase, st.RolledBack)
        page = await who.open("/")
        await who.live()
        await page.get_by_placeholder("why", exact=True).fill("found it")
        await page.get_by_role("button", name="Lift").click()
        await expect(page.locator("#part-banners")).not_to_contain_text("Locked")
        await page.get_by_role("button", name="Give it back").click()
        await expect(page.locator("#part-command")).to_contain_text("Nobody is the commander")
        await page.get_by_role("button", name="Take command").click()
        await expect(page.locator("#part-command")).to_contain_text("adminer is the commander")
        who.assert_clean()


async def test_changes_come_by_themselves_and_leave_alone_what_is_typed(browser: Browser, web: WebWorld) -> None:
    """Hosts, steps and log change under the reader; the reason that is being typed, and its focus, stay."""
    await web.world.start()
    await web.world.settle()
    async with somebody(browser, web, "deploy") as who:
        page = await who.open("/rollouts/1")
        await who.live()
        await page.get_by_label("Reason").fill("I am still wri")
        await expect(page.locator('#grid .c[data-s="n"]')).to_have_count(2)
        await web.world.until(lambda now: now.rollout.phase_name == "baking" and now.rollout.phase.step == 2)
        await expect(page.locator('#grid .c[data-s="n"]')).to_have_count(6)
        await expect(page.locator("#part-strip .step.current")).to_contain_text("10")
        await expect(page.locator("#part-log")).to_contain_text("prod to 10 % is ordered")
        await expect(page.get_by_label("Reason")).to_have_value("I am still wri")
        await expect(page.get_by_label("Reason")).to_be_focused()
        await web.world.fleet.silence("prod", "prod-05")
        await expect(page.locator('#grid .c[data-s="s"]')).to_have_count(1)
        await expect(page.locator("#part-trouble")).to_contain_text("its agent is silent")
        web.world.fleet.unproved = {host: "b2" for _, host in names({"prod": 10})}
        await web.world.until(lambda now: now.rollout.phase_name == "rolled_back")
        await expect(page.locator("#part-log")).to_contain_text("answered 500")
        await expect(page.locator("#part-banners")).to_contain_text("Locked by checkpoint@test")
        await page.get_by_label("Show lines with").fill("staging")
        lines = page.locator("#part-log .line:visible")
        assert all("staging" in text for text in await lines.all_inner_texts())
        assert await lines.count() > 0
        who.assert_clean()


async def test_a_stale_press_is_told_what_changed(browser: Browser, web: WebWorld) -> None:
    """The decision was made on what was shown when the reason was begun; somebody else paused meanwhile."""
    await web.world.start()
    await web.world.settle()
    await web.world.desk.guarding.release_command(web.world.origin())
    async with somebody(browser, web, "deploy") as who:
        page = await who.open("/rollouts/1")
        await who.live()
        await page.get_by_label("Reason").fill("on with it")
        await web.world.act(ev.PauseRequested(), "bob@desk", reason="errors go up")
        await expect(page.locator("#moved")).to_be_visible()
        before = await web.everything()
        await page.get_by_role("button", name="Advance", exact=True).click()
        await expect(page.locator("#outcome")).to_contain_text("bob@desk: paused: errors go up")
        assert await web.everything() == before
        await expect(page.locator("#moved")).to_be_hidden()
        await page.get_by_role("button", name="Resume", exact=True).click()
        await expect(page.locator("#outcome")).to_contain_text("resumed: on with it")
        who.assert_clean(allowed=("409",))


async def test_without_javascript_it_can_be_read_and_rolled_back(browser: Browser, web: WebWorld) -> None:
    await web.world.start()
    await web.world.until(lambda now: now.rollout.phase.step == 1)
    await web.shown()
    async with somebody(browser, web, "deploy", java_script_enabled=False) as who:
        await expect(who.page.get_by_text("Without JavaScript this page stands still")).to_be_visible()
        await who.page.get_by_role("link", name="Steer rollout 1").click()
        page = who.page
        await expect(page.locator("#part-steps")).to_contain_text("prod to 10 %")
        await expect(page.get_by_role("link", name="prod-01: as it was before the rollout")).to_be_visible()
        await press(page, "Roll back", "errors since 14:05")
        await page.wait_for_url("**/rollouts/1")
        assert isinstance((await web.world.now()).rollout.phase, st.RolledBack)
        await web.shown()
        await page.reload()
        await expect(page.locator("#part-now")).to_contain_text("errors since 14:05")
        await page.get_by_role("link", name="History").click()
        await expect(page.get_by_role("table")).to_contain_text("b2 is rolled back")
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_label("Token")).to_be_visible()
        who.assert_clean()


async def test_by_keyboard_alone(browser: Browser, web: WebWorld) -> None:
    """Signs in, skips to the content, walks the grid by arrows, opens a host, writes a reason, and pauses."""
    await web.world.start()
    await web.world.settle()
    await web.shown()
    async with visitor(browser, web.serving.url) as who:
        page = await who.open("/sign-in?next=/rollouts/1")
        await page.keyboard.type(web.tokens["deploy"])
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/rollouts/1")
        await who.live()
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await expect(page.get_by_label("Reason")).to_be_focused()
        await page.keyboard.type("look at errors")
        await page.keyboard.press("Tab")
        focused = page.locator(":focus")
        while await focused.inner_text() != "Pause":
            await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.locator("#part-now .chip")).to_have_text("paused")
        group = page.get_by_role("group", name="Hosts of prod")
        await group.locator(".c").first.focus()
        for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 9), ("Home", 0)):
            await page.keyboard.press(key)
            await expect(group.locator(".c").nth(place)).to_be_focused()
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/hosts/prod/*")
        await expect(page.get_by_role("heading", level=1)).to_contain_text("prod-")
        who.assert_clean()


async def test_a_consul_that_does_not_answer_is_said_plainly(browser: Browser, tmp_path: Path) -> None:
    """Since when, and what it means; the rollout is still shown as it was known."""
    async with web_world(tmp_path) as web:
        await web.world.start()
        await web.world.settle()
        async with somebody(browser, web, "read") as who:
            page = await who.open("/rollouts/1")
            await who.live()
            await web.server.aclose()
            await expect(page.locator("#part-banners")).to_contain_text("Consul does not answer since")
            await expect(page.locator("#part-now")).to_contain_text("b2")
            page = await who.open("/")
            await expect(page.locator("#part-banners")).to_contain_text("Hosts keep what they run")
            assert await who.faults() == []
            who.assert_clean()


async def test_a_server_that_is_killed_is_found_again(browser: Browser, tmp_path: Path) -> None:
    """`hotcold checkpoint serve`, killed and started anew: the page says that it is old, then shows what it missed."""
    text, tokens = made_tokens()
    port = _free_port()
    (tmp_path / "tokens.toml").write_text(text)
    config = tmp_path / "checkpoint.toml"
    table = f'listen = "127.0.0.1:{port}"\ntokens_file = "{tmp_path}/tokens.toml"\nkey_file = "{tmp_path}/key"\n'
    config.write_text(f"{PIPELINE}\n[web]\n{table}")
    async with DevServer() as server, ConsulStore(consul_settings({}, {"address": server.address})) as store:
        world = RolloutWorld(store, Fleet(store, names(SMALL)))
        await world.order_everywhere()
        await world.start()
        served = await _serve(config, server.address, port)
        try:
            async with visitor(browser, f"http://127.0.0.1:{port}") as who:
                await who.sign_in(tokens["deploy"])
                page = await who.open("/rollouts/1")
                await who.live()
                os.killpg(served.pid, signal.SIGKILL)
                await served.wait()
                await expect(page.locator("#stale")).to_contain_text("Not live: last heard from the server at")
                await world.act(ev.AbortRequested(), reason="while nobody served")
                served = await _serve(config, server.address, port)
                await expect(page.locator("#part-log")).to_contain_text("while nobody served")
                await who.live()
                await expect(page.locator("#stale")).to_be_hidden()
                await expect(page.locator("#part-now .chip")).to_have_text("aborted")
                who.assert_clean(allowed=("ERR_CONNECTION", "ERR_INCOMPLETE", "htmx:sse:error"))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(served.pid, signal.SIGTERM)
            assert await asyncio.wait_for(served.wait(), 60) in {0, -signal.SIGKILL, -signal.SIGTERM}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


async def _serve(config: Path, consul: str, port: int) -> asyncio.subprocess.Process:
    words = ("checkpoint", "serve", "--app", "shop", "--config", str(config), "--consul", consul)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hotcold",
        *words,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return process
            assert process.returncode is None
            await asyncio.sleep(0.05)


async def test_hundreds_of_hosts_are_walked_by_rows_and_stay_whole_rows(browser: Browser, tmp_path: Path) -> None:
    """Blocks of rows let the browser leave out what is out of sight; keys, focus and changes see one grid."""
    here = "() => [...document.querySelectorAll('.cells')].at(-1).querySelectorAll('.c')"
    focused = f"() => [...({here})()].indexOf(document.activeElement)"
    per_row = f"""() => {{
        const tops = [...({here})()].map((cell) => cell.getBoundingClientRect().top);
        return tops.filter((top) => top === tops[0]).length;
    }}"""
    async with web_world(tmp_path, sizes={"staging": 1, "canary": 1, "prod": 600}) as web:
        await web.world.start()
        await web.shown()
        async with somebody(browser, web) as who:
            page = await who.open("/rollouts/1")
            await who.live()
            row = await page.evaluate(per_row)
            assert row > 20
            blocks = page.locator(".cells .rows")
            assert await blocks.count() > 1
            counts = await blocks.evaluate_all("(all) => all.map((each) => each.children.length)")
            assert sum(counts) == 600
            assert all(count % row == 0 for count in counts[:-1])
            await page.locator(".cells").last.locator(".c").first.focus()
            for key, place in (("ArrowDown", row), ("ArrowRight", row + 1), ("End", 599), ("Home", 0)):
                await page.keyboard.press(key)
                assert await page.evaluate(focused) == place
            await page.keyboard.press("End")
            await page.set_viewport_size({"width": 700, "height": 800})
            await page.wait_for_function(f"(row) => ({per_row})() < row", arg=row)
            assert await page.evaluate(focused) == 599
            await page.keyboard.press("ArrowUp")
            assert await page.evaluate(focused) == 599 - await page.evaluate(per_row)
            await web.world.fleet.silence("prod", "prod-599")
            await expect(page.locator('#grid .c[data-s="s"]')).to_have_count(1)
            assert await who.faults() == []
            who.assert_clean()
