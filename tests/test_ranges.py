"""Ranges of time: what people write, what it means on a given day, and where a text goes wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist.config import Settings
from flask_bitmapist.periods import Grain
from flask_bitmapist.ranges import Range, RangeError

#: A Saturday.
NOW = datetime(2026, 11, 28, 15, 30)
ALL_TIME = "ever"


def bounds(text: str, now: datetime = NOW, zone: str = "UTC") -> tuple[str, str]:
    start, end = Range.parse(text).bounds(now, Settings(timezone=ZoneInfo(zone)).period)
    return (ALL_TIME if start is None else f"{start:%F %H}", f"{end:%F %H}")


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("last 14 days", "2026-11-15 00", "2026-11-29 00"),
        ("last 2 days", "2026-11-27 00", "2026-11-29 00"),
        ("today", "2026-11-28 00", "2026-11-29 00"),
        ("yesterday", "2026-11-27 00", "2026-11-28 00"),
        ("last 24 hours", "2026-11-27 16", "2026-11-28 16"),
        ("last 2 weeks", "2026-11-16 00", "2026-11-30 00"),
        ("this week", "2026-11-23 00", "2026-11-30 00"),
        ("last week", "2026-11-16 00", "2026-11-23 00"),
        ("last 3 months", "2026-09-01 00", "2026-12-01 00"),
        ("this month", "2026-11-01 00", "2026-12-01 00"),
        ("last month", "2026-10-01 00", "2026-11-01 00"),
        ("this quarter", "2026-10-01 00", "2027-01-01 00"),
        ("last quarter", "2026-07-01 00", "2026-10-01 00"),
        ("last 5 quarters", "2025-10-01 00", "2027-01-01 00"),
        ("this year", "2026-01-01 00", "2027-01-01 00"),
        ("last year", "2025-01-01 00", "2026-01-01 00"),
        ("2026", "2026-01-01 00", "2027-01-01 00"),
        ("2026-Q4", "2026-10-01 00", "2027-01-01 00"),
        ("2026-01", "2026-01-01 00", "2026-02-01 00"),
        ("2026-12", "2026-12-01 00", "2027-01-01 00"),
        ("2026-W53", "2026-12-28 00", "2027-01-04 00"),
        ("2027-W01", "2027-01-04 00", "2027-01-11 00"),
        ("2026-02-28", "2026-02-28 00", "2026-03-01 00"),
        ("2026-01 to 2026-03", "2026-01-01 00", "2026-04-01 00"),
        ("2026-01-15 to 2026-W05", "2026-01-15 00", "2026-02-02 00"),
        ("2025 to 2025", "2025-01-01 00", "2026-01-01 00"),
        ("since 2026-10", "2026-10-01 00", "2026-11-29 00"),
        ("before 2026-W02", ALL_TIME, "2026-01-05 00"),
        ("ever", ALL_TIME, "2026-11-29 00"),
    ],
)
def test_a_range_begins_and_ends(text: str, start: str, end: str) -> None:
    assert bounds(text) == (start, end)
    assert str(Range.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("  Last\t14 DAYS ", "last 14 days"),
        ("last 14 day", "last 14 days"),
        ("this day", "today"),
        ("last day", "yesterday"),
        ("2026-1", "2026-01"),
        ("2026-1-5", "2026-01-05"),
        ("2026-w5", "2026-W05"),
        ("q1 2026", "2026-Q1"),
        ("Jan 2026", "2026-01"),
        ("september 2026", "2026-09"),
        ("15 Jan 2026", "2026-01-15"),
        ("from 2026-01 to March 2026", "2026-01 to 2026-03"),
        ("since Q1 2026", "since 2026-Q1"),
    ],
)
def test_a_range_may_be_written_in_other_ways(text: str, same: str) -> None:
    assert str(Range.parse(text)) == same
    assert Range.parse(text) == Range.parse(same)


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 0, "a range of time is missing"),
        ("  soon", 2, "'soon' is no range of time: write it like 'last 30 days'"),
        ("last", 0, "'last' needs a unit"),
        ("last 14", 5, "14 of what?"),
        ("last 14 dayz", 8, "'dayz' is no unit of time: use hour, day, week"),
        ("last 14 days ago", 13, "'ago' is not expected after 'days'"),
        ("last 0 days", 0, "'last' takes 2 to 36,600 days, not 0"),
        ("last 1 month", 0, "write 'this month' or 'last month'"),
        ("  last 1 days", 2, "'last 1 day' may mean the present day or the one before it: write"),
        ("last 01 day", 0, "write 'today' or 'yesterday'"),
        ("last 1 hour", 0, "write 'this hour' or 'last hour'"),
        (" last 101 years", 1, "'last' takes 2 to 100 years, not 101"),
        ("last 99999999999 days", 0, "'last' takes 2 to 36,600 days"),
        ("last -3 days", 5, "'-3' is no unit of time"),
        ("last ٣ days", 5, "'٣' is no unit of time"),
        ("this 3 days", 5, "'3' is no unit of time"),
        ("ever since", 5, "'since' is not expected after 'ever'"),
        ("since", 5, "a date is missing after 'since'"),
        ("before tomorrow", 7, "'tomorrow' is no range of time"),
        ("2026-13", 0, "there is no '2026-13' in the calendar"),
        ("2026-01 to 2026-02-30", 11, "there is no '2026-02-30' in the calendar"),
        ("2025-W53", 0, "there is no '2025-w53' in the calendar"),
        ("2026-01 to", 10, "a date is missing after 'to'"),
        ("to 2026-01", 2, "a date is missing after 'to'"),
        ("from 2026-01", 0, "'from' needs an end"),
        ("2026-03 to 2026-01", 0, "the end, 2026-01, is before the start, 2026-03"),
        ("1926 to 2026", 0, "a range has at most 100 years"),
        ("0026-01", 0, "a year is from 1001 to 8999"),
        ("Foo 2026", 0, "'foo 2026' is no range of time"),
    ],
)
def test_an_error_points_at_the_character(text: str, position: int, reason: str) -> None:
    with pytest.raises(RangeError) as caught:
        Range.parse(text)
    assert caught.value.position == position
    assert reason in caught.value.reason


@pytest.mark.parametrize("nonsense", [None, 7, ["last month"]])
def test_only_texts_are_ranges(nonsense: Any) -> None:
    with pytest.raises(TypeError, match="a range of time is a str such as 'last 30 days'"):
        Range.parse(nonsense)


@pytest.mark.parametrize(
    ("text", "by", "first", "last"),
    [
        ("last 28 days", "day", "2026-11-01", "2026-11-28"),
        ("last 28 days", "week", "2026-10-26", "2026-11-23"),
        ("last 28 days", "year", "2026-01-01", "2026-01-01"),
        ("last month", "day", "2026-10-01", "2026-10-31"),
        ("last month", "week", "2026-09-28", "2026-10-26"),
        ("this month", "day", "2026-11-01", "2026-11-28"),
        ("this year", "month", "2026-01-01", "2026-11-01"),
        ("2026-10", "month", "2026-10-01", "2026-10-01"),
        ("since 2026-Q3", "week", "2026-06-29", "2026-11-23"),
        ("2027", "day", "2027-01-01", "2026-11-28"),
    ],
)
def test_the_periods_of_a_range_end_with_the_present_one(
    text: str, by: Grain, first: str, last: str
) -> None:
    begins, ends = Range.parse(text).periods(by, NOW, Settings().period)
    assert (f"{begins.start:%F}", f"{ends.start:%F}") == (first, last)


@pytest.mark.parametrize("text", ["ever", "before 2026"])
def test_what_has_no_beginning_has_no_first_period(text: str) -> None:
    with pytest.raises(ValueError, match="has no beginning: say since when"):
        Range.parse(text).periods("day", NOW, Settings().period)


def test_hours_that_the_clocks_skip_are_not_counted() -> None:
    now = datetime(2026, 3, 29, 4, 10)
    assert bounds("last 3 hours", now, "Europe/Berlin") == ("2026-03-29 01", "2026-03-29 05")


@given(
    st.sampled_from(["hour", "day", "week", "month", "quarter", "year"]),
    st.integers(2, 60),
    st.datetimes(datetime(2000, 1, 1), datetime(2060, 1, 1)),
)
def test_the_last_units_are_the_present_one_and_those_before_it(
    unit: str, count: int, now: datetime
) -> None:
    period = Settings(timezone=UTC).period
    start, end = Range.parse(f"last {count} {unit}s").bounds(now, period)
    assert start is not None
    assert start <= now < end
    this = Range.parse(f"this {unit}").bounds(now, period)
    assert this.end == end
    for _ in range(count - 1):  # back, from each unit to the one that ends where it begins
        assert this.start is not None
        before = this.start - timedelta(microseconds=1)
        this = Range.parse(f"this {unit}").bounds(before, period)
    assert this.start == start
