"""Owns `hotcold plan`: what it prints, and its exit code; leaves looking ahead to `hotcold.foresight`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click
import msgspec
from rich.table import Table
from rich.text import Text

from agent.config import Settings, load_settings
from hotcold.command import Command
from hotcold.foresight import Foresight, foresee
from hotcold.local_config import config_options, environment_of, find_config
from hotcold.options import without_credentials
from hotcold.prospects import Fetch
from hotcold.socket_client import AgentUnreachable, ask
from hotcold.status_document import BUSY, NOT_AS_WANTED, STEADY, status_of
from hotcold.terminal import console, duration, many, print_plain, size

_EXITS: Final = {
    **dict.fromkeys(("nothing",), STEADY),
    **dict.fromkeys(("swap", "fetch", "prove", "go_back"), BUSY),
    **dict.fromkeys(("held", "refused", "stuck"), NOT_AS_WANTED),
}
_COLOURS: Final = {STEADY: "green", BUSY: "cyan", NOT_AS_WANTED: "red"}
_SHOWN_WAITS: Final = 8


@click.command(
    cls=Command,
    examples=["hotcold plan --app shop", "hotcold plan --config /etc/hotcold/shop.toml --json | jq .fetch"],
    exits={
        STEADY: "nothing: what is wanted serves, or nothing is ordered",
        BUSY: "a deploy",
        NOT_AS_WANTED: "no deploy, although one is ordered: held, refused, or it cannot be fetched",
    },
)
@config_options
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=1, max=600),
    default=5,
    show_default=True,
    metavar="SECONDS",
    help="How long Consul may take to answer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(*, app: str | None, config: Path | None, timeout_s: float, as_json: bool) -> None:
    """Say what this host would do now, and change nothing: fetch how much, wait for whom, run what, or refuse why.

    Reads the order in Consul; where Consul does not answer, the one that the agent remembers. Decides as the agent
    does, whether one runs or not. Of the artifact it fetches the index alone. Run it as root, to look where the agent
    may.
    """
    path = find_config(app, config)
    settings = load_settings(path, environment_of(path))
    seen = asyncio.run(foresee(settings, patience_s=timeout_s, agent=_doing(settings)))
    if as_json:
        document = asdict(seen) | {"problem": None if seen.problem is None else msgspec.to_builtins(seen.problem)}
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        _print(seen)
    raise SystemExit(_EXITS[seen.verdict])


def _doing(settings: Settings) -> str | None:
    try:
        state = status_of(ask(settings.identity.socket, "GET", "/v1/status")).state
    except AgentUnreachable:
        return None
    return f"{state.name.replace('_', ' ')} for {duration(state.for_s)}"


def _print(seen: Foresight) -> None:
    screen = console()
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(seen):
        table.add_row(name, Text(value, _COLOURS[_EXITS[seen.verdict]] if name == "would" else ""))
    if screen.is_terminal:
        screen.print(table)
    else:
        print_plain(table)


def _rows(seen: Foresight) -> Iterator[tuple[str, str]]:
    yield "host", f"{seen.app}/{seen.tier} on {seen.host}"
    yield "agent", "none answers; this is what one would do at its start" if seen.agent is None else seen.agent
    yield "order", _order(seen)
    yield "hot", "nothing" if seen.hot is None else seen.hot
    yield "would", seen.message
    if seen.step:
        yield "next", seen.step
    if seen.fetch is not None:
        yield "fetch", _fetch(seen.fetch)
        yield "space", _space(seen.fetch, seen.free_bytes)
    if seen.verdict in {"swap", "fetch"}:
        yield "wait", seen.waits[0] if seen.waits else "for nobody now"
        yield from (("", wait) for wait in seen.waits[1:_SHOWN_WAITS])
        if len(seen.waits) > _SHOWN_WAITS:
            yield "", f"and {len(seen.waits) - _SHOWN_WAITS} more"
        names = [f"{point}: {' '.join(argv)}" for point, argv in seen.hooks.items()]
        yield "hooks", names[0] if names else "none"
        yield from (("", name) for name in names[1:])
    if seen.probe:
        yield "probe", seen.probe


def _order(seen: Foresight) -> str:
    told = "none" if seen.serial is None else f"{seen.serial}, for this host: {seen.wanted or 'what it has'}"
    if seen.order_from == "memory":
        told += "; as the agent remembers it, for Consul does not answer"
    if seen.problem is not None and seen.problem.message not in seen.message:
        told += f"; {seen.problem.message}"
    return told


def _fetch(fetch: Fetch) -> str:
    where = f"from {without_credentials(fetch.from_url)}"
    if fetch.entries is None:
        return f"{size(fetch.fetched_bytes)}, the whole artifact: no index of it can be read in parts; {where}"
    lacking = f"this host lacks {many(fetch.fetched_files or 0, 'file')} of {many(fetch.entries, 'entry', 'entries')}"
    return f"{size(fetch.fetched_bytes)}: {lacking}; {where}"


def _space(fetch: Fetch, free_bytes: int | None) -> str:
    free = "unknown" if free_bytes is None else size(free_bytes)
    needed = "not known before it is unpacked" if fetch.needed_bytes is None else f"at most {size(fetch.needed_bytes)}"
    return f"{free} free, needed: {needed}"
