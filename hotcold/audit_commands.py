"""Owns `hotcold audit`: reading what was done, and checking it; leaves the chain to `checkpoint.audit`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from artifact import Refused
from checkpoint.archive_file import read_archive
from checkpoint.audit import number_of, read_record, verify
from checkpoint.audit_reading import Chain, read_chain, readable
from checkpoint.sifting import Sieve, as_csv, sift
from fleet import ConsulSettings, ConsulStore
from hotcold.audit_options import sieve_options
from hotcold.command import Command, Failure, Lazy, LazyGroup
from hotcold.consul_options import consul_options, settings_of
from hotcold.options import app_option
from hotcold.terminal import many

_HERE = "hotcold.audit_commands"


@click.group(
    cls=LazyGroup,
    lazy={
        "show": Lazy(_HERE, "show", "Show the latest records."),
        "verify": Lazy(_HERE, "verify_", "Check that no record was changed or taken out."),
        "export": Lazy(_HERE, "export", "Write records as JSON lines or CSV."),
        "stats": Lazy("hotcold.audit_stats_command", "stats", "Show how fast, how often, and how many went back."),
        "archive": Lazy("hotcold.audit_archive_command", "archive", "Move old records out of Consul into a file."),
    },
    epilog="""
        Example:
          hotcold audit show --app shop
          hotcold audit verify --app shop
    """,
)
def audit() -> None:
    """Read what was done: who, from where, why, and when. Each record names the one before by its hash."""


@click.command(
    cls=Command,
    examples=[
        "hotcold audit show --app shop --last 20",
        "hotcold audit show --app shop --tier prod --by anna --since 7d",
    ],
    exits={0: "shown", 1: "no record is like that, a record cannot be read, or Consul does not answer"},
)
@app_option
@click.option("--last", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="How many.")
@sieve_options
@consul_options
def show(*, app: str, last: int, sieve: Sieve, consul: str | None, token_file: str | None) -> None:
    """Show the latest records that are wanted, oldest first."""
    chain = asyncio.run(_read(settings_of(consul, token_file), app))
    found = sift([read_record(entry.value) for entry in chain.entries], sieve)
    if not found:
        raise Failure(f"no record of {app} is like that")
    for record in found[-last:]:
        about = f" rollout {record.rollout}" if record.rollout else ""
        why = f" ({record.reason})" if record.reason and record.reason not in record.message else ""
        at = record.at.isoformat(timespec="seconds")
        click.echo(f"{record.number:>5} {at} {record.by} via {record.via}:{about} {record.message}{why}")


@click.command(
    "verify",
    cls=Command,
    examples=[
        "hotcold audit verify --app shop",
        "hotcold audit verify --app shop --contains 9f2c1d7e4a60",
        "hotcold audit verify --app shop --archive 2026-q3.jsonl --archive 2026-q4.jsonl",
    ],
    exits={0: "the chain is whole", 1: "it is not; the message names the first record that is wrong"},
)
@app_option
@click.option(
    "--contains",
    metavar="HASH",
    help="Also check that a record has this hash, or a hash that begins so, as a message or a page once showed it.",
)
@click.option(
    "--archive",
    "archives",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Also check what was archived, from the first record on; give every file, in their order.",
)
@consul_options
def verify_(
    *, app: str, contains: str | None, archives: tuple[Path, ...], consul: str | None, token_file: str | None
) -> None:
    """Check that no record was changed, taken out or put in.

    Where records were archived, the rest is checked behind them; with all archives, the whole.
    """
    chain = asyncio.run(_read(settings_of(consul, token_file), app))
    entries, flaw = chain.entries, next(verify(chain.entries, chain.head, chain.anchor), None)
    if flaw is None and archives:
        entries = (*(entry for file in archives for entry in read_archive(file, app)), *entries)
        flaw = next(verify(entries, chain.head), None)
    if flaw is not None:
        raise Failure(flaw.message)
    if contains and all(not read_record(entry.value).hash.startswith(contains) for entry in entries):
        archived = f", or it is among the {chain.anchor.number} that were archived" if not archives else ""
        told = archived if chain.anchor.number else ""
        raise Failure(f"no record has the hash {contains}: the chain was replaced, or the hash is of another app{told}")
    behind = f" behind the {chain.anchor.number} that were archived" if chain.anchor.number and not archives else ""
    click.echo(f"{many(len(entries), 'record')}{behind}, whole; the latest is {chain.head.hash}")


@click.command(
    cls=Command,
    examples=[
        "hotcold audit export --app shop | gzip > shop-audit.jsonl.gz",
        "hotcold audit export --app shop --format csv --build 2026-11-24.1 | gzip > build.csv.gz",
    ],
    exits={0: "written", 1: "Consul does not answer"},
)
@app_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv"]),
    default="jsonl",
    show_default=True,
    help="JSON, one object a line, as in Consul; or CSV.",
)
@sieve_options
@consul_options
def export(*, app: str, form: str, sieve: Sieve, consul: str | None, token_file: str | None) -> None:
    """Write the records that are wanted to standard output, by default all that are in Consul."""
    chain = asyncio.run(_read(settings_of(consul, token_file), app))
    if form == "csv":
        for line in as_csv(sift(readable(chain.entries), sieve)):
            click.echo(line, nl=False)
        return
    wanted = None if sieve.is_open else {record.number for record in sift(readable(chain.entries), sieve)}
    for entry in chain.entries:
        if wanted is None or number_of(entry) in wanted:
            click.echo(entry.value.decode(errors="replace"))


async def _read(settings: ConsulSettings, app: str) -> Chain:
    async with ConsulStore(settings) as store:
        chain = await read_chain(store, app)
    if chain.is_empty:
        raise Refused(f"nothing was ever done to {app}", kind="no_audit")
    return chain
