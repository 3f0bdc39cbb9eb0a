"""Owns how a rollout goes on: `(rollout, event) -> (rollout, effects)`. Pure.

Seeing what happens is left to `checkpoint.rollout.watching`, carrying out and writing, in one transaction, to
`checkpoint.rollout.committing`.

Three rules. Only `StepAllowed` orders a share of a build, so windows, commander and locks are judged before every step.
Going on after a pause starts the step's checks anew. A command that does not apply changes nothing and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from msgspec.structs import replace

from artifact import IllegalTransition
from checkpoint.rollout import events as ev
from checkpoint.rollout import states as st
from checkpoint.rollout.plan import Plan, StepPlan
from checkpoint.rollout.states import Rollout

Outcome = tuple[Rollout, tuple[ev.Effect, ...]]

_VERIFYING = (st.Deploying, st.Baking, st.Testing, st.Judging, st.Approving)
"""Phases of a step that is ordered."""


def begin(plan: Plan, origin: ev.Origin, override: st.Override | None = None, confirmed: Sequence[str] = ()) -> Outcome:
    """A rollout before its first step, under an override where one was given with the start.

    What was confirmed before stands in its first record.
    """
    rollout = Rollout(
        v=1,
        number=plan.number,
        app=plan.app,
        build_id=plan.build.id,
        salt=plan.salt,
        phase=st.Ready(step=0, since=origin.at),
        serials={tier.name: tier.serial for tier in plan.tiers},
        override=override,
    )
    pierced = "" if override is None else f"; windows, locks and slots do not count until {override.until.isoformat()}"
    path = " -> ".join(tier.name for tier in plan.tiers)
    left_out = [tier for tier in plan.pipeline.tiers if tier not in {each.name for each in plan.tiers}]
    without = f", without {', '.join(left_out)}" if left_out else ""
    said = f"; confirmed: {'; '.join(confirmed)}" if confirmed else ""
    return rollout, (
        ev.Note("started", f"rollout {plan.number} of {plan.build.id} starts: {path}{without}{pierced}{said}"),
    )


def advance(rollout: Rollout, plan: Plan, event: ev.Event, origin: ev.Origin) -> Outcome:  # noqa: C901, PLR0911 - a row for each command
    """What becomes of a rollout by an event, and what follows.

    Without effects nothing is to be written.

    Raises:
        IllegalTransition: the event is an observation that cannot be made in this phase.
    """
    match event:
        case ev.PauseRequested():
            return _paused(rollout, origin)
        case ev.ResumeRequested(serials):
            return _resumed(rollout, dict(serials), origin)
        case ev.ApproveRequested():
            return _approved(rollout, plan, origin)
        case ev.AdvanceRequested():
            return _advanced(rollout, plan, origin)
        case ev.AbortRequested():
            return _aborted(rollout, origin)
        case ev.RollbackRequested():
            return _rolled_back(rollout, origin.reason, origin)
        case ev.SetAsideRequested(tier, host):
            return _set_aside(rollout, tier, host, origin)
        case ev.TakeBackRequested(tier, host):
            return _taken_back(rollout, tier, host, origin)
        case ev.OverrideRequested(length):
            return _overridden(rollout, length, origin)
        case ev.ClosingDecided():
            return _closing_decided(rollout, event, origin)
        case _:
            return _observed(rollout, plan, event, origin)


def _observed(rollout: Rollout, plan: Plan, event: ev.Observation, origin: ev.Origin) -> Outcome:  # noqa: C901, PLR0911, PLR0912 - a row for each event
    phase = rollout.phase
    if isinstance(event, ev.BuildCondemned) and rollout.reached and not rollout.is_ended:
        return _rolled_back(rollout, event.reason, origin)  # also while it is paused, or waits for its next step
    if isinstance(phase, st.ENDED) or (isinstance(phase, st.Paused) and not isinstance(event, ev.HostRejoined)):
        raise _illegal(rollout, event)
    step = plan.steps[phase.step]
    where = named(step)
    match event, phase:
        case ev.StepHeld(holds), st.Ready():
            why = "; ".join(hold.message for hold in holds)
            return replace(rollout, phase=replace(phase, holds=holds)), (
                ev.Note("held", f"{where} does not begin: {why}"),
            )
        case ev.StepAllowed(), st.Ready():
            return _begun(rollout, step, phase.step, origin)
        case ev.HostsArrived(good_count, missing), st.Deploying():
            until = origin.at + timedelta(seconds=step.rule.bake_s)
            without = f"; not waited for: {_list(missing)}" if missing else ""
            return replace(rollout, phase=st.Baking(step=phase.step, since=origin.at, until=until)), (
                ev.Note("arrived", f"{where}: {good_count} hosts run {rollout.build_id}{without}"),
            )
        case ev.BakeElapsed(), st.Baking():
            return _after_bake(rollout, plan, phase.step, f"{where}: baked for {step.rule.bake_s:g} s", origin)
        case ev.SmokeTestPassed(said), st.Testing():
            return _after_test(rollout, plan, phase.step, f"{where}: smoke test passed{_quoted(said)}", origin)
        case ev.VerdictGiven(reason), st.Judging():
            return _after_verdict(rollout, plan, phase.step, f"{where}: passed: {reason}", origin)
        case ev.VerdictWanting(reason), st.Judging():
            return replace(rollout, phase=replace(phase, wanting=reason)), (
                ev.Note("wanting", f"{where}: no verdict, so it waits: {reason}"),
            )
        case ev.TroubleSeen(cause, reason), _:
            is_ordered = not isinstance(phase, st.Ready)
            paused = st.Paused(
                step=phase.step, since=origin.at, cause=cause, reason=reason, by=origin.by, is_ordered=is_ordered
            )
            return replace(rollout, phase=paused), (ev.Note("paused", f"{where}: paused: {reason}"),)
        case ev.ClosingSeen(closes), _:
            return replace(rollout, closing=st.Closing(at=closes)), (
                ev.Note("closing", f"{where} and what follows will not end before closing at {closes.isoformat()}"),
            )
        case ev.HostRejoined(tier, host), _:
            rest = tuple(each for each in rollout.set_aside if (each.tier, each.host) != (tier, host))
            return replace(rollout, set_aside=rest), (ev.Note("rejoined", f"{tier}/{host} is back"),)
        case _:
            raise _illegal(rollout, event)


def _begun(rollout: Rollout, step: StepPlan, number: int, origin: ev.Origin) -> Outcome:
    tier = step.rule.tier
    reached = rollout.reached if tier in rollout.reached else (*rollout.reached, tier)
    begun = replace(
        rollout,
        phase=st.Deploying(step=number, since=origin.at),
        reached=reached,
        ordered=origin.at,
    )
    return begun, (ev.PlaceOrder(number), ev.Note("ordered", f"{named(step)} is ordered: {step.host_count} hosts"))


def _after_bake(rollout: Rollout, plan: Plan, step: int, said: str, origin: ev.Origin) -> Outcome:
    if plan.steps[step].rule.smoke_test is None:
        return _after_test(rollout, plan, step, said, origin)
    return replace(rollout, phase=st.Testing(step=step, since=origin.at)), (
        ev.Note("baked", f"{said}; the smoke test runs"),
    )


def _after_test(rollout: Rollout, plan: Plan, step: int, said: str, origin: ev.Origin) -> Outcome:
    if not plan.steps[step].rule.verdict:
        return _after_verdict(rollout, plan, step, said, origin)
    return replace(rollout, phase=st.Judging(step=step, since=origin.at)), (
        ev.Note("tested", f"{said}; a verdict is asked for"),
    )


def _after_verdict(rollout: Rollout, plan: Plan, step: int, said: str, origin: ev.Origin) -> Outcome:
    if not plan.steps[step].rule.approval or rollout.approved >= step:
        return _on(rollout, plan, step, said, origin)
    return replace(rollout, phase=st.Approving(step=step, since=origin.at)), (
        ev.Note("judged", f"{said}; somebody must approve"),
    )


def _on(rollout: Rollout, plan: Plan, step: int, said: str, origin: ev.Origin) -> Outcome:
    """The step is done."""
    if step + 1 == len(plan.steps):
        return replace(rollout, phase=st.Finished(step=step, since=origin.at)), (
            ev.Note("finished", f"{said}; rollout {rollout.number} of {rollout.build_id} is finished"),
        )
    following = replace(rollout, phase=st.Ready(step=step + 1, since=origin.at))
    if plan.steps[step + 1].rule.tier != plan.steps[step].rule.tier:
        following = replace(following, closing=None)
    return following, (ev.Note("done", f"{said}; next is {named(plan.steps[step + 1])}"),)


def _paused(rollout: Rollout, origin: ev.Origin) -> Outcome:
    phase = rollout.phase
    if isinstance(phase, (*st.ENDED, st.Paused)):
        return rollout, ()
    paused = st.Paused(
        step=phase.step,
        since=origin.at,
        cause="commander",
        reason=origin.reason,
        by=origin.by,
        is_ordered=not isinstance(phase, st.Ready),
    )
    return replace(rollout, phase=paused), (ev.Note("paused", f"paused: {origin.reason}"),)


def _resumed(rollout: Rollout, serials: dict[str, int], origin: ev.Origin) -> Outcome:
    phase = rollout.phase
    if not isinstance(phase, st.Paused):
        return rollout, ()
    # What somebody else ordered, or an old store brought back, is replaced by ordering the step once more.
    is_ours = phase.cause not in {"order_replaced", "store_went_back"}
    if phase.is_ordered and is_ours:
        following: st.Phase = st.Deploying(step=phase.step, since=origin.at)
    else:
        following = st.Ready(step=phase.step, since=origin.at, is_accepted=not is_ours)
    known = rollout.serials if is_ours else {tier: serials.get(tier, 0) for tier in rollout.serials}
    return replace(rollout, phase=following, serials=known, ordered=origin.at), (
        ev.Note("resumed", f"resumed: {origin.reason}"),
    )


def _approved(rollout: Rollout, plan: Plan, origin: ev.Origin) -> Outcome:
    phase = rollout.phase
    if isinstance(phase, st.Approving):
        return _on(rollout, plan, phase.step, f"{named(plan.steps[phase.step])}: approved by {origin.by}", origin)
    is_due = isinstance(phase, _VERIFYING) and plan.steps[phase.step].rule.approval
    if not is_due or rollout.approved >= phase.step:
        return rollout, ()
    return replace(rollout, approved=phase.step), (
        ev.Note("approved", f"{named(plan.steps[phase.step])}: approved by {origin.by}, beforehand"),
    )


def _advanced(rollout: Rollout, plan: Plan, origin: ev.Origin) -> Outcome:
    phase = rollout.phase
    is_under_way = isinstance(phase, _VERIFYING) or (isinstance(phase, st.Paused) and phase.is_ordered)
    if not is_under_way:
        return rollout, ()
    said = f"{named(plan.steps[phase.step])}: passed over by {origin.by}: {origin.reason}"
    return _on(rollout, plan, phase.step, said, origin)


def _aborted(rollout: Rollout, origin: ev.Origin) -> Outcome:
    if rollout.is_ended:
        return rollout, ()
    aborted = st.Aborted(step=rollout.phase.step, since=origin.at, reason=origin.reason, by=origin.by)
    where = f"; {', '.join(rollout.reached)} keep what they have" if rollout.reached else ""
    return replace(rollout, phase=aborted, override=None), (ev.Note("aborted", f"aborted: {origin.reason}{where}"),)


def _rolled_back(rollout: Rollout, reason: str, origin: ev.Origin) -> Outcome:
    if isinstance(rollout.phase, st.RolledBack):
        return rollout, ()
    back = st.RolledBack(step=rollout.phase.step, since=origin.at, reason=reason, by=origin.by)
    where = f" in {', '.join(rollout.reached)}" if rollout.reached else ", before any host had it"
    return replace(rollout, phase=back, override=None), (
        ev.PlaceRollback(rollout.reached, reason),
        ev.Note("rolled_back", f"{rollout.build_id} is rolled back{where}: {reason}"),
    )


def _set_aside(rollout: Rollout, tier: str, host: str, origin: ev.Origin) -> Outcome:
    if rollout.is_ended or any((each.tier, each.host) == (tier, host) for each in rollout.set_aside):
        return rollout, ()
    aside = st.SetAside(tier=tier, host=host, by=origin.by, reason=origin.reason, at=origin.at)
    return replace(rollout, set_aside=(*rollout.set_aside, aside)), (
        ev.Note("set_aside", f"{tier}/{host} is not waited for: {origin.reason}"),
    )


def _taken_back(rollout: Rollout, tier: str, host: str, origin: ev.Origin) -> Outcome:
    rest = tuple(each for each in rollout.set_aside if (each.tier, each.host) != (tier, host))
    if rollout.is_ended or rest == rollout.set_aside:
        return rollout, ()
    return replace(rollout, set_aside=rest), (
        ev.Note("taken_back", f"{tier}/{host} is waited for again: {origin.reason}"),
    )


def _overridden(rollout: Rollout, length: timedelta, origin: ev.Origin) -> Outcome:
    if rollout.is_ended or (not length and rollout.override is None):
        return rollout, ()
    if not length:
        return replace(rollout, override=None), (ev.Note("override_ended", "windows, locks and slots count again"),)
    until = origin.at + length
    override = st.Override(by=origin.by, reason=origin.reason, until=until)
    return replace(rollout, override=override), (
        ev.Note("overridden", f"windows, locks and slots do not count until {until.isoformat()}: {origin.reason}"),
    )


def _closing_decided(rollout: Rollout, decided: ev.ClosingDecided, origin: ev.Origin) -> Outcome:
    if decided.closes is None:
        return rollout, ()
    until = decided.until if decided.choice == "finish" else None
    closing = st.Closing(at=decided.closes, choice=decided.choice, by=origin.by, until=until)
    is_same = rollout.closing is not None and (rollout.closing.at, rollout.closing.choice) == (
        closing.at,
        closing.choice,
    )
    if rollout.is_ended or is_same:
        return rollout, ()
    what = (
        f"to go on until {until.isoformat()}" if until is not None else f"to hold over closing, watched by {origin.by}"
    )
    return replace(rollout, closing=closing), (ev.Note("decided", f"{origin.by} chose {what}: {origin.reason}"),)


def named(step: StepPlan) -> str:
    """A step for people: `prod to 25 %`."""
    return f"{step.rule.tier} to {step.rule.percent:g} %"


def _list(hosts: Mapping[str, str]) -> str:
    return ", ".join(f"{host} ({what})" for host, what in sorted(hosts.items()))


def _quoted(said: str) -> str:
    return f" ({said})" if said else ""


def _illegal(rollout: Rollout, event: ev.Event) -> IllegalTransition:
    return IllegalTransition(f"{type(event).__name__} cannot happen to a rollout that is {rollout.phase_name}")
