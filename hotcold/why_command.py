"""Owns `hotcold why`; leaves the reason to `hotcold.why`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from hotcold.command import Command
from hotcold.options import socket_options
from hotcold.socket_client import AgentUnreachable, ask, find_socket
from hotcold.status_command import Unreachable
from hotcold.status_document import BUSY, NOT_AS_WANTED, STEADY, UNREACHABLE, status_of
from hotcold.why import reason_of


@click.command(
    cls=Command,
    examples=["hotcold why --app shop", "hotcold why --app shop --json | jq -r .kind"],
    exits={
        STEADY: "this host does what the order says",
        BUSY: "not yet: it is on the way",
        NOT_AS_WANTED: "no, and it will not by itself; or only after a pause",
        UNREACHABLE: "no agent answers",
    },
)
@socket_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: kind, message, step.")
def why(*, app: str | None, socket_path: Path | None, as_json: bool) -> None:
    """Say the first reason why this host does not run what the order says, and what to do."""
    path = find_socket(app, socket_path)
    try:
        status = status_of(ask(path, "GET", "/v1/status"))
    except AgentUnreachable as error:
        raise Unreachable(str(error)) from error
    reason = reason_of(status)
    if as_json:
        click.echo(json.dumps(asdict(reason), ensure_ascii=False))
    else:
        click.echo(reason.message + (f"\nnext: {reason.step}" if reason.step else ""))
    raise SystemExit(status.exit_code)
