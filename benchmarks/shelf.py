"""Owns how a benchmark sets up: packages, stage, library, network, servers, and a fresh file system."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.corpus import corpus_key
from benchmarks.lab import FileSystem, Net, Nginx, library, network, target


@dataclass(frozen=True)
class Bench:
    """Everything that stands when measuring begins.

    Attributes:
        shelf: directory of what is kept between runs, on a file system of its own.
        store: what nginx serves, in `shelf`.
        scratch: for logs and programs, in `shelf`.
        place: empty directory on the file system that is measured.
    """

    shelf: Path
    store: Path
    scratch: Path
    place: Path
    net: Net
    nginx: Nginx


@contextmanager
def bench(cache: Path, file_system: FileSystem = "ext4", link: str = "loopback") -> Iterator[Bench]:
    """Set all of it up; inside of a stage.

    Raises:
        NotPossible: this machine has no such file system.
    """
    with library(cache) as shelf:
        store, scratch = shelf / f"store-{corpus_key()}", shelf / "scratch"
        for directory in (store, scratch):
            directory.mkdir(exist_ok=True)
        with (
            target(cache, file_system) as place,
            network(link, scratch) as net,
            Nginx.serving(store, net, scratch) as nginx,
        ):
            yield Bench(shelf, store, scratch, place, net, nginx)
