"""How long packing takes and how large the artifact is, beside `tar | zstd -T0 -3`.

    python -m benchmarks.bench_pack [--rounds 5]

The tree is the real corpus, in the page cache. Both sides write to the same fresh file system. The patch is that from
the first version to the second; its time is what `--against` adds to packing the second.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from benchmarks.corpus import Version, real_trees
from benchmarks.host import Builds
from benchmarks.lab import ensure_packages, enter_stage, settle
from benchmarks.options import is_written, parser
from benchmarks.peers.peer import remove, run, shell, warm
from benchmarks.report import Pack, keep, print_grids, write_page
from benchmarks.shelf import bench

P = ParamSpec("P")
T = TypeVar("T")


def main() -> None:
    arguments = parser(__doc__).parse_args()
    ensure_packages()
    enter_stage("benchmarks.bench_pack", sys.argv[1:])
    with bench(arguments.cache) as made:
        result = _measure(real_trees(made.shelf), made.place, arguments.rounds)
    print_grids(result)
    if is_written(arguments, is_complete=True):
        keep(result)
        write_page()


def _measure(trees: dict[Version, Path], place: Path, rounds: int) -> Pack:
    tar_s: list[float] = []
    ours_s: list[float] = []
    alone_s: list[float] = []
    patched_s: list[float] = []
    ours_bytes = patch_bytes = 0
    archive = place / "tree.tar.zst"
    pipeline = shell('tar -C "$1" -cf - . | zstd -q -T0 -3 -o "$2"', trees["v1"], archive)
    warm(trees["v1"], trees["v2"])
    for _ in range(rounds):
        remove(archive)
        _timed(tar_s, run, pipeline)
        builds = Builds(place / "ours", url="http://localhost")
        first = _timed(ours_s, builds.pack, trees["v1"], "v1")
        alone = _timed(alone_s, builds.pack, trees["v2"], "v2")
        patched = _timed(patched_s, partial(builds.pack, against=first), trees["v2"], "v2")
        ours_bytes, patch_bytes = first.size_bytes, patched.size_bytes - alone.size_bytes
    return Pack(
        rounds=rounds,
        ours_s=tuple(ours_s),
        ours_bytes=ours_bytes,
        tar_s=tuple(tar_s),
        tar_bytes=archive.stat().st_size,
        alone_s=tuple(alone_s),
        patched_s=tuple(patched_s),
        patch_bytes=patch_bytes,
    )


def _timed(times: list[float], work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    settle()
    started_s = time.monotonic()
    result = work(*arguments, **named)
    times.append(time.monotonic() - started_s)
    return result


if __name__ == "__main__":
    main()
