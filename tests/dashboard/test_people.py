"""The people behind every number: exactly so many, page by page, as the application calls them."""

from __future__ import annotations

import pytest

from .conftest import Browser, mark_log
from .reading import figures

#: Pages on which every group has somebody; rows and columns beyond the log are 0 or not yet.
QUESTIONS = [
    "/?complete=1",
    "/?complete=1&event=song:played",
    "/cohort?rows=6&columns=6",
    "/cohort?rows=6&columns=4&members=every&mode=on_or_after",
    "/cohort?rows=6&columns=4&mode=on_or_before",
    "/cohort?rows=6&columns=4&members=every&mode=streak",
    "/cohort?rows=6&columns=4&mode=first_return&returned=song:played",
    "/cohort?rows=3&columns=3&by=month",
    "/cohort?rows=3&columns=2&by=year",
    "/funnel?rows=40&step=user:created&step=user:logged_in&step=song:played",
    "/funnel?rows=40&step=user:created&step=user:logged_in&step=song:played&order=strict",
    "/funnel?rows=40&step=song:played&step=user:logged_in&step=user:created&order=any&within=7",
    "/funnel?rows=8&by=week&within=0",
    "/lifecycle?rows=7",
    "/lifecycle?rows=37&by=day",
    "/lifecycle?rows=3&by=month&event=song:played",
    "/stickiness",
    "/stickiness?within=12&by=week",
    "/stickiness?within=month&end=2026-10-31",
    "/compare?rows=36&arm=flag:beta&arm=flag:user:premium+-+flag:beta&arm=user:created",
    "/compare?rows=6&by=week&goal=song:played",
]
SEGMENTS = ["flag:user:premium", "user:logged_in - (flag:beta | song:played)"]


def follow(browser: Browser, address: str) -> int:
    """Open every link of a page to the people behind a number; how many people there were."""
    found = dict(figures(browser.open(address)))
    for link, number in found.items():
        page = browser.open(link)
        counted = int(page.all("p", class_="lede")[0].one("b").text)
        listed = [one for ul in page.all("ul", class_="people") for one in ul.all("li")]
        assert (counted, len(listed)) == (number, number), link
    assert found
    return sum(found.values())


@pytest.mark.parametrize("question", QUESTIONS)
def test_behind_every_number_are_so_many_people(
    recorded: None, browser: Browser, question: str
) -> None:
    assert follow(browser, question)


@pytest.mark.parametrize("segment", SEGMENTS)
@pytest.mark.parametrize("question", [q for q in QUESTIONS if not q.startswith("/?")][::2])
def test_behind_every_number_of_a_segment_are_so_many_people(
    recorded: None, browser: Browser, question: str, segment: str
) -> None:
    sign = "&" if "?" in question else "?"
    follow(browser, f"{question}{sign}where={segment.replace('&', '%26')}")


@pytest.mark.parametrize("question", QUESTIONS[::3])
def test_behind_every_number_of_mapped_ids_are_so_many_people(
    at_now: None, browser: Browser, question: str
) -> None:
    mark_log(lambda id_: f"u/{id_} <&\"'>")
    assert follow(browser, question)
