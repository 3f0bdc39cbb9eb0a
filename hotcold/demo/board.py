"""Owns what is known of the run at this moment, for people: steps, hosts, counts, and what was said.

Drawing it is left to `hotcold.demo.screen`; nothing here touches a terminal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from hotcold.demo.load import Count
from hotcold.demo.outcome import Outcome
from hotcold.status_document import Status, Tree

_REMEMBERED_COUNT: Final = 40
_SMOOTHED_COUNT: Final = 5


@dataclass(frozen=True)
class Line:
    """Something that was said, seconds after the start. `tone` is a rich style."""

    at_s: float
    text: str
    tone: str


@dataclass(frozen=True)
class Doing:
    """Long work that the demo itself does now. `share` of it is done."""

    text: str
    share: float


@dataclass
class HostView:
    """One host as it is seen from outside.

    Attributes:
        status: the agent's own words; None while no agent answers.
        hot: what the agent last said to be hot.
        count: what its clients got so far.
        rates: requests per second, lately, oldest first; one for each line of counts.
    """

    status: Status | None = None
    hot: Tree | None = None
    count: Count = field(default_factory=Count)
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_COUNT))

    @property
    def rate(self) -> float:
        """Requests per second over the last second or so."""
        latest = list(self.rates)[-_SMOOTHED_COUNT:]
        return sum(latest) / len(latest) if latest else 0.0


class Board:
    """What a person would want to see.

    Args:
        steps: titles of the story's steps.
        hosts: their names.
        clock: monotonic seconds.
        told: called with each line as it is said.

    Attributes:
        count_lines: how often clients have told what they got.
    """

    def __init__(
        self,
        steps: Sequence[str],
        hosts: Sequence[str],
        *,
        clock: Callable[[], float],
        told: Callable[[Line], None] = lambda _line: None,
    ) -> None:
        self.steps = tuple(steps)
        self.step = 0
        self.doing: Doing | None = None
        self.hints: tuple[str, ...] = ()
        self.hosts = {name: HostView() for name in hosts}
        self.lines: deque[Line] = deque(maxlen=_REMEMBERED_COUNT)
        self.outcome: Outcome | None = None
        self._clock = clock
        self.count_lines = 0
        self._told = told
        self._started_s = clock()
        self._counted_s = self._started_s

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started_s

    @property
    def counts(self) -> list[Count]:
        """What clients got, host by host."""
        return [view.count for view in self.hosts.values()]

    def begin(self, step: int) -> None:
        """Begin a step, counted from 1; one more than there are: the story is over."""
        self.step = step
        if step <= len(self.steps):
            self.say(f"step {step} of {len(self.steps)}: {self.steps[step - 1]}", "bold")

    def say(self, text: str, tone: str = "") -> None:
        """Tell people something."""
        line = Line(self.elapsed_s, text, tone)
        self.lines.append(line)
        self._told(line)

    def see(self, host: str, status: Status | None) -> None:
        """Take in an agent's status."""
        view = self.hosts[host]
        view.status = status
        if status is not None:
            view.hot = status.hot

    def count(self, counts: Mapping[str, Count]) -> None:
        """Take in what clients got so far."""
        self.count_lines += 1
        now_s = self._clock()
        passed_s = max(now_s - self._counted_s, 0.001)
        self._counted_s = now_s
        for host, count in counts.items():
            view = self.hosts[host]
            if view.count.requests:
                view.rates.append((count.requests - view.count.requests) / passed_s)
            if count.first_fault and not view.count.first_fault:
                self.say(f"{host}: a client got no whole page: {count.first_fault}", "bold red")
            view.count = count
