"""Owns the values that sub-commands share, and what they become; leaves the rest to each sub-command."""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

import click

from artifact.errors import ConfigError

_Function = TypeVar("_Function", bound=Callable[..., Any])
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def person() -> str:
    """Who gives this command, for people: the user behind sudo, at this machine."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except OSError:  # a uid without a name, as in containers
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def parse_moment(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """Turn RFC 3339, or `90s`, `30m`, `2h`, `1d` from now, into an aware time. Without a zone it is local time."""
    if value is None:
        return None
    now = datetime.now().astimezone()
    if period := re.fullmatch(r"(\d{1,6})([smhd])", value):
        return now + timedelta(seconds=int(period[1]) * _SECONDS[period[2]])
    try:
        moment = datetime.fromisoformat(value).astimezone()
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{value!r} is no time: give 2026-11-24T18:00+01:00, or 30m, 2h, 1d", ctx, param
        ) from error
    if moment <= now:
        raise click.BadParameter(f"{value} has passed: no host would obey", ctx, param)
    return moment


def parse_limit(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """Turn `2` or `10%` into a limit on hosts out of service."""
    from checkpoint.ordering import check_limit  # noqa: PLC0415 - not every command needs it

    if value is None:
        return None
    limit = int(value) if value.isdecimal() else value
    try:
        check_limit(limit)
    except ConfigError as error:
        raise click.BadParameter(str(error), ctx, param) from error
    return limit


def without_credentials(url: str) -> str:
    """A URL fit for screens and logs: without user, password and query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


def apps_here(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's
    """The apps of this host, for a shell that completes: those with a configuration, or with a socket."""
    paths = (*Path("/etc/hotcold").glob("*.toml"), *Path("/run/hotcold").glob("*.sock"))
    return sorted({path.stem for path in paths if path.stem.startswith(incomplete)})


app_option = click.option("--app", required=True, metavar="APP", shell_complete=apps_here, help="The app.")
tier_option = click.option("--tier", required=True, metavar="TIER", help="The tier: staging, canary, prod, ...")


def socket_options(function: _Function) -> _Function:
    """Add `--app` and `--socket`: parameters `app` and `socket_path`, for `hotcold.socket_client.find_socket`."""
    function = click.option(
        "--socket", "socket_path", type=click.Path(path_type=Path), metavar="FILE", help="The agent's status socket."
    )(function)
    return click.option(
        "--app",
        metavar="APP",
        shell_complete=apps_here,
        help="The app.  [default: the only one with a socket in /run/hotcold]",
    )(function)
