"""A report for which somebody waits ends in time, done or not."""

import time
from datetime import date, datetime

import pytest

from flask_bitmapist.analytics import (
    TimeLimitError,
    active_users,
    funnel,
    funnel_people,
    retention,
    time_limit,
    timeline,
    trend,
)

NOW = datetime(2026, 1, 2, 14, 32)
FAR = 2**27 - 1  # the largest id that is allowed by default


@pytest.fixture(autouse=True)
def marked(tracker):
    """A year of two events whose bitmaps are as long as can be."""
    with tracker.at(NOW):
        tracker.record([("far", FAR), ("near", 7)])
        yield


def test_a_report_that_takes_longer_ends_with_a_sentence():
    steps, year = ["far"] * 8, {"start": date(2025, 1, 2), "end": date(2026, 1, 2)}
    began = time.monotonic()
    told = "more than 0.001 seconds: ask for fewer periods"
    with time_limit(0.001), pytest.raises(TimeLimitError, match=told):
        funnel(steps, within=365, **year)
    assert time.monotonic() - began < 3


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
def test_every_report_looks_at_the_clock(ask):
    with time_limit(-1), pytest.raises(TimeLimitError):
        ask()
    ask()


def test_what_is_short_is_answered_whatever_the_time():
    assert trend("near", rolling=7).points[-1].users == 1  # the process knows that it is short
    with time_limit(-1):
        assert trend("near", rolling=7).points[-1].users == 1


def test_the_limit_ends_with_its_block():
    with time_limit(-1):
        pass
    assert trend("far").points[-1].users == 1
