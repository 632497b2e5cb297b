"""Marks, reports, pages and commands on one server: the run's own, or any other.

``TEST_REDIS_URL=redis://host:port pytest tests/test_exercise.py`` empties that server.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis as redis_py
from flask import Flask

from flask_bitmapist import FlaskBitmapist, analytics
from flask_bitmapist.marks import Mark

START = datetime(2026, 3, 2, 12)
PAGES = (
    "?complete=1&event=user:logged_in",
    "cohort?cohort=user:created&returned=user:logged_in",
    "funnel?step=user:created&step=user:logged_in",
    "lifecycle?event=user:logged_in",
    "stickiness?event=user:logged_in",
    "people?where=user:logged_in",
    "person?id=3",
)
COMMANDS = (
    ("events",),
    ("show", "user:logged_in & flag:user:premium"),
    ("users", "user:logged_in", "--at", "2026-03-03"),
    ("retention", "user:created", "user:logged_in", "--end", "2026-04-01"),
    ("lifecycle", "user:logged_in"),
    ("timeline", "3"),
    ("reindex",),
)


@pytest.fixture
def url(redis_url: str) -> str:
    given = os.environ.get("TEST_REDIS_URL")
    if given is None:
        return redis_url
    with redis_py.Redis.from_url(given) as client:
        client.flushall()
    return given


def test_marks_reports_pages_and_commands_are_right(url: str, tmp_path: Path) -> None:
    exercise(url, tmp_path)


def exercise(
    url: str,
    tmp_path: Path,
    *,
    read_client: Any = None,
    settle: Callable[[], object] = lambda: None,
) -> None:
    """Mark on the server at `url`, and read it in every way.

    :param settle: waits until `read_client` leads to what has been marked.
    """
    app = Flask(__name__, instance_path=str(tmp_path))
    options: dict[str, Any] = {"BITMAPIST_REDIS_URL": url, "BITMAPIST_TIMEOUT": 10}
    options["BITMAPIST_TTL"] = {"hour": timedelta(days=9_000)}
    options["BITMAPIST_TRACK_HOURLY"] = True
    extension = FlaskBitmapist(app, options, read_client=read_client)
    extension.dashboard_access(lambda: True)
    tracker = extension.tracker_of(app)
    devices = [UUID(int=number) for number in range(30)]
    with app.app_context():
        tracker.record([Mark("user:created", id_, when=START) for id_ in range(1_500)])
        for day in range(10):
            when = START + timedelta(days=day)
            tracker.record([Mark("user:logged_in", id_, when=when) for id_ in range(day, 20)])
            tracker.record([Mark("device:seen", id_, when=when) for id_ in devices[day:]])
        tracker.record([Mark("user:premium", id_, dated=False) for id_ in range(5, 10)])
        tracker.record([Mark("user:logged_in", 19, False, when=START)])
        assert tracker.flush()
        stats = tracker.stats()
        assert (stats.spooled, stats.refused, stats.dropped, stats.waiting) == (0, 0, 0, {})
        settle()

        assert analytics.count("user:created", by="day", at=START) == 1_500
        assert list(analytics.users("user:logged_in", by="day", at=START)) == [*range(19)]
        premium = "user:logged_in & flag:user:premium"
        assert list(analytics.users(premium, by="week", at=START)) == [*range(5, 10)]
        last = START + timedelta(days=9)
        assert set(analytics.users("device:seen", by="day", at=last)) == {
            str(device) for device in devices[9:]
        }
        trend = analytics.trend("user:logged_in", "day", START, last)
        assert [point.users for point in trend.points] == [19, *range(19, 10, -1)]
        row = analytics.retention("user:created", "user:logged_in", "day", 3, START, START).rows[0]
        assert [row.size, *(cell.users for cell in row.cells)] == [1_500, 19, 19, 18, 17]
    for page in PAGES:
        answer = app.test_client().get(f"/bitmapist/{page}")
        assert (page, answer.status_code) == (page, 200)
    for command in COMMANDS:
        result = app.test_cli_runner().invoke(args=["bitmapist", *command])
        assert (command, result.exit_code, result.exception) == (command, 0, None), result.output
