"""Owns reading an app's audit whole: records, head and anchor as they stood together; leaves its meaning to others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from artifact import Refused
from checkpoint.audit import Anchor, Head, Record, number_of, read_anchor, read_head, read_record
from fleet import Entry, Store
from fleet.keys import audit_anchor_key, audit_head_key, audit_prefix


@dataclass(frozen=True)
class Chain:
    """The audit at one moment.

    Attributes:
        entries: of the records, in their order; those that are archived and not removed yet are not among them.
        leftovers: those.
    """

    entries: tuple[Entry, ...]
    head: Head
    anchor: Anchor
    anchor_index: int
    leftovers: tuple[Entry, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever done."""
        return not self.head.number and not self.entries


async def read_chain(store: Store, app: str) -> Chain:
    """The audit; read again until nothing was appended or archived meanwhile, so that this looks like no flaw.

    Raises:
        Refused: head or anchor is damaged.
        StoreUnreachable: no answer.
    """
    while True:
        head = await store.read(audit_head_key(app))
        anchor = await store.read(audit_anchor_key(app))
        entries = await store.read_prefix(audit_prefix(app))
        if (head, anchor) == (await store.read(audit_head_key(app)), await store.read(audit_anchor_key(app))):
            break
    begins, index = read_anchor(anchor)
    return Chain(
        entries=tuple(entry for entry in entries if number_of(entry) > begins.number),
        head=read_head(head)[0],
        anchor=begins,
        anchor_index=index,
        leftovers=tuple(entry for entry in entries if number_of(entry) <= begins.number),
    )


def readable(entries: Iterable[Entry]) -> list[Record]:
    """The records; one that cannot be read is left out, for the check of the chain names it."""
    records = []
    for entry in entries:
        try:
            records.append(read_record(entry.value))
        except Refused:
            continue
    return records
