"""Requests that mark nothing: `bitmapist.ignore`, crawlers, and Sec-GPC."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from flask import Flask, request
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from flask_bitmapist import (
    Bitmapistable,
    DayEvents,
    FlaskBitmapist,
    UniqueEvents,
    get_event_names,
    mark,
    mark_event,
    mark_unique,
    unmark_event,
    unmark_unique,
)
from flask_bitmapist.crawlers import is_crawler
from flask_bitmapist.privacy import asks_for_privacy
from flask_bitmapist.testing import record_marks
from flask_bitmapist.tracker import Tracker

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/139.0.0.0 Safari/537.36"
)
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
STAFF = {"X-Staff": "1"}


def is_staff() -> bool:
    return "X-Staff" in request.headers


class User(UserMixin):
    def __init__(self, id_: str) -> None:
        self.id = int(id_)


class Base(Bitmapistable, DeclarativeBase):
    pass


class Post(Base):
    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)


def visit() -> str:
    """Everything that can mark within a request."""
    mark_event("song:played", int(request.args["id"]))
    mark_event("album:played", [int(request.args["id"])])
    mark_event("song:liked", int(request.args["id"]), track_unique=True)
    mark_unique("user:premium", int(request.args["id"]))
    login_user(User(request.args["id"]))
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Post(id=int(request.args["id"])))
        session.commit()
    engine.dispose()
    logout_user()
    return ""


EVENTS = [
    "album:played",
    "page:visited",
    "post:created",
    "song:liked",
    "song:played",
    "user:logged_in",
    "user:logged_out",
    "user:premium",
    "user:seen",
]


@pytest.fixture
def site(app: Flask) -> FlaskClient:
    manager = LoginManager(app)
    manager.user_loader(User)
    app.add_url_rule("/", view_func=mark("page:visited", lambda: int(request.args["id"]))(visit))
    return app.test_client()


def test_a_request_that_is_ignored_marks_nothing(
    site: FlaskClient, bitmapist_extension: FlaskBitmapist, redis: Any
) -> None:
    bitmapist_extension.ignore(is_staff)
    assert site.get("/?id=7", headers=STAFF).status_code == 200
    assert redis.keys("*") == []


def test_all_others_are_marked(site: FlaskClient, bitmapist_extension: FlaskBitmapist) -> None:
    bitmapist_extension.ignore(is_staff)
    site.get("/?id=7")
    with site.application.app_context():
        assert get_event_names() == EVENTS


def test_one_request_after_the_other_is_decided_by_itself(
    app: Flask, site: FlaskClient, bitmapist_extension: FlaskBitmapist
) -> None:
    bitmapist_extension.ignore(is_staff)
    with app.app_context():  # both requests have its `g`
        site.get("/?id=7", headers=STAFF)
        site.get("/?id=8")
        site.get("/?id=9", headers=STAFF)
        assert [*DayEvents("song:played")] == [*DayEvents("user:seen")] == [8]


@pytest.mark.parametrize("delivery", ["immediate", "background"])
def test_the_fast_way_of_a_mark_asks_too(
    app: Flask, bitmapist_extension: FlaskBitmapist, tracker: Tracker, delivery: str
) -> None:
    bitmapist_extension.init_app(app, {"BITMAPIST_DELIVERY": delivery})
    tracker = bitmapist_extension.tracker_of(app)
    for event, id_ in ("song:played", 1), ("report:shared", "ann"):
        for _ in range(3):  # the last ones take it
            tracker.mark(event, id_)
        bitmapist_extension.ignore(is_staff)
        for id_of_staff, headers in (2, STAFF), (3, {}), (4, STAFF):
            with app.test_request_context(headers=headers):
                who = id_of_staff if id_ == 1 else f"{id_}{id_of_staff}"
                tracker.mark(event, who)
                tracker.mark(event, who)
    with app.app_context():
        assert [*DayEvents("song:played")] == [1, 3]
        assert [*DayEvents("report:shared")] == ["ann", "ann3"]


def test_it_is_asked_once_a_request_and_only_if_something_is_marked(
    site: FlaskClient, bitmapist_extension: FlaskBitmapist
) -> None:
    asked: list[str] = []

    @bitmapist_extension.ignore
    def check() -> None:
        asked.append(request.path)

    site.application.add_url_rule("/quiet", view_func=lambda: "")
    site.get("/quiet")
    assert asked == []
    site.get("/?id=7")
    assert asked == ["/"]


def test_outside_a_request_it_is_never_asked(
    app: Flask, bitmapist_extension: FlaskBitmapist, tracker: Tracker
) -> None:
    bitmapist_extension.ignore(lambda: 1 / 0)
    with app.app_context():
        mark_event("song:played", 7)
        thread = Thread(target=tracker.mark, args=("song:played", 8))
        thread.start()
        thread.join()
        assert [*DayEvents("song:played")] == [7, 8]


def test_one_of_several_is_enough(
    app: Flask, site: FlaskClient, bitmapist_extension: FlaskBitmapist, redis: Any
) -> None:
    bitmapist_extension.ignore(is_staff)
    bitmapist_extension.ignore(asks_for_privacy)
    site.get("/?id=7", headers={"Sec-GPC": "1"})
    site.get("/?id=7", headers=STAFF)
    assert redis.keys("*") == []


def test_a_check_that_fails_ignores_the_request_and_is_logged(
    site: FlaskClient,
    bitmapist_extension: FlaskBitmapist,
    redis: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bitmapist_extension.ignore(lambda: 1 / 0)
    assert site.get("/?id=7").status_code == 200
    assert redis.keys("*") == []
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "bitmapist.ignore" in record.message
    assert record.exc_info


def test_a_check_whose_own_work_marks_something_is_not_asked_again(
    app: Flask, bitmapist_extension: FlaskBitmapist
) -> None:
    @bitmapist_extension.ignore
    def check() -> bool:
        mark_event("check:made", 1)
        return False

    with app.test_request_context():
        mark_event("song:played", 7)
        assert get_event_names() == ["song:played"]


def test_a_check_may_ask_who_is_logged_in(
    site: FlaskClient, bitmapist_extension: FlaskBitmapist
) -> None:
    app = site.application
    bitmapist_extension.ignore(lambda: current_user.is_authenticated and current_user.id == 1)
    app.add_url_rule("/login/<id_>", "login", view_func=lambda id_: str(login_user(User(id_))))
    app.add_url_rule("/home", "home", view_func=mark("home:visited")(lambda: ""))
    for id_ in 1, 2:
        client = app.test_client()
        client.get(f"/login/{id_}")
        client.get("/home")
    with app.app_context():
        for event in "home:visited", "user:logged_in", "user:seen":
            assert [*DayEvents(event)] == [2]


def test_somebody_who_was_ignored_is_seen_in_a_later_request(
    site: FlaskClient, bitmapist_extension: FlaskBitmapist
) -> None:
    bitmapist_extension.ignore(asks_for_privacy)
    site.get("/?id=7", headers={"Sec-GPC": "1"})
    site.get("/?id=7")
    with site.application.app_context():
        assert [*DayEvents("user:seen")] == [7]


def test_a_visit_of_somebody_who_has_been_seen_today_asks_nothing(
    site: FlaskClient, bitmapist_extension: FlaskBitmapist
) -> None:
    app, asked = site.application, list[str]()
    app.add_url_rule("/login/<id_>", "login", lambda id_: str(login_user(User(id_))))
    app.add_url_rule("/who", "who", lambda: current_user.get_id())
    bitmapist_extension.ignore(lambda: asked.append(request.path))
    for path in "/login/7", "/who", "/who":
        site.get(path)
    assert asked == ["/login/7"]


def test_what_is_taken_back_is_taken_back(app: Flask, bitmapist_extension: FlaskBitmapist) -> None:
    bitmapist_extension.ignore(is_staff)
    with app.app_context():
        mark_event("song:played", [7, 8])
        mark_unique("user:premium", 7)
    with app.test_request_context(headers=STAFF):
        unmark_event("song:played", 7)
        unmark_unique("user:premium", 7)
        assert [*DayEvents("song:played")] == [8]
        assert [*UniqueEvents("user:premium")] == []


def test_a_wrong_call_is_an_error_in_an_ignored_request_too(
    app: Flask, bitmapist_extension: FlaskBitmapist
) -> None:
    bitmapist_extension.ignore(is_staff)
    with app.test_request_context(headers=STAFF), pytest.raises(ValueError, match="cannot name"):
        mark_event("", 7)


def test_another_system_gets_no_mark_either(
    app: Flask, bitmapist_extension: FlaskBitmapist, redis: Any
) -> None:
    bitmapist_extension.ignore(is_staff)
    with app.test_request_context(headers=STAFF):
        mark_event("song:played", 7, system=redis)
        assert redis.keys("*") == []
    with app.test_request_context():
        mark_event("song:played", 7, system=redis)
    with app.test_request_context(headers=STAFF):
        unmark_event("song:played", 7, system=redis)
        assert 7 not in DayEvents("song:played")


def test_recorded_marks_are_those_that_are_made(
    app: Flask, bitmapist_extension: FlaskBitmapist
) -> None:
    bitmapist_extension.ignore(is_staff)
    with record_marks() as marks:
        for headers in STAFF, {}:
            with app.test_request_context(headers=headers):
                mark_event("song:played", 7)
    assert len(marks) == 1


class TestSetUp:
    def test_a_check_holds_for_apps_that_are_set_up_later(
        self, tracker_on: Callable[..., Tracker], redis_url: str
    ) -> None:
        extension = FlaskBitmapist()
        extension.ignore(is_staff)
        app = Flask("later")
        extension.init_app(app, {"BITMAPIST_REDIS_URL": redis_url, "DISABLE_BLUEPRINT": True})
        with app.test_request_context(headers=STAFF):
            assert extension.tracker.ignores()

    def test_a_check_of_an_earlier_extension_object_still_holds(
        self, app: Flask, bitmapist_extension: FlaskBitmapist
    ) -> None:
        bitmapist_extension.ignore(is_staff)
        later = FlaskBitmapist(app)
        bitmapist_extension.ignore(asks_for_privacy)
        for headers in STAFF, {"Sec-GPC": "1"}:
            with app.test_request_context(headers=headers):
                assert later.tracker.ignores()

    def test_a_check_of_one_app_says_nothing_of_another(
        self, app: Flask, bitmapist_extension: FlaskBitmapist, tracker: Tracker, process: Any
    ) -> None:
        bitmapist_extension.ignore(is_staff)
        with app.test_request_context(headers=STAFF):
            assert tracker.ignores()
            assert not process().ignores()

    def test_a_dropped_app_is_not_kept_alive(self) -> None:
        extension = FlaskBitmapist(Flask("dropped"), {"DISABLE_BLUEPRINT": True})
        extension.init_app(Flask("kept"), {"DISABLE_BLUEPRINT": True})
        gc.collect()
        assert len(extension._trackers) == 1

    def test_something_that_cannot_be_asked_is_an_error(
        self, bitmapist_extension: FlaskBitmapist
    ) -> None:
        async def later() -> bool:
            return True

        wrong: Any = True
        with pytest.raises(TypeError, match="without arguments, not True"):
            bitmapist_extension.ignore(wrong)
        with pytest.raises(TypeError, match="not async"):
            bitmapist_extension.ignore(later)


@pytest.mark.parametrize(
    ("user_agent", "is_one"),
    [
        (GOOGLEBOT, True),
        ("curl/8.5.0", True),
        ("GPTBot/1.0", True),
        (CHROME, False),
        ("", False),
        ("a" * 1_000_000, False),
        ("\xff\x00(((+", False),
    ],
)
def test_crawlers_are_known_by_their_user_agent(app: Flask, user_agent: str, is_one: bool) -> None:
    environ = {"HTTP_USER_AGENT": user_agent}
    with app.test_request_context(environ_base=environ):
        assert is_crawler() is is_one


@pytest.mark.parametrize(("value", "asks"), [("1", True), ("0", False), ("", False), (None, False)])
def test_sec_gpc_asks_for_privacy(app: Flask, value: str | None, asks: bool) -> None:
    headers = {} if value is None else {"Sec-GPC": value}
    with app.test_request_context(headers=headers):
        assert asks_for_privacy() is asks
