"""Owns Consul's maintenance mode of the app's own services: on before a drain, off after it, whatever happens between.

When that is, is left to `agent.work`; registering those services, to whoever runs the app.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import structlog

from agent.blocking import run_blocking
from agent.memory import Memory, OutOfService
from artifact import HotcoldError
from fleet import Store, StoreRefused, StoreUnreachable

log = structlog.get_logger()

RETRY_INITIAL_S = 1.0
RETRY_MAX_S = 30.0


class Maintenance:
    """Takes services out of what load balancers see, and brings them back; `run` keeps trying to bring them back.

    What was taken out is on the disk before Consul hears of it, and stays there until it is back, so that a host that
    is killed in between comes back all the same.

    Args:
        services: ids on the host's own Consul agent, as configured now.
    """

    def __init__(
        self,
        store: Store,
        memory: Memory,
        *,
        services: Callable[[], Sequence[str]],
        sleep: Callable[[float], Awaitable[None]],
        chance: random.Random,
    ) -> None:
        self._store = store
        self._memory = memory
        self._services = services
        self._sleep = sleep
        self._chance = chance
        self._is_due = asyncio.Event()
        self._at_it = asyncio.Lock()

    async def leave(self, reason: str) -> None:
        """Take the services out.

        A store that does not answer tells load balancers nothing either, and a service that is not registered gets no
        traffic: both are logged, and the deploy goes on.

        Raises:
            StoreRefused: the token may not do that.
            TransientError: the disk cannot be written.
        """
        services = tuple(self._services())
        if not services:
            return
        self._is_due.clear()
        async with self._at_it:
            await run_blocking(self._memory.keep_out_of_service, OutOfService(services))
            for service in services:
                try:
                    await self._store.set_maintenance(service, on=True, reason=reason)
                except (StoreUnreachable, StoreRefused) as error:
                    if error.kind not in {"store_unreachable", "unknown_service"}:
                        raise
                    log.warning("service not taken out", service=service, kind=error.kind, error=str(error))

    def come_back(self) -> None:
        """Bring back, soon, whatever was taken out; waits for nobody, for service must not depend on it."""
        self._is_due.set()

    async def run(self) -> None:
        """Bring services back when that is due, until cancelled."""
        attempt = 0
        while True:
            await self._is_due.wait()
            try:
                await self.finish()
                attempt = 0
            except HotcoldError as error:
                attempt += 1
                log.warning("services not brought back yet", kind=error.kind, error=str(error), attempt=attempt)
                ceiling_s = min(RETRY_MAX_S, RETRY_INITIAL_S * 2 ** min(attempt, 10))
                await self._sleep(self._chance.uniform(ceiling_s / 2, ceiling_s))

    async def finish(self) -> None:
        """Bring back what is due, once; for an agent that stops.

        Raises:
            HotcoldError: it did not work; the next start tries again.
        """
        async with self._at_it:
            if self._is_due.is_set():
                await self._bring_back()
                self._is_due.clear()

    async def _bring_back(self) -> None:
        left = (await run_blocking(self._memory.recall)).out_of_service
        if left is None:
            return
        for service in left.services:
            try:
                await self._store.set_maintenance(service, on=False)
            except StoreRefused as error:
                if error.kind != "unknown_service":
                    raise
                # Its maintenance mode went with it.
                log.info("a service that was taken out is not registered any more", service=service)
        await run_blocking(self._memory.keep_out_of_service, None)
