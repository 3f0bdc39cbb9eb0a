"""Owns writing the course of a rollout's metrics to Consul, for the pages of every instance.

What it is made of is left to `checkpoint.series`. What is lost here is lost to
pictures only: no verdict is made of it, and none waits for it longer than for one answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import structlog

from artifact import HotcoldError
from checkpoint.rollout.kept_evidence import Kept
from checkpoint.rollout.verdict import Question
from checkpoint.series import continued, decode_series
from checkpoint.verdicts.recording import Line
from fleet import Store
from fleet.keys import series_key

log = structlog.get_logger()


class Charts:
    """Keeps the course of each rollout that this engine leads.

    Args:
        store: where it lies.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._has_failed = False

    async def plot(self, question: Question, kept: Kept, lines: Sequence[Line]) -> None:
        """Add what was observed and ordered. A store that does not answer only loses points."""
        key = series_key(question.plan.app, question.plan.number)
        try:
            entry = await self._store.read(key)
            series = continued(decode_series(None if entry is None else entry.value), kept, lines, question.now)
            index = 0 if entry is None else entry.modify_index
            await self._store.put(key, msgspec.json.encode(series), cas=index)
        except HotcoldError as error:
            if not self._has_failed:
                log.warning("the charts of a rollout lose points", kind=error.kind, error=str(error))
            self._has_failed = True
        else:
            self._has_failed = False
