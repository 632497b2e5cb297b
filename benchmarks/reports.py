"""What a report costs, as a ratio to bitmapist in the same run on the same server.

    python benchmarks/reports.py [USERS ...]      default: 10 thousand, 1 and 10 million

The cohort table has 31 rows and 13 columns, by day. *Spread*: each day's users are a random quarter
of all, whose bitmaps are full of bits; nothing can be left out. *New users*: the cohort are those
who signed up on the day, whose ids are consecutive; a random quarter of all returns on each day.
Both sides' cells are compared before anything is timed.

Rounds are interleaved, and each ratio is the median of the rounds', as a loopback round trip
changes by a factor of three from one minute to the next. What takes less than 20 ms is repeated
until it does: a processor that has waited for 1,241 replies is at first half as fast.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import bitmapist
import bitmapist.cohort
import numpy as np
from flask import Flask

from flask_bitmapist import FlaskBitmapist, analytics
from flask_bitmapist.reading.bitmap import PAIRED_WORDS

ROUNDS = 9
LEAST_SECONDS = 0.02
TODAY = datetime.now(UTC).date()
START = TODAY - timedelta(days=42)
ROWS, COLUMNS = 31, 13


def seconds(function: Callable[[], Any]) -> float:
    began, times = time.perf_counter(), 0
    while True:
        function()
        times += 1
        if (elapsed := time.perf_counter() - began) >= LEAST_SECONDS:
            return elapsed / times


def compare(name: str, theirs: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> None:
    ours()
    pairs = [(seconds(theirs), seconds(ours)) for _ in range(rounds)]
    their_time, our_time = (statistics.median(times) * 1e3 for times in zip(*pairs, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    print(
        f"{name:48} {their_time:9.2f} ms {our_time:9.3f} ms   x{statistics.median(ratios):.1f}"
        f"   ({ratios[0]:.1f} to {ratios[-1]:.1f})",
        flush=True,
    )


def fill(client: Any, users: int) -> None:
    random = np.random.default_rng(1)

    def write(event: str, day: Any, who: Any) -> None:
        key = bitmapist.DayEvents.from_date(event, day).redis_key
        client.set(key, np.packbits(who).tobytes())

    # The last fifth of them in the six weeks.
    bounds = np.linspace(users * 0.8, users, ROWS + COLUMNS, dtype=int)
    for back, (first, after) in enumerate(pairwise(bounds)):
        day = START + timedelta(days=back)
        for event, share in (("spread", 0.25), ("returned", 0.25), ("fifth", 0.2)):
            write(event, day, random.random(users, dtype=np.float32) < share)
        who = np.zeros(after, np.bool_)
        who[first:] = True
        write("signup", day, who)


def their_table(cohort: str) -> Any:
    return bitmapist.cohort.get_dates_data(
        cohort, "returned", time_group="days", as_percent=False, num_results=ROWS,
        num_of_rows=COLUMNS - 1, start_date=START.isoformat(),
    )  # fmt: skip


def our_table(cohort: str) -> analytics.Retention:
    end = START + timedelta(days=ROWS - 1)
    return analytics.retention(cohort, "returned", "day", COLUMNS - 1, START, end, members="every")


def compare_tables(users: int, rounds: int) -> None:
    for name, cohort in (("spread", "spread"), ("new users", "signup")):
        ours = [[cell.users for cell in row.cells] for row in our_table(cohort).rows]
        assert ours == [row[2:] for row in their_table(cohort)]
        compare(
            f"cohort table, {name}, of {users:,}",
            lambda cohort=cohort: their_table(cohort),
            lambda cohort=cohort: our_table(cohort),
            rounds,
        )


def compare_ids(users: int, rounds: int) -> None:
    day = bitmapist.DayEvents.from_date("fifth", START)
    assert analytics.users("fifth", at=START).tolist() == list(day)
    for name, ours in (
        ("array", lambda: analytics.users("fifth", at=START)),
        ("ints", lambda: analytics.users("fifth", at=START).tolist()),
    ):
        compare(f"ids of 20 % of {users:,}, {name}", lambda: list(day), ours, rounds)


def main() -> None:
    sizes = [int(size) for size in sys.argv[1:]] or [10_000, 1_000_000, 10_000_000]
    counted = "NumPy alone" if sys.maxsize == PAIRED_WORDS else "NumKong"
    print(f"{'counted by ' + counted:48} {'bitmapist':>12} {'ours':>12}   ratio (least to most)")
    with tempfile.TemporaryDirectory() as folder:
        app = Flask("benchmark", instance_path=folder)
        FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": f"embedded://{Path(folder) / 'server'}"})
        with app.app_context():
            client = app.extensions["bitmapist"].tracker.redis
            for users in sizes:
                client.flushall()
                fill(client, users)
                rounds = ROUNDS if users < 10_000_000 else 5
                compare_tables(users, rounds)
                compare_ids(users, rounds)


if __name__ == "__main__":
    main()
