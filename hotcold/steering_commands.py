"""Owns the commands of `hotcold rollout` that change what it does; leaves what they mean to `checkpoint`."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import click

from checkpoint.actions import Desk
from checkpoint.rollout import events as ev
from hotcold.command import Command
from hotcold.consul_options import consul_options
from hotcold.options import app_option
from hotcold.rollout_options import act, at_desk, index_option, origin, reason_option, span


@click.command(
    cls=Command,
    examples=["hotcold rollout approve --app shop --reason 'looked at staging'"],
    exits={0: "approved, or nothing to approve", 1: "refused: somebody else commands, or it has changed"},
)
@app_option
@reason_option
@index_option
@consul_options
def approve(*, app: str, reason: str, index: int | None, consul: str | None, token_file: str | None) -> None:
    """Let the present step pass its approval, also beforehand. For the commander."""
    idle = "it waits for no approval"
    act(app, consul, token_file, ev.ApproveRequested(), origin(reason, index), idle=idle)


@click.command(
    cls=Command,
    examples=["hotcold rollout pause --app shop --reason 'looking at the error rate'"],
    exits={0: "paused, or there was nothing to pause", 1: "refused: another rollout is under way by now"},
)
@app_option
@reason_option
@index_option
@consul_options
def pause(*, app: str, reason: str, index: int | None, consul: str | None, token_file: str | None) -> None:
    """Go no further; hosts stay as they are. For everybody."""
    act(app, consul, token_file, ev.PauseRequested(), origin(reason, index), idle="it goes nowhere")


@click.command(
    cls=Command,
    examples=["hotcold rollout resume --app shop --reason 'it was the database'"],
    exits={0: "resumed, or it was not paused", 1: "refused: somebody else commands, or it has changed"},
)
@app_option
@reason_option
@index_option
@consul_options
def resume(*, app: str, reason: str, index: int | None, consul: str | None, token_file: str | None) -> None:
    """Go on after a pause. The present step is checked, baked and judged anew. For the commander."""
    act(app, consul, token_file, ev.ResumeRequested({}), origin(reason, index), idle="it is not paused")


@click.command(
    cls=Command,
    examples=["hotcold rollout advance --app shop --reason 'the metric is broken, the build is not'"],
    exits={0: "advanced, or no step is under way", 1: "refused: somebody else commands, or it has changed"},
)
@app_option
@reason_option
@index_option
@consul_options
def advance(*, app: str, reason: str, index: int | None, consul: str | None, token_file: str | None) -> None:
    """Go on to the next step, whatever the present one waits for. Windows still count. For the commander."""
    act(app, consul, token_file, ev.AdvanceRequested(), origin(reason, index), idle="no step of it is under way")


@click.command(
    "set-aside",
    cls=Command,
    examples=["hotcold rollout set-aside web-7 --app shop --tier prod --reason 'disk is being replaced'"],
    exits={0: "set aside, or it was already", 1: "refused: no such host, or somebody else commands"},
)
@click.argument("host", metavar="HOST")
@app_option
@click.option("--tier", metavar="TIER", help="The host's tier.  [default: that of the present step]")
@reason_option
@index_option
@consul_options
def set_aside(
    *,
    host: str,
    app: str,
    tier: str | None,
    reason: str,
    index: int | None,
    consul: str | None,
    token_file: str | None,
) -> None:
    """Do not wait for HOST in this rollout. It rejoins by itself once it does what is ordered. For the commander."""
    tier = tier or at_desk(app, consul, token_file, _present_tier)
    event = ev.SetAsideRequested(tier, host)
    act(app, consul, token_file, event, origin(reason, index), idle=f"{host} is not waited for")


@click.command(
    "take-back",
    cls=Command,
    examples=["hotcold rollout take-back web-7 --app shop --tier prod --reason 'the disk is new'"],
    exits={0: "waited for again, or it always was", 1: "refused: somebody else commands, or it has changed"},
)
@click.argument("host", metavar="HOST")
@app_option
@click.option("--tier", metavar="TIER", help="The host's tier.  [default: that of the present step]")
@reason_option
@index_option
@consul_options
def take_back(
    *,
    host: str,
    app: str,
    tier: str | None,
    reason: str,
    index: int | None,
    consul: str | None,
    token_file: str | None,
) -> None:
    """Wait for HOST again, which was set aside. It counts from now on, also against the budget. For the commander."""
    tier = tier or at_desk(app, consul, token_file, _present_tier)
    event = ev.TakeBackRequested(tier, host)
    act(app, consul, token_file, event, origin(reason, index), idle=f"{host} is not set aside")


async def _present_tier(desk: Desk) -> str:
    ongoing = await desk.ledger.latest()
    return "" if ongoing is None else ongoing.plan.steps[ongoing.rollout.phase.step].rule.tier


@click.command(
    cls=Command,
    examples=[
        "hotcold rollout decide finish --app shop --reason 'ten minutes more, I stay'",
        "hotcold rollout decide hold --app shop --reason 'on call tonight: anna'",
    ],
    exits={0: "decided, or nothing is to be decided", 1: "refused: somebody else commands, or it has changed"},
)
@click.argument("choice", type=click.Choice(["finish", "hold"]))
@app_option
@reason_option
@index_option
@consul_options
def decide(
    *,
    choice: Literal["finish", "hold"],
    app: str,
    reason: str,
    index: int | None,
    consul: str | None,
    token_file: str | None,
) -> None:
    """Choose what becomes of a tier that will not be through before its window closes.

    finish: go on beyond closing. hold: stay as it is until the window opens again, with you as the one who watches. The
    third choice is `rollout rollback`. For the commander.
    """
    idle = "no closing window is in its way, or that was chosen already"
    act(app, consul, token_file, ev.ClosingDecided(choice), origin(reason, index), idle=idle)


@click.command(
    cls=Command,
    examples=[
        "hotcold rollout override --app shop --for 30m --reason 'security fix, agreed with bob'",
        "hotcold rollout override --app shop --end --reason 'done'",
    ],
    exits={0: "done, or nothing to override", 1: "refused: somebody else commands, or it has changed"},
)
@app_option
@click.option("--for", "length", metavar="SPAN", help="How long: 30m, 2h. It ends by itself.")
@click.option("--end", is_flag=True, help="End it now.")
@reason_option
@index_option
@consul_options
def override(
    *,
    app: str,
    length: str | None,
    end: bool,
    reason: str,
    index: int | None,
    consul: str | None,
    token_file: str | None,
) -> None:
    """Pierce windows, freezes, lock and slots together, for this rollout, for a while. For the commander."""
    if end == (length is not None):
        raise click.UsageError("give either --for or --end")
    lasts = timedelta() if length is None else span(length)
    act(
        app, consul, token_file, ev.OverrideRequested(lasts), origin(reason, index), idle="there is nothing to override"
    )


@click.command(
    cls=Command,
    examples=["hotcold rollout abort --app shop --reason 'the release is postponed'"],
    exits={0: "aborted, or it had ended", 1: "refused: another rollout is under way by now"},
)
@app_option
@reason_option
@index_option
@consul_options
def abort(*, app: str, reason: str, index: int | None, consul: str | None, token_file: str | None) -> None:
    """Stop for good where it is: hosts that run the build go on running it. For everybody."""
    act(app, consul, token_file, ev.AbortRequested(), origin(reason, index), idle="there is nothing to abort")


@click.command(
    cls=Command,
    examples=["hotcold rollout rollback --app shop --reason 'checkout errors since 14:05'"],
    exits={0: "ordered, or it was rolled back already", 1: "refused: another rollout is under way by now"},
)
@app_option
@reason_option
@index_option
@consul_options
def rollback(*, app: str, reason: str, index: int | None, consul: str | None, token_file: str | None) -> None:
    """Order every tier that the rollout reached back to the build before, all at once.

    One transaction, which needs no engine, window, slot or approval. It locks the app and denies the build, until
    `rollout unlock`. Also for a rollout that has ended. For everybody.
    """
    acted = act(app, consul, token_file, ev.RollbackRequested(), origin(reason, index), idle="it is back already")
    if acted.is_done:
        click.echo(f"watch it with: hotcold fleet --app {app} --watch")


@click.command(
    cls=Command,
    examples=["hotcold rollout lock --app shop --reason 'the database is being moved'"],
    exits={0: "locked, or it was already", 1: "not written; the message says why"},
)
@app_option
@reason_option
@consul_options
def lock(*, app: str, reason: str, consul: str | None, token_file: str | None) -> None:
    """Let nothing new start: no rollout, no step, no `hotcold deploy`. Rolling back stays possible. For everybody."""
    who = origin(reason)
    is_done = at_desk(app, consul, token_file, lambda desk: desk.guarding.lock(who))
    click.echo(f"{app} is locked" if is_done else f"nothing to do: {app} is locked already")


@click.command(
    cls=Command,
    examples=[
        "hotcold rollout unlock --app shop --reason 'the fix is ready'",
        "hotcold rollout unlock --app shop --build 2026-11-24.1 --reason 'it was the database'",
    ],
    exits={0: "lifted, or there was nothing to lift", 1: "not written; the message says why"},
)
@app_option
@click.option("--build", "build_id", metavar="ID", help="Lift the denial of this build; the lock stays as it is.")
@reason_option
@consul_options
def unlock(*, app: str, build_id: str | None, reason: str, consul: str | None, token_file: str | None) -> None:
    """Lift the lock, or the denial of one build. A rollback places both; they are lifted one by one."""
    who = origin(reason)
    if build_id is None:
        is_done = at_desk(app, consul, token_file, lambda desk: desk.guarding.unlock(who))
        click.echo(f"{app} is unlocked" if is_done else f"nothing to do: {app} is not locked")
        return
    is_done = at_desk(app, consul, token_file, lambda desk: desk.guarding.allow(build_id, who))
    click.echo(f"build {build_id} is allowed again" if is_done else f"nothing to do: build {build_id} is not denied")
