"""Owns `hotcold fleet`; leaves the overview to `checkpoint` and the picture to `hotcold.fleet_view`."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Final

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from checkpoint import Observer, look
from fleet import ConsulSettings, ConsulStore, Contact
from fleet.keys import hosts_prefix
from hotcold.command import Command, Failure
from hotcold.consul_options import consul_options, settings_of
from hotcold.fleet_view import SHOWN_HOSTS, document, draw, one_line
from hotcold.options import app_option
from hotcold.terminal import console, duration, print_plain

_REDRAW_S: Final = 1.0
"""Ages are shown in seconds; news are drawn at once."""
_LINES_AROUND: Final = 8
"""Header, summary and foot of a tier."""
_FEW: Final = 3
"""Rows that each tier gets even where the window is too small."""


@click.command(
    cls=Command,
    examples=[
        "hotcold fleet --app shop",
        "hotcold fleet --app shop --tier prod --watch",
        "hotcold fleet --app shop --json | jq '.tiers[] | {tier, counts}'",
    ],
    exits={0: "shown; with --watch: stopped by Ctrl-C", 1: "nothing is known of this app, or Consul does not answer"},
)
@app_option
@click.option("--tier", metavar="TIER", help="Only this tier.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--watch", is_flag=True, help="Keep it current until Ctrl-C; a line per change where there is no terminal."
)
@click.option("--all", "show_all", is_flag=True, help="List every host of large tiers too.")
@consul_options
def fleet(
    *,
    app: str,
    tier: str | None,
    as_json: bool,
    watch: bool,
    show_all: bool,
    consul: str | None,
    token_file: str | None,
) -> None:
    """Show each tier's order and what its hosts make of it; hosts that need an eye come first."""
    if as_json and watch:
        raise click.UsageError("--json prints one object: it cannot be combined with --watch")
    settings = settings_of(consul, token_file)
    hosts_prefix(app, tier)  # refuses names that no key can have
    if watch:
        try:
            asyncio.run(_watch(settings, app, tier, show_all=show_all))
        except KeyboardInterrupt:
            raise SystemExit(0) from None
    asyncio.run(_show(settings, app, tier, as_json=as_json, show_all=show_all))


async def _show(settings: ConsulSettings, app: str, tier: str | None, *, as_json: bool, show_all: bool) -> None:
    async with ConsulStore(settings) as store:
        seen = await look(store, app, tier)
    if as_json:
        click.echo(json.dumps(document(seen), ensure_ascii=False))
        return
    if not seen.tiers:
        where = app if tier is None else f"{app}/{tier}"
        raise Failure(f"nothing is known of {where} at {settings.address}: no order, and no host has reported")
    screen, now = console(), datetime.now(UTC)
    if screen.is_terminal:
        screen.print(draw(seen, now, show_all=show_all))
    else:
        print_plain(draw(seen, now, show_all=show_all, has_bar=False))


async def _watch(settings: ConsulSettings, app: str, tier: str | None, *, show_all: bool) -> None:
    screen = console()
    async with ConsulStore(settings) as store, Observer(store, app, tier) as observer:
        if not screen.is_terminal:
            await _log_changes(observer)
            return
        with Live(console=screen, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
            while True:
                rows = max(1, min(SHOWN_HOSTS, screen.height - _LINES_AROUND))
                live.update(_picture(observer, store.contact, rows, show_all=show_all), refresh=True)
                await observer.changed(_REDRAW_S)


def _picture(observer: Observer, contact: Contact, rows: int, *, show_all: bool) -> RenderableType:
    seen = observer.now
    parts: list[RenderableType] = []
    if contact.failing_since_s is not None:
        since = duration(time.monotonic() - contact.failing_since_s)
        parts.append(Text(f"cut off from Consul for {since}, showing what was known: {contact.error}", "bold yellow"))
    if seen is None:
        parts.append(Text("asking Consul ...", "dim"))
    elif not seen.tiers:
        parts.append(Text("no order, and no host has reported yet", "dim"))
    else:
        tables = sum(1 for tier in seen.tiers if tier.hosts) or 1
        parts.append(draw(seen, datetime.now(UTC), show_all=show_all, max_rows=max(_FEW, rows // tables)))
    return Group(*parts, Text("\nCtrl-C leaves", "dim"))


async def _log_changes(observer: Observer) -> None:
    said: dict[tuple[str, str], str] = {}
    while True:
        seen = observer.now
        for tier in () if seen is None else seen.tiers:
            for host in tier.hosts:
                line = one_line(host)
                if said.get((host.tier, host.host)) != line:
                    said[host.tier, host.host] = line
                    click.echo(f"{datetime.now(UTC).isoformat(timespec='seconds')} {line}")
        await observer.changed(60.0)
