"""Owns finding the agent's configuration on this host, and the environment that its unit gives it.

Parsing is left to `agent.config`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from hotcold.options import apps_here

CONFIGURATIONS: Final = Path("/etc/hotcold")

_Function = TypeVar("_Function", bound=Callable[..., Any])


def config_options(function: _Function) -> _Function:
    """Add `--app` and `--config`: parameters `app` and `config`, for `find_config`."""
    function = click.option(
        "--config", type=click.Path(path_type=Path), metavar="FILE", help="The agent's configuration."
    )(function)
    return click.option(
        "--app",
        metavar="APP",
        shell_complete=apps_here,
        help="The app; its configuration is /etc/hotcold/APP.toml.  [default: the only one there]",
    )(function)


def find_config(app: str | None, config: Path | None, *, configurations: Path = CONFIGURATIONS) -> Path:
    """The configuration that is meant: the given one, the app's, or the only one there is.

    Raises:
        click.UsageError: both were given, or neither and there is not exactly one.
    """
    if config is not None:
        if app is not None:
            raise click.UsageError("give --app or --config, not both")
        return config
    if app is not None:
        return configurations / f"{app}.toml"
    found = sorted(configurations.glob("*.toml"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise click.UsageError(f"no configuration is in {configurations}, or you may not read it: give --config FILE")
    raise click.UsageError(
        f"{len(found)} apps are on this host: choose --app {' or --app '.join(p.stem for p in found)}"
    )


def environment_of(config: Path) -> Mapping[str, str]:
    """This environment with the unit's file beside the configuration over it: there may be Consul's token."""
    found = dict(os.environ)
    with suppress(OSError):
        for line in config.with_suffix(".env").read_text(encoding="utf-8", errors="replace").splitlines():
            name, is_set, value = line.strip().partition("=")
            if is_set and not name.startswith(("#", ";")):
                found[name.strip()] = _unquoted(value)
    return found


def _unquoted(value: str) -> str:
    try:
        return "".join(shlex.split(value)) if value.lstrip()[:1] in {'"', "'"} else value.strip()
    except ValueError:
        return value.strip()
