"""How many periods of a window each user was active in: stickiness and power-user curves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any, Literal

from ..periods import Grain, Period
from ..questions import AsOf, StickinessFigure, StickinessQuestion
from ..reading.bitmap import EMPTY, Bitmap, union
from ..reading.bitmaps import Bitmaps
from ..reading.segments import Expression
from ..reading.time_limit import small_step
from ._breakdown import Breakdown, Divided, Values, counted
from ._report import Scope, Users, check_length, label, periods_of
from ._sets import Crowd, Page, People, Sets, nth

if TYPE_CHECKING:
    from ..tracker import Tracker


@dataclass(frozen=True, slots=True)
class Stickiness(Divided):
    """How many users were active in exactly k periods of a window.

    :ivar start: the window's first period.
    :ivar end: its last period.
    :ivar counts: for every k from 1 to the number of periods, the users.
    :ivar users: those who were active at all.
    """

    start: date | datetime
    end: date | datetime
    counts: dict[int, int]
    users: int

    @property
    def shares(self) -> dict[int, float | None]:
        """For every k, the users as a share of all; None if there were none."""
        return {k: n / self.users if self.users else None for k, n in self.counts.items()}

    def table(self) -> tuple[list[str], list[list[Any]]]:
        return ["periods", "users"], [[periods, users] for periods, users in self.counts.items()]


def stickiness(
    event: str | Expression,
    by: Grain = "day",
    within: int | Literal["week", "month"] | None = None,
    end: date | datetime | None = None,
    where: str | Expression | None = None,
    *,
    start: date | datetime | None = None,
    over: str | None = None,
    breakdown: Breakdown = None,
    as_of: AsOf = "now",
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Stickiness:
    """How many users did `event` in exactly k periods of a window, for every k from 1.

    :param event: an event's name, or a segment.
    :param by: ``hour``, ``day``, ``week``, ``month`` or ``year``.
    :param within: the window: that many periods up to the one of `end` (7 and 28 days are the
        power-user curves L7 and L28), or the calendar ``week`` or ``month`` that contains `end`; by
        default 28 periods.
    :param end: a moment of the window's last period, or of the calendar's; by default now.
    :param where: only those in this segment, evaluated in each period.
    :param start: a moment of the window's first period, instead of `within`.
    :param over: the window in words instead, such as ``last 28 days`` or ``last month``.
    :param breakdown: also give the report for the people of each value: the name of a dimension,
        or flags and segments. See `Stickiness.parts`.
    :param as_of: ``then``: people count in each period under the value that they had at the end of
        its month, if the dimension is dated; ``now``: under the one that they have now.
    :param strict: an event that was never marked is an error, rather than 0.
    :param now: the moment as of which to report.
    :param tracker: whose events; by default the current app's.
    :raises ValueError: saying which argument is wrong, and what is allowed.
    :raises redis.RedisError: if the server does not answer.
    """
    question = StickinessQuestion.of(
        event=event,
        by=by,
        within=within,
        start=start,
        end=end,
        over=over,
        where=where,
        breakdown=breakdown,
        as_of=as_of,
        strict=strict,
        now=now,
    )
    return answer(question, tracker)


def answer(question: StickinessQuestion, tracker: Tracker | None) -> Stickiness:
    """The answer to `question`."""
    asked = _window(question, tracker)
    values = Values.of(question, asked.known)
    pairs = ((question.event, question.where), *values.pairs())
    users, *having = Users.each(*pairs, asked=asked, strict=question.strict)
    first, last = asked.periods[0], asked.periods[-1]

    def sets(where: Expression | None) -> Sets:
        return _sets(asked, Users(users.what, where))

    def report(counts: list[int]) -> Stickiness:
        exactly = dict(enumerate(counts, start=1))
        return Stickiness(label(first), label(last), exactly, sum(counts))

    return counted(asked, values.told(having), users.where, sets, report)


def stickiness_people(
    event: str | Expression,
    k: int | None = None,
    by: Grain = "day",
    within: int | Literal["week", "month"] | None = None,
    end: date | datetime | None = None,
    where: str | Expression | None = None,
    *,
    start: date | datetime | None = None,
    over: str | None = None,
    first: int = 0,
    limit: int = 50,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> People:
    """Who did `event` in exactly k periods of a window, page by page.

    :param k: 1 to the number of periods; None: who did it in any of them.
    :param first: the index, from 0, of the first of them to be listed, in the order of offsets.
    :param limit: how many are listed at most, 1 to 1000.

    The other arguments and errors are those of `stickiness`.
    """
    page = Page(first, limit)
    question = StickinessQuestion.of(
        event=event,
        by=by,
        within=within,
        start=start,
        end=end,
        over=over,
        where=where,
        strict=strict,
        now=now,
    )
    return behind(question, StickinessFigure.of(k=k), tracker).page(page)


def behind(
    question: StickinessQuestion, figure: StickinessFigure, tracker: Tracker | None
) -> Crowd:
    """The people behind `figure`."""
    asked, k = _window(question, tracker), figure.k
    if k is not None:
        check_length("k", k, most=len(asked.periods))
    (users,), kind = Users.mapped(
        (question.event, question.where), asked=asked, strict=question.strict
    )
    return Crowd(_sets(asked, users), union if k is None else nth(k - 1), kind)


def _window(question: StickinessQuestion, tracker: Tracker | None) -> Scope:
    """The scope of the periods of the window."""
    within = question.within
    asked = periods_of(
        question.by,
        question.start,
        question.end,
        question.now,
        tracker,
        over=question.over,
        length=within if isinstance(within, int) else 1,
    )
    if within is None or isinstance(within, int):
        return asked
    return replace(asked, periods=_calendar(within, asked.periods[-1]))


def _calendar(window: str, period: Period) -> tuple[Period, ...]:
    """The periods of the calendar week or month in which `period` begins."""
    if period.grain not in ("hour", "day"):
        raise ValueError(
            f"within={window!r} is counted by 'hour' or 'day', not by {period.grain!r}: "
            f"give a number of {period.grain}s"
        )
    whole: Grain = "week" if window == "week" else "month"
    calendar = Period.containing(whole, period.start)
    last = Period.containing(period.grain, calendar.end, period.zone).shift(-1)
    first = Period.containing(period.grain, calendar.start, period.zone)
    return tuple(first.until(last))


def _sets(asked: Scope, users: Users) -> Sets:
    """Those in exactly 1, 2, ... of the window's periods."""

    def make(bitmaps: Bitmaps) -> Iterator[Bitmap]:
        return _frequencies([users.in_period(bitmaps, period) for period in asked.periods])

    return Sets(asked.tracker, [*users.keys(asked.periods)], make)


def _frequencies(sets: list[Bitmap]) -> Iterator[Bitmap]:
    """Those in exactly 1, 2, ... of `sets`.

    The sets are added up in binary, all offsets at once: plane b holds the offsets whose number has
    bit b set. (Bit-sliced arithmetic: E. Rinfret, P. O'Neil and E. O'Neil, Bit-sliced index
    arithmetic, SIGMOD 2001.)
    """
    planes: list[Bitmap] = []
    for carry in sets:
        small_step(1 + len(planes))
        for bit, plane in enumerate(planes):
            if not carry:
                break
            planes[bit], carry = plane ^ carry, plane & carry
        if carry:
            planes.append(carry)
    exactly = chain(_exactly(union(planes), planes), repeat(EMPTY))
    return islice(exactly, 1, len(sets) + 1)


def _exactly(users: Bitmap, planes: list[Bitmap]) -> Iterator[Bitmap]:
    """For each number that `planes` can tell, in order, those of `users` who have it."""
    if not users:
        yield from repeat(EMPTY, 2 ** len(planes))
    elif not planes:
        yield users
    else:
        *lower, highest = planes
        yield from _exactly(users - highest, lower)
        yield from _exactly(users & highest, lower)
