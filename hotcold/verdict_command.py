"""Owns `hotcold verdict`: what other limits would have made of a recorded rollout; leaves judging to `checkpoint`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from artifact import HotcoldError, Refused
from hotcold.command import Command, Lazy, LazyGroup

if TYPE_CHECKING:
    from checkpoint.verdicts import Action
    from checkpoint.verdicts.recording import Change, Decided, Replay

_MAX_BYTES: Final = 1 << 30


@click.group(
    cls=LazyGroup,
    lazy={
        "replay": Lazy(
            "hotcold.verdict_command", "replay", "Judge a recorded rollout anew, by its limits or by others."
        ),
    },
    epilog="""
        Example:
          hotcold verdict replay rollout-2026-11-23.1.jsonl
          hotcold verdict replay rollout-2026-11-23.1.jsonl --limit errors.tolerance=2
    """,
)
def verdict() -> None:
    """Look at verdicts: why a rollout was stopped, and what other limits would have done."""


@click.command(
    cls=Command,
    examples=[
        "hotcold verdict replay rollout-2026-11-23.1.jsonl",
        "hotcold verdict replay rollout-2026-11-23.1.jsonl --limit errors.tolerance=2 --limit pause_at=1000",
        "hotcold verdict replay rollout-2026-11-23.1.jsonl --json | jq .first",
    ],
    exits={0: "replayed, whatever the verdict", 1: "the file is no record of a rollout"},
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="[METRIC.]LIMIT=VALUE",
    help="Judge by this value, of one metric or of all; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def replay(*, file: Path, limits: tuple[str, ...], as_json: bool) -> None:
    """Say when the rollout recorded in FILE would have been paused or rolled back, and why, beside what was done.

    Steps are taken when the record says so. Every change of a verdict is shown with its reason.
    """
    from checkpoint.verdicts.recording import decode_lines  # noqa: PLC0415 - the help must not wait for it
    from checkpoint.verdicts.recording import replay as replayed  # noqa: PLC0415 - the same

    wanted = dict(_limit(text) for text in limits)
    try:
        seen = replayed(decode_lines(_read(file)), wanted)
    except Refused as error:
        raise Refused(f"{file}: {error}", kind=error.kind) from error
    if as_json:
        click.echo(json.dumps(_document(seen), ensure_ascii=False))
    else:
        _tell(seen, limits)


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise Refused(f"larger than {_MAX_BYTES >> 30} GiB: this is no record of one rollout")
        return file.read_bytes()
    except OSError as error:
        raise HotcoldError(f"{file}: cannot be read: {error.strerror or error}", kind="record_unreadable") from error


def _limit(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise click.BadParameter(f"{text!r}: write LIMIT=VALUE, such as tolerance=2", param_hint="--limit")
    for parse in (int, float):
        try:
            return key, parse(value)
        except ValueError:
            continue
    return key, None if value == "none" and key.rpartition(".")[2] == "limit" else value


def _tell(seen: Replay, limits: tuple[str, ...]) -> None:
    click.echo("recorded:")
    for decision in seen.decisions:
        click.echo(f"  {decision.at}  {_did(decision)}")
    if not seen.decisions:
        click.echo("  nothing was decided")
    click.echo(f"replayed{' with ' + ', '.join(limits) if limits else ''}:")
    for change in seen.changes:
        click.echo(f"  {change.at}  {_says(change)}")
    if not seen.changes:
        click.echo("  nothing was observed")
    stops: dict[Action, str] = {"pause": "paused", "roll_back": "rolled back"}
    for action, what in stops.items():
        first = seen.first(action)
        click.echo(f"{what}: {'never' if first is None else f'{first.at} by {first.verdict.metric}'}")
    click.echo(f"at the end: {seen.last.outcome}, {_words(seen.last.action)}: {seen.last.reason}")


def _did(decision: Decided) -> str:
    host = f" {decision.host}" if decision.host else ""
    by = f" by {decision.by}" if decision.by else ""
    why = f": {decision.reason}" if decision.reason else ""
    return f"{_words(decision.action)}{host}{by}{why}"


def _says(change: Change) -> str:
    verdict = change.verdict
    host = f" {verdict.host}" if verdict.host else ""
    step = f" ({change.step})" if change.step else ""
    return f"{verdict.metric}{step}: {verdict.outcome}, {_words(verdict.action)}{host}: {verdict.reason}"


def _words(action: str) -> str:
    return action.replace("_", " ")


def _document(seen: Replay) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415 - with the record

    actions: tuple[Action, ...] = ("set_aside_host", "pause", "roll_back")

    def change(each: Change | None) -> dict[str, Any] | None:
        return None if each is None else {"at": each.at, "step": each.step, **msgspec.to_builtins(each.verdict)}

    return {
        "metrics": [metric.name for metric in seen.metrics],
        "decisions": [msgspec.to_builtins(each) for each in seen.decisions],
        "changes": [change(each) for each in seen.changes],
        "first": {action: change(seen.first(action)) for action in actions},
        "last": msgspec.to_builtins(seen.last),
    }
