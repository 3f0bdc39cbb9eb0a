"""Simulated rollouts through the default pipeline, by fixed seeds: what is stopped, what is not, who is blamed.

The full table, of a thousand rollouts each and beside other rules, is made by `benchmarks/bench_verdicts.py`.
"""

from __future__ import annotations

import functools
import random
from collections import Counter

import pytest

from benchmarks.rollouts import RULES, SCENARIOS, Outcome, World, run
from benchmarks.rollouts.rules import is_shifted_up
from benchmarks.rollouts.safety import PAGE as VERDICTS_PAGE
from benchmarks.rollouts.safety import Safety, grids, kept, refreshed, summary
from benchmarks.rollouts.world import poisson

NAMED = {scenario.name: scenario for scenario in SCENARIOS}
ROLLOUTS = 25


@functools.cache
def outcomes(name: str, rule: str = "hotcold", count: int = ROLLOUTS) -> tuple[tuple[str | None, Outcome], ...]:
    made = []
    for seed in range(count):
        world = World(NAMED[name], seed)
        bad_host = None if world.bad_host is None else world.hosts[world.bad_host]
        made.append((bad_host, run(world, RULES[rule](world.history()))))
    return tuple(made)


def ends(name: str, rule: str = "hotcold") -> Counter[str]:
    return Counter("weakly" if outcome.is_weak else outcome.ended for _, outcome in outcomes(name, rule))


@pytest.mark.parametrize("name", ["good build", "sparse traffic, good build"])
def test_good_builds_are_not_stopped(name: str) -> None:
    """Not one of these; the promise is one in a hundred at most."""
    assert ends(name) == {"done": ROLLOUTS}


def test_an_outage_of_everything_stops_nothing_while_there_are_others_to_compare_with() -> None:
    """At 100 percent it may, and the verdict says that it is weak."""
    assert ends("outage of everything, 10 times, 10 minutes").keys() <= {"done", "weakly"}


@pytest.mark.parametrize("name", ["build 5 times worse", "build 20 times worse", "sparse traffic, 5 times worse"])
def test_bad_builds_are_stopped_before_production(name: str) -> None:
    """All of them, and in the median before the canary is through."""
    assert not ends(name).keys() & {"done", "weakly"}
    reached = sorted(outcome.reached for _, outcome in outcomes(name))
    assert reached[ROLLOUTS // 2] <= 10


def test_one_bad_host_is_set_aside_and_the_build_goes_on() -> None:
    """And it is the right one."""
    assert ends("one host 20 times worse") == {"done": ROLLOUTS}
    blamed = [(bad_host, outcome.aside) for bad_host, outcome in outcomes("one host 20 times worse")]
    assert all(aside in {(bad_host,), ()} for bad_host, aside in blamed)
    assert sum(aside != () for _, aside in blamed) >= ROLLOUTS * 0.9


def test_silent_hosts_hold_the_rollout() -> None:
    """None never promotes."""
    assert ends("all updated hosts silent, 20 times worse") == {"held": ROLLOUTS}


def test_the_other_rules_do_what_they_are_known_for() -> None:
    """So that the table compares with the real things: z-scores of single points stop good builds."""
    assert ends("good build", "z > 3")["done"] < ROLLOUTS * 0.6
    assert ends("good build", "Mann-Whitney")["done"] >= ROLLOUTS * 0.9


def test_mann_whitney_needs_a_shift() -> None:
    """Equal and constant series are none; a clear one is found, in one direction."""
    quiet = [float(number % 7) for number in range(50)]
    loud = [each + 5.0 for each in quiet]
    assert is_shifted_up(loud, quiet)
    assert not is_shifted_up(quiet, loud)
    assert not is_shifted_up(quiet, quiet)
    assert not is_shifted_up([0.0] * 50, [0.0] * 50)


def test_simulated_counts_have_the_mean_that_was_asked_for() -> None:
    """Small and large ones."""
    chance = random.Random(1)
    for mean in (0.01, 3.0, 700.0):
        draws = [poisson(chance, mean) for _ in range(3_000)]
        assert sum(draws) / 3_000 == pytest.approx(mean, rel=0.05, abs=0.01)
        variance = sum((each - mean) ** 2 for each in draws) / 3_000
        assert variance == pytest.approx(mean, rel=0.15, abs=0.01)


def test_the_page_has_the_table_that_was_kept() -> None:
    """`python -m benchmarks.bench_verdicts --write` makes it so; it keeps the promise in a thousand rollouts."""
    result = kept()
    page = VERDICTS_PAGE.read_text()
    assert refreshed(page, result) == page
    assert result.rollouts >= 1000
    for row in result.rows:
        if row.rule == "hotcold" and not NAMED[row.scenario].is_bad and not NAMED[row.scenario].is_blind:
            assert row.rolled_back + row.paused + row.held <= result.rollouts * 0.01


def test_the_table_counts_what_happened() -> None:
    """Ends add up to all rollouts, and each has its row."""
    made = [outcomes("good build", rule, 3) for rule in RULES]
    rows = tuple(
        summary(scenario, rule, runs) for scenario in SCENARIOS for rule, runs in zip(RULES, made, strict=True)
    )
    for row in rows:
        assert row.rolled_back + row.paused + row.held + row.weakly + row.done == 3
    assert sum(line.startswith("| good build") for line in grids(Safety(rollouts=3, rows=rows))) == 1
