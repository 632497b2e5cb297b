"""Who is in a segment: their ids, their number, and whether somebody is among them."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..ids import PLAIN
from ..periods import Grain, Period
from ..questions import PeopleFigure, PeopleQuestion
from ..reading.bitmaps import around, parts, tally
from ..reading.segments import Expression
from ._report import Users, check_length, periods_of, scope
from ._sets import USUAL_PAGE, Crowd, Page, People, Sets, only

if TYPE_CHECKING:
    from ..tracker import Tracker


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
    group, period, tracker, kind = _asked(expression, by, at, strict, now, tracker)
    found = []
    for part in parts(tracker.reader.redis, group.keys([period])):
        found.append(group.in_period(part, period).ids())
        found[-1] += part.first_offset
    offsets = found[0] if len(found) == 1 else np.concatenate(found)
    return offsets if kind == PLAIN else tracker.reader.identifiers_at(offsets, kind)


def people(
    expression: str | Expression,
    by: Grain = "day",
    at: date | datetime | None = None,
    *,
    rolling: int | None = None,
    over: str | None = None,
    where: str | Expression | None = None,
    first: int = 0,
    limit: int = 50,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> People:
    """Who is in `expression` in one period, page by page: those whom a point of `trend` counts.

    :param at: a moment of the period; by default now.
    :param rolling: who is in it in at least one of this many periods, the last of which is that of
        `at`; by default 1.
    :param over: the periods in words instead, such as ``last 14 days`` or ``last month``.
    :param where: only those in this segment, evaluated in each period.
    :param first: the index, from 0, of the first of them to be listed, in the order of offsets.
    :param limit: how many are listed at most, 1 to 1000.

    The other arguments and errors are those of `trend`.
    """
    page = Page(first, limit)
    question = PeopleQuestion.of(
        expression=expression,
        by=by,
        end=at,
        over=over,
        rows=None if rolling is None else check_length("rolling", rolling),
        among=where,
        strict=strict,
        now=now,
    )
    return _crowd(question, tracker).page(page)


def answer(question: PeopleQuestion, tracker: Tracker | None) -> People:
    """The answer to `question`: their first page."""
    return _crowd(question, tracker).page(Page(0, USUAL_PAGE))


def behind(question: PeopleQuestion, figure: PeopleFigure, tracker: Tracker | None) -> Crowd:
    """The people behind `figure`."""
    return _crowd(question, tracker)


def _crowd(question: PeopleQuestion, tracker: Tracker | None) -> Crowd:
    asked = scope(question, tracker)
    (users,), kind = Users.mapped(
        (question.expression, question.among), asked=asked, strict=question.strict
    )
    keys = [*users.keys(asked.periods)]
    sets = Sets(asked.tracker, keys, lambda bitmaps: [users.in_any(bitmaps, asked.periods)])
    return Crowd(sets, only, kind)


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
        tracker.reader.redis,
        group.keys([period]),
        lambda part: [len(group.in_period(part, period))],
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
    group, period, tracker, kind = _asked(expression, by, at, strict, now, tracker)
    offset = tracker.reader.offset_of(user, kind)
    if offset is None:
        return False
    byte = around(tracker.reader.redis, group.keys([period]), offset)
    return offset - byte.first_offset in group.in_period(byte, period)


def _asked(
    expression: str | Expression,
    by: Grain,
    at: date | datetime | None,
    strict: bool,
    now: date | datetime | None,
    tracker: Tracker | None,
) -> tuple[Users, Period, Tracker, str]:
    """Whom is asked for, in which period, of which tracker, and the id map they share."""
    asked = periods_of(by, None, at, now, tracker, length=1)
    (group,), kind = Users.mapped((expression, None), asked=asked, strict=strict)
    return group, asked.periods[0], asked.tracker, kind
