"""Owns the arithmetic of evidence: running log-likelihood ratios, their mixture, and a bound for a rate. Pure.

Which counts go in, and what a value means, is left to `checkpoint.verdicts.evidence` and `checkpoint.verdicts.judging`.

Each sum is over the time at which a build may have become worse: half of the trust is laid on "from the first interval
on", the rest is spread over all later ones. So an hour without failures does not hide what comes after it.

While the build is at most `tolerance` times worse, the mixture's expected value never rises, so the chance that it
*ever* reaches 1/a is at most a (Ville's inequality), however often and however long one looks. The formulas and where
they come from: docs/verdicts.md.
"""

from __future__ import annotations

import math
from typing import Final

FACTORS: Final = (1.5, 2.0, 3.0, 5.0, 8.0, 13.0, 25.0, 50.0)
"""How much worse than tolerated a build is suspected to be: one running sum for each."""

Sums = tuple[float, ...]
"""Natural logarithms, one for each factor."""

FROM_THE_START: Final = 0.5
"""Trust that lies on a build being worse from the first interval on."""

NO_EVIDENCE: Final[Sums] = (math.log(FROM_THE_START),) * len(FACTORS)

_LOGS: Final = tuple(math.log(factor) for factor in FACTORS)
_EXCESS: Final = tuple(factor - 1.0 for factor in FACTORS)
_NEGLIGIBLE: Final = 40.0
"""A number smaller than another one by this in logarithms is lost in its last digit."""

_SPREAD: Final = 30
_Z_995: Final = 2.5758293035489004


def fresh_trust(number: int) -> float:
    """Trust that lies on a build becoming worse with interval `number`, from 0 on; all together are the other half.

    It falls with the square of the number, after the first half an hour of minutes: late changes are found, too.
    """
    return (1 - FROM_THE_START) * _SPREAD / ((number + _SPREAD) * (number + _SPREAD + 1))


def compared(
    sums: Sums,
    *,
    bad: float,
    exposure: float,
    other_bad: float,
    other_exposure: float,
    tolerance: float,
    fresh: float = 0.0,
) -> Sums:
    """Add one interval in which updated hosts and others were seen at the same time.

    Given the number of failures on both sides, each is on the updated side with a chance that depends on the exposures
    alone: a common rise, whatever its cause and course, cancels. Nothing is learnt without exposure on both sides.
    `fresh` is the trust of `fresh_trust` for this interval.
    """
    sums = _with_fresh(sums, fresh)
    tolerated = tolerance * exposure
    failures = bad + other_bad
    if failures <= 0 or tolerated <= 0 or other_exposure <= 0:
        return sums
    share = tolerated / (tolerated + other_exposure)
    return tuple(
        [
            total + bad * log - failures * math.log1p(excess * share)
            for total, log, excess in zip(sums, _LOGS, _EXCESS, strict=True)
        ]
    )


def against_rate(sums: Sums, *, bad: float, exposure: float, rate: float, fresh: float = 0.0) -> Sums:
    """Add one interval of updated hosts alone, against a rate of failures per exposure that is tolerated."""
    sums = _with_fresh(sums, fresh)
    expected = rate * exposure
    if expected <= 0:
        return sums
    return tuple(total + bad * log - excess * expected for total, log, excess in zip(sums, _LOGS, _EXCESS, strict=True))


def log_evidence(sums: Sums) -> float:
    """Natural logarithm of the mean of the likelihood ratios."""
    top = max(sums)
    return top + math.log(math.fsum(math.exp(each - top) for each in sums) / len(sums))


def acquits(sums: Sums) -> float:
    """Natural logarithm of how much likelier the counts are if the build is tolerable than if it is twice that bad."""
    return math.log(FROM_THE_START) - sums[FACTORS.index(2.0)]


def _with_fresh(sums: Sums, fresh: float) -> Sums:
    if fresh <= 0:
        return sums
    start = math.log(fresh)
    return tuple([_log_of_sum(each, start) for each in sums])


def _log_of_sum(one: float, other: float) -> float:
    """Logarithm of the sum of two numbers that are given by theirs."""
    difference = one - other
    if difference > _NEGLIGIBLE:
        return one
    return other + (math.log1p(math.exp(difference)) if difference > -_NEGLIGIBLE else 0.0)


def upper_rate(bad: float, exposure: float) -> float:
    """The rate that 99.5 of 100 such histories are below: Gamma's quantile, by Wilson and Hilferty's approximation."""
    shape = bad + 1.0
    spread = 1.0 / (9.0 * shape)
    return shape * (1.0 - spread + _Z_995 * math.sqrt(spread)) ** 3 / exposure
