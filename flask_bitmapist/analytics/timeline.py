"""What one user did on which days: the calendar of a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..ids import normal_form
from ..periods import Period
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
    client = asked.tracker.redis
    # What bitmapist wrote without us is registered nowhere, and its ids are plain.
    spaces = asked.tracker.spaces(unregistered=isinstance(normal_form(user), int))
    # One look-up a kind of ids, whatever the number of events.
    offsets = {space: asked.tracker.offset_of(user, space) for space in {None, *spaces.values()}}
    calendar = {
        month: list(days)
        for month, days in groupby(asked.periods, lambda day: Period.containing("month", day.start))
    }
    months = [
        (event, month, offset)
        for event, space in sorted(spaces.items())
        if (offset := offsets[space]) is not None
        for month in calendar
    ]
    if "month" not in asked.tracker.settings.ttl:
        # Whoever sets or clears a day's bit, bitmapist or we, does so in its month too, and no
        # bitmap ever becomes shorter: none of a month's days reaches further than the month does.
        # The month's bit itself does not tell: unmarking one day clears it for all the others.
        lengths = _replies(client, [("STRLEN", month.key(event)) for event, month, _ in months])
        months = [one for one, length in zip(months, lengths, strict=True) if length > one[-1] // 8]
    bits = [(event, day, offset) for event, month, offset in months for day in calendar[month]]
    found = _replies(client, [("GETBIT", day.key(event), offset) for event, day, offset in bits])
    days: dict[str, list[date]] = {}
    for (event, day, _), was_there in zip(bits, found, strict=True):
        if was_there:
            days.setdefault(event, []).append(day.start.date())
    every = [day for done in days.values() for day in done]
    return Timeline(days, min(every, default=None), max(every, default=None))


def _replies(client: Any, commands: Sequence[tuple[Any, ...]]) -> list[int]:
    """The replies to `commands`, in one round trip for each 100,000 of them."""
    replies: list[int] = []
    for first in range(0, len(commands), _BATCH):
        pipeline = client.pipeline(transaction=False)
        for command in commands[first : first + _BATCH]:
            pipeline.execute_command(*command)
        replies += pipeline.execute()
    return replies
