"""Owns `hotcold demo`: its options and its exit status; leaves all that is shown, and how, to `hotcold.demo`."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import click
import msgspec
from rich.console import Console

from artifact import ConfigError, HotcoldError
from hotcold.command import Command, Failure
from hotcold.demo.builds import FILE_COUNT
from hotcold.demo.rollouts.act import Wishes
from hotcold.demo.rollouts.pages import NEEDS, can_be_served, has_desktop
from hotcold.demo.run import Plan
from hotcold.demo.showing import Show
from hotcold.demo.world import choose_store
from hotcold.options import person

_INTERRUPTED: Final = 130
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BREATH_S: Final = 1.5
_ARRIVAL_S: Final = 8.0
_UNSEEN_BREATH_S: Final = 0.5


@click.command(
    cls=Command,
    examples=[
        "hotcold demo",
        "hotcold demo --once --json",
        "hotcold demo --show checkpoint --stay",
        "hotcold demo --store embedded --show job --once --svg demo.svg",
    ],
    exits={
        0: "all was shown: no request failed or met two builds that was not to, bad builds went back, killed agents "
        "recovered",
        1: "something of that was not so; the directory with the logs is kept",
        _INTERRUPTED: "interrupted before the end",
    },
)
@click.option(
    "--show",
    type=click.Choice(["all", "job", "checkpoint"]),
    help="The main job on three hosts, then Checkpoint's rollouts on nine; or one of them.  "
    "[default: all; with --json: job]",
)
@click.option(
    "--once/--stay",
    default=None,
    help="End when all was shown, or stay up until Ctrl-C.  [default: stay on a terminal, else end]",
)
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object at the end, and all else on stderr.")
@click.option(
    "--browser/--no-browser",
    default=None,
    help="Open Checkpoint's pages in a browser.  [default: where this terminal is on a desktop]",
)
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
    help="Files in each build; at most 400 in those of the rollouts.",
)
def demo(
    *,
    show: Literal["all", "job", "checkpoint"] | None,
    once: bool | None,
    is_json: bool,
    browser: bool | None,
    wanted_store: Literal["auto", "consul", "embedded"],
    directory: Path | None,
    picture: Path | None,
    file_count: int,
) -> None:
    """Show everything on this machine, with nothing to set up.

    First the main job: a store, an artifact server, and three hosts: on each a real agent, and an app whose workers
    serve HTTP out of `hot`, under constant load. Builds are deployed, one of them bad, rolled back, and agents killed
    in the middle. Every request checks that all it read came from one build.

    Then Checkpoint, in a browser: nine hosts from staging to production. A good build goes all the way, and a bad one,
    which no probe finds, is stopped by what its customers meet.
    """
    screen = Console(stderr=is_json, highlight=False)
    consul = choose_store(wanted_store)
    parts = _parts(show, is_json=is_json)
    is_unattended = not screen.is_terminal
    breath_s = _UNSEEN_BREATH_S if is_unattended else _BREATH_S
    with _working_directory(directory) as (place, keep):
        plan = Plan(
            directory=place,
            consul=consul,
            shows_job="job" in parts,
            is_once=is_unattended if once is None else once,
            file_count=file_count,
            breath_s=breath_s,
            environment=os.environ,
            command=_own_name(),
        )
        wishes = Wishes(
            file_count=file_count,
            breath_s=breath_s,
            arrival_s=breath_s if is_unattended else _ARRIVAL_S,
            person=person(),
            command=plan.command,
        )
        is_opened = not is_unattended and has_desktop(os.environ) if browser is None else browser
        shown = Show(plan, wishes if "checkpoint" in parts else None, screen, is_json=is_json, opens_browser=is_opened)
        try:
            is_told = asyncio.run(_play(shown))
        finally:
            if is_json:  # also of a run that failed: what was not shown is not claimed
                click.echo(msgspec.json.encode(shown.result))
        if picture is not None:
            shown.save_picture(picture)
        if not is_told:
            click.echo("interrupted; nothing is left running", err=True)
            sys.exit(_INTERRUPTED)
        if not is_json:
            shown.print_summary()
        if not shown.run.is_good:
            keep()
            raise Failure(f"not all that was promised held; the logs are in {place / 'logs'}")


def _parts(show: str | None, *, is_json: bool) -> tuple[str, ...]:
    """What is played.

    Raises:
        ConfigError: something that cannot be was asked for.
    """
    wanted = {"all": ("job", "checkpoint"), "job": ("job",), "checkpoint": ("checkpoint",)}
    parts = wanted[show or ("job" if is_json else "all")]
    if "checkpoint" not in parts or can_be_served():
        return parts
    if show is not None:
        raise ConfigError(NEEDS)
    click.echo(f"Checkpoint is not shown: {NEEDS}", err=True)
    return ("job",)


async def _play(shown: Show) -> bool:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, stop.set)
    try:
        return await shown.play(stop)
    finally:
        # What is left is to remove the directory, which takes a second or two: impatience must not leave half of it.
        for number in _ENDING:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)


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
