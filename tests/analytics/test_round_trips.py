"""No report takes more than four round trips, whatever it is asked and whoever has marked it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import product

import pytest

from flask_bitmapist import analytics
from flask_bitmapist.dimensions import DIMENSIONS
from flask_bitmapist.marks import Mark
from flask_bitmapist.periods import Grain, Period
from flask_bitmapist.reading import bitmaps
from flask_bitmapist.tracker import Tracker

NOW = datetime(2026, 11, 23, 14, 32)
IDS = (1, 2, 3)
PLANS = ("free", "pro")
REPORTS: dict[str, Callable[..., analytics.Report]] = {
    "trend": lambda event, **asked: analytics.trend(event, rolling=2, **asked),
    "trend of single days": lambda event, **asked: analytics.trend(event, **asked),
    "trends": lambda event, **asked: analytics.trends([event, "seen"], previous=True, **asked),
    "trends of the active": lambda event, **asked: analytics.trends(
        [event, "seen"], active="seen", **asked
    ),
    "active users": lambda event, **asked: analytics.active_users(event, **asked),
    "retention": lambda event, **asked: analytics.retention(
        event, "seen", "day", previous=True, **asked
    ),
    "retention of everyone": lambda event, **asked: analytics.retention(
        event, "seen", "day", members="every", **asked
    ),
    "retention on or after": lambda event, **asked: analytics.retention(
        event, "seen", "day", mode="on_or_after", **asked
    ),
    "lifecycle": lambda event, **asked: analytics.lifecycle(event, previous=True, **asked),
    "stickiness": lambda event, **asked: analytics.stickiness(event, **asked),
    "funnel": lambda event, **asked: analytics.funnel(
        [event, "goal"], within=3, previous=True, **asked
    ),
    "compare": lambda event, **asked: analytics.compare([event, "flag:beta"], "seen", **asked),
    "time to convert": lambda event, **asked: analytics.time_to_convert([event, "goal"], **asked),
    "conversion": lambda event, **asked: analytics.conversion([event, "goal"], 3, **asked),
    "adoption": lambda event, **asked: analytics.adoption(event, "seen", **asked),
    "churned": lambda event, **asked: analytics.churned(event, 3, **asked),
    "overlap": lambda event, **asked: analytics.overlap([event, "seen"], **asked),
}
#: Those that take no breakdown.
WHOLE = (*("active users", "time to convert", "conversion", "adoption", "churned", "overlap"),)
BREAKDOWNS = (None, "user:plan", ["flag:beta", "others"])
SEGMENTS = (
    None,
    "flag:beta",
    "did(seen, last 14 days) - did(others, ever)",
    "first(others, since 2026-11-01)",
    "seen - did(seen, last 3 hours)",
)


@pytest.fixture
def marked(tracker: Tracker) -> Tracker:
    """Ours, and "others", which is registered nowhere, as bitmapist's marks are."""
    tracker.record([Mark("seen", id_, when=NOW, hourly=True) for id_ in IDS])
    tracker.record(
        [Mark(f"user:plan={plan}", id_, dated=False) for plan, id_ in zip(PLANS, IDS, strict=False)]
    )
    slots = {f"{number}:user:plan": plan for number, plan in enumerate(PLANS)}
    tracker.redis.hset(DIMENSIONS, mapping=slots)
    tracker.record([Mark("goal", id_, when=NOW) for id_ in IDS])
    tracker.record([Mark("beta", id_, dated=False) for id_ in IDS])
    grains: tuple[Grain, ...] = ("day", "week", "month")
    for days in (0, 3, 40):
        for by in grains:
            key = Period.containing(by, NOW - timedelta(days=days)).key("others")
            for id_ in IDS:
                tracker.redis.setbit(key, id_, 1)
    return tracker


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_takes_at_most_four_round_trips(
    marked: Tracker,
    stranger: Tracker,
    round_trips: list[object],
    monkeypatch: pytest.MonkeyPatch,
    report: str,
) -> None:
    # Bitmaps of any length count as long, so that their lengths are asked for.
    monkeypatch.setattr(bitmaps, "_MANY_BYTES", 0)
    breakdowns = BREAKDOWNS[:1] if report in WHOLE else BREAKDOWNS
    stranger.redis.ping()
    taken = {}
    for asked in product(("seen", "others", "never"), SEGMENTS, breakdowns):
        event, where, breakdown = asked
        more = {} if breakdown is None else {"breakdown": breakdown}
        round_trips.clear()
        REPORTS[report](event, where=where, now=NOW, tracker=stranger, **more)
        taken[str(asked)] = len(round_trips)
    assert {asked: trips for asked, trips in taken.items() if trips > 4} == {}
