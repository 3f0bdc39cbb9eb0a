"""Owns the builds that fault tests deploy: trees that differ in every way, packed with patches; and comparing them."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import time
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from artifact import ManifestRef
from artifact.locate import reference
from artifact.pack import pack
from artifact.previous import opened_previous
from artifact.table import STAT_FIELDS, read_table, stat_of, write_table

APP = "shop"
BAD = "bad"
"""Builds whose ids begin so have a file called so; a probe can look for it."""
_MTIME_S = 1_700_000_000
_BIG_BYTES = 300_000

Described = dict[str, tuple[object, ...]]
"""Of each path: what it is, and all of it that a deploy promises."""


@dataclass(frozen=True)
class Builds:
    """Packed builds, each with a patch against the one before it.

    Attributes:
        trees: the source of each, by build id.
        refs: as an order names them.
    """

    trees: dict[str, Path]
    refs: dict[str, ManifestRef]

    def described(self, build_id: str) -> Described:
        return describe(self.trees[build_id])

    def __getitem__(self, build_id: str) -> ManifestRef:
        return self.refs[build_id]


def make_builds(directory: Path, build_ids: Sequence[str]) -> Builds:
    """Make and pack them, in this order."""
    out = directory / "artifacts"
    out.mkdir(parents=True)
    trees, refs = {}, {}
    last: Path | None = None
    for number, build_id in enumerate(build_ids):
        tree = directory / "trees" / build_id
        _make_tree(tree, build_id, number)
        with ExitStack() as stack:
            previous = None if last is None else stack.enter_context(opened_previous(str(last)))
            manifest = pack(
                tree,
                app=APP,
                build_id=build_id,
                out=out,
                created="2026-11-23T00:00:00+00:00",
                on_progress=lambda _: None,
                previous=previous,
            )
        last = out / f"{APP}-{build_id}.json"
        trees[build_id], refs[build_id] = tree, reference(manifest, last.as_uri())
    return Builds(trees, refs)


def _make_tree(tree: Path, build_id: str, number: int) -> None:
    """From build to build something of every kind is the same, changes, moves, comes, goes, or becomes another kind."""
    same = random.Random(1)
    (tree / "lib").mkdir(parents=True)
    (tree / "lib" / "same").write_text("the same in all")
    (tree / "lib" / "big").write_bytes(same.randbytes(_BIG_BYTES))
    changed = bytearray(random.Random(2).randbytes(_BIG_BYTES))
    changed[1000:1004] = number.to_bytes(4, "big")
    (tree / "lib" / "patched").write_bytes(changed)
    (tree / "build").write_text(build_id)
    (tree / "lib" / "build").write_text(build_id)
    (tree / f"moved-{number}").write_text("moved " * 100)
    (tree / f"dir-{number}" / "deep").mkdir(parents=True)
    (tree / f"dir-{number}" / "deep" / "build").write_text(build_id)
    (tree / "empty").mkdir()
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o755 if number % 2 else 0o700)
    (tree / "link").symlink_to(f"moved-{number}")
    (tree / "lib" / "up").symlink_to("../build")
    if build_id.startswith(BAD):
        (tree / BAD).touch()
    kind = tree / "kind"
    match number % 3:
        case 0:
            kind.write_text("a file")
        case 1:
            kind.mkdir()
            (kind / "inner").write_text("in a directory")
        case _:
            kind.symlink_to("run")
    for path in (tree, *sorted(tree.rglob("*"))):
        os.utime(path, (_MTIME_S, _MTIME_S), follow_symlinks=False)
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def describe(tree: Path) -> Described:
    """Everything below `tree`, read whole; its own mode and time are the release directory's."""
    found: Described = {}
    for path in sorted(tree.rglob("*")):
        state = path.lstat()
        name = str(path.relative_to(tree))
        mode = stat.S_IMODE(state.st_mode)
        if stat.S_ISLNK(state.st_mode):
            found[name] = ("link", str(path.readlink()))
        elif stat.S_ISDIR(state.st_mode):
            found[name] = ("directory", mode, int(state.st_mtime))
        else:
            found[name] = ("file", mode, int(state.st_mtime), hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def restated(tables: Path, releases: Path) -> None:
    """Make the tables of a copied host true again: in a copy every inode and every change time is another."""
    for path in tables.iterdir():
        table = read_table(path)
        if table is None or table.entries is None or not (releases / path.name).is_dir():
            continue
        stats: array[int] = array("Q")
        for entry, name in enumerate(table.entries.paths):
            try:
                stats.extend(stat_of((releases / path.name / os.fsdecode(name)).lstat()))
            except OSError:
                stats.extend(table.entries.stats[entry * STAT_FIELDS : (entry + 1) * STAT_FIELDS])
        # What was copied just now would else count as too fresh to be trusted.
        entries = replace(table.entries, stats=stats, recorded_ns=time.time_ns() + 10**12)
        write_table(path, table.root, table.buckets, entries)
