"""How many of the active users use a feature, and how many for the first time ever."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

from ..periods import Grain
from ..questions import AdoptionFigure, AdoptionQuestion
from ..questions.adoption import USERS
from ..reading.bitmap import Bitmap
from ..reading.bitmaps import Bitmaps
from ..reading.segments import Expression
from ._past import Past
from ._report import Report, Scope, Users, label, scope, scope_at
from ._sets import Crowd, Sets, nth

if TYPE_CHECKING:
    from ..tracker import Tracker


@dataclass(frozen=True, slots=True)
class AdoptionPoint:
    """Unique users in one period.

    :ivar active: the active users.
    :ivar users: those of them who used the feature.
    :ivar new: those of `users` who had never used it in a period before.
    :ivar rate: `users` as a share of `active`; None if nobody was active.
    """

    period_start: date | datetime
    active: int
    users: int
    new: int
    rate: float | None
    #: Whether the period is over: an open one's figures may grow.
    complete: bool


@dataclass(frozen=True, slots=True)
class Adoption(Report):
    """The use of a feature in each period, in time order."""

    points: list[AdoptionPoint]


def adoption(
    feature: str | Expression,
    active: str | Expression,
    by: Grain = "day",
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    where: str | Expression | None = None,
    *,
    over: str | None = None,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Adoption:
    """How many of those who did `active` in each period also did `feature`.

    active = n(a[p] & S[p]), users = n(a[p] & S[p] & f[p]), new = n(a[p] & S[p] & first(f)[p]).

    :param feature: the event that means the feature is used, or a segment with an event.
    :param active: the event that counts as active, or a segment.
    :param by: ``hour``, ``day``, ``week``, ``month`` or ``year``.
    :param start: a moment of the first period; by default 30 days, 12 weeks, 12 months... ago.
    :param end: a moment of the last period; by default now.
    :param over: the range in words instead, such as ``last 28 days`` or ``last month``.
    :param where: only those in this segment, evaluated in each period.
    :param strict: an event that was never marked is an error, rather than 0.
    :param now: the moment as of which to report.
    :param tracker: whose events; by default the current app's.
    :raises ValueError: saying which argument is wrong, and what is allowed.
    :raises redis.RedisError: if the server does not answer.
    """
    question = AdoptionQuestion.of(
        feature=feature,
        active=active,
        by=by,
        start=start,
        end=end,
        over=over,
        where=where,
        strict=strict,
        now=now,
    )
    return answer(question, tracker)


def answer(question: AdoptionQuestion, tracker: Tracker | None) -> Adoption:
    """The answer to `question`."""
    asked = scope(question, tracker)
    sets, _ = _sets(asked, question)
    counted = iter(sets.counts())
    return Adoption(
        [
            AdoptionPoint(
                label(period), n, both, new, both / n if n else None, asked.is_complete(period)
            )
            for period, n, both, new in zip(asked.periods, counted, counted, counted, strict=True)
        ]
    )


def behind(question: AdoptionQuestion, figure: AdoptionFigure, tracker: Tracker | None) -> Crowd:
    """The people behind `figure`."""
    sets, kind = _sets(scope_at(question, figure.at, tracker), question)
    return Crowd(sets, nth(USERS.index(figure.which)), kind)


def _sets(asked: Scope, question: AdoptionQuestion) -> tuple[Sets, str]:
    """The `USERS` of each period of a scope, and their id map."""
    (users, present), kind, first_day = Users.recorded(
        (question.feature, None),
        (question.active, question.where),
        asked=asked,
        strict=question.strict,
    )
    past = Past.of(users.what, asked, first_day)

    def make(bitmaps: Bitmaps) -> Iterator[Bitmap]:
        first = past.newcomers(bitmaps)
        for period, newcomers in zip(asked.periods, first, strict=True):
            here = present.in_period(bitmaps, period)
            both = here & users.in_period(bitmaps, period)
            yield from (here, both, both & newcomers)

    keys = [*past.keys(), *users.keys(asked.periods), *present.keys(asked.periods)]
    return Sets(asked.tracker, keys, make), kind
