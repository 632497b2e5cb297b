"""Boards: charts on one page, each in the room of a card; and the list of all boards."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from flask import Response, current_app
from redis import ResponseError
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import BadRequest

from ..analytics import Report, answer
from ..analytics._report import USUAL_LENGTH
from ..boards import Board, Chart
from ..current import current_tracker
from ..questions import ActiveUsersQuestion, Question
from ..questions.fields import declared
from .addresses import url_for
from .page import Page, Visit, in_time
from .people import PAGES_WITH_PEOPLE
from .query import Query
from .rendering import render
from .small import Small, small

#: The most seconds that a board may take. A chart may take its part of what is left.
_LONGEST_WAIT = 10


class Card(NamedTuple):
    """A chart of a board, answered."""

    chart: Chart
    #: The address of its page; empty if no page asks this question.
    url: str
    report: Report | None
    #: Why it could not be answered; empty if it was.
    problem: str

    @property
    def small(self) -> Small | None:
        return None if self.report is None else small(self.chart.question, self.report)

    def to_dict(self) -> dict[str, Any]:
        """The chart with its answer, as JSON has it."""
        told = {"error": self.problem} if self.report is None else {"answer": self.report.to_dict()}
        return {**self.chart.plain, **told}


def view() -> Response:
    """The list of boards; or one of them."""
    visit = Visit.of_request()
    query = visit.query
    name = query.text("board")
    query.close()
    if query.form == "csv":
        raise BadRequest("A board is several tables: open one of its charts to download it as CSV.")
    boards = _declared()
    if not name:
        return _list(visit, boards)
    if name not in boards:
        raise BadRequest(f"There is no board {name!r}.")
    return _shown(visit, boards[name])


def _declared() -> dict[str, Board]:
    boards: dict[str, Board]
    boards = current_app.extensions["bitmapist"].boards_of(current_app)
    return boards


def _list(visit: Visit, boards: dict[str, Board]) -> Response:
    if visit.query.form == "json":
        told = {"boards": [board.plain for board in boards.values()]}
        return Response(json.dumps(told), mimetype="application/json")
    text = render("boards", as_of=visit.now, boards=boards.values())
    return Response(text, mimetype="text/html")


def _shown(visit: Visit, board: Board) -> Response:
    cards = [*_cards(visit, board)]
    if visit.query.form == "json":
        told = {"name": board.name, "charts": [card.to_dict() for card in cards]}
        told = current_tracker().server.with_replica(told)
        return Response(json.dumps(told), mimetype="application/json")
    text = render("board", as_of=visit.now, board=board, cards=cards, boards=_declared().values())
    return Response(text, mimetype="text/html")


def _cards(visit: Visit, board: Board) -> Iterator[Card]:
    """The charts of `board`, each answered as of the same moment, or with what is wrong with it."""
    ends = time.monotonic() + _LONGEST_WAIT
    for number, chart in enumerate(board.charts):
        question = replace(chart.question, now=visit.now)
        left = max(ends - time.monotonic(), 0) / (len(board.charts) - number)
        try:
            report, problem = in_time(partial(answer, question), left)
        except ResponseError as error:
            # The server refuses a command of this chart; if it does not answer, no chart has one.
            refused = current_tracker().server.explain(error)
            report, problem = None, f"{refused or 'Redis refused a command'}."
        yield Card(chart, address_of(chart.question, visit), report, problem)


def address_of(question: Question, visit: Visit) -> str:
    """The address of the page that asks `question`; empty if none can."""
    if isinstance(question, ActiveUsersQuestion):
        # The overview has them over 90 days.
        shown = {name: question.arguments.get(name) for name in ("event", "where")}
        return url_for("bitmapist.index", **shown)
    page = next((one for one in PAGES_WITH_PEOPLE.values() if one.asks is type(question)), None)
    if page is None or not _offers(page, question):
        return ""
    told = _told(page, question)
    query = Query(MultiDict(told), visit.query.known, visit.now.date())
    try:
        asked = page.read(Visit(visit.now, query))
    except BadRequest:
        return ""
    return "" if asked.problem else url_for(f"bitmapist.{page.endpoint}", **told)


def _offers(page: type[Page], question: Question) -> bool:
    """Whether the form of `page` has all fields that `question` gives."""
    offered = {field.name for field in page.fields()}
    given = {field.name for field in declared(question) if field.spelt in question.arguments}
    return given <= offered


def _told(page: type[Page], question: Any) -> dict[str, Any]:
    """The query string of `page`; also what has the question's default, as the page has others."""
    told: dict[str, Any] = {}
    for field in page.fields():
        value = getattr(question, field.name)
        if field.name == "rows" and question.over is question.start is value is None:
            value = USUAL_LENGTH[question.by]
        if value is not None:
            told[field.spelt] = field.kind.spelt(value)
    return told
