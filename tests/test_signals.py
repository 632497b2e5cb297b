"""An application that listens is told when delivery degrades, and when it has recovered."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from servers import MortalServer, eventually

from flask_bitmapist import FlaskBitmapist, mark_event
from flask_bitmapist.signals import delivery_degraded, delivery_recovered
from flask_bitmapist.tracker import Tracker

NOON = datetime(2026, 3, 14, 12, 30)

Told = list[tuple[str, str, str]]


@pytest.fixture
def app(tmp_path: Path, mortal: MortalServer, monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setattr("flask_bitmapist.delivery.breaker._SHORTEST_BREAK", 0.05)
    monkeypatch.setattr("flask_bitmapist.delivery.breaker._LONGEST_BREAK", 0.05)
    app = Flask(__name__, instance_path=str(tmp_path / "instance"))
    options = {"BITMAPIST_REDIS_URL": mortal.url, "BITMAPIST_TIMEOUT": 10}
    FlaskBitmapist(app, options)
    return app


@pytest.fixture
def tracker(app: Flask) -> Tracker:
    tracker: Tracker = app.extensions["bitmapist"].tracker_of(app)
    return tracker


@pytest.fixture
def told(app: Flask) -> Iterator[Told]:
    """The signals of `app`: which one, of which part, and why."""
    heard: Told = []

    def degraded(sender: Flask, part: str, reason: str, **_: Any) -> None:
        assert sender is app
        heard.append(("degraded", part, reason))

    def recovered(sender: Flask, part: str, **_: Any) -> None:
        heard.append(("recovered", part, ""))

    degrades = delivery_degraded.connected_to(degraded, app)
    with degrades, delivery_recovered.connected_to(recovered, app):
        yield heard


def mark(ids: range) -> None:
    for id_ in ids:
        mark_event("e", id_, now=NOON)


def test_an_outage_is_told_once_and_so_is_its_end(
    mortal: MortalServer, tracker: Tracker, told: Told
) -> None:
    mark(range(3))
    assert told == []
    mortal.kill()
    mark(range(3, 9))
    eventually(lambda: told)
    mortal.start()
    eventually(tracker.flush)
    eventually(lambda: len(told) > 1)
    mark(range(9, 12))
    assert [one[:2] for one in told] == [("degraded", "server"), ("recovered", "server")]
    assert "server.sock" in told[0][2]


def test_a_spool_that_cannot_be_used_is_told_too(
    mortal: MortalServer, tracker: Tracker, told: Told, tmp_path: Path
) -> None:
    folder = tmp_path / "instance"
    folder.write_text("a file, where a folder is to be")
    mortal.kill()
    mark(range(5))
    folder.unlink()
    mark(range(5, 6))
    mortal.start()
    eventually(tracker.flush)
    eventually(lambda: len(told) == 4)
    assert {one[:2] for one in told} == {
        ("degraded", "server"),
        ("degraded", "spool"),
        ("recovered", "spool"),
        ("recovered", "server"),
    }


def test_the_signals_of_another_app_are_not_heard(
    mortal: MortalServer, tracker: Tracker, told: Told, tmp_path: Path
) -> None:
    other = Flask("other", instance_path=str(tmp_path / "other"))
    extension = FlaskBitmapist(other, {"BITMAPIST_REDIS_URL": f"unix://{tmp_path}/nobody.sock"})
    extension.tracker_of(other).record([("e", 1, True, True, NOON)])
    extension.tracker_of(other).flush()
    assert told == []


def test_a_receiver_may_fail_mark_flush_or_wait_for_others_who_do(
    mortal: MortalServer, app: Flask, tracker: Tracker, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(sender: Flask, **_: Any) -> None:
        raise RuntimeError("a fault of the receiver")

    def use(sender: Flask, **_: Any) -> None:
        tracker.record([("e", 7, True, True, NOON)])
        other = threading.Thread(target=tracker.flush)
        other.start()
        other.join(60)
        assert not other.is_alive()
        tracker.flush()
        told.append(("used", "", ""))

    mark(range(1))
    with delivery_degraded.connected_to(fail, app), delivery_degraded.connected_to(use, app):
        mortal.kill()
        mark(range(1, 3))
        eventually(lambda: ("used", "", "") in told)
    assert "a fault of the receiver" in caplog.text
    mortal.start()
    eventually(tracker.flush)
    assert mortal.ids() == [0, 1, 2, 7]


def test_figures_tell_what_waits_and_what_was_set_aside(
    mortal: MortalServer, tracker: Tracker, tmp_path: Path
) -> None:
    mortal.kill()
    mark_event("e", range(10), now=NOON)
    mark_event("e", 10, now=NOON)
    figures = tracker.stats()
    assert (figures.backlog, figures.set_aside, figures.dropped) == (11, 0, 0)
    spool = tmp_path / "instance" / "bitmapist-spool.sqlite3"
    shutil.rmtree(spool.parent)
    assert tracker.stats().backlog == 0
    spool.parent.mkdir()
    spool.write_bytes(b"no database" * 1_000)
    mark_event("e", 1, now=NOON)
    assert (tracker.stats().backlog, tracker.stats().set_aside) == (1, 1)
    mortal.start()
    eventually(tracker.flush)
    assert tracker.stats().backlog == 0
    assert mortal.ids() == [1]


@pytest.mark.parametrize("delivery", ["immediate", "background"])
def test_each_mark_stands_under_one_figure(
    mortal: MortalServer, app: Flask, delivery: str, tmp_path: Path, told: Told
) -> None:
    tracker = FlaskBitmapist(
        app,
        {
            "BITMAPIST_REDIS_URL": mortal.url,
            "BITMAPIST_TIMEOUT": 10,
            "BITMAPIST_DELIVERY": delivery,
            "BITMAPIST_SPOOL_SIZE": 2**20,
        },
    ).tracker
    mark_event("e", range(100), now=NOON)
    assert tracker.flush()
    mortal.kill()
    mark_event("e", 1, now=NOON)
    for first in range(0, 300_000, 1_000):
        mark_event("e", range(first, first + 1_000), now=NOON)
    tracker.flush()
    outage = tracker.stats()
    assert outage.sent == 100
    assert outage.spooled == 300_001
    assert outage.backlog == 300_001 - outage.dropped
    assert 0 < outage.dropped < 250_000
    mortal.start()
    eventually(tracker.flush)
    found = tracker.stats()
    assert found.replayed == outage.backlog
    assert (found.backlog, found.dropped, found.breaker) == (0, outage.dropped, "closed")
