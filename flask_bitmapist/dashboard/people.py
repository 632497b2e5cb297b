"""Who they are: the users behind any figure of any page, and in any segment."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode, urlsplit

from flask import Response, current_app, request, stream_with_context
from werkzeug.exceptions import BadRequest

from ..analytics import (
    People,
    Summary,
    csv_rows,
    csv_text,
    everyone_behind,
    people_behind,
    summaries,
)
from ..dimensions import flag_of
from ..questions import PeopleFigure, PeopleQuestion
from ..refusals import SERVER_ERRORS
from .addresses import SAFE
from .adoption import AdoptionPage
from .answers import download, empty
from .breakdown import BrokenDownPage
from .changes import ChangesPage
from .churned import ChurnedPage
from .compare import ComparePage
from .conversion import ConversionPage
from .funnel import FunnelPage
from .lifecycle import LifecyclePage
from .overlap import OverlapPage
from .page import ACTIVE, Behind, Page, Visit, attempt
from .query import Query, TypedSegment
from .ranged_page import RangedPage
from .rendering import render
from .retention import RetentionPage
from .saving import Saving
from .stickiness import StickinessPage
from .time_to_convert import TimeToConvertPage
from .trends import TrendsPage

logger = logging.getLogger("flask_bitmapist")

_PAGE, _DOWNLOAD = 50, 1_000
#: Of more people a download does not tell what is known of each: the server is asked for 50 bits of
#: each person, or more.
_MOST_KNOWN = 10_000
_BLANKS = "".join(map(chr, range(0x21)))
_MOST_PAGES = 4_000_000


class PeoplePage(RangedPage):
    """Who is in a segment, in one of the periods of a range."""

    endpoint = "people"
    template = "people"
    asks = PeopleQuestion
    usual_number = 1

    @classmethod
    def usual(cls, query: Query) -> Mapping[str, Any]:
        terms = query.terms
        return {"expression": next((term for term in (*ACTIVE, *terms) if term in terms), "")}

    def behind(self, query: Query) -> Behind:
        return Behind(f"match {self.where.text} {self.span}", PeopleFigure.of())

    @property
    def where(self) -> TypedSegment:
        """The segment, under the name that other pages use."""
        segment: TypedSegment = self["expression"]
        return segment


#: The report whose figure it is.
PAGES_WITH_PEOPLE: dict[str, type[Page]] = {
    page.endpoint: page
    for page in (
        PeoplePage,
        TrendsPage,
        RetentionPage,
        FunnelPage,
        TimeToConvertPage,
        ConversionPage,
        LifecyclePage,
        StickinessPage,
        ChurnedPage,
        AdoptionPage,
        OverlapPage,
        ChangesPage,
        ComparePage,
    )
}


class Person(NamedTuple):
    """A person, as the application names them."""

    id: int | str
    label: str
    #: Their page in the application; empty if there is none.
    url: str


class Listing(NamedTuple):
    """Which people are asked for."""

    page: Page
    behind: Behind
    #: Which page of them, from 1.
    number: int

    @classmethod
    def read(cls, visit: Visit) -> Self:
        """What `visit` asks.

        :raises BadRequest: as `Page.read`.
        """
        query = visit.query
        of = query.choice("of", [*PAGES_WITH_PEOPLE], "people")
        number = query.number("page", 1, 1, _MOST_PAGES)
        page = PAGES_WITH_PEOPLE[of].read(visit)
        behind = page.behind(query)
        if isinstance(page, BrokenDownPage):
            behind = page.in_part(behind, query)
        query.close()
        return cls(page, behind, number)


class Listed(NamedTuple):
    """People as a page lists them, with what is known of each of them now."""

    rows: list[tuple[Person, Summary]]
    #: Whether anything tells when they were last seen.
    has_seen: bool
    dimensions: list[str]
    has_flags: bool


def listed(ids: Sequence[int | str], now: datetime) -> Listed:
    """The people with these `ids`, as a page lists them."""
    call = UserLink()
    known = summaries(ids, ACTIVE, now=now)
    rows = [(call(one.id), one) for one in known.people]
    return Listed(rows, bool(known.seen), known.dimensions, any(one.flags for one in known.people))


def view() -> Response:
    """A page of the users behind a figure, or all of them as CSV; they can be kept as a flag."""
    visit = Visit.of_request()
    if visit.asks_nothing:
        return empty()
    query = visit.query
    page, behind, number = Listing.read(visit)
    if query.form == "csv":
        return _everyone(visit, page, behind)
    saving = Saving.of_form(visit, page, behind) if request.method == "POST" else Saving()
    limit = _PAGE if query.form == "html" else _DOWNLOAD
    first = limit * (number - 1)

    def people() -> tuple[People, Listed | None]:
        found = people_behind(behind.question or page.question, behind.figure, first, limit)
        return found, listed(found.ids, visit.now) if query.form == "html" else None

    answer, problem = attempt(page, people)
    report, shown = answer or (None, None)
    if query.form != "html":
        return download(report, problem, query.form)
    text = render(
        "people",
        as_of=visit.now,
        question=page,
        query=query,
        report=report,
        problem=problem,
        title=behind.title,
        listed=shown,
        saving=saving,
        first=first,
        page=number,
        pages=-(-report.users // limit) if report is not None else 0,
        up_to=page.up_to,
        # A download has other pages: it begins with the first.
        arguments={name: told for name, told in request.args.lists() if name != "page"},
        back=urlencode([*request.args.items(multi=True)], safe=SAFE),
    )
    return Response(text, 400 if problem else saving.status, mimetype="text/html")


def _everyone(visit: Visit, page: Page, behind: Behind) -> Response:
    """All users behind a figure as CSV."""

    def ask() -> tuple[int, Iterator[list[int | str]]]:
        question = behind.question or page.question
        number = people_behind(question, behind.figure, 0, 1).users
        return number, everyone_behind(question, behind.figure)

    answer, problem = attempt(page, ask)
    if answer is None:
        raise BadRequest(problem)
    number, lists = answer
    return as_csv(lists, visit, columns=number <= _MOST_KNOWN)


def as_csv(lists: Iterator[list[int | str]], visit: Visit, *, columns: bool = True) -> Response:
    """Users as CSV, streamed as they are read.

    :param columns: with what a page tells of each of them.
    """
    told = _Columns.of(visit) if columns else _Columns(UserLink(), visit.now)
    some = (ids[at : at + _DOWNLOAD] for ids in lists for at in range(0, len(ids), _DOWNLOAD))
    # The first are read now: a server that does not answer is a 503, not half a file.
    head = next(some, [])

    def lines() -> Iterator[str]:
        yield csv_text(told.header, [])
        sent = 0
        try:
            for rows in map(told.rows, chain([head], some)):
                yield csv_rows(rows)
                sent += len(rows)
        except SERVER_ERRORS as error:
            # The status is sent: what tells the reader is that the answer breaks off.
            logger.error("a download of people broke off after %d of them: %s", sent, error)
            raise

    return Response(stream_with_context(lines()), mimetype="text/csv")


class _Columns(NamedTuple):
    """What a download tells of each person: as a page, but told before the first is looked at."""

    call: UserLink
    now: datetime
    has_seen: bool = False
    dimensions: Sequence[str] = ()
    has_flags: bool = False

    @classmethod
    def of(cls, visit: Visit) -> Self:
        known = visit.query.known
        valued = {
            flag_of(dimension, value)
            for dimension, values in known.dimensions.items()
            for value in values
        }
        has_seen = any(event in known.events for event in ACTIVE)
        has_flags = bool(known.flags.keys() - valued)
        return cls(UserLink(), visit.now, has_seen, sorted(known.dimensions), has_flags)

    @property
    def header(self) -> list[str]:
        return [
            "id",
            *(["label"] if self.call.is_registered else []),
            *(["last_seen"] if self.has_seen else []),
            *self.dimensions,
            *(["flags"] if self.has_flags else []),
        ]

    def rows(self, ids: Sequence[int | str]) -> list[list[Any]]:
        """A row for each of so many users as one report may be about."""
        if not (self.has_seen or self.dimensions or self.has_flags):
            return [[id_, *self._label(id_)] for id_ in ids]
        return [
            [
                one.id,
                *self._label(one.id),
                *([_last_seen(one)] if self.has_seen else []),
                *(one.dimensions.get(dimension, "") for dimension in self.dimensions),
                *([" ".join(one.flags)] if self.has_flags else []),
            ]
            for one in summaries(ids, ACTIVE, now=self.now).people
        ]

    def _label(self, id_: int | str) -> list[str]:
        return [self.call(id_).label] if self.call.is_registered else []


def _last_seen(known: Summary) -> str:
    """The day, or the month if no more is known: 2026-10-31, 2026-10."""
    if known.last is None:
        return ""
    return f"{known.last:%Y-%m}" if known.last_by == "month" else known.last.isoformat()


class UserLink:
    """What the application calls people, for one request, whose first failure alone is logged."""

    def __init__(self) -> None:
        self._link = current_app.extensions["bitmapist"].user_link_of(current_app)
        self._has_failed = False

    @property
    def is_registered(self) -> bool:
        """Whether the application says anything."""
        return self._link is not None

    def __call__(self, id_: int | str) -> Person:
        """The user `id_`; called by the id if the application does not say."""
        if self._link is not None:
            try:
                told = current_app.ensure_sync(self._link)(id_)
                label, url = map(_text, told if isinstance(told, tuple) else (told, None))
                return Person(id_, label or str(id_), _safe(url))
            except Exception:
                self._log(id_)
        return Person(id_, str(id_), "")

    def _log(self, id_: int | str) -> None:
        if not self._has_failed:
            # A text id may be an e-mail address.
            called = id_ if isinstance(id_, int) else "of a text id"
            logger.exception("user_link failed for the user %s", called)
        self._has_failed = True
        logger.debug("user_link failed for the user %r", id_)


def _text(part: object) -> str:
    """A label or URL without lone surrogates, which cannot be sent."""
    return str(part or "").encode(errors="replace").decode()


def _safe(url: str) -> str:
    """`url`, unless following it could run a script."""
    # Browsers skip leading blanks and control characters.
    scheme = urlsplit(url.lstrip(_BLANKS)).scheme
    return url if scheme in ("", "http", "https", "mailto") else ""
