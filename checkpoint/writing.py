"""Owns how Checkpoint writes: everything that belongs together, and its records in the audit, in one transaction.

What is written is left to the callers.
"""

from __future__ import annotations

from collections.abc import Sequence

from checkpoint.audit import Record, appending, read_head
from checkpoint.insisting import Insistence
from fleet import Put, Store, StoreUnreachable
from fleet.keys import audit_head_key
from fleet.store import Operation


class Writer:
    """Writes transactions of one app.

    Args:
        store: where everything lies.
        app: the app.
        insistence: asks again where the store does not answer.
    """

    def __init__(self, store: Store, app: str, insistence: Insistence) -> None:
        self._store = store
        self._app = app
        self._insistence = insistence

    async def write(self, operations: Sequence[Operation], records: Sequence[Record]) -> tuple[Record, ...] | None:
        """Write the operations and append the records, all or nothing, exactly once.

        After an answer was lost, the first record tells whether the transaction had arrived: nobody else can have
        written one with its hash.

        Returns:
            The records as they stand in the audit; None where something else was written meanwhile and nothing of this.

        Raises:
            Refused: the audit's head is damaged.
            StoreRefused: the token lacks a right.
            StoreUnreachable: no answer for about a quarter of a minute; it may or may not have arrived.
        """
        entry = await self._insistence.ask(lambda: self._store.read(audit_head_key(self._app)))
        head, index = read_head(entry)
        appended, written = appending(self._app, records, head, index)
        whole = [*operations, *appended]
        was_unsure = False

        async def transact() -> bool:
            nonlocal was_unsure
            try:
                return await self._store.transact(whole)
            except StoreUnreachable:
                was_unsure = True
                raise

        if await self._insistence.ask(transact):
            return written
        if was_unsure and await self._is_there(appended[0]):
            return written
        return None

    async def _is_there(self, first: Put) -> bool:
        entry = await self._insistence.ask(lambda: self._store.read(first.key))
        return entry is not None and entry.value == first.value
