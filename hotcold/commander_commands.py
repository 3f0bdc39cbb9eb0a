"""Owns `hotcold commander` and `hotcold schedule`: who watches, and when; leaves the documents to `checkpoint`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from checkpoint.guards import Scheduled
from hotcold.command import Command, Failure, Lazy, LazyGroup
from hotcold.consul_options import consul_options
from hotcold.options import app_option, parse_moment, person
from hotcold.rollout_options import at_desk, origin, span

_HERE = "hotcold.commander_commands"
_LENGTH = click.option(
    "--for", "length", default="2h", show_default=True, metavar="SPAN", help="How long; acting on a rollout renews it."
)
_NOTE = click.option("--note", default="", metavar="TEXT", help="For whoever comes next.")


@click.group(
    cls=LazyGroup,
    lazy={
        "take": Lazy(_HERE, "take", "Become the commander."),
        "hand-over": Lazy(_HERE, "hand_over", "Make somebody else the commander."),
        "release": Lazy(_HERE, "release", "Be the commander no longer; the rollout holds."),
        "show": Lazy(_HERE, "show", "Show who is the commander, and until when."),
    },
    epilog="""
        Example:
          hotcold commander take --app shop
          hotcold commander hand-over bob --app shop --note 'canary is slow today'
    """,
)
def commander() -> None:
    """Be the one who watches the rollouts. The lease lapses by itself, and then the rollout holds."""


@click.command(
    cls=Command,
    examples=["hotcold commander take --app shop --for 2h", "hotcold commander take --app shop --force"],
    exits={0: "you are the commander", 1: "somebody else is"},
)
@app_option
@_LENGTH
@_NOTE
@click.option("--force", is_flag=True, help="Also where somebody else is; it is in the audit.")
@consul_options
def take(*, app: str, length: str, note: str, force: bool, consul: str | None, token_file: str | None) -> None:
    """Become the commander, or go on being it."""
    lasts, who = span(length), origin(note)
    lease = at_desk(app, consul, token_file, lambda desk: desk.guarding.take_command(who, lasts, force=force))
    click.echo(f"{lease.holder} is the commander until {lease.until.isoformat(timespec='seconds')}")


@click.command(
    "hand-over",
    cls=Command,
    examples=["hotcold commander hand-over bob --app shop --note 'canary is slow today'"],
    exits={0: "handed over", 1: "somebody else is the commander"},
)
@click.argument("to", metavar="PERSON")
@app_option
@_LENGTH
@_NOTE
@consul_options
def hand_over(*, to: str, app: str, length: str, note: str, consul: str | None, token_file: str | None) -> None:
    """Make PERSON the commander, with a note."""
    lasts, who = span(length), origin(note)
    lease = at_desk(app, consul, token_file, lambda desk: desk.guarding.hand_over(to, who, lasts))
    click.echo(f"{lease.holder} is the commander until {lease.until.isoformat(timespec='seconds')}")


@click.command(
    cls=Command,
    examples=["hotcold commander release --app shop --note 'all is well'"],
    exits={0: "nobody is the commander, or you were not", 1: "somebody else is the commander"},
)
@app_option
@_NOTE
@consul_options
def release(*, app: str, note: str, consul: str | None, token_file: str | None) -> None:
    """Be the commander no longer. A rollout that is under way holds before its next step."""
    who = origin(note)
    is_done = at_desk(app, consul, token_file, lambda desk: desk.guarding.release_command(who))
    click.echo("released" if is_done else "nothing to do: nobody is the commander")


@click.command(
    cls=Command,
    examples=["hotcold commander show --app shop"],
    exits={0: "shown", 1: "nobody is the commander"},
)
@app_option
@consul_options
def show(*, app: str, consul: str | None, token_file: str | None) -> None:
    """Show who is the commander, until when, and the note of the one before."""
    lease = at_desk(app, consul, token_file, lambda desk: desk.guarding.lease())
    if lease is None or not lease.is_live(datetime.now(UTC)):
        raise Failure(f"nobody is the commander of {app}: hotcold commander take --app {app}")
    click.echo(f"{lease.holder} is the commander until {lease.until.isoformat(timespec='seconds')}")
    if lease.note:
        click.echo(f"  {lease.note}")


@click.group(
    cls=LazyGroup,
    lazy={
        "list": Lazy(_HERE, "list_", "Show the deploys that are to come."),
        "add": Lazy(_HERE, "add", "Add a deploy."),
        "remove": Lazy(_HERE, "remove", "Take a deploy out."),
    },
    epilog="""
        Example:
          hotcold schedule add 2999-11-24T14:00+01:00 --app shop --commander bob
          hotcold schedule list --app shop
    """,
)
def schedule() -> None:
    """Keep the deploys of the day with their commanders. It starts nothing by itself."""


@click.command(
    "list", cls=Command, examples=["hotcold schedule list --app shop"], exits={0: "shown", 1: "Consul does not answer"}
)
@app_option
@consul_options
def list_(*, app: str, consul: str | None, token_file: str | None) -> None:
    """Show the deploys that are to come, by time."""
    found = at_desk(app, consul, token_file, lambda desk: desk.guarding.schedule())
    if not found.deploys:
        click.echo("nothing is scheduled")
    for each in found.deploys:
        note = f": {each.note}" if each.note else ""
        click.echo(f"{each.at.astimezone().isoformat(timespec='minutes')} {each.commander}{note}")


@click.command(
    cls=Command,
    examples=["hotcold schedule add 2999-11-24T14:00+01:00 --app shop --commander bob --note 'with the new search'"],
    exits={0: "added, or it stood there", 1: "not written; the message says why"},
)
@click.argument("at", callback=parse_moment, metavar="TIME")
@app_option
@click.option("--commander", "who", metavar="PERSON", help="Who watches it.  [default: you]")
@_NOTE
@consul_options
def add(*, at: datetime, app: str, who: str | None, note: str, consul: str | None, token_file: str | None) -> None:
    """Add a deploy at TIME: 2026-11-24T14:00+01:00, or 30m, 2h from now."""
    deploy = Scheduled(at=at.astimezone(UTC), commander=who or person(), note=note)
    giver = origin(note)
    is_done = at_desk(app, consul, token_file, lambda desk: desk.guarding.schedule_deploy(deploy, giver))
    click.echo("scheduled" if is_done else "nothing to do: it stands there already")


@click.command(
    cls=Command,
    examples=["hotcold schedule remove 2999-11-24T14:00+01:00 --app shop"],
    exits={0: "removed, or there was none", 1: "not written; the message says why"},
)
@click.argument("at", callback=parse_moment, metavar="TIME")
@app_option
@consul_options
def remove(*, at: datetime, app: str, consul: str | None, token_file: str | None) -> None:
    """Take the deploy at TIME out of the schedule."""
    giver = origin("")
    is_done = at_desk(app, consul, token_file, lambda desk: desk.guarding.unschedule(at.astimezone(UTC), giver))
    click.echo("removed" if is_done else "nothing to do: no deploy is scheduled then")
