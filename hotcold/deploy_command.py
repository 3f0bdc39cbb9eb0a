"""Owns `hotcold deploy`; leaves the order's contents and its writing to `checkpoint`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import click

from checkpoint import Wish
from fleet import ConsulSettings, ConsulStore
from fleet.keys import tier_key
from hotcold.build_argument import METAVAR, Chosen, choose
from hotcold.command import Command
from hotcold.consul_options import consul_options, settings_of
from hotcold.options import app_option, parse_limit, parse_moment, person, tier_option
from hotcold.placed import commander, conclude, note_override

_DEFAULT_WAIT_S = 1800.0


@click.command(
    cls=Command,
    examples=[
        "hotcold deploy 2026-11-23.1 --app shop --tier staging --wait",
        "hotcold deploy https://builds.example.com/shop-2026-11-23.1.json --app shop --tier prod \\",
        "    --percent 10 --max-unavailable 2 --reason 'checkout fix'",
        "hotcold deploy /srv/artifacts/shop-2026-11-23.1.json --app shop --tier prod --percent 100",
    ],
    exits={
        0: "ordered; with --wait: every host runs what is wanted",
        1: "not ordered; with --wait: some hosts rolled back, refused, or were not there in time",
    },
)
@click.argument("build", metavar=METAVAR)
@app_option
@tier_option
@click.option(
    "--percent",
    type=float,
    default=100.0,
    show_default=True,
    metavar="P",
    help="Share of the tier's hosts, rounded up; the rest runs the build before. Give the same build with a higher "
    "share to go on: hosts chosen once stay chosen.",
)
@click.option(
    "--max-unavailable",
    callback=parse_limit,
    metavar="N|P%",
    help="Hosts of the tier that may be out of service at once, or their share; 0: no limit.  "
    "[default: as in the present order]",
)
@click.option(
    "--not-after",
    callback=parse_moment,
    metavar="TIME",
    help="No host starts after it: 2026-11-24T18:00+01:00, 30m, 2h.",
)
@click.option("--reason", default="", metavar="TEXT", help="Why, for people.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0, min_open=True),
    is_flag=False,
    flag_value=_DEFAULT_WAIT_S,
    metavar="[SECONDS]",
    help=f"Wait until all hosts run what is wanted, at most SECONDS.  [{_DEFAULT_WAIT_S:g} where not given]",
)
@click.option(
    "--replace-malformed",
    is_flag=True,
    help="Write also where the key holds something that is no order (of this version); what it was is lost.",
)
@click.option(
    "--override", is_flag=True, help="Also where the app is locked or the build denied; needs --reason, and is audited."
)
@consul_options
def deploy(
    *,
    build: str,
    app: str,
    tier: str,
    percent: float,
    max_unavailable: int | str | None,
    not_after: datetime | None,
    reason: str,
    wait_s: float | None,
    replace_malformed: bool,
    override: bool,
    consul: str | None,
    token_file: str | None,
) -> None:
    """Order BUILD for a tier: the id of a released build, or the path or URL of its manifest.

    Hosts see the order at once, fetch the build in parallel, drain, swap and prove it. Whoever wrote to the tier's key
    while this command ran is never overwritten.
    """
    if override and not reason:
        raise click.UsageError("--override needs a --reason")
    settings = settings_of(consul, token_file)
    tier_key(app, tier)  # refuses names that could not be written, before anything is fetched
    chosen = asyncio.run(choose(build, app, settings))
    _warn_of_local_urls(chosen)
    wish = Wish(
        app=app,
        tier=tier,
        build=chosen.build,
        percent=percent,
        max_unavailable=max_unavailable,
        not_after=None if not_after is None else not_after.astimezone(UTC).isoformat(timespec="seconds"),
        reason=reason,
        by=person(),
    )
    asyncio.run(_deploy(settings, wish, replace_malformed=replace_malformed, override=override, wait_s=wait_s))


async def _deploy(
    settings: ConsulSettings, wish: Wish, *, replace_malformed: bool, override: bool, wait_s: float | None
) -> None:
    async with ConsulStore(settings) as store:
        placed = await commander(store).deploy(wish, replace_malformed=replace_malformed, pierce_guards=override)
        if override:
            await note_override(store, placed.order)
        await conclude(store, placed, wait_s)


def _warn_of_local_urls(chosen: Chosen) -> None:
    local = [url for url in chosen.build.urls if url.startswith("file:")]
    if local and chosen.manifest is not None and chosen.build.urls != chosen.manifest.urls:
        click.echo(
            f"note: the artifact is ordered as {local[0]}; only hosts that see this path can fetch it. "
            "Name the manifest by its http(s) URL, or pack with --url, for other hosts.",
            err=True,
        )
