"""What each page shows: the figures of its report, in a table, as JSON and as CSV."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_bitmapist import (
    FlaskBitmapist,
    analytics,
    mark_dimension,
    mark_event,
    mark_unique,
    unmark_unique,
)
from flask_bitmapist.analytics import active_users, overview, people
from flask_bitmapist.dashboard.drawing import more, points_more
from flask_bitmapist.marks import Mark
from flask_bitmapist.questions.lifecycle import Group
from flask_bitmapist.reading.segments import Event, Flag, parse
from flask_bitmapist.tracker import Tracker

from .conftest import FLAGS, NOW, PAGES, Browser, mark_log
from .reading import Element, asked

TODAY = NOW.date()


def back(days: int) -> date:
    return TODAY - timedelta(days=days)


def percent(rate: float | None) -> str:
    return "" if rate is None else f"{100 * rate:.1f}"


def table_of(page: Element, caption: str) -> list[list[str]]:
    """The rows of the table whose caption begins with `caption`, without its header."""
    (table,) = (
        one
        for one in page.all("table")
        for told in one.all("caption")
        if told.raw.startswith(caption)
    )
    return table.rows[1:]


#: An address of each page, and the report that it shows.
REPORTS: dict[str, Callable[[], Any]] = {
    "/": overview,
    "/?find=song&sort=today&page=2": overview,
    "/trends": lambda: analytics.trends(["user:logged_in"], over="last 28 days"),
    "/trends?event=song:played&event=flag:beta+%26+user:created&by=hour&over=yesterday": lambda: (
        analytics.trends(["song:played", "flag:beta & user:created"], "hour", over="yesterday")
    ),
    "/trends?event=song:played&by=week&start=2026-10-05&end=2026-11-01&previous=yes&rolling=2"
    "&active=user:logged_in&where=flag:beta": lambda: analytics.trends(
        ["song:played"],
        "week",
        date(2026, 10, 5),
        date(2026, 11, 1),
        Flag("beta"),
        rolling=2,
        previous=True,
        active="user:logged_in",
    ),
    "/cohort": lambda: analytics.retention(
        "user:created", "user:logged_in", "week", 11, start=back(77)
    ),
    "/cohort?cohort=song:played&returned=user:created&by=day&rows=3&periods=1&end=2026-11-20"
    "&mode=streak&members=every&where=flag:beta": lambda: analytics.retention(
        "song:played",
        "user:created",
        "day",
        1,
        back(5),
        back(3),
        mode="streak",
        members="every",
        where=Flag("beta"),
    ),
    "/funnel": lambda: analytics.funnel(
        ["user:created", "user:logged_in", "song:played"], "day", back(29)
    ),
    "/funnel?step=user:created&step=song:played&by=week&rows=6&within=2&order=strict"
    "&end=2026-11-15&where=flag:beta": lambda: analytics.funnel(
        ["user:created", "song:played"],
        "week",
        back(49),
        back(8),
        2,
        "strict",
        Flag("beta"),
    ),
    "/time-to-convert": lambda: analytics.time_to_convert(
        ["user:created", "user:logged_in", "song:played"], "day", back(29)
    ),
    "/time-to-convert?step=user:created&step=song:played&by=week&rows=6&within=2&order=strict"
    "&end=2026-11-15&where=flag:beta": lambda: analytics.time_to_convert(
        ["user:created", "song:played"], "week", back(49), back(8), 2, "strict", Flag("beta")
    ),
    "/conversion": lambda: analytics.conversion(
        ["user:created", "user:logged_in", "song:played"], 7, "day", back(29)
    ),
    "/conversion?step=user:created&step=song:played&by=week&rows=6&within=2&order=strict"
    "&end=2026-11-15&where=flag:beta": lambda: analytics.conversion(
        ["user:created", "song:played"], 2, "week", back(49), back(8), "strict", Flag("beta")
    ),
    "/lifecycle": lambda: analytics.lifecycle("user:logged_in", "week", back(25 * 7)),
    "/lifecycle?event=song:played&by=day&rows=9&end=2026-11-22&where=flag:beta": (
        lambda: analytics.lifecycle("song:played", "day", back(9), back(1), Flag("beta"))
    ),
    "/stickiness": lambda: analytics.stickiness("user:logged_in"),
    "/stickiness?event=song:played&by=week&within=7&end=2026-11-22&where=flag:beta": (
        lambda: analytics.stickiness("song:played", "week", 7, back(1), Flag("beta"))
    ),
    "/churned": lambda: analytics.churned("user:logged_in", 4, "week", start=back(175)),
    "/churned?event=song:played&by=day&rows=9&silent=2&end=2026-11-20&where=flag:beta": (
        lambda: analytics.churned("song:played", 2, "day", back(11), back(3), Flag("beta"))
    ),
    "/adoption": lambda: analytics.adoption("song:played", "user:logged_in", "week", back(77)),
    "/adoption?feature=user:logged_in&active=user:created&by=month&rows=2&end=2026-10-31"
    "&where=flag:beta": lambda: analytics.adoption(
        "user:logged_in", "user:created", "month", back(80), back(23), Flag("beta")
    ),
    "/overlap": lambda: analytics.overlap(
        ["song:played", "user:created", "user:logged_in"], "month"
    ),
    "/overlap?event=user:created&event=song:played+-+flag:beta&by=week&end=2026-10-31"
    "&where=user:logged_in": lambda: analytics.overlap(
        ["user:created", "song:played - flag:beta"], "week", back(23), "user:logged_in"
    ),
    "/compare": lambda: analytics.compare(
        ["user:logged_in - flag:beta", "user:logged_in & flag:beta"], "song:played", back(29)
    ),
    "/compare?arm=user:created&arm=flag:beta&goal=user:logged_in&by=week&rows=7"
    "&end=2026-11-22&where=flag:user:premium": lambda: analytics.compare(
        ["user:created", "flag:beta"],
        "user:logged_in",
        back(49),
        back(1),
        "week",
        Flag("user:premium"),
    ),
    "/people": lambda: people("user:logged_in", limit=1000),
    "/people?where=flag:beta&by=week&rows=3&end=2026-11-10": lambda: people(
        "flag:beta", "week", back(13), rolling=3, limit=1000
    ),
    "/people?of=lifecycle&rows=3&at=2026-11-16&group=dormant": lambda: analytics.lifecycle_people(
        "user:logged_in", "dormant", "week", back(7), limit=1000
    ),
    "/person?id=1": lambda: analytics.profile(1, back(364), TODAY),
    "/person?id=1&end=2026-10-20": lambda: analytics.profile(1, back(364 + 34), back(34)),
}


@pytest.mark.parametrize("address", REPORTS)
def test_as_json_a_page_is_the_dict_of_its_report(
    recorded: None, client: FlaskClient, address: str
) -> None:
    sign = "&" if "?" in address else "?"
    answer = client.get(f"/bitmapist{address}{sign}format=json")
    assert answer.status_code == 200
    assert answer.mimetype == "application/json"
    assert answer.json == json.loads(json.dumps(REPORTS[address]().to_dict()))


def _shown_as_csv(address: str, text: str) -> str:
    """The table of a report, without what else is told of people."""
    if not address.startswith("/people"):
        return text
    return "".join(f"{line.partition(',')[0]}\r\n" for line in text.splitlines())


@pytest.mark.parametrize("address", REPORTS)
def test_as_csv_a_page_is_the_table_of_its_report(
    recorded: None, client: FlaskClient, address: str
) -> None:
    sign = "&" if "?" in address else "?"
    answer = client.get(f"/bitmapist{address}{sign}format=csv")
    assert answer.status_code == 200
    assert answer.mimetype == "text/csv"
    assert _shown_as_csv(address, answer.text) == REPORTS[address]().to_csv()


@pytest.mark.parametrize("address", [a for a in REPORTS if not a.startswith("/person")])
def test_a_page_links_to_itself_as_json_and_csv(
    recorded: None, browser: Browser, address: str
) -> None:
    page = browser.open(address)
    (formats,) = page.all("span", class_="formats")
    told = {link.text: link.attributes["href"] for link in formats.all("a")}
    assert [*told] == ["CSV", "JSON"]
    report = REPORTS[address]()
    assert _shown_as_csv(address, browser.client.get(told["CSV"]).text) == report.to_csv()
    assert browser.client.get(told["JSON"]).json == json.loads(json.dumps(report.to_dict()))


def test_a_download_has_all_people_with_what_the_application_calls_them(
    app: Flask, at_now: None, browser: Browser
) -> None:
    mark_event("song:played", [f"user-{n}" for n in range(12_345)])
    address = next(a for a in browser.open("/people").all("a") if a.text == "CSV").attributes
    lines = browser.client.get(address["href"]).text.splitlines()
    assert lines == ["id", *(f"user-{n}" for n in range(12_345))]

    app.extensions["bitmapist"].user_link(lambda id_: id_.upper())
    lines = browser.client.get(address["href"]).text.splitlines()
    assert lines == ["id,label", *(f"user-{n},USER-{n}" for n in range(12_345))]


def test_a_download_has_the_columns_of_the_page(app: Flask, at_now: None, browser: Browser) -> None:
    mark_event("user:seen", [1, 2], now=NOW - timedelta(days=40))
    mark_event("user:seen", [1, *range(4, 3_000)], now=NOW)
    mark_event("song:played", [*range(1, 3_000)])
    mark_unique("beta", [1, 3])
    mark_unique("gone", 3)
    mark_dimension("user:plan", [1, 2_999], "pro")
    app.extensions["bitmapist"].user_link(lambda id_: f"Nr {id_}")
    page = browser.open("/people?where=song:played")
    address = next(a for a in page.all("a") if a.text == "CSV").attributes["href"]
    lines = browser.client.get(address).text.splitlines()
    assert lines[:5] == [
        "id,label,last_seen,user:plan,flags",
        "1,Nr 1,2026-11-23,pro,beta",
        "2,Nr 2,2026-10-14,,",
        "3,Nr 3,,,beta gone",
        "4,Nr 4,2026-11-23,,",
    ]
    assert (len(lines), lines[-1]) == (3_000, "2999,Nr 2999,2026-11-23,pro,")


def test_the_download_of_a_long_list_tells_who_they_are_alone(
    at_now: None, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_bitmapist.dashboard.people._MOST_KNOWN", 2)
    mark_event("user:seen", [1, 2])
    assert client.get("/bitmapist/people?format=csv").text.split()[0] == "id,last_seen"
    mark_event("user:seen", 3)
    assert client.get("/bitmapist/people?format=csv").text.split() == ["id", "1", "2", "3"]


def test_the_download_of_a_later_page_of_people_begins_with_the_first(
    at_now: None, browser: Browser
) -> None:
    mark_event("song:played", list(range(120)))
    page = browser.open("/people?page=3")
    (address,) = (a.attributes["href"] for a in page.all("a") if a.text == "CSV")
    assert browser.client.get(address).text == people("song:played", limit=1000).to_csv()


def test_the_retention_page_shows_who_came_back(recorded: None, browser: Browser) -> None:
    page = browser.open("/cohort?rows=6&periods=5&members=every")
    report = analytics.retention(
        "user:created", "user:logged_in", "week", 5, back(35), members="every"
    )
    rows = table_of(page, "Percentage")
    assert rows[0] == ["Average", "", *(percent(a.rate) for a in report.average)]
    for shown, row in zip(rows[1:], report.rows, strict=True):
        start = row.period_start
        cells = [f"{percent(c.rate)} {c.users}" if c.rate is not None else "" for c in row.cells]
        assert shown == [f"{start.day} {start:%b}", str(row.size), *cells]
    assert rows[1][:4] == ["19 Oct", "4", "75.0 3", "50.0 2"]


def test_the_retention_page_marks_open_cells_and_leaves_later_ones_blank(
    recorded: None, browser: Browser
) -> None:
    page = browser.open("/cohort?rows=3&periods=3")
    rows = page.one("table", class_="heat").all("tr")[2:]
    states = [
        ["open" if "open" in cell.classes else cell.raw.strip() for cell in row.all("td")[1:]]
        for row in rows
    ]
    assert states[0][2] == "open"
    assert states[1] == ["nobody in the cohort"] * 2 + ["not yet"]
    assert states[2] == ["open"] + ["not yet"] * 2
    assert "From +3 on, all is still to come." in page.one("main").text
    wider = browser.open("/cohort?rows=3&periods=3&previous=yes").one("table", class_="heat")
    assert {len(row.all("td")) for row in wider.all("tr")[1:]} == {1 + 4}, "those before have it"


def test_the_retention_page_tells_each_cell_in_full(recorded: None, browser: Browser) -> None:
    page = browser.open("/cohort?rows=6&periods=5")
    row = analytics.retention("user:created", "user:logged_in", "week", 5, back(35)).rows[0]
    tips = [tip.raw for tip in page.one("table", class_="heat").all("span", class_="tip")]
    for k, cell in enumerate(row.cells):
        low, high = percent(cell.low), percent(cell.high)
        told = f"{cell.users} of {row.size} ({percent(cell.rate)} %, 95 % {low}\N{EN DASH}{high})"
        still_open = ", still open" if cell.state == "open" else ""
        assert f"{told}, week of 19 Oct 2026 + {k}{still_open}" in tips


def test_the_curve_of_retention_is_the_average(recorded: None, browser: Browser) -> None:
    page = browser.open("/cohort?rows=6&periods=5")
    report = analytics.retention("user:created", "user:logged_in", "week", 5, back(35))
    known = [average for average in report.average if average.rate is not None]
    assert page.one("table", id="curve-figures").rows[1:] == [
        [f"+{k}", percent(a.rate), percent(a.low), percent(a.high)] for k, a in enumerate(known)
    ]


@pytest.mark.parametrize("address", PAGES)
def test_how_segments_are_written_stands_once_in_a_form(
    recorded: None, browser: Browser, address: str
) -> None:
    (form,) = (one for one in browser.open(address).all("form", class_="ask") if one.all("summary"))
    assert [title.text for title in form.all("summary")].count("How segments are written") == 1
    assert form.raw.count("a but not b") == 1


def test_retention_begins_with_a_sentence_and_the_curve(recorded: None, browser: Browser) -> None:
    page = browser.open("/cohort?rows=4&periods=2&previous=yes")
    did = ("user:created", "user:logged_in")
    report = analytics.retention(*did, "week", 2, back(21), previous=True)
    before = analytics.retention(*did, "week", 2, back(49), back(28))
    change = report.change(1)
    assert change
    titles = [title.text for title in page.all("h2")]
    assert titles == [
        f"{percent(report.average[1].rate)} % came back 1 week later, "
        f"{points_more(change)} in the 4 weeks before",
        "Week by week, %",
    ]
    shown = [row[-1] for row in page.one("table", id="curve-figures").rows[1:]]
    rates = [percent(average.rate) for average in before.average]
    assert shown == rates[: len(shown)]
    heat = page.one("table", class_="heat").rows
    assert heat[2][:2] == ["Before", str(before.size)]
    (link,) = page.one("section", **{"aria-labelledby": "curve-title"}).one("p").all("a")
    alone = browser.open(link.attributes["href"])
    assert alone.one("h2", id="curve-title").text == f"{rates[1]} % came back 1 week later"


def test_the_lifecycle_page_tells_the_means_beside_those_before(
    recorded: None, browser: Browser
) -> None:
    page = browser.open("/lifecycle?rows=3&previous=yes")
    report = analytics.lifecycle("user:logged_in", "week", back(14), previous=True)
    names: dict[Group, str] = {"returning": "", "resurrected": "", "new": ""}
    names["dormant"] = "gone quiet"
    assert [line.text for line in page.one("ul", class_="totals").all("li")] == [
        f"{name or group} {report.average[group]:.1f} a week, "
        f"{more(report.average[group], report.previous_average[group])} in the 3 weeks before"
        for group, name in names.items()
    ]


def test_the_funnel_page_shows_the_steps(recorded: None, browser: Browser) -> None:
    steps = ["user:created", "user:logged_in", "song:played"]
    page = browser.open("/funnel", rows=40, step=steps)
    report = analytics.funnel(steps, "day", back(39))
    counted = [step.users for step in report.steps]
    assert counted == [11, 8, 5]
    assert table_of(page, "The steps") == [
        [
            f"{i + 1} {step.event}",
            "",
            str(step.users),
            percent(step.from_first),
            percent(step.from_previous),
            str(step.users - counted[i + 1]) if i < 2 else "",
        ]
        for i, step in enumerate(report.steps)
    ]
    assert page.one("h2", id="steps-title").text == "11 began, 5 finished: 45.5 %"


def test_the_funnel_page_has_the_range_before_beside_it(recorded: None, browser: Browser) -> None:
    steps = ["user:created", "song:played"]
    page = browser.open("/funnel", step=steps, start="2026-11-02", end="2026-11-22", previous="yes")
    before = analytics.funnel(steps, "day", date(2026, 10, 12), date(2026, 11, 1))
    assert before.steps[1].users
    assert [row[-2:] for row in table_of(page, "The steps")] == [
        [str(step.users), percent(step.from_first)] for step in before.steps
    ]
    after = analytics.funnel(steps, "day", date(2026, 11, 2), date(2026, 11, 22))
    change = (after.steps[1].from_first or 0) - (before.steps[1].from_first or 0)
    assert page.one("h2", id="steps-title").text.endswith(
        f" %, {points_more(change)} in the 21 days before"
    )
    pairs = page.all("svg", class_="pair")
    assert [[rect.attributes["width"] for rect in pair.all("rect")[1:]] for pair in pairs] == [
        [f"{round(100 * (one.from_first or 0), 2)}%" for one in both]
        for both in zip(after.steps, before.steps, strict=True)
    ]
    told = page.one("p", id="before")
    assert told.text.startswith("Before, 12 Oct to 1 Nov 2026")
    (link,) = told.all("a")
    alone = browser.open(link.attributes["href"])
    assert [row[2] for row in table_of(alone, "The steps")] == [
        str(step.users) for step in before.steps
    ]


def test_the_funnel_page_tells_who_has_time_left_from_who_is_lost(
    recorded: None, browser: Browser
) -> None:
    steps = ["user:created", "song:played"]
    page = browser.open("/funnel", rows=40, within=20, step=steps)
    report = analytics.funnel(steps, "day", back(39), within=20)
    played = report.steps[1]
    assert played.open
    assert report.lost[0]
    first, second = table_of(page, "The steps")
    assert first[2:] == ["11", "100.0", "", "", str(report.lost[0])]
    rates = [percent(played.from_first), percent(played.from_previous)]
    assert second[2:] == [str(played.users), *rates, str(played.open), ""]
    assert page.one("h2", id="steps-title").text.endswith("% of those whose time is up")


def test_the_lifecycle_page_shows_every_group_of_every_period(
    recorded: None, browser: Browser
) -> None:
    report = analytics.lifecycle("user:logged_in", "week", back(35))
    rows = table_of(browser.open("/lifecycle?rows=6"), "People by where they come from")
    assert rows == [
        [
            f"{p.period_start.day} {p.period_start:%b}" + ("" if p.complete else " *"),
            *map(str, (p.returning, p.resurrected, p.new, p.dormant)),
            str(p.new + p.returning + p.resurrected),
        ]
        for p in reversed(report.points)
    ]
    assert rows[0] == ["23 Nov *", "1", "1", "1", "2", "3"]


def test_the_stickiness_page_shows_everybody_by_their_number_of_days(
    recorded: None, browser: Browser
) -> None:
    report = analytics.stickiness("user:logged_in")
    rows = table_of(browser.open("/stickiness"), "People by the number of")
    assert rows == [
        [str(k), str(users), percent(users / report.users)] for k, users in report.counts.items()
    ]
    assert report.counts[4] == 2


def rows_of(report: analytics.Compare) -> list[list[str]]:
    return [
        [
            arm.segment,
            str(arm.size),
            str(arm.converted),
            percent(arm.rate),
            "",
            f"{percent(arm.low)}\N{EN DASH}{percent(arm.high)}",
            "" if i == 0 else f"{100 * (difference or 0):+.1f}".replace("-", "\N{MINUS SIGN}"),
            "" if arm.p is None or report.shared[i] else f"{arm.p:.3f}",
        ]
        for i, (arm, difference) in enumerate(zip(report.arms, report.differences, strict=True))
    ]


def test_the_compare_page_shows_the_arms(recorded: None, browser: Browser) -> None:
    arms = ["user:created & flag:beta", "user:created - flag:beta"]
    page = browser.open("/compare", rows=36, arm=arms, goal="song:played")
    report = analytics.compare(arms, "song:played", back(35))
    assert report.arms[1].p is not None
    assert table_of(page, "The arms") == rows_of(report)
    assert len(page.all("svg", class_="interval")) == 2
    assert "share people" not in page.raw


def test_of_arms_that_share_people_no_p_is_told(recorded: None, browser: Browser) -> None:
    mark_unique("nobody", 1)
    unmark_unique("nobody", 1)
    arms = ["user:created", "flag:user:premium", "flag:nobody"]
    page = browser.open("/compare", rows=36, arm=arms, goal="song:played")
    report = analytics.compare(arms, "song:played", back(35))
    assert report.shared == [11, 4, 0]
    rows = table_of(page, "The arms")
    assert rows[:2] == rows_of(report)[:2]
    assert rows[1][-1] == rows[2][-1] == ""
    assert "Some arms share people with the first one (4, 0)" in page.raw


def test_the_people_page_lists_who_is_in_a_segment(recorded: None, browser: Browser) -> None:
    page = browser.open("/people", where="user:logged_in & flag:user:premium", rows=8)
    assert page.all("p", class_="lede")[0].text == (
        "4 people: those who match user:logged_in & flag:user:premium in the last 8 days."
    )
    listed = page.one("table", class_="people").all("th", scope="row")
    assert [one.text for one in listed] == ["1", "5", "7", "10"]
    links = [one.one("a").attributes["href"] for one in listed]
    assert [parse_qs(urlsplit(link).query)["id"] for link in links] == [["1"], ["5"], ["7"], ["10"]]


def test_people_are_listed_page_by_page(at_now: None, browser: Browser) -> None:
    mark_event("song:played", list(range(1000, 1120)))
    shown, address = list[str](), "/people?where=song:played"
    while address:
        page = browser.open(address)
        shown += [one.text for one in page.one("table", class_="people").all("th", scope="row")]
        address = next((a.attributes["href"] for a in page.all("a", rel="next")), "")
    assert shown == [str(id_) for id_ in range(1000, 1120)]
    assert [a.text for a in page.all("a", rel="prev")] == ["← Previous"]


def test_a_page_behind_the_last_one_says_that_nobody_is_on_it(
    recorded: None, browser: Browser
) -> None:
    page = browser.open("/people?page=99")
    assert page.one("h2", id="people-title").text == "Nobody on this page"


def test_a_page_of_people_leads_back_to_the_report(recorded: None, browser: Browser) -> None:
    page = browser.open("/people?of=funnel&rows=40&number=2&where=flag:beta")
    link = page.one("a", class_="back").attributes["href"]
    assert asked(browser.open(link)) == asked(browser.open("/funnel?rows=40&where=flag:beta"))


def test_a_person_page_shows_each_event_with_its_first_and_last_time(
    recorded: None, browser: Browser
) -> None:
    mark_event("song:played", 7, now=datetime(2021, 5, 31))
    mark_event("post:read", 7, now=datetime(2022, 1, 1))
    page = browser.open("/person?id=7")
    assert page.one("h1").text == "7"
    assert table_of(page, "The events of 7") == [
        ["post:read", "1 Jan 2022", "1 Jan 2022", "0"],
        ["song:played", "31 May 2021", "16 Nov 2026", "1"],
        ["user:created", "9 Nov 2026", "9 Nov 2026", "1"],
        ["user:logged_in", "9 Nov 2026", "17 Nov 2026", "4"],
    ]
    assert [one.text for one in page.one("ul", class_="conditions").all("li")] == ["user:premium"]


def test_a_person_page_names_the_month_where_the_day_is_not_known_any_more(
    at_now: None, browser: Browser, redis: Any
) -> None:
    mark_event("song:played", 7, now=datetime(2021, 5, 31))
    redis.delete("trackist_song:played_2021-5-31")  # as its TTL would
    page = browser.open("/person?id=7")
    assert table_of(page, "The events of 7") == [["song:played", "May 2021", "May 2021", "0"]]


def test_the_calendar_of_a_person_has_a_square_a_day(recorded: None, browser: Browser) -> None:
    calendar = browser.open("/person?id=7").one("svg", class_="calendar")
    squares = {one.one("title").raw: one.classes for one in calendar.all("rect")}
    assert len(squares) == 365
    assert [title for title, classes in squares.items() if classes != {"none"}] == [
        "9 Nov 2026: user:created, user:logged_in",
        "15 Nov 2026: user:logged_in",
        "16 Nov 2026: song:played, user:logged_in",
        "17 Nov 2026: user:logged_in",
    ]
    assert calendar.attributes["aria-label"] == "Active on 4 of 365 days"
    days = table_of(browser.open("/person?id=7"), "What 7 did, day by day")
    assert days[0] == ["17 Nov 2026", "user:logged_in"]
    assert days[-1] == ["9 Nov 2026", "user:created, user:logged_in"]
    assert len(days) == 4


def test_a_person_page_leads_to_the_years_before(at_now: None, browser: Browser) -> None:
    mark_event("song:played", 7, now=NOW - timedelta(days=500))
    page = browser.open("/person?id=7")
    assert "Nothing is recorded" in page.all("p", class_="lede")[0].text
    page = browser.open(page.one("a", rel="prev").attributes["href"])
    assert table_of(page, "The events of 7")[0][3] == "1"
    page = browser.open(page.one("a", rel="next").attributes["href"])
    assert not page.all("a", rel="next")
    assert "from 24 Nov 2025 to 23 Nov 2026" in page.all("p", class_="lede")[0].text


def test_every_year_that_a_person_page_leads_to_can_be_shown(
    recorded: None, browser: Browser
) -> None:
    page = browser.open("/person?id=7&end=2001-12-01")
    for _ in range(3):
        for link in page.all("a", rel="prev"):
            page = browser.open(link.attributes["href"])


def test_a_person_who_did_nothing_has_a_page(recorded: None, browser: Browser) -> None:
    page = browser.open("/person?id=someone else")
    assert page.one("h1").text == "someone else"
    assert not page.all("table")


# The overview


def events_of(page: Element) -> list[list[str]]:
    """The rows of the events table; a sparkline is its description."""
    table = page.one("div", id="events").one("table")
    rows = []
    for row, cells in zip(table.all("tr")[1:], table.rows[1:], strict=True):
        sparks = [one.attributes["aria-label"] for one in row.all("svg", class_="spark")]
        rows.append([cells[0], "".join(sparks), *cells[2:]])
    return rows


def test_the_overview_counts_unique_users_of_every_current_period(recorded: None) -> None:
    mark_event("user:created", [1, 20], now=datetime(2026, 1, 1))
    mark_event("user:created", [21], now=datetime(2025, 12, 31))
    _, created, logged_in = overview().events
    assert (created.event, logged_in.event) == ("user:created", "user:logged_in")
    assert (created.today, created.week, created.month, created.year) == (2, 2, 7, 12)
    assert len(created.days) == 30
    assert created.days[-1] == 2
    assert created.days[-15] == 3
    assert sum(logged_in.days) == 17


def test_the_overview_reports_as_of_another_moment(recorded: None) -> None:
    report = overview(now=NOW - timedelta(days=14))
    assert report.as_of == NOW - timedelta(days=14)
    assert [activity.today for activity in report.events] == [0, 3, 3]


def test_the_first_part_of_the_overview_leaves_the_year_to_the_second(
    recorded: None, browser: Browser
) -> None:
    page = browser.open("/")
    assert events_of(page) == [
        ["song:played", "", "1", "1", "3", "…"],
        ["user:created", "", "2", "2", "7", "…"],
        ["user:logged_in", "", "3", "3", "8", "…"],
    ]
    figures = page.one("div", id="figures").attributes
    assert figures["aria-busy"] == "true"
    assert figures["hx-get"] == "/bitmapist/?complete=1&event=user:logged_in"
    refresh = page.one("noscript").one("meta").attributes["content"]
    assert refresh == f"0;url={figures['hx-get']}"
    assert [one.text for one in page.all("p", class_="n")] == ["…"] * 4


def test_the_second_part_of_the_overview_has_all(recorded: None, browser: Browser) -> None:
    page = browser.open("/?complete=1")
    assert events_of(page) == [
        [
            one.event,
            f"Day by day, from {min(one.days)} to {max(one.days)}; {one.today} today",
            *map(str, (one.today, one.week, one.month, one.year)),
        ]
        for one in overview().events
    ]
    assert events_of(page)[1] == [
        "user:created",
        "Day by day, from 0 to 3; 2 today",
        *("2", "2", "7", "11"),
    ]
    assert "hx-get" not in page.one("div", id="figures").attributes
    assert not page.all("meta", **{"http-equiv": "refresh"})


def test_the_overview_tells_how_many_were_active(recorded: None, browser: Browser) -> None:
    *_, point = active_users("user:logged_in").points
    page = browser.open("/?complete=1")
    cards = [card.one("p", class_="n").text for card in page.all("section", class_="kpi")]
    assert cards == ["3", "4", "8", "16.7 %"]
    assert cards[:3] == [str(point.day), str(point.week), str(point.month)]


def test_the_overview_tells_the_change_against_the_window_before(
    recorded: None, browser: Browser
) -> None:
    points = active_users("user:logged_in", back(60)).points
    page = browser.open("/?complete=1")
    notes = [card.one("p", class_="d").text for card in page.all("section", class_="kpi")]
    assert notes[0] == "so far; 3 on the whole day a week ago"
    # Today is not over: both windows end with a whole day.
    weekly = points[-2].week / points[-9].week - 1
    monthly = points[-2].month / points[-30].month - 1
    assert (weekly, monthly) == (0, 1)
    assert notes[1:3] == [
        "= 0.0 % vs the 7 days before, up to yesterday",
        "▲ 100.0 % vs the 28 days before, up to yesterday",
    ]


def test_the_overview_has_every_day_of_the_trend(recorded: None, browser: Browser) -> None:
    page = browser.open("/?complete=1")
    rows = page.one("table", id="trend-figures").rows[1:]
    points = active_users("user:logged_in", back(89)).points
    assert [row[1] for row in rows] == [str(point.day) for point in points]
    assert rows[-1] == ["23 Nov 2026 so far", "3"]


@pytest.mark.parametrize("query", ["", "&event=song:played&where=flag:beta"])
def test_the_figures_of_the_active_users_are_told_as_json_and_csv(
    recorded: None, browser: Browser, client: FlaskClient, query: str
) -> None:
    event, where = ("song:played", Flag("beta")) if query else ("user:logged_in", None)
    report = active_users(event, back(89), where=where)
    page = browser.open(f"/?complete=1{query}")
    card = next(one for one in page.all("section") if one.all("h2", id="trend-title"))
    links = [link.attributes["href"] for link in card.one("span", class_="formats").all("a")]
    as_csv, as_json = (client.get(link) for link in links)
    assert as_csv.text == report.to_csv()
    assert as_json.json == json.loads(json.dumps(report.to_dict()))


def test_the_overview_has_the_lifecycle_as_a_table(recorded: None, browser: Browser) -> None:
    page = browser.open("/?complete=1")
    ours = table_of(page, "People by where they come from")
    assert ours == table_of(browser.open("/lifecycle?rows=12"), "People by where they come from")


def test_a_period_of_another_year_is_named_with_it(recorded: None, browser: Browser) -> None:
    rows = table_of(browser.open("/lifecycle?rows=60"), "People by where they come from")
    named = [row[0] for row in rows]
    assert named[0] == "23 Nov *"
    assert named[46:48] == ["5 Jan", "29 Dec 2025"]
    rows = table_of(browser.open("/cohort?rows=48"), "Percentage of each week")
    assert [row[0] for row in rows[1:3]] == ["29 Dec 2025", "5 Jan"]


def test_another_event_may_tell_who_is_active(recorded: None, browser: Browser) -> None:
    page = browser.open("/?complete=1&event=song:played")
    cards = [card.one("p", class_="n").text for card in page.all("section", class_="kpi")]
    assert cards[:3] == ["1", "2", "3"]
    assert asked(page)["event"] == ["song:played"]


def test_a_segment_tells_which_of_the_active_are_counted(recorded: None, browser: Browser) -> None:
    mark_unique("user:premium", 1)
    page = browser.open("/?complete=1&where=flag:user:premium")
    cards = [card.one("p", class_="n") for card in page.all("section", class_="kpi")]
    points = active_users("user:logged_in", back(60), where="flag:user:premium").points
    assert [card.text for card in cards[:3]] == [
        str(figure) for figure in (points[-1].day, points[-1].week, points[-1].month)
    ]
    month = browser.open(cards[2].one("a").attributes["href"])
    assert month.one("p", class_="lede").text.startswith(f"{points[-1].month} p")


@pytest.mark.parametrize("complete", ["", "1"])
def test_an_invalid_segment_is_marked_on_the_overview(
    recorded: None, client: FlaskClient, complete: str
) -> None:
    answer = client.get(f"/bitmapist/?where=a+%26%26+b&complete={complete}")
    assert answer.status_code == 400
    assert "The segment cannot be read" in answer.text
    assert "aria-busy" not in answer.text


@pytest.mark.parametrize("complete", ["", "1"])
@pytest.mark.parametrize("column", ["today", "week", "month", "year"])
def test_the_events_are_sorted_by_a_column_from_the_largest_down(
    recorded: None, browser: Browser, column: str, complete: str
) -> None:
    mark_event("a:rare", 1)
    mark_event("b:early", list(range(30)), now=datetime(2026, 3, 1))
    page = browser.open("/", sort=column, complete=complete)
    # The first part does not know the year yet: it goes by the month.
    by = column if complete or column != "year" else "month"
    expected = sorted(overview().events, key=lambda one: (-getattr(one, by), one.event))
    assert [row[0] for row in events_of(page)] == [one.event for one in expected]
    (header,) = (th for th in page.all("th") if "aria-sort" in th.attributes)
    assert header.attributes["aria-sort"] == "descending"
    assert header.one("a").attributes["href"].endswith(f"sort={column}")


def test_the_header_of_each_column_sorts_by_it(recorded: None, browser: Browser) -> None:
    page = browser.open("/?find=user&event=song:played")
    table = page.one("div", id="events").one("table")
    for link in [a for th in table.all("th", scope="col") for a in th.all("a")]:
        found = browser.open(link.attributes["href"])
        (header,) = (th for th in found.all("th") if "aria-sort" in th.attributes)
        assert header.text == link.text
        assert {row[0] for row in events_of(found)} == {"user:created", "user:logged_in"}
        assert asked(found)["event"] == ["song:played"]


@pytest.mark.parametrize(("part", "found"), [("SONG", ["song:played"]), ("zzz", [])])
def test_events_are_found_by_a_part_of_their_name(
    recorded: None, browser: Browser, part: str, found: list[str]
) -> None:
    page = browser.open("/", find=part)
    rows = events_of(page)
    if found:
        assert [row[0] for row in rows] == found
    else:
        assert rows == [[f"No event has “{part}” in its name.", ""]]
    assert page.one("input", name="find").attributes["value"] == part


@pytest.mark.parametrize("sort", ["event", "month"])
def test_more_than_fifty_events_are_listed_page_by_page(
    at_now: None, browser: Browser, sort: str
) -> None:
    names = [f"event:{number:03}" for number in range(105)]
    for number, name in enumerate(names):
        mark_event(name, list(range(number // 10 + 1)))
    shown, address = list[str](), f"/?sort={sort}&find=event:"
    while address:
        page = browser.open(address)
        shown += [row[0] for row in events_of(page)]
        address = next((a.attributes["href"] for a in page.all("a", rel="next")), "")
    if sort == "month":
        names.sort(key=lambda name: (-int(name[6:]) // 10, name))
    assert len(shown) == 105
    assert sorted(shown) == sorted(names)
    assert shown[:1] == ([names[0]] if sort == "event" else ["event:100"])


def test_a_flag_is_listed_apart_from_the_events(recorded: None, browser: Browser) -> None:
    page = browser.open("/")
    flags = table_of(page, "How many people")
    assert flags == [[flag, str(len(ids))] for flag, ids in FLAGS.items()]
    assert not {row[0] for row in events_of(page)} & {*FLAGS}


def test_the_overview_asks_again_on_the_first_day_alone(
    at_now: None, browser: Browser, tracker: Tracker
) -> None:
    mark_event("song:played", 1)
    assert browser.open("/?complete=1").all("div", id="live")
    asking = {"HX-Request": "true", "HX-Trigger": "live"}
    assert browser.client.get("/bitmapist/?complete=1", headers=asking).status_code == 200
    with tracker.at(NOW + timedelta(days=1)):
        assert not browser.open("/?complete=1").all("div", id="live")
        # By which htmx stops.
        assert browser.client.get("/bitmapist/?complete=1", headers=asking).status_code == 286


def test_of_very_many_flags_the_first_are_listed_and_others_are_found(
    at_now: None, browser: Browser, tracker: Tracker
) -> None:
    tracker.record([Mark(f"flag{n:03}", 1, dated=False) for n in range(120)])
    mark_event("a", 1)
    shown = browser.open("/?complete=1")
    assert len(table_of(shown, "How many people")) == 50
    assert "And 70 more" in shown.raw
    found = browser.open("/?complete=1&find=flag11")
    assert [row[0] for row in table_of(found, "How many people")] == [
        f"flag11{n}" for n in range(10)
    ]


def test_of_very_many_names_a_field_completes_what_is_typed(
    at_now: None, browser: Browser, tracker: Tracker
) -> None:
    tracker.record([(f"event:{n:04}", 1) for n in range(600)])
    for page in PAGES[1:]:
        check_completion(browser, page)


def check_completion(browser: Browser, page: str) -> None:
    shown = browser.open(page)
    inputs = shown.all("form", class_="ask")[0].all("input")
    fields = [one for one in inputs if one.attributes.get("list", "ranges") != "ranges"]
    assert fields
    listed = {one.attributes["id"]: one.all("option") for one in shown.all("datalist")}
    assert all(len(listed[field.attributes["list"]]) == 600 for field in fields)
    assert not [one for one in shown.all("select") if len(one.all("option")) > 20]
    assert asked(browser.open(page, **asked(shown))) == asked(shown)
    assert len(browser.client.get(f"/bitmapist{page}").data) < 200_000


def test_the_figures_of_events_that_are_not_shown_are_not_counted(
    at_now: None, browser: Browser, tracker: Tracker, redis: Any
) -> None:
    tracker.record([(f"event:{n:04}", 1) for n in range(600)])
    for address in ("/", "/?complete=events&find=event:01&page=2"):
        redis.config_resetstat()
        browser.open(address)
        assert redis.info("commandstats")["cmdstat_bitcount"]["calls"] <= 50 * 33


def test_an_id_that_the_server_would_refuse_to_mark_has_an_empty_page(
    recorded: None, browser: Browser, redis: Any
) -> None:
    redis.config_set("proto-max-bulk-len", 2**20)
    try:
        assert "Nothing is recorded" in browser.open("/person?id=99999999").raw
    finally:
        redis.config_set("proto-max-bulk-len", 2**29)


def test_a_name_that_is_both_an_event_and_a_flag_is_listed_as_both(
    recorded: None, browser: Browser
) -> None:
    mark_event("song:played", [1, 2], track_unique=True)
    page = browser.open("/")
    assert ["song:played", "", "3", "3", "4", "…"] in events_of(page)
    assert ["song:played", "2"] in table_of(page, "How many people")


def test_the_first_part_of_the_overview_has_the_server_count(
    recorded: None, client: FlaskClient, redis: Any
) -> None:
    client.get("/bitmapist/")
    redis.config_resetstat()
    client.get("/bitmapist/?find=ser&page=1&sort=month")
    stats = redis.info("commandstats")
    used = {name.removeprefix("cmdstat_").partition("|")[0] for name in stats}
    assert used - {"config", "info"} <= {"bitcount", "exists", "get", "hgetall", "zrange", "scan"}
    assert stats.get("cmdstat_get", {"calls": 0})["calls"] <= 1  # what is packed, no bitmap
    events, flags = ["user:created", "user:logged_in"], ["user:premium"]
    assert stats["cmdstat_bitcount"]["calls"] == 3 * len(events) + len(flags)


# The applications's other shapes


@pytest.mark.parametrize("address", [*PAGES, "/?complete=1", "/?find=x"])
def test_without_any_event_a_page_says_what_to_paste_where(
    browser: Browser, client: FlaskClient, address: str
) -> None:
    page = browser.open(address)
    assert page.one("h1").text == "Nothing recorded yet"
    assert "from flask_bitmapist import mark_event" in page.raw
    assert "class User(db.Model, Bitmapistable)" in page.raw


def test_the_empty_page_shows_the_first_event_as_it_arrives(
    app: Flask, at_now: None, browser: Browser
) -> None:
    main = browser.open("/").one("main").attributes
    assert (main["hx-get"], main["hx-trigger"]) == ("", "every 2s")
    # What somebody has selected on it stays selected.
    asks_again = {"HX-Request": "true", "HX-Trigger": "main"}
    assert browser.client.get("/bitmapist/", headers=asks_again).status_code == 204
    mark_event("song:played", 1)
    assert browser.open("/").one("h1").text == "Who was here"


@pytest.mark.parametrize("address", PAGES)
def test_with_flags_alone_every_page_answers(
    at_now: None, client: FlaskClient, address: str
) -> None:
    mark_unique("user:premium", [1, 2])
    answer = client.get(f"/bitmapist{address}")
    assert answer.status_code == 200
    shown = "user:premium" if address in ("/", "/people") else "Nothing recorded yet"
    assert shown in answer.text


@pytest.mark.parametrize("address", PAGES)
def test_with_one_event_alone_every_page_answers(
    at_now: None, browser: Browser, address: str
) -> None:
    mark_event("song:played", 1)
    browser.open(address)


#: Events and flags of plain and of mapped ids, by which of them are mapped.
MIXTURES = [
    ["visitor:seen"],
    ["user:logged_in"],
    ["user:created"],
    ["user:logged_in", "a:first", "flag"],
    ["user:created", "visitor:seen", "flag"],
    ["flag"],
]


@pytest.mark.parametrize("mapped", MIXTURES, ids=" ".join)
def test_with_ids_of_two_kinds_every_page_answers(
    at_now: None, browser: Browser, mapped: list[str]
) -> None:
    for event in ("a:first", "user:created", "user:logged_in", "visitor:seen"):
        mark_event(event, "somebody" if event in mapped else 1)
    mark_unique("flag", "somebody" if "flag" in mapped else 1)
    for address in PAGES:
        browser.open(address)
    for event in ("a:first", "user:created", "visitor:seen"):
        for given in (
            "/cohort?cohort=",
            "/cohort?returned=",
            "/compare?goal=",
            "/adoption?active=",
        ):
            browser.open(f"{given}{event}")


@pytest.mark.parametrize("address", [*PAGES, "/person?id=1"])
def test_a_page_reads_what_bitmapist_wrote(
    at_now: None, browser: Browser, address: str, redis: Any
) -> None:
    redis.setbit("trackist_song:played_2026-11-23", 1, 1)
    redis.setbit("trackist_song:played_W2026-48", 1, 1)
    redis.setbit("trackist_song:played_2026-11", 1, 1)
    assert "song:played" in browser.open(address).raw


def test_an_event_that_only_bitmapist_can_name_does_not_close_the_dashboard(
    recorded: None, browser: Browser, redis: Any
) -> None:
    for name in ("two\nlines", "x" * 300, " indented", b"caf\xe9"):
        key = name if isinstance(name, bytes) else name.encode()
        redis.setbit(b"trackist_" + key + b"_2026-11-23", 1, 1)
        redis.setbit(b"trackist_" + key + b"_u", 1, 1)
    for address in (*PAGES, "/?complete=1", "/person?id=1"):
        browser.open(address)


@pytest.mark.parametrize("address", ["/", "/cohort", "/funnel"])
def test_the_usual_event_is_that_of_2016_if_there_is_one(
    recorded: None, browser: Browser, address: str
) -> None:
    mark_event("a:first", 1)
    usual = {
        "/": {"event": ["user:logged_in"]},
        "/cohort": {"cohort": ["user:created"], "returned": ["user:logged_in"]},
        "/funnel": {"step": ["user:created", "user:logged_in", "a:first", ""]},
    }[address]
    sent = asked(browser.open(address))
    assert {name: sent[name] for name in usual} == usual


@pytest.mark.parametrize(
    ("address", "field"),
    [
        ("/", "event"),
        ("/cohort", "returned"),
        ("/lifecycle", "event"),
        ("/stickiness", "event"),
        ("/churned", "event"),
        ("/adoption", "active"),
    ],
)
def test_who_was_seen_counts_as_active_where_that_is_marked(
    recorded: None, browser: Browser, address: str, field: str
) -> None:
    assert asked(browser.open(address))[field] == ["user:logged_in"]
    mark_event("user:seen", 1)
    assert asked(browser.open(address))[field] == ["user:seen"]


def test_other_events_are_taken_when_nobody_was_created(at_now: None, browser: Browser) -> None:
    mark_event("song:played", 1)
    sent = asked(browser.open("/cohort"))
    assert (sent["cohort"], sent["returned"]) == (["song:played"], ["song:played"])


@pytest.mark.parametrize("flags", [["user:premium"], ["user:premium", "vip"]])
def test_the_usual_arms_are_the_active_without_a_flag_and_those_with_it(
    at_now: None, browser: Browser, flags: list[str]
) -> None:
    mark_event("user:logged_in", [1, 2])
    for flag in flags:
        mark_unique(flag, 1)
    assert asked(browser.open("/compare"))["arm"] == [
        "user:logged_in - flag:user:premium",
        "user:logged_in & flag:user:premium",
        "",
    ]


@pytest.mark.parametrize(
    "address", [a for a in REPORTS if "of=" not in a and not a.startswith(("/person", "/?"))]
)
def test_the_form_of_a_page_asks_what_the_page_shows(
    recorded: None, browser: Browser, address: str
) -> None:
    page = browser.open(address)
    sent: dict[str, Any] = {
        name: kept for name, values in asked(page).items() if (kept := [v for v in values if v])
    }
    again = browser.open(address.partition("?")[0], **sent)
    assert asked(again) == asked(page)
    assert [table.rows for table in again.all("table")] == [t.rows for t in page.all("table")]


def test_pages_keep_their_addresses_of_2016(app: Flask) -> None:
    with app.test_request_context():
        assert app.url_for("bitmapist.index") == "/bitmapist/"
        assert app.url_for("bitmapist.cohort") == "/bitmapist/cohort"


def test_two_applications_show_their_own_events(
    server: Any, browser: Browser, recorded: None
) -> None:
    other = Flask("other")
    other.config.update(
        TESTING=True, BITMAPIST_ENABLED=True, BITMAPIST_REDIS_URL=server.fresh_database()
    )
    FlaskBitmapist(other)
    assert "Nothing recorded yet" in other.test_client().get("/bitmapist/").text
    assert "user:created" in browser.open("/").raw


def test_figures_of_mapped_ids_are_those_of_plain_ones(
    at_now: None, browser: Browser, server: Any, tracker: Any
) -> None:
    mark_log(lambda id_: f"u{id_}")
    page = browser.open("/lifecycle?rows=6")
    rows = table_of(page, "People by where they come from")
    assert rows[0] == ["23 Nov *", "1", "1", "1", "2", "3"]


def test_a_person_is_found_by_a_mapped_id(at_now: None, browser: Browser) -> None:
    mark_log(lambda id_: f"u{id_}")
    assert table_of(browser.open("/person?id=u7"), "The events of u7") == [
        ["song:played", "16 Nov 2026", "16 Nov 2026", "1"],
        ["user:created", "9 Nov 2026", "9 Nov 2026", "1"],
        ["user:logged_in", "9 Nov 2026", "17 Nov 2026", "4"],
    ]


def test_days_are_those_of_the_time_zone(redis_url: str) -> None:
    app = Flask("antipodes")
    app.config.update(
        TESTING=True,
        BITMAPIST_ENABLED=True,
        BITMAPIST_REDIS_URL=redis_url,
        BITMAPIST_TIMEZONE="Pacific/Auckland",
    )
    tracker = FlaskBitmapist(app).tracker_of(app)
    with app.app_context(), tracker.at(datetime(2026, 11, 23, 12, tzinfo=UTC)):
        mark_event("song:played", [1, 2])
        mark_event("song:played", 3, now=datetime(2026, 11, 23, 23))
        page = Browser(app.test_client()).open("/people")
    assert page.one("span", class_="as-of").text == "Pacific/Auckland · as of 24 Nov 2026, 01:00"
    assert "2 people: those who match song:played on 24 Nov 2026." in page.raw


def test_large_figures_have_separators(at_now: None, browser: Browser) -> None:
    mark_event("song:played", list(range(1234)))
    page = browser.open("/people")
    assert page.all("p", class_="lede")[0].one("b").text == "1,234"
    assert page.one("h2", id="people-title").text == "1 to 50 of 1,234"


@pytest.mark.parametrize("text", ["song:played", "flag:beta | user:created & song:played"])
def test_a_segment_on_a_page_is_the_one_of_the_report(
    recorded: None, browser: Browser, text: str
) -> None:
    page = browser.open("/people", where=text, by="month")
    assert page.all("p", class_="lede")[0].one("b").text == str(people(parse(text), "month").users)


def test_an_event_named_like_a_flag_is_no_flag(recorded: None, browser: Browser) -> None:
    mark_event("flag:beta", [1])
    page = browser.open("/people", where=str(Event("flag:beta")))
    assert page.all("p", class_="lede")[0].one("b").text == "1"


def test_the_churn_page_says_which_weeks_it_shows(recorded: None, browser: Browser) -> None:
    page = browser.open("/churned?rows=3&silent=2")
    report = analytics.churned("user:logged_in", 2, "week", back(35), back(21))
    assert [point.period_start for point in report.points][-1] == date(2026, 11, 2)
    assert "from 19 Oct to 8 Nov 2026" in page.one("p", class_="lede").text
    told = browser.client.get("/bitmapist/churned?rows=3&silent=2&format=json").json
    assert told == json.loads(json.dumps(report.to_dict()))


@pytest.mark.parametrize(
    ("address", "text", "page", "shown"),
    [
        ("/lifecycle?event=song:played", "who stays away for longer", "/churned", ["song:played"]),
        ("/adoption?feature=song:played", "whether they use it again", "/cohort", ["song:played"]),
        (
            "/adoption?feature=song:played",
            "how far the two overlap",
            "/overlap",
            ["song:played", "user:logged_in"],
        ),
        (
            "/compare?arm=song:played&arm=user:created&goal=user:logged_in&rows=366",
            "how far they overlap",
            "/overlap",
            ["song:played", "user:created"],
        ),
    ],
)
def test_a_report_leads_to_the_one_that_tells_more(
    recorded: None, browser: Browser, address: str, text: str, page: str, shown: list[str]
) -> None:
    for where in ("", "flag:beta"):
        found = browser.open(f"{address}&by=week&where={where}")
        (link,) = (one for one in found.all("a") if one.text == text)
        assert urlsplit(link.attributes["href"]).path == f"/bitmapist{page}"
        told = asked(browser.open(link.attributes["href"]))
        event = "cohort" if page == "/cohort" else "event"
        assert [one for one in told[event] if one] == shown
        assert (told["by"], told["where"]) == (["week"], [where])


def test_the_pages_about_a_funnel_lead_to_one_another(recorded: None, browser: Browser) -> None:
    steps = "step=song:played&step=user:logged_in&by=week&within=2&where=flag:beta"
    for page in ("funnel", "time-to-convert", "conversion"):
        views = browser.open(f"/{page}?{steps}&over=last+month").one("nav", class_="views")
        for link in views.all("a"):
            told = asked(browser.open(link.attributes["href"]))
            assert told["step"][:2] == ["song:played", "user:logged_in"]
            assert (told["by"], told["within"], told["over"]) == (["week"], ["2"], ["last month"])
    any_order = browser.open("/funnel?order=any").one("nav", class_="views").all("a")
    orders = [asked(browser.open(link.attributes["href"]))["order"] for link in any_order]
    assert orders == [["any"], ["any"], ["ordered"]]


def test_the_page_about_a_funnel_that_is_shown_leads_to_itself(
    recorded: None, browser: Browser
) -> None:
    whole = "step=song:played&step=user:logged_in&breakdown=flag:beta&previous=yes"
    for address in (f"/funnel?{whole}", "/conversion?step=song:played&target=20"):
        shown = browser.open(address)
        (here,) = shown.one("nav", class_="views").all("a", **{"aria-current": "page"})
        assert asked(browser.open(here.attributes["href"])) == asked(shown)
