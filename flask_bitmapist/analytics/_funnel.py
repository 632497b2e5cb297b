"""How many took each step of a path: funnels, ordered at the grain of a period."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial
from itertools import accumulate, chain, islice, pairwise, repeat
from operator import and_
from typing import TYPE_CHECKING, Any

from ..periods import Grain
from ..questions import (
    AsOf,
    ConversionQuestion,
    FunnelFigure,
    FunnelQuestion,
    TimeToConvertQuestion,
)
from ..questions.funnel import Order, Which
from ..reading.bitmap import EMPTY, Bitmap, union
from ..reading.bitmaps import Bitmaps
from ..reading.segments import Expression
from ._breakdown import Breakdown, Divided, Values, counted
from ._paths import Path, in_any_order, in_order, in_order_within
from ._report import Scope, Users, check_length, flat_table, scope
from ._sets import Crowd, Page, People, Sets, nth

if TYPE_CHECKING:
    from ..tracker import Tracker


@dataclass(frozen=True, slots=True)
class Step:
    """Unique users who took this step and all before it.

    With `within`, rates are over the entries whose window is over: later ones may still convert.

    :ivar from_first: as a share of the first step's users; None if there were none.
    :ivar from_previous: as a share of the previous step's; None if there were none, or no step.
    :ivar open: how many took the first step but not this one yet, and still have time for it.
    """

    event: str
    users: int
    from_first: float | None
    from_previous: float | None
    open: int = 0


@dataclass(frozen=True, slots=True)
class Funnel(Divided):
    """The steps in the order in which they were asked for.

    The order in which somebody took two of them inside one period is unknown.

    :ivar previous: the steps of as many periods right before; empty unless they were asked for.
    """

    steps: list[Step]
    previous: list[Step] = field(default_factory=list, kw_only=True)

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """One row a step, beside what it was in the periods before, if that was asked for."""
        header, rows = flat_table(self.steps)
        if not self.previous:
            return header, rows
        return [*header, "previous", "previous_from_first"], [
            [*row, then.users, then.from_first]
            for row, then in zip(rows, self.previous, strict=True)
        ]

    @property
    def change(self) -> float | None:
        """How much larger the share of the last step is than in the periods before, of 1.

        None if they were not asked for, or if nobody took the first step in either.
        """
        if not self.previous:
            return None
        now, then = self.steps[-1].from_first, self.previous[-1].from_first
        return None if now is None or then is None else now - then

    @property
    def lost(self) -> list[int]:
        """For each step but the last, how many took it and did not go on to the next in time."""
        # People who may still take this step may also take the next one.
        return [
            here.users + here.open - after.users - after.open
            for here, after in pairwise(self.steps)
        ]


def funnel(
    steps: Iterable[str | Expression],
    by: Grain = "day",
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    within: int | None = None,
    order: Order = "ordered",
    where: str | Expression | None = None,
    *,
    over: str | None = None,
    breakdown: Breakdown = None,
    as_of: AsOf = "now",
    previous: bool = False,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Funnel:
    """How many took the first step, and went on to the second, the third...

    Ordered at the grain of a period: Rk(j) = Rk(j-1) + (ek[j] & R(k-1)(j)), or R(k-1)(j-1) with
    ``order="strict"``. The order of two steps inside one period is unknown: ``ordered`` counts
    them as taken in order, ``strict`` as not.

    :param steps: events' names, or segments.
    :param by: ``hour``, ``day``, ``week``, ``month`` or ``year``.
    :param start: a moment of the first period; by default 30 days, 12 weeks, 12 months... ago.
    :param end: a moment of the last period; by default now.
    :param over: the range in words instead, such as ``last 28 days`` or ``last month``.
    :param within: count those who took the last step at most this many periods after the first.
        The first step is then taken from `start` to `end`, the others up to `within` periods
        later, as far as there are periods yet: who enters on the last day has as long as others.
        With ``order="any"``, all steps lie within so many periods of whichever came first.
        Rates are over the entries whose window is over, and `Step.open` are those who have time
        left. None: all steps lie from `start` to `end`.
    :param order: ``ordered``, ``strict`` or ``any``. The same event twice in a row means that it is
        done in two periods with ``strict``, and is an error otherwise.
    :param where: only those in this segment in the period in which they took the first step.
    :param breakdown: also give the report for the people of each value: the name of a dimension,
        or flags and segments. See `Funnel.parts`.
    :param as_of: ``then``: people count in each period under the value that they had at the end of
        its month, if the dimension is dated; ``now``: under the one that they have now.
    :param previous: also count the funnel of the periods right before these, as many as there are.
    :param strict: an event that was never marked is an error, rather than 0.
    :param now: the moment as of which to report.
    :param tracker: whose events; by default the current app's.
    :raises ValueError: saying which argument is wrong, and what is allowed.
    :raises redis.RedisError: if the server does not answer.
    """
    question = FunnelQuestion.of(
        steps=steps,
        by=by,
        start=start,
        end=end,
        over=over,
        within=within,
        order=order,
        where=where,
        breakdown=breakdown,
        as_of=as_of,
        previous=previous,
        strict=strict,
        now=now,
    )
    return answer(question, tracker)


def answer(question: FunnelQuestion, tracker: Tracker | None) -> Funnel:
    """The answer to `question`."""
    asked = scope(question, tracker)
    values = Values.of(question, asked.known)
    pairs = (*each_step(question), *values.pairs())
    users = Users.each(*pairs, asked=asked, strict=question.strict)
    entering, *following = users[: len(question.steps)]
    having = users[len(question.steps) :]

    ranges = [asked, asked.before] if question.previous else [asked]

    def sets(where: Expression | None) -> Sets:
        entrants = [Users(entering.what, where), *following]
        each = [_sets(range_, entrants, question) for range_ in ranges]
        # Ranges share the periods in which the earlier one's windows end.
        keys = dict.fromkeys(key for one in each for key in one.keys)
        return Sets(
            asked.tracker,
            [*keys],
            lambda bitmaps: chain.from_iterable(one.make(bitmaps) for one in each),
        )

    return counted(asked, values.told(having), entering.where, sets, partial(_report, question))


def _report(question: FunnelQuestion, counted: list[int]) -> Funnel:
    """The report of the counts of `_sets`, and of those of the periods before, if asked for."""
    if not question.previous:
        return Funnel(_steps(question, counted))
    half = len(counted) // 2
    return Funnel(_steps(question, counted[:half]), previous=_steps(question, counted[half:]))


def _steps(question: FunnelQuestion, counted: list[int]) -> list[Step]:
    """The steps of the counts of `_sets`."""
    size = len(question.steps)
    reached, still_open = counted[:size], counted[size : 2 * size]
    rated = counted[2 * size :] or reached
    previous: list[int | None] = [None, *rated]
    return [
        Step(
            str(step),
            n,
            over / rated[0] if rated[0] else None,
            over / before if before else None,
            waiting,
        )
        for step, n, over, before, waiting in zip(
            question.steps, reached, rated, previous, still_open, strict=False
        )
    ]


def funnel_people(
    steps: Iterable[str | Expression],
    step: int,
    by: Grain = "day",
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    within: int | None = None,
    order: Order = "ordered",
    where: str | Expression | None = None,
    *,
    over: str | None = None,
    dropped: bool = False,
    which: Which = "reached",
    first: int = 0,
    limit: int = 50,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> People:
    """Who took a step of a funnel and all before it, page by page.

    :param step: its index in `steps`, from 0.
    :param dropped: short for ``which="dropped"``.
    :param which: ``reached``; ``dropped``: rather those who took all the steps before it, and not
        this one in time; ``open``: those whom `Step.open` counts, who still have time for it.
    :param first: the index, from 0, of the first of them to be listed, in the order of offsets.
    :param limit: how many are listed at most, 1 to 1000.

    The other arguments and errors are those of `funnel`. The first step is open to nobody, and
    nobody drops out before it: `step` is then 1 at least.
    """
    page = Page(first, limit)
    question = FunnelQuestion.of(
        steps=steps,
        by=by,
        start=start,
        end=end,
        over=over,
        within=within,
        order=order,
        where=where,
        strict=strict,
        now=now,
    )
    figure = FunnelFigure.of(step=step, which="dropped" if dropped else which)
    return behind(question, figure, tracker).page(page)


def behind(question: FunnelQuestion, figure: FunnelFigure, tracker: Tracker | None) -> Crowd:
    """The people behind `figure`."""
    last = len(question.steps) - 1
    check_length("step", figure.step, least=0 if figure.which == "reached" else 1, most=last)
    asked = scope(question, tracker)
    users, kind = Users.mapped(*each_step(question), asked=asked, strict=question.strict)
    pick = {
        "reached": nth(figure.step),
        "dropped": _dropped(figure.step, last + 1),
        "open": nth(last + 1 + figure.step),
    }[figure.which]
    return Crowd(_sets(asked, users, question), pick, kind)


def _dropped(step: int, steps: int) -> Callable[[Iterable[Bitmap]], Bitmap]:
    def pick(sets: Iterable[Bitmap]) -> Bitmap:
        every = [*islice(sets, 2 * steps)]
        return every[step - 1] - every[step] - every[steps + step]

    return pick


def each_step(
    question: FunnelQuestion | TimeToConvertQuestion | ConversionQuestion,
) -> Iterator[tuple[Expression, Expression | None]]:
    """Each step and the segment of those who may take it."""
    return zip(question.steps, chain([question.where], repeat(None)), strict=False)


def _sets(asked: Scope, users: list[Users], question: FunnelQuestion) -> Sets:
    """Who reached each step; whom it is open to; who reached it by an entry whose window is over.

    The last are left out without windows. `users` are those who did each step.
    """
    within, order = question.within, question.order
    path = Path.of(users, asked, within)
    closing = asked.current.shift(-(within or 0))
    closed = sum(period < closing for period in path.entries)

    def make(bitmaps: Bitmaps) -> list[Bitmap]:
        took = path.took(bitmaps)
        if within is None:
            if order == "any":
                reached = [*accumulate(map(union, took), and_)]
            else:
                reached = in_order(took, strict=order == "strict")
            return [*reached, *[EMPTY] * len(took)]
        if order == "any":
            reached, over = in_any_order(took, within, len(path.entries), closed)
        else:
            reached, over = in_order_within(took, within, closed, strict=order == "strict")
        late = union(took[0][closed:])
        return [*reached, EMPTY, *(late - users for users in reached[1:]), *over]

    return Sets(asked.tracker, path.keys(), make)
