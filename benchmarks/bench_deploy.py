"""How long a deploy takes, ours and that of other tools: everything, the bumps of a week, ten files.

    python -m benchmarks.bench_deploy [--rounds 5] [--only full --only rsync] [--file-system ext4] [--link loopback]

All sides are served by the same machine, deploy onto the same fresh file system, and must have made everything durable
(peers: by `sync -f` at once after the command). Rounds are interleaved: in each, every side has its turn. Each result
is compared with the tree that was meant, in the first round.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.corpus import Exactness, compare, real_trees
from benchmarks.host import AgentHost, Build, Builds, Deployed
from benchmarks.lab import (
    FILE_SYSTEMS,
    LINKS,
    Failed,
    FileSystem,
    Nginx,
    NotPossible,
    ensure_packages,
    enter_stage,
    timed,
)
from benchmarks.options import is_written, parser
from benchmarks.peers import AFTER, PEERS, PHASES, Ground, Peer, Phase
from benchmarks.report import OURS, Case, Run, Table, keep, print_grids, write_page
from benchmarks.shelf import Bench, bench

MAIN: Final[tuple[FileSystem, str]] = ("ext4", "loopback")
"""Where every peer takes part; elsewhere the slow ones do not."""
DEFAULT: Final[tuple[tuple[FileSystem, str], ...]] = (
    MAIN,
    ("ext4", "shaped"),
    ("xfs", "loopback"),
    ("btrfs", "loopback"),
)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", action="append", default=[], metavar="WORD", help="a phase, or a part of a name")
    options.add_argument("--file-system", action="append", choices=FILE_SYSTEMS, help="may be repeated")
    options.add_argument("--link", action="append", choices=tuple(LINKS), help="may be repeated")
    arguments = options.parse_args()
    ensure_packages()
    enter_stage("benchmarks.bench_deploy", sys.argv[1:])
    for file_system, link in _places(arguments):
        try:
            with bench(arguments.cache, file_system, link) as made:
                table = _measure(arguments, made, file_system, link)
        except NotPossible as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        print_grids(table)
        if is_written(arguments, is_complete=not arguments.only):
            keep(table)
            write_page()


def _places(arguments: argparse.Namespace) -> list[tuple[FileSystem, str]]:
    if not arguments.file_system and not arguments.link:
        return list(DEFAULT)
    file_systems: list[FileSystem] = arguments.file_system or [MAIN[0]]
    return [(each, link) for each in file_systems for link in arguments.link or [MAIN[1]]]


def _measure(arguments: argparse.Namespace, made: Bench, file_system: FileSystem, link: str) -> Table:
    phases = [phase for phase in PHASES if phase in arguments.only] or list(PHASES)
    words = [word for word in arguments.only if word not in PHASES]
    peers = [peer for peer in PEERS if _is_meant(peer, words, is_main=(file_system, link) == MAIN)]
    ground = Ground(real_trees(made.shelf), made.store, made.nginx.url, made.net, made.place, made.scratch)
    bout = _Bout(ground, made.nginx, phases)
    for peer in peers:
        peer.stock(ground)
    if not words or any(word in OURS for word in words):
        bout.pack()
    turns: list[Callable[[], None]] = [*(partial(bout.let, peer) for peer in peers), bout.let_us]
    for number in range(arguments.rounds):
        first = number % len(turns)
        for turn in turns[first:] + turns[:first]:
            turn()
    return Table(file_system=file_system, link=link, rounds=arguments.rounds, cases=tuple(bout.cases()))


def _is_meant(peer: Peer, words: Sequence[str], *, is_main: bool) -> bool:
    if words:
        return any(word.lower() in peer.name.lower() for word in words)
    return is_main or not peer.is_slow


class _Bout:
    """All runs of one table."""

    def __init__(self, ground: Ground, nginx: Nginx, phases: Sequence[Phase]) -> None:
        self._ground = ground
        self._nginx = nginx
        self._phases = phases
        self._runs: dict[tuple[str, str], list[Run]] = {}
        self._failures: dict[tuple[str, str], str] = {}
        self._builds: list[Build] = []

    def cases(self) -> Iterator[Case]:
        for (phase, name), runs in self._runs.items():
            yield Case(phase=phase, name=name, runs=tuple(runs), failure=self._failures.get((phase, name)))

    # --- peers --------------------------------------------------------------------------------------------------------

    def let(self, peer: Peer) -> None:
        """Give a peer its turn in all phases; one that fails is not asked again."""
        ground = replace(self._ground, target=self._ground.target / peer.name.replace(" ", "_").replace("/", "_"))
        with peer.serving(ground):
            for phase in self._phases:
                if phase in peer.phases and (phase, peer.name) not in self._failures:
                    try:
                        self._let(peer, ground, phase)
                    except Failed as error:
                        print(f"failed: {peer.name}, {phase}: {error}", file=sys.stderr)
                        self._failures[phase, peer.name] = str(error)
            peer.leave(ground)

    def _let(self, peer: Peer, ground: Ground, phase: Phase) -> None:
        _say(phase, peer.name)
        peer.stand(ground, phase)
        with self._counting() as traffic:
            argv = ground.net.on_client(peer.argv(ground, phase))
            timing = timed(argv, ground.target, ground.scratch / "command.log")
        run = Run(
            durable_s=timing.durable_s,
            done_s=timing.done_s,
            cpu_s=timing.cpu_s,
            received_bytes=traffic.received_bytes,
            request_count=traffic.request_count,
        )
        self._note(phase, peer.name, run, peer.result(ground, phase), peer.exactness)

    # --- ourselves ----------------------------------------------------------------------------------------------------

    def pack(self) -> None:
        """Pack the builds of a host's life: each version three times, the first of each with help for its former.

        The same tree under other ids brings a host to where it is after a quiet time: hot, standby and spare trees all
        have what is the former version to the next.
        """
        store, trees = self._ground.store / "hotcold", self._ground.trees
        builds = Builds(store, f"{self._nginx.url}/hotcold")
        for phase in PHASES:
            tree = trees[AFTER[phase]]
            former = self._builds[-1] if self._builds else None
            self._builds.append(builds.pack(tree, phase, against=former))
            self._builds += [builds.pack(tree, f"{phase}-settled") for _ in range(2 if phase != PHASES[-1] else 0)]

    def let_us(self) -> None:
        """One life of a host: a first deploy, a small change, a tiny one, and a rollback."""
        if not self._builds:
            return
        host = AgentHost(self._ground.target / "us", self._ground.net)
        with host.running():
            for build in self._builds:
                phase = build.id.partition(".")[0]
                is_measured = phase in self._phases
                _say(phase, OURS)
                with self._counting() as traffic:
                    deployed = host.deploy(build)
                if is_measured:
                    self._note(phase, OURS, _run_of(deployed, traffic), deployed.release, Exactness.MODES)
            _say("rollback", OURS)
            with self._counting() as traffic:
                back = host.roll_back(self._builds[-2])
            run = msgspec.structs.replace(_run_of(back, traffic), durable_s=back.swapped_s, swap_s=back.swap_s)
            self._note("rollback", OURS, run, back.release, Exactness.MODES)

    # --- both ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def _counting(self) -> Iterator[_Traffic]:
        """Count what the clients get; complete when the block has ended."""
        traffic = _Traffic()
        self._nginx.count()
        before = self._ground.net.received_bytes()
        yield traffic
        on_the_wire = self._ground.net.received_bytes() - before
        served = self._nginx.count()
        traffic.request_count = served.request_count
        # nginx knows exactly; of servers of their own, the interface tells, headers and questions included.
        traffic.received_bytes = served.sent_bytes or on_the_wire

    def _note(self, phase: str, name: str, run: Run, tree: Path, exactness: Exactness) -> None:
        runs = self._runs.setdefault((phase, name), [])
        runs.append(run)
        _say(phase, name, f"{run.durable_s:.3f} s, {run.received_bytes / 1e6:.2f} MB")
        if len(runs) == 1:
            meant = self._ground.trees["v2" if phase == "rollback" else AFTER[_phase(phase)]]
            differences = compare(meant, tree, exactness)
            if not differences.is_none:
                raise Failed(f"the result is not the tree that was meant: {differences.summary}")


class _Traffic:
    received_bytes = 0
    request_count = 0


def _run_of(deployed: Deployed, traffic: _Traffic) -> Run:
    return Run(
        durable_s=deployed.staged_s,
        cpu_s=deployed.cpu_s,
        received_bytes=traffic.received_bytes,
        request_count=traffic.request_count,
    )


def _phase(name: str) -> Phase:
    return next(phase for phase in PHASES if phase == name)


def _say(*words: str) -> None:
    print("  ".join(words), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
