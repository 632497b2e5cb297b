"""What the dashboard's tests share: a small log, as of one Monday, whose figures are known.

This folder is a package, so that this module is ``dashboard.conftest`` and shadows no other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from flask import Flask
from flask.testing import FlaskClient

from flask_bitmapist import FlaskBitmapist, mark_event, mark_unique
from flask_bitmapist.dashboard import pages

from .reading import Element, error_of, read

NOW = datetime(2026, 11, 23, 14, 32)  # a Monday
PREFIX = "/bitmapist"
#: Every page that asks something of the log, and needs no parameter.
PAGES = tuple(
    page.address for page in pages.PAGES if page.endpoint not in ("person", "find", "boards")
)
#: Event -> days ago -> who did it then.
LOG: dict[str, dict[int, list[int]]] = {
    "song:played": {35: [1, 2], 34: [3], 7: [7], 1: [1], 0: [10]},
    "user:created": {35: [1, 2, 3, 4], 21: [5, 6], 14: [7, 8, 9], 0: [10, 11]},
    "user:logged_in": {
        35: [1, 2, 3],
        34: [1],
        28: [1, 2],
        21: [1, 5, 6],
        14: [2, 7, 8],
        8: [7],
        7: [1, 5, 7],
        6: [7],
        1: [1],
        0: [1, 3, 10],
    },
}
FLAGS = {"beta": [2, 3, 8, 10], "user:premium": [1, 5, 7, 10]}


def mark_log(called: Callable[[int], object] = int) -> None:
    """Mark the log; `called` gives the id by which the application knows somebody."""
    for event, days in LOG.items():
        for ago, ids in days.items():
            mark_event(event, [called(id_) for id_ in ids], now=NOW - timedelta(days=ago))
    for flag, ids in FLAGS.items():
        mark_unique(flag, [called(id_) for id_ in ids])


class Browser:
    """Opens pages of the dashboard, and reads them."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client

    def open(self, address: str, status: int = 200, **query: object) -> Element:
        """The page at `address`, with or without the prefix; its answer has that `status`."""
        address = address if address.startswith(PREFIX) else PREFIX + address
        answer = self.client.get(address, query_string=query or None)
        assert answer.mimetype == "text/html"
        page = read(answer.text)
        assert answer.status_code == status, f"{address}: {error_of(page)}"
        return page


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page answers does not depend on how busy this machine is."""
    for waiting in ("page", "boards"):
        monkeypatch.setattr(f"flask_bitmapist.dashboard.{waiting}._LONGEST_WAIT", 600)


@pytest.fixture
def app(app_with_pages: Flask) -> Flask:
    return app_with_pages


@pytest.fixture
def browser(client: FlaskClient) -> Browser:
    return Browser(client)


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture(scope="session")
def marked(server: Any) -> dict[bytes, bytes]:
    """What the server holds after the log has been marked: key -> its dump."""
    url = server.fresh_database()
    app = Flask("marks")
    app.config.update(BITMAPIST_REDIS_URL=url, BITMAPIST_SPOOL=False, DISABLE_BLUEPRINT=True)
    tracker = FlaskBitmapist(app).tracker_of(app)
    with app.app_context(), tracker.at(NOW):
        mark_log()
    with redis_py.Redis.from_url(url) as client:
        return {key: client.dump(key) for key in client.keys("*")}


@pytest.fixture
def recorded(at_now: None, redis: redis_py.Redis, marked: dict[bytes, bytes]) -> None:
    """The log, as another process has marked it."""
    pipe = redis.pipeline(transaction=False)
    for key, dump in marked.items():
        pipe.restore(key, 0, dump)
    pipe.execute()


@pytest.fixture
def closed_app(redis_url: str) -> Flask:
    """An app as in production: neither debug nor testing."""
    app = Flask("production")
    app.config.update(BITMAPIST_REDIS_URL=redis_url, BITMAPIST_SPOOL=False, SECRET_KEY="s")
    FlaskBitmapist(app)
    return app


@pytest.fixture
def unreachable_app(tmp_path: Path) -> Flask:
    """An app whose server does not exist."""
    app = Flask("alone")
    app.config.update(
        TESTING=True, BITMAPIST_ENABLED=True, BITMAPIST_REDIS_URL=f"unix://{tmp_path}/nobody.sock"
    )
    FlaskBitmapist(app, {"BITMAPIST_SPOOL": False})
    return app


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What our log says from ERROR on."""
    caplog.set_level(logging.ERROR, "flask_bitmapist")
    return caplog
