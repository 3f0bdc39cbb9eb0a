"""Owns trees of any number of files, and changes of any number of them, for the question how cost grows.

Sizes are spread as in real packages: a median near one KB, a long tail. The same arguments give the same bytes.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Final

_PER_DIRECTORY: Final = 25
_MEDIAN_BYTES: Final = 1000
_SPREAD: Final = 1.3
_LARGEST_BYTES: Final = 200_000
_BUILT_S: Final = 1_717_200_000
_WORDS: Final = b"def return self import class None True for in if else raise with as yield value name path key".split()


def synthetic_tree(tree: Path, file_count: int) -> Path:
    """Make a tree of `file_count` files, some 25 to a directory; one that is there already is returned as it is."""
    if tree.exists():
        return tree
    unfinished = tree.with_name(f"{tree.name}.unfinished")
    chance = random.Random(file_count)
    for number in range(file_count):
        path = unfinished / _path(number)
        if number % _PER_DIRECTORY == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, _text(chance), _BUILT_S)
    unfinished.rename(tree)
    return tree


def change(tree: Path, *, file_count: int, changed_count: int, number: int) -> None:
    """Write other content, of other length, into `changed_count` of the files; another `number`, other files.

    The files are replaced and not written into, for others may have taken hard links of them.
    """
    chance = random.Random(f"{file_count} {changed_count} {number}")
    for chosen in sorted(chance.sample(range(file_count), changed_count)):
        path = tree / _path(chosen)
        path.unlink()
        _write(path, _text(chance), _BUILT_S + number)


def _path(number: int) -> str:
    directory = number // _PER_DIRECTORY
    return f"d{directory // 100:03}/d{directory % 100:02}/f{number:06}.py"


def _text(chance: random.Random) -> bytes:
    """Words that compress like source code, with a mark that no other file has."""
    size = min(int(chance.lognormvariate(0, _SPREAD) * _MEDIAN_BYTES), _LARGEST_BYTES)
    mark = b"# %032x\n" % chance.getrandbits(128)
    words = b" ".join(chance.choices(_WORDS, k=size // 5))
    return mark + words[:size]


def _write(path: Path, content: bytes, mtime_s: int) -> None:
    path.write_bytes(content)
    os.utime(path, (mtime_s, mtime_s))
