"""Owns `hotcold checkpoint deliveries` and `resend`; leaves the log of what webhooks were told to `checkpoint`."""

from __future__ import annotations

import asyncio
import json

import click
import msgspec

from checkpoint.deliveries import Delivered, Delivery, read_deliveries
from fleet import ConsulStore
from hotcold.command import Command, Failure
from hotcold.consul_options import consul_options, settings_of
from hotcold.options import app_option
from hotcold.rollout_options import at_desk, origin
from hotcold.terminal import many


@click.command(
    cls=Command,
    examples=["hotcold checkpoint deliveries --app shop", "hotcold checkpoint deliveries --app shop --failed"],
    exits={0: "shown", 1: "no webhook was ever told anything, or Consul does not answer"},
)
@app_option
@click.option("--failed", "is_failed", is_flag=True, help="Only those that failed and were not sent again since.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the logs by the webhooks' names.")
@consul_options
def deliveries(*, app: str, is_failed: bool, as_json: bool, consul: str | None, token_file: str | None) -> None:
    """Show which messages reached which webhook, after how many tries, and why the others did not.

    The latest 50 of each are known.
    """

    async def read() -> dict[str, Delivered]:
        async with ConsulStore(settings_of(consul, token_file)) as store:
            return await read_deliveries(store, app)

    found = asyncio.run(read())
    if is_failed:
        found = {name: _failed(log) for name, log in found.items()}
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(found), indent=2))
        return
    if not found:
        raise Failure(f"no webhook was ever told anything of {app}")
    for name, log in found.items():
        for each in log.deliveries:
            click.echo(f"{name} {_line(each)}")
        for wish in log.again:
            click.echo(f"{name} record {wish.number} will be sent once more, for {wish.by}")
    if is_failed and not any(log.deliveries or log.again for log in found.values()):
        click.echo("none failed")


@click.command(
    cls=Command,
    examples=[
        "hotcold checkpoint resend chat --app shop",
        "hotcold checkpoint resend chat 41 42 --app shop --reason 'the chat was down'",
    ],
    exits={0: "the engine that leads sends it, or there is nothing to send", 1: "refused: no such webhook or message"},
)
@click.argument("webhook", metavar="WEBHOOK")
@click.argument("numbers", nargs=-1, type=click.IntRange(min=1), metavar="[RECORD]...")
@app_option
@click.option("--reason", default="", metavar="TEXT", help="Why, for the audit.")
@consul_options
def resend(
    *, webhook: str, numbers: tuple[int, ...], app: str, reason: str, consul: str | None, token_file: str | None
) -> None:
    """Have messages sent to WEBHOOK once more: those of the RECORDs, or else all that failed.

    The engine that leads sends them, for it has the webhook's key. A message keeps its id, so that a receiver which had
    it all the same can tell.
    """
    who = origin(reason)
    sent = at_desk(app, consul, token_file, lambda desk: desk.deliveries.resend(webhook, numbers or None, who))
    if not sent:
        click.echo(f"nothing to do: no message to {webhook} failed" if not numbers else "they will be sent already")
        return
    click.echo(
        f"the engine that leads sends {many(len(sent), 'message')} to {webhook} once more: records {_list(sent)}"
    )


def _failed(log: Delivered) -> Delivered:
    failed = set(log.failed)
    latest = {each.number: each for each in log.deliveries if each.number in failed}
    return msgspec.structs.replace(log, deliveries=tuple(latest.values()))


def _line(each: Delivery) -> str:
    at = each.at.isoformat(timespec="seconds")
    what = f" ({each.what})" if each.what else ""
    answer = f", answered {each.status}" if each.status and not each.error else ""
    error = f": {each.error}" if each.error else ""
    again = f", sent once more for {each.by}" if each.by else ""
    return f"{at} record {each.number}{what}: {each.outcome}, {many(each.attempts, 'attempt')}{answer}{again}{error}"


def _list(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
