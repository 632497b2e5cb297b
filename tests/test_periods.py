"""Our keys and steps against bitmapist's own classes."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import bitmapist
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flask_bitmapist.periods import GRAINS, Grain, Period, local, unique_key

THEIRS: dict[str, Any] = {  # bitmapist types their common base as a bare ABCMeta
    "hour": bitmapist.HourEvents,
    "day": bitmapist.DayEvents,
    "week": bitmapist.WeekEvents,
    "month": bitmapist.MonthEvents,
}
stored_grains = st.sampled_from(sorted(THEIRS))
moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1))
zones = st.sampled_from(
    ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"]
).map(ZoneInfo)


@given(stored_grains, moments)
@example("week", datetime(1997, 1, 1))  # the ISO year begins in 1996
@example("week", datetime(2026, 12, 31))  # ISO week 53
@example("week", datetime(2027, 1, 3))
@example("day", datetime(2024, 2, 29))
@example("month", datetime(2025, 12, 31, 23, 59))
def test_keys_are_those_of_bitmapist(grain: Grain, moment: datetime) -> None:
    theirs = THEIRS[grain].from_date("user:created", moment)
    assert Period.containing(grain, moment).key("user:created") == theirs.redis_key


@given(
    stored_grains, st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=zones), zones
)
def test_aware_moments_are_converted_to_the_calendar(
    grain: Grain, moment: datetime, zone: ZoneInfo
) -> None:
    theirs = THEIRS[grain].from_date("e", moment.astimezone(zone))
    assert Period.containing(grain, local(moment, zone)).key("e") == theirs.redis_key


@given(stored_grains, moments, st.integers(-500, 500))
def test_stepping_agrees_with_bitmapist(grain: Grain, moment: datetime, count: int) -> None:
    theirs = THEIRS[grain].from_date("e", moment).delta(count)
    ours = Period.containing(grain, moment).shift(count)
    assert ours.key("e") == theirs.redis_key
    assert ours.start == theirs.period_start().replace(tzinfo=None)


@given(st.sampled_from(GRAINS), moments)
def test_a_period_holds_its_moment_and_the_next_does_not(grain: Grain, moment: datetime) -> None:
    period = Period.containing(grain, moment)
    assert period.start <= moment < period.end
    assert Period.containing(grain, period.end) == period.shift(1)


def test_a_year_is_its_twelve_months() -> None:
    year = Period.containing("year", datetime(2026, 11, 23))
    months = [bitmapist.MonthEvents("e", 2026, month).redis_key for month in range(1, 13)]
    assert list(year.keys("e")) == months
    with pytest.raises(ValueError, match="keys of its parts"):
        year.key("e")


def test_unique_key_is_that_of_bitmapist() -> None:
    assert unique_key("user:premium") == bitmapist.UniqueEvents("user:premium").redis_key


def test_until_includes_both_ends() -> None:
    first = Period.containing("month", datetime(2025, 11, 9))
    assert [period.start.month for period in first.until(first.shift(3))] == [11, 12, 1, 2]


def test_naive_moments_are_in_the_calendar_and_dates_are_their_midnight() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert local(datetime(2026, 1, 1, 0, 30), berlin) == datetime(2026, 1, 1, 0, 30)
    assert local(date(2026, 1, 1), berlin) == datetime(2026, 1, 1)
    assert local(datetime(2025, 12, 31, 23, 30, tzinfo=UTC), berlin) == datetime(2026, 1, 1, 0, 30)


@pytest.mark.parametrize(
    ("zone", "skipped", "shown"),
    [
        ("Europe/Berlin", datetime(2026, 3, 29, 2, 30), datetime(2026, 3, 29, 3, 30)),
        ("Africa/Cairo", date(2026, 4, 24), datetime(2026, 4, 24, 1)),
        ("Africa/Cairo", datetime(2026, 4, 24, 0, 59, fold=1), datetime(2026, 4, 24, 1, 59)),
        ("Pacific/Apia", datetime(2011, 12, 30, 12), datetime(2011, 12, 31, 12)),  # a whole day
    ],
)
def test_a_naive_moment_that_the_clocks_skip_is_the_one_they_show(
    zone: str, skipped: date, shown: datetime
) -> None:
    assert local(skipped, ZoneInfo(zone)) == shown


def test_an_hour_that_the_clocks_skip_is_the_next_one() -> None:
    cairo = ZoneInfo("Africa/Cairo")
    hour = Period.containing("hour", datetime(2026, 4, 24), cairo)
    assert hour.start == datetime(2026, 4, 24, 1)
    assert hour.shift(-1).start == datetime(2026, 4, 23, 23)


def test_the_ends_of_the_calendar_are_naive_moments_like_others() -> None:
    for moment in (datetime.min, datetime.max):
        for zone in ("Europe/Berlin", "America/New_York"):
            assert local(moment, ZoneInfo(zone)) == moment


def test_now_is_the_clock_of_the_calendar() -> None:
    zone = timezone(timedelta(hours=13))
    assert abs(local(None, zone) - datetime.now(zone).replace(tzinfo=None)) < timedelta(seconds=5)


def test_hours_that_the_clock_skips_are_stepped_over() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    hour = Period.containing("hour", datetime(2026, 3, 29, 1), berlin)  # then it is 3 o'clock
    assert hour.shift(1).start == hour.end == datetime(2026, 3, 29, 3)
    assert hour.shift(24).shift(-24) == hour
    autumn = Period.containing("hour", datetime(2026, 10, 25, 2), berlin)  # twice, counted once
    assert autumn.shift(1).start == datetime(2026, 10, 25, 3)


def test_an_hour_of_which_the_clock_skips_a_part_exists() -> None:
    lord_howe = ZoneInfo("Australia/Lord_Howe")
    hour = Period.containing("hour", datetime(2025, 10, 5, 1), lord_howe)  # 2:00 is 2:30 there
    assert hour.shift(1).start == datetime(2025, 10, 5, 2)
    assert hour.shift(2).shift(-1).start == datetime(2025, 10, 5, 2)


@pytest.mark.parametrize("grain", GRAINS)
@pytest.mark.parametrize(("end", "count"), [(datetime.max, 1), (datetime.min, -1)])
def test_a_step_out_of_the_calendar_is_a_sentence(grain: Grain, end: datetime, count: int) -> None:
    with pytest.raises(ValueError, match=f"{grain}s .*the calendar, which has the years 1 to 9999"):
        Period.containing(grain, end, ZoneInfo("UTC")).shift(count)


@pytest.mark.parametrize("moment", [datetime.max, datetime.min])
def test_a_moment_that_the_calendar_of_its_zone_does_not_have_is_a_sentence(
    moment: datetime,
) -> None:
    far_away = timezone(timedelta(hours=12 if moment.year == 1 else -12))
    with pytest.raises(ValueError, match="years 1 to 9999"):
        local(moment.replace(tzinfo=far_away), ZoneInfo("UTC"))


def test_an_unknown_period_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'fortnight'.*hour, day, week, month, year"):
        Period.containing("fortnight", datetime(2026, 1, 1))  # type: ignore[arg-type]
