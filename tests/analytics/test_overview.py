"""The events of the busiest year: the right ones in the right order, without reading all."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

import pytest

from flask_bitmapist.analytics import overview
from flask_bitmapist.analytics._overview import busiest_of_year
from flask_bitmapist.marks import Mark
from flask_bitmapist.tracker import Tracker

NOW = datetime(2026, 11, 23, 14, 32)
EVENTS = [f"event {n:02}" for n in range(40)]


@pytest.fixture
def marked(tracker: Tracker) -> Iterator[None]:
    """Some events are done by many in one month, others by the same few in each."""
    chance = random.Random(5)
    with tracker.at(NOW):
        tracker.record(
            Mark(event, user, when=date(2026, month, 2))
            for n, event in enumerate(EVENTS)
            for month in chance.sample(range(1, 12), chance.randint(1, 6))
            for user in range(chance.randint(0, 2) * (n % 7 + 1))
        )
        yield


@pytest.mark.parametrize("ranks", [slice(0, 1), slice(0, 10), slice(10, 20), slice(35, 99)])
def test_the_busiest_events_of_the_year_are_those_of_the_whole_overview(
    marked: None, tracker: Tracker, ranks: slice
) -> None:
    whole = overview(events=EVENTS, flags=(), tracker=tracker).events
    by_year = sorted(whole, key=lambda one: -(one.year or 0))
    assert busiest_of_year(EVENTS, ranks, tracker=tracker) == tuple(by_year[ranks])


@pytest.mark.parametrize("ranks", [slice(0, 3), slice(3, 6), slice(6, 9)])
def test_events_of_equal_rank_keep_their_order_whatever_their_months_tell(
    tracker: Tracker, ranks: slice
) -> None:
    def marks() -> Iterator[Mark]:
        for n, event in enumerate(EVENTS[:8]):
            # All have two users: in one month, in two, the same ones in each, this year or later.
            months = [(2, 3), (2, 3, 10, 11), (10,), (11,), (12,), (1, 11), (5, 12), (11, 12)][n]
            for month in months:
                yield from (Mark(event, user, when=date(2026, month, 1)) for user in (n, 99))
        # Their months have more than the year, and those of the last of them less than its room.
        yield from (Mark(EVENTS[9], 5, when=date(2026, month, 1)) for month in range(1, 13))
        yield Mark(EVENTS[10], 9_999, when=NOW)

    with tracker.at(NOW):
        tracker.record(marks())
        first = busiest_of_year(EVENTS, ranks, tracker=tracker)
    expected = [*EVENTS[:8], EVENTS[9]][ranks]
    assert [one.event for one in first] == expected
    assert [one.year for one in first] == [*[2] * 8, 1][ranks]


def test_events_without_users_are_the_last(tracker: Tracker) -> None:
    with tracker.at(NOW):
        tracker.record([Mark(EVENTS[7], 1, when=NOW)])
        tracker.record([Mark(EVENTS[5], 1, when=date(2025, 12, 31))])
        first = busiest_of_year(EVENTS, slice(0, 3), tracker=tracker)
        assert busiest_of_year([], slice(0, 3), tracker=tracker) == ()
        assert busiest_of_year(EVENTS[:2], slice(2, 4), tracker=tracker) == ()
    assert [(one.event, one.year) for one in first] == [
        (EVENTS[7], 1),
        (EVENTS[0], 0),
        (EVENTS[1], 0),
    ]


def test_events_that_cannot_be_among_the_busiest_are_not_read(tracker: Tracker, redis: Any) -> None:
    with tracker.at(NOW):
        tracker.record(Mark(event, n, when=NOW) for event in EVENTS[:3] for n in range(99))
        tracker.record(Mark(event, 7, when=NOW) for event in EVENTS)
        tracker.reader.known()  # it tells what is packed, too
        redis.config_resetstat()
        first = busiest_of_year(EVENTS, slice(0, 3), tracker=tracker)
    assert [(one.event, one.year) for one in first] == [(event, 99) for event in EVENTS[:3]]
    stats = redis.info("commandstats")
    read = sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("get", "getrange"))
    assert read <= 3


def test_events_with_no_room_for_as_many_users_are_neither_counted_nor_read(
    tracker: Tracker, redis: Any
) -> None:
    busy = EVENTS[:3]

    def commands(events: list[str]) -> dict[str, int]:
        redis.config_resetstat()
        assert [one.event for one in busiest_of_year(events, slice(0, 3), tracker=tracker)] == busy
        stats = redis.info("commandstats")
        named = ("bitcount", "get", "getrange", "mget")
        return {name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in named}

    with tracker.at(NOW):
        tracker.record(Mark(event, n, when=NOW) for event in busy for n in range(99))
        # In 64 offsets there is no room for 99 users.
        tracker.record(Mark(event, n, when=NOW) for event in EVENTS[3:] for n in range(60))
        tracker.reader.known()  # it tells what is packed, too
        assert commands(EVENTS) == commands(EVENTS[:4])
