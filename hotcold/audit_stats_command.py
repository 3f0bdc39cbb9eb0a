"""Owns `hotcold audit stats`: how figures about rollouts are shown; leaves them to `checkpoint.statistics`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import click
import msgspec
from rich.table import Table

from artifact import Refused
from checkpoint.measuring import read_statistics
from checkpoint.statistics import Figures, Span, Statistics
from fleet import ConsulStore
from hotcold.command import Command
from hotcold.consul_options import consul_options, settings_of
from hotcold.options import app_option
from hotcold.terminal import duration, many, print_plain


@click.command(
    cls=Command,
    examples=["hotcold audit stats --app shop", "hotcold audit stats --app shop --json | jq .overall"],
    exits={0: "shown", 1: "nothing was ever done, or Consul does not answer"},
)
@app_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; what is not known is null.")
@consul_options
def stats(*, app: str, as_json: bool, consul: str | None, token_file: str | None) -> None:
    """Show lead time, duration, rollback rate, time to detect and to roll back, and deploys a day; by week.

    Times are the median, and what nine in ten did not exceed, with the number of rollouts that they are of. They cover
    what the audit in Consul tells; archived records count no more.
    """

    async def run() -> Statistics:
        async with ConsulStore(settings_of(consul, token_file)) as store:
            return await read_statistics(store, app, datetime.now(UTC))

    found = asyncio.run(run())
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    if found.overall is None or found.since is None:
        raise Refused(f"nothing was ever done to {app}", kind="no_audit")
    print_plain(_table(found, found.overall))
    for line in _notes(found, found.since):
        click.echo(line)


def _table(found: Statistics, overall: Figures) -> Table:
    table = Table(box=None, pad_edge=False)
    heads = ("", "deploys", "a day", "finished", "aborted", "rolled back", "rate")
    for head in (*heads, "lead time", "duration", "to detect", "to roll back"):
        table.add_column(head, justify="left" if not head else "right")
    table.add_row("overall", *_cells(overall))
    for week in found.weeks:
        table.add_row(f"from {week.begins:%Y-%m-%d}", *_cells(week))
    return table


def _cells(figures: Figures) -> list[str]:
    a_day, rate = figures.deploys_per_day, figures.rollback_rate
    return [
        str(figures.deploys),
        "-" if a_day is None else f"{a_day:.1f}",
        str(figures.finished),
        str(figures.aborted),
        str(figures.rolled_back),
        "-" if rate is None else f"{100 * rate:.0f} %",
        *map(_span, (figures.lead, figures.duration, figures.detect, figures.roll_back)),
    ]


def _span(span: Span | None) -> str:
    return "-" if span is None else f"{duration(span.median_s)} / {duration(span.p90_s)} ({span.count})"


def _notes(found: Statistics, since: datetime) -> list[str]:
    if found.covered is None:
        covered = "no rollout"
    else:
        first, last = found.covered
        covered = f"rollout {first}" if first == last else f"rollouts {first} to {last}"
    before = "" if found.first_record == 1 else f"; records before {found.first_record} are archived"
    notes = [f"{covered}, since {since.isoformat(timespec='minutes')}{before}; weeks begin on Monday, 00:00 UTC"]
    if found.cut_off:
        notes.append(f"{many(found.cut_off, 'rollout')} not counted: the records of the start are archived")
    if found.without_cut:
        notes.append(f"{many(found.without_cut, 'rollout')} without a lead time: the build was not cut by hotcold")
    return notes
