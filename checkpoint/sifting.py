"""Owns which records of the audit somebody wants, by who, what, tier, build, rollout and time; and as CSV. Pure.

Reading the audit is left to the callers.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from checkpoint.audit import Record
from checkpoint.chronicle import Run, chronicle


@dataclass(frozen=True)
class Sieve:
    """What is wanted; whatever is empty or None lets all through.

    Attributes:
        by: part of the name of who did it.
        what: the record's word for machines, or part of what it says; in any case.
        tier: records about that tier: those that name it, and those about a step of it.
        build: records about that build: those that name it, and those of its rollouts.
        rollout: its number.
        since: not before it.
        until: before it.
    """

    by: str = ""
    what: str = ""
    tier: str = ""
    build: str = ""
    rollout: int = 0
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether all passes."""
        return self == Sieve()


def sift(records: Sequence[Record], sieve: Sieve) -> list[Record]:
    """The records that are wanted, in their order.

    Args:
        records: all that there are, for one tells of which tier the step of another is.
        sieve: what is wanted.
    """
    if sieve.is_open:
        return list(records)
    runs = chronicle(records) if sieve.tier or sieve.build else {}
    return [each for each in records if _passes(each, sieve, runs.get(each.rollout))]


def _passes(record: Record, sieve: Sieve, run: Run | None) -> bool:
    return (
        sieve.by.casefold() in record.by.casefold()
        and (not sieve.rollout or record.rollout == sieve.rollout)
        and (sieve.since is None or record.at >= sieve.since)
        and (sieve.until is None or record.at < sieve.until)
        and (not sieve.what or _says(record, sieve.what))
        and (not sieve.tier or _is_of_tier(record, sieve.tier, run))
        and (not sieve.build or _names(record, sieve.build) or (run is not None and run.build == sieve.build))
    )


def _says(record: Record, text: str) -> bool:
    said = f"{record.what} {record.message} {record.reason} {record.phase} rollout {record.rollout}"
    return text.casefold() in said.casefold()


def _is_of_tier(record: Record, tier: str, run: Run | None) -> bool:
    step = None if run is None or record.step is None else run.steps.get(record.step)
    return (step is not None and step[0] == tier) or _names(record, tier)


def _names(record: Record, name: str) -> bool:
    """Whether the message has it as a word: `b1` is not in `b10`, and not in `web-b1`."""
    return re.search(rf"(?<![\w.~-]){re.escape(name)}(?![\w~-]|\.\w)", record.message) is not None


def as_csv(records: Iterable[Record]) -> Iterator[str]:
    """The records as lines of CSV, a head first.

    A text that a spreadsheet would take for a formula gets a `'` before it: reasons are anybody's.
    """
    fields = Record.__struct_fields__
    yield _line(fields)
    for record in records:
        facts = msgspec.to_builtins(record)
        yield _line(["" if facts[name] is None else _harmless(facts[name]) for name in fields])


def _harmless(value: object) -> str:
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


def _line(cells: Iterable[str]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\r\n").writerow(cells)
    return file.getvalue()
