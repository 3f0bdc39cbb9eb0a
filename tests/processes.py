"""The processes of a pull below this one, or below another; not those that packing and the tests themselves keep."""

from __future__ import annotations

import psutil

_TRACKER = "multiprocessing.resource_tracker"


def children_of(parent: psutil.Process | None = None) -> list[psutil.Process]:
    """All children, in their order, but the tracker that lives as long as a process that ever packed on all cores."""
    return [child for child in (parent or psutil.Process()).children(recursive=True) if not _is_tracker(child)]


def _is_tracker(child: psutil.Process) -> bool:
    try:
        return any(_TRACKER in argument for argument in child.cmdline())
    except psutil.NoSuchProcess:  # a zombie, which has no command line, included
        return False
