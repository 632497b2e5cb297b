"""How many of the active users use a feature, and how many for the first time ever."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

from ..periods import Grain
from ..reading.bitmaps import Bitmaps, tally
from ..reading.segments import Expression, parse
from ._report import Past, Report, Users, label, scope

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
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Adoption:
    """How many of those who did `active` in each period did `feature` too.

    active = n(a[p] & S[p]), users = n(a[p] & S[p] & f[p]), new = n(a[p] & S[p] & first(f)[p]).

    :param feature: the event that tells that the feature is used, or a segment with an event.
    :param active: the event that tells that somebody is active, or a segment.
    :param by: ``hour``, ``day``, ``week``, ``month`` or ``year``.
    :param start: a moment of the first period; by default 30 days, 12 weeks, 12 months... ago.
    :param end: a moment of the last period; by default now.
    :param where: only those in this segment, evaluated in each period.
    :param strict: an event that was never marked is an error, rather than 0.
    :param now: the moment as of which to report.
    :param tracker: whose events; by default the current app's.
    :raises ValueError: saying which argument is wrong, and what is allowed.
    :raises redis.RedisError: if the server does not answer.
    """
    asked = scope(by, start, end, now, tracker)
    if not parse(feature).events():
        raise ValueError(f"a feature is used at a time: {feature} has no event, only undated flags")
    (users, present), _, first_day = Users.recorded(
        (feature, None), (active, where), tracker=asked.tracker, strict=strict
    )
    past = Past(users.what, asked.periods[0], first_day)

    def count(bitmaps: Bitmaps) -> list[int]:
        figures = []
        before = past.users(bitmaps)
        for period in asked.periods:
            here, using = present.in_period(bitmaps, period), users.in_period(bitmaps, period)
            both = here & using
            figures += [len(here), len(both), len(both - before)]
            before |= using
        return figures

    keys = [*past.keys(), *users.keys(asked.periods), *present.keys(asked.periods)]
    counted = iter(tally(asked.tracker.redis, keys, count))
    return Adoption(
        [
            AdoptionPoint(
                label(period), n, both, new, both / n if n else None, asked.is_complete(period)
            )
            for period, n, both, new in zip(asked.periods, counted, counted, counted, strict=True)
        ]
    )
