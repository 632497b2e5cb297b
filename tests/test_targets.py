"""The targets of a board's charts: which charts have one, and how it is kept and drawn."""

from __future__ import annotations

import html
import re
from datetime import datetime
from typing import Any

import pytest
from flask import Flask

from flask_bitmapist import FlaskBitmapist, chart, mark_event
from flask_bitmapist.boards import COUNTING, SHARING, Chart, check_target
from flask_bitmapist.questions import REPORTS

NOW = datetime(2026, 11, 23, 14, 32)
QUESTIONS: dict[str, dict[str, Any]] = {
    "trend": {"event": "a"},
    "active_users": {"event": "a"},
    "trends": {"events": ["a", "b"]},
    "retention": {"cohort": "a", "returned": "a", "by": "day"},
    "conversion": {"steps": ["a", "b"], "within": 1},
    "adoption": {"feature": "a", "active": "a"},
}


@pytest.fixture
def app(app_with_pages: Flask) -> Flask:
    return app_with_pages


@pytest.mark.parametrize("report", [*COUNTING, *SHARING])
def test_a_target_is_drawn_and_told(app: Flask, at_now: None, report: str) -> None:
    for day in (20, 21, 22, 23):
        for event in ("a", "b"):
            mark_event(event, [*range(9)], now=NOW.replace(day=day))
    target = 0.25 if report in SHARING else 1234
    extension: FlaskBitmapist = app.extensions["bitmapist"]
    extension.board("Aims", [chart("Aim", report, target=target, **QUESTIONS[report])])
    page = app.test_client().get("/bitmapist/boards?board=Aims").text
    told = "target 25.0 %" if report in SHARING else "target 1,234"
    assert f">{told}</text>" in page
    assert f"; {told}</p>" in page
    (line,) = (part for part in page.split("<line ") if part.startswith('class="target"'))
    y = float(line.partition('y1="')[2].partition("%")[0])
    assert 0 <= y < 100


@pytest.mark.parametrize(
    ("report", "target", "told"),
    [
        ("trend", 1234, "target 1,234"),
        ("trends", 12.5, "target 12.5"),
        ("retention", 0.123456, "target 12.3456 %"),
        ("conversion", 0.25, "target 25 %"),
        ("conversion", 1 / 3, "target 33.333333 %"),
        ("trend", 1e10, "target 10,000,000,000"),
    ],
)
def test_the_page_of_the_chart_has_it_too_and_saves_it(
    app: Flask, at_now: None, report: str, target: float, told: str
) -> None:
    for day in (20, 21, 22, 23):
        for event in ("a", "b"):
            mark_event(event, [*range(9)], now=NOW.replace(day=day))
    extension: FlaskBitmapist = app.extensions["bitmapist"]
    extension.board("Aims", [chart("Aim", report, target=target, **QUESTIONS[report])])
    extension.may_save(lambda: True)
    client = app.test_client()
    board = client.get("/bitmapist/boards?board=Aims").text
    (address,) = re.findall(r'<h2 id="chart-1"><a href="([^"]*)"', board)
    page = client.get(html.unescape(address)).text
    assert f">{told}</text>" in page
    y = float(page.partition('class="target"')[2].partition('y1="')[2].partition("%")[0])
    assert 0 <= y < 100
    # Another question of the form keeps it, and what is saved has it.
    fields = dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', page))
    form = {name: html.unescape(value) for name, value in fields.items()}
    client.post("/bitmapist/boards", data={**form, "title": "Saved", "to": ""})
    told_again = client.get("/bitmapist/boards?format=json").get_json()
    (saved,) = told_again["questions"].values()
    assert saved["target"] == pytest.approx(target)


def test_a_share_of_the_active_is_no_target_of_people(app: Flask, at_now: None) -> None:
    mark_event("a", [1, 2])
    page = app.test_client().get("/bitmapist/trends?event=a&active=a&target=60").text
    assert ">target 60 %</text>" in page
    refused = app.test_client().get("/bitmapist/trends?event=a&active=a&target=600")
    assert refused.status_code == 400
    assert "The parameter target must be a number from 0 to 100, not" in refused.text


def test_without_a_target_there_is_no_line(app: Flask, at_now: None) -> None:
    mark_event("a", 1)
    extension: FlaskBitmapist = app.extensions["bitmapist"]
    extension.board("Plain", [chart("Plain", "trend", event="a")])
    assert "target" not in app.test_client().get("/bitmapist/boards?board=Plain").text


@pytest.mark.parametrize("report", sorted(REPORTS.keys() - {*COUNTING, *SHARING}))
def test_other_reports_have_no_axis_for_one(report: str) -> None:
    with pytest.raises(ValueError, match=f"{report} cannot have a target: trend, active_users,"):
        check_target(report, 7)


@pytest.mark.parametrize(
    ("report", "target"),
    [
        ("trend", -1),
        ("trend", "500"),
        ("trend", True),
        ("trend", float("nan")),
        ("trend", float("inf")),
        ("retention", 40),
        ("retention", -0.1),
    ],
)
def test_a_target_that_is_none_is_an_error(report: str, target: Any) -> None:
    with pytest.raises(ValueError, match=f"the target of {report} must be a"):
        chart("Aim", report, target=target, **QUESTIONS[report])


@pytest.mark.parametrize("target", [None, 500, 0.0, 12.5])
def test_a_target_is_kept_with_the_chart(target: float | None) -> None:
    made = chart("Aim", "trend", target=target, event="a")
    assert Chart.of_plain(made.plain) == made
    assert ("target" in made.plain) == (target is not None)
