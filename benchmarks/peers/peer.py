"""Owns what a peer is to the benchmarks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal, get_args

from benchmarks.corpus import Exactness, Version
from benchmarks.lab import Net

Phase = Literal["full", "small", "tiny"]
"""`full`: into an empty directory. `small`: the bumps of a week. `tiny`: ten files."""
PHASES: Final[tuple[Phase, ...]] = get_args(Phase)

BEFORE: Final[Mapping[Phase, Version | None]] = {"full": None, "small": "v1", "tiny": "v2"}
AFTER: Final[Mapping[Phase, Version]] = {"full": "v1", "small": "v2", "tiny": "v3"}


@dataclass(frozen=True)
class Ground:
    """Where a peer works.

    Attributes:
        trees: the versions, to be served and to compare with.
        store: what servers give; kept between runs.
        url: of `store` on nginx.
        net: where commands run.
        target: empty directory of this peer on the file system that is measured.
        scratch: for programs and logs; kept between runs.
    """

    trees: Mapping[Version, Path]
    store: Path
    url: str
    net: Net
    target: Path
    scratch: Path


class Peer(ABC):
    """One tool. The benchmarks call `stock` once, then for each run `stand`, the command of `argv`, and `result`."""

    name: ClassVar[str]
    phases: ClassVar[tuple[Phase, ...]] = PHASES
    exactness: ClassVar[Exactness] = Exactness.MODES
    is_slow: ClassVar[bool] = False
    """One that takes so long that it is left out where it is not asked for by name, but for the main table."""

    @abstractmethod
    def stock(self, ground: Ground) -> None:
        """Make what the servers give; what is there already stays."""

    @contextmanager
    def serving(self, ground: Ground) -> Iterator[None]:  # noqa: ARG002 - for those that have a server of their own
        """Run the peer's own server, if nginx is not enough."""
        yield

    def stand(self, ground: Ground, phase: Phase) -> None:
        """Bring the target to what a host has before the deploy; not timed. Here: nothing at all."""
        del phase
        clear(ground.target)

    @abstractmethod
    def argv(self, ground: Ground, phase: Phase) -> Sequence[str | Path]:
        """What is timed; it runs where clients are."""

    def leave(self, ground: Ground) -> None:
        """Make room for the next peer. Here: everything goes."""
        clear(ground.target)

    def result(self, ground: Ground, phase: Phase) -> Path:
        """The tree that the command made."""
        return ground.target / AFTER[phase]


def shell(script: str, *words: str | Path) -> list[str]:
    """A pipeline of which each part must succeed; `words` are $1, $2 and so on."""
    return ["bash", "-c", f"set -euo pipefail; {script}", "bash", *map(str, words)]


def run(argv: Sequence[str | Path]) -> None:
    """Run something that is not timed, quietly.

    Raises:
        subprocess.CalledProcessError: with what it said on standard error.
    """
    done = subprocess.run([*map(str, argv)], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        done.check_returncode()


@contextmanager
def once(path: Path) -> Iterator[Path | None]:
    """Give a name to make `path` under, or None where it is there; it gets its own name when the block succeeds."""
    if path.exists():
        yield None
        return
    unfinished = path.with_name(f"{path.name}.unfinished")
    remove(unfinished)
    print(f"stock: making {path.name}", file=sys.stderr, flush=True)
    yield unfinished
    unfinished.rename(path)


def clear(directory: Path) -> None:
    """Make it an empty directory."""
    remove(directory)
    directory.mkdir(parents=True)


def remove(path: Path) -> None:
    """Remove a file or a tree; fine if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def warm(*paths: Path) -> None:
    """Read files or trees, so that the page cache has what servers will read."""
    for path in paths:
        run(["sh", "-c", 'tar -cf - "$1" | cat >/dev/null', "sh", path])
