"""What one look at the workers costs on a host with many processes, in processor time of the agent.

    python -m benchmarks.bench_drain [--rounds 5] [--processes 2000]

The processes are sleepers that hold nothing in the tree; of them, a part are workers by their command line. Every look
reads the whole of /proc and asks each worker for its directories, open files, mappings and connections. The last line
is the look that decides which old trees may go: it asks every process.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.workers import Match, evidence, find_workers, trees_in_use
from benchmarks.options import DEFAULT_ROUNDS

WORKER = Match(command="^bench-worker ")
NOBODY = 1 << 30
"""Stands for the agent, for its descendants are no workers, and the sleepers descend from this process."""
TREE = Path("/srv/shop/releases/2026-11-23.1~1")


@contextmanager
def sleepers(count: int, workers: int) -> Iterator[None]:
    """Processes that are no descendants of this one; the first `workers` of them are called worker."""
    script = (
        f'for n in $(seq {count}); do if [ "$n" -le {workers} ]; then name=worker; else name=other; fi; '
        "(exec -a bench-$name sleep inf) & done; echo; read line; kill $(jobs -p)"
    )
    with subprocess.Popen(["bash", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        shell.stdout.readline()
        time.sleep(1)  # the last of them are still on their way to `sleep`
        try:
            yield
        finally:
            shell.stdin.write(b"\n")
            shell.stdin.flush()


def cpu_ms(look: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        before = time.process_time()
        look()
        taken.append((time.process_time() - before) * 1e3)
    return statistics.median(taken)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS)
    options.add_argument("--processes", type=int, default=2000)
    given = options.parse_args()
    print(f"{given.processes} processes; milliseconds of processor time per look, median of {given.rounds}")
    for workers in (0, given.processes // 20, given.processes // 4, given.processes):
        with sleepers(given.processes, workers):
            taken = cpu_ms(lambda: evidence(find_workers([WORKER], agent_pid=NOBODY), TREE, (8080,)), given.rounds)
            print(f"  {workers:>6} of them workers: {taken:6.1f}")
    with sleepers(given.processes, 0):
        print(f"  who lives in old trees: {cpu_ms(lambda: trees_in_use([TREE]), given.rounds):6.1f}")


if __name__ == "__main__":
    main()
