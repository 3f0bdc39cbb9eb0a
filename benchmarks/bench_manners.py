"""What the agent takes from its host and keeps from its operator while it deploys, and what an exchange of links costs.

    python -m benchmarks.bench_manners [--rounds 5]

Each round is several lives of a host, for each measure would disturb the others: one for memory (agent and children,
sum of PSS, sampled), one for the lateness of the event loop (measured inside the agent), two for the status socket
(asked all the time). In each a host gets everything, then a small change. The builds of this program come without
patches, so that it also knows what a change costs hosts for which there is none.
"""

from __future__ import annotations

import statistics
import sys
import time

from benchmarks.bench_swap import Unsecured, durations_us, flipper, make_root, p99
from benchmarks.corpus import compare, real_trees
from benchmarks.host import AgentHost, Build, Builds, PeakMemory, SocketPoll
from benchmarks.lab import ensure_packages, enter_stage
from benchmarks.options import is_written, parser
from benchmarks.peers.archives import LEVEL
from benchmarks.peers.peer import run, shell
from benchmarks.report import Manners, keep, print_grids, write_page
from benchmarks.shelf import Bench, bench

_SWAPS = 2000


def main() -> None:
    arguments = parser(__doc__).parse_args()
    ensure_packages()
    enter_stage("benchmarks.bench_manners", sys.argv[1:])
    with bench(arguments.cache) as made:
        result = _Manners(made).measure(arguments.rounds)
    print_grids(result)
    if is_written(arguments, is_complete=True):
        keep(result)
        write_page()


class _Manners:
    def __init__(self, made: Bench) -> None:
        self._made = made
        self._trees = real_trees(made.shelf)
        builds = Builds(made.store / "hotcold", f"{made.nginx.url}/hotcold")
        # In between, the host gets the first version twice more, so that a spare tree is there for the change.
        self._life = [builds.pack(self._trees["v1"], name) for name in ("full", "settled", "settled")]
        self._life.append(builds.pack(self._trees["v2"], "small"))
        self._noted: dict[str, dict[str, list[float]]] = {}
        self._unanswered_count = 0
        self._unpatched_bytes = 0

    def measure(self, rounds: int) -> Manners:
        for _ in range(rounds):
            self._live_for_memory()
            self._live_for_lags()
            self._live_for_answers("/healthz")
            self._live_for_answers("/v1/status")
        swaps_us = self._swaps_us()
        noted = {what: {phase: tuple(seen) for phase, seen in by.items()} for what, by in self._noted.items()}
        return Manners(
            rounds=rounds,
            peak_bytes=noted["peak"],
            loop_lag_max_s=noted["lag_max"],
            loop_lag_p99_s=noted["lag_p99"],
            health_max_s=noted["/healthz max"],
            health_p99_s=noted["/healthz p99"],
            status_max_s=noted["/v1/status max"],
            status_p99_s=noted["/v1/status p99"],
            unanswered_count=self._unanswered_count,
            unpatched_bytes=self._unpatched_bytes,
            changed_compressed_bytes=self._changed_compressed_bytes(),
            swap_call_us=statistics.median(swaps_us),
            swap_call_p99_us=p99(swaps_us),
        )

    def _live_for_memory(self) -> None:
        host = self._host()
        with host.running():
            for build in self._life:
                self._made.nginx.count()
                with PeakMemory(host.pid) as memory:
                    host.deploy(build)
                self._note("peak", build, memory.peak_bytes)
                if _phase(build) == "small":
                    self._unpatched_bytes = self._made.nginx.count().sent_bytes

    def _live_for_lags(self) -> None:
        lags = self._made.scratch / "lags"
        host = self._host("-m", "benchmarks.host.watched_agent", "--lags", str(lags))
        spans: list[tuple[Build, float, float]] = []
        with host.running():
            for build in self._life:
                began_s = time.monotonic()
                host.deploy(build)
                spans.append((build, began_s, time.monotonic()))
        lines = [line.split() for line in lags.read_text().splitlines()]
        for build, began_s, ended_s in spans:
            lags_s = [float(lag_s) for at_s, lag_s in lines if began_s <= float(at_s) <= ended_s]
            self._note("lag_max", build, max(lags_s))
            self._note("lag_p99", build, p99(lags_s))

    def _live_for_answers(self, what: str) -> None:
        host = self._host()
        with host.running():
            for build in self._life:
                with SocketPoll(host.socket, what) as poll:
                    host.deploy(build)
                self._note(f"{what} max", build, max(poll.latencies_s))
                self._note(f"{what} p99", build, p99(poll.latencies_s))
                self._unanswered_count += poll.failed_count

    def _swaps_us(self) -> list[float]:
        base = self._made.place / "swap"
        base.mkdir()
        layout, _ = make_root(base)
        return durations_us(flipper(layout, Unsecured()), swaps=_SWAPS)

    def _changed_compressed_bytes(self) -> int:
        """What the new and changed files compress to, all in one, as small as it gets."""
        differences = compare(self._trees["v1"], self._trees["v2"])
        names, archive = (self._made.scratch / name for name in ("changed.names", "changed.tar.zst"))
        names.write_text("\0".join((*differences.added, *differences.changed)))
        pipeline = f'tar -C "$1" --null --no-recursion -T "$2" -cf - | zstd -q -f -{LEVEL} -o "$3"'
        run(shell(pipeline, self._trees["v2"], names, archive))
        return archive.stat().st_size

    def _host(self, *program: str) -> AgentHost:
        return AgentHost(self._made.place / "us", self._made.net, program=program or ("-m", "hotcold", "agent"))

    def _note(self, what: str, build: Build, value: float) -> None:
        phase = _phase(build)
        if phase != "settled":
            self._noted.setdefault(what, {}).setdefault(phase, []).append(value)
            print(f"{phase}  {what}  {value}", file=sys.stderr, flush=True)


def _phase(build: Build) -> str:
    return build.id.partition(".")[0]


if __name__ == "__main__":
    main()
