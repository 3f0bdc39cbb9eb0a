"""Owns `hotcold rollout`: planning, starting and following; leaves steering to `hotcold.steering_commands`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from artifact import ConfigError, Refused
from checkpoint.actions import Desk
from checkpoint.pipeline import Settings
from checkpoint.rollout.document import document
from checkpoint.rollout.picture import Picture
from checkpoint.rollout.plan import Plan
from hotcold.build_argument import METAVAR, Chosen, choose
from hotcold.command import Command, Failure, Lazy, LazyGroup
from hotcold.consul_options import consul_options, settings_of
from hotcold.options import app_option, person
from hotcold.rollout_options import at_desk, config_option, origin, pipeline_of, reason_option, span
from hotcold.rollout_view import plan_lines, status_lines

if TYPE_CHECKING:
    from checkpoint.starting import Prospect

_HERE = "hotcold.rollout_commands"
_STEERING = "hotcold.steering_commands"
_SHORT_S = 1.0


@click.group(
    cls=LazyGroup,
    lazy={
        "plan": Lazy(_HERE, "plan", "Show which hosts would get a build when; write nothing."),
        "start": Lazy(_HERE, "start", "Start a rollout, and be its commander."),
        "list": Lazy(
            "hotcold.rollout_list_command", "list_", "Show past rollouts and the present one, and how they ended."
        ),
        "status": Lazy(_HERE, "status", "Show where the rollout stands, why, and what to do next."),
        "watch": Lazy(_HERE, "watch", "Show each change until the rollout ends."),
        "approve": Lazy(_STEERING, "approve", "Let the present step pass its approval."),
        "pause": Lazy(_STEERING, "pause", "Go no further; hosts stay as they are."),
        "resume": Lazy(_STEERING, "resume", "Go on after a pause."),
        "advance": Lazy(_STEERING, "advance", "Go on to the next step, whatever this one waits for."),
        "set-aside": Lazy(_STEERING, "set_aside", "Do not wait for a host."),
        "take-back": Lazy(_STEERING, "take_back", "Wait again for a host that was set aside."),
        "decide": Lazy(_STEERING, "decide", "Choose what becomes of a rollout that a closing window would cut."),
        "override": Lazy(_STEERING, "override", "Pierce windows, locks and slots for a while."),
        "abort": Lazy(_STEERING, "abort", "Stop for good; hosts stay as they are."),
        "rollback": Lazy(_STEERING, "rollback", "Order every tier back at once, lock, and deny the build."),
        "lock": Lazy(_STEERING, "lock", "Let nothing new start."),
        "unlock": Lazy(_STEERING, "unlock", "Lift the lock, or the denial of a build."),
    },
    epilog="""
        Example:
          hotcold rollout plan 2026-11-24.1 --app shop
          hotcold rollout start 2026-11-24.1 --app shop --reason 'checkout fix'
          hotcold rollout watch --app shop
          hotcold rollout rollback --app shop --reason 'checkout errors since 14:05'
    """,
)
def rollout() -> None:
    """Roll builds out through the tiers, step by step. Every command needs nothing alive but Consul.

    The steps themselves are taken by an engine: `hotcold checkpoint run`.
    """


@click.command(
    cls=Command,
    examples=[
        "hotcold rollout plan 2026-11-24.1 --app shop",
        "hotcold rollout plan https://builds.example.com/shop-2026-11-24.1.json --app shop --save plan.json",
    ],
    exits={0: "shown", 1: "it could not be started; the message says why"},
)
@click.argument("build", metavar=METAVAR)
@app_option
@config_option
@click.option("--from-tier", metavar="TIER", help="Leave out the tiers before this one, as for a hotfix.")
@click.option("--reason", default="", metavar="TEXT", help="Why; it goes into the plan.")
@click.option(
    "--save", type=click.Path(path_type=Path), metavar="FILE", help="Write the plan, for `start --plan FILE`."
)
@consul_options
def plan(
    *,
    build: str,
    app: str,
    config: Path | None,
    from_tier: str | None,
    reason: str,
    save: Path | None,
    consul: str | None,
    token_file: str | None,
) -> None:
    """Show which hosts would get BUILD, and when; what it brings; and what is in its way.

    BUILD is the id of a released build, or the path or URL of its manifest.
    """
    from hotcold.prospect_view import prospect_lines  # noqa: PLC0415 - releases are loaded for who plans only

    settings = pipeline_of(config, app)
    chosen = choose(build, app, settings_of(consul, token_file))
    found = _prospect(settings, chosen, from_tier, reason, consul=consul, token_file=token_file)
    made = found.plan
    for line in (*plan_lines(made, datetime.now(UTC)), *prospect_lines(found, settings)):
        click.echo(line)
    if save is not None:
        save.write_bytes(msgspec.json.encode(made))
        click.echo(f"saved; to run exactly this: hotcold rollout start --plan {save} --app {app} --reason TEXT")


def _prospect(
    settings: Settings,
    chosen: Awaitable[Chosen],
    from_tier: str | None,
    reason: str,
    *,
    consul: str | None,
    token_file: str | None,
) -> Prospect:
    from checkpoint.starting import prospect  # noqa: PLC0415 - likewise

    by = person()

    async def work(desk: Desk) -> Prospect:
        made = await desk.plan(settings.pipeline, (await chosen).build, by=by, reason=reason, first_tier=from_tier)
        return await prospect(desk, settings, made, person=by, now=datetime.now(UTC))

    return at_desk(settings.pipeline.app, consul, token_file, work)


@click.command(
    cls=Command,
    examples=[
        "hotcold rollout start 2026-11-24.1 --app shop --reason 'checkout fix'",
        "hotcold rollout start https://builds.example.com/shop-2026-11-24.1.json --app shop --reason 'checkout fix'",
        "hotcold rollout start --plan plan.json --app shop --reason 'checkout fix'",
        "hotcold rollout start /srv/artifacts/shop-2026-11-24.2.json --app shop --from-tier canary \\",
        "    --override 1h --reason 'hotfix of the checkout, agreed with bob'",
    ],
    exits={0: "started", 1: "not started; the message says why"},
)
@click.argument("build", required=False, metavar=f"[{METAVAR}]")
@app_option
@config_option
@click.option("--from-tier", metavar="TIER", help="Leave out the tiers before this one, as for a hotfix.")
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Run exactly the plan that `rollout plan --save` wrote, instead of a plan for BUILD.",
)
@click.option("--override", "override_for", metavar="SPAN", help="Pierce windows, lock and slots for so long: 30m, 2h.")
@click.option(
    "--confirm",
    "confirmed",
    multiple=True,
    metavar="NAME",
    help="Confirm what the checklist of the configuration asks under that name; may be given several times.",
)
@reason_option
@consul_options
def start(
    *,
    build: str | None,
    app: str,
    config: Path | None,
    from_tier: str | None,
    plan_file: Path | None,
    override_for: str | None,
    confirmed: tuple[str, ...],
    reason: str,
    consul: str | None,
    token_file: str | None,
) -> None:
    """Start to roll out BUILD. Who starts it is its commander.

    BUILD is the id of a released build, or the path or URL of its manifest. Refused while another rollout is under
    way, the app is locked, the build denied, or somebody else commands.
    """
    from checkpoint.starting import check_confirmed, check_reachable, prospect  # noqa: PLC0415 - likewise
    from hotcold.prospect_view import prospect_lines  # noqa: PLC0415 - likewise

    if (build is None) == (plan_file is None):
        raise click.UsageError("give either BUILD or --plan")
    length = None if override_for is None else span(override_for)
    settings = pipeline_of(config, app)
    who = origin(reason)

    async def work(desk: Desk) -> Prospect:
        if plan_file is not None:
            made = _read_plan(plan_file)
        else:
            assert build is not None  # noqa: S101 - or a plan
            chosen = await choose(build, app, settings_of(consul, token_file))
            made = await desk.plan(settings.pipeline, chosen.build, by=who.by, reason=reason, first_tier=from_tier)
        found = await prospect(desk, settings, made, person=who.by, now=who.at)
        check_reachable(found, is_overridden=length is not None)
        texts = check_confirmed(made, settings.checklist, confirmed)
        await desk.start(made, who, length, texts)
        return found

    found = at_desk(app, consul, token_file, work)
    made = found.plan
    for line in (*plan_lines(made, datetime.now(UTC)), *prospect_lines(found, settings, is_started=True)):
        click.echo(line)
    click.echo(f"started; you are the commander. Follow it with: hotcold rollout watch --app {app}")


def _read_plan(file: Path) -> Plan:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Plan)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{file}: is no plan that `rollout plan --save` wrote: {error}") from error


@click.command(
    cls=Command,
    examples=["hotcold rollout status --app shop", "hotcold rollout status --app shop --json | jq .waiting_for"],
    exits={0: "shown", 1: "no rollout was ever started, or Consul does not answer"},
)
@app_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--all", "show_all", is_flag=True, help="Name every host that is waited for.")
@consul_options
def status(*, app: str, as_json: bool, show_all: bool, consul: str | None, token_file: str | None) -> None:
    """Show the latest rollout: its steps, what it waits for and why, and what to do next."""
    shown = at_desk(app, consul, token_file, lambda desk: desk.look())
    if as_json:
        click.echo(msgspec.json.encode(None if shown is None else document(shown)).decode())
        return
    if shown is None:
        raise Failure(f"no rollout of {app} was ever started")
    for line in status_lines(shown, datetime.now(UTC), show_hosts=show_all):
        click.echo(line)


@click.command(
    cls=Command,
    examples=["hotcold rollout watch --app shop", "hotcold rollout watch --app shop --until approving"],
    exits={
        0: "the rollout is finished, or has come as far as asked",
        1: "it was aborted or rolled back, or is paused and --until was given",
    },
)
@app_option
@click.option(
    "--until",
    type=click.Choice(["approving", "baking", "paused", "finished", "rolled_back"]),
    help="Stop when the rollout gets there.  [default: when it ends]",
)
@click.option("--timeout", "timeout_for", metavar="SPAN", help="Give up after it: 30m, 2h.  [default: never]")
@consul_options
def watch(*, app: str, until: str | None, timeout_for: str | None, consul: str | None, token_file: str | None) -> None:
    """Tell each change of the latest rollout, until it ends or gets where asked."""
    length = None if timeout_for is None else span(timeout_for).total_seconds()

    async def work(desk: Desk) -> Picture:
        try:
            async with asyncio.timeout(length):
                return await _watch(desk, until)
        except TimeoutError:
            raise Failure(f"not there after {timeout_for}; the rollout goes on") from None

    try:
        shown = at_desk(app, consul, token_file, work)
    except KeyboardInterrupt:
        click.echo("no longer watching; the rollout goes on", err=True)
        raise SystemExit(0) from None
    phase = shown.rollout.phase_name
    if phase in {until, "finished"}:
        return
    raise Failure(f"rollout {shown.plan.number} is {phase.replace('_', ' ')}: {shown.following}")


async def _watch(desk: Desk, until: str | None) -> Picture:
    told: tuple[str, ...] = ()
    while True:
        shown = await desk.look()
        if shown is None:
            raise Refused(f"no rollout of {desk.app} was ever started", kind="no_rollout")
        rollout = shown.rollout
        where = shown.steps[rollout.phase.step].name
        counted = f"{len(shown.tally.good)} of {shown.tally.host_count} hosts run it"
        lines = (f"{where}: {rollout.phase_name.replace('_', ' ')}, {counted}", *shown.waiting_for[:3])
        if lines != told:
            click.echo(f"{datetime.now(UTC):%H:%M:%S} {'; '.join(lines)}")
            told = lines
        is_stopped = until is not None and rollout.phase_name in {until, "paused"}
        if rollout.is_ended or is_stopped:
            return shown
        await asyncio.sleep(_SHORT_S)
