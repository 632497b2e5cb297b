"""How the dashboard answers: headers, places where it can live, and a server that does not."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import redis as redis_py
from flask import Blueprint, Flask, Response, url_for
from flask.testing import FlaskClient
from markupsafe import escape
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client

from flask_bitmapist import FlaskBitmapist, mark_event
from flask_bitmapist.dashboard.pages import PAGES as ENTRIES

from .conftest import NOW, PAGES, Browser, mark_log
from .reading import addresses, error_of, read

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
ANSWERS = [
    *(f"/bitmapist{page}" for page in PAGES),
    "/bitmapist/person?id=1",
    "/bitmapist/boards",
    "/bitmapist/cohort?format=json",
    "/bitmapist/cohort?format=csv",
    "/bitmapist/cohort?rows=nonsense",
    "/bitmapist/cohort?rows=nonsense&format=json",
    "/bitmapist/people?where=%26",
    "/bitmapist/static/dashboard.css",
    "/bitmapist/static/nothing.css",
]
SCRIPT = "<script>alert(1)</script>"


def check_headers(client: FlaskClient, statuses: set[int]) -> None:
    found = set()
    for address in ANSWERS:
        answer = client.get(address, buffered=True)
        found.add(answer.status_code)
        headers = answer.headers
        assert headers["Content-Security-Policy"] == POLICY, address
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Robots-Tag"] == "noindex"
        assert headers["Referrer-Policy"] == "same-origin"
        if "static" not in address:
            assert headers["Cache-Control"] == "no-store"
    assert found == statuses


# Headers


def test_every_answer_carries_the_headers(recorded: None, client: FlaskClient) -> None:
    check_headers(client, {200, 400, 404})


def test_every_refusal_carries_the_headers(closed_app: Flask) -> None:
    check_headers(closed_app.test_client(), {403})


def test_every_failure_carries_the_headers(unreachable_app: Flask) -> None:
    check_headers(unreachable_app.test_client(), {503, 200, 404})


def test_the_applications_own_pages_keep_their_headers(app: Flask, client: FlaskClient) -> None:
    app.add_url_rule("/mine", "mine", lambda: "mine")
    headers = client.get("/mine").headers
    assert "Content-Security-Policy" not in headers
    assert "Cache-Control" not in headers


@pytest.mark.parametrize("closed", [False, True])
def test_what_the_application_adds_to_every_answer_does_not_weaken_the_headers(
    app: Flask, recorded: None, client: FlaskClient, closed: bool
) -> None:
    @app.after_request
    def weaken(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = "default-src * 'unsafe-inline'"
        response.headers["Cache-Control"] = "public"
        response.headers["X-Their-Own"] = "1"
        return response

    if closed:
        app.extensions["bitmapist"].dashboard_access(lambda: False)
    check_headers(client, {403} if closed else {200, 400, 404})
    assert client.get("/bitmapist/").headers["X-Their-Own"] == "1"


@pytest.mark.parametrize("closed", [False, True])
def test_another_response_in_the_place_of_ours_carries_the_headers(
    app: Flask, recorded: None, client: FlaskClient, closed: bool
) -> None:
    @app.after_request
    def replace(response: Response) -> Response:
        response.direct_passthrough = False
        theirs = Response(response.get_data(), response.status, mimetype=response.mimetype)
        theirs.headers["Cache-Control"] = "public"
        response.close()
        return theirs

    if closed:
        app.extensions["bitmapist"].dashboard_access(lambda: False)
    check_headers(client, {403} if closed else {200, 400, 404})


@pytest.mark.parametrize("host", ["localhost", "stats.example:8000"])
def test_where_rules_have_hosts_the_dashboard_answers_on_each(redis_url: str, host: str) -> None:
    app = Flask("hosts", host_matching=True, static_host="static.example")
    app.config.update(TESTING=True, BITMAPIST_ENABLED=True, BITMAPIST_REDIS_URL=redis_url)
    app.add_url_rule("/", "home", lambda: "theirs", host="home.example")
    tracker = FlaskBitmapist(app).tracker_of(app)
    client = app.test_client()
    with app.app_context(), tracker.at(NOW):
        mark_log()
        for page in (*PAGES, "/?complete=1", "/person?id=1"):
            answer = client.get(f"/bitmapist{page}", base_url=f"http://{host}")
            assert answer.status_code == 200
            found = addresses(read(answer.text))
            assert all(address.startswith("/bitmapist/") for address in found), found
        for address in {*found}:
            answer = client.get(address, base_url=f"http://{host}", buffered=True)
            assert answer.status_code == 200
    assert client.get("/", base_url="http://home.example").text == "theirs"
    app.config["SERVER_NAME"] = "stats.example"
    with app.app_context():
        assert url_for("bitmapist.cohort") == "http://stats.example/bitmapist/cohort"


def test_what_the_application_adds_to_every_address_is_let_pass(
    app: Flask, recorded: None, browser: Browser
) -> None:
    @app.url_defaults
    def add_language(endpoint: str, values: dict[str, object]) -> None:
        values.setdefault("lang", "en")

    shapes: dict[object, str] = {}
    for page in (*PAGES, "/?complete=1", "/person?id=1"):
        for address in addresses(browser.open(page)):
            assert "lang=en" in address
            if "format=" not in address and "/static/" not in address:
                parts = urlsplit(address)
                shapes.setdefault((parts.path, *parse_qs(parts.query)), address)
    for address in shapes.values():
        browser.open(address)
    assert "There is no parameter 'colour'" in error_of(browser.open("/?lang=en&colour=1", 400))[0]


def test_a_page_that_says_what_is_wrong_leads_back(
    recorded: None, unreachable_app: Flask, browser: Browser
) -> None:
    for address, back in [
        ("/cohort?rows=nonsense", "/bitmapist/cohort"),
        ("/?sort=colour", "/bitmapist/"),
        ("/person?id=None", "/bitmapist/people"),
    ]:
        shown = browser.open(address, 400)
        assert shown.one("a", class_="back").attributes["href"] == back
    assert browser.open("/cohort?x=1", 400).one("a", **{"aria-current": "page"}).text == "Retention"
    for address in (
        "/bitmapist/compare?arm=a&arm=b&rows=3",
        "/bitmapist/?_scheme=javascript&_external=1&endpoint=x&find=%22%3Cb%3E",
    ):
        answer = unreachable_app.test_client().get(address)
        again = read(answer.text).one("a", class_="back").attributes["href"]
        assert again == address


def test_files_may_be_kept_by_a_browser(client: FlaskClient) -> None:
    with client.get("/bitmapist/static/dashboard.css") as answer:
        assert answer.status_code == 200
    assert "no-store" not in answer.headers["Cache-Control"]
    tag = {"If-None-Match": answer.headers["ETag"]}
    with client.get("/bitmapist/static/dashboard.css", headers=tag) as again:
        assert again.status_code == 304


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_there_is_nothing_to_change(recorded: None, client: FlaskClient, method: str) -> None:
    for page in ENTRIES:
        # Who may not save is refused where there is something to be saved.
        status = 403 if method in page.methods else 405
        answer = client.open(f"/bitmapist{page.address}", method=method)
        assert answer.status_code == status, page.address


def test_no_page_changes_anything_on_the_server(
    recorded: None, client: FlaskClient, redis: Any
) -> None:
    def dump() -> dict[bytes, bytes | None]:
        return {key: redis.dump(key) for key in redis.keys("*")}

    before = dump()
    for address in ANSWERS:
        client.get(address, buffered=True)
    assert dump() == before


# Places


def all_addresses(client: Client, page: str) -> list[str]:
    return addresses(read(client.get(page).text))


@pytest.mark.parametrize("page", [*PAGES, "/?complete=1", "/person?id=1", "/cohort?rows=x"])
def test_everything_that_a_page_loads_or_leads_to_is_below_the_url_prefix(
    redis_url: str, page: str
) -> None:
    app = Flask(__name__)
    app.config.update(
        TESTING=True,
        BITMAPIST_ENABLED=True,
        BITMAPIST_REDIS_URL=redis_url,
        BITMAPIST_URL_PREFIX="/a/stats",
    )
    tracker = FlaskBitmapist(app).tracker_of(app)
    with app.app_context(), tracker.at(NOW):
        mark_log()
        found = all_addresses(app.test_client(), f"/a/stats{page}")
    assert len(found) > 10
    assert all(address.startswith("/a/stats/") for address in found)


@pytest.mark.parametrize("page", ["/", "/?complete=1", "/cohort", "/people", "/person?id=1"])
def test_a_page_works_where_the_application_is_mounted(
    app: Flask, recorded: None, page: str
) -> None:
    mounted = Client(DispatcherMiddleware(Flask("root"), {"/shop": app.wsgi_app}))
    found = all_addresses(mounted, f"/shop/bitmapist{page}")
    assert all(address.startswith("/shop/bitmapist/") for address in found)
    for address in {*found}:
        assert mounted.get(address, buffered=True).status_code == 200


@pytest.mark.parametrize("page", ["/", "/?complete=1", "/compare"])
def test_a_page_works_behind_a_proxy_with_a_prefix(app: Flask, recorded: None, page: str) -> None:
    behind = Client(ProxyFix(app.wsgi_app, x_prefix=1, x_host=1))
    answer = behind.get(
        f"/bitmapist{page}",
        headers={"X-Forwarded-Prefix": "/team", "X-Forwarded-Host": "intra.example"},
    )
    found = addresses(read(answer.text))
    assert found
    assert all(address.startswith("/team/bitmapist/") for address in found)


def test_the_dashboard_can_be_left_out(redis_url: str) -> None:
    for option in ("DISABLE_BLUEPRINT", "BITMAPIST_DISABLE_BLUEPRINT"):
        app = Flask("headless")
        app.config.update(
            TESTING=True, BITMAPIST_ENABLED=True, BITMAPIST_REDIS_URL=redis_url, **{option: True}
        )
        FlaskBitmapist(app)
        assert app.test_client().get("/bitmapist/").status_code == 404
        assert not [r for r in app.url_map.iter_rules() if r.endpoint.startswith("bitmapist")]


def test_the_applications_own_templates_and_jinja_options_do_not_matter(
    redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "templates/bitmapist").mkdir(parents=True)
    for name in ("base", "parts", "overview"):
        (tmp_path / f"templates/bitmapist/{name}.html").write_text("mine")
    app = Flask("own", root_path=str(tmp_path))
    app.config.update(TESTING=True, BITMAPIST_ENABLED=True, BITMAPIST_REDIS_URL=redis_url)
    app.jinja_options = {"autoescape": False, "variable_start_string": "[["}
    app.context_processor(lambda: {"nothing": 1 / 0})
    app.add_template_filter(lambda value: "theirs", "thousands")
    FlaskBitmapist(app)
    with app.app_context():
        mark_event(SCRIPT, 1)
    page = app.test_client().get("/bitmapist/?complete=1").text
    assert str(escape(SCRIPT)) in page
    assert SCRIPT not in page
    assert "theirs" not in page


def test_the_applications_own_static_files_and_pages_do_not_collide(
    app: Flask, client: FlaskClient, tmp_path: Path
) -> None:
    (tmp_path / "dashboard.css").write_text("mine")
    app.register_blueprint(
        Blueprint("mine", __name__, static_folder=tmp_path, static_url_path="/static2")
    )
    app.add_url_rule("/people", "people", lambda: "mine")
    assert client.get("/static2/dashboard.css", buffered=True).text == "mine"
    assert client.get("/people").text == "mine"
    assert client.get("/bitmapist/static/dashboard.css", buffered=True).text != "mine"


def test_the_applications_own_error_pages_are_not_used(app: Flask, browser: Browser) -> None:
    app.register_error_handler(400, lambda error: ("mine", 400))
    assert browser.open("/person", 400).one("h1").text == "That cannot be shown"


# Failures


def test_without_redis_a_page_says_so_and_the_log_says_why(
    unreachable_app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    client = unreachable_app.test_client()
    for page in (*PAGES, "/?complete=1", "/person?id=1"):
        caplog.clear()
        with caplog.at_level(logging.ERROR, "flask_bitmapist"):
            answer = client.get(f"/bitmapist{page}")
        assert answer.status_code == 503
        assert "Redis did not answer" in answer.text
        assert "Traceback" not in answer.text
        assert "nobody.sock" not in answer.text
        assert "nobody.sock" in caplog.text


def test_without_redis_figures_are_an_error_in_their_form(unreachable_app: Flask) -> None:
    client = unreachable_app.test_client()
    as_json = client.get("/bitmapist/funnel?format=json")
    assert (as_json.status_code, as_json.mimetype) == (503, "application/json")
    assert "Redis did not answer" in as_json.get_json()["error"]
    as_text = client.get("/bitmapist/funnel?format=csv")
    assert (as_text.status_code, as_text.mimetype) == (503, "text/plain")


def test_a_page_needs_no_right_to_write(recorded: None, redis: Any, redis_url: str) -> None:
    redis.acl_setuser("reader", True, True, keys="*", categories=["+@read", "+@connection"])
    with redis_py.Redis.from_url(redis_url, username="reader") as reader:
        app = Flask("reading")
        app.testing = True
        own = FlaskBitmapist(app, {"BITMAPIST_SPOOL": False}, redis_client=reader).tracker_of(app)
        with own.at(NOW):
            client = app.test_client()
            for page in (*PAGES, "/?complete=1", "/person?id=1", "/people?of=lifecycle"):
                answer = client.get(f"/bitmapist{page}")
                assert answer.status_code == 200, page
                assert "user:" in answer.text
        with pytest.raises(redis_py.exceptions.NoPermissionError):
            reader.setbit("bits", 1, 1)


def test_an_application_that_only_marks_loads_no_reports() -> None:
    program = """
import sys
from flask import Flask
from flask_bitmapist import FlaskBitmapist
app = Flask("marks")
FlaskBitmapist(app)
assert "bitmapist" in app.blueprints
app.test_client().get("/bitmapist/")
loaded = {name for name in sys.modules if name.startswith("flask_bitmapist.")}
assert "numpy" not in sys.modules
assert "flask_bitmapist.dashboard" in loaded
assert not any(name.startswith("flask_bitmapist.analytics") for name in loaded), loaded
"""
    subprocess.run([sys.executable, "-c", program], check=True)
