"""timeline: which events one user did on which days; profile: since when, and until when."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import bitmapist
import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist import FlaskBitmapist
from flask_bitmapist.analytics import EventSpan, Timeline, profile, timeline
from flask_bitmapist.ids import TextKey, UnusableIdError
from flask_bitmapist.marks import Mark
from flask_bitmapist.tracker import Tracker

NOW = datetime(2026, 1, 2, 14, 32)
TODAY = NOW.date()
NEW_YEARS_EVE = date(2025, 12, 31)
ANN = UUID(int=1 << 64)


pytestmark = pytest.mark.usefixtures("at_now")


@pytest.fixture
def mark(tracker: Tracker) -> Callable[..., None]:
    def mark(event: str, id_: object, *days: date, space: str = "") -> None:
        tracker.record([Mark(event, id_, when=day, space=space) for day in days])

    return mark


def test_a_timeline_tells_the_days_of_each_event(mark: Callable[..., None]) -> None:
    mark("web", 123, TODAY, NEW_YEARS_EVE)
    mark("mobile", 123, date(2025, 12, 30))
    mark("web", 7, date(2025, 12, 1))
    assert timeline(123) == Timeline(
        {"mobile": [date(2025, 12, 30)], "web": [NEW_YEARS_EVE, TODAY]},
        first=date(2025, 12, 30),
        last=TODAY,
    )


def test_it_answers_whether_somebody_has_been_here_today(mark: Callable[..., None]) -> None:
    mark("web", 123, TODAY)
    mark("web", 124, NEW_YEARS_EVE)
    assert timeline(123, TODAY, TODAY).last == TODAY
    assert timeline(124, TODAY, TODAY) == Timeline({}, None, None)


def test_events_are_in_the_order_of_their_names(mark: Callable[..., None]) -> None:
    for event in ("c", "a", "b"):
        mark(event, 1, TODAY)
    assert list(timeline(1).days) == ["a", "b", "c"]


def test_both_ends_of_the_range_count(mark: Callable[..., None]) -> None:
    days = [TODAY - timedelta(days=back) for back in range(5)]
    mark("web", 1, *days)
    assert timeline(1, days[3], days[1]).days == {"web": [days[3], days[2], days[1]]}


def test_a_year_is_shown_unless_another_range_is_asked_for(mark: Callable[..., None]) -> None:
    first = TODAY - timedelta(days=364)
    mark("web", 1, first, first - timedelta(days=1))
    assert timeline(1).days == {"web": [first]}
    assert timeline(1, start=date(2024, 12, 1)).first == first - timedelta(days=1)
    assert timeline(1, now=first).last == first


def test_a_mapped_user_is_known_by_the_id_marked(mark: Callable[..., None]) -> None:
    mark("web", ANN, TODAY)
    assert timeline(ANN).days == timeline(str(ANN)).days == {"web": [TODAY]}
    assert not timeline(UUID(int=5)).days
    assert not timeline(0).days  # Ann's offset


def test_each_event_is_read_with_its_own_kind_of_ids(mark: Callable[..., None]) -> None:
    mark("web", TextKey("x"), TODAY)
    mark("web", TextKey("7"), TODAY)  # the users' map: offset 1
    mark("row:created", TextKey("7"), NEW_YEARS_EVE, space="rows")  # the rows' map: offset 0
    mark("plain", 7, TODAY)
    assert timeline(7).days == {
        "plain": [TODAY],
        "row:created": [NEW_YEARS_EVE],
        "web": [TODAY],
    }
    assert timeline("x").days == {"web": [TODAY]}


def test_where_all_ids_are_mapped_an_int_is_found(redis_url: str, tmp_path: Path) -> None:
    app = Flask("always", instance_path=str(tmp_path / "always"))
    app.config.update(BITMAPIST_REDIS_URL=redis_url, BITMAPIST_ID_MAP="always")
    tracker = FlaskBitmapist(app).tracker_of(app)
    bitmapist.mark_event("theirs", 123, system=tracker.redis, now=NOW)  # whose ids are plain
    tracker.record([Mark("web", 2**60, when=TODAY)])
    assert timeline(2**60, TODAY, TODAY, tracker=tracker).days == {"web": [TODAY]}
    assert timeline(2**61, TODAY, TODAY, tracker=tracker).days == {}
    tracker.redis.close()


def test_what_bitmapist_wrote_is_shown(redis: Any, tracker: Tracker) -> None:
    bitmapist.mark_event("theirs", 123, system=redis, now=NOW)
    assert timeline(123, tracker=tracker).days == {"theirs": [TODAY]}


def test_a_flag_has_no_days(tracker: Tracker) -> None:
    tracker.record([Mark("premium", 1, dated=False)])
    assert timeline(1) == Timeline({}, None, None)


def test_what_was_unmarked_is_gone(mark: Callable[..., None], tracker: Tracker) -> None:
    mark("web", 1, TODAY, NEW_YEARS_EVE)
    tracker.record([Mark("web", 1, value=False, when=TODAY)])
    assert timeline(1).days == {"web": [NEW_YEARS_EVE]}


def test_what_is_left_of_a_month_in_which_a_day_was_unmarked_is_found(
    mark: Callable[..., None], redis: Any
) -> None:
    """Unmarking clears the bit of the month, by which the other days are no longer told."""
    mark("web", 1, TODAY, date(2026, 1, 1))
    bitmapist.unmark_event("web", 1, system=redis, now=NOW)
    assert not redis.getbit("trackist_web_2026-1", 1)
    assert timeline(1).days == {"web": [date(2026, 1, 1)]}


def test_days_whose_month_has_expired_are_found(redis_url: str, redis: Any, tmp_path: Path) -> None:
    app = Flask("expiring", instance_path=str(tmp_path / "expiring"))
    app.config.update(BITMAPIST_REDIS_URL=redis_url, BITMAPIST_TTL={"month": timedelta(days=1)})
    tracker = FlaskBitmapist(app).tracker_of(app)
    tracker.record([Mark("web", 1, when=date(2025, 11, 5))])
    assert not redis.exists("trackist_web_2025-11")
    assert timeline(1, tracker=tracker, now=NOW).days == {"web": [date(2025, 11, 5)]}
    tracker.redis.close()


def test_a_timeline_tells_itself_as_dict_and_csv(mark: Callable[..., None]) -> None:
    mark("=web", 1, NEW_YEARS_EVE, TODAY)
    assert timeline(1).to_dict() == {
        "days": {"=web": ["2025-12-31", "2026-01-02"]},
        "first": "2025-12-31",
        "last": "2026-01-02",
    }
    assert timeline(1).to_csv() == "event,day\r\n'=web,2025-12-31\r\n'=web,2026-01-02\r\n"
    assert timeline(2).to_csv() == "event,day\r\n"


@pytest.mark.parametrize("nobody", [-1, None, "", True, 1.5])
def test_what_identifies_nobody_is_an_error(tracker: Tracker, nobody: object) -> None:
    with pytest.raises(UnusableIdError):
        timeline(nobody)


def test_a_range_is_at_most_a_thousand_days(tracker: Tracker) -> None:
    assert timeline(1, TODAY - timedelta(days=999)).first is None
    with pytest.raises(ValueError, match="more than 1000 days"):
        timeline(1, TODAY - timedelta(days=1000))
    with pytest.raises(ValueError, match="is before the start"):
        timeline(1, TODAY, NEW_YEARS_EVE)


marks = st.sets(
    st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(-8, 4)), max_size=25
)


@given(marks, st.integers(0, 4), st.integers(-6, 2), st.integers(0, 8), st.integers(1, 20))
def test_a_timeline_agrees_with_the_log(
    redis: Any,
    tracker: Tracker,
    monkeypatch: pytest.MonkeyPatch,
    log: set[tuple[str, int, int]],
    user: int,
    begin: int,
    length: int,
    most: int,
) -> None:
    redis.flushdb()
    tracker.record([Mark(e, u, when=TODAY + timedelta(days=day)) for e, u, day in log])
    monkeypatch.setitem(timeline.__globals__, "_BATCH", most)
    found = timeline(user, TODAY + timedelta(days=begin), TODAY + timedelta(days=begin + length))
    expected: dict[str, list[date]] = {}
    for event, id_, day in sorted(log):
        if id_ == user and begin <= day <= begin + length:
            expected.setdefault(event, []).append(TODAY + timedelta(days=day))
    assert found.days == expected
    assert found.first == min((day for days in expected.values() for day in days), default=None)
    assert found.last == max((day for days in expected.values() for day in days), default=None)


def spans(user: object = 1, **options: Any) -> dict[str, tuple[date, date]]:
    return {span.event: (span.first, span.last) for span in profile(user, **options).events}


def test_a_profile_tells_the_first_and_the_last_time_of_each_event(
    mark: Callable[..., None],
) -> None:
    mark("web", 1, date(2021, 5, 31), date(2022, 1, 1), date(2024, 2, 29), date(2024, 2, 1))
    mark("mobile", 1, TODAY, NEW_YEARS_EVE)
    mark("web", 2, date(2020, 1, 1), TODAY)
    found = profile(1)
    assert found.events == [
        EventSpan("mobile", NEW_YEARS_EVE, "day", TODAY, "day"),
        EventSpan("web", date(2021, 5, 31), "day", date(2024, 2, 29), "day"),
    ]
    assert found.days == timeline(1).days == {"mobile": [NEW_YEARS_EVE, TODAY]}
    assert (found.first, found.last) == (NEW_YEARS_EVE, TODAY)
    # The range is for the days alone.
    assert profile(1, end=date(2021, 12, 31)).events == found.events


def test_a_profile_as_of_then_knows_nothing_of_what_the_month_brought_later(
    mark: Callable[..., None],
) -> None:
    mark("web", 1, date(2025, 10, 25))
    mark("mobile", 1, date(2024, 3, 9), date(2024, 8, 3), date(2025, 10, 25))
    mark("tv", 1, date(2025, 10, 3), date(2025, 10, 25))
    found = profile(1, start=date(2025, 10, 1), now=date(2025, 10, 14))
    assert found.events == [
        EventSpan("mobile", date(2024, 3, 9), "day", date(2024, 8, 3), "day"),
        EventSpan("tv", date(2025, 10, 3), "day", date(2025, 10, 3), "day"),
    ]


def test_a_profile_of_somebody_who_did_nothing_is_empty(mark: Callable[..., None]) -> None:
    mark("web", 1, TODAY)
    assert profile(2).events == profile("nobody").events == []
    assert profile(2).flags == []


def test_a_profile_tells_the_flags_that_are_set(
    mark: Callable[..., None], tracker: Tracker
) -> None:
    tracker.record([Mark(flag, 1, dated=False) for flag in ("premium", "beta")])
    tracker.record([Mark("staff", 2, dated=False), Mark("theirs", "x", dated=False)])
    mark("premium", 1, TODAY)  # a name may be of both
    assert profile(1).flags == ["beta", "premium"]
    assert profile("x").flags == ["theirs"]


def test_a_profile_tells_the_value_of_each_dimension(
    mark: Callable[..., None], tracker: Tracker
) -> None:
    mark("web", 1, TODAY)
    for number, value in enumerate(("free", "pro"), start=1):
        tracker.record([Mark("user:plan", number, dated=False, choice=value)])
    tracker.record(
        [Mark("user:country", 1, dated=False, choice="at"), Mark("beta", 1, True, False)]
    )
    assert profile(1).dimensions == {"user:country": "at", "user:plan": "free"}
    assert profile(1).flags == ["beta"]
    assert profile(2).dimensions == {"user:plan": "pro"}
    assert profile(3).dimensions == profile("nobody").dimensions == {}


def test_what_bitmapist_wrote_years_ago_is_found(redis: Any, tracker: Tracker) -> None:
    for year in (2014, 2019):
        bitmapist.mark_event("theirs", 123, system=redis, now=datetime(year, 3, 9))
    assert spans(123) == {"theirs": (date(2014, 3, 9), date(2019, 3, 9))}


def test_a_mapped_users_profile_is_told_by_the_id_marked(mark: Callable[..., None]) -> None:
    mark("web", UUID(int=3), date(2023, 1, 1))
    mark("web", ANN, date(2024, 1, 1))
    assert spans(ANN) == {"web": (date(2024, 1, 1), date(2024, 1, 1))}


def test_a_month_none_of_whose_days_is_left_stands_for_itself(
    redis_url: str, tmp_path: Path
) -> None:
    app = Flask("expiring", instance_path=str(tmp_path / "expiring"))
    app.config.update(BITMAPIST_REDIS_URL=redis_url, BITMAPIST_TTL={"day": timedelta(days=40)})
    tracker = FlaskBitmapist(app).tracker_of(app)
    now = datetime.now()
    today, long_ago = now.date(), date(now.year - 2, 3, 9)
    tracker.record([Mark("web", 1, when=day) for day in (long_ago, today)])
    tracker.record([Mark("gone", 1, when=long_ago)])
    gone = EventSpan("gone", long_ago.replace(day=1), "month", long_ago.replace(day=1), "month")
    web = EventSpan("web", long_ago.replace(day=1), "month", today, "day")
    assert profile(1, tracker=tracker).events == [gone, web]
    tracker.redis.close()


def test_a_day_left_of_a_month_that_was_unmarked_counts_while_it_is_shown(
    mark: Callable[..., None], redis: Any
) -> None:
    mark("web", 1, TODAY, date(2026, 1, 1))
    bitmapist.unmark_event("web", 1, system=redis, now=NOW)
    assert spans() == {"web": (date(2026, 1, 1), date(2026, 1, 1))}


def test_a_profile_tells_itself_as_dict_and_csv(
    mark: Callable[..., None], tracker: Tracker
) -> None:
    mark("web", 1, date(2024, 2, 29), TODAY)
    tracker.record([Mark("premium", 1, dated=False)])
    assert profile(1).to_dict() == {
        "days": {"web": ["2026-01-02"]},
        "first": "2026-01-02",
        "last": "2026-01-02",
        "events": [
            {
                "event": "web",
                "first": "2024-02-29",
                "first_by": "day",
                "last": "2026-01-02",
                "last_by": "day",
            }
        ],
        "flags": ["premium"],
        "dimensions": {},
    }
    assert profile(1).to_csv() == timeline(1).to_csv()


old_marks = st.sets(
    st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.integers(-2_000, 0)), max_size=15
)


@given(old_marks, st.integers(0, 3), st.integers(-2_000, 0), st.integers(-2_000, 0))
def test_a_profile_agrees_with_the_log(
    redis: Any, tracker: Tracker, log: set[tuple[str, int, int]], user: int, end: int, as_of: int
) -> None:
    redis.flushdb()
    tracker.record([Mark(e, u, when=TODAY + timedelta(days=day)) for e, u, day in log])
    done: dict[str, list[date]] = {}
    then = TODAY + timedelta(days=as_of)
    for event, id_, day in sorted(log):
        if id_ == user and day <= as_of:
            done.setdefault(event, []).append(TODAY + timedelta(days=day))
    last = then + timedelta(days=end)
    options: dict[str, Any] = {"end": last, "now": then}
    assert spans(user, **options) == {event: (days[0], days[-1]) for event, days in done.items()}
    assert profile(user, **options).days == timeline(user, **options).days


def test_only_days_of_months_that_tell_of_the_user_are_read(
    mark: Callable[..., None], redis: Any, tracker: Tracker
) -> None:
    """And those of the present month, two days by now."""
    events = [f"event {n:02}" for n in range(30)]
    for event in events:
        mark(event, 2, TODAY, date(2025, 1, 3))
    mark(events[7], 1, date(2025, 11, 5), date(2025, 11, 6))
    for ask in (timeline, profile):
        redis.config_resetstat()
        assert ask(1).days == {events[7]: [date(2025, 11, 5), date(2025, 11, 6)]}
        # 13 months and 2 days of each event, and one November.
        assert redis.info("commandstats")["cmdstat_getrange"]["calls"] == 30 * (13 + 2) + 30
