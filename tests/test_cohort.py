"""get_event_data, chain_events and get_cohort: 0.1.2's functions, its right numbers, no writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import bitmapist
import pytest
import redis as redis_py
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist import (
    DayEvents,
    FlaskBitmapist,
    MonthEvents,
    WeekEvents,
    YearEvents,
    chain_events,
    get_cohort,
    get_event_data,
    mark_event,
)
from flask_bitmapist.packed_periods import PACKED_BEFORE
from flask_bitmapist.tracker import Tracker

NOW = datetime(2026, 11, 23, 14, 32)  # a Monday
TODAY = NOW.date()

pytestmark = pytest.mark.usefixtures("at_now")


@pytest.fixture
def second_system(server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of another system of bitmapist: another database of the run's server."""
    with redis_py.Redis.from_url(server.fresh_database()) as client:
        monkeypatch.setitem(bitmapist.SYSTEMS, "second", client)
        yield "second"


def mark_all(marks: Mapping[tuple[str, date], set[int]]) -> None:
    """Mark {(event, day): users}."""
    for (event, day), users in marks.items():
        mark_event(event, list(users), now=day)


def days_ago(days: int) -> date:
    return TODAY - timedelta(days=days)


# get_cohort


@pytest.fixture
def signups() -> None:
    mark_all(
        {
            ("signup", days_ago(3)): {1, 2, 3},
            ("signup", days_ago(1)): {4, 5},
            ("signup", days_ago(0)): {6},
            ("visit", days_ago(3)): {1, 9},
            ("visit", days_ago(2)): {1, 2, 9},
            ("visit", days_ago(1)): {2},
            ("visit", days_ago(0)): {1, 4},
        }
    )


def test_a_cohort_counts_each_user_at_the_first_return(signups: None) -> None:
    cohort, _, totals = get_cohort("signup", "visit", num_rows=4, num_cols=4)
    assert cohort == [
        [1, 1, 0, 0],
        [None, None, None, None],  # nobody signed up
        [0, 1, None, None],  # the day after tomorrow is still to come
        [0, None, None, None],
    ]
    assert totals == [3, 0, 2, 1]


def test_a_cohort_with_replacement_counts_every_return(signups: None) -> None:
    cohort, _, totals = get_cohort("signup", "visit", num_rows=4, num_cols=4, with_replacement=True)
    assert cohort[0] == [1, 2, 1, 1]
    assert totals == [3, 0, 2, 1]


def test_columns_beyond_the_rows_are_future(signups: None) -> None:
    cohort, dates, totals = get_cohort("signup", "visit", num_rows=2, num_cols=5)
    assert cohort == [[0, 1, None, None, None], [0, None, None, None, None]]
    assert len(dates) == len(totals) == 2


def test_additional_events_narrow_and_widen_the_return(signups: None) -> None:
    mark_event("buy", [1, 3], now=days_ago(2))
    narrowed = get_cohort("signup", "visit", [{"name": "buy", "op": "and"}], num_rows=4, num_cols=2)
    widened = get_cohort("signup", "visit", [{"name": "buy", "op": "or"}], num_rows=4, num_cols=2)
    assert narrowed[0][0] == [0, 1]
    assert widened[0][0] == [1, 2]  # 2 visited, 3 bought


def test_rows_are_dated_as_far_back_as_periods() -> None:
    _, dates, _ = get_cohort("signup", "visit", num_rows=3, num_cols=1)
    assert dates == [NOW - timedelta(days=2), NOW - timedelta(days=1), NOW]
    _, dates, _ = get_cohort("signup", "visit", time_group="weeks", num_rows=2, num_cols=1)
    assert dates == [NOW - timedelta(days=7), NOW]


def test_rows_of_months_are_dated_on_the_first_day(tracker: Tracker) -> None:
    with tracker.at(datetime(2026, 3, 31, 8, 15)):
        _, dates, _ = get_cohort("signup", "visit", time_group="months", num_rows=3, num_cols=1)
    assert dates == [datetime(2026, month, 1, 8, 15) for month in (1, 2, 3)]


def test_rows_of_years_are_dated_28_february_if_there_is_no_leap_day(tracker: Tracker) -> None:
    with tracker.at(datetime(2024, 2, 29, 8)):
        _, dates, _ = get_cohort("signup", "visit", time_group="years", num_rows=2, num_cols=1)
    assert dates == [datetime(2023, 2, 28, 8), datetime(2024, 2, 29, 8)]


def test_a_year_is_the_union_of_its_months() -> None:
    mark_all(
        {
            ("signup", date(2025, 1, 1)): {1, 2},
            ("signup", date(2025, 12, 31)): {2, 3},
            ("visit", date(2026, 5, 5)): {2, 3},
        }
    )
    cohort, _, totals = get_cohort("signup", "visit", time_group="years", num_rows=2, num_cols=2)
    assert totals == [3, 0]
    assert cohort == [[0, 2], [None, None]]


@pytest.mark.parametrize("time_group", ["day", "week", "month", "year"])
def test_a_time_group_may_be_singular(signups: None, time_group: str) -> None:
    assert get_cohort("signup", "visit", time_group=time_group) == get_cohort(
        "signup", "visit", time_group=time_group + "s"
    )


def key_of(day: date, time_group: str) -> object:
    return {
        "days": day,
        "weeks": day.isocalendar()[:2],
        "months": (day.year, day.month),
        "years": day.year,
    }[time_group]


def key_before(time_group: str, count: int) -> object:
    """The key of the period `count` before the current one."""
    months = TODAY.year * 12 + TODAY.month - 1 - count
    return {
        "days": days_ago(count),
        "weeks": days_ago(7 * count).isocalendar()[:2],
        "months": (months // 12, months % 12 + 1),
        "years": TODAY.year - count,
    }[time_group]


def reference_chain(
    base: str, chain: list[dict[str, str]], users_in: Callable[[str, Any], set[int]], period: object
) -> set[int]:
    """Users of the chain: groups of OR, joined by AND."""
    groups = [[base]]
    for event in chain:
        if event["op"] == "or":
            groups[-1].append(event["name"])
        else:
            groups.append([event["name"]])
    unions = [set().union(*(users_in(name, period) for name in group)) for group in groups]
    return set.intersection(*unions)


def reference_cohort(
    marks: set[tuple[str, int, date]],
    chain: list[dict[str, str]],
    time_group: str,
    rows: int,
    columns: int,
    with_replacement: bool,
) -> tuple[list[list[int | None]], list[int]]:
    def users_in(event: str, period: object) -> set[int]:
        return {u for e, u, day in marks if e == event and key_of(day, time_group) == period}

    cohort, totals = [], []
    for back in range(rows - 1, -1, -1):
        members = users_in("a", key_before(time_group, back))
        totals.append(len(members))
        row: list[int | None] = []
        for k in range(columns):
            if not totals[-1] or k > back:
                row.append(None)
                continue
            hit = members & reference_chain("b", chain, users_in, key_before(time_group, back - k))
            row.append(len(hit))
            if not with_replacement:
                members = members - hit
        cohort.append(row)
    return cohort, totals


events = st.sampled_from("abcd")
chains = st.lists(
    st.fixed_dictionaries({"name": events, "op": st.sampled_from(["and", "or"])}), max_size=4
)


def marks_within(days: int) -> st.SearchStrategy[set[tuple[str, int, date]]]:
    return st.sets(st.tuples(events, st.integers(0, 20), st.integers(0, days)), max_size=80).map(
        lambda drawn: {(event, user, days_ago(back)) for event, user, back in drawn}
    )


@given(
    data=st.data(),
    time_group=st.sampled_from(["days", "weeks", "months", "years"]),
    chain=chains,
    rows=st.integers(1, 6),
    columns=st.integers(1, 7),
    with_replacement=st.booleans(),
)
def test_a_cohort_equals_one_computed_with_sets(
    redis: Any,
    data: st.DataObject,
    time_group: str,
    chain: list[dict[str, str]],
    rows: int,
    columns: int,
    with_replacement: bool,
) -> None:
    spans = {"days": 7, "weeks": 45, "months": 200, "years": 1500}
    marks = data.draw(marks_within(spans[time_group]))
    redis.flushdb()
    for event, user, day in marks:
        bitmapist.mark_event(event, user, now=datetime.combine(day, datetime.min.time(), UTC))
    cohort, _, totals = get_cohort(
        "a", "b", chain, time_group, rows, columns, with_replacement=with_replacement
    )
    expected = reference_cohort(marks, chain, time_group, rows, columns, with_replacement)
    assert (cohort, totals) == expected


def test_a_cohort_equals_the_one_that_bitmapist_computes(signups: None) -> None:
    cohort, _, totals = get_cohort("signup", "visit", num_rows=4, num_cols=4, with_replacement=True)
    for i in range(4):
        members = bitmapist.DayEvents.from_date("signup", days_ago(3 - i))
        assert totals[i] == len(members)
        for k in range(4 - i):
            returned = bitmapist.DayEvents.from_date("visit", days_ago(3 - i - k))
            assert (cohort[i][k] or 0) == len(bitmapist.BitOpAnd(members, returned))
    bitmapist.delete_runtime_bitop_keys()


@pytest.mark.parametrize("time_group", ["days", "years"])
def test_a_cohort_takes_two_round_trips_and_no_right_to_write(
    signups: None, redis: Any, redis_url: str, round_trips: list[object], time_group: str
) -> None:
    redis.acl_setuser("reader", True, True, keys="*", categories=["+@read", "+@connection"])
    reader = redis_py.Redis.from_url(redis_url, username="reader")
    reader.ping()
    app = Flask(__name__)
    FlaskBitmapist(app, {"BITMAPIST_SPOOL": False}, redis_client=reader)
    round_trips.clear()
    with app.app_context():
        get_cohort("signup", "visit", [{"name": "buy", "op": "or"}], time_group, 12, 12)
    assert len([trip for trip in round_trips if PACKED_BEFORE not in str(trip)]) == 2
    with pytest.raises(redis_py.exceptions.NoPermissionError):
        reader.setbit("signup", 1, 1)
    reader.close()


def test_a_cohort_reads_another_system_of_bitmapist(second_system: str) -> None:
    bitmapist.mark_event("signup", 1, second_system, NOW.replace(tzinfo=UTC))
    bitmapist.mark_event("visit", 1, second_system, NOW.replace(tzinfo=UTC))
    elsewhere = get_cohort("signup", "visit", num_rows=1, num_cols=1, system=second_system)
    assert elsewhere[0] == [[1]]
    assert get_cohort("signup", "visit", num_rows=1, num_cols=1)[0] == [[None]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_rows": 0}, "rows must be a whole number from 1 to 1000, not 0"),
        ({"num_cols": 1001}, "columns must be a whole number from 1 to 1000, not 1001"),
        ({"num_rows": "10"}, "rows must be a whole number from 1 to 1000, not '10'"),
        ({"time_group": "hours"}, "unknown time group 'hours': use one of days, weeks"),
        ({"system": "nowhere"}, "unknown system 'nowhere': bitmapist.SYSTEMS has 'default'"),
        ({"additional_events": [{"name": "c", "op": "xor"}]}, "unknown op 'xor' of the event 'c'"),
        ({"additional_events": [{"name": "c"}]}, "unknown op None of the event 'c'"),
        ({"additional_events": [{"op": "or"}]}, "an event to chain needs a name"),
    ],
)
def test_nonsense_is_refused_with_what_is_allowed(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_cohort("a", "b", **arguments)


# get_event_data


@pytest.mark.parametrize(
    ("time_group", "collection", "key"),
    [
        ("days", DayEvents, "trackist_e_2026-11-23"),
        ("day", DayEvents, "trackist_e_2026-11-23"),
        ("weeks", WeekEvents, "trackist_e_W2026-48"),
        ("month", MonthEvents, "trackist_e_2026-11"),
    ],
)
def test_event_data_is_the_collection_of_the_current_period(
    time_group: str, collection: type[object], key: str
) -> None:
    mark_event("e", [3, 5])
    found = get_event_data("e", time_group)
    assert type(found) is collection
    assert found.redis_key == key
    assert list(found) == [3, 5]


def test_event_data_of_a_year_spans_its_months() -> None:
    mark_all({("e", date(2026, 1, 1)): {1}, ("e", date(2026, 11, 1)): {2}})
    found = get_event_data("e", "years")
    assert type(found) is YearEvents
    assert list(found) == [1, 2]


@pytest.mark.parametrize("day", [date(1996, 12, 30), date(1997, 1, 1), date(2027, 1, 1)])
def test_event_data_of_a_week_at_a_turn_of_the_year_is_found_under_its_iso_year(day: date) -> None:
    mark_event("e", 7, now=day)
    assert 7 in get_event_data("e", "weeks", day)


def test_event_data_takes_aware_moments_in_the_calendar_of_the_application(redis_url: str) -> None:
    app = Flask(__name__)
    FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_TIMEZONE": "Europe/Berlin"})
    late = datetime(2026, 6, 1, 23, 30, tzinfo=UTC)
    with app.app_context():
        assert get_event_data("e", "days", late).redis_key == "trackist_e_2026-6-2"
        assert (
            get_event_data("e", "days", late.replace(tzinfo=None)).redis_key
            == "trackist_e_2026-6-1"
        )


def test_event_data_of_an_unknown_time_group_is_refused() -> None:
    with pytest.raises(ValueError, match="'fortnights': use one of days, weeks, months, years"):
        get_event_data("e", "fortnights")


# chain_events


@given(
    marks=st.sets(st.tuples(events, st.integers(0, 40)), max_size=40),
    chain=chains,
)
def test_a_chain_holds_the_users_that_sets_hold(
    redis: Any, marks: set[tuple[str, int]], chain: list[dict[str, str]]
) -> None:
    redis.flushdb()
    for event, user in marks:
        bitmapist.mark_event(event, user, now=NOW.replace(tzinfo=UTC))
    given_chain = [dict(event) for event in chain]
    found = chain_events("a", chain, NOW, "days")

    def users_in(event: str, _: object) -> set[int]:
        return {user for name, user in marks if name == event}

    assert set(found) == reference_chain("a", chain, users_in, None)
    assert bool(found) == bool(set(found))
    assert chain == given_chain  # 0.1.2 popped from the caller's list


def test_or_binds_to_its_direct_predecessor_only() -> None:
    mark_all({("a", TODAY): {1, 2}, ("b", TODAY): {1}, ("c", TODAY): {2, 3}, ("d", TODAY): {2}})
    chain = [("b", "and"), ("c", "or"), ("d", "and")]
    found = chain_events("a", [{"name": name, "op": op} for name, op in chain], NOW, "days")
    assert list(found) == [2]


def test_an_empty_base_is_an_empty_collection_and_still_takes_an_or() -> None:
    mark_event("b", 4)
    assert not chain_events("a", [], NOW, "days")
    assert len(chain_events("a", None, NOW, "days")) == 0
    assert list(chain_events("a", [{"name": "b", "op": "or"}], NOW, "days")) == [4]


def test_a_chain_combines_by_operators() -> None:
    mark_all({("a", TODAY): {1, 2}, ("b", TODAY): {2, 3}, ("c", TODAY): {2}})
    chained = chain_events("a", [{"name": "b", "op": "and"}], NOW, "days")
    assert list(chained & get_event_data("c")) == [2]
    assert list(chain_events("a", [], NOW, "days") | chained) == [1, 2]


def test_a_chain_is_right_on_another_system(second_system: str) -> None:
    for event, user in (("a", 1), ("a", 2), ("b", 2)):
        bitmapist.mark_event(event, user, second_system, NOW.replace(tzinfo=UTC))
    found = chain_events("a", [{"name": "b", "op": "and"}], NOW, "days", second_system)
    assert list(found) == [2]


def test_a_chain_refuses_an_unknown_op() -> None:
    with pytest.raises(ValueError, match="unknown op 'not' of the event 'b': use 'and' or 'or'"):
        chain_events("a", [{"name": "b", "op": "not"}], NOW, "days")
