"""Owns how tests and pictures drive a real browser: Debian's Chromium, kept offline, its complaints collected."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, async_playwright

CHROMIUM = shutil.which("chromium")
NO_CHROMIUM = "needs Debian's chromium: apt-get install chromium"
ARGS = (
    "--no-sandbox",  # root may not have one
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
)
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
DESKTOP = {"viewport": {"width": 1200, "height": 900}}
DEADLINE_MS = 30_000
"""A machine under load may stall for seconds."""


@dataclass
class Visitor:
    """One browser profile at one server: what it complained of, and what it asked elsewhere."""

    context: BrowserContext
    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    async def open(self, path: str) -> Page:
        """Go to a page, and wait until it is live or needs no stream."""
        await self.page.goto(self.url + path)
        return self.page

    async def sign_in(self, token: str) -> None:
        """By the form."""
        await self.open("/sign-in")
        await self.page.get_by_label("Token").fill(token)
        await self.page.get_by_role("button", name="Sign in").click()
        await self.page.wait_for_url(self.url + "/")

    async def live(self) -> None:
        """Wait until the page says that it is live."""
        await self.page.wait_for_selector("#pulse[data-state=live]")

    async def faults(self) -> list[str]:
        """What axe finds that is serious or critical."""
        await self.page.evaluate(AXE.read_text())
        found: dict[str, Any] = await self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{fault['id']}: {node['html'][:200]} ({node['failureSummary']})"
            for fault in found["violations"]
            if fault["impact"] in {"serious", "critical"}
            for node in fault["nodes"]
        ]

    def assert_clean(self, *, allowed: tuple[str, ...] = ()) -> None:
        """Nothing was complained of, but for lines with one of the given parts; nothing was asked elsewhere."""
        assert [each for each in self.complaints if not any(part in each for part in allowed)] == []
        assert self.outside == []


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A running browser."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGS))
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def visitor(browser: Browser, url: str, **facts: Any) -> AsyncIterator[Visitor]:
    """A fresh profile; `facts` as Playwright's `new_context` takes them."""
    facts = {"locale": "en-GB", "timezone_id": "Europe/Berlin", **DESKTOP, **facts}
    context = await browser.new_context(**facts)
    context.set_default_timeout(DEADLINE_MS)
    page = await context.new_page()
    made = Visitor(context, page, url)

    def asked(request: Request) -> None:
        if not request.url.startswith((url, "data:", "blob:")):
            made.outside.append(request.url)

    def said(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            made.complaints.append(f"{message.type}: {message.text}")

    page.on("console", said)
    page.on("pageerror", lambda error: made.complaints.append(f"error: {error}"))
    page.on("request", asked)
    try:
        yield made
    finally:
        await context.close()
