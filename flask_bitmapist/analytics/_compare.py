"""Which arm of an experiment does better: conversion of each, and its difference from the first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial
from math import erfc, sqrt
from typing import TYPE_CHECKING

from ..periods import Grain
from ..questions import AsOf, CompareFigure, CompareQuestion
from ..reading.bitmap import Bitmap
from ..reading.bitmaps import Bitmaps
from ..reading.segments import Expression
from ._breakdown import Breakdown, Divided, Values, counted
from ._report import Scope, Users, check_length, scope
from ._sets import Crowd, Page, People, Sets
from ._statistics import rate

if TYPE_CHECKING:
    from ..tracker import Tracker


@dataclass(frozen=True, slots=True)
class Arm:
    """The unique users of one arm.

    :ivar segment: whom the arm holds.
    :ivar converted: those of its `size` users who reached the goal.
    :ivar rate: as a share of `size`, in the 95 % interval from `low` to `high`; None for an empty
        arm.
    :ivar z: by how many standard errors the rate is above the first arm's; None for the first arm
        itself, and where there is nothing to compare: an arm is empty, nobody or everybody
        converted.
    :ivar p: the probability of a difference at least this large, either way, if the arms do not
        really differ.
    """

    segment: str
    size: int
    converted: int
    rate: float | None
    low: float | None
    high: float | None
    z: float | None
    p: float | None


@dataclass(frozen=True, slots=True)
class Compare(Divided):
    """The arms in the order in which they were asked for; the first is the one compared with.

    :ivar shared: for each arm, how many of its users are in the first one too. The test assumes
        that arms share no users; where they do, it says little.
    """

    arms: list[Arm]
    shared: list[int] = field(default_factory=list, compare=False)

    @property
    def differences(self) -> list[float | None]:
        """For each arm its rate less the first arm's; None where one of them is empty."""
        first = self.arms[0].rate
        return [
            None if arm.rate is None or first is None else arm.rate - first for arm in self.arms
        ]


def compare(
    arms: Iterable[str | Expression],
    goal: str | Expression,
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    by: Grain = "day",
    where: str | Expression | None = None,
    *,
    over: str | None = None,
    breakdown: Breakdown = None,
    as_of: AsOf = "now",
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Compare:
    """How many of each arm's users did `goal` from `start` to `end`, against the first arm.

    An arm is n(A & S), converted is n(A & S & G); each of these sets is the union over the periods.
    Users in two arms count in both. The test assumes that there are none; `shared` tells how many.

    :param arms: segments, such as ``[Flag("button:blue"), Flag("button:green")]``.
    :param goal: the event to be reached, or a segment.
    :param start: a moment of the first period; by default 30 days, 12 weeks, 12 months... ago.
    :param end: a moment of the last period; by default now.
    :param over: the range in words instead, such as ``last 28 days`` or ``last month``.
    :param by: ``hour``, ``day``, ``week``, ``month`` or ``year``.
    :param where: only those in this segment, in a period in which they are in the arm.
    :param breakdown: also give the report for the people of each value: the name of a dimension,
        or flags and segments. See `Compare.parts`.
    :param as_of: ``then``: people count in each period under the value that they had at the end of
        its month, if the dimension is dated; ``now``: under the one that they have now.
    :param strict: an event that was never marked is an error, rather than 0.
    :param now: the moment as of which to report.
    :param tracker: whose events; by default the current app's.
    :raises ValueError: saying which argument is wrong, and what is allowed.
    :raises redis.RedisError: if the server does not answer.
    """
    question = CompareQuestion.of(
        arms=arms,
        goal=goal,
        start=start,
        end=end,
        over=over,
        by=by,
        where=where,
        breakdown=breakdown,
        as_of=as_of,
        strict=strict,
        now=now,
    )
    return answer(question, tracker)


def answer(question: CompareQuestion, tracker: Tracker | None) -> Compare:
    """The answer to `question`."""
    asked, listed = scope(question, tracker), question.arms
    values = Values.of(question, asked.known)
    reaching, *groups = Users.each(
        (question.goal, None),
        *((arm, question.where) for arm in listed),
        *values.pairs(),
        asked=asked,
        strict=question.strict,
    )

    arms, having = groups[: len(listed)], groups[len(listed) :]

    def sets(where: Expression | None) -> Sets:
        return _sets(asked, reaching, [Users(arm.what, where) for arm in arms])

    return counted(asked, values.told(having), arms[0].where, sets, partial(_report, question))


def _report(question: CompareQuestion, counted: list[int]) -> Compare:
    """The report of the counts of `_sets`."""
    sizes, converted, shared = counted[::3], counted[1::3], counted[2::3]
    return Compare(
        [
            Arm(
                str(arm),
                size,
                n,
                *rate(n, size),
                *(_difference(n, size, converted[0], sizes[0]) if i else (None, None)),
            )
            for i, (arm, size, n) in enumerate(zip(question.arms, sizes, converted, strict=True))
        ],
        shared,
    )


def compare_people(
    arm: str | Expression,
    goal: str | Expression,
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    by: Grain = "day",
    where: str | Expression | None = None,
    *,
    over: str | None = None,
    converted: bool | None = None,
    first: int = 0,
    limit: int = 50,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> People:
    """Who is in an arm, page by page: all, those who did `goal`, or those who did not.

    :param arm: a segment, such as ``Flag("button:blue")``.
    :param converted: True: those who did `goal`; False: those who did not; None: the whole arm.
    :param first: the index, from 0, of the first of them to be listed, in the order of offsets.
    :param limit: how many are listed at most, 1 to 1000.

    The other arguments and errors are those of `compare`.
    """
    page = Page(first, limit)
    question = CompareQuestion.of(
        arms=[arm],
        goal=goal,
        start=start,
        end=end,
        over=over,
        by=by,
        where=where,
        strict=strict,
        now=now,
    )
    figure = CompareFigure.of(converted=converted)
    return behind(question, figure, tracker).page(page)


def behind(question: CompareQuestion, figure: CompareFigure, tracker: Tracker | None) -> Crowd:
    """The people behind `figure`."""
    check_length("arm", figure.arm, least=0, most=len(question.arms) - 1)
    asked, arm, converted = scope(question, tracker), question.arms[figure.arm], figure.converted
    (reaching, group), kind = Users.mapped(
        (question.goal, None),
        (arm, question.where),
        asked=asked,
        strict=question.strict,
    )

    def pick(sets: Iterable[Bitmap]) -> Bitmap:
        members, reached, _ = sets
        if converted is None:
            return members
        return reached if converted else members - reached

    return Crowd(_sets(asked, reaching, [group]), pick, kind)


def _sets(asked: Scope, reaching: Users, groups: Iterable[Users]) -> Sets:
    """Of each arm: all, those who reached the goal, those who are in the first one too."""

    def make(bitmaps: Bitmaps) -> Iterator[Bitmap]:
        reached, first = reaching.in_any(bitmaps, asked.periods), None
        for group in groups:
            members = group.in_any(bitmaps, asked.periods)
            first = members if first is None else first
            yield from (members, members & reached, members & first)

    keys = [key for users in (reaching, *groups) for key in users.keys(asked.periods)]
    return Sets(asked.tracker, keys, make)


def _difference(
    converted: int, size: int, converted_first: int, size_first: int
) -> tuple[float | None, float | None]:
    """z and the two-sided p of two proportions, the standard error from both pooled.

    NIST/SEMATECH e-Handbook of Statistical Methods, 7.3.3 (normal approximation).

    >>> [round(figure, 4) for figure in _difference(60, 100, 45, 100)]
    [2.124, 0.0337]
    """
    if not size or not size_first:
        return None, None
    pooled = (converted + converted_first) / (size + size_first)
    error = sqrt(pooled * (1 - pooled) * (1 / size + 1 / size_first))
    if not error:
        return None, None
    z = (converted / size - converted_first / size_first) / error
    return z, erfc(abs(z) / sqrt(2))
