"""The rate of a fetch: over the last seconds, with a time left that can be believed."""

from agent.rate import Rate


def test_nothing_is_said_before_anything_is_known() -> None:
    rate = Rate()
    assert rate.bytes_per_s(1.0) is None
    rate.note(1.0, 100)
    assert rate.bytes_per_s(2.0) is None
    assert rate.left_s(2.0, 1000) is None


def test_the_rate_is_that_of_the_last_seconds() -> None:
    """A fast start long ago does not count, and a standstill shows."""
    rate = Rate()
    for second in range(20):
        rate.note(float(second), 1000 * second if second < 10 else 10_000 + 100 * (second - 10))
    assert rate.bytes_per_s(19.0) == 100.0
    assert rate.left_s(19.0, 500) == 5.0
    assert rate.bytes_per_s(24.0) == 50.0


def test_another_beginning_forgets_the_first() -> None:
    """The next url starts at nothing."""
    rate = Rate()
    rate.note(0.0, 0)
    rate.note(1.0, 5000)
    rate.note(2.0, 0)
    assert rate.bytes_per_s(2.0) is None
    rate.note(4.0, 20)
    assert rate.bytes_per_s(4.0) == 10.0
    assert rate.left_s(4.0, 0) == 0.0
