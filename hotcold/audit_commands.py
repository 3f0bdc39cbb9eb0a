"""Owns `hotcold audit`: reading what was done, and checking it; leaves the chain to `checkpoint.audit`."""

from __future__ import annotations

import asyncio

import click

from artifact import Refused
from checkpoint.audit import Head, read_head, read_record, verify
from fleet import ConsulSettings, ConsulStore, Entry
from fleet.keys import audit_head_key, audit_prefix
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
        "export": Lazy(_HERE, "export", "Write all records as JSON, one a line."),
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
    examples=["hotcold audit show --app shop --last 20"],
    exits={0: "shown", 1: "a record cannot be read, or Consul does not answer"},
)
@app_option
@click.option("--last", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="How many.")
@consul_options
def show(*, app: str, last: int, consul: str | None, token_file: str | None) -> None:
    """Show the latest records, oldest first."""
    entries, _ = asyncio.run(_read(settings_of(consul, token_file), app))
    for entry in entries[-last:]:
        record = read_record(entry.value)
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
    ],
    exits={0: "the chain is whole", 1: "it is not; the message names the first record that is wrong"},
)
@app_option
@click.option(
    "--contains",
    metavar="HASH",
    help="Also check that a record has this hash, or a hash that begins so, as a message or a page once showed it.",
)
@consul_options
def verify_(*, app: str, contains: str | None, consul: str | None, token_file: str | None) -> None:
    """Check that no record was changed, taken out or put in."""
    entries, head = asyncio.run(_read(settings_of(consul, token_file), app))
    for flaw in verify(entries, head):
        raise Failure(flaw.message)
    if contains and all(not read_record(entry.value).hash.startswith(contains) for entry in entries):
        raise Failure(f"no record has the hash {contains}: the chain was replaced, or the hash is of another app")
    click.echo(f"{many(len(entries), 'record')}, whole; the latest is {head.hash}")


@click.command(
    cls=Command,
    examples=["hotcold audit export --app shop | gzip > shop-audit.jsonl.gz"],
    exits={0: "written", 1: "Consul does not answer"},
)
@app_option
@consul_options
def export(*, app: str, consul: str | None, token_file: str | None) -> None:
    """Write all records to standard output, one JSON object a line, as they lie in Consul."""
    entries, _ = asyncio.run(_read(settings_of(consul, token_file), app))
    for entry in entries:
        click.echo(entry.value.decode(errors="replace"))


async def _read(settings: ConsulSettings, app: str) -> tuple[tuple[Entry, ...], Head]:
    async with ConsulStore(settings) as store:
        # Until the head stands still, so that what is appended in between looks like no flaw.
        while True:
            head_entry = await store.read(audit_head_key(app))
            entries = await store.read_prefix(audit_prefix(app))
            if await store.read(audit_head_key(app)) == head_entry:
                break
    if head_entry is None and not entries:
        raise Refused(f"nothing was ever done to {app}", kind="no_audit")
    return entries, read_head(head_entry)[0]
