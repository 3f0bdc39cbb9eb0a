"""Owns the picture of the demo's pages in `docs/images`: `python -m tests.browser.demo_pictures` draws it anew.

With a directory as an argument, it also leaves there what the pages look like at each turn of the demo.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.browser.browsing import PHONE, chromium, visitor
from tests.browser.pictures import IMAGES

TURNS = {
    "rollout 1": "/rollouts/1",
    "canary to 100 %: 2 hosts": "/rollouts/1",
    "prod to 25 %": "/",
    "2.1 runs on all": "/",
    "rollout 2": "/rollouts/2",
    "canary-2: a client": "/rollouts/2",
    "2.2-no-yen stopped itself": "/rollouts/2",
}
"""What the demo says, and the page to look at then."""
PICTURE = "demo-checkpoint.png"


@asynccontextmanager
async def demo(directory: Path) -> AsyncIterator[tuple[str, asyncio.StreamReader]]:
    """The second part of the demo, which stays up: the link to its pages, and what it says from there on."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hotcold", "demo", "--show=checkpoint", "--stay", "--no-browser"),
        f"--dir={directory / 'demo'}",
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "SUDO_USER": "anna"},  # whom the pictures name as the commander
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
    """Draw the bad rollout as soon as it has stopped itself."""
    turns = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(prefix="hc-") as directory:
        async with demo(Path(directory)) as (link, said), chromium() as browser:
            url = "{0.scheme}://{0.netloc}".format(urlsplit(link))
            async with (
                visitor(browser, url, color_scheme="light") as who,
                visitor(browser, url, color_scheme="dark", **PHONE) as phone,
            ):
                for each in (who, phone):
                    await each.page.goto(link)
                number = 0
                async for line in said:
                    text = line.decode()
                    sys.stdout.write(text)
                    path = next((path for word, path in TURNS.items() if word in text), None)
                    if path is not None and turns is not None:
                        number += 1
                        for each, name in ((who, "desktop"), (phone, "phone")):
                            await each.open(path)
                            await each.live()
                            await each.page.screenshot(path=turns / f"{number:02}-{name}.png", full_page=True)
                    if "until Ctrl-C" in text:
                        break
                page = await who.open("/")
                await page.set_viewport_size({"width": 1200, "height": 890})
                await who.live()
                await page.screenshot(path=IMAGES / PICTURE)
                for each in (who, phone):
                    each.assert_clean()


if __name__ == "__main__":
    asyncio.run(main())
