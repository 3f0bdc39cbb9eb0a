"""Owns seeing, to the millisecond and from outside, what happens on the hosts' disks: flips of `hot`, and ambushes.

A thread of its own, because drawing and requests would make an event loop late. What a flip means is left to
`hotcold.demo.story`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_PAUSE_S: Final = 0.001


@dataclass(frozen=True)
class Flip:
    """A link was seen to lead to another release directory. `at_s` is monotonic."""

    host: str
    release: str
    at_s: float

    @property
    def build(self) -> str:
        """The build in the directory's name `<build>~<n>`."""
        return self.release.rpartition("~")[0]


class Lookout:
    """Looks about once a millisecond while it is entered, unless it is told to look less often.

    Args:
        links: for each host its link `hot`, which need not exist yet.
        pause_s: between two looks.
    """

    def __init__(self, links: Mapping[str, Path], *, pause_s: float = _PAUSE_S) -> None:
        self._links = links
        self._pause_s = pause_s
        self._seen: dict[str, str | None] = {}
        self._flips: list[Flip] = []
        self._ambushes: list[tuple[Callable[[], bool], Callable[[], None]]] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look_until_end, name="lookout", daemon=True)

    def __enter__(self) -> Self:
        self._seen = {host: _target(link) for host, link in self._links.items()}
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def flips(self, *, since_s: float) -> list[Flip]:
        """The flips seen since then, oldest first."""
        return [flip for flip in list(self._flips) if flip.at_s >= since_s]

    def ambush(self, condition: Callable[[], bool], strike: Callable[[], None]) -> None:
        """Call `strike`, once, in the lookout's thread, as soon as `condition` is seen to hold."""
        self._ambushes.append((condition, strike))

    def _look_until_end(self) -> None:
        while not self._end.wait(self._pause_s):
            for host, link in self._links.items():
                target = _target(link)
                if target is not None and target != self._seen[host]:
                    self._seen[host] = target
                    self._flips.append(Flip(host, target, time.monotonic()))
            for ambush in list(self._ambushes):
                condition, strike = ambush
                if condition():
                    self._ambushes.remove(ambush)
                    strike()


def _target(link: Path) -> str | None:
    try:
        return os.path.basename(os.readlink(link))  # noqa: PTH115, PTH119 - three thousand times a second
    except FileNotFoundError:
        return None
