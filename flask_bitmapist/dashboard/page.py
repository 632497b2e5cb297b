"""Pages: a question, its report, and the template, JSON or CSV in which it is answered.

Templates are rendered apart from the application's Jinja environment. There autoescaping may be off
and delimiters changed, its template names may be ours, and its context processors may fail or query
a database.
"""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import date
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

from flask import Response, current_app, request, url_for
from jinja2 import Environment, PackageLoader, StrictUndefined
from werkzeug.exceptions import BadRequest
from werkzeug.urls import iri_to_uri

from ..current import current_tracker
from ..periods import Grain, Period, local
from ..reading.segments import Event, Flag
from ..reading.time_limit import time_limit
from ..reading.unknown import UnknownTermError
from ..registry import Catalogue, Known
from . import drawing
from .query import BY, JOINTS, Query, Segment

if TYPE_CHECKING:
    from ..analytics._report import Report
    from ..analytics._sets import People
    from ..tracker import Tracker

_Answer = TypeVar("_Answer")

logger = logging.getLogger("flask_bitmapist")

#: Seconds for which anybody waits for a page, and for which one keeps the server busy.
_LONGEST_WAIT = 5
#: More are not even asked for.
_MOST_BITMAPS = 50_000
#: The names that a picker lists; several pickers of more would be megabytes.
_MOST_OPTIONS = 500
#: The periods of a question that does not say how many: a calendar month's days.
_LONGEST_WINDOW = 31
#: The event that tells who is active, if it is recorded.
ACTIVE = "user:logged_in"
#: The pages in the order of the navigation: endpoint, name.
NAVIGATION = (
    ("index", "Overview"),
    ("cohort", "Retention"),
    ("funnel", "Funnel"),
    ("lifecycle", "Lifecycle"),
    ("stickiness", "Stickiness"),
    ("compare", "Compare"),
    ("people", "People"),
)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("flask_bitmapist.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        url_for=url_for,
        navigation=NAVIGATION,
        grains=BY,
        joints=[*JOINTS],
        most_options=_MOST_OPTIONS,
        segment_of=lambda event: str(Event(event)),
        flag_of=lambda flag: str(Flag(flag)),
        vendored=json.loads(
            (files(__package__) / "static/vendor/vendored.json").read_text("utf-8")
        ),
        full_label=drawing.full_label,
        heat=drawing.heat,
        label=drawing.label,
        periods=drawing.periods,
        sparkline=drawing.sparkline,
    )
    environment.filters.update(
        thousands=drawing.thousands,
        percent=drawing.percent,
        short=drawing.short,
        tick_percent=drawing.tick_percent,
        pairs=lambda values: [(value, value) for value in values],
    )
    return environment


def render(name: str, **values: Any) -> str:
    """The page from ``templates/bitmapist/<name>.html``."""
    template = _environment().get_template(f"bitmapist/{name}.html")
    tracker = current_tracker()
    return template.render(
        timezone=tracker.settings.timezone,
        as_of=tracker.now(),
        waiting=_waiting(tracker),
        **values,
    )


def _waiting(tracker: Tracker) -> Mapping[str, int]:
    """The marks that the server does not take, by why: sentence -> how many."""
    spool = tracker.settings.spool
    # Without the file there are none, and a process that only reads does not load the spool.
    return tracker.stats().waiting if spool is not None and spool.exists() else {}


class Question(ABC):
    """What a page asks: a frozen dataclass whose fields are the page's query string."""

    #: The page's template.
    template: ClassVar[str]
    #: The page's endpoint.
    endpoint: ClassVar[str]

    @classmethod
    @abstractmethod
    def read(cls, query: Query) -> Self:
        """The question of `query`.

        :raises BadRequest: with a sentence on the first parameter that cannot be used.
        """

    @abstractmethod
    def report(self) -> Report:
        """The answer.

        :raises ValueError: for a question that makes no sense, with a sentence.
        """

    @abstractmethod
    def behind(self, query: Query) -> Behind:
        """The users behind one of the report's figures, which `query` names.

        :raises BadRequest: as `read`.
        """

    @property
    def arguments(self) -> dict[str, Any]:
        """The query string that asks this question."""
        told = {name: _told(value) for name, value in self._fields().items()}
        return {name: text for name, text in told.items() if text not in (None, "", [])}

    @property
    def segments(self) -> dict[str, Segment]:
        """Every segment in it, by what the page calls it."""
        found = {}
        for name, value in self._fields().items():
            if isinstance(value, Segment):
                found["The segment"] = value
            elif isinstance(value, list):
                found |= {
                    f"{name.capitalize()} {number}": one
                    for number, one in enumerate(value, start=1)
                    if isinstance(one, Segment)
                }
        return found

    @property
    def bitmaps(self) -> int:
        """Of how many bitmaps its segments are put together, over all periods, at most."""
        asked = self.arguments
        period = last_period(asked["by"], None)
        expressions = (segment.expression for segment in self.segments.values())
        names = sum(len([*one.keys(period)]) for one in expressions if one is not None)
        return names * int(asked.get("rows", _LONGEST_WINDOW))

    def _fields(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


def _told(value: Any) -> Any:
    """A field's value as it stands in a query string."""
    match value:
        case Segment(text=text):
            return text
        case date():
            return value.isoformat()
        case list():
            return [_told(one) for one in value]
    return value


class Behind(NamedTuple):
    """The users behind a figure."""

    #: Who they are, as a sentence without its full stop.
    title: str
    #: Gives a page of them: ``people(first=, limit=)``.
    people: Callable[..., People]


def view(question: type[Question]) -> Response:
    """Answer the request as a page, as JSON or as CSV.

    A segment that is none, and a question that makes no sense, are shown on the page itself, where
    they can be mended.
    """
    query = open_query()
    if query is None or not (query.catalogue.events or request.args):
        return empty()
    asked = question.read(query)
    query.close()
    report, problem = attempt(asked, asked.report)
    if query.form != "html":
        return download(report, problem, query.form)
    page = render(question.template, question=asked, query=query, report=report, problem=problem)
    return Response(page, 400 if problem else 200, mimetype="text/html")


def query_of_request() -> Query:
    """What the request asks for."""
    tracker = current_tracker()
    foreign: dict[str, Any] = {}
    current_app.inject_url_defaults(str(request.endpoint), foreign)
    return Query(request.args, tracker.reader.known(), tracker.now().date(), foreign)


def open_query() -> Query | None:
    """The same; None if it asks nothing in particular, and there is nothing to show."""
    query = query_of_request()
    return query if request.args or any(query.catalogue) else None


def attempt(question: Question, ask: Callable[[], _Answer]) -> tuple[_Answer | None, str]:
    """What `ask` reports, or None and why the question makes no sense."""
    for name, segment in question.segments.items():
        if isinstance(segment.error, UnknownTermError):
            return None, f"{name}: {segment.error.reason}"
        if segment.error:
            return None, f"{name} cannot be read: see where it is marked."
    if question.bitmaps > _MOST_BITMAPS:
        return None, (
            f"The segments would be put together from {question.bitmaps:,} bitmaps, more than "
            f"{_MOST_BITMAPS:,}: take fewer periods, or fewer names."
        )
    return in_time(ask)


def in_time(ask: Callable[[], _Answer]) -> tuple[_Answer | None, str]:
    """What `ask` reports, or None and why it cannot be answered, or not in time."""
    try:
        with time_limit(_LONGEST_WAIT):
            return ask(), ""
    except ValueError as error:
        return None, str(error)


def of_one_kind(known: Known) -> Catalogue:
    """Those events and flags whose ids are of the same kind as those of the active users."""
    (events, flags), spaces = known.catalogue, known.spaces
    users = spaces.get(ACTIVE if ACTIVE in events else (events or flags or [""])[0])
    return Catalogue(
        [event for event in events if spaces[event] == users],
        [flag for flag in flags if spaces[flag] == users],
    )


def empty() -> Response:
    """Nothing has been recorded: what to paste where.

    The page asks again by itself, and stays as it is while there is nothing new: what somebody has
    selected, to copy it, stays selected.
    """
    if request.headers.get("HX-Trigger") == "main":
        return Response(status=204)
    return Response(render("empty"), mimetype="text/html")


def first_period(by: Grain, end: date | None, rows: int) -> Period:
    """The first of the so many periods of a page's range."""
    return last_period(by, end).shift(1 - rows)


def span(by: Grain, end: date | None, rows: int) -> str:
    """A page's range as an adverb: in the 30 days up to 23 Nov 2026."""
    last = last_period(by, end).start
    if rows == 1:
        return drawing.when(last, by)
    return f"in the {drawing.periods(rows, by)} up to {drawing.full_label(last, by)}"


def last_period(by: Grain, end: date | None) -> Period:
    """The last period of a page's range: that of `end`, or of now."""
    tracker = current_tracker()
    zone = tracker.settings.timezone
    return Period.containing(by, tracker.now() if end is None else local(end, zone), zone)


def download(report: Report | None, problem: str, form: str) -> Response:
    """`report` as ``json`` or ``csv``.

    :raises BadRequest: with the `problem`, if there is no report.
    """
    if report is None:
        raise BadRequest(problem)
    if form == "json":
        return Response(json.dumps(report.to_dict()), mimetype="application/json")
    return Response(report.to_csv(), mimetype="text/csv")


def bad_request(error: BadRequest) -> Response:
    """A query that cannot be answered, with the sentence that says why."""
    page = str(request.endpoint)
    # Without an id it cannot be shown either.
    url = url_for("bitmapist.people" if page == "bitmapist.person" else page)
    return _message("That cannot be shown", str(error.description), 400, url, "Ask anew")


def no_answer(error: Exception) -> Response:
    """Redis did not answer, or refused a command; what it said goes to the log, not to the page."""
    logger.error("the dashboard cannot read from Redis: %s", error)
    refused = current_tracker().server.explain(error)
    sentence = (
        f"{refused}."
        if refused
        else "Redis did not answer, so there are no figures now. The application's log says why."
    )
    asked = urlsplit(iri_to_uri(request.url))
    again = f"{asked.path}?{asked.query}"
    return _message("No figures at the moment", sentence, 503, again, "Try again")


def _message(title: str, sentence: str, status: int, url: str, link: str) -> Response:
    """A sentence, in the form that was asked for; as text for what is no page.

    :param url: where the page leads on.
    :param link: what the link to it says.
    """
    if request.args.get("format") == "json":
        return Response(json.dumps({"error": sentence}), status, mimetype="application/json")
    if request.args.get("format") == "csv":
        return Response(sentence, status, mimetype="text/plain")
    endpoint = str(request.endpoint).rpartition(".")[2]
    page = render("message", title=title, text=sentence, endpoint=endpoint, link=link, url=url)
    return Response(page, status, mimetype="text/html")
