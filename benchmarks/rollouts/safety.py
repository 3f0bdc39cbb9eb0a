"""Owns the safety table: what many runs of each rule add up to, kept as JSON, and written into docs/verdicts.md."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.options import ROOT
from benchmarks.rollouts.rules import RULES
from benchmarks.rollouts.run import Outcome
from benchmarks.rollouts.world import SCENARIOS, Scenario

KEPT: Final = Path(__file__).parent / "safety.json"
PAGE: Final = ROOT / "docs" / "verdicts.md"
_PART: Final = re.compile(r"(<!-- generated: safety -->\n).*?(<!-- end -->\n)", re.DOTALL)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One rule in one scenario; counts of rollouts.

    Attributes:
        rolled_back, paused, held: how it ended, where there were hosts to compare with; held: too little was known.
        weakly: paused or held where only the past was there to compare with.
        done: ran to the end.
        touched: paused, rolled back or held at any time, also if that was lifted by itself.
        blamed_rightly, blamed_wrongly: one host was set aside: the bad one, or another.
        reached: hosts that ran the build when it was first touched, median; None: never.
        minutes: until then, median.
    """

    scenario: str
    rule: str
    rolled_back: int
    paused: int
    held: int
    weakly: int
    done: int
    touched: int
    blamed_rightly: int
    blamed_wrongly: int
    reached: float | None
    minutes: float | None


class Safety(msgspec.Struct, frozen=True, kw_only=True):
    """The whole table."""

    rollouts: int
    rows: tuple[Row, ...]


def summary(scenario: Scenario, rule: str, runs: Sequence[tuple[str | None, Outcome]]) -> Row:
    """Add up: each run with the name of its bad host."""
    all_outcomes = [outcome for _, outcome in runs]
    ends = Counter(outcome.ended for outcome in all_outcomes if not outcome.is_weak)
    touched = [outcome for outcome in all_outcomes if outcome.first_minute is not None]
    blamed = [(bad_host, host) for bad_host, outcome in runs for host in outcome.aside]
    return Row(
        scenario=scenario.name,
        rule=rule,
        rolled_back=ends["rolled back"],
        paused=ends["paused"],
        held=ends["held"],
        weakly=sum(outcome.is_weak for outcome in all_outcomes),
        done=sum(outcome.ended == "done" for outcome in all_outcomes),
        touched=len(touched),
        blamed_rightly=sum(host == bad_host for bad_host, host in blamed),
        blamed_wrongly=sum(host != bad_host for bad_host, host in blamed),
        reached=statistics.median(outcome.reached for outcome in touched) if touched else None,
        minutes=statistics.median(outcome.first_minute or 0 for outcome in touched) if touched else None,
    )


def keep(result: Safety) -> None:
    """Write the results over former ones."""
    KEPT.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def kept() -> Safety:
    """What was kept last."""
    return msgspec.json.decode(KEPT.read_bytes(), type=Safety)


def write_page() -> None:
    """Bring the page up to the kept results."""
    PAGE.write_text(refreshed(PAGE.read_text(), kept()))


def refreshed(page: str, result: Safety) -> str:
    """The page's text with the generated part made of `result`.

    Raises:
        ValueError: the page has no such part.
    """
    text, count = _PART.subn(lambda match: f"{match[1]}\n" + "\n".join(grids(result)) + f"\n\n{match[2]}", page)
    if count != 1:
        raise ValueError("the page needs exactly one part between `<!-- generated: safety -->` and `<!-- end -->`")
    return text


def grids(result: Safety) -> Iterator[str]:
    """Two tables: of rollouts that must not be stopped, and of those that must."""
    rows = {(row.scenario, row.rule): row for row in result.rows}
    good = [each for each in SCENARIOS if not each.is_bad and not each.is_blind]
    yield "False stops, in percent of rollouts: paused for good, held or rolled back. *Weakly*: at 100 percent, where"
    yield "only the past is left to compare with. *For a while*: paused, and lifted by itself within half an hour.\n"
    yield from _grid(rows, good, lambda row: _stops(row, result.rollouts))
    yield ""
    yield "Bad rollouts: detected, in percent; hosts of 110 that ran the build by then, and minutes since the first"
    yield "one, both as medians of the detected. Held rollouts count as detected: nothing promotes them.\n"
    yield from _grid(rows, [each for each in SCENARIOS if each.is_bad], lambda row: _detection(row, result.rollouts))
    yield ""
    yield "With silent hosts: rollouts that ran to the end though too little was known, in percent.\n"
    yield from _grid(
        rows, [each for each in SCENARIOS if each.is_blind], lambda row: _percent(row.done, result.rollouts)
    )


def _grid(
    rows: Mapping[tuple[str, str], Row], scenarios: Sequence[Scenario], cell: Callable[[Row], str]
) -> Iterator[str]:
    yield "| | " + " | ".join(RULES) + " |"
    yield "| --- |" + " ---: |" * len(RULES)
    for scenario in scenarios:
        cells = [cell(rows[scenario.name, rule]) for rule in RULES]
        yield f"| {scenario.name} | " + " | ".join(cells) + " |"


def _stops(row: Row, count: int) -> str:
    stops = row.rolled_back + row.paused + row.held
    lifted = row.touched - stops - row.weakly
    parts = [_percent(stops, count)]
    if row.weakly:
        parts.append(f"{_percent(row.weakly, count)} weakly")
    if lifted:
        parts.append(f"{_percent(lifted, count)} for a while")
    return "; ".join(parts)


def _detection(row: Row, count: int) -> str:
    caught = count - row.done
    if caught == 0 or row.reached is None or row.minutes is None:
        return _percent(caught, count)
    return f"{_percent(caught, count)}; {row.reached:.0f} hosts; {row.minutes:.0f} min"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"
