"""People saved as a flag: by whom, under which names, and what becomes of a flag that is there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import redis as redis_py
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_bitmapist import analytics, flagging, mark_event, mark_unique
from flask_bitmapist.dimensions import DIMENSIONS, slot
from flask_bitmapist.marks import Mark
from flask_bitmapist.questions import ChangesFigure, ChangesQuestion, PeopleFigure, PeopleQuestion
from flask_bitmapist.tracker import Tracker

from .conftest import FLAGS, Browser
from .reading import Element, error_of, read

BETA = "/bitmapist/people?where=flag:beta"
#: Those of the flag beta.
FOUR = FLAGS["beta"]


@pytest.fixture
def analyst(app: Flask, recorded: None) -> FlaskClient:
    """Somebody who may save."""
    app.extensions["bitmapist"].may_save(lambda: True)
    return app.test_client()


def send(client: FlaskClient, address: str, **fields: str) -> TestResponse:
    """Fill in the form of the page at `address`, and send it."""
    page = read(client.get(address).text)
    form = page.one("details", class_="save").one("form")
    assert form.attributes["method"] == "post"
    return submit(client, form, **fields)


def submit(client: FlaskClient, form: Element, **fields: str) -> TestResponse:
    hidden = {
        one.attributes["name"]: one.attributes["value"] for one in form.all("input", type="hidden")
    }
    return client.post(form.attributes["action"], data={**hidden, **fields})


def with_flag(flag: str) -> list[Any]:
    return list(analytics.users(f"flag:{flag}"))


def told(answer: TestResponse, status: int = 200) -> str:
    page = read(answer.text)
    assert answer.status_code == status, error_of(page)
    said = [one.text for one in page.one("main") if one.attributes.get("role") == "status"]
    return (said or error_of(page))[0]


def test_the_people_of_a_list_are_saved_as_a_flag(analyst: FlaskClient) -> None:
    assert told(send(analyst, BETA, flag=" interview ")) == (
        "4 people have the flag interview now. In all, it is set for 4 people ."
    )
    assert with_flag("interview") == FOUR
    page = read(analyst.get("/bitmapist/people?where=flag:interview").text)
    assert page.one("h2", id="people-title").text == "1 to 4 of 4"


def test_the_people_behind_a_figure_are_all_saved_whatever_the_page(
    analyst: FlaskClient, tracker: Tracker
) -> None:
    mark_event("song:played", [*range(100, 230)])
    address = (
        "/bitmapist/people?of=lifecycle&event=song:played&by=day&rows=1&at=2026-11-23&group=new"
    )
    found = analytics.lifecycle("song:played").points[-1]
    assert told(send(analyst, f"{address}&page=2", flag="newcomers")).startswith("131 people")
    assert with_flag("newcomers") == [10, *range(100, 230)]
    assert found.new == 131


@pytest.mark.parametrize(
    "ids", [["ada", "bob"], ["007", "12 a"], ["ü", "=1+1"]], ids=["texts", "digits", "others"]
)
def test_mapped_ids_stay_those_that_they_are(
    analyst: FlaskClient, ids: list[str], redis: Any
) -> None:
    mark_event("visitor:seen", ids)
    before = redis.keys("flask_bitmapist:*")
    send(analyst, "/bitmapist/people?where=visitor:seen", flag="kept")
    assert with_flag("kept") == ids
    assert len(redis.keys("flask_bitmapist:*")) == len(before)


def test_a_text_that_reads_like_a_number_stays_a_text(
    analyst: FlaskClient, tracker: Tracker
) -> None:
    from flask_bitmapist.ids import TextKey

    mark_event("visitor:seen", [TextKey("7"), "ada"])
    send(analyst, "/bitmapist/people?where=visitor:seen", flag="kept")
    assert with_flag("kept") == ["7", "ada"]


def test_ids_of_a_space_of_their_own_stay_in_it(analyst: FlaskClient, tracker: Tracker) -> None:
    tracker.record([("post:created", id_, True, True, None, None, None, "posts") for id_ in "ab"])
    send(analyst, "/bitmapist/people?where=post:created", flag="good")
    assert with_flag("good") == ["a", "b"]
    assert tracker.reader.registered_kind("good") == tracker.reader.registered_kind("post:created")


# A flag that is there


@pytest.mark.parametrize(
    ("existing", "after", "said"),
    [
        ("add", [1, 2, 3, 5, 7, 8, 10], "4 people had it before. In all, it is set for 7 people"),
        (
            "replace",
            FOUR,
            "4 people had it before, and 3 of them lost it. In all, it is set for 4 people",
        ),
    ],
)
def test_what_becomes_of_an_existing_flag_is_asked(
    analyst: FlaskClient, existing: str, after: list[int], said: str
) -> None:
    asking = send(analyst, BETA, flag="user:premium")
    assert with_flag("user:premium") == FLAGS["user:premium"]
    page = read(asking.text)
    assert asking.status_code == 200
    section = next(s for s in page.all("section") if "already" in s.text)
    assert "It is set for 4 people. These 4 are to" in section.text
    assert {one.attributes["value"] for one in section.all("button")} == {"add", "replace"}
    done = submit(analyst, section.one("form"), existing=existing)
    assert (
        said.split()
        == told(done).replace("4 people have the flag user:premium now. ", "").rstrip(" .").split()
    )
    assert with_flag("user:premium") == after


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("flag:kept & flag:beta", [2, 3]),
        ("user:created - flag:kept", [11]),
        ("flag:kept", [1, 2, 3]),
    ],
)
def test_a_list_may_depend_on_the_flag_that_it_replaces(
    analyst: FlaskClient, where: str, expected: list[int]
) -> None:
    mark_unique("kept", [1, 2, 3])
    if where.startswith("user"):
        mark_unique("kept", 10)
    address = "/bitmapist/people?where=" + where.replace("&", "%26").replace(" ", "+")
    form = read(analyst.get(address).text).one("details", class_="save").one("form")
    told(submit(analyst, form, flag="kept", existing="replace"))
    assert with_flag("kept") == expected


def test_a_flag_that_nobody_has_any_more_is_as_new(analyst: FlaskClient) -> None:
    from flask_bitmapist import unmark_unique

    mark_unique("old", 9)
    unmark_unique("old", 9)
    assert told(send(analyst, BETA, flag="old")).startswith("4 people")


def test_people_whose_ids_have_a_map_of_their_own_are_saved_by_it(tracker: Tracker) -> None:
    tracker.record(
        [Mark("user:seen", "u"), *(Mark("order:paid", id_, space="order") for id_ in "ab")]
    )
    figure = ChangesFigure.of(event="order:paid")
    flagging.flag_people(ChangesQuestion(), figure, "kept", replace=False, tracker=tracker)
    assert with_flag("kept") == ["a", "b"]
    assert with_flag("kept & order:paid") == ["a", "b"]


# What is refused


@pytest.mark.parametrize(
    ("flag", "problem"),
    [
        ("", "cannot name an event"),
        ("x" * 201, "cannot name an event"),
        ("two\nlines", "cannot name an event"),
        ("user:created", "there is an event called"),
        ("user:plan=pro", "a value of the dimension user:plan"),
        ("user:plan=gold", "a value of the dimension user:plan"),
        ("visitors", "has mapped ids, and these people have plain ones"),
    ],
)
def test_a_name_that_cannot_be_a_flag_is_refused(
    analyst: FlaskClient, redis: Any, flag: str, problem: str
) -> None:
    mark_unique("user:plan=pro", 7)
    mark_unique("visitors", "ada")
    redis.hset(DIMENSIONS, slot("user:plan", 0), "pro")
    before = {key: redis.dump(key) for key in redis.keys("*")}
    form = read(analyst.get(BETA).text).one("details", class_="save").one("form")
    answer = submit(analyst, form, flag=flag, existing="add")
    assert problem in told(answer, 400)
    assert {key: redis.dump(key) for key in redis.keys("*")} == before


def test_who_may_not_save_sees_no_form_and_changes_nothing(
    app: Flask, recorded: None, client: FlaskClient, browser: Browser
) -> None:
    assert not browser.open(BETA).all("form", method="post")
    assert client.post(BETA, data={"flag": "mine"}).status_code == 403
    app.extensions["bitmapist"].may_save(lambda: True)
    assert client.post(BETA, data={"flag": "mine"}).status_code == 403  # a page of another site
    assert with_flag("mine") == []


def test_nobody_is_saved_as_no_flag(analyst: FlaskClient) -> None:
    page = read(analyst.get("/bitmapist/people?where=song:played+-+song:played").text)
    assert not page.all("form", method="post")


def test_a_question_that_makes_no_sense_saves_nothing(analyst: FlaskClient) -> None:
    form = read(analyst.get(BETA).text).one("details", class_="save").one("form")
    fields = {
        one.attributes["name"]: one.attributes["value"] for one in form.all("input", type="hidden")
    }
    answer = analyst.post("/bitmapist/people?where=(a", data={**fields, "flag": "mine"})
    assert answer.status_code == 400
    assert with_flag("mine") == []


def test_more_people_than_can_be_held_are_refused(
    analyst: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flagging, "MOST_FLAGGED", 3)
    assert "more than 3 people" in told(send(analyst, BETA, flag="mine"), 400)
    assert with_flag("mine") == []


def test_an_application_that_marks_nothing_saves_nothing(app: Flask, analyst: FlaskClient) -> None:
    app.config["BITMAPIST_ENABLED"] = False
    assert "nothing can be saved now" in told(send(analyst, BETA, flag="mine"), 400)


def test_a_server_that_takes_nothing_is_told(
    app: Flask, analyst: FlaskClient, redis: redis_py.Redis, errors: pytest.LogCaptureFixture
) -> None:
    redis.config_set("maxmemory", 1)
    try:
        assert "may be set for some of them" in told(send(analyst, BETA, flag="mine"), 503)
    finally:
        redis.config_set("maxmemory", 0)
    assert "was saved in part" in errors.text
    assert told(send(analyst, BETA, flag="mine")).startswith("4 people")


# Who is erased meanwhile


@pytest.mark.parametrize("ids", [[7, 8, 9], ["ada", "bob", "carl"]], ids=["plain", "mapped"])
def test_whoever_is_erased_meanwhile_does_not_come_back(
    at_now: None, tracker: Tracker, monkeypatch: pytest.MonkeyPatch, ids: list[Any], redis: Any
) -> None:
    mark_event("here", ids)
    read_all: Callable[..., Any] = flagging._all_of

    def and_erase(lists: Any) -> Any:
        people = read_all(lists)
        if people:
            tracker.erase(ids[1])
        return people

    monkeypatch.setattr(flagging, "_all_of", and_erase)
    question = PeopleQuestion.of(expression="here")
    done = flagging.flag_people(question, PeopleFigure.of(), "kept", replace=False, tracker=tracker)
    assert (done.people, done.after) == (3, 2)
    assert with_flag("kept") == [ids[0], ids[2]]
    assert datetime.now(UTC) >= (tracker.reader.erased_at(ids[1]) or datetime.max)
