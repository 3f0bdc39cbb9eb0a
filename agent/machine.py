"""Owns every decision of the agent: `advance(model, event)` gives the next model and the effects to carry out.

Carrying effects out, time, disk and network are left to `agent.runner`; nothing here awaits, reads a clock or logs.
States and facts are defined in `agent.states`, events and effects in `agent.events`.

Theory of operation
===================

`Facts` is what the agent knows whatever it does: the goal (what the newest obeyed order asks of this host), the trees
on disk, a refusal, a hold, a wanted re-pull. A `State` is what it does about it. Two rules hold everywhere:

1. Whenever a state ends, `_choose(facts)` alone finds the next one. It never looks at the state that ended, so a start
   after a crash (`wake`) and a newer order come to the same decisions.
2. A newer order, hold or re-pull interrupts everything before the swap at once. `Swapping` and `GoingBack` are never
   interrupted: they end in milliseconds, and then the newest facts are pursued. `Proving` that is superseded goes back
   to the proved tree first, so that an unproved build never serves longer than it must. A build that is only watched
   has been proved: what is wanted next follows from it as from any other.

At most one effect of the kind `Work` runs at a time. `CancelWork` ends it, and its outcome never arrives afterwards.
`ReturnToService` is never cancelled: work that is started later waits for it. Old trees are removed whenever the agent
comes to rest, also after a crash, and not while it is held. That takes as long as the trees are big, so whatever is to
be done next interrupts it: a rollback must not wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, assert_never

from agent.events import (
    AcquireSlot,
    AwaitRetry,
    CancelWork,
    CollectGarbage,
    Command,
    DrainFailed,
    DrainFinished,
    Effect,
    Event,
    FetchFailed,
    FetchFinished,
    HoldLifted,
    HoldPlaced,
    OrderSeen,
    Outcome,
    ProofFailed,
    ProofFinished,
    RecordRefusal,
    RefusalLifted,
    ReleaseSlot,
    RepullRequested,
    RetryDue,
    ReturnToService,
    RunStagedHook,
    SlotLost,
    SlotTaken,
    StagedFailed,
    StagedPassed,
    StartDrain,
    StartFetch,
    StartProving,
    StartWatching,
    SwapBack,
    SwapBackFailed,
    SwapBackFinished,
    SwapFailed,
    SwapFinished,
    SwapIn,
    WatchFailed,
    WatchPassed,
)
from agent.states import (
    BackingOff,
    BuildRefused,
    Draining,
    Facts,
    Fetching,
    GoingBack,
    Halted,
    Held,
    Model,
    Proving,
    Refusal,
    RolledBack,
    Staged,
    State,
    Steady,
    Swapping,
    WaitingForSlot,
    Watching,
)
from artifact import IllegalTransition
from fleet import Problem

Step = tuple[Model, tuple[Effect, ...]]

AWAITED: Final[Mapping[type[State], frozenset[type[Outcome]]]] = {
    Steady: frozenset(),
    Fetching: frozenset({FetchFinished, FetchFailed}),
    BackingOff: frozenset({RetryDue}),
    Staged: frozenset({StagedPassed, StagedFailed}),
    WaitingForSlot: frozenset({SlotTaken}),
    Draining: frozenset({DrainFinished, DrainFailed}),
    Swapping: frozenset({SwapFinished, SwapFailed}),
    Proving: frozenset({ProofFinished, ProofFailed}),
    Watching: frozenset({WatchPassed, WatchFailed}),
    GoingBack: frozenset({SwapBackFinished, SwapBackFailed, RetryDue}),
    RolledBack: frozenset(),
    BuildRefused: frozenset(),
    Held: frozenset(),
    Halted: frozenset(),
}
"""Which outcomes each state waits for; any other outcome is a programmer's error."""


def wake(facts: Facts, *, is_out_of_service: bool) -> Step:
    """What to do at start, from what was found on disk; the same after a boot, an upgrade and a kill -9.

    Args:
        facts: from the disk.
        is_out_of_service: the former life ended between leaving and returning to service.
    """
    is_hot_proved = facts.hot is None or facts.hot.proved
    return _pursue(facts, *((ReturnToService(),) if is_out_of_service and is_hot_proved else ()))


def advance(model: Model, event: Event) -> Step:
    """The next model and what to do.

    Raises:
        IllegalTransition: an outcome that nothing under way can have; the caller's bug. The model is unchanged.
    """
    if isinstance(event, Command):
        return _obey(model, event)
    if type(event) not in AWAITED[type(model.state)]:
        raise IllegalTransition(f"{type(event).__name__} in {type(model.state).__name__}: nothing under way ends so")
    return _conclude(model, event)


def _pursue(facts: Facts, *effects: Effect) -> Step:
    """Choose what to do next from the facts alone (rule 1); `effects` go first."""
    state, then = _choose(facts)
    return Model(facts, state), (*effects, *then)


def _choose(facts: Facts) -> tuple[State, tuple[Effect, ...]]:
    goal, hot, refusal = facts.goal, facts.hot, facts.refusal
    build = None if goal is None else goal.build
    is_refused = goal is not None and refusal is not None and refusal.covers(goal)
    if facts.halt is not None:
        return (Halted(facts.halt) if facts.hold is None else Held(facts.hold)), ()
    if hot is not None and not hot.proved:
        if build is None or (hot.carries(build) and not is_refused):
            return Proving(hot), (StartProving(hot),)
        if facts.standby is not None:
            return GoingBack(facts.standby, refusal if is_refused else None), (SwapBack(facts.standby),)
    if facts.is_hot_watched and is_refused and facts.standby is not None:
        return GoingBack(facts.standby, refusal), (SwapBack(facts.standby),)
    if facts.hold is not None:
        return Held(facts.hold), ()
    if hot is not None and _is_to_be_watched(facts, is_refused=is_refused):
        return Watching(hot), (StartWatching(hot),)
    if build is None:
        return Steady(), (CollectGarbage(),)
    if refusal is not None and is_refused:
        # Where nothing was there to go back to, the failed build is still hot.
        went_back = refusal.swapped and (hot is None or (hot.proved and not facts.is_hot_watched))
        return (RolledBack(refusal) if went_back else BuildRefused(refusal)), (CollectGarbage(),)
    if facts.repulled is not None:
        return Staged(facts.repulled), (RunStagedHook(facts.repulled),)
    if facts.is_repull_wanted:
        return Fetching(build), (StartFetch(build, is_repull=True),)
    if hot is not None and hot.carries(build):
        return Steady(), (CollectGarbage(),)
    for tree in facts.ready:
        if tree.carries(build):
            return Staged(tree), (RunStagedHook(tree),)
    return Fetching(build), (StartFetch(build, is_repull=False),)


def _is_to_be_watched(facts: Facts, *, is_refused: bool) -> bool:
    build = None if facts.goal is None else facts.goal.build
    is_wanted = build is None or (facts.hot is not None and facts.hot.carries(build))
    return facts.is_hot_watched and is_wanted and not is_refused and not facts.is_repull_wanted


def _back_off(facts: Facts, problem: Problem, *effects: Effect) -> Step:
    attempt = facts.failure_count + 1
    facts = replace(facts, failure_count=attempt)
    return Model(facts, BackingOff(problem, attempt)), (*effects, AwaitRetry(attempt))


def _refuse(facts: Facts, problem: Problem, *effects: Effect, swapped: bool) -> Step:
    """Refuse the goal's build under the goal's serial, and do what follows from that."""
    if facts.goal is None or facts.goal.build is None:
        return _back_off(facts, problem, *effects)
    build = facts.goal.build
    refusal = Refusal(facts.goal.serial, build.id, build.digest, problem, swapped)
    facts = replace(facts, refusal=refusal, is_repull_wanted=False, repulled=None)
    return _pursue(facts, RecordRefusal(refusal), *effects)


# --- commands: from outside, in any state -----------------------------------------------------------------------------


def _obey(model: Model, command: Command) -> Step:
    facts, state = model.facts, model.state
    effects: tuple[Effect, ...] = ()
    match command:
        case OrderSeen(goal):
            if goal == facts.goal:
                return model, ()
            if facts.refusal is not None and facts.refusal.serial != goal.serial:
                facts, effects = replace(facts, refusal=None), (RecordRefusal(None),)
            facts = replace(facts, goal=goal, halt=None, failure_count=0, is_repull_wanted=False, repulled=None)
        case RepullRequested():
            if facts.goal is None or facts.goal.build is None:
                return model, ()
            if facts.refusal is not None:
                effects = (RecordRefusal(None),)
            facts = replace(facts, refusal=None, halt=None, is_repull_wanted=True, repulled=None, failure_count=0)
        case RefusalLifted():
            if facts.refusal is None:
                return model, ()
            facts, effects = replace(facts, refusal=None, halt=None, failure_count=0), (RecordRefusal(None),)
        case HoldPlaced(reason):
            facts = replace(facts, hold=reason)
        case HoldLifted():
            facts = replace(facts, hold=None, halt=None)
        case SlotLost():
            if not isinstance(state, Draining):
                return model, ()
            waiting = WaitingForSlot(state.tree)
            return Model(facts, waiting), (CancelWork(), ReturnToService(), *_acquire(facts))
        case _:
            assert_never(command)
    if _serves_goal(state, facts):
        return Model(facts, state), effects
    return _pursue(facts, *effects, *_leave(state, facts))


def _serves_goal(state: State, facts: Facts) -> bool:
    """Whether what is under way is still what the facts ask for, so that it goes on (rule 2)."""
    build = None if facts.goal is None else facts.goal.build
    is_free = facts.hold is None
    match state:
        case Swapping() | GoingBack():
            return True
        case Proving(tree):
            return build is None or tree.carries(build)
        case Fetching(fetched):
            return is_free and fetched == build and not facts.is_repull_wanted
        case Staged(tree) | Draining(tree):
            is_wanted = build is not None and tree.carries(build)
            return is_free and is_wanted and (not facts.is_repull_wanted or facts.repulled == tree)
        case Watching(tree):
            return is_free and (build is None or tree.carries(build)) and not facts.is_repull_wanted
        case WaitingForSlot() | BackingOff() | Steady() | RolledBack() | BuildRefused() | Held() | Halted():
            return False
        case _:
            assert_never(state)


def _leave(state: State, facts: Facts) -> tuple[Effect, ...]:
    """What ends with an interrupted state."""
    match state:
        case Held() | Halted():
            return ()
        case Steady() | RolledBack() | BuildRefused() | Fetching() | BackingOff() | Staged() | Watching():
            return (CancelWork(),)
        case WaitingForSlot():
            return (CancelWork(), ReleaseSlot())
        case Draining():
            return (CancelWork(), ReturnToService(), ReleaseSlot())
        case Proving():
            # Going back happens out of service and inside the slot; without a way back there is nothing to wait for.
            is_going_back = facts.standby is not None
            return (CancelWork(),) if is_going_back else (CancelWork(), ReturnToService(), ReleaseSlot())
        case Swapping() | GoingBack():
            raise IllegalTransition(f"{type(state).__name__} is never interrupted")
        case _:
            assert_never(state)


def _acquire(facts: Facts) -> tuple[Effect, ...]:
    limit = None if facts.goal is None else facts.goal.max_unavailable
    return (AcquireSlot(1 if limit is None else limit),)


# --- outcomes: what work ended in -------------------------------------------------------------------------------------


def _conclude(model: Model, event: Outcome) -> Step:
    facts, state = model.facts, model.state
    match state, event:
        case Fetching(), FetchFinished(tree):
            is_repull = facts.is_repull_wanted
            return _pursue(replace(facts, ready=(*facts.ready, tree), repulled=tree if is_repull else None))
        case Fetching(), FetchFailed(problem, is_final):
            return _refuse(facts, problem, swapped=False) if is_final else _back_off(facts, problem)
        case Staged(tree), StagedPassed():
            if facts.goal is not None and facts.goal.max_unavailable is not None:
                return Model(facts, WaitingForSlot(tree)), _acquire(facts)
            return Model(facts, Draining(tree)), (StartDrain(tree),)
        case Staged(), StagedFailed(problem, is_final):
            return _refuse(facts, problem, swapped=False) if is_final else _back_off(facts, problem)
        case WaitingForSlot(tree), SlotTaken():
            return Model(facts, Draining(tree)), (StartDrain(tree),)
        case Draining(tree), DrainFinished():
            return Model(facts, Swapping(tree)), (SwapIn(tree),)
        case (Draining(), DrainFailed(problem)) | (Swapping(), SwapFailed(problem)):
            return _back_off(facts, problem, ReturnToService(), ReleaseSlot())
        case Swapping(), SwapFinished(trees):
            facts = replace(facts, is_repull_wanted=facts.is_repull_wanted and facts.repulled is None, repulled=None)
            return _pursue(facts.with_trees(trees))
        case Proving(), ProofFinished(hot, is_watched):
            watched = hot.name if is_watched else None
            return _pursue(replace(facts, hot=hot, watched=watched, failure_count=0), ReleaseSlot())
        case (Proving(), ProofFailed(problem)) | (Watching(), WatchFailed(problem)):
            if facts.standby is not None and (facts.goal is None or facts.goal.build is None):
                return Model(facts, GoingBack(facts.standby, None)), (SwapBack(facts.standby),)
            effects = () if facts.standby is not None else (ReleaseSlot(),)
            return _refuse(facts, problem, *effects, swapped=True)
        case Watching(), WatchPassed():
            return _pursue(replace(facts, watched=None))
        case GoingBack(), SwapBackFinished(trees):
            return _pursue(replace(facts.with_trees(trees), watched=None, failure_count=0), ReleaseSlot())
        case GoingBack(), SwapBackFailed():
            facts = replace(facts, failure_count=facts.failure_count + 1)
            return Model(facts, state), (AwaitRetry(facts.failure_count),)
        case BackingOff(), RetryDue(trees):
            return _pursue(facts.with_trees(trees))
        case GoingBack(), RetryDue(trees):
            is_back = trees.hot is None or trees.hot.proved
            return _pursue(facts.with_trees(trees), *((ReturnToService(), ReleaseSlot()) if is_back else ()))
        case _:
            raise IllegalTransition(f"{type(event).__name__} in {type(state).__name__}: nothing under way ends so")
