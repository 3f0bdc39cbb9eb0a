"""Owns the picture of the demo's pages in `docs/images`: `python -m tests.browser.demo_pictures` draws it anew.

With a directory as an argument it leaves there what the pages look like all through the demo, to be looked at.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from playwright.async_api import Page

from tests.browser.browsing import chromium, visitor
from tests.browser.pictures import IMAGES

EVERY_S = 4.0


@asynccontextmanager
async def demo(directory: Path) -> AsyncIterator[tuple[str, asyncio.StreamReader]]:
    """The second part of the demo, which stays up: the link to its pages, and what it says from there on."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hotcold", "demo", "--show=checkpoint", "--stay", "--no-browser"),
        f"--dir={directory / 'demo'}",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            if b"/sign-in?" in line:
                yield line.decode().strip(), process.stdout
                return
        raise AssertionError("the demo has told no link")
    finally:
        process.terminate()
        await process.wait()


async def main() -> None:
    """Draw the bad rollout when it was stopped; or, with a directory, everything on the way."""
    seen = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(prefix="hc-") as directory:
        async with demo(Path(directory)) as (link, said), chromium() as browser:
            url = "{0.scheme}://{0.netloc}".format(urlsplit(link))
            async with visitor(browser, url, color_scheme="light") as who, asyncio.TaskGroup() as group:
                page = who.page
                await page.goto(link)
                looking = group.create_task(_look(page, seen)) if seen is not None else None
                async for line in said:
                    sys.stdout.write(line.decode())
                    if b"step 3 of 3" in line and seen is None:
                        break
                    if b"until Ctrl-C" in line:
                        break
                if looking is not None:
                    looking.cancel()
                    with suppress(asyncio.CancelledError):
                        await looking
                await page.goto(f"{url}/rollouts/2") if seen is not None else None
                if seen is None:
                    async for line in said:
                        if b"until Ctrl-C" in line:
                            break
                    await page.goto(f"{url}/rollouts/2")
                    await page.set_viewport_size({"width": 1200, "height": 1000})
                    await who.live()
                    await page.screenshot(path=IMAGES / "demo-checkpoint.png")


async def _look(page: Page, seen: Path) -> None:
    number = 0
    while True:
        number += 1
        await page.screenshot(path=seen / f"{number:02}.png", full_page=True)
        await asyncio.sleep(EVERY_S)


if __name__ == "__main__":
    asyncio.run(main())
