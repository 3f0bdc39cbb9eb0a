"""Owns one run of one rule in one world, through the default pipeline.

What is made of many runs is left to the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from benchmarks.rollouts.rules import Look, Rule, share
from benchmarks.rollouts.world import BEFORE_MINUTES, TIERS, World
from checkpoint.verdicts import Counts

BAKE_MINUTES: Final = (("staging", 5), ("dogfood", 10), ("canary", 30), ("prod", 10))
PROD_PERCENT: Final = (10, 25, 50, 75, 100)
PATIENCE_MINUTES: Final = 60
"""A step that its rule does not let pass for so long after its bake time is held: somebody has to look."""

LIFT_MINUTES: Final = 30
"""A pause is lifted if its rule says within so many minutes that a host is to blame, or that all is well."""

Ended = Literal["done", "paused", "rolled back", "held"]


@dataclass(frozen=True)
class Outcome:
    """How a rollout ended.

    Attributes:
        ended: done, or why not.
        is_weak: whether the rule that ended it had no hosts to compare with.
        first_minute: when it was first paused, rolled back or held, since the first host was updated; None: never.
        reached: hosts that ran the build by then, or at the end.
        aside: hosts that were blamed instead of the build.
    """

    ended: Ended
    is_weak: bool
    first_minute: int | None
    reached: int
    aside: tuple[str, ...]


def steps() -> list[tuple[int, int]]:
    """Hosts that run the build, and minutes of bake time, of each step."""
    bake, first = dict(BAKE_MINUTES), 0
    made: list[tuple[int, int]] = []
    for tier, count, _ in TIERS:
        percents = PROD_PERCENT if tier == "prod" else (100,)
        made.extend((first + -(-count * percent // 100), bake[tier]) for percent in percents)
        first += count
    return made


def run(world: World, rule: Rule) -> Outcome:
    """Until the rule stops it, or holds it for too long, or it is done."""
    past = [world.minute(minute, frozenset()) for minute in range(-BEFORE_MINUTES, 0)]
    updated = frozenset[int]()
    first_minute, first_reached = None, len(world.hosts)

    def ends(how: Ended) -> Outcome:
        return Outcome(how, how != "done" and rule.is_weak, first_minute, first_reached, rule.aside)

    for host_count, bake in steps():
        past.append(world.minute(len(past) - BEFORE_MINUTES, updated))  # in which the step's hosts are updated
        updated = frozenset(range(host_count))
        series = _Series(past, updated)
        waited = paused = 0
        while True:
            minute = len(past) - BEFORE_MINUTES
            past.append(world.minute(minute, updated))
            waited += 1
            interval = world.split(past[-1], updated)
            action = rule.look(Look(interval, series, is_step_end=waited >= bake, is_step_start=waited == 1))
            stops = action in {"pause", "roll_back"}
            is_held = waited >= bake + PATIENCE_MINUTES
            if (stops or is_held) and first_minute is None:
                first_minute, first_reached = minute + 1, host_count
            paused = paused + 1 if stops else 0
            if action == "roll_back":
                return ends("rolled back")
            if stops and paused > (LIFT_MINUTES if rule.lifts else 0):
                return ends("paused")
            if is_held and not stops:
                return ends("held")
            if waited >= bake and action == "go":
                break
    return ends("done")


class _Series:
    """Share of failures on some hosts in the hour before the present minute; made only when a rule asks."""

    def __init__(self, past: list[list[Counts]], updated: frozenset[int]) -> None:
        self._past = past
        self._numbers = sorted(updated)
        self._made: list[float] = []
        self._from = max(0, len(past) - BEFORE_MINUTES - 1)

    def __call__(self) -> list[float]:
        for counts in self._past[self._from + len(self._made) :]:
            self._made.append(share(tuple(counts[number] for number in self._numbers)) or 0.0)
        return self._made[-BEFORE_MINUTES - 1 : -1]
