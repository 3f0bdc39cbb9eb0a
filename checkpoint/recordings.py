"""Owns the files in which rollouts are recorded for replays; leaves their format to `checkpoint.verdicts.recording`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from checkpoint.rollout.verdict import Question
from checkpoint.verdicts import History
from checkpoint.verdicts.recording import VERSION, Began, Line, Past, encode_line

log = structlog.get_logger()


KEPT_RECORDINGS: Final = 200
"""Of so many rollouts; an older file is removed when a new one begins."""


class Recordings:
    """One file for each rollout that this engine led, `<app>-<number>.jsonl`; a disk that is full only loses lines.

    Where another engine led before, the file begins in the middle: it says what it is about all the same.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._has_failed = False
        self._told: set[tuple[int, str]] = set()

    async def record(self, question: Question, histories: Mapping[str, History], lines: Sequence[Line]) -> None:
        """Append lines to the rollout's file."""
        try:
            # Lines that are written when nobody waits for them any more do no harm.
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, self._append, question, histories, lines)
        except OSError as error:
            if not self._has_failed:
                log.warning("a rollout is not recorded", directory=str(self._directory), error=str(error))
            self._has_failed = True
        else:
            self._has_failed = False

    def _append(self, question: Question, histories: Mapping[str, History], lines: Sequence[Line]) -> None:
        plan = question.plan
        path = self._directory / f"{plan.app}-{plan.number}.jsonl"
        head: list[Line] = []
        if not path.exists():
            self._remove_old(plan.app, plan.number - KEPT_RECORDINGS)
            at = question.now.isoformat(timespec="seconds")
            head.append(Began(v=VERSION, app=plan.app, build=plan.build.id, metrics=plan.pipeline.metrics, at=at))
        fresh = [name for name in sorted(histories) if (plan.number, name) not in self._told]
        head += [Past(metric=name, history=histories[name]) for name in fresh]
        with path.open("ab") as file:
            file.write(b"".join(map(encode_line, (*head, *lines))))
        self._told.update((plan.number, name) for name in fresh)

    def _remove_old(self, app: str, newest: int) -> None:
        """Remove the recordings of rollouts up to `newest`; other files are nobody's business here."""
        for path in self._directory.glob(f"{app}-*.jsonl"):
            number = path.stem.removeprefix(f"{app}-")
            if number.isdecimal() and int(number) <= newest:
                path.unlink(missing_ok=True)
