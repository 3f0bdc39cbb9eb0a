"""Owns `hotcold rollout list`: past rollouts and the present one; leaves what a row says to `checkpoint.rollout`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import click
import msgspec
from rich.table import Table
from rich.text import Text

from checkpoint.actions import Desk
from checkpoint.rollout.ledger import KEPT_ROLLOUTS
from checkpoint.rollout.listing import list_rollouts
from checkpoint.rollout.summary import Summary, Unreadable
from hotcold.command import Command, Failure
from hotcold.consul_options import consul_options
from hotcold.options import app_option
from hotcold.rollout_options import at_desk
from hotcold.terminal import console, duration, print_plain

_SHOWN: Final = 20
_COLOURS: Final = {"finished": "green", "rolled_back": "red", "aborted": "yellow", "paused": "yellow"}


@click.command(
    "list",
    cls=Command,
    examples=[
        "hotcold rollout list --app shop",
        "hotcold rollout list --app shop --json | jq '.rollouts[] | select(.phase == \"rolled_back\")'",
    ],
    exits={0: "shown", 1: "no rollout was ever started, or Consul does not answer"},
)
@app_option
@click.option(
    "--all", "show_all", is_flag=True, help=f"Every one of the {KEPT_ROLLOUTS} that are kept, not only {_SHOWN}."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@consul_options
def list_(*, app: str, show_all: bool, as_json: bool, consul: str | None, token_file: str | None) -> None:
    """Show rollouts, the latest first: build, by whom, when planned, how long it took, and how it ended.

    Older ones are in the audit alone: `hotcold audit show`.
    """
    now = datetime.now(UTC)
    count = KEPT_ROLLOUTS if show_all else _SHOWN

    async def work(desk: Desk) -> Sequence[Summary | Unreadable]:
        # One more than is shown tells whether there are more.
        return await list_rollouts(desk.ledger, now, count=count + 1)

    found = at_desk(app, consul, token_file, work)
    rows, is_cut = found[:count], len(found) > count
    if as_json:
        click.echo(msgspec.json.encode({"app": app, "rollouts": rows}).decode())
        return
    if not rows:
        raise Failure(f"no rollout of {app} was ever started: `hotcold rollout start BUILD --app {app}` does it")
    screen, picture = console(), table_of(rows)
    if screen.is_terminal:
        screen.print(picture)
    else:
        print_plain(picture)
    if is_cut:
        click.echo("there are older ones: --all shows them")


def table_of(rows: Sequence[Summary | Unreadable]) -> Table:
    """One row for each rollout."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("rollout", "build", "phase", "step", "by", "planned", "took", ""):
        table.add_column(column, no_wrap=column != "")
    for row in rows:
        if isinstance(row, Unreadable):
            table.add_row(str(row.rollout), "", "", "", "", "", "", Text(f"cannot be read: {row.fault}", "red"))
            continue
        table.add_row(
            str(row.rollout),
            Text(row.build),
            Text(row.phase.replace("_", " "), _COLOURS.get(row.phase, "cyan")),
            f"{min(row.step + 1, row.step_count)} of {row.step_count}",
            Text(row.by),
            row.planned.isoformat(timespec="seconds"),
            duration(row.lasted_s) + ("" if row.ended else " so far"),
            Text(_remark(row)),
        )
    return table


def _remark(row: Summary) -> str:
    """What it was for; and where somebody stopped it, who, and why."""
    stopped = f"{row.phase.replace('_', ' ')} by {row.stopped_by}: {row.because}" if row.stopped_by else ""
    return "; ".join(filter(None, (row.reason, stopped)))
