"""What webhooks are told: signed, in order, once, again where they fail, and never at the cost of anybody else."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from artifact import Refused
from checkpoint.audit import read_head, read_record, verify
from checkpoint.deliveries import KEPT_DELIVERIES, read_deliveries
from checkpoint.notifying import DELIVERY, PAUSES_S, SIGNATURE, TOLD, Notifier
from checkpoint.pipeline import Webhook
from checkpoint.rollout import events as ev
from fleet import ConsulSettings, ConsulStore
from fleet.devserver import DevServer
from fleet.keys import audit_head_key, audit_prefix
from tests.rollout_world import PIPELINE, Fleet, RolloutWorld

APPROVED = PIPELINE.replace('name = "canary"', 'name = "canary"\napproval = true')


class Receiver:
    """A webhook's other end: keeps what came, and answers as it was told."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.url = ""
        self.before_answer: Callable[[], Awaitable[None]] | None = None

    async def receive(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        if self.before_answer is not None:
            await self.before_answer()
        return web.Response(status=self.answers.pop(0) if self.answers else 200, text="said the receiver")

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    application = web.Application()
    application.router.add_post("/hook", receiver.receive)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield receiver
    await runner.cleanup()


@pytest.fixture
async def world() -> AsyncIterator[RolloutWorld]:
    async with DevServer() as server, ConsulStore(ConsulSettings(address=server.address)) as store:
        fresh = RolloutWorld(store, Fleet(store), APPROVED)
        await fresh.order_everywhere()
        yield fresh


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def new_notifier(world: RolloutWorld, receiver: Receiver, http: aiohttp.ClientSession) -> Callable[..., Notifier]:
    waited: list[float] = []

    async def pause(seconds: float) -> None:
        waited.append(seconds)

    def make(**facts: Any) -> Notifier:
        webhook = Webhook(name="chat", **{"url": receiver.url, **facts})
        notifier = Notifier(world.store, "shop", webhook, now=lambda: world.time.wall, pause=pause, http=http)
        notifier.waited = waited  # type: ignore[attr-defined]
        return notifier

    return make


async def tell_all(notifier: Notifier) -> None:
    while await notifier.tell_next():
        pass


async def test_one_message_for_each_step_with_what_to_do_next(
    world: RolloutWorld, receiver: Receiver, new_notifier: Callable[..., Notifier]
) -> None:
    """Seven steps, an approval, a start and an end; in order, each record once, also by another notifier."""
    await world.start()
    await world.until(lambda ongoing: ongoing.rollout.phase_name == "approving")
    await tell_all(new_notifier())
    asked = receiver.messages[-1]
    assert asked["what"] == "judged"
    assert asked["next"] == "look at canary, then: hotcold rollout approve --app shop"
    await world.act(ev.ApproveRequested())
    await world.until_ended()
    await tell_all(new_notifier())
    await tell_all(new_notifier())
    what = [message["what"] for message in receiver.messages]
    assert what == ["started", "done", "judged", *["done"] * 5, "finished"]
    numbers = [message["number"] for message in receiver.messages]
    assert numbers == sorted(set(numbers))
    assert len({headers[DELIVERY] for headers, _ in receiver.got}) == len(numbers)
    assert set(what) <= TOLD


async def test_a_message_is_signed_with_its_time(
    world: RolloutWorld, receiver: Receiver, new_notifier: Callable[..., Notifier], tmp_path: Path
) -> None:
    """As docs/rollouts.md says how to check it; the key may be changed while the engine runs."""
    secret = tmp_path / "secret"
    await world.start()
    notifier = new_notifier(secret_file=str(secret))
    for key in ("one", "two"):
        secret.write_text(f"{key}\n")
        await world.act(ev.PauseRequested() if key == "one" else ev.ResumeRequested({}))
        await tell_all(notifier)
        headers, body = receiver.got[-1]
        seconds, mac = (part.partition("=")[2] for part in headers[SIGNATURE].split(","))
        assert int(seconds) == int(world.time.wall.timestamp())
        wanted = hmac.new(key.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(mac, wanted)


async def test_slack_gets_a_text(
    world: RolloutWorld, receiver: Receiver, new_notifier: Callable[..., Notifier]
) -> None:
    await world.start()
    await world.act(ev.RollbackRequested(), reason="errors since 14:05")
    await tell_all(new_notifier(format="slack"))
    assert SIGNATURE not in receiver.got[-1][0]
    [_, last] = receiver.messages
    assert last.keys() == {"text"}
    assert (
        "*shop* rollout 1: b2 is rolled back, before any host had it: errors since 14:05 (by anna@desk)" in last["text"]
    )
    assert "next: find out what was wrong with b2; then hotcold rollout unlock --app shop" in last["text"]


async def test_what_fails_is_tried_again_and_noted(
    world: RolloutWorld, receiver: Receiver, new_notifier: Callable[..., Notifier]
) -> None:
    """A server's error is tried again with pauses, a refusal is not; both are in the log, and later messages come."""
    receiver.answers = [500, 429, 200]
    notifier = new_notifier()
    await world.start()
    await tell_all(notifier)
    assert notifier.waited == list(PAUSES_S[:2])  # type: ignore[attr-defined]
    receiver.answers = [410]
    await world.act(ev.PauseRequested())
    await tell_all(notifier)
    receiver.answers = [503] * (len(PAUSES_S) + 1)
    await world.act(ev.ResumeRequested({}))
    await tell_all(notifier)
    await world.act(ev.AbortRequested())
    await tell_all(notifier)
    log = (await read_deliveries(world.store, "shop"))["chat"]
    seen = [(each.outcome, each.attempts, each.error) for each in log.deliveries]
    assert seen == [
        ("delivered", 3, ""),
        ("failed", 1, "answered 410: said the receiver"),
        ("failed", len(PAUSES_S) + 1, "answered 503: said the receiver"),
        ("delivered", 1, ""),
    ]


async def test_nobody_there_is_a_failure_like_any_other(
    world: RolloutWorld, new_notifier: Callable[..., Notifier]
) -> None:
    await world.start()
    await tell_all(new_notifier(url="http://127.0.0.1:1/hook"))
    [delivery] = (await read_deliveries(world.store, "shop"))["chat"].deliveries
    assert delivery.outcome == "failed"
    assert "127.0.0.1:1" in delivery.error


async def test_old_news_is_not_told(
    world: RolloutWorld, receiver: Receiver, new_notifier: Callable[..., Notifier]
) -> None:
    """An engine that was away for a night does not tell about yesterday."""
    await world.start()
    world.time.pass_(timedelta(hours=9).total_seconds())
    await world.act(ev.AbortRequested())
    await tell_all(new_notifier())
    assert [message["what"] for message in receiver.messages] == ["aborted"]
    log = (await read_deliveries(world.store, "shop"))["chat"]
    assert [each.outcome for each in log.deliveries] == ["too_old", "delivered"]


async def failed_rollout(world: RolloutWorld, receiver: Receiver, notifier: Notifier) -> list[int]:
    """Two messages that a receiver which was down did not get, and one that it got; the records of the former."""
    receiver.answers = [503] * 2 * (len(PAUSES_S) + 1)
    await world.start()
    await world.act(ev.PauseRequested())
    await tell_all(notifier)
    await world.act(ev.ResumeRequested({}))
    await tell_all(notifier)
    log = (await read_deliveries(world.store, "shop"))["chat"]
    assert [each.outcome for each in log.deliveries] == ["failed", "failed", "delivered"]
    return list(log.failed)


async def test_what_failed_is_sent_again_once_somebody_asks(
    world: RolloutWorld, receiver: Receiver, new_notifier: Callable[..., Notifier]
) -> None:
    """All of it, in order, with the ids that it had; who asked is in the audit and in the log; asking twice is once."""
    notifier = new_notifier()
    failed = await failed_rollout(world, receiver, notifier)
    first = [headers[DELIVERY] for headers, _ in receiver.got][:: len(PAUSES_S) + 1][:2]
    receiver.got.clear()
    assert await world.desk.deliveries.resend("chat", None, world.origin("bob@desk")) == tuple(failed)
    assert await world.desk.deliveries.resend("chat", None, world.origin("bob@desk")) == ()
    assert await world.desk.deliveries.resend("chat", failed, world.origin("eve@desk")) == ()
    world.time.pass_(timedelta(hours=9).total_seconds())  # whoever asks for it wants it, however old it is
    await tell_all(notifier)
    await tell_all(new_notifier())
    assert [headers[DELIVERY] for headers, _ in receiver.got] == first
    assert [message["number"] for message in receiver.messages] == failed
    log = (await read_deliveries(world.store, "shop"))["chat"]
    assert log.again == log.failed == ()
    again = [(each.number, each.outcome, each.status, each.by) for each in log.deliveries[-2:]]
    assert again == [(number, "delivered", 200, "bob@desk") for number in failed]
    assert [each.what for each in log.deliveries] == ["started", "paused", "resumed", "started", "paused"]
    entries = await world.store.read_prefix(audit_prefix("shop"))
    records = [read_record(entry.value) for entry in entries]
    [asked] = [record for record in records if record.what == "resend_asked"]
    assert (asked.by, asked.message) == (
        "bob@desk",
        f"messages {failed[0]}, {failed[1]} to chat shall be sent once more",
    )
    head, _ = read_head(await world.store.read(audit_head_key("shop")))
    assert list(verify(entries, head)) == []


async def test_a_message_that_fails_again_can_be_asked_for_again(
    world: RolloutWorld, receiver: Receiver, new_notifier: Callable[..., Notifier]
) -> None:
    notifier = new_notifier()
    failed = await failed_rollout(world, receiver, notifier)
    receiver.answers = [410, 200]
    await world.desk.deliveries.resend("chat", None, world.origin())
    await tell_all(notifier)
    log = (await read_deliveries(world.store, "shop"))["chat"]
    assert log.failed == (failed[0],)
    assert await world.desk.deliveries.resend("chat", None, world.origin()) == (failed[0],)
    await tell_all(notifier)
    assert (await read_deliveries(world.store, "shop"))["chat"].failed == ()


async def test_a_wish_during_a_delivery_loses_neither(
    world: RolloutWorld, receiver: Receiver, new_notifier: Callable[..., Notifier]
) -> None:
    """Somebody asks while the engine is sending: what it sent is noted once, and what was asked for is sent next."""
    notifier = new_notifier()
    failed = await failed_rollout(world, receiver, notifier)
    receiver.got.clear()

    async def ask() -> None:
        receiver.before_answer = None
        await world.desk.deliveries.resend("chat", failed[:1], world.origin())

    receiver.before_answer = ask
    await world.act(ev.PauseRequested())
    await tell_all(notifier)
    assert [message["what"] for message in receiver.messages] == ["paused", "started"]
    log = (await read_deliveries(world.store, "shop"))["chat"]
    assert [each.outcome for each in log.deliveries[-2:]] == ["delivered", "delivered"]
    assert log.again == ()


async def test_what_nobody_knows_of_is_not_sent_again(
    world: RolloutWorld, receiver: Receiver, new_notifier: Callable[..., Notifier]
) -> None:
    await world.start()
    with pytest.raises(Refused, match="no webhook chat was ever told anything of shop"):
        await world.desk.deliveries.resend("chat", None, world.origin())
    await tell_all(new_notifier())
    with pytest.raises(Refused, match="chat was not told of record 99"):
        await world.desk.deliveries.resend("chat", [1, 99], world.origin())
    assert await world.desk.deliveries.resend("chat", None, world.origin()) == ()
    assert await world.desk.deliveries.resend("chat", [1], world.origin()) == (1,)
    await tell_all(new_notifier())
    assert [message["number"] for message in receiver.messages] == [1, 1]


async def test_the_log_of_a_webhook_is_bounded(
    world: RolloutWorld, receiver: Receiver, new_notifier: Callable[..., Notifier]
) -> None:
    await world.start()
    notifier = new_notifier()
    for _ in range(KEPT_DELIVERIES // 2 + 5):
        await world.act(ev.PauseRequested())
        await world.act(ev.ResumeRequested({}))
    await tell_all(notifier)
    log = (await read_deliveries(world.store, "shop"))["chat"]
    assert len(receiver.got) > KEPT_DELIVERIES == len(log.deliveries)
