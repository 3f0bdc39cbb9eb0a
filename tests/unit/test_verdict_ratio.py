"""The ratio with its interval: that it covers the truth at all times together, and what its ends are."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.rollouts.world import poisson
from checkpoint.verdicts import Counts, Evidence, Interval, Metric, Verdict, judge, set_aside
from checkpoint.verdicts.metric import ReportsTable
from checkpoint.verdicts.ratio import Likelihood, Ratio, ratio_of, seen_alone, seen_together

METRIC = Metric(name="errors", reports=ReportsTable())
INTERVALS = 60


def known(likelihood: Likelihood, *, is_of_a_limit: bool = False) -> Ratio:
    found = ratio_of(likelihood, is_of_a_limit=is_of_a_limit)
    assert found is not None
    return found


def covers(ratio: Ratio, truth: float) -> bool:
    return ratio.lower <= truth and (ratio.upper is None or truth <= ratio.upper)


def course(chance: random.Random, truth: float, rate: float) -> tuple[bool, Ratio]:
    """One rollout of five steps, with an outage of everything: whether it covered at every moment, and the end."""
    likelihood, was_covered, ratio = Likelihood(), True, None
    for number in range(INTERVALS):
        hosts = (1, 5, 10, 25, 40)[number * 5 // INTERVALS]
        now = rate * (10 if 20 <= number < 25 else 1)
        likelihood = seen_together(
            likelihood,
            bad=poisson(chance, hosts * now * truth),
            exposure=hosts,
            other_bad=poisson(chance, (50 - hosts) * now),
            other_exposure=50 - hosts,
        )
        ratio = ratio_of(likelihood)
        was_covered = was_covered and (ratio is None or covers(ratio, truth))
    assert ratio is not None
    return was_covered, ratio


@pytest.mark.parametrize("truth", [0.5, 1.0, 1.07, 3.0, 10.0])
def test_it_covers_the_truth_at_all_times_together(truth: float) -> None:
    """95 of 100 promised; simulated at two rates, looked at after every interval. It narrows to be of use."""
    chance = random.Random(f"coverage of {truth}")
    courses = [course(chance, truth, rate) for rate in (0.05, 0.5) for _ in range(500)]
    assert sum(was_covered for was_covered, _ in courses) >= 0.95 * len(courses)
    frequent = [ratio for _, ratio in courses[500:]]
    widths = sorted((ratio.upper or 1e9) / max(ratio.lower, 1e-9) for ratio in frequent)
    assert widths[len(widths) // 2] < 2
    estimates = sorted(ratio.estimate or 1e9 for ratio in frequent)
    assert estimates[len(estimates) // 2] == pytest.approx(truth, rel=0.05)


@pytest.mark.parametrize("truth", [0.4, 1.0, 6.0])
def test_it_covers_the_truth_against_a_limit(truth: float) -> None:
    """Where there is nobody to compare with."""
    chance = random.Random(f"limit {truth}")
    missed = 0
    for _ in range(300):
        likelihood = Likelihood()
        for _ in range(40):
            likelihood = seen_alone(likelihood, bad=poisson(chance, 0.7 * truth), allowed=0.7)
            if not covers(known(likelihood, is_of_a_limit=True), truth):
                missed += 1
                break
    assert missed <= 0.05 * 300


def test_a_grid_in_between_does_not_make_it_too_narrow() -> None:
    """With very many failures the likelihood is far narrower than the grid: the true ratio is inside all the same."""
    for truth in (0.77, 1.0, 1.09, 1.13, 2.9, 41.0):
        for failures in (1e3, 1e6, 1e9):
            both = seen_together(
                Likelihood(), bad=failures * truth, exposure=10, other_bad=failures * 4, other_exposure=40
            )
            ratio = known(both)
            assert ratio.estimate == pytest.approx(truth, rel=1e-6)
            assert covers(ratio, truth)
            assert ratio.upper is not None
            assert ratio.upper / ratio.lower < 1.6


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 900), st.integers(0, 30), st.integers(1, 900)), max_size=9)
)
def test_the_estimate_is_in_the_interval(seen: list[tuple[int, int, int, int]]) -> None:
    """Whatever was seen, in whatever order of magnitude."""
    likelihood = Likelihood()
    for bad, exposure, other_bad, other_exposure in seen:
        likelihood = seen_together(
            likelihood, bad=bad, exposure=exposure, other_bad=other_bad, other_exposure=other_exposure
        )
    ratio = ratio_of(likelihood)
    if ratio is None:
        assert all(bad + other_bad == 0 for bad, _, other_bad, _ in seen)
        return
    assert 0 <= ratio.lower < (ratio.upper or float("inf"))
    if ratio.estimate is None:
        assert ratio.upper is None
    else:
        assert covers(ratio, ratio.estimate)


def test_ends_that_are_open_are_said_to_be() -> None:
    """No failure on either side has no lower, or no upper end; ratios beyond the grid are not excluded."""
    none = known(seen_together(Likelihood(), bad=0, exposure=100, other_bad=20, other_exposure=500))
    assert (none.estimate, none.lower) == (0.0, 0.0)
    assert none.upper is not None
    only = known(seen_together(Likelihood(), bad=5, exposure=100, other_bad=0, other_exposure=500))
    assert (only.estimate, only.upper) == (None, None)
    assert only.lower > 1
    far = known(seen_together(Likelihood(), bad=9_000, exposure=1, other_bad=9, other_exposure=1))
    assert far.upper is None
    assert far.estimate == pytest.approx(1_000)
    assert ratio_of(Likelihood(logs=(1.0, 2.0))) is None


OTHERS = tuple(Counts(f"old-{number}", 1.0, 600.0) for number in range(10))


def after(*bad: float, intervals: int, metric: Metric = METRIC, others: tuple[Counts, ...] = OTHERS) -> Verdict:
    evidence, verdict = Evidence(), Verdict(outcome="none", action="wait", reason="")
    hosts = tuple(Counts(f"new-{number}", each, 600.0) for number, each in enumerate(bad))
    for _ in range(intervals):
        evidence, verdict = judge(metric, evidence, Interval(updated=hosts, others=others))
    return verdict


def test_a_verdict_has_it_in_its_words() -> None:
    """Estimate and ends as numbers, and in the reason; against a limit, it is of the limit."""
    verdict = after(9, 11, intervals=1)
    assert verdict.ratio is not None
    assert verdict.ratio.estimate == pytest.approx(10)
    assert verdict.ratio.lower > METRIC.tolerance
    assert "expected on updated 2: 10 times (95 %: 2.8 to 43); evidence" in verdict.reason
    assert "1 times (95 %: 0.28 to 2.7)" in after(1, 1, intervals=4).reason
    limited = msgspec.structs.replace(METRIC, limit=0.01)
    against = after(3, 3, intervals=5, metric=limited, others=())
    assert against.ratio is not None
    assert against.ratio.estimate == pytest.approx(0.5)
    silent = tuple(Counts(each.host, 0.0, each.total) for each in OTHERS)
    assert (
        "others: 0 of 6 000; times as frequent (95 %): at least 1.4; evidence"
        in after(2, 2, intervals=1, others=silent).reason
    )


def test_without_others_no_ratio_is_told() -> None:
    """Of the past alone, its own uncertainty is not known: the words are those of the counts."""
    verdict = after(1, 1, intervals=3, others=())
    assert verdict.ratio is None
    assert "%" not in verdict.reason


def test_setting_a_host_aside_begins_it_anew() -> None:
    """What that host did is in the sums, and does not come out of them."""
    evidence = Evidence()
    hosts = (Counts("new-0", 90.0, 600.0), Counts("new-1", 1.0, 600.0))
    for _ in range(3):
        evidence, _ = judge(METRIC, evidence, Interval(updated=hosts, others=OTHERS))
    evidence, verdict = judge(METRIC, set_aside(evidence, "new-0"), Interval(updated=hosts, others=OTHERS))
    assert verdict.ratio is not None
    assert verdict.ratio.estimate == pytest.approx(1)
