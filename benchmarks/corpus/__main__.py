"""Makes the real trees in a directory and says what they are."""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

from benchmarks.corpus.compare import compare, tally
from benchmarks.corpus.real import real_trees


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="needs some 4 GB; better not on a file system without a journal")
    trees = real_trees(parser.parse_args().directory)
    for version, tree in trees.items():
        print(version, tree, tally(tree))
    for old, new in pairwise(trees):
        print(f"{old} -> {new}", compare(trees[old], trees[new]).summary)


if __name__ == "__main__":
    main()
