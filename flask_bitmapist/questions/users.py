"""Who is in a segment, and what one user did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..periods import GRAINS, Grain
from ..reading.segments import Expression
from .base import Figure, InRange
from .fields import Anyone, Choice, Segment, asks


@dataclass(frozen=True, kw_only=True)
class PeopleQuestion(InRange):
    """Who is in `expression` in a period of the range; by default in the present one."""

    usual: ClassVar[int | None] = 1

    expression: Expression = asks(Segment(), help="An event, or a segment.", spelt="where")
    by: Grain = asks(Choice(GRAINS), "day", help="The period.")
    among: Expression | None = asks(Segment(), None, told=False)


@dataclass(frozen=True, kw_only=True)
class PeopleFigure(Figure):
    """All of them."""


@dataclass(frozen=True, kw_only=True)
class TimelineQuestion(InRange):
    """Which events `user` did on which days."""

    #: The days that a year's calendar holds.
    usual: ClassVar[int | None] = 365

    user: object = asks(Anyone(), help="The id of the user, as the application knows it.")


@dataclass(frozen=True, kw_only=True)
class ProfileQuestion(TimelineQuestion):
    """The same, with the first and the last time of each event, and the flags."""
