"""Owns the floor: a C program that decompresses the same files and writes them, and does nothing else.

It has the archive in memory, in frames that can be decompressed side by side; no network, no digests, two threads.
What we need more than it is the price of fetching and of verifying.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import zstandard

from benchmarks.corpus.compare import walk
from benchmarks.lab.programs import compiled
from benchmarks.peers.archives import LEVEL
from benchmarks.peers.peer import Ground, Peer, Phase, clear, once, warm

_FRAME_BYTES: Final = 512 << 10
_PIECE_BYTES: Final = 4 << 20
_THREADS: Final = 2


@dataclass(frozen=True)
class _Piece:
    """Some bytes of one file; most files are one piece."""

    path: str
    mode: int
    mtime_s: int
    offset: int
    size: int


class Floor(Peer):
    name: ClassVar = "C program (floor)"
    phases = ("full",)

    def stock(self, ground: Ground) -> None:
        with once(self._archive(ground)) as archive:
            if archive is not None:
                _write(ground.trees["v1"], archive)

    def stand(self, ground: Ground, phase: Phase) -> None:
        clear(ground.target)
        self.result(ground, phase).mkdir()
        warm(self._archive(ground))

    def argv(self, ground: Ground, phase: Phase) -> Sequence[str | Path]:
        program = compiled("floor.c", ground.scratch, "zstd")
        return [program, self._archive(ground), self.result(ground, phase), str(_THREADS)]

    @staticmethod
    def _archive(ground: Ground) -> Path:
        return ground.store / "v1.floor"


def _write(tree: Path, archive: Path) -> None:
    """Directories and links first, as text; then frames, each with a list of its pieces before their bytes.

    All lines end in NUL, for names may hold anything else. `F <compressed> <plain>` announces a frame.
    """
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    with archive.open("wb") as file:
        for path, entry in sorted(walk(tree, with_directories=True).items()):
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                file.write(os.fsencode(f"D {stat.S_IMODE(status.st_mode)} {path}\0"))
            elif stat.S_ISLNK(status.st_mode):
                file.write(os.fsencode(f"L {path}\0{Path(entry.path).readlink()}\0"))
        for frame in _frames(tree):
            plain = b"".join(_encoded(tree, piece) for piece in frame)
            data = compressor.compress(plain)
            file.write(b"F %d %d\0" % (len(data), len(plain)))
            file.write(data)


def _encoded(tree: Path, piece: _Piece) -> bytes:
    with (tree / piece.path).open("rb") as file:
        file.seek(piece.offset)
        content = file.read(piece.size)
    head = f"{piece.mode} {piece.mtime_s} {piece.offset} {piece.size} {piece.path}\0"
    return os.fsencode(head) + content


def _frames(tree: Path) -> Iterator[list[_Piece]]:
    frame: list[_Piece] = []
    size = 0
    for piece in _pieces(tree):
        if frame and size + piece.size > _FRAME_BYTES:
            yield frame
            frame, size = [], 0
        frame.append(piece)
        size += piece.size
    if frame:
        yield frame


def _pieces(tree: Path) -> Iterator[_Piece]:
    for path, entry in sorted(walk(tree).items()):
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            for offset in range(0, max(status.st_size, 1), _PIECE_BYTES):
                size = min(_PIECE_BYTES, status.st_size - offset)
                yield _Piece(path, stat.S_IMODE(status.st_mode), int(status.st_mtime), offset, size)
