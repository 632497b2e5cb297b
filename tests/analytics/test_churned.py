"""churned: who was active in a period and then silent."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist.analytics import Churned, ChurnedPoint, churned
from flask_bitmapist.marks import Mark
from flask_bitmapist.periods import Grain
from flask_bitmapist.reading import bitmaps
from flask_bitmapist.tracker import Tracker

from .histories import Log, log, on

NOW = datetime(2027, 1, 6, 14, 32)  # a Wednesday


pytestmark = pytest.mark.usefixtures("at_now")


def figures(silent: int, **options: Any) -> list[tuple[int, int]]:
    """(users, active) of each point."""
    report = churned("a", silent, **{"start": on(0), **options})
    return [(point.users, point.active) for point in report.points]


def test_churned_users_are_silent_after_their_last_activity() -> None:
    log({1: "a0 a1 a2", 2: "a0 a3", 3: "a0", 4: "a2"})
    assert churned("a", silent=2, start=on(0), end=on(3)) == Churned(
        [
            ChurnedPoint(on(0), users=2, active=3, rate=2 / 3),
            ChurnedPoint(on(1), users=0, active=1, rate=0.0),
            ChurnedPoint(on(2), users=2, active=2, rate=1.0),
            ChurnedPoint(on(3), users=1, active=1, rate=1.0),
        ]
    )


def test_where_nobody_was_active_there_is_no_rate() -> None:
    log({1: "a0"})
    assert churned("a", 1, start=on(1), end=on(1)).points == [ChurnedPoint(on(1), 0, 0, None)]


@pytest.mark.parametrize(("silent", "last"), [(1, 7), (2, 6), (8, 0)])
def test_only_periods_whose_silence_is_over_are_told(silent: int, last: int) -> None:
    log({1: "a0"})
    points = churned("a", silent, start=on(0)).points
    assert [point.period_start for point in points] == [on(day) for day in range(last + 1)]


def test_there_may_be_no_such_period() -> None:
    log({1: "a0"})
    report = churned("a", 9, start=on(0))
    assert report == Churned([])
    assert report.to_dict() == {"points": []}
    assert report.to_csv() == "period_start,users,active,rate\r\n"


def test_activity_after_the_end_breaks_the_silence() -> None:
    log({1: "a1 a3", 2: "a1 a4"})
    assert figures(2, start=on(1), end=on(1)) == [(1, 2)]


def test_the_usual_range_ends_with_the_last_silence_that_is_over() -> None:
    points = churned("a", 28).points
    assert len(points) == 30
    assert points[-1].period_start == on(9 - 28 - 1)
    assert len(churned("a", 990).points) == 9


def test_where_takes_the_place_of_the_event_in_every_period() -> None:
    log({1: "a0 w0 a1", 2: "a0 w0 a1 w1", 3: "a0 a1 w1"})
    assert figures(1, end=on(0), where="w") == [(1, 2)]


@pytest.mark.parametrize(
    ("by", "start", "expected"),
    [
        ("week", date(2026, 12, 21), [(date(2026, 12, 21), 1, 2)]),
        ("month", date(2026, 11, 1), [(date(2026, 11, 1), 1, 2)]),
        ("year", date(2025, 1, 1), [(date(2025, 1, 1), 0, 1)]),
    ],
)
def test_silence_is_counted_in_periods_of_any_length(
    tracker: Tracker, by: Grain, start: date, expected: list[tuple[date, int, int]]
) -> None:
    # Now lies in the ISO week 2027-W01, in January 2027.
    days = {
        1: [date(2025, 3, 1), date(2026, 11, 2), date(2026, 12, 21), date(2026, 12, 31)],
        2: [date(2026, 11, 30), date(2026, 12, 27), date(2027, 1, 4)],
    }
    tracker.record(Mark("a", user, when=day) for user in days for day in days[user])
    # In December both came, in 2026-W53 the first did.
    if by == "month":
        tracker.record([Mark("a", 2, value=False, when=date(2026, 12, 27))])
    points = churned("a", 1, by, start).points
    assert [(p.period_start, p.users, p.active) for p in points] == expected


def test_mapped_users_churn_too() -> None:
    log({UUID(int=n << 64): history for n, history in enumerate(["a0 a1", "a0"])})
    assert figures(1, end=on(0)) == [(1, 2)]


def test_churned_tells_itself_as_dict_and_csv() -> None:
    log({1: "a0"})
    report = churned("a", 1, start=on(0), end=on(1))
    assert report.to_dict()["points"][0] == {
        "period_start": "2026-12-28",
        "users": 1,
        "active": 1,
        "rate": 1.0,
    }
    assert report.to_csv() == (
        "period_start,users,active,rate\r\n2026-12-28,1,1,1.0\r\n2026-12-29,0,0,\r\n"
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"silent": 0}, "silent must be a whole number from 1 to 1000, not 0"),
        ({"silent": True}, "silent must be a whole number from 1 to 1000, not True"),
        ({"silent": 1001}, "silent must be a whole number from 1 to 1000, not 1001"),
        ({"by": "decade"}, "by must be one of hour, day, week, month, year"),
        ({"start": on(3), "end": on(2)}, "is before the start"),
        ({"strict": True}, "unknown events or flags: a"),
    ],
)
def test_nonsense_is_an_error_that_says_what_is_allowed(
    tracker: Tracker, arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        churned(**{"event": "a", "silent": 1, **arguments})


logs = st.dictionaries(
    st.tuples(st.sampled_from("aw"), st.integers(0, 12)),
    st.frozensets(st.sampled_from([0, 1, 2, 63, 64, 200]), min_size=1),
    max_size=20,
)


@given(
    log=logs,
    silent=st.integers(1, 6),
    first=st.integers(-3, 8),
    length=st.integers(0, 8),
    where=st.none() | st.just("w"),
    small=st.booleans(),
)
def test_churned_agrees_with_its_definition(
    redis: Any,
    tracker: Tracker,
    monkeypatch: pytest.MonkeyPatch,
    log: Log,
    silent: int,
    first: int,
    length: int,
    where: str | None,
    small: bool,
) -> None:
    redis.flushdb()
    pipeline = redis.pipeline()
    for (event, day), members in log.items():
        for user in members:
            when = on(day)
            pipeline.setbit(f"trackist_{event}_{when.year}-{when.month}-{when.day}", user, 1)
    pipeline.execute()

    def did(day: int) -> frozenset[int]:
        users = log.get(("a", day), frozenset())
        return users & log.get(("w", day), frozenset()) if where else users

    expected = [
        (on(p), len(did(p).difference(*(did(p + k + 1) for k in range(silent)))), len(did(p)))
        for p in range(first, first + length + 1)
        if p + silent < 9
    ]
    with monkeypatch.context() as patch:
        if small:
            patch.setattr(bitmaps, "BUDGET", 0)
            patch.setattr(bitmaps, "_SLICE_UNIT", 16)
            patch.setattr(bitmaps, "_PART_WORDS", 1)
        report = churned("a", silent, "day", on(first), on(first + length), where)
    assert [(p.period_start, p.users, p.active) for p in report.points] == expected
