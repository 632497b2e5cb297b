"""The dashboard: what it shows, who may see it, what it says when it cannot answer."""

import logging
import re
import subprocess
import sys
from datetime import datetime, timedelta

import pytest
import redis as redis_py
from flask import Flask, session
from markupsafe import escape

from flask_bitmapist import FlaskBitmapist, mark_event, mark_unique
from flask_bitmapist.analytics.overview import overview
from flask_bitmapist.dashboard import CONTENT_SECURITY_POLICY
from flask_bitmapist.dashboard.drawing import heat, label, sparkline

NOW = datetime(2026, 11, 23, 14, 32)  # a Monday
SCRIPT = "<script>alert(1)</script>"

PAGES = ["/bitmapist/", "/bitmapist/cohort", "/bitmapist/cohort?by=day&rows=3&columns=2"]
URLS = [*PAGES, "/bitmapist/cohort?rows=nonsense", "/bitmapist/static/dashboard.css"]


@pytest.fixture
def at_now(app, tracker):
    with app.app_context(), tracker.at(NOW):
        yield


@pytest.fixture
def recorded(at_now):
    mark_event("user:created", [1, 2, 3, 4], now=NOW - timedelta(days=14))
    mark_event("user:created", [5, 6], now=NOW)
    mark_event("user:logged_in", [1, 2, 3], now=NOW - timedelta(days=7))
    mark_event("user:logged_in", [1], now=NOW)


@pytest.fixture
def closed_app(redis_url):
    """An app as in production, in which a user may log in by a session."""
    app = Flask("production")
    app.config.update(BITMAPIST_REDIS_URL=redis_url, BITMAPIST_SPOOL=False, SECRET_KEY="s")
    FlaskBitmapist(app)

    @app.get("/enter")
    def enter():
        session["staff"] = True
        return ""

    return app


@pytest.fixture
def unreachable_app(tmp_path):
    """An app whose server does not exist."""
    app = Flask("alone")
    app.config.update(TESTING=True, BITMAPIST_REDIS_URL=f"unix://{tmp_path}/nobody.sock")
    FlaskBitmapist(app, {"BITMAPIST_SPOOL": False})
    return app


def cells_of(page: str) -> list[list[str]]:
    """The text of a page's table cells, row by row."""
    rows = re.findall(r"<tr.*?</tr>", page, re.DOTALL)
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]
    return [[re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", c)).strip() for c in row] for row in cells]


# What the pages show


def test_the_overview_counts_unique_users_of_every_current_period(recorded):
    mark_event("user:created", [1, 7], now=datetime(2026, 1, 1))
    mark_event("user:created", [8], now=datetime(2025, 12, 31))
    created, logged_in = overview().events
    assert (created.event, logged_in.event) == ("user:created", "user:logged_in")
    assert (created.today, created.week, created.month, created.year) == (2, 2, 6, 7)
    assert len(created.days) == 30
    assert created.days[-1] == 2
    assert created.days[-15] == 4
    assert sum(logged_in.days) == 4


def test_the_overview_reports_as_of_another_moment(recorded):
    report = overview(now=NOW - timedelta(days=14))
    assert report.as_of == NOW - timedelta(days=14)
    assert [activity.today for activity in report.events] == [4, 0]


def test_the_index_lists_every_event_with_its_figures(recorded, client):
    header, created, logged_in = cells_of(client.get("/bitmapist/").text)
    assert header == ["Event", "30 days", "Today", "This week", "This month", "This year"]
    figures = "Day by day, from 0 to 4; 2 today"
    assert created == ["user:created", figures, "2", "2", "6", "6"]
    assert logged_in[0] == "user:logged_in"
    assert logged_in[2:] == ["1", "1", "3", "3"]


def test_a_flag_is_listed_apart_from_the_events(recorded, client):
    mark_unique("user:premium", [1, 2, 3])
    rows = cells_of(client.get("/bitmapist/").text)
    assert [row[0] for row in rows].count("user:premium") == 1
    assert rows[-1] == ["user:premium", "3"]


def test_the_cohort_page_shows_who_came_back(recorded, client):
    page = client.get("/bitmapist/cohort?by=week&rows=3&columns=3").text
    assert cells_of(page) == [
        ["Week of", "People", "+0", "+1", "+2"],
        ["Average", "6", "0.0", "75.0", ""],
        ["9 Nov", "4", "0.0 0", "75.0 3", "25.0 * 1"],
        ["16 Nov", "0", "", "", ""],
        ["23 Nov", "2", "0.0 * 0", "", ""],
    ]


def test_the_cohort_page_asks_who_of_the_created_logged_in_unless_told(recorded, client):
    mark_event("a:first", 1)
    page = client.get("/bitmapist/cohort").text
    assert re.findall("<option selected>(.*)</option>", page) == ["user:created", "user:logged_in"]
    assert len(cells_of(page)) == 2 + 12


def test_the_cohort_page_takes_other_events_when_nobody_was_created(at_now, client):
    mark_event("song:played", 1)
    page = client.get("/bitmapist/cohort?by=month&rows=2&columns=1").text
    assert re.findall("<option selected>(.*)</option>", page) == ["song:played", "song:played"]
    assert [row[0] for row in cells_of(page)] == ["Month", "Average", "Oct 2026", "Nov 2026"]


@pytest.mark.parametrize("url", ["/bitmapist/", "/bitmapist/cohort"])
def test_without_any_event_a_page_says_what_to_paste_where(client, url):
    page = client.get(url)
    assert page.status_code == 200
    assert "Nothing recorded yet" in page.text
    assert "from flask_bitmapist import mark_event" in page.text
    assert "class User(db.Model, Bitmapistable)" in page.text


def test_pages_keep_their_addresses_of_2016(app):
    with app.test_request_context():
        assert app.url_for("bitmapist.index") == "/bitmapist/"
        assert app.url_for("bitmapist.cohort") == "/bitmapist/cohort"


def test_pages_follow_the_url_prefix(redis_url):
    app = Flask(__name__)
    app.config.update(TESTING=True, BITMAPIST_REDIS_URL=redis_url, BITMAPIST_URL_PREFIX="/stats")
    FlaskBitmapist(app)
    page = app.test_client().get("/stats/")
    assert page.status_code == 200
    assert 'href="/stats/static/dashboard.css"' in page.text


def test_two_applications_show_their_own_events(server, client, recorded):
    other = Flask("other")
    other.config.update(TESTING=True, BITMAPIST_REDIS_URL=server.fresh_database())
    FlaskBitmapist(other)
    assert "Nothing recorded yet" in other.test_client().get("/bitmapist/").text
    assert "user:created" in client.get("/bitmapist/").text


def test_the_applications_own_templates_and_jinja_options_do_not_matter(redis_url, tmp_path):
    (tmp_path / "templates/bitmapist").mkdir(parents=True)
    (tmp_path / "templates/bitmapist/base.html").write_text("mine")
    app = Flask("own", root_path=str(tmp_path))
    app.config.update(TESTING=True, BITMAPIST_REDIS_URL=redis_url)
    app.jinja_options = {"autoescape": False, "variable_start_string": "[["}
    app.context_processor(lambda: 1 / 0)
    FlaskBitmapist(app)
    with app.app_context():
        mark_event(SCRIPT, 1)
    page = app.test_client().get("/bitmapist/").text
    assert str(escape(SCRIPT)) in page
    assert SCRIPT not in page


@pytest.mark.parametrize("url", PAGES)
@pytest.mark.parametrize("event", [SCRIPT, '"><img src=x onerror=alert(1)>', "{{ 7*7 }}", "a&b c"])
def test_the_name_of_an_event_is_shown_and_never_run(client, at_now, url, event):
    mark_event(event, 1)
    page = client.get(url)
    assert page.status_code == 200
    assert str(escape(event)) in page.text
    assert "<script" not in page.text
    assert "<img" not in page.text


def test_an_event_links_to_its_cohort_whatever_its_name(client, at_now):
    mark_event("a&b=c #d", 1)
    link = re.search('<th scope="row"><a href="(.*?)">', client.get("/bitmapist/").text)
    page = client.get(link[1].replace("&amp;", "&"))
    assert page.status_code == 200
    assert "<option selected>a&amp;b=c #d</option>" in page.text


@pytest.mark.parametrize("url", PAGES)
def test_a_page_has_no_script_no_inline_style_and_nothing_from_elsewhere(client, recorded, url):
    page = client.get(url).text
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=|javascript:", page)
    links = re.findall(r'(?:href|src|action)="(.*?)"', page)
    assert links
    assert all(link.startswith(("/bitmapist/", "data:image/svg+xml,")) for link in links)


# Who may see it


@pytest.mark.parametrize("url", URLS)
def test_strangers_are_refused_at_every_address(closed_app, url):
    answer = closed_app.test_client().get(url)
    assert answer.status_code == 403
    assert "This dashboard is closed to you." in answer.text


def test_every_route_of_the_blueprint_is_closed_to_strangers(closed_app):
    routes = [r for r in closed_app.url_map.iter_rules() if r.endpoint.startswith("bitmapist.")]
    assert {route.endpoint for route in routes} == {
        "bitmapist.index",
        "bitmapist.cohort",
        "bitmapist.static",
    }
    client = closed_app.test_client()
    for route in routes:
        address = route.rule.replace("<path:filename>", "dashboard.css")
        for method in route.methods:
            assert client.open(address, method=method).status_code == 403


@pytest.mark.parametrize("url", URLS)
def test_strangers_are_refused_before_anything_is_read(unreachable_app, url):
    unreachable_app.testing = False
    assert unreachable_app.test_client().get(url).status_code == 403


@pytest.mark.parametrize("option", ["debug", "testing"])
def test_debug_and_testing_open_the_dashboard(closed_app, option):
    setattr(closed_app, option, True)
    client = closed_app.test_client()
    assert all(client.get(url, buffered=True).status_code != 403 for url in URLS)


def test_a_check_decides_who_may_enter(closed_app):
    closed_app.extensions["bitmapist"].dashboard_access(lambda: session.get("staff"))
    client = closed_app.test_client()
    assert client.get("/bitmapist/").status_code == 403
    client.get("/enter")
    assert client.get("/bitmapist/").status_code == 200
    assert client.get("/bitmapist/static/dashboard.css", buffered=True).status_code == 200


def test_a_check_closes_what_testing_would_open(app, client):
    app.extensions["bitmapist"].dashboard_access(lambda: False)
    assert client.get("/bitmapist/").status_code == 403


def test_a_check_that_fails_closes_the_dashboard_and_is_logged(app, client, caplog):
    app.extensions["bitmapist"].dashboard_access(lambda: 1 / 0)
    with caplog.at_level(logging.ERROR, "flask_bitmapist"):
        assert client.get("/bitmapist/").status_code == 403
    assert "dashboard_access failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(("verdict", "status"), [(True, 200), (False, 403)])
def test_a_check_may_be_a_coroutine(app, client, verdict, status):
    async def check():
        return verdict

    app.extensions["bitmapist"].dashboard_access(check)
    assert client.get("/bitmapist/").status_code == status


# What cannot be answered


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("cohort=nobody", "No event 'nobody' has been recorded."),
        ("returned=nobody", "No event 'nobody' has been recorded."),
        ("by=fortnight", "The period must be day, week or month, not 'fortnight'."),
        ("by=", "The period must be day, week or month, not ''."),
        ("rows=0", "The rows must be a whole number from 1 to 60, not '0'."),
        ("rows=61", "The rows must be a whole number from 1 to 60, not '61'."),
        ("columns=-1", "The columns must be a whole number from 1 to 60, not '-1'."),
        ("columns=1e3", "The columns must be a whole number from 1 to 60, not '1e3'."),
        ("rows=" + "9" * 5000, "The rows must be a whole number from 1 to 60"),
        ("rows=%D9%A3", "The rows must be a whole number from 1 to 60"),
        ("periods=3", "There is no parameter 'periods': use cohort, returned, by, rows, columns."),
        (f"by={SCRIPT}", "The period must be day, week or month"),
    ],
)
def test_an_absurd_query_is_answered_with_a_sentence(recorded, client, query, sentence):
    answer = client.get(f"/bitmapist/cohort?{query}")
    assert answer.status_code == 400
    assert str(escape(sentence)) in answer.text
    assert "<script" not in answer.text


def test_an_unknown_event_is_refused_even_before_the_first_mark(client):
    assert client.get("/bitmapist/cohort?cohort=a&returned=b").status_code == 400


@pytest.mark.parametrize("url", PAGES)
def test_without_redis_a_page_says_so_and_the_log_says_why(unreachable_app, caplog, url):
    with caplog.at_level(logging.ERROR, "flask_bitmapist"):
        answer = unreachable_app.test_client().get(url)
    assert answer.status_code == 503
    assert "Redis did not answer" in answer.text
    assert "Traceback" not in answer.text
    assert "nobody.sock" not in answer.text
    assert "nobody.sock" in caplog.text


# How it answers


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("open_", [True, False])
def test_every_answer_carries_the_headers(closed_app, url, open_):
    closed_app.testing = open_
    headers = closed_app.test_client().get(url, buffered=True).headers
    assert headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Robots-Tag"] == "noindex"
    assert ("static" in url) or headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("url", PAGES)
def test_a_page_needs_no_right_to_write(recorded, redis, redis_url, url):
    redis.acl_setuser("reader", True, True, keys="*", categories=["+@read", "+@connection"])
    with redis_py.Redis.from_url(redis_url, username="reader") as reader:
        app = Flask("reading")
        app.testing = True
        FlaskBitmapist(app, {"BITMAPIST_SPOOL": False}, redis_client=reader)
        assert "user:created" in app.test_client().get(url).text
        with pytest.raises(redis_py.exceptions.NoPermissionError):
            reader.setbit("bits", 1, 1)


def test_an_application_that_only_marks_loads_no_numpy():
    program = """
import sys
from flask import Flask
from flask_bitmapist import FlaskBitmapist
app = Flask("marks")
FlaskBitmapist(app)
assert "bitmapist" in app.blueprints
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# How figures are drawn


def test_a_sparkline_is_scaled_to_its_own_days():
    line = sparkline([10, 20, 15], width=108, height=28)
    assert line.closed == "4.0,24.0 54.0,4.0"
    assert line.running == "54.0,4.0 104.0,14.0"
    assert (line.x, line.y) == (104.0, 14.0)


def test_a_day_that_has_just_begun_does_not_press_the_others_flat():
    line = sparkline([10, 20, 0], width=108, height=28)
    assert line.closed == "4.0,24.0 54.0,4.0"
    assert line.y == 24.0


def test_a_sparkline_of_equal_days_is_flat():
    assert sparkline([0, 0, 0], width=108, height=28).closed == "4.0,24.0 54.0,24.0"


@pytest.mark.parametrize(
    ("rate", "largest", "step"),
    [(0, 0.5, "q0"), (0.25, 0.5, "q10"), (0.5, 0.5, "q20"), (0.9, 0.5, "q20"), (0.3, 0, "q0")],
)
def test_heat_runs_from_nothing_to_the_largest_rate(rate, largest, step):
    assert heat(rate, largest) == step


def test_a_period_is_called_by_its_first_day_and_a_month_by_its_name():
    assert label(datetime(2026, 11, 2), "week") == "2 Nov"
    assert label(datetime(2026, 11, 1), "month") == "Nov 2026"
