"""What marks set, whom they mark, what they refuse."""

from __future__ import annotations

import asyncio
import threading
from array import array
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import bitmapist
import numpy as np
import pandas as pd
import pytest
import redis as redis_py
from flask import Flask, abort, g
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry
from werkzeug.local import LocalProxy

from flask_bitmapist import (
    BitOpAnd,
    DayEvents,
    FlaskBitmapist,
    HourEvents,
    Mark,
    MonthEvents,
    UniqueEvents,
    WeekEvents,
    YearEvents,
    analytics,
    get_event_names,
    mark,
    mark_event,
    mark_unique,
    unmark_event,
    unmark_unique,
)
from flask_bitmapist.ids import MAPPED, UnusableIdError
from flask_bitmapist.periods import Period, marked_periods
from flask_bitmapist.tracker import Tracker

NOON = datetime(2026, 3, 14, 12, 30)


@pytest.fixture
def context(app: Flask) -> Iterator[None]:
    with app.app_context():
        yield


def test_a_mark_sets_its_day_week_and_month(context: None, redis: Any) -> None:
    mark_event("song:played", 7, now=NOON)
    assert list(DayEvents("song:played", 2026, 3, 14)) == [7]
    assert list(WeekEvents("song:played", 2026, 11)) == [7]
    assert list(MonthEvents("song:played", 2026, 3)) == [7]
    assert list(YearEvents("song:played", 2026)) == [7]
    assert len(redis.keys("trackist_song:played_*")) == 3


def test_texts_are_checked_and_dated_after_the_first_one_too(
    context: None, tracker: Tracker
) -> None:
    before = tracker.now()
    for id_ in ("ann", "bob", "ann"):
        mark_event("read", id_)
    with tracker.at(NOON):
        mark_event("read", "cleo")
    for nobody in ("", "None"):
        with pytest.raises(UnusableIdError, match="identifies nobody"):
            mark_event("read", nobody)
    with pytest.raises(ValueError, match="has mapped ids, and this one is plain"):
        mark_event("read", "7")
    assert [*DayEvents("read", 2026, 3, 14)] == ["cleo"]
    days = {before.date(), tracker.now().date()}
    assert {id_ for day in days for id_ in DayEvents.from_date("read", day)} == {"ann", "bob"}


def test_where_no_ids_are_mapped_a_text_is_refused_each_time(
    redis_url: str, process: Callable[..., Tracker]
) -> None:
    process(redis_url).record([("read", "ann")])
    tracker = process(redis_url, BITMAPIST_ID_MAP="never")
    tracker.mark("read", 5)  # is refused, as the kind is known then
    for _ in range(2):
        with pytest.raises(UnusableIdError, match="never"):
            tracker.mark("read", "ann")


def test_a_mark_without_a_moment_is_made_now(context: None, tracker: Tracker) -> None:
    before = tracker.now()
    mark_event("song:played", 7)
    assert any(7 in DayEvents.from_date("song:played", day) for day in (before, tracker.now()))


def test_hours_and_the_undated_bitmap_are_set_when_asked_for(context: None) -> None:
    mark_event("song:played", 7, now=NOON, track_hourly=True, track_unique=True)
    mark_event("song:played", 8, now=NOON)
    assert list(HourEvents("song:played", 2026, 3, 14, 12)) == [7]
    assert list(UniqueEvents("song:played")) == [7]


def test_settings_give_the_defaults_of_hours_and_undated_bitmaps(redis_url: str) -> None:
    options = {"BITMAPIST_TRACK_HOURLY": True, "BITMAPIST_TRACK_UNIQUE": True}
    FlaskBitmapist(Flask(__name__), {"BITMAPIST_REDIS_URL": redis_url, **options})
    mark_event("song:played", 7, now=NOON)
    mark_event("song:played", 8, now=NOON, track_hourly=False, track_unique=False)
    assert list(HourEvents("song:played", 2026, 3, 14, 12)) == [7]
    assert list(UniqueEvents("song:played")) == [7]


@pytest.mark.parametrize("hourly", [False, True])
def test_unmark_takes_back_all_that_mark_set(hourly: bool, context: None, redis: Any) -> None:
    for function in (mark_event, unmark_event):
        function("song:played", 7, now=NOON, track_hourly=hourly, track_unique=hourly)
    assert all(not redis.bitcount(key) for key in redis.keys("trackist_*"))


def test_an_unmark_keeps_week_and_month_while_another_day_has_it(context: None) -> None:
    for day in (10, 12, 20):  # Tuesday and Thursday of week 11, Friday of week 12
        mark_event("song:played", [7, 8], now=date(2026, 3, day))
    unmark_event("song:played", 7, now=date(2026, 3, 10))
    assert list(DayEvents("song:played", 2026, 3, 10)) == [8]
    assert list(WeekEvents("song:played", 2026, 11)) == [7, 8]
    unmark_event("song:played", 7, now=date(2026, 3, 12))
    assert list(WeekEvents("song:played", 2026, 11)) == [8]
    assert list(MonthEvents("song:played", 2026, 3)) == [7, 8]
    unmark_event("song:played", [7], now=date(2026, 3, 20))
    assert list(MonthEvents("song:played", 2026, 3)) == [8]


def test_an_unmark_that_is_not_exact_is_bitmapists(context: None) -> None:
    for day in (10, 12):
        mark_event("song:played", 7, now=date(2026, 3, day))
    unmark_event("song:played", 7, now=date(2026, 3, 10), exact=False)
    assert list(DayEvents("song:played", 2026, 3, 12)) == [7]
    assert not WeekEvents("song:played", 2026, 11).has_events_marked()
    assert not MonthEvents("song:played", 2026, 3).has_events_marked()


@given(
    batches=st.lists(
        st.lists(
            st.tuples(
                st.integers(0, 1), st.dates(date(2026, 1, 26), date(2026, 3, 3)), st.booleans()
            ),
            max_size=8,
        ),
        max_size=4,
    )
)
def test_weeks_and_months_are_what_their_days_are(
    batches: list[list[tuple[int, date, bool]]], redis: Any, tracker: Tracker
) -> None:
    redis.flushdb()
    days: set[tuple[int, date]] = set()
    for batch in batches:
        tracker.record([Mark("e", id_, value, when=day) for id_, day, value in batch])
        for id_, day, value in batch:
            (days.add if value else days.discard)((id_, day))
    expected: dict[str, set[int]] = {}
    for id_, day in days:
        for period in marked_periods(datetime.combine(day, time()), hourly=False):
            expected.setdefault(period.key("e"), set()).add(id_)
    found = {key.decode(): {*ids_of(redis, key)} for key in redis.keys("trackist_*")}
    assert {key: ids for key, ids in found.items() if ids} == expected


def test_marks_and_unmarks_of_several_threads_leave_no_week_without_its_days(
    redis_url: str, redis: Any
) -> None:
    days = [date(2026, 3, day) for day in range(9, 14)]

    def mark_and_unmark(number: int) -> None:
        random = np.random.default_rng(number)
        for value in random.random(60) < 0.5:
            trackers[number].record([Mark("e", 1, bool(value), when=days[number])])

    options = {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_ENABLED": True}
    trackers = []
    for number in range(len(days)):
        app = Flask(f"app {number}")
        trackers.append(FlaskBitmapist(app, options).tracker_of(app))
    threads = [threading.Thread(target=mark_and_unmark, args=(n,)) for n in range(len(days))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [
        redis.getbit(Period.containing("day", datetime.combine(day, time())).key("e"), 1)
        for day in days
    ]
    assert redis.getbit("trackist_e_W2026-11", 1) == max(held)
    assert redis.getbit("trackist_e_2026-3", 1) == max(held)


def test_an_unmark_of_a_name_or_an_id_that_was_never_marked_leaves_no_trace(
    context: None, tracker: Tracker, redis: Any
) -> None:
    for id_ in (7, "seven"):
        for _ in range(2):
            unmark_event("never", id_)
            unmark_unique("never:flag", id_)
    assert {key.split(b":")[1] for key in redis.keys("*")} <= {b"trips", b"origin"}
    assert get_event_names() == []
    mark_event("e", "somebody", now=NOON)
    keys = {*redis.keys("*")}
    unmark_event("e", "nobody", now=NOON)
    unmark_event("e", "somebody", now=datetime(2025, 1, 1))
    assert {*redis.keys("*")} == keys
    assert tracker.reader.offset_of("nobody", MAPPED) is None


def test_what_bitmapist_has_marked_meanwhile_is_unmarked(context: None, redis: Any) -> None:
    unmark_event("theirs", 7, now=NOON)
    bitmapist.mark_event("theirs", 7, redis, NOON)
    unmark_event("theirs", 7, now=NOON)
    assert not DayEvents("theirs", 2026, 3, 14).has_events_marked()


def test_a_flag_has_no_date(context: None, redis: Any) -> None:
    mark_unique("user:premium", [3, 4])
    unmark_unique("user:premium", 3)
    assert list(UniqueEvents("user:premium")) == [4]
    assert redis.keys("trackist_*") == [b"trackist_user:premium_u"]


@pytest.mark.parametrize(
    "ids",
    [[1, 2, 300], {1, 2, 300}, frozenset({1, 2, 300}), array("I", [1, 2, 300]),
     np.array([1, 2, 300]), iter([1, 2, 300]), [1, "2", 300]],
    ids=lambda ids: type(ids).__name__,
)  # fmt: skip
def test_a_collection_of_ids_marks_each(ids: Any, context: None) -> None:
    mark_event("song:played", ids, now=NOON)
    assert list(DayEvents("song:played", 2026, 3, 14)) == [1, 2, 300]


def test_a_scattered_collection_is_written_in_thousands(context: None, redis: Any) -> None:
    mark_event("song:played", 1, now=NOON)
    redis.config_resetstat()
    mark_event("song:played", [*range(4_999), 100_000_000], now=NOON)
    stats = redis.info("commandstats")
    assert stats["cmdstat_bitfield"]["calls"] == 3 * 5  # keys, by thousands of ids
    assert "cmdstat_setbit" not in stats
    assert "cmdstat_bitop" not in stats
    assert len(DayEvents("song:played", 2026, 3, 14)) == 5_000


def test_an_empty_collection_marks_nothing(context: None, redis: Any) -> None:
    mark_event("song:played", [])
    assert redis.keys("*") == []


@pytest.mark.parametrize(
    "id_",
    [-1, True, 1.0, None, "", "None", b"7", type, [1, None], 2**27, "x" * 513, ()],
    ids=repr,
)
def test_an_id_that_identifies_nobody_is_an_error_before_any_io(
    id_: object, context: None, redis: Any
) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the messages are tests/test_ids.py's
        mark_event("song:played", id_)
    assert redis.keys("*") == []


@pytest.mark.parametrize(
    "name", ["", " x", "x ", "a\nb", "bitop_x", "x" * 201, 7, None, "\x7f"], ids=repr
)
def test_a_name_that_cannot_name_an_event_is_an_error(name: Any, context: None) -> None:
    for function in (mark_event, unmark_event, mark_unique, unmark_unique):
        with pytest.raises(ValueError, match="cannot name an event"):
            function(name, 1)
    with pytest.raises(ValueError, match="cannot name an event"):
        mark(name, 1)


def test_a_naive_moment_that_clocks_skip_counts_for_the_hour_that_they_show(
    redis_url: str, redis: Any
) -> None:
    app = Flask("berlin")
    options = {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_TIMEZONE": "Europe/Berlin"}
    FlaskBitmapist(app, options)
    with app.app_context():
        mark_event("x", 1, now=datetime(2026, 3, 29, 2, 30), track_hourly=True)
    assert redis.getbit("trackist_x_2026-3-29-3", 1)
    assert not redis.exists("trackist_x_2026-3-29-2")


def test_a_moment_that_is_not_a_date_is_an_error(context: None, tracker: Tracker) -> None:
    with pytest.raises(TypeError, match="now= takes"):
        mark_event("x", 1, now="2026-03-14")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="at.. takes"), tracker.at(5):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("rubbish", [5, None, (), ("e",), "e"])
def test_publishing_something_that_is_not_a_mark_is_logged(
    rubbish: Any, tracker: Tracker, redis: redis_py.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    tracker.publish([rubbish, ("e", 1)])
    assert "could not mark" in caplog.text
    assert redis.getbit(f"trackist_e_{tracker.now():%Y-%-m}", 1)


def test_one_wrong_id_of_many_marks_none(context: None, redis: Any) -> None:
    with pytest.raises(ValueError, match="-1"):
        mark_event("song:played", [1, 2, -1])
    assert redis.keys("*") == []


@given(
    marks=st.lists(
        st.tuples(
            st.integers(0, 2_000),
            st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),
            st.booleans(),
        ),
        max_size=60,
    ),
    zone=st.sampled_from(["UTC", "Asia/Kathmandu", "America/St_Johns"]),
)
def test_batches_leave_the_bits_that_bitmapist_would(
    marks: list[tuple[int, datetime, bool]], zone: str, redis: Any, redis_url: str
) -> None:
    """In one batch, and with bitmapist one by one: the same keys with the same bytes."""
    redis.flushdb()
    marks = [(7, datetime(2024, 2, 29), True), *marks]  # a name must have been marked once
    app = Flask(__name__)
    options = {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_TIMEZONE": zone}
    extension = FlaskBitmapist(app, options)
    extension.tracker.record(
        Mark("ours", id_, value, when=when, hourly=True, unique=True, exact=False)
        for id_, when, value in marks
    )
    for id_, when, value in marks:
        function = bitmapist.mark_event if value else bitmapist.unmark_event
        function("theirs", id_, redis, when, True, True)
    ours, theirs = redis.keys("trackist_ours*"), redis.keys("trackist_theirs*")
    assert {key.replace(b"ours", b"theirs") for key in ours} == set(theirs)
    for key in ours:
        assert ids_of(redis, key) == ids_of(redis, key.replace(b"ours", b"theirs"))


def ids_of(redis: Any, key: bytes) -> list[int]:
    bits = np.unpackbits(np.frombuffer(redis.get(key), np.uint8))
    return np.flatnonzero(bits).tolist()


def test_aware_moments_are_converted_to_the_apps_calendar(redis_url: str) -> None:
    options = {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_TIMEZONE": "Europe/Berlin"}
    FlaskBitmapist(Flask(__name__), options)
    mark_event("e", 1, now=datetime(2025, 12, 31, 23, 30, tzinfo=UTC), track_hourly=True)
    mark_event("e", 2, now=datetime(2025, 12, 31, 23, 30))
    assert list(HourEvents("e", 2026, 1, 1, 0)) == [1]
    assert list(DayEvents("e", 2025, 12, 31)) == [2]


def test_a_moment_may_be_a_date(context: None) -> None:
    mark_event("e", 1, now=date(2026, 3, 14), track_hourly=True)
    assert list(HourEvents("e", 2026, 3, 14, 0)) == [1]


def test_at_dates_the_marks_made_inside(context: None, tracker: Tracker) -> None:
    with tracker.at(NOON):
        mark_event("e", 1)
        with tracker.at(NOON - timedelta(days=1)):
            mark_event("e", 2)
        mark_event("e", 3)
        mark_event("e", 4, now=NOON + timedelta(days=1))
    mark_event("e", 5)
    assert list(DayEvents("e", 2026, 3, 14)) == [1, 3]
    assert list(DayEvents("e", 2026, 3, 13)) == [2]
    assert list(DayEvents("e", 2026, 3, 15)) == [4]
    assert 5 in DayEvents.from_date("e", tracker.now())


def test_at_ends_with_an_exception_too(context: None, tracker: Tracker) -> None:
    with pytest.raises(KeyError), tracker.at(NOON):
        raise KeyError
    assert tracker.now() > NOON + timedelta(days=1)


def test_at_of_one_app_does_not_date_the_marks_of_another(server: Any) -> None:
    one, two = Flask("one"), Flask("two")
    extension = FlaskBitmapist()
    for app in (one, two):
        extension.init_app(app, {"BITMAPIST_REDIS_URL": server.fresh_database()})
    with extension.tracker_of(one).at(NOON):
        assert extension.tracker_of(one).now() == NOON
        assert extension.tracker_of(two).now() > NOON + timedelta(days=1)


def test_uuids_and_composite_keys_are_mapped_to_dense_offsets(context: None) -> None:
    ids = [UUID(int=5), UUID(int=9), ("de", 7)]
    mark_event("e", ids, now=NOON)
    mark_event("e", [str(UUID(int=9))], now=NOON + timedelta(days=1))
    assert list(bitmapist.DayEvents("e", 2026, 3, 14)) == [0, 1, 2]
    assert list(bitmapist.DayEvents("e", 2026, 3, 15)) == [1]


@pytest.mark.parametrize(
    ("behind", "offsets"),
    [(7, [7]), ("7", [7]), (UUID(int=5), [0]), (("de", 7), [0]), ([4, 5], [4, 5])],
)
def test_a_proxy_is_the_id_behind_it(behind: object, offsets: list[int], context: None) -> None:
    mark_event("e", LocalProxy(lambda: behind), now=NOON)
    mark_event("several", [LocalProxy(lambda: 3), LocalProxy(lambda: "4")], now=NOON)
    assert list(bitmapist.DayEvents("e", 2026, 3, 14)) == offsets
    assert list(DayEvents("several", 2026, 3, 14)) == [3, 4]


def test_pandas_nat_is_not_a_date(context: None, tracker: Tracker, redis: Any) -> None:
    nat: Any = pd.NaT
    for function in (mark_event, unmark_event):
        for system in (None, redis):
            with pytest.raises(ValueError, match="NaT is not a date"):
                function("song:played", 7, now=nat, system=system)
    with pytest.raises(ValueError, match="NaT is not a date"):
        tracker.record([Mark("song:played", 7, when=nat)])
    with pytest.raises(ValueError, match="NaT is not a date"), tracker.at(nat):
        pass
    assert redis.keys("*") == []


@pytest.mark.parametrize(
    ("moment", "complaint"), [("2026-01-01", "a date or datetime"), (pd.NaT, "not a date")]
)
def test_a_decorator_refuses_what_is_not_a_date(moment: Any, complaint: str) -> None:
    with pytest.raises((TypeError, ValueError), match=complaint):
        mark("song:played", 7, now=moment)


def test_a_timestamp_of_pandas_is_the_datetime_that_it_says(context: None) -> None:
    mark_event("song:played", 7, now=pd.Timestamp("2026-03-14 12:30:15.123456789"))
    mark_event("song:played", 8, now=NOON)
    assert list(DayEvents("song:played", 2026, 3, 14)) == [7, 8]


def test_another_system_is_marked_and_read_by_its_name(context: None, server: Any) -> None:
    with redis_py.Redis.from_url(server.fresh_database()) as other:
        bitmapist.SYSTEMS["other"] = other
        mark_event("e", [1, 2], system="other", now=NOON, track_hourly=True)
        mark_unique("flag", 3, system="other")
        unmark_event("e", 2, system=other, now=NOON)
        assert list(DayEvents("e", 2026, 3, 14, system="other")) == [1]
        assert list(HourEvents("e", 2026, 3, 14, 12, system="other")) == [1, 2]
        assert list(UniqueEvents("flag", system="other")) == [3]
        assert get_event_names("other") == ["e", "flag"]
    assert not DayEvents("e", 2026, 3, 14).has_events_marked()


def test_another_system_takes_a_pipeline_of_the_caller(context: None, redis: Any) -> None:
    pipe = redis.pipeline()
    mark_event("e", 1, system=pipe, now=NOON, use_pipeline=False)
    assert not DayEvents("e", 2026, 3, 14).has_events_marked()
    pipe.execute()
    assert list(DayEvents("e", 2026, 3, 14)) == [1]


def test_another_system_raises(context: None) -> None:
    with redis_py.Redis(unix_socket_path="/nowhere", retry=Retry(NoBackoff(), 0)) as nowhere:
        with pytest.raises(redis_py.ConnectionError):
            mark_event("e", 1, system=nowhere)
        with pytest.raises(TypeError, match="plain ids alone"):
            mark_event("e", "seven", system=nowhere)


@pytest.mark.parametrize(
    ("ids", "options", "complaint"),
    [
        ([1, 2**32 - 1], {}, "the id 4294967295 is above BITMAPIST_MAX_ID"),
        ([1, "seven"], {}, "plain ids alone"),
        ([1, -1], {}, "negative"),
        ([1], {"now": "2026-01-01"}, "now= takes a date or datetime"),
    ],
)
def test_a_wrong_mark_in_another_system_is_an_error_before_any_io(
    ids: list[object], options: dict[str, Any], complaint: str, context: None, redis: Any
) -> None:
    for function in (mark_event, unmark_event):
        with pytest.raises((TypeError, ValueError), match=complaint):
            function("e", ids, system=redis, **options)
    assert redis.keys("*") == []


@pytest.mark.parametrize("system", ["default", "stats"])
def test_the_apps_own_system_may_be_named(system: str, redis_url: str) -> None:
    options = {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_REDIS_SYSTEM": "stats"}
    FlaskBitmapist(Flask(__name__), options)
    mark_event("e", 1, system=system, now=NOON)
    assert list(DayEvents("e", 2026, 3, 14, system=system)) == [1]
    assert get_event_names(system) == ["e"]


def test_disabled_every_call_is_a_no_op(redis_url: str, redis: Any) -> None:
    app = Flask(__name__)
    FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_ENABLED": False})

    @mark("e")
    def view() -> str:
        return "done"

    with app.app_context():
        mark_event("e", 1)
        mark_event("e", 1, system=redis)
        mark_event("e", LocalProxy(lambda: g.absent))
        mark_unique("e", 1)
        unmark_event("e", 1)
        assert view() == "done"
    assert redis.keys("*") == []


class TestDecorator:
    """``@mark``, below ``@app.route``."""

    def test_a_value_is_marked_when_the_view_has_returned(
        self, app: Flask, client: FlaskClient
    ) -> None:
        @app.route("/")
        @mark("index:visited", 1, now=NOON)
        def index() -> str:
            return "Hello"

        assert index.__name__ == "index"
        assert not DayEvents("index:visited", 2026, 3, 14).has_events_marked()
        assert client.get("/").text == "Hello"
        assert list(DayEvents("index:visited", 2026, 3, 14)) == [1]

    @pytest.mark.parametrize("failure", [lambda: abort(404), lambda: 1 / 0])
    def test_a_view_that_fails_marks_nothing(
        self, failure: Any, app: Flask, client: FlaskClient, redis: Any
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = False

        @app.route("/")
        @mark("index:visited", 1)
        def index() -> str:
            failure()
            return ""

        assert client.get("/").status_code in (404, 500)
        assert redis.keys("*") == []

    @pytest.mark.parametrize(
        "who",
        [
            lambda: g.user_id,
            lambda user_id: user_id,
            lambda **arguments: arguments["user_id"],
            lambda page, user_id: user_id,
        ],
    )
    def test_a_callable_is_asked_after_the_view(
        self, who: Any, app: Flask, client: FlaskClient
    ) -> None:
        @app.route("/users/<int:user_id>/<page>")
        @mark("page:read", who, now=NOON)
        def read(user_id: int, page: str) -> str:
            g.user_id = user_id
            return page

        client.get("/users/7/about")
        assert list(DayEvents("page:read", 2026, 3, 14)) == [7]

    def test_a_callable_may_answer_nobody_or_many(self, context: None) -> None:
        @mark("e", lambda ids: ids, now=NOON)
        def share(ids: list[int] | None) -> None: ...

        share(None)
        share([4, 5])
        assert list(DayEvents("e", 2026, 3, 14)) == [4, 5]

    @pytest.mark.parametrize("id_", [7, "7"])
    def test_a_proxy_is_the_id_behind_it_when_the_view_is_called(
        self, id_: object, app: Flask, client: FlaskClient
    ) -> None:
        @app.before_request
        def find_user() -> None:
            g.user_id = id_

        @app.route("/leave")
        @mark("account:left", LocalProxy(lambda: g.user_id), now=NOON)
        def leave() -> str:
            del g.user_id
            return ""

        client.get("/leave")
        assert list(DayEvents("account:left", 2026, 3, 14)) == [7]

    def test_a_proxy_of_nobody_marks_nothing(self, context: None, redis: Any) -> None:
        @mark("e", LocalProxy(lambda: None))
        def view() -> str:
            return "done"

        assert view() == "done"
        assert redis.keys("*") == []

    def test_a_proxy_of_nothing_does_not_break_the_view(
        self, context: None, redis: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        @mark("e", LocalProxy(lambda: g.absent))
        def view() -> str:
            return "done"

        assert view() == "done"
        assert "could not find whom to mark" in caplog.text
        assert redis.keys("*") == []

    def test_a_callable_that_fails_does_not_break_the_view(
        self, context: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        @mark("e", lambda: g.absent)
        def view() -> str:
            return "done"

        assert view() == "done"
        assert "could not mark 'e'" in caplog.text

    def test_an_unusable_id_does_not_break_the_view(
        self, context: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        @mark("e", lambda: -5)
        def view() -> str:
            return "done"

        assert view() == "done"
        assert "the id -5 is negative" in caplog.text

    def test_async_views_are_marked_when_awaited(self, app: Flask, client: FlaskClient) -> None:
        @app.route("/<int:user_id>")
        @mark("index:visited", lambda user_id: user_id, now=NOON)
        async def index(user_id: int) -> str:
            await asyncio.sleep(0)
            assert not DayEvents("index:visited", 2026, 3, 14).has_events_marked()
            return "Hello"

        assert client.get("/7").text == "Hello"
        assert list(DayEvents("index:visited", 2026, 3, 14)) == [7]

    def test_async_views_that_fail_mark_nothing(self, context: None, redis: Any) -> None:
        @mark("e", 1)
        async def view() -> None:
            raise KeyError

        with pytest.raises(KeyError):
            asyncio.run(view())
        assert redis.keys("*") == []


class TestRegistry:
    """What is known of events, and what was there before us."""

    def test_names_are_those_marked_by_us_and_by_bitmapist(self, context: None, redis: Any) -> None:
        bitmapist.mark_event("old_event:x", 1, redis)
        bitmapist.mark_unique("flag", 1, redis)
        mark_event("new", 1)
        assert get_event_names() == ["flag", "new", "old_event:x"]
        assert get_event_names(prefix="n") == ["new"]
        assert sorted(bitmapist.get_event_names()) == ["flag", "new", "old_event:x"]

    def test_nothing_of_ours_begins_as_bitmapists_keys_do(self, context: None, redis: Any) -> None:
        mark_event("e", "a")
        ours = [key for key in redis.keys("*") if not key.startswith(b"trackist_e_")]
        assert ours
        assert all(key.startswith(b"flask_bitmapist:") for key in ours)

    def test_an_event_with_older_data_is_plain_and_old(
        self, context: None, redis: Any, tracker: Tracker,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        bitmapist.mark_event("user:created", 3, redis, datetime(2019, 5, 17))
        mark_event("user:created", UUID(int=1))
        assert "has plain ids" in caplog.text
        mark_event("user:created", 4, now=NOON)
        assert list(DayEvents("user:created", 2026, 3, 14)) == [4]
        assert tracker.reader.kind_and_first_days([], ["user:created"])[1]["user:created"] == date(
            2019, 5, 1
        )

    def test_a_flag_with_older_data_is_plain(
        self, context: None, redis: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        bitmapist.mark_unique("flag", 3, redis)
        mark_unique("flag", "someone")
        assert "has plain ids" in caplog.text
        assert list(UniqueEvents("flag")) == [3]

    @pytest.mark.parametrize("others", [0, 7_000])
    def test_many_new_names_cost_few_commands_and_older_data_is_found(
        self, context: None, redis: Any, tracker: Tracker, others: int
    ) -> None:
        pipe = redis.pipeline()
        for number in range(others):
            pipe.set(f"another's key {number}", "")
        pipe.execute()
        bitmapist.mark_event("n 7", 3, redis, datetime(2019, 5, 17))
        bitmapist.mark_unique("n {8}", 3, redis)
        redis.config_resetstat()
        names = [*(f"n {number}" for number in range(100)), "n {8}", "nö"]
        tracker.record([(name, "someone") for name in names])
        calls = {name: stats["calls"] for name, stats in redis.info("commandstats").items()}
        assert calls.get("cmdstat_exists", 0) < 3 * len(names)
        assert calls["cmdstat_bitpos"] < 400  # those two are looked at closely
        assert ("cmdstat_scan" in calls) == (others == 0)
        assert tracker.stats().refused == 2
        assert tracker.reader.kind_and_first_days([], ["n 7"])[1]["n 7"] == date(2019, 5, 1)

    def test_without_the_right_to_count_keys_older_data_is_found_too(
        self, redis_url: str, context: None, redis: Any, tracker: Tracker
    ) -> None:
        bitmapist.mark_event("old", 3, redis, datetime(2019, 5, 17))
        try:
            redis.execute_command("ACL", "SETUSER", "default", "-dbsize")
            mark_event("old", "someone")
            mark_event("new", "someone")
        finally:
            redis.execute_command("ACL", "SETUSER", "default", "+dbsize")
        assert tracker.stats().refused == 1
        assert get_event_names() == ["new", "old"]

    def test_the_first_day_moves_back_with_a_backfill(
        self, context: None, redis: Any, tracker: Tracker
    ) -> None:
        for day in (14, 20, 3, 9):
            mark_event("e", 1, now=date(2026, 3, day))
        unmark_event("e", 1, now=date(2026, 1, 1))
        assert tracker.reader.kind_and_first_days([], ["e"])[1]["e"] == date(2026, 3, 3)

    def test_an_event_is_plain_or_mapped_never_both(self, context: None) -> None:
        mark_event("plain", 1)
        mark_event("mapped", "a")
        with pytest.raises(ValueError, match="BITMAPIST_ID_MAP"):
            mark_event("plain", "a")
        with pytest.raises(ValueError, match="BITMAPIST_ID_MAP"):
            mark_event("mapped", 1)

    def test_one_call_s_ids_are_of_one_kind(
        self, context: None, tracker: Tracker, redis: Any
    ) -> None:
        for ids in ([1, "a"], ["a", 1]):
            with pytest.raises(ValueError, match="BITMAPIST_ID_MAP"):
                mark_event("new", ids)
        assert redis.keys("*") == []
        tracker.record([("plain", 1), ("mapped", "a")])
        assert tracker.reader.event_names() == ["mapped", "plain"]

    def test_another_processes_kind_is_respected(
        self, app: Flask, redis_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with app.app_context():
            mark_event("e", "a", now=NOON)
        other = Flask("other")
        FlaskBitmapist(other, {"BITMAPIST_REDIS_URL": redis_url})
        with other.app_context():
            mark_event("e", 1, now=NOON)
            mark_event("e", "a", now=NOON)
            assert "has mapped ids" in caplog.text
            assert list(DayEvents("e", 2026, 3, 14)) == ["a"]

    def test_known_events_cost_nothing(self, context: None, redis: Any) -> None:
        mark_event("e", 1, now=NOON)
        redis.config_resetstat()
        mark_event("e", 2, now=NOON)
        stats = redis.info("commandstats")
        commands = {name.removeprefix("cmdstat_") for name in stats}
        # In one round trip; whether what is known of the event still holds is asked in it.
        assert commands <= {"setbit", "hmget", "zmscore", "incr", "config|resetstat", "info"}
        assert stats["cmdstat_setbit"]["calls"] == 3

    @pytest.mark.parametrize("first", ["mark", "report", "catalogue", "bitmap"])
    def test_another_calendar_is_a_warning_at_the_first_mark_or_report(
        self, first: str, app: Flask, redis_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with app.app_context():
            mark_event("e", 1, now=NOON)
        options = {
            "BITMAPIST_REDIS_URL": redis_url,
            "BITMAPIST_TIMEZONE": "Asia/Tokyo",
            "BITMAPIST_ENABLED": True,
        }
        other = Flask("other")
        FlaskBitmapist(other, options)
        with other.app_context():
            for _ in range(2):
                if first == "mark":
                    mark_event("e", 2, now=NOON)
                elif first == "report":
                    analytics.trend("e", now=NOON)
                elif first == "catalogue":
                    get_event_names()
                else:
                    assert 1 in DayEvents("e", 2026, 3, 14)
        assert caplog.text.count("BITMAPIST_TIMEZONE is Asia/Tokyo") == 1

    def test_another_calendar_on_the_same_data_is_a_warning(
        self, app: Flask, redis_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with app.app_context():
            mark_event("e", 1)
        options = {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_TIMEZONE": "Asia/Tokyo"}
        other = Flask("other")
        FlaskBitmapist(other, options)
        with other.app_context():
            mark_event("f", 1)
            mark_event("g", 1)
        assert caplog.text.count("BITMAPIST_TIMEZONE is Asia/Tokyo") == 1


def test_bitmaps_expire_when_their_period_has_been_over_for_the_ttl(
    redis_url: str, redis: Any
) -> None:
    ttl = {"hour": timedelta(days=14), "day": timedelta(days=400)}
    options = {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_TTL": ttl}
    tracker = FlaskBitmapist(Flask(__name__), options).tracker
    now = tracker.now()
    mark_event("e", [1, 2], now=now, track_hourly=True, track_unique=True)
    mark_event("e", 1, now=now - timedelta(days=30), track_hourly=True)
    (hour,) = redis.keys("trackist_e_*-*-*-*")
    assert (
        timedelta(days=13, hours=23)
        < timedelta(seconds=redis.ttl(hour))
        <= timedelta(days=14, hours=1)
    )
    for key in (f"trackist_e_{now.year}-{now.month}", "trackist_e_u"):
        assert redis.ttl(key) == -1
    assert redis.ttl(DayEvents.from_date("e", now).redis_key) > 400 * 86_400 - 5


def test_a_repeated_mark_under_a_ttl_writes_its_trip_alone(redis_url: str, redis: Any) -> None:
    ttl = dict.fromkeys(("hour", "day", "week", "month"), timedelta(days=400))
    options = {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_TTL": ttl, "BITMAPIST_ENABLED": True}
    FlaskBitmapist(Flask(__name__), options)
    mark_event("e", 1, track_hourly=True)
    changes = redis.info("persistence")["rdb_changes_since_last_save"]
    for _ in range(5):
        mark_event("e", 1, track_hourly=True)
    assert redis.info("persistence")["rdb_changes_since_last_save"] == changes + 5


def test_an_expiry_that_was_lost_is_set_again(redis_url: str, redis: Any) -> None:
    options = {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_ENABLED": True}
    options["BITMAPIST_TTL"] = {"day": timedelta(days=400)}
    tracker = FlaskBitmapist(Flask(__name__), options).tracker
    mark_event("e", 1)
    key = DayEvents.from_date("e", tracker.now()).redis_key
    redis.delete(key)
    mark_event("e", 1)
    assert redis.ttl(key) > 0


def test_operators_of_bitmapist_work_on_our_bits(context: None) -> None:
    mark_event("a", [1, 2, 3], now=NOON)
    mark_event("b", [2, 3, 4], now=NOON)
    a, b = DayEvents("a", 2026, 3, 14), DayEvents("b", 2026, 3, 14)
    assert list(BitOpAnd(a, b)) == [2, 3]
    assert list(a ^ b) == [1, 4]


def test_a_read_only_instance_folder_does_not_matter_while_redis_is_well(redis_url: str) -> None:
    app = Flask(__name__, instance_path="/proc/none")
    FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": redis_url})
    mark_event("e", 1, now=NOON)
    assert list(DayEvents("e", 2026, 3, 14)) == [1]
    assert not Path("/proc/none").exists()
