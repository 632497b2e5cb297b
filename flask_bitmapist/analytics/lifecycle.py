"""Where the active users of a period come from, and how many of the last one's went."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from ..periods import Grain
from .bitmaps import Bitmaps, tally
from .report import Report, Users, label, scope
from .segments import Expression

if TYPE_CHECKING:
    from ..marking import Tracker


@dataclass(frozen=True, slots=True)
class LifecyclePoint:
    """The users of one period by their past; new, returning and resurrected add up to all.

    :ivar new: active for the first time ever.
    :ivar returning: active in the period before too.
    :ivar resurrected: not active in the period before, but earlier.
    :ivar dormant: active in the period before, and not in this one.
    :ivar complete: whether the period is over; else users may move from dormant to returning.
    """

    period_start: date | datetime
    new: int
    returning: int
    resurrected: int
    dormant: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Lifecycle(Report):
    """New, returning, resurrected and dormant users in each period, in time order."""

    points: list[LifecyclePoint]


def lifecycle(
    event: str | Expression,
    by: Grain = "day",
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    where: str | Expression | None = None,
    *,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Lifecycle:
    """How many of each period's users are new, returning or resurrected, and how many went dormant.

    With `where`, only those in the segment are active; new among them are those who did `event`
    for the first time ever, in the segment or not.

    :param event: an event's name, or a segment.
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
    within = scope(by, start, end, now, tracker)
    (users,), past = Users.each_and_past(
        (event, where), before=within.periods[0], tracker=within.tracker, strict=strict
    )
    periods = [within.periods[0].shift(-1), *within.periods]

    def count(bitmaps: Bitmaps) -> list[int]:
        active = [users.in_period(bitmaps, period) for period in periods]
        first = past.newcomers(bitmaps, within.periods)
        figures = []
        for (before, here), newcomers in zip(pairwise(active), first, strict=True):
            # An undated flag holds before the first recorded day too: those are not new.
            new = (here & newcomers) - before
            figures += [len(new), here.common(before), len(here), len(before)]
        return figures

    counted = iter(tally(within.tracker.redis, [*users.keys(periods), *past.keys()], count))
    figures = zip(within.periods, counted, counted, counted, counted, strict=True)
    return Lifecycle(
        [
            LifecyclePoint(
                label(period),
                new,
                returning,
                resurrected=here - new - returning,
                dormant=before - returning,
                complete=within.is_complete(period),
            )
            for period, new, returning, here, before in figures
        ]
    )
