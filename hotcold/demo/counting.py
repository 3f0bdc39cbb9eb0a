"""Owns answering for the clients' counts over HTTP, as a metric's source asks: what each host did in the last seconds.

Counting is left to `hotcold.demo.load`; what a metric makes of it, to Checkpoint.
"""

from __future__ import annotations

import asyncio
import bisect
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from hotcold.demo.load import Count

_REMEMBERED_S: Final = 0.25
_REMEMBERED_COUNT: Final = 4 * 3600


class Past:
    """What the counts were, now and then, for an hour.

    Args:
        counts: of each host; they rise.
        now_s: monotonic.
    """

    def __init__(self, counts: Mapping[str, Count], now_s: float) -> None:
        self._counts = counts
        self._times_s: deque[float] = deque(maxlen=_REMEMBERED_COUNT)
        self._readings: deque[Mapping[str, tuple[int, int]]] = deque(maxlen=_REMEMBERED_COUNT)
        self.remember(now_s)

    def remember(self, now_s: float) -> None:
        """Keep what the counts are now."""
        self._times_s.append(now_s)
        self._readings.append(self._now())

    def since(self, then_s: float) -> Mapping[str, tuple[int, int]]:
        """Of each host, requests that did not get their page, and all requests: since then, or since the first look."""
        before = self._readings[max(0, bisect.bisect_right(self._times_s, then_s) - 1)]
        return {host: (bad - before[host][0], total - before[host][1]) for host, (bad, total) in self._now().items()}

    def _now(self) -> Mapping[str, tuple[int, int]]:
        return {host: (count.failed + count.mixed, count.requests) for host, count in self._counts.items()}


@asynccontextmanager
async def serving_counts(counts: Mapping[str, Count]) -> AsyncIterator[str]:
    """Serve `/counts?hosts=a,b&seconds=1.5` on 127.0.0.1 while the context is open; its address."""
    past = Past(counts, time.monotonic())

    async def answer(request: web.Request) -> web.Response:
        try:
            seconds = float(request.query["seconds"])
        except (KeyError, ValueError) as error:
            raise web.HTTPBadRequest(text="give hosts=NAME,NAME and seconds=NUMBER\n") from error
        wanted = set(request.query.get("hosts", "").split(","))
        found = past.since(time.monotonic() - seconds)
        hosts = [{"host": host, "bad": bad, "total": all_} for host, (bad, all_) in found.items() if host in wanted]
        return web.json_response({"hosts": hosts})

    application = web.Application()
    application.router.add_get("/counts", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    remembering = asyncio.create_task(_remember(past), name="past")
    try:
        listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listener).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await runner.cleanup()
        remembering.cancel()
        with suppress(asyncio.CancelledError):
            await remembering


async def _remember(past: Past) -> None:
    while True:
        past.remember(time.monotonic())
        await asyncio.sleep(_REMEMBERED_S)
