"""A rollout: its plan, where it stands, how it goes on, and how that is written.

Who lets it go on is left to `checkpoint.engine` and to people, by `checkpoint.actions`. In the order of reading: a
`Plan` says which hosts each step reaches; a `Rollout` is where it stands; `next_event` says what happens now, from all
that is `Seen`; `advance` what follows; the `Ledger` writes it. A `Judge` gives rulings, a `Picture` shows it to people.
"""

from checkpoint.rollout.events import Command, Effect, Event, Observation, Origin
from checkpoint.rollout.ledger import Ledger, Ongoing, Surroundings, Written
from checkpoint.rollout.machine import advance, begin
from checkpoint.rollout.picture import Picture
from checkpoint.rollout.plan import Plan, StepPlan, TierPlan, make_plan
from checkpoint.rollout.states import NAMES, Phase, Rollout
from checkpoint.rollout.tally import Tally
from checkpoint.rollout.verdict import Answer, Judge, Question, Ruling
from checkpoint.rollout.watching import Seen, next_event

__all__ = [
    "NAMES",
    "Answer",
    "Command",
    "Effect",
    "Event",
    "Judge",
    "Ledger",
    "Observation",
    "Ongoing",
    "Origin",
    "Phase",
    "Picture",
    "Plan",
    "Question",
    "Rollout",
    "Ruling",
    "Seen",
    "StepPlan",
    "Surroundings",
    "Tally",
    "TierPlan",
    "Written",
    "advance",
    "begin",
    "make_plan",
    "next_event",
]
