"""The pages of boards: each chart as its own page has it, whatever becomes of the others."""

from __future__ import annotations

import shlex
from datetime import date
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis

from flask_bitmapist import chart, mark_event
from flask_bitmapist.boards import MOST_CHARTS, Chart
from flask_bitmapist.dashboard.people import PAGES_WITH_PEOPLE
from flask_bitmapist.questions import REPORTS
from flask_bitmapist.reading.segments import Event

from .conftest import Browser
from .reading import Element, asked, error_of
from .test_escaping import NAMES, check_harmless

#: A chart of each report, its one figure of the log, and the words on it.
CHARTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "active_users": (
        {"event": "user:logged_in"},
        "1",
        "did user:logged_in on 22 Nov 2026; 0 the day before",
    ),
    "retention": (
        {"cohort": "user:created", "returned": "user:logged_in", "by": "day", "periods": 2},
        "0.0 %",
        "of those who did user:created did user:logged_in 1 day later",
    ),
    "funnel": (
        {"steps": ["user:created", "user:logged_in"], "by": "week"},
        "72.7 %",
        "of those who did user:created got to user:logged_in",
    ),
    "time_to_convert": (
        {"steps": ["user:created", "user:logged_in"], "by": "week"},
        "0 weeks",
        "or less took half of those who got from user:created to user:logged_in",
    ),
    "conversion": (
        {
            "steps": ["user:created", "user:logged_in"],
            "by": "week",
            "within": 0,
            "end": date(2026, 11, 9),
        },
        "66.7 %",
        "of those who did user:created got to user:logged_in within 0 weeks, beginning in the week "
        "of 9 Nov 2026; 100.0 % the week before",
    ),
    "lifecycle": (
        {"event": "user:logged_in", "by": "week", "rows": 3},
        "3",
        "did user:logged_in in the week of 16 Nov 2026; 3 the week before",
    ),
    "changes": (
        {"over": "last 7 days"},
        "2 more",
        "did user:created since 17 Nov 2026 than in as many days before",
    ),
    "stickiness": (
        {"event": "user:logged_in"},
        "8",
        "did user:logged_in, 27 Oct 2026 to 23 Nov 2026, by the number of days",
    ),
    "churned": (
        {"event": "user:logged_in", "silent": 1, "by": "week", "rows": 2},
        "66.7 %",
        "of those who did user:logged_in in the week of 9 Nov 2026 were silent for 1 week",
    ),
    "adoption": (
        {"feature": "song:played", "active": "user:logged_in", "rows": 2},
        "100.0 %",
        "of those who did user:logged_in did song:played on 22 Nov 2026",
    ),
    "overlap": (
        {"events": ["song:played", "user:logged_in", "flag:beta"], "by": "month"},
        "50.0 %",
        "of those who did user:logged_in or flag:beta did both",
    ),
    "trends": (
        {"events": ["song:played", "user:created"], "over": "2026-10", "by": "month"},
        "3",
        "did song:played in October 2026. The others, in October 2026: 4 user:created",
    ),
    "compare": (
        {"arms": ["user:created", "flag:beta"], "goal": "user:logged_in", "by": "month"},
        "100.0 %",
        "of flag:beta did user:logged_in",
    ),
}
#: The questions that have pages of their own.
ASKED = {page.asks for page in PAGES_WITH_PEOPLE.values()}
LOGINS = chart("Log-ins", "lifecycle", event="user:logged_in", by="week", rows=3)


def declare(app: Flask, *charts: Chart, name: str = "Weekly") -> None:
    app.extensions["bitmapist"].board(name, charts)


def cards(page: Element) -> list[Element]:
    """The cards of a board."""
    (board,) = page.all("div", class_="board")
    return board.all("section")


@pytest.mark.parametrize("report", CHARTS)
def test_a_card_has_the_figure_that_one_would_ask_for(
    app: Flask, recorded: None, browser: Browser, report: str
) -> None:
    question, figure, told = CHARTS[report]
    declare(app, chart("Title", report, **question))
    (card,) = cards(browser.open("/boards?board=Weekly"))
    assert [one.text for one in card.all("p")] == [figure, told]
    assert card.all("svg")


@pytest.mark.parametrize("report", [name for name in CHARTS if REPORTS[name] in ASKED])
def test_a_card_leads_to_the_page_that_asks_the_same(
    app: Flask, recorded: None, client: FlaskClient, browser: Browser, report: str
) -> None:
    declare(app, chart("Title", report, **CHARTS[report][0]))
    (card,) = cards(browser.open("/boards?board=Weekly"))
    address = card.one("h2").one("a").attributes["href"]
    told: Any = client.get("/bitmapist/boards?board=Weekly&format=json").json
    assert told["charts"][0]["answer"] == client.get(f"{address}&format=json").json


#: Of premium people, of testers of the beta, of whoever has a flag that nobody has.
VALUES = ["flag:user:premium", "flag:beta", "user:created & flag:beta & flag:user:premium"]


@pytest.mark.parametrize(
    ("report", "question", "legend"),
    [
        (
            "trend",
            {"event": "user:logged_in", "by": "week"},
            [
                "flag:user:premium: 3",
                "flag:beta: 0",
                "user:created & flag:beta & flag:user:premium: 0",
                "everybody",
            ],
        ),
        (
            "retention",
            {"cohort": "user:created", "returned": "user:logged_in", "by": "week"},
            ["flag:user:premium: 66.7 %", "flag:beta: 33.3 %", "everybody"],
        ),
        (
            "lifecycle",
            {"event": "user:logged_in", "by": "week"},
            [
                "flag:user:premium: 3",
                "flag:beta: 0",
                "user:created & flag:beta & flag:user:premium: 0",
                "everybody",
            ],
        ),
        (
            "stickiness",
            {"event": "user:logged_in"},
            [
                "flag:beta: 100.0 % on 1 day",
                "user:created & flag:beta & flag:user:premium: 100.0 % on 1 day",
                "flag:user:premium: 25.0 % on 1 day",
                "everybody",
            ],
        ),
    ],
)
def test_the_parts_of_a_breakdown_are_lines_beside_the_whole(
    app: Flask,
    recorded: None,
    browser: Browser,
    report: str,
    question: dict[str, Any],
    legend: list[str],
) -> None:
    declare(app, chart("Title", report, **question, breakdown=VALUES))
    (card,) = cards(browser.open("/boards?board=Weekly"))
    assert [one.text for one in card.one("figcaption").all("span")] == legend
    assert len(card.all("path", class_="mark")) == 2 * (len(legend) - 1)
    if REPORTS[report] in ASKED:
        leads = browser.open(card.one("h2").one("a").attributes["href"])
        assert "Broken down by flag:user:premium" in leads.all("p", class_="lede")[0].text


def test_the_parts_of_a_comparison_are_rows_below_the_whole(
    app: Flask, recorded: None, browser: Browser
) -> None:
    arms: dict[str, Any] = {
        "arms": ["user:created", "flag:beta"],
        "goal": "user:logged_in",
        "by": "month",
    }
    declare(app, chart("T", "compare", **arms, breakdown=VALUES[:2]))
    (card,) = cards(browser.open("/boards?board=Weekly"))
    rows = [one.text for one in card.one("ol").all("span")]
    assert rows[:2] == ["user:created 72.7 %", "flag:beta 100.0 %"]
    assert rows[2:4] == [
        "user:created, flag:user:premium 100.0 %",
        "flag:beta, flag:user:premium 100.0 %",
    ]
    assert rows[4:] == ["user:created, flag:beta 100.0 %", "flag:beta, flag:beta 100.0 %"]


@pytest.mark.parametrize("name", ["Weekly", '100 % of it\'s "us"'])
def test_a_board_says_how_to_have_it_sent(
    app: Flask, recorded: None, browser: Browser, name: str
) -> None:
    declare(app, LOGINS, name=name)
    page = browser.open("/boards", board=name)
    line = page.one("pre", class_="crontab").raw.replace(r"\%", "%")
    assert line.startswith("0 7 * * 1 "), "every Monday at seven"
    command = shlex.split(line.partition("bitmapist ")[2].partition(" | ")[0])
    done = app.test_cli_runner().invoke(args=["bitmapist", *command])
    assert done.exit_code == 0, done.output
    assert "To: team@example.com" in done.output
    as_json = next(one for one in page.one("main").all("a") if one.text == "JSON")
    told: Any = browser.client.get(as_json.attributes["href"]).json
    assert told["name"] == name


def test_several_events_are_lines_of_one_chart(
    app: Flask, recorded: None, browser: Browser
) -> None:
    events = ["song:played", "user:created"]
    declare(app, chart("T", "trends", events=events, by="week", over="last 4 weeks"))
    (card,) = cards(browser.open("/boards?board=Weekly"))
    legend = [one.text for one in card.one("figcaption").all("span")]
    assert legend == ["user:created: 0", "song:played: 2"]
    assert len(card.all("g", class_="c1")) == 1


def test_more_parts_than_can_be_told_apart_are_counted(
    app: Flask, recorded: None, browser: Browser
) -> None:
    values = [f"flag:user:premium - flag:{number}" for number in range(8)]
    declare(app, chart("T", "trend", event="user:logged_in", by="week", breakdown=values))
    (card,) = cards(browser.open("/boards?board=Weekly"))
    assert len(card.one("figcaption").all("span")) == 7
    assert card.one("p", class_="d").text.endswith("2 of the lines are not drawn")


def test_of_a_funnel_each_part_has_its_rate(app: Flask, recorded: None, browser: Browser) -> None:
    steps = ["user:created", "user:logged_in"]
    declare(app, chart("T", "funnel", steps=steps, by="week", breakdown=VALUES[:2]))
    (card,) = cards(browser.open("/boards?board=Weekly"))
    assert [one.text for one in card.one("ol").all("span")] == [
        "everybody 72.7 %",
        "flag:user:premium 100.0 %",
        "flag:beta 100.0 %",
    ]


def test_of_a_funnel_with_a_window_the_card_says_whose_rate_it_tells(
    app: Flask, recorded: None, browser: Browser
) -> None:
    asked: dict[str, Any] = {
        "steps": ["user:created", "user:logged_in"],
        "by": "week",
        "within": 2,
    }
    declare(app, chart("T", "funnel", **asked), chart("T", "funnel", breakdown=VALUES[:2], **asked))
    for card in cards(browser.open("/boards?board=Weekly")):
        assert card.all("p")[1].text == (
            "of those who did user:created got to user:logged_in within 2 weeks, "
            "counting those whose time is up"
        )


def test_active_users_lead_to_the_overview(app: Flask, recorded: None, browser: Browser) -> None:
    declare(app, chart("T", "active_users", event="song:played", where="flag:beta", rows=3))
    (card,) = cards(browser.open("/boards?board=Weekly"))
    shown = browser.open(card.one("h2").one("a").attributes["href"])
    assert "did song:played" in shown.all("p", class_="lede")[0].text
    assert "counting only flag:beta" in shown.all("p", class_="lede")[0].text


@pytest.mark.parametrize(
    ("question", "form"),
    [
        ({"by": "week", "rows": 4}, {"by": ["week"], "over": ["last 4 weeks"]}),
        ({"over": "last month", "rolling": 7}, {"rolling": ["7"], "over": ["last month"]}),
        ({}, {"by": ["day"], "over": ["last 30 days"]}),
        ({"where": "flag:beta", "breakdown": VALUES}, {"where": ["flag:beta"]}),
    ],
)
def test_a_single_trend_leads_to_the_page_of_trends(
    app: Flask, recorded: None, browser: Browser, question: dict[str, Any], form: dict[str, Any]
) -> None:
    declare(app, chart("T", "trend", event="user:logged_in", **question))
    (card,) = cards(browser.open("/boards?board=Weekly"))
    sent = asked(browser.open(card.one("h2").one("a").attributes["href"]))
    assert sent["event"][0] == "user:logged_in"
    assert {name: sent[name] for name in form} == form
    if "breakdown" in question:
        assert {*question["breakdown"]} <= {*sent["breakdown"]}


@pytest.mark.parametrize(
    ("report", "question"),
    [
        ("lifecycle", {"event": Event("song:played") & Event("user:created")}),
        ("lifecycle", {"event": "song:played", "by": "hour"}),
        ("lifecycle", {"event": "never:marked"}),
        ("retention", {"cohort": "song:played", "returned": "song:played", "periods": 100}),
    ],
)
def test_what_no_page_asks_is_a_chart_without_a_link(
    app: Flask, recorded: None, browser: Browser, report: str, question: dict[str, Any]
) -> None:
    declare(app, chart("Title", report, **question))
    (card,) = cards(browser.open("/boards?board=Weekly"))
    assert not card.all("a")
    assert card.all("svg")


def test_charts_are_shown_in_their_order(app: Flask, recorded: None, browser: Browser) -> None:
    titles = ["B", "A", "C"]
    declare(app, *(chart(title, "trend", event="song:played") for title in titles))
    page = browser.open("/boards?board=Weekly")
    assert page.one("h1").text == "Weekly"
    assert [card.one("h2").text for card in cards(page)] == titles


def test_a_chart_that_cannot_be_answered_says_so_and_the_others_show(
    app: Flask, recorded: None, client: FlaskClient, browser: Browser, redis: Redis
) -> None:
    mark_event("visitor:seen", ["u1", "u2"])
    redis.delete("trackist_song:played_2026-11-23")
    redis.rpush("trackist_song:played_2026-11-23", "not a bitmap")
    declare(
        app,
        chart("Refused", "trend", event="song:played"),
        chart("Mixed", "overlap", events=["visitor:seen", "user:logged_in"]),
        LOGINS,
    )
    refused, mixed, shown = cards(browser.open("/boards?board=Weekly"))
    assert "WRONGTYPE" in refused.one("p", class_="problem").text
    assert "different" in mixed.one("p", class_="problem").text
    assert shown.one("p", class_="n").text == "3"
    told: Any = client.get("/bitmapist/boards?board=Weekly&format=json").json
    assert [{"answer", "error"} & {*one} for one in told["charts"]] == [
        {"error"},
        {"error"},
        {"answer"},
    ]


def test_a_chart_that_takes_too_long_says_so(
    app: Flask, recorded: None, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_bitmapist.dashboard.boards._LONGEST_WAIT", 0)
    slow = chart("Slow", "trend", event="user:logged_in", rows=1_000, rolling=7)
    declare(app, slow, slow)
    for card in cards(browser.open("/boards?board=Weekly")):
        assert "takes longer than 0 seconds" in card.one("p", class_="problem").text


def test_without_redis_a_board_says_so(unreachable_app: Flask) -> None:
    declare(unreachable_app, LOGINS)
    answer = unreachable_app.test_client().get("/bitmapist/boards?board=Weekly")
    assert answer.status_code == 503


def test_the_list_has_all_boards(app: Flask, recorded: None, browser: Browser) -> None:
    declare(app, LOGINS)
    declare(app, LOGINS, name="Größe & <more>")
    leads = browser.open("/boards").all("ul", class_="listed")[0].all("a")
    assert [one.text for one in leads] == ["Weekly", "Größe & <more>"]
    for one in leads:
        assert browser.open(one.attributes["href"]).one("h1").text == one.text


def test_a_board_leads_to_the_others(app: Flask, recorded: None, browser: Browser) -> None:
    declare(app, LOGINS)
    declare(app, LOGINS, name="Daily")
    nav = browser.open("/boards?board=Daily").one("nav", **{"aria-label": "Boards"})
    assert [one.text for one in nav.all("a")] == ["Weekly", "Daily", "All"]
    assert nav.one("a", **{"aria-current": "page"}).text == "Daily"


def test_without_a_board_the_list_says_how_to_declare_one(browser: Browser) -> None:
    assert "bitmapist.board(" in browser.open("/boards").one("pre").text


def test_a_board_is_shown_before_anything_is_recorded(app: Flask, browser: Browser) -> None:
    charts = [LOGINS, *(chart(name, name, **asked) for name, (asked, _, _) in CHARTS.items())]
    declare(app, *charts[:MOST_CHARTS])
    declare(app, *charts[MOST_CHARTS:], name="Rest")
    shown = [cards(browser.open(f"/boards?board={name}")) for name in ("Weekly", "Rest")]
    assert sum(map(len, shown)) == len(charts)
    assert {*CHARTS, "trend"} == {*REPORTS}


def test_an_unknown_board_is_a_sentence(browser: Browser) -> None:
    assert "There is no board 'Weekly'." in error_of(browser.open("/boards?board=Weekly", 400))


def test_boards_are_no_one_table(app: Flask, recorded: None, client: FlaskClient) -> None:
    declare(app, LOGINS)
    for address in ("boards?format=csv", "boards?board=Weekly&format=csv"):
        answer = client.get(f"/bitmapist/{address}")
        assert (answer.status_code, answer.mimetype) == (400, "text/plain")


def test_the_list_as_json(app: Flask, client: FlaskClient) -> None:
    declare(app, LOGINS)
    told: Any = client.get("/bitmapist/boards?format=json").json
    assert told["boards"] == [{"name": "Weekly", "charts": [LOGINS.plain]}]


def test_names_titles_and_events_are_shown_and_never_run(
    app: Flask, at_now: None, client: FlaskClient
) -> None:
    for name in NAMES:
        mark_event(name, [1, 2])
    for number, name in enumerate(NAMES):
        title = name[:80].strip() if name.isprintable() else "T"
        kinds = [
            chart(title, "trend", event=Event(name)),
            chart(title, "funnel", steps=[Event(name), Event(NAMES[0])], order="strict"),
            chart(title, "overlap", events=[Event(name), Event(NAMES[0])]),
            chart(title, "stickiness", event=Event(name)),
        ]
        declare(app, *kinds, name=f"{number} {title}"[:80].strip())
    check_harmless(client.get("/bitmapist/boards").text)
    for board in app.extensions["bitmapist"].boards:
        answer = client.get("/bitmapist/boards", query_string={"board": board})
        assert answer.status_code == 200
        check_harmless(answer.text)


def test_a_board_changes_nothing_on_the_server(
    app: Flask, recorded: None, client: FlaskClient, redis: Redis
) -> None:
    def dump() -> dict[bytes, bytes | None]:
        keys: Any = redis.keys("*")
        return {key: redis.dump(key) for key in keys}

    before = dump()
    charts = [chart(name, name, **asked) for name, (asked, _, _) in CHARTS.items()]
    declare(app, *charts[:MOST_CHARTS])
    declare(app, *charts[MOST_CHARTS:], name="Rest")
    for board in ("Weekly", "Rest"):
        assert client.get(f"/bitmapist/boards?board={board}").status_code == 200
    assert dump() == before
