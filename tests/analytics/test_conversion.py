"""time_to_convert and conversion: how long the way through a funnel takes, how many go it when."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from flask_bitmapist.analytics import (
    ConversionPoint,
    Taken,
    conversion,
    everyone_behind,
    funnel,
    people_behind,
    time_to_convert,
)
from flask_bitmapist.marks import Mark
from flask_bitmapist.questions import (
    ConversionFigure,
    ConversionQuestion,
    TimeToConvertFigure,
    TimeToConvertQuestion,
)
from flask_bitmapist.tracker import Tracker

from .histories import log, on

NOW = datetime(2027, 1, 10, 14, 32)  # day 13

pytestmark = pytest.mark.usefixtures("at_now")

ORDERS: Any = ("ordered", "strict", "any")
QUESTION = TimeToConvertQuestion.of(steps=["a", "b"], within=3)


def times(*steps: str, first: int = 0, last: int = 9, **options: Any) -> dict[int, int]:
    """{periods: users}, without those that nobody took."""
    report = time_to_convert(steps, start=on(first), end=on(last), **options)
    return {taken.periods: taken.users for taken in report.times if taken.users}


def busy(events: str) -> dict[int, str]:
    """29 people who do these events on days that look like chance."""
    return {
        n: " ".join(f"{events[k % len(events)]}{(n * k * 5) % 13}" for k in range(1, 8))
        for n in range(1, 30)
    }


def test_everyone_counts_by_the_shortest_time() -> None:
    log({1: "a0 b0", 2: "a0 b2", 3: "a0 a4 b6", 4: "a0 a4 b1 b4", 5: "b0 a3", 6: "a1 b8"})
    report = time_to_convert(["a", "b"], start=on(0), end=on(9))
    assert report.times == [
        Taken(k, users, users / 5, complete=True)
        for k, users in enumerate([2, 0, 2, 0, 0, 0, 0, 1, 0, 0])
    ]
    assert (report.entered, report.users, report.median) == (6, 5, 2)
    assert times("a", "b", within=2) == {0: 2, 2: 2}


def test_the_way_leads_over_every_step() -> None:
    log({1: "a0 b1 c5", 2: "a0 a4 b5 c6", 3: "a0 b3 a4 c5", 4: "a0 c1", 5: "a0 b0 c0"})
    assert times("a", "b", "c") == {0: 1, 2: 1, 5: 2}
    assert times("a", "b", "c", order="strict") == {2: 1, 5: 2}
    # Whichever comes first: b on day 3, a and c later.
    assert times("a", "b", "c", order="any", within=9) == {0: 1, 2: 2, 5: 1}


def test_one_act_may_take_two_equal_steps_of_two_periods() -> None:
    log({1: "a0 a1 a5", 2: "a0", 3: "a2 a9"})
    assert times("a", "a", order="strict") == {1: 1, 7: 1}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("within", [None, 0, 1, 3, 9])
def test_all_times_together_are_the_last_step_of_the_funnel(order: Any, within: int | None) -> None:
    log(
        {n: " ".join(f"{'ab'[k % 2]}{(n * k * 3) % 11}" for k in range(1, 6)) for n in range(1, 30)}
    )
    asked: Any = {"start": on(0), "end": on(9), "within": within, "order": order}
    report = time_to_convert(["a", "b"], **asked)
    steps = funnel(["a", "b"], **asked).steps
    assert (report.entered, report.users) == (steps[0].users, steps[1].users)
    assert sum(taken.users for taken in report.times) == report.users


def test_a_time_that_not_everybody_has_had_may_grow() -> None:
    log({1: "a12 b13"})
    open_from = time_to_convert(["a", "b"], start=on(9), end=on(12), within=3).times
    assert [taken.complete for taken in open_from] == [True, False, False, False]
    assert {taken.complete for taken in time_to_convert(["a", "b"]).times} == {False}
    assert {taken.complete for taken in time_to_convert(["a", "b"], end=on(12)).times} == {True}


@pytest.mark.parametrize("order", ORDERS)
def test_whoever_takes_the_only_step_is_there_at_once(order: Any) -> None:
    log({1: "a0 a3", 2: "a5"})
    assert times("a", order=order) == {0: 2}
    points = conversion(["a"], 3, start=on(0), end=on(5)).points
    assert [point.users for point in points] == [(1,), (0,), (0,), (1,), (0,), (1,)]


def test_of_nobody_there_is_no_share_and_no_median() -> None:
    report = time_to_convert(["never", "b"], within=1)
    assert [taken.share for taken in report.times] == [None, None]
    assert (report.users, report.median) == (0, None)


def test_conversion_is_told_for_each_period_of_entry() -> None:
    log({1: "a0 b2", 2: "a0 b3", 3: "a0 a1 b2", 4: "a11 b13", 5: "a12", 6: "b0 a1"})
    report = conversion(["a", "b"], 2, start=on(0), end=on(12))
    assert [point.users for point in report.points] == [
        *((3, 2), (2, 1), *[(0, 0)] * 9, (1, 1), (1, 0)),
    ]
    assert report.points[0] == ConversionPoint(on(0), (3, 2), 2 / 3, complete=True)
    assert report.points[2].rate is None
    assert [point.complete for point in report.points] == [True] * 11 + [False] * 2
    assert report.average == 3 / 5
    assert conversion(["a", "b"], 2, start=on(2), end=on(4)).average is None


@pytest.mark.parametrize("order", ["ordered", "strict"])
@pytest.mark.parametrize("within", [0, 1, 4])
def test_a_point_is_the_funnel_of_those_who_entered_then(order: Any, within: int) -> None:
    log(
        {
            n: " ".join(f"{'abc'[k % 3]}{(n * k * 5) % 13}" for k in range(1, 7))
            for n in range(1, 30)
        }
    )
    steps = ["a", "b", "c"]
    report = conversion(steps, within, start=on(0), end=on(9), order=order)
    for day, point in enumerate(report.points):
        alone = funnel(steps, start=on(day), end=on(day), within=within, order=order)
        assert point.users == tuple(step.users for step in alone.steps)


def test_marks_of_the_future_count_for_nobody_who_entered_before() -> None:
    log({1: "a13 b14", 2: "a14 b14"})
    report = conversion(["a", "b"], 3, start=on(13), end=on(15))
    assert [point.users for point in report.points] == [(1, 0), (1, 1), (0, 0)]
    question = ConversionQuestion.of(steps=["a", "b"], within=3)
    assert people_behind(question, ConversionFigure.of(at=on(13), step=1)).ids == []


def test_the_segment_is_that_of_the_period_of_entry(tracker: Tracker) -> None:
    log({1: "a0 s0 b2", 2: "a0 s2 b2"})
    assert times("a", "b", where="s") == {2: 1}
    assert conversion(["a", "b"], 2, start=on(0), end=on(0), where="s").points[0].users == (1, 1)


def test_people_are_behind_each_figure(tracker: Tracker) -> None:
    log({1: "a0 b0", 2: "a0 b2", 3: "a0", 4: "a12 b12", 5: "a12"})
    asked: Any = {"steps": ["a", "b"], "start": on(0), "end": on(12), "within": 2}
    question = TimeToConvertQuestion.of(**asked)
    for k, ids in ((0, [1, 4]), (1, []), (2, [2]), (None, [1, 2, 4])):
        assert people_behind(question, TimeToConvertFigure.of(k=k)).ids == ids
    over_time = ConversionQuestion.of(**asked)
    for day, step, which, ids in (
        (0, 0, "reached", [1, 2, 3]),
        (0, 1, "reached", [1, 2]),
        (0, 1, "dropped", [3]),
        (0, 1, "open", []),
        (12, 1, "reached", [4]),
        (12, 1, "dropped", []),
        (12, 1, "open", [5]),
        (12, 0, "reached", [4, 5]),
    ):
        figure = ConversionFigure.of(at=on(day), step=step, which=which)
        assert people_behind(over_time, figure).ids == ids
        assert [*everyone_behind(over_time, figure)] == ([ids] if ids else [])


def test_tables_have_a_row_a_period() -> None:
    log({1: "a0 b1"})
    table = conversion(["a", "b"], 1, start=on(0), end=on(0)).to_csv()
    assert table == "period_start,1. a,2. b,rate,complete\r\n2026-12-28,1,1,1.0,True\r\n"
    assert time_to_convert(["a", "b"], start=on(0), end=on(1)).to_csv().splitlines() == [
        "periods,users,share,complete",
        "0,0,0.0,True",
        "1,1,1.0,True",
    ]


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (lambda: time_to_convert([]), "the number of steps must be"),
        (lambda: time_to_convert(["a", "a"]), "doing it once takes both"),
        (lambda: time_to_convert(["a", "a"], order="any"), "must be a different event"),
        (lambda: conversion(["a", "b"], -1), "within must be a whole number from 0"),
        (
            lambda: conversion(["a", "b"], 3, order=ORDERS[2]),
            "order must be one of ordered, strict",
        ),
        (lambda: people_behind(QUESTION, TimeToConvertFigure.of(k=4)), "k must be a whole number"),
    ],
)
def test_nonsense_is_an_error_that_says_what_is_allowed(ask: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ask()


def test_four_round_trips_are_enough(tracker: Tracker, round_trips: list[object]) -> None:
    tracker.record([Mark(event, id_, when=on(3)) for event in "ab" for id_ in (1, 70_000)])
    tracker.redis.ping()
    for ask in (
        lambda: time_to_convert(["a", "b", "a"], within=5, where="did(b, ever)"),
        lambda: conversion(["a", "b", "a"], 5, where="first(b, last month)"),
    ):
        round_trips.clear()
        ask()
        assert 1 <= len(round_trips) <= 4
