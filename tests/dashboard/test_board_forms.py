"""Saving boards and questions from the pages: by those who may, what was asked, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis

from flask_bitmapist import chart, mark_event
from flask_bitmapist.boards import Board, Chart
from flask_bitmapist.dashboard.people import PAGES_WITH_PEOPLE
from flask_bitmapist.saved import BOARDS, save, saved

from .conftest import Browser
from .reading import Element, error_of
from .test_escaping import check_harmless

LOGINS = chart("Log-ins", "lifecycle", event="user:logged_in", by="week", over="last 26 weeks")
#: A question of each page that can be a chart.
ASKED = {
    "trends": "event=song:played&event=flag:beta&by=week&previous=yes&active=user:created",
    "cohort": "cohort=user:created&returned=song:played&by=day&rows=3&where=flag:beta",
    "funnel": "step=user:created&step=song:played&within=3&order=strict",
    "lifecycle": "event=song:played&by=month&end=2026-10-31",
    "stickiness": "event=song:played&within=7",
    "churned": "event=song:played&silent=2",
    "adoption": "feature=song:played&active=user:created",
    "overlap": "event=song:played&event=flag:beta&by=week",
    "compare": "arm=flag:beta&arm=user:logged_in - flag:beta&goal=song:played",
}


@pytest.fixture(autouse=True)
def _permitted(app: Flask) -> None:
    app.extensions["bitmapist"].may_save(lambda: True)


@pytest.fixture
def send(client: FlaskClient) -> Callable[..., Any]:
    """Sends a form of a page with what is typed into it, and gives the answer."""

    def send(form: Element, **typed: str) -> Any:
        fields = {
            field.attributes["name"]: field.attributes.get("value", "")
            for field in form.all("input")
        }
        return client.post(form.attributes["action"], data={**fields, **typed})

    return send


def forms(page: Element, action: str) -> list[Element]:
    """The forms of a page that do `action`."""
    return [
        form
        for form in page.all("form", method="post")
        if form.all("input", name="action", value=action)
    ]


def test_the_pages_of_reports_are_asked() -> None:
    assert {name for name, page in PAGES_WITH_PEOPLE.items() if name != "people"} >= {*ASKED}


@pytest.mark.parametrize("endpoint", ASKED)
def test_a_question_is_saved_as_it_was_asked(
    recorded: None,
    browser: Browser,
    client: FlaskClient,
    redis: Redis,
    send: Callable[..., Any],
    endpoint: str,
) -> None:
    address = f"/bitmapist/{endpoint}?{ASKED[endpoint]}"
    (form,) = forms(browser.open(address), "save")
    answer = send(form, title=" Mine ", to="")
    assert (answer.status_code, answer.location) == (303, "/bitmapist/boards")
    (lead,) = browser.open("/boards").one("ul", class_="listed").all("a")
    assert lead.text == "Mine"
    again = client.get(f"{lead.attributes['href']}&format=json").json
    assert again == client.get(f"{address}&format=json").json


def test_a_question_starts_a_board_and_others_follow(
    recorded: None, browser: Browser, send: Callable[..., Any]
) -> None:
    (form,) = forms(browser.open("/lifecycle"), "save")
    board = send(form, title="First", to="new", name="Weekly").location
    (form,) = forms(browser.open("/churned"), "save")
    offered = {one.text: one.attributes["value"] for one in form.one("select").all("option")}
    assert send(form, title="Second", to=offered["Weekly"]).location == board
    shown = browser.open(board)
    assert shown.one("h1").text == "Weekly"
    assert [card.text for card in shown.all("h2")] == ["First", "Second"]


def test_a_saved_question_ends_now_unless_it_was_asked_otherwise(
    recorded: None, browser: Browser, redis: Redis, send: Callable[..., Any]
) -> None:
    (form,) = forms(browser.open("/lifecycle?event=user:logged_in"), "save")
    send(form, title="Log-ins", to="")
    assert [*saved(redis).questions.values()] == [LOGINS]


def test_a_board_is_renamed_and_keeps_its_address(
    recorded: None, browser: Browser, redis: Redis, send: Callable[..., Any]
) -> None:
    id_ = save(redis, Board("Weekly", (LOGINS,)))
    address = f"/bitmapist/boards?saved={id_}"
    (form,) = forms(browser.open(address), "rename")
    assert send(form, name="Monthly").location == address
    assert browser.open(address).one("h1").text == "Monthly"


def test_a_chart_is_removed_and_not_the_one_that_took_its_place(
    recorded: None, browser: Browser, redis: Redis, send: Callable[..., Any]
) -> None:
    other = chart("Other", "trend", event="user:created")
    id_ = save(redis, Board("Weekly", (LOGINS, other)))
    first, _ = forms(browser.open(f"/boards?saved={id_}"), "remove")
    assert send(first).status_code == 303
    assert saved(redis).boards[id_] == Board("Weekly", (other,))
    assert send(first).status_code == 400
    assert saved(redis).boards[id_] == Board("Weekly", (other,))


def test_boards_and_questions_are_deleted(
    recorded: None, browser: Browser, redis: Redis, send: Callable[..., Any]
) -> None:
    id_ = save(redis, Board("Weekly", (LOGINS,)))
    save(redis, LOGINS)
    (form,) = forms(browser.open(f"/boards?saved={id_}"), "delete")
    send(form)
    (form,) = forms(browser.open("/boards"), "delete")
    send(form)
    assert not redis.exists(BOARDS)
    assert "no longer there" in error_of(browser.open(f"/boards?saved={id_}", 400))[0]


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ({"title": ""}, "The title of a chart must be 1 to 80"),
        ({"title": "x" * 81}, "The title of a chart must be 1 to 80"),
        ({"to": "new", "name": ""}, "The name of a board must be 1 to 80"),
        ({"to": "new", "name": "Weekly"}, "There is a board called 'Weekly'"),
        ({"to": "0123456789abcdef"}, "no longer there"),
        ({"page": "people"}, "no question for a board"),
        ({"page": "index"}, "The parameter page must be"),
        ({"page": "../etc"}, "The parameter page must be"),
        ({"asked": "event=nobody"}, "No event 'nobody' has been recorded"),
        ({"asked": "rows=100000"}, "The parameter rows must be"),
        ({"asked": "where=a %26"}, "cannot be read"),
        ({"action": "drop"}, "The parameter action must be one of save"),
        ({"action": "rename"}, "no longer there"),
        ({"action": ""}, "The parameter action must be one of save"),
    ],
)
def test_what_cannot_be_saved_is_a_sentence(
    recorded: None,
    browser: Browser,
    redis: Redis,
    send: Callable[..., Any],
    typed: dict[str, str],
    sentence: str,
) -> None:
    save(redis, Board("Weekly", ()))
    before = redis.hgetall(BOARDS)
    (form,) = forms(browser.open("/lifecycle"), "save")
    answer = send(form, **{"title": "Mine", "to": "", **typed})
    assert answer.status_code == 400
    assert sentence in answer.text.replace("&#39;", "'")
    assert redis.hgetall(BOARDS) == before


def test_who_may_not_save_sees_no_form_and_can_send_none(
    app: Flask, recorded: None, browser: Browser, redis: Redis, send: Callable[..., Any]
) -> None:
    id_ = save(redis, Board("Weekly", (LOGINS,)))
    save(redis, LOGINS)
    pages = ("/lifecycle", "/boards", f"/boards?saved={id_}")
    sendable = [form for page in pages for form in browser.open(page).all("form", method="post")]
    assert len(sendable) == 5
    before = redis.hgetall(BOARDS)
    app.extensions["bitmapist"].may_save(lambda: False)
    assert not [form for page in pages for form in browser.open(page).all("form", method="post")]
    for form in sendable:
        assert send(form, title="T", name="N").status_code == 403
    assert redis.hgetall(BOARDS) == before


def test_what_was_saved_is_shown_and_never_run(
    at_now: None, redis: Redis, client: FlaskClient, browser: Browser
) -> None:
    mark_event("<script>alert(1)</script>", [1])
    title = "<script>alert('x')</script>"
    nasty = Chart.of_plain(
        {
            "title": title,
            "report": "trend",
            "question": {"event": '"<script>alert(1)</script>"', "where": '"<b>" | flag:"<i>"'},
        }
    )
    id_ = save(redis, Board(title, (nasty,)))
    save(redis, nasty)
    redis.hset(BOARDS, "\"><script>alert('id')</script>", '{"version": 1}')
    for address in ("boards", f"boards?saved={id_}", "lifecycle"):
        check_harmless(client.get(f"/bitmapist/{address}").text)
    assert "1 more cannot be read" in browser.open("/boards").one("main").text


def test_an_unknown_event_of_a_saved_question_is_no_error(
    recorded: None, redis: Redis, browser: Browser
) -> None:
    save(redis, chart("Gone", "lifecycle", event="never:marked"))
    listed = browser.open("/boards").one("ul", class_="listed")
    assert "Gone" in listed.text
    assert not listed.all("a")
