"""The processes of a pull below this one, or below another; and such as are no descendants, as services are none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_TRACKER = "multiprocessing.resource_tracker"


def children_of(parent: psutil.Process | None = None) -> list[psutil.Process]:
    """All children, in their order, but the tracker that lives as long as a process that ever packed on all cores."""
    return [child for child in (parent or psutil.Process()).children(recursive=True) if not _is_tracker(child)]


@contextmanager
def orphan(directory: Path) -> Iterator[psutil.Process]:
    """Start a worker in a directory that is no descendant of this process; its command line ends in `--role=orphan`."""
    says = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    argv = ["sh", "-c", 'cd "$1" && "$2" -c "$3" --role=orphan &', "sh", directory, sys.executable, says]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        process = psutil.Process(int(shell.stdout.readline()))
    try:
        yield process
    finally:
        process.kill()


def _is_tracker(child: psutil.Process) -> bool:
    try:
        return any(_TRACKER in argument for argument in child.cmdline())
    except psutil.NoSuchProcess:  # a zombie, which has no command line, included
        return False
