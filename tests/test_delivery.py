"""A fault of Redis never reaches the caller, and what Redis did not take is not lost."""

from __future__ import annotations

import logging
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from flask import Flask

from flask_bitmapist import FlaskBitmapist, mark_event, unmark_event
from flask_bitmapist.embedded import find_binary
from flask_bitmapist.marking import Tracker

NOON = datetime(2026, 3, 14, 12, 30)
DAY = "trackist_e_2026-3-14"


class MortalServer:
    """A real server that a test can kill and start again, with its data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/server.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {
            "port": "0",
            "unixsocket": f"{self.folder}/server.sock",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        self.process = subprocess.Popen([find_binary(), *arguments], stdout=subprocess.DEVNULL)
        with redis_py.Redis.from_url(self.url) as client:
            eventually(lambda: answers(client))

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def ids(self, key: str = DAY) -> list[int]:
        with redis_py.Redis.from_url(self.url) as client:
            return [offset for offset in range(2_000) if client.getbit(key, offset)]


def answers(client: redis_py.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis_py.RedisError:
        return False


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[MortalServer]:
    server = MortalServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def tracker_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tracker]:
    # Tests probe the server sooner than a production system would.
    monkeypatch.setattr("flask_bitmapist.delivery._SHORTEST_BREAK", 0.05)
    monkeypatch.setattr("flask_bitmapist.delivery._LONGEST_BREAK", 0.05)

    def make(url: str, **options: Any) -> Tracker:
        app = Flask(__name__, instance_path=str(tmp_path / "instance"))
        return FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": url, **options}).tracker

    return make


def test_marks_made_during_an_outage_arrive_after_it(
    mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    tracker_on(mortal.url)
    mark_event("e", 1, now=NOON)
    mortal.kill()
    for id_ in (2, 3):
        mark_event("e", id_, now=NOON)
    mortal.start()
    time.sleep(0.1)
    mark_event("e", 4, now=NOON)
    assert mortal.ids() == [1, 2, 3, 4]


def test_an_outage_is_logged_once_and_so_is_its_end(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
) -> None:
    tracker_on(mortal.url)
    mortal.kill()
    for id_ in range(5):
        mark_event("e", id_, now=NOON)
        time.sleep(0.06)
    mortal.start()
    time.sleep(0.1)
    mark_event("e", 9, now=NOON)
    messages = [
        record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING
    ]
    assert len(messages) == 2
    assert "does not take marks" in messages[0]
    assert "spooled" in messages[0]
    assert "takes marks again" in messages[1]


def test_the_spool_is_created_only_when_needed(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], tmp_path: Path
) -> None:
    tracker_on(mortal.url)
    mark_event("e", 1, now=NOON)
    assert not (tmp_path / "instance").exists()
    mortal.kill()
    mark_event("e", 2, now=NOON)
    spool = tmp_path / "instance" / "bitmapist-spool.sqlite3"
    assert spool.stat().st_mode & 0o077 == 0


def test_a_later_process_delivers_what_an_earlier_one_spooled(
    mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    tracker_on(mortal.url)
    mortal.kill()
    mark_event("e", [1, "2"], now=NOON)
    mortal.start()
    tracker_on(mortal.url)
    mark_event("e", 3, now=NOON)
    assert mortal.ids() == [1, 2, 3]


def test_mapped_ids_are_spooled_as_they_are(
    mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(mortal.url)
    mortal.kill()
    mark_event("e", ["alice", "bob"], now=NOON)
    mortal.start()
    assert tracker.flush()
    assert mortal.ids() == [0, 1]


def test_an_unmark_does_not_overtake_a_spooled_mark(
    mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(mortal.url)
    mortal.kill()
    mark_event("e", [1, 2], now=NOON)
    mortal.start()
    time.sleep(0.1)
    unmark_event("e", 1, now=NOON)
    assert tracker.flush()
    assert mortal.ids() == [2]


def test_flush_says_whether_anything_is_left(
    mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(mortal.url)
    assert tracker.flush()
    mortal.kill()
    mark_event("e", 1, now=NOON)
    assert not tracker.flush()
    mortal.start()
    assert tracker.flush()
    assert mortal.ids() == [1]


def test_without_a_spool_marks_of_an_outage_are_lost_and_it_is_said(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
) -> None:
    tracker_on(mortal.url, BITMAPIST_SPOOL=False)
    mortal.kill()
    mark_event("e", 1, now=NOON)
    assert "lost (BITMAPIST_SPOOL is False)" in caplog.text
    mortal.start()
    time.sleep(0.1)
    mark_event("e", 2, now=NOON)
    assert mortal.ids() == [2]


def test_a_spool_that_cannot_be_written_is_said_and_breaks_nothing(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
) -> None:
    tracker_on(mortal.url, BITMAPIST_SPOOL="/proc/none/spool")
    mortal.kill()
    mark_event("e", 1, now=NOON)
    assert "1 marks are lost: the spool /proc/none/spool cannot be used" in caplog.text


def test_a_spool_that_is_no_database_breaks_nothing(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], tmp_path: Path
) -> None:
    spool = tmp_path / "notes.txt"
    spool.write_text("shopping list: " * 1_000)
    tracker_on(mortal.url, BITMAPIST_SPOOL=spool)
    mark_event("e", 1, now=NOON)
    assert mortal.ids() == [1]
    assert spool.read_text().startswith("shopping list")


def test_a_silent_server_costs_a_timeout_once_not_with_every_mark(
    tmp_path: Path, tracker_on: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_bitmapist.delivery._SHORTEST_BREAK", 5.0)
    monkeypatch.setattr("flask_bitmapist.delivery._LONGEST_BREAK", 5.0)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/silent.sock")
        silent.listen(8)
        tracker_on(f"unix://{tmp_path}/silent.sock", BITMAPIST_TIMEOUT=0.2)
        began = time.monotonic()
        for id_ in range(20):
            mark_event("e", id_)
        assert time.monotonic() - began < 2.0  # twenty timeouts would be four seconds


def test_a_full_server_keeps_marks_waiting(
    mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(mortal.url)
    with redis_py.Redis.from_url(mortal.url) as client:
        client.config_set("maxmemory", "1")
        mark_event("e", 1, now=NOON)
        assert not tracker.flush()
        client.config_set("maxmemory", "0")
    assert tracker.flush()
    assert mortal.ids() == [1]


def test_a_mark_that_the_server_refuses_for_good_does_not_hold_up_the_others(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
) -> None:
    tracker = tracker_on(mortal.url)
    with redis_py.Redis.from_url(mortal.url) as client:
        client.set("flask_bitmapist:unrelated", 1)
        client.hset("trackist_broken_2026-3-14", "not", "a bitmap")
    tracker.record([("broken", 1, True, True, NOON), ("e", 1, True, True, NOON)])
    assert "a mark was refused" in caplog.text
    assert mortal.ids() == [1]
    assert tracker.flush()


def test_marks_wait_for_whoever_is_creating_the_spool(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], tmp_path: Path
) -> None:
    tracker = tracker_on(mortal.url, BITMAPIST_SPOOL=tmp_path / "new.sqlite3")
    mortal.kill()
    other = sqlite3.connect(tmp_path / "new.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    marking = threading.Thread(target=mark_event, args=("e", 1), kwargs={"now": NOON})
    marking.start()
    time.sleep(0.2)
    other.execute("COMMIT")
    other.close()
    marking.join()
    mortal.start()
    eventually(tracker.flush)
    assert mortal.ids() == [1]


def test_a_long_spool_is_drained_in_steps(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_bitmapist.spool._ROWS_PER_TRIP", 10)
    tracker = tracker_on(mortal.url)
    mortal.kill()
    for id_ in range(120):
        mark_event("e", id_, now=NOON)
    mortal.start()
    time.sleep(0.1)
    mark_event("e", 1_999, now=NOON)
    assert mortal.ids() == [*range(50), 1_999]
    assert tracker.flush()
    assert mortal.ids() == [*range(120), 1_999]


def test_threads_lose_nothing_over_an_outage(
    mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(mortal.url)

    def mark_many(first: int) -> None:
        for id_ in range(first, first + 200):
            mark_event("e", id_, now=NOON)

    threads = [threading.Thread(target=mark_many, args=(200 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    mortal.kill()
    time.sleep(0.1)
    mortal.start()
    for thread in threads:
        thread.join()
    eventually(tracker.flush)
    assert mortal.ids() == list(range(800))


class TestBackground:
    """``BITMAPIST_DELIVERY = "background"``: the caller only appends to a queue."""

    def test_marks_arrive_shortly_and_in_order(
        self, mortal: MortalServer, tracker_on: Callable[..., Tracker]
    ) -> None:
        tracker_on(mortal.url, BITMAPIST_DELIVERY="background")
        for id_ in range(100):
            mark_event("e", id_, now=NOON)
            unmark_event("e", id_ - id_ % 2, now=NOON)
        eventually(lambda: mortal.ids() == list(range(1, 100, 2)))

    def test_a_dead_server_costs_the_caller_nothing(
        self, mortal: MortalServer, tracker_on: Callable[..., Tracker]
    ) -> None:
        tracker = tracker_on(mortal.url, BITMAPIST_DELIVERY="background")
        mortal.kill()
        for id_ in range(50):
            mark_event("e", id_, now=NOON)
        tracker.flush()
        mortal.start()
        eventually(tracker.flush)
        assert mortal.ids() == list(range(50))

    def test_a_full_queue_overflows_into_the_spool(
        self,
        mortal: MortalServer,
        tracker_on: Callable[..., Tracker],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("flask_bitmapist.delivery._QUEUE_LIMIT", 10)
        monkeypatch.setattr("flask_bitmapist.delivery._QUEUE_PAUSE", 60.0)
        tracker = tracker_on(mortal.url, BITMAPIST_DELIVERY="background")
        mark_event("e", range(100), now=NOON)
        assert tracker.flush()
        assert mortal.ids() == list(range(100))

    def test_the_queue_is_delivered_when_the_process_ends(self, mortal: MortalServer) -> None:
        script = """
import sys
from flask import Flask
from flask_bitmapist import FlaskBitmapist, mark_event
FlaskBitmapist(
    Flask("app", instance_path=sys.argv[2]),
    {"BITMAPIST_REDIS_URL": sys.argv[1], "BITMAPIST_DELIVERY": "background"},
)
mark_event("e", range(1_000), now=__import__("datetime").datetime(2026, 3, 14))
"""
        subprocess.run(
            [sys.executable, "-c", script, mortal.url, str(mortal.folder)], check=True, timeout=30
        )
        assert mortal.ids() == list(range(1_000))

    def test_a_forked_child_delivers_its_own_marks_and_not_its_parents(
        self, mortal: MortalServer
    ) -> None:
        script = """
import os, sys
from datetime import datetime
from flask import Flask
from flask_bitmapist import FlaskBitmapist, delivery, mark_event
delivery._QUEUE_PAUSE = 60.0
tracker = FlaskBitmapist(
    Flask("app", instance_path=sys.argv[2]),
    {"BITMAPIST_REDIS_URL": sys.argv[1], "BITMAPIST_DELIVERY": "background"},
).tracker
mark_event("e", 1, now=datetime(2026, 3, 14))
if os.fork() == 0:
    mark_event("e", 2, now=datetime(2026, 3, 14))
    os._exit(0 if tracker.flush() else 1)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
assert [tracker.redis.getbit("trackist_e_2026-3-14", id_) for id_ in (1, 2)] == [0, 1]
"""
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script, mortal.url, str(mortal.folder)],
            check=True,
            timeout=30,
        )
        assert mortal.ids() == [1, 2]

    def test_its_thread_ends_when_there_is_nothing_to_do(
        self,
        mortal: MortalServer,
        tracker_on: Callable[..., Tracker],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("flask_bitmapist.delivery._QUEUE_PAUSE", 0.01)
        tracker_on(mortal.url, BITMAPIST_DELIVERY="background")
        others = delivery_threads()
        for id_ in (1, 2):
            mark_event("e", id_, now=NOON)
            assert delivery_threads() - others
            eventually(lambda: not delivery_threads() - others)
        assert mortal.ids() == [1, 2]


def delivery_threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name == "flask-bitmapist-delivery"}


def test_a_process_that_is_killed_loses_no_acknowledged_mark(mortal: MortalServer) -> None:
    """Marks are acknowledged by Redis or by the spool; SIGKILL takes neither away."""
    script = """
import sys
from flask import Flask
from flask_bitmapist import FlaskBitmapist, mark_event
FlaskBitmapist(Flask("app", instance_path=sys.argv[2]), {"BITMAPIST_REDIS_URL": sys.argv[1]})
for id_ in range(2_000):
    mark_event("e", id_, now=__import__("datetime").datetime(2026, 3, 14))
    print(id_, flush=True)
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", script, mortal.url, str(mortal.folder)], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(100)]
    mortal.kill()
    acknowledged += [int(writer.stdout.readline()) for _ in range(100)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in writer.stdout.read().split()]
    writer.wait()
    writer.stdout.close()
    mortal.start()
    app = Flask("app", instance_path=str(mortal.folder))
    assert FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": mortal.url}).tracker.flush()
    assert set(acknowledged) <= set(mortal.ids())
