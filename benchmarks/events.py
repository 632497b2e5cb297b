"""What reading events costs, as a ratio to bitmapist's own classes in the same run on one server.

    python benchmarks/events.py

Rounds are interleaved and each ratio is the median of the rounds', as in `benchmarks/marking.py`. A
ratio above 1 says that ours take less time.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from types import ModuleType
from typing import Any

import bitmapist
import numpy as np
from flask import Flask

import flask_bitmapist
from flask_bitmapist import FlaskBitmapist, mark_event
from flask_bitmapist.tracker import Tracker

ROUNDS = 25
DAY = (2026, 3, 14)

Question = Callable[[ModuleType, Any], object]


def seconds(question: Question, module: ModuleType, system: Any, repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        question(module, system)
    return (time.perf_counter() - began) / repeats


def cleaned(question: Question) -> Question:
    """`question`, then the clean-up that bitmapist users need to leave no temporary keys."""

    def ask(module: ModuleType, system: Any) -> object:
        answer = question(module, system)
        if module is bitmapist:
            bitmapist.delete_runtime_bitop_keys()
        return answer

    return ask


#: Question and repeats, with the name of each.
QUESTIONS: dict[str, tuple[Question, int]] = {
    "a user in a day": (lambda module, system: 7 in module.DayEvents("e", *DAY, system), 200),
    "users of a day": (lambda module, system: len(module.DayEvents("e", *DAY, system)), 200),
    "ids of a day": (lambda module, system: list(module.DayEvents("e", *DAY, system)), 1),
    "users of a year": (
        cleaned(lambda module, system: len(module.YearEvents("e", 2026, system))),
        20,
    ),
    "users of day & day": (
        cleaned(
            lambda module, system: len(
                module.BitOpAnd(
                    system, module.DayEvents("e", *DAY, system), module.DayEvents("f", *DAY, system)
                )
            )
        ),
        20,
    ),
}


def measure(tracker: Tracker, users: int) -> None:
    tracker.redis.flushall()
    random = np.random.default_rng(1)
    for event in ("e", "f"):
        mark_event(event, np.flatnonzero(random.random(users) < 0.2), now=datetime(*DAY))
    forget = tracker.reader._registry.forget_known
    # What a process that has marked knows, another must ask for beside the bits.
    for who, before in (("by whoever marked", lambda: None), ("by another process", forget)):
        for name, (question, repeats) in QUESTIONS.items():
            before()
            assert question(flask_bitmapist, "default") == question(bitmapist, "default")
            rounds = [
                (
                    seconds(question, bitmapist, "default", repeats),
                    seconds(question, flask_bitmapist, "default", repeats),
                )
                for _ in range(ROUNDS)
            ]
            theirs, ours = (statistics.median(side) * 1e6 for side in zip(*rounds, strict=True))
            ratio = statistics.median(one / other for one, other in rounds)
            label = f"{name}, of {users:,}, {who}"
            print(f"{label:52} {theirs:9.1f} us {ours:9.1f} us   x{ratio:.2f}")


def main() -> None:
    print(f"{'':52} {'bitmapist':>12} {'ours':>12}   ratio")
    with tempfile.TemporaryDirectory() as folder:
        app = Flask("benchmark", instance_path=folder)
        FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": f"embedded://{folder}/server"})
        with app.app_context():
            for users in (10_000, 1_000_000):
                measure(app.extensions["bitmapist"].tracker, users)


if __name__ == "__main__":
    main()
