"""A report for which somebody waits ends in time, done or not."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import date, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from flask_bitmapist.analytics import (
    TimeLimitError,
    active_users,
    adoption,
    churned,
    compare,
    funnel,
    funnel_people,
    lifecycle,
    overlap,
    overview,
    retention,
    stickiness,
    time_limit,
    timeline,
    trend,
)
from flask_bitmapist.tracker import Tracker

NOW = datetime(2026, 1, 2, 14, 32)
FAR = 2**27 - 1  # the largest id that is allowed by default


@pytest.fixture(autouse=True)
def marked(tracker: Tracker) -> Iterator[None]:
    with tracker.at(NOW):
        tracker.record([("near", 7), ("other", 7)])
        yield


@pytest.fixture
def marked_far(tracker: Tracker) -> None:
    """An event whose bitmaps are as long as can be."""
    tracker.record([("far", FAR)])


def test_a_report_that_takes_longer_ends_with_a_sentence(marked_far: None, redis: Any) -> None:
    def read() -> int:
        octets: int = redis.info("stats")["total_net_output_bytes"]
        return octets

    steps, first, last = ["far", "near"] * 4, date(2025, 1, 2), date(2026, 1, 2)
    began, told = read(), "longer than 0.001 seconds: ask for fewer periods"
    with time_limit(0.001), pytest.raises(TimeLimitError, match=told):
        funnel(steps, within=365, start=first, end=last)
    ended = read()
    funnel(steps, within=365, start=first, end=last)
    assert ended - began < (read() - ended) / 2


@pytest.mark.parametrize(
    "ask",
    [
        lambda: trend("far"),
        lambda: active_users("far"),
        lambda: retention("far", "near"),
        lambda: funnel_people(["far", "near"], 0),
        lambda: timeline(7),
    ],
)
def test_every_report_looks_at_the_clock(marked_far: None, ask: Callable[[], object]) -> None:
    with time_limit(-1), pytest.raises(TimeLimitError):
        ask()
    ask()


def test_what_is_short_is_answered_whatever_the_time() -> None:
    assert trend("near", rolling=7).points[-1].users == 1  # the process knows that it is short
    with time_limit(-1):
        assert trend("near", rolling=7).points[-1].users == 1


def test_the_limit_ends_with_its_block(marked_far: None) -> None:
    with time_limit(-1):
        pass
    assert trend("far").points[-1].users == 1


# Many short bitmaps: the clock is looked at once in a thousand small steps


MANY = [f"event:{n:03}" for n in range(80)]
LONG_AGO = date(2023, 5, 1)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: overlap(MANY),
        lambda: retention("near", "near", "day", 99, LONG_AGO, mode="streak", members="every"),
        lambda: retention("near", "near", "day", 99, LONG_AGO, members="first"),
        lambda: trend("near", "day", LONG_AGO, rolling=7),
        lambda: trend("near", "day", date(2025, 12, 1), rolling=999),
        lambda: lifecycle("near", "day", LONG_AGO),
        lambda: stickiness("near", within=1000),
        # 840 sets are made, and 840 times users move on: neither alone makes a thousand.
        lambda: funnel(["near", "other"] * 3, start=date(2025, 8, 16)),
        lambda: funnel(["near", "other"] * 2, start=LONG_AGO, within=30),
        lambda: funnel(["near", "other"], start=LONG_AGO, order="any", within=30),
        lambda: adoption("near", "near", start=LONG_AGO),
        lambda: churned("near", 7, start=LONG_AGO),
        lambda: compare(MANY, "near"),
        lambda: overview(events=MANY, flags=()),
    ],
)
def test_many_small_steps_look_at_the_clock_too(
    tracker: Tracker, ask: Callable[[], object]
) -> None:
    tracker.record((event, 7) for event in MANY)
    ask()  # the process knows now that all of it is short
    with time_limit(-1), pytest.raises(TimeLimitError):
        ask()


def test_between_two_looks_there_are_a_thousand_small_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: next(looks) and 0.0)
    with time_limit(60):
        # Not everybody's: a thread of another test may look at it too.
        monkeypatch.setattr("flask_bitmapist.reading.time_limit.time", clock)
        overlap([f"never:{n}" for n in range(300)])
    # 45,150 pairs, and 300 sets
    assert 40 <= next(looks) <= 60
