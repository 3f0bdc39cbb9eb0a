"""The ground on which everything is measured: file systems, network, servers, stopwatch.

A benchmark enters a `stage` first. All that it starts or mounts afterwards ends with it, even if it is killed.
"""

from benchmarks.lab.images import FILE_SYSTEMS, FileSystem, NotPossible, library, target
from benchmarks.lab.links import LINKS, Link
from benchmarks.lab.net import Net, network
from benchmarks.lab.nginx import Nginx, Served
from benchmarks.lab.packages import ensure_packages
from benchmarks.lab.stage import enter_stage
from benchmarks.lab.stopwatch import Failed, Timing, settle, timed

__all__ = [
    "FILE_SYSTEMS",
    "LINKS",
    "Failed",
    "FileSystem",
    "Link",
    "Net",
    "Nginx",
    "NotPossible",
    "Served",
    "Timing",
    "ensure_packages",
    "enter_stage",
    "library",
    "network",
    "settle",
    "target",
    "timed",
]
