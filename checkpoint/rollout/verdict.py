"""Owns what a step's gate asks for and gets: a ruling, with its reason. Pure.

Where rulings come from is left to whoever implements `Judge`; the agents' own reports need none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol

from checkpoint.reading import HostKey
from checkpoint.rollout.plan import Plan
from checkpoint.rollout.states import Rollout
from checkpoint.rollout.tally import Silent, Tally, doubt, is_condemned

Outcome = Literal["pass", "none", "pause", "roll_back"]
_SEVERITY: Final[tuple[Outcome, ...]] = ("pass", "none", "pause", "roll_back")


@dataclass(frozen=True)
class Ruling:
    """A verdict as the rollout needs it.

    Attributes:
        outcome: `pass` lets the step pass, `none` never does, `pause` and `roll_back` act at once.
        reason: in words, with the counts.
    """

    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Question:
    """What a judge is asked.

    Attributes:
        evidence: what the judge's last answer in this rollout kept; empty: nothing yet.
        seen: the step's hosts by their reports.
        hosts: reports of all hosts of the plan's tiers.
        silent: agents that are not alive.
    """

    plan: Plan
    rollout: Rollout
    evidence: bytes
    seen: Tally
    hosts: Sequence[HostKey]
    silent: Silent
    now: datetime


@dataclass(frozen=True)
class Answer:
    """A ruling, and what the judge wants to remember, as JSON; it is kept in Consul, so that a next leader goes on."""

    ruling: Ruling
    evidence: bytes


class Judge(Protocol):
    """Gives rulings. Asked again and again while a step's hosts serve; must not block."""

    async def ask(self, question: Question) -> Answer:
        """The ruling as of now. An error counts as `none`."""


def by_reports(plan: Plan, rollout: Rollout, seen: Tally) -> Ruling:
    """What the agents' own reports say: several failed proofs roll back, too few hosts say nothing."""
    budget = plan.steps[rollout.phase.step].rule.budget
    if is_condemned(seen, budget):
        which = ", ".join(f"{name}: {seen.failed[name]}" for name in seen.unproved[:3])
        return Ruling("roll_back", f"{len(seen.unproved)} of {seen.host_count} hosts failed the proof ({which})")
    why = doubt(seen)
    if why is not None:
        return Ruling("none", why)
    return Ruling("pass", f"{len(seen.good)} of {seen.host_count} hosts run the build, steadily")


def worst(rulings: Sequence[Ruling]) -> Ruling:
    """The ruling that counts among several: the most severe one, and all reasons that are as severe."""
    outcome = max((ruling.outcome for ruling in rulings), key=_SEVERITY.index)
    return Ruling(outcome, "; ".join(ruling.reason for ruling in rulings if ruling.outcome == outcome))
