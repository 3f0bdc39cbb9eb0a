"""Owns `hotcold rollback`; leaves the order's contents and its writing to `checkpoint`."""

from __future__ import annotations

import asyncio

import click

from fleet import ConsulStore
from hotcold.command import Command
from hotcold.consul_options import consul_options, settings_of
from hotcold.options import app_option, parse_limit, person, tier_option
from hotcold.placed import commander, conclude

_DEFAULT_WAIT_S = 300.0


@click.command(
    cls=Command,
    examples=["hotcold rollback --app shop --tier prod --reason 'checkout errors since 14:05' --wait"],
    exits={
        0: "ordered; with --wait: every host runs the build before",
        1: "nothing to go back to, or not ordered; with --wait: some hosts are not there",
    },
)
@app_option
@tier_option
@click.option("--reason", required=True, metavar="TEXT", help="Why; whoever comes after you will ask.")
@click.option(
    "--max-unavailable",
    callback=parse_limit,
    metavar="N|P%",
    help="Hosts that may be out of service at once, or their share; 0: no limit.  [default: as in the present order]",
)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0, min_open=True),
    is_flag=False,
    flag_value=_DEFAULT_WAIT_S,
    metavar="[SECONDS]",
    help=f"Wait until all hosts are back, at most SECONDS.  [{_DEFAULT_WAIT_S:g} where not given]",
)
@consul_options
def rollback(
    *,
    app: str,
    tier: str,
    reason: str,
    max_unavailable: int | str | None,
    wait_s: float | None,
    consul: str | None,
    token_file: str | None,
) -> None:
    """Order the build before the present one for the whole tier.

    One write to the tier's key, which needs nothing alive but Consul. A second rollback does not roll forward again: it
    says that there is nothing to go back to.
    """
    settings = settings_of(consul, token_file)

    async def roll_back() -> None:
        async with ConsulStore(settings) as store:
            placed = await commander(store).roll_back(
                app, tier, reason=reason, by=person(), max_unavailable=max_unavailable
            )
            await conclude(store, placed, wait_s)

    asyncio.run(roll_back())
