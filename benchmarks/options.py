"""Owns the options that the benchmarks share, and where they keep what they make."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
DEFAULT_ROUNDS: Final = 5


def parser(description: str | None) -> argparse.ArgumentParser:
    """With `--rounds`, `--cache` and `--write`."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS, help="the median counts (%(default)s)")
    made.add_argument(
        "--cache",
        type=Path,
        default=ROOT / ".cache" / "bench",
        help="for corpus and artifacts, made once, and for the images; needs some 42 GB",
    )
    made.add_argument(
        "--write",
        action=argparse.BooleanOptionalAction,
        help=f"keep the results and write docs/performance.md; without it, a complete run of at least {DEFAULT_ROUNDS} "
        "rounds does",
    )
    return made


def is_written(arguments: argparse.Namespace, *, is_complete: bool) -> bool:
    """Whether results are kept: figures of quick or partial runs are for the eye alone."""
    if arguments.write is not None:
        return bool(arguments.write)
    return is_complete and arguments.rounds >= DEFAULT_ROUNDS
