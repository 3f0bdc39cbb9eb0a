"""Owns how the web side is put together, started and stopped; leaves every answer to its module.

Stopping: 1. streams are told to end; 2. the listening socket is closed, and answers under way are waited for;
3. refusals that are not written yet are given up; 4. the watches end.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from artifact import ConfigError
from checkpoint.actions import Desk
from checkpoint.pipeline import Settings
from checkpoint.web import api, charts, messages, pages, past, signing_in, starting, steering, stream
from checkpoint.web.denials import Denials
from checkpoint.web.gate import Gate, add_headers
from checkpoint.web.identity import Identities
from checkpoint.web.live import Live
from checkpoint.web.oidc import pages as oidc_pages
from checkpoint.web.oidc.opening import opened
from checkpoint.web.rendering import Renderer, Statics
from checkpoint.web.rights import ROUTES
from checkpoint.web.sealing import KEY_BYTES, Seal, read_key
from checkpoint.web.signing_in import GATE
from checkpoint.web.site import SITE, Site, site_of
from checkpoint.web.stream import STREAMS, Streams
from fleet import Store

log = structlog.get_logger()

MAX_BODY_BYTES: Final = 8 << 20
"""A sealed plan of some ten thousand hosts fits."""
STOP_S: Final = 5.0


@dataclass(frozen=True)
class Serving:
    """A server that listens, at `port` of its address.

    Attributes:
        url: how browsers reach it.
        sign_in_url: signs in whoever opens it, where nothing else is configured; else None.
    """

    url: str
    sign_in_url: str | None
    site: Site
    port: int


@asynccontextmanager
async def serving(
    store: Store,
    settings: Settings,
    *,
    name: str,
    launcher: str,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Serving]:
    """Serve the pages of one app while the context is open.

    Args:
        store: where everything lies.
        settings: pipeline, and `[web]`.
        name: of this instance, for people.
        launcher: name of whoever starts it.
        now: wall-clock time, aware.
        monotonic: seconds, for limits on how often somebody may do something.

    Raises:
        ConfigError: the address cannot be listened on, or a file of `[web]` cannot be used.
    """
    table = settings.web
    loop = asyncio.get_running_loop()
    key_file = Path(table.key_file) if table.key_file else None
    key = secrets.token_bytes(KEY_BYTES) if key_file is None else await loop.run_in_executor(None, read_key, key_file)
    identities = Identities(table, Seal(key), launcher=launcher)
    await loop.run_in_executor(None, identities.load)
    statics = await loop.run_in_executor(None, Statics)
    renderer = await loop.run_in_executor(None, Renderer, statics)
    app = settings.pipeline.app
    desk = Desk(
        store,
        app,
        now=now,
        new_salt=lambda: secrets.token_hex(8),
        pause=asyncio.sleep,
        on_retry=lambda error: log.warning("Consul does not answer", error=str(error)),
    )
    denials = Denials(store, app, monotonic)
    async with Live(store, app, now=now) as live, opened(table, identities.seal) as oidc:
        site = Site(
            name=name,
            app=app,
            settings=settings,
            store=store,
            desk=desk,
            live=live,
            identities=identities,
            oidc=oidc,
            denials=denials,
            renderer=renderer,
            statics=statics,
            now=now,
            monotonic=monotonic,
            stopping=asyncio.Event(),
        )
        tasks = [
            asyncio.create_task(denials.write(), name="refusals"),
            asyncio.create_task(identities.keep_loaded(), name="tokens"),
        ]
        runner = web.AppRunner(application(site), access_log=None, shutdown_timeout=STOP_S)
        try:
            await runner.setup()
            yield await _listen(runner, site)
        finally:
            site.stopping.set()
            await runner.cleanup()
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks, return_exceptions=True)


async def _listen(runner: web.AppRunner, site: Site) -> Serving:
    table = site.settings.web
    host, port = table.address
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise ConfigError(f"web.listen = {table.listen!r} cannot be listened on: {error.strerror}") from error
    port = runner.addresses[0][1]
    shown = f"[{host}]" if ":" in host else host
    url = table.public_url.rstrip("/") or f"http://{shown}:{port}"
    token = site.identities.launch_token
    return Serving(url, None if token is None else f"{url}/sign-in?token={token}", site, port)


def application(site: Site) -> web.Application:
    """The application, with a handler for each route that there is."""
    gate = Gate(site)
    app = web.Application(middlewares=[gate.middleware()], client_max_size=MAX_BODY_BYTES)
    app[SITE], app[STREAMS], app[GATE] = site, Streams(), gate
    app.on_response_prepare.append(add_headers)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, HANDLERS[route.name], name=route.name)
    return app


async def health(request: web.Request) -> web.Response:
    """200 while pages can be drawn."""
    site = site_of(request)
    is_well = site.live.snapshot is not None and site.live.broken is None
    return web.Response(text="ok\n" if is_well else "not yet\n", status=200 if is_well else 503)


async def static(request: web.Request) -> web.Response:
    """A file that pages load; its address changes with its content."""
    statics, name = site_of(request).statics, request.match_info["file"]
    found = statics.files.get(name)
    if found is None:
        raise web.HTTPNotFound
    kind, content = found
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        headers["Content-Encoding"], content = "gzip", statics.packed[name]
    return web.Response(body=content, content_type=kind, charset="utf-8", headers=headers)


HANDLERS: Final[Mapping[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]] = {
    "health": health,
    "static": static,
    "sign_in": signing_in.form,
    "signed_in": signing_in.post,
    "oidc_begin": oidc_pages.begin,
    "oidc_return": oidc_pages.come_back,
    "sign_out": signing_in.out,
    "oidc_signed_out": oidc_pages.signed_out,
    "train": pages.train,
    "rollout": pages.rollout,
    "charts": charts.charts,
    "act": steering.act,
    "override": steering.override,
    "new": starting.new,
    "plan": starting.plan,
    "start": starting.start,
    "hosts": pages.hosts,
    "host": pages.host,
    "history": past.history,
    "verify": past.verified,
    "export": past.export,
    "statistics": past.statistics,
    "settings": pages.settings,
    "resend": messages.resend,
    "command": steering.command,
    "lock": steering.lock,
    "unlock": steering.unlock,
    "events": stream.events,
    **api.HANDLERS,
}
