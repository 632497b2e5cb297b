"""retention: who came back, in every mode, against small examples, sets, and bitmapist itself."""

from __future__ import annotations

import csv
import io
import itertools
from datetime import UTC, date, datetime, timedelta
from typing import Any

import bitmapist
import bitmapist.cohort
import pytest
import redis as redis_py
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist import FlaskBitmapist, mark_event, mark_unique
from flask_bitmapist.analytics import Average, Cell, Retention, lifecycle, retention, stickiness
from flask_bitmapist.analytics._statistics import rate
from flask_bitmapist.periods import Grain
from flask_bitmapist.questions.retention import Members, Mode
from flask_bitmapist.reading.segments import Event, Flag
from flask_bitmapist.tracker import Tracker

from .histories import mark_days

NOW = datetime(2026, 11, 23, 14, 32)  # a Monday
TODAY = NOW.date()
MODES = ["on", "on_or_after", "on_or_before", "streak", "first_return"]

pytestmark = pytest.mark.usefixtures("at_now")


def days_ago(days: int) -> date:
    return TODAY - timedelta(days=days)


def users_of(report: Retention) -> list[list[int | None]]:
    """The users of every cell, row by row."""
    return [[cell.users for cell in row.cells] for row in report.rows]


def sizes_of(report: Retention) -> list[int]:
    return [row.size for row in report.rows]


def last_days(count: int, **arguments: Any) -> dict[str, Any]:
    return {"by": "day", "start": days_ago(count - 1), "periods": count - 1, **arguments}


@pytest.fixture
def visits() -> None:
    """Five sign up four days ago; 1 comes at once and every second day, 2 late, 3 daily, 4 never.

    5 had signed up before.
    """
    mark_days("signup", {9: {5}, 4: {1, 2, 3, 4, 5}, 3: {1, 6}})
    mark_days("visit", {4: {1, 3, 5}, 3: {3, 6}, 2: {1, 3}, 1: {2, 3}, 0: {1, 2, 3}})


# Who is in a cohort


def test_the_cohorts_before_are_a_report_of_their_own(visits: None) -> None:
    asked: dict[str, Any] = {"by": "day", "periods": 2}
    report = retention("signup", "visit", start=days_ago(3), previous=True, **asked)
    alone = retention("signup", "visit", start=days_ago(3), **asked)
    before = retention("signup", "visit", start=days_ago(7), end=days_ago(4), **asked)
    assert (report.rows, report.average) == (alone.rows, alone.average)
    assert report.previous == before
    # Number 6, alone in this range, did not come a day later; of four before, number 3 did.
    assert report.change(1) == 0 - 1 / 4
    assert (alone.change(1), report.change(2)) == (None, 0 - 1 / 2)
    header, *lines = report.to_csv().splitlines()
    assert header == "range,period_start,size,0,1,2,open"
    assert [line.split(",")[:3] for line in lines[3:5]] == [
        ["before", str(days_ago(4)), "4"],
        ["this", str(days_ago(3)), "1"],
    ]
    assert report.to_dict()["previous"] == before.to_dict()
    assert "previous" not in alone.to_dict()


def test_a_cohort_has_those_who_did_it_for_the_first_time_ever(visits: None) -> None:
    report = retention("signup", "visit", **last_days(5))
    assert [row.period_start for row in report.rows] == [days_ago(d) for d in (4, 3, 2, 1, 0)]
    assert sizes_of(report) == [4, 1, 0, 0, 0]  # without 5; without 1 the day after


def test_every_member_counts_each_time_on_request(visits: None) -> None:
    report = retention("signup", "visit", **last_days(5, members="every"))
    assert sizes_of(report) == [5, 2, 0, 0, 0]
    assert users_of(report)[0] == [3, 1, 2, 2, 3]


def test_the_first_time_may_be_long_before_the_range_and_backfilled(visits: None) -> None:
    mark_event("signup", 4, now=datetime(2019, 12, 31))
    mark_event("signup", 3, now=datetime(2026, 11, 2))
    mark_event("signup", 2, now=datetime(2026, 10, 30))
    assert sizes_of(retention("signup", "visit", **last_days(5)))[0] == 1


def test_the_first_time_counts_in_data_that_bitmapist_wrote() -> None:
    for when in (datetime(2025, 3, 1), NOW):
        bitmapist.mark_event("signup", 1, now=when.replace(tzinfo=UTC))
    bitmapist.mark_event("signup", 2, now=NOW.replace(tzinfo=UTC))
    assert sizes_of(retention("signup", "signup", **last_days(1))) == [1]


def test_a_segment_is_evaluated_in_the_period_of_the_cohort(visits: None) -> None:
    mark_days("web", {4: {1, 2, 5}, 3: {3}})
    mark_unique("staff", 2)
    report = retention("signup", "visit", **last_days(5, where="web - flag:staff"))
    assert sizes_of(report) == [1, 0, 0, 0, 0]
    assert users_of(report)[0] == [1, 0, 1, 0, 1]


def test_a_segment_does_not_make_an_old_user_new(visits: None) -> None:
    mark_days("web", {4: {5}})  # 5 signed up before, not by the web
    assert sizes_of(retention("signup", "visit", **last_days(5, where="web"))) == [0] * 5
    report = retention(Event("signup") & Event("web"), "visit", **last_days(5))
    assert sizes_of(report)[0] == 1  # the first sign-up by the web


def test_both_arguments_may_be_segments(visits: None) -> None:
    mark_unique("staff", 3)
    report = retention("signup | visit", Event("visit") - Flag("staff"), **last_days(5))
    assert sizes_of(report) == [4, 1, 0, 0, 0]
    assert users_of(report)[0] == [1, 0, 1, 1, 2]


# Who came back


def test_on_counts_those_who_did_it_in_that_very_period(visits: None) -> None:
    # A first k of 0 is counted like the others: 2 and 4 did not visit on their first day.
    assert users_of(retention("signup", "visit", **last_days(5)))[0] == [2, 1, 2, 2, 3]


def test_on_or_after_counts_those_who_did_it_then_or_later(visits: None) -> None:
    report = retention("signup", "visit", **last_days(5, mode="on_or_after"))
    assert users_of(report)[0] == [3, 3, 3, 3, 3]
    assert users_of(report)[1] == [1, 0, 0, 0, None]


def test_on_or_after_looks_until_now_beyond_the_last_column(visits: None) -> None:
    report = retention(
        "signup", "visit", "day", 1, days_ago(4), days_ago(4), mode="on_or_after", members="every"
    )
    assert users_of(report) == [[4, 3]]


def test_on_or_before_counts_those_who_did_it_by_then(visits: None) -> None:
    report = retention("signup", "visit", **last_days(5, mode="on_or_before"))
    assert users_of(report)[0] == [2, 2, 2, 3, 3]


def test_streak_counts_those_who_never_missed_a_period(visits: None) -> None:
    assert users_of(retention("signup", "visit", **last_days(5, mode="streak")))[0] == [
        2, 1, 1, 1, 1,
    ]  # fmt: skip


def test_first_return_counts_each_user_once(visits: None) -> None:
    report = retention("signup", "visit", **last_days(5, mode="first_return"))
    assert users_of(report)[0] == [2, 0, 0, 1, 0]


# What is known of a cell


def test_a_cell_is_complete_open_or_future(visits: None) -> None:
    report = retention("signup", "visit", "day", 2, days_ago(2))
    assert [[cell.state for cell in row.cells] for row in report.rows] == [
        ["complete", "complete", "open"],
        ["complete", "open", "future"],
        ["open", "future", "future"],
    ]
    assert users_of(report) == [[0, 0, 0], [0, 0, None], [0, None, None]]


def test_cells_after_the_end_are_counted_as_far_as_they_have_begun(visits: None) -> None:
    report = retention("signup", "visit", "day", 5, days_ago(4), days_ago(4))
    assert [(cell.users, cell.state) for cell in report.rows[0].cells] == [
        (2, "complete"), (1, "complete"), (2, "complete"), (2, "complete"), (3, "open"),
        (None, "future"),
    ]  # fmt: skip


def test_a_cohort_in_the_future_has_only_future_cells() -> None:
    mark_event("signup", 1, now=days_ago(-2))
    mark_event("visit", 1, now=days_ago(-2))
    report = retention("signup", "visit", "day", 1, days_ago(-1), days_ago(-2), mode="on_or_after")
    assert sizes_of(report) == [0, 1]
    assert users_of(report) == [[None, None], [None, None]]
    assert report.average == [Average(None, None, None, 0)] * 2


def test_the_rows_of_an_average_are_a_number(visits: None) -> None:
    report = retention("signup", "visit", **last_days(5))
    assert {type(average.rows) for average in report.average} == {int}


@pytest.mark.parametrize("mode", MODES)
def test_what_lies_after_now_does_not_count(mode: Mode) -> None:
    mark_days("signup", {2: {1}})
    mark_days("visit", {2: {1}, 1: {1}, 0: {1}})
    report = retention(
        "signup", "visit", "day", 3, days_ago(2), days_ago(2), mode=mode, now=days_ago(1)
    )
    assert [cell.state for cell in report.rows[0].cells] == ["complete", "open"] + ["future"] * 2
    assert users_of(report)[0][2:] == [None, None]


def test_a_cell_tells_its_rate_with_its_interval(visits: None) -> None:
    first, second = retention("signup", "visit", **last_days(5)).rows[0].cells[:2]
    assert (first.rate, second.rate) == (0.5, 0.25)
    assert (first.low, first.high) == rate(2, 4)[1:]


def test_an_empty_cohort_has_no_rate(visits: None) -> None:
    row = retention("signup", "visit", **last_days(5)).rows[2]
    assert row.cells[0] == Cell(0, "complete")
    assert (row.cells[0].rate, row.cells[0].low, row.cells[0].high) == (None, None, None)
    assert (row.cells[4].rate, row.cells[4].low) == (None, None)


def test_an_event_that_was_never_marked_counts_nobody() -> None:
    report = retention("a", "b", "week", 2)
    assert sizes_of(report) == [0] * 12
    assert users_of(report)[0] == [0, 0, 0]


# Averages


def test_an_average_pools_the_complete_cells_of_those_who_could_return() -> None:
    mark_days("signup", {3: {1, 2, 3}, 2: {4}, 0: {6, 7}})
    mark_days("visit", {3: {1}, 2: {1, 2}, 0: {1, 4, 6}})
    average = retention("signup", "visit", "day", 3, days_ago(3)).average
    # The row of 4, who did not return the day after, counts as 0; today's open cells not at all.
    assert [(a.rate, a.rows) for a in average] == [(1 / 4, 2), (2 / 4, 2), (0.0, 1), (None, 0)]
    assert (average[0].low, average[0].high) == rate(1, 4)[1:]


@pytest.mark.parametrize(
    ("users", "size", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0000),
    ],
)
def test_the_interval_is_wilsons(users: int, size: int, low: float, high: float) -> None:
    # The first four: R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3.
    found = rate(users, size)
    assert found.rate == users / size
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10**9).flatmap(lambda size: st.tuples(st.integers(0, size), st.just(size))))
def test_an_interval_holds_its_rate_and_stays_within_0_and_1(figures: tuple[int, int]) -> None:
    found = rate(*figures)
    assert found.low is not None and found.rate is not None and found.high is not None  # noqa: PT018
    assert 0 <= found.low <= found.rate <= found.high <= 1
    assert found.low < found.high


# Calendars


def test_weeks_run_through_the_53rd_and_the_turn_of_the_year(tracker: Tracker) -> None:
    with tracker.at(datetime(2027, 1, 13)):
        mark_event("signup", [1, 2], now=date(2026, 12, 27))  # 2026-W52
        mark_event("visit", 1, now=date(2027, 1, 3))  # 2026-W53
        mark_event("visit", 2, now=date(2027, 1, 4))  # 2027-W01
        report = retention("signup", "visit", "week", 3, date(2026, 12, 21), date(2027, 1, 3))
    assert [row.period_start for row in report.rows] == [date(2026, 12, 21), date(2026, 12, 28)]
    assert users_of(report) == [[0, 1, 1, 0], [0, 0, 0, None]]


def test_months_and_years_follow_one_another_over_new_year(tracker: Tracker) -> None:
    mark_event("signup", [1, 2, 3], now=date(2025, 11, 30))
    mark_event("visit", [1, 2], now=date(2025, 12, 31))
    mark_event("visit", [2, 3], now=date(2026, 1, 1))
    mark_event("visit", [3], now=date(2026, 3, 31))
    months = retention("signup", "visit", "month", 4, date(2025, 11, 1), date(2025, 11, 1))
    assert users_of(months) == [[0, 2, 2, 0, 1]]
    years = retention("signup", "visit", "year", 1, date(2025, 1, 1), date(2025, 1, 1))
    assert years.rows[0].period_start == date(2025, 1, 1)
    assert [(cell.users, cell.state) for cell in years.rows[0].cells] == [
        (2, "complete"),
        (2, "open"),
    ]


def test_days_are_those_of_the_applications_calendar_when_clocks_change(redis_url: str) -> None:
    app = Flask(__name__)
    FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_TIMEZONE": "Europe/Berlin"})
    spring = datetime(2026, 3, 29, tzinfo=UTC)  # Berlin: 23 hours
    with app.app_context():
        mark_event("signup", 1, now=spring - timedelta(minutes=61))  # the 28th, 23:59
        mark_event("signup", 2, now=spring - timedelta(minutes=60))  # the 29th, 00:00
        mark_event("visit", [1, 2], now=spring + timedelta(hours=22))  # the 30th, 00:00
        report = retention(
            "signup", "visit", "day", 2, date(2026, 3, 28), date(2026, 3, 29), now=NOW
        )
    assert sizes_of(report) == [1, 1]
    assert users_of(report) == [[0, 0, 1], [0, 1, 0]]


def test_hours_are_periods_too() -> None:
    for hour, user in ((10, 1), (11, 2)):
        mark_event("signup", user, now=NOW.replace(hour=hour), track_hourly=True)
    mark_event("visit", [1, 2], now=NOW.replace(hour=12), track_hourly=True)
    report = retention("signup", "visit", "hour", 2, NOW.replace(hour=10), NOW.replace(hour=11))
    assert report.rows[0].period_start == datetime(2026, 11, 23, 10)
    assert users_of(report) == [[0, 0, 1], [0, 1, 0]]


def test_mapped_ids_are_people_like_others() -> None:
    mark_event("signup", ["ann", "bob"], now=days_ago(1))
    mark_event("visit", ["bob", "eve"])
    assert users_of(retention("signup", "visit", **last_days(2))) == [[0, 1], [0, None]]


# As sets


def key_of(day: date, by: str) -> int:
    iso = day.isocalendar()
    return {
        "day": day.toordinal(),
        "week": (day - timedelta(days=iso.weekday - 1)).toordinal() // 7,
        "month": day.year * 12 + day.month,
        "year": day.year,
    }[by]


def reference(
    marks: set[tuple[str, int, date]], by: str, rows: int, columns: int, mode: str, members: str
) -> list[tuple[int, list[int | None]]]:
    """Sizes and users by sets; `marks` are (event, user, day)."""
    done: dict[str, dict[int, set[int]]] = {"a": {}, "b": {}, "s": {}}
    for event, user, day in marks:
        done[event].setdefault(key_of(day, by), set()).add(user)
    now = key_of(TODAY, by)
    table = []
    for row in range(now - rows + 1, now + 1):
        cohort = set(done["a"].get(row, ()))
        if members == "first":
            cohort -= set().union(*(users for p, users in done["a"].items() if p < row))
        cohort &= done["s"].get(row, set())
        back = {p: cohort & done["b"].get(p, set()) for p in range(row, now + 1)}

        def users(k: int, row: int = row, back: dict[int, set[int]] = back) -> int | None:
            if row + k > now:
                return None
            until = [back[p] for p in range(row, row + k + 1)]
            return len(
                {
                    "on": until[-1],
                    "on_or_after": set().union(*(back[p] for p in range(row + k, now + 1))),
                    "on_or_before": set().union(*until),
                    "streak": set.intersection(*until),
                    "first_return": until[-1] - set().union(*until[:-1]),
                }[mode]
            )

        table.append((len(cohort), [users(k) for k in range(columns)]))
    return table


histories = st.sets(
    st.tuples(st.sampled_from("aabbs"), st.integers(0, 130), st.integers(0, 900)), max_size=150
)


def start_of_rows(by: str, rows: int) -> date:
    back = rows - 1
    months = TODAY.year * 12 + TODAY.month - 1 - back
    return {
        "day": days_ago(back),
        "week": days_ago(7 * back),
        "month": date(months // 12, months % 12 + 1, 1),
        "year": date(TODAY.year - back, 1, 1),
    }[by]


numbers = itertools.count()


@pytest.mark.parametrize("reading", ["short", "long", "sliced"])
@given(
    drawn=histories,
    by=st.sampled_from(["day", "week", "month", "year"]),
    rows=st.integers(1, 6),
    columns=st.integers(1, 8),
    mode=st.sampled_from(MODES),
    members=st.sampled_from(["first", "every"]),
)
def test_retention_is_what_sets_say(
    monkeypatch: pytest.MonkeyPatch,
    tracker: Tracker,
    reading: str,
    drawn: set[tuple[str, int, int]],
    by: Grain,
    rows: int,
    columns: int,
    mode: Mode,
    members: Members,
) -> None:
    if reading == "long":
        monkeypatch.setattr("flask_bitmapist.reading.bitmaps._MANY_BYTES", 0)
        monkeypatch.setattr("flask_bitmapist.analytics._retention.PAIRED_WORDS", 0)
    elif reading == "sliced":
        monkeypatch.setattr("flask_bitmapist.reading.bitmaps.BUDGET", 64)
        monkeypatch.setattr("flask_bitmapist.reading.bitmaps._SLICE_UNIT", 8)
    # Spread over some ten periods, whatever their length.
    scale = {"day": 90, "week": 13, "month": 3, "year": 1}[by]
    marks = {(event, user, days_ago(days // scale)) for event, user, days in drawn}
    example = next(numbers)
    tracker.record((f"{event}{example}", user, True, True, day) for event, user, day in marks)
    report = retention(
        f"a{example}",
        f"b{example}",
        by,
        columns - 1,
        start_of_rows(by, rows),
        mode=mode,
        members=members,
        where=f"s{example}",
    )
    found = [(row.size, [cell.users for cell in row.cells]) for row in report.rows]
    assert found == reference(marks, by, rows, columns, mode, members)


# As bitmapist has it


@pytest.mark.parametrize("by", ["day", "week", "month"])
def test_retention_agrees_with_bitmapists_own_table(redis: Any, by: Any) -> None:
    now = datetime.now(UTC)  # bitmapist's table ends now
    for back in range(0, 120, 3):
        day = now - timedelta(days=back)
        bitmapist.mark_event("a", back % 11, now=day)
        for user in (back % 7, back % 5, back % 3):
            bitmapist.mark_event("b", user, now=day)
    table = bitmapist.cohort.get_dates_data(
        "a",
        "b",
        time_group=f"{by}s",  # type: ignore[arg-type]
        as_percent=False,
        num_results=10,
        num_of_rows=4,
    )
    start = (table[0][0]).date()
    report = retention("a", "b", by, 4, start, now, members="every", now=now)
    assert sizes_of(report) == [size for _, size, *_ in table]
    for (_, _, *theirs), row in zip(table, report.rows, strict=True):
        # It shows '' for 0 where nobody at all did the event, or nobody is in the cohort.
        assert [cell or 0 for cell in theirs] == [cell.users or 0 for cell in row.cells]


# How it reads


@pytest.mark.parametrize(
    "report",
    [
        lambda: retention("signup", "visit", "day", 12, where="flag:staff"),
        lambda: retention("signup", "visit", "year", members="every", mode="on_or_after"),
        lambda: lifecycle("visit", "week", where="flag:staff"),
        lambda: stickiness("visit", where="flag:staff"),
    ],
)
def test_a_report_takes_at_most_four_round_trips_and_no_right_to_write(
    visits: None, redis: Any, redis_url: str, round_trips: list[object], report: Any
) -> None:
    mark_event("visit", 10**6)  # long bitmaps
    mark_unique("staff", 3)
    redis.acl_setuser("reader", True, True, keys="*", categories=["+@read", "+@connection"])
    reader = redis_py.Redis.from_url(redis_url, username="reader")
    app = Flask(__name__)
    FlaskBitmapist(app, {"BITMAPIST_SPOOL": False}, redis_client=reader)
    before = redis.dbsize()
    reader.ping()
    round_trips.clear()
    with app.app_context():
        found = report()
        assert 1 <= len(round_trips) <= 4
        assert report() == found
    assert redis.dbsize() == before
    with pytest.raises(redis_py.exceptions.NoPermissionError):
        reader.setbit("signup", 1, 1)
    reader.close()


def test_bitmaps_beyond_the_budget_are_counted_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    users = [1, 2, 500_000, 700_000, 1_500_000]
    mark_days("signup", {2: set(users)})
    mark_days("visit", {1: {2, 700_000, 1_500_000}, 0: {1, 2, 1_500_000}})
    whole = [retention("signup", "visit", **last_days(3, mode=mode)) for mode in MODES]
    monkeypatch.setattr("flask_bitmapist.reading.bitmaps.BUDGET", 2**16)
    sliced = [retention("signup", "visit", **last_days(3, mode=mode)) for mode in MODES]
    assert sliced == whole
    assert users_of(whole[0])[0] == [0, 3, 3]


@pytest.mark.parametrize("words", [1_023, 1_024, 2_048])
@pytest.mark.parametrize("mode", ["on", "streak"])
def test_full_bitmaps_of_as_many_words_as_are_counted_at_a_time(
    redis: Any, words: int, mode: Mode
) -> None:
    """1,024 words have one bit more than the 16 bits hold in which a stretch of them is summed."""
    for event in ("signup", "visit"):
        redis.set(f"trackist_{event}_2026-11-23", b"\xff" * 8 * words)
    (row,) = retention("signup", "visit", "day", 0, TODAY, members="every", mode=mode).rows
    assert (row.size, row.cells[0].users) == (64 * words, 64 * words)


# How it is told


def test_a_report_is_told_as_a_dict(visits: None) -> None:
    told = retention("signup", "visit", "day", 1, days_ago(1)).to_dict()
    row = {"users": 0, "state": "complete", "rate": None, "low": None, "high": None}
    assert told["rows"][0] == {
        "period_start": "2026-11-22",
        "size": 0,
        "cells": [row, row | {"state": "open"}],
    }
    assert told["average"][1] == {"rate": None, "low": None, "high": None, "rows": 0}


def test_a_table_has_a_line_for_each_cohort_and_tells_which_cell_is_open(visits: None) -> None:
    text = retention("signup", "visit", "day", 2, days_ago(4), days_ago(1)).to_csv()
    assert list(csv.reader(io.StringIO(text))) == [
        ["period_start", "size", "0", "1", "2", "open"],
        ["2026-11-19", "4", "2", "1", "2", ""],
        ["2026-11-20", "1", "1", "0", "0", ""],
        ["2026-11-21", "0", "0", "0", "0", "2"],
        ["2026-11-22", "0", "0", "0", "", "1"],
    ]


def test_the_largest_rate_leaves_the_first_column_out(visits: None) -> None:
    report = retention("signup", "visit", **last_days(5))
    assert (report.size, report.largest) == (5, 0.75)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"periods": -1}, "periods must be a whole number from 0 to 999, not -1"),
        ({"periods": 1000}, "periods must be a whole number from 0 to 999, not 1000"),
        ({"periods": 1.5}, "periods must be a whole number from 0 to 999, not 1.5"),
        ({"mode": "since"}, "mode must be one of on, on_or_after, on_or_before, streak, first_ret"),
        ({"members": "all"}, "members must be one of first, every, not 'all'"),
        ({"by": "fortnight"}, "by must be one of hour, day, week, month, year, not 'fortnight'"),
        ({"start": date(2026, 2, 1), "end": date(2026, 1, 1)}, "is before the start"),
        ({"start": date(1990, 1, 1)}, "more than 1000 weeks"),
        ({"where": "web &"}, "a name is missing"),
        ({"strict": True}, "unknown events or flags: a, b"),
    ],
)
def test_nonsense_is_refused_with_what_is_allowed(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        retention("a", "b", **arguments)


def test_events_of_different_kinds_of_ids_are_not_mixed() -> None:
    mark_event("signup", "ann")
    mark_event("visit", 1)
    with pytest.raises(ValueError, match="different kinds of ids"):
        retention("signup", "visit")
