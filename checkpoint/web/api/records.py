"""Owns what programs read of the audit: records with filters, page by page, and whether it is whole.

What a record is, is left to `checkpoint.audit`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aiohttp import web
from msgspec import UNSET

from artifact import Refused
from checkpoint.audit import Record, read_head, read_record, verify
from checkpoint.audit_reading import read_chain
from checkpoint.web.api.answers import AuditAnswer, VerifyAnswer
from checkpoint.web.api.requests import AuditQuery
from checkpoint.web.site import site_of
from fleet import Entry
from fleet.keys import audit_head_key, audit_prefix

_BLOCK: Final = 100
"""Records whose keys differ in the last two digits: they are read at once, by their prefix."""
_BLOCKS: Final = 50
"""So many are looked through for one answer, so that a filter that nothing fits costs no more than that."""


async def records(request: web.Request, *, query: AuditQuery) -> AuditAnswer:
    """Records of the audit, the newest first."""
    site = site_of(request)
    head, _ = read_head(await site.store.read(audit_head_key(site.app)))
    top = head.number if query.before is UNSET else min(head.number, query.before - 1)
    found: list[Record] = []
    block = top // _BLOCK
    for block in range(top // _BLOCK, max(-1, top // _BLOCK - _BLOCKS), -1):
        entries = await site.store.read_prefix(f"{audit_prefix(site.app)}{block:08}")
        found += [each for each in _readable(entries) if each.number <= top and _is_wanted(each, query)][::-1]
        if len(found) >= query.limit:
            break
    lowest = found[query.limit - 1].number if len(found) >= query.limit else block * _BLOCK
    return AuditAnswer(records=tuple(found[: query.limit]), next=lowest if lowest > 1 else None)


async def verified(request: web.Request) -> VerifyAnswer:
    """Whether every record is there and unaltered."""
    site = site_of(request)
    chain = await read_chain(site.store, site.app)
    flaw = next(verify(chain.entries, chain.head, chain.anchor), None)
    return VerifyAnswer(
        is_whole=flaw is None,
        count=len(chain.entries),
        flaw=None if flaw is None else flaw.message,
        hash=chain.head.hash,
    )


def _readable(entries: Iterable[Entry]) -> list[Record]:
    """The records that can be read; the check of the chain names the others."""
    found = []
    for entry in entries:
        try:
            found.append(read_record(entry.value))
        except Refused:
            continue
    return found


def _is_wanted(record: Record, query: AuditQuery) -> bool:
    if query.rollout is not UNSET and record.rollout != query.rollout:
        return False
    said = f"{record.what} {record.message} {record.reason} {record.phase} rollout {record.rollout}"
    return query.who in record.by and query.what.casefold() in said.casefold()
