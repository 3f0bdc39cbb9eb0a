"""Verdicts: what each situation leads to, and that its reason says so."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoint.verdicts import (
    SEVERITY,
    Action,
    Counts,
    Evidence,
    History,
    Interval,
    Metric,
    Outcome,
    Verdict,
    combine,
    judge,
    next_step,
    set_aside,
)
from checkpoint.verdicts.metric import ReportsTable
from checkpoint.verdicts.wording import as_number

METRIC = Metric(name="errors", reports=ReportsTable())
TEN_OTHERS = tuple(Counts(f"old-{number}", 1.0, 600.0) for number in range(10))


def updated(*bad: float, total: float = 600.0) -> tuple[Counts, ...]:
    return tuple(Counts(f"new-{number}", each, total) for number, each in enumerate(bad))


def after(
    tape: Iterable[Interval],
    *,
    metric: Metric = METRIC,
    history: History | None = None,
    evidence: Evidence | None = None,
    among: int = 1,
) -> tuple[Evidence, Verdict]:
    """Evidence and verdict after all of them."""
    evidence = evidence or Evidence()
    verdict = Verdict(outcome="none", action="wait", reason="")
    for interval in tape:
        evidence, verdict = judge(metric, evidence, interval, history=history, among=among)
    return evidence, verdict


GOOD = Interval(updated=updated(1, 1), others=TEN_OTHERS)
BAD = Interval(updated=updated(9, 11), others=TEN_OTHERS)


def test_a_good_build_passes_once_enough_was_seen() -> None:
    """Not at once: two failures are to be expected in an interval, and three are needed."""
    _, first = after([GOOD])
    assert (first.outcome, first.action) == ("none", "wait")
    assert "2 failures to expect" in first.reason

    _, second = after([GOOD] * 2)
    assert (second.outcome, second.action, second.is_weak) == ("pass", "go", False)
    assert second.reason.startswith(
        "updated hosts: 4 bad of 2 400; others: 20 of 12 000; expected on updated 4: 1 times"
    )


def test_a_bad_build_is_rolled_back_with_the_counts() -> None:
    """Both hosts agree."""
    _, verdict = after([BAD])
    assert (verdict.outcome, verdict.action, verdict.host) == ("fail", "roll_back", None)
    assert verdict.reason.startswith(
        "updated hosts: 20 bad of 1 200; others: 10 of 6 000; expected on updated 2: 10 times"
    )
    assert "without any one host still" in verdict.reason
    assert verdict.log10_evidence > verdict.log10_without >= 2


def test_one_bad_host_among_several_is_blamed_instead_of_the_build() -> None:
    """As soon as the others have shown that they are well. One interval alone says little, in either direction."""
    sick = Interval(updated=updated(12, 1, 1, 1), others=TEN_OTHERS)
    actions = [after([sick] * number)[1].action for number in range(1, 8)]
    assert actions == ["go", "wait", *["set_aside_host"] * 5]

    evidence, verdict = after([sick] * 7)
    assert (verdict.outcome, verdict.host) == ("fail", "new-0")
    assert "new-0 alone has 84 of the failures" in verdict.reason

    _, without = after([sick], evidence=set_aside(evidence, "new-0"))
    assert (without.outcome, without.action) == ("pass", "go")


def test_no_more_hosts_are_blamed_than_allowed() -> None:
    """When the second one fails, too, it is for people."""
    evidence, _ = after([Interval(updated=updated(12, 1, 1, 1), others=TEN_OTHERS)] * 7)
    next_sick = Interval(updated=updated(12, 12, 1, 1), others=TEN_OTHERS)
    _, verdict = after([next_sick] * 10, evidence=set_aside(evidence, "new-0"))
    assert (verdict.action, verdict.host) == ("pause", None)
    assert "no more hosts may be set aside" in verdict.reason


def test_a_single_host_pauses_only() -> None:
    """Whether build or host is bad cannot be known."""
    _, verdict = after([Interval(updated=updated(30), others=TEN_OTHERS)])
    assert (verdict.outcome, verdict.action) == ("fail", "pause")
    assert "cannot be told apart" in verdict.reason


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_one_host_alone_never_rolls_back(shares: list[float]) -> None:
    """Whatever it does, and for how long, while the others have no failure."""
    evidence = Evidence()
    for share in shares:
        interval = Interval(updated=updated(round(600 * share), 0, 0), others=TEN_OTHERS)
        evidence, verdict = judge(METRIC, evidence, interval)
        assert verdict.action != "roll_back"


def test_a_common_outage_is_nobodys_fault() -> None:
    """Fifty times as many failures, on both sides."""
    outage = Interval(updated=updated(50, 51), others=tuple(Counts(each.host, 50.0, each.total) for each in TEN_OTHERS))
    _, verdict = after([GOOD] * 3 + [outage] * 10)
    assert (verdict.outcome, verdict.action) == ("pass", "go")


@pytest.mark.parametrize(
    ("interval", "told"),
    [
        (Interval(problem="Prometheus gave no answer within 10 s"), "Prometheus gave no answer within 10 s"),
        (Interval(updated=updated(-1)), "new-0: bad -1 of 600 is negative"),
        (Interval(updated=(Counts("a", float("nan"), 1.0),)), "a: bad nan of 1 is no number"),
        (Interval(updated=(Counts("a", 0.0, float("inf")),)), "a: bad 0 of inf is no number"),
        (Interval(updated=(Counts("a", 2.0, 1.0),)), "a: 2 bad are more than the total of 1"),
        (Interval(updated=(Counts("a", 0.0, 1.0),), others=(Counts("a", 0.0, 1.0),)), "a is counted twice"),
        (Interval(updated=(Counts("a", 0.0, 1.0),), silent=("a",)), "a is counted twice"),
    ],
)
def test_what_cannot_be_true_is_told_and_changes_no_evidence(interval: Interval, told: str) -> None:
    """None, and never a pass, however good everything was until now."""
    before, passed = after([GOOD] * 5)
    assert passed.outcome == "pass"
    evidence, verdict = judge(METRIC, before, interval)
    assert (verdict.outcome, verdict.action) == ("none", "wait")
    assert told in verdict.reason
    assert evidence == msgspec.structs.replace(before, quiet_intervals=0, unsound_intervals=1)


def test_grave_evidence_stays_when_the_source_falls_silent() -> None:
    """A build that takes its own metrics down is not forgiven for it."""
    evidence, _ = after([BAD] * 3)
    _, verdict = judge(METRIC, evidence, Interval(problem="gone"))
    assert verdict.action == "roll_back"


def test_bad_of_more_than_the_total_is_allowed_of_a_rate() -> None:
    """Failures per host-second are not a share; but failures of nothing are none either."""
    rate = Metric(name="crashes", kind="rate", reports=ReportsTable())
    _, verdict = judge(rate, Evidence(), Interval(updated=(Counts("a", 5.0, 1.0),), others=(Counts("b", 5.0, 1.0),)))
    assert "no verdict" not in verdict.reason
    _, verdict = judge(rate, Evidence(), Interval(updated=(Counts("a", 5.0, 0.0),)))
    assert "5 bad of nothing" in verdict.reason


def test_too_many_silent_hosts_hold() -> None:
    """They are named, with what is known of why."""
    blind = Interval(
        updated=updated(1, 1, 1), others=TEN_OTHERS, silent=("mute-1",), notes=("mute-1: its counter was reset",)
    )
    _, verdict = after([blind] * 20)
    assert (verdict.outcome, verdict.action) == ("none", "wait")
    assert "1 of 4 updated hosts are silent: mute-1; mute-1: its counter was reset" in verdict.reason

    _, allowed = after([blind] * 20, metric=msgspec.structs.replace(METRIC, max_silent=0.25))
    assert allowed.outcome == "pass"


def test_nothing_known_of_updated_hosts_is_none() -> None:
    """No data is no success."""
    for interval in (Interval(), Interval(others=TEN_OTHERS), Interval(updated=updated(0, total=0), others=TEN_OTHERS)):
        _, verdict = after([interval] * 30)
        assert (verdict.outcome, verdict.action) == ("none", "wait")


def test_sparse_traffic_passes_by_quiet_intervals_only() -> None:
    """Fifteen in a row without a failure; one failure begins the count anew, in the step."""
    quiet = Interval(updated=updated(0, total=20), others=(Counts("old", 0.0, 20.0),))
    noisy = Interval(updated=updated(1, total=20), others=(Counts("old", 0.0, 20.0),))
    outcomes = [after([quiet] * number)[1].outcome for number in (1, 14, 15)]
    assert outcomes == ["none", "none", "pass"]
    evidence, verdict = after([quiet] * 14 + [noisy] + [quiet] * 14)
    assert verdict.outcome == "none"
    assert "15 quiet intervals (14 so far)" in verdict.reason
    assert after([quiet], evidence=evidence)[1].outcome == "pass"
    assert after([quiet], evidence=next_step(evidence))[1].outcome == "none"


def test_gathering_evidence_waits() -> None:
    """Between the lines nobody is promoted, though nobody is stopped."""
    _, verdict = after([Interval(updated=updated(5, 6), others=TEN_OTHERS)])
    assert 1 <= verdict.log10_evidence < 2
    assert (verdict.outcome, verdict.action) == ("none", "wait")
    assert "waiting for more" in verdict.reason


def test_lines_rise_with_the_number_of_metrics() -> None:
    """So that ten metrics stop no more good rollouts than one."""
    interval = Interval(updated=updated(8, 7), others=TEN_OTHERS)
    assert after([interval])[1].outcome == "fail"
    assert after([interval], among=10)[1].outcome == "none"


PAST = History({f"host-{number}": (100.0, 60_000.0) for number in range(12)})


def test_without_other_hosts_the_past_is_the_control_and_the_verdict_weak() -> None:
    """At 100 percent: a pass says so, and a failure pauses at most."""
    _, good = after([Interval(updated=updated(1, 1))] * 5, history=PAST)
    assert (good.outcome, good.is_weak) == ("pass", True)
    assert good.reason.endswith("weak: compared with the past")

    _, bad = after([Interval(updated=updated(20, 20))] * 5, history=PAST)
    assert (bad.outcome, bad.action, bad.is_weak) == ("fail", "pause", True)
    assert bad.reason.startswith("compared with the past alone: updated hosts: 200 bad of 6 000")


def test_without_others_and_without_a_past_there_is_no_verdict() -> None:
    """Nothing to compare with."""
    _, verdict = after([Interval(updated=updated(1, 1))] * 30)
    assert (verdict.outcome, verdict.action) == ("none", "wait")
    assert "neither another host nor a history" in verdict.reason


def test_unequal_hosts_are_weighed_by_their_past() -> None:
    """The two updated hosts were always ten times worse: that is no news, unless weights are off."""
    past = History(
        {f"new-{number}": (1_000.0, 100_000.0) for number in range(2)}
        | {each.host: (100.0, 100_000.0) for each in TEN_OTHERS}
    )
    tape = [Interval(updated=updated(10, 10), others=TEN_OTHERS)] * 4
    assert after(tape, history=past)[1].outcome == "pass"
    unweighted = msgspec.structs.replace(METRIC, weights="none")
    assert after(tape, history=past, metric=unweighted)[1].action == "roll_back"


def test_a_limit_needs_no_other_hosts() -> None:
    """Deploys: two of fifty may fail. A few failures in many are within it, one bad host is not the build."""
    deploys = Metric(name="deploys", limit=0.02, quiet_intervals=2, reports=ReportsTable())

    def tried(*bad: int) -> Interval:
        return Interval(updated=updated(*bad, total=1))

    assert after([tried(*[0] * 30), tried(*[0] * 30)], metric=deploys)[1].outcome == "pass"
    assert after([tried(1, *[0] * 49)], metric=deploys)[1].outcome == "none"
    assert after([tried(1)], metric=deploys)[1].outcome == "none"
    assert after([tried(1, 1, 1, 1)], metric=deploys)[1].action == "roll_back"


@pytest.mark.parametrize(
    ("value", "words"),
    [(1e-9, "below 0.01"), (0.5, "0.5"), (3.14159, "3.1"), (250.4, "250"), (999_999.0, "999999"), (1.7e18, "1.7·10¹⁸")],
)
def test_numbers_read_well(value: float, words: str) -> None:
    """From hardly anything to astronomic."""
    assert as_number(math.log(value)) == words


OUTCOME_OF: dict[Action, Outcome] = {
    "go": "pass",
    "wait": "none",
    "set_aside_host": "fail",
    "pause": "fail",
    "roll_back": "fail",
}
verdicts = st.sampled_from(SEVERITY).map(
    lambda action: Verdict(
        outcome=OUTCOME_OF[action],
        action=action,
        reason=f"because of {action}",
        metric=action,
        host="h1" if action == "set_aside_host" else None,
    )
)


@settings(deadline=None)
@given(st.lists(verdicts, min_size=1, max_size=5))
def test_combined_it_is_the_gravest_and_passes_only_if_all_do(several: list[Verdict]) -> None:
    """In any order; and every reason that counts is said."""
    combined = combine(several)
    assert SEVERITY.index(combined.action) == max(SEVERITY.index(each.action) for each in several)
    assert (combined.outcome == "pass") == all(each.outcome == "pass" for each in several)
    assert (combined.action == "go") == (combined.outcome == "pass")
    for each in several:
        assert (each.reason in combined.reason) == (each.outcome == combined.outcome)
    for mixed in itertools.islice(itertools.permutations(several), 6):
        assert combine(mixed).action == combined.action


def test_no_metric_is_no_pass() -> None:
    """A rollout without metrics is not promoted by verdicts."""
    assert (combine([]).outcome, combine([]).action) == ("none", "wait")
