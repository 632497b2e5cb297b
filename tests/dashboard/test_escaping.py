"""Names of events and ids of people come from anybody: they are shown, and never run."""

from __future__ import annotations

import csv
import json
from io import StringIO
from itertools import cycle
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from markupsafe import escape

from flask_bitmapist import mark_event, mark_unique
from flask_bitmapist.analytics import Event, parse

from .conftest import NOW, PAGES, Browser
from .reading import Element, addresses, asked, figures, read

#: What may name an event.
NAMES = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{7*7}}",
    "{% raw %}",
    "flag:user:premium",
    "a&b=c #d?e",
    "</title></style></textarea>",
    "&lt;b&gt;",
    "path/../../etc",
    "javascript:alert(1)",
    'back\\slash "quoted" it\'s',
    "%3Cb%3E %00",
    "ünï cödé 🎵",
    "=1+1",
]
#: Other values that may be an id.
IDS = [*NAMES, "two\nlines", "nul\x00", " spaces ", "\ttab", "a\r\nSet-Cookie: b", "\u202egnp.exe"]


def check_harmless(answer_text: str, prefix: str = "/bitmapist/") -> Element:
    """The page, of which nothing but its own files can run, and nothing leads elsewhere."""
    page = read(answer_text)
    for one in page:
        assert one.tag not in {"style", "iframe", "object", "embed", "base", "img"}, one.tag
        assert not {name for name in one.attributes if name.startswith(("on", "hx-on"))}
        assert not {"style", "srcdoc"} & {*one.attributes}
        if one.tag == "script":
            assert one.attributes["src"].startswith(f"{prefix}static/")
            assert not one.raw
    assert all(address.startswith(prefix) for address in addresses(page)), addresses(page)
    return page


@pytest.fixture
def named(at_now: None) -> None:
    """Events and flags under every name."""
    for name in NAMES:
        mark_event(name, [1, 2], now=NOW)
        mark_unique(name, [1])


@pytest.mark.parametrize("page", [*PAGES, "/?complete=1", "/person?id=1", "/person", "/cohort?x"])
def test_a_page_has_no_inline_script_or_style_and_nothing_from_elsewhere(
    recorded: None, client: FlaskClient, page: str
) -> None:
    check_harmless(client.get(f"/bitmapist{page}").text)


QUERIES = {
    "/": ("event", {}),
    "/trends": ("active", {"over": "today"}),
    "/cohort": ("cohort", {"rows": "2", "periods": "1"}),
    "/funnel": ("step", {}),
    "/lifecycle": ("event", {"rows": "2"}),
    "/stickiness": ("event", {}),
    "/churned": ("event", {"rows": "2"}),
    "/adoption": ("feature", {"rows": "2"}),
    "/compare": ("goal", {}),
}


@pytest.mark.parametrize("page", QUERIES)
def test_the_name_of_an_event_is_shown_and_never_run(
    named: None, client: FlaskClient, page: str
) -> None:
    parameter, others = QUERIES[page]
    for name in NAMES:
        answer = client.get(f"/bitmapist{page}", query_string={parameter: name, **others})
        assert answer.status_code == 200, name
        shown = check_harmless(answer.text)
        assert name in [code.raw for code in shown.all("code")]
        assert name in asked(shown)[parameter]
        assert str(escape(name)) in answer.text
        assert "49" not in shown.one("h1").text


def test_the_name_in_a_segment_is_shown_and_never_run(named: None, client: FlaskClient) -> None:
    for name, page in zip(NAMES, cycle(PAGES[1:]), strict=False):
        text = f"user:x | {Event(name)}"
        query = {"where": text}
        shown = check_harmless(client.get(f"/bitmapist{page}", query_string=query).text)
        assert text in [code.raw for code in shown.all("code")]
        assert asked(shown)["where"] == [text]


def test_the_name_in_an_arm_is_shown_and_never_run(named: None, client: FlaskClient) -> None:
    arms = [str(Event(name)) for name in NAMES[:6]]
    shown = check_harmless(client.get("/bitmapist/compare", query_string={"arm": arms}).text)
    assert [code.raw for code in shown.one("tbody").all("code")] == arms


def test_every_name_in_the_overview_leads_to_its_trend(named: None, browser: Browser) -> None:
    page = browser.open("/?complete=1")
    rows = page.one("div", id="events").all("th", scope="row")
    for row in rows:
        (name,) = (code.raw for code in row.all("code"))
        shown = browser.open(row.one("a").attributes["href"])
        assert parse(asked(shown)["event"][0]) == Event(name)
        assert 2 in {number for _, number in figures(shown)}
    assert len(rows) == len(NAMES)


def test_the_people_behind_any_name_are_found(named: None, browser: Browser) -> None:
    for name in NAMES:
        page = browser.open("/lifecycle", event=name, rows=1)
        address = next(address for address, number in figures(page) if number == 2)
        assert "2 people" in browser.open(address).all("p", class_="lede")[0].text


@pytest.mark.parametrize("id_", IDS, ids=ascii)
def test_the_id_of_a_person_is_shown_and_never_run(
    at_now: None, client: FlaskClient, id_: str
) -> None:
    mark_event("song:played", id_)
    people = client.get("/bitmapist/people").text
    listed = check_harmless(people).one("table", class_="people").one("a")
    assert listed.raw.replace("\r\n", "\n") == id_.replace("\r\n", "\n")
    answer = client.get(listed.attributes["href"])
    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers
    shown = check_harmless(answer.text)
    assert shown.one("h1").raw == id_
    days, events = shown.all("tbody")
    assert [cell.text for cell in events.all("th")] == ["song:played"]
    assert [cell.text for cell in days.all("td")] == ["song:played"]
    assert str(escape(id_)) in answer.text


def test_ids_are_told_as_they_are_in_figures(at_now: None, client: FlaskClient) -> None:
    mark_event("song:played", IDS)
    answer = client.get("/bitmapist/people?format=json")
    assert json.loads(answer.text)["ids"] == IDS


def test_an_id_that_a_spreadsheet_would_run_is_quoted(at_now: None, client: FlaskClient) -> None:
    mark_event("song:played", ["=1+1", "@sum", "plain"])
    lines = client.get("/bitmapist/people?format=csv").text.splitlines()
    assert lines == ["id", "'=1+1", "'@sum", "plain"]


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_an_id_that_a_spreadsheet_would_split_is_quoted(
    at_now: None, client: FlaskClient, sign: str
) -> None:
    ids = [f"a{sign}=1+1", f'"a"{sign}@b', f"'{sign}-1"]
    mark_event("song:played", ids)
    text = client.get("/bitmapist/people?format=csv").text
    assert [*csv.reader(StringIO(text), delimiter=sign)] == [["id"], *([id_] for id_ in ids)]
    assert [*csv.reader(StringIO(text))] == [["id"], *([id_] for id_ in ids)]


def test_an_id_that_reads_like_a_number_is_found_as_a_text(at_now: None, browser: Browser) -> None:
    mark_event("song:played", "007")
    page = browser.open("/people")
    link = page.one("table", class_="people").one("a").attributes["href"]
    assert [c.text for c in browser.open(link).all("tbody")[-1].all("th")] == ["song:played"]


def test_what_is_looked_for_is_shown_and_never_run(recorded: None, client: FlaskClient) -> None:
    for find in NAMES:
        answer = client.get(f"/bitmapist/?find={quote(find)}")
        shown = check_harmless(answer.text)
        assert shown.one("input", name="find").attributes["value"] == find
        waiting = shown.one("div", id="figures").attributes["hx-get"]
        completed = check_harmless(client.get(waiting).text)
        assert completed.one("input", name="find").attributes["value"] == find


@pytest.mark.parametrize("format_", ["html", "json", "csv"])
def test_what_is_refused_is_shown_and_never_run(
    recorded: None, client: FlaskClient, format_: str
) -> None:
    for name in NAMES:
        for page in ("/", "/funnel"):
            for query in ({"event": name}, {"by": name}, {"where": f"({name}"}, {name: "x"}):
                answer = client.get(f"/bitmapist{page}", query_string={**query, "format": format_})
                if format_ == "html":
                    check_harmless(answer.text)
                else:
                    assert answer.mimetype in ("application/json", "text/plain", "text/csv")


def test_a_log_line_is_one_line_whatever_the_id(
    app: Flask, at_now: None, client: FlaskClient, errors: pytest.LogCaptureFixture
) -> None:
    app.extensions["bitmapist"].user_link(lambda id_: 1 / 0)
    mark_event("song:played", "x\nERROR forged")
    assert client.get("/bitmapist/people").status_code == 200
    messages = {record.levelname: record.getMessage() for record in errors.records}
    assert messages.pop("DEBUG", r"'x\nERROR forged'").endswith(r"'x\nERROR forged'")
    assert messages == {"ERROR": "user_link failed for the user of a text id"}
