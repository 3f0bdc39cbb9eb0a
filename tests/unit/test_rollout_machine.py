"""How a rollout goes on: what every event does in every phase, and what no sequence of events can do."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from msgspec.structs import replace

from artifact import IllegalTransition
from checkpoint.rollout import events as ev
from checkpoint.rollout import states as st
from checkpoint.rollout.machine import advance, begin
from tests.rollout_world import MONDAY, PIPELINE, a_plan, by

GATED = PIPELINE.replace('name = "canary"', 'name = "canary"\napproval = true\nsmoke_test = { command = ["true"] }')
PLAN = a_plan(GATED)
LAST = len(PLAN.steps) - 1
HOLD = st.Hold(kind="window", message="closed")

OBSERVATIONS: tuple[ev.Observation, ...] = (
    ev.StepHeld((HOLD,)),
    ev.StepAllowed(),
    ev.HostsArrived(2, {"web-9": "silent"}),
    ev.BakeElapsed(),
    ev.SmokeTestPassed("ok"),
    ev.VerdictGiven("fine"),
    ev.VerdictWanting("no data"),
    ev.TroubleSeen("budget", "3 hosts are not there"),
    ev.BuildCondemned("17 times as many errors"),
    ev.ClosingSeen(MONDAY + timedelta(hours=1)),
    ev.HostRejoined("prod", "web-9"),
)
COMMANDS: tuple[ev.Command, ...] = (
    ev.PauseRequested(),
    ev.ResumeRequested({"staging": 2, "canary": 2, "prod": 2}),
    ev.ApproveRequested(),
    ev.AdvanceRequested(),
    ev.AbortRequested(),
    ev.RollbackRequested(),
    ev.SetAsideRequested("prod", "web-9"),
    ev.OverrideRequested(timedelta(minutes=30)),
    ev.OverrideRequested(timedelta()),
    ev.ClosingDecided("hold", MONDAY, MONDAY),
    ev.ClosingDecided("finish", MONDAY, MONDAY + timedelta(hours=1)),
    ev.ClosingDecided("finish"),
)


def after(*events: ev.Event) -> st.Rollout:
    rollout, _ = begin(PLAN, by())
    for event in events:
        rollout, _ = advance(rollout, PLAN, event, by())
    return rollout


PASSED_STAGING = (ev.StepAllowed(), ev.HostsArrived(2, {}), ev.BakeElapsed(), ev.VerdictGiven("fine"))


def test_a_step_with_every_gate_passes_one_by_one() -> None:
    """Ordered, arrived, baked, tested, judged, approved; each written down before the next."""
    rollout = after(*PASSED_STAGING)
    seen = []
    for event in (
        ev.StepAllowed(),
        ev.HostsArrived(3, {}),
        ev.BakeElapsed(),
        ev.SmokeTestPassed("ok"),
        ev.VerdictGiven("fine"),
        ev.ApproveRequested(),
    ):
        rollout, effects = advance(rollout, PLAN, event, by())
        assert [type(effect) for effect in effects][-1] is ev.Note
        seen.append((rollout.phase_name, rollout.phase.step))
    assert seen == [("deploying", 1), ("baking", 1), ("testing", 1), ("judging", 1), ("approving", 1), ("ready", 2)]


def test_an_order_is_placed_with_the_phase_that_waits_for_it() -> None:
    rollout, effects = advance(after(), PLAN, ev.StepAllowed(), by())
    assert effects[0] == ev.PlaceOrder(0)
    assert (rollout.phase, rollout.reached, rollout.ordered) == (
        st.Deploying(step=0, since=MONDAY),
        ("staging",),
        MONDAY,
    )


def test_a_rollback_names_exactly_the_tiers_that_were_reached() -> None:
    first, effects = advance(after(), PLAN, ev.RollbackRequested(), by(reason="no"))
    assert effects[0] == ev.PlaceRollback((), "no")
    assert isinstance(first.phase, st.RolledBack)
    _, effects = advance(after(*PASSED_STAGING, ev.StepAllowed()), PLAN, ev.BuildCondemned("errors"), by())
    assert effects[0] == ev.PlaceRollback(("staging", "canary"), "errors")


def test_resuming_checks_the_step_anew_and_orders_again_only_what_is_not_ours() -> None:
    baking = (ev.StepAllowed(), ev.HostsArrived(2, {}))
    assert after(*baking, ev.PauseRequested(), ev.ResumeRequested({})).phase == st.Deploying(step=0, since=MONDAY)
    before = after(ev.PauseRequested(), ev.ResumeRequested({})).phase
    assert before == st.Ready(step=0, since=MONDAY)
    for cause in ("order_replaced", "store_went_back"):
        replaced = after(*baking, ev.TroubleSeen(cause, "x"), ev.ResumeRequested({"staging": 9}))  # type: ignore[arg-type]
        assert replaced.phase == st.Ready(step=0, since=MONDAY, is_accepted=True)
        assert replaced.serials["staging"] == 9


@pytest.mark.parametrize("command", COMMANDS, ids=repr)
def test_a_command_twice_is_a_command_once(command: ev.Command) -> None:
    """In every phase: the second time nothing is to be written, but for advancing, which is on to the next step."""
    for rollout in phases():
        once, _ = advance(rollout, PLAN, command, by())
        if isinstance(command, ev.AdvanceRequested) and once != rollout:
            continue
        if isinstance(command, ev.OverrideRequested) and command.length:
            continue  # its end is moved
        twice, effects = advance(once, PLAN, command, by())
        assert (twice, effects) == (once, ())


def phases() -> list[st.Rollout]:
    """A rollout in every phase."""
    start = after(*PASSED_STAGING)
    found = [start]
    for event in (
        ev.StepAllowed(),
        ev.HostsArrived(3, {}),
        ev.BakeElapsed(),
        ev.SmokeTestPassed(""),
        ev.VerdictGiven(""),
    ):
        found.append(advance(found[-1], PLAN, event, by())[0])
    for command in (ev.PauseRequested(), ev.AbortRequested(), ev.RollbackRequested()):
        found.append(advance(found[-1] if command == ev.PauseRequested() else found[1], PLAN, command, by())[0])
    finished = replace(found[-1], phase=st.Finished(step=LAST, since=MONDAY))
    assert {type(rollout.phase) for rollout in [*found, finished]} == set(st.NAMES)
    return [*found, finished]


@pytest.mark.parametrize("observation", OBSERVATIONS, ids=lambda each: type(each).__name__)
def test_an_observation_that_cannot_be_made_is_a_programming_error(observation: ev.Observation) -> None:
    """Nothing is observed of a rollout that has ended, and hosts cannot arrive before a step is ordered."""
    ended = [rollout for rollout in phases() if rollout.is_ended]
    for rollout in ended:
        with pytest.raises(IllegalTransition):
            advance(rollout, PLAN, observation, by())
    if isinstance(observation, (ev.HostsArrived, ev.BakeElapsed, ev.SmokeTestPassed, ev.VerdictGiven)):
        with pytest.raises(IllegalTransition):
            advance(after(), PLAN, observation, by())


@settings(max_examples=400, deadline=None)
@given(some.lists(some.sampled_from((*OBSERVATIONS, *COMMANDS)), max_size=40))
def test_no_sequence_of_events_breaks_the_rules(events: list[ev.Event]) -> None:
    """Orders come only by StepAllowed, one step after the other; what has ended goes nowhere but back."""
    rollout, _ = begin(PLAN, by())
    ordered: list[int] = []
    for event in events:
        try:
            following, effects = advance(rollout, PLAN, event, by())
        except IllegalTransition:
            continue
        if not effects:
            assert following == rollout
        else:
            assert sum(isinstance(effect, ev.Note) for effect in effects) == 1
        placed = [effect.step for effect in effects if isinstance(effect, ev.PlaceOrder)]
        if placed:
            assert isinstance(event, ev.StepAllowed)
            assert placed == [rollout.phase.step]
            assert not ordered or placed[0] in {ordered[-1], ordered[-1] + 1}
            ordered += placed
        if rollout.is_ended and following != rollout:
            assert isinstance(following.phase, st.RolledBack)
        if isinstance(rollout.phase, st.Paused) and following != rollout:
            left = (ev.ResumeRequested, ev.AdvanceRequested, ev.AbortRequested, ev.RollbackRequested, ev.BuildCondemned)
            assert isinstance(following.phase, st.Paused) or isinstance(event, left)
        assert 0 <= following.phase.step - rollout.phase.step <= 1
        assert tuple(dict.fromkeys(PLAN.steps[step].rule.tier for step in ordered)) == following.reached
        rollout = following
