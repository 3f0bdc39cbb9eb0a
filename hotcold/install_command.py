"""Owns `hotcold install`: its options, what it says, and when it refuses; leaves the files to `install_files`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from agent.config import parse_settings
from artifact import ConfigError
from hotcold.command import Command
from hotcold.install_files import Wanted, check_visible, files_for
from hotcold.installing import Step, commands_for, placed, run, steps_for, systemd_version, write
from hotcold.options import app_option, tier_option

_HERE: Final = Path("/")
_DONE: Final = {"write": "wrote", "replace": "replaced", "keep": "kept", "same": "same"}
_WOULD: Final = {"write": "would write", "replace": "would replace", "keep": "would keep", "same": "is there"}


@click.command(
    cls=Command,
    examples=[
        "hotcold install --app shop --tier prod --dry-run",
        "hotcold install --app shop --tier prod --unit shop.service --probe-url http://127.0.0.1:8080/healthz",
        "hotcold install --app shop --tier prod --root /data/shop --prefix /mnt/image",
    ],
)
@app_option
@tier_option
@click.option("--root", type=click.Path(path_type=Path), metavar="DIR", help="The app's root.  [default: /srv/APP]")
@click.option("--host", metavar="NAME", help="Name of this host in Consul.  [default: the system's]")
@click.option("--consul", metavar="ADDRESS", help="Consul's address.  [default: http://127.0.0.1:8500]")
@click.option("--token-file", metavar="FILE", help="File with Consul's token.")
@click.option("--unit", metavar="UNIT", help="systemd unit of the workers that a drain waits for.")
@click.option("--probe-url", metavar="URL", help="What a new build must answer.")
@click.option(
    "--program",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The hotcold that the unit runs.  [default: the one of this environment]",
)
@click.option("--prefix", type=click.Path(path_type=Path), metavar="DIR", help="Install into an image below DIR.")
@click.option("--force", is_flag=True, help="Replace files that were changed by hand; they stay as FILE.old.")
@click.option("--dry-run", is_flag=True, help="Show every file and command, and do nothing.")
def install(
    *,
    app: str,
    tier: str,
    root: Path | None,
    host: str | None,
    consul: str | None,
    token_file: str | None,
    unit: str | None,
    probe_url: str | None,
    program: Path | None,
    prefix: Path | None,
    force: bool,
    dry_run: bool,
) -> None:
    """Install the agent of one app on this host: user, directories, unit and a configuration to go on from.

    May be repeated, for an upgrade too: what is as it should be stays, and what somebody changed is kept. Nothing is
    started. Needs root, unless with --dry-run or --prefix.
    """
    wanted = Wanted(
        app=app,
        tier=tier,
        root=root or Path(f"/srv/{app}"),
        program=program or Path(sys.executable).parent / "hotcold",
        host=host,
        consul=consul,
        token_file=token_file,
        unit=unit,
        probe_url=probe_url,
        systemd_version=systemd_version(),
    )
    base = _HERE if prefix is None else prefix.absolute()
    files = files_for(wanted)
    parse_settings(files[-1].content, {})  # what the agent would refuse is refused before anything is written
    if prefix is None:
        _check_program(wanted.program)
        if not dry_run and os.geteuid() != 0:
            raise ConfigError(
                "install writes below /etc and /usr/lib, so it needs root: run it with sudo; --dry-run shows what it "
                "would do, and --prefix DIR installs elsewhere"
            )
    steps = steps_for(files, base, is_forced=force)
    commands = commands_for(wanted, base)
    if dry_run:
        _show(steps, commands, base)
        return
    for step in steps:
        write(step, base)
        click.echo(_line(_DONE[step.action], step, base))
    _run(commands, base)
    _say_what_is_next(wanted, prefix)


def _check_program(program: Path) -> None:
    if not os.access(program, os.X_OK):
        raise ConfigError(f"{program} cannot be run: name the hotcold that the unit shall run with --program FILE")
    check_visible(program, "--program")
    # A virtual environment's interpreter is a link, and what it leads to must be seen, too.
    interpreter = program.parent / "python"
    if interpreter.exists():
        check_visible(interpreter.resolve(), f"{interpreter}, which is")


def _show(steps: Sequence[Step], commands: Sequence[Sequence[str]], base: Path) -> None:
    for step in steps:
        click.echo(_line(_WOULD[step.action], step, base))
        if step.action in {"write", "replace"}:
            click.echo("".join(f"    {line}\n".replace("    \n", "\n") for line in step.difference.splitlines()))
    for command in commands:
        click.echo(f"would run {shlex.join(command)}")


def _line(what: str, step: Step, base: Path) -> str:
    owner = f"root:{step.file.group or 'root'}"
    note = {
        "write": f"  ({step.file.mode:04o} {owner})",
        "replace": f"  ({step.file.mode:04o} {owner})",
        "keep": "  (changed by hand; --force replaces it, and keeps it as .old)",
        "same": "",
    }[step.action]
    return f"{what:<9} {placed(base, step.file.path)}{note}"


def _run(commands: Sequence[Sequence[str]], base: Path) -> None:
    for command in commands:
        if os.geteuid() != 0:
            click.echo(f"left      {shlex.join(command)}  (needs root)")
            continue
        omitted = run(command, base)
        done, note = ("ran", "") if omitted is None else ("left", f"  ({omitted})")
        click.echo(f"{done:<9} {shlex.join(command)}{note}")


def _say_what_is_next(wanted: Wanted, prefix: Path | None) -> None:
    where = "" if prefix is None else f", on the host that {prefix} is for"
    click.echo(f"\nnext{where}:")
    click.echo(f"  look through {wanted.config_path}: drain, probe and hooks are what makes deploys safe")
    click.echo(f"  hotcold doctor --app {wanted.app}")
    click.echo(f"  systemctl enable --now hotcold-agent@{wanted.app}")
