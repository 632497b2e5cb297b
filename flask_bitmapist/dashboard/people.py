"""Who they are: the users behind any figure of any page, and in any segment."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import ClassVar, NamedTuple, Self
from urllib.parse import urlsplit

from flask import Response, current_app, request

from ..analytics._people import people
from ..analytics._sets import People
from ..periods import Grain
from .compare import CompareQuestion
from .funnel import FunnelQuestion
from .lifecycle import LifecycleQuestion
from .page import ACTIVE, Behind, Question, attempt, download, empty, open_query, render, span
from .query import Query, Segment
from .retention import RetentionQuestion
from .stickiness import StickinessQuestion

logger = logging.getLogger("flask_bitmapist")

_PAGE, _DOWNLOAD = 50, 1_000
_BLANKS = "".join(map(chr, range(0x21)))
_MOST_PAGES = 4_000_000


@dataclass(frozen=True, slots=True)
class PeopleQuestion(Question):
    """Who is in a segment, in a period or in several that end with it."""

    template: ClassVar[str] = "people"
    endpoint: ClassVar[str] = "people"
    LONGEST: ClassVar[int] = 366

    where: Segment
    by: Grain
    rows: int
    end: date | None

    @classmethod
    def read(cls, query: Query) -> Self:
        terms = query.terms
        usual = next((term for term in (ACTIVE, *terms) if term in terms), "")
        return cls(
            where=query.segment(usual=usual),
            by=query.by("day"),
            rows=query.number("rows", 1, 1, cls.LONGEST),
            end=query.day("end"),
        )

    def report(self) -> People:
        return people(self.where.text, self.by, self.end, rolling=self.rows)

    def behind(self, query: Query) -> Behind:
        found = partial(people, self.where.text, self.by, self.end, rolling=self.rows)
        return Behind(f"match {self.where.text} {span(self.by, self.end, self.rows)}", found)


#: Whose figure is asked for.
QUESTIONS: dict[str, type[Question]] = {
    question.endpoint: question
    for question in (
        PeopleQuestion,
        RetentionQuestion,
        FunnelQuestion,
        LifecycleQuestion,
        StickinessQuestion,
        CompareQuestion,
    )
}


class Person(NamedTuple):
    """Someone, as the application calls them."""

    id: int | str
    label: str
    #: Their page in the application; empty if there is none.
    url: str


def view() -> Response:
    """A page of the users behind a figure."""
    query = open_query()
    if query is None:
        return empty()
    of = query.choice("of", [*QUESTIONS], "people")
    page = query.number("page", 1, 1, _MOST_PAGES)
    question = QUESTIONS[of].read(query)
    behind = question.behind(query)
    query.close()
    limit = _PAGE if query.form == "html" else _DOWNLOAD
    people_of = partial(behind.people, first=limit * (page - 1), limit=limit)
    report, problem = attempt(question, people_of)
    if query.form != "html":
        return download(report, problem, query.form)
    text = render(
        "people",
        question=question,
        query=query,
        report=report,
        problem=problem,
        title=behind.title,
        people=[person(id_) for id_ in report.ids] if report is not None else [],
        first=limit * (page - 1),
        page=page,
        pages=-(-report.users // limit) if report is not None else 0,
        # A download has larger pages: it begins with the first.
        arguments={name: told for name, told in request.args.lists() if name != "page"},
    )
    return Response(text, 400 if problem else 200, mimetype="text/html")


def person(id_: int | str) -> Person:
    """How the application's `user_link` calls the user `id_`; by the id if it does not say."""
    link = current_app.extensions["bitmapist"].user_link_of(current_app)
    if link is not None:
        try:
            told = current_app.ensure_sync(link)(id_)
            label, url = map(_text, told if isinstance(told, tuple) else (told, None))
            return Person(id_, label or str(id_), _safe(url))
        except Exception:
            logger.exception("user_link failed for the user %r", id_)
    return Person(id_, str(id_), "")


def _text(part: object) -> str:
    """A label or address as text that can be sent: lone surrogates cannot."""
    return str(part or "").encode(errors="replace").decode()


def _safe(url: str) -> str:
    """`url`, unless following it could run a script."""
    # Browsers skip leading blanks and control characters.
    scheme = urlsplit(url.lstrip(_BLANKS)).scheme
    return url if scheme in ("", "http", "https", "mailto") else ""
