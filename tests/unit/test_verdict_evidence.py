"""Evidence: what an interval adds, that it can be stored, that no order matters, and what it means without a host."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifact import Refused
from checkpoint.verdicts import (
    Counts,
    Evidence,
    History,
    Interval,
    Metric,
    decode_evidence,
    encode_evidence,
    judge,
    next_step,
    set_aside,
    take_back,
    with_interval,
    z_scores,
)
from checkpoint.verdicts.eprocess import FACTORS, NO_EVIDENCE, compared, fresh_trust, log_evidence, upper_rate
from checkpoint.verdicts.evidence import SLOTS
from checkpoint.verdicts.metric import ReportsTable

METRIC = Metric(name="errors", reports=ReportsTable())

counts = st.tuples(st.integers(0, 4), st.integers(0, 300)).map(lambda pair: (float(pair[0]), float(sum(pair))))


def side(prefix: str, values: list[tuple[float, float]]) -> tuple[Counts, ...]:
    return tuple(Counts(f"{prefix}-{number}", *value) for number, value in enumerate(values))


intervals = st.builds(
    lambda updated, others: Interval(updated=side("new", updated), others=side("old", others)),
    st.lists(counts, max_size=4),
    st.lists(counts, max_size=5),
)
histories = st.none() | st.builds(
    History, st.dictionaries(st.sampled_from(["new-0", "new-1", "old-0", "old-1"]), counts, max_size=4)
)


@settings(deadline=None)
@given(st.lists(intervals, max_size=8), histories)
def test_a_new_leader_goes_on_exactly(tape: list[Interval], history: History | None) -> None:
    """Stored as JSON and read again after every interval: the same evidence and the same verdicts, to the last bit."""
    straight = resumed = Evidence()
    for interval in tape:
        straight, verdict = judge(METRIC, straight, interval, history=history)
        resumed, again = judge(METRIC, decode_evidence(encode_evidence(resumed)), interval, history=history)
        assert (resumed, again) == (straight, verdict)


@settings(deadline=None)
@given(st.lists(intervals, max_size=6), histories, st.randoms(use_true_random=False))
def test_order_of_hosts_in_an_interval_does_not_matter(
    tape: list[Interval], history: History | None, chance: random.Random
) -> None:
    """A source may name them as it likes."""
    plain = shuffled = Evidence()
    for interval in tape:
        mixed = msgspec.structs.replace(
            interval,
            updated=tuple(chance.sample(interval.updated, len(interval.updated))),
            others=tuple(chance.sample(interval.others, len(interval.others))),
        )
        plain, verdict = judge(METRIC, plain, interval, history=history)
        shuffled, other = judge(METRIC, shuffled, mixed, history=history)
        assert (shuffled, other) == (plain, verdict)


@settings(deadline=None)
@given(st.lists(intervals, min_size=1, max_size=6))
def test_evidence_without_a_host_is_what_it_would_be_had_the_host_not_been_there(tape: list[Interval]) -> None:
    """Never above it, and where the host failed from the first interval on, just it."""
    evidence = Evidence()
    for interval in tape:
        evidence, _ = judge(METRIC, evidence, interval)
    for slot in evidence.without:
        absent = Evidence()
        for interval in tape:
            rest = tuple(each for each in interval.updated if each.host != slot.host)
            absent, _ = judge(METRIC, absent, msgspec.structs.replace(interval, updated=rest))
        assert all(one <= other + 1e-9 for one, other in zip(slot.sums, absent.sums, strict=True))
        first = next((each for each in tape[0].updated if each.host == slot.host), None)
        if first is not None and first.bad > 0 and any(each.total > 0 for each in tape[0].others):
            assert slot.sums == pytest.approx(absent.sums)


@settings(deadline=None)
@given(
    bad=st.integers(0, 50),
    more=st.integers(1, 5),
    other_bad=st.integers(0, 50),
    exposure=st.floats(1, 1e6),
    other_exposure=st.floats(1, 1e6),
)
def test_more_failures_on_updated_hosts_are_more_evidence(
    bad: int, more: int, other_bad: int, exposure: float, other_exposure: float
) -> None:
    """And more on the others, or more requests on the updated ones, are less."""

    def of(*, plus: int = 0, other_plus: int = 0, times: float = 1.0) -> float:
        return log_evidence(
            compared(
                NO_EVIDENCE,
                bad=bad + plus,
                exposure=exposure * times,
                other_bad=other_bad + other_plus,
                other_exposure=other_exposure,
                tolerance=1.5,
            )
        )

    assert of(plus=more) >= of()
    assert of(other_plus=more) <= of()
    assert of(times=2.0) <= of()


def test_the_sums_are_the_likelihood_ratio_of_the_binomial() -> None:
    """Computed from the definition, for every factor."""
    bad, exposure, other_bad, other_exposure, tolerance = 7.0, 900.0, 3.0, 8_000.0, 1.5
    sums = compared(
        NO_EVIDENCE,
        bad=bad,
        exposure=exposure,
        other_bad=other_bad,
        other_exposure=other_exposure,
        tolerance=tolerance,
    )

    def share(ratio: float) -> float:
        return ratio * exposure / (ratio * exposure + other_exposure)

    null = share(tolerance)
    for total, factor in zip(sums, FACTORS, strict=True):
        worse = share(tolerance * factor)
        expected = bad * math.log(worse / null) + other_bad * math.log((1 - worse) / (1 - null))
        assert total - math.log(0.5) == pytest.approx(expected)


def test_all_trust_together_is_one() -> None:
    """Else false alarms would be more than promised."""
    assert sum(map(fresh_trust, range(10**6))) == pytest.approx(0.5, abs=1e-4)


def test_an_hour_without_failures_does_not_hide_what_comes_after() -> None:
    """A build that leaks for two hours, and then fails ten times as often, is stopped within minutes."""
    well = Interval(updated=(Counts("a", 1.0, 600.0), Counts("b", 1.0, 600.0)), others=(Counts("c", 5.0, 3_000.0),))
    sick = msgspec.structs.replace(well, updated=(Counts("a", 10.0, 600.0), Counts("b", 10.0, 600.0)))
    evidence = Evidence()
    for _ in range(120):
        evidence, verdict = judge(METRIC, evidence, well)
    assert verdict.action == "go"
    actions = []
    for _ in range(3):
        evidence, verdict = judge(METRIC, evidence, sick)
        actions.append(verdict.action)
    assert actions[-1] == "roll_back"


def test_nothing_is_learnt_without_exposure_on_both_sides() -> None:
    """Whatever one side did."""
    for exposure, other_exposure in ((0.0, 10.0), (10.0, 0.0)):
        sums = compared(NO_EVIDENCE, bad=5, exposure=exposure, other_bad=5, other_exposure=other_exposure, tolerance=1)
        assert sums == NO_EVIDENCE


@pytest.mark.parametrize(
    ("bad", "quantile"),
    [(0, 5.298317), (1, 7.430130), (10, 21.398202), (100, 129.296)],
)
def test_upper_rate_is_the_gamma_quantile(bad: float, quantile: float) -> None:
    """Within 2 percent of chi-square's 99.5 percent quantile for 2(n+1) degrees, halved."""
    assert upper_rate(bad, 1.0) == pytest.approx(quantile, rel=0.02)


@pytest.mark.parametrize(("worse", "level"), [(1.0, 0.01), (1.5, 0.01)])
def test_false_alarms_are_rarer_than_promised_however_often_one_looks(worse: float, level: float) -> None:
    """2,000 rollouts of a build that is just tolerable, looked at after each of 120 intervals; rates sway in common."""
    chance = random.Random(20261124)
    alarms = 0
    for _ in range(2_000):
        sums = NO_EVIDENCE
        for number in range(120):
            rate = 0.4 * math.exp(chance.gauss(0, 0.7))
            bad, other_bad = _poisson(chance, rate * worse), _poisson(chance, rate * 9)
            sums = compared(
                sums,
                bad=bad,
                exposure=1,
                other_bad=other_bad,
                other_exposure=9,
                tolerance=1.5,
                fresh=fresh_trust(number),
            )
            if log_evidence(sums) >= math.log(1 / level):
                alarms += 1
                break
    assert alarms / 2_000 <= level


def test_common_failures_make_no_false_alarms_either() -> None:
    """Where a third of all requests fails, counts are no rare events; the line still holds."""
    chance = random.Random(5)
    alarms = 0
    for _ in range(300):
        evidence = Evidence()
        for _ in range(40):
            interval = Interval(
                updated=tuple(Counts(f"n{n}", float(sum(chance.random() < 0.33 for _ in range(20))), 20) for n in "ab"),
                others=tuple(Counts(f"o{n}", float(sum(chance.random() < 0.33 for _ in range(20))), 20) for n in "abc"),
            )
            evidence, verdict = judge(METRIC, evidence, interval)
            if verdict.outcome == "fail":
                alarms += 1
                break
    assert alarms <= 3


def _poisson(chance: random.Random, mean: float) -> int:
    count, limit, product = 0, math.exp(-mean), chance.random()
    while product > limit:
        count += 1
        product *= chance.random()
    return count


def test_evidence_stays_small_with_thousands_of_failing_hosts() -> None:
    """So that it fits into a key; hosts beyond the first share slots, and the build is blamed, not a host."""
    evidence = Evidence()
    for number in range(20):
        interval = Interval(
            updated=tuple(Counts(f"a-rather-long-host-name-{host}", 1.0 + number % 3, 977.0) for host in range(2_000)),
            others=tuple(Counts(f"other-{host}", 0.0, 977.0) for host in range(500)),
        )
        evidence, verdict = judge(METRIC, evidence, interval)
    assert verdict.action == "roll_back"
    assert len(evidence.without) == SLOTS
    assert len(encode_evidence(evidence)) < 16 * 1024


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_a_shared_slot_names_a_host_only_if_it_has_half_of_the_failures(seed: int) -> None:
    """The suspect of a slot that says `is_of_one_host` has at least half of its failures."""
    chance = random.Random(seed)
    evidence, failures = Evidence(), dict.fromkeys((f"h{number}" for number in range(100)), 0.0)
    heavy = chance.choice(list(failures))
    for _ in range(5):
        updated = tuple(
            Counts(host, float(chance.randrange(3) + (9 if host == heavy else 0)), 100.0) for host in failures
        )
        for each in updated:
            failures[each.host] += each.bad
        evidence, _ = judge(METRIC, evidence, Interval(updated=updated, others=(Counts("old", 1.0, 10_000.0),)))
    assert sum(slot.bad for slot in evidence.without) <= sum(failures.values())
    for slot in evidence.without:
        if slot.is_of_one_host:
            assert failures[slot.suspect] * 2 >= slot.bad


def test_a_host_that_was_set_aside_counts_no_more() -> None:
    """Its failures leave the evidence, later ones are not seen; taken back, it counts from then on."""
    sick = Interval(
        updated=(Counts("a", 0.0, 600.0), Counts("b", 9.0, 600.0)),
        others=tuple(Counts(f"o{number}", 0.0, 600.0) for number in range(8)),
    )
    evidence, _ = judge(METRIC, Evidence(), sick)
    aside = set_aside(evidence, "b")
    assert (aside.updated_bad, aside.updated_total) == (0.0, 600.0)
    assert log_evidence(aside.sums) <= 0 < math.log(100) < log_evidence(evidence.sums)
    assert set_aside(aside, "b") == aside

    later, _ = judge(METRIC, aside, sick)
    assert later.updated_bad == 0.0
    assert log_evidence(later.sums) < 0
    back, _ = judge(METRIC, take_back(later, "b"), sick)
    assert back.updated_bad == 9.0


def test_a_step_keeps_evidence_and_begins_to_see_anew() -> None:
    """What a step has to see is seen on its own hosts."""
    evidence, _ = judge(
        METRIC, Evidence(), Interval(updated=(Counts("a", 1.0, 600.0),), others=(Counts("b", 0.0, 600.0),))
    )
    stepped = next_step(evidence)
    assert (stepped.sums, stepped.without, stepped.updated_bad) == (evidence.sums, evidence.without, 1.0)
    assert (stepped.step_total, stepped.step_expected, stepped.step_intervals, stepped.quiet_intervals) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b'{"v":2}', b'{"v":1,"sums":[0.0]}', b'{"v":1,"surprise":1}', b"\xff"],
)
def test_what_is_no_evidence_is_refused(data: bytes) -> None:
    """A verdict on half-understood evidence would be a guess."""
    with pytest.raises(Refused, match="evidence"):
        decode_evidence(data)


def test_history_sums_intervals_and_weighs_hosts() -> None:
    """A host that failed twice as often before may do so now; one without a past counts as the mean."""
    history = History({})
    for _ in range(100):
        interval = Interval(updated=(), others=(Counts("good", 1.0, 1000.0), Counts("sick", 4.0, 1000.0)))
        history = with_interval(history, interval)
    assert history.hosts == {"good": (100.0, 100_000.0), "sick": (400.0, 100_000.0)}
    weights = history.weights()
    assert weights["sick"] == pytest.approx(1.6, rel=0.05)
    assert weights["good"] == pytest.approx(0.4, rel=0.15)
    assert History({"idle": (0.0, 100.0)}).weights() == {}


def test_z_scores_are_for_charts() -> None:
    """None while there is no window, or no spread in it."""
    scores = z_scores([1.0, 3.0, 1.0, 3.0, 12.0, 2.0], 4)
    assert scores[:4] == (None,) * 4
    assert scores[4] == pytest.approx(10 / math.sqrt(4 / 3))
    assert z_scores([2.0, 2.0, 2.0, 5.0], 3)[-1] is None
