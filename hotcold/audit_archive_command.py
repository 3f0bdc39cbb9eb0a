"""Owns `hotcold audit archive`; leaves archiving to `checkpoint.archiving`."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

import click

from checkpoint.archiving import Archived, Archivist
from checkpoint.insisting import Insistence
from fleet import ConsulStore
from hotcold.audit_options import parse_past
from hotcold.command import Command
from hotcold.consul_options import consul_options, settings_of
from hotcold.options import app_option
from hotcold.rollout_options import origin
from hotcold.terminal import many


@click.command(
    cls=Command,
    examples=["hotcold audit archive --app shop --to /var/backups/shop-audit-2026-q3.jsonl --before 2026-10-01"],
    exits={
        0: "archived, or no record is so old",
        1: "refused: the chain is not whole, the file holds something else, or somebody else archives",
        2: "wrong usage, a disk that cannot be written, or a token that may not; no record was removed",
    },
)
@app_option
@click.option(
    "--to",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="A new file. One that an interrupted call has made is gone on with.",
)
@click.option(
    "--before",
    callback=parse_past,
    required=True,
    metavar="TIME",
    help="Archive what is older: 2026-10-01, a time in UTC, or 90d ago; at least a day ago.",
)
@click.option("--reason", default="", metavar="TEXT", help="Why, for the audit.")
@consul_options
def archive(*, app: str, file: Path, before: datetime, reason: str, consul: str | None, token_file: str | None) -> None:
    """Move old records of the audit out of Consul into FILE, so that Consul does not grow for ever. For admins.

    The records are checked, written, made durable and read back before any is removed. What is left says where it
    begins, so that `verify` still proves it. Interrupted at any moment, nothing is lost: give the same command again.
    """

    async def run() -> Archived | None:
        async with ConsulStore(settings_of(consul, token_file)) as store:
            archivist = Archivist(store, app, Insistence(asyncio.sleep), asyncio.sleep)
            return await archivist.archive(file, before, origin(reason))

    done = asyncio.run(run())
    if done is None:
        click.echo(f"nothing to do: no record is older than {before.isoformat(timespec='seconds')}, and may go")
        return
    click.echo(f"{file}: records {done.first} to {done.last}; the last one has the hash {done.hash}")
    click.echo(f"{many(done.removed_count, 'record')} removed from Consul; keep the file, or nobody can prove them")
