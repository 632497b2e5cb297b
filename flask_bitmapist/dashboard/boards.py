"""Boards: charts on one page, each in the room of a card; and the list of all that is saved."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from shlex import quote
from typing import Any, NamedTuple

from flask import Response, current_app, request
from redis import ResponseError
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import BadRequest

from ..analytics import Report, answer
from ..analytics._report import USUAL_LENGTH
from ..annotations import Annotation
from ..boards import SHARING, Board, Chart
from ..current import current_tracker
from ..questions import ActiveUsersQuestion, Question, TrendQuestion, TrendsQuestion
from ..questions.fields import declared
from ..saved import Saved, saved
from .addresses import url_for
from .board_forms import act
from .notes import all_annotations, with_annotations
from .page import Page, Visit, in_time
from .people import PAGES_WITH_PEOPLE
from .query import Query
from .rendering import render
from .small import Small, by_of, small
from .target_page import TargetPage, spelt

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
    annotations: Sequence[Annotation]

    @property
    def small(self) -> Small | None:
        if self.report is None:
            return None
        return small(self.chart.question, self.report, self.annotations, self.chart.target)

    def to_dict(self) -> dict[str, Any]:
        """The chart with its answer, as JSON has it."""
        if self.report is None:
            return {**self.chart.plain, "error": self.problem}
        by = by_of(self.chart.question)
        told = with_annotations(self.report, by, self.annotations)
        return {**self.chart.plain, "answer": told}


@dataclass(frozen=True, slots=True)
class Boards:
    """All boards: those of the application, by name, and what has been saved."""

    declared: Mapping[str, Board]
    saved: Saved

    @classmethod
    def of_application(cls) -> Boards:
        """Those of the current application."""
        return cls(
            current_app.extensions["bitmapist"].boards_of(current_app),
            saved(current_tracker().reader.redis),
        )

    def to_dict(self) -> dict[str, Any]:
        """All of them, as JSON has them."""
        return {
            "boards": [board.plain for board in self.declared.values()],
            "saved": {id_: board.plain for id_, board in self.saved.boards.items()},
            "questions": {id_: one.plain for id_, one in self.saved.questions.items()},
        }


def view() -> Response:
    """The list of boards; or one of them."""
    visit = Visit.of_request()
    if request.method == "POST":
        return Response(status=303, headers={"Location": act(visit, request.form)})
    query = visit.query
    name, id_ = query.text("board"), query.text("saved")
    query.close()
    if query.form == "csv":
        raise BadRequest("A board is several tables: open one of its charts to download it as CSV.")
    boards = Boards.of_application()
    if id_:
        if id_ not in boards.saved.boards:
            raise BadRequest("That board is no longer there.")
        return _shown(visit, boards, boards.saved.boards[id_], id_)
    if name:
        if name not in boards.declared:
            raise BadRequest(f"There is no board {name!r}.")
        return _shown(visit, boards, boards.declared[name])
    return _listed(visit, boards)


def _listed(visit: Visit, boards: Boards) -> Response:
    if visit.query.form == "json":
        return Response(json.dumps(boards.to_dict()), mimetype="application/json")
    questions = [
        (id_, chart, address_of(chart, visit)) for id_, chart in boards.saved.questions.items()
    ]
    text = render("boards", as_of=visit.now, boards=boards, questions=questions)
    return Response(text, mimetype="text/html")


def _shown(visit: Visit, boards: Boards, board: Board, id_: str = "") -> Response:
    """:param id_: that of a saved board."""
    answered = [*cards(visit, board)]
    if visit.query.form == "json":
        told = {"name": board.name, "charts": [card.to_dict() for card in answered]}
        told = current_tracker().server.with_replica(told)
        return Response(json.dumps(told), mimetype="application/json")
    text = render(
        "board",
        as_of=visit.now,
        boards=boards,
        board=board,
        id=id_,
        cards=answered,
        crontab=_crontab(board),
    )
    return Response(text, mimetype="text/html")


def _crontab(board: Board) -> str:
    """The line of a crontab that has the board sent every Monday."""
    name, url = (quote(text).replace("%", r"\%") for text in (board.name, request.url_root))
    sent = f"digest {name} --url {url} --to team@example.com | /usr/sbin/sendmail -t"
    return f"0 7 * * 1  cd /srv/app && .venv/bin/flask --app app bitmapist {sent}"


def cards(visit: Visit, board: Board) -> Iterator[Card]:
    """The charts of `board`, each answered as of the same moment, or with what is wrong with it."""
    noted = all_annotations()
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
        yield Card(chart, address_of(chart, visit), report, problem, noted)


def address_of(chart: Chart, visit: Visit) -> str:
    """The address of the page that asks the question of `chart`; empty if none can."""
    question = chart.question
    if "bitmapist" not in current_app.blueprints:
        return ""  # a digest needs no dashboard
    if isinstance(question, ActiveUsersQuestion):
        # The overview has them over 90 days.
        shown = {name: question.arguments.get(name) for name in ("event", "where")}
        return url_for("bitmapist.index", **shown)
    if isinstance(question, TrendQuestion):
        question = _as_trends(question)
    page = next((one for one in PAGES_WITH_PEOPLE.values() if one.asks is type(question)), None)
    if page is None or not _offers(page, question):
        return ""
    told = {**_told(page, question), **_target(chart, page)}
    query = Query(MultiDict(told), visit.query.known, visit.now.date())
    try:
        asked = page.read(Visit(visit.now, query))
    except BadRequest:
        return ""
    return "" if asked.problem else url_for(f"bitmapist.{page.endpoint}", **told)


def _target(chart: Chart, page: type[Page]) -> dict[str, str]:
    """What the query string of `page` has of the target of `chart`."""
    if chart.target is None or not issubclass(page, TargetPage):
        return {}
    if getattr(chart.question, "active", None) is not None:
        return {}  # the page shows shares
    return spelt(100 * chart.target if chart.report in SHARING else chart.target)


def _as_trends(question: TrendQuestion) -> TrendsQuestion:
    """The same question, as the page of trends asks it."""
    asked = {each.name: getattr(question, each.name) for each in declared(question)}
    return TrendsQuestion.of(events=[asked.pop("event")], **asked)


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
            value = question.usual or USUAL_LENGTH[question.by]
        if value is not None:
            told[field.spelt] = field.kind.spelt(value)
    return told
