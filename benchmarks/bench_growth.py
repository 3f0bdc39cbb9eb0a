"""How the cost of a deploy grows with the tree and with the change, ours and rsync's.

    python -m benchmarks.bench_growth [--rounds 5] [--files 1000 --files 10000] [--changed 10]

Synthetic trees; each deploy changes so many files at random. The host lives as hosts do: every deploy finds hot,
standby and a spare tree that is two builds behind. rsync, in place, is always one build behind.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.corpus import Version, change, compare, synthetic_tree
from benchmarks.host import AgentHost, Build, Builds
from benchmarks.lab import Failed, ensure_packages, enter_stage, timed
from benchmarks.options import is_written, parser
from benchmarks.peers import Ground
from benchmarks.peers.peer import clear, remove, run
from benchmarks.peers.rsync import RsyncInPlace
from benchmarks.report import Growth, Point, keep, print_grids, write_page
from benchmarks.shelf import Bench, bench

_FILE_COUNTS: Final = (1_000, 10_000, 100_000, 300_000)
_CHANGED_COUNTS: Final = (10, 100, 1_000, 10_000)
_UNCOUNTED: Final = 2
"""Deploys before those that count, so that standby and spare too differ by what is asked, and not by more."""


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--files", type=int, action="append", help="of a tree; may be repeated")
    options.add_argument("--changed", type=int, action="append", help="by one deploy; may be repeated")
    arguments = options.parse_args()
    ensure_packages()
    enter_stage("benchmarks.bench_growth", sys.argv[1:])
    points: list[Point] = []
    with bench(arguments.cache) as made:
        for file_count in arguments.files or _FILE_COUNTS:
            counts = [count for count in arguments.changed or _CHANGED_COUNTS if count < file_count]
            points += _Tree(made, file_count).measure(counts, arguments.rounds)
    result = Growth(rounds=arguments.rounds, points=tuple(points))
    print_grids(result)
    if is_written(arguments, is_complete=not arguments.files and not arguments.changed):
        keep(result)
        write_page()


@dataclass
class _Seen:
    ours_s: list[float] = field(default_factory=list)
    ours_bytes: list[int] = field(default_factory=list)
    rsync_s: list[float] = field(default_factory=list)


class _Tree:
    """One tree, that is changed over and over."""

    def __init__(self, made: Bench, file_count: int) -> None:
        self._made = made
        self._file_count = file_count
        self._number = 0
        original = synthetic_tree(made.shelf / f"synthetic-{file_count}", file_count)
        # The daemon serves a directory of versions; here there is one, and it changes.
        self._tree = made.shelf / "growing" / "v2"
        clear(self._tree.parent)
        run(["cp", "-a", original, self._tree])
        trees: dict[Version, Path] = {"v1": self._tree, "v2": self._tree, "v3": self._tree}
        self._rsync = RsyncInPlace()
        self._ground = Ground(trees, made.store, made.nginx.url, made.net, made.place / "rsync", made.scratch)

    def measure(self, changed_counts: list[int], rounds: int) -> list[Point]:
        host = AgentHost(self._made.place / "us", self._made.net)
        builds = Builds(self._made.store / "hotcold", f"{self._made.nginx.url}/hotcold")
        points = []
        with host.running(), self._rsync.serving(self._ground):
            build = builds.pack(self._tree, "first")
            host.deploy(build)
            clear(self._ground.target)
            self._run_rsync()
            for changed_count in changed_counts:
                seen = _Seen()
                for number in range(-_UNCOUNTED, rounds):
                    build = self._deploy_change(host, builds, build, changed_count, seen, is_counted=number >= 0)
                points.append(
                    Point(
                        file_count=self._file_count,
                        changed_count=changed_count,
                        ours_s=tuple(seen.ours_s),
                        ours_bytes=tuple(seen.ours_bytes),
                        rsync_s=tuple(seen.rsync_s),
                    )
                )
        for directory in (self._made.place / "us", self._ground.target, self._tree.parent):
            remove(directory)
        return points

    def _deploy_change(
        self, host: AgentHost, builds: Builds, former: Build, changed_count: int, seen: _Seen, *, is_counted: bool
    ) -> Build:
        self._number += 1
        change(self._tree, file_count=self._file_count, changed_count=changed_count, number=self._number)
        build = builds.pack(self._tree, f"change-{changed_count}", against=former)
        builds.drop(former)
        self._made.nginx.count()
        deployed = host.deploy(build)
        served = self._made.nginx.count()
        durable_s = self._run_rsync()
        if not is_counted:
            return build
        print(
            f"{self._file_count} files, {changed_count} changed: {deployed.staged_s:.3f} s, rsync {durable_s:.3f} s",
            file=sys.stderr,
            flush=True,
        )
        if not seen.ours_s:
            self._check(deployed.release)
            self._check(self._rsync.result(self._ground, "small"))
        seen.ours_s.append(deployed.staged_s)
        seen.ours_bytes.append(served.sent_bytes)
        seen.rsync_s.append(durable_s)
        return build

    def _run_rsync(self) -> float:
        argv = self._made.net.on_client(self._rsync.argv(self._ground, "small"))
        return timed(argv, self._ground.target, self._made.scratch / "command.log").durable_s

    def _check(self, result: Path) -> None:
        differences = compare(self._tree, result)
        if not differences.is_none:
            raise Failed(f"{result} is not the tree that was meant: {differences.summary}")


if __name__ == "__main__":
    main()
