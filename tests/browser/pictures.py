"""Owns the pictures of the pages in `docs/images`: `python -m tests.browser.pictures` draws them anew."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from fleet.keys import leader_prefix
from tests.browser.browsing import PHONE, chromium, visitor
from tests.web_world import web_world

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
SIZES = {"staging": 6, "canary": 12, "prod": 240}
PICTURES = (
    ("checkpoint-train.png", "/", {"color_scheme": "light"}),
    ("checkpoint-rollout.png", "/rollouts/1", {"color_scheme": "light"}),
    ("checkpoint-rollout-dark.png", "/rollouts/1", {"color_scheme": "dark"}),
    ("checkpoint-rollout-phone.png", "/rollouts/1", {"color_scheme": "light", **PHONE}),
)


async def main() -> None:
    """Draw a rollout in the middle of prod, with a few hosts in trouble."""
    with tempfile.TemporaryDirectory() as directory:
        async with web_world(Path(directory), sizes=SIZES) as web, chromium() as browser:
            world = web.world
            await world.store.acquire_slot(leader_prefix("shop"), 1, holder="checkpoint@deploy-1", ttl_s=600.0)
            await world.start("b2")
            await world.until(lambda now: now.rollout.phase_name == "baking" and now.rollout.phase.step == 3)
            plan = (await world.now()).plan
            hosts = plan.hosts_of(4)
            world.fleet.unproved = {hosts[-1]: "b2", hosts[-9]: "b2"}
            for host in (hosts[-4], hosts[-20]):
                await world.fleet.silence("prod", host)
            await world.until(lambda now: now.rollout.phase.step == 4)
            await world.settle()
            await web.shown()
            for name, path, facts in PICTURES:
                async with visitor(browser, web.serving.url, **facts) as who:
                    await who.sign_in(web.tokens["admin"])
                    page = await who.open(path)
                    if "viewport" not in facts:
                        await page.set_viewport_size({"width": 1200, "height": 1260})
                    await who.live()
                    await page.screenshot(path=IMAGES / name)


if __name__ == "__main__":
    asyncio.run(main())
