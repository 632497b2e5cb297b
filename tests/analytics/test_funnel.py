"""funnel: how many took each step, in order, strictly, in any order, within a window."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist.analytics import Funnel, Step, funnel, funnel_people
from flask_bitmapist.marks import Mark
from flask_bitmapist.periods import Grain
from flask_bitmapist.questions.funnel import Order
from flask_bitmapist.reading import bitmaps
from flask_bitmapist.reading.segments import Event, Flag
from flask_bitmapist.tracker import Tracker

from .histories import Log, log, on

NOW = datetime(2027, 1, 10, 14, 32)


pytestmark = pytest.mark.usefixtures("at_now")


def steps(*names: str, first: int = 0, last: int = 9, **options: Any) -> list[int]:
    """The users at each step."""
    report = funnel(list(names), start=on(first), end=on(last), **options)
    return [step.users for step in report.steps]


def test_a_funnel_tells_users_and_rates_of_each_step() -> None:
    log({1: "a0 b1 c2", 2: "a0 b1", 3: "a1 b4", 4: "a2", 5: "b0"})
    assert funnel(["a", "b", "c"], start=on(0), end=on(9)) == Funnel(
        [
            Step("a", 4, from_first=1.0, from_previous=None),
            Step("b", 3, from_first=3 / 4, from_previous=3 / 4),
            Step("c", 1, from_first=1 / 4, from_previous=1 / 3),
        ]
    )


@pytest.mark.parametrize("within", [None, 0, 2])
@pytest.mark.parametrize("order", ["ordered", "strict", "any"])
def test_the_range_before_is_counted_like_a_funnel_of_its_own(
    within: int | None, order: Order
) -> None:
    # People begin on days 1 to 4 and go on at once, later, in the next range, too late, or never.
    log({1: "a0 b0", 2: "a2 b4", 3: "a3 b6", 4: "a1 a6 b2 b7", 5: "a6 b6", 6: "a7", 7: "b1 a2"})
    asked: dict[str, Any] = {"within": within, "order": order}
    parts = [Flag("x"), Event("b")]
    report = funnel(
        ["a", "b"], start=on(5), end=on(9), previous=True, breakdown=parts, now=on(9), **asked
    )
    alone = funnel(["a", "b"], start=on(5), end=on(9), breakdown=parts, now=on(9), **asked)
    before = funnel(["a", "b"], start=on(0), end=on(4), breakdown=parts, now=on(9), **asked)
    assert before.steps[0].users == 5
    every = [
        (report, alone, before),
        *((report.parts[p], alone.parts[p], before.parts[p]) for p in ("flag:x", "b")),
    ]
    for found, here, then in every:
        assert (found.steps, found.previous) == (here.steps, then.steps)
    header, first, *_ = report.to_csv().splitlines()
    assert header.endswith(",open,previous,previous_from_first")
    assert first.endswith(",5,1.0")


def test_the_change_is_that_of_the_share_that_took_all_steps() -> None:
    log({1: "a0 b0", 2: "a0", 3: "a5 b5", 4: "a5", 5: "a5", 6: "a5"})
    asked: dict[str, Any] = {"start": on(5), "end": on(9), "now": on(9)}
    assert funnel(["a", "b"], previous=True, **asked).change == 1 / 4 - 1 / 2
    assert funnel(["a", "b"], **asked).change is None
    nobody: dict[str, Any] = {"start": on(0), "end": on(4), "now": on(9)}
    assert funnel(["a", "b"], previous=True, **nobody).change is None


def test_a_share_of_nobody_is_none() -> None:
    log({1: "a0"})
    assert funnel(["a", "b", "c"], start=on(0), end=on(1)).steps[1:] == [
        Step("b", 0, from_first=0.0, from_previous=0.0),
        Step("c", 0, from_first=0.0, from_previous=None),
    ]
    assert funnel(["never"]).steps == [Step("never", 0, None, None)]


def test_steps_may_be_taken_in_one_period_or_later_but_not_earlier() -> None:
    log({1: "a3 b3", 2: "a3 b4", 3: "a3 b2", 4: "a3 b2 b5"})
    assert steps("a", "b") == [4, 3]


def test_strict_steps_are_taken_in_later_periods() -> None:
    log({1: "a3 b3", 2: "a3 b4", 3: "a3 b3 b9", 4: "a2 b3 c3", 5: "a2 b3 c4"})
    assert steps("a", "b", order="strict") == [5, 4]
    assert steps("a", "b", "c", order="strict") == [5, 4, 1]


def test_steps_in_any_order_only_need_to_be_taken() -> None:
    log({1: "b0 a9", 2: "a1", 3: "b1 c1", 4: "c0 b1 a2"})
    assert steps("a", "b", "c", order="any") == [3, 2, 1]


def test_steps_before_the_start_and_after_the_end_do_not_count() -> None:
    log({1: "a1 b3", 2: "a2 b3", 3: "a3 b6", 4: "a6 b6"})
    for order in ("ordered", "strict", "any"):
        assert steps("a", "b", first=2, last=5, order=order) == [2, 1]


@pytest.mark.parametrize(
    ("within", "expected"), [(0, [5, 1]), (1, [5, 2]), (2, [5, 4]), (9, [5, 4])]
)
def test_within_counts_those_who_arrive_in_the_window_after_an_entry(
    within: int, expected: list[int]
) -> None:
    log({1: "a0 b0", 2: "a0 b1", 3: "a0 b2", 4: "a0 a5 b7", 5: "a5 b4"})
    assert steps("a", "b", within=within) == expected


def test_the_window_begins_with_the_entry_and_not_with_the_step_before() -> None:
    log({1: "a0 b2 c4", 2: "a0 b2 c3"})
    assert steps("a", "b", "c", within=3) == [2, 2, 1]


def test_a_second_entry_opens_its_own_window() -> None:
    log({1: "a0 b1 a4 c6", 2: "a0 b1 a4 b4 c6", 3: "a0 a1 b2 c4"})
    assert steps("a", "b", "c", within=3) == [3, 3, 2]


def test_entries_lie_in_the_range_and_their_windows_may_end_after_it() -> None:
    log({1: "a4 b6", 2: "a4 b7", 3: "a5 b5", 4: "a1 b2", 5: "a4 a6 b8"})
    assert steps("a", "b", first=2, last=4, within=2) == [3, 1]
    assert steps("a", "b", first=2, last=4, within=3) == [3, 2]
    assert steps("a", "b", first=2, last=4) == [3, 0]


def test_no_window_ends_after_now() -> None:
    log({1: "a4 b6", 2: "a4 b5"})
    assert steps("a", "b", first=4, last=4, within=3, now=on(5)) == [2, 1]


def test_steps_in_any_order_lie_within_a_window_of_each_other() -> None:
    log({1: "b0 a2", 2: "b0 a3", 3: "a0 b2", 4: "a0 b3", 5: "b9 a10", 6: "a9 b11"})
    assert steps("a", "b", order="any", within=2) == [5, 3]


def test_who_entered_lately_is_still_open_and_not_lost() -> None:
    # Half of those who enter on each day buy 20 days later; now is day 40.
    log({user: f"a{user // 2}" + (f" b{user // 2 + 20}" if user % 2 else "") for user in range(82)})
    report = funnel(["a", "b"], start=on(0), end=on(40), within=31, now=on(40))
    first, bought = report.steps
    # Of those who entered on days 0 to 8 the 31 days are over; on days 9 to 20 half have bought.
    assert (first.users, first.open) == (82, 0)
    assert (bought.users, bought.open) == (21, 82 - 18 - 12)
    assert (bought.from_first, bought.from_previous) == (0.5, 0.5)
    assert report.lost == [9]
    lost = funnel_people(
        ["a", "b"], 1, start=on(0), end=on(40), within=31, now=on(40), dropped=True
    )
    assert lost.ids == [*range(0, 18, 2)]


def test_a_window_is_open_until_its_last_period_is_over() -> None:
    log({1: "a0", 2: "a1", 3: "a0 a1", 4: "a0 b1", 5: "a1 b2"})
    asked: dict[str, Any] = {"start": on(0), "end": on(1), "within": 2}
    for order in ("ordered", "strict", "any"):
        early, late, after = (
            funnel(["a", "b"], order=order, now=on(day), **asked).steps[1] for day in (2, 3, 4)
        )
        assert (early.users, early.open, early.from_first) == (2, 3, None)
        # On day 3 the windows of day 0 are over; 3 has another one.
        assert (late.users, late.open, late.from_first) == (2, 2, 1 / 3)
        assert (after.users, after.open, after.from_first) == (2, 0, 2 / 5)


def test_without_windows_nobody_is_open() -> None:
    log({1: "a0", 2: "a0 b1"})
    for order in ("ordered", "strict", "any"):
        report = funnel(["a", "b"], start=on(0), end=on(1), order=order, now=on(1))
        assert report.steps[1] == Step("b", 1, 0.5, 0.5, open=0)
        assert report.lost == [1]


def test_the_same_event_twice_is_a_second_period_in_strict_order() -> None:
    log({1: "a0", 2: "a0 a1", 3: "a0 a1 a5", 4: "b0 b1"})
    assert steps("a", "a", "a", order="strict") == [3, 2, 1]
    assert steps("a", "a", order="strict", within=1) == [3, 2]


def test_an_event_may_come_again_after_another_one() -> None:
    log({1: "a0 b1", 2: "a0 b1 a2"})
    assert steps("a", "b", "a") == [2, 2, 1]


def test_where_holds_in_the_period_of_entry() -> None:
    log({1: "a0 w0 b2", 2: "a0 b2 w2", 3: "a0 a4 w4 b4", 4: "a0 b1 a4 w4"})
    assert steps("a", "b", where="w") == [3, 2]
    assert steps("a", "b", where="w", within=3) == [3, 2]
    assert steps("a", "b", where="w", order="strict") == [3, 1]
    assert steps("a", "b", where="w", order="any") == [3, 3]


def test_steps_may_be_segments(tracker: Tracker) -> None:
    log({1: "a0 b1", 2: "a0 c1", 3: "a0"})
    tracker.record([Mark("vip", 2, dated=False)])
    report = funnel([Event("a"), "b | c", Event("c") & Flag("vip")], start=on(0), end=on(1))
    assert [(step.event, step.users) for step in report.steps] == [
        ("a", 3),
        ("b | c", 2),
        ("c & flag:vip", 1),
    ]


@pytest.mark.parametrize(
    ("by", "expected"), [("day", [1, 0]), ("week", [1, 0]), ("month", [1, 1]), ("year", [1, 1])]
)
def test_the_grain_is_that_of_a_period(tracker: Tracker, by: Grain, expected: list[int]) -> None:
    # The week of 2026-12-28 ends in January; the window of one month or year reaches over its end.
    tracker.record([Mark("a", 1, when=date(2026, 12, 5)), Mark("b", 1, when=date(2027, 1, 3))])
    report = funnel(["a", "b"], by=by, start=date(2026, 12, 1), end=date(2026, 12, 31), within=1)
    assert [step.users for step in report.steps] == expected


def test_hours_are_periods_too(tracker: Tracker) -> None:
    tracker.record(
        Mark(event, 1, when=datetime(2027, 1, 10, hour), hourly=True)
        for event, hour in (("a", 9), ("b", 11))
    )
    assert [step.users for step in funnel(["a", "b"], by="hour", within=1).steps] == [1, 0]
    assert [step.users for step in funnel(["a", "b"], by="hour", within=2).steps] == [1, 1]


def test_mapped_users_take_steps_too() -> None:
    log({UUID(int=n << 64): history for n, history in enumerate(["a0 b1", "b0 a1", "a0"])})
    assert steps("a", "b") == [3, 1]


def test_steps_with_different_kinds_of_ids_do_not_make_a_funnel() -> None:
    log({1: "a0", UUID(int=1 << 64): "b0"})
    with pytest.raises(ValueError, match="different kinds of ids do not combine"):
        steps("a", "b")


def test_a_funnel_tells_itself_as_dict_and_csv() -> None:
    log({1: "a0 b0", 2: "a0"})
    report = funnel(["a", "b"], start=on(0), end=on(0))
    assert report.to_dict() == {
        "steps": [
            {"event": "a", "users": 2, "from_first": 1.0, "from_previous": None, "open": 0},
            {"event": "b", "users": 1, "from_first": 0.5, "from_previous": 0.5, "open": 0},
        ]
    }
    assert report.to_csv() == (
        "event,users,from_first,from_previous,open\r\na,2,1.0,,0\r\nb,1,0.5,0.5,0\r\n"
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"steps": "a"}, "steps must be a list of events or segments, not 'a' alone"),
        ({"steps": []}, "the number of steps must be a whole number from 1 to 1000, not 0"),
        ({"steps": ["a &"]}, "a name is missing"),
        (
            {"steps": ["b", "a", Event("a")]},
            "two steps in a row are a, and doing it once takes",
        ),
        (
            {"steps": ["a", "b", "a"], "order": "any"},
            "in any order, each step must be a different event",
        ),
        ({"order": "sideways"}, "order must be one of ordered, strict, any, not 'sideways'"),
        ({"within": -1}, "within must be a whole number from 0 to 1000, not -1"),
        ({"within": 1.5}, "within must be a whole number from 0 to 1000, not 1.5"),
        ({"by": "decade"}, "by must be one of hour, day, week, month, year"),
        ({"strict": True, "where": "b"}, "unknown events or flags: a, b"),
    ],
)
def test_nonsense_is_an_error_that_says_what_is_allowed(
    tracker: Tracker, arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        funnel(**{"steps": ["a"], **arguments})


# Against the definition, on sets


def reference(
    log: Log,
    names: list[str],
    first: int,
    last: int,
    now: int,
    within: int | None,
    order: Order,
    where: str | None,
) -> list[int]:
    """Users at each step; `log` is {(event, day): users}."""

    def did(event: str, day: int) -> frozenset[int]:
        return log.get((event, day), frozenset())

    def run(begin: int, end: int, entries: Iterable[int]) -> list[frozenset[int]]:
        reached = [frozenset[int]() for _ in names]
        for j in range(begin, end + 1):
            before = list(reached)
            for k, name in enumerate(names):
                if k == 0:
                    entered = did(name, j) & did("w", j) if where else did(name, j)
                    reached[0] |= entered if j in entries else frozenset()
                elif order == "any":
                    reached[k] |= did(name, j)
                else:
                    reached[k] |= did(name, j) & (before if order == "strict" else reached)[k - 1]
        if order == "any":
            reached = [reached[0].intersection(*reached[1 : k + 1]) for k in range(len(names))]
        return reached

    if within is None:
        return [len(users) for users in run(first, last, range(first, last + 1))]
    runs = [
        run(
            i,
            max(last, min(i + within, now)) if i + within > last else i + within,
            range(first, last + 1) if order == "any" else [i],
        )
        for i in range(first, last + 1)
    ]
    return [len(frozenset().union(*users)) for users in zip(*runs, strict=True)]


logs = st.dictionaries(
    st.tuples(st.sampled_from("abcw"), st.integers(0, 9)),
    st.frozensets(st.sampled_from([0, 1, 2, 63, 64, 200]), min_size=1),
    max_size=25,
)


@given(
    log=logs,
    names=st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True),
    first=st.integers(0, 5),
    length=st.integers(0, 5),
    now=st.integers(0, 12),
    within=st.none() | st.integers(0, 8),
    order=st.sampled_from(["ordered", "strict", "any"]),
    where=st.none() | st.just("w"),
    small=st.booleans(),
)
def test_a_funnel_agrees_with_its_definition(
    redis: Any,
    tracker: Tracker,
    monkeypatch: pytest.MonkeyPatch,
    log: Log,
    names: list[str],
    first: int,
    length: int,
    now: int,
    within: int | None,
    order: Order,
    where: str | None,
    small: bool,
) -> None:
    redis.flushdb()
    pipeline = redis.pipeline()
    for (event, day), users in log.items():
        for user in users:
            pipeline.setbit(f"trackist_{event}_{on(day):%Y}-{on(day).month}-{on(day).day}", user, 1)
    pipeline.execute()
    with monkeypatch.context() as patch:
        if small:
            patch.setattr(bitmaps, "BUDGET", 0)
            patch.setattr(bitmaps, "_SLICE_UNIT", 16)
            patch.setattr(bitmaps, "_PART_WORDS", 1)
        options = {"within": within, "order": order, "where": where, "now": on(now)}
        found = steps(*names, first=first, last=first + length, **options)
    assert found == reference(log, names, first, first + length, now, within, order, where)
    assert found == sorted(found, reverse=True)


def test_a_range_of_a_thousand_days_and_as_long_a_window_is_a_funnel() -> None:
    log({1: "a0 b9", 2: "a0"})
    assert steps("a", "b", first=0, last=999, within=1000) == [2, 1]
