"""users, count and contains: who is in a segment, under the ids that the application knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import bitmapist
import numpy as np
import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist import FlaskBitmapist, mark_event, mark_unique
from flask_bitmapist.analytics import contains, count, users
from flask_bitmapist.ids import TextKey, UnusableIdError
from flask_bitmapist.marks import Mark
from flask_bitmapist.periods import Grain
from flask_bitmapist.reading import bitmaps
from flask_bitmapist.reading.segments import Event, Flag
from flask_bitmapist.tracker import Tracker

NOW = datetime(2026, 11, 23, 14, 32)  # a Monday
TODAY = NOW.date()
ANN, BOB, EVE = (UUID(int=n << 64 | 7) for n in (1, 2, 3))


pytestmark = pytest.mark.usefixtures("at_now")


@pytest.fixture
def mark(tracker: Tracker) -> Callable[..., None]:
    def mark(event: str, *ids: object, when: date = TODAY) -> None:
        tracker.record([Mark(event, id_, when=when) for id_ in ids])

    return mark


@pytest.fixture
def flag(tracker: Tracker) -> Callable[..., None]:
    def flag(name: str, *ids: object) -> None:
        tracker.record([Mark(name, id_, dated=False) for id_ in ids])

    return flag


@pytest.fixture
def always(redis_url: str, tmp_path: Path) -> Iterator[Tracker]:
    """A tracker that maps ints too."""
    app = Flask("always", instance_path=str(tmp_path / "always"))
    app.config.update(BITMAPIST_REDIS_URL=redis_url, BITMAPIST_ID_MAP="always")
    tracker = FlaskBitmapist(app).tracker_of(app)
    yield tracker
    tracker.redis.close()


def test_plain_ids_are_an_array_in_ascending_order(mark: Callable[..., None]) -> None:
    mark("web", 900_000, 3, 77)
    found = users("web")
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.intp
    assert found.tolist() == [3, 77, 900_000]


def test_mapped_ids_come_back_as_the_texts_that_were_marked(mark: Callable[..., None]) -> None:
    mark("web", EVE, "someone@example.org", ANN, (7, "de"))
    assert users("web") == [str(EVE), "someone@example.org", str(ANN), "7:de"]


def test_a_textual_key_that_reads_like_a_number_comes_back_as_text(
    mark: Callable[..., None],
) -> None:
    mark("web", TextKey("7"), TextKey("007"))
    assert users("web") == ["7", "007"]
    assert contains("web", "7")


def test_where_all_ids_are_mapped_ints_come_back_as_ints(always: Tracker) -> None:
    always.record([Mark("web", id_, when=TODAY) for id_ in (2**60, "42", "007", ANN, 5)])
    found = users("web", at=TODAY, tracker=always)
    assert found == [2**60, 42, "007", str(ANN), 5]
    assert all(contains("web", id_, at=TODAY, tracker=always) for id_ in [*found, ANN, "5"])


def test_a_segment_of_mapped_ids_combines_before_they_are_looked_up(
    mark: Callable[..., None], flag: Callable[..., None]
) -> None:
    mark("web", ANN, BOB)
    mark("mobile", EVE, BOB)
    flag("staff", BOB)
    assert users("web | mobile - flag:staff") == [str(ANN), str(BOB), str(EVE)]
    assert users("(web | mobile) - flag:staff") == [str(ANN), str(EVE)]
    assert count(Event("web") & Event("mobile")) == 1
    assert contains("web & mobile & flag:staff", BOB)
    assert not contains("web & mobile", ANN)


@pytest.mark.parametrize(
    ("by", "expected"), [("day", [1]), ("week", [1]), ("month", [1, 2, 3]), ("year", [1, 2, 3, 4])]
)
def test_users_are_those_of_the_period_that_contains_now(
    mark: Callable[..., None], by: Grain, expected: list[int]
) -> None:
    for id_, day in enumerate((TODAY, date(2026, 11, 22), date(2026, 11, 1), date(2026, 1, 31)), 1):
        mark("web", id_, when=day)
    mark("web", 9, when=date(2025, 12, 31))
    assert [*users("web", by=by)] == expected
    assert count("web", by=by) == len(expected)
    assert [id_ for id_ in range(10) if contains("web", id_, by=by)] == expected


def test_users_are_those_of_the_period_that_contains_at(mark: Callable[..., None]) -> None:
    mark("web", 1, when=date(1997, 1, 1))  # in the ISO week 1997-W01 that begins on 1996-12-30
    assert [*users("web", by="week", at=date(1996, 12, 30))] == [1]
    assert [*users("web", by="week", at=datetime(1997, 1, 5, 23))] == [1]
    assert not len(users("web", by="week", at=date(1996, 12, 29)))
    assert [*users("web", by="day", now=date(1997, 1, 1))] == [1]


def test_users_of_an_hour(tracker: Tracker) -> None:
    tracker.record([Mark("web", 1, when=NOW, hourly=True)])
    assert [*users("web", by="hour")] == [1]
    assert not len(users("web", by="hour", at=datetime(2026, 11, 23, 13)))


def test_bits_written_by_bitmapist_are_read(redis: Any, tracker: Tracker) -> None:
    bitmapist.mark_event("theirs", 12, system=redis, now=NOW)
    bitmapist.mark_unique("vip", 12, system=redis)
    assert [*users("theirs & flag:vip", tracker=tracker)] == [12]


def test_an_event_that_was_never_marked_has_nobody(tracker: Tracker) -> None:
    assert [*users("nothing")] == []
    assert count("nothing") == 0
    assert not contains("nothing", 7)
    assert not contains("nothing", ANN)


def test_with_strict_a_name_never_marked_is_an_error(mark: Callable[..., None]) -> None:
    mark("web", 1)
    assert count("web", strict=True) == 1
    for ask in (users, count, lambda text, strict: contains(text, 1, strict=strict)):
        with pytest.raises(ValueError, match="unknown events or flags: flag, wbe"):
            ask("web | wbe | flag:flag", strict=True)


def test_somebody_of_the_other_kind_of_ids_is_not_contained(mark: Callable[..., None]) -> None:
    mark("plain", 7)
    mark("mapped", ANN)
    assert contains("plain", "7")
    assert not contains("plain", ANN)
    assert not contains("mapped", 0)


@pytest.mark.parametrize("nobody", [-1, None, "", True, 1.5])
def test_what_identifies_nobody_is_an_error(mark: Callable[..., None], nobody: object) -> None:
    mark("web", 1)
    with pytest.raises(UnusableIdError):
        contains("web", nobody)


@pytest.mark.parametrize("beyond", [8, 2**32 - 1, 2**32, 2**70])
def test_an_id_beyond_every_bitmap_is_not_contained(mark: Callable[..., None], beyond: int) -> None:
    mark("web", 7)
    assert not contains("web", beyond)


def test_sets_of_different_kinds_of_ids_do_not_combine(mark: Callable[..., None]) -> None:
    mark("plain", 7)
    mark("mapped", ANN)
    for ask in (users, count):
        with pytest.raises(ValueError, match="'mapped' has mapped ids, 'plain' has plain ids"):
            ask("plain | mapped")
    with pytest.raises(ValueError, match="different kinds of ids do not combine"):
        contains("plain - mapped", 7)


def test_nonsense_is_an_error_that_says_what_is_allowed(tracker: Tracker) -> None:
    with pytest.raises(ValueError, match="by must be one of hour, day, week, month, year"):
        users("web", by="fortnight")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a name is missing"):
        count("web &")
    with pytest.raises(ValueError, match="end must be a date or datetime"):
        contains("web", 1, at="today")  # type: ignore[arg-type]


offsets = st.frozensets(st.integers(0, 700))


@given(web=offsets, mobile=offsets, staff=offsets, asked=st.integers(0, 800), small=st.booleans())
def test_users_count_and_contains_agree_with_sets(
    redis: Any,
    tracker: Tracker,
    monkeypatch: pytest.MonkeyPatch,
    web: frozenset[int],
    mobile: frozenset[int],
    staff: frozenset[int],
    asked: int,
    small: bool,
) -> None:
    redis.flushdb()
    for key, members in (
        ("web_2026-11-23", web),
        ("mobile_2026-11-23", mobile),
        ("staff_u", staff),
    ):
        pipeline = redis.pipeline()
        for offset in members:
            pipeline.setbit(f"trackist_{key}", offset, 1)
        pipeline.execute()
    with monkeypatch.context() as patch:
        if small:
            patch.setattr(bitmaps, "BUDGET", 0)
            patch.setattr(bitmaps, "_SLICE_UNIT", 16)
            patch.setattr(bitmaps, "_PART_WORDS", 1)
        expected = web | mobile - staff
        assert [*users("web | mobile - flag:staff", tracker=tracker)] == sorted(expected)
        assert count("web | mobile - flag:staff", tracker=tracker) == len(expected)
        found = contains("web | mobile - flag:staff", asked, tracker=tracker)
        assert found == (asked in expected)


def test_flags_alone_are_segments(flag: Callable[..., None]) -> None:
    flag("premium", 1, 2)
    assert [*users(Flag("premium"))] == [1, 2]


def test_an_unknown_name_is_told_with_the_nearest_ones_if_it_is_an_error(tracker: Tracker) -> None:
    mark_event("user:logged_in", 1)
    mark_event("user:logged_out", 1)
    mark_unique("premium", 1)
    typo = "user:logged_inn - flag:Premum"
    told = (
        r"Premum \(did you mean flag:premium\?\), "
        r"user:logged_inn \(did you mean user:logged_in or user:logged_out\?\)$"
    )
    asked: tuple[Callable[..., object], ...]
    asked = (count, users, lambda *args, **options: contains(args[0], 1, **options))
    for ask in asked:
        with pytest.raises(ValueError, match=told):
            ask(typo, strict=True)
    with pytest.raises(ValueError, match=r"flags: premium \(did you mean flag:premium\?\)"):
        count("premium", strict=True)
    with pytest.raises(ValueError, match="flags: something else$"):
        count('"something else"', strict=True)
    assert count(typo) == 0


def test_an_event_that_has_just_become_a_flag_too_is_known_as_both(tracker: Tracker) -> None:
    mark_event("paid", 1)
    assert count("paid", strict=True) == 1
    mark_unique("paid", 1)
    assert count("flag:paid", strict=True) == 1
