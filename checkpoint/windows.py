"""Owns when a tier may be deployed to: windows in their own time zones, holidays, freezes. Pure.

Reading them from a file is left to `checkpoint.pipeline`; what is done before they close, to `checkpoint.rollout`.

Local times are turned into instants so that in doubt a window is closed: where clocks go back and a time comes twice,
it opens at the second and closes at the first; where clocks go forward and a time is left out, it counts as the one an
hour later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

import msgspec

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with a zone, RFC 3339 in documents."""

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: Final[tuple[Day, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HORIZON_DAYS: Final = 60
"""How far ahead an opening is looked for."""

_FOREVER: Final = datetime(9999, 1, 1, tzinfo=UTC)
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Hours of the week in which tiers may be deployed to.

    Attributes:
        zone: IANA name.
        days: on which it opens.
        opens, closes: local times; `closes` at or before `opens` means the day after.
        tiers: for which it counts; none: all.
        holidays: local dates on which it does not open.
    """

    name: str
    zone: str
    days: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri")
    opens: time
    closes: time
    tiers: tuple[str, ...] = ()
    holidays: tuple[date, ...] = ()


class Freeze(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A span in which nothing starts, whatever the windows say. `tiers` empty: all."""

    reason: str
    begins: Moment
    ends: Moment
    tiers: tuple[str, ...] = ()


class Calendar(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All windows and freezes. A tier without windows is open but for freezes."""

    windows: tuple[Window, ...] = ()
    freezes: tuple[Freeze, ...] = ()


@dataclass(frozen=True)
class Span:
    """From `opens` until just before `closes`."""

    opens: datetime
    closes: datetime

    def holds(self, at: datetime, needed: timedelta) -> bool:
        """Whether work that begins at `at` ends before this closes."""
        return self.opens <= at and at + needed <= self.closes


def closing(calendar: Calendar, tier: str, at: datetime) -> datetime | None:
    """When the tier closes, None where it is closed at `at`. `datetime.max`-like times mean: not in sight."""
    return next((span.closes for span in open_spans(calendar, tier, at) if span.opens <= at < span.closes), None)


def is_endless(closes: datetime) -> bool:
    """Whether a closing time means that no closing is in sight."""
    return closes >= _FOREVER


def earliest(calendar: Calendar, tier: str, at: datetime, needed: timedelta) -> datetime | None:
    """The first time from `at` on at which work of that length would end before closing; None: none within 60 days."""
    for span in open_spans(calendar, tier, at):
        begins = max(at, span.opens)
        if span.holds(begins, needed):
            return begins
    return None


def freeze_at(calendar: Calendar, tier: str, at: datetime) -> Freeze | None:
    """The freeze that keeps the tier closed at `at`."""
    return next(
        (each for each in calendar.freezes if _counts(each.tiers, tier) and each.begins <= at < each.ends), None
    )


def longest(calendar: Calendar, tier: str, at: datetime) -> timedelta | None:
    """The longest span in the horizon; None where there is no window, or none that opens."""
    spans = [span.closes - span.opens for span in open_spans(Calendar(windows=calendar.windows), tier, at)]
    return max(spans, default=None)


def open_spans(calendar: Calendar, tier: str, at: datetime) -> tuple[Span, ...]:
    """The spans in which the tier is open that end after `at`, within the horizon, in order, none touching another."""
    windows = [window for window in calendar.windows if _counts(window.tiers, tier)]
    spans = [Span(_FIRST, _FOREVER)] if not windows else sorted(_of_windows(windows, at), key=lambda span: span.opens)
    whole: list[Span] = []
    for span in spans:
        if whole and span.opens <= whole[-1].closes:
            whole[-1] = Span(whole[-1].opens, max(whole[-1].closes, span.closes))
        else:
            whole.append(span)
    for freeze in calendar.freezes:
        if _counts(freeze.tiers, tier):
            whole = [part for span in whole for part in _without(span, freeze)]
    return tuple(span for span in whole if span.closes > at)


def _counts(tiers: Sequence[str], tier: str) -> bool:
    return not tiers or tier in tiers


def _of_windows(windows: Sequence[Window], at: datetime) -> Iterator[Span]:
    for window in windows:
        zone = _zone(window.zone)
        first = at.astimezone(zone).date() - timedelta(days=2)
        for number in range(HORIZON_DAYS):
            day = first + timedelta(days=number)
            if DAYS[day.weekday()] not in window.days or day in window.holidays:
                continue
            last = day if window.closes > window.opens else day + timedelta(days=1)
            opens = _instant(day, window.opens, zone, fold=1)
            closes = _instant(last, window.closes, zone, fold=0)
            if opens < closes:
                yield Span(opens, closes)


def _instant(day: date, at: time, zone: ZoneInfo, *, fold: int) -> datetime:
    local = datetime.combine(day, at.replace(tzinfo=None, fold=fold), zone)
    instant = local.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None, fold=0) != local.replace(tzinfo=None, fold=0):
        # A time that is left out: by the offset before the change it is the later instant, whatever `fold` asks.
        instant = local.replace(fold=0).astimezone(UTC)
    return instant


def _without(span: Span, freeze: Freeze) -> Iterator[Span]:
    before = Span(span.opens, min(span.closes, freeze.begins))
    after = Span(max(span.opens, freeze.ends), span.closes)
    yield from (part for part in (before, after) if part.opens < part.closes)


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
