"""Owns the blocking face of the records: what a release, which waits for git and builds anyway, asks of Consul.

Nothing is held open between two questions: a build takes longer than any connection is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from checkpoint.guards import Denied
from checkpoint.insisting import Insistence
from checkpoint.reading import TierKey, read_tier_keys
from checkpoint.release.records import BuildKey, read_builds, record
from checkpoint.release.standing import read_denials
from fleet import Build, ConsulSettings, ConsulStore, Store, StoreUnreachable
from fleet.keys import lock_key, tiers_prefix

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Standing:
    """All that Consul has of an app's builds: records, the newest first, orders of the tiers, denied builds."""

    builds: tuple[BuildKey, ...]
    tiers: tuple[TierKey, ...]
    denials: tuple[Denied, ...]


class Ledger:
    """The records of one app.

    Args:
        settings: where Consul is.
        app: the app.
        on_retry: told of each failure that is tried again.
    """

    def __init__(self, settings: ConsulSettings, app: str, on_retry: Callable[[StoreUnreachable], None]) -> None:
        self._settings = settings
        self._app = app
        self._insistence = Insistence(asyncio.sleep, on_retry)

    def builds(self) -> tuple[BuildKey, ...]:
        """See `checkpoint.release.records.read_builds`."""
        return self._do(lambda store: read_builds(store, self._app, self._insistence))

    def standing(self) -> Standing:
        """Records, orders and denied builds; raises as `builds`."""
        return self._do(self._standing)

    def record(self, build: Build, *, by: str, at: datetime) -> bool:
        """See `checkpoint.release.records.record`."""
        return self._do(lambda store: record(store, build, self._insistence, by=by, at=at, pause=asyncio.sleep))

    async def _standing(self, store: Store) -> Standing:
        ask = self._insistence.ask
        builds, orders, denials = await asyncio.gather(
            read_builds(store, self._app, self._insistence),
            ask(lambda: store.read_prefix(tiers_prefix(self._app))),
            ask(lambda: store.read(lock_key(self._app))),
        )
        return Standing(builds, read_tier_keys(self._app, orders), read_denials(denials))

    def _do(self, work: Callable[[Store], Awaitable[_Answer]]) -> _Answer:
        async def run() -> _Answer:
            async with ConsulStore(self._settings) as store:
                return await work(store)

        return asyncio.run(run())
