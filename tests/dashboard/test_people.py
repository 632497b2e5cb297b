"""The people behind every number: exactly so many, page by page, as the application calls them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import redis as redis_py
from flask import Flask, url_for
from flask.testing import FlaskClient
from markupsafe import Markup

from flask_bitmapist import FlaskBitmapist, mark_event

from .conftest import FLAGS, NOW, Browser, mark_log
from .reading import Element, figures, read

#: Pages on which every group has somebody; rows and columns beyond the log are 0 or not yet.
QUESTIONS = [
    "/?complete=1",
    "/?complete=1&event=song:played",
    "/?complete=1&end=2026-11-15",
    "/trends?over=last+6+weeks&by=week&event=song:played&event=user:created+-+flag:beta",
    "/trends?over=last+2+days&rolling=7&previous=yes&active=user:logged_in",
    "/trends?over=2026-10&by=week&breakdown=flag:beta&breakdown=user:created&event=user:logged_in",
    "/cohort?rows=6&periods=5",
    "/cohort?rows=6&periods=3&members=every&mode=on_or_after",
    "/cohort?rows=6&periods=3&mode=on_or_before",
    "/cohort?rows=6&periods=3&members=every&mode=streak",
    "/cohort?rows=6&periods=3&mode=first_return&returned=song:played",
    "/cohort?rows=3&periods=2&by=month&previous=yes",
    "/cohort?rows=3&periods=1&by=year",
    "/funnel?rows=40&step=user:created&step=user:logged_in&step=song:played",
    "/funnel?rows=40&step=user:created&step=user:logged_in&step=song:played&order=strict",
    "/funnel?rows=40&step=song:played&step=user:logged_in&step=user:created&order=any&within=7",
    "/funnel?rows=8&by=week&within=0",
    "/funnel?over=last+3+days&previous=yes&step=user:logged_in&step=song:played&breakdown=flag:beta",
    "/time-to-convert?rows=40&step=user:created&step=user:logged_in&within=30",
    "/time-to-convert?rows=40&step=user:created&step=user:logged_in&step=song:played&order=strict",
    "/time-to-convert?rows=40&step=song:played&step=user:created&order=any&within=7",
    "/conversion?rows=40&step=user:created&step=user:logged_in&within=30",
    "/conversion?rows=7&by=week&step=user:created&step=user:logged_in&step=song:played&within=1",
    "/conversion?rows=7&by=week&step=user:created&step=user:logged_in&order=strict&within=0",
    "/lifecycle?rows=7&previous=yes",
    "/lifecycle?rows=9&by=day",
    "/lifecycle?rows=3&by=month&event=song:played",
    "/stickiness",
    "/stickiness?within=12&by=week",
    "/stickiness?within=month&end=2026-10-31",
    "/churned?rows=7&silent=1",
    "/churned?rows=30&by=day&silent=3&event=song:played&end=2026-11-15",
    "/adoption?rows=7",
    "/adoption?rows=3&by=month&feature=user:logged_in&active=user:created",
    "/overlap",
    "/overlap?by=year&event=user:created+%26+flag:beta&event=flag:user:premium&event=song:played",
    "/changes?over=since+2026-10-20",
    "/changes?start=2026-11-10&end=2026-11-18&where=user:logged_in+-+flag:beta",
    "/compare?rows=36&arm=flag:beta&arm=flag:user:premium+-+flag:beta&arm=user:created",
    "/compare?rows=6&by=week&goal=song:played",
]
SEGMENTS = ["flag:user:premium", "user:logged_in - (flag:beta | song:played)"]


_FEW = 5


def follow(browser: Browser, address: str) -> int:
    """Open the links of a page to the people behind a number; how many people there were.

    Of those that lead to nobody, a few.
    """
    found = dict(figures(browser.open(address)))
    nobody = [link for link, number in found.items() if not number]
    for link, number in found.items():
        if link in nobody[_FEW:]:
            continue
        page = browser.open(link)
        counted = int(page.all("p", class_="lede")[0].one("b").text)
        listed = [
            one
            for table in page.all("table", class_="people")
            for one in table.all("th", scope="row")
        ]
        assert (counted, len(listed)) == (number, number), link
    assert found
    return sum(found.values())


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_number_has_that_many_people_behind_it(
    recorded: None, browser: Browser, question: str
) -> None:
    assert follow(browser, question)


@pytest.mark.parametrize("segment", SEGMENTS)
@pytest.mark.parametrize("question", [q for q in QUESTIONS if not q.startswith("/?")][::3])
def test_every_number_of_a_segment_has_that_many_people_behind_it(
    recorded: None, browser: Browser, question: str, segment: str
) -> None:
    sign = "&" if "?" in question else "?"
    follow(browser, f"{question}{sign}where={segment.replace('&', '%26')}")


@pytest.mark.parametrize("question", QUESTIONS[1::4])
def test_every_number_of_mapped_ids_has_that_many_people_behind_it(
    at_now: None, browser: Browser, question: str
) -> None:
    mark_log(lambda id_: f"u/{id_} <&\"'>")
    assert follow(browser, question)


def test_the_windows_of_the_overview_are_those_of_its_links(at_now: None, browser: Browser) -> None:
    for ago in (0, 6, 7, 27, 28):
        mark_event("song:played", ago, now=NOW - timedelta(days=ago))
    found = dict(figures(browser.open("/?complete=1")))
    assert {
        number for address, number in found.items() if "&rows=" in address and "of=" not in address
    } == {2, 4}
    follow(browser, "/?complete=1")


def test_people_of_an_arm_who_missed_the_goal_are_the_rest_of_it(
    recorded: None, browser: Browser
) -> None:
    listed = []
    for converted in ("", "yes", "no"):
        address = f"/people?of=compare&rows=36&arm=flag:beta&converted={converted}"
        page = browser.open(f"{address}&goal=song:played")
        listed.append([one.text for one in page.one("table", class_="people").all("a")])
    assert listed == [["2", "3", "8", "10"], ["2", "3", "10"], ["8"]]


def test_every_number_of_always_mapped_ids_has_that_many_people_behind_it(
    redis_url: str,
) -> None:
    app = Flask("sparse")
    app.config.update(
        TESTING=True,
        BITMAPIST_ENABLED=True,
        BITMAPIST_REDIS_URL=redis_url,
        BITMAPIST_ID_MAP="always",
    )
    tracker = FlaskBitmapist(app).tracker_of(app)
    browser = Browser(app.test_client())
    with app.app_context(), tracker.at(NOW):
        mark_log(lambda id_: id_ * 10**12)
        follow(browser, "/lifecycle?rows=7")
        page = browser.open("/people?where=flag:beta")
        listed = page.one("table", class_="people").all("a")
        assert {one.text for one in listed} == {f"{n}{'0' * 12}" for n in FLAGS["beta"]}
        person = browser.open(listed[0].attributes["href"])
    assert {row[0] for row in person.all("table")[1].rows[1:]} == {
        "song:played",
        "user:created",
        "user:logged_in",
    }


# How the application calls them


@pytest.fixture
def called(app: Flask, recorded: None) -> Callable[[Callable[[Any], object]], Any]:
    """Registers a `user_link`, and gives back who is listed then: (label, id, URL)."""

    def listed(link: Callable[[Any], object]) -> list[tuple[str, str, str]]:
        app.extensions["bitmapist"].user_link(link)
        page = read(app.test_client().get("/bitmapist/people?where=flag:beta").text)
        return [_told(one) for one in page.one("table", class_="people").all("th", scope="row")]

    return listed


def _told(listed: Element) -> tuple[str, str, str]:
    name, *out = listed.all("a")
    id_ = [one.raw for one in listed.all("span", class_="quiet")]
    return name.raw, "".join(id_), "".join(one.attributes["href"] for one in out)


Called = Callable[[Callable[[Any], object]], list[tuple[str, str, str]]]


def test_without_a_user_link_people_are_called_by_their_ids(
    recorded: None, browser: Browser
) -> None:
    listed = (
        browser.open("/people?where=flag:beta").one("table", class_="people").all("th", scope="row")
    )
    assert [_told(one) for one in listed] == [(id_, "", "") for id_ in ("2", "3", "8", "10")]


def test_a_user_link_may_give_a_label(called: Called) -> None:
    assert called(lambda id_: f"user no. {id_}")[0] == ("user no. 2", "2", "")


def test_a_user_link_may_give_a_label_and_an_address(called: Called) -> None:
    assert called(lambda id_: ("Ann", f"/accounts/{id_}"))[0] == ("Ann", "2", "/accounts/2")


def test_the_label_and_the_address_are_on_the_page_of_the_person(
    app: Flask, recorded: None, browser: Browser
) -> None:
    app.extensions["bitmapist"].user_link(lambda id_: ("Ann", f"/accounts/{id_}"))
    page = browser.open("/person?id=2")
    assert page.one("h1").text == "Ann"
    assert page.one("head").one("title").text == "Ann - Bitmapist"
    assert page.one("a", class_="out").attributes["href"] == "/accounts/2"
    assert "Marked as 2" in page.all("p", class_="lede")[0].text


@pytest.mark.parametrize("nothing", [None, "", (None, None), ("", "")])
def test_a_user_link_that_says_nothing_leaves_the_id(called: Called, nothing: object) -> None:
    assert called(lambda id_: nothing)[0] == ("2", "", "")


def test_an_address_without_a_label_leads_from_the_id(called: Called) -> None:
    assert called(lambda id_: (None, "/accounts"))[0] == ("2", "", "/accounts")


def test_a_user_link_that_fails_for_one_is_logged_and_leaves_the_id(
    called: Called, errors: pytest.LogCaptureFixture
) -> None:
    assert [one[:2] for one in called(lambda id_: 60 / (id_ - 3))] == [
        ("-60.0", "2"),
        ("3", ""),
        ("12.0", "8"),
        (str(60 / 7), "10"),
    ]
    assert "user_link failed for the user 3" in errors.text
    assert "ZeroDivisionError" in errors.text


def test_a_user_link_that_fails_leaves_the_ids_of_a_download_and_is_logged_once(
    app: Flask, at_now: None, client: FlaskClient, errors: pytest.LogCaptureFixture
) -> None:
    mark_event("song:played", [f"user-{n}" for n in range(2_345)])
    app.extensions["bitmapist"].user_link(lambda id_: 1 / 0)
    lines = client.get("/bitmapist/people?format=csv").text.splitlines()
    assert lines == ["id,label", *(f"user-{n},user-{n}" for n in range(2_345))]
    failures = [one for one in errors.records if one.levelname == "ERROR"]
    assert [one.getMessage() for one in failures] == ["user_link failed for the user of a text id"]


def test_a_download_that_breaks_off_does_not_look_complete_and_is_logged(
    redis: redis_py.Redis, redis_url: str, errors: pytest.LogCaptureFixture
) -> None:
    redis.acl_setuser("reader", True, True, keys="*", categories=["+@all"])
    people = [f"user-{n}" for n in range(12_345)]
    app = Flask("reading")
    app.testing = True
    with redis_py.Redis.from_url(redis_url, username="reader") as reader:
        config = {"BITMAPIST_SPOOL": False, "BITMAPIST_ENABLED": True}
        tracker = FlaskBitmapist(app, config, redis_client=reader).tracker_of(app)
        with app.app_context(), tracker.at(NOW):
            mark_event("song:played", people)
            answer = app.test_client().get("/bitmapist/people?format=csv")
            assert answer.status_code == 200
            redis.acl_setuser("reader", True, True, keys="*", categories=["-@all"])
            got: list[bytes] = []
            with pytest.raises(redis_py.exceptions.NoPermissionError):
                got.extend(answer.iter_encoded())
    listed = b"".join(got).decode().splitlines()[1:]
    assert listed == people[: len(listed)]
    assert f"a download of people broke off after {len(listed)} of them" in errors.text
    assert 0 < len(listed) < len(people)


class _Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "told",
    [_Unspeakable(), ("a", _Unspeakable()), ("a", "b", "c"), ("a",), (), ("a", "http://[")],
    ids=["label", "address", "three", "one", "none", "no address"],
)
def test_a_user_link_that_gives_nonsense_is_logged_and_leaves_the_id(
    called: Called, errors: pytest.LogCaptureFixture, told: object
) -> None:
    assert called(lambda id_: told)[0] == ("2", "", "")
    assert "user_link failed for the user 2" in errors.text


def test_a_user_link_may_be_a_coroutine(called: Called) -> None:
    async def link(id_: int) -> tuple[str, str]:
        return f"user {id_}", f"/{id_}"

    assert called(link)[0] == ("user 2", "2", "/2")


@pytest.mark.parametrize(
    "url", ["/a", "a?b=c", "https://x.example/1", "http://x", "mailto:a@b", "/a onclick=b"]
)
def test_an_address_may_lead_out_of_the_dashboard(called: Called, url: str) -> None:
    assert called(lambda id_: ("Ann", url))[0] == ("Ann", "2", url)


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        " javascript:alert(1)",
        "java\nscript:alert(1)",
        "java\tscript:alert(1)",
        "\x01javascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "file:///etc/passwd",
        "blob:x",
    ],
)
def test_an_address_that_could_run_a_script_is_dropped(called: Called, url: str) -> None:
    assert called(lambda id_: ("Ann", url))[0] == ("Ann", "2", "")


@pytest.mark.parametrize("kind", [str, Markup])
def test_a_label_is_escaped_whatever_its_type(app: Flask, called: Called, kind: type[str]) -> None:
    label = "<img src=x onerror=alert(1)>"
    assert called(lambda id_: (kind(label), kind("/'\"<b>")))[0] == (label, "2", "/'\"<b>")
    assert label not in app.test_client().get("/bitmapist/person?id=2").text


@pytest.mark.parametrize("label", ["broken \udce9", "nul \x00", "\u202e"], ids=ascii)
def test_a_label_of_any_characters_can_be_shown(called: Called, label: str) -> None:
    assert len(called(lambda id_: label)) == 4


def test_a_user_link_is_called_for_those_who_are_shown_at_most_fifty(
    app: Flask, at_now: None, browser: Browser
) -> None:
    asked: list[object] = []
    app.extensions["bitmapist"].user_link(asked.append)
    mark_event("song:played", list(range(130)))
    browser.open("/people?page=2")
    assert asked == [*range(50, 100)]
    for form in ("json", "csv"):
        browser.client.get(f"/bitmapist/people?format={form}")
    browser.open("/lifecycle")
    assert len(asked) == 50


def test_a_user_link_gets_ids_as_the_application_marked_them(
    app: Flask, at_now: None, browser: Browser
) -> None:
    asked: list[object] = []
    app.extensions["bitmapist"].user_link(asked.append)
    key = UUID("12345678-1234-5678-1234-567812345678")
    mark_event("song:played", key)
    page = browser.open("/people")
    browser.open(page.one("table", class_="people").one("a").attributes["href"])
    assert asked == [str(key)] * 2


def test_a_user_link_may_ask_for_addresses_of_the_application(called: Called, app: Flask) -> None:
    app.add_url_rule("/accounts/<int:id>", "account", str)
    assert called(lambda id_: ("Ann", url_for("account", id=id_)))[0][2] == "/accounts/2"
