"""How many of the active users use a feature."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, get_args

from ..reading.segments import Expression
from .base import Figure, Ranged
from .fields import Choice, Did, Moment, asks

#: The figures of a period, in order.
Users = Literal["active", "users", "new"]
USERS: tuple[Users, ...] = get_args(Users)


@dataclass(frozen=True, kw_only=True)
class AdoptionQuestion(Ranged):
    """How many of those who did `active` in each period also did `feature`."""

    feature: Expression = asks(Did(), help="The event that means the feature is used.")
    active: Expression = asks(Did(), help="The event that counts as active.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.feature.dated():
            raise ValueError(
                f"a feature is used at a time: {self.feature} has no event, only undated flags or "
                "ranges of time"
            )


@dataclass(frozen=True, kw_only=True)
class AdoptionFigure(Figure):
    """In the period of `at`: all active users, those who used the feature, or the new ones."""

    which: Users = asks(Choice(USERS), "users")
    at: date | datetime | None = asks(Moment(), None)
