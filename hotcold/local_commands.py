"""Owns `hotcold hold`, `unhold`, `repull` and `forget`: what an operator asks of the agent on this host.

What the agent makes of it is left to the agent; `hotcold status` shows it.
"""

from __future__ import annotations

from pathlib import Path

import click

from hotcold.command import Command
from hotcold.options import socket_options
from hotcold.socket_client import ask, find_socket


@click.command(cls=Command, examples=["hotcold hold --app shop --reason 'debugging the cache, ask anna'"])
@socket_options
@click.option("--reason", required=True, metavar="TEXT", help="Why; `hotcold status` and `fleet` show it.")
def hold(*, app: str | None, socket_path: Path | None, reason: str) -> None:
    """Let this host start no deploy until `hotcold unhold`, over restarts too.

    What serves now goes on serving. A deploy that is past its swap is finished.
    """
    path = find_socket(app, socket_path)
    ask(path, "POST", "/v1/hold", {"reason": reason})
    click.echo("held; let it go on with: hotcold unhold" + _same(app, socket_path))


@click.command(cls=Command, examples=["hotcold unhold --app shop"])
@socket_options
def unhold(*, app: str | None, socket_path: Path | None) -> None:
    """Let this host deploy again; it goes at once to what is wanted now."""
    ask(find_socket(app, socket_path), "POST", "/v1/unhold")
    click.echo("no longer held; follow it with: hotcold status --watch" + _same(app, socket_path))


@click.command(cls=Command, examples=["hotcold repull --app shop && hotcold status --app shop --watch"])
@socket_options
def repull(*, app: str | None, socket_path: Path | None) -> None:
    """Fetch this host's wanted build anew, all files, and swap to it, whatever is on disk or was refused.

    The same as SIGUSR1 to the agent. What serves now serves until the swap.
    """
    ask(find_socket(app, socket_path), "POST", "/v1/repull")
    click.echo("accepted; follow it with: hotcold status --watch" + _same(app, socket_path))


@click.command(
    cls=Command,
    examples=["hotcold forget --app shop", "hotcold forget 2026-11-23.3 --app shop"],
    exits={1: "nothing is refused, or another build than the one named; nothing was changed"},
)
@click.argument("build", required=False, metavar="[BUILD]")
@socket_options
def forget(*, build: str | None, app: str | None, socket_path: Path | None) -> None:
    """Let this host try a refused build again, durably, with what is on the disk already.

    A build is refused after it failed its proof, or because its artifact or the `staged` hook said no. Mend the cause
    first. With BUILD nothing happens if it is another one that is refused.
    """
    answer = ask(find_socket(app, socket_path), "POST", "/v1/forget", {} if build is None else {"build": build})
    click.echo(f"build {answer['build']} is no longer refused; it was for: {answer['problem']['message']}")
    click.echo("follow it with: hotcold status --watch" + _same(app, socket_path))


def _same(app: str | None, socket_path: Path | None) -> str:
    """The options that name the same agent again."""
    if app is not None:
        return f" --app {app}"
    return "" if socket_path is None else f" --socket {socket_path}"
