"""Owns what people say beforehand: lock, unlock, deny, allow, take command, hand it over, schedule.

What it means to a rollout is left to `checkpoint.rollout.watching`. Each is one transaction, and a record of the audit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, TypeVar

import msgspec

from artifact import ManifestRef, Refused
from checkpoint.audit import Record
from checkpoint.guards import Denied, Guards, Lease, Lock, Schedule, Scheduled, read_document
from checkpoint.insisting import Insistence
from checkpoint.rollout.events import Origin
from checkpoint.writing import Writer
from fleet import Put, Store
from fleet.keys import commander_key, lock_key, schedule_key

_ATTEMPTS: Final = 20
_PAUSE_S: Final = 0.05

_Document = TypeVar("_Document", Guards, Lease, Schedule)


class Guarding:
    """Changes lock, denied builds, lease and schedule of one app.

    Args:
        store: where everything lies.
        app: the app.
        insistence: asks again where the store does not answer.
        pause: waits that many seconds.
    """

    def __init__(
        self, store: Store, app: str, insistence: Insistence, pause: Callable[[float], Awaitable[None]]
    ) -> None:
        self.app = app
        self._store = store
        self._insistence = insistence
        self._writer = Writer(store, app, insistence)
        self._pause = pause

    async def guards(self) -> Guards:
        """The lock and the denied builds as they stand."""
        entry = await self._insistence.ask(lambda: self._store.read(lock_key(self.app)))
        return Guards() if entry is None else read_document(entry, Guards)

    async def lock(self, origin: Origin) -> bool:
        """Let nothing new start; False where it is locked already."""

        def change(guards: Guards | None) -> tuple[Guards, str] | None:
            guards = guards or Guards()
            if guards.lock is not None:
                return None
            lock = Lock(by=origin.by, reason=origin.reason, at=origin.at)
            return msgspec.structs.replace(guards, lock=lock), f"locked: {origin.reason}"

        return await self._change(lock_key(self.app), Guards, "locked", change, origin)

    async def unlock(self, origin: Origin) -> bool:
        """Lift the lock; denied builds stay denied. False where there is none."""

        def change(guards: Guards | None) -> tuple[Guards, str] | None:
            if guards is None or guards.lock is None:
                return None
            return msgspec.structs.replace(guards, lock=None), f"unlocked ({guards.lock.reason}): {origin.reason}"

        return await self._change(lock_key(self.app), Guards, "unlocked", change, origin)

    async def deny(self, build: ManifestRef, origin: Origin) -> bool:
        """Deny a build; False where it is denied already."""

        def change(guards: Guards | None) -> tuple[Guards, str] | None:
            guards = guards or Guards()
            if guards.denial(build) is not None:
                return None
            denied = Denied(id=build.id, digest=build.digest, by=origin.by, reason=origin.reason, at=origin.at)
            return (
                msgspec.structs.replace(guards, denied=(*guards.denied, denied)),
                f"build {build.id} is denied: {origin.reason}",
            )

        return await self._change(lock_key(self.app), Guards, "denied", change, origin)

    async def allow(self, build_id: str, origin: Origin) -> bool:
        """Let a denied build be deployed again; False where it is not denied."""

        def change(guards: Guards | None) -> tuple[Guards, str] | None:
            if guards is None or all(each.id != build_id for each in guards.denied):
                return None
            rest = tuple(each for each in guards.denied if each.id != build_id)
            return msgspec.structs.replace(guards, denied=rest), f"build {build_id} is allowed again: {origin.reason}"

        return await self._change(lock_key(self.app), Guards, "allowed", change, origin)

    async def take_command(
        self, origin: Origin, length: timedelta, *, force: bool = False, seen: str | None = None
    ) -> Lease:
        """Become the commander, or go on being it for `length` from now.

        Args:
            origin: who.
            length: how long.
            force: also where somebody else is.
            seen: who was seen to be; None: whoever is.

        Raises:
            Refused: somebody else is, and `force` is not set; or somebody else than was seen.
        """
        taken: list[Lease] = []

        def change(lease: Lease | None) -> tuple[Lease, str]:
            is_live = lease is not None and lease.is_live(origin.at)
            if lease is not None and is_live and not lease.is_of(origin.by):
                if seen is not None and lease.holder != seen:
                    raise Refused(
                        f"{lease.holder} has the command by now, not {seen}: nothing was done. Look, and decide again",
                        kind="stale",
                    )
                if not force:
                    raise not_the_commander(lease)
            is_same = lease is not None and is_live and lease.is_of(origin.by)
            since = lease.since if lease is not None and is_same else origin.at
            new = Lease(holder=origin.by, since=since, until=origin.at + length, note=origin.reason)
            taken.append(new)
            over = f", over {lease.holder}" if lease is not None and is_live and not is_same else ""
            return new, f"{origin.by} takes command until {new.until.isoformat(timespec='seconds')}{over}"

        await self._change(commander_key(self.app), Lease, "command_taken", change, origin)
        return taken[-1]

    async def hand_over(self, to: str, origin: Origin, length: timedelta) -> Lease:
        """Make somebody else the commander; `origin.reason` is the note for them.

        Raises:
            Refused: somebody else is the commander.
        """
        new = Lease(holder=to, since=origin.at, until=origin.at + length, note=origin.reason)

        def change(lease: Lease | None) -> tuple[Lease, str]:
            if lease is not None and lease.is_live(origin.at) and not lease.is_of(origin.by):
                raise not_the_commander(lease)
            return new, f"{origin.by} hands over to {to}: {origin.reason}"

        await self._change(commander_key(self.app), Lease, "handed_over", change, origin)
        return new

    async def release_command(self, origin: Origin) -> bool:
        """Be the commander no longer; rollouts hold. False where one is not.

        Raises:
            Refused: somebody else is the commander.
        """

        def change(lease: Lease | None) -> tuple[Lease, str] | None:
            if lease is None or not lease.is_live(origin.at):
                return None
            if not lease.is_of(origin.by):
                raise not_the_commander(lease)
            ended = msgspec.structs.replace(lease, until=origin.at, note=origin.reason)
            return ended, f"{origin.by} is no longer the commander: {origin.reason}"

        return await self._change(commander_key(self.app), Lease, "command_released", change, origin)

    async def lease(self) -> Lease | None:
        """The commander's lease as it stands."""
        entry = await self._insistence.ask(lambda: self._store.read(commander_key(self.app)))
        return None if entry is None else read_document(entry, Lease)

    async def schedule(self) -> Schedule:
        """The deploys that are to come."""
        entry = await self._insistence.ask(lambda: self._store.read(schedule_key(self.app)))
        return Schedule() if entry is None else read_document(entry, Schedule)

    async def schedule_deploy(self, deploy: Scheduled, origin: Origin) -> bool:
        """Add a deploy to the schedule; those that are more than a day old are dropped. False where it stands there."""

        def change(schedule: Schedule | None) -> tuple[Schedule, str] | None:
            deploys = () if schedule is None else schedule.deploys
            if any((each.at, each.commander) == (deploy.at, deploy.commander) for each in deploys):
                return None
            kept = [each for each in deploys if each.at > origin.at - timedelta(days=1)]
            both = tuple(sorted((*kept, deploy), key=lambda each: each.at))
            return Schedule(deploys=both), f"deploy at {deploy.at.isoformat()} with {deploy.commander} is scheduled"

        return await self._change(schedule_key(self.app), Schedule, "scheduled", change, origin)

    async def unschedule(self, at: datetime, origin: Origin) -> bool:
        """Take the deploys at a time out of the schedule; False where there are none."""

        def change(schedule: Schedule | None) -> tuple[Schedule, str] | None:
            deploys = () if schedule is None else schedule.deploys
            rest = tuple(each for each in deploys if each.at != at)
            if len(rest) == len(deploys):
                return None
            return Schedule(deploys=rest), f"deploy at {at.isoformat()} is taken out of the schedule"

        return await self._change(schedule_key(self.app), Schedule, "unscheduled", change, origin)

    async def _change(
        self,
        key: str,
        kind: type[_Document],
        what: str,
        change: Callable[[_Document | None], tuple[_Document, str] | None],
        origin: Origin,
    ) -> bool:
        """Read, change and write one document with its record, until nobody else writes in between."""
        for _ in range(_ATTEMPTS):
            entry = await self._insistence.ask(lambda: self._store.read(key))
            changed = change(None if entry is None else read_document(entry, kind))
            if changed is None:
                return False
            document, message = changed
            record = Record(
                v=1,
                number=0,
                at=origin.at,
                by=origin.by,
                via=origin.via,
                what=what,
                message=message,
                reason=origin.reason,
            )
            put = Put(key, msgspec.json.encode(document), cas=0 if entry is None else entry.modify_index)
            if await self._writer.write([put], [record]) is not None:
                return True
            await self._pause(_PAUSE_S)
        raise Refused(f"others write to {key} all the time; nothing was written by this action", kind="lost_race")


def not_the_commander(lease: Lease) -> Refused:
    """Why an action is not open to somebody."""
    return Refused(
        f"{lease.holder} is the commander until {lease.until.isoformat(timespec='seconds')}: ask for "
        "`hotcold commander hand-over`, or take it with `hotcold commander take --force`. Pausing, aborting and "
        "rolling back are open to everybody",
        kind="not_the_commander",
    )
