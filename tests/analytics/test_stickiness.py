"""stickiness: in how many periods of a window each user was active, by hand and as sets."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist import FlaskBitmapist, mark_event, mark_unique
from flask_bitmapist.analytics import Stickiness, stickiness, stickiness_people
from flask_bitmapist.periods import Grain
from flask_bitmapist.tracker import Tracker

from .histories import mark_days

NOW = datetime(2026, 11, 25, 14, 32)  # a Wednesday
TODAY = NOW.date()


pytestmark = pytest.mark.usefixtures("at_now")


def days_ago(days: int) -> date:
    return TODAY - timedelta(days=days)


@pytest.fixture
def visits() -> None:
    mark_days("visit", {5: {9}, 4: {1}, 3: {1, 2}, 2: {1}, 1: {1, 3}, 0: {1, 2}})


def test_users_are_counted_by_the_exact_number_of_their_periods(visits: None) -> None:
    assert stickiness("visit", within=5) == Stickiness(
        start=days_ago(4), end=TODAY, counts={1: 1, 2: 1, 3: 0, 4: 0, 5: 1}, users=3
    )


def test_a_window_ends_with_the_period_of_the_end(visits: None) -> None:
    report = stickiness("visit", within=3, end=days_ago(3))
    assert (report.start, report.end) == (days_ago(5), days_ago(3))
    assert report.counts == {1: 2, 2: 1, 3: 0}


def test_a_window_may_be_a_range(visits: None) -> None:
    assert stickiness("visit", over="last 5 days") == stickiness("visit", within=5)
    start, end = days_ago(5), days_ago(3)
    assert stickiness("visit", start=start, end=end) == stickiness("visit", within=3, end=end)
    assert stickiness_people("visit", 3, over="last 3 days").ids == [1]
    assert stickiness("visit", by="week", over="last month").end == date(2026, 10, 26)
    more: list[dict[str, Any]] = [{"within": 7}, {"end": TODAY}, {"start": TODAY}]
    for one in more:
        with pytest.raises(ValueError, match="give one or the other"):
            stickiness("visit", over="today", **one)
    with pytest.raises(ValueError, match="not both"):
        stickiness("visit", within=7, start=TODAY)


def test_a_window_has_28_days_unless_it_is_told(visits: None) -> None:
    report = stickiness("visit")
    assert (report.start, report.end) == (days_ago(27), TODAY)
    assert list(report.counts) == list(range(1, 29))
    assert report.users == 4


def test_a_calendar_week_has_its_seven_days_though_it_is_not_over(visits: None) -> None:
    report = stickiness("visit", within="week")
    assert (report.start, report.end) == (date(2026, 11, 23), date(2026, 11, 29))
    assert report.counts == {1: 2, 2: 0, 3: 1, 4: 0, 5: 0, 6: 0, 7: 0}


def test_a_calendar_month_has_its_own_number_of_days() -> None:
    mark_event("visit", 1, now=date(2024, 2, 1))
    mark_event("visit", 1, now=date(2024, 2, 29))
    mark_event("visit", 1, now=date(2024, 3, 1))
    report = stickiness("visit", within="month", end=date(2024, 2, 10))
    assert (report.start, report.end) == (date(2024, 2, 1), date(2024, 2, 29))
    assert len(report.counts) == 29
    assert (report.counts[2], report.users) == (1, 1)


def test_a_week_over_new_year_is_the_iso_week() -> None:
    for day in (date(2026, 12, 28), date(2026, 12, 31), date(2027, 1, 1), date(2027, 1, 3)):
        mark_event("visit", 1, now=day)
    report = stickiness("visit", within="week", end=date(2027, 1, 1))
    assert (report.start, report.end) == (date(2026, 12, 28), date(2027, 1, 3))
    assert report.counts[4] == 1


@pytest.mark.parametrize(
    ("by", "start", "counts"),
    [
        ("week", date(2026, 11, 16), {1: 2, 2: 2}),
        ("month", date(2026, 10, 1), {1: 4, 2: 0}),
        ("year", date(2025, 1, 1), {1: 4, 2: 0}),
    ],
)
def test_any_period_can_be_counted(
    visits: None, by: Grain, start: date, counts: dict[int, int]
) -> None:
    report = stickiness("visit", by, 2)
    assert report.start == start
    assert report.counts == counts


@pytest.mark.parametrize(("within", "hours"), [("week", 167), ("month", 743)])
def test_an_hour_that_the_clock_skips_is_not_in_a_window(
    redis_url: str, within: Any, hours: int
) -> None:
    app = Flask(__name__)
    FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_TIMEZONE": "Europe/Berlin"})
    with app.app_context():
        spring = datetime(2026, 3, 29, 12)
        report = stickiness("visit", "hour", within, spring, now=NOW)
    assert list(report.counts) == list(range(1, hours + 1))


def test_hours_are_counted_in_days_weeks_and_months() -> None:
    for hour in (0, 7, 23):
        mark_event("visit", 1, now=datetime(2026, 11, 23, hour), track_hourly=True)
    assert stickiness("visit", "hour", 24, datetime(2026, 11, 23, 23)).counts[3] == 1
    week = stickiness("visit", "hour", "week")
    assert (week.start, week.end) == (datetime(2026, 11, 23), datetime(2026, 11, 29, 23))
    assert week.counts[3] == 1
    month = stickiness("visit", "hour", "month")
    assert len(month.counts) == 30 * 24
    assert month.counts[3] == 1


def test_a_segment_is_evaluated_in_each_period(visits: None) -> None:
    mark_days("web", {4: {1}, 3: {2}, 0: {1, 2}})
    assert stickiness("visit", within=5, where="web").counts == {1: 0, 2: 2, 3: 0, 4: 0, 5: 0}
    mark_unique("staff", 1)
    assert stickiness("visit - flag:staff", within=5).counts == {1: 1, 2: 1, 3: 0, 4: 0, 5: 0}


def test_days_are_those_of_the_applications_calendar_when_clocks_change(redis_url: str) -> None:
    app = Flask(__name__)
    FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_TIMEZONE": "Europe/Berlin"})
    autumn = datetime(2026, 10, 25, tzinfo=UTC)  # Berlin: 25 hours, two of them from 02:00
    with app.app_context():
        for after in (-2, 0, 1, 22, 23):
            mark_event("visit", 1, now=autumn + timedelta(hours=after), track_hourly=True)
        days = stickiness("visit", "day", 2, date(2026, 10, 26), now=NOW)
        hours = stickiness("visit", "hour", 24, datetime(2026, 10, 25, 23), now=NOW)
    assert days.counts == {1: 0, 2: 1}
    assert hours.counts[3] == 1  # 00:00, 02:00 that came twice, 23:00


def test_mapped_ids_are_people_like_others() -> None:
    mark_days("visit", {1: {"ann", "bob"}, 0: {"bob"}})
    assert stickiness("visit", within=2).counts == {1: 1, 2: 1}


def test_an_event_that_was_never_marked_has_nobody() -> None:
    report = stickiness("visit", within=3)
    assert (report.counts, report.users) == ({1: 0, 2: 0, 3: 0}, 0)
    with pytest.raises(ValueError, match="unknown events or flags: visit"):
        stickiness("visit", strict=True)


def test_a_table_has_a_line_for_each_number_of_periods(visits: None) -> None:
    report = stickiness("visit", within=3)
    assert report.to_csv().splitlines() == ["periods,users", "1,2", "2,0", "3,1"]
    assert report.to_dict() == {
        "start": "2026-11-23",
        "end": "2026-11-25",
        "counts": {1: 2, 2: 0, 3: 1},
        "users": 3,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("week", "week"), "within='week' is counted by 'hour' or 'day', not by 'week'"),
        (("month", "week"), "within='week' is counted by 'hour' or 'day', not by 'month'"),
        (("week", "month"), "within='month' is counted by 'hour' or 'day', not by 'week'"),
        (("year", "month"), "give a number of years"),
        (("day", "year"), "within must be 'week', 'month' or a number of periods up to 1000"),
        (("day", 0), "within must be a whole number from 1 to 1000, not 0"),
        (("day", 1001), "within must be a whole number from 1 to 1000, not 1001"),
        (("day", True), "within must be a whole number from 1 to 1000, not True"),
        (("fortnight", 2), "by must be one of hour, day, week, month, year, not 'fortnight'"),
    ],
)
def test_nonsense_is_refused_with_what_is_allowed(arguments: tuple[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stickiness("visit", *arguments)


numbers = itertools.count()


@pytest.mark.parametrize("sliced", [False, True])
@given(
    marks=st.sets(
        st.tuples(st.sampled_from("eees"), st.integers(0, 90), st.integers(0, 10)), max_size=200
    ),
    within=st.integers(1, 12),
    in_segment=st.booleans(),
)
def test_stickiness_is_what_sets_say(
    monkeypatch: pytest.MonkeyPatch,
    tracker: Tracker,
    sliced: bool,
    marks: set[tuple[str, int, int]],
    within: int,
    in_segment: bool,
) -> None:
    if sliced:
        monkeypatch.setattr("flask_bitmapist.reading.bitmaps.BUDGET", 64)
        monkeypatch.setattr("flask_bitmapist.reading.bitmaps._SLICE_UNIT", 8)
    example = next(numbers)
    tracker.record(
        (f"{event}{example}", user, True, True, days_ago(back)) for event, user, back in marks
    )
    where = f"s{example}" if in_segment else None
    report = stickiness(f"e{example}", "day", within, where=where)
    days = Counter(
        user
        for event, user, back in marks
        if event == "e" and back < within and (not in_segment or ("s", user, back) in marks)
    )
    users = Counter(days.values())
    assert report.counts == {k: users[k] for k in range(1, within + 1)}
    assert report.users == len(days)
