"""History, statistics and deliveries in a real browser: with data, in every light and size, by pressing, plain."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web as http_server

pytest.importorskip("playwright.async_api", reason="needs Playwright: pip install playwright")

from playwright.async_api import Browser, expect

from checkpoint.notifying import Notifier
from checkpoint.rollout import events as ev
from tests.browser.browsing import CHROMIUM, DEADLINE_MS, NO_CHROMIUM, PHONE, Visitor, chromium, visitor
from tests.rollout_world import PIPELINE, no_pause
from tests.web_world import WebWorld, web_world

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM),
    pytest.mark.timeout(300),
]
expect.set_options(timeout=DEADLINE_MS)


class Receiver:
    """A webhook's other end, down at first."""

    def __init__(self) -> None:
        self.is_down = True
        self.got: list[int] = []

    async def receive(self, request: http_server.Request) -> http_server.Response:
        if self.is_down:
            return http_server.Response(status=503, text="the chat is being upgraded, come back in an hour or so")
        self.got.append((await request.json())["number"])
        return http_server.Response()


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[tuple[Receiver, str]]:
    made = Receiver()
    application = http_server.Application()
    application.router.add_post("/hook", made.receive)
    runner = http_server.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await http_server.TCPSite(runner, "127.0.0.1", 0).start()
    yield made, f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    await runner.cleanup()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as opened:
        yield opened


@contextlib.asynccontextmanager
async def a_past(directory: Path) -> AsyncIterator[tuple[WebWorld, Receiver]]:
    """Three weeks with four rollouts, one of which was rolled back; a receiver that got a message of the last one."""
    async with receiving() as (receiver, url):
        hook = f'\n[[webhooks]]\nname = "chat"\nurl = "{url}"\n'
        async with web_world(directory, pipeline=PIPELINE + hook) as web:
            for build_id in ("b2", "b3", "b4"):
                await web.world.start(build_id)
                await web.world.until_ended()
                web.world.time.pass_(timedelta(days=6).total_seconds())
            await tell(web)
            receiver.is_down = False
            await web.world.start("b5")
            await tell(web)
            receiver.is_down = True
            await web.world.until(lambda now: now.rollout.phase_name == "baking")
            await web.world.act(ev.RollbackRequested(), reason="checkout errors")
            await tell(web)
            await web.shown()
            yield web, receiver


async def tell(web: WebWorld) -> None:
    """Let an engine's notifier do all that there is."""
    [webhook] = web.world.settings.webhooks
    async with aiohttp.ClientSession() as session:
        notifier = Notifier(
            web.world.store, "shop", webhook, now=lambda: web.world.time.wall, pause=no_pause, http=session
        )
        while await notifier.tell_next():
            pass


@contextlib.asynccontextmanager
async def somebody(browser: Browser, web: WebWorld, role: str = "deploy", **facts: Any) -> AsyncIterator[Visitor]:
    async with visitor(browser, web.serving.url, **facts) as made:
        await made.sign_in(web.tokens[role])
        yield made


async def test_pages_of_the_past_are_clean_in_every_light_and_size(browser: Browser, tmp_path: Path) -> None:
    async with a_past(tmp_path) as (web, _):
        for facts in ({"color_scheme": "light"}, {"color_scheme": "dark"}, {"color_scheme": "light", **PHONE}):
            async with somebody(browser, web, **facts) as who:
                for path in (
                    "/settings",
                    "/history?tier=prod&who=checkpoint",
                    "/history?build=no",
                    "/history/statistics",
                ):
                    page = await who.open(path)
                    await who.live()
                    assert await who.faults() == [], (path, facts)
                    width = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
                    assert width <= 0, (path, facts)
                who.assert_clean()


async def test_a_message_is_sent_again_by_pressing(browser: Browser, tmp_path: Path) -> None:
    """One, then all; also without JavaScript."""
    async with a_past(tmp_path) as (web, receiver):
        receiver.is_down = False
        before = len(receiver.got)
        async with somebody(browser, web) as who:
            page = await who.open("/settings")
            failed = await page.locator(".delivery-failed").count()
            assert failed == 1
            await page.get_by_role("button", name="Send again: record 91").click()
            await page.wait_for_url("**/settings#deliveries")
            await expect(page.get_by_text("will be sent")).to_be_visible()
            await tell(web)
            await page.reload()
            await expect(page.locator(".delivery-failed")).to_have_count(1)  # the log keeps it, and what came after
            await expect(page.get_by_text("once more for deployer")).to_be_visible()
            who.assert_clean()
        assert len(receiver.got) == before + 1
        receiver.is_down = True
        await web.world.desk.guarding.unlock(web.world.origin())
        await tell(web)
        receiver.is_down = False
        async with somebody(browser, web, java_script_enabled=False) as who:
            page = await who.open("/settings")
            await page.get_by_role("button", name="Send all that failed to chat again (1)").click()
            await page.wait_for_url("**/settings#deliveries")
        await tell(web)
        assert len(receiver.got) == before + 2


async def test_the_audit_is_filtered_and_what_is_shown_is_exported(browser: Browser, tmp_path: Path) -> None:
    async with a_past(tmp_path) as (web, _), somebody(browser, web, "read") as who:
        page = await who.open("/history")
        await page.get_by_label("Build").fill("b5")
        await page.get_by_label("Who").fill("anna")
        await page.get_by_role("button", name="Show").click()
        await expect(page.get_by_text("2 records like that")).to_be_visible()
        rows = page.locator("table.audit tbody tr")
        await expect(rows).to_have_count(2)
        shown = [int(await rows.nth(place).locator("td").first.inner_text()) for place in range(2)]
        async with page.expect_download() as loading:
            await page.get_by_role("link", name="Export as JSON lines").click()
        path = await (await loading.value).path()
        lines = path.read_text().splitlines()
        assert [json.loads(line)["number"] for line in lines] == shown[::-1]
        async with page.expect_download() as loading:
            await page.get_by_role("link", name="Export as CSV").click()
        assert (await loading.value).suggested_filename.endswith(".csv")
        await page.get_by_role("link", name="All", exact=True).click()
        await page.get_by_role("link", name="Statistics").click()
        await expect(page.get_by_role("row", name="All 4")).to_contain_text("25 %")
        who.assert_clean()
