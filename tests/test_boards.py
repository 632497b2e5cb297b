"""Boards: what may be declared, what is refused at once, and their form as JSON."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Any

import pytest
from flask import Flask

from flask_bitmapist import FlaskBitmapist, chart
from flask_bitmapist.boards import Board, Chart
from flask_bitmapist.questions import REPORTS, TrendQuestion
from flask_bitmapist.reading.segments import Event, Flag

#: A question for each report, none of whose fields has its default.
QUESTIONS: dict[str, dict[str, Any]] = {
    "trend": {
        "event": "a",
        "by": "week",
        "rows": 3,
        "where": "b & flag:c",
        "breakdown": ["flag:c", "d | e"],
    },
    "trends": {"events": ["a", "b - c"], "over": "last month", "previous": True, "active": "d"},
    "active_users": {"event": Event("a & b"), "rows": 7},
    "retention": {
        "cohort": Event("not - a segment") - Flag("pro"),
        "returned": "a | b",
        "by": "month",
        "start": date(2026, 1, 1),
        "periods": 3,
        "mode": "streak",
        "members": "every",
        "previous": True,
    },
    "funnel": {"steps": ["a", Event("b, c")], "within": 3, "order": "strict"},
    "time_to_convert": {"steps": ["a", "b"], "by": "week", "order": "any"},
    "conversion": {"steps": ["a", "b"], "within": 3, "order": "strict"},
    "lifecycle": {"event": "a", "end": datetime(2026, 3, 14, 15, 9), "previous": True},
    "stickiness": {"event": "a", "within": "week", "breakdown": "user:plan", "as_of": "then"},
    "churned": {"event": "a", "silent": 4},
    "adoption": {"feature": "a", "active": "b"},
    "overlap": {"events": ["a", "b", "flag:c"], "end": date(2026, 1, 1)},
    "changes": {"over": "since 2026-10-19", "where": "a & flag:c"},
    "compare": {"arms": ["flag:a", "flag:b"], "goal": "c"},
}


@pytest.mark.parametrize("report", REPORTS)
def test_each_report_can_be_a_chart_and_comes_back_from_json(report: str) -> None:
    declared = chart("Title", report, **QUESTIONS[report])
    assert declared.question == REPORTS[report].of(**QUESTIONS[report])
    assert Chart.of_plain(json.loads(json.dumps(declared.plain))) == declared


def test_what_has_its_default_is_not_told() -> None:
    assert chart("Title", "trend", event="a", by="day").plain == {
        "title": "Title",
        "report": "trend",
        "question": {"event": "a"},
    }


@pytest.mark.parametrize(
    ("report", "question", "sentence"),
    [
        ("trent", {"event": "a"}, "there is no report 'trent': did you mean 'trend'?"),
        ("people", {}, "there is no report 'people': there are trend, trends, "),
        (None, {}, "there is no report None"),
        (["trend"], {}, "there is no report"),
        ("trend", {}, "the chart 'T': event is missing"),
        ("trend", {"event": "a", "even": "b"}, "there is no 'even': there are "),
        ("trend", {"event": "a", "now": date(2026, 1, 1)}, "there is no 'now'"),
        ("trend", {"event": "a", "strict": True}, "there is no 'strict'"),
        ("trend", {"event": "a &"}, "the chart 'T': "),
        ("trend", {"event": 5}, "the chart 'T': "),
        ("trend", {"event": "a", "by": "fortnight"}, "by must be one of hour, day"),
        ("trend", {"event": "a", "rows": 0}, "rows must be"),
        ("trend", {"event": "a", "end": "tomorrow"}, "end must be a date"),
        ("trend", {"event": "a", "end": 20260101}, "end must be a date"),
        ("funnel", {"steps": "a"}, "steps must be a list"),
        ("funnel", {"steps": ["a", "a"]}, "two steps in a row"),
    ],
)
def test_a_chart_that_cannot_be_asked_is_refused(
    report: Any, question: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match="the chart 'T'") as refused:
        chart("T", report, **question)
    assert sentence in str(refused.value)


@pytest.mark.parametrize("title", ["", " a", "a ", "a\nb", "x" * 81, "\x1b[31m", None, 5])
def test_a_title_is_short_and_printable(title: Any) -> None:
    with pytest.raises(ValueError, match="1 to 80 printable characters"):
        chart(title, "trend", event="a")


@pytest.mark.parametrize(
    "plain",
    [
        None,
        [],
        "chart",
        {"title": "T", "report": "trend"},
        {"title": "T", "report": "trend", "question": [], "more": 1},
        {"title": "T", "report": "trend", "question": {"event": "a"}, "more": 1},
        {"title": "T", "report": "trend", "question": {"event": ["a"]}},
        {"title": "T", "report": "trend", "question": {"event": "a", "where": 5}},
        {"title": "T", "report": "funnel", "question": {"steps": [{}]}},
        {"title": "T", "report": "funnel", "question": {"steps": {}}},
        {"title": "T", "report": "stickiness", "question": {"event": "a", "within": {}}},
        {"title": {}, "report": {}, "question": {}},
    ],
)
def test_what_is_no_chart_is_refused(plain: object) -> None:
    with pytest.raises(ValueError, match="."):
        Chart.of_plain(plain)


def test_a_board_comes_back_from_json() -> None:
    board = Board("Weekly", (chart("A", "trend", event="a"), chart("B", "trend", event="b")))
    assert Board.of_plain(json.loads(json.dumps(board.plain))) == board


@pytest.mark.parametrize(
    "plain", [None, {}, {"name": "B", "charts": {}}, {"name": "B", "charts": [None]}, {"name": 5}]
)
def test_what_is_no_board_is_refused(plain: object) -> None:
    with pytest.raises(ValueError, match="."):
        Board.of_plain(plain)


@pytest.fixture
def bitmapist() -> FlaskBitmapist:
    return FlaskBitmapist()


def test_boards_are_declared_in_code_in_their_order(bitmapist: FlaskBitmapist, app: Flask) -> None:
    sign_ups = chart("Sign-ups", "trend", event="user:created", by="week")
    weekly = bitmapist.board("Weekly", [sign_ups])
    bitmapist.board("Daily", (one for one in [sign_ups]))
    assert weekly == Board("Weekly", (sign_ups,))
    bitmapist.init_app(app)
    assert [*FlaskBitmapist.boards_of(app)] == ["Weekly", "Daily"]


def test_a_board_may_be_declared_before_and_after_init_app(app: Flask) -> None:
    bitmapist: FlaskBitmapist = app.extensions["bitmapist"]
    later = FlaskBitmapist(app)
    bitmapist.board("Weekly", [chart("A", "trend", event="a")])
    changed = later.board("Weekly", [chart("B", "trend", event="b")])
    assert FlaskBitmapist.boards_of(app) == {"Weekly": changed}


def test_two_boards_of_one_name_are_an_error(bitmapist: FlaskBitmapist) -> None:
    charts = [chart("A", "trend", event="a")]
    bitmapist.board("Weekly", charts)
    with pytest.raises(ValueError, match="two boards called 'Weekly'"):
        bitmapist.board("Weekly", charts)


@pytest.mark.parametrize(
    ("charts", "sentence"),
    [
        ([], "has no charts"),
        ([TrendQuestion.of(event="a")], "make them with flask_bitmapist.chart"),
        (["trend"], "make them with flask_bitmapist.chart"),
        ([chart("A", "trend", event="a")] * 13, "13 charts, and 12 are the most"),
    ],
)
def test_a_board_that_cannot_be_shown_is_refused(
    bitmapist: FlaskBitmapist, charts: list[Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        bitmapist.board("Weekly", charts)


def test_a_question_and_its_report_belong_together() -> None:
    with pytest.raises(ValueError, match="'retention' does not answer a TrendQuestion"):
        Chart("A", "retention", TrendQuestion.of(event="a"))
