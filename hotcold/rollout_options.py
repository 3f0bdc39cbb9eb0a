"""Owns what the commands about rollouts share: who acts, on what, and how the answer is said."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import click

from checkpoint.actions import Acted, Desk
from checkpoint.pipeline import DEFAULT_PATH, Settings, default_settings, load_settings
from checkpoint.rollout.events import Command as RolloutCommand
from checkpoint.rollout.events import Origin
from fleet import ConsulStore, StoreUnreachable
from hotcold.consul_options import settings_of
from hotcold.options import person

_Answer = TypeVar("_Answer")

reason_option = click.option(
    "--reason", required=True, metavar="TEXT", help="Why; it is in the audit, and in the messages."
)
index_option = click.option(
    "--index",
    type=click.IntRange(min=1),
    metavar="N",
    help="Refuse if the rollout changed since it was seen at this index, as `rollout status` shows it.",
)
config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"The pipeline.  [default: {DEFAULT_PATH} if there is one, else the built-in one]",
)


def origin(reason: str, index: int | None = None) -> Origin:
    """Whoever gives this command, now."""
    return Origin(by=person(), via="cli", reason=reason, at=datetime.now(UTC), decided_on=index)


def pipeline_of(config: Path | None, app: str) -> Settings:
    """The settings that the options name.

    Raises:
        ConfigError: the file is wrong.
    """
    if config is not None:
        return load_settings(config)
    return load_settings(DEFAULT_PATH) if DEFAULT_PATH.exists() else default_settings(app)


def at_desk(
    app: str, consul: str | None, token_file: str | None, work: Callable[[Desk], Awaitable[_Answer]]
) -> _Answer:
    """Do something at the desk of an app, with this machine's clock and chance."""
    settings = settings_of(consul, token_file)

    async def run() -> _Answer:
        async with ConsulStore(settings) as store:
            desk = Desk(
                store,
                app,
                now=lambda: datetime.now(UTC),
                new_salt=lambda: secrets.token_hex(8),
                pause=asyncio.sleep,
                on_retry=_say_retry,
            )
            return await work(desk)

    return asyncio.run(run())


def act(
    app: str, consul: str | None, token_file: str | None, event: RolloutCommand, who: Origin, *, idle: str
) -> Acted:
    """Let a command happen, and say what came of it; `idle` is said where it does not apply."""
    acted = at_desk(app, consul, token_file, lambda desk: desk.act(event, who))
    rollout = acted.written.rollout
    if not acted.is_done:
        click.echo(f"nothing to do: rollout {rollout.number} of {rollout.build_id} is {rollout.phase_name}; {idle}")
        return acted
    for record in acted.written.records:
        click.echo(f"rollout {rollout.number} of {rollout.build_id}: {record.message}")
    for tier, order in acted.written.orders.items():
        click.echo(f"  order {order.serial} for {order.app}/{tier}: {order.build.id} ({order.percent:g} %)")
    for tier, why in acted.written.left.items():
        click.echo(f"  {tier} is left as it is: {why}", err=True)
    return acted


def span(value: str) -> timedelta:
    """`90s`, `30m`, `2h`, `1d`.

    Raises:
        click.BadParameter: it is no such span.
    """
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    number, unit = value[:-1], value[-1:]
    if not number.isdecimal() or unit not in units or len(number) > 6:  # noqa: PLR2004 - more is no plan
        raise click.BadParameter(f"{value!r} is no span: give 90s, 30m, 2h, 1d")
    return timedelta(**{units[unit]: int(number)})


def _say_retry(error: StoreUnreachable) -> None:
    click.echo(f"Consul does not answer ({error}); trying again", err=True)
