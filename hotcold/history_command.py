"""Owns `hotcold history`: what has happened on this host, as its agent has kept it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from hotcold.command import Command
from hotcold.options import socket_options
from hotcold.socket_client import ask, find_socket

_FIRST = ("build", "release", "state", "was", "point", "exit", "kind")
"""What a reader looks for first."""


@click.command(
    cls=Command,
    examples=[
        "hotcold history --app shop",
        "hotcold history --app shop --limit 1000 --json | jq '.[] | select(.level != \"info\")'",
    ],
)
@socket_options
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="So many, the newest.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def history(*, app: str | None, socket_path: Path | None, limit: int, as_json: bool) -> None:
    """Show what has happened on this host: orders, states, swaps, hooks and failures, also before a restart."""
    answer = ask(find_socket(app, socket_path), "GET", f"/v1/history?limit={limit}")
    events: list[dict[str, Any]] = answer["events"]
    if as_json:
        click.echo(json.dumps(events, ensure_ascii=False))
        return
    for event in events:
        click.echo(_line(event))


def _line(event: Mapping[str, Any]) -> str:
    facts = {key: value for key, value in event["facts"].items() if value not in (None, "", [])}
    ordered = [*(key for key in _FIRST if key in facts), *sorted(facts.keys() - set(_FIRST))]
    told = "  ".join(f"{key}={_shown(facts[key])}" for key in ordered)
    mark = "" if event["level"] == "info" else f"{event['level']}: "
    return f"{event['at'][:19]}Z  {mark}{event['event']}" + (f"  {told}" if told else "")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return f'"{text}"' if " " in text else text
