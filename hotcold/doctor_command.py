"""Owns `hotcold doctor`: what it prints, and its exit code; leaves looking to `hotcold.doctor`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.config import load_settings
from artifact import ConfigError
from hotcold.command import FAILED, Command
from hotcold.doctor.checks import checks_of
from hotcold.doctor.finding import Finding, Level
from hotcold.doctor.patient import Patient
from hotcold.doctor.rounds import Rounds
from hotcold.local_config import config_options, environment_of, find_config
from hotcold.terminal import console, many

_MARKS: Final[dict[Level, tuple[str, str]]] = {
    "ok": ("✓", "green"),
    "warning": ("!", "yellow"),
    "wrong": ("✗", "bold red"),
    "unknown": ("?", "dim"),
}


@click.command(
    cls=Command,
    examples=[
        "hotcold doctor --app shop",
        "hotcold doctor --config /etc/hotcold/shop.toml --json | jq '.findings[] | select(.level != \"ok\")'",
    ],
    exits={
        0: "nothing is wrong; there may be warnings",
        1: "something is wrong; its line says what to do",
        2: "wrong usage",
    },
)
@config_options
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=1, max=600),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="For each check; they run at the same time.",
)
@click.option(
    "--etc",
    type=click.Path(path_type=Path),
    default=Path("/etc"),
    show_default=True,
    metavar="DIR",
    help="Where nginx and PHP have their configuration.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: ok, findings.")
def doctor(*, app: str | None, config: Path | None, timeout_s: float, etc: Path, as_json: bool) -> None:
    """Look for what is wrong with this host, or will be: one line each, and the remedy.

    Changes nothing, and may run beside the agent. Run it as root: what another user may not look at is marked `?`.
    """
    findings: list[Finding] = []
    rounds, refused = _rounds(find_config(app, config), timeout_s, etc)
    for finding in chain(refused, chain.from_iterable(rounds.run())):
        findings.append(finding)
        if not as_json:
            _print(finding)
    is_ok = not any(finding.level == "wrong" for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": is_ok, "findings": [asdict(finding) for finding in findings]}, ensure_ascii=False))
    else:
        click.echo(_summary(findings))
    code = 0 if is_ok else FAILED
    if rounds.is_stuck:
        # At the end of a process Python waits for threads, also for those that resolve names and never come back.
        sys.stdout.flush()
        os._exit(code)
    raise SystemExit(code)


def _rounds(path: Path, timeout_s: float, etc: Path) -> tuple[Rounds, tuple[Finding, ...]]:
    """The checks; where the configuration cannot be used, none of them, and why."""
    environment = environment_of(path)
    try:
        settings = load_settings(path, environment)
    except ConfigError as error:
        refused = Finding("config", "wrong", str(error), "mend it; without it nothing else can be looked at")
        return Rounds((), deadline_s=timeout_s), (refused,)
    # Answers from elsewhere have less time than their check, which tells more than that it is silent.
    patient = Patient(path, settings, etc, patience_s=timeout_s * 0.7)
    return Rounds(checks_of(patient), deadline_s=timeout_s), ()


def _print(finding: Finding) -> None:
    mark, colour = _MARKS[finding.level]
    screen = console()
    if not screen.is_terminal:
        click.echo(f"{mark} {finding.check:<12} {finding.message}" + (f"; {finding.remedy}" if finding.remedy else ""))
        return
    _draw(screen, finding, mark, colour)


def _draw(screen: Console, finding: Finding, mark: str, colour: str) -> None:
    line = Table.grid(padding=(0, 1))
    line.add_column(no_wrap=True)
    line.add_column(no_wrap=True, min_width=11)
    line.add_column(overflow="fold")
    style = "" if finding.level in {"ok", "unknown"} else colour
    line.add_row(Text(mark, colour), Text(finding.check, "dim"), Text(finding.message, style))
    if finding.remedy:
        line.add_row("", "", Text(f"→ {finding.remedy}"))
    screen.print(line)


def _summary(findings: list[Finding]) -> str:
    counts = {level: sum(finding.level == level for finding in findings) for level in _MARKS}
    told = [
        f"{counts['wrong']} wrong" if counts["wrong"] else "nothing is wrong",
        many(counts["warning"], "warning"),
        *([f"{counts['unknown']} could not be looked at"] if counts["unknown"] else []),
    ]
    return ", ".join(told)
