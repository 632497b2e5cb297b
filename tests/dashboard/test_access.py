"""Who may see the dashboard: closed to strangers at every address, and who is led to the log-in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask, Response, session
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user

from flask_bitmapist.dashboard.pages import PAGES as ENTRIES

from .conftest import PAGES

ADDRESSES = [
    *(f"/bitmapist{page}" for page in PAGES),
    "/bitmapist/person?id=1",
    "/bitmapist/boards",
    "/bitmapist/boards?board=Weekly",
    "/bitmapist/find?text=1",
    "/bitmapist/cohort?rows=nonsense",
    "/bitmapist/?complete=1",
    "/bitmapist/static/dashboard.css",
    "/bitmapist/static/vendor/htmx.min.js",
]
FORMATS = [f"{address}?format={form}" for address in ADDRESSES[:7] for form in ("json", "csv")]


@pytest.fixture
def stranger(closed_app: Flask) -> FlaskClient:
    return closed_app.test_client()


def admit(app: Flask, check: Callable[[], object]) -> None:
    app.extensions["bitmapist"].dashboard_access(check)


def statuses(client: FlaskClient, addresses: Iterable[str], **options: Any) -> set[int]:
    """The status of the answers at all these addresses."""
    return {client.get(address, buffered=True, **options).status_code for address in addresses}


# Without Flask-Login


def test_strangers_are_refused_at_every_address(stranger: FlaskClient) -> None:
    for address in ADDRESSES + FORMATS:
        answer = stranger.get(address)
        assert (answer.status_code, answer.mimetype) == (403, "text/plain"), address
        assert "This dashboard is closed to you." in answer.text


def test_every_route_of_the_blueprint_is_closed_to_strangers(
    closed_app: Flask, stranger: FlaskClient
) -> None:
    routes = [r for r in closed_app.url_map.iter_rules() if r.endpoint.startswith("bitmapist.")]
    assert {route.endpoint.removeprefix("bitmapist.") for route in routes} == {
        "static",
        *(page.endpoint for page in ENTRIES),
    }
    for route in routes:
        address = route.rule.replace("<path:filename>", "dashboard.css")
        for method in route.methods or ():
            for query in ("", "?format=json", "?format=csv", "?id=1", "?complete=1"):
                assert stranger.open(address + query, method=method).status_code == 403


def test_a_file_that_does_not_exist_is_closed_like_one_that_does(stranger: FlaskClient) -> None:
    assert stranger.get("/bitmapist/static/nothing.css").status_code == 403


def test_nothing_is_at_an_unknown_address(client: FlaskClient, stranger: FlaskClient) -> None:
    for visitor in (client, stranger):
        assert visitor.get("/bitmapist/nothing").status_code == 404


def test_strangers_are_refused_before_anything_is_read(unreachable_app: Flask) -> None:
    unreachable_app.testing = False
    assert statuses(unreachable_app.test_client(), ADDRESSES) == {403}


def test_a_stranger_is_told_nothing_about_the_application(
    closed_app: Flask, stranger: FlaskClient
) -> None:
    told = {stranger.get(address).text for address in ADDRESSES}
    assert len(told) == 1
    assert closed_app.name not in told.pop()


@pytest.mark.parametrize("option", ["debug", "testing"])
def test_debug_and_testing_open_the_dashboard(closed_app: Flask, option: str) -> None:
    setattr(closed_app, option, True)
    assert statuses(closed_app.test_client(), ADDRESSES) == {200, 400}


def test_a_check_decides_who_may_enter(closed_app: Flask, stranger: FlaskClient) -> None:
    admit(closed_app, lambda: session.get("staff"))
    assert stranger.get("/bitmapist/").status_code == 403
    with stranger.session_transaction() as kept:
        kept["staff"] = True
    assert stranger.get("/bitmapist/").status_code == 200
    assert stranger.get("/bitmapist/static/dashboard.css", buffered=True).status_code == 200


def test_a_check_closes_what_testing_would_open(app: Flask, client: FlaskClient) -> None:
    admit(app, lambda: False)
    assert statuses(client, ADDRESSES) == {403}


def test_a_check_that_fails_closes_the_dashboard_and_is_logged(
    app: Flask, client: FlaskClient, errors: pytest.LogCaptureFixture
) -> None:
    admit(app, lambda: 1 / 0)
    assert client.get("/bitmapist/").status_code == 403
    assert "dashboard_access failed" in errors.text
    assert "ZeroDivisionError" in errors.text


class AsynchronousCheck:
    async def __call__(self) -> bool:
        return False


async def no() -> bool:
    return False


@pytest.mark.parametrize(
    "check",
    [
        lambda: Response("no", 403),
        lambda: ("no", 403),
        lambda: "yes",
        lambda: 1,
        lambda: iter([False]),
        lambda: no(),
        AsynchronousCheck(),
    ],
    ids=["response", "tuple", "text", "number", "generator", "coroutine", "asynchronous object"],
)
def test_a_truthy_answer_other_than_true_opens_nothing_and_is_logged(
    app: Flask, client: FlaskClient, errors: pytest.LogCaptureFixture, check: Callable[[], object]
) -> None:
    admit(app, check)
    assert statuses(client, ADDRESSES) == {403}
    assert "rather than True or False" in errors.text


@pytest.mark.parametrize("check", [lambda: None, lambda: 0, lambda: ""])
def test_what_is_false_closes_the_dashboard_without_a_word(
    app: Flask, client: FlaskClient, errors: pytest.LogCaptureFixture, check: Callable[[], object]
) -> None:
    admit(app, check)
    assert statuses(client, ADDRESSES) == {403}
    assert not errors.text


@pytest.mark.parametrize(("verdict", "status"), [(True, 200), (False, 403)])
def test_a_check_may_be_a_coroutine(
    app: Flask, client: FlaskClient, verdict: bool, status: int
) -> None:
    async def check() -> bool:
        return verdict

    admit(app, check)
    assert client.get("/bitmapist/").status_code == status


# With Flask-Login


class User(UserMixin):
    def __init__(self, id_: str) -> None:
        self.id = id_


@pytest.fixture
def manager(closed_app: Flask) -> LoginManager:
    """The application of a closed dashboard asks its visitors to log in."""
    manager = LoginManager(closed_app)
    manager.login_view = "log_in"
    manager.user_loader(User)

    @closed_app.get("/log-in")
    def log_in() -> str:
        return "Who are you?"

    @closed_app.get("/enter/<id_>")
    def enter(id_: str) -> str:
        login_user(User(id_))
        return id_

    return manager


@pytest.fixture
def only_staff(closed_app: Flask, manager: LoginManager) -> None:
    admit(closed_app, lambda: current_user.is_authenticated and current_user.id == "staff")


def test_an_anonymous_visitor_of_a_page_is_led_to_the_log_in_and_back(
    stranger: FlaskClient, only_staff: None
) -> None:
    for address in [*ADDRESSES[:-2], "/bitmapist/funnel?format=html&step=a%26b"]:
        answer = stranger.get(address)
        assert answer.status_code == 302
        target = urlsplit(answer.location)
        assert target.path == "/log-in"
        assert parse_qs(target.query)["next"] == [address]


def test_a_form_of_an_anonymous_visitor_is_refused(
    closed_app: Flask, stranger: FlaskClient, only_staff: None
) -> None:
    closed_app.add_url_rule("/bitmapist/note", "bitmapist.note", lambda: "", methods=["POST"])
    assert stranger.post("/bitmapist/note").status_code == 403


def test_an_anonymous_reader_of_figures_and_files_is_refused(
    stranger: FlaskClient, only_staff: None
) -> None:
    for address in [*FORMATS, *ADDRESSES[-2:]]:
        answer = stranger.get(address)
        assert answer.status_code == 403
        assert "HX-Refresh" not in answer.headers


def test_a_part_of_a_page_is_refused_and_the_page_is_reloaded(
    stranger: FlaskClient, only_staff: None
) -> None:
    for address in ADDRESSES[:-2]:
        answer = stranger.get(address, headers={"HX-Request": "true"})
        assert answer.status_code == 403
        assert answer.headers["HX-Refresh"] == "true"


def test_a_check_below_login_required_admits_nobody_who_is_not_logged_in(
    closed_app: Flask, stranger: FlaskClient, manager: LoginManager
) -> None:
    admit(closed_app, login_required(lambda: current_user.id == "staff"))
    assert stranger.get("/bitmapist/").status_code == 302
    assert statuses(stranger, FORMATS) == {403}
    stranger.get("/enter/staff")
    assert stranger.get("/bitmapist/").status_code == 200


def test_a_log_in_page_of_the_blueprint_s_own_is_led_to(
    stranger: FlaskClient, manager: LoginManager, only_staff: None
) -> None:
    manager.login_view = None
    manager.blueprint_login_views = {"bitmapist": "log_in"}
    assert urlsplit(stranger.get("/bitmapist/").location).path == "/log-in"


def test_a_log_in_page_that_does_not_exist_leaves_the_dashboard_closed(
    stranger: FlaskClient,
    manager: LoginManager,
    only_staff: None,
    errors: pytest.LogCaptureFixture,
) -> None:
    manager.login_view = "nowhere"
    assert statuses(stranger, ADDRESSES) == {403}
    assert "nowhere" in errors.text


def test_a_user_whom_the_check_refuses_is_not_asked_to_log_in(
    stranger: FlaskClient, only_staff: None
) -> None:
    stranger.get("/enter/customer")
    assert statuses(stranger, ADDRESSES) == {403}


def test_a_user_whom_the_check_admits_sees_the_dashboard(
    stranger: FlaskClient, only_staff: None
) -> None:
    stranger.get("/enter/staff")
    assert stranger.get("/bitmapist/").status_code == 200


def test_without_a_check_nobody_is_led_to_a_log_in_that_would_not_help(
    stranger: FlaskClient, manager: LoginManager
) -> None:
    assert statuses(stranger, ADDRESSES) == {403}


def test_without_a_log_in_page_nobody_is_led_to_one(
    stranger: FlaskClient, manager: LoginManager, only_staff: None
) -> None:
    manager.login_view = None
    assert statuses(stranger, ADDRESSES) == {403}


def test_a_log_in_that_fails_closes_the_dashboard_and_is_logged(
    stranger: FlaskClient,
    manager: LoginManager,
    only_staff: None,
    errors: pytest.LogCaptureFixture,
) -> None:
    stranger.get("/enter/staff")
    manager.user_loader(lambda id_: 1 / 0)
    assert stranger.get("/bitmapist/").status_code == 403
    assert "ZeroDivisionError" in errors.text


def test_the_answer_to_an_anonymous_visitor_is_not_stored(
    stranger: FlaskClient, only_staff: None
) -> None:
    assert stranger.get("/bitmapist/").headers["Cache-Control"] == "no-store"
