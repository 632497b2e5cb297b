"""Query strings: each parameter is checked, with a sentence on what is allowed, before any report.

A page's question is a dataclass that reads its fields from a `Query`. Nothing else reaches a
report, so the cost of a request is bounded here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cached_property
from itertools import dropwhile
from typing import TYPE_CHECKING, Any, TypeVar

from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import BadRequest

from ..dimensions import flag_of
from ..marks import is_name
from ..questions import fields
from ..questions.fields import Declared
from ..ranges import Range
from ..reading.segments import (
    And,
    Event,
    Expression,
    Flag,
    Minus,
    Or,
    SegmentError,
    Was,
    parse,
    spelt_in_range,
)
from ..reading.unknown import (
    NotDatedError,
    UnknownTermError,
    did_you_mean,
    no_dimension,
    unknown_terms,
)
from ..registry import Known

if TYPE_CHECKING:
    from ..periods import Grain

_Choice = TypeVar("_Choice", bound=str)

#: The periods that the forms offer.
BY: tuple[Grain, ...] = ("day", "week", "month", "year")
#: The formats of an answer.
FORMATS = ("html", "json", "csv")
#: No user has days before this year.
FIRST_YEAR = 2000
#: A report that ends in or after `FIRST_YEAR` has no period before this year.
FIRST_REPORTED_YEAR = 1800
#: Characters of a segment in a query string.
LONGEST_SEGMENT = 2_000
#: The segments by which a page breaks a report down.
MOST_VALUES = 12
#: How a condition joins the ones before it, in the segment builder's words.
JOINTS: dict[str, type[And | Or | Minus]] = {"and": And, "or": Or, "except": Minus}
_SIGNS = {"and": "&", "or": "|", "except": "-"}
#: When an event of a condition was done: in the period in question, or in a range of its own. And
#: when people had a value.
TIMES: dict[str, str] = {
    "": "in that period",
    "did": "in a time of its own:",
    "first": "for the first time ever in:",
    "was": "at the end of that month, for a value",
}
#: The range of its own, unless it is told.
USUAL_RANGE = "last 30 days"
#: What the builder proposes.
RANGES = (
    *("ever", "today", "yesterday", "last 7 days", "last 14 days", "last 30 days", "last 90 days"),
    *("this week", "last week", "this month", "last month", "this quarter", "last quarter"),
    *("this year", "last year"),
)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a segment, as the segment builder lists it.

    :ivar joint: ``and``, ``or``, ``except``; empty for the first one.
    :ivar text: the condition's text form.
    :ivar rest: the text form of the segment without it.
    """

    joint: str
    text: str
    rest: str


@dataclass(frozen=True, slots=True)
class TypedSegment:
    """A segment as it was typed: an expression, or why it is not one.

    :ivar text: its text form; empty for everyone.
    :ivar error: what is wrong with the text, and where.
    :ivar is_usual: whether it stands for one that nobody has given yet.
    """

    text: str = ""
    expression: Expression | None = None
    error: SegmentError | None = None
    is_usual: bool = False

    @classmethod
    def read(cls, text: str) -> TypedSegment:
        if not text:
            return cls()
        try:
            expression = parse(text)
        except SegmentError as error:
            return cls(text, None, error)
        return cls(str(expression), expression)

    def joined(self, joint: str, term: str) -> TypedSegment:
        """This segment with one more condition, given in its text form."""
        if self.error is not None:
            return self
        added = TypedSegment.read(term)
        if added.expression is None:
            # Together, so that the text shows what is wrong with the condition.
            return TypedSegment.read(f"{self.text} {_SIGNS[joint]} {term}" if self.text else term)
        joined = _joined([*_spine(self.expression), (JOINTS[joint], added.expression)])
        # It may now be too long.
        return TypedSegment.read(str(joined))

    @property
    def conditions(self) -> list[Condition]:
        """The conditions that the segment joins, from left to right."""
        spine = _spine(self.expression)
        words = {kind: word for word, kind in JOINTS.items()}
        # People excepted from the first condition are not the ones who remain without it.
        after_first = [*dropwhile(lambda joined: joined[0] is Minus, spine[1:])]
        return [
            Condition(
                words[kind] if i else "",
                str(term),
                str(_joined([*spine[:i], *spine[i + 1 :]] if i else after_first) or ""),
            )
            for i, (kind, term) in enumerate(spine)
        ]


def _asked(hint: str) -> str:
    """The end of a sentence, followed by the hint's question if there is one."""
    return f". {hint[0].upper()}{hint[1:]}" if hint else "."


#: Terms from left to right, each with how it is joined to those before it; that of the first means
#: nothing.
_Spine = list[tuple[type[And | Or | Minus], Expression]]


def _spine(expression: Expression | None) -> _Spine:
    spine: _Spine = []
    while isinstance(expression, And | Or | Minus):
        spine.append((type(expression), expression.right))
        expression = expression.left
    return [(And, expression), *reversed(spine)] if expression is not None else []


def _joined(spine: _Spine) -> Expression | None:
    joined = None
    for kind, term in spine:
        joined = term if joined is None else kind(joined, term)
    return joined


class Query:
    """One request's query string. Reading a parameter checks it; `close` refuses the rest."""

    def __init__(
        self,
        args: MultiDict[str, str],
        known: Known,
        today: date,
        foreign: Collection[str] = (),
    ) -> None:
        """:param foreign: names of parameters that the application adds to every address."""
        self._args = args
        self._foreign = foreign
        self._read: dict[str, None] = {}
        self._today = today
        #: What has been marked.
        self.known = known
        #: Whether all events have begun today: somebody is trying it out.
        self.is_new = all(event.first_day == today for event in known.events.values())
        #: The names in it.
        self.catalogue = known.catalogue
        #: The format of the answer.
        self.form = self.choice("format", FORMATS, "html")

    def asking(self, args: MultiDict[str, str]) -> Query:
        """The query string `args` of the same moment."""
        return Query(args, self.known, self._today, self._foreign)

    def field(
        self, field: Declared, usual: Any, most: int | None, offered: Sequence[str] | None
    ) -> Any:
        """The field of a question as typed: a segment stays a `TypedSegment`, to be corrected.

        :param usual: its value if it is missing; for an event, the names to prefer.
        :param most: the largest number that the page allows.
        :param offered: the choices that a page offers.
        """
        name = field.spelt
        match field.kind:
            case fields.Several(kind=fields.Did()):
                return self.events(name, *usual) or [self.event(name)]
            case fields.Several():
                return self.segments(name) or [*map(TypedSegment.read, usual)]
            case fields.Did() if field.usual is None and not self.text(name):
                return ""
            case fields.Did():
                return self.event(name, *usual)
            case fields.Segment():
                return self.segment(name, usual or "")
            case fields.Choice(choices=choices):
                return self.choice(name, offered or choices, usual)
            case fields.Window():
                return self.choice(name, offered or (), str(usual))
            case fields.Number(least=least, most=bound):
                if usual is None and not self.text(name):
                    return None
                return self.number(name, usual or 0, least, min(bound, most or bound))
            case fields.Switch():
                return self.choice(name, ("", "yes", "no"), "") == "yes"
            case fields.Over():
                return self.range(name)
            case fields.Moment():
                return self.day(name, FIRST_REPORTED_YEAR if name == "start" else FIRST_YEAR)
            case fields.Values():
                return self.breakdown(name)
        raise TypeError(f"no page asks for {field}")

    def text(self, name: str, usual: str = "") -> str:
        """The parameter `name` unchanged; `usual` if it is missing."""
        self._read[name] = None
        return self._args.get(name, usual)

    def texts(self, name: str) -> list[str]:
        """All parameters called `name` that are not empty."""
        self._read[name] = None
        return [text for text in self._args.getlist(name) if text]

    def given(self, *names: str) -> list[str]:
        """All parameters with one of these names, unchecked: to choose what goes with them."""
        return [text for name in names for text in self._args.getlist(name)]

    def choice(self, name: str, choices: Sequence[_Choice], usual: _Choice) -> _Choice:
        """One of `choices`."""
        text = self.text(name, usual)
        for choice in choices:
            if text == choice:
                return choice
        named = [choice or "empty" for choice in choices]
        allowed = f"{', '.join(named[:-1])} or {named[-1]}"
        raise BadRequest(f"The parameter {name} must be {allowed}, not {text!r}.")

    def by(self, usual: Grain) -> Grain:
        """The period."""
        return self.choice("by", BY, usual)

    def number(self, name: str, usual: int, least: int, most: int) -> int:
        """A whole number."""
        text = self.text(name) or str(usual)
        if re.fullmatch("[0-9]{1,9}", text) and least <= int(text) <= most:
            return int(text)
        raise BadRequest(
            f"The parameter {name} must be a whole number from {least} to {most}, not {text!r}."
        )

    def decimal(self, name: str, most: int) -> float | None:
        """A number from 0 on, with decimals or without; None if it is missing."""
        text = self.text(name)
        if not text:
            return None
        if re.fullmatch(r"[0-9]{1,11}(\.[0-9]{1,6})?", text) and float(text) <= most:
            return float(text)
        raise BadRequest(f"The parameter {name} must be a number from 0 to {most}, not {text!r}.")

    def day(self, name: str, first_year: int = FIRST_YEAR) -> date | None:
        """A day such as 2026-11-23, from `first_year` on up to today; None if it is missing."""
        text = self.text(name)
        if not text:
            return None
        with suppress(ValueError):
            spelt = re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text)
            if spelt and date(first_year, 1, 1) <= date.fromisoformat(text) <= self._today:
                return date.fromisoformat(text)
        raise BadRequest(
            f"The parameter {name} must be a day such as 2026-11-23, from the year {first_year} on "
            f"and up to today, {self._today}, not {text!r}."
        )

    def moment(self, name: str, first_year: int) -> date | None:
        """A day, or an hour such as 2026-11-23T14:00:00, from `first_year` on up to today."""
        text = self.text(name)
        if "T" in text:
            with suppress(ValueError):
                spelt = re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:00:00", text)
                found = datetime.fromisoformat(text) if spelt else None
                if found and first_year <= found.year and found.date() <= self._today:
                    return found
        return self.day(name, first_year)

    def range(self, name: str) -> str | None:
        """A range in words, such as ``last 28 days``; None if it is missing."""
        text = self.text(name)
        if not text.strip():
            return None
        try:
            return str(Range.parse(text))
        except ValueError as error:
            raise BadRequest(f"The parameter {name}: {error}.") from None

    def event(self, name: str, *usual: str) -> str:
        """The name of a recorded event; if it is missing, the first of `usual` that is recorded."""
        events = self.catalogue.events
        preferred = [event for event in usual if event in events] or events or [""]
        return self._recorded(self.text(name) or preferred[0])

    def events(self, name: str, *usual: str) -> list[str]:
        """The names of recorded events; if they are missing, those of `usual` that are recorded."""
        names = self.texts(name) or [event for event in usual if event in self.catalogue.events]
        return [self._recorded(event) for event in names]

    def _recorded(self, event: str) -> str:
        if not self.catalogue.events:
            raise BadRequest("This page needs an event, and none has been recorded yet.")
        if event not in self.known.events:
            hint = did_you_mean(Event(event), self.known) if is_name(event) else ""
            raise BadRequest(f"No event {event!r} has been recorded{_asked(hint)}")
        return event

    def segments(self, name: str) -> list[TypedSegment]:
        """All segments called `name` that are not empty."""
        return [self._of_known(self._segment(text)) for text in self.texts(name)]

    def breakdown(self, name: str) -> str | list[TypedSegment]:
        """The text form of a dimension's name, or segments; empty if there are none."""
        texts = self.texts(name)
        if len(texts) > MOST_VALUES:
            raise BadRequest(f"A report is broken down by at most {MOST_VALUES} segments.")
        segments = [self._segment(text) for text in texts]
        for segment in segments:
            if isinstance(segment.expression, Event):
                dimension = segment.expression.name
                if len(segments) == 1 and dimension in self.known.dimensions:
                    return segment.text
                if dimension in self.known.dimensions:
                    raise BadRequest(f"Break it down by {dimension} alone, or by segments.")
                if len(segments) == 1:
                    raise BadRequest(no_dimension(dimension, self.known))
        return [*map(self._of_known, segments)]

    def segment(self, name: str = "where", usual: str = "") -> TypedSegment:
        """A segment's text form, with what the segment builder adds to it."""
        given = self.text(name).strip()
        segment = replace(self._segment(given or usual), is_usual=not given and bool(usual))
        joint, term = self.choice("joint", [*JOINTS], "and"), self.text("term")
        time, when = self.choice("time", [*TIMES], ""), self.text("when").strip() or USUAL_RANGE
        if not term:
            return self._of_known(segment)
        if term not in self.terms:
            raise BadRequest(f"No event or flag {term!r} has been recorded.")
        if time:
            term = self._at(time, term, when)
        if segment.is_usual:
            segment = TypedSegment()  # the first condition takes its place
        return self._of_known(self._checked(segment.joined(joint, term)))

    def _at(self, time: str, term: str, when: str) -> str:
        """The condition that `term` holds at a `time` of the builder's."""
        leaf = parse(term)
        if time == "was":
            if isinstance(leaf, Flag) and leaf.name in self._dated_values:
                return str(Was(leaf.name))
            raise BadRequest(f"{term} is no value of a dimension whose months are kept.")
        if isinstance(leaf, Event):
            return f"{time}({spelt_in_range(leaf.name)}, {when[:LONGEST_SEGMENT]})"
        raise BadRequest(f"{term} has no date: take it as it is now, with no time of its own.")

    @property
    def times(self) -> dict[str, str]:
        """When a condition may hold, as the segment builder has it."""
        return {time: text for time, text in TIMES.items() if time != "was" or self._dated_values}

    @property
    def _dated_values(self) -> set[str]:
        """The values of the dimensions whose months are kept, as flags."""
        return {
            flag_of(dimension, value)
            for dimension in self.known.dated
            for value in self.known.dimensions.get(dimension, ())
        }

    def _segment(self, text: str) -> TypedSegment:
        return self._checked(TypedSegment.read(text[: LONGEST_SEGMENT + 1]))

    @staticmethod
    def _checked(segment: TypedSegment) -> TypedSegment:
        # Links spell it with spaces, which may make it longer.
        if len(segment.text) > LONGEST_SEGMENT:
            raise BadRequest(f"A segment has at most {LONGEST_SEGMENT} characters.")
        return segment

    def _of_known(self, segment: TypedSegment) -> TypedSegment:
        """`segment`, with an error if a name in it was never marked."""
        if segment.expression is None:
            return segment
        for term in unknown_terms([segment.expression], self.known):
            error = UnknownTermError.of(segment.text, term, self.known)
            return TypedSegment(segment.text, None, error)
        for leaf in segment.expression.leaves():
            if isinstance(leaf, Was) and leaf.dimension not in self.known.dated:
                return TypedSegment(segment.text, None, NotDatedError.of_value(segment.text, leaf))
        return segment

    @cached_property
    def terms(self) -> list[str]:
        """The text forms of all events and flags."""
        events, flags = self.catalogue
        return [*(str(Event(name)) for name in events), *(str(Flag(name)) for name in flags)]

    def close(self) -> None:
        """:raises BadRequest: for a parameter that the page does not have."""
        for name in self._args:
            if name not in self._read and name not in self._foreign:
                raise BadRequest(f"There is no parameter {name!r}: use {', '.join(self._read)}.")
