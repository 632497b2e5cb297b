"""What a mark costs, as a ratio to bitmapist's `mark_event` in the same run on the same server.

    python benchmarks/marking.py [rounds]

Rounds are interleaved and each ratio is the median of the rounds', as a loopback round trip changes
by a factor of three from one minute to the next: hence the PING beside each table. Three things are
told apart: what the caller waits for, the CPU time of the whole process until the marks have
arrived (background thread included), and the CPU time of the server.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from socket import socket
from typing import Any, NamedTuple

import bitmapist
import numpy as np
import redis
from flask import Flask

from flask_bitmapist import FlaskBitmapist, mark_event
from flask_bitmapist.embedded import find_binary
from flask_bitmapist.marks import Mark

ROUNDS = 15
MOMENT = datetime(2026, 3, 14, 12)
#: Marks of bitmapist in a round.
THEIRS = 300
MILLION = 1_000_000
#: Fills a database with bitmaps of other events.
CROWD = """
for number = 1, ARGV[1] do
  local event, day = math.floor(number / 30), number % 30 + 1
  redis.call('SETBIT', 'trackist_old ' .. event .. '_2026-3-' .. day, 1, 1)
end
"""


class Cost(NamedTuple):
    """Seconds a mark."""

    waited: float
    client: float
    server: float


class Case(NamedTuple):
    """What is measured; the marks are made in the background if `queued`."""

    name: str
    marks: int
    call: Callable[[], object]
    queued: bool = False
    rounds: int | None = None
    #: Done before each call, and not measured.
    prepare: Callable[[], object] = lambda: None


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder)) as urls:
        for url in urls:
            measure(url, folder, rounds)


@contextmanager
def running_server(folder: Path) -> Iterator[list[str]]:
    """A server that keeps nothing on disk; its URLs."""
    with closing(socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"port": port, "bind": "127.0.0.1", "unixsocket": folder / "socket", "save": ""}
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    with subprocess.Popen([find_binary(), *arguments], stdout=subprocess.DEVNULL) as process:
        urls = [f"unix://{folder}/socket", f"redis://127.0.0.1:{port}"]
        while not answers(urls[0]):
            time.sleep(0.05)
        try:
            yield urls
        finally:
            process.terminate()


def answers(url: str) -> bool:
    try:
        return bool(redis.Redis.from_url(url).ping())
    except redis.ConnectionError:
        return False


def measure(url: str, folder: str, rounds: int) -> None:
    options = {"BITMAPIST_REDIS_URL": url, "BITMAPIST_TIMEOUT": 30}
    names = ("at once", "queued", "crowded")
    at_once, queued, crowded = (Flask(name, instance_path=folder) for name in names)
    extension = FlaskBitmapist(at_once, options)
    extension.init_app(queued, {**options, "BITMAPIST_DELIVERY": "background"})
    extension.init_app(crowded, {**options, "BITMAPIST_REDIS_URL": f"{url}?db=1"})
    trackers = [extension.tracker_of(app) for app in (at_once, queued, crowded)]
    trackers[2].redis.eval(CROWD, 0, MILLION)
    client = redis.Redis.from_url(url)

    def theirs() -> None:
        for id_ in range(THEIRS):
            bitmapist.mark_event("theirs", id_, client)

    found: dict[str, list[tuple[Cost, Cost]]] = {}
    for number in range(rounds):
        for case in cases(*trackers):
            if number >= (case.rounds or rounds):
                continue
            case.prepare()
            base = cost(client, theirs, THEIRS, trackers[0])
            with (queued if case.queued else at_once).app_context():
                ours = cost(client, case.call, case.marks, trackers[case.queued])
            found.setdefault(case.name, []).append((base, ours))
    show(url.partition(":")[0], client, found)


def cases(tracker: Any, queuing: Any, crowded: Any) -> Iterator[Case]:
    few, spread = [*range(1_000)], np.random.default_rng(1).integers(0, MILLION, 1_000)

    def one_by_one(marks: int) -> None:
        for id_ in range(marks):
            mark_event("ours", id_)

    def in_hand(held: Any, marks: int) -> None:
        for id_ in range(marks):
            held.mark("ours", id_)

    def commit() -> None:
        tracker.publish([Mark("ours", id_, when=MOMENT) for id_ in few])

    def known_names() -> None:
        tracker.publish([Mark(f"known {id_}", id_, when=MOMENT) for id_ in few])

    def new_names(held: Any) -> None:
        held.publish([Mark(f"new {next(numbers)}", id_, when=MOMENT) for id_ in few])

    def forget_bitmaps() -> None:
        if keys := [*tracker.redis.scan_iter("trackist_new *", 10_000)]:
            tracker.redis.unlink(*keys)

    def year() -> None:
        mark_event("imported", ids, now=moments)

    yield Case("one by one", 300, lambda: one_by_one(300))
    yield Case("tracker.mark", 300, lambda: in_hand(tracker, 300))
    yield Case("one by one, background", 5_000, lambda: one_by_one(5_000), queued=True)
    yield Case("tracker.mark, background", 5_000, lambda: in_hand(queuing, 5_000), queued=True)
    yield Case("1,000 in a commit", 1_000, commit)
    yield Case("1,000 in a list", 1_000, lambda: mark_event("ours", few, now=MOMENT))
    yield Case("1,000 of a million, in an array", 1_000, lambda: mark_event("ours", spread))
    yield Case("1,000 events", 1_000, known_names)
    yield Case("1,000 new events", 1_000, lambda: new_names(tracker), prepare=forget_bitmaps)
    yield Case("1,000 new events among a million keys", 1_000, lambda: new_names(crowded))
    generator = np.random.default_rng(2)
    ids = generator.integers(0, MILLION, MILLION)
    moments = np.datetime64("2025-01-01") + generator.integers(0, 365 * 86_400, MILLION).astype(
        "m8[s]"
    )
    yield Case("a million over a year, in arrays", MILLION, year, rounds=5)


numbers = count()


def cost(client: Any, call: Callable[[], object], marks: int, tracker: Any) -> Cost:
    server, process, clock = server_cpu(client), time.process_time(), time.perf_counter()
    call()
    waited = time.perf_counter() - clock
    tracker.flush()
    spent = waited, time.process_time() - process, server_cpu(client) - server
    return Cost(*(seconds / marks for seconds in spent))


def server_cpu(client: Any) -> float:
    cpu = client.info("cpu")
    return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])


def show(way: str, client: Any, found: dict[str, list[tuple[Cost, Cost]]]) -> None:
    pings = []
    for _ in range(1_000):
        began = time.perf_counter()
        client.ping()
        pings.append(time.perf_counter() - began)
    print(f"\nover {way}, where a PING takes {statistics.median(pings) * 1e6:.0f} us")
    heads = ("the caller waits", "CPU, process", "CPU, server")
    print(f"{'microseconds a mark':38}" + "".join(f"{head:>26}" for head in heads))
    every = [base for pairs in found.values() for base, _ in pairs]
    print(
        f"{'bitmapist.mark_event':38}"
        + "".join(
            f"{statistics.median(each) * 1e6:16.2f}{'':10}" for each in zip(*every, strict=True)
        )
    )
    for name, pairs in found.items():
        line = f"{name:38}"
        for field in range(len(heads)):
            took = statistics.median(ours[field] for _, ours in pairs) * 1e6
            ratio = statistics.median(base[field] / max(ours[field], 1e-12) for base, ours in pairs)
            line += f"{took:16.2f}{f'x{ratio:.1f}' if ratio < 100 else f'x{ratio:.0f}':>10}"
        print(line)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else ROUNDS)
