"""Query strings: what is absurd is a sentence with status 400; the segment builder, with and
without an error.
"""

from __future__ import annotations

from html import unescape
from itertools import chain
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from flask_bitmapist import mark_event, mark_unique
from flask_bitmapist.analytics import Did, Event, Flag, parse
from flask_bitmapist.current import current_tracker
from flask_bitmapist.marks import Mark

from .conftest import NOW, PAGES, Browser
from .reading import Element, asked, error_of

DAY = "must be a day such as 2026-11-23, from the year 2000 on and up to today, 2026-11-23, not"
BY = "The parameter by must be day, week, month or year, not"
#: An absurd query of a page, and what is said of it.
ABSURD = [
    # The overview
    ("/?event=nobody", "No event 'nobody' has been recorded."),
    ("/?event=beta", "No event 'beta' has been recorded."),
    ("/?sort=users", "The parameter sort must be event, today, week, month or year, not 'users'."),
    ("/?page=0", "The parameter page must be a whole number from 1 to 10000, not '0'."),
    ("/?table=flags&format=json", "The parameter table must be events or days, not 'flags'."),
    ("/?complete=yes", "The parameter complete must be empty, 1 or events, not 'yes'."),
    ("/?arm=a", "There is no parameter 'arm': use format, event, where, joint, term, time,"),
    ("/?format=xml", "The parameter format must be html, json or csv, not 'xml'."),
    ("/?end=2026-11-24", f"The parameter end {DAY} '2026-11-24'."),
    # Retention
    ("/cohort?cohort=nobody", "No event 'nobody' has been recorded."),
    ("/cohort?returned=nobody", "No event 'nobody' has been recorded."),
    ("/cohort?by=fortnight", f"{BY} 'fortnight'."),
    ("/cohort?by=", f"{BY} ''."),
    ("/cohort?by=hour", f"{BY} 'hour'."),
    ("/cohort?rows=0", "The parameter rows must be a whole number from 1 to 92, not '0'."),
    ("/cohort?rows=93", "The parameter rows must be a whole number from 1 to 92, not '93'."),
    ("/cohort?periods=-1", "The parameter periods must be a whole number from 0 to 60, not '-1'."),
    ("/cohort?periods=0e3", "The parameter periods must be a whole number from 0 to 60"),
    ("/cohort?rows=" + "9" * 5000, "The parameter rows must be a whole number from 1 to 92"),
    ("/cohort?rows=%D9%A3", "The parameter rows must be a whole number from 1 to 92, not '٣'."),
    ("/cohort?rows=%2B3", "The parameter rows must be a whole number from 1 to 92, not '+3'."),
    ("/cohort?mode=never", "The parameter mode must be on, on_or_after, on_or_before, streak or"),
    ("/cohort?members=some", "The parameter members must be first or every, not 'some'."),
    (
        "/cohort?columns=3",
        "There is no parameter 'columns': use format, over, start, end, rows, by,",
    ),
    ("/cohort?end=0000-00-00", f"The parameter end {DAY} '0000-00-00'."),
    ("/cohort?end=2026-02-30", f"The parameter end {DAY} '2026-02-30'."),
    ("/cohort?end=1999-12-31", f"The parameter end {DAY} '1999-12-31'."),
    ("/cohort?end=2026-11-24", f"The parameter end {DAY} '2026-11-24'."),
    ("/cohort?end=2101-01-01", f"The parameter end {DAY} '2101-01-01'."),
    ("/cohort?end=9999-12-31", f"The parameter end {DAY} '9999-12-31'."),
    ("/cohort?end=20261123", f"The parameter end {DAY} '20261123'."),
    ("/cohort?end=2026-11-23T10", f"The parameter end {DAY} '2026-11-23T10'."),
    ("/cohort?end=tomorrow", f"The parameter end {DAY} 'tomorrow'."),
    # Trends
    ("/trends?event=nobody", "Event 1: nothing called nobody has been recorded"),
    ("/trends?" + "&".join(["event=flag:beta"] * 7), "At most 6 events can be shown."),
    ("/trends?by=fortnight", "The parameter by must be hour, day, week, month or year, not"),
    ("/trends?rolling=91", "The parameter rolling must be a whole number from 1 to 90, not '91'."),
    ("/trends?previous=1", "The parameter previous must be empty, yes or no, not '1'."),
    ("/trends?active=nobody", "No event 'nobody' has been recorded."),
    ("/people?of=trends&number=2", "The parameter number must be a whole number from 1 to 1, not"),
    ("/people?of=trends&at=2026-11-24T00:00:00", "up to today, 2026-11-23, not '2026-11-24T00:00"),
    ("/people?of=trends&at=2026-11-23T10", "up to today, 2026-11-23, not '2026-11-23T10'."),
    ("/people?of=trends&value=x", "There is no part 'x': the question has no breakdown."),
    (
        "/trends?breakdown=flag:beta&as_of=then",
        "The parameter as_of is then for the values of a dimension alone: break it down by one, ",
    ),
    # Ranges
    ("/cohort?over=soon", "The parameter over: 'soon' is no range of time: write it like 'last 30"),
    ("/cohort?over=soon", "'2026-01', '2026-01 to 2026-03' or 'since 2026-01'."),
    ("/cohort?over=last+0+days", "The parameter over: 'last' takes 2 to 36,600 days, not 0."),
    ("/cohort?over=ever", "'ever' has no beginning: say since when."),
    ("/cohort?over=2027", "The range '2027' has not begun."),
    ("/cohort?over=1998", "A range begins in 1800 or later, and ends in 2000 or later: not 1997-"),
    ("/cohort?by=day&over=last+12+months", "From 2025-12-01 to 2026-11-23 are more than 92 days,"),
    ("/funnel?start=2024-01-01", "are more than 366 days, the most of this page: take a shorter"),
    (
        "/funnel?start=2026-11-20&end=2026-11-10",
        "The end, 2026-11-10, is before the start, 2026-11-20.",
    ),
    ("/funnel?start=1799-12-31", "The parameter start must be a day such as 2026-11-23, from the"),
    ("/funnel?over=last+month&end=2026-11-10", "Choose a range in words, or a first and a last"),
    (
        "/funnel?over=last+month&rows=3",
        "Choose a range in words, or a first and a last day: nothing",
    ),
    ("/funnel?start=2026-11-10&rows=3", "Choose a range in words, or a first and a last day: noth"),
    # Funnel
    ("/funnel?step=nobody", "No event 'nobody' has been recorded."),
    ("/funnel?step=user:created&step=nobody", "No event 'nobody' has been recorded."),
    ("/funnel?" + "&".join(["step=user:created"] * 9), "A funnel has at most 8 steps."),
    ("/funnel?order=reverse", "The parameter order must be ordered, strict or any, not 'reverse'."),
    ("/funnel?within=366", "The parameter within must be a whole number from 0 to 365, not '366'."),
    ("/funnel?rows=367", "The parameter rows must be a whole number from 1 to 366, not '367'."),
    ("/funnel?number=1", "There is no parameter 'number': use format, over, start, end, rows, by,"),
    # Lifecycle
    ("/lifecycle?event=nobody", "No event 'nobody' has been recorded."),
    ("/lifecycle?rows=191", "The parameter rows must be a whole number from 1 to 190, not '191'."),
    ("/lifecycle?by=x", f"{BY} 'x'."),
    # Stickiness
    ("/stickiness?event=nobody", "No event 'nobody' has been recorded."),
    ("/stickiness?by=year", "The parameter by must be day, week or month, not 'year'."),
    (
        "/stickiness?within=400",
        "The parameter within must be empty, 7, 12, 28, week or month, not '400'.",
    ),
    ("/stickiness?within=month&over=today", "Choose a range in words, or a first and a last day:"),
    # Churn, adoption, overlap
    ("/churned?event=nobody", "No event 'nobody' has been recorded."),
    ("/churned?silent=0", "The parameter silent must be a whole number from 1 to 60, not '0'."),
    ("/churned?silent=61", "The parameter silent must be a whole number from 1 to 60, not '61'."),
    ("/churned?rows=121", "The parameter rows must be a whole number from 1 to 120, not '121'."),
    ("/churned?within=4", "There is no parameter 'within': use format, "),
    ("/adoption?feature=nobody", "No event 'nobody' has been recorded."),
    ("/adoption?active=beta", "No event 'beta' has been recorded."),
    ("/adoption?by=hour", f"{BY} 'hour'."),
    ("/adoption?rows=0", "The parameter rows must be a whole number from 1 to 120, not '0'."),
    ("/adoption?which=new", "There is no parameter 'which': use format, "),
    ("/overlap?event=nobody", "Event 1: nothing called nobody has been recorded"),
    ("/overlap?event=song:played&event=%26", "Event 2 cannot be read: see where it is marked."),
    ("/overlap?" + "&".join(["event=flag:beta"] * 9), "At most 8 events can be compared"),
    # Compare
    ("/compare?goal=nobody", "No event 'nobody' has been recorded."),
    ("/compare?" + "&".join(["arm=flag:beta"] * 7), "At most 6 arms can be compared."),
    ("/compare?rows=many", "The parameter rows must be a whole number from 1 to 366, not 'many'."),
    ("/compare?arm=" + "a" * 2001, "A segment has at most 2000 characters."),
    # People
    ("/people?of=index", "The parameter of must be people, trends, cohort, funnel, time_to_con"),
    ("/people?page=0", "The parameter page must be a whole number from 1 to 4000000, not '0'."),
    ("/people?rows=367", "The parameter rows must be a whole number from 1 to 366, not '367'."),
    ("/people?of=cohort&k=61", "The parameter k must be a whole number from 0 to 60, not '61'."),
    ("/people?of=cohort&at=x", "The parameter at must be a day such as 2026-11-23, from the year"),
    ("/people?of=cohort&at=1799-12-31", "from the year 1800 on and up to today"),
    ("/people?of=lifecycle&at=2026-11-24", "up to today, 2026-11-23, not '2026-11-24'."),
    ("/people?of=cohort&group=new", "There is no parameter 'group': use"),
    ("/people?of=funnel&number=4", "The parameter number must be a whole number from 1 to 3"),
    (
        "/people?of=funnel&which=no",
        "The parameter which must be reached, dropped or open, not 'no'.",
    ),
    (
        "/people?of=funnel&number=1&which=dropped",
        "The parameter number must be a whole number from 2 to 3",
    ),
    ("/people?of=lifecycle&group=lost", "The parameter group must be returning, resurrected, new"),
    ("/people?of=stickiness&k=367", "The parameter k must be a whole number from 1 to 366, not"),
    ("/people?of=stickiness&k=29", "K must be a whole number from 1 to 28, not 29"),
    ("/people?of=churned&active=1", "The parameter active must be empty, yes or no, not '1'."),
    ("/people?of=churned&at=2026-11-24", "up to today, 2026-11-23, not '2026-11-24'."),
    ("/people?of=adoption&which=all", "The parameter which must be active, users or new, not"),
    ("/people?of=overlap&one=4", "The parameter one must be a whole number from 1 to 3, not '4'."),
    ("/people?of=overlap&other=0", "The parameter other must be a whole number from 1 to 3, not"),
    ("/people?of=compare&number=3", "The parameter number must be a whole number from 1 to 2"),
    (
        "/people?of=compare&converted=1",
        "The parameter converted must be empty, yes or no, not '1'.",
    ),
    # A person
    ("/person", "The parameter id is missing: whose page should this be?"),
    ("/person?id=", "The parameter id is missing: whose page should this be?"),
    ("/person?id=None", "'None' identifies nobody: pass the id of a stored row"),
    ("/person?id=" + "x" * 513, "has 513 characters; 512 are allowed"),
    ("/person?id=" + "9" * 5000, "has 5000 characters; 512 are allowed"),
    ("/person?id=1&end=2026-11-24", f"The parameter end {DAY} '2026-11-24'."),
    ("/person?id=1&end=later", f"The parameter end {DAY} 'later'."),
    (
        "/person?id=1&where=a",
        "There is no parameter 'where': use format, over, start, end, rows, id, back.",
    ),
    # Every page that has segments
    *(
        (f"{page}?{query}", sentence)
        for page in PAGES[1:]
        for query, sentence in [
            ("where=" + "a" * 2001, "A segment has at most 2000 characters."),
            ("term=nobody", "No event or flag 'nobody' has been recorded."),
            ("term=user:created+%26+beta", "No event or flag 'user:created & beta' has been"),
            (
                "time=once&term=user:created",
                "The parameter time must be empty, did, first or was, not",
            ),
            ("joint=xor&term=user:created", "The parameter joint must be and, or or except, not"),
            ("end=2026-13-01", f"The parameter end {DAY} '2026-13-01'."),
            ("format=pdf", "The parameter format must be html, json or csv, not 'pdf'."),
            ("%3Cb%3E=1", "There is no parameter '<b>': use format, "),
        ]
    ),
]
BUILDERS = PAGES[1:]
#: What is no segment, and where it goes wrong.
UNREADABLE = {
    "user:created &": 14,
    "user:created && flag:beta": 14,
    "flag: & x": 5,
    '"open': 0,
    "(a | b": 6,
    "a b": 2,
}


def segment_of(page: Element) -> str:
    """The text in a page's segment builder."""
    return page.one("details", class_="segment").one("input", name="where").attributes["value"]


def conditions_of(page: Element) -> list[str]:
    """A segment's conditions, as the builder lists them."""
    listed = page.one("ul", class_="conditions").all("li")
    return [one.text.removesuffix(one.one("a").text).strip() for one in listed]


# What is absurd


def test_an_absurd_query_is_answered_with_a_sentence(recorded: None, browser: Browser) -> None:
    for address, sentence in ABSURD:
        if "format=json" not in address:
            assert sentence in "\n".join(error_of(browser.open(address, 400))), address


def test_an_absurd_query_is_answered_in_the_form_that_was_asked_for(
    recorded: None, client: FlaskClient
) -> None:
    for address, sentence in ABSURD:
        if "format=" not in address.replace("format=json", ""):
            told = (
                "" if "format=" in address else "&format=json" if "?" in address else "?format=json"
            )
            as_json = client.get(f"/bitmapist{address}{told}")
            assert (as_json.status_code, as_json.mimetype) == (400, "application/json"), address
            assert [*as_json.get_json()] == ["error"]
            assert sentence in as_json.get_json()["error"]
            as_text = client.get(f"/bitmapist{address}{told}".replace("format=json", "format=csv"))
            assert (as_text.status_code, as_text.mimetype) == (400, "text/plain"), address
            assert as_text.text == as_json.get_json()["error"]


@pytest.mark.parametrize("page", BUILDERS)
def test_an_invalid_segment_is_an_error_in_figures_too(
    recorded: None, client: FlaskClient, page: str
) -> None:
    answer = client.get(f"/bitmapist{page}?where=a+%26%26+b&format=json")
    assert answer.status_code == 400
    assert answer.json == {"error": "The segment cannot be read: see where it is marked."}


def test_an_unknown_event_is_refused_even_before_the_first_mark(client: FlaskClient) -> None:
    assert client.get("/bitmapist/cohort?cohort=a&returned=b").status_code == 400


@pytest.mark.parametrize(
    "address",
    [
        "/cohort?by=year&rows=60&periods=59&end={}",
        "/cohort?by=month&rows=60&periods=59&end={}&members=every&mode=streak",
        "/funnel?by=year&rows=366&within=9&end={}",
        "/lifecycle?by=year&rows=120&end={}",
        "/lifecycle?by=month&rows=120&end={}",
        "/stickiness?by=month&within=28&end={}",
        "/stickiness?within=month&end={}",
        "/compare?by=year&rows=366&end={}",
        "/people?by=year&rows=366&end={}",
        "/person?id=1&end={}",
    ],
)
@pytest.mark.parametrize("end", ["2000-01-01", "2026-11-23"])
def test_the_longest_report_of_the_first_and_of_the_last_year_is_answered(
    recorded: None, browser: Browser, address: str, end: str
) -> None:
    page = browser.open(address.format(end))
    links = [link.attributes["href"] for link in page.one("main").all("a")]
    behind = [link for link in links if "format=" not in link]
    for link in {*behind[:1], *behind[-1:]}:
        browser.open(link)


@pytest.mark.parametrize("address", ["/cohort?rows=&periods=&end=", "/people?rows=&end=&where="])
def test_what_a_form_leaves_empty_is_as_usual(
    recorded: None, browser: Browser, address: str
) -> None:
    page = address.partition("?")[0]
    assert asked(browser.open(address)) == asked(browser.open(page))


def test_of_a_repeated_parameter_the_first_counts(recorded: None, browser: Browser) -> None:
    page = browser.open("/lifecycle?by=month&by=nonsense&rows=3&rows=0")
    assert (asked(page)["by"], asked(page)["over"]) == (["month"], ["last 3 months"])


# The segment builder


@pytest.mark.parametrize("page", BUILDERS)
def test_a_condition_is_added_in_the_way_that_was_chosen(
    recorded: None, browser: Browser, page: str
) -> None:
    for joint, sign in (("and", "&"), ("or", "|"), ("except", "-")):
        shown = browser.open(page, where="user:created", joint=joint, term="flag:beta")
        assert segment_of(shown) == f"user:created {sign} flag:beta"
        assert conditions_of(shown) == ["user:created", f"{joint} flag:beta"]


@pytest.mark.parametrize("page", BUILDERS)
def test_a_condition_may_have_a_time_of_its_own(
    recorded: None, browser: Browser, page: str
) -> None:
    for time, when, joint, condition in (
        ("did", "Last 14 DAYS", "and", "did(song:played, last 14 days)"),
        ("did", "", "except", "did(song:played, last 30 days)"),
        ("first", "2026-10", "or", "first(song:played, 2026-10)"),
        ("did", "2 days of ever", "and", "did(song:played, at least 2 days of ever)"),
    ):
        shown = browser.open(
            page, where="user:created", joint=joint, term="song:played", time=time, when=when
        )
        assert conditions_of(shown) == ["user:created", f"{joint} {condition}"]
        assert "the same people in every period" in shown.text


def test_the_first_condition_takes_the_place_of_what_nobody_chose(
    recorded: None, browser: Browser
) -> None:
    page = browser.open("/people")
    assert segment_of(page) == ""
    assert "until you choose another" in page.text
    for joint in ("and", "except"):
        shown = browser.open("/people", where="", joint=joint, term="flag:beta")
        assert conditions_of(shown) == ["flag:beta"]


def test_what_is_wrong_with_a_time_is_marked_in_the_text(recorded: None, browser: Browser) -> None:
    for where, text in (("", ""), ("user:created", "user:created & ")):
        shown = browser.open(
            "/lifecycle", 400, where=where, term="song:played", time="did", when="last 14 dayz"
        )
        assert segment_of(shown) == f"{text}did(song:played, last 14 dayz)"
        assert "'dayz' is no unit of time" in shown.one("pre", class_="error").raw


def test_a_flag_has_no_time_of_its_own(recorded: None, browser: Browser) -> None:
    shown = browser.open("/lifecycle", 400, term="flag:beta", time="did", when="ever")
    assert "flag:beta has no date: take it as it is now" in error_of(shown)[0]


def test_every_event_can_be_added_in_a_time_of_its_own(recorded: None, browser: Browser) -> None:
    for name in ('a "quoted" name', "a,b", "flag:x", "did(x)", "not", ","):
        mark_event(name, 1)
        term = str(Event(name))
        shown = browser.open("/lifecycle", rows=1, term=term, time="did", when="ever")
        assert parse(segment_of(shown)) == Did(name, "ever")


@pytest.mark.parametrize("page", BUILDERS)
def test_the_first_condition_needs_no_joint(recorded: None, browser: Browser, page: str) -> None:
    if page == "/people":
        page = "/people?where=user:logged_in"
    shown = browser.open(f"{page}{'&' if '?' in page else '?'}term=flag:beta")
    assert segment_of(shown).endswith("flag:beta")


def test_a_condition_is_added_to_the_whole_segment(recorded: None, browser: Browser) -> None:
    shown = browser.open(
        "/lifecycle", where="user:created | song:played", joint="and", term="flag:beta"
    )
    assert segment_of(shown) == "(user:created | song:played) & flag:beta"
    assert conditions_of(shown) == ["user:created", "or song:played", "and flag:beta"]


@pytest.mark.parametrize("page", BUILDERS)
def test_a_condition_is_removed_by_its_link(recorded: None, browser: Browser, page: str) -> None:
    where = "user:created & (flag:beta | song:played) - flag:user:premium"
    rests = []
    for n in range(2):
        shown = browser.open(page, where=where)
        before = asked(shown)
        ul = shown.one("ul", class_="conditions")
        shown = browser.open(ul.all("li")[n].one("a").attributes["href"])
        rests.append(segment_of(shown))
        assert {**asked(shown), "where": ""} == {**before, "where": ""}
    assert rests == ["(flag:beta | song:played) - flag:user:premium", "user:created"]


@pytest.mark.parametrize("page", BUILDERS[:-1])
def test_without_its_last_condition_a_segment_is_everyone(
    recorded: None, browser: Browser, page: str
) -> None:
    shown = browser.open(page, where="flag:beta")
    ul = shown.one("ul", class_="conditions")
    shown = browser.open(ul.one("a").attributes["href"])
    assert segment_of(shown) == ""
    assert shown.one("details", class_="segment").one("summary").text == "of everyone"


def test_every_event_and_flag_can_be_added_whatever_its_name(
    recorded: None, browser: Browser
) -> None:
    names = ['a "quoted" name', "a & b", "flag:x", "-", "back\\slash", "(x)", "<b>", "x|y"]
    for name in names:
        mark_event(name, 1)
        mark_unique(name, 1)
    for term in (str(kind(name)) for name in names for kind in (Event, Flag)):
        shown = browser.open("/lifecycle", rows=1, where="user:created", joint="or", term=term)
        assert conditions_of(shown) == ["user:created", f"or {' '.join(term.split())}"]
        again = browser.open("/lifecycle", rows=1, where=segment_of(shown))
        assert parse(segment_of(again)) == parse("user:created") | parse(term)


def test_the_builder_offers_every_event_and_flag(recorded: None, browser: Browser) -> None:
    (select,) = (one for one in browser.open("/funnel").all("select", name="term"))
    offered = [option.attributes["value"] for option in select.all("option")]
    assert offered == [
        "",
        "song:played",
        "user:created",
        "user:logged_in",
        "flag:beta",
        "flag:user:premium",
    ]


@pytest.mark.parametrize("page", BUILDERS)
def test_an_error_in_a_segment_is_marked_under_the_character(
    recorded: None, browser: Browser, page: str
) -> None:
    for text, position in UNREADABLE.items():
        shown = browser.open(page, 400, where=text)
        field = shown.one("details", class_="segment").one("input", name="where")
        assert field.attributes["value"] == text
        assert field.attributes["aria-invalid"] == "true"
        told = shown.one("pre", id=field.attributes["aria-describedby"])
        _, line, caret, said = told.raw.splitlines()
        assert line.strip() == text
        assert said == f"at character {position + 1}"
        assert caret.index("^") - line.index(text) == position
        assert not shown.all("table")


def test_an_error_in_an_arm_is_marked_at_that_arm(recorded: None, browser: Browser) -> None:
    shown = browser.open("/compare", 400, arm=["flag:beta", "flag:beta &", "(", "song:played"])
    arms = shown.all("ol", class_="steps")[0].all("li")
    fields = [arm.one("input", name="arm").attributes for arm in arms]
    assert [field["value"] for field in fields[:4]] == [
        "flag:beta",
        "flag:beta &",
        "(",
        "song:played",
    ]
    assert [field.get("aria-invalid") for field in fields] == [None, "true", "true", None, None]
    for arm, field in zip(arms[1:3], fields[1:3], strict=True):
        told = arm.one("pre", id=field["aria-describedby"])
        assert told.raw.splitlines()[1].strip() == field["value"]


def test_errors_in_arms_and_segment_are_told_apart(recorded: None, browser: Browser) -> None:
    shown = browser.open("/compare", 400, arm=["(", ")"], where="|")
    ids = [one.attributes["id"] for one in shown if "id" in one.attributes]
    assert len(ids) == len({*ids})
    assert len(shown.all("pre", class_="error")) == 3


def test_a_term_added_to_an_invalid_segment_leaves_the_error(
    recorded: None, browser: Browser
) -> None:
    shown = browser.open("/lifecycle", 400, where="user:created &", term="flag:beta")
    assert segment_of(shown) == "user:created &"


@pytest.mark.parametrize("page", BUILDERS)
def test_sets_of_different_kinds_of_ids_are_a_sentence_on_the_page(
    recorded: None, browser: Browser, page: str
) -> None:
    mark_event("visitor:seen", "a-visitor")
    shown = browser.open(page, 400, where="visitor:seen & user:logged_in")
    assert "Sets of different kinds of ids do not combine" in error_of(shown)[0]


@pytest.mark.parametrize("text", ["x" * 201, '"' + "y" * 201 + '"', "bitop_x", '" x"'])
def test_an_invalid_name_is_an_error_at_its_place(
    recorded: None, browser: Browser, text: str
) -> None:
    shown = browser.open(f"/lifecycle?where=user:created+%26+{quote(text)}", 400)
    assert "cannot name an event" in shown.one("pre", class_="error").raw


def test_a_segment_of_too_many_names_is_an_error_at_its_end(
    recorded: None, browser: Browser
) -> None:
    shown = browser.open("/lifecycle", 400, where=" | ".join("a" * 101))
    assert "a text has at most 100 names" in shown.one("pre", class_="error").raw


@pytest.mark.parametrize(
    "query",
    [
        {"by": "year", "rows": 120},
        {"by": "year", "rows": 42, "joint": "or", "term": "song:played"},
    ],
)
@pytest.mark.parametrize("page", ["/funnel", "/lifecycle", "/compare", "/people"])
def test_a_question_that_would_keep_the_server_busy_is_refused_with_a_sentence(
    recorded: None, browser: Browser, page: str, query: dict[str, object]
) -> None:
    shown = browser.open(page, 400, where=" | ".join(["song:played"] * 99), **query)
    assert "more than 50,000: take fewer periods, or fewer names." in error_of(shown)[0]


def test_long_segments_of_several_arms_are_counted_together(
    recorded: None, browser: Browser
) -> None:
    names = [[f"arm{k}.{i}" for i in range(100)] for k in range(6)]
    record(*chain.from_iterable(names))
    arms = [" | ".join(part) for part in names]
    browser.open("/compare", rows=1, arm=arms)
    assert "54,000 bitmaps" in error_of(browser.open("/compare", 400, rows=90, arm=arms))[0]


def test_a_range_of_time_is_read_once_whatever_the_number_of_periods(
    recorded: None, browser: Browser
) -> None:
    arm = " | ".join(["did(song:played, at least 2 days of last 990 days)"] * 20)
    browser.open("/compare", rows=90, arm=[arm, arm])
    error = error_of(browser.open("/compare", 400, rows=90, arm=[arm, arm, arm]))[0]
    assert "64,800 bitmaps" in error  # 60 times 990, and once more for each of 90 days


def test_a_range_of_too_many_periods_is_refused_with_a_sentence(
    recorded: None, browser: Browser
) -> None:
    where = "did(song:played, at least 2 hours of 2026)"
    for page in ("/lifecycle", "/people", "/cohort"):
        error = error_of(browser.open(page, 400, where=where))[0]
        assert "has more than 1000 hours: shorten it" in error


STEPS = "rows=366&within=365&" + "&".join(["step=far", "step=user:logged_in"] * 4)
SLOW = [
    f"/funnel?{STEPS}",
    f"/people?of=funnel&number=8&{STEPS}",
    "/cohort?cohort=far&returned=far&by=day&members=every&rows=60&periods=59",
    "/?complete=1&event=far",
    "/person?id=7",
]


@pytest.mark.parametrize("form", ["html", "json"])
@pytest.mark.parametrize("address", SLOW)
def test_a_question_that_takes_too_long_ends_with_a_sentence(
    recorded: None,
    client: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    form: str,
) -> None:
    """One id near the limit makes its bitmaps 130 times as long as a million users do."""
    monkeypatch.setattr("flask_bitmapist.dashboard.page._LONGEST_WAIT", 0)
    mark_event("far", 2**27 - 1, now=NOW)
    answer = client.get(f"/bitmapist{address}&format={form}")
    assert answer.status_code == 400
    assert "This report takes longer than 0 seconds: ask for fewer periods" in answer.text


def test_of_events_that_take_too_long_to_count_the_quick_figures_are_shown(
    recorded: None, browser: Browser, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_bitmapist.dashboard.page._LONGEST_WAIT", 0)
    mark_event("far", 2**27 - 1, now=NOW)
    for sort in ("event", "year"):
        page = browser.open("/", 400, complete=1, sort=sort)
        assert "takes longer than 0 seconds" in error_of(page)[0]
        rows = page.one("div", id="events").one("table").rows[1:]
        assert [cells[2:] for cells in rows if cells[0] == "far"] == [["1", "1", "1", "…"]]
    figures = client.get("/bitmapist/?format=json")
    assert (figures.status_code, [*figures.get_json()]) == (400, ["error"])


def record(*events: str) -> None:
    """Somebody does each of `events`."""
    current_tracker().record(Mark(event, 1, when=NOW) for event in events)


NAMES = [f"event:number:{n:05}" for n in range(100)]


@pytest.mark.parametrize("page", BUILDERS)
def test_a_segment_that_is_too_long_as_it_is_spelt_in_links_is_refused(
    recorded: None, browser: Browser, page: str
) -> None:
    compact = "|".join(NAMES)
    assert len(compact) < 2_000 < len(" | ".join(NAMES))
    assert "at most 2000 characters" in error_of(browser.open(page, 400, where=compact))[0]


def test_a_segment_that_is_too_long_with_the_event_is_refused_on_the_overview(
    recorded: None, browser: Browser
) -> None:
    record("a", *NAMES)
    for names in (NAMES[:95], "a" * 100):
        shown = browser.open("/", 400, complete=1, where=" | ".join(names))
        assert "too long to combine with the event" in error_of(shown)[0]
    browser.open("/", complete=1, where=" | ".join(NAMES[:80]))


def test_one_condition_too_many_is_an_error_too(recorded: None, browser: Browser) -> None:
    record("a")
    shown = browser.open(
        "/lifecycle", 400, where=" | ".join("a" * 100), joint="or", term="flag:beta"
    )
    assert "a text has at most 100 names" in shown.one("pre", class_="error").raw


# Names that were never marked


TYPO = "user:logged_inn"
ASKED = [
    f"/cohort?cohort={TYPO}",
    f"/funnel?step=user:created&step={TYPO}",
    f"/lifecycle?event={TYPO}",
    f"/lifecycle?where={TYPO}",
    f"/people?where=song:played - {TYPO}",
    f"/stickiness?where=song:played | {TYPO}",
    f"/compare?goal=song:played&arm=user:created&arm={TYPO} %26 user:created",
    f"/?complete=1&table=days&where={TYPO}",
]


@pytest.mark.parametrize("form", ["html", "json"])
@pytest.mark.parametrize("address", ASKED)
def test_a_name_never_marked_is_an_error_with_the_nearest_names(
    recorded: None, client: FlaskClient, address: str, form: str
) -> None:
    answer = client.get(f"/bitmapist{address}&format={form}")
    assert answer.status_code == 400
    told = unescape(answer.text).lower()
    assert "recorded" in told
    assert "did you mean user:logged_in" in told


def test_a_flag_is_no_event(recorded: None, browser: Browser) -> None:
    shown = browser.open("/lifecycle", 400, where="song:played & user:premium")
    assert shown.one("pre", class_="error").raw.splitlines()[:3] == [
        "nothing called user:premium has been recorded; did you mean flag:user:premium?",
        "    song:played & user:premium",
        "                  ^",
    ]
