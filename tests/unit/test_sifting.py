"""Which records of the audit pass, from real rollouts; and what CSV makes of them."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise

import msgspec
import pytest

from checkpoint.audit import Record, read_record
from checkpoint.rollout import events as ev
from checkpoint.sifting import Sieve, as_csv, sift
from fleet import ConsulSettings, ConsulStore
from fleet.devserver import DevServer
from fleet.keys import audit_prefix
from tests.rollout_world import MONDAY, Fleet, RolloutWorld, names


@pytest.fixture
async def records() -> AsyncIterator[list[Record]]:
    """A rollout of `b2` with a pause and a host set aside, then one of `b20` that is rolled back; and a lock."""
    sizes = {"staging": 2, "canary": 3, "prod": 10}
    async with DevServer() as server, ConsulStore(ConsulSettings(address=server.address)) as store:
        world = RolloutWorld(store, Fleet(store, names(sizes)))
        await world.order_everywhere()
        await world.start("b2")
        await world.until(lambda now: now.rollout.phase_name == "baking" and now.rollout.phase.step == 3)
        await world.act(ev.PauseRequested(), "bob@desk", reason="looking at Canary's errors")
        await world.act(ev.SetAsideRequested("prod", "prod-01"))
        await world.act(ev.ResumeRequested({}))
        await world.until_ended()
        world.time.pass_(3600.0)
        await world.start("b20")
        await world.until(lambda now: now.rollout.phase_name == "baking" and now.rollout.phase.step == 1)
        await world.act(ev.RollbackRequested(), "carol@phone", reason="=1+1")
        yield [read_record(entry.value) for entry in await store.read_prefix(audit_prefix("shop"))]


def numbers(records: list[Record]) -> list[int]:
    return [record.number for record in records]


def test_an_open_sieve_lets_all_through(records: list[Record]) -> None:
    assert sift(records, Sieve()) == records


def test_by_who(records: list[Record]) -> None:
    assert {record.by for record in sift(records, Sieve(by="BOB"))} == {"bob@desk"}
    assert {record.via for record in sift(records, Sieve(by="checkpoint@"))} == {"engine"}


def test_by_what(records: list[Record]) -> None:
    assert [record.what for record in sift(records, Sieve(what="set_aside"))] == ["set_aside"]
    assert [record.reason for record in sift(records, Sieve(what="canary's"))] == ["looking at Canary's errors"]


def test_by_tier(records: list[Record]) -> None:
    """What names the tier, and what is about a step of it, as the pause, whose sentence does not say so."""
    prod = sift(records, Sieve(tier="prod", rollout=1))
    assert [record.what for record in prod if record.what in {"paused", "set_aside"}] == ["paused", "set_aside"]
    assert all("staging to" not in record.message or "prod" in record.message for record in prod)
    steps = [record.step for record in prod if record.what == "ordered"]
    assert steps == [2, 3, 4, 5, 6]
    staging = sift(records, Sieve(tier="staging"))
    assert {"started", "ordered", "arrived", "rolled_back"} <= {record.what for record in staging}
    assert sift(records, Sieve(tier="pro")) == []


def test_by_build(records: list[Record]) -> None:
    """All of its rollout, also what does not name it; and not those of a build whose id only begins so."""
    first, second = sift(records, Sieve(build="b2")), sift(records, Sieve(build="b20"))
    assert {record.rollout for record in first} == {1}
    assert "paused" in {record.what for record in first}
    assert {record.rollout for record in second} == {2}
    assert len(first) + len(second) == len(records)
    assert sift(records, Sieve(build="b")) == []


def test_by_rollout_and_time(records: list[Record]) -> None:
    assert {record.rollout for record in sift(records, Sieve(rollout=2))} == {2}
    middle = MONDAY + timedelta(minutes=30)
    before, after = sift(records, Sieve(until=middle)), sift(records, Sieve(since=middle))
    assert before + after == records
    assert numbers(after)[0] == numbers(before)[-1] + 1
    at = records[5].at
    assert {record.at for record in sift(records, Sieve(since=at, until=at + timedelta(microseconds=1)))} == {at}


def test_all_that_is_asked_must_hold(records: list[Record]) -> None:
    found = sift(records, Sieve(by="anna", what="resumed", tier="prod", build="b2", rollout=1))
    assert [record.what for record in found] == ["resumed"]
    assert sift(records, Sieve(by="anna", what="resumed", build="b20")) == []


def test_csv_has_every_field_of_every_record_and_no_formulas(records: list[Record]) -> None:
    rows = list(csv.DictReader(io.StringIO("".join(as_csv(records)), newline="")))
    assert len(rows) == len(records)
    assert tuple(rows[0]) == Record.__struct_fields__
    for row, record in zip(rows, records, strict=True):
        facts = {name: "" if value is None else str(value) for name, value in msgspec.to_builtins(record).items()}
        facts["reason"] = facts["reason"].replace("=1+1", "'=1+1")
        assert row == facts
    assert rows[-1]["reason"] == "'=1+1"
    assert all(one["hash"] == other["before"] for one, other in pairwise(rows))
