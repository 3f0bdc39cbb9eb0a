"""What is deployed: real packages in three versions, and synthetic trees of any size.

    python -m benchmarks.corpus DIRECTORY

makes the three versions outside of a benchmark, to try things on. How they are packed and deployed is left to others.
"""

from benchmarks.corpus.compare import Differences, Exactness, compare
from benchmarks.corpus.real import VERSIONS, Version, corpus_key, real_trees
from benchmarks.corpus.synthetic import change, synthetic_tree

__all__ = [
    "VERSIONS",
    "Differences",
    "Exactness",
    "Version",
    "change",
    "compare",
    "corpus_key",
    "real_trees",
    "synthetic_tree",
]
