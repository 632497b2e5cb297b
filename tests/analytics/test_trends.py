"""trends: several events on one axis, beside the periods before and the active; against sets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist import analytics, mark_event, mark_unique
from flask_bitmapist.analytics import TrendsPoint, people_behind, trend, trends
from flask_bitmapist.current import current_tracker
from flask_bitmapist.periods import Grain, Period
from flask_bitmapist.questions import TrendsFigure, TrendsQuestion
from flask_bitmapist.tracker import Tracker

from .histories import mark_days

NOW = datetime(2026, 11, 23, 14, 32)  # a Monday
EVENTS = ["read", "write", "seen"]
DAYS = 24

pytestmark = pytest.mark.usefixtures("at_now")


def test_each_event_is_what_trend_tells_of_it() -> None:
    mark_days("read", {0: {1}, 1: {1, 2}, 9: {3}})
    mark_days("write", {1: {2}})
    mark_unique("pro", [1, 3])
    asks: list[dict[str, Any]] = [
        {},
        {"where": "flag:pro"},
        {"by": "week", "rolling": 2},
        {"over": "last month"},
    ]
    for asked in asks:
        report = trends(["read", "write - read"], **asked)
        for series, event in zip(report.series, ("read", "write - read"), strict=True):
            alone = trend(event, **asked)
            assert series.event == event
            assert [(p.period_start, p.users, p.complete) for p in series.points] == [
                (p.period_start, p.users, p.complete) for p in alone.points
            ]


@pytest.mark.parametrize("again", ["did(read, last 2 days)", "read - did(read, yesterday)"])
def test_what_a_later_segment_reads_again_is_kept_for_it(again: str) -> None:
    """Asked for the first time, when nobody knows that the bitmaps are short."""
    mark_days("read", {0: {1}, 1: {1, 2}, 2: {3}})
    report = trends(["read", again], over="last 3 days")
    for series in report.series:
        assert series.points == trends([series.event], over="last 3 days").series[0].points
    assert [point.users for point in report.series[0].points] == [1, 2, 1]


def test_without_more_a_point_has_no_more() -> None:
    mark_days("read", {0: {1}})
    (series,) = trends(["read"], over="today").series
    assert series.points == [TrendsPoint(date(2026, 11, 23), 1, False)]


def test_the_previous_period_has_as_many_periods_right_before() -> None:
    mark_days("read", {0: {1}, 1: {1, 2}, 3: {1, 2, 3}, 4: {4, 5, 6, 7}})
    (series,) = trends(["read"], over="last 3 days", previous=True).series
    # Two, one and no day ago, each beside three days before it.
    assert [(p.users, p.previous) for p in series.points] == [(0, 0), (2, 4), (1, 3)]


def test_the_total_counts_everybody_of_the_range_once() -> None:
    mark_days("read", {0: {1}, 1: {1, 2}, 3: {1, 2, 3}, 4: {4, 5, 6, 7}})
    mark_days("seen", {0: {1, 2}, 5: {1}})
    asked: dict[str, Any] = {"over": "last 3 days", "previous": True}
    # What a point counts besides its own day is no part of the range.
    for rolling in (1, 7):
        (series,) = trends(["read"], rolling=rolling, **asked).series
        assert series.total == TrendsPoint(date(2026, 11, 21), 2, False, 7)
    (series,) = trends(["read"], active="seen", **asked).series
    # 1 and 2 were active and did it, though 2 not on one day; then only 1.
    assert (series.total.share, series.total.previous_share) == (2 / 2, 1 / 1)
    question = TrendsQuestion.of(events=["read"], over="last 3 days", rolling=7)
    assert people_behind(question, TrendsFigure.of(whole=True)).ids == [1, 2]


def test_the_share_is_of_those_who_were_active_in_the_period() -> None:
    mark_days("read", {0: {1, 2, 9}, 1: {1}, 2: {1}})
    mark_days("seen", {0: {1, 2, 3, 4}, 1: {2}})
    (series,) = trends(["read"], over="last 3 days", active="seen").series
    # Nobody was active on the first day; who reads without being active is no share of the active.
    assert [(p.users, p.share) for p in series.points] == [(1, None), (1, 0.0), (3, 0.5)]


def test_a_table_has_a_row_for_each_point_of_each_event() -> None:
    mark_days("read", {0: {1}})
    report = trends(["read", "write"], over="today", previous=True, active="read")
    assert report.to_csv().splitlines() == [
        "event,period_start,users,complete,previous,share,previous_share",
        "read,2026-11-23,1,False,0,1.0,",
        "write,2026-11-23,0,False,0,0.0,",
    ]
    (told, _) = report.to_dict()["series"]
    assert told["points"] == [
        {
            "period_start": "2026-11-23",
            "users": 1,
            "complete": False,
            "previous": 0,
            "share": 1.0,
            "previous_share": None,
        }
    ]


def test_the_parts_of_a_breakdown_have_the_series_of_the_people_of_each_value() -> None:
    mark_days("read", {0: {1, 2, 3}, 1: {1, 2}})
    mark_days("seen", {0: {1, 2, 3, 4}})
    mark_unique("pro", [1, 4])
    asked: dict[str, Any] = {"over": "last 2 days", "previous": True, "active": "seen"}
    report = trends(["read", "seen"], breakdown=["flag:pro", "read"], **asked)
    assert [*report.parts] == ["flag:pro", "read"]
    for name, part in report.parts.items():
        assert part == trends(["read", "seen"], where=name, **asked)


def test_no_event_is_an_error_and_so_is_an_unknown_one_if_one_is_strict() -> None:
    with pytest.raises(ValueError, match="number of events must be a whole number from 1 to 1000"):
        trends([])
    with pytest.raises(ValueError, match="unknown events or flags: read"):
        trends(["read"], strict=True)


def test_it_takes_no_more_than_four_round_trips(
    stranger: Tracker, round_trips: list[object]
) -> None:
    mark_days("read", {day: {1, 2} for day in range(9)})
    for event in ("write", "seen"):
        mark_event(event, 1)
    stranger.redis.ping()
    round_trips.clear()
    trends(
        ["read", "write", "seen"],
        over="last 90 days",
        previous=True,
        active="seen",
        breakdown=["read", "write"],
        tracker=stranger,
    )
    assert 1 <= len(round_trips) <= 4


#: Day -> event -> who did it, days counted back from today.
histories = st.dictionaries(
    st.integers(0, DAYS),
    st.dictionaries(st.sampled_from(EVENTS), st.frozensets(st.integers(1, 5), min_size=1)),
    max_size=8,
)


@given(
    histories,
    st.sampled_from(["day", "week", "month"]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([None, "seen"]),
)
def test_figures_and_people_are_those_of_plain_sets(
    history: Mapping[int, Mapping[str, frozenset[int]]],
    by: Grain,
    rows: int,
    rolling: int,
    previous: bool,
    active: str | None,
) -> None:
    current_tracker().redis.flushdb()
    did: dict[str, dict[date, set[int]]] = {event: {} for event in EVENTS}
    for ago, events in history.items():
        day = NOW - timedelta(days=ago)
        for event, users in events.items():
            mark_event(event, sorted(users), now=day)
            first = Period.containing(by, day).start.date()
            did[event].setdefault(first, set()).update(users)

    def truth(event: str, at: Period) -> set[int]:
        periods = [at.shift(-back).start.date() for back in range(rolling)]
        return {user for first in periods for user in did[event].get(first, ())}

    def share(event: str, at: Period) -> float | None:
        here = truth("seen", at)
        return len(truth(event, at) & here) / len(here) if active and here else None

    question = TrendsQuestion.of(
        events=["read", "write"],
        by=by,
        rows=rows,
        rolling=rolling,
        previous=previous,
        active=active,
    )
    report = analytics.answer(question)
    assert isinstance(report, analytics.Trends)
    present = Period.containing(by, NOW)

    def whole(event: str, last: Period) -> set[int]:
        firsts = [last.shift(-back).start.date() for back in range(rows)]
        return {user for first in firsts for user in did[event].get(first, ())}

    def whole_share(event: str, last: Period) -> float | None:
        here = whole("seen", last)
        return len(whole(event, last) & here) / len(here) if active and here else None

    earlier = present.shift(-rows)
    for number, series in enumerate(report.series):
        assert series.total == TrendsPoint(
            present.shift(1 - rows).start.date(),
            len(whole(series.event, present)),
            False,
            len(whole(series.event, earlier)) if previous else None,
            whole_share(series.event, present),
            whole_share(series.event, earlier) if previous else None,
        )
        total = TrendsFigure.of(number=number, whole=True)
        assert {*people_behind(question, total).ids} == whole(series.event, present)
        for back, point in enumerate(reversed(series.points)):
            at, before = present.shift(-back), present.shift(-back - rows)
            assert point == TrendsPoint(
                at.start.date(),
                len(truth(series.event, at)),
                back > 0,
                len(truth(series.event, before)) if previous else None,
                share(series.event, at),
                share(series.event, before) if previous else None,
            )
            figure = TrendsFigure.of(number=number, at=at.start)
            assert {*people_behind(question, figure).ids} == truth(series.event, at)
