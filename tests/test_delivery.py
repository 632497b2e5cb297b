"""A fault of Redis never reaches the caller, and what Redis did not take is not lost."""

from __future__ import annotations

import gc
import logging
import mmap
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis as redis_py
from flask import Flask
from interpreter import run
from redis.connection import AbstractConnection
from servers import MortalServer, eventually
from slow import Proxy, serving

from flask_bitmapist import (
    DayEvents,
    FlaskBitmapist,
    UniqueEvents,
    analytics,
    current,
    get_event_names,
    mark_event,
    mark_unique,
    unmark_event,
)
from flask_bitmapist.delivery import Stats
from flask_bitmapist.delivery.addresses import Addresses
from flask_bitmapist.delivery.breaker import Breaker
from flask_bitmapist.delivery.file_lock import FileLock
from flask_bitmapist.delivery.flusher import _threads_run
from flask_bitmapist.delivery.spool import Spool
from flask_bitmapist.marks import Mark, count
from flask_bitmapist.punctual import Punctual
from flask_bitmapist.signals import delivery_degraded
from flask_bitmapist.tracker import Tracker, _Settling

NOON = datetime(2026, 3, 14, 12, 30)
DAY = "trackist_e_2026-3-14"


def spool_of(tracker: Tracker) -> Spool:
    spool = tracker._deliverer()._shelter.spool
    assert spool is not None
    return spool


@pytest.fixture
def tracker_on(
    tracker_on: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Tracker]:
    """Its trackers probe the server sooner than a production system would."""
    monkeypatch.setattr("flask_bitmapist.delivery.breaker._SHORTEST_BREAK", 0.05)
    monkeypatch.setattr("flask_bitmapist.delivery.breaker._LONGEST_BREAK", 0.05)
    return tracker_on


def test_marks_made_during_an_outage_arrive_after_it(
    mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    tracker_on(mortal.url)
    mark_event("e", 1, now=NOON)
    mortal.kill()
    for id_ in (2, 3):
        mark_event("e", id_, now=NOON)
    mortal.start()
    mark_event("e", 4, now=NOON)
    eventually(lambda: mortal.ids() == [1, 2, 3, 4])


def test_an_outage_is_logged_once_and_so_is_its_end(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
) -> None:
    tracker_on(mortal.url)
    mortal.kill()
    for id_ in range(5):
        mark_event("e", id_, now=NOON)
        time.sleep(0.06)
    mortal.start()
    eventually(lambda: "takes marks again" in caplog.text)
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


@pytest.fixture
def stopped_tracker(tmp_path: Path, tracker_on: Callable[..., Tracker]) -> Tracker:
    """The tracker of an app whose instance folder exists, and whose server does not run."""
    (tmp_path / "instance").mkdir()
    return tracker_on(f"unix://{tmp_path}/stopped.sock")


@pytest.mark.parametrize("ending", ["", "-drain", "-gate", "-wal", "-shm"])
@pytest.mark.parametrize("there", [True, False])
def test_links_beside_the_spool_are_not_followed(
    stopped_tracker: Tracker, tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str,
    there: bool,
) -> None:  # fmt: skip
    victim = tmp_path / "victim"
    if there:
        victim.write_bytes(b"")
    if os.geteuid() == 0:
        os.chown(tmp_path / "instance", 1, 1)
    (tmp_path / "instance" / f"bitmapist-spool.sqlite3{ending}").symlink_to(victim)
    mark_event("e", 1, now=NOON)
    assert stopped_tracker.flush() == (ending == "-gate")  # then there is no file to flush
    assert victim.exists() == there
    if there:
        assert (victim.stat().st_size, victim.stat().st_uid) == (0, os.geteuid())
    assert ending == "-drain" or "cannot be used" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
@pytest.mark.parametrize("ending", ["", "-drain", "-gate"])
def test_a_strangers_file_is_no_spool(
    stopped_tracker: Tracker, tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str
) -> None:
    planted = tmp_path / "instance" / f"bitmapist-spool.sqlite3{ending}"
    planted.touch()
    os.chown(planted, 2, 2)
    mark_event("e", 1, now=NOON)
    assert stopped_tracker.flush() == (ending == "-gate")
    assert planted.stat().st_size == 0
    assert "belongs to the user 2" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
def test_what_root_spools_belongs_to_the_folders_owner(
    stopped_tracker: Tracker, tmp_path: Path
) -> None:
    os.chown(tmp_path / "instance", 1, 1)
    mark_event("e", 1, now=NOON)
    assert not stopped_tracker.flush()
    files = list((tmp_path / "instance").iterdir())
    assert files
    assert {file.stat().st_uid for file in files} == {1}


def test_a_later_process_delivers_what_an_earlier_one_spooled(
    mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    tracker_on(mortal.url)
    mortal.kill()
    mark_event("e", [1, "2"], now=NOON)
    mortal.start()
    tracker_on(mortal.url)
    mark_event("e", 3, now=NOON)
    eventually(lambda: mortal.ids() == [1, 2, 3])


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


def test_flush_waits_no_longer_than_it_may_for_another_thread(
    mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(mortal.url)
    ends = threading.Event()

    def work() -> None:
        with tracker._deliverer()._flusher.alone(None):
            ends.wait()

    working = threading.Thread(target=work)
    working.start()
    eventually(lambda: not tracker.flush(timeout=0.01))
    ends.set()
    working.join()
    assert tracker.flush(timeout=60)


@pytest.mark.parametrize(
    ("options", "worker", "run"),
    [
        ({}, 1, False),
        ({"enable-threads": True}, 1, True),
        ({"enable-threads": b"true"}, 1, True),
        ({"enable-threads": b"false"}, 1, False),
        ({"threads": b"2"}, 1, True),
        ({"threads": b"1"}, 1, False),
        ({"threads": b"2"}, 0, False),  # the master, which is yet to fork
    ],
)
def test_uwsgi_tells_whether_threads_run(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, object], worker: int, run: bool
) -> None:
    uwsgi: Any = SimpleNamespace(opt=options, worker_id=lambda: worker)
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    assert _threads_run() == run


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
    eventually(lambda: mortal.ids() == [2])


def test_a_spool_that_cannot_be_written_is_said_and_breaks_nothing(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
) -> None:
    tracker_on(mortal.url, BITMAPIST_SPOOL="/proc/none/spool")
    mortal.kill()
    mark_event("e", 1, now=NOON)
    mark_event("e", 2, now=NOON)
    assert caplog.text.count("the spool /proc/none/spool cannot be used") == 1


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
    monkeypatch.setattr("flask_bitmapist.delivery.breaker._SHORTEST_BREAK", 5.0)
    monkeypatch.setattr("flask_bitmapist.delivery.breaker._LONGEST_BREAK", 5.0)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/silent.sock")
        silent.listen(64)
        tracker_on(f"unix://{tmp_path}/silent.sock", BITMAPIST_TIMEOUT=0.05)
        for id_ in range(20):
            mark_event("e", id_)
        assert connections_to(silent) == 1


def connections_to(listener: socket.socket) -> int:
    """How many connections wait for a server that accepts none."""
    listener.setblocking(False)
    found = 0
    with suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            found += 1
    return found


def test_a_server_that_fails_is_probed_by_one_caller_a_break(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("flask_bitmapist.delivery.breaker.time.monotonic", lambda: clock.now)
    breaker = Breaker()
    assert [breaker.lets_pass() for _ in range(3)] == [True] * 3
    monkeypatch.setattr("flask_bitmapist.delivery.breaker._JITTER", 0)
    assert breaker.trip()
    for _ in range(3):  # seconds of it; a probe may hang, as a server may be slow
        clock.now += 0.99
        assert not breaker.lets_pass()
        clock.now += 0.01
        assert [breaker.lets_pass() for _ in range(3)] == [True, False, False]


def test_breaks_become_longer_until_the_server_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("flask_bitmapist.delivery.breaker.time.monotonic", lambda: clock.now)
    monkeypatch.setattr("flask_bitmapist.delivery.breaker._JITTER", 0)
    breaker = Breaker()
    for seconds in (1, 2, 4, 8, 16, 30, 30):
        assert breaker.trip() == (seconds == 1)
        clock.now += seconds - 0.01
        assert not breaker.lets_pass()
        clock.now += 0.01
        assert breaker.lets_pass()
    assert breaker.reset()
    assert not breaker.reset()
    assert [breaker.lets_pass() for _ in range(3)] == [True] * 3
    assert breaker.trip()
    clock.now += 1
    assert breaker.lets_pass()


def test_a_server_that_comes_back_with_other_data_is_asked_again(
    mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(mortal.url)
    tracker.record([("e", "ann", True, True, NOON), ("e", "bob", True, True, NOON)])
    mortal.kill()
    tracker.record([("e", "bob", True, True, NOON)])  # notices the outage
    shutil.rmtree(mortal.folder / "appendonlydir")
    mortal.start()
    another_process = tracker_on(mortal.url, BITMAPIST_SPOOL=False)
    another_process.record([("e", "cleo", True, True, NOON)])
    assert tracker.flush()
    assert {*analytics.users("e", at=NOON, tracker=another_process)} == {"cleo", "bob"}


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
    assert "Valkey 9" in caplog.text
    assert "does not take SETBIT (WRONGTYPE" in caplog.text
    assert mortal.ids() == [1]
    assert not tracker.flush()


def test_an_id_that_cannot_be_sent_is_refused_at_the_call(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
) -> None:
    tracker = tracker_on(mortal.url)
    with pytest.raises(ValueError, match="a text that cannot be stored"):
        mark_event("q", "\ud800")
    tracker.publish([("e", "\ud800", True, True, NOON), ("e", "x", True, True, NOON)])
    assert "a text that cannot be stored" in caplog.text
    assert mortal.ids() == [0]


def test_a_mark_that_cannot_be_sent_does_not_hold_up_the_others(
    mortal: MortalServer,
    tracker_on: Callable[..., Tracker],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As an earlier version may have spooled one, whose ids were less strictly checked."""
    monkeypatch.setattr("flask_bitmapist.ids._text", str)
    tracker = tracker_on(mortal.url)
    mortal.kill()
    mark_event("q", "\ud800", now=NOON)
    mark_event("e", [*range(20)], now=NOON)
    mortal.start()
    assert tracker.flush()
    assert mortal.ids() == [*range(20)]
    tracker.record([("q", id_, True, True, NOON) for id_ in ("a", "\ud800", "b")])
    assert [*mortal.ids("trackist_q_2026-3-14")] == [0, 1]
    assert caplog.text.count("a mark cannot be delivered") == 2


def test_a_row_of_the_spool_that_cannot_be_read_does_not_hold_up_the_others(
    mortal: MortalServer,
    tracker_on: Callable[..., Tracker],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker = tracker_on(mortal.url)
    mortal.kill()
    mark_event("e", 1, now=NOON)
    mark_event("e", 2, now=NOON)
    with sqlite3.connect(tmp_path / "instance" / "bitmapist-spool.sqlite3") as db:
        first = "(SELECT MIN(id) FROM spooled)"
        db.execute(f"UPDATE spooled SET marks = '[[\"of another version\"]]' WHERE id = {first}")
    db.close()
    mortal.start()
    assert tracker.flush()
    assert mortal.ids() == [2]
    assert "cannot be read" in caplog.text


def test_a_day_at_the_end_of_time_is_marked_whatever_the_time_to_live(
    mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(mortal.url, BITMAPIST_TTL={"day": timedelta(days=3)})
    last = datetime(9999, 12, 31)
    tracker.record([("e", 1, True, True, NOON + timedelta(days=9999)), ("e", 2, True, True, last)])
    assert mortal.ids("trackist_e_9999-12-31") == [2]


def test_apps_that_share_a_folder_spool_for_their_own_servers(
    tmp_path_factory: pytest.TempPathFactory, tracker_on: Callable[..., Tracker]
) -> None:
    servers = [MortalServer(tmp_path_factory.mktemp("server")) for _ in range(2)]
    trackers = [tracker_on(server.url) for server in servers]
    for number, tracker in enumerate(trackers):
        tracker.record([("e", number, True, True, NOON)])  # nobody is there
    for server in reversed(servers):
        server.start()
    assert all(tracker.flush() for tracker in reversed(trackers))
    assert [server.ids() for server in servers] == [[0], [1]]
    for server in servers:
        server.kill()


@pytest.mark.parametrize("in_between", [0.0, 0.1])
def test_a_mark_does_not_overtake_a_spooled_unmark(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], in_between: float
) -> None:
    tracker, other = tracker_on(mortal.url), tracker_on(mortal.url)
    tracker.record([("e", 7, True, True, NOON)])
    other.record([("e", 8, True, True, NOON)])
    mortal.kill()
    tracker.record([("e", 7, False, True, NOON)])
    mortal.start()
    time.sleep(in_between)
    other.record([("e", 7, True, True, NOON)])  # as another process would
    assert tracker.flush()
    assert other.flush()
    assert mortal.ids() == [7, 8]


def test_marks_are_spooled_while_another_process_drains(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, other = tracker_on(mortal.url), tracker_on(mortal.url, BITMAPIST_TIMEOUT=600)
    for one in (tracker, other):  # their threads would drain it too
        monkeypatch.setattr(one._deliverer()._flusher, "attend", lambda: None)
    mortal.kill()
    tracker.record([("e", 1, True, True, NOON)])
    mortal.start()
    spool = spool_of(tracker)

    def slow(marks: Sequence[Any]) -> None:
        began = time.monotonic()
        other.record([("e", 2, True, True, NOON)])
        assert time.monotonic() - began < 300  # it waits neither for us nor for Redis
        tracker._deliverer()._sender.write(marks)
        monkeypatch.undo()

    assert spool.drain(slow, trips=1)
    assert tracker.flush()
    assert mortal.ids() == [1, 2]


def test_what_is_appended_while_one_drains_is_drained_too(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, other = tracker_on(mortal.url), tracker_on(mortal.url)
    for one in (tracker, other):  # their threads would drain it too
        monkeypatch.setattr(one._deliverer()._flusher, "attend", lambda: None)
    mortal.kill()
    tracker.record([("e", 1, True, True, NOON)])
    mortal.start()
    spool = spool_of(tracker)
    late = [("e", 2, True, True, NOON)]

    look = spool._next_rows

    def look_too_early(db: sqlite3.Connection) -> list[Any]:
        rows = look(db)
        if not rows and late:
            other.record([late.pop()])
        return rows

    monkeypatch.setattr(spool, "_next_rows", look_too_early)
    assert spool.drain(tracker._deliverer()._sender.write, trips=5)
    assert mortal.ids() == [1, 2]


def test_marks_in_bulk_do_not_wait_for_a_silent_server(
    tmp_path: Path, tracker_on: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_bitmapist.server._PATIENCE", 600.0)  # of bulk writes
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/silent.sock")
        silent.listen(8)
        tracker_on(f"unix://{tmp_path}/silent.sock", BITMAPIST_TIMEOUT=0.2)
        began = time.monotonic()
        mark_event("e", range(5_000))
        assert time.monotonic() - began < 300


def test_a_spool_that_was_just_written_is_looked_into_again(
    tmp_path: Path, mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    spool = spool_of(tracker_on(mortal.url))
    marks = [_Settling(tracker_on(mortal.url))(Mark("e", 1))]
    # What waits for another server keeps the file.
    Spool(spool.path, Addresses(("other",), "other")).append(marks)
    now = time.time_ns() + 3_600 * 10**9  # whatever the machine's speed

    def write(change: Callable[[], object]) -> None:
        change()
        os.utime(spool.path, ns=(now, now))  # as within one tick of the clock

    write(lambda: spool.append(marks))
    assert spool.holds_marks()
    write(lambda: spool.drain(lambda drained: None, 5))
    assert not spool.holds_marks()
    write(lambda: spool.append(marks))
    assert spool.holds_marks()


def test_many_spooled_marks_go_in_trips_for_which_a_request_can_wait(
    mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(mortal.url)
    mortal.kill()
    mark_event("e", range(3_500), now=NOON)
    mark_event("e", 4_000, now=NOON)
    spool = spool_of(tracker)
    seen: list[int] = []
    while spool.holds_marks():
        spool.drain(lambda marks: seen.append(count(marks)), trips=1)
    assert [size for size in seen if size] == [1_000, 1_000, 1_000, 501]


@pytest.mark.parametrize(
    ("spoilt", "mended"),
    [
        ("ACL SETUSER default -setbit -bitfield", "ACL SETUSER default +setbit +bitfield"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
    ],
)
def test_what_a_server_cannot_take_now_waits(
    mortal: MortalServer,
    tracker_on: Callable[..., Tracker],
    caplog: pytest.LogCaptureFixture,
    spoilt: str,
    mended: str,
) -> None:
    tracker = tracker_on(mortal.url)
    with redis_py.Redis.from_url(mortal.url) as admin:
        mark_event("e", 1, now=NOON)
        admin.execute_command(*spoilt.split())
        mark_event("e", 2, now=NOON)
        assert not tracker.flush()
        admin.execute_command(*mended.split())
    assert tracker.flush()
    assert mortal.ids() == [1, 2]
    assert "refused" not in caplog.text


def test_a_server_that_was_emptied_is_learnt_again(
    mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(mortal.url)
    mark_event("e", ["a", "b", "c"], now=NOON)
    mark_event("plain", 5, now=NOON)
    with redis_py.Redis.from_url(mortal.url) as admin:
        admin.flushall()
        mark_event("e", "c", now=NOON)
        mark_event("e", "d", now=NOON)
        mark_event("plain", 7, now=NOON)
        assert mortal.ids() == [0, 1]
        assert tracker.reader.ids_at([0, 1], "") == ["c", "d"]
        assert admin.hgetall("flask_bitmapist:events") == {b"e": b"mapped", b"plain": b"plain"}
        assert admin.zscore("flask_bitmapist:first_days", "plain") == NOON.date().toordinal()


def test_threads_that_forget_what_is_known_lose_no_mark(
    mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(mortal.url)
    ends = threading.Event()

    def forget() -> None:
        while not ends.is_set():
            tracker._deliverer()._sender.forget_known()

    forgetting = threading.Thread(target=forget)
    forgetting.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for id_ in range(200):
            mark_event("e", id_, now=NOON)
    finally:
        sys.setswitchinterval(interval)
        ends.set()
        forgetting.join()
    assert mortal.ids() == [*range(200)]
    assert tracker.stats() == Stats(sent=200)


def test_a_spool_that_works_again_tells_what_was_lost(
    mortal: MortalServer,
    tracker_on: Callable[..., Tracker],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "folder"
    folder.write_text("a file, where a folder is to be")
    tracker_on(mortal.url, BITMAPIST_SPOOL=folder / "spool")
    mortal.kill()
    for id_ in (1, 2):
        mark_event("e", id_, now=NOON)
    folder.unlink()
    mark_event("e", 3, now=NOON)
    assert caplog.text.count("cannot be used") == 1
    assert "2 marks were lost meanwhile" in caplog.text


def test_marks_wait_while_another_process_creates_the_spool(
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


def test_marks_wait_though_others_keep_the_spool_locked(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
) -> None:
    """For longer than a call may wait; the last of a mark and an unmark decides."""
    tracker = tracker_on(mortal.url, BITMAPIST_TIMEOUT=0.1)
    mortal.kill()
    tracker.record([("e", 1, True, True, NOON)])
    with closing(sqlite3.connect(spool_of(tracker).path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for id_, value in ((2, True), (3, True), (2, False)):
            tracker.record([("e", id_, value, True, NOON)])
        assert tracker.stats().dropped == 0
        mortal.start()
    eventually(lambda: mortal.ids() == [1, 3])
    assert tracker.flush()
    assert "lost" not in caplog.text


def test_nothing_overtakes_what_waits_in_a_spool_that_others_keep_locked(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever cannot look whether anything waits takes it that something does."""
    one, other = (tracker_on(mortal.url, BITMAPIST_TIMEOUT=0.1) for _ in range(2))
    mortal.kill()
    gate = FileLock(spool_of(one).file.beside("-gate"))
    with one._deliverer()._flusher.alone(None), other._deliverer()._flusher.alone(None):
        mark(one, 1, 2)
        mortal.start()
        with gate.held():
            mark(other, 1, value=False)
        assert other.stats().dropped == 0
    assert other.flush()
    assert one.flush()
    assert mortal.ids() == [2]
    assert "lost" not in caplog.text


def test_what_is_refused_waits_though_others_keep_the_spool_locked(
    mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(mortal.url, BITMAPIST_TIMEOUT=0.1)
    mark(tracker, 1)
    redis = redis_py.Redis.from_url(mortal.url)
    redis.execute_command("ACL", "SETUSER", "default", "-setbit", "-bitfield")
    gate = FileLock(spool_of(tracker).file.beside("-gate"))
    with tracker._deliverer()._flusher.alone(None), gate.held():
        mark(tracker, 2)
    redis.execute_command("ACL", "SETUSER", "default", "+@all")
    eventually(tracker.flush)
    assert mortal.ids() == [1, 2]
    assert tracker.stats().dropped == 0


def mark(tracker: Tracker, *ids: int, value: bool = True) -> None:
    tracker.record([("e", id_, value, True, NOON) for id_ in ids])


def test_marks_of_a_signal_handler_wait_while_its_thread_is_in_the_spool(
    mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(mortal.url)
    mortal.kill()
    tracker.record([("e", 1, True, True, NOON)])
    spool_of(tracker).file.transact(lambda db: tracker.record([("e", 2, True, True, NOON)]))
    assert tracker.stats().dropped == 0
    mortal.start()
    eventually(tracker.flush)
    assert mortal.ids() == [1, 2]


def test_marks_that_wait_for_the_spool_survive_an_interruption(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a timeout of gevent, or Ctrl-C, while they are being written."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    tracker = tracker_on(mortal.url, BITMAPIST_TIMEOUT=0.1)
    mortal.kill()
    tracker.record([("e", 1, True, True, NOON)])
    monkeypatch.setattr("flask_bitmapist.delivery.flusher._threads_run", lambda: False)
    with closing(sqlite3.connect(spool_of(tracker).path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        tracker.record([("e", 2, True, True, NOON)])
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "append_all", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tracker.record([("e", 3, True, True, NOON)])
    mortal.start()
    eventually(tracker.flush)
    assert {1, 2} <= {*mortal.ids()}


def test_no_caller_probes_a_server_or_drains_the_spool(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_bitmapist.delivery.spool._ROWS_PER_TRIP", 10)
    tracker = tracker_on(mortal.url)
    mortal.kill()
    mark_event("e", 0, now=NOON)
    senders = watched_senders(monkeypatch)
    for id_ in range(1, 120):
        mark_event("e", id_, now=NOON)
    mortal.start()
    for id_ in range(120, 200):
        mark_event("e", id_, now=NOON)
    eventually(lambda: mortal.ids() == [*range(200)])
    eventually(lambda: not spool_of(tracker).holds_marks())
    assert senders == {"flask-bitmapist-delivery"}


def test_spooled_marks_arrive_after_an_outage_though_nobody_marks_any_more(
    mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    tracker_on(mortal.url)
    mortal.kill()
    mark_event("e", range(10), now=NOON)
    mortal.start()
    eventually(lambda: mortal.ids() == [*range(10)])


def test_an_outage_ends_when_the_server_answers_and_not_when_another_process_drains(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
) -> None:
    tracker = tracker_on(mortal.url)
    mortal.kill()
    mark_event("e", 1, now=NOON)
    with spool_of(tracker).alone():  # as if another process drained
        time.sleep(0.5)
        mark_event("e", 2, now=NOON)
        time.sleep(0.5)
        assert tracker.stats().breaker == "open"
    assert "takes marks again" not in caplog.text
    mortal.start()
    eventually(lambda: mortal.ids() == [1, 2])
    eventually(lambda: "takes marks again" in caplog.text)


def test_an_outage_lasts_until_the_server_takes_writes_though_it_answers(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
) -> None:
    tracker = tracker_on(mortal.url, BITMAPIST_SPOOL=False, BITMAPIST_TIMEOUT=10)
    mark_event("e", 1, now=NOON)
    with redis_py.Redis.from_url(mortal.url) as admin:
        admin.config_set("maxmemory", 1)
        for id_ in range(2, 12):
            mark_event("e", id_, now=NOON)
            time.sleep(0.06)
        assert [record.getMessage()[:25] for record in caplog.records] == [
            "Redis does not take marks"
        ]
        assert tracker.stats().breaker == "open"
        admin.config_set("maxmemory", 0)
    eventually(lambda: tracker.stats().breaker == "closed")
    assert "takes marks again" in caplog.text


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

    @pytest.fixture
    def short_queue(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The queue takes some 500 marks, and no thread empties it soon."""
        monkeypatch.setattr("flask_bitmapist.delivery.journal._SIZE", mmap.ALLOCATIONGRANULARITY)
        monkeypatch.setattr("flask_bitmapist.delivery.flusher._PAUSE", 60.0)

    @pytest.mark.usefixtures("short_queue")
    @pytest.mark.parametrize("spool", [True, False])
    def test_a_full_queue_loses_nothing(
        self, mortal: MortalServer, tracker_on: Callable[..., Tracker], spool: bool
    ) -> None:
        tracker = tracker_on(mortal.url, BITMAPIST_DELIVERY="background", BITMAPIST_SPOOL=spool)
        for id_ in range(1_000):
            mark_event("e", id_, now=NOON)
        mark_event("e", range(1_000, 1_500), now=NOON)
        unmark_event("e", range(1_200, 1_500), now=NOON)
        assert tracker.flush()
        assert mortal.ids() == list(range(1_200))

    def test_a_full_queue_asks_no_server(
        self,
        tmp_path: Path,
        tracker_on: Callable[..., Tracker],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("flask_bitmapist.delivery.journal._SIZE", mmap.ALLOCATIONGRANULARITY)
        senders = watched_senders(monkeypatch)
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(f"{tmp_path}/silent.sock")
            silent.listen(8)
            tracker = tracker_on(
                f"unix://{tmp_path}/silent.sock", BITMAPIST_DELIVERY="background",
                BITMAPIST_TIMEOUT=0.2,
            )  # fmt: skip
            for id_ in range(1_000):
                mark_event("e", id_)
            eventually(lambda: tracker.stats().backlog == 1_000)
        assert senders <= {"flask-bitmapist-delivery"}
        assert tracker.stats().dropped == 0

    @pytest.mark.usefixtures("short_queue")
    def test_a_full_queue_waits_for_no_server(
        self, mortal: MortalServer, tracker_on: Callable[..., Tracker]
    ) -> None:
        tracker = tracker_on(mortal.url, BITMAPIST_DELIVERY="background")
        for id_ in range(1_000):
            mark_event("e", id_, now=NOON)
        assert tracker.stats().spooled > 0
        assert tracker.stats().sent == 0

    @pytest.mark.usefixtures("short_queue")
    def test_what_overflows_does_not_overtake_what_was_queued(
        self, mortal: MortalServer, tracker_on: Callable[..., Tracker]
    ) -> None:
        tracker = tracker_on(mortal.url, BITMAPIST_DELIVERY="background")
        for id_ in range(450):
            mark_event("e", id_, now=NOON)
        unmark_event("e", range(1, 450), now=NOON)
        assert tracker.stats().spooled == 899
        assert tracker.flush()
        assert mortal.ids() == [0]

    def test_a_killed_process_loses_nothing_that_it_acknowledged(
        self, mortal: MortalServer, tmp_path: Path, tracker_on: Callable[..., Tracker]
    ) -> None:
        script = """
import sys
from datetime import datetime
from flask import Flask
from flask_bitmapist import FlaskBitmapist, mark_event
options = {"BITMAPIST_REDIS_URL": sys.argv[1], "BITMAPIST_DELIVERY": "background"}
FlaskBitmapist(Flask("app", instance_path=sys.argv[2]), options)
for id_ in range(10**7):
    mark_event("e", id_, now=datetime(2026, 3, 14))
    print(id_, flush=True)
"""
        arguments = [sys.executable, "-c", script, mortal.url, str(tmp_path)]
        acknowledged = tmp_path / "acknowledged"
        with (
            acknowledged.open("wb") as output,
            subprocess.Popen(arguments, stdout=output) as process,
        ):
            eventually(lambda: acknowledged.stat().st_size > 10_000)
            process.kill()
        told = {*map(int, acknowledged.read_text().rpartition("\n")[0].split())}
        assert not told <= {*mortal.ids()}, "some were only queued"
        tracker = tracker_on(
            mortal.url,
            BITMAPIST_DELIVERY="background",
            BITMAPIST_SPOOL=str(tmp_path / "bitmapist-spool.sqlite3"),
        )
        assert tracker.flush()
        assert told <= {*mortal.ids()}

    def test_where_no_thread_can_start_the_caller_delivers(
        self,
        mortal: MortalServer,
        tracker_on: Callable[..., Tracker],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        tracker_on(mortal.url, BITMAPIST_DELIVERY="background")

        def fail(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as limited:
            limited.setattr(threading.Thread, "start", fail)
            mark_event("e", 1, now=NOON)
            assert mortal.ids() == [1]

        def later_mark_arrives() -> bool:
            mark_event("e", 2, now=NOON)
            return mortal.ids() == [1, 2]

        eventually(later_mark_arrives)  # callers deliver ten times a second at most

    def test_a_process_reads_what_it_has_marked(
        self, mortal: MortalServer, tracker_on: Callable[..., Tracker]
    ) -> None:
        tracker = tracker_on(mortal.url, BITMAPIST_DELIVERY="background")
        for id_ in range(50):
            mark_event("e", id_)
            mark_event("texts", f"u{id_}")
            mark_unique("premium", id_)
            assert [*analytics.users("e")] == [*range(id_ + 1)]
            assert len(DayEvents.from_date("e")) == id_ + 1
            assert analytics.users("texts")[-1] == f"u{id_}"
            assert id_ in UniqueEvents("premium")
        assert get_event_names() == ["e", "premium", "texts"]
        assert tracker.redis.exists("trackist_premium_u")

    def test_a_report_does_not_wait_for_marks_that_a_dead_server_cannot_take(
        self, mortal: MortalServer, tracker_on: Callable[..., Tracker]
    ) -> None:
        tracker = tracker_on(mortal.url, BITMAPIST_DELIVERY="background")
        mark_event("e", 1)
        assert [*analytics.users("e")] == [1]
        mortal.kill()
        mark_event("e", 2)
        with pytest.raises(redis_py.ConnectionError):
            analytics.users("e")
        mortal.start()
        eventually(tracker.flush)
        assert [*analytics.users("e")] == [1, 2]

    def test_what_is_marked_while_the_process_ends_is_delivered(self, mortal: MortalServer) -> None:
        script = """
import atexit, sys
from datetime import datetime
from flask import Flask
from flask_bitmapist import FlaskBitmapist, mark_event
atexit.register(lambda: mark_event("e", 2, now=datetime(2026, 3, 14)))
FlaskBitmapist(
    Flask("app", instance_path=sys.argv[2]),
    {
        "BITMAPIST_REDIS_URL": sys.argv[1],
        "BITMAPIST_DELIVERY": "background",
        "BITMAPIST_TIMEOUT": 10,
    },
)
mark_event("e", 1, now=datetime(2026, 3, 14))
"""
        subprocess.run(
            [sys.executable, "-c", script, mortal.url, str(mortal.folder)], check=True, timeout=120
        )
        assert mortal.ids() == [1, 2]

    def test_the_queue_is_delivered_when_the_process_ends(self, mortal: MortalServer) -> None:
        script = """
import sys
from flask import Flask
from flask_bitmapist import FlaskBitmapist, mark_event
FlaskBitmapist(
    Flask("app", instance_path=sys.argv[2]),
    {
        "BITMAPIST_REDIS_URL": sys.argv[1],
        "BITMAPIST_DELIVERY": "background",
        "BITMAPIST_TIMEOUT": 10,
    },
)
mark_event("e", range(1_000), now=__import__("datetime").datetime(2026, 3, 14))
"""
        subprocess.run(
            [sys.executable, "-c", script, mortal.url, str(mortal.folder)], check=True, timeout=120
        )
        assert mortal.ids() == list(range(1_000))

    def test_a_forked_child_delivers_its_own_marks_and_not_its_parents(
        self, mortal: MortalServer
    ) -> None:
        script = """
import os, sys
from datetime import datetime
from flask import Flask
from flask_bitmapist import FlaskBitmapist, mark_event
from flask_bitmapist.delivery import flusher
flusher._PAUSE = 60.0
tracker = FlaskBitmapist(
    Flask("app", instance_path=sys.argv[2]),
    {
        "BITMAPIST_REDIS_URL": sys.argv[1],
        "BITMAPIST_DELIVERY": "background",
        "BITMAPIST_TIMEOUT": 10,
    },
).tracker
mark_event("e", 1, now=datetime(2026, 3, 14))
if os.fork() == 0:
    mark_event("e", 2, now=datetime(2026, 3, 14))
    os._exit(0 if tracker.flush() else 1)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
client = tracker.server.client  # through `tracker.redis` the parent would deliver
assert [client.getbit("trackist_e_2026-3-14", id_) for id_ in (1, 2)] == [0, 1]
"""
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script, mortal.url, str(mortal.folder)],
            check=True,
            timeout=120,
        )
        assert mortal.ids() == [1, 2]

    def test_children_that_end_at_once_take_over_what_earlier_ones_have_left(
        self, mortal: MortalServer
    ) -> None:
        script = """
import os, sys
from datetime import datetime
from flask import Flask
from flask_bitmapist import FlaskBitmapist, mark_event
app = Flask("app", instance_path=sys.argv[2])
FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": sys.argv[1], "BITMAPIST_DELIVERY": "background"})
for id_ in range(20):
    if os.fork() == 0:
        mark_event("e", id_, now=datetime(2026, 3, 14))
        os._exit(0)
    os.wait()
"""
        instance = mortal.folder / "instance"
        command = [sys.executable, "-W", "ignore", "-c", script, mortal.url, str(instance)]
        subprocess.run(command, check=True, timeout=120)
        assert len([*instance.glob("*-queue-*")]) < 4
        app = Flask("app", instance_path=str(instance))
        options = {"BITMAPIST_REDIS_URL": mortal.url, "BITMAPIST_TIMEOUT": 10}
        assert FlaskBitmapist(app, options).tracker.flush()
        assert mortal.ids() == [*range(20)]

    def test_a_fault_of_ours_is_not_the_end_of_its_thread(
        self,
        mortal: MortalServer,
        tracker_on: Callable[..., Tracker],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr("flask_bitmapist.delivery.flusher._IDLE", 0.1)
        tracker = tracker_on(mortal.url, BITMAPIST_DELIVERY="background")
        with monkeypatch.context() as faulty:
            faulty.setattr(tracker._deliverer()._courier, "work", lambda trips: 1 / 0)
            mark_event("e", 1, now=NOON)
            eventually(lambda: caplog.text.count("could not deliver marks") > 1)
        mark_event("e", 2, now=NOON)
        eventually(lambda: mortal.ids() == [1, 2])
        assert "ZeroDivisionError" in caplog.text

    def test_a_thread_that_is_ended_is_replaced(
        self,
        mortal: MortalServer,
        tracker_on: Callable[..., Tracker],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """By what is no Exception, such as SystemExit: the marks need no next one to arrive."""
        monkeypatch.setattr("flask_bitmapist.delivery.flusher._IDLE", 0.1)
        app = Flask(__name__, instance_path=str(mortal.folder / "instance"))
        options = {"BITMAPIST_DELIVERY": "background", "BITMAPIST_REDIS_URL": mortal.url}
        FlaskBitmapist(app, options)
        ends = [True, True]

        def end(app: Flask, **told: object) -> None:
            if ends.pop():
                sys.exit("a receiver's own way to end its thread")

        with delivery_degraded.connected_to(end, app):
            mortal.kill()
            mark_event("e", 1, now=NOON)
            eventually(lambda: "a receiver's own way" in caplog.text)
        mortal.start()
        eventually(lambda: mortal.ids() == [1])
        assert "Another one goes on" in caplog.text

    def test_its_thread_begins_with_what_others_have_left(
        self,
        mortal: MortalServer,
        tracker_on: Callable[..., Tracker],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("flask_bitmapist.delivery.flusher._PAUSE", 600.0)
        tracker_on(mortal.url)
        mortal.kill()
        mark_event("e", 1, now=NOON)
        mortal.start()
        later = tracker_on(mortal.url, BITMAPIST_DELIVERY="background")
        mark_event("e", 2, now=NOON)
        eventually(lambda: mortal.ids() == [1])
        assert later.flush()
        assert mortal.ids() == [1, 2]

    def test_its_thread_ends_when_there_is_nothing_to_do(
        self,
        mortal: MortalServer,
        tracker_on: Callable[..., Tracker],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("flask_bitmapist.delivery.flusher._PAUSE", 0.01)
        monkeypatch.setattr("flask_bitmapist.delivery.recent._AGE", 0.1)
        tracker_on(mortal.url, BITMAPIST_DELIVERY="background")
        others = delivery_threads()
        for id_ in (1, 2):
            mark_event("e", id_, now=NOON)
            assert delivery_threads() - others
            with monkeypatch.context() as patched:
                patched.setattr("flask_bitmapist.delivery.flusher._IDLE", 0.0)
                eventually(lambda: not delivery_threads() - others)
        assert mortal.ids() == [1, 2]


def watched_senders(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the threads in which trackers send anything from now on."""
    senders = set[str]()
    original: Any = AbstractConnection.send_packed_command

    def send(self: AbstractConnection, command: object, check_health: bool = True) -> None:
        if isinstance(self, Punctual):  # and not the test's own
            senders.add(threading.current_thread().name)
        original(self, command, check_health)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", send)
    return senders


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


def test_a_mark_that_comes_as_the_thread_ends_is_delivered(
    mortal: MortalServer, tracker_on: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_bitmapist.delivery.flusher._IDLE", 0.0)
    tracker = tracker_on(mortal.url, BITMAPIST_DELIVERY="background")
    tracker.record([("other", 1)])
    eventually(lambda: tracker.stats().sent == 1)
    tracker.mark("other", 1)  # from here on the fast way
    delivery = tracker._deliverer()
    queue, flusher = delivery._queue, delivery._flusher
    assert queue is not None
    eventually(lambda: not flusher.runs)
    add, flusher.runs = queue.add, True  # as a mark finds it a moment before

    def late(*mark: Any) -> bool:
        flusher.runs = False
        return add(*mark)

    monkeypatch.setattr(queue, "add", late)
    tracker.mark("other", 2)
    eventually(lambda: tracker.stats().sent == 3)


@pytest.mark.skipif(sys.platform == "win32", reason="has no interval timer")
@pytest.mark.parametrize("delivery", ["immediate", "background"])
def test_a_signal_handler_marks_wherever_it_comes_between(
    mortal: MortalServer, delivery: str
) -> None:
    """Else a lock that its own thread holds would keep it, and the process, for ever."""
    script = """
import faulthandler, signal, sys
from datetime import datetime
from flask import Flask
from flask_bitmapist import FlaskBitmapist
tracker = FlaskBitmapist(Flask("app", instance_path=sys.argv[2]), {
    "BITMAPIST_REDIS_URL": sys.argv[1], "BITMAPIST_DELIVERY": sys.argv[3], "BITMAPIST_TIMEOUT": 10,
}).tracker
tracker.stats()
handled, made, is_handling = 0, 0, False

def handle(*_):
    global handled, is_handling
    if not is_handling:
        is_handling = True
        tracker.record([("e", handled, True, True, datetime(2026, 3, 14, 12))])
        handled += 1
        is_handling = False

signal.signal(signal.SIGALRM, handle)
faulthandler.dump_traceback_later(60, exit=True)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0003)
while handled < 1000:
    tracker.mark("other", made % 10_000)
    made += 1
    if not made % 1000:
        tracker.flush()
signal.setitimer(signal.ITIMER_REAL, 0)
assert tracker.flush()
print(handled)
"""
    handled = subprocess.check_output(
        [sys.executable, "-c", script, mortal.url, str(mortal.folder), delivery]
    )
    assert mortal.ids() == [*range(int(handled))]


@pytest.mark.parametrize("delivery", ["immediate", "background"])
@pytest.mark.parametrize("module", ["journal", "writer", "sender"])
def test_a_signal_handler_marks_while_delivery_is_being_imported(
    mortal: MortalServer, delivery: str, module: str
) -> None:
    """The import looks for a module where the signal could come."""
    script = """
import sys
from datetime import datetime
from flask import Flask
from flask_bitmapist import FlaskBitmapist
tracker = FlaskBitmapist(Flask("app", instance_path=sys.argv[2]), {
    "BITMAPIST_REDIS_URL": sys.argv[1], "BITMAPIST_DELIVERY": sys.argv[3], "BITMAPIST_TIMEOUT": 10,
}).tracker

class Signal:
    def find_spec(self, name, *_):
        if name == "flask_bitmapist.delivery." + sys.argv[4]:
            sys.meta_path.remove(self)
            mark(1)

def mark(id_):
    tracker.record([("e", id_, True, True, datetime(2026, 3, 14, 12))])

sys.meta_path.insert(0, Signal())
mark(2)
"""
    run(script, mortal.url, str(mortal.folder), delivery, module)
    assert mortal.ids() == [1, 2]


def test_a_forked_child_waits_for_no_thread_of_its_parent(mortal: MortalServer) -> None:
    """Each lock is held by a thread when the process forks, as any may be at that moment."""
    script = """
import os, signal, sys, threading
from flask import Flask
from flask_bitmapist import FlaskBitmapist, locks
tracker = FlaskBitmapist(Flask("app", instance_path=sys.argv[2]),
                         {"BITMAPIST_REDIS_URL": sys.argv[1], "BITMAPIST_TIMEOUT": 10}).tracker
tracker.stats()
held = [*locks._locks]
assert len(held) >= 4
for lock in held:
    holder = threading.Thread(target=lock.acquire)
    holder.start()
    holder.join()
if os.fork() == 0:
    signal.alarm(60)
    tracker.record([("e", 1)])
    tracker._delivery = None
    tracker.record([("e", 2)])
    tracker._deliverer()._outage.breaker.trip()
    os._exit(0 if tracker.stats().sent == 1 else 1)
os._exit(os.waitstatus_to_exitcode(os.wait()[1]))  # its locks stay held
"""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, mortal.url, str(mortal.folder)],
        check=True,
        timeout=90,
    )


@pytest.mark.parametrize("told", [True, False], ids=["os.fork", "untold"])
def test_a_forked_child_counts_its_own_marks_alone(mortal: MortalServer, told: bool) -> None:
    """Also where Python is not told, as under uWSGI."""
    script = """
import ctypes, os, sys
from flask import Flask
from flask_bitmapist import FlaskBitmapist
tracker = FlaskBitmapist(Flask("app"), {
    "BITMAPIST_REDIS_URL": sys.argv[1], "BITMAPIST_SPOOL": False, "BITMAPIST_TIMEOUT": 10,
}).tracker
tracker.record([("e", 1)])
tracker.publish([("f", 1), ("f", "of another kind")])
tracker._deliverer()._shelter.lose(1)
before = tracker.stats()
assert before.refused == before.dropped == 1
fork = os.fork if sys.argv[2] == "True" else ctypes.CDLL(None).fork
if fork() == 0:
    first = tracker.stats()
    tracker.record([("e", 2)])
    print(first.sent, first.refused, first.dropped, tracker.stats().sent, flush=True)
    os._exit(0)
os.wait()
assert tracker.stats() == before
"""
    assert run(script, mortal.url, str(told)) == "0 0 0 1"


@pytest.mark.parametrize("told", [True, False], ids=["Python is told", "as uWSGI forks"])
@pytest.mark.parametrize("delivery", ["background", "immediate"])
def test_each_forked_child_counts_its_own_trips(
    mortal: MortalServer, told: bool, delivery: str
) -> None:
    """What a server has lost does not show in a count that others raise, too."""
    script = """
import ctypes, os, sys
from flask import Flask
from flask_bitmapist import FlaskBitmapist
tracker = FlaskBitmapist(Flask("app"), {
    "BITMAPIST_REDIS_URL": sys.argv[1], "BITMAPIST_DELIVERY": sys.argv[3],
    "BITMAPIST_TIMEOUT": 10,
}).tracker
tracker.record([("e", 1)])
assert tracker.flush()
fork = os.fork if sys.argv[2] == "True" else ctypes.CDLL(None).fork
for child in range(2):
    if fork() == 0:
        tracker.record([("e", 2)])
        assert tracker.flush()
        os._exit(0)
    os.wait()
print(len(tracker.redis.keys("flask_bitmapist:trips:*")))
"""
    assert run(script, mortal.url, str(told), delivery) == "3"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.parametrize("told", [True, False], ids=["Python is told", "as uWSGI forks"])
@pytest.mark.parametrize("delivery", ["background", "immediate"])
def test_a_forked_child_does_not_take_its_parents_losses_for_its_own(
    mortal: MortalServer, told: bool, delivery: str
) -> None:
    """Nor what waits in its memory, nor what it has to tell."""
    script = """
import ctypes, logging, os, sqlite3, sys
from pathlib import Path
from flask import Flask
from flask_bitmapist import FlaskBitmapist
from flask_bitmapist.signals import delivery_recovered
logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.WARNING)
logging.disable(logging.CRITICAL)
folder = Path(sys.argv[2])
folder.write_text("a file, where a folder is to be")
app = Flask("app")
tracker = FlaskBitmapist(app, {
    "BITMAPIST_REDIS_URL": "redis://127.0.0.1:1", "BITMAPIST_SPOOL": folder / "spool",
    "BITMAPIST_DELIVERY": sys.argv[4],
}).tracker
delivery = tracker._deliverer()
delivery._flusher.enter()
shelter = delivery._shelter
mark = tracker._settled("e", [1])
shelter.keep([(0.0, mark)])
shelter.lose(1)
shelter._pending.append((0.0, mark))
fork = os.fork if sys.argv[3] == "True" else ctypes.CDLL(None).fork
if fork() == 0:
    folder.unlink()
    logging.disable(logging.NOTSET)
    tracker.record([("e", 2)])
    assert not tracker.flush()
    print(len(shelter._pending), tracker.stats().backlog, flush=True)
    os._exit(0)
os.wait()
"""
    told_of = run(script, mortal.url, f"{mortal.folder}/folder", str(told), delivery)
    assert told_of.splitlines()[-1] == "0 1"
    assert "marks were lost" not in told_of


@pytest.mark.parametrize("delivery", ["immediate", "background"])
def test_over_tls_an_outage_loses_nothing(
    mortal: MortalServer,
    tracker_on: Callable[..., Tracker],
    certificate: Path,
    delivery: str,
) -> None:
    with serving(Proxy(mortal.folder / "server.sock")) as proxy:
        proxy.use_tls(certificate)
        url = f"rediss://localhost:{proxy.port}?ssl_ca_certs={certificate}"
        tracker = tracker_on(url, BITMAPIST_DELIVERY=delivery)
        mark(tracker, 0)
        assert tracker.flush()
        mortal.kill()
        mark(tracker, *range(1, 500))
        assert not tracker.flush()
        mortal.start()
        mark(tracker, *range(500, 1_000))
        eventually(tracker.flush)
        assert mortal.ids() == [*range(1_000)]
        tracker.close()


def test_an_outage_leaves_the_applications_random_numbers_alone() -> None:
    before = random.getstate()
    Breaker().trip()
    assert random.getstate() == before


def open_files(folder: Path) -> list[str]:
    """The files in `folder` that this process has open or mapped."""
    names = list[str]()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # as of the folder itself
            names.append(str(link.readlink()))
    names += [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()]
    return [name for name in names if name.startswith(str(folder))]


class TestEnd:
    """A tracker goes before its process does."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "instance"

    @pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it looks into /proc")
    @pytest.mark.parametrize("delivery", ["background", "immediate"])
    def test_apps_that_are_dropped_leave_nothing_behind(
        self, mortal: MortalServer, folder: Path, delivery: str
    ) -> None:
        """As in tests and with application factories; what they have queued is delivered."""
        others = delivery_threads()
        for id_ in range(5):
            app = Flask("dropped", instance_path=str(folder))
            options = {"BITMAPIST_DELIVERY": delivery, "BITMAPIST_REDIS_URL": mortal.url}
            FlaskBitmapist(app, options).tracker.record([("e", id_, True, True, NOON)])
            with app.app_context():
                mark_event("e", 10 + id_, now=NOON)
            del app
            gc.collect()
        current._Process.tracker = None
        gc.collect()
        eventually(lambda: not delivery_threads() - others)
        assert mortal.ids() == [*range(5), *range(10, 15)]
        assert not open_files(folder)
        assert not [*folder.glob("*-queue-*")]

    def test_the_garbage_collector_waits_for_nobody_at_work(
        self, mortal: MortalServer, folder: Path
    ) -> None:
        """It may run in the middle of anything, also of what has the lock."""
        app = Flask("dropped", instance_path=str(folder))
        bitmapist = FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": mortal.url})
        bitmapist.tracker.record([("e", 1, True, True, NOON)])
        flusher = bitmapist.tracker._deliverer()._flusher
        working, goes_on = threading.Event(), threading.Event()

        def work() -> None:
            with flusher.alone(None):
                working.set()
                goes_on.wait(60)

        other = threading.Thread(target=work)
        other.start()
        working.wait()
        del app, bitmapist
        current._Process.tracker = None
        collected = threading.Thread(target=gc.collect)
        collected.start()
        collected.join(30)
        assert not collected.is_alive()
        goes_on.set()
        other.join()

    @pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it looks into /proc")
    def test_a_tracker_that_is_closed_has_delivered_all_and_let_go_of_all(
        self, mortal: MortalServer, tracker_on: Callable[..., Tracker], folder: Path
    ) -> None:
        others = delivery_threads()
        tracker = tracker_on(mortal.url, BITMAPIST_DELIVERY="background")
        mark_event("e", range(1_000), now=NOON)
        tracker.close()
        assert mortal.ids() == [*range(1_000)]
        assert not delivery_threads() - others
        assert not open_files(folder)
        tracker.close()
        mark_event("e", 1_000, now=NOON)  # at once
        assert mortal.ids() == [*range(1_001)]

    def test_a_tracker_that_is_closed_in_an_outage_leaves_its_marks_in_the_spool(
        self, mortal: MortalServer, tracker_on: Callable[..., Tracker]
    ) -> None:
        others = delivery_threads()
        for delivery in ("background", "immediate"):
            tracker = tracker_on(mortal.url, BITMAPIST_DELIVERY=delivery)
            mark_event("e", 1, now=NOON)
            mortal.kill()
            mark_event("e", 2, now=NOON)
            tracker.close()
            assert not delivery_threads() - others
            mortal.start()
            assert tracker_on(mortal.url).flush()
            assert mortal.ids() == [1, 2]

    def test_marks_that_wait_in_memory_are_in_the_spool_when_the_process_has_ended(
        self, mortal: MortalServer, tracker_on: Callable[..., Tracker]
    ) -> None:
        """Though they are made at once, and others had the spool locked."""
        tracker = tracker_on(mortal.url, BITMAPIST_TIMEOUT=0.1)
        mortal.kill()
        mark_event("e", 1, now=NOON)
        with closing(sqlite3.connect(spool_of(tracker).path, isolation_level=None)) as locker:
            locker.execute("BEGIN EXCLUSIVE")
            with tracker._deliverer()._flusher.alone(None):
                mark_event("e", 2, now=NOON)
            locker.execute("ROLLBACK")
        tracker.close()
        mortal.start()
        assert tracker_on(mortal.url).flush()
        assert mortal.ids() == [1, 2]
