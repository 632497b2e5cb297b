"""The range of a page: in words or as two days, and links to either; addresses of before."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from .conftest import NOW, Browser
from .reading import Element, asked

#: Pages whose reports have a range.
COUNTED = ["/trends", "/cohort", "/funnel", "/lifecycle", "/churned", "/adoption", "/compare"]
RANGED = [*COUNTED, "/stickiness", "/overlap"]


def tables(page: Element) -> list[list[list[str]]]:
    return [table.rows for table in page.all("table")]


def links(page: Element) -> list[str]:
    """Those to what is shown: first the range as it was asked for, last its days."""
    return [link.attributes["href"] for link in page.one("p", class_="links").all("a")]


def told(browser: Browser, page: str, **query: Any) -> Any:
    answer = browser.client.get(f"/bitmapist{page}", query_string={**query, "format": "json"})
    assert answer.status_code == 200, answer.json
    return answer.json


@pytest.mark.parametrize("page", RANGED)
def test_every_report_has_a_form_for_its_range(recorded: None, browser: Browser, page: str) -> None:
    shown = browser.open(page, over="last month", by="week")
    sent = asked(shown)
    assert (sent["over"], sent["start"], sent["end"]) == (["last month"], [""], [""])
    offered = [option.raw for option in shown.one("select", name="over").all("option")]
    assert {"last 7 days", "last 28 days", "last 90 days", "last month", "this month"} < {*offered}
    assert {"this quarter", "last quarter", "this year", "dates …"} < {*offered}
    assert "rows" not in sent


@pytest.mark.parametrize("page", RANGED)
def test_a_range_in_words_is_that_of_its_days(recorded: None, browser: Browser, page: str) -> None:
    october: dict[str, Any] = {"start": "2026-10-01", "end": "2026-10-31", "by": "week"}
    shown = browser.open(page, over="last month", by="week")
    assert tables(shown) == tables(browser.open(page, **october))
    dates = told(browser, page, **october)
    assert told(browser, page, over="LAST  month", by="week") == dates
    assert told(browser, page, over="2026-10", by="week") == dates
    # October begins on a Thursday: its first week is that of 28 September.
    assert shown.one("p", class_="links").text.startswith("28 Sep to 1 Nov 2026.")


@pytest.mark.parametrize("page", [*COUNTED, "/overlap"])
def test_an_address_with_a_number_of_rows_shows_what_it_did(
    recorded: None, browser: Browser, page: str
) -> None:
    dates = {"start": "2026-10-05", "end": "2026-10-31", "by": "week"}
    assert told(browser, page, rows=4, end="2026-10-31", by="week") == told(browser, page, **dates)
    if page != "/churned":  # which counts back from the last week whose silence is over
        last = told(browser, page, over="last 4 weeks", by="week")
        assert told(browser, page, rows=4, by="week") == last
    shown = browser.open(page, rows=4, end="2026-10-31", by="week")
    sent = asked(shown)
    assert (sent["over"], sent["start"], sent["end"]) == ([""], ["2026-10-05"], ["2026-10-31"])


@pytest.mark.parametrize("page", RANGED)
@pytest.mark.parametrize("over", ["last 28 days", "this quarter", "2026-W44"])
def test_a_link_keeps_the_words_or_the_days(
    recorded: None, browser: Browser, page: str, over: str
) -> None:
    shown = browser.open(page, over=over, by="week")
    again = [browser.open(link) for link in links(shown)]
    assert all(tables(one) == tables(shown) for one in again)
    assert asked(again[0]) == asked(shown)
    # The week of a name is the same one for ever.
    assert len(again) == (1 if over == "2026-W44" else 2)
    for fixed in again[1:]:
        assert (asked(fixed)["over"], bool(asked(fixed)["start"][0])) == ([""], True)


def test_people_behind_a_figure_are_those_of_the_same_range(
    recorded: None, browser: Browser
) -> None:
    shown = browser.open("/funnel", over="last month", step="user:created")
    link = shown.one("td", **{"data-label": "People"}).one("a")
    people = browser.open(link.attributes["href"])
    assert people.one("h2", id="people-title").text.endswith(f"of {link.text}")
    assert "from 1 Oct to 31 Oct 2026" in people.all("p", class_="lede")[0].text


def test_people_are_of_a_range_too(recorded: None, browser: Browser) -> None:
    shown = browser.open("/people", where="user:created", over="last month")
    assert asked(shown)["over"] == ["last month"]
    assert told(browser, "/people", where="user:created", over="last month")["users"] == 4
    dates = {"start": "2026-10-01", "end": "2026-10-31"}
    assert told(browser, "/people", where="user:created", **dates)["users"] == 4
    assert told(browser, "/people", where="user:created")["users"] == 2
    before = browser.open("/people", where="user:created", rows=7, end="2026-11-09")
    sent = asked(before)
    assert (sent["start"], sent["end"]) == (["2026-11-03"], ["2026-11-09"])
    assert before.one("b").text == "3"


@pytest.mark.parametrize(
    ("window", "range_"),
    [
        ({"within": "7"}, {"over": "last 7 days"}),
        ({"within": "12", "by": "week"}, {"over": "last 12 weeks", "by": "week"}),
        ({"within": "7", "end": "2026-11-20"}, {"start": "2026-11-14", "end": "2026-11-20"}),
        ({"within": "week"}, {"over": "this week"}),
        ({"within": "month", "end": "2026-10-15"}, {"start": "2026-10-01", "end": "2026-10-31"}),
        ({"within": "month", "end": "2026-11-02"}, {"start": "2026-11-01", "end": "2026-11-23"}),
    ],
    ids=str,
)
def test_an_address_with_a_window_shows_what_it_did(
    recorded: None, browser: Browser, window: dict[str, Any], range_: dict[str, Any]
) -> None:
    shown = browser.open("/stickiness", **window)
    assert tables(shown) == tables(browser.open("/stickiness", **range_))
    assert all(f"{k}={v.replace(' ', '+')}" in links(shown)[0] for k, v in range_.items())


def test_a_person_is_shown_over_a_range(recorded: None, browser: Browser) -> None:
    shown = browser.open("/person", id=1, over="last month")
    assert asked(shown)["id"] == ["1"]
    calendar = shown.one("svg", class_="calendar").attributes["aria-label"]
    assert calendar.endswith("of 31 days")
    assert told(browser, "/person", id=1, over="last month") == told(
        browser, "/person", id=1, start="2026-10-01", end="2026-10-31"
    )
    assert all(tables(browser.open(link)) == tables(shown) for link in links(shown))
    before = browser.open(shown.one("a", rel="prev").attributes["href"])
    assert (asked(before)["start"], asked(before)["end"]) == (["2026-08-31"], ["2026-09-30"])
    back = browser.open(before.one("a", rel="next").attributes["href"])
    assert (asked(back)["start"], asked(back)["end"]) == (["2026-10-01"], ["2026-10-31"])
    browser.open("/person", 400, id=1, over="last 2000 days")
    with_list = browser.open("/person", id=1, over="last month", back="where=flag:beta")
    assert asked(with_list)["back"] == ["where=flag:beta"]


def test_an_open_end_is_today(recorded: None, browser: Browser) -> None:
    shown = browser.open("/lifecycle", start="2026-11-20", by="day")
    assert tables(shown)[0][1][0] == "23 Nov *"
    assert [row[0] for row in tables(shown)[0][2:]] == ["22 Nov", "21 Nov", "20 Nov"]
    assert links(shown)[-1].endswith(f"&end={NOW:%F}")


def test_a_range_that_cannot_be_shown_leaves_the_form_as_it_was(
    recorded: None, browser: Browser
) -> None:
    shown = browser.open("/funnel", 400, over="last month", end="2026-11-10")
    assert "Choose a range in words" in shown.one("p", class_="problem").raw
    assert (asked(shown)["over"], asked(shown)["end"]) == (["last month"], ["2026-11-10"])
    assert "given" in shown.one("span", class_="dates").classes


@pytest.mark.parametrize("page", RANGED)
@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({"start": "2026-11-20", "end": "2026-11-01"}, "in the range 2026-11-20 to 2026-11-01"),
        ({"start": "1990-01-01"}, "in the range since 1990-01-01"),
    ],
)
def test_a_page_that_cannot_show_a_range_speaks_of_no_other(
    recorded: None, browser: Browser, page: str, query: dict[str, str], told: str
) -> None:
    shown = browser.open(page, 400, by="day", **query)
    assert told in shown.one("p", class_="lede").text
    assert not shown.all("p", class_="links")


def test_a_year_over_new_year_s_week_is_shown_whole(recorded: None, browser: Browser) -> None:
    points = told(browser, "/lifecycle", over="last year", by="week")["points"]
    assert (points[0]["period_start"], points[-1]["period_start"]) == ("2024-12-30", "2025-12-29")
    this = told(browser, "/lifecycle", over="this year", by="week")["points"]
    assert date.fromisoformat(this[0]["period_start"]) == date(2025, 12, 29)
