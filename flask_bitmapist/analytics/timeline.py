"""What one user did on which days: the calendar of a person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from ..ids import normal_form
from .report import Report, scope

if TYPE_CHECKING:
    from ..marking import Tracker

#: How many days are shown unless it is told: what a year's calendar holds.
USUAL_DAYS = 365
# Commands of one round trip: 50 MB in redis-py.
_BATCH = 100_000


@dataclass(frozen=True, slots=True)
class Timeline(Report):
    """The days of one user.

    :ivar days: the events that the user did, by name, each with its days in time order.
    :ivar first: the first of all these days; None if there is none.
    :ivar last: the last of them.
    """

    days: dict[str, list[date]]
    first: date | None
    last: date | None

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """One row an event and day."""
        return ["event", "day"], [[event, day] for event, days in self.days.items() for day in days]


def timeline(
    user: object,
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    *,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Timeline:
    """Which events `user` did on which days.

    ``timeline(123, today, today).last`` answers whether user 123 has been here today. An event
    marked with the ids of rows other than users' shows the row with the user's number.

    :param user: whatever the user was marked with: an int, str, UUID, ObjectId or tuple.
    :param start: the first day; by default 365 days up to `end`.
    :param end: the last day; by default today.
    :param now: the moment as of which to report.
    :param tracker: whose events; by default the current app's.
    :raises ValueError: for something that identifies nobody; for more than 1000 days.
    :raises redis.RedisError: if the server does not answer.
    """
    asked = scope("day", start, end, now, tracker, length=USUAL_DAYS)
    # What bitmapist wrote without us is registered nowhere, and its ids are plain.
    plain = isinstance(normal_form(user), int)
    spaces = asked.tracker.spaces(scanned=plain)
    offsets = asked.tracker.offsets_of(user, {None, *spaces.values()})
    bits = [
        (event, period, offset)
        for event, space in sorted(spaces.items())
        if (offset := offsets[space]) is not None
        for period in asked.periods
    ]
    days: dict[str, list[date]] = {}
    for first in range(0, len(bits), _BATCH):
        batch = bits[first : first + _BATCH]
        pipeline = asked.tracker.redis.pipeline(transaction=False)
        for event, period, offset in batch:
            pipeline.getbit(period.key(event), offset)
        for (event, period, _), was_there in zip(batch, pipeline.execute(), strict=True):
            if was_there:
                days.setdefault(event, []).append(period.start.date())
    every = [day for done in days.values() for day in done]
    return Timeline(days, min(every, default=None), max(every, default=None))
