"""Every input that the fuzzer kept, and every archive of the corpus, through its reader: nothing but our errors."""

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
KEPT_BYTES_MAX = 512 << 10


@pytest.mark.parametrize("target", TARGETS)
def test_what_the_fuzzer_kept_finds_nothing(target: str) -> None:
    """A finding of the past is an input that is kept."""
    inputs = sorted((CORPUS / target).iterdir())
    assert inputs
    for path in inputs:
        TARGETS[target](path.read_bytes())


def test_the_kept_corpus_is_small_and_belongs_to_targets() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) <= KEPT_BYTES_MAX
