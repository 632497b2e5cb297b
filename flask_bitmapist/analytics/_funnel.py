"""How many took each step of a path: funnels, ordered at the grain of a period."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from itertools import accumulate, chain, islice, pairwise, repeat
from operator import and_
from typing import TYPE_CHECKING

from ..periods import Grain
from ..questions import FunnelFigure, FunnelQuestion
from ..questions.funnel import Order, Which
from ..reading.bitmap import EMPTY, Bitmap, union
from ..reading.bitmaps import Bitmaps, sliding_unions
from ..reading.segments import Expression
from ..reading.time_limit import small_step
from ._breakdown import Breakdown, Divided, Values, counted
from ._report import Scope, Users, check_length, scope
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
    """

    steps: list[Step]

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
        strict=strict,
        now=now,
    )
    return answer(question, tracker)


def answer(question: FunnelQuestion, tracker: Tracker | None) -> Funnel:
    """The answer to `question`."""
    asked = scope(question, tracker)
    values = Values.of(question, asked.tracker)
    pairs = (*_each(question), *values.pairs())
    users = Users.each(*pairs, asked=asked, strict=question.strict)
    entering, *following = users[: len(question.steps)]
    having = users[len(question.steps) :]

    def sets(where: Expression | None) -> Sets:
        return _sets(asked, [Users(entering.what, where), *following], question)

    return counted(asked, values.told(having), entering.where, sets, partial(_report, question))


def _report(question: FunnelQuestion, counted: list[int]) -> Funnel:
    """The report of the counts of `_sets`."""
    size = len(question.steps)
    reached, still_open = counted[:size], counted[size : 2 * size]
    rated = counted[2 * size :] or reached
    previous: list[int | None] = [None, *rated]
    return Funnel(
        [
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
    )


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
    users, kind = Users.mapped(*_each(question), asked=asked, strict=question.strict)
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


def _each(question: FunnelQuestion) -> Iterator[tuple[Expression, Expression | None]]:
    """Each step and the segment of those who may take it."""
    return zip(question.steps, chain([question.where], repeat(None)), strict=False)


def _sets(asked: Scope, users: list[Users], question: FunnelQuestion) -> Sets:
    """Who reached each step; whom it is open to; who reached it by an entry whose window is over.

    The last are left out without windows. `users` are those who did each step.
    """
    within, order = question.within, question.order
    entering, *following = users
    entries = asked.periods
    later = (entries[-1].shift(k + 1) for k in range(within or 0))
    after = [period for period in later if period <= asked.current]
    periods = [*entries, *after]
    closing = asked.current.shift(-(within or 0))
    closed = sum(period < closing for period in entries)

    def make(bitmaps: Bitmaps) -> list[Bitmap]:
        entered = [entering.in_period(bitmaps, period) for period in entries]
        took = [
            entered + [EMPTY] * len(after),
            *([users.in_period(bitmaps, period) for period in periods] for users in following),
        ]
        if within is None:
            if order == "any":
                reached = [*accumulate(map(union, took), and_)]
            else:
                reached = _in_order(took, strict=order == "strict")
            return [*reached, *[EMPTY] * len(took)]
        if order == "any":
            reached, over = _in_any_order(took, within, len(entries), closed)
        else:
            reached, over = _in_order_within(took, within, closed, strict=order == "strict")
        late = union(entered[closed:])
        return [*reached, EMPTY, *(late - users for users in reached[1:]), *over]

    keys = [*entering.keys(entries), *(key for users in following for key in users.keys(periods))]
    return Sets(asked.tracker, keys, make)


#: For each step, for each period, who did its event.
_Took = Sequence[Sequence[Bitmap]]


def _in_order(took: _Took, *, strict: bool) -> list[Bitmap]:
    """Who reached each step."""
    reached = [EMPTY] * len(took)
    for did in zip(*took, strict=True):
        small_step(len(did))
        for k in _turns(len(took), strict):
            reached[k] |= did[k] & reached[k - 1] if k else did[k]
    return reached


def _turns(steps: int, strict: bool) -> Iterable[int]:
    """The steps in the order in which a period moves users on.

    Backwards, nobody moves by two steps in one period.
    """
    return range(steps - 1, -1, -1) if strict else range(steps)


def _in_order_within(
    took: _Took, within: int, closed: int, *, strict: bool
) -> tuple[list[Bitmap], list[Bitmap]]:
    """Who reached each step at most `within` periods after an entry; who did by an early one.

    :param closed: in how many periods, from the first on, an entry is early: its window is over.
    """
    periods = list(zip(*took, strict=True))
    early = _Windows(took, within, strict=strict)
    for did in periods[:closed]:
        early.move(did)
    every = early.copy()
    for did in periods[closed:]:
        every.move(did)
    # An entry's window ends `within` periods later.
    for did in periods[closed : closed + within] if closed else ():
        early.move([EMPTY, *did[1:]])
    return every.reached, early.reached


class _Windows:
    """Who has reached each step at most `within` periods after an entry.

    The same as running `_in_order` from each entry over its window, and the union of that. But of
    all the entries by which a user can have reached a step only the latest matters, since its
    window closes last; and whoever reaches step k by it had reached k - 1 by one no earlier, so
    each step takes the latest entry over from the step before. That costs log2(within) operations
    a step and period, where the windows one by one would cost `within`.
    """

    def __init__(self, took: _Took, within: int, *, strict: bool) -> None:
        self.reached = [EMPTY] * len(took)
        self._by_entry = [_Entries(within + 1) for _ in took[1:]]
        self._moves, self._slots = 0, within + 1
        self._turns = _turns(len(took), strict)

    def copy(self) -> _Windows:
        """Another one that goes on from here."""
        other = copy(self)
        other.reached = [*self.reached]
        other._by_entry = [entries.copy() for entries in self._by_entry]
        return other

    def move(self, did: Sequence[Bitmap]) -> None:
        """Users move on in the next period; `did` are those who did each step in it."""
        small_step(len(did) * (1 + self._slots.bit_length()))
        slot = self._moves % self._slots
        self._moves += 1
        for entries in self._by_entry:
            entries.close(slot)
        for k in self._turns:
            arrived = did[k] & self._by_entry[k - 1].open if k else did[k]
            self.reached[k] |= arrived
            if k == len(self._by_entry):
                continue
            if k:
                self._by_entry[k].take_over(arrived, self._by_entry[k - 1])
            else:
                self._by_entry[k].enter(arrived, slot)


class _Entries:
    """The latest entry by which each user reached a step, for those whose window is `open`.

    An entry is the number of its period modulo the length of a window, kept as one bitmap over all
    users for each binary digit (bit-slicing: P. O'Neil and D. Quass, Improved query performance
    with variant indexes, SIGMOD 1997, 38-49).
    """

    def __init__(self, slots: int) -> None:
        self.open = EMPTY
        self._digits = [EMPTY] * (slots - 1).bit_length()

    def copy(self) -> _Entries:
        """The same, apart from what follows."""
        other = copy(self)
        other._digits = [*self._digits]
        return other

    def close(self, slot: int) -> None:
        """Forget those who entered in `slot` when it was used before."""
        closing = self.open
        for digit, users in enumerate(self._digits):
            closing = closing & users if slot >> digit & 1 else closing - users
        self.open -= closing

    def enter(self, users: Bitmap, slot: int) -> None:
        """`users` enter in `slot`."""
        for digit, those in enumerate(self._digits):
            self._digits[digit] = those | users if slot >> digit & 1 else those - users
        self.open |= users

    def take_over(self, users: Bitmap, before: _Entries) -> None:
        """`users` reach this step by the entries by which they reached the step `before`."""
        for digit, (those, told) in enumerate(zip(self._digits, before._digits, strict=True)):
            self._digits[digit] = (those - users) | (told & users)
        self.open |= users


def _in_any_order(
    took: _Took, within: int, entries: int, closed: int
) -> tuple[list[Bitmap], list[Bitmap]]:
    """Who took each step and all before it in the window from some entry; who took the first early.

    :param entries: in how many periods there may be entries.
    :param closed: in how many of them, from the first on, the first step is early: all windows in
        which it lies are over.
    """
    first, *others = ([*sliding_unions(step, within + 1)[:entries]] for step in took)
    early = sliding_unions(took[0][:closed], within + 1)
    return _in_some(first, others), _in_some(early, others)


def _in_some(first: Sequence[Bitmap], others: Sequence[Sequence[Bitmap]]) -> list[Bitmap]:
    """Who took each step and all before it in one window, given who took each in which."""
    reached = [EMPTY] * (1 + len(others))
    for window in zip(first, *others, strict=False):
        small_step(len(window))
        for k, users in enumerate(accumulate(window, and_)):
            reached[k] |= users
    return reached
