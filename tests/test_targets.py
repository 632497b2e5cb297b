"""The targets of a board's charts: which charts have one, and how it is kept and drawn."""

from __future__ import annotations

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
