"""What a page says that it shows: all that was asked, the segment and the dates too."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from flask_bitmapist.dashboard.pages import PAGES as ENTRIES
from flask_bitmapist.dashboard.people import PAGES_WITH_PEOPLE
from flask_bitmapist.tracker import Tracker

from .conftest import NOW, PAGES, Browser
from .reading import Element, figures

#: A query of each page, and what its first sentence says of it beside segment and dates.
ASKED = {
    "/trends": (
        "event=song:played&event=user:created&by=week&rows=3&rolling=2&active=user:logged_in",
        "in the 2 weeks up to each week, as a share of those who did user:logged_in",
    ),
    "/cohort": (
        "cohort=song:played&returned=user:created&by=week&rows=3&periods=2&mode=streak",
        "song:played for the first time in a week, the share who did user:created 0 to 2 weeks "
        "later, in every week up to then",
    ),
    "/funnel": (
        "step=user:created&step=user:logged_in&step=song:played&rows=3&by=week&order=strict"
        "&within=2",
        "went on to user:logged_in and song:played, in this order, one per week, within 2 weeks",
    ),
    "/time-to-convert": (
        "step=user:created&step=song:played&rows=3&by=week&order=any&within=2",
        "how many weeks it took them to have done all of song:played, in any order, within 2 weeks",
    ),
    "/conversion": (
        "step=user:created&step=song:played&rows=3&by=week&order=strict&within=2",
        "the share who got to song:played, in this order, one per week, within 2 weeks",
    ),
    "/lifecycle": ("event=song:played&by=week&rows=3", "did song:played"),
    "/stickiness": ("event=song:played&by=week&within=7", "did song:played"),
    "/churned": (
        "event=song:played&by=week&rows=3&silent=2",
        "did song:played, those who did not do it in the 2 weeks after",
    ),
    "/adoption": (
        "feature=song:played&active=user:created&by=week&rows=3",
        "did user:created",
    ),
    "/overlap": ("event=song:played&event=user:created&by=week", "did both"),
    "/changes": ("by=week&rows=3", "did each event"),
    "/compare": ("arm=user:created&arm=song:played&goal=user:logged_in&by=week&rows=3", "did user"),
    "/people": ("where=flag:beta&by=week&rows=3", "those who match flag:beta"),
}
DATED = {
    "/churned": ("from 19 Oct to 8 Nov 2026", "from 12 Oct to 1 Nov 2026"),
    "/stickiness": ("in the last 7 weeks", "from 14 Sep to 1 Nov 2026"),
    "/overlap": ("in the week of 23 Nov 2026", "in the week of 26 Oct 2026"),
}
RANGE = ("in the last 3 weeks", "from 12 Oct to 1 Nov 2026")


def said(page: Element) -> str:
    """The sentence above the report."""
    return (
        page.all("p", class_="lede")[0]
        .text.replace(" ,", ",")
        .replace(" .", ".")
        .replace(" :", ":")
    )


def as_of(page: Element) -> str:
    return page.one("span", id="as-of").text


def test_every_report_is_asked_for() -> None:
    assert {*ASKED} == {*PAGES[1:]}


@pytest.mark.parametrize("page", ASKED)
def test_the_first_sentence_says_all_that_was_asked(
    recorded: None, browser: Browser, page: str
) -> None:
    query, told = ASKED[page]
    lately, then = DATED.get(page, RANGE)
    segment = "" if page == "/people" else "&where=user:logged_in | flag:beta".replace("|", "%7C")
    only = "flag:beta" if page == "/people" else "counting only user:logged_in | flag:beta"
    for end, dates in (("", lately), ("&end=2026-10-31", then)):
        sentence = said(browser.open(f"{page}?{query}{segment}{end}"))
        assert told in sentence
        assert dates in sentence
        assert only in sentence


@pytest.mark.parametrize("within", ["week", "month"])
def test_a_calendar_window_is_named(recorded: None, browser: Browser, within: str) -> None:
    named = {"week": "26 Oct to 1 Nov 2026", "month": "1 Oct to 31 Oct 2026"}[within]
    page = browser.open(f"/stickiness?within={within}&end=2026-10-31")
    assert f"on exactly 1, 2, 3... days from {named}." in said(page)
    people = browser.open(f"/people?of=stickiness&k=1&within={within}&end=2026-10-31")
    assert f"on exactly 1 day from {named}" in said(people)


@pytest.mark.parametrize("page", [*ASKED, "/?complete=1", "/?where=flag:beta"])
def test_the_corner_says_as_of_which_day(recorded: None, browser: Browser, page: str) -> None:
    # Churn ends with the last week whose silence is over.
    last = "up to week of 19 Oct 2026, " if page == "/churned" else ""
    assert as_of(browser.open(page)) == f"UTC · {last}as of 23 Nov 2026, 14:32"


@pytest.mark.parametrize("page", ASKED)
def test_the_corner_says_where_figures_end_that_do_not_end_now(
    recorded: None, browser: Browser, page: str
) -> None:
    sign = "?by=week&end="
    # The silence after a later week is not over.
    last = "19 Oct" if page == "/churned" else "26 Oct"
    told = f"UTC · up to week of {last} 2026, as of 23 Nov 2026, 14:32"
    assert as_of(browser.open(f"{page}{sign}2026-10-31")) == told
    assert ("up to" in as_of(browser.open(f"{page}{sign}2026-11-23"))) == (page == "/churned")


def test_the_corner_of_a_person_s_page_says_where_the_year_ends(
    recorded: None, browser: Browser
) -> None:
    assert "up to 31 Oct 2026, as of" in as_of(browser.open("/person?id=1&end=2026-10-31"))
    assert "up to" not in as_of(browser.open("/person?id=1"))


@pytest.mark.parametrize("complete", ["", "1"])
def test_the_overview_says_of_whom_and_of_when_it_is(
    recorded: None, browser: Browser, complete: str
) -> None:
    page = browser.open("/", complete=complete, where="flag:beta", event="song:played")
    assert "song:played, counting only flag:beta: today, 23 Nov 2026" in said(page)
    assert page.one("h2", id="events-title").text == "Events, of everyone"


@pytest.mark.parametrize("page", [page for page in ASKED if page != "/people"])
def test_the_people_behind_a_figure_are_told_with_segment_and_dates(
    recorded: None, browser: Browser, page: str
) -> None:
    query = ASKED[page][0].replace("rows=3", "rows=6")
    shown = browser.open(f"{page}?{query}&where=user:logged_in&end=2026-11-15")
    found = [address for address, number in figures(shown) if number]
    assert found or page == "/churned"
    for address in found:
        behind = browser.open(address)
        sentence = said(behind)
        dates = r"((up to|in the|the) week of|from \d+ \w+ to) \d+ \w+ 2026"
        assert re.search(dates, sentence), sentence
        assert sentence.endswith(", of user:logged_in.")
        last = "2 Nov" if page == "/churned" else "9 Nov"
        assert f"up to week of {last} 2026, as of 23 Nov" in as_of(behind)


def test_the_people_behind_a_step_are_told_with_order_and_window(
    recorded: None, browser: Browser
) -> None:
    asked = "of=funnel&number=2&rows=40&step=user:created&step=user:logged_in&order=strict&within=9"
    assert said(browser.open(f"/people?{asked}")).endswith(
        "took user:created → user:logged_in, in this order, one per day, within 9 days, "
        "in the last 40 days."
    )


def test_those_who_have_time_left_for_a_step_are_told_apart(
    recorded: None, browser: Browser
) -> None:
    asked = "of=funnel&which=open&step=user:created&step=user:logged_in&step=song:played&number=3"
    assert said(browser.open(f"/people?{asked}&within=9&rows=40")).endswith(
        "took user:created, in this order, within 9 days, and have time left to get to "
        "song:played, in the last 40 days."
    )


@pytest.mark.parametrize("page", [*PAGES, "/?complete=1"])
def test_a_page_speaks_without_letters_for_numbers(
    recorded: None, browser: Browser, page: str
) -> None:
    told = [one.text for one in browser.open(page) if one.tag in ("p", "th", "label", "h2")]
    assert not [text for text in told if re.search(r"\b[kn]\b(?! *=)", text)]


def test_behind_every_page_of_figures_there_are_people() -> None:
    assert [*PAGES_WITH_PEOPLE] == [
        "people",
        *(page.endpoint for page in ENTRIES if page.endpoint not in _NO_FIGURES),
    ]


#: The figures of the overview and of boards are those of other pages.
_NO_FIGURES = ("index", "boards", "people", "person", "find")
#: The pages that the navigation does not list, and under which name they are found.
_UNLISTED = {
    "person": "People",
    "find": "People",
    "time_to_convert": "Funnel",
    "conversion": "Funnel",
}


def test_the_navigation_marks_the_page_that_is_shown(recorded: None, browser: Browser) -> None:
    for page in ENTRIES:
        shown = browser.open(f"{page.address}?id=1" if page.endpoint == "person" else page.address)
        marked = shown.one("nav", **{"aria-label": "Reports"}).one("a", **{"aria-current": "page"})
        assert marked.text == (page.title or _UNLISTED[page.endpoint])


def test_today_s_figures_are_of_the_day_that_is_told(
    recorded: None, browser: Browser, tracker: Tracker
) -> None:
    with tracker.at(NOW + timedelta(days=3)):
        page = browser.open("/?complete=1")
    assert "today, 26 Nov 2026" in said(page)
