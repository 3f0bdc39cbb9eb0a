"""The state machine: one story per rule, and a walk through every state and event."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import events as ev
from agent import states as s
from agent.machine import AWAITED, advance, wake
from artifact import IllegalTransition, ManifestRef
from fleet import Problem

PROBLEM = Problem(kind="test", message="made to fail")


def build(name: str) -> ManifestRef:
    digest = f"sha256:{ord(name[-1]):064x}"
    return ManifestRef(id=name, urls=(f"http://127.0.0.1/{name}",), digest=digest, size=1, format="tar")


def tree(name: str, number: int = 1, *, proved: bool = True) -> s.Tree:
    return s.Tree(f"{name}~{number}", name, build(name).digest, proved)


def goal(name: str | None, serial: int = 1, slots: int | None = None) -> s.Goal:
    return s.Goal(serial, None if name is None else build(name), slots)


A, B, C = tree("a"), tree("b"), tree("c")
FRESH_B = tree("b", proved=False)


def started(facts: s.Facts) -> s.Model:
    model, _ = wake(facts, is_out_of_service=False)
    return model


def play(model: s.Model, *script: ev.Event) -> tuple[s.Model, list[ev.Effect]]:
    """Feed the events; the last model and the effects of the last event."""
    effects: tuple[ev.Effect, ...] = ()
    for event in script:
        model, effects = advance(model, event)
    return model, list(effects)


def swapped(hot: s.Tree, *others: s.Tree) -> ev.SwapFinished:
    return ev.SwapFinished(s.Trees(replace(hot, proved=False), next((t for t in others if t.proved), None), others))


def test_first_deploy_on_a_bare_host() -> None:
    """A bare host fetches, drains nobody, swaps, proves, and is steady."""
    model, effects = play(started(s.Facts()), ev.OrderSeen(goal("b")))
    assert isinstance(model.state, s.Fetching)
    assert effects == [ev.CancelWork(), ev.StartFetch(build("b"), is_repull=False)]

    model, effects = play(model, ev.FetchFinished(FRESH_B))
    assert (model.state, effects) == (s.Staged(FRESH_B), [ev.RunStagedHook(FRESH_B)])
    model, effects = play(model, ev.StagedPassed())
    assert (model.state, effects) == (s.Draining(FRESH_B), [ev.StartDrain(FRESH_B)])
    model, effects = play(model, ev.DrainFinished())
    assert (model.state, effects) == (s.Swapping(FRESH_B), [ev.SwapIn(FRESH_B)])
    model, effects = play(model, swapped(FRESH_B))
    assert (model.state, effects) == (s.Proving(FRESH_B), [ev.StartProving(FRESH_B)])
    model, effects = play(model, ev.ProofFinished(B))
    assert (model.state, effects) == (s.Steady(), [ev.ReleaseSlot(), ev.CollectGarbage()])
    assert model.facts.hot == B


def test_build_on_disk_is_not_fetched() -> None:
    """Going back to a build whose tree is still there starts at once, without any fetch, and ends a clean-up."""
    model = started(s.Facts(goal=goal("b"), hot=B, standby=A, ready=(A,)))

    model, effects = play(model, ev.OrderSeen(goal("a", 2)))

    assert (model.state, effects) == (s.Staged(A), [ev.CancelWork(), ev.RunStagedHook(A)])


def test_failed_proof_goes_back_and_refuses() -> None:
    """A build that fails its proof is recorded as refused before the links go back, and stays refused."""
    model = s.Model(s.Facts(goal=goal("b"), hot=FRESH_B, standby=A, ready=(A,)), s.Proving(FRESH_B))

    model, effects = play(model, ev.ProofFailed(PROBLEM))
    refusal = s.Refusal(1, "b", build("b").digest, PROBLEM, swapped=True)
    assert model.state == s.GoingBack(A, refusal)
    assert effects == [ev.RecordRefusal(refusal), ev.SwapBack(A)]

    model, effects = play(model, ev.SwapBackFinished(s.Trees(A, None, (FRESH_B,))))
    assert (model.state, effects) == (s.RolledBack(refusal), [ev.ReleaseSlot(), ev.CollectGarbage()])
    model, effects = play(model, ev.OrderSeen(goal("b")))
    assert (model.state, effects) == (s.RolledBack(refusal), [])


def test_new_serial_lifts_a_refusal() -> None:
    """The same build under a new serial is tried again."""
    refusal = s.Refusal(1, "b", build("b").digest, PROBLEM, swapped=True)
    model = started(s.Facts(goal=goal("b"), hot=A, refusal=refusal))
    assert model.state == s.RolledBack(refusal)

    model, effects = play(model, ev.OrderSeen(goal("b", 2)))

    assert isinstance(model.state, s.Fetching)
    assert effects == [ev.RecordRefusal(None), ev.CancelWork(), ev.StartFetch(build("b"), is_repull=False)]


def test_first_deploy_that_fails_its_proof_is_refused_where_it_is() -> None:
    """With nothing to go back to, the failed build stays hot and says so; it is not proved again and again."""
    model = s.Model(s.Facts(goal=goal("b"), hot=FRESH_B), s.Proving(FRESH_B))

    model, effects = play(model, ev.ProofFailed(PROBLEM))

    assert isinstance(model.state, s.BuildRefused)
    assert effects == [ev.RecordRefusal(model.state.refusal), ev.ReleaseSlot(), ev.CollectGarbage()]


@pytest.mark.parametrize("is_final", [True, False])
def test_failed_fetch(*, is_final: bool) -> None:
    """Only an artifact that is itself at fault is refused; anything else is tried again, later each time."""
    model = started(s.Facts(goal=goal("b"), hot=A))

    model, effects = play(model, ev.FetchFailed(PROBLEM, is_final=is_final))

    if is_final:
        assert isinstance(model.state, s.BuildRefused)
        assert effects == [ev.RecordRefusal(model.state.refusal), ev.CollectGarbage()]
    else:
        assert (model.state, effects) == (s.BackingOff(PROBLEM, 1), [ev.AwaitRetry(1)])
        model, effects = play(model, ev.RetryDue(s.Trees(A)), ev.FetchFailed(PROBLEM, is_final=False))
        assert effects == [ev.AwaitRetry(2)]


def test_tree_that_disappeared_is_fetched_again() -> None:
    """A retry sees the disk as it is now."""
    model = s.Model(s.Facts(goal=goal("a", 2), hot=B, standby=A, ready=(A,)), s.Staged(A))

    model, effects = play(model, ev.StagedFailed(PROBLEM, is_final=False), ev.RetryDue(s.Trees(B)))

    assert effects == [ev.StartFetch(build("a"), is_repull=False)]


def test_failed_drain_returns_to_service() -> None:
    """A drain that is given up leaves the old build in service, and is tried again."""
    model = s.Model(s.Facts(goal=goal("b"), hot=A, ready=(B,)), s.Draining(B))

    model, effects = play(model, ev.DrainFailed(PROBLEM))

    assert model.state == s.BackingOff(PROBLEM, 1)
    assert effects == [ev.ReturnToService(), ev.ReleaseSlot(), ev.AwaitRetry(1)]


def test_slots_are_taken_only_where_the_order_says_so() -> None:
    """With `max_unavailable` the host waits for a slot before it drains."""
    model = s.Model(s.Facts(goal=goal("b", slots=2), hot=A, ready=(B,)), s.Staged(B))

    model, effects = play(model, ev.StagedPassed())
    assert (model.state, effects) == (s.WaitingForSlot(B), [ev.AcquireSlot(2)])
    model, effects = play(model, ev.SlotTaken())
    assert (model.state, effects) == (s.Draining(B), [ev.StartDrain(B)])


def test_lost_slot_ends_the_drain() -> None:
    """A holder that lost its session starts nothing new: it returns to service and waits again."""
    model = s.Model(s.Facts(goal=goal("b", slots=2), hot=A, ready=(B,)), s.Draining(B))

    model, effects = play(model, ev.SlotLost())

    assert model.state == s.WaitingForSlot(B)
    assert effects == [ev.CancelWork(), ev.ReturnToService(), ev.AcquireSlot(2)]


@pytest.mark.parametrize(
    ("state", "ending"),
    [
        (s.Fetching(build("b")), [ev.CancelWork()]),
        (s.BackingOff(PROBLEM, 3), [ev.CancelWork()]),
        (s.Staged(B), [ev.CancelWork()]),
        (s.WaitingForSlot(B), [ev.CancelWork(), ev.ReleaseSlot()]),
        (s.Draining(B), [ev.CancelWork(), ev.ReturnToService(), ev.ReleaseSlot()]),
    ],
)
def test_newer_order_supersedes_before_the_swap(state: s.State, ending: list[ev.Effect]) -> None:
    """Whatever is under way before the swap ends, and the newer order is pursued."""
    model = s.Model(s.Facts(goal=goal("b"), hot=A), state)

    model, effects = play(model, ev.OrderSeen(goal("c", 2)))

    assert model.state == s.Fetching(build("c"))
    assert effects == [*ending, ev.StartFetch(build("c"), is_repull=False)]


@pytest.mark.parametrize("state", [s.Fetching(build("b")), s.Staged(B), s.Draining(B), s.Proving(B)])
def test_newer_serial_of_the_same_build_disturbs_nothing(state: s.State) -> None:
    """A rise of the percentage must not restart the hosts that are under way."""
    model = s.Model(s.Facts(goal=goal("b"), hot=A, ready=(B,)), state)

    after, effects = play(model, ev.OrderSeen(goal("b", 2)))

    assert (after.state, effects) == (state, [])
    assert after.facts.goal == goal("b", 2)


def test_order_for_what_is_hot_ends_a_fetch() -> None:
    """A rollback that comes while the new build is still being fetched leaves the host steady at once."""
    model = s.Model(s.Facts(goal=goal("b"), hot=A), s.Fetching(build("b")))

    model, effects = play(model, ev.OrderSeen(goal("a", 2)))

    assert (model.state, effects) == (s.Steady(), [ev.CancelWork(), ev.CollectGarbage()])


def test_swap_is_never_interrupted() -> None:
    """An order during the swap waits for its end; then the proved tree comes back before anything else."""
    model = s.Model(s.Facts(goal=goal("b"), hot=A, ready=(B,)), s.Swapping(B))

    model, effects = play(model, ev.OrderSeen(goal("c", 2)))
    assert (model.state, effects) == (s.Swapping(B), [])
    model, effects = play(model, swapped(B, A))
    assert (model.state, effects) == (s.GoingBack(A, None), [ev.SwapBack(A)])
    model, effects = play(model, ev.SwapBackFinished(s.Trees(A, B, (B,))))
    assert model.state == s.Fetching(build("c"))


def test_rollback_while_proving_is_one_swap() -> None:
    """A rollback that supersedes a proof goes straight back; nothing is refused."""
    model = s.Model(s.Facts(goal=goal("b"), hot=FRESH_B, standby=A, ready=(A,)), s.Proving(FRESH_B))

    model, effects = play(model, ev.OrderSeen(goal("a", 2)))
    assert (model.state, effects) == (s.GoingBack(A, None), [ev.CancelWork(), ev.SwapBack(A)])
    model, effects = play(model, ev.SwapBackFinished(s.Trees(A, None, (FRESH_B,))))
    assert (model.state, effects) == (s.Steady(), [ev.ReleaseSlot(), ev.CollectGarbage()])
    assert model.facts.refusal is None


def test_swap_back_that_fails_is_tried_for_ever() -> None:
    """Going back never gives up, and waits longer each time."""
    model = s.Model(s.Facts(goal=goal("b"), hot=FRESH_B, standby=A, ready=(A,)), s.Proving(FRESH_B))
    model, _ = play(model, ev.ProofFailed(PROBLEM))

    model, effects = play(model, ev.SwapBackFailed(PROBLEM))
    assert effects == [ev.AwaitRetry(1)]
    model, effects = play(model, ev.RetryDue(s.Trees(FRESH_B, A, (A,))))
    assert isinstance(model.state, s.GoingBack)
    assert effects == [ev.SwapBack(A)]


def test_swap_back_that_took_place_all_the_same_returns_to_service() -> None:
    """The links went back but the call failed: the retry sees it, returns to service and gives the slot back."""
    refusal = s.Refusal(1, "b", build("b").digest, PROBLEM, swapped=True)
    facts = s.Facts(goal=goal("b"), hot=FRESH_B, standby=A, ready=(A,), refusal=refusal)

    model, effects = play(s.Model(facts, s.GoingBack(A, refusal)), ev.RetryDue(s.Trees(A, None, (FRESH_B,))))

    returning = [ev.ReturnToService(), ev.ReleaseSlot()]
    assert (model.state, effects) == (s.RolledBack(refusal), [*returning, ev.CollectGarbage()])


def test_failed_proof_without_an_order_for_it_goes_back() -> None:
    """An order that no longer names the build leaves nothing to refuse, but the proved tree still comes back."""
    model = s.Model(s.Facts(goal=goal(None, 2), hot=FRESH_B, standby=A, ready=(A,)), s.Proving(FRESH_B))

    model, effects = play(model, ev.ProofFailed(PROBLEM))

    assert (model.state, effects) == (s.GoingBack(A, None), [ev.SwapBack(A)])


def test_repull_fetches_what_is_hot_and_swaps() -> None:
    """A re-pull uses nothing that is on disk, and ends with the new tree hot."""
    model = started(s.Facts(goal=goal("b"), hot=B, standby=A, ready=(A,)))
    again = tree("b", 2, proved=False)

    model, effects = play(model, ev.RepullRequested())
    assert effects == [ev.CancelWork(), ev.StartFetch(build("b"), is_repull=True)]
    model, effects = play(model, ev.FetchFinished(again))
    assert effects == [ev.RunStagedHook(again)]
    model, effects = play(model, ev.StagedPassed(), ev.DrainFinished(), swapped(again, B))
    assert effects == [ev.StartProving(again)]
    model, effects = play(model, ev.ProofFinished(replace(again, proved=True)))
    assert model.state == s.Steady()


def test_repull_tries_what_is_refused() -> None:
    """The operator's re-pull outweighs a refusal."""
    refusal = s.Refusal(1, "b", build("b").digest, PROBLEM, swapped=True)
    model = started(s.Facts(goal=goal("b"), hot=A, refusal=refusal))

    model, effects = play(model, ev.RepullRequested())

    assert effects == [ev.RecordRefusal(None), ev.CancelWork(), ev.StartFetch(build("b"), is_repull=True)]


def test_forgetting_tries_what_is_refused_again() -> None:
    """What is on the disk is used; the refusal is dropped durably; where nothing is refused, nothing happens."""
    refusal = s.Refusal(1, "b", build("b").digest, PROBLEM, swapped=True)
    model = started(s.Facts(goal=goal("b"), hot=A, standby=B, ready=(B,), refusal=refusal))
    assert model.state == s.RolledBack(refusal)

    model, effects = play(model, ev.RefusalLifted())
    assert (model.state, model.facts.refusal) == (s.Staged(B), None)
    assert effects == [ev.RecordRefusal(None), ev.CancelWork(), ev.RunStagedHook(B)]
    assert play(model, ev.RefusalLifted()) == (model, [])


def test_forgetting_while_going_back_or_held_starts_nothing_now() -> None:
    """The swap back is finished first, and a hold keeps; then the build is tried again."""
    refusal = s.Refusal(1, "b", build("b").digest, PROBLEM, swapped=True)
    facts = s.Facts(goal=goal("b"), hot=FRESH_B, standby=A, ready=(A,), refusal=refusal)
    model, effects = play(s.Model(facts, s.GoingBack(A, refusal)), ev.RefusalLifted())
    assert (model.state, effects) == (s.GoingBack(A, refusal), [ev.RecordRefusal(None)])
    model, _ = play(model, ev.SwapBackFinished(s.Trees(A, None, (B,))))
    assert model.state == s.Staged(B)

    held = started(s.Facts(goal=goal("b"), hot=A, refusal=refusal, hold="h"))
    model, effects = play(held, ev.RefusalLifted())
    assert (model.state, effects) == (s.Held("h"), [ev.RecordRefusal(None)])


def test_repull_survives_a_failed_drain() -> None:
    """The tree that the re-pull made is used at the next attempt, not fetched a third time."""
    again = tree("b", 2, proved=False)
    model, _ = play(
        started(s.Facts(goal=goal("b"), hot=B)),
        ev.RepullRequested(),
        ev.FetchFinished(again),
        ev.StagedPassed(),
        ev.DrainFailed(PROBLEM),
    )

    model, effects = play(model, ev.RetryDue(s.Trees(B, None, (again,))))

    assert effects == [ev.RunStagedHook(again)]


def test_repull_with_nothing_ordered_does_nothing() -> None:
    """There is nothing to pull."""
    model = started(s.Facts())

    assert play(model, ev.RepullRequested()) == (model, [])


def test_hold_stops_everything_before_the_swap_and_nothing_after() -> None:
    """A held host starts nothing; what is hot and unproved is still proved."""
    draining = s.Model(s.Facts(goal=goal("b"), hot=A, ready=(B,)), s.Draining(B))
    model, effects = play(draining, ev.HoldPlaced("looking"))
    assert model.state == s.Held("looking")
    assert effects == [ev.CancelWork(), ev.ReturnToService(), ev.ReleaseSlot()]
    model, effects = play(model, ev.OrderSeen(goal("c", 2)))
    assert (model.state, effects) == (s.Held("looking"), [])
    model, effects = play(model, ev.HoldLifted())
    assert model.state == s.Fetching(build("c"))

    proving = s.Model(s.Facts(goal=goal("b"), hot=FRESH_B, standby=A), s.Proving(FRESH_B))
    model, effects = play(proving, ev.HoldPlaced("looking"))
    assert (model.state, effects) == (s.Proving(FRESH_B), [])
    model, effects = play(model, ev.ProofFinished(B))
    assert model.state == s.Held("looking")


def test_host_beyond_the_cutoff_without_previous_keeps_what_it_has() -> None:
    """An order that names no build for this host changes nothing."""
    model = started(s.Facts(goal=goal("b"), hot=B))

    model, effects = play(model, ev.OrderSeen(goal(None, 2)))

    assert (model.state, effects) == (s.Steady(), [ev.CancelWork(), ev.CollectGarbage()])


def test_clean_up_waits_until_a_hold_is_lifted() -> None:
    """A host that must not change now does not change: the hold ends a clean-up, its end begins one."""
    model = started(s.Facts(goal=goal("b"), hot=B, standby=A, ready=(A,)))

    model, effects = play(model, ev.HoldPlaced("h"))
    assert (model.state, effects) == (s.Held("h"), [ev.CancelWork()])
    model, effects = play(model, ev.HoldLifted())
    assert (model.state, effects) == (s.Steady(), [ev.CollectGarbage()])


def test_unproved_build_without_order_is_proved_again_later() -> None:
    """Where no order names the build and nothing is there to go back to, the proof is repeated with back-off."""
    model = s.Model(s.Facts(goal=goal(None), hot=FRESH_B), s.Proving(FRESH_B))

    model, effects = play(model, ev.ProofFailed(PROBLEM))

    assert isinstance(model.state, s.BackingOff)
    assert effects[-1] == ev.AwaitRetry(1)


@pytest.mark.parametrize(
    ("facts", "state", "effects"),
    [
        (s.Facts(), s.Steady(), [ev.CollectGarbage()]),
        (s.Facts(goal=goal("b"), hot=B), s.Steady(), [ev.CollectGarbage()]),
        (s.Facts(goal=goal("b"), hot=A), s.Fetching(build("b")), [ev.StartFetch(build("b"), is_repull=False)]),
        (s.Facts(goal=goal("b"), hot=A, ready=(B,)), s.Staged(B), [ev.RunStagedHook(B)]),
        (s.Facts(goal=goal("b"), hot=FRESH_B, standby=A), s.Proving(FRESH_B), [ev.StartProving(FRESH_B)]),
        (s.Facts(goal=goal("c"), hot=FRESH_B, standby=A), s.GoingBack(A, None), [ev.SwapBack(A)]),
        (s.Facts(goal=goal("b"), hot=A, hold="h"), s.Held("h"), []),
    ],
)
def test_waking_up(facts: s.Facts, state: s.State, effects: list[ev.Effect]) -> None:
    """Each thing that a crash can leave on disk leads to the state that goes on from there.

    Where nothing is left to do but the former life's clean-up, that is done.
    """
    model, started_effects = wake(facts, is_out_of_service=False)

    assert (model.state, list(started_effects)) == (state, effects)


def test_waking_up_between_refusing_and_going_back() -> None:
    """Killed after the refusal was recorded, before the links went back: the next life goes back."""
    refusal = s.Refusal(1, "b", build("b").digest, PROBLEM, swapped=True)

    model, effects = wake(s.Facts(goal=goal("b"), hot=FRESH_B, standby=A, refusal=refusal), is_out_of_service=True)

    assert (model.state, list(effects)) == (s.GoingBack(A, refusal), [ev.SwapBack(A)])


def test_waking_up_out_of_service_returns_first() -> None:
    """Killed while drained, the host is put back into service before anything else."""
    _, effects = wake(s.Facts(goal=goal("b"), hot=A, ready=(B,)), is_out_of_service=True)

    assert list(effects) == [ev.ReturnToService(), ev.RunStagedHook(B)]


SAMPLE_STATES: list[s.State] = [
    s.Steady(),
    s.Fetching(build("b")),
    s.BackingOff(PROBLEM, 1),
    s.Staged(B),
    s.WaitingForSlot(B),
    s.Draining(B),
    s.Swapping(B),
    s.Proving(FRESH_B),
    s.Watching(B),
    s.GoingBack(A, None),
    s.RolledBack(s.Refusal(1, "b", "d", PROBLEM, swapped=True)),
    s.BuildRefused(s.Refusal(1, "b", "d", PROBLEM, swapped=False)),
    s.Held("h"),
    s.Halted("h"),
]
SAMPLE_OUTCOMES: list[ev.Outcome] = [
    ev.FetchFinished(FRESH_B),
    ev.FetchFailed(PROBLEM, is_final=False),
    ev.FetchFailed(PROBLEM, is_final=True),
    ev.StagedPassed(),
    ev.StagedFailed(PROBLEM, is_final=True),
    ev.SlotTaken(),
    ev.DrainFinished(),
    ev.DrainFailed(PROBLEM),
    ev.SwapFinished(s.Trees(FRESH_B, A, (A,))),
    ev.SwapFailed(PROBLEM),
    ev.ProofFinished(B),
    ev.ProofFailed(PROBLEM),
    ev.WatchPassed(),
    ev.WatchFailed(PROBLEM),
    ev.SwapBackFinished(s.Trees(A, None, (B,))),
    ev.SwapBackFailed(PROBLEM),
    ev.RetryDue(s.Trees(A)),
]


@pytest.mark.parametrize("state", SAMPLE_STATES, ids=lambda state: type(state).__name__)
@pytest.mark.parametrize("outcome", SAMPLE_OUTCOMES, ids=lambda outcome: type(outcome).__name__)
def test_outcomes_are_legal_only_where_they_are_awaited(state: s.State, outcome: ev.Outcome) -> None:
    """An outcome of nothing under way is a programmer's error; an awaited one always leads on."""
    model = s.Model(s.Facts(goal=goal("b"), hot=A, standby=A, watched="b~1"), state)

    if type(outcome) in AWAITED[type(state)]:
        after, _ = advance(model, outcome)
        assert after != model
    else:
        with pytest.raises(IllegalTransition, match=type(outcome).__name__):
            advance(model, outcome)


def test_samples_cover_all_states_and_outcomes() -> None:
    """The walk above would otherwise miss what is added later."""
    assert {type(state) for state in SAMPLE_STATES} == set(AWAITED)
    assert {type(outcome) for outcome in SAMPLE_OUTCOMES} == {kind for kinds in AWAITED.values() for kind in kinds}


# --- watching ---------------------------------------------------------------------------------------------------------

WATCHED = s.Facts(goal=goal("b"), hot=B, standby=A, ready=(A,), watched=B.name)


def test_a_proved_build_is_watched_in_service_and_then_at_rest() -> None:
    """The slot is given back before the watch begins."""
    proving = s.Model(s.Facts(goal=goal("b", slots=1), hot=FRESH_B, standby=A, ready=(A,)), s.Proving(FRESH_B))
    model, effects = play(proving, ev.ProofFinished(B, is_watched=True))
    assert (model.state, effects) == (s.Watching(B), [ev.ReleaseSlot(), ev.StartWatching(B)])
    model, effects = play(model, ev.WatchPassed())
    assert (model.state, effects) == (s.Steady(), [ev.CollectGarbage()])


def test_a_failed_watch_goes_back_and_refuses() -> None:
    """As a failed proof does; nothing is drained first."""
    model, effects = play(started(WATCHED), ev.WatchFailed(PROBLEM))
    assert model.state == s.GoingBack(A, model.facts.refusal)
    assert effects == [ev.RecordRefusal(model.facts.refusal), ev.SwapBack(A)]
    model, effects = play(model, ev.SwapBackFinished(s.Trees(A, B, (B,))))
    assert isinstance(model.state, s.RolledBack)
    assert effects == [ev.ReleaseSlot(), ev.CollectGarbage()]
    assert started(model.facts).state == model.state, "a restart must not bring it back"


def test_waking_up_between_a_failed_watch_and_going_back() -> None:
    """The tree is recorded as proved; the watch that is recorded too tells that it must go."""
    refusal = s.Refusal(1, "b", B.digest, PROBLEM, swapped=True)
    model, effects = wake(replace(WATCHED, refusal=refusal), is_out_of_service=False)
    assert (model.state, effects) == (s.GoingBack(A, refusal), (ev.SwapBack(A),))


def test_a_failed_watch_with_nothing_to_go_back_to_is_refused_where_it_is() -> None:
    model, _ = play(started(replace(WATCHED, standby=None, ready=())), ev.WatchFailed(PROBLEM))
    assert isinstance(model.state, s.BuildRefused)
    assert started(model.facts).state == model.state


def test_a_repull_that_fails_its_watch_leaves_the_same_build_that_served_before() -> None:
    """What is refused is what was pulled anew, not the tree of the same build that is gone back to."""
    again = tree("b", 2)
    facts = replace(WATCHED, hot=again, standby=B, ready=(B,), watched=again.name)
    model, _ = play(started(facts), ev.WatchFailed(PROBLEM), ev.SwapBackFinished(s.Trees(B, again, (again,))))
    assert isinstance(model.state, s.RolledBack)
    assert model.facts.hot == B
    assert started(model.facts).state == model.state


@pytest.mark.parametrize(
    ("command", "then"),
    [
        (ev.OrderSeen(goal("c", 2)), s.Fetching(build("c"))),
        (ev.OrderSeen(goal("a", 2)), s.Staged(A)),
        (ev.RepullRequested(), s.Fetching(build("b"))),
        (ev.HoldPlaced("h"), s.Held("h")),
    ],
    ids=["another build", "the build before", "a re-pull", "a hold"],
)
def test_what_is_wanted_next_ends_a_watch_without_going_back(command: ev.Command, then: s.State) -> None:
    model, effects = play(started(WATCHED), command)
    assert model.state == then
    assert effects[0] == ev.CancelWork()
    assert not any(isinstance(effect, ev.SwapBack) for effect in effects)


def test_a_watch_goes_on_after_a_restart_a_newer_serial_and_a_hold() -> None:
    model = started(WATCHED)
    assert model.state == s.Watching(B)
    assert play(model, ev.OrderSeen(goal("b", 2)))[0].state == s.Watching(B)
    assert play(model, ev.HoldPlaced("h"), ev.HoldLifted())[0].state == s.Watching(B)


# --- starts without rest ----------------------------------------------------------------------------------------------

HALTED = s.Facts(goal=goal("b"), hot=A, standby=None, halt="h")


@pytest.mark.parametrize("hot", [A, FRESH_B, None], ids=["proved", "unproved", "nothing"])
def test_an_agent_that_halts_tries_nothing(hot: s.Tree | None) -> None:
    """Also not to prove or to go back: that may be what ends it."""
    model, effects = wake(replace(HALTED, hot=hot, standby=A), is_out_of_service=False)
    assert (model.state, effects) == (s.Halted("h"), ())
    assert play(model, ev.OrderSeen(goal("b")))[0] == model, "the order that it knows is no news"


@pytest.mark.parametrize(
    ("command", "then"),
    [
        (ev.OrderSeen(goal("c", 2)), s.Fetching),
        (ev.RepullRequested(), s.Fetching),
        (ev.HoldLifted(), s.Fetching),
        (ev.HoldPlaced("s"), s.Held),
    ],
)
def test_somebody_lets_it_try_again(command: ev.Command, then: type[s.State]) -> None:
    model, effects = play(started(HALTED), command)
    assert isinstance(model.state, then)
    assert not any(isinstance(effect, ev.CancelWork) for effect in effects)
    assert (model.facts.halt is None) == (then is not s.Held)


# --- random walks -----------------------------------------------------------------------------------------------------


class World:
    """A host that carries effects out by the book, so that random events meet a disk that fits."""

    def __init__(self, *, watches: bool) -> None:
        self.watches = watches
        self.hot: s.Tree | None = None
        self.others: list[s.Tree] = []
        self.number = 0
        self.work: ev.Work | None = None
        self.is_out_of_service = False
        self.is_cleaning_up = False
        self.has_slot = False

    def carry_out(self, effects: tuple[ev.Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case ev.CancelWork():
                    assert not isinstance(self.work, ev.SwapIn | ev.SwapBack), "a swap was interrupted"
                    self.work = None
                    self.is_cleaning_up = False
                case ev.ReturnToService():
                    self.is_out_of_service = False
                case ev.ReleaseSlot():
                    self.has_slot = False
                case ev.RecordRefusal():
                    pass
                case ev.CollectGarbage():
                    self.is_cleaning_up = True
                case _:
                    assert self.work is None, f"{effect} while {self.work} is under way"
                    assert not self.is_cleaning_up, f"{effect} has to wait for a clean-up"
                    self.work = effect
                    if isinstance(effect, ev.StartDrain):
                        self.is_out_of_service = True

    def trees(self) -> s.Trees:
        standby = next((t for t in reversed(self.others) if t.proved), None)
        return s.Trees(self.hot, standby, tuple(self.others))

    def exchange(self, name: str, *, keep_proof: bool) -> None:
        new = next(t for t in self.others if t.name == name)
        self.others.remove(new)
        if self.hot is not None:
            self.others.append(self.hot)
        self.hot = new if keep_proof else replace(new, proved=False)

    def outcome(self, *, succeeds: bool) -> ev.Outcome | None:  # noqa: C901, PLR0911, PLR0912 - one row per effect
        work, self.work, self.is_cleaning_up = self.work, None, False
        match work:
            case None:
                return None
            case ev.StartFetch(build_):
                if not succeeds:
                    return ev.FetchFailed(PROBLEM, is_final=False)
                self.number += 1
                new = s.Tree(f"{build_.id}~{self.number}", build_.id, build_.digest)
                self.others.append(new)
                return ev.FetchFinished(new)
            case ev.RunStagedHook():
                return ev.StagedPassed() if succeeds else ev.StagedFailed(PROBLEM, is_final=True)
            case ev.AcquireSlot():
                self.has_slot = True
                return ev.SlotTaken()
            case ev.StartDrain():
                return ev.DrainFinished() if succeeds else ev.DrainFailed(PROBLEM)
            case ev.SwapIn(new):
                if not succeeds:
                    return ev.SwapFailed(PROBLEM)
                self.exchange(new.name, keep_proof=False)
                return ev.SwapFinished(self.trees())
            case ev.StartProving(tree_):
                assert self.hot is not None
                assert self.hot.name == tree_.name
                if not succeeds:
                    return ev.ProofFailed(PROBLEM)
                self.hot = replace(self.hot, proved=True)
                self.is_out_of_service = False
                return ev.ProofFinished(self.hot, is_watched=self.watches)
            case ev.StartWatching(tree_):
                assert self.hot is not None
                assert (self.hot.name, self.hot.proved, self.is_out_of_service) == (tree_.name, True, False)
                return ev.WatchPassed() if succeeds else ev.WatchFailed(PROBLEM)
            case ev.SwapBack(fallback):
                if not succeeds:
                    return ev.SwapBackFailed(PROBLEM)
                self.exchange(fallback.name, keep_proof=True)
                self.is_out_of_service = False
                return ev.SwapBackFinished(self.trees())
            case ev.AwaitRetry():
                return ev.RetryDue(self.trees())


@st.composite
def _commands(draw: st.DrawFn) -> str | tuple[str, object]:
    return draw(
        st.one_of(
            st.just("succeed"),
            st.just("succeed"),
            st.just("fail"),
            st.just("crash"),
            st.just("repull"),
            st.just("forget"),
            st.just("hold"),
            st.just("unhold"),
            st.just("lose slot"),
            st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from([None, 1])),
        )
    )


@settings(max_examples=400, deadline=None)
@given(st.lists(_commands(), max_size=40), st.booleans())
def test_any_history_ends_where_the_last_order_wants(  # noqa: C901, PLR0912 - one row per command
    history: list[str | tuple[str | None, int | None]],
    watches: bool,  # noqa: FBT001 - hypothesis gives arguments by place
) -> None:
    """After any events, crashes and failures the host is well again as soon as things succeed.

    On the way: one work at a time, no swap interrupted, nothing waits for a clean-up, no illegal transition, going back
    only to proved trees.
    """
    world, serial = World(watches=watches), 0
    model = s.Model(s.Facts(), s.Steady())

    def step(result: tuple[s.Model, tuple[ev.Effect, ...]]) -> None:
        nonlocal model
        model = result[0]
        world.carry_out(result[1])

    for command in [*history, "unhold", *["succeed"] * 14]:
        match command:
            case "succeed" | "fail":
                outcome = world.outcome(succeeds=command == "succeed")
                if outcome is not None:
                    step(advance(model, outcome))
            case "crash":
                world.work, world.has_slot, world.is_cleaning_up = None, False, False
                facts = replace(model.facts, is_repull_wanted=False, repulled=None, failure_count=0)
                step(wake(facts.with_trees(world.trees()), is_out_of_service=world.is_out_of_service))
            case "repull":
                step(advance(model, ev.RepullRequested()))
            case "forget":
                step(advance(model, ev.RefusalLifted()))
            case "hold":
                step(advance(model, ev.HoldPlaced("h")))
            case "unhold":
                step(advance(model, ev.HoldLifted()))
            case "lose slot":
                if world.has_slot:
                    world.has_slot = False
                    step(advance(model, ev.SlotLost()))
            case (name, slots):
                serial += 1
                step(advance(model, ev.OrderSeen(s.Goal(serial, None if name is None else build(name), slots))))
        if isinstance(model.state, s.GoingBack):
            assert model.state.fallback.proved

    wanted = None if model.facts.goal is None else model.facts.goal.build
    if isinstance(model.state, s.RolledBack | s.BuildRefused):
        assert model.facts.refusal is not None
        assert model.facts.refusal.serial == model.facts.goal.serial
    else:
        assert model.state == s.Steady()
        assert wanted is None or world.hot.carries(wanted)
    assert not world.has_slot
    if world.hot is not None and world.hot.proved:
        assert not world.is_out_of_service
