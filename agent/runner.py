"""Owns the agent's loop: events in, one at a time; the machine's answer; its effects handed to the jobs.

What follows from an event is left to `agent.machine`, how effects are carried out to `agent.work`, signals and sockets
to `agent.daemon`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, assert_never

import structlog

from agent import machine
from agent.blocking import run_blocking
from agent.config import Settings
from agent.durations import Durations
from agent.events import (
    INTERRUPTIBLE,
    CancelWork,
    Command,
    HoldLifted,
    HoldPlaced,
    OrderSeen,
    Outcome,
    RefusalLifted,
    RepullRequested,
    SlotLost,
)
from agent.jobs import Job, Jobs
from agent.judging import judge, uphold, withdrawn
from agent.memory import Hold, Joined, Memory, Starts
from agent.states import (
    STATE_NAMES,
    BackingOff,
    BuildRefused,
    Facts,
    Goal,
    GoingBack,
    Halted,
    Held,
    Model,
    Proving,
    RolledBack,
    Steady,
    Watching,
)
from agent.work import QueuedEffect, Workshop, problem_of, trees_on
from artifact import HotcoldError, Refused
from fleet import Entry, Order, Problem, depends_on_joining
from swapper import Swapper

log = structlog.get_logger()

STOPPING: Final = "the agent is stopping"
MAX_STARTS: Final = 8
"""Starts in a row, none of which came to rest, after which the agent tries nothing more by itself."""

_AT_REST: Final = (Steady, RolledBack, BuildRefused, Held)


@dataclass(frozen=True)
class Situation:
    """What the loop knows, for status and reports.

    Attributes:
        order: the order that is obeyed, None before the first.
        order_problem: why the document in the tier's key is not obeyed, or `order` no longer is; or None.
        signer: id of the trusted key that signed the build that `order` asks for; None where no key is trusted.
        since: wall-clock time at which the state was entered.
        since_s: the same, monotonic.
    """

    model: Model
    order: Order | None
    order_problem: Problem | None
    since: datetime
    since_s: float
    signer: str | None = None

    @property
    def state_name(self) -> str:
        """As in status, reports and metrics."""
        return STATE_NAMES[type(self.model.state)]

    @property
    def problem(self) -> Problem | None:
        """Why the host does not run what is wanted, or None."""
        match self.model.state:
            case BackingOff(problem):
                return problem
            case RolledBack(refusal) | BuildRefused(refusal):
                return refusal.problem
            case GoingBack(_, refusal):
                return None if refusal is None else refusal.problem
            case Held(reason):
                return Problem(kind="held", message=f"held by the operator: {reason}")
            case Halted(reason):
                return Problem(kind="halted", message=reason)
            case _:
                return self.order_problem


@dataclass(frozen=True)
class _Ended:
    job: Job[QueuedEffect]
    outcome: Outcome


@dataclass(frozen=True)
class _Seen:
    entry: Entry | None
    joined: int | None
    at_s: float


@dataclass(frozen=True)
class _Beat:
    pass


@dataclass(frozen=True)
class _Reconfigured:
    pass


_Message = _Ended | _Seen | _Reconfigured | _Beat | Command


class Runner:
    """The loop. `wake` first, then keep `run` in a task group.

    Args:
        beat: called whenever the loop has handled something, and at least every `beat_s`: the loop lives.
        changed: called with the situation after each message that was handled.
    """

    def __init__(
        self,
        *,
        settings: Callable[[], Settings],
        swapper: Swapper,
        memory: Memory,
        workshop: Workshop,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        changed: Callable[[Situation], None],
        beat: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._swapper = swapper
        self._memory = memory
        self._workshop = workshop
        self._clock = clock
        self._now = now
        self._changed = changed
        self._beat = beat
        self._inbox: asyncio.Queue[_Message] = asyncio.Queue()
        self._jobs: Jobs[QueuedEffect, Outcome] = Jobs(workshop.perform, self._heard, self.post_beat)
        self._is_stopping = False
        self._at_rest = asyncio.Event()
        self._seen: _Seen | None = None
        self._order_seen_s: float | None = None
        self._joined: int | None = None
        self._start_count = 0
        self._is_halted = False
        self.situation = Situation(Model(Facts(), Steady()), None, None, now(), clock())

    async def wake(self) -> tuple[str, ...]:
        """Take up what a former life left on disk.

        Returns:
            What was found damaged, for the log.
        """
        try:
            await run_blocking(self._memory.remove_leftovers)
        except HotcoldError as error:
            log.warning("cannot tidy up", error=str(error))
        recollection = await run_blocking(self._memory.recall)
        disk = await run_blocking(self._swapper.look)
        order, strayed = self._own(recollection.order)
        self._joined = None if recollection.joined is None else recollection.joined.index
        facts = Facts(
            refusal=recollection.refusal,
            watched=None if recollection.watch is None else recollection.watch.release,
            hold=None if recollection.hold is None else recollection.hold.reason,
            halt=self._reason_to_halt(recollection.starts),
        ).with_trees(trees_on(disk))
        if order is not None:
            facts = replace(facts, goal=self._upheld(order))
        self._take(machine.wake(facts, is_out_of_service=recollection.absence is not None))
        self._start_count = 0 if recollection.starts is None else recollection.starts.count
        await self._count_start()
        return (*recollection.problems, *strayed, *disk.problems)

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Handle messages until cancelled."""
        jobs = group.create_task(self._jobs.run(group), name="jobs")
        try:
            while True:
                self._settle()
                message = await self._inbox.get()
                await self._handle(message)
                await self._note_rest()
                self._beat()
                self._changed(self.situation)
        finally:
            jobs.cancel()

    def see(self, entry: Entry | None, joined: int | None = None) -> None:
        """Tell what stands in the tier's key.

        Args:
            entry: the key; None: it does not exist.
            joined: Consul's index at which this host reported for the first time, where the order depends on that.
        """
        self._inbox.put_nowait(_Seen(entry, joined, self._clock()))

    def reconsider(self) -> None:
        """Tell that the settings are others: what was obeyed or refused is judged again."""
        self._inbox.put_nowait(_Reconfigured())

    def post(self, command: Command) -> None:
        """Tell what somebody wants."""
        self._inbox.put_nowait(command)

    def post_beat(self) -> None:
        """Let the loop show that it lives."""
        self._inbox.put_nowait(_Beat())

    async def come_to_rest(self) -> None:
        """Finish or abandon what is under way, return to service, start nothing new; ends when all that is done.

        A build that is being proved is proved first; cancel the wait to leave the rest to the next life.
        """
        self._is_stopping = True
        self._at_rest.clear()
        self.post(HoldPlaced(STOPPING))
        await self._at_rest.wait()

    # --- messages -----------------------------------------------------------------------------------------------------

    async def _handle(self, message: _Message) -> None:
        match message:
            case _Beat():
                pass
            case _Seen():
                self._seen = message
                await self._judge(message)
            case _Reconfigured():
                await self._reconsider()
            case _Ended(job, outcome):
                # The outcome of work that was cancelled meanwhile is no longer about anything.
                if not job.is_cancelled:
                    self._take(machine.advance(self.situation.model, outcome))
            case HoldPlaced() | HoldLifted():
                await self._keep_hold(message)
                self._take(machine.advance(self.situation.model, message))
            case OrderSeen() | RepullRequested() | RefusalLifted() | SlotLost():
                self._take(machine.advance(self.situation.model, message))
            case _:
                assert_never(message)

    async def _judge(self, seen: _Seen) -> None:
        """Obey the order in the key, or say why not; a key that is gone changes nothing."""
        highest = self.situation.order
        if seen.entry is None:
            text = "the tier's key does not exist; what runs stays. `hotcold deploy` writes it"
            self._object(Problem(kind="order_absent", message=text))
            return
        try:
            judged = judge(seen.entry.value, self._settings(), highest=highest, now=self._now(), joined=seen.joined)
        except Refused as error:
            self._object(problem_of(error))
            return
        order = judged.order
        if depends_on_joining(order, self._settings().identity.host) and seen.joined != self._joined:
            await self._keep_joined(seen.joined)
        if order != highest:
            self._order_seen_s = seen.at_s
            log.info(
                "order",
                serial=order.serial,
                build=order.build.id,
                percent=order.percent,
                reason=order.reason,
                signed_by=judged.signer,
            )
            try:
                await run_blocking(self._memory.keep_order, order)
            except HotcoldError as error:
                # A full disk must not stop a rollback. The price: a restart may obey an older order once.
                log.warning("cannot record the order", serial=order.serial, error=str(error))
        self._workshop.order = order
        self.situation = replace(self.situation, order=order, order_problem=None, signer=judged.signer)
        self._take(machine.advance(self.situation.model, OrderSeen(judged.goal)))

    async def _keep_joined(self, joined: int | None) -> None:
        """Remember when this host joined, before the order that depends on it, so that a restart judges alike."""
        self._joined = joined
        try:
            await run_blocking(self._memory.keep_joined, Joined(joined))
        except HotcoldError as error:
            log.warning("cannot record when this host joined its tier", error=str(error))

    async def _reconsider(self) -> None:
        """Judge by the settings of now: first what is obeyed, then what stands in the key."""
        if self.situation.order is not None:
            goal = self._upheld(self.situation.order)
            self._take(machine.advance(self.situation.model, OrderSeen(goal)))
        if self._seen is not None:
            await self._judge(self._seen)

    def _upheld(self, order: Order) -> Goal:
        """What an order that was obeyed once asks of this host; to keep what runs, if nobody trusted vouches for it."""
        self._workshop.order = order
        self.situation = replace(self.situation, order=order, order_problem=None, signer=None)
        try:
            judged = uphold(order, self._settings(), self._joined)
        except Refused as error:
            self._object(problem_of(error))
            return withdrawn(order)
        self.situation = replace(self.situation, signer=judged.signer)
        return judged.goal

    def _object(self, problem: Problem) -> None:
        if problem != self.situation.order_problem:
            log.warning("order not obeyed", kind=problem.kind, problem=problem.message)
        self.situation = replace(self.situation, order_problem=problem)

    def _own(self, order: Order | None) -> tuple[Order | None, tuple[str, ...]]:
        """The remembered order, unless this host has been given to another app or tier since."""
        identity = self._settings().identity
        if order is None or (order.app, order.tier) == (identity.app, identity.tier):
            return order, ()
        return None, (f"the remembered order is for {order.app}/{order.tier}: not obeyed here, its serial forgotten",)

    async def _keep_hold(self, command: HoldPlaced | HoldLifted) -> None:
        if self._is_stopping:
            return
        hold = Hold(command.reason) if isinstance(command, HoldPlaced) else None
        try:
            await run_blocking(self._memory.keep_hold, hold)
        except HotcoldError as error:
            log.warning("cannot record the hold; it ends with this process", error=str(error))

    # --- starts without rest ------------------------------------------------------------------------------------------

    def _reason_to_halt(self, starts: Starts | None) -> str | None:
        if starts is None or starts.count < MAX_STARTS:
            return None
        return (
            f"the agent was started {starts.count} times in a row without coming to rest: something ends it in the "
            "middle of its work. Look at its journal; another order, a re-pull or `hotcold unhold` lets it try again"
        )

    async def _count_start(self) -> None:
        """Before anything is done that might end the agent once more; a start with nothing to do is not counted."""
        if not self._is_resting and self.situation.model.facts.halt is None:
            await self._keep_starts(self._start_count + 1)
        await self._note_rest()

    async def _note_rest(self) -> None:
        was_halted, self._is_halted = self._is_halted, self.situation.model.facts.halt is not None
        is_counting_over = was_halted or self._is_resting
        if self._start_count and is_counting_over and not self._is_halted:
            await self._keep_starts(0)

    @property
    def _is_resting(self) -> bool:
        return isinstance(self.situation.model.state, _AT_REST)

    async def _keep_starts(self, count: int) -> None:
        self._start_count = count
        try:
            await run_blocking(self._memory.keep_starts, Starts(count) if count else None)
        except HotcoldError as error:
            log.warning("cannot record that the agent was started, or has come to rest", error=str(error))

    # --- the machine --------------------------------------------------------------------------------------------------

    def _heard(self, job: Job[QueuedEffect], outcome: Outcome) -> None:
        self._inbox.put_nowait(_Ended(job, outcome))

    def _take(self, step: machine.Step) -> None:
        model, effects = step
        before = self.situation
        self.situation = replace(before, model=model)
        if model.state != before.model.state:
            self.situation = replace(self.situation, since=self._now(), since_s=self._clock())
            self._time(before)
            # How long a deploy takes is read off the log; wall-clock stamps would tell it wrong when the clock is set.
            seen_s = self._order_seen_s
            age_s = None if seen_s is None else round(self.situation.since_s - seen_s, 6)
            log.info("state", state=self.situation.state_name, was=before.state_name, order_age_s=age_s)
        for effect in effects:
            if isinstance(effect, CancelWork):
                self._jobs.cancel()
            else:
                self._jobs.start(effect, is_interruptible=isinstance(effect, INTERRUPTIBLE))

    def _time(self, before: Situation) -> None:
        """Count how long a phase took, and, when the new build is proved, how long since its order was seen."""
        observed = self._workshop.observed
        if not isinstance(before.model.state, _AT_REST):
            phase = observed.phases.setdefault(before.state_name, Durations())
            phase.note(self.situation.since_s - before.since_s)
        is_deployed = isinstance(before.model.state, Proving) and isinstance(
            self.situation.model.state, Steady | Watching
        )
        if is_deployed and self._order_seen_s is not None:
            observed.deploys.note(self.situation.since_s - self._order_seen_s)

    def _settle(self) -> None:
        is_idle = self._jobs.is_idle and self._inbox.empty()
        if self._is_stopping and is_idle and isinstance(self.situation.model.state, Held):
            self._at_rest.set()
