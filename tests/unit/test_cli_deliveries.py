"""The commands about what webhooks were told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec
import pytest
from click.testing import CliRunner, Result

from checkpoint.audit import read_record
from checkpoint.deliveries import Delivered, Delivery, read_deliveries
from fleet.keys import audit_key, delivery_key
from hotcold.main import cli
from tests.commander_world import World, world

Run = Callable[..., Result]
AT = datetime(2026, 11, 23, 15, tzinfo=UTC)
LOG = Delivered(
    last=9,
    deliveries=(
        Delivery(number=4, at=AT, outcome="delivered", attempts=1, what="started", status=204),
        Delivery(number=7, at=AT, outcome="failed", attempts=6, what="paused", status=503, error="answered 503: down"),
        Delivery(number=9, at=AT, outcome="failed", attempts=6, what="aborted", error="no answer within 10 s"),
    ),
)


@pytest.fixture
def store() -> Iterator[World]:
    with world() as fresh:
        yield fresh


@pytest.fixture
def run(store: World) -> Run:
    def call(*words: object, exits: int = 0) -> Result:
        result = CliRunner().invoke(cli, ["checkpoint", *map(str, words), "--app", "shop", "--consul", store.address])
        assert result.exit_code == exits, result.output
        assert "Traceback" not in result.output
        return result

    return call


def keep(store: World) -> None:
    store.do(store.store.put(delivery_key("shop", "chat"), msgspec.json.encode(LOG)))


def test_it_shows_who_when_what_answer_and_tries(run: Run, store: World) -> None:
    assert "no webhook was ever told anything" in run("deliveries", exits=1).output
    keep(store)
    shown = run("deliveries").stdout.splitlines()
    assert shown == [
        "chat 2026-11-23T15:00:00+00:00 record 4 (started): delivered, 1 attempt, answered 204",
        "chat 2026-11-23T15:00:00+00:00 record 7 (paused): failed, 6 attempts: answered 503: down",
        "chat 2026-11-23T15:00:00+00:00 record 9 (aborted): failed, 6 attempts: no answer within 10 s",
    ]
    failed = json.loads(run("deliveries", "--failed", "--json").stdout)
    assert [each["number"] for each in failed["chat"]["deliveries"]] == [7, 9]


def test_what_failed_is_asked_for_once_and_in_the_audit(run: Run, store: World) -> None:
    keep(store)
    assert "sends 1 message to chat once more: records 9" in run("resend", "chat", 9, "--reason", "it was down").stdout
    assert "sends 1 message to chat once more: records 7" in run("resend", "chat").stdout
    assert "nothing to do: no message to chat failed" in run("resend", "chat").stdout
    assert "they will be sent already" in run("resend", "chat", 7).stdout
    assert (
        run("deliveries", "--failed").stdout.splitlines()[-1].startswith("chat record 7 will be sent once more, for ")
    )
    log = store.do(read_deliveries(store.store, "shop"))["chat"]
    assert [each.number for each in log.again] == [9, 7]
    entry = store.do(store.store.read(audit_key("shop", 1)))
    assert entry is not None
    record = read_record(entry.value)
    assert (record.what, record.reason) == ("resend_asked", "it was down")


def test_what_nobody_knows_is_refused(run: Run, store: World) -> None:
    keep(store)
    assert "no webhook pager was ever told anything of shop: chat" in run("resend", "pager", exits=1).output
    assert "chat was not told of record 3" in run("resend", "chat", 3, exits=1).output
    assert store.do(store.store.read(audit_key("shop", 1))) is None
