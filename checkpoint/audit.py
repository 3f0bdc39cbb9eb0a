"""Owns the audit: records that name their predecessor by its hash, so that no change goes unseen. Pure.

Writing them, together with what they tell of, is left to `checkpoint.writing`.

What is promised: a record that was altered, taken out or put in is found by `verify`. Old ones may be archived: an
anchor then names the last of them, and so does a record that comes after it, so that the rest is still proved, and with
the archives all of it. Not promised: whoever may write all keys can make a new chain; so keep the newest hash
elsewhere, too: every message to a webhook carries it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from artifact import Refused
from checkpoint.windows import Moment
from fleet import Entry, Put
from fleet.keys import audit_head_key, audit_key

VERSION: Final = 1
GENESIS: Final = "0" * 64
"""What the first record names as its predecessor."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One thing that was done.

    Attributes:
        number: from 1, without gaps.
        at: when.
        by, via: who, and from where: `engine`, `cli` or `ui`.
        what: a word for machines.
        message: a sentence for people.
        reason: why, as given.
        next: what to do next, in a sentence.
        rollout: number of the rollout it is about, 0: none.
        phase: the rollout's phase after it, or empty.
        step: the step that the phase is about; none: no step.
        decided_on: index of the state that the decision was made on; none: what stood there.
        before: hash of the record before.
        hash: SHA-256, in hex, of this record's JSON with an empty `hash`.
    """

    v: int
    number: int
    at: Moment
    by: str
    via: Literal["engine", "cli", "ui"]
    what: str
    message: str
    reason: str = ""
    next: str = ""
    rollout: int = 0
    phase: str = ""
    step: int | None = None
    decided_on: int | None = None
    before: str = ""
    hash: str = ""


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The latest record."""

    v: int
    number: int
    hash: str


class Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the chain in Consul begins: behind the record of that number and hash, which was archived last.

    Attributes:
        at: when that record was written; none: nothing was archived.
    """

    v: int
    number: int
    hash: str
    at: Moment | None = None


EMPTY: Final = Head(v=VERSION, number=0, hash=GENESIS)
START: Final = Anchor(v=VERSION, number=0, hash=GENESIS)
ARCHIVED: Final = "archived"
"""`what` of the record that tells of archiving; its message has the anchor's hash."""


@dataclass(frozen=True)
class Flaw:
    """What is wrong with a chain. `number` is of the first record that it concerns."""

    number: int
    message: str


def sealed(record: Record, head: Head) -> Record:
    """The record with its number and hashes, as the successor of `head`."""
    numbered = msgspec.structs.replace(record, number=head.number + 1, before=head.hash, hash="")
    return msgspec.structs.replace(numbered, hash=digest(numbered))


def digest(record: Record) -> str:
    """The hash that belongs to a record."""
    return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(record, hash=""))).hexdigest()


def appending(app: str, records: Sequence[Record], head: Head, head_index: int) -> tuple[list[Put], tuple[Record, ...]]:
    """The operations that append records behind `head`, and the records; `head_index` 0: there is none yet."""
    written: list[Record] = []
    for record in records:
        after = Head(v=VERSION, number=written[-1].number, hash=written[-1].hash) if written else head
        written.append(sealed(record, after))
    last = Head(v=VERSION, number=written[-1].number, hash=written[-1].hash)
    puts = [Put(audit_key(app, each.number), msgspec.json.encode(each), cas=0) for each in written]
    return [*puts, Put(audit_head_key(app), msgspec.json.encode(last), cas=head_index)], tuple(written)


def read_head(entry: Entry | None) -> tuple[Head, int]:
    """The head and its index.

    Raises:
        Refused: it cannot be read.
    """
    if entry is None:
        return EMPTY, 0
    try:
        return msgspec.json.decode(entry.value, type=Head), entry.modify_index
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(
            f"{entry.key} is damaged ({error}): `hotcold audit verify` says how far the audit is whole",
            kind="audit_damaged",
        ) from error


def read_anchor(entry: Entry | None) -> tuple[Anchor, int]:
    """The anchor and its index.

    Raises:
        Refused: it cannot be read.
    """
    if entry is None:
        return START, 0
    try:
        return msgspec.json.decode(entry.value, type=Anchor), entry.modify_index
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{entry.key} is damaged: {error}", kind="audit_damaged") from error


def number_of(entry: Entry) -> int:
    """The number of the record that an entry's key says; 0 where it says none."""
    digits = entry.key.rpartition("/")[2]
    return int(digits) if digits.isdecimal() and len(digits) < 12 else 0  # noqa: PLR2004 - keys have ten


def read_record(value: bytes) -> Record:
    """Decode one record.

    Raises:
        Refused: it cannot be read.
    """
    try:
        return msgspec.json.decode(value, type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"a record of the audit cannot be read: {error}", kind="audit_damaged") from error


def verify(entries: Sequence[Entry], head: Head, anchor: Anchor = START) -> Iterator[Flaw]:
    """Everything that is wrong with a chain, the first record first; nothing for a whole one.

    Args:
        entries: of all records behind the anchor, in the order of their keys.
        head: what is said to be the latest.
        anchor: behind which record the chain begins; by default before the first one.
    """
    yield from verify_part(entries, head, anchor)
    if anchor.number and not any(_vouches(entry, anchor) for entry in entries):
        yield Flaw(
            anchor.number, f"no record tells that those up to {anchor.number} were archived: the anchor was put in"
        )


def verify_part(entries: Sequence[Entry], head: Head, anchor: Anchor) -> Iterator[Flaw]:
    """As `verify`, for some records of a chain: from the one behind `anchor` up to the one that `head` names."""
    before, number = anchor.hash, anchor.number
    for entry in entries:
        number += 1
        try:
            record = read_record(entry.value)
        except Refused as error:
            yield Flaw(number, f"{entry.key}: {error}")
            return
        if record.number != number or not entry.key.endswith(f"/{number:010}"):
            yield Flaw(number, f"record {number} is missing: {entry.key} holds record {record.number}")
            return
        if record.before != before:
            yield Flaw(number, f"record {number} names another predecessor than record {number - 1}")
        if digest(record) != record.hash:
            yield Flaw(number, f"record {number} was altered: its hash is not its own")
        before = record.hash
    if (head.number, head.hash) != (number, before):
        yield Flaw(
            number + 1, f"the head names record {head.number} ({head.hash[:12]}), but the chain ends at {number}"
        )


def _vouches(entry: Entry, anchor: Anchor) -> bool:
    """Whether a record tells of archiving up to the anchor."""
    try:
        record = read_record(entry.value)
    except Refused:
        return False
    return record.what == ARCHIVED and anchor.hash in record.message
