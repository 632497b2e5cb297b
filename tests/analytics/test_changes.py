"""changes: what people do more and what they do less, against sets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from months import write_months

from flask_bitmapist import analytics, mark_event, mark_unique
from flask_bitmapist.analytics import Change, Changes, changes, count, people_behind
from flask_bitmapist.current import current_tracker
from flask_bitmapist.marks import Mark
from flask_bitmapist.questions import ChangesFigure, ChangesQuestion
from flask_bitmapist.tracker import Tracker

from .histories import mark_days

NOW = datetime(2026, 11, 23, 14, 32)  # a Monday
EVENTS = ("read", "write", "seen")
PRO = frozenset({2, 3})

pytestmark = pytest.mark.usefixtures("at_now")


def test_people_count_once_and_the_largest_changes_come_first() -> None:
    mark_days("read", {0: {1}, 1: {1, 2}, 2: {1}, 3: {3}})
    mark_days("write", {1: {1}, 4: {1, 2, 3, 4}, 5: {1}, 6: {9}})
    mark_days("seen", {0: {1}, 5: {1}})
    assert changes(over="last 3 days") == Changes(
        date(2026, 11, 21),
        date(2026, 11, 23),
        date(2026, 11, 18),
        False,
        [Change("write", 1, 4), Change("read", 2, 1), Change("seen", 1, 1)],
    )


def test_a_range_that_is_over_is_complete() -> None:
    mark_days("read", {1: {1}, 2: {2}})
    report = changes("day", date(2026, 11, 22), date(2026, 11, 22))
    assert (report.start, report.before_start, report.complete) == (
        date(2026, 11, 22),
        date(2026, 11, 21),
        True,
    )
    assert report.events == [Change("read", 1, 1)]


def test_a_month_is_beside_the_one_before_and_an_hour_too() -> None:
    mark_days("read", {30: {1}, 31: {1, 2}, 50: {3}, 55: {4, 5}})  # from 24 October back
    report = changes("month", over="last month")
    assert (report.start, report.before_start) == (date(2026, 10, 1), date(2026, 9, 1))
    assert report.events == [Change("read", 3, 2)]
    for hours, users in ((0, [1]), (1, [1, 2]), (2, [3]), (3, [3, 4]), (4, [5])):
        mark_event("read", users, now=NOW - timedelta(hours=hours), track_hourly=True)
    report = changes("hour", over="last 2 hours")
    assert report.start == datetime(2026, 11, 23, 13)
    assert report.events == [Change("read", 2, 2)]


def test_an_event_tells_its_change_and_what_share_that_is() -> None:
    mark_days("read", {0: {1, 2, 3}, 1: {4, 5}})
    mark_days("new", {0: {1}})
    report = changes(over="today")
    assert [(one.change, one.rate) for one in report.events] == [(1, None), (1, 0.5)]
    assert (report.rising, report.falling) == (2, 0)
    assert report.to_csv().splitlines() == [
        "event,users,before,change,rate",
        "new,1,0,1,",
        "read,3,2,1,0.5",
    ]
    told = report.to_dict()
    assert told["events"][1] == {
        "event": "read",
        "users": 3,
        "before": 2,
        "change": 1,
        "rate": 0.5,
    }


def test_it_counts_as_a_segment_of_the_range_does() -> None:
    mark_days("read", {day: {day, day + 1, 99} for day in range(80)})
    report = changes(over="since 2026-10-19")
    (one,) = report.events
    assert one.users == count("did(read, 2026-10-19 to 2026-11-23)", now=NOW)
    assert one.before == count("did(read, 2026-09-13 to 2026-10-18)", now=NOW)


def test_a_segment_has_events_of_its_own_kind_of_ids_alone() -> None:
    mark_event("plain", [1, 2])
    mark_event("mapped", UUID(int=1 << 64))
    mark_unique("pro", 1)
    assert {one.event for one in changes(over="today").events} == {"plain", "mapped"}
    assert changes(over="today", where="flag:pro").events == [Change("plain", 1, 0)]
    with pytest.raises(ValueError, match="unknown events or flags: nobody"):
        changes(over="today", where="nobody", strict=True)


@pytest.mark.parametrize("where", [None, "flag:pro & did(write, last 3 days)", "write - flag:pro"])
def test_it_takes_no_more_than_four_round_trips(
    stranger: Tracker, round_trips: list[object], where: str | None
) -> None:
    mark_days("read", {day: {1, 5_000_000} for day in range(9)})
    mark_days("write", {1: {1}})
    mark_unique("pro", 1)
    stranger.redis.ping()
    round_trips.clear()
    changes(over="last 28 days", where=where, tracker=stranger)
    assert 1 <= len(round_trips) <= 4


#: Day -> event -> who did it, days counted back from today.
histories = st.dictionaries(
    st.integers(0, 90),
    st.dictionaries(st.sampled_from(EVENTS), st.frozensets(st.integers(1, 5), min_size=1)),
    max_size=10,
)


@given(histories, st.integers(0, 3), st.integers(1, 45), st.sampled_from([None, "pro", "seen"]))
def test_figures_and_people_are_those_of_plain_sets(
    history: Mapping[int, Mapping[str, frozenset[int]]], ago: int, length: int, where: str | None
) -> None:
    current_tracker().redis.flushdb()
    mark_unique("pro", sorted(PRO))
    did: dict[str, dict[int, frozenset[int]]] = {event: {} for event in EVENTS}
    for back, events in history.items():
        for event, users in events.items():
            mark_event(event, sorted(users), now=NOW - timedelta(days=back))
            did[event][back] = users

    def truth(event: str, first: int) -> set[int]:
        """Who did it on `length` days, the last of them `first` days ago."""
        found: set[int] = set()
        for back in range(first, first + length):
            users = did[event].get(back, frozenset())
            if where == "seen":
                users = users & did["seen"].get(back, frozenset())
            found |= users & PRO if where == "pro" else users
        return found

    end = NOW.date() - timedelta(days=ago)
    asked: dict[str, Any] = {"start": end - timedelta(days=length - 1), "end": end}
    segment = {None: None, "pro": "flag:pro", "seen": "seen"}[where]
    question = ChangesQuestion.of(**asked, where=segment)
    report = analytics.answer(question)
    assert isinstance(report, Changes)
    marked = {event for event in EVENTS if did[event]}
    assert {one.event for one in report.events} == marked
    for one in report.events:
        present, before = truth(one.event, ago), truth(one.event, ago + length)
        assert (one.users, one.before) == (len(present), len(before))
        for figure, crowd in ((False, present), (True, before)):
            told = people_behind(question, ChangesFigure.of(event=one.event, before=figure))
            assert {*told.ids} == crowd
    sizes = [abs(one.change) for one in report.events]
    assert sizes == sorted(sizes, reverse=True)


def test_values_of_then_count_in_their_months(tracker: Tracker) -> None:
    # 1 and 2 were pro in September; in October 2 and 3 are, and so they are now.
    months = {"2026-09": {"pro": [1, 2]}, "2026-10": {"pro": [3], "free": [1]}}
    write_months(tracker.redis, "user:plan", months, {"pro": [2, 3], "free": [1]})
    tracker.record(
        [Mark("read", user, when=date(2026, month, 5)) for month in (9, 10) for user in (1, 2, 3)]
    )
    report = changes("month", over="last month", where="was(user:plan=pro)")
    assert report.events == [Change("read", 2, 2)]
    question = ChangesQuestion.of(by="month", over="last month", where="was(user:plan=pro)")
    before = ChangesFigure.of(event="read", before=True)
    assert people_behind(question, before).ids == [1, 2]
    assert people_behind(question, ChangesFigure.of(event="read")).ids == [2, 3]


@pytest.mark.parametrize("where", ["did(seen, last 3 hours)", "read - first(seen, last 2 hours)"])
def test_a_segment_in_hours_of_an_event_without_hours_is_an_error(where: str) -> None:
    mark_days("seen", {0: {1}, 1: {2}})
    mark_days("read", {0: {1}})
    with pytest.raises(ValueError, match=r"needs hours of seen.*BITMAPIST_TRACK_HOURLY"):
        changes(where=where)
