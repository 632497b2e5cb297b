"""The overview of a day that is over."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest
from flask.testing import FlaskClient

from flask_bitmapist import mark_event
from flask_bitmapist.analytics import active_users, overview

from .conftest import NOW, Browser
from .reading import Element, asked, error_of, figures, read
from .test_pages import events_of

#: A Monday, and the Sunday before it.
MONDAY, SUNDAY = date(2026, 11, 16), date(2026, 11, 15)


def cards(page: Element, class_: str) -> list[str]:
    return [card.one("p", class_=class_).text for card in page.all("section", class_="kpi")]


def days(page: Element) -> list[str]:
    """The addresses of the days around the one that is shown."""
    return [link.attributes["href"] for link in page.one("nav", class_="days").all("a")]


def events_links(page: Element) -> list[str]:
    """Where the names of the events lead."""
    rows = page.one("div", id="events").one("tbody").all("th")
    return [row.one("a").attributes["href"] for row in rows]


def test_the_tiles_are_those_of_the_day(recorded: None, browser: Browser) -> None:
    *_, point = active_users("user:logged_in", end=MONDAY).points
    page = browser.open("/", complete=1, end=MONDAY)
    assert cards(page, "n") == [str(point.day), str(point.week), str(point.month), "50.0 %"]
    assert point.stickiness == 0.5
    assert [one.text for one in page.all("h2")][:3] == [
        "16 Nov 2026",
        "7 days up to 16 Nov",
        "28 days up to 16 Nov",
    ]
    # All of the day is counted.
    assert cards(page, "d")[0] == "3 on the same day a week before"
    assert "yesterday" not in page.one("div", id="kpis").text
    assert "so far" not in page.one("table", id="trend-figures").text


def test_a_day_that_is_over_has_no_dashed_end(recorded: None, browser: Browser) -> None:
    page = browser.open("/", complete=1, end=SUNDAY)
    # 15 November ends its week, too.
    assert not [one for one in page if one.classes & {"running", "open"}]
    today = browser.open("/", complete=1)
    assert today.all("polyline", class_="running")


def test_the_events_are_those_of_the_periods_of_the_day(recorded: None, browser: Browser) -> None:
    report = overview(now=datetime.combine(MONDAY, datetime.min.time()))
    page = browser.open("/", complete=1, end=MONDAY)
    assert [row[2:] for row in events_of(page)] == [
        [str(figure) for figure in (one.today, one.week, one.month, one.year)]
        for one in report.events
    ]
    headings = page.one("div", id="events").one("table").rows[0]
    assert headings[2:] == ["16 Nov 2026", "Week of 16 Nov 2026", "This month", "This year"]


@pytest.mark.parametrize("end", [MONDAY, SUNDAY, date(2026, 10, 20)])
def test_each_figure_leads_to_its_people(recorded: None, browser: Browser, end: date) -> None:
    page = browser.open("/", complete=1, end=end)
    followed = 0
    for address, number in figures(page):
        if "where=flag:" in address or not number:
            continue
        told = browser.client.get(f"{address}&format=json").get_json()
        assert told["users"] == number, address
        followed += 1
    assert followed > 10


@pytest.mark.parametrize("table", ["events", "days"])
def test_json_and_csv_are_of_the_day(recorded: None, browser: Browser, table: str) -> None:
    page = browser.open("/", complete=1, end=MONDAY)
    links = [
        link.attributes["href"]
        for part in page.all("span", class_="formats")
        for link in part.all("a")
    ]
    mine = [link for link in links if ("table=days" in link) == (table == "days")]
    as_csv, as_json = (browser.client.get(link) for link in mine)
    if table == "days":
        report = active_users("user:logged_in", end=MONDAY, start=MONDAY - timedelta(89))
        assert as_csv.text == report.to_csv()
        assert as_json.get_json()["points"][-1]["complete"] is True
    else:
        assert as_csv.text.splitlines()[0].endswith(",2026-11-16")
        assert as_json.get_json()["as_of"].startswith("2026-11-16T23:59:59")


def test_every_link_of_the_page_keeps_the_day(recorded: None, browser: Browser) -> None:
    page = browser.open("/", end=MONDAY)
    assert asked(page)["end"] == [f"{MONDAY}"]
    assert (
        page.one("form", id="finding").one("input", name="end").attributes["value"] == f"{MONDAY}"
    )
    second = page.one("div", id="figures").attributes["hx-get"]
    assert f"end={MONDAY}" in second
    sorted_ = page.one("a", id="by-month").attributes["href"]
    assert events_of(browser.open(sorted_)) != events_of(browser.open("/?sort=month"))
    shown = browser.open(second)
    card = next(one for one in shown.all("section") if one.all("h2", id="trend-title"))
    trend = browser.open(card.one("a", class_="more").attributes["href"])
    assert (asked(trend)["start"], asked(trend)["end"]) == (["2026-08-19"], ["2026-11-16"])
    event = events_links(shown)[0]
    assert asked(browser.open(event))["end"] == ["2026-11-16"]


def test_the_days_around_it_are_a_click_away(recorded: None, browser: Browser) -> None:
    assert days(browser.open("/")) == ["/bitmapist/?event=user:logged_in&end=2026-11-22"]
    assert days(browser.open("/", end="2026-11-22")) == [
        "/bitmapist/?event=user:logged_in&end=2026-11-21",
        "/bitmapist/?event=user:logged_in",
    ]
    assert days(browser.open("/", end=MONDAY, where="flag:beta")) == [
        "/bitmapist/?event=user:logged_in&where=flag:beta&end=2026-11-15",
        "/bitmapist/?event=user:logged_in&where=flag:beta&end=2026-11-17",
        "/bitmapist/?event=user:logged_in&where=flag:beta",
    ]
    # No report ends before 2000.
    assert days(browser.open("/", end="2000-01-01"))[0].endswith("end=2000-01-02")


def test_today_is_the_overview_without_a_day(recorded: None, client: FlaskClient) -> None:
    today = client.get("/bitmapist/?complete=1&end=2026-11-23").text
    assert today == client.get("/bitmapist/?complete=1").text


def test_the_corner_says_where_it_ends(recorded: None, browser: Browser) -> None:
    corner = browser.open("/", end=MONDAY).one("span", id="as-of").text
    assert "up to 16 Nov 2026, as of 23 Nov 2026" in corner


@pytest.mark.parametrize("end", ["2026-11-24", "2026-02-30", "yesterday", "1999-12-31"])
@pytest.mark.parametrize("form", ["html", "json", "csv"])
def test_a_day_that_cannot_be_shown_is_told(
    recorded: None, client: FlaskClient, end: str, form: str
) -> None:
    answer = client.get(f"/bitmapist/?end={end}&format={form}")
    assert answer.status_code == 400
    told = error_of(read(answer.text)) if form == "html" else [answer.text]
    assert "The parameter end must be a day such as 2026-11-23" in " ".join(told)


def test_a_day_of_the_past_does_not_ask_again(at_now: None, browser: Browser) -> None:
    mark_event("song:played", 1)
    assert browser.open("/?complete=1").all("div", id="live")
    assert not browser.open("/", complete=1, end=(NOW - timedelta(1)).date()).all("div", id="live")
