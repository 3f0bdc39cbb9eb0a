"""Owns what happens to a rollout, and what follows: events in the past tense, effects in the imperative.

Which effects an event has is left to `checkpoint.rollout.machine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from checkpoint.rollout.states import Hold, PauseCause


@dataclass(frozen=True)
class Origin:
    """Who did it.

    Attributes:
        by: a person, as `anna@deploy-1`, or `checkpoint@host` for the engine.
        via: where from.
        reason: why.
        at: when, aware.
        decided_on: index that the decision was made on; None: what stood there at the time.
    """

    by: str
    via: Literal["engine", "cli", "ui"]
    reason: str
    at: datetime
    decided_on: int | None = None


@dataclass(frozen=True)
class StepHeld:
    """The next step may not begin yet."""

    holds: tuple[Hold, ...]


@dataclass(frozen=True)
class StepAllowed:
    """Nothing holds the next step."""


@dataclass(frozen=True)
class HostsArrived:
    """The step's hosts run the build, but for what the budget allows. `missing` names those, with what they do."""

    good_count: int
    missing: Mapping[str, str]


@dataclass(frozen=True)
class BakeElapsed:
    """The bake time is over, and the hosts are still well."""


@dataclass(frozen=True)
class SmokeTestPassed:
    """The command exited with 0."""

    said: str


@dataclass(frozen=True)
class VerdictGiven:
    """A verdict that lets the step pass."""

    reason: str


@dataclass(frozen=True)
class VerdictWanting:
    """No verdict can be given: that never promotes."""

    reason: str


@dataclass(frozen=True)
class TroubleSeen:
    """Something that only a person can judge: pause."""

    cause: PauseCause
    reason: str


@dataclass(frozen=True)
class BuildCondemned:
    """Evidence against the build: roll back."""

    reason: str


@dataclass(frozen=True)
class ClosingSeen:
    """The tier will not be through before its window closes: somebody must choose."""

    closes: datetime


@dataclass(frozen=True)
class HostRejoined:
    """A host that was set aside does what the order asks."""

    tier: str
    host: str


Observation = (
    StepHeld
    | StepAllowed
    | HostsArrived
    | BakeElapsed
    | SmokeTestPassed
    | VerdictGiven
    | VerdictWanting
    | TroubleSeen
    | BuildCondemned
    | ClosingSeen
    | HostRejoined
)
"""What the engine sees."""


@dataclass(frozen=True)
class PauseRequested:
    """Stay where it is."""


@dataclass(frozen=True)
class ResumeRequested:
    """Go on. `serials` are those of the tiers' orders as they stand: what somebody else ordered is replaced next."""

    serials: Mapping[str, int]


@dataclass(frozen=True)
class ApproveRequested:
    """Let the present step pass its approval."""


@dataclass(frozen=True)
class AdvanceRequested:
    """On to the next step, whatever the present one still waits for."""


@dataclass(frozen=True)
class AbortRequested:
    """Stop for good where it is."""


@dataclass(frozen=True)
class RollbackRequested:
    """Everything back."""


@dataclass(frozen=True)
class SetAsideRequested:
    """Do not wait for a host."""

    tier: str
    host: str


@dataclass(frozen=True)
class TakeBackRequested:
    """Wait for a host again that was set aside."""

    tier: str
    host: str


@dataclass(frozen=True)
class OverrideRequested:
    """Pierce windows, freezes, locks and slots for so long; zero: no longer."""

    length: timedelta


@dataclass(frozen=True)
class ClosingDecided:
    """What becomes of a tier that will not be through before it closes at `closes`: `finish` holds until `until`.

    Whoever decides need not know either; `closes` None: no closing is in question.
    """

    choice: Literal["finish", "hold"]
    closes: datetime | None = None
    until: datetime | None = None


Command = (
    PauseRequested
    | ResumeRequested
    | ApproveRequested
    | AdvanceRequested
    | AbortRequested
    | RollbackRequested
    | SetAsideRequested
    | TakeBackRequested
    | OverrideRequested
    | ClosingDecided
)
"""What people ask for."""

Event = Observation | Command


@dataclass(frozen=True)
class PlaceOrder:
    """Write the step's order into its tier, with the state."""

    step: int


@dataclass(frozen=True)
class PlaceRollback:
    """Order the tiers back, lock the app and deny the build, with the state."""

    tiers: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Note:
    """Add a record to the audit, with the state."""

    what: str
    message: str


Effect = PlaceOrder | PlaceRollback | Note
