"""Dimensions: what a person has one value of at a time, such as ``user:plan``.

Those who have a value are an undated set, the flag ``user:plan=pro``. Which values a dimension has
is kept in numbered slots, in the order in which they first came.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum

from .marks import checked_name
from .periods import Period

#: A hash: a slot of a dimension, ``0:user:plan`` -> the value in it; and of a dated dimension,
#: ``dated:user:plan`` -> the first month that is kept, ``2026-11``.
DIMENSIONS = "flask_bitmapist:dimensions"
#: The value that stands for those for which a dimension has no room. It has no slot.
OTHER = "other"
#: The value of those who have lost theirs. A dated dimension keeps them for each month.
NONE = ""
_DATED = "dated:"
#: Between the dimension and the value in the name of a flag.
_IS = "="


@dataclass(frozen=True, slots=True)
class Dimension:
    """A model's attribute of which each person has one value at a time.

    ``__bitmapist_dimensions__ = {Dimension("plan", dated=True), "country"}``
    """

    #: The name of the attribute.
    attribute: str
    #: Whether who had which value is kept for each month too.
    dated: bool = False


def flag_of(dimension: str, value: str) -> str:
    """The flag of those whose `value` it is."""
    return f"{dimension}{_IS}{value}"


def value_of(flag: str, *, may_be_none: bool = False) -> tuple[str, str]:
    """The dimension and the value that `flag_of` has made into `flag`.

    :param may_be_none: whether the value may be `NONE`.
    :raises ValueError: if it has not.
    """
    dimension, is_, value = flag.partition(_IS)
    if not dimension or not is_ or not (value or may_be_none):
        raise ValueError(f"{flag!r} is no value of a dimension, such as 'user:plan=pro'")
    return dimension, value


def month_key(dimension: str, value: str, month: date) -> str:
    """The bitmap of those whose last value of the month `month` is `value`; it may be `NONE`.

    :param month: any day of it.
    """
    return Period("month", datetime(month.year, month.month, 1)).key(flag_of(dimension, value))


def dated_field(dimension: str) -> str:
    """The field of `DIMENSIONS` that has the first month for which `dimension` is kept."""
    return f"{_DATED}{dimension}"


def month_text(month: date) -> str:
    """The month of the day `month`, as the `dated_field` has it."""
    return f"{month.year:04}-{month.month:02}"


def slot(dimension: str, number: int) -> str:
    """The field of `DIMENSIONS` that has a value of `dimension`."""
    return f"{number}:{dimension}"


def choice_of(value: object) -> str:
    """The text of a dimension's `value`; '' of None, which is no value.

    :raises TypeError: for something else than a str, an int, a bool or an Enum.
    """
    if isinstance(value, Enum):
        value = value.value if isinstance(value.value, str) else value.name
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value).strip()
    raise TypeError(f"a dimension's value is a str, int, bool, Enum or None, not {value!r}")


def fitting_choice(dimension: str, value: object) -> str:
    """As `choice_of`; `OTHER`, if the text can be no value of `dimension`: it may be too long.

    :raises TypeError: as `choice_of`.
    """
    choice = choice_of(value)
    try:
        return checked_choice(dimension, choice)
    except ValueError:
        return OTHER


def checked_dimension(name: str) -> str:
    """`name`, if it can name a dimension.

    :raises ValueError: saying what is allowed.
    """
    if _IS in checked_name(name):
        raise ValueError(f"{name!r} cannot name a dimension: {_IS!r} stands before its values")
    return name


def checked_choice(dimension: str, choice: str) -> str:
    """`choice`, if it can be a value of `dimension`, or is ''.

    :raises ValueError: if it, or the dimension's name, is not allowed.
    """
    checked_dimension(dimension)
    if choice:
        try:
            checked_name(flag_of(dimension, choice))
        except ValueError:
            raise ValueError(
                f"{choice!r} cannot be a value of {dimension!r}: use printable characters, not "
                "more than an event's name has room for"
            ) from None
    return choice


class Slots:
    """The values of all dimensions, as the server had them at one moment."""

    def __init__(self, held: Mapping[str, str]) -> None:
        """:param held: the fields of `DIMENSIONS`."""
        self.held = dict(held)
        self._numbered: dict[str, dict[int, str]] = {}
        for field, value in held.items():
            number, _, dimension = field.partition(":")
            if number.isdecimal():  # else it is somebody else's
                self._numbered.setdefault(dimension, {})[int(number)] = value
        #: The first day of the first month that is kept, by dated dimension.
        self.dated: dict[str, date] = {}
        for field, month in held.items():
            if field.startswith(_DATED):
                with suppress(ValueError):
                    self.dated[field.removeprefix(_DATED)] = date.fromisoformat(f"{month}-01")

    @property
    def dimensions(self) -> list[str]:
        """The names of the dimensions that have any value, sorted."""
        return sorted(self._numbered)

    def values(self, dimension: str) -> list[str]:
        """The values of `dimension`, in the order in which they came."""
        return [value for _, value in sorted(self._numbered.get(dimension, {}).items())]

    def fields(self, dimension: str) -> list[str]:
        """The fields that have the `values`, in the same order."""
        return [slot(dimension, number) for number in sorted(self._numbered.get(dimension, {}))]

    def of(self, dimensions: Iterable[str]) -> dict[str, str]:
        """The fields of `dimensions`, with their values."""
        return {
            field: value
            for dimension in dimensions
            for field, value in zip(self.fields(dimension), self.values(dimension), strict=True)
        }

    def since(self, dimensions: Iterable[str]) -> dict[str, str]:
        """The fields that say since when months of `dimensions` are kept; '': none are."""
        fields = map(dated_field, dimensions)
        return {field: self.held.get(field, "") for field in fields}

    def keeps(self, dimension: str, month: date) -> bool:
        """Whether the month of the day `month` is kept of `dimension`."""
        first = self.dated.get(dimension)
        return first is not None and month >= first

    def month_names(self) -> set[str]:
        """The names under which months of dated dimensions are kept: they are no events."""
        return {
            flag_of(dimension, value)
            for dimension in self.dated
            for value in (*self.values(dimension), OTHER, NONE)
        }

    def flags(self, dimension: str) -> list[str]:
        """The flags of all values of `dimension`; none, if there is no such dimension."""
        values = self.values(dimension)
        return [flag_of(dimension, value) for value in (*values, OTHER)] if values else []

    def of_flags(self, flags: Collection[str]) -> dict[str, tuple[str, str]]:
        """The fields of the values that have one of `flags`, each with its dimension and value."""
        return {
            field: (dimension, value)
            for dimension in self.dimensions
            for field, value in self.of([dimension]).items()
            if flag_of(dimension, value) in flags
        }

    def free(self, dimension: str) -> str:
        """The first field of `dimension` that has no value."""
        numbers = self._numbered.get(dimension, {})
        return slot(dimension, next(n for n in range(len(numbers) + 1) if n not in numbers))


def values_in(slots: Slots, flags: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The values of each dimension, in the order in which they came; `OTHER` is the last.

    :param flags: those that there are. A value that has none has never been marked.
    """
    found: dict[str, tuple[str, ...]] = {}
    for dimension in slots.dimensions:
        values = (*slots.values(dimension), OTHER)
        if marked := tuple(value for value in values if flag_of(dimension, value) in flags):
            found[dimension] = marked
    return found
