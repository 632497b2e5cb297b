"""Who may save, and what a form must bring: nobody without a check, nothing from other sites."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask, Response, jsonify, request
from flask.testing import FlaskClient
from flask_wtf import CSRFProtect

from flask_bitmapist.dashboard.access import may_save
from flask_bitmapist.dashboard.posting import hidden_fields

ADDRESS = "/bitmapist/note"


@pytest.fixture
def written(app: Flask) -> list[str]:
    """What was saved by a page of the dashboard that has nothing but a form."""
    notes: list[str] = []

    def note() -> Response:
        if request.method == "POST":
            notes.append(request.form["text"])
        return jsonify({**hidden_fields()} if may_save() else {})

    app.add_url_rule(ADDRESS, "bitmapist.note", note, methods=["GET", "POST"])
    return notes


def permit(app: Flask, check: Callable[[], object] = lambda: True) -> None:
    app.extensions["bitmapist"].may_save(check)


def send(client: FlaskClient, fields: dict[str, str] | None = None, **headers: str) -> int:
    """Send the form that a page has shown; the status of the answer."""
    shown = client.get(ADDRESS).json if fields is None else fields
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(ADDRESS, data={"text": "x", **(shown or {})}, headers=named).status_code


def test_without_a_check_nobody_may_save_not_even_in_debug_mode(
    app: Flask, client: FlaskClient, written: list[str]
) -> None:
    app.debug = True
    assert client.get(ADDRESS).json == {}
    answer = client.post(ADDRESS, data={"text": "x"})
    assert (answer.status_code, answer.mimetype) == (403, "text/plain")
    assert "@bitmapist.may_save" in answer.text
    assert not written


def test_whom_the_check_names_may_save(app: Flask, client: FlaskClient, written: list[str]) -> None:
    permit(app)
    assert send(client) == 200
    assert written == ["x"]


@pytest.mark.parametrize("check", [lambda: False, lambda: 1, lambda: "yes", lambda: 1 / 0])
def test_whom_the_check_does_not_name_may_look_but_not_save(
    app: Flask, client: FlaskClient, written: list[str], check: Callable[[], object]
) -> None:
    permit(app)
    fields = client.get(ADDRESS).json
    permit(app, check)
    assert client.get("/bitmapist/").status_code == 200
    assert send(client, fields) == 403
    assert not written


def test_who_may_save_but_not_look_may_neither(
    app: Flask, client: FlaskClient, written: list[str]
) -> None:
    permit(app)
    fields = client.get(ADDRESS).json
    app.extensions["bitmapist"].dashboard_access(lambda: False)
    assert send(client, fields) == 403
    assert not written


def test_the_check_is_asked_once_in_a_request_and_never_of_strangers(
    app: Flask, client: FlaskClient, written: list[str]
) -> None:
    asked: list[str] = []

    def check() -> bool:
        asked.append(request.method)
        return True

    permit(app, check)
    assert send(client) == 200
    assert asked == ["GET", "POST"]
    app.extensions["bitmapist"].dashboard_access(lambda: False)
    client.post(ADDRESS)
    assert asked == ["GET", "POST"]


def test_without_a_secret_key_nobody_may_save_and_the_log_says_why(
    app: Flask, client: FlaskClient, written: list[str], errors: pytest.LogCaptureFixture
) -> None:
    permit(app)
    app.secret_key = None
    assert send(client) == 403
    assert "SECRET_KEY" in errors.text


@pytest.mark.parametrize(
    "fields", [{}, {"bitmapist_token": ""}, {"bitmapist_token": "x"}, {"bitmapist_token": "a.b.c"}]
)
def test_a_form_without_a_token_is_refused(
    app: Flask, client: FlaskClient, written: list[str], fields: dict[str, str]
) -> None:
    permit(app)
    client.get(ADDRESS)
    assert send(client, fields) == 403
    assert not written


def test_a_token_holds_for_its_browser_alone(
    app: Flask, client: FlaskClient, written: list[str]
) -> None:
    permit(app)
    of_another = app.test_client().get(ADDRESS).json
    assert send(client, of_another) == 403
    client.get(ADDRESS)
    assert send(client, of_another) == 403
    assert not written


def test_a_token_is_signed_with_the_key_of_the_application(
    app: Flask, client: FlaskClient, written: list[str]
) -> None:
    permit(app)
    app.secret_key = "another"
    fields = client.get(ADDRESS).json
    app.secret_key = "test"
    assert send(client, fields) == 403


def test_a_token_is_good_for_a_day(
    app: Flask, client: FlaskClient, written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    permit(app)
    fields = client.get(ADDRESS).json
    assert send(client, fields) == 200
    monkeypatch.setattr("flask_bitmapist.dashboard.posting._LIFE", -1)
    assert send(client, fields) == 403


def test_two_open_pages_can_both_be_used(
    app: Flask, client: FlaskClient, written: list[str]
) -> None:
    permit(app)
    first, second = client.get(ADDRESS).json, client.get(ADDRESS).json
    assert [send(client, first), send(client, second)] == [200, 200]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "none"}, 403),
        ({"Sec_Fetch_Site": "cross-site", "Origin": "http://localhost"}, 403),
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "https://localhost"}, 200),
        ({"Origin": "http://localhost:8000"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Origin": "http://evil.example/localhost"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
    ],
)
def test_a_form_of_another_site_is_refused_whatever_it_brings(
    app: Flask, client: FlaskClient, written: list[str], headers: dict[str, str], status: int
) -> None:
    permit(app)
    fields = client.get(ADDRESS).json
    assert send(client, fields, **headers) == status
    assert len(written) == int(status == 200)


def test_a_refused_form_leads_back_to_its_page(
    app: Flask, client: FlaskClient, written: list[str]
) -> None:
    permit(app)
    answer = client.post(f"{ADDRESS}?where=a%26b")
    assert answer.status_code == 403
    assert 'href="/bitmapist/note?where=a%26b"' in answer.text


def test_a_huge_form_is_refused_before_it_is_read(
    app: Flask, client: FlaskClient, written: list[str]
) -> None:
    permit(app)
    fields = client.get(ADDRESS).json or {}
    assert send(client, {**fields, "text": "x" * 70_000}) == 413


def test_the_cookie_is_ours_alone(app: Flask, client: FlaskClient, written: list[str]) -> None:
    assert not client.get(ADDRESS).headers.getlist("Set-Cookie")
    permit(app)
    (told,) = client.get(ADDRESS, base_url="https://localhost").headers.getlist("Set-Cookie")
    name, *attributes = told.split("; ")
    assert name.startswith("bitmapist_browser=")
    assert {*attributes} == {"Secure", "HttpOnly", "Path=/bitmapist/", "SameSite=Lax"}
    answer = client.get(ADDRESS, base_url="https://localhost")
    assert not answer.headers.getlist("Set-Cookie")


def test_it_works_beside_the_protection_of_flask_wtf(
    app: Flask, client: FlaskClient, written: list[str]
) -> None:
    app.config["WTF_CSRF_FIELD_NAME"] = "proof"
    CSRFProtect(app)
    permit(app)
    fields = client.get(ADDRESS).json or {}
    assert {*fields} == {"bitmapist_token", "proof"}
    assert send(client, fields) == 200
    assert send(client, {"bitmapist_token": fields["bitmapist_token"]}) == 400
    assert send(client, {"proof": fields["proof"]}) == 403
    assert written == ["x"]


def test_strangers_learn_nothing_from_what_the_application_refuses(
    app: Flask, client: FlaskClient, written: list[str]
) -> None:
    CSRFProtect(app)
    app.extensions["bitmapist"].dashboard_access(lambda: False)
    answer = client.post(ADDRESS)
    assert (answer.status_code, answer.mimetype) == (403, "text/plain")
    assert "This dashboard is closed to you." in answer.text
