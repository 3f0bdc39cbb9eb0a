"""Owns `hotcold status`; leaves the questions to `hotcold.socket_client` and the picture to `hotcold.status_view`."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

import click
from rich.live import Live
from rich.text import Text

from hotcold.command import Command, Failure
from hotcold.options import socket_options
from hotcold.socket_client import AgentUnreachable, ask, find_socket
from hotcold.status_document import BUSY, NOT_AS_WANTED, STEADY, UNREACHABLE, Status, status_of
from hotcold.status_view import draw, one_line, plain
from hotcold.terminal import console, print_plain

_INTERVAL_S: Final = 0.5
"""How often `--watch` looks: as often as a person can read."""


class Unreachable(Failure):
    """No agent answers."""

    exit_code = UNREACHABLE


@click.command(
    cls=Command,
    examples=[
        "hotcold status --app shop",
        "hotcold status --app shop --watch",
        "hotcold status --socket /run/hotcold/shop.sock --json | jq .state.name",
    ],
    exits={
        STEADY: "steady: what is wanted is served",
        BUSY: "busy: on the way to what is wanted",
        NOT_AS_WANTED: "not as wanted: rolled back, refused, backing off, held, or an order that cannot be obeyed",
        UNREACHABLE: "no agent answers",
    },
)
@socket_options
@click.option("--json", "as_json", is_flag=True, help="Print the agent's own document: one JSON object.")
@click.option("--watch", is_flag=True, help="Keep looking until Ctrl-C; exits with 0.")
def status(*, app: str | None, socket_path: Path | None, as_json: bool, watch: bool) -> None:
    """Show what the agent on this host is doing, what is served, and why it is not what is wanted."""
    if as_json and watch:
        raise click.UsageError("--json prints one object: it cannot be combined with --watch")
    path = find_socket(app, socket_path)
    if watch:
        _watch(path)
    try:
        document = ask(path, "GET", "/v1/status")
        now = status_of(document)
    except AgentUnreachable as error:
        raise Unreachable(str(error)) from error
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        screen = console()
        moment = datetime.now(UTC)
        if screen.is_terminal:
            screen.print(draw(now, moment))
        else:
            print_plain(plain(now, moment))
    raise SystemExit(now.exit_code)


def _watch(path: Path) -> NoReturn:
    screen = console()
    try:
        if screen.is_terminal:
            with Live(console=screen, auto_refresh=False, screen=False) as live:
                while True:
                    now = _look(path)
                    live.update(draw(now, datetime.now(UTC)) if isinstance(now, Status) else now, refresh=True)
                    time.sleep(_INTERVAL_S)
        said = ""
        while True:
            now = _look(path)
            line = one_line(now) if isinstance(now, Status) else now.plain
            if line != said:
                click.echo(f"{datetime.now(UTC).isoformat(timespec='seconds')} {line}")
                said = line
            time.sleep(_INTERVAL_S)
    except KeyboardInterrupt:
        raise SystemExit(0) from None


def _look(path: Path) -> Status | Text:
    try:
        return status_of(ask(path, "GET", "/v1/status"))
    except AgentUnreachable as error:
        return Text(str(error), "red")
