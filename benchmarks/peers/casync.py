"""Owns casync: chunks over HTTP, with the tree that the host has as a seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from benchmarks.corpus import VERSIONS, Version
from benchmarks.peers.peer import AFTER, BEFORE, Ground, Peer, Phase, clear, once, run

_KEPT: Final = ["--with=sec-time", "--with=permissions", "--with=symlinks"]


class Casync(Peer):
    name: ClassVar = "casync extract"
    is_slow: ClassVar = True

    def stock(self, ground: Ground) -> None:
        with once(self._served(ground)) as store:
            if store is not None:
                store.mkdir()
                for version in VERSIONS:
                    index = store / f"{version}.caidx"
                    run(["casync", "make", *_KEPT, f"--store={store}/chunks.castr", index, ground.trees[version]])

    def stand(self, ground: Ground, phase: Phase) -> None:
        old = BEFORE[phase]
        if old is None:
            clear(ground.target)
            return
        ground.target.mkdir(exist_ok=True)
        for version in VERSIONS:
            if version != old:
                run(["rm", "-rf", ground.target / version])
        run(["rsync", "-a", "--delete", f"{ground.trees[old]}/", f"{ground.target / old}/"])

    def argv(self, ground: Ground, phase: Phase) -> Sequence[str | Path]:
        seed = [] if (old := BEFORE[phase]) is None else [f"--seed={ground.target / old}"]
        return [
            "casync",
            "extract",
            # It would make hard links of the seed's files, which then share their inodes with the tree that serves.
            "--hardlink=no",
            *_KEPT,
            *seed,
            f"--store={self._url(ground)}/chunks.castr",
            f"{self._url(ground)}/{self._index(AFTER[phase])}",
            self.result(ground, phase),
        ]

    @staticmethod
    def _index(version: Version) -> str:
        return f"{version}.caidx"

    @staticmethod
    def _served(ground: Ground) -> Path:
        return ground.store / "chunks"

    def _url(self, ground: Ground) -> str:
        return f"{ground.url}/{self._served(ground).name}"
