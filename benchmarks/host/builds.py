"""Owns what our side serves: packed by the real command, made anew in each run, for it is code that is measured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.peers.peer import clear

APP: Final = "bench"


@dataclass(frozen=True)
class Build:
    """One packed build.

    Attributes:
        id: of the build; no other has it.
        manifest: the file.
        url: of the manifest, on nginx.
        tree: what was packed, to compare with.
    """

    id: str
    manifest: Path
    url: str
    tree: Path

    @property
    def files(self) -> list[Path]:
        """All that belongs to it: manifest, artifact, index, patches."""
        return sorted(self.manifest.parent.glob(f"{APP}-{self.id}.*"))

    @property
    def size_bytes(self) -> int:
        """Of all files that belong to it."""
        return sum(each.stat().st_size for each in self.files)


class Builds:
    """Packs into one directory that nginx serves; empties it first."""

    def __init__(self, directory: Path, url: str) -> None:
        clear(directory)  # what former runs packed; their code may have been another
        self._directory = directory
        self._url = url
        self._number = 0

    def pack(self, tree: Path, name: str, *, against: Build | None = None) -> Build:
        """Pack `tree`, with a patch for hosts that have the build `against`."""
        self._number += 1
        build_id = f"{name}.{self._number}"
        manifest = self._directory / f"{APP}-{build_id}.json"
        build = Build(build_id, manifest, f"{self._url}/{manifest.name}", tree)
        argv = ["pack", str(tree), "--app", APP, "--id", build_id, "--out", str(self._directory)]
        if against is not None:
            argv += ["--against", str(against.manifest)]
        hotcold(argv)
        return build

    @staticmethod
    def drop(build: Build) -> None:
        """Remove what nobody fetches or packs against any more."""
        for each in build.files:
            each.unlink()


def hotcold(argv: Sequence[str]) -> str:
    """Run the command as an operator does; what it prints.

    Raises:
        subprocess.CalledProcessError: it has said why, on standard error.
    """
    command = [sys.executable, "-m", "hotcold", *argv]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL).stdout
