"""The rules of a correct blocking query, each alone."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.watch_rules import (
    BACKOFF_CAP_S,
    BURST_COUNT,
    IDLE_BACKOFF_CAP_S,
    RATE_PER_S,
    Watching,
    answered,
    backoff_ceiling_s,
    failed,
    idle_pause_s,
    take_turn,
)

WAIT_S = 60.0
SETTLED = Watching(index=7, seen=b"a")


def after(state: Watching, index: int, contents: bytes | None = b"a", elapsed_s: float = WAIT_S) -> Watching:
    return answered(state, index=index, contents=contents, elapsed_s=elapsed_s, wait_s=WAIT_S)[0]


def is_news(state: Watching, contents: bytes | None) -> bool:
    return answered(state, index=8, contents=contents, elapsed_s=1.0, wait_s=WAIT_S)[1]


def test_the_first_question_does_not_block() -> None:
    assert Watching().index is None


def test_the_first_answer_is_news_even_if_there_is_no_key() -> None:
    assert is_news(Watching(), None)
    assert is_news(Watching(), b"")


def test_only_other_contents_are_news() -> None:
    assert not is_news(SETTLED, b"a")
    assert is_news(SETTLED, b"b")
    assert is_news(SETTLED, None)
    assert not is_news(replace(SETTLED, seen=None), None)


@pytest.mark.parametrize("returned", [-5, 0])
def test_an_index_below_one_is_asked_as_one_because_zero_would_not_block(returned: int) -> None:
    assert after(Watching(), returned).index == 1


def test_the_index_that_came_is_the_next_to_send() -> None:
    assert after(Watching(), 12).index == 12
    assert after(SETTLED, 12, b"b", elapsed_s=1.0).index == 12


def test_an_index_that_went_backwards_is_dropped() -> None:
    """Even after a full wait: it belongs to a restored snapshot or another cluster."""
    assert after(SETTLED, 6).index is None
    assert after(SETTLED, 0).index is None


def test_the_same_index_before_the_wait_is_over_is_read_again_once_without_it() -> None:
    """A restored snapshot wakes the watch with the answer from before it."""
    again = after(SETTLED, 7, elapsed_s=WAIT_S - 1)
    assert again.index is None
    assert after(again, 7, elapsed_s=0.01).index == 7


def test_the_same_index_after_the_whole_wait_is_kept() -> None:
    assert after(SETTLED, 7, elapsed_s=WAIT_S).index == 7


def test_a_failure_drops_the_index_and_keeps_what_was_seen() -> None:
    state = failed(SETTLED)
    assert (state.index, state.seen) == (None, b"a")
    assert not is_news(state, b"a")


def test_back_off_doubles_up_to_its_cap_for_ever_and_ends_with_an_answer() -> None:
    state = Watching()
    assert backoff_ceiling_s(state) == 0.0
    ceilings = []
    for _ in range(5000):
        state = failed(state)
        ceilings.append(backoff_ceiling_s(state))
    assert ceilings[:3] == [0.5, 1.0, 2.0]
    assert set(ceilings[8:]) == {BACKOFF_CAP_S}
    assert backoff_ceiling_s(after(state, 1)) == 0.0


def test_wake_ups_for_nothing_slow_down_and_news_or_a_quiet_wait_speed_up_again() -> None:
    """Where the key does not exist, every write to any key wakes the watch."""
    state = SETTLED
    pauses = []
    for index in range(8, 30):
        state = after(state, index, elapsed_s=0.01)
        pauses.append(idle_pause_s(state))
    assert pauses[:BURST_COUNT] == [0.0] * BURST_COUNT
    assert pauses[BURST_COUNT:] == sorted(pauses[BURST_COUNT:])
    assert pauses[-1] == IDLE_BACKOFF_CAP_S

    assert idle_pause_s(after(state, 40, b"b", elapsed_s=0.01)) == 0.0
    assert idle_pause_s(after(state, 40, elapsed_s=WAIT_S)) == 0.0


def test_plain_questions_between_wake_ups_for_nothing_do_not_speed_up() -> None:
    """A server that always returns early with the same index would otherwise be asked at the full rate for ever."""
    state = SETTLED
    for _ in range(20):
        state = after(after(state, 7, elapsed_s=0.01), 7, elapsed_s=0.01)
    assert idle_pause_s(state) == IDLE_BACKOFF_CAP_S


@pytest.mark.parametrize("rate_per_s", [RATE_PER_S, 8.0])
def test_a_burst_is_free_then_turns_come_at_the_rate(rate_per_s: float) -> None:
    state = Watching()
    delays = []
    for _ in range(BURST_COUNT + 3):
        state, delay_s = take_turn(state, 100.0, rate_per_s)
        delays.append(delay_s)
    assert delays == [0.0] * BURST_COUNT + [1 / rate_per_s, 2 / rate_per_s, 3 / rate_per_s]

    state, delay_s = take_turn(state, 100.0 + 60.0, rate_per_s)
    assert delay_s == 0.0
    assert state.tokens == BURST_COUNT - 1


@given(st.lists(st.floats(0, 10), min_size=1, max_size=200))
def test_never_more_questions_than_burst_and_rate_allow(gaps: list[float]) -> None:
    state, now_s, asked = Watching(), 0.0, []
    for gap in gaps:
        now_s += gap
        state, delay_s = take_turn(state, now_s)
        now_s += delay_s
        asked.append(now_s)
    for first, start_s in enumerate(asked):
        within = sum(1 for at_s in asked[first:] if at_s < start_s + 10.0)
        assert within <= BURST_COUNT + 10.0 * RATE_PER_S + 1


@given(
    st.lists(
        st.one_of(st.none(), st.tuples(st.integers(-3, 10), st.sampled_from([None, b"a", b"b"]), st.floats(0.0, 70.0))),
        max_size=60,
    )
)
def test_whatever_the_server_does_the_reader_knows_the_last_contents(events: list) -> None:
    state, told = Watching(), []
    for event in events:
        if event is None:
            state = failed(state)
            assert state.index is None
            continue
        index, contents, elapsed_s = event
        state, news = answered(state, index=index, contents=contents, elapsed_s=elapsed_s, wait_s=WAIT_S)
        if news:
            told.append(contents)
        assert told[-1] == contents
        assert state.index is None or state.index >= 1
    assert all(one != other for one, other in itertools.pairwise(told))
