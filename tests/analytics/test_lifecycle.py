"""lifecycle: new, returning, resurrected and dormant users, by hand and as sets; the identities."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import bitmapist
import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist import FlaskBitmapist, mark_event, mark_unique
from flask_bitmapist.analytics import Lifecycle, LifecyclePoint, lifecycle, trend
from flask_bitmapist.periods import Grain
from flask_bitmapist.tracker import Tracker

from .histories import mark_days

NOW = datetime(2026, 11, 23, 14, 32)  # a Monday
TODAY = NOW.date()


pytestmark = pytest.mark.usefixtures("at_now")


def days_ago(days: int) -> date:
    return TODAY - timedelta(days=days)


def figures_of(report: Lifecycle) -> list[tuple[int, int, int, int]]:
    """New, returning, resurrected and dormant users of every point."""
    return [(p.new, p.returning, p.resurrected, p.dormant) for p in report.points]


@pytest.fixture
def visits() -> None:
    mark_days("visit", {9: {4}, 4: {1, 2, 3}, 3: {1}, 2: {1, 2, 4, 5}, 0: {1}})


def test_every_user_is_new_returning_or_resurrected_and_who_stays_away_is_dormant(
    visits: None,
) -> None:
    report = lifecycle("visit", "day", days_ago(4))
    assert figures_of(report) == [
        (3, 0, 0, 0),
        (0, 1, 0, 2),  # 2 and 3 stay away
        (1, 1, 2, 0),  # 5 is new; 2 comes back, and 4 after a week
        (0, 0, 0, 4),  # nobody
        (0, 0, 1, 0),
    ]
    assert report.points[0] == LifecyclePoint(days_ago(4), 3, 0, 0, 0, complete=True)
    assert [p.complete for p in report.points] == [True, True, True, True, False]


def test_beside_each_period_stands_the_one_of_the_periods_before(visits: None) -> None:
    report = lifecycle("visit", "day", days_ago(1), previous=True)
    assert report.points == lifecycle("visit", "day", days_ago(1)).points
    assert report.previous == lifecycle("visit", "day", days_ago(3), days_ago(2)).points
    # A day that is not over says nothing about the mean of a day.
    assert report.average == {"new": 0, "returning": 0, "resurrected": 0, "dormant": 4}
    assert report.previous_average == {"new": 0.5, "returning": 1, "resurrected": 1, "dormant": 1}
    assert report.to_csv().splitlines() == [
        "period_start,new,returning,resurrected,dormant,complete,"
        "previous_new,previous_returning,previous_resurrected,previous_dormant",
        f"{days_ago(1)},0,0,0,4,True,0,1,0,2",
        f"{days_ago(0)},0,0,1,0,False,1,1,2,0",
    ]
    assert len(report.to_dict()["previous"]) == 2


def test_while_no_period_is_over_there_is_no_mean(visits: None) -> None:
    assert lifecycle("visit", "day", days_ago(0)).average == {}


def test_a_day_that_begins_at_one_oclock_has_23_hours(redis_url: str) -> None:
    app = Flask("cairo")
    FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_TIMEZONE": "Africa/Cairo"})
    day = date(2026, 4, 24)  # at midnight summer time begins
    with app.app_context():
        for hour in (datetime(2026, 4, 23, 23), day):  # midnight is 1:00
            mark_event("visit", [1, 2], now=hour, track_hourly=True)
        report = lifecycle("visit", "hour", day, datetime(2026, 4, 24, 23), now=NOW)
    assert report.points[0].period_start == datetime(2026, 4, 24, 1)
    assert figures_of(report)[:2] == [(0, 2, 0, 0), (0, 0, 0, 2)]
    assert len(report.points) == 23


def test_the_first_point_knows_the_period_before_it(visits: None) -> None:
    assert figures_of(lifecycle("visit", "day", days_ago(3), days_ago(3))) == [(0, 1, 0, 2)]


def test_who_was_active_years_ago_is_resurrected_and_not_new() -> None:
    mark_event("visit", 1, now=date(2019, 7, 14))
    mark_event("visit", [1, 2])
    for by in ("day", "week", "month", "year"):
        assert figures_of(lifecycle("visit", by, TODAY)) == [(1, 0, 1, 0)]


def test_data_that_bitmapist_wrote_has_a_past_too() -> None:
    for when in (datetime(2024, 3, 9), NOW):
        bitmapist.mark_event("visit", 1, now=when.replace(tzinfo=UTC))
    assert figures_of(lifecycle("visit", "day", TODAY)) == [(0, 0, 1, 0)]


def test_in_a_segment_those_outside_are_not_active_but_their_past_counts(visits: None) -> None:
    mark_days("web", {4: {1, 2}, 2: {2, 4, 5}, 0: {1}})
    assert figures_of(lifecycle("visit", "day", days_ago(4), where="web")) == [
        (2, 0, 0, 0),
        (0, 0, 0, 2),
        (1, 0, 2, 0),  # 5 is new; 4 is not, though never seen on the web before
        (0, 0, 0, 3),
        (0, 0, 1, 0),
    ]


def test_a_flag_is_a_segment_of_every_period(visits: None) -> None:
    mark_unique("premium", [1, 5])
    report = lifecycle("visit", "day", days_ago(2), days_ago(1), where="flag:premium")
    assert figures_of(report) == [(1, 1, 0, 0), (0, 0, 0, 2)]


def test_a_segment_has_its_own_lifecycle(visits: None) -> None:
    mark_days("buy", {3: {1}, 2: {1, 2}})
    report = lifecycle("visit & buy", "day", days_ago(4), days_ago(1))
    assert figures_of(report) == [(0, 0, 0, 0), (1, 0, 0, 0), (1, 1, 0, 0), (0, 0, 0, 2)]


def test_weeks_follow_one_another_through_the_53rd(tracker: Tracker) -> None:
    with tracker.at(datetime(2027, 1, 13)):
        mark_event("visit", [1, 2], now=date(2026, 12, 27))  # 2026-W52
        mark_event("visit", [1, 3], now=date(2027, 1, 3))  # 2026-W53
        mark_event("visit", [2, 3], now=date(2027, 1, 4))  # 2027-W01
        report = lifecycle("visit", "week", date(2026, 12, 21), date(2027, 1, 4))
    assert [p.period_start for p in report.points] == [
        date(2026, 12, 21),
        date(2026, 12, 28),
        date(2027, 1, 4),
    ]
    assert figures_of(report) == [(2, 0, 0, 0), (1, 1, 0, 1), (0, 1, 1, 1)]


def test_days_are_those_of_the_applications_calendar_when_clocks_change(redis_url: str) -> None:
    app = Flask(__name__)
    FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_TIMEZONE": "Europe/Berlin"})
    autumn = datetime(2026, 10, 25, tzinfo=UTC)  # Berlin: 25 hours
    with app.app_context():
        mark_event("visit", 1, now=autumn - timedelta(hours=2))  # the 25th, 00:00
        mark_event("visit", 1, now=autumn + timedelta(hours=22, minutes=59))  # the 25th, 23:59
        mark_event("visit", 1, now=autumn + timedelta(hours=23))  # the 26th, 00:00
        report = lifecycle("visit", "day", date(2026, 10, 25), date(2026, 10, 26), now=NOW)
    assert figures_of(report) == [(1, 0, 0, 0), (0, 1, 0, 0)]


def test_mapped_ids_are_people_like_others() -> None:
    mark_days("visit", {1: {"ann", "bob"}, 0: {"bob", "eve"}})
    assert figures_of(lifecycle("visit", "day", days_ago(1))) == [(2, 0, 0, 0), (1, 1, 0, 1)]


def test_an_event_that_was_never_marked_has_points_of_nobody() -> None:
    assert figures_of(lifecycle("visit", "month")) == [(0, 0, 0, 0)] * 12
    with pytest.raises(ValueError, match="unknown events or flags: visit"):
        lifecycle("visit", strict=True)


def test_a_table_has_a_line_for_each_point(visits: None) -> None:
    header, line, *_ = lifecycle("visit", "day", days_ago(3)).to_csv().splitlines()
    assert header == "period_start,new,returning,resurrected,dormant,complete"
    assert line == "2026-11-20,0,1,0,2,True"


# As sets


def key_of(day: date, by: str) -> int:
    monday = day - timedelta(days=day.weekday())
    return {
        "day": day.toordinal(),
        "week": monday.toordinal() // 7,
        "month": day.year * 12 + day.month,
        "year": day.year,
    }[by]


numbers = itertools.count()


@pytest.mark.parametrize("sliced", [False, True])
@given(
    drawn=st.sets(
        st.tuples(st.sampled_from("ees"), st.integers(0, 130), st.integers(0, 900)), max_size=120
    ),
    by=st.sampled_from(["day", "week", "month", "year"]),
    in_segment=st.booleans(),
)
def test_a_lifecycle_is_what_sets_say_and_adds_up(
    monkeypatch: pytest.MonkeyPatch,
    tracker: Tracker,
    sliced: bool,
    drawn: set[tuple[str, int, int]],
    by: Grain,
    in_segment: bool,
) -> None:
    if sliced:
        monkeypatch.setattr("flask_bitmapist.reading.bitmaps.BUDGET", 64)
        monkeypatch.setattr("flask_bitmapist.reading.bitmaps._SLICE_UNIT", 8)
    # Spread over some ten periods, whatever their length.
    scale = {"day": 90, "week": 13, "month": 3, "year": 1}[by]
    marks = {(event, user, days_ago(days // scale)) for event, user, days in drawn}
    example = next(numbers)
    tracker.record((f"{event}{example}", user, True, True, day) for event, user, day in marks)
    start = {"day": 4, "week": 28, "month": 120, "year": 600}[by]
    where = f"s{example}" if in_segment else None
    arguments = (f"e{example}", by, days_ago(start), None, where)
    report = lifecycle(*arguments)

    def users(event: str, period: int) -> set[int]:
        return {u for e, u, day in marks if e == event and key_of(day, by) == period}

    def active(period: int) -> set[int]:
        segment = users("s", period) if in_segment else users("e", period)
        return users("e", period) & segment

    for point in report.points:
        period = key_of(point.period_start, by)
        earlier = {u for e, u, day in marks if e == "e" and key_of(day, by) < period}
        here, before = active(period), active(period - 1)
        assert point.new == len(here - earlier)
        assert point.returning == len(here & before)
        assert point.resurrected == len((here & earlier) - before)
        assert point.dormant == len(before - here)

    counted = [point.users for point in trend(*arguments).points]
    for point, n in zip(report.points, counted, strict=True):
        assert point.new + point.returning + point.resurrected == n
    for point, (n_before, n) in zip(report.points[1:], pairwise(counted), strict=True):
        assert n - n_before == point.new + point.resurrected - point.dormant


def test_in_a_segment_only_those_here_are_new(visits: None) -> None:
    """Users who do it for the first time outside the segment are not among its new users."""
    mark_days("web", {4: {1}, 2: {5}})
    report = lifecycle("visit", "day", days_ago(4), where="web")
    assert [point.new for point in report.points] == [1, 0, 1, 0, 0]
