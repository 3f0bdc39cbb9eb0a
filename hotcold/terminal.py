"""Owns how things look everywhere: symbols, colours, times, sizes; leaves what is shown to each view."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import click
from rich.console import Console, RenderableType
from rich.text import Text

WIDE: Final = 10_000
"""Columns where nobody looks at lines in a window: nothing is cut or wrapped."""

# state: symbol, colour. A state keeps its symbol where there is no colour.
STATES: Final[Mapping[str, tuple[str, str]]] = {
    "steady": ("●", "green"),
    "fetching": ("↓", "cyan"),
    "staged": ("◐", "cyan"),
    "waiting_for_slot": ("…", "yellow"),
    "draining": ("◌", "yellow"),
    "swapping": ("⇄", "magenta"),
    "proving": ("◑", "magenta"),
    "watching": ("◉", "green"),
    "going_back": ("↶", "red"),
    "backing_off": ("↻", "yellow"),
    "rolled_back": ("↶", "red"),
    "build_refused": ("✗", "red"),
    "held": ("‖", "blue"),
    "halted": ("■", "red"),
}
_UNKNOWN: Final = ("?", "white")

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86400
_THOUSAND: Final = 1000


def console(*, stderr: bool = False) -> Console:
    """A console of this terminal."""
    return Console(stderr=stderr, highlight=False)


def print_plain(picture: RenderableType) -> None:
    """Print for a pipe or file: no colour, nothing cut or wrapped, no padding at the ends of lines."""
    paper = Console(file=io.StringIO(), highlight=False, width=WIDE, color_system=None)
    with paper.capture() as capture:
        paper.print(picture)
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def state_text(name: str, *, note: str = "") -> Text:
    """A state with its symbol and colour, and a note in a quieter tone."""
    symbol, colour = STATES.get(name, _UNKNOWN)
    text = Text.assemble((f"{symbol} {name.replace('_', ' ')}", colour))
    return text.append(f" {note}", "dim") if note else text


def duration(seconds: float) -> str:
    """A span as people say it: `340 ms`, `12 s`, `3 min`, `2.5 h`, `4 d`."""
    if seconds < 1:
        return f"{seconds * _THOUSAND:.0f} ms"
    if seconds < 2 * _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    if seconds < 2 * _DAY_S:
        return f"{seconds / _HOUR_S:.1f} h"
    return f"{seconds / _DAY_S:.0f} d"


def ago(moment: str, now: datetime) -> str:
    """How long ago an RFC 3339 time was; `` for none, the text itself where it is no time."""
    if not moment:
        return ""
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return moment
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    seconds = (now - then).total_seconds()
    return "just now" if seconds < 1 else f"{duration(seconds)} ago"  # clocks differ: nothing was "-2 s ago"


def size(count: float) -> str:
    """Bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:  # noqa: PLR2004 - what binary units are made of
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def many(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun, in the plural where it is due."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"
