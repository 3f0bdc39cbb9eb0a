"""Owns the peak memory of a process and its children: the sum of their proportional set sizes, sampled.

PSS counts a page that several processes share once in all, so that the sum is what the machine has less of. Samples
are some 10 ms apart: a shorter peak can be missed.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from benchmarks.host.agent import family

_INTERVAL_S: Final = 0.01


class PeakMemory:
    """Samples while its context lasts; `peak_bytes` is what it has seen so far."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self.process_count = 0
        self._pid = pid
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._is_over.wait(_INTERVAL_S):
            sizes = [_pss_bytes(process.pid) for process in family(self._pid)]
            if (total := sum(sizes)) > self.peak_bytes:
                self.peak_bytes, self.process_count = total, len(sizes)


def _pss_bytes(pid: int) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
