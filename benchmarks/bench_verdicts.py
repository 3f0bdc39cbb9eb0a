"""Which rule stops which rollout: ours, z-scores, Mann-Whitney, a fixed threshold, on the same simulated rollouts.

    python -m benchmarks.bench_verdicts [--rollouts 1000] [--write]

Nothing is measured but decisions, so the machine does not matter; the same seeds give the same table, and rounds are of
no use. A full run, or `--write`, keeps it in benchmarks/rollouts/safety.json and in docs/verdicts.md.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Final

from benchmarks.options import is_written, parser
from benchmarks.rollouts import RULES, SCENARIOS, Outcome, World, run
from benchmarks.rollouts.safety import Row, Safety, grids, keep, summary, write_page

_ROLLOUTS: Final = 1000
_CHUNK: Final = 10


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rollouts", type=int, default=_ROLLOUTS, help="of each scenario (%(default)s)")
    arguments = options.parse_args()
    rows: list[Row] = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for number, scenario in enumerate(SCENARIOS):
            made = list(pool.map(partial(outcomes, number), range(arguments.rollouts), chunksize=_CHUNK))
            print(f"{scenario.name}: {arguments.rollouts} rollouts", file=sys.stderr, flush=True)
            rows += [summary(scenario, rule, [(bad_host, each[rule]) for bad_host, each in made]) for rule in RULES]
    result = Safety(rollouts=arguments.rollouts, rows=tuple(rows))
    print("\n".join(grids(result)))
    if is_written(arguments, is_complete=arguments.rollouts >= _ROLLOUTS):
        keep(result)
        write_page()


def outcomes(scenario: int, seed: int) -> tuple[str | None, dict[str, Outcome]]:
    """The bad host's name, if there is one, and how each rule ended in this world."""
    world = World(SCENARIOS[scenario], seed)
    history = world.history()
    bad_host = None if world.bad_host is None else world.hosts[world.bad_host]
    return bad_host, {name: run(world, make(history)) for name, make in RULES.items()}


if __name__ == "__main__":
    main()
