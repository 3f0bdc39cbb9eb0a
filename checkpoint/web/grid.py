"""Owns the host grid: one letter for each host of a rollout, in the order in which steps reach them. Pure.

How letters look is left to the style sheet: a colour and a shape each.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Final, NamedTuple

from checkpoint.overview import HostView, Overview, Standing
from checkpoint.rollout.picture import Picture

MEANINGS: Final[Mapping[str, str]] = {
    "n": "runs the new build",
    "b": "on the way",
    "q": "waits for a slot",
    "w": "has not seen the order yet",
    "o": "as it was before the rollout",
    "r": "will try again",
    "h": "held by its operator",
    "a": "set aside",
    "l": "overdue",
    "s": "silent",
    "f": "failed",
}
_WORTH_A_RUN: Final = 10
"""So many cells that did not change are sent along sooner than another run is begun, which costs as many characters."""

TROUBLE: Final = "flsrha"
"""Letters that somebody should look at, the worst first."""

_BY_STANDING: Final[Mapping[Standing, str]] = {
    Standing.FAILED: "f",
    Standing.SILENT: "s",
    Standing.RETRYING: "r",
    Standing.HELD: "h",
    Standing.BUSY: "b",
    Standing.BEHIND: "w",
}

# Looked up here, once: an enum's members are slow to find, and this is asked of thousands of hosts a second.
_GOOD, _BUSY, _BEHIND = Standing.GOOD, Standing.BUSY, Standing.BEHIND


class Cell(NamedTuple):
    """One host. `step` is the rollout's step that reaches it, for people."""

    tier: str
    host: str
    letter: str
    step: str
    note: str

    @property
    def said(self) -> str:
        """Its state in words."""
        return MEANINGS[self.letter]


@dataclass(frozen=True)
class Block:
    """One tier of the grid."""

    tier: str
    cells: tuple[Cell, ...]

    @property
    def counts(self) -> tuple[tuple[str, str, int], ...]:
        """(letter, meaning, hosts) of the states that occur."""
        counted = Counter(cell.letter for cell in self.cells)
        return tuple((letter, said, counted[letter]) for letter, said in MEANINGS.items() if counted[letter])


@dataclass(frozen=True)
class Grid:
    """All hosts of a rollout.

    Attributes:
        roster: names the list of hosts; pages that show another list must draw it anew.
        states: the letters of all cells, in order.
    """

    blocks: tuple[Block, ...]
    roster: str
    states: str

    @property
    def trouble(self) -> tuple[Cell, ...]:
        """Hosts that somebody should look at, the worst first."""
        cells = [cell for block in self.blocks for cell in block.cells if cell.letter in TROUBLE]
        return tuple(sorted(cells, key=lambda cell: TROUBLE.index(cell.letter)))


def grid(shown: Picture, view: Overview) -> Grid:
    """The grid of the latest rollout."""
    hosts = {(host.tier, host.host): host for tier in view.tiers for host in tier.hosts}
    plan = shown.plan
    present = plan.steps[shown.rollout.phase.step].rule.tier
    aside = {(each.tier, each.host) for each in shown.rollout.set_aside}
    blocks = []
    for tier in plan.tiers:
        planned = set(tier.hosts)
        joined = sorted(name for each, name in hosts if each == tier.name and name not in planned)
        cells = []
        overdue = shown.tally.overdue if tier.name == present else {}
        for name, step in zip((*tier.hosts, *joined), _steps(shown, tier.name), strict=False):
            place = (tier.name, name)
            host = hosts.get(place)
            letter = _letter(host, plan.build.id, is_aside=place in aside, is_overdue=name in overdue)
            note = overdue.get(name) or ("it never reported" if host is None else host.note)
            cells.append(Cell(tier.name, name, letter, step, note))
        blocks.append(Block(tier.name, tuple(cells)))
    every = [cell for block in blocks for cell in block.cells]
    roster = hashlib.sha256("\n".join(f"{cell.tier}/{cell.host}" for cell in every).encode()).hexdigest()[:16]
    return Grid(tuple(blocks), roster, "".join(cell.letter for cell in every))


def running(shown: Picture, view: Overview) -> Mapping[str, int]:
    """How many hosts of each tier run the rollout's build at present, whatever they do."""
    build = shown.plan.build.id
    return {tier.key.tier: sum(host.hot == build for host in tier.hosts) for tier in view.tiers}


def runs_of(now: Grid, before: Grid | None) -> list[tuple[int, str]]:
    """(place of the first, letters) of neighbours that look otherwise than before; all of them where nobody knows how.

    Short where little changed, however many hosts there are, and never longer than all letters and a few figures.
    """
    if before is None or before.roster != now.roster:
        return [(0, now.states)]
    runs: list[tuple[int, str]] = []
    begin = 0
    end: int | None = None
    for place, (letter, former) in enumerate(zip(now.states, before.states, strict=True)):
        if letter == former:
            continue
        if end is None or place - end > _WORTH_A_RUN:
            if end is not None:
                runs.append((begin, now.states[begin:end]))
            begin = place
        end = place + 1
    if end is not None:
        runs.append((begin, now.states[begin:end]))
    return runs


def _steps(shown: Picture, tier: str) -> Iterator[str]:
    """Names of the steps that reach a tier's hosts, one host after the other; without end."""
    reached = 0
    for step in shown.steps:
        if step.tier == tier:
            yield from repeat(step.name, step.host_count - reached)
            reached = step.host_count
    yield from repeat("joined later")


def _letter(  # noqa: PLR0911 - a row for each state
    host: HostView | None, build_id: str, *, is_aside: bool, is_overdue: bool
) -> str:
    if host is not None and host.standing is _GOOD:
        return "n" if host.hot == build_id else "o"
    if is_aside:
        return "a"
    if is_overdue:
        return "l"
    if host is None:
        return "s"
    if host.standing is _BUSY and host.state == "waiting_for_slot":
        return "q"
    if host.standing is _BEHIND and host.state == "steady" and host.wanted in {None, host.hot}:
        return "n" if host.hot == build_id else "o"  # the order that it has not seen changes nothing for it
    return _BY_STANDING[host.standing]
