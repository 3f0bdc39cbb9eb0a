"""The bandwidth limit: however bytes come, no more than the rate passes, and a pause saves up a quarter of a second."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifact.pace import Pace


def test_without_a_rate_nobody_waits() -> None:
    pace = Pace(0)
    assert [pace.delay_s(1 << 30, now_s) for now_s in (0.0, 0.0, 5.0)] == [0.0, 0.0, 0.0]


def test_what_exceeds_the_first_quarter_second_waits_its_share() -> None:
    pace = Pace(1000)
    assert pace.delay_s(250, 100.0) == 0.0
    assert pace.delay_s(500, 100.0) == pytest.approx(0.5)
    assert pace.delay_s(100, 100.5) == pytest.approx(0.1)


def test_a_long_pause_saves_up_no_more_than_a_quarter_second() -> None:
    pace = Pace(1000)
    pace.delay_s(250, 0.0)
    assert pace.delay_s(1000, 1000.0) == pytest.approx(0.75)


@given(
    rate=st.integers(1, 1 << 30),
    parts=st.lists(st.tuples(st.integers(0, 1 << 20), st.floats(0, 3)), min_size=1, max_size=50),
)
def test_whoever_waits_as_told_never_exceeds_the_rate(rate: int, parts: list[tuple[int, float]]) -> None:
    """At each moment, all that came fits into the time since the beginning and the first quarter of a second."""
    pace, now_s, total = Pace(rate), 10.0, 0
    for count, pause_s in parts:
        total += count
        now_s += pace.delay_s(count, now_s)
        assert total <= rate * (now_s - 10.0 + 0.25) * (1 + 1e-9) + 1
        now_s += pause_s
