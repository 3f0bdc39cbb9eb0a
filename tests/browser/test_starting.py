"""What a commander presses beside the buttons of a rollout, in a real browser: from choosing a build to started, hosts
set aside and taken back, the command, the lock, the choice before closing; with JavaScript and without."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

pytest.importorskip("playwright.async_api", reason="needs Playwright: pip install playwright")

from playwright.async_api import Browser, Page, expect

from checkpoint.audit import read_record
from checkpoint.release import record
from checkpoint.rollout import events as ev
from fleet import Build, Commit
from fleet.keys import audit_prefix, leader_prefix
from tests.browser.browsing import CHROMIUM, DEADLINE_MS, NO_CHROMIUM, PHONE, Visitor, chromium, visitor
from tests.commander_world import build
from tests.rollout_world import PIPELINE, no_pause
from tests.web_world import WebWorld, web_world

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM),
    pytest.mark.timeout(300),
]
expect.set_options(timeout=DEADLINE_MS)

PLAIN = {"java_script_enabled": False}
ASKED = '[[checklist]]\nname = "support"\ntext = "Support knows what changes"\n'
WINDOW = "[[windows]]\nname = 'day'\nzone = 'UTC'\nopens = 09:00:00\ncloses = 15:18:00\ntiers = ['prod']\n"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as opened:
        yield opened


@contextlib.asynccontextmanager
async def somebody(browser: Browser, web: WebWorld, role: str = "admin", **facts: Any) -> AsyncIterator[Visitor]:
    async with visitor(browser, web.serving.url, **facts) as made:
        await made.sign_in(web.tokens[role])
        yield made


def released(build_id: str, since: str | None, *subjects: str, **facts: Any) -> Build:
    digit = build_id[-1]
    plain = Build(
        v=1,
        app="shop",
        build=build(build_id, digit),
        manifest=f"/srv/artifacts/{build_id}.json",
        revision=digit * 40,
        branch=f"release/{build_id}",
        tag=build_id,
        by="anna@deploy-1",
        at=f"2026-11-23T14:0{digit}:11+00:00",
        since=since,
        commits=tuple(Commit(sha=(each.encode().hex() * 9)[:40], author="Carol", subject=each) for each in subjects),
        commit_count=len(subjects),
    )
    return msgspec.structs.replace(plain, **facts)


async def release(web: WebWorld) -> None:
    """What runs, a build with two commits, and a hotfix of what runs."""
    hotfix = released("b3", "b1", "Search: mended", hotfix_of="b1", picks=("f" * 40,), notes="mends search")
    for each in (released("b1", None, "Begin"), released("b2", "b1", "Checkout: one page", "Search: rank"), hotfix):
        await record(
            web.world.store, each, web.world.desk.insistence, by=each.by, at=web.world.time.wall, pause=no_pause
        )
    await web.shown()


async def last_message(web: WebWorld) -> str:
    return read_record((await web.world.store.read_prefix(audit_prefix("shop")))[-1].value).message


@pytest.mark.parametrize("facts", [{}, {**PHONE, "color_scheme": "dark"}, PLAIN], ids=["desk", "phone", "plain"])
async def test_from_choosing_a_build_to_started(browser: Browser, tmp_path: Path, facts: dict[str, Any]) -> None:
    """A hotfix from the list: its path, commits, checklist; what is not ticked does not start."""
    has_script = facts is not PLAIN
    async with web_world(tmp_path, pipeline=f'hotfix_from = "canary"\n{PIPELINE}{ASKED}') as web:
        await web.world.store.acquire_slot(leader_prefix("shop"), 1, holder="checkpoint@deploy-1", ttl_s=600.0)
        await release(web)
        async with somebody(browser, web, "deploy", **facts) as who:
            await who.page.get_by_role("link", name="New rollout").click()
            page = who.page
            if has_script:
                await who.live()
                assert await who.faults() == []
            await expect(page.get_by_role("heading", name="Before you start")).to_be_visible()
            await page.get_by_role("radio", name="b3").check()
            await page.get_by_label("Reason").fill("search is wrong")
            await page.get_by_role("button", name="Show the plan").click()
            await expect(page.get_by_role("heading", name="The hotfix path")).to_be_visible()
            await expect(page.get_by_text("In it, and new: 1 commit")).to_be_visible()
            await expect(page.get_by_text("Not in it: 2 commits")).to_be_visible()
            await expect(page.get_by_text("Checkout: one page")).to_be_visible()
            await expect(page.get_by_text("no notifications are configured")).to_be_visible()
            if has_script:
                await who.live()
                assert await who.faults() == []
                assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
            await page.get_by_role("button", name="Check again").click()
            await page.get_by_role("button", name="Plan the whole way instead").click()
            await expect(page.get_by_role("rowheader", name="staging to 100 %")).to_be_visible()
            await page.get_by_role("link", name="Change it").click()
            await expect(page.get_by_role("radio", name="b3")).to_be_checked()
            await page.get_by_label("Reason").fill("search is wrong")
            await page.get_by_role("button", name="Show the plan").click()
            await page.get_by_role("button", name="Start rollout 1").click()  # the browser asks for the tick
            await expect(page.get_by_role("heading", name="Checklist")).to_be_visible()
            assert await web.world.desk.ledger.latest() is None
            await page.get_by_label("Support knows what changes").check()
            await page.get_by_role("button", name="Start rollout 1").click()
            await page.wait_for_url("**/rollouts/1")
            await expect(page.locator("#part-now")).to_contain_text("search is wrong")
            who.assert_clean()
        assert "canary -> prod, without staging; confirmed: Support knows what changes" in await last_message(web)


@pytest.mark.parametrize("facts", [{}, PLAIN], ids=["script", "plain"])
async def test_a_host_is_set_aside_and_taken_back(browser: Browser, tmp_path: Path, facts: dict[str, Any]) -> None:
    """From the rollout's list, and from the host's own page."""
    async with web_world(tmp_path) as web:
        await web.world.start()
        await web.world.until(lambda now: now.rollout.phase_name == "baking" and now.rollout.phase.step == 3)
        await web.world.fleet.silence("prod", "prod-05")
        await web.world.settle()
        await web.world.desk.guarding.release_command(web.world.origin())
        await web.shown()
        async with somebody(browser, web, "deploy", **facts) as who:
            page = await who.open("/rollouts/1")
            await _until_shown(page, "Set aside prod-05", facts)
            await page.get_by_label("Reason").first.fill("its disk is being replaced")
            await page.get_by_role("button", name="Set aside prod-05").click()
            await expect(page.get_by_role("button", name="Take back prod-05")).to_be_visible()
            assert [each.host for each in (await web.world.now()).rollout.set_aside] == ["prod-05"]
            if not facts:
                await expect(page.locator('#grid .c[data-s="a"]')).to_have_count(1)
                assert await who.faults() == []
            await page.get_by_label("Reason").first.fill("the disk is new")
            await page.get_by_role("button", name="Take back prod-05").click()
            await expect(page.get_by_role("button", name="Set aside prod-05")).to_be_visible()
            assert (await web.world.now()).rollout.set_aside == ()
            await page.get_by_role("link", name="prod-05").last.click()
            await page.wait_for_url("**/hosts/prod/prod-05")
            await page.get_by_label("Reason").fill("once more")
            await page.get_by_role("button", name="Set aside in rollout 1").click()
            await expect(page.get_by_text("Set aside in rollout 1 by deployer")).to_be_visible()
            await page.get_by_label("Reason").fill("and back")
            await page.get_by_role("button", name="Take back into rollout 1").click()
            await expect(page.get_by_role("button", name="Set aside in rollout 1")).to_be_visible()
            assert (await web.world.now()).rollout.set_aside == ()
            who.assert_clean()


async def _until_shown(page: Page, button: str, facts: dict[str, Any]) -> None:
    """A page without a script stands still: it is loaded again until it knows who is silent."""
    for _ in range(60):
        if facts and not await page.get_by_role("button", name=button).is_visible():
            await page.wait_for_timeout(500)
            await page.reload()
    await expect(page.get_by_role("button", name=button)).to_be_visible()


@pytest.mark.parametrize("path", ["/", "/rollouts/1"])
@pytest.mark.parametrize("facts", [{}, PLAIN], ids=["script", "plain"])
async def test_the_command_is_taken_handed_over_and_given_back(
    browser: Browser, tmp_path: Path, path: str, facts: dict[str, Any]
) -> None:
    """On the train and on the rollout; what is typed stays while the part above it changes."""
    async with web_world(tmp_path) as web:
        await web.world.start()
        await web.shown()
        async with somebody(browser, web, **facts) as who:
            page = await who.open(path)
            command = page.locator("#part-command")
            await page.get_by_label("Note").fill("anna is ill")
            if not facts:
                await who.live()
                await web.world.act(ev.PauseRequested(), reason="meanwhile")
                await expect(page.locator("#part-log")).to_contain_text("meanwhile")
                await expect(page.get_by_label("Note")).to_have_value("anna is ill")
            await command.get_by_role("button", name="Take it from anna@desk").click()
            await expect(command).to_contain_text("adminer is the commander")
            await page.get_by_label("Note").fill("canary is slow today")
            await page.get_by_label("Who takes over").fill("adminer@home")
            await page.get_by_role("button", name="Hand over").click()
            await expect(command).to_contain_text("adminer@home is the commander")
            await expect(command).to_contain_text("canary is slow today")
            await command.get_by_role("button", name="Stay commander").click()
            await expect(command).not_to_contain_text("adminer@home")
            await command.get_by_role("button", name="Give it back").click()
            await expect(command).to_contain_text("Nobody is the commander")
            if facts:
                await page.get_by_text("Hand over the command").click()
            await command.get_by_role("button", name="Take command").click()
            await expect(command).to_contain_text("adminer is the commander")
            assert page.url == web.serving.url + path
            who.assert_clean()


async def test_a_press_about_another_commander_does_nothing(browser: Browser, tmp_path: Path) -> None:
    """Who was shown has handed over, and this page stood still."""
    async with web_world(tmp_path) as web:
        await web.world.start()
        await web.shown()
        async with somebody(browser, web, **PLAIN) as who:
            page = await who.open("/rollouts/1")
            lease = await web.world.desk.guarding.lease()
            assert lease is not None
            await web.world.desk.guarding.hand_over("carol", web.world.origin(), lease.until - lease.since)
            await page.get_by_label("Note").fill("anna is ill")
            await page.get_by_role("button", name="Take it from anna@desk").click()
            await expect(page.locator(".message")).to_contain_text("carol has the command by now, not anna@desk")
            lease = await web.world.desk.guarding.lease()
            assert lease is not None
            assert lease.holder == "carol"
            who.assert_clean(allowed=("409",))


@pytest.mark.parametrize("facts", [{}, PLAIN], ids=["script", "plain"])
async def test_the_choice_before_closing(browser: Browser, tmp_path: Path, facts: dict[str, Any]) -> None:
    """Any page leads to it; held with an owner, then finished beyond closing, then rolled back."""
    async with web_world(tmp_path, pipeline=f"{PIPELINE}{WINDOW}") as web:
        await web.world.start()
        await web.world.until(lambda now: now.rollout.phase.step == 3)
        web.world.fleet.dead = {host for _, host in web.world.fleet.hosts}
        await web.world.until(lambda now: now.rollout.closing is not None)
        await web.world.desk.guarding.release_command(web.world.origin())
        await web.shown()
        async with somebody(browser, web, "deploy", **facts) as who:
            page = await who.open("/hosts")
            await page.get_by_role("link", name="choose", exact=True).click()
            await page.wait_for_url("**/rollouts/1")
            await page.get_by_label("Reason").first.fill("on call: anna")
            await page.get_by_role("button", name="Hold over closing").click()
            await expect(page.locator("#part-log")).to_contain_text("hold over closing, watched by deployer")
            closing = (await web.world.now()).rollout.closing
            assert closing is not None
            assert (closing.choice, closing.by) == ("hold", "deployer")
            await expect(page.get_by_role("link", name="choose", exact=True)).to_be_hidden()
            await page.get_by_label("Reason").first.fill("not over night")
            await page.get_by_role("button", name="Roll back").click()
            await expect(page.locator("#part-now .chip")).to_have_text("rolled back")
            who.assert_clean()


async def test_beyond_closing_it_is_finished(browser: Browser, tmp_path: Path) -> None:
    async with web_world(tmp_path, pipeline=f"{PIPELINE}{WINDOW}") as web:
        await web.world.start()
        await web.world.until(lambda now: now.rollout.phase.step == 3)
        web.world.fleet.dead = {host for _, host in web.world.fleet.hosts}
        await web.world.until(lambda now: now.rollout.closing is not None)
        await web.world.desk.guarding.release_command(web.world.origin())
        await web.shown()
        async with somebody(browser, web, "deploy") as who:
            page = await who.open("/rollouts/1")
            await who.live()
            await page.get_by_label("Reason").first.fill("ten minutes more, I stay")
            await page.get_by_role("button", name="Finish beyond closing").click()
            await expect(page.locator("#outcome")).to_contain_text("deployer chose to go on until")
            await expect(page.get_by_role("button", name="Finish beyond closing")).to_be_hidden()
            closing = (await web.world.now()).rollout.closing
            assert closing is not None
            assert closing.choice == "finish"
            who.assert_clean()


@pytest.mark.parametrize("facts", [{}, PLAIN], ids=["script", "plain"])
async def test_the_app_is_locked_and_opened_and_a_denial_lifted(
    browser: Browser, tmp_path: Path, facts: dict[str, Any]
) -> None:
    """From the train; while it is locked the plan says so, and its button is dead for who may not override."""
    async with web_world(tmp_path) as web:
        await web.world.desk.guarding.deny(build("b9", "9"), web.world.origin(reason="errors"))
        await web.shown()
        async with somebody(browser, web, **facts) as who:
            page = await who.open("/")
            await page.get_by_label("Lock the app").fill("the sale")
            await page.get_by_role("button", name="Lock", exact=True).click()
            await expect(page.locator("#part-banners")).to_contain_text("Locked by adminer")
            async with somebody(browser, web, "deploy", **facts) as other:
                plan = await other.open("/new?build=b1")
                await plan.get_by_label("Reason").fill("now")
                await plan.get_by_role("button", name="Show the plan").click()
                await expect(plan.get_by_role("alert").first).to_contain_text("shop is locked by adminer")
                await expect(plan.get_by_role("button", name="Start rollout 1")).to_be_disabled()
            page = await who.open("/")
            await page.get_by_placeholder("why", exact=True).fill("it is over")
            await page.get_by_role("button", name="Lift").click()
            await expect(page.locator("#part-banners")).not_to_contain_text("Locked")
            page = await who.open("/")
            await page.get_by_label("Lift", exact=True).select_option("b9")
            await page.get_by_placeholder("why", exact=True).fill("it was the database")
            await page.get_by_role("button", name="Lift").click()
            await expect(page.locator("#part-command")).not_to_contain_text("b9")
            who.assert_clean()


async def test_an_override_is_given_and_ended(browser: Browser, tmp_path: Path) -> None:
    """Without JavaScript, too, its form is at hand; zero minutes end it."""
    async with web_world(tmp_path) as web:
        await web.world.start()
        await web.world.desk.guarding.release_command(web.world.origin())
        await web.shown()
        async with somebody(browser, web, **PLAIN) as who:
            page = await who.open("/rollouts/1")
            for minutes, said in (("30", "do not count until"), ("0", "count again")):
                await page.get_by_text("Override windows, lock and slots").click()
                await page.get_by_label("Minutes").fill(minutes)
                await page.get_by_label("Reason").nth(1).fill("agreed with bob")
                await page.get_by_role("button", name="Override", exact=True).click()
                await expect(page.locator("#part-log .line").first).to_contain_text(said)
            assert (await web.world.now()).rollout.override is None
            who.assert_clean()


async def test_an_app_with_nothing_leads_to_its_first_rollout(browser: Browser, tmp_path: Path) -> None:
    """Train, form and hosts, on a phone in the dark: no fault, nothing wider than the screen, commands at hand."""
    async with web_world(tmp_path, sizes={}) as web, somebody(browser, web, **PHONE, color_scheme="dark") as who:
        for path, said in (
            ("/", "hotcold install --app shop --tier staging"),
            ("/new", "no host of staging, canary, prod has ever reported"),
            ("/hosts", "hotcold install --app shop"),
        ):
            page = await who.open(path)
            await who.live()
            await expect(page.locator("main")).to_contain_text(said)
            assert await who.faults() == [], path
            assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
        who.assert_clean()
