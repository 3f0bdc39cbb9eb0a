"""Before a rollout starts: what is in its way, what its commander confirms, which tiers it leaves out.

Making the plan is left to `checkpoint.rollout.plan`, starting it to `checkpoint.actions`. In the order of reading: a
`Situation` is what stands there; `checklist` judges it, and a plan, in `Line`s; `Skipped` is what a hotfix passes by;
`prospect` reads all of it, and the commits, for commands and pages alike.
"""

from checkpoint.starting.checklist import Line, Situation, checklist, commands_of
from checkpoint.starting.confirming import asked_of, check_confirmed
from checkpoint.starting.path import Skipped, first_tier_of, skipped
from checkpoint.starting.prospect import Prospect, check_manifest, check_reachable, prospect

__all__ = [
    "Line",
    "Prospect",
    "Situation",
    "Skipped",
    "asked_of",
    "check_confirmed",
    "check_manifest",
    "check_reachable",
    "checklist",
    "commands_of",
    "first_tier_of",
    "prospect",
    "skipped",
]
