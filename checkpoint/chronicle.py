"""Owns what the audit tells of rollouts: of which build each was, through which steps, when, and how it ended. Pure.

What follows from many of them is left to `checkpoint.statistics`, and which records somebody wants to
`checkpoint.sifting`. Plans and states of old rollouts are forgotten; records last, so they are what is read here.
Builds, tiers and shares stand in their sentences only: those that are read are fixed by the tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from checkpoint.audit import Record

Outcome = Literal["under_way", "finished", "aborted", "rolled_back"]

_STARTED: Final = re.compile(r"rollout \d+ of (\S+) starts: ([^;]+)")
_ORDERED: Final = re.compile(r"(\S+) to ([0-9.]+) % is ordered")
_NO_FAULT_OF_THE_BUILD: Final = re.compile(
    r".*: paused: (the clock of the engine jumped|order \d+ of .*was Consul restored|.* meanwhile; resume to order it)"
)


@dataclass
class Run:
    """One rollout as the audit tells of it.

    Attributes:
        build: its id; empty where the record of its start is not there.
        tiers: in order, as far as the records tell.
        steps: tier and percent of each step that was ordered, by its number.
        started: None: its records begin later.
        ordered: when the first hosts were ordered to run the build, None: none were.
        complete: when all hosts of its last tier ran the build, None: they did not, or nobody saw it.
        doubted: when the engine first saw trouble that the build may have made, None: it did not, or somebody looked at
            it since and resumed.
        is_by_engine: of a rollback: the engine decided it.
    """

    number: int
    build: str = ""
    tiers: tuple[str, ...] = ()
    steps: dict[int, tuple[str, float]] = field(default_factory=dict)
    started: datetime | None = None
    ordered: datetime | None = None
    complete: datetime | None = None
    doubted: datetime | None = None
    finished: datetime | None = None
    ended: datetime | None = None
    outcome: Outcome = "under_way"
    is_by_engine: bool = False
    _arrived: tuple[int, datetime] | None = None

    def tell(self, record: Record) -> None:  # noqa: C901 - a row for each kind of record
        """Take in one record more."""
        at = record.at
        match record.what:
            case "started":
                self.started = at
                told = _STARTED.match(record.message)
                if told is not None:
                    self.build, self.tiers = told[1], tuple(told[2].split(" -> "))
            case "ordered":
                self.ordered = self.ordered or at
                told = _ORDERED.match(record.message)
                if told is not None and record.step is not None:
                    self.steps[record.step] = (told[1], float(told[2]))
                    self.tiers = self.tiers if told[1] in self.tiers else (*self.tiers, told[1])
            case "arrived":
                self._arrived = None if record.step is None else (record.step, at)
            case "paused" if record.via == "engine" and not _NO_FAULT_OF_THE_BUILD.match(record.message):
                self.doubted = self.doubted or at
            case "resumed":
                self.doubted = None
            case "finished":
                self._end("finished", record)
                self.finished = at
                # Somebody may have passed over the last step; then nobody saw its hosts arrive.
                arrived = self._arrived
                self.complete = arrived[1] if arrived is not None and arrived[0] == record.step else None
            case "aborted":
                self._end("aborted", record)
            case "rolled_back":
                self._end("rolled_back", record)
                self.is_by_engine = record.via == "engine"
            case _:
                pass

    def _end(self, outcome: Outcome, record: Record) -> None:
        self.outcome, self.ended = outcome, record.at


def chronicle(records: Iterable[Record]) -> dict[int, Run]:
    """The rollouts of which the records tell, by their numbers, in the order in which they come up."""
    runs: dict[int, Run] = {}
    for record in records:
        if record.rollout:
            runs.setdefault(record.rollout, Run(record.rollout)).tell(record)
    return runs
