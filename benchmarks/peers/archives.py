"""Owns the peers that unpack a whole archive: what most deploy scripts do.

They know no change: a small one costs them as much as all of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from benchmarks.corpus import Version
from benchmarks.peers.peer import AFTER, Ground, Peer, Phase, clear, once, run, shell, warm

_CLIENTS = Path(__file__).with_name("clients")
LEVEL = 9
"""Of zstd, for every archive: what comes through the wire is as small as ours."""


class _FromTar(Peer):
    phases = ("full",)

    def stock(self, ground: Ground) -> None:
        tar_of(ground, "v1")

    def stand(self, ground: Ground, phase: Phase) -> None:
        clear(ground.target)
        self.result(ground, phase).mkdir()
        warm(tar_of(ground, AFTER[phase]))


class CurlTar(_FromTar):
    name: ClassVar = "curl | tar --zstd -x"

    def argv(self, ground: Ground, phase: Phase) -> Sequence[str | Path]:
        return shell('curl -sSf "$1" | tar --zstd -x -C "$2"', *_from_to(ground, self.result(ground, phase)))


class BsdTar(_FromTar):
    name: ClassVar = "curl | bsdtar -x"

    def argv(self, ground: Ground, phase: Phase) -> Sequence[str | Path]:
        return shell('curl -sSf "$1" | bsdtar -x -p -C "$2" -f -', *_from_to(ground, self.result(ground, phase)))


class LibarchiveC(_FromTar):
    name: ClassVar = "Python, libarchive-c"

    def argv(self, ground: Ground, phase: Phase) -> Sequence[str | Path]:
        return [sys.executable, _CLIENTS / "by_libarchive.py", *_from_to(ground, self.result(ground, phase))]


class TarFile(_FromTar):
    name: ClassVar = "Python, tarfile and zstandard"
    is_slow: ClassVar = True

    def argv(self, ground: Ground, phase: Phase) -> Sequence[str | Path]:
        return [sys.executable, _CLIENTS / "by_tarfile.py", *_from_to(ground, self.result(ground, phase))]


class Unsquashfs(Peer):
    """With two threads it is the fastest of them; it cannot begin before it has all of the image."""

    name: ClassVar = "curl; unsquashfs"
    phases = ("full",)

    def stock(self, ground: Ground) -> None:
        with once(self._image(ground)) as image:
            if image is not None:
                make: list[str | Path] = [
                    "mksquashfs",
                    ground.trees["v1"],
                    image,
                    "-comp",
                    "zstd",
                    "-Xcompression-level",
                    str(LEVEL),
                ]
                run([*make, "-all-root", "-no-progress", "-quiet", "-noappend"])

    def stand(self, ground: Ground, phase: Phase) -> None:
        clear(ground.target)
        self.result(ground, phase).mkdir()
        warm(self._image(ground))

    def argv(self, ground: Ground, phase: Phase) -> Sequence[str | Path]:
        return shell(
            'curl -sSf -o "$3" "$1" && unsquashfs -quiet -no-progress -p "$4" -f -d "$2" "$3"',
            f"{ground.url}/{self._image(ground).name}",
            self.result(ground, phase),
            ground.target / "image",
            str(os.cpu_count()),
        )

    @staticmethod
    def _image(ground: Ground) -> Path:
        return ground.store / "v1.squashfs"


def tar_of(ground: Ground, version: Version) -> Path:
    """The tree as tar, compressed as one stream, as everybody does."""
    path = ground.store / f"{version}.tar.zst"
    with once(path) as archive:
        if archive is not None:
            tar = 'tar -C "$1" --sort=name --owner=0 --group=0 --numeric-owner -cf - .'
            run(shell(f'{tar} | zstd -q -T0 -{LEVEL} -o "$2"', ground.trees[version], archive))
    return path


def _from_to(ground: Ground, tree: Path) -> tuple[str, str]:
    return f"{ground.url}/v1.tar.zst", str(tree)
