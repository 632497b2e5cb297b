"""summaries: when several people were last seen, their dimensions and flags, in few round trips."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist import mark_event, mark_unique
from flask_bitmapist.analytics import Summary, profile, summaries
from flask_bitmapist.dimensions import DIMENSIONS, slot
from flask_bitmapist.ids import UnusableIdError
from flask_bitmapist.tracker import Tracker

NOW = datetime(2026, 11, 23, 14, 32)
TODAY = NOW.date()

pytestmark = pytest.mark.usefixtures("at_now")


def test_the_last_day_of_either_event_counts_and_flags_are_those_set_now() -> None:
    mark_event("user:seen", 7, now=datetime(2026, 10, 3))
    mark_event("user:logged_in", 7, now=datetime(2026, 10, 5))
    mark_event("song:played", 7, now=NOW)
    mark_unique("beta", [7, 8])
    found = summaries([8, 7, 9])
    assert found.seen == ["user:seen", "user:logged_in"]
    assert found.people == [
        Summary(8, None, None, {}, ["beta"]),
        Summary(7, date(2026, 10, 5), "day", {}, ["beta"]),
        Summary(9, None, None, {}, []),
    ]


def test_other_events_may_tell_and_those_never_marked_do_not() -> None:
    mark_event("song:played", 7, now=datetime(2025, 12, 31))
    assert summaries([7]).seen == []
    found = summaries([7], ["song:played", "song:ripped"])
    assert (found.seen, found.people[0].last) == (["song:played"], date(2025, 12, 31))


def test_a_month_of_which_no_day_is_left_stands_for_itself(redis: Any) -> None:
    mark_event("user:seen", 7, now=datetime(2026, 8, 9))
    redis.delete("trackist_user:seen_2026-8-9")
    (one,) = summaries([7]).people
    assert (one.last, one.last_by) == (date(2026, 8, 1), "month")


def test_days_that_bitmapist_left_alone_in_the_present_month_count(redis: Any) -> None:
    mark_event("user:seen", 7, now=datetime(2026, 11, 9))
    redis.delete("trackist_user:seen_2026-11", "trackist_user:seen_W2026-46")
    (one,) = summaries([7]).people
    assert (one.last, one.last_by) == (date(2026, 11, 9), "day")


def test_what_is_later_than_now_is_not_told_yet() -> None:
    mark_event("user:seen", 7, now=datetime(2026, 11, 2))
    mark_event("user:seen", 7, now=datetime(2026, 11, 30))
    assert summaries([7]).people[0].last == date(2026, 11, 2)
    assert summaries([7], now=date(2026, 11, 1)).people[0].last is None


def test_a_dimension_is_a_value_and_no_flag(redis: Any) -> None:
    mark_unique("user:plan=pro", [7, 8])
    mark_unique("user:plan=free", 9)
    mark_unique("user:premium=", 7)
    redis.hset(DIMENSIONS, mapping={slot("user:plan", 0): "free", slot("user:plan", 1): "pro"})
    found = summaries([7, 9, 10])
    assert found.dimensions == ["user:plan"]
    assert [one.dimensions for one in found.people] == [
        {"user:plan": "pro"},
        {"user:plan": "free"},
        {},
    ]
    assert found.people[0].flags == ["user:premium="]
    assert found.table()[0] == ["id", "last", "last_by", "user:plan", "flags"]
    assert found.table()[1][1] == [9, None, None, "free", ""]


def test_mapped_ids_have_their_own_bits() -> None:
    mark_event("user:seen", ["ada", "bob"], now=datetime(2026, 11, 9))
    mark_unique("beta", "bob")
    mark_unique("posts:pinned", 1)  # of plain ids: bob's bit is no post
    assert summaries(["bob", "ada", "carl"]).people == [
        Summary("bob", date(2026, 11, 9), "day", {}, ["beta"]),
        Summary("ada", date(2026, 11, 9), "day", {}, []),
        Summary("carl", None, None, {}, []),
    ]


@pytest.mark.parametrize("called", [int, "user-{}".format])
def test_the_round_trips_are_few_however_many_people_there_are(
    called: Callable[[int], object], round_trips: list[object]
) -> None:
    people = [called(n) for n in range(50)]
    for days in range(0, 400, 40):
        mark_event("user:seen", people, now=NOW - timedelta(days=days))
    mark_unique("beta", people)
    summaries(people)
    round_trips.clear()
    assert [one.last for one in summaries(people).people] == [TODAY] * 50
    assert len(round_trips) <= 5


def test_nobody_and_too_many_are_told() -> None:
    assert summaries([]).people == []
    with pytest.raises(ValueError, match="the number of users"):
        summaries(range(1001))
    with pytest.raises(UnusableIdError, match="identifies nobody"):
        summaries([7, "None"])


@given(
    marks=st.lists(
        st.tuples(
            st.sampled_from(["user:seen", "user:logged_in"]),
            st.integers(0, 70),
            st.integers(0, 500),
        ),
        max_size=20,
    )
)
def test_it_agrees_with_each_persons_own_page(
    marks: list[tuple[str, int, int]], tracker: Tracker, redis: Any
) -> None:
    redis.flushdb()
    for event, id_, ago in marks:
        mark_event(event, id_, now=NOW - timedelta(days=ago))
    people = [*range(0, 71, 5), *{id_ for _, id_, _ in marks}]
    for one in summaries(people).people:
        days = [span.last for span in profile(one.id).events]
        assert one.last == max(days, default=None)
        assert one.last_by == ("day" if days else None)
