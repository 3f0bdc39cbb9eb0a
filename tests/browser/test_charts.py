"""Charts of metrics in a real browser: drawn, following each interval, and to be had by keyboard and in words."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

pytest.importorskip("playwright.async_api", reason="needs Playwright: pip install playwright")

from playwright.async_api import Browser, Page, expect

from checkpoint.rollout import events as ev
from tests.browser.browsing import CHROMIUM, DEADLINE_MS, NO_CHROMIUM, PHONE, Visitor, chromium, visitor
from tests.metric_world import METRICS, Course
from tests.rollout_world import PIPELINE
from tests.web_world import WebWorld, web_world

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM),
    pytest.mark.timeout(300),
]
expect.set_options(timeout=DEADLINE_MS)

CHARTS = 9
"""Three of each metric."""

COLOURED = """([selector, names]) => {
    const canvas = document.querySelector(selector), probe = document.createElement("i");
    document.body.append(probe);
    const colours = names.map((name) => {
        probe.style.color = `var(${name})`;
        return getComputedStyle(probe).color.match(/[0-9]+/g).map(Number);
    });
    probe.remove();
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return colours.map(([r, g, b]) => {
        let count = 0;
        for (let i = 0; i < data.length; i += 4) {
            const far = Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b);
            if (data[i + 3] > 200 && far < 24) count += 1;
        }
        return count;
    });
}"""
"""How many dots of a chart have the colours of these names."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def web(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path, pipeline=PIPELINE + METRICS) as made:
        yield made


async def baking(web: WebWorld, minutes: int) -> Course:
    """A rollout at a quarter of prod, and as many minutes of its metrics."""
    await web.world.start()
    await web.world.until(lambda now: now.rollout.phase_name == "baking" and now.rollout.phase.step == 3)
    course = Course(web.world)
    await course.minutes(minutes)
    await web.shown()
    return course


async def signed_in(who: Visitor, web: WebWorld, role: str = "read", path: str = "/rollouts/1") -> Page:
    await who.sign_in(web.tokens[role])
    return await who.open(path)


async def drawn(page: Page, count: int) -> None:
    """Wait until every chart shows so many intervals."""
    await expect(page.locator(f'.plot .area[data-drawn="{count}"]')).to_have_count(CHARTS)


@pytest.mark.parametrize("facts", [{"color_scheme": "light"}, {"color_scheme": "dark"}, PHONE])
async def test_charts_are_drawn_and_clean(browser: Browser, web: WebWorld, facts: dict[str, Any]) -> None:
    """In every light and size: lines of both sides on the canvas, no fault by axe, nothing from outside."""
    course = await baking(web, 8)
    course.worse = {"errors": 9.0}
    course.lost = {"slow-checkouts": "it did not end within 30 s"}
    await course.minutes(2)
    async with visitor(browser, web.serving.url, **facts) as who:
        page = await signed_in(who, web)
        await drawn(page, 10)
        for chart, colours in ((1, ("--c-new", "--c-old")), (2, ("--c-new", "--c-back")), (3, ("--c-new", "--c-back"))):
            selector = f'.plots[data-place="0"] .plot:nth-child({chart}) canvas'
            found = await page.evaluate(COLOURED, [selector, list(colours)])
            assert all(count > 30 for count in found), (chart, colours, found)
        await expect(page.locator("#part-metric-0")).to_contain_text("fail: roll back")
        await expect(page.locator("#part-metric-1")).to_contain_text("The source failed")
        await expect(page.locator("#part-verdicts .verdict")).to_have_count(3)
        assert await who.faults() == []
        assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        await who.open("/")
        await expect(page.locator("#part-verdicts")).to_contain_text("errors fail: roll back")
        assert await who.faults() == []
        who.assert_clean()


async def test_charts_and_verdicts_follow_each_interval(browser: Browser, web: WebWorld) -> None:
    """By the stream alone: no question is asked again; and what was missed while nobody listened is fetched once."""
    course = await baking(web, 3)
    async with visitor(browser, web.serving.url) as who:
        asked: list[str] = []
        who.page.on("request", lambda request: asked.append(request.url))
        page = await signed_in(who, web)
        await drawn(page, 3)
        await who.live()
        chip = page.locator('#part-verdicts .verdict[data-v="go"]', has_text="errors")
        await expect(chip).to_be_visible()
        asked.clear()
        course.worse = {"errors": 20.0}
        for count in (4, 5, 6):
            await course.minutes(1)
            await drawn(page, count)
        await expect(page.locator('#part-verdicts .verdict[data-v="roll_back"]')).to_contain_text("errors")
        await expect(page.locator("#part-metric-0 .last")).to_contain_text("Evidence")
        assert asked == []
        await course.minutes(3)
        await drawn(page, 9)
        assert [url.rpartition("/")[2] for url in asked] == ["charts"]
        who.assert_clean()


async def test_a_gap_is_no_zero(browser: Browser, web: WebWorld) -> None:
    """What is not known is told as such, under each chart and in the table."""
    course = await baking(web, 4)
    async with visitor(browser, web.serving.url) as who:
        page = await signed_in(who, web)
        await drawn(page, 4)
        course.lost = {"errors": "gone", "slow-checkouts": "gone", "deploys": "gone"}
        await course.minutes(1)
        await drawn(page, 5)
        for chart in (0, 1, 2):
            keys = page.locator('.plots[data-place="0"] .plot').nth(chart).locator(".keys")
            await expect(keys).to_contain_text("—")
        await expect(page.locator("#part-metric-0 .last")).to_contain_text("nothing is known of it")
        who.assert_clean()


async def test_by_keyboard_each_interval_is_said(browser: Browser, web: WebWorld) -> None:
    """Arrows, Home and End; words of a chip on focus."""
    await baking(web, 5)
    async with visitor(browser, web.serving.url) as who:
        page = await signed_in(who, web)
        await drawn(page, 5)
        first = page.locator(".plot").first
        area, keys = first.locator(".area"), first.locator(".keys")
        times = json.loads(await page.evaluate("fetch('/rollouts/1/charts').then((answer) => answer.text())"))
        clock = (
            "(at) => new Date(at * 1000).toLocaleTimeString([], {hour: '2-digit', minute: '2-digit', hourCycle: 'h23'})"
        )
        said = [await page.evaluate(clock, at) for at in times["metrics"][0]["at"]]
        await area.focus()
        await expect(keys).to_have_attribute("aria-live", "polite")
        for key, place in (("ArrowLeft", 3), ("ArrowLeft", 2), ("ArrowRight", 3), ("Home", 0), ("End", 4)):
            await page.keyboard.press(key)
            await expect(keys).to_contain_text(f"at {said[place]}")
        chip = page.locator("#part-verdicts .verdict").first
        await chip.focus()
        await expect(chip.locator(".tip")).to_contain_text("updated hosts:")
        box = await chip.locator(".tip").bounding_box()
        assert box is not None
        assert box["height"] > 10
        assert box["width"] > 100
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/rollouts/1#metric-0")
        who.assert_clean()


async def test_without_javascript_the_last_values_are_there(browser: Browser, web: WebWorld) -> None:
    course = await baking(web, 5)
    course.worse = {"errors": 20.0}
    await course.minutes(2)
    async with visitor(browser, web.serving.url, java_script_enabled=False) as who:
        page = await signed_in(who, web)
        await expect(page.get_by_role("table", name="Last values of errors")).to_contain_text("Times as frequent")
        await expect(page.locator("#part-metric-0")).to_contain_text("roll-back line")
        await expect(page.locator(".plot")).to_have_count(0)
        who.assert_clean()


async def test_nothing_to_draw_is_said(browser: Browser, web: WebWorld) -> None:
    """Before the first interval; then it is drawn without a reload. A past rollout has its charts as well."""
    course = await baking(web, 0)
    async with visitor(browser, web.serving.url) as who:
        page = await signed_in(who, web)
        await expect(page.get_by_text("No interval yet")).to_have_count(CHARTS)
        assert await who.faults() == []
        await course.minutes(1)
        await drawn(page, 1)
        await course.minutes(1)
        await drawn(page, 2)
        await web.world.act(ev.AbortRequested(), reason="again")
        await web.world.start("b3")
        await web.shown()
        page = await who.open("/rollouts/1")
        await drawn(page, 2)
        assert await who.faults() == []
        who.assert_clean()
