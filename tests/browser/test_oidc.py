"""Signing in at a real provider in a real browser, to which that is another site: with JavaScript and without."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

pytest.importorskip("playwright.async_api", reason="needs Playwright: pip install playwright")
pytest.importorskip("oauth2_provider", reason="needs a provider: pip install django-oauth-toolkit")

from playwright.async_api import Browser, Page, expect

from tests.browser.browsing import CHROMIUM, DEADLINE_MS, NO_CHROMIUM, PHONE, chromium, visitor
from tests.oidc_process import OidcSite
from tests.web_world import WebWorld, web_world

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM),
    pytest.mark.timeout(300),
]
expect.set_options(timeout=DEADLINE_MS)

THEIR_OWN = ("favicon.ico", "404 (Not Found)")
"""Complaints of the provider's pages."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcSite]:
    with OidcSite(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def web(site: OidcSite, tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path, web=site.table(), listen=f"127.0.0.1:{site.public_port}") as made:
        yield made


async def sign_in_there(page: Page, name: str) -> None:
    await page.locator('input[name="username"]').fill(name)
    await page.locator('input[name="password"]').fill(name)
    await page.get_by_role("button", name="Log in").click()


@pytest.mark.parametrize("has_javascript", [True, False])
async def test_there_and_back(browser: Browser, web: WebWorld, site: OidcSite, *, has_javascript: bool) -> None:
    """From a page that needs somebody, to the provider, back to that page; out, here and there."""
    origin = site.issuer.removesuffix("/o")
    async with visitor(browser, web.serving.url, java_script_enabled=has_javascript) as who:
        page = await who.open("/hosts?q=prod")
        await page.get_by_role("link", name="Sign in at localhost").click()
        await sign_in_there(page, "dora")
        await page.wait_for_url(f"{web.serving.url}/hosts?q=prod")
        await expect(page.locator(".me .name")).to_have_text("dora deploy")
        # The session is a strict one: it comes along within this site only, and that is enough from now on.
        await page.get_by_role("link", name="New rollout").click()
        await page.wait_for_url(f"{web.serving.url}/new")
        await page.get_by_role("button", name="Sign out").click()
        await page.wait_for_url(f"{web.serving.url}/sign-out/done")
        await who.open("/hosts")
        await page.wait_for_url("**/sign-in?next=*")
        # The provider still knows who it is.
        await page.get_by_role("link", name="Sign in at localhost").click()
        await page.wait_for_url(f"{web.serving.url}/hosts")
        await page.get_by_role("button", name="Sign out").click()
        await page.get_by_role("link", name="Sign out at localhost too").click()
        await page.wait_for_url(f"{web.serving.url}/sign-out/done")
        await page.get_by_role("link", name="Sign in again").click()
        await page.get_by_role("link", name="Sign in at localhost").click()
        await sign_in_there(page, "rita")
        await expect(page.locator(".me .name")).to_have_text("rita read")
        assert [url for url in who.outside if not url.startswith(origin)] == []
        who.outside.clear()
        who.assert_clean(allowed=THEIR_OWN)


async def test_the_pages_of_signing_in_are_clean(browser: Browser, web: WebWorld) -> None:
    """The button, a refusal, and the end: no serious fault by axe, nothing wider than a phone."""
    for facts in ({"color_scheme": "light"}, {"color_scheme": "dark"}, {"color_scheme": "light", **PHONE}):
        async with visitor(browser, web.serving.url, **facts) as who:
            for path in ("/sign-in?next=%2Fhosts", "/sign-in/oidc/return?code=c&state=s", "/sign-out/done"):
                page = await who.open(path)
                assert await who.faults() == []
                width = await page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
                assert width <= 0, path
            who.assert_clean(allowed=("400 (Bad Request)",))
