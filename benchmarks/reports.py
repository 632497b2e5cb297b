"""What a report costs, as a ratio to bitmapist in the same run on the same server.

    python benchmarks/reports.py [USERS ...]      default: 10 thousand, 1 and 10 million

The cohort table has 31 rows and 13 columns, by day, over bitmaps that are a quarter full; both
sides' cells are compared before anything is timed. Rounds are interleaved, and each ratio is the
median of the rounds', as a loopback round trip changes by a factor of three from one minute to the
next.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bitmapist
import bitmapist.cohort
import numpy as np
from flask import Flask

from flask_bitmapist import FlaskBitmapist, analytics

ROUNDS = 9
TODAY = datetime.now(UTC).date()
START = TODAY - timedelta(days=42)


def seconds(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def compare(name: str, theirs: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> None:
    ours()
    pairs = [(seconds(theirs), seconds(ours)) for _ in range(rounds)]
    their_time, our_time = (statistics.median(times) * 1e3 for times in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{name:44} {their_time:9.2f} ms {our_time:9.3f} ms   x{ratio:.1f}", flush=True)


def fill(client: Any, users: int) -> None:
    random = np.random.default_rng(1)
    for back in range(43):
        day = START + timedelta(days=back)
        for event, share in (("a", 0.25), ("b", 0.25), ("c", 0.2)):
            bits = np.packbits(random.random(users, dtype=np.float32) < share)
            client.set(bitmapist.DayEvents.from_date(event, day).redis_key, bits.tobytes())


def their_table() -> Any:
    return bitmapist.cohort.get_dates_data(
        "a", "b", time_group="days", as_percent=False, num_results=31, num_of_rows=12,
        start_date=START.isoformat(),
    )  # fmt: skip


def our_table() -> analytics.Retention:
    end = START + timedelta(days=30)
    return analytics.retention("a", "b", "day", 12, START, end, members="every")


def main() -> None:
    sizes = [int(size) for size in sys.argv[1:]] or [10_000, 1_000_000, 10_000_000]
    with tempfile.TemporaryDirectory() as folder:
        app = Flask("benchmark", instance_path=folder)
        FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": f"embedded://{Path(folder) / 'server'}"})
        with app.app_context():
            client = app.extensions["bitmapist"].tracker.redis
            for users in sizes:
                client.flushall()
                fill(client, users)
                ours = [[cell.users for cell in row.cells] for row in our_table().rows]
                assert ours == [row[2:] for row in their_table()]
                rounds = ROUNDS if users < 10_000_000 else 5
                compare(f"cohort table 31 x 13, {users:,} users", their_table, our_table, rounds)
                day = bitmapist.DayEvents.from_date("c", START)
                compare(
                    f"ids of 20 % of {users:,} users, array",
                    lambda day=day: list(day),
                    lambda: analytics.users("c", at=START),
                    rounds,
                )
                compare(
                    f"ids of 20 % of {users:,} users, ints",
                    lambda day=day: list(day),
                    lambda: analytics.users("c", at=START).tolist(),
                    rounds,
                )


if __name__ == "__main__":
    main()
