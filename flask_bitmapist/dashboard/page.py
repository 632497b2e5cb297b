"""The page of a report: what a request asks, the question made from it, and the answer."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

from flask import Response, current_app, request
from werkzeug.datastructures import MultiDict

from ..analytics import answer, time_limit
from ..current import current_tracker
from ..ids import PLAIN
from ..periods import Grain, Period, local
from ..questions import REPORTS, Figure, Question
from ..questions.fields import Declared, Did, Segment, Several, Values, Window, declared
from ..reading.segments import AsOf, Event, months_of
from ..reading.unknown import NotDatedError, UnknownTermError
from ..registry import Catalogue, Known
from . import drawing
from .answers import download, empty
from .query import BY, Query, TypedSegment
from .rendering import render

_Answer = TypeVar("_Answer")

#: The most seconds that a page may take, and keep the server busy.
_LONGEST_WAIT = 5
#: A question that combines more bitmaps is refused.
_MOST_BITMAPS = 50_000
#: The number of periods if a question does not say: a calendar month's days.
_LONGEST_WINDOW = 31
#: The events that can count as active, best first.
ACTIVE = ("user:seen", "user:logged_in")


class Visit(NamedTuple):
    """One request: the clock and the registry are read once for it."""

    now: datetime
    query: Query

    @classmethod
    def of_request(cls) -> Self:
        tracker = current_tracker()
        now = tracker.now()
        foreign: dict[str, Any] = {}
        current_app.inject_url_defaults(str(request.endpoint), foreign)
        return cls(now, Query(request.args, tracker.reader.known(), now.date(), foreign))

    def asking(self, args: MultiDict[str, str]) -> Self:
        """The same visit, had it asked `args`."""
        return self._replace(query=self.query.asking(args))

    @property
    def asks_nothing(self) -> bool:
        """Whether it asks for nothing in particular and there is nothing to show."""
        return not (request.args or any(self.query.catalogue))

    def period(self, by: Grain, at: date | None) -> Period:
        """The period of `at`; None is now."""
        zone = current_tracker().settings.timezone
        return Period.containing(by, self.now if at is None else local(at, zone), zone)


class Page(ABC):
    """The form of a report in one request: the fields of its question, as typed."""

    #: The page's endpoint.
    endpoint: ClassVar[str]
    #: The page's template.
    template: ClassVar[str]
    #: The class of its question.
    asks: ClassVar[type[Question]]
    #: The largest number that a page allows, by field.
    most: ClassVar[Mapping[str, int]] = {}
    #: The choices that the page offers, by field.
    offered: ClassVar[Mapping[str, Sequence[str]]] = {"by": BY}

    def __init__(self, visit: Visit, values: Mapping[str, Any]) -> None:
        self.visit = visit
        self.values = values

    @classmethod
    def read(cls, visit: Visit) -> Self:
        """What `visit` asks.

        :raises BadRequest: with a sentence on the first parameter that cannot be used.
        """
        usual = cls.usual(visit.query)
        return cls(
            visit,
            {
                field.name: visit.query.field(
                    field,
                    usual.get(field.name, () if isinstance(field.kind, Did) else field.usual),
                    cls.most.get(field.name),
                    cls.offered.get(field.name),
                )
                for field in cls.fields()
            },
        )

    @classmethod
    def fields(cls) -> list[Declared]:
        """The fields of its form."""
        return [field for field in declared(cls.asks) if field.told]

    @classmethod
    @abstractmethod
    def usual(cls, query: Query) -> Mapping[str, Any]:
        """This page's defaults, where the question has others or none."""

    @abstractmethod
    def behind(self, query: Query) -> Behind:
        """The figure that `query` names, and who is behind it, in words.

        :raises BadRequest: as `read`.
        """

    def __getitem__(self, name: str) -> Any:
        """The value of a field; templates write ``q.cohort``."""
        return self.values[name]

    @cached_property
    def question(self) -> Question:
        """The question made from the form.

        :raises ValueError: if it makes no sense.
        """
        return self.asks.of(**self._typed_values(), now=self.visit.now)

    def _typed_values(self) -> Mapping[str, Any]:
        """The fields of the question."""
        return {field.name: _typed(field, self[field.name]) for field in self.fields()}

    def report(self) -> Any:
        """The answer.

        :raises ValueError: if the question makes no sense, with a sentence that says why.
        """
        return answer(self.question)

    @property
    def report_name(self) -> str:
        """The report that a chart of this question has; empty if it can be none."""
        return next((name for name, kind in REPORTS.items() if kind is self.asks), "")

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The query string that asks the same question."""
        told = {field.spelt: _spelt(self[field.name]) for field in self.fields()}
        return {name: text for name, text in told.items() if text not in (None, "", [])}

    @property
    def segments(self) -> dict[str, TypedSegment]:
        """Every segment in it, by the page's name for it."""
        found = {}
        for field in self.fields():
            value = self[field.name]
            if isinstance(value, TypedSegment):
                found["The segment"] = value
            elif isinstance(value, list):
                found |= {
                    f"{field.spelt.capitalize()} {number}": one
                    for number, one in enumerate(value, start=1)
                    if isinstance(one, TypedSegment)
                }
        return found

    @property
    def bitmaps(self) -> int:
        """At most how many bitmaps its segments combine, over all periods.

        :raises ValueError: for a range of time of too many periods.
        """
        period, combined = self.visit.period(self["by"], None), 0
        rows, known = self.number_of_periods, self.visit.query.known
        first_days = {name: event.first_day for name, event in known.events.items()}
        months = months_of(known.dimensions, known.dimensions, known.dated, self.visit.now)
        when = AsOf(self.visit.now, current_tracker().settings, first_days, months)
        for segment in self.segments.values():
            for leaf in segment.expression.as_of(when).leaves() if segment.expression else ():
                # That of no period reads all months of a value, as that of a period long ago does.
                keys = len([*leaf.keys(None if leaf.is_flag else period)])
                # What is the same in every period is put together once, and so are months.
                combined += keys + rows if leaf.is_flag or not leaf.is_dated else keys * rows
        return combined

    @property
    def number_of_periods(self) -> int:
        """At most how many periods it is about."""
        return _LONGEST_WINDOW

    @property
    def problem(self) -> str:
        """Why the form's question cannot be asked; empty if it can."""
        for name, segment in self.segments.items():
            if isinstance(segment.error, UnknownTermError | NotDatedError):
                return f"{name}: {segment.error.reason}"
            if segment.error:
                return f"{name} cannot be read: see where it is marked."
        try:
            bitmaps = self.bitmaps
        except ValueError as error:
            return sentence_of(error)
        if bitmaps > _MOST_BITMAPS:
            return (
                f"The segments would be put together from {bitmaps:,} bitmaps, more than "
                f"{_MOST_BITMAPS:,}: take fewer periods, or fewer names."
            )
        return ""

    @property
    def last(self) -> date | None:
        """A day of the last period that is shown; None: the present one."""
        day: date | None = self.values.get("end") or self.values.get("at")
        return day

    @property
    def up_to(self) -> str:
        """The name of the last period that is shown; empty if it is the present one."""
        by: Grain = self["by"]
        last = self.visit.period(by, self.last).start
        return "" if last == self.visit.period(by, None).start else drawing.full_label(last, by)


class Behind(NamedTuple):
    """The people behind a figure."""

    #: Who they are: a sentence without its full stop.
    title: str
    figure: Figure
    #: The question whose figure it is; None: the page's own.
    question: Question | None = None


def _typed(field: Declared, value: Any) -> Any:
    """A form's value in the form that a question takes."""
    match field.kind, value:
        case Values(), list():
            return [one.expression or one.text for one in value] or None
        case Several(), list():
            return [_typed(replace(field, kind=field.kind.kind), one) for one in value]
        case Did(), str():
            return Event(value) if value else None
        case Segment(), TypedSegment():
            # If a segment is required, the question says what is wrong with an empty one.
            return value.expression if field.usual is None else value.expression or value.text
        case Window(), str() if value.isdecimal():
            return int(value)
    return value


def _spelt(value: Any) -> Any:
    """A form's value as a query string has it."""
    match value:
        case bool():
            return "yes" if value else None
        case TypedSegment(text=text):
            return text
        case date():
            return value.isoformat()
        case list():
            return [_spelt(one) for one in value]
    return value


def view(page: type[Page]) -> Response:
    """Answer the request as a page, as JSON or as CSV.

    Invalid input is reported on the page, beside the form.
    """
    visit = Visit.of_request()
    if visit.asks_nothing or not (visit.query.catalogue.events or request.args):
        return empty()
    asked = page.read(visit)
    visit.query.close()
    report, problem = attempt(asked, asked.report)
    if visit.query.form != "html":
        return download(report, problem, visit.query.form, asked.values.get("by"))
    text = render(
        page.template,
        as_of=visit.now,
        question=asked,
        query=visit.query,
        report=report,
        problem=problem,
        up_to=asked.up_to,
    )
    return Response(text, 400 if problem else 200, mimetype="text/html")


def attempt(page: Page, ask: Callable[[], _Answer]) -> tuple[_Answer | None, str]:
    """What `ask` reports, or None and why the question cannot be answered."""
    problem = page.problem
    return (None, problem) if problem else in_time(ask)


def in_time(ask: Callable[[], _Answer], seconds: float | None = None) -> tuple[_Answer | None, str]:
    """What `ask` reports, or None and why it cannot be answered, or not in time.

    :param seconds: the most that it may take; None: as long as a page may.
    """
    try:
        with time_limit(_LONGEST_WAIT if seconds is None else seconds):
            return ask(), ""
    except ValueError as error:
        return None, sentence_of(error)


def sentence_of(error: ValueError) -> str:
    """What `error` says, with a capital letter and a full stop, unless it asks."""
    text = str(error)
    if not text.endswith((".", "?")):
        text += "."
    # A condition such as did(user:seen) stays as it is spelt.
    return text[0].upper() + text[1:] if re.match("[a-z]+[ ,]", text) else text


def of_one_kind(known: Known, *given: str) -> Catalogue:
    """Those events and flags whose ids are of one kind, so that a report may combine them.

    :param given: names whose kind it is, as far as they are recorded; else that of the active users
        counts.
    """
    (events, flags), kinds = known.catalogue, known.kinds
    names = (*given, *ACTIVE, *events, *flags)
    users = kinds.get(next((name for name in names if name in kinds), ""), PLAIN)
    return Catalogue(
        [event for event in events if kinds[event] == users],
        [flag for flag in flags if kinds[flag] == users],
    )
