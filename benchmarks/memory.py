"""What packing saves and what it costs, raw and packed periods side by side on a private server.

    python benchmarks/memory.py [--users 1000000] [--days 60] [--events 200]

A model site: of all users, event k is done by 5 % x k^-1.2 a day, 70 % of them among the newest
tenth of ids. Sizes are the server's own (``MEMORY USAGE``, ``used_memory``). Times are medians of
alternating runs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from flask import Flask

from flask_bitmapist import FlaskBitmapist, analytics, embedded, packed_periods, swapping
from flask_bitmapist.packed_periods import PACKED_BEFORE, packed_key, packed_keys
from flask_bitmapist.reading.bitmap import Bitmap
from flask_bitmapist.reading.packed import Packed
from flask_bitmapist.tracker import Tracker

NOW = datetime(2026, 11, 28, 12)
REPEATS = 7


def crowd(rng: np.random.Generator, users: int, size: int) -> Any:
    """Ids of those who did an event on a day; a few are drawn twice."""
    newest = rng.integers(users - users // 10, users, int(size * 0.7))
    return np.unique(np.concatenate([newest, rng.integers(0, users, size - newest.size)]))


def model_site(tracker: Tracker, users: int, events: int, days: int) -> None:
    rng = np.random.default_rng(1)
    for rank in range(1, events + 1):
        size = max(1, int(users * 0.05 * rank**-1.2))
        for back in range(days):
            with tracker.at(NOW - timedelta(days=60 + back)):
                tracker.record_many(f"event{rank}", crowd(rng, users, size))


def stored(client: Any, keys: Sequence[str]) -> int:
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.memory_usage(key, samples=0)
    return sum(size or 0 for size in pipe.execute())


def site(tracker: Tracker, users: int, events: int, days: int) -> None:
    client = tracker.redis
    empty = client.info("memory")["used_memory"]
    model_site(tracker, users, events, days)
    names = {f"event{rank}" for rank in range(1, events + 1)}
    before = (NOW - timedelta(days=35)).date()
    keys = [*swapping.raw_keys(client, names, before)]
    raw, used = stored(client, keys), client.info("memory")["used_memory"] - empty
    swapping.announce(client, before)
    begun = time.perf_counter()
    swaps = [swap for key in keys if (swap := swapping.pack(client, key))]
    seconds = time.perf_counter() - begun
    left = stored(client, [*swapping.raw_keys(client, names, before)])
    packed = left + stored(client, [packed_key(key) for key in packed_keys(client)])
    later = client.info("memory")["used_memory"] - empty
    print(f"model site: {users:,} users, {events} events, {days} days: {len(keys):,} bitmaps")
    print(f"  MEMORY USAGE {raw / 1e6:,.1f} MB -> {packed / 1e6:,.1f} MB: {raw / packed:.1f}x")
    print(f"  used_memory  {used / 1e6:,.1f} MB -> {later / 1e6:,.1f} MB: {used / later:.1f}x")
    volume = sum(swap.raw for swap in swaps)
    print(f"  packing, with reading, verifying and writing: {volume / seconds / 1e6:,.0f} MB/s")


def alternating(*runs: Callable[[], object]) -> Iterator[float]:
    """The median milliseconds of each."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(REPEATS):
        for run, told in zip(runs, times, strict=True):
            begun = time.perf_counter()
            run()
            told.append(1000 * (time.perf_counter() - begun))
    yield from map(median, times)


def table(tracker: Tracker, users: int, share: float) -> None:
    """The cohort table of 31 x 13 cells: the same days under two names, one of them packed."""
    client, rng = tracker.redis, np.random.default_rng(2)
    last = date(2026, 9, 30)
    days = [last - timedelta(days=back) for back in range(43)]
    for day in days:
        for name in ("did", "back"):
            value = np.packbits(rng.random(users) < share).tobytes()
            for form in ("raw", "packed"):
                client.set(f"trackist_{form}-{name}_{day.year}-{day.month}-{day.day}", value)
            if name == "did":
                sample = value
    keys = swapping.raw_keys(client, {"packed-did", "packed-back"}, NOW.date())
    packed_days = sum(swapping.pack(client, key) is not None for key in keys)

    def cohorts(form: str, before: date | None) -> Callable[[], object]:
        def run() -> object:
            if before is None:
                client.delete(PACKED_BEFORE)
                packed_periods.note(client, None)
            else:
                swapping.announce(client, before)
            return analytics.retention(
                f"{form}-did", f"{form}-back", by="day", periods=12, members="every",
                start=days[42], end=days[12], now=NOW,
            ).to_dict()["rows"]  # fmt: skip

        return run

    runs = cohorts("raw", None), cohorts("packed", NOW.date())
    assert runs[0]() == runs[1]()
    raw, packed = alternating(*runs)
    bitmap, value = Bitmap.from_bytes(sample), Packed.of(Bitmap.from_bytes(sample)).to_portable()
    ids, ids_packed = alternating(
        lambda: Bitmap.from_bytes(sample).ids(), lambda: Packed.from_portable(value).ids()
    )
    (packing,) = alternating(
        lambda: Packed.from_portable(Packed.of(bitmap).to_portable()).to_bytes() == sample
    )
    print(f"{share:.0%} of {users:,} users, a day of {len(sample):,} -> {len(value):,} bytes")
    print(f"  {packed_days} of {2 * len(days)} days are smaller packed")
    print(f"  table 31 x 13: {raw:.1f} -> {packed:.1f} ms ({raw / packed:.1f}x)")
    print(f"  ids of a day: {ids:.2f} -> {ids_packed:.2f} ms ({ids / ids_packed:.1f}x)")
    print(f"  packing and verifying: {len(sample) / packing / 1000:,.0f} MB/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--events", type=int, default=200)
    asked = parser.parse_args()
    packed_periods.TRUSTED = 3600.0  # one process: it tells itself
    swapping.TRUSTED = 0.0
    with tempfile.TemporaryDirectory() as folder, closing(embedded.connect(Path(folder))) as client:
        app = Flask("memory", instance_path=folder)
        app.config.update(BITMAPIST_SPOOL=False, DISABLE_BLUEPRINT=True, BITMAPIST_ENABLED=True)
        tracker = FlaskBitmapist(app, redis_client=client).tracker_of(app)
        with app.app_context(), tracker.at(NOW):
            site(tracker, asked.users, asked.events, asked.days)
            for users in (1_000_000, 10_000_000):
                for share in (0.25, 0.01):
                    client.flushall()
                    table(tracker, users, share)


if __name__ == "__main__":
    main()
