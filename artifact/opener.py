"""Owns the child process that opens an archive: it confines itself, reads the archive from its pipe, fills a directory.

Why a process of its own beside `artifact.puller`: decompressors and readers work on bytes of which nobody knows yet who
made them. This process has no network, no secrets, and nothing but the one directory. How it is started and judged is
left to `artifact.opening`; what confinement is to `artifact.sandbox`.
"""

from __future__ import annotations

import codecs
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

from artifact.errors import ConfigError, HotcoldError, TransientError
from artifact.extract import extract
from artifact.handover import HandoverAborted, HandoverReader
from artifact.lifeline import die_with_parent
from artifact.limits import CpuTimeSpent
from artifact.pullwire import OPENER_DIED, Confined, Finished, Opened, OpenTask, failed, send
from artifact.sandbox import Confinement, enter

_REPORT_INTERVAL_S: Final = 0.1

codecs.lookup("cp437")  # of names in zip archives: nothing can be imported when they are read


class _Reporter:
    """Tells the other side of entries, at most every `_REPORT_INTERVAL_S`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._next_s = 0.0
        self.entry_count = 0

    def opened(self, entry_count: int) -> None:
        self.entry_count = entry_count
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + _REPORT_INTERVAL_S
            send(self._fd, Opened(entry_count=entry_count))


def open_archive(task: OpenTask, into: Path, *, archive_fd: int, lines_fd: int) -> None:
    """Confine this process and fill `into`; the outcome is written to `lines_fd`, if anybody wants it any more."""
    reporter = _Reporter(lines_fd)

    def confine() -> None:
        gaps = enter(
            Confinement(
                fill=[into],
                memory_bytes=task.limits.max_memory_bytes,
                cpu_s=task.limits.max_cpu_s,
                file_bytes=max(task.limits.max_bytes, task.archive_bytes),  # a zip's spool is one file
            )
        )
        if gaps and task.require_sandbox:
            raise ConfigError(
                f"nothing was opened, for fetch.require_sandbox is set and this host cannot confine the process that "
                f"opens archives: {'; '.join(gaps)}",
                kind="sandbox_incomplete",
            )
        send(lines_fd, Confined(gaps=gaps))

    try:
        extract(
            HandoverReader(archive_fd, task.archive_bytes),
            task.archive_format,
            into,
            archive_bytes=task.archive_bytes,
            limits=task.limits,
            on_entry=reporter.opened,
            confine=confine,
        )
    except HandoverAborted:
        return
    except HotcoldError as error:
        send(lines_fd, failed(error))
    except Exception:  # noqa: BLE001 - it is told, whatever it is: this process has no other way to be heard
        told = f"the process that opens archives met what nobody foresaw; please report it: {traceback.format_exc()}"
        send(lines_fd, failed(TransientError(told, kind=OPENER_DIED)))
    else:
        send(lines_fd, Opened(entry_count=reporter.entry_count))
        send(lines_fd, Finished())


def _on_cpu_time_spent(_: int, __: FrameType | None) -> None:
    raise CpuTimeSpent


def main() -> int:
    """Carry out the task of the second argument in the directory of the first; the archive comes on stdin."""
    task = msgspec.json.decode(sys.argv[2], type=OpenTask)
    if not die_with_parent(task.parent_pid):
        return 1
    signal.signal(signal.SIGXCPU, _on_cpu_time_spent)
    open_archive(task, Path(sys.argv[1]), archive_fd=sys.stdin.fileno(), lines_fd=sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    # At once: all is written and closed, and tearing the interpreter down would only delay the swap.
    os._exit(main())
