"""Several apps in one process, contexts, 0.1.2's surface."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import bitmapist
import pytest
import redis as redis_py
from flask import Blueprint, Flask
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

import flask_bitmapist
from flask_bitmapist import (
    Bitmapistable,
    DayEvents,
    FlaskBitmapist,
    MonthEvents,
    analytics,
    get_event_names,
    mark,
    mark_event,
)
from flask_bitmapist.tracker import Tracker

NOON = datetime(2026, 3, 14, 12, 30)


@pytest.fixture
def app(app_with_pages: Flask) -> Flask:
    return app_with_pages


@pytest.fixture
def two_apps(server: Any) -> tuple[Flask, Flask]:
    """Two apps of one extension object, each with a server of its own."""
    extension = FlaskBitmapist()
    apps = Flask("one"), Flask("two")
    for app in apps:
        app.config["BITMAPIST_REDIS_URL"] = server.fresh_database()
        extension.init_app(app)
    return apps


def test_before_any_init_app_a_mark_is_an_error_that_says_so() -> None:
    with pytest.raises(RuntimeError, match="not initialised: call FlaskBitmapist"):
        mark_event("e", 1)
    with pytest.raises(RuntimeError, match="not initialised"):
        _ = FlaskBitmapist().tracker


def test_an_app_without_the_extension_never_marks_on_anothers_server(
    app: Flask, redis: redis_py.Redis
) -> None:
    with Flask("other").app_context(), pytest.raises(RuntimeError, match="'other'"):
        mark_event("e", 1)
    assert redis.keys("*") == []


def test_the_extension_is_found_in_the_app(app: Flask) -> None:
    assert isinstance(app.extensions["bitmapist"], FlaskBitmapist)


def test_each_app_marks_on_its_own_server(two_apps: tuple[Flask, Flask]) -> None:
    for id_, app in enumerate(two_apps):
        with app.app_context():
            mark_event("e", id_, now=NOON)
    for id_, app in enumerate(two_apps):
        with app.app_context():
            assert list(DayEvents("e", 2026, 3, 14)) == [id_]


def test_bitmapists_own_functions_and_operators_follow_the_app_as_ours_do(
    two_apps: tuple[Flask, Flask],
) -> None:
    for id_, app in enumerate(two_apps):
        with app.app_context():
            bitmapist.mark_event("theirs", id_, now=NOON)
            bitmapist.mark_event("also", id_, now=NOON)
            bitmapist.mark_event("also", 9, now=NOON)
    for id_, app in enumerate(two_apps):
        with app.app_context():
            for classes in (bitmapist, flask_bitmapist):
                theirs, also = (classes.DayEvents(e, 2026, 3, 14) for e in ("theirs", "also"))
                assert list(theirs & also) == [id_]
                assert list(classes.YearEvents("also", 2026)) == [id_, 9]
            assert bitmapist.get_event_names() == bitmapist.get_event_names("default")


class TestOutsideAnyContext:
    """Where nobody says which app is meant."""

    def test_of_several_apps_none_is_guessed(self, two_apps: tuple[Flask, Flask]) -> None:
        extension = two_apps[0].extensions["bitmapist"]
        for ask in (
            lambda: mark_event("e", 5),
            lambda: extension.tracker,
            lambda: analytics.count("e"),
            lambda: list(DayEvents("e", 2026, 3, 14)),
            lambda: bitmapist.mark_event("e", 5),
        ):
            with pytest.raises(RuntimeError, match=r"2 apps .*'one', 'two'.*app.app_context\(\)"):
                ask()
            with ThreadPoolExecutor(1) as thread, pytest.raises(RuntimeError, match="2 apps"):
                thread.submit(ask).result()
        for app in two_apps:
            with app.app_context():
                assert get_event_names() == []

    def test_commits_and_decorated_functions_go_on_and_it_is_logged_once(
        self, two_apps: tuple[Flask, Flask], caplog: pytest.LogCaptureFixture
    ) -> None:
        class Base(DeclarativeBase):
            pass

        class Member(Bitmapistable, Base):
            __tablename__ = "members"
            id: Mapped[int] = mapped_column(primary_key=True)

        @mark("e", 5)
        def task() -> str:
            return "done"

        engine = create_engine("sqlite://", poolclass=StaticPool)
        Base.metadata.create_all(engine)
        for id_ in (1, 2):
            with Session(engine) as session, session.begin():
                session.add(Member(id=id_))
            assert task() == "done"
        with Session(engine) as session:
            assert session.query(Member).count() == 2
        engine.dispose()
        (line,) = caplog.records
        assert "2 apps with Flask-Bitmapist are in this process ('one', 'two')" in line.message
        for app in two_apps:
            with app.app_context():
                assert get_event_names() == []

    def test_an_app_that_was_dropped_does_not_count(self, server: Any) -> None:
        def create_app(name: str) -> Flask:
            app = Flask(name)
            FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": server.fresh_database()})
            return app

        gc.disable()  # it would hide now and then that a dropped app is still there
        try:
            for name in ("of the test before", "of this test"):
                app = create_app(name)
                mark_event("e", 5, now=NOON)
                with app.app_context():
                    assert list(DayEvents("e", 2026, 3, 14)) == [5]
                del app
        finally:
            gc.enable()

    def test_the_app_that_is_left_is_meant(self, server: Any) -> None:
        app = Flask("left")
        FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": server.fresh_database()})
        FlaskBitmapist(Flask("dropped"), {"BITMAPIST_REDIS_URL": server.fresh_database()})
        mark_event("e", 5, now=NOON)
        with app.app_context():
            assert list(DayEvents("e", 2026, 3, 14)) == [5]


def test_threads_outside_a_context_mark_the_only_app(app: Flask) -> None:
    thread = threading.Thread(target=mark_event, args=("e", 5), kwargs={"now": NOON})
    thread.start()
    thread.join()
    assert list(DayEvents("e", 2026, 3, 14)) == [5]


def test_a_second_init_app_of_the_same_app_is_harmless(app: Flask) -> None:
    extension = app.extensions["bitmapist"]
    mark_event("e", 1, now=NOON)
    extension.init_app(app)
    mark_event("e", 2, now=NOON)
    with app.app_context():
        mark_event("e", 3, now=NOON)
    assert list(DayEvents("e", 2026, 3, 14)) == [1, 2, 3]
    assert app.test_client().get("/bitmapist/").status_code == 200


def test_a_second_extension_on_the_same_app_takes_over(app_with_pages: Flask, server: Any) -> None:
    app = app_with_pages
    with app.test_client() as client:
        client.get("/bitmapist/")  # after the first request no blueprint could be added
    elsewhere = server.fresh_database()
    extension = FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": elsewhere})
    with app.app_context():
        mark_event("e", 2, now=NOON)
    with redis_py.Redis.from_url(elsewhere) as client:
        assert client.getbit("trackist_e_2026-3-14", 2)
    assert app.extensions["bitmapist"] is extension


def test_a_second_extension_keeps_what_was_registered_with_the_first(app: Flask) -> None:
    first = app.extensions["bitmapist"]
    first.dashboard_access(lambda: False)
    second = FlaskBitmapist(app)
    assert app.test_client().get("/bitmapist/").status_code == 403

    second.dashboard_access(lambda: True)
    first.user_link(lambda id_: f"Reader {id_}")
    with app.app_context():
        mark_event("e", 7)
    assert "Reader 7" in app.test_client().get("/bitmapist/people?where=e").text
    first.init_app(app)
    assert app.test_client().get("/bitmapist/").status_code == 403


def test_a_check_that_is_registered_late_with_a_replaced_extension_holds(app: Flask) -> None:
    first = app.extensions["bitmapist"]
    FlaskBitmapist(app)
    first.dashboard_access(lambda: False)
    assert app.test_client().get("/bitmapist/").status_code == 403


def test_the_check_of_one_app_is_not_that_of_another(app: Flask, redis_url: str) -> None:
    app.extensions["bitmapist"].dashboard_access(lambda: True)
    other, shared = Flask("other"), FlaskBitmapist()
    for each in (app, other):
        shared.init_app(each, {"BITMAPIST_REDIS_URL": redis_url})
    assert app.test_client().get("/bitmapist/").status_code == 200
    assert other.test_client().get("/bitmapist/").status_code == 403


def test_a_blueprint_of_the_apps_own_that_takes_the_name_is_an_error() -> None:
    app = Flask("theirs")
    app.register_blueprint(Blueprint("bitmapist", "theirs"))
    with pytest.raises(ValueError, match="a blueprint of its own called 'bitmapist'"):
        FlaskBitmapist(app)
    FlaskBitmapist(app, {"DISABLE_BLUEPRINT": True})


def test_apps_are_collected_when_they_are_dropped(server: Any) -> None:
    app = Flask("short-lived")
    FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": server.fresh_database()})
    reference = weakref.ref(app)
    del app
    gc.collect()
    assert reference() is None


def test_a_client_can_be_given(redis: redis_py.Redis) -> None:
    extension = FlaskBitmapist(Flask(__name__), redis_client=redis)
    mark_event("e", 1, now=NOON)
    assert extension.tracker.redis is redis
    assert redis.getbit("trackist_e_2026-3-14", 1)


def test_a_client_that_decodes_replies_can_be_given(redis_url: str) -> None:
    with redis_py.Redis.from_url(redis_url, decode_responses=True) as client:
        for _ in range(2):  # the second one knows neither the events nor the id
            app = Flask(__name__)
            tracker = FlaskBitmapist(app, redis_client=client).tracker_of(app)
            tracker.record([("e", "a", True, True, NOON), ("f", 1, True, True, NOON)])
        assert tracker.reader.event_names() == ["e", "f"]
        assert client.bitcount("trackist_e_2026-3-14") == 1


def test_a_pool_of_one_connection_still_has_it_after_init_app(redis_url: str) -> None:
    tracker = FlaskBitmapist(
        Flask(__name__), {"BITMAPIST_REDIS_URL": f"{redis_url}&max_connections=1"}
    ).tracker
    mark_event("e", 1, now=NOON)
    assert tracker.redis.ping()
    assert list(DayEvents("e", 2026, 3, 14)) == [1]


def test_init_app_connects_to_nothing() -> None:
    FlaskBitmapist(Flask(__name__), {"BITMAPIST_REDIS_URL": "redis://192.0.2.1:6379"})


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
def test_credentials_and_database_of_the_url_are_honoured(scheme: str) -> None:
    place = "/run/valkey.sock?db=3" if scheme == "unix" else "example.org:6380/3"
    options = {"BITMAPIST_REDIS_URL": f"{scheme}://me:secret@{place}", "BITMAPIST_TIMEOUT": 0.5}
    tracker = FlaskBitmapist(Flask(__name__), options).tracker
    connection = tracker.redis.connection_pool.connection_kwargs
    assert (connection["username"], connection["password"]) == ("me", "secret")
    assert connection["db"] == 3
    assert connection["socket_connect_timeout"] == 0.5


class TestSurfaceOf012:
    """What flask-bitmapist 0.1.2 offered."""

    def test_attributes(self, app: Flask, redis_url: str, tracker: Tracker) -> None:
        extension = app.extensions["bitmapist"]
        assert extension.redis_url == redis_url
        assert "default" in extension.SYSTEMS
        assert extension.SYSTEMS["default"].ping()
        assert extension.TRACK_HOURLY is False

    def test_endpoints(self, app: Flask) -> None:
        with app.test_request_context():
            from flask import url_for

            assert url_for("bitmapist.index") == "/bitmapist/"
            assert url_for("bitmapist.cohort") == "/bitmapist/cohort"

    def test_the_blueprint_moves_and_disappears(self, redis_url: str) -> None:
        url = {"BITMAPIST_REDIS_URL": redis_url}
        moved, without = Flask("moved"), Flask("without")
        FlaskBitmapist(moved, {**url, "BITMAPIST_URL_PREFIX": "/admin/analytics"})
        FlaskBitmapist(without, {**url, "DISABLE_BLUEPRINT": True})
        moved.testing = without.testing = True
        assert moved.test_client().get("/admin/analytics/").status_code == 200
        assert without.test_client().get("/bitmapist/").status_code == 404

    def test_a_named_system(self, redis_url: str) -> None:
        options = {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_REDIS_SYSTEM": "stats"}
        FlaskBitmapist(Flask(__name__), options)
        mark_event("e", 1, now=NOON)
        assert list(MonthEvents("e", 2026, 3, system="stats")) == [1]

    def test_the_decorator_takes_bitmapists_arguments(self, app: Flask) -> None:
        @mark("e", 1, "default", NOON, False)
        def visited() -> str:
            return ""

        with app.app_context():
            visited()
            assert list(DayEvents("e", 2026, 3, 14)) == [1]
