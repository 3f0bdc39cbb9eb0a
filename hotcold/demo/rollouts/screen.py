"""Owns how the second part of the demo looks on a terminal: steps, hosts by their tiers, what was said, the summary.

What is shown is left to `hotcold.demo.board`, and what both parts show alike to `hotcold.demo.screen`.
"""

from __future__ import annotations

from typing import Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hotcold.demo.board import Board, HostView
from hotcold.demo.rollouts.outcome import RolloutsOutcome
from hotcold.demo.rollouts.pages import Pages
from hotcold.demo.rollouts.pipeline import FLEET
from hotcold.demo.rollouts.story import BAD
from hotcold.demo.screen import FEWEST_LINES, count_text, said, top, yes_text
from hotcold.terminal import STATES

_FRAME_LINES: Final = 14
_SUMMARY_LINES: Final = 8
_SECOND_MS: Final = 1000


def draw(board: Board, pages: Pages | None, outcome: RolloutsOutcome, *, lines: int, columns: int) -> RenderableType:
    """The screen as it is now, for a terminal of so many lines and columns."""
    is_told = board.step > len(board.steps)
    style = "cyan" if not is_told else "green" if outcome.is_good else "red"
    room = lines - _FRAME_LINES
    below: list[RenderableType] = []
    # Where there is little room, what was said matters most: it has all the figures.
    if is_told and room >= _SUMMARY_LINES + FEWEST_LINES:
        below.append(Panel(summary(outcome), title="summary", title_align="left", border_style=style))
        room -= _SUMMARY_LINES
    if board.hints and room >= len(board.hints) + 1 + FEWEST_LINES:
        below.append(Text("\n".join(("try:", *(f"  {hint}" for hint in board.hints))), overflow="fold"))
        room -= len(board.hints) + 1
    above = (top(board), Text(), _where(pages), _tiers(board), Text())
    parts = (*above, said(board, max(FEWEST_LINES, room)), *below)
    return Panel(
        Group(*parts),
        title="[bold]hotcold demo: Checkpoint[/]",
        title_align="left",
        subtitle=f"[dim]{board.elapsed_s:.0f} s[/]",
        subtitle_align="right",
        border_style=style,
        padding=(0, 1),
        width=columns,
    )


def summary(outcome: RolloutsOutcome) -> RenderableType:
    """The result, for people."""
    good, bad, count = outcome.good, outcome.bad, outcome.hosts
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    if outcome.steered_by is not None:
        table.add_row("taken over", outcome.steered_by)
    took = "" if good.took_s is None else f"   {count} hosts in {good.took_s:.0f} s"
    table.add_row("a good build went all the way", Text.assemble(yes_text(good.finished), took))
    table.add_row("   requests failed", Text.assemble(count_text(good.failed), f" of {good.requests:,}"))
    where = "" if bad.stopped_at is None else f"   {bad.stopped_at}, on {bad.hosts_reached} of {count} hosts"
    table.add_row("a bad build stopped itself", Text.assemble(yes_text(bad.stopped_at is not None), where))
    found = f"{_span(bad.detect_ms)} after its first customers"
    table.add_row("   found out; all back", f"{found}; {_span(bad.rollback_ms)} later")
    elsewhere = Text.assemble(f"{bad.failed:,} of {bad.requests:,}   elsewhere ", count_text(bad.failed_elsewhere))
    table.add_row("   requests failed", elsewhere)
    return table


def _where(pages: Pages | None) -> Text:
    if pages is None:
        return Text("Checkpoint is not up yet", "dim")
    return Text.assemble(
        "Checkpoint: ", (pages.url, f"bold link {pages.link}"), ("   sign in by the link above", "dim")
    )


def _tiers(board: Board) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(no_wrap=True)
    for tier, hosts in FLEET.items():
        table.add_row(tier, Text("   ").join(_host(board.hosts[host]) for host in hosts))
    return table


def _host(view: HostView) -> Text:
    """A host, by what its agent does and which build it serves. Shapes tell it where there is no colour."""
    if view.status is None or view.hot is None:
        return Text("· starting", "dim")
    symbol, colour = STATES.get(view.status.state.name, ("?", "white"))
    build = view.hot.build or view.hot.name
    failed = view.count.failed + view.count.mixed
    text = Text.assemble((symbol, colour), " ", (build, "bold red" if build == BAD else ""))
    return text.append(f" {failed} failed", "red") if failed else text


def _span(span_ms: float | None) -> str:
    if span_ms is None:
        return "not measured"
    return f"{span_ms:.0f} ms" if span_ms < _SECOND_MS else f"{span_ms / _SECOND_MS:.1f} s"
