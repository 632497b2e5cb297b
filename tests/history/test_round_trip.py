"""What is exported and imported again gives equal bits, whatever made them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import bitmapist
import pytest
import redis as redis_py
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_bitmapist import swapping
from flask_bitmapist.ids import TextKey
from flask_bitmapist.maintenance.days import Days
from flask_bitmapist.maintenance.exporting import Export
from flask_bitmapist.maintenance.importing import Import
from flask_bitmapist.marks import Mark
from flask_bitmapist.tracker import Tracker

from .bits import bits_of

BEGIN = datetime(2024, 2, 20, 23)


def exported(tracker: Tracker, form: str = "csv", **options: Any) -> str:
    file = io.StringIO()
    Export(tracker, **options).write(file, form, lambda done: None)
    return file.getvalue()


def imported(tracker: Tracker, text: str, folder: Path, form: str = "csv") -> Any:
    file = folder / f"history.{form}"
    file.write_text(text)
    return Import(tracker, str(file), form, rejects=folder / "rejects.csv").run()


def lines(text: str) -> list[list[str]]:
    return [*csv.reader(io.StringIO(text))][1:]


marks = st.builds(
    Mark,
    event=st.sampled_from(["a", "b_c", 'd:é,"x']),
    id=st.integers(0, 70),
    value=st.sampled_from([True, True, True, False]),
    when=st.integers(0, 80 * 24).map(lambda hours: BEGIN + timedelta(hours=hours)),
    hourly=st.booleans(),
    unique=st.booleans(),
    exact=st.booleans(),
    choice=st.none(),
    kept=st.none(),
)
texts = st.builds(
    Mark,
    event=st.just("named"),
    id=st.sampled_from(["ada", "7", "a,b", 'quo"te', "line\nbreak", "ünï", "007"]).map(TextKey),
    when=st.integers(0, 40).map(lambda days: BEGIN + timedelta(days=days)),
    hourly=st.booleans(),
    space=st.just("spaced"),
    choice=st.none(),
    kept=st.none(),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    made=st.lists(marks | texts, min_size=1, max_size=30),
    gone=st.lists(st.integers(0, 10**6), max_size=6),
    packed=st.lists(st.integers(0, 10**6), max_size=4),
    form=st.sampled_from(["csv", "jsonl"]),
)
def test_equal_bits(
    made: list[Mark],
    gone: list[int],
    packed: list[int],
    form: str,
    redis_url: str,
    process: Callable[..., Tracker],
    redis: redis_py.Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(swapping, "TRUSTED", 0)
    redis.flushdb()
    tracker = process(redis_url)
    tracker.record(made)
    for number in gone:  # as if they had expired
        if keys := sorted(redis.scan_iter(match="trackist_*")):
            redis.delete(keys[number % len(keys)])
    swapping.announce(tracker.redis, date(2024, 12, 31))
    for number in packed:
        if keys := sorted(redis.scan_iter(match="trackist_*")):
            swapping.pack(tracker.redis, keys[number % len(keys)].decode())
    before = bits_of(tracker)
    text = exported(tracker, form)
    redis.flushdb()
    # Another application, which marks more than the one that was exported.
    other = process(redis_url, BITMAPIST_TRACK_HOURLY=True, BITMAPIST_TRACK_UNIQUE=True)
    done = imported(other, text, tmp_path, form)
    assert done.rejected == 0
    assert bits_of(process(redis_url)) == before


def test_a_mark_is_one_line_with_its_hour_if_there_is_one(tracker: Tracker) -> None:
    tracker.record([Mark("e", 1, when=BEGIN), Mark("e", 2, when=BEGIN, hourly=True)])
    assert lines(exported(tracker)) == [
        ["e", "hour", "2024-02-20T23:00", "2", "plain"],
        ["e", "day", "2024-02-20", "1", "plain"],
    ]


def test_weeks_and_months_whose_days_have_expired_are_lines_of_their_own(
    tracker: Tracker, redis: redis_py.Redis
) -> None:
    tracker.record([Mark("e", 1, when=BEGIN), Mark("flag", 3, dated=False)])
    redis.delete("trackist_e_2024-2-20")
    assert lines(exported(tracker)) == [
        ["e", "month only", "2024-02-01", "1", "plain"],
        ["e", "week only", "2024-02-19", "1", "plain"],
        ["flag", "unique", "", "3", "plain"],
    ]


def test_json_keeps_the_type_of_an_id(tracker: Tracker) -> None:
    tracker.record([Mark("e", 1, when=BEGIN), Mark("t", TextKey("1"), when=BEGIN)])
    told = [json.loads(line) for line in exported(tracker, "jsonl").splitlines()]
    assert [(line["id"], line["kind"]) for line in told] == [(1, "plain"), ("1", "mapped")]


def test_only_the_events_and_days_that_are_asked_for(tracker: Tracker) -> None:
    tracker.record([Mark("e", 1, when=BEGIN + timedelta(days=n)) for n in range(20)])
    tracker.record([Mark("other", 1, when=BEGIN), Mark("flag", 3, dated=False)])
    days = Days(date(2024, 2, 27), date(2024, 3, 2))
    text = exported(tracker, events=["e"], days=days)
    assert [line[1:3] for line in lines(text)] == [
        ["day", str(date(2024, 2, 27) + timedelta(days=n))] for n in range(5)
    ]
    assert len(lines(exported(tracker, days=days))) == 5
    with pytest.raises(ValueError, match="did you mean other"):
        exported(tracker, events=["othr"])


def test_what_bitmapist_has_marked_is_exported_too(tracker: Tracker, redis: Any) -> None:
    bitmapist.mark_event("theirs", 5, system=redis, now=BEGIN)
    bitmapist.mark_unique("their:flag", 6, system=redis)
    assert [line[:4] for line in lines(exported(tracker))] == [
        ["their:flag", "unique", "", "6"],
        ["theirs", "day", "2024-02-20", "5"],
    ]


def test_dimensions_stay_dimensions(
    tracker: Tracker, tmp_path: Path, process: Callable[..., Tracker], server: Any
) -> None:
    choices = [(1, "free"), (2, "pro"), (3, "a = b"), (4, "other"), (5, "free")]
    tracker.record(Mark("user:plan", who, dated=False, choice=value) for who, value in choices)
    text = exported(tracker)
    assert ["user:plan=a = b", "value", "", "3", "plain"] in lines(text)

    other = process(server.fresh_database())
    other.record(Mark("user:plan", who, dated=False, choice="gold") for who in (5, 6))
    assert imported(other, text, tmp_path).marked == 5
    bits = {key[14:-2].partition("=")[2]: who for key, who in bits_of(other).items()}
    assert other.reader.known().dimensions["user:plan"][0] == "gold"
    assert {value: who for value, who in bits.items() if who} == {
        "free": {1, 5},
        "pro": {2},
        "a = b": {3},
        "other": {4},
        "gold": {6},
    }
    wrong = "event,granularity,start,id,kind\nuser:plan,value,,7,plain\n"
    assert imported(other, wrong, tmp_path).rejected == 1
