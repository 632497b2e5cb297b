"""What packing saves and what it costs, raw and packed periods side by side on a private server.

    python benchmarks/memory.py [--users 1000000] [--days 60] [--events 200]

A model site: of all users, event k is done by 5 % x k^-1.2 a day, 70 % of them among the newest
tenth of ids. Sizes are the server's own (``MEMORY USAGE``, ``used_memory``). Times are medians of
alternating runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
from flask import Flask

from flask_bitmapist import FlaskBitmapist, analytics, embedded, packed_periods, swapping
from flask_bitmapist.id_map import BATCH, IdMap
from flask_bitmapist.ids import MAPPED
from flask_bitmapist.packed_periods import PACKED_BEFORE, packed_key, packed_keys
from flask_bitmapist.reading.bitmap import Bitmap
from flask_bitmapist.reading.packed import Packed
from flask_bitmapist.tracker import Tracker

NOW = datetime(2026, 11, 28, 12)
REPEATS = 7
#: How long marks are timed beside packing, and how long each turn is at most, in seconds; and how
#: many bitmaps are packed in one.
SECONDS, TURN, MOST = 12.0, 0.25, 100


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


def mapped_ids(tracker: Tracker, users: int) -> None:
    """UUIDs in the map, and in a hash id -> offset with a list of ids, as one would keep them."""
    client, rng = tracker.redis, np.random.default_rng(3)
    ids = [str(UUID(bytes=rng.bytes(16))) for _ in range(users)]
    id_map = IdMap()

    def hash_and_list(part: Sequence[str], first: int) -> None:
        client.rpush("list", *part)
        client.hset("hash", mapping=dict(zip(part, range(first, first + len(part)), strict=True)))

    def mapped(part: Sequence[str], first: int) -> None:
        id_map.offsets(client, MAPPED, part)

    taken = []
    for keep in (hash_and_list, mapped):
        client.execute_command("FLUSHALL", "SYNC")
        empty = client.info("memory")["used_memory"]
        for first in range(0, users, BATCH):
            keep(ids[first : first + BATCH], first)
        taken.append((client.info("memory")["used_memory"] - empty) / users)
    print(f"{users:,} UUIDs that are mapped to offsets, by used_memory")
    print(f"  {taken[0]:.1f} -> {taken[1]:.1f} bytes an id: {taken[0] / taken[1]:.1f}x")


def alternating(*runs: Callable[[], object]) -> Iterator[float]:
    """The median milliseconds of each."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(REPEATS):
        for run, told in zip(runs, times, strict=True):
            begun = time.perf_counter()
            run()
            told.append(1000 * (time.perf_counter() - begun))
    yield from map(median, times)


class Case(NamedTuple):
    """A table of 31 x 13 cohorts: of `users`, who did an event on a day, and who came back by
    another one."""

    title: str
    users: int
    #: Makes the bits of the day that is so many days back.
    did: Callable[[np.random.Generator, int, int], Any]
    back: Callable[[np.random.Generator, int, int], Any]


def spread(share: float) -> Callable[[np.random.Generator, int, int], Any]:
    return lambda rng, users, back: rng.random(users) < share


def newcomers(rng: np.random.Generator, users: int, back: int) -> Any:
    """The thousandth of the ids that were new on the day."""
    bits, size = np.zeros(users, np.bool_), users // 1_000
    bits[users - (back + 1) * size :][:size] = True
    return bits


CASES = [
    Case(f"{title} of {users:,}", users, did, back)
    for users in (1_000_000, 10_000_000)
    for title, did, back in (
        ("25 %, spread,", spread(0.25), spread(0.25)),
        ("3 %, spread,", spread(0.03), spread(0.03)),
        ("1 %, spread,", spread(0.01), spread(0.01)),
        ("1 % who come back by 25 %", spread(0.01), spread(0.25)),
        ("new users who come back by 1 %", newcomers, spread(0.01)),
    )
]


def table(tracker: Tracker, case: Case) -> None:
    """The same days under two names each, one of them packed."""
    client, rng = tracker.redis, np.random.default_rng(2)
    last = date(2026, 9, 30)
    days = [last - timedelta(days=back) for back in range(43)]
    for back, day in enumerate(days):
        for name, made in (("did", case.did), ("back", case.back)):
            value = np.packbits(made(rng, case.users, back)).tobytes()
            for form in ("raw", "packed"):
                client.set(f"trackist_{form}-{name}_{day.year}-{day.month}-{day.day}", value)
                # A person's days are looked for in the months in which there are any.
                client.setbit(f"trackist_{form}-{name}_{day.year}-{day.month}", case.users - 5, 1)
    keys = [*swapping.raw_keys(client, {"packed-did", "packed-back"}, NOW.date())]
    packed_days = sum(swapping.pack(client, key) is not None for key in keys)

    def cohorts(form: str) -> Callable[[], object]:
        return lambda: analytics.retention(
            f"{form}-did", f"{form}-back", by="day", periods=12, members="every",
            start=days[42], end=days[12], now=NOW,
        ).to_dict()["rows"]  # fmt: skip

    def person(form: str) -> Callable[[], object]:
        flags = f"{form}-did", f"{form}-back"

        def page() -> object:
            found = analytics.timeline(case.users - 5, days[-1], days[0])
            return [found.days.get(name) for name in flags]

        return page

    print(f"{case.title}: {packed_days} of {2 * len(days)} days are packed")
    for what, ask in (("table 31 x 13", cohorts), ("a person's 43 days", person)):
        raw, packed = alternating(
            announced(client, None, ask("raw")), announced(client, NOW.date(), ask("packed"))
        )
        print(f"  {what}: {raw:.1f} -> {packed:.1f} ms ({raw / packed:.1f}x)")


def announced(client: Any, before: date | None, ask: Callable[[], object]) -> Callable[[], object]:
    """`ask`, where what is over before that day may be packed."""

    def run() -> object:
        if before is None:
            client.delete(PACKED_BEFORE)
            packed_periods.note(client, None)
        else:
            swapping.announce(client, before)
        return ask()

    return run


def ids_of_a_day(users: int) -> None:
    value = np.packbits(np.random.default_rng(2).random(users) < 0.01).tobytes()
    bitmap = Bitmap.from_bytes(value)
    portable = Packed.of(bitmap).to_portable()
    ids, ids_packed, packing = alternating(
        lambda: Bitmap.from_bytes(value).ids(),
        lambda: Packed.from_portable(portable).ids(),
        lambda: Packed.from_portable(Packed.of(bitmap).to_portable()).to_bytes() == value,
    )
    print(f"1 % of {users:,} users, a day of {len(value):,} -> {len(portable):,} bytes")
    print(f"  ids of a day: {ids:.2f} -> {ids_packed:.2f} ms ({ids / ids_packed:.1f}x)")
    print(f"  packing and verifying: {len(value) / packing / 1000:,.0f} MB/s")


#: Reads 1,000 days, and tells by how many bytes the process has grown.
READER = """
import sys
from datetime import datetime
import redis
from flask import Flask
from flask_bitmapist import FlaskBitmapist, analytics

url, folder, form, first, last = sys.argv[1:]
app = Flask("reader", instance_path=folder)
app.config.update(BITMAPIST_SPOOL=False, DISABLE_BLUEPRINT=True, BITMAPIST_REDIS_URL=url)
FlaskBitmapist(app)

def ask(start):
    return analytics.retention(
        "days", "days", by="day", members="every", start=start,
        end=datetime.fromisoformat(last), now=datetime.fromisoformat(last),
    )

def most(fresh=False):
    # The most bytes that this process has had so far, or since a fresh start (Linux).
    if fresh:
        open("/proc/self/clear_refs", "w").write("5")
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])

with app.app_context():
    ask(datetime.fromisoformat(last))
    if form == "packed":
        import pyroaring
    before = most(fresh=True)
    ask(datetime.fromisoformat(first))
    print(most() - before)
"""


def growth(tracker: Tracker, folder: str) -> None:
    """By how much a process grows that reads 1,000 days of a million users at 1 %."""
    client, rng = tracker.redis, np.random.default_rng(3)
    last = NOW.date() - timedelta(days=60)
    days = [last - timedelta(days=back) for back in range(1_000)]
    for day in days:
        value = np.packbits(rng.random(1_000_000) < 0.01).tobytes()
        client.set(f"trackist_days_{day.year}-{day.month}-{day.day}", value)
    grown = []
    for form in ("raw", "packed"):
        if form == "packed":
            for key in [*swapping.raw_keys(client, {"days"}, NOW.date())]:
                swapping.pack(client, key)
            swapping.announce(client, NOW.date())
        url = f"unix://{client.connection_pool.connection_kwargs['path']}"
        arguments = [url, folder, form, days[-1].isoformat(), last.isoformat()]
        told = subprocess.check_output([sys.executable, "-c", READER, *arguments])
        grown.append(int(told))
    raw, packed = grown
    print("1,000 days of 1,000,000 users at 1 %, read for a table of cohorts")
    print(f"  the process grows by {raw / 1e6:.1f} -> {packed / 1e6:.1f} MB ({raw / packed:.1f}x)")


#: Marks again and again, and tells when each mark began, and how long it took; in seconds.
MARKER = """
import json, sys, time
from flask import Flask
from flask_bitmapist import FlaskBitmapist

url, folder, seconds = sys.argv[1:]
app = Flask("marker", instance_path=folder)
app.config.update(BITMAPIST_SPOOL=False, DISABLE_BLUEPRINT=True, BITMAPIST_REDIS_URL=url)
tracker = FlaskBitmapist(app, {"BITMAPIST_TIMEOUT": 10}).tracker_of(app)
tracker.mark("marked", 0)
print("ready", flush=True)
told, end = [], time.time() + float(seconds)
while (began := time.time()) < end:
    tracker.mark("marked", len(told) % 1_000_000)
    told.append((began, time.time() - began))
    time.sleep(0.0005)
print(json.dumps(told))
"""


def beside(tracker: Tracker, folder: str) -> None:
    """How long marks take while another process rests, computes, and packs, in turns.

    It computes what packing does, without the server: on few cores that alone takes time from them.
    """
    client, rng = tracker.redis, np.random.default_rng(4)
    value = np.packbits(rng.random(1_000_000) < 0.01).tobytes()
    days = [NOW.date() - timedelta(days=60 + back) for back in range(2_000)]
    keys = [f"trackist_days_{day.year}-{day.month}-{day.day}" for day in days]
    for key in keys:
        client.set(key, value)
    swapping.announce(client, NOW.date())
    rest = iter(keys)
    turns: dict[str, Callable[[], object]] = {
        "rests": lambda: time.sleep(0.001),
        "computes": lambda: Packed.of(Bitmap.from_bytes(value)).to_portable(),
        "packs": lambda: swapping.pack(client, next(rest)),
    }
    url = f"unix://{client.connection_pool.connection_kwargs['path']}"
    arguments = [sys.executable, "-c", MARKER, url, folder, str(SECONDS)]
    spans: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as marker:
        assert marker.stdout is not None
        marker.stdout.readline()
        end = time.time() + SECONDS
        while time.time() < end and len(spans["packs"]) * MOST < len(keys):
            for name, do in turns.items():
                began = time.time()
                for _ in range(MOST):
                    do()
                    if time.time() > began + TURN:
                        break
                spans[name].append((began, time.time()))
        told = json.loads(marker.stdout.readline())
    packed = len(keys) - sum(1 for _ in rest)
    print(f"{len(told):,} marks of a process, while another one packs {packed:,} days in turns")
    for name, of_turn in spans.items():
        took = [
            1000 * seconds
            for moment, seconds in told
            if any(first <= moment <= last for first, last in of_turn)
        ]
        most, p99 = (float(np.percentile(took, share)) for share in (50, 99))
        print(f"  while it {name}: half of them take {most:.2f} ms at most, 99 % {p99:.2f} ms")


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
            client.flushall()
            beside(tracker, folder)
            client.flushall()
            growth(tracker, folder)
            for case in CASES:
                client.flushall()
                table(tracker, case)
            for users in (1_000_000, 10_000_000):
                ids_of_a_day(users)


if __name__ == "__main__":
    main()
