"""However slow a server or the way to it is, marking takes `BITMAPIST_TIMEOUT` and no longer."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
import slow
from redis.sentinel import Sentinel
from servers import MortalServer, eventually, free_port, sentinel
from slow import Proxy, serving

from flask_bitmapist.clients import from_url
from flask_bitmapist.deadline import time_left, within
from flask_bitmapist.tracker import Tracker

TIMEOUT = 0.25
#: The promise is TIMEOUT + 50 ms; a busy machine gets as long again, and three attempts. Without a
#: deadline these calls take 0.6 to 5 seconds.
LONGEST = TIMEOUT + 0.25
ATTEMPTS = 3

PACES = [slow.late, slow.dripping, slow.never]


@pytest.fixture
def marking(tracker_on: Callable[..., Tracker]) -> Callable[..., Tracker]:
    """Makes trackers that wait for `TIMEOUT`, and share no spool."""
    number = itertools.count()

    def make(url: str | None = None, client: Any = None) -> Tracker:
        return tracker_on(url, client, instance=f"own{next(number)}", BITMAPIST_TIMEOUT=TIMEOUT)

    return make


def assert_ends_in_time(make: Callable[[], Tracker], prepare: Callable[[Tracker], None]) -> None:
    """Marking on a new tracker takes no longer than it may, and no mark is lost."""
    took = []
    for _ in range(ATTEMPTS):
        tracker = make()
        prepare(tracker)
        before = tracker.stats()
        start = time.monotonic()
        tracker.record([("timed", 1)])
        took.append(time.monotonic() - start)
        after = tracker.stats()
        assert after.sent - before.sent + after.spooled - before.spooled == 1
        if took[-1] < LONGEST:
            return
    raise AssertionError(f"it took {took} seconds")


def mark_in_time(tracker: Tracker) -> None:
    """Mark once, however busy the machine is."""
    tracker.server.timeout = 10
    tracker.record([("timed", 0)])
    assert tracker.stats().sent == 1
    tracker.server.timeout = TIMEOUT


@pytest.fixture
def upstream(server: Any) -> Path:
    return Path(server.socket)


@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("known", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("over", ["tcp", "unix", "tls"])
def test_a_mark_takes_no_longer_than_the_timeout(
    pace: slow.Pace,
    known: bool,
    over: str,
    upstream: Path,
    redis_url: str,
    tmp_path: Path,
    certificate: Path,
    marking: Callable[..., Tracker],
) -> None:
    with ExitStack() as stack:
        outer = None
        if over == "unix":
            outer = stack.enter_context(serving(Proxy(upstream, tmp_path / "s")))
            url = f"unix://{tmp_path / 's'}?"
        elif over == "tcp":
            outer = stack.enter_context(serving(Proxy(upstream)))
            url = f"redis://127.0.0.1:{outer.port}?"
        else:
            inner = stack.enter_context(serving(Proxy(upstream)))
            inner.use_tls(certificate)
            outer = stack.enter_context(serving(Proxy(inner.port)))
            url = f"rediss://localhost:{outer.port}?ssl_ca_certs={certificate}&"
        url += redis_url.partition("?")[2].partition("&")[
            0
        ]  # the database, which is to be selected

        def prepare(tracker: Tracker) -> None:
            outer.pace = slow.at_once
            if known:
                mark_in_time(tracker)
            outer.pace = pace

        assert_ends_in_time(lambda: marking(url), prepare)


def test_when_time_is_up_redis_errors_are_raised_and_no_others(redis_url: str) -> None:
    client = from_url(redis_url, wait=10, timeout=10)
    for _ in range(2):  # without a connection, and with one
        with within(-1), pytest.raises(redis_py.TimeoutError):
            client.ping()
        client.ping()


@pytest.mark.parametrize("timeout", [0.25, 60])
def test_bulk_writes_and_reports_have_no_deadline(
    timeout: float, redis_url: str, tracker_on: Callable[..., Tracker]
) -> None:
    server = tracker_on(redis_url, BITMAPIST_TIMEOUT=timeout).server
    with within(-1):
        assert server.patient.ping()
        with pytest.raises(redis_py.TimeoutError):
            server.quick.ping()


def test_an_embedded_server_that_stands_still_costs_no_more_than_the_timeout(
    tmp_path: Path, marking: Callable[..., Tracker]
) -> None:
    url = f"embedded://{tmp_path}/server"

    def stop(tracker: Tracker) -> None:
        mark_in_time(tracker)
        process = tracker.server.client.info("server")["process_id"]
        os.kill(process, signal.SIGSTOP)
        stopped.append(process)
        tracker.server.quick.connection_pool.disconnect()  # it is greeted anew, which takes replies

    stopped: list[int] = []
    try:
        assert_ends_in_time(lambda: marking(url), stop)
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)


def test_the_start_of_an_embedded_server_is_not_counted(
    tmp_path: Path, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(f"embedded://{tmp_path}/server", BITMAPIST_TIMEOUT=10)
    took = time.monotonic()
    with within(10):
        before = time_left(None)
        assert tracker.server.quick.ping()
        after = time_left(None)
    took = time.monotonic() - took
    assert before is not None
    assert after is not None
    assert before - after < took / 2


def test_a_locked_spool_costs_no_more_than_the_timeout(marking: Callable[..., Tracker]) -> None:
    took = []
    for _ in range(ATTEMPTS):
        tracker = marking("redis://127.0.0.1:1")
        tracker.record([("timed", 1)])
        spool = tracker.settings.spool
        assert spool is not None
        with closing(sqlite3.connect(spool, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            start = time.monotonic()
            tracker.record([("timed", 2)])
            took.append(time.monotonic() - start)
        if took[-1] < LONGEST:
            return
    raise AssertionError(f"it took {took} seconds")


def test_a_dead_address_leaves_time_for_the_next_one(
    upstream: Path, marking: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Proxy(upstream)) as proxy, full_backlog(proxy.port) as dead:
        answer_names(monkeypatch, lambda: [dead, "127.0.0.1"])
        tracker = marking(f"redis://two.example:{proxy.port}")
        tracker.server.timeout = 2  # for a busy machine
        for _ in range(ATTEMPTS):
            tracker.record([("timed", 1)])
        assert tracker.stats().sent + tracker.stats().replayed > 0


@pytest.mark.parametrize("silent", ["master", "Sentinel"])
def test_behind_sentinel_a_mark_takes_no_longer_either(
    silent: str, tmp_path: Path, marking: Callable[..., Tracker]
) -> None:
    master = MortalServer(tmp_path)
    port = free_port()
    master.start("--port", str(port))
    try:
        with (
            serving(Proxy(port)) as way,
            sentinel(tmp_path, "ours", way.port) as sentinel_port,
            serving(Proxy(sentinel_port)) as proxy,
        ):
            manager = Sentinel([("127.0.0.1", proxy.port)], socket_timeout=5)
            asked: Any = manager.sentinels[0]
            eventually(lambda: asked.sentinel_master("ours")["flags"] == "master")

            def silence(tracker: Tracker) -> None:
                (way if silent == "master" else proxy).pace = slow.never

            assert_ends_in_time(lambda: marking(client=manager.master_for("ours")), silence)
            for one in manager.sentinels:
                one.connection_pool.disconnect()
    finally:
        master.kill()


def test_a_name_that_nobody_resolves_costs_no_more_than_the_timeout(
    marking: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    def later() -> list[str]:
        answered.wait()
        return ["127.0.0.1"]

    answer_names(monkeypatch, later)
    assert_ends_in_time(lambda: marking("redis://slow.example"), lambda tracker: None)
    answered.set()


def test_a_name_that_does_not_exist_is_said(
    marking: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
) -> None:
    assert_ends_in_time(lambda: marking("redis://nowhere.invalid"), lambda tracker: None)
    assert "nowhere.invalid" in caplog.text


def answer_names(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], list[str]]) -> None:
    """Have names under .example resolved by `answer`."""
    resolve = socket.getaddrinfo

    def resolved(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        if not str(host).endswith(".example") or options.get("flags"):
            return resolve(host, port, *more, **options)
        return [found for address in answer() for found in resolve(address, port, *more)]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)


@contextmanager
def full_backlog(port: int) -> Iterator[str]:
    """An address that lets nobody connect, and says nothing."""
    address = "127.0.0.2"
    with socket.socket() as listener, ExitStack() as waiting:
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(3):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex((address, port))
        yield address


def test_waiting_for_a_connection_is_part_of_the_time(
    upstream: Path, marking: Callable[..., Tracker]
) -> None:
    with serving(Proxy(upstream)) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}?max_connections=1&timeout=20"

        def take_half(tracker: Tracker) -> None:
            proxy.pace = slow.at_once
            mark_in_time(tracker)
            proxy.pace = slow.never
            borrower = tracker.server.quick.client()
            threading.Timer(TIMEOUT / 2, borrower.close).start()

        assert_ends_in_time(lambda: marking(url), take_half)
