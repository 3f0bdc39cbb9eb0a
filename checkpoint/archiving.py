"""Owns archiving the audit: old records go into a file, and out of Consul, which must not grow for ever.

The file is left to `checkpoint.archive_file`, the chain to `checkpoint.audit`.

What is promised: killed at any moment, every record is in Consul, or in a file that is durable, or in both; the same
command goes on from there. First the file is written, made durable and read back; then one transaction moves the anchor
and writes a record that says so; only then are the records removed. Of two who archive at once, one does, and the other
is refused. Not promised: that the file stays; nobody but its keeper can promise that.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from artifact import ConfigError, Refused
from checkpoint.archive_file import make_durable, read_archive, write_archive
from checkpoint.audit import ARCHIVED, VERSION, Anchor, Head, Record, number_of, read_record, verify, verify_part
from checkpoint.audit_reading import Chain, read_chain
from checkpoint.insisting import Insistence
from checkpoint.rollout.events import Origin
from checkpoint.rollout.ledger import Ledger
from checkpoint.writing import Writer
from fleet import Delete, Entry, Put, Store
from fleet.keys import audit_anchor_key

_ATTEMPTS: Final = 20
_PAUSE_S: Final = 0.05
_BATCH: Final = 64
MIN_AGE: Final = timedelta(days=1)
"""Younger records stay: webhooks may not have heard of them yet, and people look at them."""


@dataclass(frozen=True)
class Archived:
    """What was archived.

    Attributes:
        first, last: numbers of the records in the file.
        hash: of the last one.
        removed_count: records that were taken out of Consul by this call.
    """

    first: int
    last: int
    hash: str
    removed_count: int


class Archivist:
    """Archives the audit of one app.

    Args:
        store: where it lies; with a token that may write the anchor, which a commander's and an engine's may not.
        app: the app.
        insistence: asks again where the store does not answer.
        pause: waits that many seconds.
    """

    def __init__(
        self, store: Store, app: str, insistence: Insistence, pause: Callable[[float], Awaitable[None]]
    ) -> None:
        self._store = store
        self._app = app
        self._insistence = insistence
        self._writer = Writer(store, app, insistence)
        self._pause = pause

    async def archive(self, file: Path, before: datetime, origin: Origin) -> Archived | None:
        """Move records that are older than `before` into a new file, or go on with what was interrupted.

        The latest record stays, and so does all of a rollout that is under way.

        Args:
            file: must not exist, unless this very call made it and was interrupted.
            before: aware; at least a day ago.
            origin: who.

        Returns:
            None where no record is so old; nothing was written.

        Raises:
            Refused: the chain is not whole, the file holds something else, or somebody else archives; what was not
                archived is in Consul.
            ConfigError, TransientError: `before` is too late; the disk, or Consul.
        """
        if before > origin.at - MIN_AGE:
            raise ConfigError(
                f"records of less than {MIN_AGE.days} day stay in Consul: name an earlier time", kind="too_young"
            )
        loop = asyncio.get_running_loop()
        chain = await self._chain()
        removed = await self._remove(chain.leftovers)
        found = await loop.run_in_executor(None, self._found, file)
        if found and number_of(found[-1]) == chain.anchor.number and _hash(found[-1]) == chain.anchor.hash:
            return Archived(number_of(found[0]), chain.anchor.number, chain.anchor.hash, removed)
        old = await self._old(chain, before)
        if found:
            entries = found
            if [(each.key, each.value) for each in found] != [(each.key, each.value) for each in old[: len(found)]]:
                raise Refused(f"{file} exists, and holds other records than the oldest ones here", kind="file_exists")
            await loop.run_in_executor(None, make_durable, file)
        elif old:
            entries = old
            await loop.run_in_executor(None, write_archive, file, entries)
        else:
            return None
        again = await loop.run_in_executor(None, read_archive, file, self._app)
        last = read_record(entries[-1].value)
        part = Head(v=VERSION, number=last.number, hash=last.hash)
        flaw = next(verify_part(again, part, chain.anchor), None)
        if flaw is not None:
            raise Refused(f"{file} was not read back as it was written: {flaw.message}", kind="file_damaged")
        await self._move_anchor(file, chain, entries, origin)
        chain = await self._chain()
        removed += await self._remove(chain.leftovers)
        return Archived(number_of(entries[0]), last.number, last.hash, removed)

    async def _chain(self) -> Chain:
        chain = await self._insistence.ask(lambda: read_chain(self._store, self._app))
        if chain.is_empty:
            raise Refused(f"nothing was ever done to {self._app}", kind="no_audit")
        flaw = next(verify(chain.entries, chain.head, chain.anchor), None)
        if flaw is not None:
            raise Refused(f"the audit is not whole, so nothing is archived: {flaw.message}", kind="audit_damaged")
        return chain

    def _found(self, file: Path) -> tuple[Entry, ...]:
        if not file.exists():
            return ()
        entries = read_archive(file, self._app)
        if not entries:
            raise Refused(f"{file} exists: name another file", kind="file_exists")
        return entries

    async def _old(self, chain: Chain, before: datetime) -> tuple[Entry, ...]:
        ongoing = await Ledger(self._store, self._app, self._insistence).latest()
        under_way = 0 if ongoing is None or ongoing.rollout.is_ended else ongoing.rollout.number
        old = []
        for entry in chain.entries[:-1]:
            record = read_record(entry.value)
            if record.at >= before or (under_way and record.rollout == under_way):
                break
            old.append(entry)
        return tuple(old)

    async def _move_anchor(self, file: Path, chain: Chain, entries: Sequence[Entry], origin: Origin) -> None:
        last = read_record(entries[-1].value)
        digest = hashlib.sha256(b"".join(entry.value + b"\n" for entry in entries)).hexdigest()
        anchor = Anchor(v=VERSION, number=last.number, hash=last.hash, at=last.at)
        said = f"records {chain.anchor.number + 1} to {last.number} are archived in {file.name}"
        record = Record(
            v=1,
            number=0,
            at=origin.at,
            by=origin.by,
            via=origin.via,
            what=ARCHIVED,
            message=f"{said} (SHA-256 {digest}); the last one has the hash {last.hash}",
            reason=origin.reason,
        )
        put = Put(audit_anchor_key(self._app), msgspec.json.encode(anchor), cas=chain.anchor_index)
        for _ in range(_ATTEMPTS):
            # A crash before this transaction leaves the file, which the next attempt uses; after it, records that the
            # file has too, which the next attempt removes.
            if await self._writer.write([put], [record]) is not None:
                return
            now = await self._insistence.ask(lambda: read_chain(self._store, self._app))
            if now.anchor != chain.anchor:
                raise Refused(
                    f"somebody else archived up to record {now.anchor.number} meanwhile: {file} holds records that are "
                    "archived elsewhere too, or still here; nothing was removed",
                    kind="lost_race",
                )
            await self._pause(_PAUSE_S)
        raise Refused(f"others write to {self._app} all the time; nothing was removed", kind="lost_race")

    async def _remove(self, leftovers: Sequence[Entry]) -> int:
        """Take records out of Consul that are archived; so many as this call took out."""
        count = 0
        for begin in range(0, len(leftovers), _BATCH):
            batch = leftovers[begin : begin + _BATCH]
            deletes = [Delete(entry.key, cas=entry.modify_index) for entry in batch]
            if await self._insistence.ask(lambda deletes=deletes: self._store.transact(deletes)):  # type: ignore[misc]
                count += len(batch)
            # Else somebody else removes them too, or an answer was lost; whatever is left, the next call removes.
        return count


def _hash(entry: Entry) -> str:
    return read_record(entry.value).hash
