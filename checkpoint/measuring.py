"""Owns reading what figures about rollouts are made of: the audit, and when builds were cut.

What they mean is left to `checkpoint.statistics`.
"""

from __future__ import annotations

import asyncio
from datetime import datetime

from checkpoint.audit_reading import read_chain, readable
from checkpoint.insisting import Insistence
from checkpoint.release.records import read_builds
from checkpoint.statistics import Statistics, measure
from fleet import Store


async def read_statistics(store: Store, app: str, now: datetime) -> Statistics:
    """The figures of an app as of now.

    Raises:
        Refused: the audit's head or anchor is damaged.
        StoreUnreachable: no answer.
    """
    chain = await read_chain(store, app)
    builds = await read_builds(store, app, Insistence(asyncio.sleep))
    cuts = {key.id: at for key in builds if key.build is not None and (at := _time(key.build.at)) is not None}
    return measure(readable(chain.entries), cuts, now)


def _time(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo is not None else None
