"""What the forms of those who may save do: save a question, and change or delete what is saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import BadRequest

from ..boards import Board, Chart
from ..current import current_tracker
from ..saved import Thing, add_chart, change, delete, save
from .addresses import url_for
from .page import Visit, sentence_of
from .people import PAGES_WITH_PEOPLE
from .query import Query
from .target_page import TargetPage


def act(visit: Visit, form: Mapping[str, str]) -> str:
    """Do what `form` asks; the address of the page to show next.

    :raises BadRequest: with a sentence, if it cannot be done.
    """
    action = _ACTIONS.get(form.get("action", ""))
    if action is None:
        raise BadRequest(f"The parameter action must be one of {', '.join(_ACTIONS)}.")
    # Of the server that takes marks: the one that reports are read from may be a replica of it.
    client = current_tracker().server.patient
    try:
        id_ = action(visit, client, form)
    except ValueError as error:
        raise BadRequest(sentence_of(error)) from error
    return url_for("bitmapist.boards", saved=id_ or None)


def _save(visit: Visit, client: Any, form: Mapping[str, str]) -> str:
    chart = _chart(visit, form)
    board = form.get("to", "")
    if not board:
        save(client, chart)
        return ""
    if board == "new":
        return save(client, Board(form.get("name", "").strip(), (chart,)))
    add_chart(client, board, chart)
    return board


def _chart(visit: Visit, form: Mapping[str, str]) -> Chart:
    """The question of a page, under a title."""
    page = PAGES_WITH_PEOPLE.get(form.get("page", ""))
    if page is None:
        raise BadRequest("The parameter page must be the name of a report's page.")
    args = MultiDict(parse_qsl(form.get("asked", "")))
    query = Query(args, visit.query.known, visit.now.date())
    asked = page.read(Visit(visit.now, query))
    if not asked.report_name or asked.problem:
        raise BadRequest(asked.problem or "That is no question for a board.")
    # Without `now`: what is saved is asked anew each time.
    question = type(asked.question).of_plain(asked.question.plain)
    target = asked.target_of_chart if isinstance(asked, TargetPage) else None
    return Chart(form.get("title", "").strip(), asked.report_name, question, target)


def _rename(visit: Visit, client: Any, form: Mapping[str, str]) -> str:
    def renamed(thing: Thing) -> Thing:
        return Board(form.get("name", "").strip(), _board(thing).charts)

    change(client, form.get("id", ""), renamed)
    return form["id"]


def _remove(visit: Visit, client: Any, form: Mapping[str, str]) -> str:
    """Take a chart off a board, unless others have moved it meanwhile."""
    number = form.get("number", "")

    def without(thing: Thing) -> Thing:
        board = _board(thing)
        for index, chart in enumerate(board.charts):
            if str(index) == number and chart.title == form.get("title"):
                return Board(board.name, board.charts[:index] + board.charts[index + 1 :])
        raise ValueError("somebody else has changed the board meanwhile: look at it again")

    change(client, form.get("id", ""), without)
    return form["id"]


def _delete(visit: Visit, client: Any, form: Mapping[str, str]) -> str:
    delete(client, form.get("id", ""))
    return ""


def _board(thing: Thing) -> Board:
    if not isinstance(thing, Board):
        raise ValueError(f"{thing.title!r} is a question, not a board")
    return thing


#: Each returns the id of the board to show; '' is the list.
_ACTIONS: Mapping[str, Callable[[Visit, Any, Mapping[str, str]], str]] = {
    "save": _save,
    "rename": _rename,
    "remove": _remove,
    "delete": _delete,
}
