"""Ranges in words, as reports take them: which periods they have, compared with every day's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from hypothesis import example, given
from hypothesis import strategies as st

from flask_bitmapist import FlaskBitmapist, analytics, mark_event
from flask_bitmapist.config import Settings
from flask_bitmapist.periods import GRAINS, Grain, Period
from flask_bitmapist.questions import FunnelQuestion, TrendQuestion
from flask_bitmapist.ranges import UNITS, Range, Unit

NOW = datetime(2026, 11, 23, 14, 32)  # a Monday


def starts(over: str, by: Grain, now: datetime = NOW, zone: tzinfo = UTC) -> list[datetime]:
    """When each period of a range begins."""

    first, last = Range.parse(over).periods(by, now, Settings(timezone=zone).period)
    return [one.start for one in first.until(last)]


def test_the_week_over_new_year_belongs_to_both_years() -> None:
    week = datetime(2025, 12, 29)
    assert starts("last year", "week")[-1] == week
    assert starts("this year", "week")[0] == week
    assert starts("last week", "week", datetime(2026, 1, 6)) == [week]


def test_the_hours_of_a_day_are_those_that_its_clocks_show() -> None:
    # In Nuuk 23:00 on Saturday, 28 March 2026 is midnight; in Cairo, 24 April begins at 1:00.
    nuuk, cairo = ZoneInfo("America/Nuuk"), ZoneInfo("Africa/Cairo")
    saturday = starts("yesterday", "hour", datetime(2026, 3, 29, 9), nuuk)
    assert (saturday[0], saturday[-1]) == (datetime(2026, 3, 28, 0), datetime(2026, 3, 28, 22))
    friday = starts("today", "hour", datetime(2026, 4, 24, 9), cairo)
    assert (friday[0], friday[-1]) == (datetime(2026, 4, 24, 1), datetime(2026, 4, 24, 9))
    thursday = starts("yesterday", "hour", datetime(2026, 4, 24, 9), cairo)
    assert (thursday[0], thursday[-1]) == (datetime(2026, 4, 23, 0), datetime(2026, 4, 23, 23))


def beginning(unit: Unit, day: date) -> date:
    """The first day of the unit that contains `day`, by the calendar."""
    match unit:
        case "week":
            return next(d for n in range(7) if (d := day - timedelta(n)).isoweekday() == 1)
        case "month":
            return day.replace(day=1)
        case "quarter":
            return max(q for month in (1, 4, 7, 10) if (q := date(day.year, month, 1)) <= day)
        case "year":
            return day.replace(month=1, day=1)
    return day


@given(
    st.sampled_from([unit for unit in UNITS if unit != "hour"]),
    st.integers(0, 9),
    st.sampled_from([grain for grain in GRAINS if grain != "hour"]),
    st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1)),
)
@example("month", 0, "week", datetime(2027, 1, 1))
@example("week", 0, "day", datetime(2027, 1, 1))
@example("quarter", 4, "week", datetime(2024, 2, 29))
def test_a_range_is_what_every_one_of_its_days_lies_in(
    unit: Unit, number: int, by: Grain, now: datetime
) -> None:
    first = last = now.date()
    first = beginning(unit, first)
    if number == 0:
        last = first - timedelta(days=1)
        first = beginning(unit, last)
    for _ in range(number - 1):
        first = beginning(unit, first - timedelta(days=1))
    lived = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    over = f"last {number} {unit}s" if number > 1 else f"{('last', 'this')[number]} {unit}"
    midnights = (datetime(day.year, day.month, day.day) for day in lived)
    expected = sorted({Period.containing(by, midnight).start for midnight in midnights})
    assert starts(over, by, now) == expected


@pytest.mark.parametrize("more", [{"start": NOW}, {"end": NOW}, {"rows": 3}])
def test_a_range_in_words_and_another_one_is_an_error(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="'last month', or it has a start, an end or a number"):
        TrendQuestion.of(event="visit", over="last month", **more)


def test_a_question_says_its_range_as_it_was_asked() -> None:
    question = FunnelQuestion.of(steps=["a", "b"], over="Last  7 Days")
    assert question.arguments == {"over": "last 7 days", "step": ["a", "b"]}


def test_only_a_text_that_spells_one_is_a_range() -> None:
    with pytest.raises(ValueError, match="over must be a range such as 'last 28 days', not 28"):
        TrendQuestion.of(event="visit", over=28)
    with pytest.raises(ValueError, match="'soon' is no range of time: write it like 'last 30"):
        TrendQuestion.of(event="visit", over="soon")


@pytest.mark.usefixtures("at_now")
class TestReports:
    """Every report with a range takes it in words."""

    def test_last_month_is_that_of_its_dates(self) -> None:
        for day in (1, 15, 31):
            mark_event("visit", day, now=datetime(2026, 10, day))
        mark_event("visit", [15, 98, 99])
        ask: list[Callable[..., Any]] = [
            lambda **when: analytics.trend("visit", **when),
            lambda **when: analytics.trend("visit", "week", **when),
            lambda **when: analytics.active_users("visit", **when),
            lambda **when: analytics.retention("visit", "visit", "week", 2, **when),
            lambda **when: analytics.lifecycle("visit", **when),
            lambda **when: analytics.funnel(["visit", "visit"], order="strict", **when),
            lambda **when: analytics.funnel_people(["visit", "login"], 0, **when),
            lambda **when: analytics.adoption("visit", "visit", **when),
            lambda **when: analytics.churned("visit", 2, **when),
            lambda **when: analytics.compare(["visit"], "visit", **when),
            lambda **when: analytics.compare_people("visit", "visit", **when),
            lambda **when: analytics.timeline(15, **when),
            lambda **when: analytics.profile(15, **when),
        ]
        for one in ask:
            dates = one(start=date(2026, 10, 1), end=date(2026, 10, 31))
            assert one(over="last month") == dates != one()

    def test_a_range_that_is_not_over_ends_with_the_open_period(self) -> None:
        points = analytics.trend("visit", over="this week", now=date(2026, 11, 25)).points
        assert [(str(p.period_start), p.complete) for p in points] == [
            ("2026-11-23", True),
            ("2026-11-24", True),
            ("2026-11-25", False),
        ]

    def test_it_is_as_of_the_moment_that_counts_as_now(self) -> None:
        (point,) = analytics.trend(
            "visit", "month", over="last month", now=date(2026, 3, 31)
        ).points
        assert (point.period_start, point.complete) == (date(2026, 2, 1), True)

    def test_a_range_that_has_not_begun_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="the range '2027' has not begun"):
            analytics.trend("visit", over="2027")

    def test_a_range_that_is_too_long_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="are more than 1000 hours: shorten the range or"):
            analytics.trend("visit", "hour", over="last 90 days")


@pytest.mark.parametrize(("zone", "day"), [("UTC", "2026-11-22"), ("Asia/Tokyo", "2026-11-23")])
def test_days_are_those_of_the_application_s_calendar(redis_url: str, zone: str, day: str) -> None:
    app = Flask("zoned")
    app.config.update(BITMAPIST_REDIS_URL=redis_url, BITMAPIST_TIMEZONE=zone, BITMAPIST_SPOOL=False)
    FlaskBitmapist(app)
    with app.app_context():
        now = datetime(2026, 11, 23, 20, tzinfo=UTC)  # five in the morning in Tokyo
        (point,) = analytics.trend("visit", over="yesterday", now=now).points
    assert str(point.period_start) == day
