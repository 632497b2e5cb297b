"""Flask-Login's logins and logouts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user
from flask_sqlalchemy import SQLAlchemy
from servers import MortalServer
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_bitmapist import Bitmapistable, DayEvents, FlaskBitmapist, HourEvents, mark, mark_event
from flask_bitmapist.login import user_id
from flask_bitmapist.testing import record_marks
from flask_bitmapist.tracker import Tracker


class User(UserMixin):
    def __init__(self, id_: Any) -> None:
        self.id = id_


class TokenUser(UserMixin):
    """get_id() is an alternative token, as Flask-Login's documentation recommends."""

    def __init__(self, id_: int) -> None:
        self.id = id_

    def get_id(self) -> str:
        return f"token-of-{self.id}"


@pytest.fixture
def login(app: Flask) -> LoginManager:
    manager = LoginManager(app)
    manager.user_loader(lambda id_: User(id_))

    @app.route("/login/<id_>")
    def log_in(id_: str) -> str:
        login_user(User(id_))
        return id_

    @app.route("/logout")
    def log_out() -> str:
        logout_user()
        return ""

    return manager


@pytest.fixture
def request_context(app: Flask, login: LoginManager) -> Iterator[None]:
    with app.test_request_context():
        yield


def marked(event: str, tracker: Tracker) -> list[int | str]:
    return list(DayEvents.from_date(event, tracker.now()))


def test_login_and_logout_are_marked(
    login: LoginManager, client: FlaskClient, tracker: Tracker
) -> None:
    client.get("/login/7")
    assert marked("user:logged_in", tracker) == [7]
    assert marked("user:logged_out", tracker) == []
    client.get("/logout")
    assert marked("user:logged_out", tracker) == [7]


def test_an_anonymous_logout_marks_nothing(
    login: LoginManager, client: FlaskClient, redis: Any
) -> None:
    client.get("/logout")
    assert redis.keys("*") == []


class OfOldFlaskLogin(User):
    """Until 0.3 these were methods, and classes of an application's own still have them so."""

    def is_authenticated(self) -> bool:
        return True

    def is_active(self) -> bool:
        return True

    def is_anonymous(self) -> bool:
        return self.id is None


def test_a_user_whose_is_anonymous_is_a_method_is_marked(
    request_context: None, tracker: Tracker
) -> None:
    login_user(OfOldFlaskLogin(7))
    mark("index:visited")(lambda: None)()
    assert marked("user:logged_in", tracker) == marked("index:visited", tracker) == [7]


def test_nobody_is_marked_whose_is_anonymous_is_a_method_that_says_so() -> None:
    class Nobody(OfOldFlaskLogin):
        def get_id(self) -> str:
            return "nobody"

    assert user_id(Nobody(None)) is None


def test_an_inactive_user_is_not_marked(request_context: None, redis: Any) -> None:
    class Inactive(User):
        is_active = False

    assert not login_user(Inactive(7))
    assert redis.keys("*") == []


def test_a_session_revived_by_a_remember_me_cookie_is_not_a_login(
    app: Flask, login: LoginManager, tracker: Tracker
) -> None:
    @app.route("/remember")
    def remember() -> str:
        login_user(User(7), remember=True)
        return ""

    @app.route("/me")
    def me() -> str:
        return str(current_user.id)

    client = app.test_client()
    with tracker.at(tracker.now().replace(year=2020)):
        client.get("/remember")
    client.delete_cookie("session")
    assert client.get("/me").text == "7"
    assert marked("user:logged_in", tracker) == []


def test_the_primary_key_is_marked_before_get_id(request_context: None, tracker: Tracker) -> None:
    login_user(TokenUser(7))
    assert marked("user:logged_in", tracker) == [7]


def test_get_id_is_marked_where_there_is_no_id(request_context: None, tracker: Tracker) -> None:
    class ByName(UserMixin):
        def get_id(self) -> str:
            return "12"

    login_user(ByName())
    assert marked("user:logged_in", tracker) == [12]


def test_the_id_is_the_one_that_the_models_adapter_marks(
    app: Flask, login: LoginManager, tracker: Tracker
) -> None:
    class Base(DeclarativeBase):
        pass

    db = SQLAlchemy(model_class=Base)

    class Account(UserMixin, Bitmapistable, db.Model):  # type: ignore[name-defined]
        number: Mapped[str] = mapped_column(primary_key=True)

        def get_id(self) -> str:
            return "a-token"

    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db.init_app(app)
    with app.test_request_context():
        db.create_all()
        for number in ("1", "2"):
            db.session.add(Account(number=number))
            db.session.commit()
        account = db.session.get(Account, "2")
        db.session.commit()
        db.session.expunge(account)  # detached and expired: its attributes cannot be loaded
        login_user(account)
    # A textual key is mapped although it reads like a number, and both events agree on it.
    assert marked("account:created", tracker) == ["1", "2"]
    assert marked("user:logged_in", tracker) == ["2"]


def test_a_fault_of_redis_never_turns_a_login_into_an_error(tmp_path: Any) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    app.secret_key = "test"
    FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": "unix:///nowhere"})
    LoginManager(app)
    with app.test_request_context():
        assert login_user(User(7))
        assert logout_user()


@pytest.mark.parametrize("id_", [-7, 2.5, ""])
def test_an_unusable_id_never_turns_a_login_into_an_error(
    id_: Any, request_context: None, redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert login_user(User(id_))
    assert "could not mark" in caplog.text
    assert redis.keys("*") == []


def test_a_user_whose_id_raises_can_log_in(
    request_context: None, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(UserMixin):
        asked = 0

        @property
        def id(self) -> int:
            type(self).asked += 1
            if self.asked > 1:  # Flask-Login asks first
                raise KeyError("no id today")
            return 7

    assert login_user(Broken())
    assert "could not mark user:logged_in" in caplog.text


def test_other_apps_are_not_marked(
    request_context: None, server: Any, tracker: Tracker, redis: Any
) -> None:
    other = Flask("other")
    other.secret_key = "test"
    LoginManager(other)
    with other.test_request_context():
        login_user(User(8))
    assert redis.keys("*") == []


def test_a_second_init_app_does_not_mark_twice(
    app: Flask, request_context: None, redis: Any
) -> None:
    app.extensions["bitmapist"].init_app(app)
    login_user(User(7))
    redis.config_resetstat()
    login_user(User(7))
    assert redis.info("commandstats")["cmdstat_setbit"]["calls"] == 3


def test_tracking_can_be_switched_off(redis_url: str, redis: Any) -> None:
    app = Flask(__name__)
    app.secret_key = "test"
    options = {"BITMAPIST_TRACK_LOGIN": False, "BITMAPIST_TRACK_SEEN": False}
    FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": redis_url, **options})
    LoginManager(app)
    with app.test_request_context():
        login_user(User(7))
        logout_user()
    assert redis.keys("*") == []


class NoMixin:
    """In the place of `Bitmapistable`."""


class TestSeen:
    """``user:seen``: everybody logged in during any request of the day."""

    @pytest.fixture
    def visits(self, app: Flask, login: LoginManager) -> None:
        @app.route("/me")
        def me() -> str:
            return str(current_user.get_id())

        @app.route("/broken")
        def broken() -> str:
            raise KeyError(current_user.get_id())

        @app.route("/remember/<id_>")
        def remember(id_: str) -> str:
            login_user(User(id_), remember=True)
            return ""

        @app.route("/terms")
        def terms() -> str:
            return ""

    @pytest.fixture
    def visitor(self, visits: None, client: FlaskClient, tracker: Tracker) -> FlaskClient:
        """User 7, who logged in a week ago and whose browser remembers that."""
        with tracker.at(tracker.now() - timedelta(days=7)):
            client.get("/remember/7")
        client.delete_cookie("session")
        return client

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_who_comes_back_by_a_remember_me_cookie_is_seen(
        self, method: str, visitor: FlaskClient, tracker: Tracker
    ) -> None:
        assert marked("user:seen", tracker) == []
        visitor.open("/me", method=method)
        assert marked("user:seen", tracker) == [7]
        assert marked("user:logged_in", tracker) == []

    def test_a_user_is_marked_once_a_day_of_the_apps_calendar(
        self, app: Flask, visitor: FlaskClient, redis: Any
    ) -> None:
        bitmapist = app.extensions["bitmapist"]
        bitmapist.init_app(app, {"BITMAPIST_TIMEZONE": "Asia/Tokyo"})

        def writes_of_a_visit(hour: int, minute: int = 0) -> int:
            redis.config_resetstat()
            with bitmapist.tracker_of(app).at(datetime(2026, 3, 14, hour, minute, tzinfo=UTC)):
                visitor.get("/me")
            return int(redis.info("commandstats").get("cmdstat_setbit", {"calls": 0})["calls"])

        assert writes_of_a_visit(14, 58) == 3  # day, week and month; 23:58 in Tokyo
        assert writes_of_a_visit(14, 59) == 0
        assert writes_of_a_visit(15) == 3
        assert writes_of_a_visit(20) == 0
        with app.app_context():
            for day in (14, 15):
                assert list(DayEvents("user:seen", 2026, 3, day)) == [7]

    def test_hours_are_marked_where_they_are_kept(self, app: Flask, visitor: FlaskClient) -> None:
        bitmapist = app.extensions["bitmapist"]
        bitmapist.init_app(app, {"BITMAPIST_TRACK_HOURLY": True})
        for hour in (9, 10, 11):
            with bitmapist.tracker_of(app).at(datetime(2026, 3, 14, hour)):
                visitor.get("/me")
        with app.app_context():
            for hour in (9, 10, 11):
                assert list(HourEvents("user:seen", 2026, 3, 14, hour)) == [7]

    def test_where_nobody_is_logged_in_nobody_is_seen(
        self, visits: None, client: FlaskClient, redis: Any
    ) -> None:
        client.get("/me")
        client.get("/terms")
        assert redis.keys("*") == []

    def test_a_request_that_does_not_ask_who_is_logged_in_loads_no_user(
        self, visitor: FlaskClient, login: LoginManager, tracker: Tracker
    ) -> None:
        login.user_loader(lambda id_: pytest.fail("the user was loaded"))
        visitor.get("/terms")
        assert marked("user:seen", tracker) == []

    def test_a_request_that_fails_is_a_visit_too(
        self, app: Flask, visitor: FlaskClient, tracker: Tracker
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = False
        assert visitor.get("/broken").status_code == 500
        assert marked("user:seen", tracker) == [7]

    def test_who_only_comes_to_log_out_is_seen(
        self, visitor: FlaskClient, tracker: Tracker
    ) -> None:
        visitor.get("/logout")
        assert marked("user:seen", tracker) == [7]

    def test_a_user_of_a_request_loader_is_seen(
        self, visits: None, client: FlaskClient, login: LoginManager, tracker: Tracker
    ) -> None:
        login.request_loader(lambda request: User(int(request.headers["Token"])))
        client.get("/me", headers={"Token": "8"})
        assert marked("user:seen", tracker) == [8]

    @pytest.mark.parametrize("id_", [-7, ""])
    def test_an_unusable_id_is_logged_once_a_day_and_breaks_no_request(
        self, id_: Any, visitor: FlaskClient, login: LoginManager, caplog: pytest.LogCaptureFixture
    ) -> None:
        login.user_loader(lambda _: User(id_))
        for _ in range(3):
            assert visitor.get("/me").status_code == 200
        assert len(caplog.records) == 1

    def test_a_user_whose_id_raises_breaks_no_request(
        self, visitor: FlaskClient, login: LoginManager, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken(User):
            @property
            def id(self) -> int:
                raise KeyError("no id today")

            def __init__(self) -> None: ...

            def get_id(self) -> str:
                return "7"

        login.user_loader(lambda _: Broken())
        assert visitor.get("/me").status_code == 200
        assert "could not mark user:seen" in caplog.text

    def test_visits_can_be_switched_off_without_logins(
        self, app: Flask, visits: None, client: FlaskClient, tracker: Tracker
    ) -> None:
        app.extensions["bitmapist"].init_app(app, {"BITMAPIST_TRACK_SEEN": False})
        client.get("/login/7")
        assert marked("user:logged_in", tracker) == [7]
        assert marked("user:seen", tracker) == []

    def test_logins_can_be_switched_off_without_visits(
        self, app: Flask, visits: None, client: FlaskClient, tracker: Tracker
    ) -> None:
        app.extensions["bitmapist"].init_app(app, {"BITMAPIST_TRACK_LOGIN": False})
        client.get("/login/7")
        assert marked("user:logged_in", tracker) == []
        assert marked("user:seen", tracker) == [7]

    def test_a_server_that_has_lost_the_mark_is_told_again(
        self, app: Flask, visits: None, client: FlaskClient, tmp_path: Path
    ) -> None:
        server = MortalServer(tmp_path)
        server.start()
        app.extensions["bitmapist"].init_app(app, {"BITMAPIST_REDIS_URL": server.url})
        with app.app_context():
            mark_event("e", 1)
        client.get("/login/7")
        server.kill()
        shutil.rmtree(tmp_path / "appendonlydir")
        server.start()
        with app.app_context():
            mark_event("e", 2)  # it is found out that the server has another history
        client.get("/me")
        with app.app_context():
            assert 7 in DayEvents.from_date("user:seen")
        server.kill()

    def test_every_test_that_records_marks_sees_the_visit(self, visitor: FlaskClient) -> None:
        for _ in range(2):
            with record_marks() as marks:
                visitor.get("/me")
                visitor.get("/me")
            assert marks == [("user:seen", 7)]

    def test_more_users_than_are_remembered_are_marked_again(
        self, app: Flask, visits: None, login: LoginManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flask_bitmapist.daily._LIMIT", 2)
        with record_marks() as marks:
            for id_ in (1, 2, 1, 2, 3, 1):
                app.test_client().get(f"/login/{id_}")
        seen = [mark.id for mark in marks if mark.event == "user:seen"]
        assert seen == [1, 2, 3, 1]

    @pytest.mark.parametrize("mixin", [NoMixin, Bitmapistable])
    def test_a_user_that_a_commit_has_expired_costs_no_query(
        self, mixin: type, app: Flask, client: FlaskClient, login: LoginManager, tracker: Tracker
    ) -> None:
        class Base(DeclarativeBase):
            pass

        db = SQLAlchemy(model_class=Base)

        class Visitor(UserMixin, mixin, db.Model):  # type: ignore[name-defined]
            id: Mapped[int] = mapped_column(primary_key=True)
            visits: Mapped[int] = mapped_column(default=0)

        @app.route("/count")
        def count() -> str:
            current_user.visits += 1
            db.session.commit()
            return ""

        app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
        db.init_app(app)
        login.user_loader(lambda id_: db.session.get(Visitor, int(id_)))
        with app.app_context():
            db.create_all()
            db.session.add(Visitor(id=7))
            db.session.commit()
            client.get("/login/7")
            statements: list[str] = []

            @event.listens_for(db.engine, "before_cursor_execute")
            def note(_: Any, __: Any, statement: str, *___: Any) -> None:
                statements.append(statement.split()[0])

        with tracker.at(tracker.now() - timedelta(days=1)):
            client.get("/count")
            assert statements == ["SELECT", "UPDATE"]
            assert marked("user:seen", tracker) == [7]


class TestMarkOfTheLoggedInUser:
    """``@mark("event")`` without an id."""

    @pytest.fixture
    def visited(self, app: Flask, login: LoginManager) -> None:
        @app.route("/")
        @mark("index:visited")
        def index() -> str:
            return "Hello"

        @app.route("/async")
        @mark("index:visited")
        async def async_index() -> str:
            return "Hello"

        @app.route("/leave")
        @mark("account:left")
        def leave() -> str:
            logout_user()
            return ""

    @pytest.mark.parametrize("page", ["/", "/async"])
    def test_the_logged_in_user_is_marked(
        self, page: str, visited: None, client: FlaskClient, tracker: Tracker
    ) -> None:
        client.get("/login/7")
        assert client.get(page).text == "Hello"
        assert marked("index:visited", tracker) == [7]

    def test_nobody_logged_in_marks_nothing(
        self, visited: None, client: FlaskClient, redis: Any
    ) -> None:
        assert client.get("/").text == "Hello"
        assert redis.keys("*") == []

    def test_a_view_that_logs_out_marks_who_was_logged_in(
        self, visited: None, client: FlaskClient, tracker: Tracker
    ) -> None:
        client.get("/login/7")
        client.get("/leave")
        assert marked("account:left", tracker) == [7]

    def test_an_app_without_flask_login_gets_an_error(
        self, app: Flask, client: FlaskClient
    ) -> None:
        called = []

        @app.route("/")
        @mark("index:visited")
        def index() -> str:
            called.append(True)
            return "Hello"

        with pytest.raises(RuntimeError, match="no Flask-Login: call LoginManager"):
            client.get("/")
        assert not called
