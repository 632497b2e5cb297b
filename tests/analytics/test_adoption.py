"""adoption: how many of the active users use a feature, and how many for the first time ever."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import bitmapist
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist.analytics import Adoption, AdoptionPoint, adoption
from flask_bitmapist.marks import Mark
from flask_bitmapist.periods import Grain
from flask_bitmapist.reading import bitmaps
from flask_bitmapist.reading.segments import Event, Flag
from flask_bitmapist.tracker import Tracker

from .histories import FIRST, log, on

NOW = datetime(2027, 1, 2, 14, 32)  # a Saturday


pytestmark = pytest.mark.usefixtures("at_now")


def figures(**options: Any) -> list[tuple[int, int, int]]:
    """(active, users, new) of each point."""
    report = adoption("f", "a", **{"start": on(0), "end": on(5), **options})
    return [(point.active, point.users, point.new) for point in report.points]


def test_adoption_tells_active_users_those_who_used_it_and_the_new_ones() -> None:
    log({1: "a3 f3 a4 f4 a5 f5", 2: "a3 a4 f4 a5", 3: "a4 a5", 4: "f5"})
    assert adoption("f", "a", start=on(3)) == Adoption(
        [
            AdoptionPoint(on(3), active=2, users=1, new=1, rate=1 / 2, complete=True),
            AdoptionPoint(on(4), active=3, users=2, new=1, rate=2 / 3, complete=True),
            AdoptionPoint(on(5), active=3, users=1, new=0, rate=1 / 3, complete=False),
        ]
    )


def test_a_period_in_which_nobody_was_active_has_no_rate() -> None:
    log({1: "a0 f0 a2"})
    points = adoption("f", "a", start=on(0), end=on(2)).points
    assert [(p.period_start, p.active, p.rate) for p in points] == [
        (on(0), 1, 1.0),
        (on(1), 0, None),
        (on(2), 1, 0.0),
    ]


def test_who_used_it_before_the_range_is_not_new() -> None:
    log({1: "a0 f0 a4 f4", 2: "a4 f4"})
    assert figures(start=on(4), end=on(4)) == [(2, 2, 1)]


def test_who_used_it_years_ago_is_not_new(tracker: Tracker) -> None:
    tracker.record([Mark("f", 1, when=date(2021, 3, 31))])
    log({1: "a4 f4", 2: "a4 f4"})
    assert figures(start=on(4), end=on(4)) == [(2, 2, 1)]


def test_a_use_while_not_active_is_a_first_use_all_the_same() -> None:
    log({1: "f0 a1 f1"})
    assert figures(end=on(1)) == [(0, 0, 0), (1, 1, 0)]


def test_where_cuts_active_users_and_not_the_past() -> None:
    log({1: "a0 f0 w0 a1 f1 w1", 2: "a0 f0 a1 f1 w1", 3: "a1 f1"})
    assert figures(end=on(1), where="w") == [(1, 1, 1), (2, 2, 0)]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("day", [(date(2027, 1, 1), 1, 1, 0), (date(2027, 1, 2), 1, 1, 1)]),
        ("week", [(FIRST, 2, 2, 2)]),
        ("month", [(date(2027, 1, 1), 2, 2, 1)]),
        ("year", [(date(2027, 1, 1), 2, 2, 1)]),
    ],
)
def test_new_is_new_in_a_period_of_any_length(
    by: Grain, expected: list[tuple[date, int, int, int]]
) -> None:
    log({1: "a2 f2 a4 f4", 2: "a5 f5"})
    points = adoption("f", "a", by=by, start=date(2027, 1, 1)).points
    assert [(p.period_start, p.active, p.users, p.new) for p in points] == expected


def test_new_is_new_within_the_day_for_hours(tracker: Tracker) -> None:
    for hour, user in ((0, 1), (3, 1), (3, 2)):
        moment = datetime(2027, 1, 2, hour)
        tracker.record(Mark(event, user, when=moment, hourly=True) for event in "af")
    points = adoption("f", "a", by="hour", start=datetime(2027, 1, 2, 3)).points
    assert (points[0].period_start, points[0].users, points[0].new) == (
        datetime(2027, 1, 2, 3),
        2,
        1,
    )
    assert len(points) == 12


def test_a_feature_may_be_a_segment(tracker: Tracker) -> None:
    log({1: "a0 f0", 2: "a0 g0 a1 f1 g1", 3: "a1 g1"})
    tracker.record([Mark("beta", 2, dated=False), Mark("beta", 1, dated=False)])
    points = adoption((Event("f") | Event("g")) & Flag("beta"), "a", start=on(0), end=on(1)).points
    assert [(p.users, p.new) for p in points] == [(2, 2), (1, 0)]


def test_what_bitmapist_wrote_counts_from_its_first_month_on(redis: Any, tracker: Tracker) -> None:
    for event in "af":
        bitmapist.mark_event(event, 1, system=redis, now=NOW)
        bitmapist.mark_event(event, 1, system=redis, now=datetime(2026, 11, 3))
        bitmapist.mark_event(event, 2, system=redis, now=NOW)
    assert figures(start=on(5)) == [(2, 2, 1)]


def test_mapped_users_adopt_too() -> None:
    log({UUID(int=n << 64): history for n, history in enumerate(["a0 f0", "a0", "f0"])})
    assert figures(end=on(0)) == [(2, 1, 1)]


def test_an_event_never_marked_counts_nobody() -> None:
    log({1: "a0"})
    assert figures(end=on(0)) == [(1, 0, 0)]
    with pytest.raises(ValueError, match="unknown events or flags: f"):
        figures(strict=True)


def test_an_undated_feature_is_nonsense(tracker: Tracker) -> None:
    with pytest.raises(ValueError, match="flag:premium has no event, only undated flags"):
        adoption("flag:premium", "a")


def test_events_of_different_kinds_do_not_combine() -> None:
    log({1: "a0", UUID(int=1 << 64): "f0"})
    with pytest.raises(ValueError, match="different kinds of ids do not combine"):
        figures()


def test_adoption_tells_itself_as_dict_and_csv() -> None:
    log({1: "a0 f0"})
    report = adoption("f", "a", start=on(0), end=on(1))
    assert report.to_dict()["points"][0] == {
        "period_start": "2026-12-28",
        "active": 1,
        "users": 1,
        "new": 1,
        "rate": 1.0,
        "complete": True,
    }
    assert report.to_csv() == (
        "period_start,active,users,new,rate,complete\r\n"
        "2026-12-28,1,1,1,1.0,True\r\n2026-12-29,0,0,0,,True\r\n"
    )


marks = st.sets(
    st.tuples(st.sampled_from("afw"), st.sampled_from([0, 1, 64, 200]), st.integers(-70, 8)),
    max_size=30,
)


@given(
    log=marks,
    by=st.sampled_from(["day", "week", "month"]),
    first=st.integers(-40, 5),
    length=st.integers(0, 12),
    where=st.none() | st.just("w"),
    small=st.booleans(),
)
def test_adoption_agrees_with_its_definition(
    redis: Any,
    tracker: Tracker,
    monkeypatch: pytest.MonkeyPatch,
    log: set[tuple[str, int, int]],
    by: Grain,
    first: int,
    length: int,
    where: str | None,
    small: bool,
) -> None:
    redis.flushdb()
    tracker.record([Mark(e, u, when=on(day)) for e, u, day in log])

    def start_of(day: date) -> date:
        if by == "day":
            return day
        return day.replace(day=1) if by == "month" else day - timedelta(days=day.weekday())

    did: dict[tuple[str, date], set[int]] = {}
    for event, user, day in log:
        did.setdefault((event, start_of(on(day))), set()).add(user)
    expected = []
    for period in sorted({start_of(on(first + day)) for day in range(length + 1)}):
        active = did.get(("a", period), set())
        if where:
            active &= did.get(("w", period), set())
        used = active & did.get(("f", period), set())
        old = {u for (e, when), users in did.items() if e == "f" and when < period for u in users}
        expected.append((period, len(active), len(used), len(used - old)))
    with monkeypatch.context() as patch:
        if small:
            patch.setattr(bitmaps, "BUDGET", 0)
            patch.setattr(bitmaps, "_SLICE_UNIT", 16)
            patch.setattr(bitmaps, "_PART_WORDS", 1)
        report = adoption("f", "a", by, on(first), on(first + length), where)
    found = [(p.period_start, p.active, p.users, p.new) for p in report.points]
    assert found == expected
