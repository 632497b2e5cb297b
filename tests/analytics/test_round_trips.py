"""No report takes more than four round trips, whatever it is asked and whoever has marked it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import product
from typing import Any

import pytest

from flask_bitmapist import analytics
from flask_bitmapist.analytics import people_behind
from flask_bitmapist.dimensions import DIMENSIONS
from flask_bitmapist.marks import Mark
from flask_bitmapist.periods import Grain, Period
from flask_bitmapist.reading import bitmaps
from flask_bitmapist.tracker import Tracker

from .every_report import NOW, every_report

IDS = (1, 2, 3)
PLANS = ("free", "pro")
REPORTS: dict[str, Callable[..., object]] = {
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
    "changes": lambda event, where, **asked: analytics.changes(where=both(event, where), **asked),
    "people": lambda event, **asked: analytics.people(event, rolling=2, **asked),
    "users": lambda event, where, **asked: analytics.users(both(event, where), **asked),
    "count": lambda event, where, **asked: analytics.count(both(event, where), **asked),
    "contains": lambda event, where, **asked: analytics.contains(both(event, where), 1, **asked),
}
#: Those that take no breakdown.
WHOLE = {"active users", "time to convert", "conversion", "adoption", "churned", "overlap"}
WHOLE |= {"changes", "people", "users", "count", "contains"}
BREAKDOWNS = (None, "user:plan", ["flag:beta", "others"])
SEGMENTS = (
    None,
    "flag:beta",
    "did(seen, last 14 days) - did(others, ever)",
    "first(others, since 2026-11-01)",
    "seen - did(seen, last 3 hours)",
)


def both(event: str, where: str | None) -> str:
    return event if where is None else f"{event} & ({where})"


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


@pytest.fixture
def trips(
    marked: Tracker,
    stranger: Tracker,
    round_trips: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., dict[str, int]]:
    """The round trips of a report by what it was asked, in a process that has marked nothing."""
    # Bitmaps of any length count as long, so that their lengths are asked for.
    monkeypatch.setattr(bitmaps, "_MANY_BYTES", 0)
    stranger.redis.ping()

    def count(
        ask: Callable[..., object], events: tuple[str, ...], *, whole: bool, **asked: Any
    ) -> dict[str, int]:
        taken = {}
        breakdowns = BREAKDOWNS[:1] if whole else BREAKDOWNS
        for event, where, breakdown in product(events, SEGMENTS, breakdowns):
            more = {} if breakdown is None else {"breakdown": breakdown}
            round_trips.clear()
            ask(event, where=where, now=NOW, tracker=stranger, **more, **asked)
            taken[f"{event}, {where}, {breakdown}"] = len(round_trips)
        return taken

    return count


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_takes_at_most_four_round_trips(
    trips: Callable[..., dict[str, int]], report: str
) -> None:
    taken = trips(REPORTS[report], ("seen", "others", "never"), whole=report in WHOLE)
    assert {asked: n for asked, n in taken.items() if n > 4} == {}


@pytest.mark.parametrize("report", REPORTS)
def test_to_refuse_unknown_names_takes_no_more(
    trips: Callable[..., dict[str, int]], report: str
) -> None:
    taken = trips(REPORTS[report], ("seen", "others"), whole=report in WHOLE, strict=True)
    assert {asked: n for asked, n in taken.items() if n > 4} == {}


@pytest.mark.parametrize("report", every_report("seen"))
@pytest.mark.parametrize("strict", [False, True])
def test_the_people_behind_a_figure_take_no_more(
    trips: Callable[..., dict[str, int]], report: str, strict: bool
) -> None:
    def ask(event: str, *, where: str | None, tracker: Tracker, **more: Any) -> None:
        asked = every_report(event)[report]
        narrowed = "among" if report == "people" else "where"
        more[narrowed] = both(event, where) if narrowed in asked.fields else where
        people_behind(asked.question(**more), asked.figure, tracker=tracker)

    taken = trips(ask, ("seen", "others"), whole=True, strict=strict)
    assert {asked: n for asked, n in taken.items() if n > 4} == {}
