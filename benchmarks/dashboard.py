"""What the dashboard's pages take: the first answer, and the one that is complete.

    python benchmarks/dashboard.py [EVENTS [USERS]]      default: 200 events, 1 million users

Every event has a year of months, 30 days and the current week, at shares of users from 20 % down;
five have four months of days, among them the one that tells who is active, which has their weeks
too. Each user has one of four values of a dimension. The server is a local one. Times
are the median of several rounds, to the last byte, without a browser's own work. Rounds are
interleaved, and the last column is the ratio to a table of retention in the same round: compare
that, since the milliseconds change from one minute to the next.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from datetime import timedelta
from operator import truediv
from pathlib import Path
from typing import Any

import numpy as np
from flask import Flask

from flask_bitmapist import FlaskBitmapist, chart, mark_dimension
from flask_bitmapist.periods import Period
from flask_bitmapist.tracker import Tracker

ROUNDS = 5
#: The page beside which the others are measured.
COMPARED = "retention, 30 x 30 days"
#: The events with four months of days.
FIVE = ["user:logged_in", *(f"event:{number}" for number in range(1, 5))]
TRENDS = "trends?over=last+90+days&" + "&".join(f"event={event}" for event in FIVE)
PAGES = {
    "overview, first answer": "",
    "overview, complete": "?complete=1",
    "overview, complete, sorted by year": "?complete=1&sort=year",
    "retention, 12 weeks": "cohort?cohort=user:logged_in&returned=user:logged_in",
    "retention, 30 x 30 days": "cohort?by=day&rows=30&periods=29&members=every",
    "retention, 30 x 30 days, by 4 values": (
        "cohort?by=day&rows=30&periods=29&members=every&breakdown=user:plan"
    ),
    "retention, 30 x 30 days, and before": (
        "cohort?by=day&rows=30&periods=29&members=every&previous=yes"
    ),
    "trends, 5 events x 90 days": TRENDS,
    "trends, 5 events x 90 days, by 4 values": f"{TRENDS}&breakdown=user:plan",
    "lifecycle, 12 weeks": "lifecycle?rows=12",
    "lifecycle, 12 weeks, by 4 values": "lifecycle?rows=12&breakdown=user:plan",
    "stickiness, 28 days": "stickiness",
    "changes, 28 days, 200 events": "changes?over=last+28+days",
    "changes, 28 days, of a segment": (
        "changes?over=last+28+days&where=flag:%22user:plan%3Dplan+1%22"
    ),
    "funnel, 30 days, 3 steps": "funnel?step=event:1&step=event:2&step=event:3",
    "board of 8 charts": "boards?board=Benchmark",
    "people of 28 days": "people?rows=28",
    "person, a year": "person?id=77777",
}
#: A chart of each report, as far as they fit.
CHARTS = [
    chart("Active", "active_users", event="user:logged_in", rows=90),
    chart("Where from", "lifecycle", event="user:logged_in", by="week"),
    chart("Who stays", "retention", cohort="user:logged_in", returned="user:logged_in"),
    chart("How far", "funnel", steps=["event:1", "event:2", "event:3"]),
    chart("Who uses it", "adoption", feature="event:4", active="user:logged_in"),
    chart("How often", "stickiness", event="user:logged_in"),
    chart("How many", "trend", event="event:5", where="user:logged_in - event:6"),
    chart("Who left", "churned", event="user:logged_in", by="week", silent=4),
]


def fill(tracker: Tracker, events: int, users: int) -> None:
    random = np.random.default_rng(1)
    today = Period.containing("day", tracker.now())
    names = ["user:logged_in", *(f"event:{number}" for number in range(1, events))]
    a_year_ago = today.start - timedelta(days=364)
    tracker.record([(name, 1, True, True, a_year_ago) for name in names])
    for number, name in enumerate(names):
        days = [today.shift(-back) for back in range(120 if name in FIVE else 30)]
        weeks = [
            Period.containing("week", today.start).shift(-b)
            for b in range(16 if number == 0 else 1)
        ]
        months = [Period.containing("month", today.start).shift(-back) for back in range(12)]
        # Random bytes are half full; each AND with others halves that.
        share = max(1, int(np.log2(number + 4)))
        pipe = tracker.redis.pipeline(transaction=False)
        for period in (*days, *weeks, *months):
            bits = random.integers(0, 256, users // 8, np.uint8)
            for _ in range(share):
                bits &= random.integers(0, 256, users // 8, np.uint8)
            pipe.set(period.key(name), bits.tobytes())
        pipe.execute()


def give_plans(users: int) -> None:
    """Each user has one of four values of a dimension."""
    plan = np.random.default_rng(2).integers(0, 4, users)
    for number in range(4):
        mark_dimension("user:plan", np.flatnonzero(plan == number), f"plan {number}")


def main() -> None:
    given = [*map(int, sys.argv[1:])]
    events, users = [*given, *(200, 1_000_000)[len(given) :]]
    with tempfile.TemporaryDirectory() as folder:
        app = Flask("benchmark", instance_path=folder)
        app.testing = True
        bitmapist = FlaskBitmapist(
            app,
            {
                "BITMAPIST_REDIS_URL": f"embedded://{Path(folder) / 'server'}",
                "BITMAPIST_ENABLED": True,
            },
        )
        bitmapist.board("Benchmark", CHARTS)
        with app.app_context():
            fill(bitmapist.tracker, events, users)
            give_plans(users)
        client: Any = app.test_client()
        print(f"{events} events, {users:,} users")
        times: dict[str, list[float]] = {name: [] for name in PAGES}
        sizes: dict[str, int] = {}
        for _ in range(ROUNDS):
            for name, page in PAGES.items():
                began = time.perf_counter()
                answer = client.get(f"/bitmapist/{page}")
                times[name].append(time.perf_counter() - began)
                assert answer.status_code == 200, answer.text
                sizes[name] = len(answer.data)
        for name in PAGES:
            took = statistics.median(times[name]) * 1e3
            ratio = statistics.median(map(truediv, times[name], times[COMPARED]))
            print(f"{name:40} {took:9.1f} ms {sizes[name] / 1e3:9.1f} kB   x{ratio:.2f}")


if __name__ == "__main__":
    main()
