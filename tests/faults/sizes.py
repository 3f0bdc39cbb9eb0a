"""Owns how much the fault tests do: a sample in `make test`, everything in `make faults`; and the tally of hits."""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

IS_FULL: Final = os.environ.get("HOTCOLD_FAULTS") == "full"
_TALLY: Final = os.environ.get("HOTCOLD_FAULTS_TALLY")
_Each = TypeVar("_Each")


def sized(full: int, sample: int) -> int:
    """How many of something."""
    return full if IS_FULL else sample


def sampled(items: Sequence[_Each], count: int, seed: str) -> list[_Each]:
    """All of them in `make faults`; else so many, the same each time, from all parts of the sequence."""
    if IS_FULL or len(items) <= count:
        return list(items)
    chance = random.Random(seed)
    bounds = [len(items) * number // count for number in range(count + 1)]
    return [items[chance.randrange(bounds[number], bounds[number + 1])] for number in range(count)]


def tell_tally(name: str, counts: Mapping[str, int]) -> None:
    """Show what was hit, so that a green run says what it covered; `make faults` sums it up."""
    print(name, dict(counts))  # noqa: T201 - the tally is the point
    if _TALLY is not None:
        with Path(_TALLY).open("a") as file:  # one short line each, so that processes do not mix them
            file.write(json.dumps([name, dict(counts)]) + "\n")


def main(path: Path) -> None:
    """Print the tallies, a line for each test's name without its parameters, and one for each phase."""
    sums: dict[str, Counter[str]] = {}
    for line in path.read_text().splitlines():
        name, counts = json.loads(line)
        sums.setdefault(name, Counter()).update(counts)
    for name, counts in sorted(sums.items()):
        shown = ", ".join(f"{what} {count}" for what, count in counts.most_common())
        print(f"{name}: {sum(counts.values())} ({shown})")  # noqa: T201 - a report


if __name__ == "__main__":
    main(Path(sys.argv[1]))
