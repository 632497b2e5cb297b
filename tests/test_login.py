"""Flask-Login's logins and logouts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py
from flask import Flask
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_bitmapist import Bitmapistable, DayEvents, FlaskBitmapist, mark
from flask_bitmapist.login import user_id
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
    login: LoginManager, client: FlaskClient, redis: redis_py.Redis
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


def test_an_inactive_user_is_not_marked(request_context: None, redis: redis_py.Redis) -> None:
    class Inactive(User):
        is_active = False

    assert not login_user(Inactive(7))
    assert redis.keys("*") == []


def test_a_session_revived_by_a_remember_me_cookie_is_no_login(
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

    class Account(UserMixin, Bitmapistable, db.Model):  # type: ignore[name-defined,misc]
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
    id_: Any, request_context: None, redis: redis_py.Redis, caplog: pytest.LogCaptureFixture
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
    request_context: None, server: Any, tracker: Tracker, redis: redis_py.Redis
) -> None:
    other = Flask("other")
    other.secret_key = "test"
    LoginManager(other)
    with other.test_request_context():
        login_user(User(8))
    assert redis.keys("*") == []


def test_a_second_init_app_does_not_mark_twice(
    app: Flask, request_context: None, redis: redis_py.Redis
) -> None:
    app.extensions["bitmapist"].init_app(app)
    login_user(User(7))
    redis.config_resetstat()
    login_user(User(7))
    assert redis.info("commandstats")["cmdstat_setbit"]["calls"] == 3


def test_tracking_can_be_switched_off(redis_url: str, redis: redis_py.Redis) -> None:
    app = Flask(__name__)
    app.secret_key = "test"
    options = {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_TRACK_LOGIN": False}
    FlaskBitmapist(app, options)
    LoginManager(app)
    with app.test_request_context():
        login_user(User(7))
    assert redis.keys("*") == []


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
    def test_whoever_is_logged_in_is_marked(
        self, page: str, visited: None, client: FlaskClient, tracker: Tracker
    ) -> None:
        client.get("/login/7")
        assert client.get(page).text == "Hello"
        assert marked("index:visited", tracker) == [7]

    def test_nobody_logged_in_marks_nothing(
        self, visited: None, client: FlaskClient, redis: redis_py.Redis
    ) -> None:
        assert client.get("/").text == "Hello"
        assert redis.keys("*") == []

    def test_a_view_that_logs_out_marks_who_was_logged_in(
        self, visited: None, client: FlaskClient, tracker: Tracker
    ) -> None:
        client.get("/login/7")
        client.get("/leave")
        assert marked("account:left", tracker) == [7]

    def test_an_app_without_flask_login_is_told(self, app: Flask, client: FlaskClient) -> None:
        called = []

        @app.route("/")
        @mark("index:visited")
        def index() -> str:
            called.append(True)
            return "Hello"

        with pytest.raises(RuntimeError, match="no Flask-Login: call LoginManager"):
            client.get("/")
        assert not called
