"""Owns the corpus of hostile archives, by family: what the docs count and the tests open.

`python -m tests.hostile DIRECTORY` writes all of it down, for other readers to be tried on.
"""

from tests.hostile import bombs, streams, tars, zips
from tests.hostile.case import Case, Family

FAMILIES: tuple[Family, ...] = (*tars.FAMILIES, *zips.FAMILIES, *streams.FAMILIES, *bombs.FAMILIES)

__all__ = ["FAMILIES", "Case", "Family"]
