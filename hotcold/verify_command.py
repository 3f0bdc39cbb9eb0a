"""Owns `hotcold verify`; leaves the comparing to `artifact.verify`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from agent.config import load_settings
from artifact import ConfigError
from artifact.table import read_table
from artifact.verify import NothingKnown, verify_tree
from hotcold.command import Command
from hotcold.terminal import console, many
from swapper import Layout, Release
from swapper.view import look_at


@click.command(
    cls=Command,
    examples=["hotcold verify --app shop", "hotcold verify --config /etc/hotcold/shop.toml"],
    exits={
        0: "hot and standby are what their builds say",
        1: "something differs, or could not be verified; the lines say what",
        2: "wrong usage or configuration",
    },
)
@click.option("--app", metavar="APP", help="The app; its configuration is /etc/hotcold/APP.toml.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="The agent's configuration.")
def verify(*, app: str | None, config: Path | None) -> None:
    """Read every file of hot and standby again, and say which differ from their builds.

    Needs no agent and no Consul. It finds what a look at sizes and times cannot: a disk that lost bytes, or a file that
    somebody changed and dated back. What to do then: `hotcold repull` makes hot anew, from the artifact store.
    """
    if (app is None) == (config is None):
        raise click.UsageError("give --app APP or --config FILE")
    layout = load_settings(config or Path(f"/etc/hotcold/{app}.toml"), os.environ).identity.layout
    disk = look_at(layout)
    if disk.hot is None:
        raise ConfigError(f"nothing is deployed below {layout.root}: there is nothing to verify")
    results = [_verify(layout, role, release) for role, release in (("hot", disk.hot), ("standby", disk.standby))]
    if not all(results):
        raise SystemExit(1)


def _verify(layout: Layout, role: str, release: Release | None) -> bool:
    if release is None:
        click.echo(f"{role:<8} there is none")
        return True
    table = read_table(layout.table(release.name))
    total = 0 if table is None else table.root.content_bytes
    count = 0
    try:
        with _display(f"{role} {release.build_id}", total) as advance:
            for difference in verify_tree(release.path, layout.table(release.name), read=advance):
                count += 1
                click.echo(f"{role:<8} {release.build_id}: {difference.path} {difference.problem}")
    except NothingKnown as error:
        click.echo(
            f"{role:<8} {release.build_id}: cannot be verified: {error}. Builds packed by `hotcold pack` as tar.zst can"
        )
        return False
    except OSError as error:
        raise ConfigError(f"{release.path} cannot be read: {error.strerror}") from error
    entries = 0 if table is None else table.root.entries
    found = f"{many(count, 'difference')} in" if count else "is right:"
    click.echo(f"{role:<8} {release.build_id} {found} {many(entries, 'entry', 'entries')}, {release.path}")
    return count == 0


@contextmanager
def _display(what: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("verifying {task.description}", markup=False), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=screen, transient=True) as bar:
        task = bar.add_task(what, total=total_bytes)
        yield lambda count_bytes: bar.advance(task, count_bytes)
