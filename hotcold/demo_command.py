"""Owns `hotcold demo`: its options, its screen or lines, its exit status; leaves everything shown to `hotcold.demo`."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import click
import msgspec
from rich.console import Console
from rich.live import Live

from artifact import ConfigError, HotcoldError
from hotcold.command import Command, Failure
from hotcold.demo.board import Board
from hotcold.demo.builds import FILE_COUNT
from hotcold.demo.outcome import Outcome
from hotcold.demo.run import Plan, Run
from hotcold.demo.screen import draw, plain_line, save_picture, summary
from hotcold.demo.story import STORY
from hotcold.demo.world import HOSTS, choose_store
from hotcold.terminal import print_plain

_INTERRUPTED: Final = 130
_FRAME_S: Final = 0.15
_BREATH_S: Final = 1.5
_UNSEEN_BREATH_S: Final = 0.5


@click.command(
    cls=Command,
    examples=["hotcold demo", "hotcold demo --once --json", "hotcold demo --store embedded --once --svg demo.svg"],
    exits={
        0: "all was shown: no request failed or met two builds, the bad build went back, killed agents recovered",
        1: "something of that was not so; the directory with the logs is kept",
        _INTERRUPTED: "interrupted before the end",
    },
)
@click.option("--once", is_flag=True, help="End when all was shown, instead of staying up until Ctrl-C.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object at the end, and all else on stderr.")
@click.option(
    "--store",
    "wanted_store",
    type=click.Choice(["auto", "consul", "embedded"]),
    default="auto",
    show_default=True,
    help="What agents and commander speak with; auto: a real consul if one is on PATH.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="An empty directory for everything; it is kept.  [default: a fresh one, removed at the end]",
)
@click.option("--svg", "picture", type=click.Path(path_type=Path, dir_okay=False), help="Save the last screen there.")
@click.option(
    "--files",
    "file_count",
    type=click.IntRange(200, 50_000),
    default=FILE_COUNT,
    show_default=True,
    metavar="N",
    help="Files in each build.",
)
def demo(
    *,
    once: bool,
    is_json: bool,
    wanted_store: Literal["auto", "consul", "embedded"],
    directory: Path | None,
    picture: Path | None,
    file_count: int,
) -> None:
    """Show everything on this machine, with nothing to set up.

    A store, an artifact server, and three hosts: on each a real agent, and an app whose workers serve HTTP out of
    `hot`, under constant load. Builds are deployed, one of them bad, rolled back, and agents killed in the middle.
    Every request checks that all it read came from one build.
    """
    screen = Console(stderr=is_json, highlight=False)
    consul = choose_store(wanted_store)
    with _working_directory(directory) as (place, keep):
        plan = Plan(
            directory=place,
            consul=consul,
            is_once=once,
            file_count=file_count,
            breath_s=_BREATH_S if screen.is_terminal else _UNSEEN_BREATH_S,
            environment=os.environ,
            command=_own_name(),
        )
        is_told, outcome = asyncio.run(_run(plan, screen, picture, is_json=is_json))
        if not is_told:
            click.echo("interrupted; nothing is left running", err=True)
            sys.exit(_INTERRUPTED)
        if not outcome.is_good:
            keep()
            raise Failure(f"not all that was promised held; the logs are in {place / 'logs'}")


async def _run(plan: Plan, screen: Console, picture: Path | None, *, is_json: bool) -> tuple[bool, Outcome]:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    is_live = screen.is_terminal
    board = Board(
        [step.title for step in STORY],
        HOSTS,
        clock=time.monotonic,
        told=lambda line: None if is_live else click.echo(plain_line(line), err=is_json),
    )
    run = Run(plan, board)
    showing = asyncio.create_task(_show(board, screen), name="screen") if is_live else None
    try:
        is_told = await run.run(stop)
    finally:
        if showing is not None:
            showing.cancel()
            await asyncio.wait([showing])
        if is_json:
            click.echo(msgspec.json.encode(run.outcome))
    if picture is not None:
        save_picture(board, picture)
    if is_told and not is_json and not is_live:
        print_plain(summary(run.outcome))
    return is_told, run.outcome


async def _show(board: Board, screen: Console) -> None:
    with Live(console=screen, auto_refresh=False, vertical_overflow="crop") as live:
        try:
            while True:
                live.update(draw(board, lines=screen.height, columns=screen.width), refresh=True)
                await asyncio.sleep(_FRAME_S)
        finally:
            live.update(draw(board, lines=screen.height, columns=screen.width), refresh=True)


@contextmanager
def _working_directory(given: Path | None) -> Iterator[tuple[Path, Callable[[], None]]]:
    """The directory to work in, and how to have it kept. A failure keeps it; one that was given is never removed."""
    if given is not None:
        place = given.absolute()
        place.mkdir(parents=True, exist_ok=True)
        if any(place.iterdir()):
            raise ConfigError(f"--dir {place} is not empty; name an empty directory, or one that does not exist")
    else:
        place = Path(tempfile.mkdtemp(prefix="hotcold-demo-"))
    is_kept = given is not None

    def keep() -> None:
        nonlocal is_kept
        is_kept = True

    try:
        yield place, keep
    except HotcoldError as error:
        keep()
        raise Failure(f"{error}\nthe logs are in {place / 'logs'}") from error
    finally:
        if not is_kept:
            shutil.rmtree(place, ignore_errors=True)


def _own_name() -> str:
    """How a person in another terminal starts this same hotcold."""
    beside = Path(sys.executable).with_name("hotcold")
    return "hotcold" if shutil.which("hotcold") == str(beside) or not beside.exists() else str(beside)
