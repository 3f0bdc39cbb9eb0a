"""Owns the server's life: socket, timer, start and stop; leaves requests to `fleet.devserver.routes`."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Self

from aiohttp import web

from fleet.devserver.catalog import Check, Service
from fleet.devserver.routes import make_app
from fleet.devserver.state import Node, State

_SHUTDOWN_S = 2.0
_TIMER_MIN_S = 0.01
"""The timer's clock may be a test's that stands still; then the timer must not spin."""


class DevServer:
    """An in-memory Consul for one process, as an async context manager; not for production.

    What it remembers outlives `aclose`, and the port is kept, so that a second `start` looks like a restart.

    Args:
        host: address to bind; nobody is asked for a password, so leave it on the loopback.
        port: 0: any free one.
        node: name of the one node.
        clock: monotonic seconds for everything that runs out: sessions, lock delays, TTL checks.
        session_ttl_min_s: Consul's minimum; less for tests that cannot wait for 20 seconds.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        node: str = "dev",
        clock: Callable[[], float] = time.monotonic,
        session_ttl_min_s: float = 10.0,
    ) -> None:
        self._host = host
        self._port = port
        self._state = State(Node(node, str(uuid.uuid4()), host), clock=clock, session_ttl_min_s=session_ttl_min_s)
        self._state.deadline_moved = self._arm_timer
        self._runner: web.AppRunner | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._populate()

    @property
    def address(self) -> str:
        """`http://host:port`; before the first start the port may be 0."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def waiting_count(self) -> int:
        """How many queries are blocked."""
        return len(self._state.waiters)

    async def start(self) -> None:
        """Bind and serve; called while it serves already, it does nothing.

        Raises:
            OSError: the address cannot be bound.
        """
        if self._runner is not None:
            return
        self._state.waiters.open()
        # A client that goes away while it waits must not leave its waiter behind.
        runner = web.AppRunner(
            make_app(self._state), access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_S
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port, backlog=1024).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self._port = runner.addresses[0][1]
        self._arm_timer()

    async def aclose(self) -> None:
        """Answer what waits with what there is, then close every connection; called twice it does nothing more."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        self._disarm_timer()
        self._state.waiters.close()
        await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _populate(self) -> None:
        """What every Consul shows before anybody has registered anything."""
        state, at = self._state, self._state.next_index()
        state.catalog.put_service(Service(id="consul", name="consul"), at)
        serf = Check(
            id="serfHealth",
            name="Serf Health Status",
            status="passing",
            output="Agent alive and reachable",
            type="",
        )
        state.catalog.put_check(serf, at, state.clock())
        state.publish()

    def _arm_timer(self) -> None:
        if self._runner is None:
            return
        self._disarm_timer()
        deadline_s = self._state.next_deadline_s()
        if deadline_s is not None:
            delay_s = max(_TIMER_MIN_S, deadline_s - self._state.clock())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._time_passed)

    def _disarm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_passed(self) -> None:
        self._state.expire()
        self._arm_timer()
