"""Reports from a replica: the master gets the marks, and answers no question."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import redis as redis_py
from flask import Flask
from nodes import Node, free_ports
from servers import eventually
from test_exercise import COMMANDS, PAGES, START

from flask_bitmapist import DayEvents, FlaskBitmapist, MonthEvents, analytics
from flask_bitmapist.marks import Mark

#: Commands that only look at what has been marked.
READING = {
    *("get", "mget", "getrange", "getbit", "bitcount", "bitpos", "strlen", "exists"),
    *("hget", "hgetall", "hmget", "zrange", "zmscore", "zscore", "lrange", "scan"),
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    folder = tmp_path_factory.mktemp("replica")
    ports = free_ports(2)
    master = Node(folder, ports[0], {"repl-diskless-sync-delay": 0})
    replica = Node(folder, ports[1], {"replicaof": f"127.0.0.1 {ports[0]}"})
    try:
        for node in (master, replica):
            node.start()
        yield master, replica
    finally:
        for node in (master, replica):
            node.thaw()
            node.kill()


@pytest.fixture
def master(both: tuple[Node, Node]) -> Node:
    for node in both:
        node.thaw()
    eventually(lambda: both[1].replication("master_link_status") == "up")
    both[0].client.flushall()
    return both[0]


@pytest.fixture
def replica(both: tuple[Node, Node], master: Node) -> Node:
    return both[1]


@pytest.fixture
def app(master: Node, replica: Node, tmp_path: Path) -> Iterator[Flask]:
    app = Flask(__name__, instance_path=str(tmp_path))
    options = {
        "BITMAPIST_REDIS_URL": f"redis://127.0.0.1:{master.port}",
        "BITMAPIST_TIMEOUT": 10,
        "BITMAPIST_TRACK_HOURLY": True,
    }
    reading = redis_py.Redis(port=replica.port)
    extension = FlaskBitmapist(app, options, read_client=reading)
    extension.dashboard_access(lambda: True)
    yield app
    extension.tracker_of(app).server.close()


def mark(app: Flask, master: Node) -> None:
    tracker = app.extensions["bitmapist"].tracker_of(app)
    for day in range(10):
        when = START + timedelta(days=day)
        tracker.record([Mark("user:logged_in", id_, when=when) for id_ in range(day, 20)])
        tracker.record([Mark("user:created", id_, when=when) for id_ in range(20)])
        tracker.record([Mark("device:seen", f"d{id_}", when=when) for id_ in range(3)])
    tracker.record([Mark("user:premium", id_, dated=False) for id_ in range(5, 10)])
    assert tracker.stats().sent == 10 * (20 + 3) + sum(range(11, 21)) + 5
    assert master.client.wait(1, 60_000) == 1


def test_pages_commands_and_events_ask_the_replica_alone(
    app: Flask, master: Node, replica: Node
) -> None:
    mark(app, master)
    for node in (master, replica):
        node.client.config_resetstat()
    for page in PAGES:
        answer = app.test_client().get(f"/bitmapist/{page}")
        assert (page, answer.status_code) == (page, 200)
        assert "read from a replica, which heard from its master" in answer.text
    for command in COMMANDS:
        if command != ("reindex",):
            result = app.test_cli_runner().invoke(args=["bitmapist", *command])
            assert (command, result.exit_code, result.exception) == (command, 0, None)
    with app.app_context():
        both = DayEvents.from_date("user:logged_in", START) & MonthEvents.from_date(
            "user:created", START
        )
        assert len(both) == 20
        assert list(DayEvents.from_date("device:seen", START)) == ["d0", "d1", "d2"]
        assert analytics.count("user:logged_in", by="day", at=START) == 20
    asked = {name.removeprefix("cmdstat_") for name in master.client.info("commandstats")}
    assert asked & READING == set()
    asked = {name.removeprefix("cmdstat_") for name in replica.client.info("commandstats")}
    assert asked & READING


def test_what_is_deleted_is_deleted_on_the_master(app: Flask, master: Node) -> None:
    mark(app, master)
    with app.app_context():
        day = DayEvents.from_date("user:created", START)
        day.delete()
        assert master.client.wait(1, 60_000) == 1
        assert len(day) == 0
    assert not master.client.exists(day.redis_key)


def test_figures_without_a_master_are_shown_and_said_to_be_old(
    app: Flask, master: Node, replica: Node
) -> None:
    mark(app, master)
    # Not killed: its data are to be there for the next test.
    master.client.execute_command("REPLICAOF", "127.0.0.1", "1")
    replica.client.config_set("repl-timeout", 1)
    try:
        eventually(lambda: replica.replication("master_link_status") != "up")
        page = app.test_client().get("/bitmapist/lifecycle?event=user:logged_in")
        assert page.status_code == 200
        assert "read from a replica that lost its master" in page.text
        command = ("lifecycle", "user:logged_in", "--json")
        result = app.test_cli_runner().invoke(args=["bitmapist", *command])
        assert json.loads(result.stdout)["replica"]["connected"] is False
    finally:
        master.client.execute_command("REPLICAOF", "NO", "ONE")
        replica.client.config_set("repl-timeout", 60)


def test_reports_come_while_the_master_is_silent(app: Flask, master: Node) -> None:
    mark(app, master)
    master.freeze()
    assert app.test_client().get("/bitmapist/lifecycle?event=user:logged_in").status_code == 200
    result = app.test_cli_runner().invoke(args=["bitmapist", "show", "user:logged_in"])
    assert (result.exit_code, result.exception) == (0, None)


def test_without_a_client_for_reading_nothing_is_said(redis_url: str, tmp_path: Path) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    options = {"BITMAPIST_REDIS_URL": redis_url}
    tracker = FlaskBitmapist(app, options, read_client=redis_py.Redis.from_url(redis_url)).tracker
    tracker.record([("e", 1, True, True, datetime(2026, 3, 14))])
    told = app.test_cli_runner().invoke(args=["bitmapist", "events", "--json"])
    assert "replica" not in told.output
    tracker.server.close()
