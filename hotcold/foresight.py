"""Owns finding out what a host would do now, without doing any of it, by the functions that the agent decides with.

How it is shown is left to `hotcold.plan_command`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from agent import machine
from agent.config import Settings
from agent.judging import judge, uphold, withdrawn
from agent.memory import Memory, Recollection
from agent.states import (
    BuildRefused,
    Facts,
    Fetching,
    Goal,
    GoingBack,
    Held,
    Model,
    Proving,
    RolledBack,
    Staged,
    Steady,
    Trees,
    Watching,
)
from agent.work import trees_on
from artifact import ArtifactRejected, ConfigError, HotcoldError, ManifestRef, Refused, TransientError
from fleet import ConsulStore, Entry, Order, Problem
from fleet.keys import host_key, slots_prefix, tier_key
from hotcold.agent_commands import proof_in_words
from hotcold.prospects import Fetch, estimate, wait_for_slots, wait_for_splay, wait_for_workers
from swapper import Disk, Layout
from swapper.view import look_at

BY_FETCH = ("before_fetch", "staged", "before_drain", "after_drain", "after_swap", "proved")
BY_SWAP = BY_FETCH[1:]


@dataclass(frozen=True)
class Foresight:
    """What would happen.

    Attributes:
        verdict: `nothing`; `swap` or `fetch`: a deploy, of what is here or what is not; `prove`, `go_back`: what the
            agent does first with a build that serves and is not proved; `held`, `refused`, `stuck`: ordered, and it
            would not happen.
        message: one sentence for people.
        step: what helps where nothing would happen; empty where nothing is to be done.
        order_from: `consul`, or `memory`: what the agent remembers, because Consul does not answer.
        wanted: the build that the order asks this host for, None: none.
        hot: the build that serves.
        waits: what it would wait for before the swap, one sentence each.
        hooks: those that are configured and would run if all goes well, by point.
        probe: how the build would have to prove itself.
    """

    app: str
    tier: str
    host: str
    verdict: str
    message: str
    order_from: str
    step: str = ""
    serial: int | None = None
    wanted: str | None = None
    hot: str | None = None
    problem: Problem | None = None
    agent: str | None = None
    fetch: Fetch | None = None
    free_bytes: int | None = None
    waits: tuple[str, ...] = ()
    hooks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    probe: str = ""


@dataclass(frozen=True)
class _Known:
    """What the agent would know at its start."""

    memory: Recollection
    disk: Disk | None
    entry: Entry | None
    slots: tuple[Entry, ...] | None
    silence: str | None
    own: Entry | None = None

    @property
    def joined(self) -> int | None:
        """As the agent would see it, or else as it remembers it."""
        if self.silence is not None:
            return None if self.memory.joined is None else self.memory.joined.index
        return None if self.own is None else self.own.create_index


async def foresee(settings: Settings, *, patience_s: float, agent: str | None) -> Foresight:
    """What the agent of this host would do now.

    Args:
        settings: of the agent.
        patience_s: how long Consul may take to answer.
        agent: what a running agent says that it is doing; None: none answers.

    Raises:
        TransientError, ConfigError: the root cannot be looked at.
    """
    known = await _look(settings, patience_s)
    seen = Foresight(
        app=settings.identity.app,
        tier=settings.identity.tier,
        host=settings.identity.host,
        verdict="nothing",
        message="",
        order_from="consul" if known.silence is None else "memory",
        hot=None if known.disk is None or known.disk.hot is None else known.disk.hot.build_id,
        agent=agent,
        free_bytes=_free_bytes(settings.identity.layout.root),
    )
    order, goal, problem = _goal(settings, known)
    seen = replace(
        seen,
        serial=None if order is None else order.serial,
        wanted=None if goal is None or goal.build is None else goal.build.id,
        problem=problem,
    )
    hold = known.memory.hold
    facts = Facts(goal=goal, refusal=known.memory.refusal, hold=None if hold is None else hold.reason)
    if facts.refusal is not None and goal is not None and facts.refusal.serial != goal.serial:
        facts = replace(facts, refusal=None)  # as the machine does when it sees the order
    facts = facts.with_trees(Trees() if known.disk is None else trees_on(known.disk))
    if agent is not None and agent.startswith("halted"):
        message = "nothing: the agent has halted, because its starts did not come to rest"
        return replace(seen, verdict="stuck", message=message, step=f"hotcold why --app {seen.app}")
    model, _ = machine.wake(facts, is_out_of_service=False)
    return await _tell(settings, known, seen, model)


async def _look(settings: Settings, patience_s: float) -> _Known:
    identity = settings.identity
    loop = asyncio.get_running_loop()
    memory = await loop.run_in_executor(None, Memory(identity.layout.state_dir).recall)
    # A host that was never deployed to is no mistake: it would begin with nothing.
    disk = await loop.run_in_executor(None, _disk, identity.layout)
    try:
        async with asyncio.timeout(patience_s), ConsulStore(identity.consul, grace_s=patience_s) as store:
            entry = await store.read(tier_key(identity.app, identity.tier))
            slots = await store.read_prefix(slots_prefix(identity.app, identity.tier))
            own = await store.read(host_key(identity.app, identity.tier, identity.host))
    except TimeoutError:
        return _Known(memory, disk, None, None, f"{identity.consul.address} gave no answer within {patience_s:g} s")
    except HotcoldError as error:
        return _Known(memory, disk, None, None, str(error))
    return _Known(memory, disk, entry, slots, None, own)


def _disk(layout: Layout) -> Disk | None:
    try:
        return look_at(layout) if layout.records.is_dir() else None
    except PermissionError as error:
        raise ConfigError(f"{layout.state_dir} may not be looked at by this user: become root") from error


def _goal(settings: Settings, known: _Known) -> tuple[Order | None, Goal | None, Problem | None]:
    """The order that would be obeyed, what it asks of this host, and why the newest one is not obeyed."""
    highest, problem = known.memory.order, None
    identity = settings.identity
    if highest is not None and (highest.app, highest.tier) != (identity.app, identity.tier):
        highest = None
    if known.entry is not None:
        try:
            joined = known.joined
            judged = judge(known.entry.value, settings, highest=highest, now=datetime.now(UTC), joined=joined)
        except Refused as error:
            problem = Problem(kind=error.kind, message=str(error))
        else:
            return judged.order, judged.goal, None
    elif known.silence is None:
        problem = Problem(kind="order_absent", message="the tier's key does not exist; what runs stays")
    else:
        problem = Problem(kind="store_unreachable", message=known.silence)
    if highest is None:
        return None, None, problem
    try:
        return highest, uphold(highest, settings, known.joined).goal, problem
    except Refused as error:
        return highest, withdrawn(highest), Problem(kind=error.kind, message=str(error))


async def _tell(  # noqa: PLR0911 - a row for each state
    settings: Settings, known: _Known, seen: Foresight, model: Model
) -> Foresight:
    """What the state that the machine has chosen means."""
    match model.state:
        case Held(reason):
            step = f"hotcold unhold --app {seen.app}"
            return replace(seen, verdict="held", message=f"nothing: this host is held: {reason}", step=step)
        case RolledBack(refusal) | BuildRefused(refusal):
            message = f"nothing: build {refusal.build_id} is refused here: {refusal.problem.message}"
            step = f"order another build; or mend the cause, and: hotcold forget --app {seen.app}"
            return replace(seen, verdict="refused", message=message, step=step)
        case Proving(tree):
            return replace(
                seen,
                verdict="prove",
                message=f"prove build {tree.build_id}, which serves",
                probe=proof_in_words(settings.probe),
            )
        case GoingBack(fallback, _):
            return replace(seen, verdict="go_back", message=f"go back to build {fallback.build_id}, which was proved")
        case Staged(tree):
            message = (
                f"swap to build {tree.build_id}, which is on this host already: milliseconds, once workers have left"
            )
            return await _deploying(settings, known, replace(seen, verdict="swap", message=message), model, BY_SWAP)
        case Fetching(build):
            return await _fetching(settings, known, seen, model, build)
        case Steady():
            return _at_rest(seen)
        case Watching(tree):
            return replace(seen, message=f"nothing: build {tree.build_id} serves, and is watched")
        case _:
            return replace(seen, verdict="nothing", message=f"nothing: {type(model.state).__name__}")


def _at_rest(seen: Foresight) -> Foresight:
    if seen.problem is not None and seen.problem.kind not in {"order_absent", "store_unreachable"}:
        return replace(seen, verdict="refused", message=f"nothing: the order is not obeyed: {seen.problem.message}")
    if seen.serial is None:
        return replace(seen, message="nothing: no order is known")
    if seen.wanted is None:
        return replace(seen, message=f"nothing: order {seen.serial} does not ask this host for a build")
    return replace(seen, message=f"nothing: build {seen.wanted} serves, as order {seen.serial} says")


async def _fetching(settings: Settings, known: _Known, seen: Foresight, model: Model, build: ManifestRef) -> Foresight:
    seen = replace(seen, verdict="fetch", message=f"fetch build {build.id}, then swap to it")
    try:
        seen = replace(seen, fetch=await estimate(settings, known.disk, build))
    except ArtifactRejected as error:
        return replace(seen, verdict="refused", message=f"refuse build {build.id}: {error}", problem=_problem(error))
    except (TransientError, ConfigError) as error:
        message = f"try to fetch build {build.id}, and fail: {error}; then try again, ever later"
        return replace(seen, verdict="stuck", message=message, problem=_problem(error))
    return await _deploying(settings, known, seen, model, BY_FETCH)


def _problem(error: HotcoldError) -> Problem:
    return Problem(kind=error.kind, message=str(error))


async def _deploying(
    settings: Settings, known: _Known, seen: Foresight, model: Model, points: Sequence[str]
) -> Foresight:
    goal = model.facts.goal
    waits = wait_for_splay(settings, seen.serial) if seen.verdict == "fetch" and seen.serial is not None else []
    waits += wait_for_slots(known.slots, None if goal is None else goal.max_unavailable)
    waits += await wait_for_workers(settings, None if known.disk is None else known.disk.hot)
    hooks: dict[str, tuple[str, ...]] = {point: hook.argv for point, hook in settings.hooks.items() if point in points}
    return replace(seen, waits=tuple(waits), hooks=hooks, probe=proof_in_words(settings.probe))


def _free_bytes(root: Path) -> int | None:
    try:
        return shutil.disk_usage(root).free if os.path.lexists(root) else None
    except OSError:
        return None
