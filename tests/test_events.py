"""Events and their combinations: bitmapist's results, in the app's calendar, without writing."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import bitmapist
import pytest
import redis as redis_py
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

import flask_bitmapist as ours
from flask_bitmapist import (
    BitOpAnd,
    BitOpNot,
    BitOpOr,
    BitOpXor,
    DayEvents,
    FlaskBitmapist,
    HourEvents,
    MonthEvents,
    UniqueEvents,
    WeekEvents,
    YearEvents,
    get_event_names,
    mark_event,
    mark_unique,
    unmark_event,
    unmark_unique,
)
from flask_bitmapist.events import BitOpDiff, Events
from flask_bitmapist.ids import UnusableIdError
from flask_bitmapist.tracker import Tracker

NOW = datetime(2026, 11, 23, 14, 32)
PERIODS = ["HourEvents", "DayEvents", "WeekEvents", "MonthEvents", "YearEvents"]
OPERATORS = {"BitOpAnd": "__and__", "BitOpOr": "__or__", "BitOpXor": "__xor__"}


@pytest.fixture
def context(app: Flask, tracker: Tracker) -> Iterator[None]:
    with app.app_context(), tracker.at(NOW):
        yield


# What bitmapist's own classes say of the same data

moments = st.datetimes(datetime(2025, 11, 1), datetime(2026, 2, 28))
bitmapist_marks = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 130), moments, st.booleans(), st.booleans()),
    max_size=12,
)
leaves = st.tuples(st.sampled_from([*PERIODS, "UniqueEvents"]), st.sampled_from("abcd"), moments)
trees = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.tuples(st.sampled_from([*OPERATORS]), st.lists(parts, min_size=1, max_size=3)),
        st.tuples(st.just("BitOpNot"), st.lists(parts, min_size=1, max_size=1)),
        st.tuples(st.sampled_from([*OPERATORS.values()]), parts, parts),
        st.tuples(st.just("__invert__"), parts),
    ),
    max_leaves=5,
)


def built(tree: Any, module: Any) -> Any:
    """The set that `tree` describes, of the classes of `module`."""
    match tree:
        case (str() as name, list() as parts):
            return getattr(module, name)(*(built(part, module) for part in parts))
        case (name, str() as event, datetime() as moment):
            return getattr(module, name).from_date(event, moment.replace(tzinfo=UTC))
        case (operator, *parts):
            first, *others = (built(part, module) for part in parts)
            return getattr(first, operator)(*others)
    raise AssertionError(tree)


@given(marks=bitmapist_marks, tree=trees, asked=st.lists(st.integers(0, 150), max_size=5))
def test_every_set_and_combination_is_what_bitmapist_says(
    context: None, redis: Any, marks: list[Any], tree: Any, asked: list[int]
) -> None:
    redis.flushdb()
    for event, user, moment, hourly, unique in marks:
        when = moment.replace(tzinfo=UTC)
        bitmapist.mark_event(event, user, "default", when, hourly, unique)
    keys = set(redis.keys())
    mine = built(tree, ours)
    told = [len(mine), mine.get_count(), list(mine), mine.has_events_marked(), bool(mine)]
    told += [mine.redis_key, hash(mine), [user in mine for user in asked]]
    assert set(redis.keys()) == keys
    theirs = built(tree, bitmapist)
    expected = [len(theirs), theirs.get_count(), list(theirs), theirs.has_events_marked()]
    expected += [bool(theirs), theirs.redis_key, hash(theirs), [user in theirs for user in asked]]
    assert told == expected
    assert mine == theirs
    assert list(copy.copy(mine)) == expected[2]


@given(
    moment=st.datetimes(datetime(1900, 1, 1), datetime(9990, 1, 1), timezones=st.just(UTC)),
    steps=st.integers(-60, 60),
    name=st.sampled_from(PERIODS),
)
def test_every_period_is_called_begins_ends_and_moves_as_in_bitmapist(
    context: None, moment: datetime, steps: int, name: str
) -> None:
    mine = getattr(ours, name).from_date("e", moment)
    theirs = getattr(bitmapist, name).from_date("e", moment)
    for step in (mine, mine.next(), mine.prev(), mine.delta(steps)):
        assert isinstance(step, type(mine))
    pairs = [
        (mine, theirs),
        (mine.next(), theirs.next()),
        (mine.prev(), theirs.prev()),
        (mine.delta(steps), theirs.delta(steps)),
    ]
    for left, right in pairs:
        assert left.redis_key == right.redis_key
        assert (left.period_start(), left.period_end()) == (
            right.period_start(),
            right.period_end(),
        )
        numbers = ("year", "month", "week", "day", "hour")
        assert [getattr(left, n, None) for n in numbers] == [
            getattr(right, n, None) for n in numbers
        ]


# bitmapist's documented behaviour, by our names


def test_a_marked_user_is_in_the_current_hour_day_week_month_and_year(context: None) -> None:
    mark_event("active", 123, track_hourly=True)
    for kind in (HourEvents, DayEvents, WeekEvents, MonthEvents, YearEvents):
        assert 123 in kind("active")
        assert 124 not in kind("active")
        assert 123 not in kind("active").prev()
        assert 123 not in kind("other")
    assert 123 in MonthEvents("active", 2026, 11)
    assert 123 in WeekEvents("active", 2026, 48)
    assert 123 in HourEvents("active", 2026, 11, 23, 14)
    unmark_event("active", 123, track_hourly=True)
    assert not any(kind("active") for kind in (HourEvents, DayEvents, WeekEvents, MonthEvents))


def test_missing_numbers_are_those_of_now(context: None) -> None:
    assert DayEvents("e", day=1) == DayEvents("e", 2026, 11, 1)
    assert MonthEvents("e", month=2) == MonthEvents("e", 2026, 2)
    assert WeekEvents("e", week=1) == WeekEvents("e", 2026, 1)
    assert HourEvents("e", hour=0) == HourEvents("e", 2026, 11, 23, 0)


@pytest.mark.parametrize(
    "events",
    [
        DayEvents("e", 2026, 2, 30),
        DayEvents("e", 2026, 3, 0),
        WeekEvents("e", 2026, 54),
        MonthEvents("e", 2026, 13),
        HourEvents("e", 2026, 3, 14, -1),
    ],
)
def test_a_period_that_no_calendar_has_is_empty(context: None, events: Events) -> None:
    mark_event("e", 1, now=date(2026, 3, 14))
    assert len(events) == 0
    assert list(events) == []
    assert 1 not in events


def test_a_set_is_read_again_each_time(context: None) -> None:
    one, both = DayEvents("e"), DayEvents("e") & DayEvents("f")
    assert (list(one), list(both)) == ([], [])
    mark_event("e", [5, 5555, 55])
    mark_event("f", [55])
    assert (list(one), list(both)) == ([5, 55, 5555], [55])


def test_days_and_flags_combine(context: None) -> None:
    mark_event("active", [1, 2])
    mark_unique("premium", [2, 3])
    active, premium = DayEvents("active"), UniqueEvents("premium")
    assert list(premium & active) == [2]
    assert list(premium | active) == [1, 2, 3]
    assert list(premium ^ active) == [1, 3]
    assert list(premium | active.prev()) == [2, 3]
    assert list(BitOpAnd(BitOpOr(active, premium), active, ~premium)) == [1]
    assert list(BitOpXor(active, premium, active)) == [2, 3]
    unmark_unique("premium", 2)
    assert list(premium & active) == []


def test_the_difference_is_the_first_set_without_the_others(context: None) -> None:
    mark_event("active", [1, 2, 3, 1000])
    mark_unique("premium", 2)
    mark_unique("staff", 3)
    active, premium, staff = DayEvents("active"), UniqueEvents("premium"), UniqueEvents("staff")
    assert list(active - premium) == [1, 3, 1000]
    assert list(BitOpDiff(active, premium, staff)) == [1, 1000]
    assert 1000 in active - premium
    assert 2 not in active - premium
    # bitmapist's complement ends with the stored bytes.
    assert list(active & ~premium) == [1, 3]
    assert list(premium - active) == []


def test_the_complement_is_that_of_the_stored_bytes(context: None) -> None:
    mark_unique("premium", [1, 2])
    premium = UniqueEvents("premium")
    assert list(~premium) == [0, 3, 4, 5, 6, 7]
    assert len(BitOpNot(premium)) == 6
    assert 7 in ~premium
    assert 8 not in ~premium
    assert list(~~premium) == [1, 2]
    assert list(~UniqueEvents("nobody")) == []


def test_a_week_is_that_of_the_iso_year(context: None) -> None:
    mark_event("e", 7, now=date(2027, 1, 1))
    assert 7 in WeekEvents.from_date("e", date(2027, 1, 1))
    assert 7 in WeekEvents("e", 2026, 53)
    assert repr(WeekEvents("e", 2026, 53).next()) == "WeekEvents('e', 2027, 1)"


def test_a_deleted_set_is_empty_and_a_combination_deletes_nothing(
    context: None, redis: Any
) -> None:
    mark_event("e", [1, 2])
    for computed in (YearEvents("e"), DayEvents("e") | WeekEvents("e"), ~DayEvents("e")):
        computed.delete()
    assert len(YearEvents("e")) == 2
    DayEvents("e").delete()
    assert len(DayEvents("e")) == 0
    assert not redis.exists("trackist_e_2026-11-23")
    assert len(MonthEvents("e")) == 2


def test_sets_are_equal_by_what_they_are(context: None) -> None:
    day, other = DayEvents("e", 2026, 1, 2), DayEvents("e", 2026, 1, 3)
    assert day == DayEvents("e", 2026, 1, 2)
    assert day != other
    assert day & other == day & other
    assert day & other != day | other
    assert day != "trackist_e_2026-1-2"
    assert len({day, other, DayEvents("e", 2026, 1, 2), day & other, day & other}) == 3


def test_names_that_bitmapist_allows_are_read(context: None) -> None:
    for name in ("with space ", "under_score", "ümlaut", "a" * 300, "u"):
        bitmapist.mark_event(name, 3, now=NOW)
        assert list(DayEvents(name)) == [3]


def test_names_of_events_are_listed_without_combinations(context: None) -> None:
    mark_event("foo", 1)
    mark_event("bar", 1)
    bitmapist.BitOpAnd(bitmapist.DayEvents("foo"), bitmapist.DayEvents("bar"))
    assert get_event_names(batch=2) == ["bar", "foo"]
    assert get_event_names(prefix="b", batch=2) == ["bar"]


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: BitOpAnd(*[]), "system_or_event"),
        (lambda: BitOpAnd("default"), "BitOpAnd combines events: name one at least"),
        (lambda: BitOpNot(DayEvents("e"), DayEvents("f")), "BitOpNot takes one set, not 2"),
        (lambda: BitOpAnd(DayEvents("e"), "f"), "'f' is no set of users"),
        (lambda: operator.and_(DayEvents("e"), "f"), "unsupported operand"),
        (lambda: operator.sub(DayEvents("e"), 5), "unsupported operand"),
    ],
)
def test_a_combination_of_something_else_is_an_error(
    context: None, make: Any, complaint: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=complaint):
        make()


def test_a_set_says_what_it_is(context: None, redis: Any) -> None:
    assert repr(DayEvents("song:played")) == "DayEvents('song:played', 2026, 11, 23)"
    assert repr(UniqueEvents("vip", system="stats")) == "UniqueEvents('vip', system='stats')"
    assert repr(DayEvents("e", system=redis)) == "DayEvents('e', 2026, 11, 23)"
    both = UniqueEvents("vip") & ~YearEvents("e")
    assert repr(both) == "BitOpAnd(UniqueEvents('vip'), BitOpNot(YearEvents('e', 2026)))"


# The calendar of the application


@contextmanager
def app_in(zone: str, redis_url: str, moment: datetime) -> Iterator[Tracker]:
    """An app whose days are those of `zone`, at the aware `moment`."""
    app = Flask(zone)
    FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_TIMEZONE": zone})
    tracker = FlaskBitmapist().tracker
    with app.app_context(), tracker.at(moment):
        yield tracker


def test_in_tokyo_at_eight_in_the_morning_a_song_was_played_today(redis_url: str) -> None:
    eight = datetime(2026, 3, 14, 8, tzinfo=ZoneInfo("Asia/Tokyo"))
    with app_in("Asia/Tokyo", redis_url, eight):
        mark_event("song:played", 1)
        assert 1 in DayEvents("song:played")
        assert DayEvents("song:played").period_start() == eight.replace(hour=0)
        assert eight.day == 14  # and the 13th in UTC
        assert 1 in DayEvents.from_date("song:played", eight.astimezone(UTC))


def test_in_los_angeles_on_the_last_evening_of_march_it_is_march(redis_url: str) -> None:
    evening = datetime(2026, 3, 31, 18, tzinfo=ZoneInfo("America/Los_Angeles"))
    with app_in("America/Los_Angeles", redis_url, evening):
        mark_event("song:played", 1, track_hourly=True)
        for kind in (HourEvents, DayEvents, WeekEvents, MonthEvents, YearEvents):
            assert 1 in kind("song:played")
        assert MonthEvents("song:played") == MonthEvents("song:played", 2026, 3)
        assert MonthEvents("song:played").period_end() > evening


def test_hours_step_over_the_one_that_summer_time_skips(redis_url: str) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    with app_in("Europe/Berlin", redis_url, datetime(2026, 3, 29, 1, 30, tzinfo=berlin)):
        hour = HourEvents("e")
        assert hour.next() == HourEvents("e", 2026, 3, 29, 3)
        assert hour.next().prev() == hour


def test_the_hour_that_is_there_twice_ends_when_it_is_over(redis_url: str) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    first, second = (datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=fold) for fold in (0, 1))
    with app_in("Europe/Berlin", redis_url, first):
        hour = HourEvents("e")
        assert hour == HourEvents.from_date("e", second)
        duration = hour.period_end().astimezone(UTC) - hour.period_start().astimezone(UTC)
        assert duration == timedelta(hours=2) - timedelta(microseconds=1)


# Ids that are mapped


def test_mapped_ids_are_looked_for_and_listed_as_they_were_marked(context: None) -> None:
    report, other = UUID(int=5), UUID(int=6)
    mark_event("shared", [report, ("de", 7), "alice"])
    mark_event("printed", ["alice", other])
    shared = DayEvents("shared")
    assert list(shared) == [str(report), "de:7", "alice"]
    for form in (report, str(report), ("de", 7), "alice"):
        assert form in shared
        assert form in YearEvents("shared")
    for stranger in (other, "bob", 0, 1, 2**40):
        assert stranger not in shared
        assert stranger not in MonthEvents("shared") | DayEvents("shared")
    assert list(shared & DayEvents("printed")) == ["alice"]
    assert len(shared - DayEvents("printed")) == 2
    assert all(user in shared for user in shared)


def test_ints_that_are_mapped_are_listed_as_ints(redis_url: str) -> None:
    options = {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_ID_MAP": "always"}
    with Flask("first").app_context() as first:
        FlaskBitmapist(first.app, options)
        mark_event("e", [2**60, 7, "alice"])
    with Flask("another").app_context() as another:
        FlaskBitmapist(another.app, options)
        for events in (DayEvents("e"), YearEvents("e")):
            assert list(events) == [2**60, 7, "alice"]
            assert 7 in events
            assert "7" in events
            assert 1 not in events  # the offset of 7


def test_a_plain_event_holds_nobody_with_another_id(context: None) -> None:
    mark_event("e", 7)
    assert "7" in DayEvents("e")
    for stranger in ("seven", UUID(int=7), ("de", 7), 2**32, 2**80):
        assert stranger not in DayEvents("e")
        assert stranger not in YearEvents("e")


@pytest.mark.parametrize("nobody", [None, True, -1, 1.0, "", b"7", []])
def test_something_that_identifies_nobody_is_an_error(context: None, nobody: Any) -> None:
    for events in (DayEvents("e"), YearEvents("e"), ~DayEvents("e")):
        with pytest.raises(UnusableIdError):
            _ = nobody in events


def test_sets_of_different_kinds_of_ids_do_not_combine(context: None) -> None:
    mark_event("plain", 0)
    mark_event("mapped", "alice")
    both = DayEvents("plain") & DayEvents("mapped")
    for ask in (len, list, both.__class__.has_events_marked, lambda events: 0 in events):
        with pytest.raises(ValueError, match="different kinds of ids do not combine"):
            ask(both)


# Which server


@pytest.fixture
def stats(server: Any, context: None) -> Iterator[redis_py.Redis]:
    """Another server, registered as ``stats``."""
    with redis_py.Redis.from_url(server.fresh_database()) as client:
        ours.SYSTEMS["stats"] = client
        yield client


def test_events_of_another_server_combine_by_operators(stats: redis_py.Redis) -> None:
    for system in ("stats", stats):
        mark_event("foo", [1, 2], system=system)
        mark_event("bar", [2, 3], system=system)
        foo, bar = DayEvents("foo", system=system), YearEvents("bar", system=system)
        assert list(foo & bar) == [2]
        assert list(foo | bar) == [1, 2, 3]
        assert list(foo - bar) == [1]
        assert 3 in ~foo & bar
        assert (foo & bar).system == system
    assert list(DayEvents("foo", system="stats") & DayEvents("bar", system=stats)) == [2]
    assert not DayEvents("foo") | DayEvents("bar")


def test_ids_on_another_server_are_plain(context: None, redis: Any) -> None:
    mark_event("e", ["alice", "bob"])
    elsewhere = DayEvents("e", system=redis)
    assert list(elsewhere) == list(YearEvents("e", system=redis)) == [0, 1]
    assert 1 in elsewhere
    assert "bob" not in elsewhere


def test_a_combination_is_read_from_the_server_that_it_names(stats: redis_py.Redis) -> None:
    mark_event("foo", [1, 2], system="stats")
    mark_event("foo", [3])
    elsewhere = BitOpAnd("stats", DayEvents("foo"), MonthEvents("foo"), YearEvents("foo"))
    assert list(elsewhere) == [1, 2]
    assert elsewhere.system == "stats"


def test_events_of_two_servers_do_not_combine(stats: redis_py.Redis) -> None:
    both = DayEvents("foo") & DayEvents("foo", system="stats")
    with pytest.raises(ValueError, match="events of different systems do not combine"):
        len(both)


def test_the_apps_own_server_has_two_names(redis_url: str) -> None:
    options = {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_REDIS_SYSTEM": "mine"}
    FlaskBitmapist(Flask(__name__), options)
    mark_event("e", 4)
    assert list(DayEvents("e", system="mine") & DayEvents("e")) == [4]
    assert list(DayEvents("e", system=None) & DayEvents("e")) == [4]


@pytest.mark.parametrize(
    ("system", "complaint"),
    [
        ("nowhere", "unknown system 'nowhere': bitmapist.SYSTEMS has 'default'"),
        (5, "a name, a client or a pipeline, not 5"),
    ],
)
def test_a_server_that_nobody_knows_is_an_error(context: None, system: Any, complaint: str) -> None:
    asked: list[Callable[[], object]] = [
        lambda: len(DayEvents("e", system=system)),
        lambda: mark_event("e", 1, system=system),
        lambda: mark_unique("e", 1, system=system),
        lambda: get_event_names(system),
        lambda: list(BitOpOr(system, DayEvents("e"))),
    ]
    for ask in asked:
        with pytest.raises((TypeError, ValueError), match=complaint):
            ask()


def test_bitmapists_own_sets_take_part(context: None) -> None:
    mark_event("foo", [1, 2], now=NOW)
    mark_event("bar", [2, 3], now=NOW)
    theirs: Any = bitmapist.DayEvents("bar", 2026, 11, 23)
    assert list(DayEvents("foo") & theirs) == [2]
    either: Any = bitmapist.BitOpOr(theirs, theirs)
    assert list(DayEvents("foo") - either) == [1]
    assert list(theirs & DayEvents("foo")) == [2]
    bitmapist.delete_runtime_bitop_keys()


# How it reads


def test_a_client_without_the_right_to_write_reads_all(context: None, redis_url: str) -> None:
    mark_event("e", [1, 2])
    mark_unique("premium", 2)
    with redis_py.Redis.from_url(redis_url) as admin:
        admin.acl_setuser("looker", True, True, keys="*", categories=["+@read", "+@connection"])
    with redis_py.Redis.from_url(redis_url, username="looker") as reader:
        FlaskBitmapist(Flask(__name__), redis_client=reader)
        for events in (DayEvents("e", 2026, 11, 23), YearEvents("e", 2026)):
            assert list(events & UniqueEvents("premium")) == [2]
            assert len(~events) == 6
            assert 1 in events - UniqueEvents("premium")


@pytest.mark.parametrize("ids", [[1, 200], ["alice", "bob"]])
def test_a_client_that_decodes_replies_reads_all(redis_url: str, ids: list[Any]) -> None:
    with redis_py.Redis.from_url(redis_url, decode_responses=True) as client:
        FlaskBitmapist(Flask(__name__), redis_client=client)
        mark_event("e", ids)
        for events in (DayEvents("e"), YearEvents("e"), DayEvents("e") & MonthEvents("e")):
            assert list(events) == ids
            assert len(events) == 2
            assert ids[0] in events
            assert "carol" not in events
        assert get_event_names(client) == ["e"]


@pytest.mark.parametrize("reader", ["the app that marked", "another app", "a client"])
def test_one_bitmap_is_read_in_one_round_trip(
    context: None, redis_url: str, redis: Any, round_trips: list[object], reader: str
) -> None:
    mark_event("e", [1, 2])
    app = Flask("reader")
    if reader == "another app":
        FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": redis_url})
    today = DayEvents("e", 2026, 11, 23, system=redis if reader == "a client" else "default")
    with app.app_context() if reader == "another app" else nullcontext():
        len(today)  # connects
        for ask in (
            lambda: len(today),
            lambda: set(today),  # list() asks for the length too
            lambda: 2 in today,
            lambda: 3 in today,
            today.has_events_marked,
        ):
            round_trips.clear()
            ask()
            assert len(round_trips) == 1


def test_a_bitmap_is_read_after_the_server_has_closed_the_connection(
    context: None, tracker: Tracker, redis: Any
) -> None:
    bitmapist.mark_event("e", 1, now=NOW)
    today = DayEvents("e")
    assert 1 in today
    tracker.redis.client_kill_filter(_type="normal", skipme=True)
    redis.client_kill_filter(_type="normal", skipme=True)
    assert 1 in today
    assert list(today) == [1]


def test_a_key_that_holds_no_bitmap_is_an_error_and_the_next_question_is_answered(
    context: None, redis: Any
) -> None:
    bitmapist.mark_event("e", 1, now=NOW)
    redis.rpush("trackist_list_2026-11-23", 1)
    for ask in (len, list, lambda events: 1 in events):
        with pytest.raises(redis_py.ResponseError, match="WRONGTYPE"):
            ask(DayEvents("list"))
        assert 1 in DayEvents("e")


def test_long_bitmaps_are_listed_and_counted_part_by_part(
    context: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_bitmapist.reading.bitmaps.BUDGET", 2**18)
    monkeypatch.setattr("flask_bitmapist.reading.bitmaps._MANY_BYTES", 2**10)
    users = [1, 2_000_000, 4_000_000, 8_000_000]
    mark_event("e", users)
    mark_event("f", [2_000_000, 8_000_001])
    e, f = DayEvents("e"), DayEvents("f")
    assert list(e) == users
    assert list(e & f) == [2_000_000]
    assert list(e ^ f) == [1, 4_000_000, 8_000_000, 8_000_001]
    assert len(~e) == 8_000_008 - 4
    assert list(~(~e | f)) == [1, 4_000_000, 8_000_000]
    assert 8_000_007 in ~e
    assert 8_000_008 not in ~e
