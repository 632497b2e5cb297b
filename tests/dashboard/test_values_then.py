"""Values of a dated dimension on pages: as of then beside a breakdown, and in segments."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
import redis as redis_py
from months import write_months

from flask_bitmapist import chart, mark_dimension
from flask_bitmapist.dimensions import NONE

from .conftest import Browser
from .reading import Element, error_of
from .test_boards import cards, declare
from .test_breakdown import PAGES, refusal, rows
from .test_people import follow

MONTHS = {
    "2026-09": {"a & b": [1, 2], "free": [5, 8]},
    "2026-10": {"free": [1], NONE: [5], "a & b": [3]},
    "2026-11": {"free": [3], "a & b": [8]},
}
TODAY = {"a & b": [2, 7, 8], "free": [1, 3]}
THEN = "breakdown=user:plan&as_of=then"
ALL = {**PAGES, "trends": "/trends?over=last+3+months&by=month&event=user:logged_in"}


@pytest.fixture
def planned(recorded: None, redis: redis_py.Redis, browser: Browser) -> Browser:
    write_months(redis, "user:plan", MONTHS, TODAY)
    with browser.client.application.app_context():
        mark_dimension("user:team", [1, 2], "red")
    return browser


def lede(page: Element) -> str:
    return page.all("p", class_="lede")[0].text


def controls(page: Element) -> list[str]:
    """What is chosen where a form asks for the moment of the values."""
    chosen = [one.all("option", selected="") for one in page.all("select", name="as_of")]
    return [option.attributes["value"] for options in chosen for option in options]


@pytest.mark.parametrize("page", ALL)
def test_every_number_has_that_many_people_behind_it(planned: Browser, page: str) -> None:
    assert follow(planned, f"{ALL[page]}&{THEN}")


@pytest.mark.parametrize("page", PAGES)
def test_a_name_leads_to_the_same_page_about_these_people_alone(
    planned: Browser, page: str
) -> None:
    address = f"{PAGES[page]}&{THEN}"
    told = planned.client.get(f"/bitmapist{address}&format=json").get_json()
    assert told["as_of"] == "then"
    names = [one for one in planned.open(address).all("a") if one.text in told["parts"]]
    assert {one.text for one in names} == {*told["parts"]}
    for one in names:
        alone = planned.client.get(one.attributes["href"] + "&format=json").get_json()
        assert alone == told["parts"][one.text], one.text
        assert "as_of" not in one.attributes["href"]


@pytest.mark.parametrize("page", ALL)
def test_the_page_says_of_when_the_values_are(planned: Browser, page: str) -> None:
    found = planned.open(f"{ALL[page]}&{THEN}")
    assert "Broken down by user:plan as it was then." in lede(found).replace(" .", ".")
    assert "at the end of its month" in found.text
    assert "This is kept since September 2026." in found.text
    assert controls(found) == ["then"]
    found = planned.open(f"{ALL[page]}&breakdown=user:plan")
    assert "as it was then" not in lede(found)
    assert "that they have now, not under the one that they had then" in found.text
    assert "kept since September 2026: choose it in the form" in found.text
    assert controls(found) == ["now"]


@pytest.mark.parametrize("page", ALL)
def test_there_is_a_choice_only_if_the_dimension_is_dated(planned: Browser, page: str) -> None:
    for breakdown in ("", "&breakdown=user:team", "&breakdown=flag:beta"):
        found = planned.open(ALL[page] + breakdown)
        assert not found.all("select", name="as_of")
        assert "kept since" not in found.text
        assert not [a for a in found.all("a") if "as_of" in a.attributes.get("href", "")]


def test_a_form_whose_breakdown_is_taken_back_asks_for_none(planned: Browser) -> None:
    found = planned.open(f"{PAGES['lifecycle']}&breakdown=&as_of=then")
    assert "Broken down" not in lede(found)
    assert not found.all("select", name="as_of")


def test_what_is_not_kept_is_refused_with_a_sentence(planned: Browser) -> None:
    page = planned.open(f"{PAGES['cohort']}&breakdown=user:team&as_of=then", 400)
    assert "Of user:team only the values of now are kept. Declare it" in refusal(page)
    assert controls(page) == ["then"]  # to take it back
    page = planned.open(f"{PAGES['cohort']}&breakdown=flag:beta&as_of=then", 400)
    assert "such as was(user:plan=pro)." in refusal(page)
    page = planned.open(f"{PAGES['cohort']}&breakdown=user:plan&as_of=later", 400)
    assert "must be now or then, not 'later'" in refusal(page)


def test_the_rows_are_of_those_who_had_the_value_then(planned: Browser) -> None:
    asked = "/stickiness?event=user:created&by=month&within=7&end=2026-10-31"
    then = rows(planned.open(f"{asked}&{THEN}"))
    assert {name: cells[0] for name, cells in then.items()} == {
        "everybody": "4",
        "a & b": "2",
        "free": "1",
        "(no value)": "1",
    }


def test_csv_tells_it(planned: Browser) -> None:
    for as_of, column in (("then", "value_then,"), ("now", "value,")):
        asked = f"/bitmapist{PAGES['lifecycle']}&breakdown=user:plan&as_of={as_of}&format=csv"
        assert planned.client.get(asked).text.lstrip("\ufeff").startswith(column)


def test_the_people_of_a_part_are_called_so(planned: Browser) -> None:
    listed = f"/people?of=stickiness&within=12&by=week&{THEN}&k=1&value="
    assert "user:plan free then" in lede(planned.open(f"{listed}free"))
    assert "without a user:plan then" in lede(planned.open(f"{listed}(no value)"))


def test_a_chart_of_a_board_leads_to_the_page_that_says_so(planned: Browser) -> None:
    asked: dict[str, Any] = {"event": "user:created", "breakdown": "user:plan", "as_of": "then"}
    declare(planned.client.application, chart("Title", "lifecycle", **asked))
    (card,) = cards(planned.open("/boards?board=Weekly"))
    assert card.one("p", class_="d").text.endswith("; by user:plan as it was then")
    leads = planned.open(card.one("h2").one("a").attributes["href"])
    assert "Broken down by user:plan as it was then." in lede(leads).replace(" .", ".")


class TestSegments:
    @pytest.mark.parametrize("page", ALL.values())
    def test_it_narrows_every_page(self, planned: Browser, page: str) -> None:
        assert follow(planned, f"{page}&where=was(user:plan%3Dfree)|song:played")

    def test_the_builder_adds_it(self, planned: Browser) -> None:
        asked = {"term": "flag:user:plan=free", "time": "was", "event": "user:created"}
        found = planned.open("/lifecycle?" + urlencode(asked))
        assert "counting only was(user:plan=free)" in lede(found)
        assert "those who had the value at the end of its month" in found.text
        assert "A flag has no date" not in found.text

    def test_the_builder_refuses_what_has_no_months(self, planned: Browser) -> None:
        for term in ("flag:user:team=red", "flag:beta", "user:created"):
            asked = urlencode({"term": term, "time": "was"})
            page = planned.open(f"/lifecycle?{asked}", 400)
            assert f"{term} is no value of a dimension whose months are kept" in refusal(page)

    def test_the_builder_offers_it_where_something_is_dated(
        self, planned: Browser, redis: redis_py.Redis
    ) -> None:
        def offered() -> bool:
            times = planned.open("/lifecycle").one("select", name="time").all("option")
            return "was" in [option.attributes["value"] for option in times]

        assert offered()
        redis.hdel("flask_bitmapist:dimensions", "dated:user:plan")
        assert not offered()

    @pytest.mark.parametrize(
        ("segment", "told"),
        [
            ("was(user:team=red)", "of user:team only the values of now are kept"),
            ("was(user:plan=fre)", "did you mean flag:user:plan=free"),
        ],
    )
    def test_what_there_is_not_is_pointed_at(
        self, planned: Browser, segment: str, told: str
    ) -> None:
        asked = urlencode({"where": f"user:created - {segment}"})
        page = planned.open(f"/lifecycle?{asked}", 400)
        assert told in " ".join(error_of(page))
        character = page.one("pre", id="segment-error").one("span", class_="unseen").text
        position = len("user:created - ") + (1 if "team" in segment else 5)
        assert character.strip() == f"at character {position}"
