"""Who came back: cohorts and what they did k periods later, as a table of rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import reduce
from itertools import accumulate, repeat
from operator import and_
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..periods import Grain, Period
from ..questions import AsOf, RetentionFigure, RetentionQuestion
from ..questions.retention import Members, Mode
from ..reading.bitmap import EMPTY, PAIRED_WORDS, Bitmap, union
from ..reading.bitmaps import NOWHERE, Bitmaps, Extent, Extents
from ..reading.segments import Expression
from ..reading.time_limit import small_step
from ._breakdown import Breakdown, Divided, Values, counted
from ._past import Past
from ._report import Scope, Users, label, scope, scope_at
from ._sets import Crowd, Page, People, Sets, counts, only
from ._statistics import rate

if TYPE_CHECKING:
    from ..tracker import Tracker

State = Literal["complete", "open", "future"]

# How many words of each bitmap are worked on at a time. A row of every cohort should stay in the
# processor's cache, and the number of a row's bits must fit a uint16: its sum takes half the time
# of a uint32's.
_CACHED_WORDS = 32 * 2**10
_LEAST_WORDS = 128
_COUNTED_WORDS = 1_023


class Cell(NamedTuple):
    """Those of a cohort who came back k periods later.

    A tuple, because a table has hundreds: making as many frozen dataclasses took a third of the
    time of a table of 10,000 users.

    :ivar users: how many; None if that period has not begun.
    :ivar state: ``complete``; ``open``: that period contains now, the figure may grow; ``future``.
    :ivar size: how many they could have been.
    """

    users: int | None
    state: State
    size: int = 0

    @property
    def rate(self) -> float | None:
        """The share of the cohort; None in the future, and where nobody is in the cohort."""
        return None if self.users is None or not self.size else self.users / self.size

    @property
    def low(self) -> float | None:
        """Where the 95 % Wilson interval of the rate begins."""
        return None if self.users is None else rate(self.users, self.size).low

    @property
    def high(self) -> float | None:
        """Where the 95 % Wilson interval of the rate ends."""
        return None if self.users is None else rate(self.users, self.size).high

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("users", "state", "rate", "low", "high")}


@dataclass(frozen=True, slots=True)
class Row:
    """The cohort of one period; cell k is what it did k periods later."""

    period_start: date | datetime
    size: int
    cells: list[Cell]


@dataclass(frozen=True, slots=True)
class Average:
    """The pooled rate of a column, over the `rows` with a size whose cell is complete.

    :ivar rate: the sum of users over the sum of sizes; None if there are no such rows.
    :ivar low: where its 95 % Wilson interval begins.
    :ivar high: where it ends.
    """

    rate: float | None
    low: float | None
    high: float | None
    rows: int


@dataclass(frozen=True, slots=True)
class Retention(Divided):
    """Cohorts in time order, and for each k the average over them.

    The CSV table has the users of the cells, and under ``open`` which k may still grow. With the
    cohorts before, its first column is ``range``: ``before`` or ``this``.

    :ivar previous: the cohorts of as many periods right before; None unless they were asked for.
    """

    rows: list[Row]
    average: list[Average]
    previous: Retention | None = field(default=None, kw_only=True)

    @property
    def size(self) -> int:
        """The sum of the rows' sizes."""
        return sum(row.size for row in self.rows)

    @property
    def largest(self) -> float:
        """The largest rate of those who came back later, k >= 1: the top of a colour scale."""
        return max((cell.rate or 0.0 for row in self.rows for cell in row.cells[1:]), default=0.0)

    def change(self, k: int) -> float | None:
        """How much larger the average of column k is than that of the cohorts before, of 1.

        None if they were not asked for, or if either has no average.
        """
        if self.previous is None:
            return None
        now, then = self.average[k].rate, self.previous.average[k].rate
        return None if now is None or then is None else now - then

    def table(self) -> tuple[list[str], list[list[Any]]]:
        header = ["period_start", "size", *map(str, range(len(self.average))), "open"]
        rows = [_line(row) for row in self.rows]
        if self.previous is None:
            return header, rows
        before = (["before", *_line(row)] for row in self.previous.rows)
        return ["range", *header], [*before, *(["this", *row] for row in rows)]


def _line(row: Row) -> list[Any]:
    is_open = (k for k, cell in enumerate(row.cells) if cell.state == "open")
    users = (cell.users for cell in row.cells)
    return [row.period_start, row.size, *users, next(is_open, None)]


def retention(
    cohort: str | Expression,
    returned: str | Expression,
    by: Grain = "week",
    periods: int = 12,
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    *,
    over: str | None = None,
    mode: Mode = "on",
    members: Members = "first",
    where: str | Expression | None = None,
    breakdown: Breakdown = None,
    as_of: AsOf = "now",
    previous: bool = False,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Retention:
    """Of those who did `cohort` in a period, how many did `returned` k periods later.

    k runs from 0 to `periods`; k = 0 is counted like the others. Cells whose period lies after
    `end` are counted too, as far as it has begun.

    :param cohort: the event, or segment, whose users in a period make up a row.
    :param returned: the event, or segment, by which they come back.
    :param by: ``hour``, ``day``, ``week``, ``month`` or ``year``.
    :param periods: the last k, 0 to 999.
    :param start: a moment of the first row's period; by default 30 days, 12 weeks... ago.
    :param end: a moment of the last row's period; by default now.
    :param over: the range in words instead, such as ``last 28 days`` or ``last month``.
    :param mode: ``on``: did it in that period. ``on_or_after``: in it or later, until now; cells of
        closed periods may grow too. ``on_or_before``: in it or in one before, from their own on.
        ``streak``: in it and in every one before. ``first_return``: in that period for the first
        time after joining the cohort, so that a row counts each user once.
    :param members: ``first``: those who did `cohort` for the first time ever. ``every``: all who
        did it in the period.
    :param where: only those in this segment in the row's own period.
    :param breakdown: also give the report for the people of each value: the name of a dimension,
        or flags and segments. See `Retention.parts`.
    :param as_of: ``then``: people count in each period under the value that they had at the end of
        its month, if the dimension is dated; ``now``: under the one that they have now.
    :param previous: also count the cohorts of the periods right before these, as many as there are.
    :param strict: an event that was never marked is an error, rather than 0.
    :param now: the moment as of which to report.
    :param tracker: whose events; by default the current app's.
    :raises ValueError: saying which argument is wrong, and what is allowed.
    :raises redis.RedisError: if the server does not answer.
    """
    question = RetentionQuestion.of(
        cohort=cohort,
        returned=returned,
        by=by,
        periods=periods,
        start=start,
        end=end,
        over=over,
        mode=mode,
        members=members,
        where=where,
        breakdown=breakdown,
        as_of=as_of,
        previous=previous,
        strict=strict,
        now=now,
    )
    return answer(question, tracker)


def answer(question: RetentionQuestion, tracker: Tracker | None) -> Retention:
    """The answer to `question`."""
    asked, periods, mode = scope(question, tracker), question.periods, question.mode
    shown = len(asked.periods)
    if question.previous:
        asked = asked.with_before
    values = Values.of(question, asked.known)
    cohorts, back, _, having = _cohorts(asked, question, values)
    first, last = asked.periods[0], asked.periods[-1]
    followed = [*asked.periods, *last.shift(1).until(last.shift(periods))]
    states = [_state(period, asked.current) for period in followed]
    if mode == "on_or_after":
        followed = list(first.until(asked.current))
    elif "future" in states:
        followed = followed[: states.index("future")]

    def sets(where: Expression | None) -> Returns:
        among = replace(cohorts, users=Users(cohorts.users.what, where))
        return Returns(
            cohorts=among, returned=back, followed=followed, columns=periods + 1, mode=mode
        )

    def report(counts: list[int]) -> Retention:
        table = _table(counts, periods + 1)
        rows = [
            Row(label(period), size, _cells(size, found, states[i : i + periods + 1]))
            for i, (period, (size, *found)) in enumerate(zip(asked.periods, table, strict=True))
        ]
        *before, this = (
            Retention(
                rows[i : i + shown],
                _averages(table[i : i + shown], states[i:].count("complete")),
            )
            for i in range(0, len(rows), shown)
        )
        return replace(this, previous=before[0]) if before else this

    return counted(asked, values.told(having), cohorts.users.where, sets, report)


def retention_people(
    cohort: str | Expression,
    returned: str | Expression,
    by: Grain = "week",
    at: date | datetime | None = None,
    k: int | None = None,
    *,
    mode: Mode = "on",
    members: Members = "first",
    where: str | Expression | None = None,
    first: int = 0,
    limit: int = 50,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> People:
    """Who of a cohort came back k periods later, page by page.

    :param at: a moment of the cohort's period; by default now.
    :param k: 0 to 999; nobody has come back in a period of the future. None: the whole cohort.
    :param first: the index, from 0, of the first of them to be listed, in the order of offsets.
    :param limit: how many are listed at most, 1 to 1000.

    The other arguments and errors are those of `retention`.
    """
    page = Page(first, limit)
    question = RetentionQuestion.of(
        cohort=cohort,
        returned=returned,
        by=by,
        mode=mode,
        members=members,
        where=where,
        strict=strict,
        now=now,
    )
    return behind(question, RetentionFigure.of(at=at, k=k), tracker).page(page)


def behind(question: RetentionQuestion, figure: RetentionFigure, tracker: Tracker | None) -> Crowd:
    """The people behind `figure`."""
    asked, k, mode = scope_at(question, figure.at, tracker), figure.k, question.mode
    cohorts, back, kind, _ = _cohorts(asked, question, Values({}))
    (period,) = asked.periods
    if k is None:
        sets = Sets(asked.tracker, [*cohorts.keys()], cohorts.members)
        return Crowd(sets, only, kind)
    if _state(period.shift(k), asked.current) == "future":
        return Crowd(Sets(asked.tracker, [], lambda bitmaps: [EMPTY]), only, kind)
    followed = _followed(period, k, asked.current, mode)

    def make(bitmaps: Bitmaps) -> list[Bitmap]:
        came_back = [back.evaluate(bitmaps, period) for period in followed]
        return [_returned(users, came_back, mode) for users in cohorts.members(bitmaps)]

    keys = [*cohorts.keys(), *(key for period in followed for key in back.keys(period))]
    return Crowd(Sets(asked.tracker, keys, make), only, kind)


def _cohorts(
    asked: Scope, question: RetentionQuestion, values: Values
) -> tuple[Cohorts, Expression, str, list[Users]]:
    """The cohort of each period of a scope, by what they come back, their id map, the values'."""
    pairs = ((question.cohort, question.where), (question.returned, None), *values.pairs())
    if question.members == "every":
        (users, back, *having), kind = Users.mapped(*pairs, asked=asked, strict=question.strict)
        return Cohorts(users, None, asked.periods), back.what, kind, having
    (users, back, *having), kind, first_day = Users.recorded(
        *pairs, asked=asked, strict=question.strict
    )
    past = Past.of(users.what, asked, first_day)
    return Cohorts(users, past, asked.periods), back.what, kind, having


def _state(period: Period, current: Period) -> State:
    if period.start < current.start:
        return "complete"
    return "open" if period == current else "future"


def _cells(size: int, found: list[int], states: list[State]) -> list[Cell]:
    small_step(len(states))
    begun = len(states) - states.count("future")
    users = [*found[:begun], *repeat(None, len(states) - begun)]
    return [*map(Cell, users, states, repeat(size))]


def _averages(counted: list[list[int]], complete: int) -> list[Average]:
    """The pooled rate of each column.

    :param counted: a row's size, and how many came back after 0, 1, ... periods.
    :param complete: how many periods are over, from the first row's own on.
    """
    sizes, *columns = zip(*counted, strict=True)
    rows = [0, *accumulate(int(size > 0) for size in sizes)]
    pooled = [0, *accumulate(sizes)]
    averages = []
    for k, users in enumerate(columns):
        # Row i's cell k is of period i + k; later ones are open, or have not begun.
        over = max(0, min(len(sizes), complete - k))
        averages.append(Average(*rate(sum(users[:over]), pooled[over]), rows[over]))
    return averages


@dataclass(frozen=True, slots=True)
class Cohorts:
    """A cohort for each of `periods`: who did `users` in it, with `past` for the first time."""

    users: Users
    past: Past | None
    periods: Sequence[Period]

    def keys(self) -> Iterator[str]:
        yield from self.users.keys(self.periods)
        if self.past is not None:
            yield from self.past.keys()

    def members(self, bitmaps: Bitmaps) -> list[Bitmap]:
        everyone = [self.users.in_period(bitmaps, period) for period in self.periods]
        if self.past is None:
            return everyone
        new = self.past.newcomers(bitmaps)
        return [members & first for members, first in zip(everyone, new, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Returns:
    """Counts for each cohort its size, and how many of it came back after 0, 1, ... periods.

    :ivar cohorts: the cohorts.
    :ivar returned: what they come back by.
    :ivar followed: the periods in which they may come back, from the first cohort's own on.
    :ivar columns: how many of them each cohort is followed.
    :ivar mode: as in `retention`.
    """

    cohorts: Cohorts
    returned: Expression
    followed: Sequence[Period]
    columns: int
    mode: Mode

    @property
    def keys(self) -> list[str]:
        back = (key for period in self.followed for key in self.returned.keys(period))
        return [*self.cohorts.keys(), *back]

    def counted(self, bitmaps: Bitmaps, within: Sequence[Bitmap]) -> list[list[int]]:
        back = Users(self.returned)
        came_back = [back.in_period(bitmaps, period) for period in self.followed]
        if self.mode == "on_or_after":
            came_back = _from_each_on(came_back)
        members = self.cohorts.members(bitmaps)
        every = [members, *([users & some for users in members] for some in within)]
        return [_count(each, came_back, self.columns, self.mode).ravel().tolist() for each in every]

    @property
    def steps(self) -> None:
        """All bitmaps are needed at a time."""

    def narrowing(self, extents: Extents) -> dict[str, Extent]:
        """Of those who may come back, no more than from the first to the last of the cohorts."""
        cohorts = self.cohorts
        rows = [cohorts.users.in_period(extents, period) for period in cohorts.periods]
        needs = dict.fromkeys(cohorts.keys(), Extent.hull(rows))
        for j, period in enumerate(self.followed):
            since = 0 if self.mode == "on_or_after" else max(0, j + 1 - self.columns)
            of_rows = Extent.hull(rows[since : j + 1])
            for key in self.returned.keys(period):
                needs[key] = needs.get(key, NOWHERE) | of_rows
        return {key: extent & extents[key] for key, extent in needs.items()}


def count_returns(client: Any, returns: Returns) -> list[list[int]]:
    """For each cohort its size, and how many of it came back after 0, 1, ... periods.

    :param client: any redis-py compatible client; one round trip if the bitmaps are small.
    :returns: lists of 1 + columns; 0 where the periods that are followed have ended.
    """
    return _table(counts(client, returns), returns.columns)


def _table(counted: list[int], columns: int) -> list[list[int]]:
    """A list for each cohort: its size, and its `columns`."""
    return [counted[i : i + 1 + columns] for i in range(0, len(counted), 1 + columns)]


def _from_each_on(sets: list[Bitmap]) -> list[Bitmap]:
    """For each set its union with all that follow."""
    unions: list[Bitmap] = []
    for users in reversed(sets):
        unions.append(unions[-1] | users if unions else users)
    return unions[::-1]


def _followed(period: Period, k: int, current: Period, mode: Mode) -> list[Period]:
    """The periods that tell whether the cohort of `period` came back, in time order."""
    target = period.shift(k)
    if mode == "on_or_after":
        return [*target.until(current)]
    return [*(target if mode == "on" else period).until(target)]


def _returned(members: Bitmap, came_back: list[Bitmap], mode: Mode) -> Bitmap:
    """Those of one cohort whom one cell counts; `came_back` in each of its `_followed` periods.

    The definition in sets, where `_count` works out a whole table word by word.
    """
    if mode == "streak":
        return reduce(and_, came_back, members)
    if mode == "first_return":
        *before, then = came_back
        return members & then - union(before)
    return members & union(came_back)


def _count(
    members: list[Bitmap], came_back: list[Bitmap], columns: int, mode: Mode
) -> NDArray[np.int64]:
    """Each cohort's size and how many of it came back in its period and the following ones.

    :returns: ``(rows, 1 + columns) int64``; 0 where `came_back` has ended.
    """
    counted = np.zeros((len(members), 1 + columns), np.int64)
    held = [users for users in members if users.end > users.first]
    first = min((users.first for users in held), default=0)
    end = max((users.end for users in held), default=0)
    if any(users.is_packed for users in (*held, *came_back)) or (
        mode in ("on", "on_or_after") and end - first >= PAIRED_WORDS
    ):
        _count_pairs(counted, members, came_back, mode)
    else:
        _count_columns(counted, members, came_back, mode, range(first, end))
    if mode == "on_or_before":
        # Anyone back by then was back for the first time in one of the periods up to then.
        counted[:, 1:] = counted[:, 1:].cumsum(axis=1)
    return counted


def _count_pairs(
    counted: NDArray[np.int64], members: list[Bitmap], came_back: list[Bitmap], mode: Mode
) -> None:
    """Count into `counted` set by set, which large ones and packed ones are fit for."""
    columns = counted.shape[1] - 1
    for i, users in enumerate(members):
        small_step(columns)
        counted[i, 0], left = len(users), users
        for k, back in enumerate(came_back[i : i + columns], start=1):
            if mode in ("on", "on_or_after"):
                counted[i, k] = users.common(back)
                continue
            hit = left & back
            left = hit if mode == "streak" else left - hit
            counted[i, k] = len(hit)


def _count_columns(
    counted: NDArray[np.int64],
    members: list[Bitmap],
    came_back: list[Bitmap],
    mode: Mode,
    words: range,
) -> None:
    """Count into the columns of `counted` those among `words`.

    All rows of a column are worked on at once, a stretch of words after the other: sets of 10,000
    users are small beside the cost of a call of NumPy, and sets of millions beside the cache.
    """
    rows, columns = len(members), counted.shape[1] - 1
    most = min(_COUNTED_WORDS, max(_LEAST_WORDS, _CACHED_WORDS // rows))
    step = -(-len(words) // max(1, -(-len(words) // most)))
    left, hits = np.empty((2, rows, step), np.uint64)
    returns = np.empty((len(came_back), step), np.uint64)
    bits = np.empty((rows, step), np.uint8)

    def count(sets: NDArray[np.uint64]) -> NDArray[np.uint16]:
        counts: NDArray[np.uint8] = np.bitwise_count(sets, out=bits[: len(sets)])
        return np.add.reduce(counts, axis=1, dtype=np.uint16)  # type: ignore[no-any-return]

    for begin in words[:: step or 1]:
        _stack(left, members, begin)
        sizes = count(left)
        counted[:, 0] += sizes
        # People who did something for the first time often have nearby ids, in few rows.
        inhabited = sizes.nonzero()[0]
        if not inhabited.size:
            continue
        top, bottom = int(inhabited[0]), int(inhabited[-1]) + 1
        _stack(returns[top : bottom + columns], came_back[top : bottom + columns], begin)
        for k in range(min(columns, len(came_back) - top)):
            small_step(rows)
            last = min(bottom, len(came_back) - k)
            members_left, back = left[top:last], returns[top + k : last + k]
            hit = np.bitwise_and(members_left, back, out=hits[top:last])
            if mode == "streak":
                members_left[:] = hit
            elif mode in ("first_return", "on_or_before"):
                members_left ^= hit
            counted[top:last, 1 + k] += count(hit)


def _stack(stack: NDArray[np.uint64], sets: list[Bitmap], begin: int) -> None:
    """Copy the words from number `begin` on of each of `sets` to its row of `stack`."""
    step = stack.shape[1]
    zeros = np.zeros(step, np.uint64)
    parts = [zeros[:0]]
    for users in sets:
        at = begin - users.first
        if at >= 0 and (part := users.words[at : at + step]).size == step:
            parts.append(part)
        else:
            part, before = users.between(begin, begin + step), min(step, max(0, -at))
            parts += [zeros[:before], part, zeros[: step - before - part.size]]
    # One call for all: assigning slices one by one took a fifth of a large table's time.
    np.concatenate(parts, out=stack.reshape(-1))
