"""Who is in a segment: their ids, their number, and whether somebody is among them."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..ids import normal_form
from ..periods import Grain, Period
from .bitmaps import around, slices, tally
from .report import Users, check_known, scope
from .segments import Expression, parse

if TYPE_CHECKING:
    from ..marking import Tracker


def users(
    expression: str | Expression,
    by: Grain = "day",
    at: date | datetime | None = None,
    *,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> NDArray[np.intp] | list[int | str]:
    """The ids of those in `expression` in one period, in the order of their offsets.

    :param expression: an event's name, or a segment.
    :param by: ``hour``, ``day``, ``week``, ``month`` or ``year``.
    :param at: a moment of the period; by default now.
    :param strict: an event that was never marked is an error, rather than nobody.
    :param now: the moment that counts as now.
    :param tracker: whose events; by default the current app's.
    :returns: plain ids as an array, ``(n,) intp``; mapped ones as a list of the texts that they
        were marked with, with ``BITMAPIST_ID_MAP="always"`` of the ints too.
    :raises ValueError: saying which argument is wrong, and what is allowed.
    :raises redis.RedisError: if the server does not answer.
    """
    group, period, tracker, space = _asked(expression, by, at, strict, now, tracker)
    found = []
    for bitmaps in slices(tracker.redis, group.keys([period])):
        for part in bitmaps.parts():
            found.append(group.in_period(part, period).ids())
            found[-1] += part.first_offset
    offsets = found[0] if len(found) == 1 else np.concatenate(found)
    if space is None:
        return offsets
    texts = [text for text in tracker.ids_at(offsets, space) if text is not None]
    # Under 'always' an int and its decimal spelling are one id: it comes back as the int.
    return [*map(normal_form, texts)] if tracker.settings.id_map == "always" else [*texts]


def count(
    expression: str | Expression,
    by: Grain = "day",
    at: date | datetime | None = None,
    *,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> int:
    """How many unique users are in `expression` in one period.

    Arguments and errors are those of `users`.
    """
    group, period, tracker, _ = _asked(expression, by, at, strict, now, tracker)
    (counted,) = tally(
        tracker.redis, group.keys([period]), lambda part: [len(group.in_period(part, period))]
    )
    return counted


def contains(
    expression: str | Expression,
    user: object,
    by: Grain = "day",
    at: date | datetime | None = None,
    *,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> bool:
    """Whether `user` is in `expression` in one period; reads one byte of each bitmap.

    :param user: whatever the user was marked with: an int, str, UUID, ObjectId or tuple.
    :raises ValueError: for something that identifies nobody, too.

    The other arguments and errors are those of `users`.
    """
    group, period, tracker, space = _asked(expression, by, at, strict, now, tracker)
    offset = tracker.offset_of(user, space)
    if offset is None:
        return False
    byte = around(tracker.redis, group.keys([period]), offset)
    return offset - byte.first_offset in group.in_period(byte, period)


def _asked(
    expression: str | Expression,
    by: Grain,
    at: date | datetime | None,
    strict: bool,
    now: date | datetime | None,
    tracker: Tracker | None,
) -> tuple[Users, Period, Tracker, str | None]:
    """Whom is asked for, in which period, of which tracker, and the id map they share."""
    asked = scope(by, None, at, now, tracker, length=1)
    group = Users(parse(expression))
    if strict:
        check_known(group.names(), asked.tracker)
    return group, asked.periods[0], asked.tracker, asked.tracker.space(group.names())
