"""Owns what all pages are drawn from: one watch on each prefix, whoever looks, and a snapshot after every change.

What the entries mean is left to `checkpoint.overview` and `checkpoint.rollout.picture`; drawing to the pages.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

import structlog

from artifact import HotcoldError
from checkpoint.audit import Head, Record, read_head, read_record
from checkpoint.guards import Guards, Lease, Schedule, read_document
from checkpoint.insisting import Insistence
from checkpoint.observing import alive_agents, silent_among
from checkpoint.overview import Overview, Overviews
from checkpoint.reading import HostKey, HostReader, TierKey, read_tier_keys
from checkpoint.rollout.ledger import Ledger, Ongoing, Surroundings
from checkpoint.rollout.picture import Picture, picture
from checkpoint.series import Series
from checkpoint.web.evidence import EvidenceWatch
from fleet import Entry, ServiceHealth, Store
from fleet.keys import (
    audit_head_key,
    audit_key,
    commander_key,
    hosts_prefix,
    leader_prefix,
    lock_key,
    schedule_key,
    service_name,
    tiers_prefix,
)

log = structlog.get_logger()

HEALTH_INTERVAL_S: Final = 3.0
HEALTH_PER_S: Final = 1_000
"""Consul works ten times as long for the health of a host as for its report: after so many, a pause of a second."""
REFRESH_S: Final = 5.0
"""A snapshot is made anew after it even where nothing changed: deadlines pass, windows close."""
KEPT_RECORDS: Final = 200

LOOKS_PER_S: Final = 12.0
READ_HOSTS_PER_S: Final = 100_000
UNSEEN_HOSTS_PER_S: Final = 10_000
"""News of one host is an answer about all of them: after so many hosts were read there is a pause of a second. A longer
one while no page is open."""

_CALM_S: Final = 0.01
"""So long is waited after a change for those that come with it: a step changes hundreds of hosts at once."""
_AGAIN_S: Final = 1.0


@dataclass(frozen=True)
class Snapshot:
    """An app as it was known at one moment.

    Attributes:
        version: rises with each snapshot of this process.
        index: the highest Consul index of all that it shows: the id of a stream's event.
        records: the latest of the audit, with their Consul indices, newest first.
        fault: why the rollout cannot be shown, or None.
        hosts: each with its report, as the rollout counts them.
        series: the course of the rollout's metrics.
        engine: the one that leads; None: none does.
    """

    version: int
    index: int
    at: datetime
    view: Overview
    shown: Picture | None
    guards: Guards
    lease: Lease | None
    schedule: Schedule
    head: Head
    records: tuple[tuple[Record, int], ...]
    fault: str | None
    hosts: tuple[HostKey, ...]
    series: Series
    engine: str | None = None


@dataclass(frozen=True)
class _Desk:
    """What is read anew whenever the audit's head changes: everything of Checkpoint's own is written with a record."""

    ongoing: Ongoing | None
    guards: Guards
    lease: Lease | None
    schedule: Schedule
    head: Head
    index: int
    fault: str | None


class Live:
    """Keeps a snapshot current while its context is open. Never raises for a store that does not answer.

    Args:
        store: where everything lies.
        app: the app.
        now: wall-clock time, aware.
    """

    def __init__(self, store: Store, app: str, *, now: Callable[[], datetime]) -> None:
        self.app = app
        self._store = store
        self._now = now
        self._ledger = Ledger(store, app, Insistence(asyncio.sleep))
        self._orders: tuple[TierKey, ...] | None = None
        self._read = HostReader(app)
        self._hosts: tuple[HostKey, ...] | None = None
        self._services: Sequence[ServiceHealth] | None = None
        self._alive: frozenset[tuple[str | None, str | None]] | None = None
        self._overview = Overviews(app)
        self._indices = {"orders": 0, "reports": 0}
        self._viewer_count = 0
        self._engine: str | None = None
        self._desk: _Desk | None = None
        self._records: deque[tuple[Record, int]] = deque(maxlen=KEPT_RECORDS)
        self._dirty = asyncio.Event()
        self._evidence = EvidenceWatch(store, app, self._dirty.set)
        self._published = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.snapshot: Snapshot | None = None

    async def __aenter__(self) -> Self:
        work = (self._follow_orders, self._follow_reports, self._follow_desk, self._follow_health, self._publish)
        self._tasks = [asyncio.create_task(each(), name=f"{each.__name__} of {self.app}") for each in work]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._evidence.aclose()

    @property
    def cut_off_s(self) -> float | None:
        """Monotonic time since which Consul does not answer; None: it does."""
        return self._store.contact.failing_since_s

    @property
    def broken(self) -> str | None:
        """Why nothing new will ever come: a store that refuses, or an error of ours; None: all is well."""
        for task in (*self._tasks, *filter(None, (self._evidence.task,))):
            if task.done() and not task.cancelled() and task.exception() is not None:
                return str(task.exception()) or type(task.exception()).__name__
        return None

    @contextlib.contextmanager
    def looked_at(self) -> Iterator[None]:
        """As long as the context is open somebody looks, so changes are shown soon."""
        self._viewer_count += 1
        try:
            yield
        finally:
            self._viewer_count -= 1

    async def changed(self, version: int, timeout_s: float) -> Snapshot | None:
        """The first snapshot after `version`, None where there is none in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.snapshot is None or self.snapshot.version <= version:
                    await self._published.wait()
        now = self.snapshot
        return None if now is None or now.version <= version else now

    async def _publish(self) -> None:
        version = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S):
                    await self._dirty.wait()
                    await asyncio.sleep(_CALM_S)
            self._dirty.clear()
            made = self._make(version + 1)
            if made is None:
                continue
            version += 1
            self.snapshot = made
            published, self._published = self._published, asyncio.Event()
            published.set()

    def _make(self, version: int) -> Snapshot | None:
        keys, hosts, desk, now = self._orders, self._hosts, self._desk, self._now()
        known = self._evidence.now
        if keys is None or hosts is None or desk is None or known is None:
            return None
        shown = None
        if desk.ongoing is not None:
            around = Surroundings(
                keys={key.tier: key for key in keys},
                hosts=hosts,
                guards=desk.guards,
                guards_index=0,
                lease=desk.lease,
                lease_index=0,
            )
            silent = silent_among(hosts, self._alive)
            shown = picture(desk.ongoing, around, silent, self._engine, now, known.evidence)
        return Snapshot(
            version=version,
            index=max(desk.index, known.index, *self._indices.values()),
            at=now,
            view=self._overview(keys, hosts, self._services),
            shown=shown,
            guards=desk.guards,
            lease=desk.lease,
            schedule=desk.schedule,
            head=desk.head,
            records=tuple(self._records),
            fault=desk.fault,
            hosts=hosts,
            engine=self._engine,
            series=known.series,
        )

    async def _follow_orders(self) -> None:
        async with aclosing(self._store.watch_prefix(tiers_prefix(self.app))) as changes:
            async for entries in changes:
                self._orders = read_tier_keys(self.app, entries)
                self._note("orders", entries)

    async def _follow_reports(self) -> None:
        watch = self._store.watch_prefix(hosts_prefix(self.app), rate_per_s=LOOKS_PER_S)
        async with aclosing(watch) as changes:
            async for entries in changes:
                self._hosts = self._read(entries)
                self._note("reports", entries)
                pace = READ_HOSTS_PER_S if self._viewer_count else UNSEEN_HOSTS_PER_S
                await asyncio.sleep(len(entries) / pace)

    def _note(self, what: str, entries: Sequence[Entry]) -> None:
        self._indices[what] = max((entry.modify_index for entry in entries), default=0)
        self._dirty.set()

    async def _follow_desk(self) -> None:
        async with aclosing(self._store.watch(audit_head_key(self.app))) as changes:
            async for entry in changes:
                while True:
                    try:
                        self._desk = await self._read_desk(entry)
                        await self._evidence.turn(None if self._desk.ongoing is None else self._desk.ongoing.plan)
                        break
                    except HotcoldError as error:
                        log.warning("cannot read the rollout", kind=error.kind, error=str(error))
                        await asyncio.sleep(_AGAIN_S)
                self._dirty.set()

    async def _read_desk(self, entry: Entry | None) -> _Desk:
        fault: str | None = None
        ongoing: Ongoing | None = None
        guards, lease, schedule, head, index = Guards(), None, Schedule(), Head(v=1, number=0, hash=""), 0
        lock, command, deploys = await asyncio.gather(
            self._store.read(lock_key(self.app)),
            self._store.read(commander_key(self.app)),
            self._store.read(schedule_key(self.app)),
        )
        try:
            head, index = read_head(entry)
            ongoing = await self._ledger.latest()
            guards = Guards() if lock is None else read_document(lock, Guards)
            lease = None if command is None else read_document(command, Lease)
            schedule = Schedule() if deploys is None else read_document(deploys, Schedule)
            await self._read_records(head)
        except HotcoldError as error:
            if error.kind == "store_unreachable":
                raise
            fault = str(error)
        return _Desk(ongoing, guards, lease, schedule, head, index, fault)

    async def _read_records(self, head: Head) -> None:
        known = self._records[0][0].number if self._records else 0
        if head.number < known:
            self._records.clear()  # another Consul, or an older one
            known = 0
        numbers = range(max(known, head.number - KEPT_RECORDS) + 1, head.number + 1)
        for begin in range(0, len(numbers), 32):
            part = numbers[begin : begin + 32]
            for entry in await asyncio.gather(*(self._store.read(audit_key(self.app, number)) for number in part)):
                if entry is not None:
                    self._records.appendleft((read_record(entry.value), entry.modify_index))

    async def _follow_health(self) -> None:
        while True:
            try:
                services: Sequence[ServiceHealth] | None = await self._store.services(service_name(self.app))
            except HotcoldError:
                services = None  # nobody is called silent on no evidence
            if services != self._services:
                self._services, self._alive = services, alive_agents(services)
                self._dirty.set()
            with contextlib.suppress(HotcoldError):
                entry = await self._store.read(f"{leader_prefix(self.app)}0")
                engine = None if entry is None or entry.session is None else entry.value.decode(errors="replace")
                if engine != self._engine:
                    self._engine = engine
                    self._dirty.set()
            await asyncio.sleep(max(HEALTH_INTERVAL_S, len(services or ()) / HEALTH_PER_S))
