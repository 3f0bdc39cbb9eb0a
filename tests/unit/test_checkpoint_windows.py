"""When a tier may be deployed to: zones, changes of clocks, holidays, freezes, and what must end before closing."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as some

from checkpoint.windows import DAYS, Calendar, Freeze, Window, closing, earliest, is_endless, longest, open_spans

BERLIN = ZoneInfo("Europe/Berlin")
OFFICE = Window(name="office", zone="Europe/Berlin", opens=time(9), closes=time(17))
HOUR = timedelta(hours=1)


def berlin(*parts: int, fold: int = 0) -> datetime:
    return datetime(*parts, tzinfo=BERLIN, fold=fold).astimezone(UTC)  # type: ignore[misc,arg-type]


def calendar(*windows: Window, freezes: tuple[Freeze, ...] = ()) -> Calendar:
    return Calendar(windows=windows or (OFFICE,), freezes=freezes)


@pytest.mark.parametrize(
    ("at", "closes"),
    [
        (berlin(2026, 11, 23, 9), berlin(2026, 11, 23, 17)),
        (berlin(2026, 11, 23, 8, 59), None),
        (berlin(2026, 11, 23, 16, 59), berlin(2026, 11, 23, 17)),
        (berlin(2026, 11, 23, 17), None),  # from then on it is closed
        (berlin(2026, 11, 21, 12), None),  # a Saturday
    ],
)
def test_office_hours(at: datetime, closes: datetime | None) -> None:
    assert closing(calendar(), "prod", at) == closes


def test_a_tier_without_windows_is_always_open() -> None:
    other = Window(name="w", zone="UTC", opens=time(1), closes=time(2), tiers=("prod",))
    closes = closing(calendar(other), "staging", berlin(2026, 11, 22, 3))
    assert closes is not None
    assert is_endless(closes)


def test_the_same_local_hours_before_and_after_a_change_of_clocks() -> None:
    """In October clocks go back between Saturday and Sunday: Monday opens an hour later in UTC."""
    assert earliest(calendar(), "prod", berlin(2026, 10, 23, 17), HOUR) == datetime(2026, 10, 26, 8, tzinfo=UTC)
    assert earliest(calendar(), "prod", berlin(2026, 10, 22, 17), HOUR) == datetime(2026, 10, 23, 7, tzinfo=UTC)


NIGHT = Window(name="night", zone="Europe/Berlin", days=DAYS, opens=time(1), closes=time(4))


def test_a_window_over_the_hour_that_is_left_out_is_an_hour_shorter() -> None:
    """29 March 2026: 02:00 becomes 03:00, so 01:00 to 04:00 lasts two hours."""
    [span] = open_spans(calendar(NIGHT), "prod", berlin(2026, 3, 29, 0, 30))[:1]
    assert span.closes - span.opens == 2 * HOUR
    assert earliest(calendar(NIGHT), "prod", berlin(2026, 3, 29, 1), 2.5 * HOUR) == berlin(2026, 3, 30, 1)


def test_a_window_over_the_hour_that_comes_twice_is_an_hour_longer() -> None:
    """25 October 2026: 03:00 becomes 02:00, so 01:00 to 04:00 lasts four hours."""
    [span] = open_spans(calendar(NIGHT), "prod", berlin(2026, 10, 25, 0, 30))[:1]
    assert span.closes - span.opens == 4 * HOUR


def test_in_doubt_a_window_is_closed() -> None:
    """02:30 comes twice: what opens then opens at the second, what closes then closes at the first."""
    opens = Window(name="opens", zone="Europe/Berlin", days=DAYS, opens=time(2, 30), closes=time(4))
    closes = Window(name="closes", zone="Europe/Berlin", days=DAYS, opens=time(1), closes=time(2, 30))
    at = berlin(2026, 10, 25, 0)
    assert open_spans(calendar(opens), "prod", at)[0].opens == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert open_spans(calendar(closes), "prod", at)[0].closes == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


def test_a_time_that_is_left_out_is_the_one_an_hour_later() -> None:
    """02:30 does not exist on 29 March: the window opens at 03:30."""
    window = Window(name="w", zone="Europe/Berlin", days=DAYS, opens=time(2, 30), closes=time(6))
    assert open_spans(calendar(window), "prod", berlin(2026, 3, 29, 0))[0].opens == berlin(2026, 3, 29, 3, 30)


def test_over_midnight_and_holidays() -> None:
    """A window belongs to the day on which it opens."""
    late = Window(
        name="late", zone="Europe/Berlin", days=("mon",), opens=time(22), closes=time(2), holidays=(date(2026, 11, 30),)
    )
    assert closing(calendar(late), "prod", berlin(2026, 11, 24, 1)) == berlin(2026, 11, 24, 2)
    assert closing(calendar(late), "prod", berlin(2026, 11, 23, 1)) is None
    assert earliest(calendar(late), "prod", berlin(2026, 11, 24, 3), HOUR) == berlin(2026, 12, 7, 22)


def test_a_freeze_closes_whatever_is_open() -> None:
    freeze = Freeze(reason="sale", begins=berlin(2026, 11, 23, 12), ends=berlin(2026, 11, 25, 12), tiers=("prod",))
    frozen = calendar(freezes=(freeze,))
    assert closing(frozen, "prod", berlin(2026, 11, 23, 11)) == berlin(2026, 11, 23, 12)
    assert closing(frozen, "prod", berlin(2026, 11, 24, 11)) is None
    assert closing(frozen, "canary", berlin(2026, 11, 24, 11)) == berlin(2026, 11, 24, 17)
    assert earliest(frozen, "prod", berlin(2026, 11, 23, 11, 30), HOUR) == berlin(2026, 11, 25, 12)


def test_windows_that_touch_are_one() -> None:
    morning = Window(name="m", zone="UTC", opens=time(8), closes=time(12))
    noon = Window(name="n", zone="UTC", opens=time(12), closes=time(13))
    both = calendar(morning, noon)
    assert closing(both, "prod", datetime(2026, 11, 23, 9, tzinfo=UTC)) == datetime(2026, 11, 23, 13, tzinfo=UTC)
    assert longest(both, "prod", datetime(2026, 11, 23, tzinfo=UTC)) == 5 * HOUR


def test_work_that_fits_nowhere_is_never_begun() -> None:
    assert earliest(calendar(), "prod", berlin(2026, 11, 23, 9), 9 * HOUR) is None


@given(
    at=some.integers(0, 366 * 1440).map(lambda minute: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)),
    zone=some.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]),
    opens=some.times(),
    closes=some.times(),
    minutes=some.integers(1, 600),
)
def test_what_is_begun_ends_before_closing(at: datetime, zone: str, opens: time, closes: time, minutes: int) -> None:
    """Wherever, and whatever clocks do: from the earliest time on the tier stays open for as long as was asked."""
    window = Window(name="w", zone=zone, days=DAYS, opens=opens, closes=closes)
    begins = earliest(calendar(window), "prod", at, timedelta(minutes=minutes))
    if begins is None:
        return
    assert begins >= at
    closed = closing(calendar(window), "prod", begins)
    assert closed is not None
    assert begins + timedelta(minutes=minutes) <= closed
    spans = open_spans(calendar(window), "prod", at)
    assert all(one.closes < other.opens for one, other in itertools.pairwise(spans))
