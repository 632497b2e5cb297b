"""How much the users of several events overlap: counts and Jaccard indices, pair by pair."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from ..periods import Grain
from ..questions import OverlapFigure, OverlapQuestion
from ..reading.bitmap import Bitmap
from ..reading.bitmaps import Bitmaps, tally
from ..reading.segments import Expression
from ..reading.time_limit import small_step
from ._report import Report, Users, check_length, scope
from ._sets import Crowd, Sets, only

if TYPE_CHECKING:
    from ..tracker import Tracker


@dataclass(frozen=True, slots=True)
class Overlap(Report):
    """Row i and column j of a matrix are those of the events i and j.

    :ivar counts: unique users who did both; on the diagonal, who did the event.
    :ivar jaccard: those as a share of the users who did either (P. Jaccard, Bulletin de la Société
        Vaudoise des Sciences Naturelles 37 (1901), 547-579); None if nobody did.
    """

    events: list[str]
    counts: list[list[int]]
    jaccard: list[list[float | None]]

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """One row a pair of events, in both orders."""
        size = range(len(self.events))
        return ["event", "other", "users", "jaccard"], [
            [self.events[i], self.events[j], self.counts[i][j], self.jaccard[i][j]]
            for i in size
            for j in size
        ]


def overlap(
    events: Iterable[str | Expression],
    by: Grain = "day",
    at: date | datetime | None = None,
    where: str | Expression | None = None,
    *,
    over: str | None = None,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Overlap:
    """How many unique users did both of each two `events` in one period, or in a range.

    :param events: events' names, or segments.
    :param by: ``hour``, ``day``, ``week``, ``month`` or ``year``.
    :param at: a moment of the period; by default now.
    :param where: only those in this segment, evaluated in each period.
    :param over: the range in words instead of one period, such as ``last 28 days``. The users of an
        event are those of any of its periods.
    :param strict: an event that was never marked is an error, rather than 0.
    :param now: the moment as of which to report.
    :param tracker: whose events; by default the current app's.
    :raises ValueError: saying which argument is wrong, and what is allowed.
    :raises redis.RedisError: if the server does not answer.
    """
    question = OverlapQuestion.of(
        events=events, by=by, end=at, over=over, where=where, strict=strict, now=now
    )
    return answer(question, tracker)


def answer(question: OverlapQuestion, tracker: Tracker | None) -> Overlap:
    """The answer to `question`."""
    asked, listed = scope(question, tracker), question.events
    groups = Users.each(
        *((event, question.where) for event in listed),
        asked=asked,
        strict=question.strict,
    )
    size = range(len(groups))

    def count(bitmaps: Bitmaps) -> list[int]:
        sets = [users.in_any(bitmaps, asked.periods) for users in groups]
        counted = []
        for i, users in enumerate(sets):
            small_step(len(sets) - i)
            counted += [len(users), *map(users.common, sets[i + 1 :])]
        return counted

    keys = [key for users in groups for key in users.keys(asked.periods)]
    counted = iter(tally(asked.tracker.reader.redis, keys, count))
    counts = [[0] * len(groups) for _ in groups]
    for i in size:
        for j in size[i:]:
            counts[i][j] = counts[j][i] = next(counted)

    def jaccard(i: int, j: int) -> float | None:
        either = counts[i][i] + counts[j][j] - counts[i][j]
        return counts[i][j] / either if either else None

    return Overlap(
        [str(event) for event in listed], counts, [[jaccard(i, j) for j in size] for i in size]
    )


def behind(question: OverlapQuestion, figure: OverlapFigure, tracker: Tracker | None) -> Crowd:
    """The people behind `figure`."""
    last = len(question.events) - 1
    check_length("one", figure.one, least=0, most=last)
    check_length("other", figure.other, least=0, most=last)
    asked = scope(question, tracker)
    (one, other), kind = Users.mapped(
        (question.events[figure.one], question.where),
        (question.events[figure.other], question.where),
        asked=asked,
        strict=question.strict,
    )

    def make(bitmaps: Bitmaps) -> list[Bitmap]:
        return [one.in_any(bitmaps, asked.periods) & other.in_any(bitmaps, asked.periods)]

    keys = [*one.keys(asked.periods), *other.keys(asked.periods)]
    return Crowd(Sets(asked.tracker, keys, make), only, kind)
