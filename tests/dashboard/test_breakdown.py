"""Reports broken down: a row a value, where each leads, and who is behind its numbers."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from flask_bitmapist import mark_dimension

from .conftest import Browser, mark_log
from .reading import Element, error_of
from .test_people import follow

PAGES = {
    "cohort": "/cohort?start=2026-09-01&end=2026-11-23&periods=2&by=month",
    "funnel": "/funnel?over=last+40+days&step=user:created&step=user:logged_in&within=7",
    "lifecycle": "/lifecycle?over=last+3+months&by=month",
    "stickiness": "/stickiness?within=12&by=week",
    "compare": "/compare?over=last+36+days&arm=flag:beta&arm=user:created",
}
SEGMENTS = "breakdown=flag:beta&breakdown=song:played+-+flag:user:premium"


def give_plans(called: type[int] | type[str] = int) -> None:
    mark_dimension("user:plan", [called(id_) for id_ in (1, 5, 7)], "a & b")
    mark_dimension("user:plan", [called(id_) for id_ in (2, 3, 10)], "free")
    mark_dimension("user:plan", [called(id_) for id_ in (4, 6, 8)], "gone")
    mark_dimension("user:plan", [called(id_) for id_ in (4, 6, 8)], None)


@pytest.fixture
def planned(recorded: None, browser: Browser) -> Browser:
    with browser.client.application.app_context():
        give_plans()
    return browser


def refusal(page: Element) -> str:
    return " ".join(error_of(page))


def rows(page: Element, title: str = "parts-title") -> dict[str, list[str]]:
    """The cells of the parts' table by the names of the parts."""
    table = page.one("section", **{"aria-labelledby": title}).one("table")
    return {
        row.one("th").text: [cell.text for cell in row.all("td")]
        for row in table.all("tr")
        if row.all("td") and row.one("th").text
    }


@pytest.mark.parametrize("breakdown", ["breakdown=user:plan", SEGMENTS])
@pytest.mark.parametrize("page", PAGES)
def test_every_number_has_that_many_people_behind_it(
    planned: Browser, page: str, breakdown: str
) -> None:
    assert follow(planned, f"{PAGES[page]}&{breakdown}")


def test_every_number_of_mapped_ids_has_that_many_people_behind_it(
    at_now: None, browser: Browser
) -> None:
    mark_log(str)
    with browser.client.application.app_context():
        give_plans(str)
    assert follow(browser, f"{PAGES['funnel']}&breakdown=user:plan")


def test_the_values_of_a_dimension_are_rows_that_add_up(planned: Browser) -> None:
    found = rows(planned.open(f"{PAGES['stickiness']}&breakdown=user:plan"))
    assert [*found] == ["everybody", "a & b", "free", "gone", "(no value)"]
    whole, *parts = ([int(cell) for cell in cells] for cells in found.values())
    assert [sum(column) for column in zip(*parts, strict=True)] == whole
    assert whole[0] == 8


@pytest.mark.parametrize("breakdown", ["breakdown=user:plan", SEGMENTS])
@pytest.mark.parametrize("page", PAGES)
def test_a_name_leads_to_the_same_page_about_these_people_alone(
    planned: Browser, page: str, breakdown: str
) -> None:
    address = f"{PAGES[page]}&{breakdown}"
    told = planned.client.get(f"/bitmapist{address}&format=json").get_json()
    names = [one for one in planned.open(address).all("a") if one.text in told["parts"]]
    assert {one.text for one in names} == {*told["parts"]}
    for one in names:
        alone = planned.client.get(one.attributes["href"] + "&format=json").get_json()
        assert alone == told["parts"][one.text], one.text
        assert "breakdown" not in one.attributes["href"]


@pytest.mark.parametrize("page", PAGES)
def test_the_page_says_by_what_and_as_of_when(planned: Browser, page: str) -> None:
    found = planned.open(f"{PAGES[page]}&breakdown=user:plan")
    assert "Broken down by user:plan." in found.all("p", class_="lede")[0].text.replace(" .", ".")
    assert "that they have now, not under the one that they had then" in found.text
    found = planned.open(f"{PAGES[page]}&{SEGMENTS}")
    assert "in several of the segments counts in each" in found.text
    assert "Broken down" not in planned.open(PAGES[page]).all("p", class_="lede")[0].text


def test_the_people_of_a_part_are_called_so(planned: Browser) -> None:
    listed = "/people?of=stickiness&within=12&by=week&breakdown=user:plan&k=1&value="
    for value, told in {
        "free": ", user:plan free",
        "(no value)": ", without a user:plan",
    }.items():
        page = planned.open(listed + value)
        assert told in page.all("p", class_="lede")[0].text
    assert "There is no part 'x'" in refusal(planned.open(f"{listed}x", 400))
    assert "the question has no breakdown" in refusal(
        planned.open("/people?of=stickiness&value=free", 400)
    )


@pytest.mark.parametrize(
    ("breakdown", "told"),
    [
        ("breakdown=user:plam", "There is no dimension 'user:plam'. There are: user:plan."),
        ("breakdown=user:plan&breakdown=flag:beta", "Break it down by user:plan alone"),
        ("&".join(["breakdown=flag:beta"] * 13), "by at most 12 segments"),
        ("breakdown=flag:beta&breakdown=flag:beta", "Breakdown has flag:beta twice."),
        ("breakdown=flag:beta&breakdown=flag:betta", "Breakdown 2: nothing called flag:betta"),
        ("breakdown=flag:beta&breakdown=a+%26", "Breakdown 2 cannot be read"),
    ],
)
def test_what_is_no_breakdown_is_refused_with_a_sentence(
    planned: Browser, breakdown: str, told: str
) -> None:
    assert told in refusal(planned.open(f"{PAGES['cohort']}&{breakdown}", 400))


def test_of_many_parts_the_largest_are_drawn(planned: Browser, client: FlaskClient) -> None:
    with client.application.app_context():
        for id_ in range(1, 11):
            mark_dimension("user:country", id_, f"c{id_}")
    page = planned.open(f"{PAGES['stickiness']}&breakdown=user:country")
    names = [one.text for one in page.one("figcaption", class_="legend").all("span")]
    assert len(names) == 7
    assert names[0] == "everybody"
    assert len(rows(page)) == 12
    assert "Of 11 parts, the 6 largest are drawn." in page.text
