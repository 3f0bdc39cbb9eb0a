"""Owns the pictures of the pages in `docs/images`: `python -m tests.browser.pictures` draws them anew."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from playwright.async_api import Browser

from checkpoint.rollout import events as ev
from fleet.keys import leader_prefix
from tests.browser.browsing import PHONE, chromium, visitor
from tests.metric_world import METRICS, Course
from tests.rollout_world import PIPELINE
from tests.web_world import WebWorld, web_world

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
SIZES = {"staging": 6, "canary": 12, "prod": 240}
PICTURES = (
    ("checkpoint-train.png", "/", {"color_scheme": "light"}),
    ("checkpoint-rollout.png", "/rollouts/1", {"color_scheme": "light"}),
    ("checkpoint-rollout-dark.png", "/rollouts/1", {"color_scheme": "dark"}),
    ("checkpoint-rollout-phone.png", "/rollouts/1", {"color_scheme": "light", **PHONE}),
)
METRIC_PICTURES = (
    ("checkpoint-metrics.png", {"color_scheme": "light"}),
    ("checkpoint-metrics-dark.png", {"color_scheme": "dark"}),
    ("checkpoint-metrics-phone.png", {"color_scheme": "light", **PHONE}),
)


async def main() -> None:
    """Draw a rollout in the middle of prod, with a few hosts in trouble, and then one with a bad build."""
    with tempfile.TemporaryDirectory() as directory:
        async with web_world(Path(directory), sizes=SIZES, pipeline=PIPELINE + METRICS) as web, chromium() as browser:
            world = web.world
            await world.store.acquire_slot(leader_prefix("shop"), 1, holder="checkpoint@deploy-1", ttl_s=600.0)
            await world.start("b2")
            await world.until(lambda now: now.rollout.phase_name == "baking" and now.rollout.phase.step == 3)
            course = Course(world)
            await course.minutes(20)
            plan = (await world.now()).plan
            hosts = plan.hosts_of(4)
            world.fleet.unproved = {hosts[-1]: "b2", hosts[-9]: "b2"}
            for host in (hosts[-4], hosts[-20]):
                await world.fleet.silence("prod", host)
            await world.until(lambda now: now.rollout.phase.step == 4)
            await world.settle()
            await course.minutes(9)
            await web.shown()
            for name, path, facts in PICTURES:
                async with visitor(browser, web.serving.url, **facts) as who:
                    await who.sign_in(web.tokens["admin"])
                    page = await who.open(path)
                    if "viewport" not in facts:
                        await page.set_viewport_size({"width": 1200, "height": 1260})
                    await who.live()
                    if path != "/":
                        await page.wait_for_selector("#charts[data-state=shown]")
                    await page.screenshot(path=IMAGES / name)
            await draw_metrics(web, browser)


async def draw_metrics(web: WebWorld, browser: Browser) -> None:
    """One metric of a build that is worse, while its source fails for a while: until it is rolled back for it."""
    world = web.world
    world.fleet.unproved = {}
    await world.act(ev.RollbackRequested(), reason="too many hosts fail")
    await world.settle()
    await world.desk.guarding.unlock(world.origin(reason="found it"))
    await world.start("b3")
    await world.until(lambda now: now.rollout.phase_name == "baking" and now.rollout.phase.step == 2)
    course = Course(world, rates={"errors": 0.0006}, worse={"errors": 2.4})
    await course.minutes(3)
    course.lost = {"errors": "http://prometheus.example:9090 gave no answer within 10 s"}
    await course.minutes(2)
    course.lost = {}
    while True:
        await course.minutes(1)
        verdict = course.kept.metrics["errors"].verdict
        if verdict is not None and verdict.action == "roll_back":
            break
    await web.shown()
    count = len(course.series.metrics["errors"])
    for name, facts in METRIC_PICTURES:
        async with visitor(browser, web.serving.url, **facts) as who:
            await who.sign_in(web.tokens["admin"])
            page = await who.open("/rollouts/2")
            await page.wait_for_selector(f'#metric-0 .area[data-drawn="{count}"]')
            await page.wait_for_selector('#part-metric-0 [data-v="roll_back"]')
            box = await page.locator("#metric-0").bounding_box()
            assert box is not None
            clip = {"x": box["x"] - 12, "y": box["y"], "width": box["width"] + 24, "height": box["height"] + 6}
            await page.screenshot(path=IMAGES / name, clip=clip, full_page=True)  # type: ignore[arg-type]


if __name__ == "__main__":
    asyncio.run(main())
