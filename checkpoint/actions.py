"""Owns what people do to rollouts: plan, start, steer, roll back; the same for every front end.

What becomes of a rollout is left to `checkpoint.rollout.machine`, and words for people to the front ends. No engine
need be alive for any of it: an action is one transaction, and it is in the audit with who, from where, why, and on
which index it was decided.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import msgspec

from artifact import ConfigError, ManifestRef, Refused
from checkpoint.audit import Record, read_head, read_record
from checkpoint.deliveries import Deliveries
from checkpoint.guarding import Guarding, not_the_commander
from checkpoint.guards import Lease, check_guards
from checkpoint.insisting import Insistence
from checkpoint.observing import silent_hosts
from checkpoint.pipeline import Pipeline
from checkpoint.rollout import events as ev
from checkpoint.rollout.ledger import Ledger, Ongoing, Surroundings, Written
from checkpoint.rollout.picture import Picture, picture
from checkpoint.rollout.plan import SALT_COUNT, Plan, make_plan
from checkpoint.rollout.states import Override
from checkpoint.rollout.timetable import closing_in_question
from fleet import Store, StoreUnreachable
from fleet.keys import audit_head_key, audit_key, leader_prefix, service_name

STOPPING: Final = (ev.PauseRequested, ev.AbortRequested, ev.RollbackRequested)
"""What anybody may do, and what a stale page does not stop, as long as it is about the same rollout."""

_ATTEMPTS: Final = 20
_PAUSE_S: Final = 0.05
_SHOWN_CHANGES: Final = 5


@dataclass(frozen=True)
class Acted:
    """What an action did.

    Attributes:
        written: with empty `records`: nothing, because it does not apply.
        before: the rollout as the action found it.
    """

    written: Written
    before: Ongoing

    @property
    def is_done(self) -> bool:
        """Whether anything was written."""
        return bool(self.written.records)


class Desk:
    """Where people act on one app.

    Args:
        store: where everything lies.
        app: the app.
        now: wall-clock time, aware.
        new_salt: gives an unguessable word.
        pause: waits that many seconds.
        on_retry: told of each failure that is tried again.
    """

    def __init__(
        self,
        store: Store,
        app: str,
        *,
        now: Callable[[], datetime],
        new_salt: Callable[[], str],
        pause: Callable[[float], Awaitable[None]],
        on_retry: Callable[[StoreUnreachable], None] = lambda _: None,
    ) -> None:
        self.app = app
        self.store = store
        self._now = now
        self._new_salt = new_salt
        self._pause = pause
        self.insistence = Insistence(pause, on_retry)
        self.guarding = Guarding(store, app, self.insistence, pause)
        self.ledger = Ledger(store, app, self.insistence)
        self.deliveries = Deliveries(store, app, self.insistence, pause)

    async def plan(
        self, pipeline: Pipeline, build: ManifestRef, *, by: str, reason: str, first_tier: str | None = None
    ) -> Plan:
        """What a rollout started now would do; writes nothing.

        Raises:
            Refused: a tier has no hosts, or what stands in its key forbids the build.
        """
        if pipeline.app != self.app:
            raise ConfigError(f"the pipeline is for {pipeline.app!r}, not for {self.app!r}")
        number, _ = await self.ledger.pointer()
        around = await self.ledger.surroundings()
        services = await self.insistence.ask(lambda: self.store.services(service_name(self.app)))
        zones = {
            (each.meta.get("tier", ""), each.meta.get("host", "")): each.meta["zone"]
            for each in services
            if each.meta.get("zone")
        }
        return make_plan(
            pipeline,
            build,
            keys=tuple(around.keys.values()),
            hosts=around.hosts,
            zones=zones,
            salts=[self._new_salt() for _ in range(SALT_COUNT if zones else 1)],
            number=number + 1,
            now=self._now(),
            by=by,
            reason=reason,
            first_tier=first_tier,
        )

    async def look(self) -> Picture | None:
        """The latest rollout as it stands, None before the first.

        Raises:
            Refused: a document of it cannot be read.
        """
        ongoing = await self.ledger.latest()
        if ongoing is None:
            return None
        around = await self.ledger.surroundings()
        services = await self.insistence.ask(lambda: self.store.services(service_name(self.app)))
        silent = silent_hosts(around.hosts, services)
        evidence = await self.ledger.evidence(ongoing.plan)
        return picture(ongoing, around, silent, await self.leader(), self._now(), evidence)

    async def leader(self) -> str | None:
        """The engine that leads, None where none does."""
        entry = await self.insistence.ask(lambda: self.store.read(f"{leader_prefix(self.app)}0"))
        return None if entry is None or entry.session is None else entry.value.decode(errors="replace")

    async def start(
        self, plan: Plan, origin: ev.Origin, override: timedelta | None = None, confirmed: Sequence[str] = ()
    ) -> Written:
        """Begin to carry out a plan; who starts it is its commander.

        Args:
            plan: what to do.
            origin: who.
            override: pierce windows, locks, denials and slots for so long.
            confirmed: texts that were confirmed, for the audit; see `checkpoint.starting.check_confirmed`.

        Raises:
            Refused: another rollout is under way, the app is locked, the build denied, somebody else commands, or the
                plan is no longer true. Nothing was written.
        """
        before = await self.ledger.latest()
        if before is not None and not before.rollout.is_ended:
            raise Refused(
                f"rollout {before.rollout.number} of {before.rollout.build_id} is under way "
                f"({before.rollout.phase_name}): finish, abort or roll it back first",
                kind="rollout_under_way",
            )
        around = await self.ledger.surroundings()
        self._check_plan(plan, before, around)
        if override is None:
            check_guards(around.guards, plan.build, remedy="or start with --override")
        lease = self._lease_for_start(plan, around, origin)
        pierced = None if override is None else Override(by=origin.by, reason=origin.reason, until=origin.at + override)
        written = await self.ledger.start(
            plan, before, around, origin, lease=lease, override=pierced, confirmed=confirmed
        )
        if written is None:
            raise Refused(
                f"something changed in {self.app} meanwhile; nothing was started. Look at `hotcold rollout status "
                f"--app {self.app}` and decide again",
                kind="lost_race",
            )
        return written

    def _check_plan(self, plan: Plan, before: Ongoing | None, around: Surroundings) -> None:
        following = 1 if before is None else before.rollout.number + 1
        known = {name: key.claimed_serial for name, key in around.keys.items()}
        changed = [tier.name for tier in plan.tiers if known.get(tier.name, 0) != tier.serial]
        if plan.number != following or changed:
            what = f"orders of {', '.join(changed)} changed" if changed else f"the next rollout is {following}"
            raise Refused(f"the plan of rollout {plan.number} is stale: {what}; make another one", kind="plan_stale")

    def _lease_for_start(self, plan: Plan, around: Surroundings, origin: ev.Origin) -> Lease | None:
        if not plan.pipeline.commander.required:
            return None
        lease = around.lease
        if lease is not None and lease.is_live(origin.at) and not lease.is_of(origin.by):
            raise not_the_commander(lease)
        length = timedelta(seconds=plan.pipeline.commander.lease_s)
        since = lease.since if lease is not None and lease.is_live(origin.at) else origin.at
        return Lease(holder=origin.by, since=since, until=origin.at + length)

    async def act(self, event: ev.Command, origin: ev.Origin) -> Acted:
        """Do something to the latest rollout. An action that does not apply writes nothing.

        Raises:
            Refused: there is no rollout, somebody else commands, or the rollout changed since the decision was made.
        """
        for _ in range(_ATTEMPTS):
            ongoing = await self.ledger.latest()
            if ongoing is None:
                raise Refused(f"no rollout of {self.app} was ever started", kind="no_rollout")
            await self._check_fresh(event, ongoing, origin)
            around = await self.ledger.surroundings()
            lease = _renewed(ongoing, around, event, origin)
            written = await self.ledger.happen(
                ongoing, _completed(event, ongoing, around, origin.at), origin, around, lease
            )
            if written is not None:
                return Acted(written, ongoing)
            if not isinstance(event, STOPPING) and origin.decided_on is None:
                # What was decided on has changed; a second look must show whether it still means the same.
                origin = replace(origin, decided_on=ongoing.index)
            await self._pause(_PAUSE_S)
        raise Refused(f"others write to {self.app} all the time; nothing was written by this action", kind="lost_race")

    async def _check_fresh(self, event: ev.Command, ongoing: Ongoing, origin: ev.Origin) -> None:
        index = origin.decided_on
        if index is None or ongoing.index <= index:
            return
        if isinstance(event, STOPPING) and ongoing.created <= index:
            return
        changes = await self.changes_since(index)
        what = "".join(f"\n  {each.at.isoformat(timespec='seconds')} {each.by}: {each.message}" for each in changes)
        raise Refused(
            f"the rollout changed since index {index} (now {ongoing.index}), so nothing was written:{what}\n"
            f"look at `hotcold rollout status --app {self.app}` and decide again",
            kind="stale",
        )

    async def changes_since(self, index: int) -> tuple[Record, ...]:
        """The latest records that were written after an index, oldest first, at most five."""
        found: list[Record] = []
        head, _ = read_head(await self.insistence.ask(lambda: self.store.read(audit_head_key(self.app))))
        for number in range(head.number, max(0, head.number - _SHOWN_CHANGES), -1):
            key = audit_key(self.app, number)
            entry = await self.insistence.ask(lambda key=key: self.store.read(key))  # type: ignore[misc]
            if entry is None or entry.modify_index <= index:
                break
            found.append(read_record(entry.value))
        return tuple(reversed(found))


def _completed(event: ev.Command, ongoing: Ongoing, around: Surroundings, at: datetime) -> ev.Command:
    """The command with what only the store knows."""
    match event:
        case ev.ResumeRequested():
            return ev.ResumeRequested({name: key.claimed_serial for name, key in around.keys.items()})
        case ev.SetAsideRequested(tier, host):
            planned: Sequence[str] = next((each.hosts for each in ongoing.plan.tiers if each.name == tier), ())
            if host not in planned and all((each.tier, each.host) != (tier, host) for each in around.hosts):
                raise Refused(f"no host {host} is known in tier {tier}", kind="unknown_host")
            return event
        case ev.ClosingDecided(choice):
            closes, until = closing_in_question(ongoing.plan, ongoing.rollout, at)
            return ev.ClosingDecided(choice, closes, until)
        case _:
            return event


def _renewed(ongoing: Ongoing, around: Surroundings, event: ev.Command, origin: ev.Origin) -> Lease | None:
    """The commander's lease, renewed by acting.

    Raises:
        Refused: somebody else commands, and the action is not one that stops.
    """
    lease = around.lease
    if isinstance(event, STOPPING) or lease is None or not lease.is_live(origin.at):
        return None
    if not lease.is_of(origin.by):
        raise not_the_commander(lease)
    until = origin.at + timedelta(seconds=ongoing.plan.pipeline.commander.lease_s)
    return msgspec.structs.replace(lease, until=max(lease.until, until))
