"""The chain of records: whole, or the first flaw is named."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest

from artifact import Refused
from checkpoint.audit import EMPTY, Head, Record, appending, digest, read_head, read_record, verify
from fleet import Entry


def record(message: str) -> Record:
    at = datetime(2026, 11, 23, 10, tzinfo=UTC)
    return Record(v=1, number=0, at=at, by="anna@desk", via="cli", what="paused", message=message, reason="x")


def chain(count: int) -> tuple[list[Entry], Head]:
    head, entries = EMPTY, []
    for number in range(count):
        [put, head_put], _ = appending("shop", [record(f"deed {number}")], head, number)
        entries.append(Entry(put.key, put.value, 1, 1))
        head = msgspec.json.decode(head_put.value, type=Head)
    return entries, head


def test_a_whole_chain_has_no_flaw() -> None:
    entries, head = chain(5)
    assert list(verify(entries, head)) == []
    assert list(verify([], EMPTY)) == []
    assert [read_record(entry.value).number for entry in entries] == [1, 2, 3, 4, 5]


def altered(entry: Entry, **changes: object) -> Entry:
    changed = msgspec.structs.replace(read_record(entry.value), **changes)
    return Entry(entry.key, msgspec.json.encode(changed), 1, 1)


def resealed(entry: Entry) -> Entry:
    changed = msgspec.structs.replace(read_record(entry.value), message="nothing happened")
    return Entry(entry.key, msgspec.json.encode(msgspec.structs.replace(changed, hash=digest(changed))), 1, 1)


FLAWS: list[tuple[str, Callable[[list[Entry]], list[Entry]], int, str]] = [
    ("altered", lambda found: [*found[:2], altered(found[2], message="nothing"), *found[3:]], 3, "was altered"),
    ("altered, and sealed anew", lambda found: [*found[:2], resealed(found[2]), *found[3:]], 4, "another predecessor"),
    ("taken out", lambda found: [*found[:2], *found[3:]], 3, "record 3 is missing"),
    ("the last taken out", lambda found: found[:-1], 5, "the chain ends at 4"),
    ("the first taken out", lambda found: found[1:], 1, "record 1 is missing"),
    ("garbage", lambda found: [*found[:2], Entry(found[2].key, b"{", 1, 1), *found[3:]], 3, "cannot be read"),
    ("the last sealed anew", lambda found: [*found[:-1], resealed(found[-1])], 6, "the head names record 5"),
    ("swapped", lambda found: [found[0], found[2], found[1], *found[3:]], 2, "record 2 is missing"),
]


@pytest.mark.parametrize(("change", "number", "message"), [flaw[1:] for flaw in FLAWS], ids=[flaw[0] for flaw in FLAWS])
def test_what_was_done_to_a_chain_is_found(
    change: Callable[[list[Entry]], list[Entry]], number: int, message: str
) -> None:
    entries, head = chain(5)
    flaw = next(verify(change(entries), head))
    assert flaw.number == number
    assert message in flaw.message


def test_several_records_of_one_transaction_follow_each_other() -> None:
    puts, written = appending("shop", [record("one"), record("two")], EMPTY, 0)
    assert [put.cas for put in puts] == [0, 0, 0]
    assert written[1].before == written[0].hash
    entries = [Entry(put.key, put.value, 1, 1) for put in puts[:-1]]
    assert list(verify(entries, msgspec.json.decode(puts[-1].value, type=Head))) == []


def test_a_damaged_head_stops_every_write() -> None:
    """Otherwise a new chain would begin over the old one."""
    with pytest.raises(Refused, match="audit verify"):
        read_head(Entry("hotcold/shop/checkpoint/audit-head", b"", 1, 7))
    assert read_head(None) == (EMPTY, 0)
