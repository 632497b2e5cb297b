"""Finding a person from any page: by an id, or by whatever the application knows people by."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_bitmapist import mark_event
from flask_bitmapist.tracker import Tracker

from .conftest import PAGES, Browser
from .reading import error_of

ANN = UUID("12345678-1234-5678-1234-56781234abcd")
FIND = "/bitmapist/find"


@pytest.fixture
def finds(app: Flask, recorded: None) -> Callable[[Callable[[str], object]], None]:
    """Registers a `find_user`."""
    register: Callable[[Callable[[str], object]], None] = app.extensions["bitmapist"].find_user
    return register


def led_to(client: FlaskClient, text: str) -> str | None:
    """The id of the person whose page the text leads to at once; None: a page of its own."""
    answer = client.get(FIND, query_string={"text": text})
    if answer.status_code == 200:
        return None
    assert answer.status_code == 302
    parts = urlsplit(answer.location)
    assert parts.path == "/bitmapist/person"
    return parse_qs(parts.query)["id"][0]


def said(browser: Browser, text: str) -> str:
    return browser.open("/find", text=text).one("main").text


@pytest.mark.parametrize("page", [*PAGES, "/person?id=7", "/find", "/find?text=nobody"])
def test_every_page_has_the_field(recorded: None, browser: Browser, page: str) -> None:
    form = browser.open(page).one("form", class_="find")
    assert form.attributes["action"] == FIND
    assert form.attributes["method"] == "get"
    assert [one.attributes["name"] for one in form.all("input")] == ["text"]


@pytest.mark.parametrize("text", ["7", " 7 ", "7\t"])
def test_an_id_leads_to_its_page(recorded: None, client: FlaskClient, text: str) -> None:
    assert led_to(client, text) == "7"


@pytest.mark.parametrize("id_", ["ada@example.org", str(ANN), "007"])
def test_a_mapped_id_leads_to_its_page(at_now: None, client: FlaskClient, id_: str) -> None:
    mark_event("song:played", id_)
    assert led_to(client, id_) == id_


def test_an_empty_text_asks_for_one(recorded: None, browser: Browser) -> None:
    for text in ("", "  "):
        assert "Type an id" in said(browser, text)


@pytest.mark.parametrize("text", ["99", "nobody", "None", "-1", "x" * 600, "\x00", "9" * 400])
def test_nobody_is_told_with_what_to_do(recorded: None, browser: Browser, text: str) -> None:
    told = said(browser, text)
    assert "Nobody found" in told
    assert "@bitmapist.find_user" in told
    assert "Did you mean" not in told


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("#7", "7"),
        ("<7>", "7"),
        ("0010", "10"),
        ("1 0", "10"),
        ("ADA@example.org", "ada@example.org"),
        ("'ada@example.org'", "ada@example.org"),
        (ANN.hex, str(ANN)),
        (f"{{{str(ANN).upper()}}}", str(ANN)),
    ],
)
def test_somebody_whose_id_is_spelt_almost_like_that_may_be_meant(
    recorded: None, browser: Browser, text: str, meant: str
) -> None:
    mark_event("visitor:seen", ["ada@example.org", ANN])
    page = browser.open("/find", text=text)
    (link,) = [a for a in page.one("main").all("a") if "/person?" in a.attributes["href"]]
    assert link.text == meant
    assert browser.open(link.attributes["href"]).one("h1").text == meant


def test_somebody_who_was_erased_is_not_found_and_that_is_told(
    recorded: None, browser: Browser, tracker: Tracker, client: FlaskClient
) -> None:
    mark_event("visitor:seen", "ada")
    tracker.erase("ada")
    tracker.erase(7)
    today = datetime.now(UTC)
    for id_ in ("ada", "7"):
        day = f"erased on {today.day} {today:%b %Y}"
        assert day in said(browser, id_)
        assert day in browser.open("/person", id=id_).one("main").text
    mark_event("song:played", 7)
    assert led_to(client, "7") == "7"
    assert "erased" not in browser.open("/person?id=7").one("main").text


# The application's own search


def test_the_application_may_find_one(finds: Callable[..., None], client: FlaskClient) -> None:
    finds({"ada": 7}.get)
    assert led_to(client, "ada") == "7"


@pytest.mark.parametrize("several", [[7, 3], {7, 3}, iter([7, "3", 7])], ids=type)
def test_the_application_may_find_several(
    finds: Callable[..., None], browser: Browser, app: Flask, several: Any
) -> None:
    finds(lambda text: several)
    app.extensions["bitmapist"].user_link(lambda id_: (f"Person {id_}", f"/accounts/{id_}"))
    page = browser.open("/find?text=ad")
    assert page.one("h1").text == "2 people found"
    rows = page.one("table", class_="people").rows
    assert rows[0] == ["Person", "Last seen", "Flags"]
    assert sorted(rows[1:]) == [
        ["Person 3 3 open →", "23 Nov 2026", "beta"],
        ["Person 7 7 open →", "17 Nov 2026", "user:premium"],
    ]


def test_a_tuple_is_one_composite_id(finds: Callable[..., None], client: FlaskClient) -> None:
    finds(lambda text: (7, "de"))
    assert led_to(client, "ada") == "7:de"


def test_an_id_is_found_beside_what_the_application_finds(
    finds: Callable[..., None], browser: Browser, client: FlaskClient
) -> None:
    finds(lambda text: [3])
    assert led_to(client, "3") == "3"
    assert led_to(client, "7") is None
    shown = browser.open("/find?text=7").one("table", class_="people").all("th", scope="row")
    assert [one.text for one in shown] == ["3", "7"]


@pytest.mark.parametrize("nobody", [None, [], (), ""])
def test_the_application_may_find_nobody(
    finds: Callable[..., None], browser: Browser, nobody: object
) -> None:
    finds(lambda text: nobody)
    if nobody in ((), ""):
        assert "find_user failed" in said(browser, "ada")  # they identify nobody
    else:
        assert "the application finds nobody by it" in said(browser, "ada")


def test_only_the_first_of_very_many_are_shown(
    finds: Callable[..., None], browser: Browser
) -> None:
    asked: list[int] = []

    def everybody(text: str) -> Any:
        for id_ in range(10_000):
            asked.append(id_)
            yield id_

    finds(everybody)
    page = browser.open("/find?text=a")
    assert len(page.one("table", class_="people").rows) == 51
    assert "type more of what you look for" in page.one("main").text
    assert len(asked) == 51


@pytest.mark.parametrize(
    "find",
    [lambda text: 1 / 0, lambda text: True, lambda text: [1, None], lambda text: {"id": 1}],
    ids=["raises", "bool", "None in a list", "mapping"],
)
def test_a_search_that_fails_is_told_and_logged_and_ids_are_still_found(
    finds: Callable[..., None],
    browser: Browser,
    errors: pytest.LogCaptureFixture,
    find: Callable[[str], object],
) -> None:
    finds(find)
    page = browser.open("/find?text=7")
    assert "find_user failed" in error_of(page)[0]
    assert [one.text for one in page.all("th", scope="row")] == ["7"]
    assert "find_user failed" in errors.text


def test_a_search_may_be_a_coroutine(finds: Callable[..., None], client: FlaskClient) -> None:
    async def find(text: str) -> int:
        return 7

    finds(find)
    assert led_to(client, "ada") == "7"


def test_the_search_gets_a_text_of_a_bounded_length_and_only_if_there_is_one(
    finds: Callable[..., None], browser: Browser
) -> None:
    asked: list[str] = []
    finds(lambda text: asked.append(text))
    for text in ("", "  ", " a  b ", "x" * 9000):
        browser.open("/find", text=text)
    assert [*map(len, asked)] == [4, 513]


@pytest.mark.parametrize("form", ["json", "csv"])
def test_who_is_found_is_told_to_programs_too(
    app: Flask, finds: Callable[..., None], client: FlaskClient, form: str
) -> None:
    finds(lambda text: [7, 3])
    answer = client.get(f"{FIND}?text=a&format={form}")
    if form == "json":
        assert answer.json == {"users": 2, "first": 0, "ids": [7, 3]}
    else:
        rows = ["7,2026-11-17,user:premium", "3,2026-11-23,beta"]
        assert answer.text.split() == ["id,last_seen,flags", *rows]
        app.extensions["bitmapist"].user_link({7: "Ada", 3: "=Bob"}.get)
        told = client.get(f"{FIND}?text=a&format=csv").text
        assert [row.split(",")[:2] for row in told.split()][1:] == [["7", "Ada"], ["3", "'=Bob"]]


# The way back


def test_a_person_leads_back_to_the_list(recorded: None, browser: Browser) -> None:
    address = (
        "/bitmapist/people?of=cohort&rows=6&at=2026-10-19&k=1&where=flag:beta+%7C+user:created"
    )
    listed = browser.open(address)
    link = listed.one("table", class_="people").all("a")[0].attributes["href"]
    person = browser.open(link)
    years = [a.attributes["href"] for a in person.one("main").all("a", rel="prev")]
    for page in (person, browser.open(years[0])):
        back = browser.open(page.one("a", class_="back").attributes["href"])
        assert back.one("main").text == listed.one("main").text


@pytest.mark.parametrize(
    "back", ["of=nothing", "colour=red", "rows=0", "//evil.example", "https://evil.example", "%"]
)
def test_a_way_back_leads_to_a_list_of_people_alone(
    recorded: None, browser: Browser, back: str
) -> None:
    told = error_of(browser.open("/person", 400, id=7, back=back))
    assert "The parameter back must be" in told[0]
