"""Owns the builds of the demo: one real tree of thousands of files, changed from build to build, and packed.

The tree is what Python has installed around this program: its packages, then the standard library. Serving the
artifacts is left to `hotcold.demo.files`.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Final

from artifact import Manifest
from artifact.pack import PackProgress, pack
from hotcold.demo.app import HANDLER, INDEX

APP: Final = "shop"
FILE_COUNT: Final = 4000
"""Files in a build, unless told otherwise."""
CHANGED_COUNT: Final = 60
"""Source files that every build changes, spread over the tree."""
TURNED_OVER_COUNT: Final = 20
"""Files that every build adds, in place of those that the build before had added."""

_MOST_BYTES: Final = 512 * 1024
_LEVEL: Final = 3
_SEED: Final = 20260101

_PAGE: Final = '''\
"""The shop's page: a price, and of every file that it shows, the build that the file was part of."""

BUILD = "{build_id}"
RATES = {rates}


def page(read, names, currency):
    builds = {{"{handler}": BUILD, **{{name: stamp_of(read(name)) for name in names}}}}
    return {{"price": round(19.9 * RATES[currency], 2), "builds": builds}}


def stamp_of(content):
    return content.rpartition(b"build: ")[2].strip().decode()
'''
_BROKEN: Final = '''\
"""The shop's page, refactored."""

BUILD = "{build_id}"
RATES = {rates}


def page(read, names, currency):
    builds = {{"{handler}": BUILD, **{{name: stamp_of(read(name)) for name in names}}}}
    return {{"price": price(currency), "builds": builds}}
'''
_RATES: Final = {"EUR": 1.0, "USD": 1.09, "JPY": 163.5}


class Code(Enum):
    """What a build's own code is like.

    Attributes:
        BROKEN: has a mistake that shows in every answer, once it runs.
        WITHOUT_YEN: has one that shows only to customers who pay in yen. No probe does.
    """

    GOOD = "good"
    BROKEN = "broken"
    WITHOUT_YEN = "without yen"

    def source(self, build_id: str) -> str:
        """The handler of a build."""
        rates = {name: rate for name, rate in _RATES.items() if self is not Code.WITHOUT_YEN or name != "JPY"}
        page = _BROKEN if self is Code.BROKEN else _PAGE
        return page.format(build_id=build_id, handler=HANDLER, rates=json.dumps(rates))


class Workpiece:
    """The tree that becomes one build after the other.

    Args:
        tree: a directory that does not exist yet.
        file_count: how many files to take.

    Attributes:
        entry_count: files and directories in the last build.
        size_bytes: of its files.
    """

    def __init__(self, tree: Path, file_count: int) -> None:
        self._tree = tree
        self.entry_count = self.size_bytes = 0
        sources = list(_install(tree, file_count))
        # The same choice in every run, so that runs can be compared.
        chance = random.Random(_SEED)  # noqa: S311 - spreads files, guards nothing
        changeable = [name for name in sources if name.endswith(".py")]
        self._changed = sorted(chance.sample(changeable, min(CHANGED_COUNT, len(changeable))))
        self._originals = {name: (tree / name).read_bytes() for name in self._changed}

    def pack(
        self,
        build_id: str,
        *,
        out: Path,
        code: Code = Code.GOOD,
        on_progress: Callable[[float], None] = lambda _share: None,
    ) -> Manifest:
        """Turn the tree into build `build_id` and pack it into the directory `out`.

        Args:
            build_id: stands in every changed file afterwards.
            out: where artifact and manifest go.
            code: what the build's code is like.
            on_progress: told now and then which share is packed.

        Raises:
            HotcoldError: as `artifact.pack.pack`.
            OSError: the tree cannot be written.
        """
        self._change(build_id, code)
        created = datetime.now(UTC).isoformat(timespec="seconds")

        def note(progress: PackProgress) -> None:
            self.entry_count, self.size_bytes = progress.files_total, progress.bytes_total
            on_progress(progress.bytes_done / max(1, progress.bytes_total))

        return pack(self._tree, app=APP, build_id=build_id, out=out, created=created, on_progress=note, level=_LEVEL)

    def _change(self, build_id: str, code: Code) -> None:
        for name, original in self._originals.items():
            (self._tree / name).write_bytes(original + f"\n# build: {build_id}\n".encode())
        added = self._tree / "shop" / "assets"
        shutil.rmtree(added, ignore_errors=True)
        added.mkdir(parents=True)
        for number in range(TURNED_OVER_COUNT):
            (added / f"{build_id}-{number}.txt").write_text(f"asset {number}\nbuild: {build_id}\n")
        stamped = [*self._changed, *(f"shop/assets/{path.name}" for path in added.iterdir())]
        (self._tree / INDEX).write_text(json.dumps({"build": build_id, "stamped": sorted(stamped)}))
        (self._tree / HANDLER).write_text(code.source(build_id))


def _install(tree: Path, file_count: int) -> Iterator[str]:
    """Copy `file_count` files, or all that there are, and tell their names. Copies: the tree will be written to."""
    paths = sysconfig.get_paths()
    found = itertools.chain(_files_below("site", paths["purelib"]), _files_below("lib", paths["stdlib"]))
    for name, source in itertools.islice(found, file_count):
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        yield name


def _files_below(prefix: str, place: str) -> Iterator[tuple[str, Path]]:
    for directory, subdirectories, files in os.walk(place):
        # Caches are no part of a build, and packages within the standard library's directory are taken on their own.
        subdirectories[:] = sorted(set(subdirectories) - {"__pycache__", "site-packages", "dist-packages"})
        for path in (Path(directory, file) for file in sorted(files)):
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= _MOST_BYTES:
                yield f"{prefix}/{path.relative_to(place)}", path
