"""overlap: how far the users of several events are the same."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist.analytics import Overlap, overlap, people_behind
from flask_bitmapist.marks import Mark
from flask_bitmapist.periods import Grain
from flask_bitmapist.questions import OverlapFigure, OverlapQuestion
from flask_bitmapist.reading import bitmaps
from flask_bitmapist.reading.segments import Event, Flag
from flask_bitmapist.tracker import Tracker

NOW = datetime(2026, 12, 31, 14, 32)  # a Thursday
TODAY = NOW.date()


pytestmark = pytest.mark.usefixtures("at_now")


@pytest.fixture
def mark(tracker: Tracker) -> Callable[..., None]:
    def mark(event: str, *users: object, when: date = TODAY) -> None:
        tracker.record([Mark(event, user, when=when) for user in users])

    return mark


def test_an_overlap_counts_who_did_both(mark: Callable[..., None]) -> None:
    mark("a", 1, 2, 3)
    mark("b", 3, 4)
    mark("c", 9)
    assert overlap(["a", "b", "c"]) == Overlap(
        events=["a", "b", "c"],
        counts=[[3, 1, 0], [1, 2, 0], [0, 0, 1]],
        jaccard=[[1.0, 1 / 4, 0.0], [1 / 4, 1.0, 0.0], [0.0, 0.0, 1.0]],
    )


def test_over_a_range_everybody_counts_who_did_it_in_any_of_its_periods(
    mark: Callable[..., None], tracker: Tracker
) -> None:
    mark("a", 1, 2, when=TODAY - timedelta(days=1))
    mark("a", 3)
    mark("b", 1, 3, 4)
    mark("b", 5, when=TODAY - timedelta(days=2))
    tracker.record([Mark("now", id_, dated=False) for id_ in (1, 4)])
    assert overlap(["a", "b"]).counts == [[1, 1], [1, 3]]
    assert overlap(["a", "b"], over="last 2 days").counts == [[3, 2], [2, 3]]
    assert overlap(["a", "b"], over="last 3 days").counts == [[3, 2], [2, 4]]
    assert overlap(["a", "b"], over="last 3 days", where="flag:now").counts == [[1, 1], [1, 2]]
    question = OverlapQuestion.of(events=["a", "b"], over="last 2 days", now=NOW)
    assert people_behind(question, OverlapFigure.of(one=0, other=1)).ids == [1, 3]
    with pytest.raises(ValueError, match="give one or the other"):
        overlap(["a"], at=TODAY, over="last 2 days")


def test_the_overlap_of_two_empty_sets_is_none_and_not_a_share(mark: Callable[..., None]) -> None:
    mark("a", 1)
    report = overlap(["never", "a", "neither"])
    assert report.counts == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert report.jaccard == [[None, 0.0, None], [0.0, 1.0, 0.0], [None, 0.0, None]]


def test_one_event_overlaps_with_itself(mark: Callable[..., None]) -> None:
    mark("a", 1, 2)
    assert overlap(["a"]) == Overlap(["a"], [[2]], [[1.0]])


@pytest.mark.parametrize(
    ("by", "at", "expected"),
    [
        ("day", None, 1),
        ("day", date(2026, 12, 30), 0),
        ("week", date(2027, 1, 3), 2),
        ("month", None, 3),
        ("month", date(2027, 1, 1), 0),
        ("year", date(2026, 5, 1), 4),
    ],
)
def test_the_period_is_the_one_that_contains_at(
    mark: Callable[..., None], by: Grain, at: date | None, expected: int
) -> None:
    for user, day in enumerate((TODAY, date(2026, 12, 30), date(2026, 12, 1), date(2026, 1, 1))):
        mark("a", user, when=day)
        mark("b", user, when=day + timedelta(days=1) if user == 1 else day)
    mark("a", 9, when=date(2025, 12, 31))
    mark("b", 9, when=date(2025, 12, 31))
    assert overlap(["a", "b"], by, at).counts[0][1] == expected


def test_where_cuts_every_set(mark: Callable[..., None], tracker: Tracker) -> None:
    mark("a", 1, 2, 3)
    mark("b", 2, 3)
    tracker.record([Mark("staff", 3, dated=False)])
    assert overlap(["a", "b"], where="a - flag:staff").counts == [[2, 1], [1, 1]]


def test_segments_overlap_too(mark: Callable[..., None], tracker: Tracker) -> None:
    mark("a", 1, 2)
    mark("b", 2, 3)
    tracker.record([Mark("premium", 2, dated=False), Mark("premium", 7, dated=False)])
    report = overlap(["a | b", Event("a") - Event("b"), Flag("premium")])
    assert report.events == ["a | b", "a - b", "flag:premium"]
    assert report.counts == [[3, 1, 1], [1, 1, 0], [1, 0, 2]]


def test_mapped_users_overlap_among_themselves_alone(mark: Callable[..., None]) -> None:
    mark("a", UUID(int=1 << 64), UUID(int=2 << 64))
    mark("b", UUID(int=2 << 64))
    mark("plain", 0, 1)
    assert overlap(["a", "b"]).counts == [[2, 1], [1, 1]]
    with pytest.raises(ValueError, match="different kinds of ids do not combine"):
        overlap(["a", "plain"])


def test_an_overlap_tells_itself_as_dict_and_as_one_row_a_pair(mark: Callable[..., None]) -> None:
    mark("a", 1, 2)
    mark("b", 1)
    report = overlap(["a", "b"])
    assert report.to_dict() == {
        "events": ["a", "b"],
        "counts": [[2, 1], [1, 1]],
        "jaccard": [[1.0, 0.5], [0.5, 1.0]],
    }
    assert report.to_csv() == (
        "event,other,users,jaccard\r\na,a,2,1.0\r\na,b,1,0.5\r\nb,a,1,0.5\r\nb,b,1,1.0\r\n"
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"events": "a"}, "events must be a list of events or segments, not 'a' alone"),
        ({"events": Event("a")}, "events must be a list"),
        ({"events": []}, "the number of events must be a whole number from 1 to 1000, not 0"),
        ({"events": ["a"] * 1001}, "the number of events must be a whole number from 1 to 1000"),
        ({"events": ["a"], "by": "decade"}, "by must be one of hour, day, week, month, year"),
        ({"events": ["a", "b"], "strict": True}, "unknown events or flags: a, b"),
    ],
)
def test_nonsense_is_an_error_that_says_what_is_allowed(
    tracker: Tracker, arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        overlap(**arguments)


users = st.frozensets(st.integers(0, 300))


@given(sets=st.lists(users, min_size=1, max_size=5), small=st.booleans())
def test_an_overlap_agrees_with_sets(
    redis: Any,
    tracker: Tracker,
    monkeypatch: pytest.MonkeyPatch,
    sets: list[frozenset[int]],
    small: bool,
) -> None:
    redis.flushdb()
    pipeline = redis.pipeline()
    for number, members in enumerate(sets):
        for user in members:
            pipeline.setbit(f"trackist_e{number}_2026-12-31", user, 1)
    pipeline.execute()
    with monkeypatch.context() as patch:
        if small:
            patch.setattr(bitmaps, "BUDGET", 0)
            patch.setattr(bitmaps, "_SLICE_UNIT", 16)
            patch.setattr(bitmaps, "_PART_WORDS", 1)
        report = overlap([f"e{number}" for number in range(len(sets))])
    assert report.counts == [[len(a & b) for b in sets] for a in sets]
    assert report.jaccard == [
        [len(a & b) / len(a | b) if a | b else None for b in sets] for a in sets
    ]
