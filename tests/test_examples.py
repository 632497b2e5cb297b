"""The example apps, used as their users would: through their HTTP routes."""

from __future__ import annotations

import importlib.util
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import mongoengine
import pytest
from flask import Flask

from flask_bitmapist import DayEvents

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> ModuleType:
    path = EXAMPLES / f"{name}.py"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def live_three_days(app: Flask) -> dict[str, Any]:
    """Three people sign up; two log in on the next day, one on the day after, and writes."""
    tracker = app.extensions["bitmapist"].tracker_of(app)
    today = tracker.now()

    def on_day(days_ago: int) -> Any:
        return tracker.at(today - timedelta(days=days_ago))

    client = app.test_client()
    with on_day(2):
        users = [
            client.post("/users", data={"name": name}).get_json()["id"]
            for name in ("Ada", "Grace", "Edsger")
        ]
    for days_ago, who in ((1, users[:2]), (0, users[1:2])):
        with on_day(days_ago):
            for user in who:
                assert client.post(f"/login/{user}").status_code == 204
                assert client.post("/notes", data={"text": "Hello"}).status_code == 201
                assert client.post("/logout").status_code == 204
    assert client.post("/notes", data={"text": "Hello"}).status_code == 401
    with app.app_context():
        assert len(DayEvents.from_date("note:created", today - timedelta(days=1))) == 2
        assert len(DayEvents.from_date("note:attempted", today)) == 1
        assert list(DayEvents.from_date("user:logged_in", today)) == list(
            DayEvents.from_date("note:created", today)
        )
    answer: dict[str, Any] = client.get("/retention").get_json()
    return answer


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 80


def assert_right_cohorts(retention: dict[str, Any]) -> None:
    assert retention["sizes"] == [0] * 7 + [3, 0, 0]
    assert retention["came_back"][7] == [0, 2, 1] + [None] * 7


def test_the_flask_sqlalchemy_example_shows_right_cohorts_of_uuids(
    redis_url: str, tmp_path: Path
) -> None:
    app = example("flask_sqlalchemy_app").create_app(
        {
            "TESTING": True,
            "BITMAPIST_ENABLED": True,
            "BITMAPIST_REDIS_URL": redis_url,
            "SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path}/notes.sqlite3",
        }
    )
    assert_right_cohorts(live_three_days(app))


def test_the_peewee_example_shows_right_cohorts(redis_url: str, tmp_path: Path) -> None:
    app = example("peewee_app").create_app(
        {
            "TESTING": True,
            "BITMAPIST_ENABLED": True,
            "BITMAPIST_REDIS_URL": redis_url,
            "DATABASE": f"sqlite:///{tmp_path}/notes.sqlite3",
        }
    )
    assert_right_cohorts(live_three_days(app))


def test_the_mongoengine_example_shows_right_cohorts_of_object_ids(redis_url: str) -> None:
    mongomock = pytest.importorskip("mongomock")
    mongodb = {
        "host": "mongodb://localhost/notes",
        "mongo_client_class": mongomock.MongoClient,
        "uuidRepresentation": "standard",
    }
    app = example("mongoengine_app").create_app(
        {
            "TESTING": True,
            "BITMAPIST_ENABLED": True,
            "BITMAPIST_REDIS_URL": redis_url,
            "MONGODB": mongodb,
        }
    )
    try:
        assert_right_cohorts(live_three_days(app))
    finally:
        mongoengine.disconnect()
