"""Owns showing a run: a live screen for each part on a terminal, else lines; the browser, the summaries, the picture.

How a screen looks is left to `hotcold.demo.screen` and `hotcold.demo.rollouts.screen`, the run to `hotcold.demo.run`.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from hotcold.demo.board import Board, Line
from hotcold.demo.rollouts import screen as rollouts_screen
from hotcold.demo.rollouts.act import Act, Wishes
from hotcold.demo.rollouts.pages import Pages, open_browser
from hotcold.demo.rollouts.pipeline import FLEET
from hotcold.demo.rollouts.story import TITLES
from hotcold.demo.run import Plan, Run
from hotcold.demo.screen import PICTURE_LINES, draw, plain_line, save_picture, summary
from hotcold.demo.story import STORY
from hotcold.demo.world import HOSTS
from hotcold.terminal import print_plain

_FRAME_S: Final = 0.15
_LINK_LINES: Final = 5
"""Above the second screen: the link stays in sight."""


class Show:
    """A run, and how people see it.

    Args:
        plan: of the run.
        wishes: for its second part; None: it is not played.
        screen: where people look.
        is_json: standard output is for a program.
        opens_browser: show the pages in a browser, too.
    """

    def __init__(
        self, plan: Plan, wishes: Wishes | None, screen: Console, *, is_json: bool, opens_browser: bool
    ) -> None:
        self._plan = plan
        self._screen = screen
        self._is_json = is_json
        self._opens_browser = opens_browser
        self._board = self._made_board([step.title for step in STORY], HOSTS)
        hosts = [host for tier in FLEET.values() for host in tier]
        board = self._made_board(TITLES, hosts)
        self._act = None if wishes is None else Act(wishes, board, self._tell_pages)
        self._is_second = wishes is not None and not plan.shows_job
        self.run = Run(plan, self._board, self._act, self._begin_second)

    @property
    def result(self) -> Any:
        """What `--json` prints."""
        if self._act is not None and not self._plan.shows_job:
            return {"checkpoint": self._act.outcome}
        return self.run.outcome

    async def play(self, stop: asyncio.Event) -> bool:
        """Play the run; whether all was told to its end.

        Raises:
            HotcoldError: a step failed, or a process ended unasked.
        """
        if not self._screen.is_terminal:
            return await self.run.run(stop)
        showing = asyncio.create_task(self._show(), name="screen")
        try:
            return await self.run.run(stop)
        finally:
            showing.cancel()
            await asyncio.wait([showing])

    def print_summary(self) -> None:
        """Print what was shown, where no screen has."""
        if self._screen.is_terminal:
            return
        if self._plan.shows_job:
            print_plain(summary(self.run.outcome))
        if self._act is not None:
            print_plain(rollouts_screen.summary(self._act.outcome))

    def save_picture(self, path: Path) -> None:
        """Save the screen as it is now as SVG.

        Raises:
            OSError: the file cannot be written.
        """
        save_picture(self._drawn, path)

    def _made_board(self, titles: Any, hosts: Any) -> Board:
        return Board(titles, hosts, clock=time.monotonic, told=self._tell)

    def _tell(self, line: Line) -> None:
        if not self._screen.is_terminal:
            click.echo(plain_line(line), err=self._is_json)

    def _tell_pages(self, pages: Pages) -> None:
        """Say where they are. The link has a line of its own, to be clicked or copied; 80 columns are enough for it."""
        text = f"\nCheckpoint is up. This link signs you in, in any browser on this machine:\n\n{pages.link}\n"
        if self._screen.is_terminal:
            self._screen.print(Text(text, "bold"), soft_wrap=True)
        else:
            click.echo(text, err=self._is_json)
        if self._opens_browser:
            open_browser(pages.link)

    def _begin_second(self) -> None:
        self._is_second = True

    def _drawn(self, lines: int, columns: int) -> RenderableType:
        return self._draw(lines, columns, is_second=self._is_second)

    def _draw(self, lines: int, columns: int, *, is_second: bool) -> RenderableType:
        if self._act is None or not is_second:
            return draw(self._board, lines=lines, columns=columns)
        act = self._act
        return rollouts_screen.draw(act.board, act.pages, act.outcome, lines=lines - _LINK_LINES, columns=columns)

    async def _show(self) -> None:
        screen = self._screen
        while True:
            is_second = self._is_second
            with Live(console=screen, auto_refresh=False, vertical_overflow="crop") as live:
                try:
                    while self._is_second is is_second:
                        live.update(self._draw(screen.height, screen.width, is_second=is_second), refresh=True)
                        await asyncio.sleep(_FRAME_S)
                finally:
                    lines = max(screen.height, PICTURE_LINES)  # what is left behind may be scrolled
                    live.update(self._draw(lines, screen.width, is_second=is_second))
