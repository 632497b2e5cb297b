"""What all questions have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, replace
from datetime import date, datetime
from typing import Any, ClassVar, Literal, Self, get_args

from ..periods import GRAINS, Grain
from ..reading.segments import Expression
from .fields import (
    MOST,
    Choice,
    Moment,
    Number,
    Over,
    Segment,
    Switch,
    Values,
    Word,
    asks,
    declared,
)

#: Which value of a dimension counts: the one that people have now, or the one that they had then.
AsOf = Literal["now", "then"]


@dataclass(frozen=True, kw_only=True)
class Value:
    """A frozen value whose fields check what they are given."""

    def __post_init__(self) -> None:
        for each in declared(self):
            value = getattr(self, each.name)
            if value is not None or each.usual is not None:
                object.__setattr__(self, each.name, each.kind.checked(each.name, value))

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Make it from fields in any form that they accept, such as a segment's text.

        :raises ValueError: naming the field that is wrong, its value and what is allowed.
        """
        return cls(**values)

    @property
    def arguments(self) -> dict[str, str | list[str]]:
        """The query string that asks the same question; defaults are left out."""
        return {
            each.spelt: each.kind.spelt(value)
            for each in declared(self)
            if each.told and (value := getattr(self, each.name)) != each.usual
        }

    @property
    def plain(self) -> dict[str, Any]:
        """Its fields as JSON has them, by name; defaults are left out."""
        return {
            each.name: each.kind.plain(value)
            for each in declared(self)
            if each.told and (value := getattr(self, each.name)) != each.usual
        }

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The value whose `plain` it is.

        :raises ValueError: for a field that there is not, or that is missing; as `of`.
        """
        known = {each.name: each for each in declared(cls) if each.told}
        for name in plain:
            if name not in known:
                raise ValueError(f"there is no {name!r}: there are {', '.join(known)}")
        for name, each in known.items():
            if name not in plain and each.usual is MISSING:
                raise ValueError(f"{name} is missing")
        nothing = {name: None for name, value in plain.items() if value is None}
        for name in nothing:
            if known[name].usual is not None:
                raise ValueError(f"{name} must have a value, not None")
        told = {
            name: known[name].kind.of_plain(name, value)
            for name, value in plain.items()
            if name not in nothing
        }
        return cls.of(**told, **nothing)


class Figure(Value):
    """One figure of a report, with the people behind it."""


@dataclass(frozen=True, kw_only=True)
class Question(Value):
    """What one report is asked; `flask_bitmapist.analytics.answer` answers it.

    :ivar strict: an event that was never marked is an error instead of 0.
    :ivar now: the moment as of which to report; None is now.
    """

    strict: bool = asks(Switch(), False, told=False)
    now: date | datetime | None = asks(Moment(), None, told=False)

    def expressions(self) -> Iterator[Expression]:
        """The events and segments in it."""
        for each in declared(self):
            value = getattr(self, each.name)
            if isinstance(each.kind, Segment) and value is not None:
                yield value
            elif isinstance(value, tuple):
                yield from value


@dataclass(frozen=True, kw_only=True)
class InRange(Question):
    """A question about a range: ``over``, or from `start` to `end`, or `rows` periods to `end`.

    :ivar over: the range as people say it, such as ``last 28 days`` or ``last month``.
    :ivar start: a moment of the first period.
    :ivar end: a moment of the last period; None is now.
    :ivar rows: the number of periods, if `start` is None.
    """

    #: How many periods it is about if it says nothing; None: as many as are usual for `by`.
    usual: ClassVar[int | None] = None

    over: str | None = asks(
        Over(), None, help="The range in words: 'last 28 days', 'last month', '2026-10'."
    )
    start: date | datetime | None = asks(Moment(), None, help="A moment of the first period.")
    end: date | datetime | None = asks(
        Moment(), None, help="A moment of the last period. Default: now."
    )
    rows: int | None = asks(Number(1, MOST), None, help="How many periods, if there is no --start.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.over is not None and (self.start, self.end, self.rows) != (None, None, None):
            raise ValueError(
                f"the range is {self.over!r}, or it has a start, an end or a number of rows: "
                "give one or the other"
            )
        if self.start is not None and self.rows is not None:
            raise ValueError("give the start of the range or its number of rows, not both")


@dataclass(frozen=True, kw_only=True)
class Ranged(InRange):
    """A question about a range of periods.

    :ivar by: ``hour``, ``day``, ``week``, ``month`` or ``year``.
    :ivar where: count only people in this segment.
    """

    by: Grain = asks(Choice(GRAINS), "day", help="The period.")
    where: Expression | None = asks(Segment(), None, help="Count only people in this segment.")


@dataclass(frozen=True, kw_only=True)
class BrokenDown(Question, ABC):
    """A question whose report may be broken down.

    :ivar where: count only people in this segment.
    :ivar breakdown: the name of a dimension, or flags and segments: the report is also given for
        the people of each of its values.
    :ivar as_of: ``now``: people count under the value that they have now. ``then``: in each period
        under the one that they had at the end of its month; of a dated dimension.
    """

    where: Expression | None = asks(Segment(), None, help="Count only people in this segment.")
    breakdown: str | tuple[Expression, ...] | None = asks(
        Values(), None, help="Also by the values of a dimension, or by several flags or segments."
    )
    as_of: AsOf = asks(
        Choice(get_args(AsOf)), "now", help="Whether by the values of now or by those of then."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.as_of == "then" and not isinstance(self.breakdown, str):
            raise ValueError(
                "as_of='then' is asked of the values of a dated dimension, such as "
                "breakdown='user:plan'. Of a segment take was(user:plan=pro)"
            )

    @property
    @abstractmethod
    def whom(self) -> Expression:
        """A segment that has everybody whom the report counts."""

    def narrowed(self, segment: Expression) -> Self:
        """The same question about the people in `segment` alone."""
        where = segment if self.where is None else self.where & segment
        return replace(self, where=where, breakdown=None, as_of="now")


@dataclass(frozen=True, kw_only=True)
class PartFigure(Figure):
    """One figure of a report that may be broken down.

    :ivar value: the part of the report that it is in, by its name; None: the whole.
    """

    value: str | None = asks(Word(), None)
