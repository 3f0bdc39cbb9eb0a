"""Owns how many times worse a build is: the ratio of failure rates, with an interval that holds at every look. Pure.

Which counts go in is left to `checkpoint.verdicts.evidence`; whether it is too bad, to `checkpoint.verdicts.judging`.

The interval inverts a mixture e-process over the ratio. For each ratio r the mean likelihood of what was seen, over
ratios between 1/8 and 64, divided by its likelihood under r, is a martingale with mean 1 if r is true; so the chance
that it *ever* reaches 20 is at most 1 in 20 (Ville's inequality). The interval has the ratios for which it is below 20
now. It covers the true ratio at all times together with a chance of at least 95 percent, however the rate of failures,
the exposures and the percentages change meanwhile, as long as the ratio itself stays the same. Where it does not, the
interval tells of what was seen in the mean.

Mixtures for confidence sequences are Robbins's (1970); the likelihood, conditional on how many failed on both sides,
is that of Lindon and Malek, *Anytime-Valid Inference for Multinomial Count Data* (NeurIPS 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

CONFIDENCE: Final = 0.95

_PER_DOUBLING: Final = 4
_GRID: Final = tuple(
    number * math.log(2) / _PER_DOUBLING for number in range(-3 * _PER_DOUBLING, 6 * _PER_DOUBLING + 1)
)
"""Natural logarithms of the ratios whose likelihoods are kept: 1/8 to 64."""
_EXCESS: Final = tuple(math.expm1(each) for each in _GRID)
_PRIOR: Final = tuple(1 / (1 + each * each) for each in _GRID)
"""Weights of the mixture, heavy near 1, where most builds are, and nowhere light."""
_LOG_PRIOR: Final = tuple(math.log(each / math.fsum(_PRIOR)) for each in _PRIOR)


class Likelihood(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """How likely what was seen is under each ratio; as small whatever was seen.

    Attributes:
        logs: natural logarithms, one for each ratio of the grid, relative to a ratio of 1; empty, or of another grid:
            nothing was seen.
        bad: failures on updated hosts.
        other_bad: failures on the others; or, under a limit, as many as it allows.
    """

    logs: tuple[float, ...] = ()
    bad: float = 0.0
    other_bad: float = 0.0


class Ratio(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many times as often updated hosts fail.

    Attributes:
        estimate: the ratio that makes what was seen likeliest; None: beyond all bounds, for only updated hosts failed.
        lower, upper: ends of the interval; `upper` None: it has none.
        confidence: the chance that the interval has the true ratio, at all times together.
    """

    estimate: float | None
    lower: float
    upper: float | None
    confidence: float = CONFIDENCE


def seen_together(
    likelihood: Likelihood, *, bad: float, exposure: float, other_bad: float, other_exposure: float
) -> Likelihood:
    """Add one interval in which both sides were seen; nothing is learnt without exposure on both."""
    if bad + other_bad <= 0 or exposure <= 0 or other_exposure <= 0:
        return likelihood
    share = exposure / (exposure + other_exposure)
    terms = [bad * at - (bad + other_bad) * math.log1p(more * share) for at, more in zip(_GRID, _EXCESS, strict=True)]
    return _with(likelihood, terms, bad, other_bad)


def seen_alone(likelihood: Likelihood, *, bad: float, allowed: float) -> Likelihood:
    """Add one interval of updated hosts, of which so many failures are allowed."""
    if allowed <= 0:
        return likelihood
    terms = [bad * at - allowed * more for at, more in zip(_GRID, _EXCESS, strict=True)]
    return _with(likelihood, terms, bad, allowed)


def ratio_of(likelihood: Likelihood, *, is_of_a_limit: bool = False) -> Ratio | None:
    """Estimate and interval; None where nothing was seen that tells of it.

    Args:
        likelihood: of what was seen.
        is_of_a_limit: it was seen alone, against a limit.
    """
    logs = likelihood.logs
    if len(logs) != len(_GRID):
        return None
    lower, upper = _interval(logs, _level(logs))
    return Ratio(estimate=_estimate(likelihood, is_of_a_limit=is_of_a_limit), lower=lower, upper=upper)


def _with(likelihood: Likelihood, terms: Sequence[float], bad: float, other_bad: float) -> Likelihood:
    if len(likelihood.logs) != len(_GRID):
        likelihood = Likelihood(logs=(0.0,) * len(_GRID))
    logs = likelihood.logs
    return Likelihood(
        logs=tuple([one + other for one, other in zip(logs, terms, strict=True)]),
        bad=likelihood.bad + bad,
        other_bad=likelihood.other_bad + other_bad,
    )


def _level(logs: Sequence[float]) -> float:
    """Ratios that are less likely than this are out."""
    weighted = [each + prior for each, prior in zip(logs, _LOG_PRIOR, strict=True)]
    top = max(weighted)
    return top + math.log(math.fsum(math.exp(each - top) for each in weighted)) + math.log(1 - CONFIDENCE)


def _interval(logs: Sequence[float], level: float) -> tuple[float, float | None]:
    inside = [number for number, each in enumerate(logs) if each > level]
    first, last = inside[0], inside[-1]  # never empty: the mean is above 1/20 of the largest
    lower = 0.0 if first == 0 else math.exp(_crossing(_GRID, logs, first, level))
    if last == len(logs) - 1:
        return lower, None
    mirrored = tuple(-each for each in reversed(_GRID))
    return lower, math.exp(-_crossing(mirrored, logs[::-1], len(logs) - 1 - last, level))


def _crossing(grid: Sequence[float], logs: Sequence[float], first: int, level: float) -> float:
    """Where, below `first`, the likelihood crosses the level, or a little before.

    It is concave, so between two points it lies below the lines through the neighbours on either side: the interval
    comes out a little too wide, never too narrow.
    """
    found = [grid[first - 1]]
    if first + 1 < len(logs) and logs[first + 1] > logs[first]:
        slope = (logs[first + 1] - logs[first]) / (grid[first + 1] - grid[first])
        found.append(grid[first] - (logs[first] - level) / slope)
    if first >= 2:  # noqa: PLR2004 - a line needs two points
        slope = (logs[first - 1] - logs[first - 2]) / (grid[first - 1] - grid[first - 2])
        found.append(grid[first - 1] + (level - logs[first - 1]) / slope)
    return max(found)


def _estimate(likelihood: Likelihood, *, is_of_a_limit: bool) -> float | None:
    bad, other_bad, logs = likelihood.bad, likelihood.other_bad, likelihood.logs
    if bad <= 0:
        return 0.0
    if is_of_a_limit:
        return bad / other_bad
    if other_bad <= 0:
        return None
    # Between the two likeliest points the likelihood is as that of one interval whose exposures have the ratio `odds`,
    # exactly so where all intervals had; of one interval the likeliest ratio is known.
    best = max(range(len(logs)), key=logs.__getitem__)
    near = [number for number in (best - 1, best + 1) if 0 <= number < len(logs)]
    low, high = sorted((best, max(near, key=logs.__getitem__)))
    gained = bad * (_GRID[high] - _GRID[low]) - (logs[high] - logs[low])
    if gained <= 0:  # lost in the last digits
        return math.exp(_GRID[best])
    below, above = math.exp(_GRID[low]), math.exp(_GRID[high])
    odds = (above - below) / math.expm1(gained / (bad + other_bad)) - below
    return odds * bad / other_bad
