"""Many ids, or moments, in one call: as each by itself, whatever holds them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import made_app
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist import analytics, mark_event, unmark_event
from flask_bitmapist.testing import record_marks

NOON = datetime(2026, 3, 14, 12, 30)
DAY = "trackist_e_2026-3-14"


@pytest.fixture
def context(app: Flask) -> Iterator[None]:
    with app.app_context():
        yield


def ids(redis: Any, key: str = DAY) -> list[int]:
    bitmap = np.frombuffer(redis.get(key) or b"", np.uint8)
    return [int(offset) for offset in np.flatnonzero(np.unpackbits(bitmap))]


@pytest.mark.parametrize("form", [list, set, iter, np.array, lambda listed: np.array(listed, "u2")])
def test_ids_come_in_any_collection(
    context: None, redis: Any, form: Callable[[list[int]], Any]
) -> None:
    mark_event("e", form([3, 1, 700]), now=NOON)
    assert ids(redis) == ids(redis, "trackist_e_2026-3") == [1, 3, 700]
    unmark_event("e", form([1, 3, 4]), now=NOON)
    assert ids(redis) == ids(redis, "trackist_e_W2026-11") == [700]


def test_an_array_may_change_after_the_call(context: None) -> None:
    array = np.array([1, 2, 3])
    with record_marks() as marks:
        mark_event("e", array)
        array[:] = 9
        assert marks == [("e", 1), ("e", 2), ("e", 3)]


def test_texts_may_be_in_an_array_too(context: None) -> None:
    mark_event("e", np.array(["ann", "bea"]), now=NOON)
    mark_event("e", np.array(["cid", "ann"], dtype=object), now=NOON)
    assert [*analytics.users("e", at=NOON)] == ["ann", "bea", "cid"]


@pytest.mark.parametrize("empty", [[], np.array([], int), np.array([]), iter(())])
def test_nothing_is_marked_for_nobody(context: None, redis: Any, empty: Any) -> None:
    mark_event("e", empty, now=NOON)
    assert redis.keys("*") == []


@pytest.mark.parametrize(
    "wrong",
    [
        np.array([1, -1]),
        np.array([1, 2**27]),
        np.array([1, 2**64 - 1], np.uint64),
        np.array([1.0]),
        np.array([True]),
        np.array([[1, 2]]),
        np.array(["ann", ""]),
        np.array([1, "ann"], dtype=object),
        [1, "ann"],
        ["ann", 1],
        [1, -1],
        [1, 2**27],
        [1, None],
        [1, True],
    ],
    ids=repr,
)
def test_one_wrong_id_marks_none_of_them(context: None, redis: Any, wrong: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        mark_event("e", wrong)
    assert redis.keys("*") == []


days = st.integers(0, 400)
times = st.tuples(days, st.integers(0, 24 * 60 - 1))


@given(
    st.lists(st.tuples(st.integers(0, 3_000), times), min_size=1, max_size=30),
    st.sampled_from(["list", "M8[s]", "M8[ns]", "M8[D]"]),
    st.booleans(),
    st.booleans(),
)
def test_many_moments_are_as_each_by_itself(
    context: None,
    redis: Any,
    marks: list[tuple[int, tuple[int, int]]],
    form: str,
    in_array: bool,
    hourly: bool,
) -> None:
    who = [id_ for id_, _ in marks]
    moments: Any = [
        datetime(2025, 1, 1) + timedelta(days=day, minutes=minute) for _, (day, minute) in marks
    ]
    if form != "list":
        moments = np.array(moments, form)
    held = []
    for at_once in (True, False):
        redis.flushdb()
        if at_once:
            mark_event("e", np.array(who) if in_array else who, now=moments, track_hourly=hourly)
        else:
            each = moments if form == "list" else moments.astype("M8[us]").tolist()
            for id_, moment in zip(who, each, strict=True):
                mark_event("e", id_, now=moment, track_hourly=hourly)
        held.append({key: ids(redis, key) for key in sorted(redis.scan_iter("trackist_*"))})
    assert held[0] == held[1]


@pytest.mark.parametrize("form", [list, np.array])
def test_moments_that_the_clocks_skip_are_those_that_they_show(
    redis_url: str, tmp_path: Path, redis: Any, form: Callable[[Any], Any]
) -> None:
    app = made_app(redis_url, tmp_path, BITMAPIST_TIMEZONE="Africa/Cairo")
    with app.app_context():
        skipped = datetime(2025, 4, 25, 0, 30)  # midnight to one
        mark_event("e", [1, 2], now=form([skipped, skipped.replace(hour=5)]), track_hourly=True)
    assert ids(redis, "trackist_e_2025-4-25-1") == [1]
    assert ids(redis, "trackist_e_2025-4-25-5") == [2]


def test_moments_may_be_aware_or_dates(context: None, redis: Any) -> None:
    mark_event("e", [1, 2], now=[date(2026, 3, 14), datetime(2026, 3, 14, 23, 59, tzinfo=UTC)])
    assert ids(redis) == [1, 2]


@pytest.mark.parametrize(
    "moments",
    [
        [NOON],
        [NOON, NOON, NOON],
        np.array([NOON], "M8[s]"),
        [NOON, None],
        [NOON, "2026-03-14"],
        np.array([NOON, "NaT"], "M8[s]"),
        np.array(["0001-01-01", "9999-01-01"], "M8[s]"),
        np.array([10**9, 2 * 10**9], "M8[Y]"),
        np.array([1.0, 2.0]),
        "ab",
        7,
    ],
    ids=repr,
)
def test_moments_that_cannot_be_used_are_an_error_before_any_io(
    context: None, redis: Any, moments: Any
) -> None:
    for who in ([1, 2], np.array([1, 2])):
        with pytest.raises((TypeError, ValueError)):
            mark_event("e", who, now=moments)
    assert redis.keys("*") == []


def test_a_test_sees_each_moment(context: None) -> None:
    later = NOON + timedelta(hours=3)
    with record_marks() as marks:
        mark_event("e", np.array([1, 2]), now=np.array([NOON, later], "M8[m]"))
        assert marks == [("e", 1, True, True, NOON), ("e", 2, True, True, later)]


def test_whoever_has_no_array_loads_no_numpy(redis_url: str) -> None:
    script = """
import sys
from datetime import datetime
from flask import Flask
from flask_bitmapist import FlaskBitmapist, mark_event
app = Flask("many", instance_path="/nowhere")
FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": sys.argv[1]})
with app.app_context():
    mark_event("loads", range(5_000), now=[datetime(2026, 3, 14)] * 5_000)
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script, redis_url], check=True)
