"""Owns what people are told to do next about a rollout. Pure.

Where it is said is left to the front ends: commands, pages and messages.
"""

from __future__ import annotations

from checkpoint.rollout import states as st
from checkpoint.rollout.plan import Plan


def following(plan: Plan, rollout: st.Rollout) -> str:  # noqa: C901, PLR0911 - a row for each phase
    """What to do next, in a sentence; a command where somebody must act."""
    app = f"--app {plan.app}"
    match rollout.phase:
        case st.Approving():
            return f"look at {plan.steps[rollout.phase.step].rule.tier}, then: hotcold rollout approve {app}"
        case st.Paused(cause="budget"):
            return (
                f"look at the hosts that are named; then hotcold rollout set-aside HOST {app}, rollout resume {app}, "
                f"or rollout rollback {app}"
            )
        case st.Paused():
            return f"hotcold rollout resume {app}, or hotcold rollout rollback {app}"
        case st.Ready(holds=holds) if any(hold.kind == "closing" for hold in holds):
            return f"hotcold rollout decide finish {app}, rollout decide hold {app}, or rollout rollback {app}"
        case st.Ready(holds=holds) if any(hold.kind == "commander" for hold in holds):
            return f"hotcold commander take {app}"
        case st.Ready(holds=holds) if any(hold.kind == "lock" for hold in holds):
            return f"hotcold rollout unlock {app}"
        case st.Judging(wanting=wanting) if wanting:
            return f"find out why there is no verdict; hotcold rollout advance {app} passes over it"
        case st.RolledBack():
            return f"find out what was wrong with {rollout.build_id}; then hotcold rollout unlock {app}"
        case st.Aborted():
            return f"hotcold rollout rollback {app}, if {', '.join(rollout.reached) or 'nothing'} shall not stay so"
        case st.Finished():
            return "nothing: every tier runs it"
        case _:
            return "nothing: it goes on by itself"
