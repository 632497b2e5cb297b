"""Annotations on the pages: at their period, on each time axis, in words too."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis

from flask_bitmapist import chart
from flask_bitmapist.annotations import annotation_of, keep

from .conftest import Browser
from .reading import Element
from .test_escaping import check_harmless

#: The pages with a time axis, and the grains by which they are asked for.
AXES = [
    "/trends?by={}&rows=30",
    "/lifecycle?by={}&rows=30",
    "/adoption?by={}&rows=30",
    "/churned?by={}&rows=30&silent=1",
]
#: A Wednesday.
RELEASE = annotation_of(date(2026, 11, 4), "v2.0")
STARTS = {"day": "4 Nov", "week": "2 Nov"}


def noted(page: Element) -> list[str]:
    """What is noted in the tables of a page: the row's name and the text."""
    return [span.parent.text for span in page.all("span", class_="noted") if span.parent]


@pytest.mark.parametrize("by", STARTS)
@pytest.mark.parametrize("page", AXES)
def test_an_annotation_is_drawn_at_its_period_and_told_in_words(
    recorded: None, browser: Browser, redis: Redis, page: str, by: str
) -> None:
    assert not browser.open(page.format(by)).all("g", class_="noted")
    keep(redis, RELEASE)
    shown = browser.open(page.format(by))
    (line,) = shown.all("g", class_="noted")
    assert line.one("text").text == "v2.0"
    assert noted(shown) == [f"{STARTS[by]} v2.0"]
    told = [one.text.partition(" (")[0] for one in shown.all("p", class_="noted-list")]
    assert "Noted: v2.0 on 4 Nov 2026" in told


def test_a_note_on_a_trend_leads_to_what_has_come_since_then(
    recorded: None, browser: Browser, redis: Redis
) -> None:
    keep(redis, RELEASE)
    page = browser.open("/trends", event="song:played", by="week", over="last 12 weeks")
    link, changes = page.one("p", class_="noted-list").all("a")
    (drawn,) = page.one("g", class_="noted").all("a")
    assert drawn.attributes["href"] == link.attributes["href"]
    since = browser.open(link.attributes["href"])
    assert since.one("figcaption").text.endswith("the 4 weeks before")
    assert since.one("table").rows[-1][0] == "2 Nov v2.0"
    changed = browser.open(changes.attributes["href"])
    assert changed.one("h1").text == "What changed"
    assert "from 4 Nov to 23 Nov 2026" in changed.all("p", class_="lede")[0].text
    (again,) = (one for one in changed.all("p", class_="note")[0].all("a"))
    assert again.attributes["href"] == changes.attributes["href"]


def test_the_overview_and_the_cohorts_have_it_too(
    recorded: None, browser: Browser, redis: Redis
) -> None:
    keep(redis, RELEASE)
    overview = browser.open("/?complete=1")
    assert noted(overview) == ["4 Nov 2026 v2.0", "2 Nov v2.0"]
    assert len(overview.all("g", class_="noted")) == 2
    assert noted(browser.open("/cohort?by=week&rows=6")) == ["2 Nov v2.0"]


def test_a_board_has_it_on_each_time_axis(
    app: Flask, recorded: None, browser: Browser, client: FlaskClient, redis: Redis
) -> None:
    event: dict[str, Any] = {"event": "user:logged_in"}
    app.extensions["bitmapist"].board(
        "Weekly",
        [
            chart("Yes", "trend", **event, by="week"),
            chart("Yes", "active_users", **event),
            chart("Yes", "lifecycle", **event, by="month"),
            chart("No", "stickiness", **event),
            chart("No", "trend", **event, by="day", rows=3),
        ],
    )
    keep(redis, RELEASE)
    cards = browser.open("/boards?board=Weekly").one("div", class_="board").all("section")
    drawn = {card.one("h2").text: bool(card.all("g", class_="noted")) for card in cards}
    assert drawn == {"Yes": True, "No": False}
    told: Any = client.get("/bitmapist/boards?board=Weekly&format=json").json
    noted = {one["title"]: "annotations" in one["answer"] for one in told["charts"]}
    assert noted == drawn


def test_those_of_code_are_drawn_and_one_that_is_in_both_once(
    app: Flask, recorded: None, browser: Browser, redis: Redis
) -> None:
    keep(redis, RELEASE)
    app.extensions["bitmapist"].annotation(RELEASE.date, RELEASE.text)
    app.extensions["bitmapist"].annotation(date(2026, 11, 2), "new prices")
    assert noted(browser.open("/lifecycle?by=week")) == ["2 Nov new prices; v2.0"]


def test_what_is_out_of_range_is_not_shown(recorded: None, browser: Browser, redis: Redis) -> None:
    for day in (date(2026, 11, 1), date(2026, 11, 9), date(2030, 1, 1)):
        keep(redis, annotation_of(day, "v2.0"))
    page = browser.open("/lifecycle?by=week&rows=1&end=2026-11-04")
    assert not noted(page)
    assert not page.all("g", class_="noted")


def test_json_has_what_is_noted_in_its_range(
    recorded: None, client: FlaskClient, redis: Redis
) -> None:
    address = "/bitmapist/lifecycle?by=week&format=json"
    before: Any = client.get(address).json
    keep(redis, RELEASE)
    keep(redis, annotation_of(date(2020, 1, 1), "v1.0"))
    after: Any = client.get(address).json
    assert after == {**before, "annotations": [{"date": "2026-11-04", "text": "v2.0"}]}
    for other in ("cohort?by=week", "?table=days"):
        told: Any = client.get(f"/bitmapist/{other}{'&'}format=json").json
        assert told["annotations"] == after["annotations"]


def test_a_text_is_shown_and_never_run(recorded: None, client: FlaskClient, redis: Redis) -> None:
    keep(redis, annotation_of(RELEASE.date, "</title><script>alert('note')</script>"))
    for page in ("?complete=1", "lifecycle", "cohort", "adoption", "churned?silent=1"):
        answer = client.get(f"/bitmapist/{page}")
        assert "alert" in answer.text
        check_harmless(answer.text)


def test_neighbours_are_drawn_at_different_heights(
    recorded: None, browser: Browser, redis: Redis
) -> None:
    for day in range(2, 6):
        keep(redis, annotation_of(date(2026, 11, day), f"a long text {day} that has no room"))
    lines = browser.open("/lifecycle?by=day&rows=30").all("g", class_="noted")
    heights = [line.one("text").attributes["dy"] for line in lines]
    assert len({*heights[:3]}) == 3
    assert heights[3] == heights[0]
    assert lines[0].one("text").text == "a long text 2 t…"
    assert lines[0].one("title").text == "a long text 2 that has no room"
