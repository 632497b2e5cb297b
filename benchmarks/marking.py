"""What a mark costs, as a ratio to bitmapist's `mark_event` in the same run on the same server.

    python benchmarks/marking.py

Rounds are interleaved and each ratio is the median of the rounds', as a loopback round trip changes
by a factor of three from one minute to the next.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime

import bitmapist
from flask import Flask

from flask_bitmapist import FlaskBitmapist, mark_event

ROUNDS = 25
MOMENT = datetime(2026, 3, 14, 12)


def seconds_per_mark(function: Callable[[], None], marks: int) -> float:
    began = time.perf_counter()
    function()
    return (time.perf_counter() - began) / marks


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        options = {"BITMAPIST_REDIS_URL": f"embedded://{folder}/server"}
        at_once, queued = (
            Flask("at once", instance_path=folder),
            Flask("queued", instance_path=folder),
        )
        extension = FlaskBitmapist(at_once, options)
        extension.init_app(queued, {**options, "BITMAPIST_DELIVERY": "background"})
        client = extension.tracker_of(at_once).redis
        ids = list(range(1_000))

        def theirs() -> None:
            for id_ in ids[:200]:
                bitmapist.mark_event("theirs", id_, client, MOMENT)

        def one_by_one() -> None:
            for id_ in ids[:200]:
                mark_event("ours", id_, now=MOMENT)

        def batch() -> None:
            mark_event("ours", ids, now=MOMENT)

        cases = {
            "one by one": (at_once, one_by_one, 200),
            "a batch of 1000": (at_once, batch, 1_000),
            "one by one, in the background": (queued, one_by_one, 200),
        }
        ratios: dict[str, list[float]] = {name: [] for name in cases}
        costs: dict[str, list[float]] = {name: [] for name in cases}
        baseline = []
        for _ in range(ROUNDS):
            baseline.append(seconds_per_mark(theirs, 200))
            for name, (app, function, marks) in cases.items():
                with app.app_context():
                    cost = seconds_per_mark(function, marks)
                    extension.tracker.flush()
                costs[name].append(cost)
                ratios[name].append(baseline[-1] / cost)
        print(f"{'bitmapist.mark_event':32} {statistics.median(baseline) * 1e6:8.1f} us")
        for name in cases:
            cost, ratio = statistics.median(costs[name]), statistics.median(ratios[name])
            print(f"{name:32} {cost * 1e6:8.1f} us   x{ratio:.1f}")


if __name__ == "__main__":
    main()
