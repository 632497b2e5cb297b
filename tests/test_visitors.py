"""Visitors who are not logged in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, abort, stream_with_context
from flask_login import LoginManager, UserMixin, login_user
from itsdangerous import URLSafeTimedSerializer

from flask_bitmapist import DayEvents, FlaskBitmapist, mark, mark_event, mark_visitor
from flask_bitmapist.privacy import asks_for_privacy
from flask_bitmapist.testing import record_marks
from flask_bitmapist.tracker import Tracker
from flask_bitmapist.visitors import COOKIE, visitor_id


class User(UserMixin):
    def __init__(self, id_: str) -> None:
        self.id = int(id_)


@pytest.fixture
def bare_app(redis_url: str, tmp_path: Path) -> Flask:
    """An app without Flask-Login, which counts visitors."""
    app = Flask("shop", instance_path=str(tmp_path))
    app.config.update(
        BITMAPIST_REDIS_URL=redis_url,
        BITMAPIST_ID_MAP="always",
        BITMAPIST_VISITORS=True,
        DISABLE_BLUEPRINT=True,
        SECRET_KEY="secret",
    )
    FlaskBitmapist(app)

    @app.route("/")
    @mark("page:visited")
    def home() -> str:
        return ""

    @app.route("/plain")
    def plain() -> str:
        return visitor_id() or ""

    @app.route("/gone")
    @mark("page:visited")
    def gone() -> str:
        abort(410)

    @app.route("/direct")
    def direct() -> str:
        mark_visitor("page:visited")
        return ""

    return app


@pytest.fixture
def app(bare_app: Flask) -> Flask:
    manager = LoginManager(bare_app)
    manager.user_loader(User)
    bare_app.add_url_rule("/login/<id_>", "login", lambda id_: str(login_user(User(id_))))
    return bare_app


def visitors(app: Flask, event: str = "page:visited") -> list[str]:
    with app.app_context():
        return [str(id_) for id_ in DayEvents(event)]


def set_by(response: Any) -> str | None:
    """The cookie that `response` sets."""
    told: str | None = response.headers.get("Set-Cookie")
    return told


@pytest.mark.parametrize("path", ["/", "/direct"])
@pytest.mark.parametrize("kind", ["app", "bare_app"])
def test_a_visitor_is_one_whatever_they_do(
    request: pytest.FixtureRequest, kind: str, path: str
) -> None:
    app = request.getfixturevalue(kind)
    browser, other = app.test_client(), app.test_client()
    assert set_by(browser.get(path))
    assert set_by(browser.get(path)) is None
    other.get(path)
    first, second = visitors(app)
    assert first.startswith("visitor:")
    assert second.startswith("visitor:")
    assert [client.get("/plain").text for client in (browser, other)] == [first, second]


def test_whoever_is_logged_in_is_no_visitor(app: Flask) -> None:
    browser = app.test_client()
    browser.get("/login/7")
    for path in "/", "/direct":
        assert set_by(browser.get(path)) is None
    assert visitors(app) == ["7"]


def test_a_browser_whose_user_logs_out_is_the_visitor_that_it_was(app: Flask) -> None:
    browser = app.test_client()
    browser.get("/")
    browser.get("/login/7")
    browser.get("/")
    browser.delete_cookie("session")
    browser.get("/")
    visitor, user = visitors(app)
    assert (visitor[:8], user) == ("visitor:", "7")


@pytest.mark.parametrize("path", ["/plain", "/gone", "/none"])
def test_no_cookie_is_set_where_nothing_is_marked(bare_app: Flask, path: str) -> None:
    response = bare_app.test_client().get(path)
    assert set_by(response) is None
    assert "Vary" not in response.headers
    assert "Cache-Control" not in response.headers


def test_a_mark_that_is_refused_sets_no_cookie(app: Flask) -> None:
    @app.route("/wrong")
    def wrong() -> str:
        with pytest.raises(ValueError, match="cannot name an event"):
            mark_visitor("")
        return ""

    assert set_by(app.test_client().get("/wrong")) is None


def test_a_mark_that_cannot_be_made_sets_no_cookie(
    app: Flask, process: Callable[..., Tracker], redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    process(redis_url).record([("page:visited", 7)])
    app.test_client().get("/")  # the app learns that the event has plain ids
    assert set_by(app.test_client().get("/")) is None
    assert "page:visited" in caplog.text


def test_an_ignored_request_sets_no_cookie_and_marks_nobody(app: Flask, redis: Any) -> None:
    app.extensions["bitmapist"].ignore(asks_for_privacy)
    for path in "/", "/direct":
        assert set_by(app.test_client().get(path, headers={"Sec-GPC": "1"})) is None
    assert redis.keys("*") == []


def test_where_marking_is_switched_off_no_cookie_is_set(app: Flask) -> None:
    app.config["BITMAPIST_ENABLED"] = False
    for path in "/", "/direct":
        assert set_by(app.test_client().get(path)) is None


def test_the_cookie_is_the_applications_own(app: Flask) -> None:
    app.config.update(
        SESSION_COOKIE_SECURE=True, SESSION_COOKIE_DOMAIN="example.org", SESSION_COOKIE_PATH="/shop"
    )
    told = set_by(app.test_client().get("/"))
    assert told is not None
    name, *attributes = told.split("; ")
    assert name.startswith(f"{COOKIE}=")
    assert {part for part in attributes if not part.startswith("Expires")} == {
        "Domain=example.org",
        "HttpOnly",
        "Max-Age=31536000",
        "Path=/shop",
        "SameSite=Lax",
        "Secure",
    }


def test_it_is_not_secure_where_the_session_is_not(app: Flask) -> None:
    assert "Secure" not in str(set_by(app.test_client().get("/")))


def test_no_shared_cache_gives_the_cookie_to_others(app: Flask) -> None:
    @app.route("/public")
    @mark("page:visited")
    def public() -> Response:
        response = Response("")
        response.cache_control.public = True
        response.cache_control.s_maxage = 60
        response.cache_control.max_age = 60
        return response

    browser = app.test_client()
    response = browser.get("/public")
    assert response.vary.as_set() == {"cookie"}
    assert response.cache_control.private
    assert not response.cache_control.public
    assert response.cache_control.s_maxage is None
    assert response.cache_control.max_age == 60
    assert browser.get("/public").cache_control.public  # nothing in it is anybody's own


def test_the_response_to_a_known_visitor_is_as_it_was(bare_app: Flask) -> None:
    browser = bare_app.test_client()
    headers = [{*browser.get("/").headers.keys()} for _ in range(2)]
    assert headers[0] - headers[1] == {"Cache-Control", "Set-Cookie", "Vary"}
    assert headers[1] == {"Content-Length", "Content-Type"}


class TestHostileCookies:
    def signed(self, key: str = "secret", salt: str = "flask-bitmapist.visitor") -> str:
        return str(URLSafeTimedSerializer(key, salt=salt).dumps("7"))

    @pytest.mark.parametrize(
        "held",
        ["", "7", "visitor:7", ".", "a.b.c", "\x00", "." * 4000, ".eJw.x.y", "ü", '"7"'],
    )
    def test_what_is_not_signed_is_a_new_visitor(self, app: Flask, held: str) -> None:
        response = app.test_client(use_cookies=False).get(
            "/", headers={"Cookie": f"{COOKIE}={held}"}
        )
        assert response.status_code == 200
        assert set_by(response)
        (visitor,) = visitors(app)
        assert visitor.startswith("visitor:")
        assert visitor != "visitor:7"

    def test_what_is_signed_otherwise_is_a_new_visitor(self, app: Flask) -> None:
        browser = app.test_client()
        browser.get("/login/7")
        of_session = browser.get_cookie("session")
        assert of_session is not None
        for held in self.signed(), self.signed("other"), of_session.value:
            stranger = app.test_client()
            stranger.set_cookie(COOKIE, held)
            assert set_by(stranger.get("/"))
        assert {visitor[:8] for visitor in visitors(app)} == {"visitor:"}

    def test_one_that_was_changed_is_a_new_visitor(self, app: Flask) -> None:
        browser = app.test_client()
        browser.get("/")
        cookie = browser.get_cookie(COOKIE)
        assert cookie is not None
        browser.set_cookie(COOKIE, "x" + cookie.value[1:])
        assert set_by(browser.get("/"))
        assert len(visitors(app)) == 2

    def test_one_that_is_too_old_is_a_new_visitor(
        self, app: Flask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        browser = app.test_client()
        held = str(set_by(browser.get("/"))).partition(";")[0]
        now = URLSafeTimedSerializer.default_signer.get_timestamp
        for age, is_new in (timedelta(days=364), False), (timedelta(days=366), True):
            later = int(age.total_seconds())
            monkeypatch.setattr(
                URLSafeTimedSerializer.default_signer,
                "get_timestamp",
                lambda signer, later=later: now(signer) + later,
            )
            response = app.test_client(use_cookies=False).get("/", headers={"Cookie": held})
            assert (set_by(response) is not None) is is_new


def test_a_former_key_still_counts(app: Flask) -> None:
    browser = app.test_client()
    browser.get("/")
    app.config.update(SECRET_KEY="newer", SECRET_KEY_FALLBACKS=["secret"])
    assert set_by(browser.get("/")) is None
    newcomer = app.test_client()
    newcomer.get("/")
    app.config["SECRET_KEY_FALLBACKS"] = []
    assert set_by(newcomer.get("/")) is None
    assert len(visitors(app)) == 2


def test_requests_of_one_visitor_at_once_mark_one(app: Flask) -> None:
    browser = app.test_client()
    held = str(set_by(browser.get("/"))).partition(";")[0]
    with ThreadPoolExecutor(8) as pool:
        answers = [
            *pool.map(
                lambda path: app.test_client(use_cookies=False).get(path, headers={"Cookie": held}),
                ["/", "/direct"] * 20,
            )
        ]
    assert {set_by(answer) for answer in answers} == {None}
    assert len(visitors(app)) == 1


def test_marks_of_one_request_are_of_one_visitor(app: Flask) -> None:
    @app.route("/several")
    @mark("page:visited")
    def several() -> str:
        mark_visitor("page:visited")
        return ""

    @app.after_request
    def later(response: Response) -> Response:
        mark_visitor("page:visited")
        return response

    assert set_by(app.test_client().get("/several"))
    assert len(visitors(app)) == 1


def test_what_is_marked_too_late_for_a_cookie_is_left_out(app: Flask) -> None:
    @app.route("/stream")
    def stream() -> Response:
        def parts() -> Iterator[str]:
            mark_visitor("page:visited")
            yield ""

        return Response(stream_with_context(parts()))

    browser = app.test_client()
    response = browser.get("/stream")
    assert (response.text, set_by(response), visitors(app)) == ("", None, [])
    browser.get("/")
    assert browser.get("/stream").text == ""
    assert len(visitors(app)) == 1


def test_a_failing_view_keeps_what_was_marked_before(app: Flask) -> None:
    @app.route("/broken")
    def broken() -> str:
        mark_visitor("page:visited")
        raise RuntimeError

    response = app.test_client().get("/broken")
    assert response.status_code == 500
    assert set_by(response)


def test_visitor_and_user_are_erased_by_their_ids(app: Flask) -> None:
    browser = app.test_client()
    browser.get("/")
    visitor = browser.get("/plain").text
    app.extensions["bitmapist"].tracker_of(app).erase(visitor)
    assert visitors(app) == []


def test_it_can_be_recorded(app: Flask) -> None:
    with record_marks() as marks:
        app.test_client().get("/")
    assert len(marks) == 1


def test_outside_a_request_nobody_is_a_visitor(app: Flask) -> None:
    with app.app_context():
        mark_visitor("page:visited")
        mark("page:visited")(lambda: "")()
        assert visitor_id() is None
    assert visitors(app) == []


def test_setting_up_twice_sets_one_cookie(app: Flask) -> None:
    FlaskBitmapist(app)
    assert len(app.test_client().get("/").headers.getlist("Set-Cookie")) == 1


def test_ids_of_calls_and_visitors_go_together(app: Flask) -> None:
    app.test_client().get("/")
    with app.app_context():
        mark_event("page:visited", 7)
    assert len(visitors(app)) == 2


class TestSetUp:
    def test_without_the_option_a_visitor_is_nobody(self, tmp_path: Path) -> None:
        app = Flask("plain", instance_path=str(tmp_path))
        FlaskBitmapist(app, {"DISABLE_BLUEPRINT": True})
        with (
            app.test_request_context(),
            pytest.raises(RuntimeError, match="mark_visitor.*needs BITMAPIST_VISITORS = True"),
        ):
            mark_visitor("page:visited")

    def test_the_option_needs_mapped_ids(self) -> None:
        with pytest.raises(
            ValueError, match="BITMAPIST_VISITORS needs BITMAPIST_ID_MAP = 'always', not 'auto'"
        ):
            FlaskBitmapist(Flask("shop"), {"BITMAPIST_VISITORS": True})

    def test_without_a_secret_key_a_call_says_so(
        self, app: Flask, caplog: pytest.LogCaptureFixture
    ) -> None:
        app.secret_key = None
        app.extensions.pop("bitmapist.visitors")
        with app.test_request_context():
            with pytest.raises(RuntimeError, match=r"set app\.secret_key"):
                mark_visitor("page:visited")
            mark("page:visited")(lambda: "")()
        (logged,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert "secret_key" in logged.message
