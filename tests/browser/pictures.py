"""Owns the pictures of the pages in `docs/images`: `python -m tests.browser.pictures` draws them anew."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from playwright.async_api import Browser

from checkpoint.release import record
from checkpoint.rollout import events as ev
from fleet import Build, Commit
from fleet.keys import leader_prefix
from tests.browser.browsing import PHONE, chromium, visitor
from tests.commander_world import build
from tests.metric_world import METRICS, Course
from tests.rollout_world import PIPELINE, no_pause
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


HOTFIX_PIPELINE = f"""hotfix_from = "canary"
{PIPELINE}
[[checklist]]
name = "support"
text = "Support knows what changes"
[[checklist]]
name = "migrations"
text = "Old and new build both work with the database as it is"
"""


def released(build_id: str, since: str | None, digit: str, commits: Sequence[tuple[str, str]], **facts: Any) -> Build:
    """A record of a release."""
    plain = Build(
        v=1,
        app="shop",
        build=build(build_id, digit),
        manifest=f"/srv/artifacts/shop-{build_id}.json",
        revision=hashlib.sha256(build_id.encode()).hexdigest()[:40],
        branch=f"release/{build_id}",
        tag=build_id,
        by="anna@deploy-1",
        at=f"2026-11-23T1{digit}:02:11+00:00",
        since=since,
        commits=tuple(
            Commit(sha=hashlib.sha256(subject.encode()).hexdigest()[:40], author=author, subject=subject)
            for subject, author in commits
        ),
        commit_count=len(commits),
    )
    return msgspec.structs.replace(plain, **facts)


async def draw_starting(browser: Browser) -> None:
    """Draw the pages before a rollout: of an app with nothing, of one with releases, and a hotfix's plan."""
    with tempfile.TemporaryDirectory() as directory:
        async with web_world(Path(directory), sizes={}) as web, visitor(browser, web.serving.url) as who:
            await who.sign_in(web.tokens["admin"])
            await who.live()
            await who.page.screenshot(path=IMAGES / "checkpoint-first.png", full_page=True)
    runs, denied, fix = "2026-11-23.1", "2026-11-23.2", "2026-11-23.3"
    search = ("Search: rank by stock", "Bob")
    others = [("Checkout: one page", "Carol"), ("Cart: keep it for a week", "Dave")]
    picked = hashlib.sha256(search[0].encode()).hexdigest()[:40]
    builds = (
        released(runs, None, "1", [("Coupons: show the discount", "Bob")], notes="coupons"),
        released(denied, runs, "2", [others[0], search, others[1]], notes="new checkout"),
        released(fix, runs, "3", [search], hotfix_of=runs, picks=(picked,), notes="search finds what is in stock"),
    )
    with tempfile.TemporaryDirectory() as directory:
        async with web_world(Path(directory), sizes=SIZES, pipeline=HOTFIX_PIPELINE) as web:
            world = web.world
            await world.store.acquire_slot(leader_prefix("shop"), 1, holder="checkpoint@deploy-1", ttl_s=600.0)
            await world.start(runs)
            await world.until_ended()
            for each in builds:
                await record(world.store, each, world.desk.insistence, by=each.by, at=world.time.wall, pause=no_pause)
            await world.desk.guarding.deny(builds[1].build, world.origin("bob@desk", reason="errors since 14:05"))
            await world.desk.guarding.release_command(world.origin())
            await world.fleet.silence("prod", "prod-17")
            await web.shown()
            for name, facts in (("", {}), ("-phone", {**PHONE, "color_scheme": "dark"})):
                async with visitor(browser, web.serving.url, **facts) as who:
                    await who.sign_in(web.tokens["admin"])
                    page = await who.open("/new")
                    await who.live()
                    await page.get_by_role("radio", name=fix).check()
                    await page.get_by_label("Reason").fill("search finds nothing")
                    await page.screenshot(path=IMAGES / f"checkpoint-new{name}.png", full_page=True)
                    await page.get_by_role("button", name="Show the plan").click()
                    await who.live()
                    await page.screenshot(path=IMAGES / f"checkpoint-plan{name}.png", full_page=True)


async def main() -> None:
    """Draw every picture."""
    async with chromium() as browser:
        await draw_starting(browser)
        await draw_rollout(browser)


async def draw_rollout(browser: Browser) -> None:
    """Draw a rollout in the middle of prod, with a few hosts in trouble, and then one with a bad build."""
    with tempfile.TemporaryDirectory() as directory:
        async with web_world(Path(directory), sizes=SIZES, pipeline=PIPELINE + METRICS) as web:
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
