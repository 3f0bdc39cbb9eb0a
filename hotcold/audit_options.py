"""Owns the options by which records of the audit are chosen; leaves choosing to `checkpoint.sifting`."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, Final, TypeVar

import click

from checkpoint.sifting import Sieve

_Function = TypeVar("_Function", bound=Callable[..., Any])
_SECONDS: Final = {"m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_past(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """Turn a date or time, or `30m`, `2h`, `7d`, `4w` before now, into an aware time. Without a zone it is UTC."""
    if value is None:
        return None
    if period := re.fullmatch(r"(\d{1,6})([mhdw])", value):
        return datetime.now(UTC) - timedelta(seconds=int(period[1]) * _SECONDS[period[2]])
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        said = f"{value!r} is no time: give 2026-11-24, 2026-11-24T18:00+01:00, or 7d"
        raise click.BadParameter(said, ctx, param) from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def sieve_options(function: _Function) -> Callable[..., Any]:
    """Add the options; the command gets them as `sieve`."""

    @wraps(function)
    def command(
        *,
        by: str,
        what: str,
        tier: str,
        build: str,
        rollout: int | None,
        since: datetime | None,
        until: datetime | None,
        **others: Any,
    ) -> Any:
        sieve = Sieve(by=by, what=what, tier=tier, build=build, rollout=rollout or 0, since=since, until=until)
        return function(sieve=sieve, **others)

    options = (
        click.option("--by", default="", metavar="NAME", help="Only what was done by names that contain this."),
        click.option("--what", default="", metavar="TEXT", help="Only records of that kind, or that say this."),
        click.option("--tier", default="", metavar="TIER", help="Only what is about that tier."),
        click.option("--build", default="", metavar="ID", help="Only what is about that build."),
        click.option("--rollout", type=click.IntRange(min=1), metavar="N", help="Only that rollout."),
        click.option(
            "--since",
            callback=parse_past,
            metavar="TIME",
            help="Not before then: 2026-11-24, a time in UTC, or 7d ago.",
        ),
        click.option("--until", callback=parse_past, metavar="TIME", help="Before then."),
    )
    wrapped: Callable[..., Any] = command
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped
