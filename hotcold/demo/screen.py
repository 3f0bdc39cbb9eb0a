"""Owns how the demo looks: the live screen, plain lines where there is no terminal, the summary, the picture.

What is shown is left to `hotcold.demo.board`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hotcold.demo.board import Board, HostView, Line
from hotcold.demo.outcome import Outcome, Spread
from hotcold.status_document import Status, Tree
from hotcold.terminal import duration, state_text

PICTURE_COLUMNS: Final = 112
PICTURE_LINES: Final = 40
_BARS: Final = "▁▂▃▄▅▆▇█"
_FRAME_LINES: Final = 17
_SUMMARY_LINES: Final = 7
FEWEST_LINES: Final = 4
_SPARK_COUNT: Final = 24
_FEWEST_SPARKS: Final = 4
_OTHER_COLUMNS: Final = 88
"""What the table of the hosts needs beside the sparks."""
_BAR_COLUMNS: Final = 30


def draw(board: Board, *, lines: int, columns: int) -> RenderableType:
    """The screen as it is now, for a terminal of so many lines and columns."""
    taken = _FRAME_LINES + (0 if board.outcome is None else _SUMMARY_LINES) + len(board.hints)
    room = max(FEWEST_LINES, lines - taken)
    parts: list[RenderableType] = [top(board), _hosts(board, columns), said(board, room)]
    if board.outcome is not None:
        style = "green" if board.outcome.is_good else "red"
        parts.append(Panel(summary(board.outcome), title="summary", title_align="left", border_style=style))
    if board.hints:
        parts.append(Text("\n".join(("try, in another terminal:", *(f"  {hint}" for hint in board.hints)))))
    return Panel(
        Group(*parts),
        title="[bold]hotcold demo[/]",
        title_align="left",
        subtitle=f"[dim]{board.elapsed_s:.0f} s[/]",
        subtitle_align="right",
        border_style="cyan" if board.outcome is None else "green" if board.outcome.is_good else "red",
        padding=(0, 1),
    )


def plain_line(line: Line) -> str:
    """A line for a pipe or a log."""
    return f"{line.at_s:6.1f} s  {line.text}"


def summary(outcome: Outcome) -> RenderableType:
    """The result, for people."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_row(
        "requests",
        Text.assemble(
            (f"{outcome.requests:,}", "bold"),
            "   failed ",
            count_text(outcome.failed),
            "   of two builds at once ",
            count_text(outcome.mixed),
        ),
    )
    table.add_row("order to hot, a change", _spread(outcome.signal_to_hot_ms))
    table.add_row("order to hot, a rollback", _spread(outcome.rollback_ms))
    table.add_row("bad build went back by itself", yes_text(outcome.bad_build_reverted))
    table.add_row("agents recovered from kill -9", yes_text(outcome.recovered_after_kill))
    return table


def save_picture(drawn: Callable[[int, int], RenderableType], path: Path) -> None:
    """Save as SVG what is drawn for so many lines and columns.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("w", encoding="utf-8") as file:
        paper = Console(record=True, width=PICTURE_COLUMNS, file=io.StringIO(), force_terminal=True, highlight=False)
        paper.print(drawn(PICTURE_LINES, PICTURE_COLUMNS))
        # The picture must not load fonts from elsewhere; the reader's own will do.
        file.write(re.sub(r"@font-face\s*\{.*?\}\s*", "", paper.export_svg(title="hotcold demo"), flags=re.DOTALL))


def top(board: Board) -> RenderableType:
    """Steps on the left, what clients got so far on the right."""
    counts = board.counts
    rate = sum(view.rate for view in board.hosts.values())
    numbers = Table.grid(padding=(0, 2))
    numbers.add_column(style="dim", justify="right")
    numbers.add_column(justify="right", min_width=10)
    numbers.add_row("requests", Text(f"{sum(count.requests for count in counts):,}", "bold"))
    numbers.add_row("per second", f"{rate:.0f}")
    numbers.add_row("failed", count_text(sum(count.failed for count in counts)))
    numbers.add_row("of two builds", count_text(sum(count.mixed for count in counts)))
    numbers.add_row("longest wait", duration(max(count.longest_s for count in counts)))
    top = Table.grid(expand=True)
    top.add_column(ratio=1)
    top.add_column(justify="right")
    top.add_row(Group(*_steps(board)), numbers)
    return top


def _steps(board: Board) -> Iterator[Text]:
    for number, title in enumerate(board.steps, 1):
        if number < board.step:
            yield Text.assemble(("✓ ", "green"), title)
        elif number == board.step:
            yield Text.assemble(("▶ ", "bold cyan"), (title, "bold"))
        else:
            yield Text(f"· {title}", "dim")


def _hosts(board: Board, columns: int) -> RenderableType:
    sparks = min(_SPARK_COUNT, max(_FEWEST_SPARKS, columns - _OTHER_COLUMNS))
    table = Table(expand=True, box=box.ROUNDED, border_style="dim", header_style="dim")
    table.add_column("host", no_wrap=True)
    table.add_column("agent", min_width=18, no_wrap=True)
    table.add_column("hot", min_width=8, no_wrap=True)
    table.add_column("what it does", ratio=1, no_wrap=True)
    table.add_column("requests/s", width=sparks + 5, no_wrap=True)
    table.add_column("failed", justify="right")
    for name, view in board.hosts.items():
        failed = count_text(view.count.failed + view.count.mixed)
        table.add_row(
            Text(name, "bold"), _agent(view.status), _hot(view.hot), _doing(view.status), _rate(view, sparks), failed
        )
    return table


def _agent(status: Status | None) -> Text:
    return Text("✗ no agent", "bold red") if status is None else state_text(status.state.name)


def _hot(tree: Tree | None) -> Text:
    if tree is None:
        return Text("nothing", "dim")
    return Text(tree.build or tree.name, "green" if tree.proved else "bold yellow")


def _doing(status: Status | None) -> RenderableType:
    if status is None:
        return Text("killed; the app goes on", "red")
    fetched = status.progress
    if fetched is not None:
        line = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(1, fetched.bytes_total), completed=fetched.bytes_done, width=14)
        line.add_row(bar, Text(f"{fetched.files_done} files", "dim", no_wrap=True))
        return line
    if status.waiting_for:
        return Text(f"waits for {len(status.waiting_for)} of the app's workers", "yellow")
    if status.order is None:
        return Text("waits for an order", "dim")
    wanted = status.order.build
    if status.problem is not None:
        return Text(f"refuses {wanted}: {status.problem.kind.replace('_', ' ')}", "red")
    hot = status.hot.build if status.hot is not None else None
    return Text(f"on its way to {wanted}", "cyan") if wanted not in (None, hot) else Text("")


def _rate(view: HostView, sparks: int) -> Text:
    rates = list(view.rates)[-sparks:]
    if not rates:
        return Text("")
    top = max(*view.rates, 1.0)
    spark = "".join(_BARS[min(len(_BARS) - 1, int(rate / top * len(_BARS)))] for rate in rates)
    return Text.assemble((spark.rjust(sparks), "cyan"), f" {view.rate:3.0f}")


def said(board: Board, room: int) -> RenderableType:
    """The latest lines, as many as there is room for, and what is being done."""
    lines: Iterable[Line] = list(board.lines)[-(room - (board.doing is not None)) :]
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(style="dim", justify="right", width=8, no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for line in lines:
        table.add_row(f"{line.at_s:.1f} s", Text(line.text, line.tone))
    if board.doing is not None:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=1.0, completed=board.doing.share, width=_BAR_COLUMNS), board.doing.text)
        table.add_row("", bar)
    return table


def count_text(count: int) -> Text:
    """A count of what must not be."""
    return Text(f"{count}", "bold green" if count == 0 else "bold red")


def _spread(spread: Spread) -> str:
    if spread.p50 is None or spread.max is None:
        return "not measured"
    return f"{spread.p50:.0f} ms in the middle, {spread.max:.0f} ms at most"


def yes_text(is_so: bool) -> Text:  # noqa: FBT001 - the answer itself
    """Whether something that must be is."""
    return Text("yes", "bold green") if is_so else Text("no", "bold red")
