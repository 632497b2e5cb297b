"""The recorded marks, and the guards of the contract."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import ClassVar, get_args
from uuid import UUID

import pytest
import redis as redis_py
from flask import Flask

from flask_bitmapist import (
    FlaskBitmapist,
    Mark,
    mark_event,
    mark_unique,
    unmark_event,
    unmark_unique,
)
from flask_bitmapist.testing import AdapterContract, Capability, RecordedMarks, record_marks
from flask_bitmapist.tracker import Tracker

ROOT = Path(__file__).parent.parent
KEY = UUID("12345678-1234-5678-1234-567812345678")


@pytest.fixture
def marks(tracker: Tracker) -> Iterator[RecordedMarks]:
    with record_marks() as marks:
        yield marks


def test_marks_equal_their_tuples_in_order(marks: RecordedMarks) -> None:
    mark_event("search:used", [7, 8])
    assert marks == [("search:used", 7), ("search:used", 8)]
    assert marks != [("search:used", 8), ("search:used", 7)]
    assert marks != [("search:used", 7)]
    assert marks != "search:used"


def test_a_mark_that_was_taken_back_is_not_the_mark(marks: RecordedMarks) -> None:
    unmark_event("search:used", 7)
    assert marks == [("search:used", 7, False)]
    assert marks != [("search:used", 7)]


def test_a_flag_is_not_a_dated_mark(marks: RecordedMarks) -> None:
    mark_unique("premium", 7)
    unmark_unique("premium", 8)
    assert marks == [Mark("premium", 7, dated=False), Mark("premium", 8, False, dated=False)]
    assert ("premium", 7) not in marks


@pytest.mark.parametrize(
    ("given", "expected"),
    [(7, "7"), ("7", 7), (KEY, str(KEY)), (str(KEY), KEY), ((7, "de"), "7:de"), ("007", "007")],
)
def test_ids_are_compared_in_their_normal_form(
    marks: RecordedMarks, given: object, expected: object
) -> None:
    mark_event("search:used", given)
    assert marks == [("search:used", expected)]
    assert marks != [("search:used", 8)]


def test_a_moment_is_compared_where_it_is_given(marks: RecordedMarks) -> None:
    mark_event("search:used", 7, now=datetime(2026, 1, 3, 15, 30))
    (mark,) = marks
    assert mark == ("search:used", 7)
    assert mark == Mark("search:used", 7, when=date(2026, 1, 3))
    assert mark == Mark("search:used", 7, when=datetime(2026, 1, 3, 15, 59))
    assert mark != Mark("search:used", 7, when=date(2026, 1, 4))
    assert mark != Mark("search:used", 7, when=datetime(2026, 1, 3, 16))
    assert mark != Mark("search:used", 7, dated=False)


def test_hourly_and_unique_are_compared_where_they_are_given(marks: RecordedMarks) -> None:
    mark_event("search:used", 7, track_hourly=True)
    (mark,) = marks
    assert mark == Mark("search:used", 7, hourly=True, unique=False)
    assert mark != Mark("search:used", 7, hourly=False)
    assert mark != Mark("search:used", 7, unique=True)


def test_equal_marks_are_one_member_of_a_set(marks: RecordedMarks) -> None:
    mark_event("search:used", [7, 7, 8], now=date(2026, 1, 3))
    assert len(marks) == 3
    assert len(set(marks)) == 2


def test_a_failing_comparison_shows_flags_and_marks_taken_back(marks: RecordedMarks) -> None:
    mark_event("search:used", 7)
    unmark_event("search:used", 7)
    mark_unique("premium", "ann")
    assert repr(marks) == (
        "[('search:used', 7), Mark('search:used', 7, False), "
        "Mark('premium', 'ann', True, dated=False)]"
    )


def test_sets_leave_out_what_was_taken_back(marks: RecordedMarks) -> None:
    mark_event("search:used", [7, 8])
    unmark_event("search:used", 8)
    mark_unique("premium", [7, 8])
    unmark_unique("premium", 7)
    assert marks.of("search:used") == {7}
    assert marks.of("premium") == {8}
    assert marks.of("never:made") == set()
    assert marks.events() == {"search:used": {7}}
    assert marks.flags() == {"premium": {8}}


def test_a_mark_taken_back_on_one_day_stays_on_another(marks: RecordedMarks) -> None:
    for day in (3, 4):
        mark_event("search:used", 7, now=date(2026, 1, day))
    unmark_event("search:used", 7, now=date(2026, 1, 4))
    assert marks.events() == {"search:used": {7}}
    assert marks.events(on=date(2026, 1, 3)) == {"search:used": {7}}
    assert marks.events(on=date(2026, 1, 4)) == {}


def test_a_dated_mark_that_is_unique_too_sets_the_flag(marks: RecordedMarks) -> None:
    mark_event("search:used", 7, track_unique=True)
    assert marks.flags() == marks.events() == {"search:used": {7}}


def test_marks_are_a_sequence_in_batches(marks: RecordedMarks) -> None:
    assert not marks
    mark_event("search:used", [7, 8])
    mark_event("search:used", 9)
    assert [mark.id for mark in marks] == [7, 8, 9]
    assert (marks[0].id, marks[-1].id, len(marks[1:])) == (7, 9, 2)
    assert [len(batch) for batch in marks.batches] == [2, 1]
    marks.clear()
    assert marks == []


def test_nothing_reaches_the_server_or_the_spool(
    marks: RecordedMarks, redis: redis_py.Redis, tracker: Tracker
) -> None:
    mark_event("search:used", 7)
    assert tracker.flush()
    assert redis.dbsize() == 0
    assert tracker.settings.spool is not None
    assert not tracker.settings.spool.exists()


def test_nothing_reaches_another_system(
    marks: RecordedMarks, app: Flask, redis: redis_py.Redis
) -> None:
    with app.app_context():
        mark_event("post:published", 7, system=redis)
    assert redis.keys("*") == []


def test_what_waits_in_the_spool_stays_there(app: Flask, tmp_path: Path) -> None:
    stopped = f"unix://{tmp_path}/stopped.sock"
    extension = FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": stopped})
    mark_event("search:used", 7)
    with record_marks() as marks:
        extension.tracker.flush()
    assert not marks
    assert not extension.tracker.flush()


def test_recording_ends(redis: redis_py.Redis, tracker: Tracker) -> None:
    with record_marks() as marks:
        mark_event("search:used", 7)
    mark_event("search:used", 8)
    assert marks == [("search:used", 7)]
    assert redis.hkeys("flask_bitmapist:events") == [b"search:used"]


def test_marks_of_every_app_are_recorded(marks: RecordedMarks, app: Flask) -> None:
    other = Flask("other")
    FlaskBitmapist(other)
    for each, id_ in ((app, 7), (other, 8)):
        with each.app_context():
            mark_event("search:used", id_)
    assert marks == [("search:used", 7), ("search:used", 8)]


def test_background_delivery_is_recorded_at_once(app: Flask) -> None:
    FlaskBitmapist(app, {"BITMAPIST_DELIVERY": "background"})
    with record_marks() as marks:
        mark_event("search:used", 7)
        assert marks == [("search:used", 7)]


def test_a_wrong_mark_still_raises(marks: RecordedMarks) -> None:
    with pytest.raises(ValueError, match="cannot name an event"):
        mark_event("", 7)
    assert not marks


def test_the_space_of_mapped_ids_is_recorded(marks: RecordedMarks, tracker: Tracker) -> None:
    tracker.record([Mark("post:read", "a", space="posts"), Mark("post:seen", "a")])
    assert [mark.space for mark in marks] == ["posts", ""]


def test_an_unknown_capability_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"\['savepoint'\].*'savepoints'"):

        class Misspelt(AdapterContract):
            cannot: ClassVar = {"savepoint": "none"}  # type: ignore[dict-item]


def test_every_test_of_the_contract_has_a_line_for_the_documentation() -> None:
    tests = [test for name, test in vars(AdapterContract).items() if name.startswith("test_")]
    lines = [test.__doc__ for test in tests]
    assert len(set(lines)) == len(lines)
    assert not [line for line in lines if not line or "\n" in line or line.endswith(".")]


def test_the_page_on_adapters_names_every_capability() -> None:
    page = (ROOT / "docs" / "writing-an-adapter.md").read_text()
    assert not [name for name in get_args(Capability) if f'`"{name}"`' not in page]
