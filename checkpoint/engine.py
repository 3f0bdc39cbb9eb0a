"""Owns what the leader does: looks at the rollout and its hosts, lets the next event happen, and looks again.

Which event that is, is left to `checkpoint.rollout.watching`; writing it to `checkpoint.rollout.ledger`; who leads to
`checkpoint.leading`. The engine remembers nothing that counts: a next leader finds all of it in Consul.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Final

import msgspec
import structlog

from artifact import HotcoldError, Refused
from checkpoint import smoke
from checkpoint.clock import SteadyClock
from checkpoint.insisting import Insistence
from checkpoint.observing import alive_agents, silent_among
from checkpoint.pipeline import Pipeline
from checkpoint.reading import HostKey, HostReader
from checkpoint.rollout import events as ev
from checkpoint.rollout import states as st
from checkpoint.rollout.kept_evidence import AllKept
from checkpoint.rollout.ledger import Ledger, Ongoing, Surroundings
from checkpoint.rollout.tally import Silent, Tally, tally
from checkpoint.rollout.verdict import Judge, Question, Ruling, by_reports, worst
from checkpoint.rollout.watching import Seen, Tested, next_event
from fleet import Store
from fleet.keys import evidence_key, hosts_prefix, service_name

log = structlog.get_logger()

TICK_S: Final = 1.0
HEALTH_INTERVAL_S: Final = 3.0
HEALTH_PER_S: Final = 1_000
READ_HOSTS_PER_S: Final = 10_000
"""News of one host is an answer about all of them: after so many hosts were read there is a pause of a second. Consul
works ten times as long for the health of a host as for its report."""


class Engine:
    """Carries out the rollouts of one app while it leads.

    Args:
        store: where everything lies.
        own: the engine's own configuration: smoke tests are run only if it has them.
        name: of this engine, for the audit.
        clock: its time.
        judges: asked for rulings, besides the agents' reports, by their names.
        tick_s: pause between two looks where nothing changes.
    """

    def __init__(
        self,
        store: Store,
        own: Pipeline,
        *,
        name: str,
        clock: SteadyClock,
        judges: Mapping[str, Judge] | None = None,
        tick_s: float = TICK_S,
    ) -> None:
        self._store = store
        self._own = own
        self._name = name
        self._clock = clock
        self._judges = judges or {}
        self._tick_s = tick_s
        self._ledger = Ledger(store, own.app, Insistence(asyncio.sleep))
        self._read = HostReader(own.app)
        self._hosts: tuple[HostKey, ...] | None = None
        self._alive: frozenset[tuple[str | None, str | None]] | None = None
        self._changed = asyncio.Event()
        self._clock_problem: str | None = None
        self._test: tuple[object, asyncio.Task[Tested]] | None = None
        self._complaint: str | None = None

    async def run(self) -> None:
        """Work until cancelled. A store that does not answer, or that refuses, is asked again."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_hosts(), name="reports")
                group.create_task(self._follow_health(), name="health")
                group.create_task(self._go_on(), name="rollout")
        finally:
            await self._end_test()

    async def _go_on(self) -> None:
        while True:
            try:
                while await self.step():
                    pass
                self._complaint = None
            except HotcoldError as error:
                if str(error) != self._complaint:
                    log.warning("the rollout cannot go on", kind=error.kind, error=str(error))
                self._complaint = str(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._tick_s):
                    await self._changed.wait()
            self._changed.clear()

    async def look(self) -> None:
        """Read reports and health once, for whoever drives `step` by hand instead of `run`."""
        self._hosts = self._read(await self._store.read_prefix(hosts_prefix(self._own.app)))
        self._alive = alive_agents(await self._store.services(service_name(self._own.app)))

    async def step(self) -> bool:
        """Let at most one event happen; False where nothing was to be done.

        Raises:
            StoreUnreachable: no answer; what was to be written may have arrived, and the next look shows it.
            StoreRefused: the token lacks a right.
            Refused: a document cannot be read.
        """
        hosts = self._hosts
        self._clock_problem = self._clock.jump() or self._clock_problem
        ongoing = await self._ledger.latest()
        if ongoing is None or ongoing.rollout.is_ended or hosts is None:
            self._clock_problem = None
            await self._end_test()
            return False
        around = await self._ledger.surroundings(hosts)
        seen = await self._seen(ongoing, around)
        event = next_event(ongoing.plan, ongoing.rollout, seen)
        if event is None:
            if isinstance(ongoing.rollout.phase, st.Paused):
                self._clock_problem = None  # somebody looks at it anyway
            return False
        origin = ev.Origin(by=self._name, via="engine", reason="", at=seen.now, decided_on=ongoing.index)
        try:
            written = await self._ledger.happen(ongoing, event, origin, around)
        except Refused as error:
            if not isinstance(event, ev.StepAllowed):
                raise
            # An order that must not be written: only a person can say what to do instead.
            event = ev.TroubleSeen("cannot_go_on", str(error))
            written = await self._ledger.happen(ongoing, event, origin, around)
        if written is not None:
            if isinstance(event, ev.TroubleSeen) and event.cause == "clock_jumped":
                self._clock_problem = None
            for record in written.records:
                log.info(record.what, app=self._own.app, rollout=record.rollout, message=record.message)
        return True

    async def _seen(self, ongoing: Ongoing, around: Surroundings) -> Seen:
        plan, rollout, now = ongoing.plan, ongoing.rollout, self._clock.now()
        silent = silent_among(around.hosts, self._alive)
        counted = tally(plan, rollout, around.hosts, silent, now)
        return Seen(
            now=now,
            keys=around.keys,
            hosts=around.hosts,
            tally=counted,
            silent=silent,
            guards=around.guards,
            lease=around.lease,
            ruling=await self._rule(ongoing, counted, around.hosts, silent),
            tested=await self._tested(ongoing),
            clock_problem=self._clock_problem,
        )

    async def _rule(self, ongoing: Ongoing, counted: Tally, hosts: Sequence[HostKey], silent: Silent) -> Ruling | None:
        phase = ongoing.rollout.phase
        is_ordered = phase.is_ordered if isinstance(phase, st.Paused) else not isinstance(phase, st.Ready)
        if not is_ordered:
            return None
        rulings = [by_reports(ongoing.plan, ongoing.rollout, counted)]
        if self._judges:
            rulings += await self._ask_judges(ongoing, counted, hosts, silent)
        return worst(rulings)

    async def _ask_judges(
        self, ongoing: Ongoing, counted: Tally, hosts: Sequence[HostKey], silent: Silent
    ) -> list[Ruling]:
        key = evidence_key(self._own.app, ongoing.rollout.number)
        entry = await self._store.read(key)
        try:
            known = AllKept() if entry is None else msgspec.json.decode(entry.value, type=AllKept)
        except msgspec.DecodeError as error:
            return [Ruling("none", f"{key} cannot be read: {error}")]
        rulings: list[Ruling] = []
        kept = dict(known.judges)
        for name, judge in self._judges.items():
            question = Question(
                plan=ongoing.plan,
                rollout=ongoing.rollout,
                evidence=bytes(kept.get(name, b"")),
                seen=counted,
                hosts=hosts,
                silent=silent,
                now=self._clock.now(),
            )
            try:
                answer = await judge.ask(question)
            except HotcoldError as error:
                rulings.append(Ruling("none", f"{name}: {error}"))
                continue
            rulings.append(Ruling(answer.ruling.outcome, f"{name}: {answer.ruling.reason}"))
            if answer.evidence:
                kept[name] = msgspec.Raw(answer.evidence)
        value = msgspec.json.encode(AllKept(judges=kept))
        if entry is None or entry.value != value:
            # Evidence that is not written is not acted on: a next leader could not say why.
            index = 0 if entry is None else entry.modify_index
            if not await self._store.put(key, value, cas=index):
                return [Ruling("none", "another engine writes evidence of this rollout")]
        return rulings

    async def _tested(self, ongoing: Ongoing) -> Tested | None:
        phase = ongoing.rollout.phase
        if not isinstance(phase, st.Testing):
            await self._end_test()
            return None
        test = ongoing.plan.steps[phase.step].rule.smoke_test
        if test is None:
            return Tested(is_good=True, said="no smoke test")
        if not smoke.is_known(test, self._own):
            said = f"{test.command[0]} is not in this engine's own configuration, so it is not run"
            return Tested(is_good=False, said=said)
        which = (ongoing.rollout.number, phase.step, phase.since)
        if self._test is None or self._test[0] != which:
            await self._end_test()
            work = smoke.run(test, smoke.environment(ongoing.plan, phase.step))
            task = asyncio.create_task(work, name="smoke test")
            task.add_done_callback(lambda _: self._changed.set())
            self._test = (which, task)
        task = self._test[1]
        return task.result() if task.done() else None

    async def _end_test(self) -> None:
        if self._test is None:
            return
        task, self._test = self._test[1], None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _follow_hosts(self) -> None:
        async with aclosing(self._store.watch_prefix(hosts_prefix(self._own.app))) as changes:
            async for entries in changes:
                self._hosts = self._read(entries)
                self._changed.set()
                await asyncio.sleep(len(entries) / READ_HOSTS_PER_S)

    async def _follow_health(self) -> None:
        while True:
            try:
                self._alive = alive_agents(await self._store.services(service_name(self._own.app)))
            except HotcoldError:
                self._alive = None  # nobody is called silent on no evidence; deadlines still count
            await asyncio.sleep(max(HEALTH_INTERVAL_S, len(self._alive or ()) / HEALTH_PER_S))
