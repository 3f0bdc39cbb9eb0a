"""The deliveries on the settings page, with a real receiver that is down and comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web as http_server

from checkpoint.deliveries import read_deliveries
from checkpoint.notifying import PAUSES_S, Notifier
from checkpoint.rollout import events as ev
from tests.rollout_world import PIPELINE
from tests.web_world import WebWorld, web_world


class Receiver:
    """Answers as long as it is not down."""

    def __init__(self) -> None:
        self.is_down = True
        self.got: list[int] = []
        self.url = ""

    async def receive(self, request: http_server.Request) -> http_server.Response:
        if self.is_down:
            return http_server.Response(status=503, text="<b>closed</b>")
        self.got.append((await request.json())["number"])
        return http_server.Response()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    application = http_server.Application()
    application.router.add_post("/hook", made.receive)
    runner = http_server.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await http_server.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()


@pytest.fixture
async def web(tmp_path: Path, receiver: Receiver) -> AsyncIterator[WebWorld]:
    hook = f'\n[[webhooks]]\nname = "chat"\nurl = "{receiver.url}"\n'
    async with web_world(tmp_path, pipeline=PIPELINE + hook) as made:
        yield made


async def tell(web: WebWorld) -> None:
    """Let an engine's notifier do all that there is."""

    async def no_pause(_: float) -> None:
        pass

    [webhook] = web.world.settings.webhooks
    async with aiohttp.ClientSession() as session:
        notifier = Notifier(
            web.world.store, "shop", webhook, now=lambda: web.world.time.wall, pause=no_pause, http=session
        )
        while await notifier.tell_next():
            pass


async def test_what_failed_is_shown_and_sent_again_by_a_press(web: WebWorld, receiver: Receiver) -> None:
    """One by its own button, the rest by the button for all; then the page says that they arrived, and for whom."""
    client = await web.as_("deploy")
    assert "No webhook was told anything yet" in (await client.get("/settings")).text
    await web.world.start()
    await web.world.act(ev.PauseRequested())
    await web.world.act(ev.AbortRequested())
    await tell(web)
    page = (await client.get("/settings")).text
    assert page.count('class="chip delivery-failed"') == 3
    assert "answered 503: &lt;b&gt;closed&lt;/b&gt;" in page
    assert f'<td class="num">{len(PAUSES_S) + 1}</td>' in page
    assert "Send all that failed to chat again (3)" in page
    receiver.is_down = False

    answer = await client.post("/deliveries/resend", {"webhook": "chat", "number": "2"})
    assert (answer.status, answer.headers["Location"]) == (303, "/settings#deliveries")
    page = (await client.get("/settings")).text
    assert "will be sent" in page
    assert "Send all that failed to chat again (2)" in page
    said = await client.post("/deliveries/resend", {"webhook": "chat"}, headers={"HX-Request": "true"})
    assert "sent once more, records 1, 3" in said.text
    said = await client.post("/deliveries/resend", {"webhook": "chat"}, headers={"HX-Request": "true"})
    assert "Nothing is to be sent" in said.text
    await tell(web)
    assert receiver.got == [2, 1, 3]
    page = (await client.get("/settings")).text
    assert page.count('class="chip delivery-delivered"') == 3
    assert page.count("once more for deployer") == 3
    assert "Send again" not in page
    assert any('"resend_asked"' in record and "deployer" in record for record in await web.audit())


async def test_who_only_reads_sees_deliveries_and_no_button(web: WebWorld) -> None:
    await web.world.start()
    await tell(web)
    reader = await web.as_("read")
    page = (await reader.get("/settings")).text
    assert 'class="chip delivery-failed"' in page
    assert "/deliveries/resend" not in page
    assert (await reader.post("/deliveries/resend", {"webhook": "chat"})).status == 403
    assert (await read_deliveries(web.world.store, "shop"))["chat"].again == ()


@pytest.mark.parametrize(
    "form", [{}, {"webhook": "pager"}, {"webhook": "chat", "number": "99"}, {"webhook": "chat", "number": "x"}]
)
async def test_a_press_with_a_wrong_field_does_nothing(web: WebWorld, form: dict[str, str]) -> None:
    await web.world.start()
    await tell(web)
    before = await web.audit()
    client = await web.as_("admin")
    assert (await client.post("/deliveries/resend", form)).status == 422
    assert await web.audit() == before
