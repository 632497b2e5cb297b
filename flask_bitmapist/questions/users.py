"""Who is in a segment, and what one user did."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from ..periods import GRAINS, Grain
from ..reading.segments import Expression
from .base import Figure, InRange, Question
from .fields import Anyone, Choice, Moment, Number, Segment, asks


@dataclass(frozen=True, kw_only=True)
class PeopleQuestion(Question):
    """Who is in `expression` in a period, or in the `rolling` ones that end with it."""

    expression: Expression = asks(Segment(), help="An event, or a segment.", spelt="where")
    by: Grain = asks(Choice(GRAINS), "day", help="The period.")
    at: date | datetime | None = asks(
        Moment(), None, help="A moment of the period. Default: now.", spelt="end"
    )
    rolling: int = asks(
        Number(), 1, help="How many periods to count, up to that one.", spelt="rows"
    )
    among: Expression | None = asks(Segment(), None, told=False)


@dataclass(frozen=True, kw_only=True)
class PeopleFigure(Figure):
    """All of them."""


@dataclass(frozen=True, kw_only=True)
class TimelineQuestion(InRange):
    """Which events `user` did on which days."""

    user: object = asks(Anyone(), help="The id of the user, as the application knows it.")


@dataclass(frozen=True, kw_only=True)
class ProfileQuestion(TimelineQuestion):
    """The same, with the first and the last time of each event, and the flags."""
