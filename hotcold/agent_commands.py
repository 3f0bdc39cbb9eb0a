"""Owns `hotcold agent` and `hotcold check-config`; leaves running to `agent.daemon` and parsing to `agent.config`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from agent.config import Settings, load_settings
from agent.probes import ProbeSettings
from hotcold.command import Command
from hotcold.options import without_credentials

_FILE = click.Path(path_type=Path)


@click.command(
    cls=Command,
    examples=["hotcold agent --config /etc/hotcold/shop.toml"],
    exits={
        0: "stopped by SIGTERM or SIGINT",
        1: "cannot run; the message says why",
        2: "wrong usage or configuration, or another agent works on the same root",
    },
)
@click.option("--config", required=True, type=_FILE, metavar="FILE", help="Configuration (TOML).")
def agent(config: Path) -> None:
    """Run the agent of this host in the foreground.

    SIGHUP reads the configuration again; a bad one is refused and the old one kept. SIGUSR1 fetches the build anew and
    swaps. SIGTERM finishes or abandons safely what is under way, then stops.
    """
    from agent.daemon import run  # noqa: PLC0415 - check-config must not start what it only checks

    raise SystemExit(run(config))


@click.command(
    "check-config",
    cls=Command,
    examples=["hotcold check-config /etc/hotcold/shop.toml"],
    exits={0: "the agent would start with it", 2: "it would not; the message names file, key and what is allowed"},
)
@click.argument("file", type=_FILE, metavar="FILE")
def check_config(file: Path) -> None:
    """Parse FILE exactly as the agent does, with this environment, and show the settings in effect."""
    settings = load_settings(file, os.environ)
    click.echo(f"{file}: ok")
    for name, value in _in_effect(settings).items():
        click.echo(f"  {name:<8} {value}")


def _in_effect(settings: Settings) -> dict[str, str]:
    """The settings in words, without secrets: tokens and header values stay out of logs and screens."""
    identity, drain, releases = settings.identity, settings.drain, settings.releases
    consul, trusted = identity.consul, settings.trusted_keys
    token = f"token from {consul.token_file}" if consul.token_file else "with a token" if consul.token else "no token"
    waits = f"for workers of {len(drain.workers)} kinds, at most {drain.timeout_s:g} s, then {drain.policy}"
    hooks = (f"{point}: {Path(hook.argv[0]).name} ({hook.timeout_s:g} s)" for point, hook in settings.hooks.items())
    return {
        "host": f"{identity.host}, in {identity.app}/{identity.tier}",
        "root": str(identity.layout.root),
        "state": str(identity.layout.state_dir),
        "socket": str(identity.socket),
        "consul": f"{consul.address}, {token}",
        "drain": waits if drain.workers else "waits for nobody: no workers are described",
        "probe": proof_in_words(settings.probe),
        "hooks": ", ".join(hooks) or "none",
        "trusts": "every build: signatures are not checked" if trusted is None else f"builds signed by {trusted}",
        "keeps": ", ".join([f"{releases.keep} releases", *(f"{name} (pinned)" for name in releases.pinned)]),
    }


def proof_in_words(probe: ProbeSettings) -> str:
    """How a build has to prove itself."""
    what = []
    if probe.unit is not None:
        what.append(f"unit {probe.unit} is active")
    if probe.tcp is not None:
        what.append(f"{probe.tcp} accepts connections")
    if probe.url is not None:
        what.append(f"{without_credentials(probe.url)} answers {' or '.join(map(str, probe.status))}")
    if probe.command is not None:
        what.append(f"{probe.command[0]} exits with 0")
    if not what:
        return "none: every build counts as proved"
    then = f", then watched for {probe.watch_s:g} s" if probe.watch_s else ""
    return f"{' and '.join(what)}, {probe.successes} in a row within {probe.deadline_s:g} s{then}"
