"""The fields of a question: what each may hold, its default, its limit, and its spelling in a URL.

A field is declared once. The Python function, the command and the page all read it from here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields
from datetime import date, datetime
from typing import Any

from ..ranges import Range
from ..reading.segments import Event, Expression, parse

#: The most periods, events or arms of a question.
MOST = 1_000
#: The years that a report can be about: the calendar has `MOST` more years on either side.
YEARS = range(1 + MOST, 9999 - MOST)


class Kind(ABC):
    """What a field may hold."""

    @abstractmethod
    def checked(self, name: str, value: Any) -> Any:
        """`value` in its normal form.

        :raises ValueError: naming the field `name`, the value and what is allowed.
        """

    def spelt(self, value: Any) -> str | list[str]:
        """`value` as a query string has it."""
        return str(value)

    def plain(self, value: Any) -> Any:
        """`value` as JSON has it; `of_plain` gives it back."""
        return value

    def of_plain(self, name: str, value: Any) -> Any:
        """What `plain` has made of a value, as `checked` takes it.

        :raises ValueError: as `checked`, if it is nothing that `plain` makes.
        """
        return value


@dataclass(frozen=True, slots=True)
class Choice(Kind):
    """One of a few words."""

    choices: tuple[str, ...]

    def checked(self, name: str, value: Any) -> Any:
        if value not in self.choices:
            raise ValueError(f"{name} must be one of {', '.join(self.choices)}, not {value!r}")
        return value


@dataclass(frozen=True, slots=True)
class Number(Kind):
    """A whole number."""

    least: int = 1
    most: int = MOST

    def checked(self, name: str, value: Any) -> Any:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not self.least <= value <= self.most:
            allowed = f"a whole number from {self.least} to {self.most}"
            raise ValueError(f"{name} must be {allowed}, not {value!r}")
        return value


@dataclass(frozen=True, slots=True)
class Count(Kind):
    """A whole number. Its limit depends on the question, so the report checks it."""

    def checked(self, name: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{name} must be a whole number, not {value!r}")
        return value


@dataclass(frozen=True, slots=True)
class Index(Count):
    """A place in a list: counted from 0, in a URL from 1."""

    def spelt(self, value: Any) -> str:
        return str(value + 1)


@dataclass(frozen=True, slots=True)
class Window(Kind):
    """A number of periods, or a calendar week or month."""

    def checked(self, name: str, value: Any) -> Any:
        if value in ("week", "month"):
            return value
        if isinstance(value, int):
            return Number().checked(name, value)
        allowed = f"'week', 'month' or a number of periods up to {MOST}"
        raise ValueError(f"{name} must be {allowed}, not {value!r}")


@dataclass(frozen=True, slots=True)
class Switch(Kind):
    """Yes or no."""

    def checked(self, name: str, value: Any) -> Any:
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False, not {value!r}")
        return value

    def spelt(self, value: Any) -> str:
        return "yes" if value else "no"


@dataclass(frozen=True, slots=True)
class Moment(Kind):
    """A date, or a datetime: aware, or naive in BITMAPIST_TIMEZONE."""

    def checked(self, name: str, value: Any) -> Any:
        if not isinstance(value, date):
            raise ValueError(f"{name} must be a date or datetime, not {value!r}")
        if value.year not in YEARS:
            raise ValueError(f"{name} must be in the years {YEARS[0]} to {YEARS[-1]}, not {value}")
        return value

    def spelt(self, value: Any) -> str:
        return str(value.isoformat())

    def plain(self, value: Any) -> str:
        return self.spelt(value)

    def of_plain(self, name: str, value: Any) -> Any:
        day = isinstance(value, str) and len(value) == len("2026-11-23")
        try:
            return (date if day else datetime).fromisoformat(value)
        except (TypeError, ValueError):
            return self.checked(name, value)


@dataclass(frozen=True, slots=True)
class Over(Kind):
    """A range as people say it, such as ``last 28 days``, in its normal form."""

    def checked(self, name: str, value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError(f"{name} must be a range such as 'last 28 days', not {value!r}")
        return str(Range.parse(value))


@dataclass(frozen=True, slots=True)
class Segment(Kind):
    """An event, a segment in its text form, or an expression."""

    def checked(self, name: str, value: Any) -> Any:
        return parse(value)

    def plain(self, value: Any) -> str:
        # Unlike a query string, it always tells the name of an event from a segment.
        return str(value)

    def of_plain(self, name: str, value: Any) -> Any:
        if not isinstance(value, str | Expression):
            raise ValueError(f"{name} must be an event or a segment, not {value!r}")
        return value


@dataclass(frozen=True, slots=True)
class Did(Segment):
    """The same, but pages offer the recorded events, and a query string has plain event names."""

    def spelt(self, value: Any) -> str:
        return value.name if isinstance(value, Event) else str(value)


@dataclass(frozen=True, slots=True)
class Several(Kind):
    """One or more values of another kind, in order."""

    kind: Segment
    most: int = MOST

    def checked(self, name: str, value: Any) -> Any:
        if isinstance(value, str | Expression) or not isinstance(value, Iterable):
            raise ValueError(f"{name} must be a list of events or segments, not {value!r} alone")
        listed = tuple(self.kind.checked(name, one) for one in value)
        Number(1, self.most).checked(f"the number of {name}", len(listed))
        return listed

    def spelt(self, value: Any) -> list[str]:
        return [str(self.kind.spelt(one)) for one in value]

    def plain(self, value: Any) -> list[Any]:
        return [self.kind.plain(one) for one in value]

    def of_plain(self, name: str, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [self.kind.of_plain(name, one) for one in value]


@dataclass(frozen=True, slots=True)
class Values(Kind):
    """What a report is broken down by: the name of a dimension, or flags and segments, in order.

    A name alone is a dimension's, in its text form: what is done at times is no value of a person.
    """

    most: int = 50

    def checked(self, name: str, value: Any) -> Any:
        given = [value] if isinstance(value, str | Expression) else value
        listed: tuple[Expression, ...] = Several(Segment(), self.most).checked(name, given)
        match listed:
            case (Event(name=dimension),):
                return str(Event(dimension))
        if repeated := [one for number, one in enumerate(listed) if one in listed[:number]]:
            raise ValueError(f"{name} has {repeated[0]} twice")
        return listed

    def spelt(self, value: Any) -> str | list[str]:
        return value if isinstance(value, str) else [str(one) for one in value]

    plain = spelt

    def of_plain(self, name: str, value: Any) -> Any:
        listed = value if isinstance(value, list | tuple) else [value]
        return value and [Segment().of_plain(name, one) for one in listed]


@dataclass(frozen=True, slots=True)
class Word(Kind):
    """Any text."""

    def checked(self, name: str, value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError(f"{name} must be a text, not {value!r}")
        return value


@dataclass(frozen=True, slots=True)
class Anyone(Kind):
    """Whatever a user was marked with; `flask_bitmapist.ids` checks it."""

    def checked(self, name: str, value: Any) -> Any:
        return value


def asks(
    kind: Kind,
    usual: Any = MISSING,
    *,
    help: str = "",  # noqa: A002
    told: bool = True,
    spelt: str = "",
) -> Any:
    """Declare a field of a question.

    :param usual: its default; None means "no value", and is not checked.
    :param help: the help text of the command's option.
    :param told: whether query strings and commands have it.
    :param spelt: its name in a query string, if different.
    """
    return field(default=usual, metadata={"kind": kind, "help": help, "told": told, "spelt": spelt})


@dataclass(frozen=True, slots=True)
class Declared:
    """A field as it was declared with `asks`."""

    name: str
    kind: Kind
    usual: Any
    help: str
    told: bool
    spelt: str


def declared(question: Any) -> list[Declared]:
    """The fields of a question, or of a question's class."""
    return [
        Declared(
            each.name,
            each.metadata["kind"],
            each.default,
            each.metadata["help"],
            each.metadata["told"],
            each.metadata["spelt"] or each.name,
        )
        for each in fields(question)
    ]
