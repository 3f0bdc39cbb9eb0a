"""Owns a rollout in Consul: reading it, and writing what becomes of it, its orders and its audit in one transaction.

What becomes of it is left to `checkpoint.rollout.machine`; when, to the engine and to people.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec

from artifact import Refused
from checkpoint.audit import Record
from checkpoint.guards import Denied, Guards, Lease, Lock, read_document
from checkpoint.insisting import Insistence
from checkpoint.reading import HostKey, TierKey, read_host_keys, read_tier_keys
from checkpoint.rollout.advice import following
from checkpoint.rollout.events import Effect, Event, Note, Origin, PlaceOrder, PlaceRollback
from checkpoint.rollout.machine import advance, begin
from checkpoint.rollout.orders import back_orders, step_order
from checkpoint.rollout.plan import Plan
from checkpoint.rollout.states import Override, Rollout
from checkpoint.writing import Writer
from fleet import CheckUnchanged, Delete, Entry, Order, Put, Store, encode
from fleet.keys import (
    commander_key,
    evidence_key,
    hosts_prefix,
    lock_key,
    plan_key,
    rollout_key,
    rollout_state_key,
    series_key,
    tier_key,
    tiers_prefix,
)
from fleet.store import Operation

KEPT_ROLLOUTS: Final = 50
"""Plans and states of so many rollouts stay in Consul; what was done stays in the audit."""


class Pointer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Names the app's latest rollout."""

    v: int
    number: int


@dataclass(frozen=True)
class Ongoing:
    """The latest rollout as it stands.

    Attributes:
        index: of its state: what a decision about it is based on.
        created: index at which its state was first written.
        pointer_index: of the key that names it.
    """

    plan: Plan
    rollout: Rollout
    index: int
    created: int
    pointer_index: int


@dataclass(frozen=True)
class Surroundings:
    """What stands in Consul around a rollout, with the indices that a write must name."""

    keys: Mapping[str, TierKey]
    hosts: tuple[HostKey, ...]
    guards: Guards
    guards_index: int
    lease: Lease | None
    lease_index: int


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        orders: by tier.
        left: tiers that a rollback left alone, and why.
        records: of the audit; empty: nothing was to be done, and nothing was written.
    """

    rollout: Rollout
    orders: Mapping[str, Order]
    left: Mapping[str, str]
    records: tuple[Record, ...]


_Kind = TypeVar("_Kind", Pointer, Plan, Rollout)


class Ledger:
    """Reads and writes the rollouts of one app.

    Args:
        store: where everything lies.
        app: the app.
        insistence: asks again where the store does not answer.
    """

    def __init__(self, store: Store, app: str, insistence: Insistence) -> None:
        self.app = app
        self._store = store
        self._insistence = insistence
        self._writer = Writer(store, app, insistence)
        self._plan: Plan | None = None

    async def pointer(self) -> tuple[int, int]:
        """Number of the latest rollout, and the index of the key that names it; 0 and 0 before the first."""
        entry = await self._read(rollout_key(self.app))
        return (0, 0) if entry is None else (_decode(entry, Pointer).number, entry.modify_index)

    async def latest(self) -> Ongoing | None:
        """The latest rollout, None before the first.

        Raises:
            Refused: a document of it cannot be read.
        """
        number, pointer_index = await self.pointer()
        if not number:
            return None
        state = await self._read(rollout_state_key(self.app, number))
        if state is None:
            raise Refused(f"rollout {number} has no state in Consul: start another one", kind="document_invalid")
        rollout = _decode(state, Rollout)
        # A store that was restored may have another rollout under a number that was seen before.
        if self._plan is None or (self._plan.number, self._plan.salt) != (number, rollout.salt):
            entry = await self._read(plan_key(self.app, number))
            if entry is None:
                raise Refused(f"rollout {number} has no plan in Consul: start another one", kind="document_invalid")
            self._plan = _decode(entry, Plan)
        return Ongoing(self._plan, rollout, state.modify_index, state.create_index, pointer_index)

    async def past(self, number: int) -> tuple[Plan, Rollout] | None:
        """A rollout by its number, None where it is not kept."""
        plan, state = await asyncio.gather(
            self._read(plan_key(self.app, number)), self._read(rollout_state_key(self.app, number))
        )
        return None if plan is None or state is None else (_decode(plan, Plan), _decode(state, Rollout))

    async def evidence(self, plan: Plan) -> bytes | None:
        """What the verdicts of a rollout remember, None where nothing: without metrics, nothing is asked for."""
        if not plan.pipeline.metrics:
            return None
        entry = await self._read(evidence_key(self.app, plan.number))
        return None if entry is None else entry.value

    async def surroundings(self, hosts: tuple[HostKey, ...] | None = None) -> Surroundings:
        """Orders, reports, guards and lease as they stand.

        Args:
            hosts: reports that were read before, None: read them. Orders are read after them, so that no host can have
                obeyed an order that is not seen.
        """
        if hosts is None:
            entries = await self._insistence.ask(lambda: self._store.read_prefix(hosts_prefix(self.app)))
            hosts = read_host_keys(self.app, entries)
        orders, guards, lease = await asyncio.gather(
            self._insistence.ask(lambda: self._store.read_prefix(tiers_prefix(self.app))),
            self._read(lock_key(self.app)),
            self._read(commander_key(self.app)),
        )
        return Surroundings(
            keys={key.tier: key for key in read_tier_keys(self.app, orders)},
            hosts=hosts,
            guards=Guards() if guards is None else read_document(guards, Guards),
            guards_index=0 if guards is None else guards.modify_index,
            lease=None if lease is None else read_document(lease, Lease),
            lease_index=0 if lease is None else lease.modify_index,
        )

    async def start(
        self,
        plan: Plan,
        before: Ongoing | None,
        around: Surroundings,
        origin: Origin,
        *,
        lease: Lease | None = None,
        override: Override | None = None,
        confirmed: Sequence[str] = (),
    ) -> Written | None:
        """Write a plan and a rollout at its beginning; None where something else was written meanwhile.

        Args:
            plan: what to roll out; its number follows that of `before`.
            before: the rollout that has ended, None: there was none.
            around: what the plan was made from.
            origin: who.
            lease: to be written with it; None: leave it.
            override: that it starts under.
            confirmed: texts that were confirmed before.
        """
        rollout, effects = begin(plan, origin, override, confirmed)
        state = rollout_state_key(self.app, plan.number)
        operations: list[Operation] = [
            Put(
                rollout_key(self.app),
                _encode(Pointer(v=1, number=plan.number)),
                cas=0 if before is None else before.pointer_index,
            ),
            Put(plan_key(self.app, plan.number), _encode(plan), cas=0),
            Put(state, _encode(rollout), cas=0),
            CheckUnchanged(lock_key(self.app), around.guards_index),
        ]
        if before is not None:
            operations.append(CheckUnchanged(rollout_state_key(self.app, before.rollout.number), before.index))
        if lease is not None:
            operations.append(Put(commander_key(self.app), _encode(lease), cas=around.lease_index))
        operations += await self._forgetting(plan.number - KEPT_ROLLOUTS)
        records = await self._writer.write(operations, _records(plan, rollout, effects, origin))
        return None if records is None else Written(rollout, {}, {}, records)

    async def happen(
        self, ongoing: Ongoing, event: Event, origin: Origin, around: Surroundings, lease: Lease | None = None
    ) -> Written | None:
        """Let an event happen to a rollout; None where something else was written meanwhile, and nothing of this.

        Args:
            ongoing: the rollout as it was read.
            event: what happens.
            origin: who.
            around: what stands around it, read after `ongoing`.
            lease: to be written with it; None: leave it.

        Raises:
            IllegalTransition: the event cannot happen now.
            Refused: an order cannot be written, or a document is damaged.
        """
        rollout, effects = advance(ongoing.rollout, ongoing.plan, event, origin)
        if not effects:
            return Written(rollout, {}, {}, ())
        orders: dict[str, Order] = {}
        left: dict[str, str] = {}
        operations: list[Operation] = [CheckUnchanged(rollout_key(self.app), ongoing.pointer_index)]
        for effect in effects:
            match effect:
                case PlaceOrder(step):
                    tier = ongoing.plan.steps[step].rule.tier
                    hosts = [host for host in around.hosts if host.tier == tier]
                    key = around.keys.get(tier, TierKey(tier))
                    orders[tier] = step_order(ongoing.plan, rollout, step, key=key, hosts=hosts, origin=origin)
                    # Whoever locks the app, or takes its lease, at this moment is not overrun.
                    operations.append(CheckUnchanged(lock_key(self.app), around.guards_index))
                    operations.append(CheckUnchanged(commander_key(self.app), around.lease_index))
                case PlaceRollback(tiers, reason):
                    orders, left = back_orders(
                        ongoing.plan, tiers, reason, keys=around.keys, hosts=around.hosts, origin=origin
                    )
                    guards = _guarded(around.guards, ongoing.plan, reason, origin)
                    operations.append(Put(lock_key(self.app), _encode(guards), cas=around.guards_index))
                case Note():
                    pass
        for tier, order in orders.items():
            index = around.keys.get(tier, TierKey(tier)).modify_index
            operations.append(Put(tier_key(self.app, tier), encode(order), cas=index))
        serials = {**rollout.serials, **{tier: order.serial for tier, order in orders.items()}}
        rollout = msgspec.structs.replace(rollout, serials=serials)
        state = rollout_state_key(self.app, rollout.number)
        operations.append(Put(state, _encode(rollout), cas=ongoing.index))
        if lease is not None:
            operations.append(Put(commander_key(self.app), _encode(lease), cas=around.lease_index))
        records = await self._writer.write(operations, _records(ongoing.plan, rollout, effects, origin, left))
        return None if records is None else Written(rollout, orders, left, records)

    async def _forgetting(self, number: int) -> list[Operation]:
        """Deletes a rollout that is too old."""
        if number < 1:
            return []
        kinds = (plan_key, rollout_state_key, evidence_key, series_key)
        entries = [await self._read(kind(self.app, number)) for kind in kinds]
        return [Delete(entry.key, cas=entry.modify_index) for entry in entries if entry is not None]

    async def _read(self, key: str) -> Entry | None:
        return await self._insistence.ask(lambda: self._store.read(key))


def _guarded(guards: Guards, plan: Plan, reason: str, origin: Origin) -> Guards:
    why = f"rollout {plan.number} of {plan.build.id} was rolled back: {reason}"
    lock = guards.lock or Lock(by=origin.by, reason=why, at=origin.at)
    if guards.denial(plan.build) is not None:
        return msgspec.structs.replace(guards, lock=lock)
    denied = Denied(id=plan.build.id, digest=plan.build.digest, by=origin.by, reason=reason, at=origin.at)
    return msgspec.structs.replace(guards, lock=lock, denied=(*guards.denied, denied))


def _records(
    plan: Plan,
    rollout: Rollout,
    effects: Sequence[Effect],
    origin: Origin,
    left: Mapping[str, str] = MappingProxyType({}),
) -> list[Record]:
    remains = "".join(f"; {tier} is left as it is: {why}" for tier, why in left.items())
    return [
        Record(
            v=1,
            number=0,
            at=origin.at,
            by=origin.by,
            via=origin.via,
            what=note.what,
            message=note.message + remains,
            reason=origin.reason,
            next=following(plan, rollout),
            rollout=rollout.number,
            phase=rollout.phase_name,
            step=rollout.phase.step,
            decided_on=origin.decided_on,
        )
        for note in effects
        if isinstance(note, Note)
    ]


def _encode(document: msgspec.Struct) -> bytes:
    return msgspec.json.encode(document)


def _decode(entry: Entry, kind: type[_Kind]) -> _Kind:
    try:
        document = msgspec.json.decode(entry.value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(
            f"{entry.key} holds something else: {error}; `consul kv get {entry.key}` shows it", kind="document_invalid"
        ) from error
    if document.v != 1:
        raise Refused(f"{entry.key} has version {document.v}; this hotcold reads 1", kind="document_version")
    return document
