"""Owns `hotcold completion`; leaves what is completed to the commands, and how shells are spoken with to click."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from hotcold.command import Command

_PLACES = {
    "bash": "/usr/share/bash-completion/completions/hotcold",
    "zsh": "/usr/local/share/zsh/site-functions/_hotcold",
    "fish": "/etc/fish/completions/hotcold.fish",
}


@click.command(
    cls=Command,
    examples=[f"hotcold completion {shell} | tee {place}" for shell, place in _PLACES.items()],
)
@click.argument("shell", type=click.Choice(list(_PLACES)))
def completion(*, shell: str) -> None:
    """Print what makes SHELL complete commands, options, files and the apps of this host.

    Write it where SHELL looks for completions, as below, and open a new shell.
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - the choices are click's own
    completer = kind(click.get_current_context().find_root().command, {}, "hotcold", "_HOTCOLD_COMPLETE")
    # Not by `source()`: for bash that runs one to see its version, and this may be the build of a package.
    click.echo(completer.source_template % completer.source_vars())
