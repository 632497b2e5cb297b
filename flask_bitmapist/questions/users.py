"""Who is in a segment, and what one user did."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from .base import Question
from .fields import Anyone, Moment, asks


@dataclass(frozen=True, kw_only=True)
class TimelineQuestion(Question):
    """Which events `user` did on which days."""

    user: object = asks(Anyone(), help="The id of the user, as the application knows it.")
    start: date | datetime | None = asks(Moment(), None, help="The first day.")
    end: date | datetime | None = asks(Moment(), None, help="The last day. Default: today.")


@dataclass(frozen=True, kw_only=True)
class ProfileQuestion(TimelineQuestion):
    """The same, the first and the last time of each event, and the flags."""
