"""Owns the child process of `artifact.pull`: its life, its reports on stdout, its death with its parent.

Why a process: the memory of a pull is given back, a kill ends it at any point, and a fault in it is not the agent's.
The work is left to `artifact.indexed` for builds of ours and to `artifact.foreign` for all other archives.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Final

import msgspec

from artifact.allocation import keep_freed_memory
from artifact.errors import HotcoldError
from artifact.foreign import empty, pull_from_any
from artifact.indexed import WITHOUT_INDEX, IndexedPull
from artifact.lifeline import die_with_parent
from artifact.pullwire import Confined, Finished, Progress, Spec, failed, send
from artifact.ranges import NoPlaceGave

_PROGRESS_INTERVAL_S: Final = 0.1
_DEEPEST: Final = 20_000
"""Of Python's stack: a tree is as deep as the longest path allows."""


class _Reporter:
    """Tells the parent of progress, at most every `_PROGRESS_INTERVAL_S`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._next_s = 0.0

    def progress(self, progress: Progress) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_s or progress.bytes_done == progress.bytes_total:
            self._next_s = now_s + _PROGRESS_INTERVAL_S
            send(self._fd, progress)


def _die_at_end_of(fd: int) -> None:
    """Die when the parent's end of the pipe closes: covers a parent whose death the kernel told somebody else."""
    while os.read(fd, 4096):
        pass
    os._exit(1)


def main() -> int:
    """Carry out the one `Spec` on stdin."""
    stdin, stdout = sys.stdin.fileno(), sys.stdout.fileno()
    with open(stdin, "rb", closefd=False) as pipe:
        line = pipe.readline()
        if not line:
            return 1  # nobody wants anything any more
        spec = msgspec.json.decode(line, type=Spec)
        patch = pipe.read(spec.patch_bytes)
    if not die_with_parent(spec.parent_pid):
        return 1
    work = _work(spec, patch, stdout)  # before the first thread: it may fork
    threading.Thread(target=_die_at_end_of, args=(stdin,), name="die-with-parent", daemon=True).start()
    try:
        finished = asyncio.run(work())
    except HotcoldError as error:
        send(stdout, failed(error))
    else:
        send(stdout, finished)
    return 0


def _work(spec: Spec, patch: bytes, stdout: int) -> Callable[[], Coroutine[None, None, Finished]]:
    ref, into, settings = spec.ref, Path(spec.into), spec.settings
    on_progress = _Reporter(stdout).progress

    async def pull_whole() -> Finished:
        await pull_from_any(
            ref,
            into,
            settings=settings,
            on_progress=on_progress,
            on_gaps=lambda gaps: send(stdout, Confined(gaps=gaps)),
        )
        return Finished()

    if ref.index is None:
        return pull_whole
    os.umask(0)  # noqa: TID251 - this process makes files with the modes of their rows, and does nothing else
    gc.disable()  # what it makes it needs to the end, which comes soon
    keep_freed_memory()
    sys.setrecursionlimit(_DEEPEST)
    pull = IndexedPull(ref, ref.index, into, local=spec.local, settings=settings, on_progress=on_progress, patch=patch)

    async def pull_what_is_missing() -> Finished:
        try:
            await pull.run()
        except NoPlaceGave as error:
            if error.kinds.isdisjoint(WITHOUT_INDEX):
                raise
            empty(into)
            return await pull_whole()
        return Finished(is_secured=spec.local.is_secured)

    return pull_what_is_missing


if __name__ == "__main__":
    # At once: all is written and closed, and tearing the interpreter down would only delay the swap.
    os._exit(main())
