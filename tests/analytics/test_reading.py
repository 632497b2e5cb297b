"""Reports only read, in few round trips, in bounded slices, and never what does not combine."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest

from flask_bitmapist.analytics import (
    active_users,
    adoption,
    churned,
    compare,
    contains,
    count,
    funnel,
    lifecycle,
    overlap,
    retention,
    stickiness,
    timeline,
    trend,
    users,
)
from flask_bitmapist.analytics._report import Users, periods_of
from flask_bitmapist.marks import Mark
from flask_bitmapist.reading import bitmaps
from flask_bitmapist.reading.bitmap import Bitmap, union
from flask_bitmapist.reading.bitmaps import around, sliding_sizes, sliding_unions, tally
from flask_bitmapist.tracker import Tracker

NOW = datetime(2026, 11, 23, 14, 32)
READING = {
    *("get", "getrange", "mget", "strlen", "exists"),
    *("hmget", "hgetall", "bitpos", "hget", "lrange", "scan", "zmscore", "zrange"),
}

#: Each with all that can cost it a round trip; {user} is one of those who did a and b.
REPORTS: dict[str, Callable[..., Any]] = {
    "adoption": lambda user, **at: adoption("a", "b", "week", where="flag:vip", **at),
    "churned": lambda user, **at: churned("a", 3, "day", where="flag:vip", **at),
    "compare": lambda user, **at: compare(["flag:vip", "b"], "a", **at),
    "contains": lambda user, **at: contains("a & b | flag:vip", user, "month", **at),
    "count": lambda user, **at: count("a & b | flag:vip", "year", **at),
    "funnel": lambda user, **at: funnel(["a", "b", "a"], within=5, where="flag:vip", **at),
    "funnel, any order": lambda user, **at: funnel(["a", "b"], order="any", **at),
    "overlap": lambda user, **at: overlap(["a", "b", "flag:vip"], "month", **at),
    "lifecycle": lambda user, **at: lifecycle("a", "week", where="flag:vip", **at),
    "retention": lambda user, **at: retention("a", "b", "day", where="flag:vip", **at),
    "retention, every": lambda user, **at: retention("a", "b", members="every", **at),
    "stickiness": lambda user, **at: stickiness("a", where="flag:vip", **at),
    "trend": lambda user, **at: trend("a", where="b", **at),
    "active users": lambda user, **at: active_users("a", where="b", **at),
    "timeline": lambda user, **at: timeline(user, **at),
    "trend, in ranges": lambda user, **at: trend(
        "did(a, ever)", where="first(b, last month) | did(a, at least 2 days of this month)", **at
    ),
    "retention, in ranges": lambda user, **at: retention(
        "a", "b", where="flag:vip - did(b, ever)", **at
    ),
    "users": lambda user, **at: users("a & b", "month", **at),
}


@pytest.mark.parametrize("now", [date.max, date.min, datetime.min.replace(tzinfo=UTC)])
@pytest.mark.parametrize("report", REPORTS)
def test_a_report_at_the_end_of_the_calendar_is_refused_with_a_sentence(
    tracker: Tracker, report: str, now: date
) -> None:
    with pytest.raises(ValueError, match="now must be in the years 1001 to 8998"):
        REPORTS[report](1, now=now, tracker=tracker)


@pytest.mark.parametrize("ids", [[1, 70, 900], [UUID(int=n << 64) for n in range(3)]], ids=type)
@pytest.mark.parametrize("report", REPORTS)
def test_a_report_reads_in_at_most_four_round_trips(
    redis: Any,
    tracker: Tracker,
    stranger: Tracker,
    round_trips: list[object],
    ids: list[object],
    report: str,
) -> None:
    days = [date(2026, 11, day) for day in (1, 12, 20, 23)]
    tracker.record([Mark(event, id_, when=day) for event in "ab" for id_ in ids for day in days])
    tracker.record([Mark("vip", ids[0], dated=False)])
    stranger.redis.ping()
    redis.config_resetstat()
    round_trips.clear()
    REPORTS[report](ids[0], now=NOW, tracker=stranger)
    assert 1 <= len(round_trips) <= 4
    assert commands_since_reset(redis) <= READING


@pytest.mark.parametrize("report", REPORTS)
def test_so_does_one_of_many_users_whose_events_nobody_has_registered(
    redis: Any, tracker: Tracker, stranger: Tracker, round_trips: list[object], report: str
) -> None:
    days = [date(2026, 10, 3), date(2026, 11, 20), date(2026, 11, 23)]
    ids = [1, 2, 5_000_000]
    tracker.record([Mark(event, id_, when=day) for event in "ab" for id_ in ids for day in days])
    tracker.record([Mark("vip", 1, dated=False)])
    redis.delete(*redis.keys("flask_bitmapist:*"))
    tracker.record([Mark(name, UUID(int=1), space=name, when=NOW) for name in ("rows", "others")])
    stranger.redis.ping()
    round_trips.clear()
    REPORTS[report](1, now=NOW, tracker=stranger)
    assert 1 <= len(round_trips) <= 4


def commands_since_reset(redis: Any) -> set[str]:
    names = {name.removeprefix("cmdstat_") for name in redis.info("commandstats")}
    return names - {"config|resetstat"}


def test_the_kind_of_a_single_event_is_asked_for_once_a_process(
    redis: Any, tracker: Tracker, stranger: Tracker
) -> None:
    tracker.record([Mark("a", 1, when=NOW)])
    trend("a", now=NOW, tracker=stranger)  # compares the time zone in the same round trip
    for asked in (tracker, stranger):
        redis.config_resetstat()
        trend("a", now=NOW, tracker=asked)
        assert "hmget" not in commands_since_reset(redis)


def test_events_of_different_kinds_do_not_combine_in_any_report(
    tracker: Tracker, stranger: Tracker
) -> None:
    tracker.record([Mark("a", 1, when=NOW), Mark("b", UUID(int=1 << 64), when=NOW)])
    told = "'a' has plain ids, 'b' has mapped ids"
    for one in (tracker, stranger):
        asked = periods_of("day", None, None, NOW, one)
        with pytest.raises(ValueError, match=told):
            trend("a", where="b", now=NOW, tracker=one)
        with pytest.raises(ValueError, match=told):
            Users.of("a - b", None, asked)
        with pytest.raises(ValueError, match=told):
            Users.each(("a", None), ("b", None), asked=asked)
        assert len(Users.each(("a", None), ("never", None), asked=asked)) == 2


def test_events_of_different_id_maps_do_not_combine(tracker: Tracker, stranger: Tracker) -> None:
    tracker.record([Mark("a", "x", when=NOW), Mark("b", "x", when=NOW, space="rows")])
    for one in (tracker, stranger):
        asked = periods_of("day", None, None, NOW, one)
        with pytest.raises(ValueError, match="'a' has mapped ids, 'b' has mapped:rows ids"):
            Users.of("a | b", None, asked)


def test_the_maps_of_all_events_are_told_at_once(
    tracker: Tracker, round_trips: list[object]
) -> None:
    tracker.record([Mark("a", 1), Mark("b", "x"), Mark("c", "x", space="rows")])
    tracker.redis.ping()
    round_trips.clear()
    events, *_ = tracker.reader.known(scanned=False)
    assert {name: since.kind for name, since in events.items()} == {
        "a": "plain",
        "b": "mapped",
        "c": "mapped:rows",
    }
    assert len(round_trips) == 1


# The bitmaps that reports share


def bitmap(*offsets: int) -> Bitmap:
    value = bytearray(max(offsets, default=-1) // 8 + 1)
    for offset in offsets:
        value[offset // 8] |= 128 >> offset % 8
    return Bitmap.from_bytes(bytes(value))


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 20])
def test_a_sliding_union_holds_each_set_and_those_that_follow(width: int) -> None:
    sets = [bitmap(n, 100 * n) for n in range(7)]
    unions = sliding_unions(sets, width)
    assert unions == [union(sets[i : i + width]) for i in range(7)]


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_sliding_unions_of_unions_are_wider_unions(size: int) -> None:
    sets = [bitmap(n, 100 * n) if n % 3 else bitmap() for n in range(20)]
    narrow = sliding_unions(sets, size)
    assert sliding_unions(narrow, 9, size) == sliding_unions(sets, 9)
    assert narrow == [union(sets[i : i + size]) for i in range(20)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("number", [1, 5, 13])
def test_sliding_unions_are_counted_for_each_width(packed: bool, number: int) -> None:
    sets = [bitmap(640 + n, 100 * n, 7 * n) if n % 3 else bitmap() for n in range(20)]
    sets = [users.part(9, 40) for users in sets]
    expected = [
        len(union(sets[end - width : end])) for width in (1, 3, 8) for end in range(21 - number, 21)
    ]
    if packed:
        pytest.importorskip("pyroaring")
        from flask_bitmapist.reading.packed import Packed

        sets[2:5] = map(Packed.of, sets[2:5])
    assert sliding_sizes(sets, [1, 3, 8], number) == expected
    assert sliding_sizes([bitmap()] * 3, [1, 2], 2) == [0] * 4


def test_a_sliding_union_of_nothing_is_nothing() -> None:
    assert sliding_unions([], 3) == []


def test_bits_around_an_offset_are_read_in_one_byte_a_key(
    redis: Any, round_trips: list[object]
) -> None:
    for offset in (3, 8, 15):
        redis.setbit("x", offset, 1)
    round_trips.clear()
    found = around(redis, ["x", "missing", "x"], 12)
    assert len(round_trips) == 1
    assert (found.first_offset, found["x"].ids().tolist()) == (8, [0, 7])
    assert not found["missing"]


@pytest.mark.parametrize("budget", [0, 2**30])
def test_a_tally_counts_every_offset_once_in_parts_that_fit_the_cache(
    redis: Any, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    offsets = [0, 63, 64, 127, 128, 129, 1000]
    for offset in offsets:
        redis.setbit("long", offset, 1)
    redis.setbit("short", 64, 1)
    monkeypatch.setattr(bitmaps, "BUDGET", budget)
    monkeypatch.setattr(bitmaps, "_SLICE_UNIT", 32)
    monkeypatch.setattr(bitmaps, "_PART_WORDS", 1)
    seen: list[int] = []

    def count_both(part: bitmaps.Bitmaps) -> list[int]:
        assert max(part[key].words.size for key in ("long", "short", "none")) <= 1
        seen.extend(part["long"].ids() + part.first_offset)
        return [len(part["long"]), len(part["long"] - part["short"])]

    assert tally(redis, ["long", "short", "none"], count_both) == [7, 6]
    assert seen == offsets
