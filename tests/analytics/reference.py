"""What every number means, once more: each report by brute force on sets of users.

Written from the definitions alone, with no code of the package and no NumPy, so that the two can
only agree by both being right. A period is its grain and the naive local datetime of its start.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

User = int | str
Users = frozenset[User]
#: ("event", name), ("flag", name), ("did", name, range, periods, grain), ("first", name, range),
#: ("was", dimension, value), or ("&" | "|" | "-", left, right).
Expr = tuple[Any, ...]

#: What is the same in every period.
UNDATED = ("flag", "did", "first")

NOBODY: Users = frozenset()
Z95 = 1.959963984540054


# Calendar


def wall_clock(moment: datetime | date, zone: ZoneInfo) -> datetime:
    """The naive local datetime of `moment`; naive ones are local, unless clocks skip them."""
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    if moment.tzinfo is None and exists(start_of("hour", moment), zone):
        return moment
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone).astimezone(UTC)
    return moment.astimezone(zone).replace(tzinfo=None)


def start_of(grain: str, moment: datetime) -> datetime:
    """The start of the period in which the naive local `moment` lies."""
    if grain == "hour":
        return datetime(moment.year, moment.month, moment.day, moment.hour)
    if grain == "day":
        return datetime(moment.year, moment.month, moment.day)
    if grain == "week":
        year, week, _ = moment.isocalendar()
        return datetime.combine(date.fromisocalendar(year, week, 1), time())
    if grain == "month":
        return datetime(moment.year, moment.month, 1)
    if grain == "year":
        return datetime(moment.year, 1, 1)
    raise ValueError(grain)


def exists(hour: datetime, zone: ZoneInfo) -> bool:
    """Whether a clock in `zone` ever shows the wall-clock `hour`."""
    for minute in (0, 59):
        shown = hour.replace(minute=minute, tzinfo=zone)
        if shown.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == hour.replace(
            minute=minute
        ):
            return True
    return False


#: From the start of a period, this leads into the next one.
LONGER_THAN = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
    "month": timedelta(days=31),
    "year": timedelta(days=366),
}


def step(grain: str, start: datetime, zone: ZoneInfo, direction: int) -> datetime:
    """The start of the next (direction 1) or previous (-1) period; hours that exist only."""
    if grain == "hour":
        start += timedelta(hours=direction)
        while not exists(start, zone):
            start += timedelta(hours=direction)
        return start
    if direction < 0:
        return start_of(grain, start - timedelta(days=1))
    return start_of(grain, start + LONGER_THAN[grain])


def shifted(grain: str, start: datetime, zone: ZoneInfo, count: int) -> datetime:
    """The start of the period `count` periods later (earlier when negative)."""
    for _ in range(abs(count)):
        start = step(grain, start, zone, 1 if count > 0 else -1)
    return start


def between(grain: str, first: datetime, last: datetime, zone: ZoneInfo) -> list[datetime]:
    """The starts of the periods from the one of `first` to the one of `last`, both included."""
    starts = []
    start, stop = start_of(grain, first), start_of(grain, last)
    while start <= stop:
        if grain != "hour" or exists(start, zone):
            starts.append(start)
        start = step(grain, start, zone, 1)
    return starts


def begins(unit: str, moment: datetime) -> datetime:
    """When the calendar unit begins in which `moment` lies."""
    if unit == "quarter":
        return datetime(moment.year, 3 * ((moment.month - 1) // 3) + 1, 1)
    return start_of(unit, moment)


def bounds_of(text: str, now: datetime, zone: ZoneInfo) -> tuple[datetime | None, datetime]:
    """When a range begins, None for since ever, and ends: "last 3 days", "2026-01-01 to ..."."""
    tomorrow = begins("day", now) + timedelta(days=1)
    first, _, rest = text.partition(" ")
    if text == "ever":
        return None, tomorrow
    if first == "since":
        return datetime.fromisoformat(rest), tomorrow
    if first == "before":
        return None, datetime.fromisoformat(rest)
    if first == "last" and rest[0].isdigit():
        number, unit = rest.split()
        start = now
        for back in range(int(number)):
            start = begins(unit.removesuffix("s"), start - timedelta(minutes=1) * bool(back))
            while unit == "hours" and not exists(start, zone):
                start -= timedelta(hours=1)
        return start, _next(unit.removesuffix("s"), now)
    if first in ("this", "last"):
        this = begins(rest, now)
        if first == "this":
            return this, _next(rest, now)
        return begins(rest, this - timedelta(minutes=1)), this
    begin, end = text.split(" to ")
    return datetime.fromisoformat(begin), datetime.fromisoformat(end) + timedelta(days=1)


def _next(unit: str, moment: datetime) -> datetime:
    """When the unit begins after the one in which `moment` lies."""
    longer = LONGER_THAN | {"quarter": timedelta(days=93)}
    return begins(unit, begins(unit, moment) + longer[unit])


# Statistics


def wilson(hits: int, size: int) -> tuple[float, float, float] | None:
    """(rate, low, high), Wilson's 95 % score interval (Wilson 1927); None for a size of 0."""
    if size == 0:
        return None
    p = hits / size
    scale = 1 + Z95**2 / size
    middle = (p + Z95**2 / (2 * size)) / scale
    margin = Z95 / scale * math.sqrt(p * (1 - p) / size + Z95**2 / (4 * size**2))
    return p, middle - margin, middle + margin


def two_proportions(hits: int, size: int, hits0: int, size0: int) -> tuple[float, float] | None:
    """(z, two-sided p) of the pooled two-proportion test; None where it is not defined."""
    if size == 0 or size0 == 0 or hits + hits0 in (0, size + size0):
        return None
    pooled = (hits + hits0) / (size + size0)
    error = math.sqrt(pooled * (1 - pooled) * (1 / size + 1 / size0))
    z = (hits / size - hits0 / size0) / error
    return z, math.erfc(abs(z) / math.sqrt(2))


# The log


@dataclass(frozen=True)
class Entry:
    """`user` did `event` at `when` (aware, or naive local time)."""

    event: str
    user: User
    when: datetime


@dataclass(frozen=True)
class Change:
    """`user` got a value of `dimension` at `when` (local time), or lost it (None)."""

    dimension: str
    user: User
    when: datetime
    value: str | None


@dataclass
class World:
    """What happened, in one calendar."""

    zone: ZoneInfo
    log: list[Entry]
    flags: dict[str, Users] = field(default_factory=dict)
    #: The moment to which ranges are relative.
    now: datetime = datetime.max
    #: Everybody's values, in the order in which they came.
    changes: list[Change] = field(default_factory=list)
    #: The start of the first month of which changes are kept, by dimension.
    kept: dict[str, datetime] = field(default_factory=dict)
    #: When all of this is asked.
    present: datetime = datetime.max

    def __post_init__(self) -> None:
        sets: dict[tuple[str, str, datetime], set[User]] = {}
        self.first_moment: dict[str, datetime] = {}
        for entry in self.log:
            local = wall_clock(entry.when, self.zone)
            for grain in ("hour", "day", "week", "month"):
                sets.setdefault((entry.event, grain, start_of(grain, local)), set()).add(entry.user)
            before = self.first_moment.get(entry.event, local)
            self.first_moment[entry.event] = min(before, local)
        #: By event, grain and start. A year is not stored: it is the union of its months.
        self.stored = {key: frozenset(users) for key, users in sets.items()}

    def did(self, expr: Expr, grain: str, start: datetime) -> Users:
        """expr[p]: the users of a segment in the period that begins at `start`."""
        kind, *operands = expr
        if kind == "event" and grain == "year":
            months = [datetime(start.year, month + 1, 1) for month in range(12)]
            return NOBODY.union(*(self.did(expr, "month", month) for month in months))
        if kind == "event":
            return self.stored.get((operands[0], grain, start), NOBODY)
        if kind == "flag":
            return self.flags.get(operands[0], NOBODY)
        if kind in ("did", "first"):
            return self.in_range(*operands) if kind == "did" else self.first_in(*operands)
        if kind == "was":
            dimension, value = operands
            return self.had(dimension, value, step(grain, start, self.zone, 1))
        left, right = (self.did(operand, grain, start) for operand in operands)
        if kind == "&":
            return left & right
        if kind == "|":
            return left | right
        return left - right

    def had(self, dimension: str, value: str, end: datetime) -> Users:
        """Who had `value` at the end of the month in which a period that ends at `end` ends."""
        over = step("month", start_of("month", end - timedelta(minutes=1)), self.zone, 1)
        if over > self.present:
            over = datetime.max
        return frozenset(u for u, had in self.values_at(dimension, over).items() if had == value)

    def values_at(self, dimension: str, moment: datetime) -> dict[User, str | None]:
        """Everybody's value just before `moment`, as far as it is known."""
        changes = [change for change in self.changes if change.dimension == dimension]
        ever, then, moved = dict[User, str | None](), dict[User, str | None](), set[User]()
        for change in changes:
            ever[change.user] = change.value
            if change.when >= self.kept[dimension]:
                if change.when < moment:
                    then[change.user] = change.value
                else:
                    moved.add(change.user)
        # Whoever has got no value since the months are kept has had it ever since.
        return {user: then.get(user) if user in moved else ever[user] for user in ever}

    def as_of(self, now: datetime, present: datetime) -> World:
        """The same, with ranges relative to `now`, asked at `present`.

        What was lost stays lost: a new world would have stored it again.
        """
        world = copy(self)
        world.now, world.present = now, present
        return world

    def moments(self, event: str) -> list[tuple[datetime, User]]:
        """When anybody did `event`, in local time."""
        return [
            (wall_clock(entry.when, self.zone), entry.user)
            for entry in self.log
            if entry.event == event
        ]

    def in_range(self, event: str, over: str, periods: int, grain: str) -> Users:
        """Who did `event` in at least so many `periods` of a range."""
        start, end = bounds_of(over, self.now, self.zone)
        days: dict[User, set[datetime]] = {}
        for moment, user in self.moments(event):
            if (start is None or start <= moment) and moment < end:
                days.setdefault(user, set()).add(start_of(grain, moment))
        return frozenset(user for user, on in days.items() if len(on) >= periods)

    def first_in(self, event: str, over: str) -> Users:
        """Whose first `event` ever lies in a range."""
        start, end = bounds_of(over, self.now, self.zone)
        first: dict[User, datetime] = {}
        for moment, user in self.moments(event):
            first[user] = min(first.get(user, moment), moment)
        return frozenset(
            user
            for user, moment in first.items()
            if (start is None or start <= moment) and moment < end
        )

    def among(self, expr: Expr, where: Expr | None, grain: str, start: datetime) -> Users:
        """e[p] & S[p]."""
        users = self.did(expr, grain, start)
        return users if where is None else users & self.did(where, grain, start)

    def lose(self, event: str, grain: str, start: datetime, users: Users | None = None) -> None:
        """What is stored of `event` in a period says no more that `users` (None: all) did it."""
        key = (event, grain, start)
        self.stored[key] = NOBODY if users is None else self.stored.get(key, NOBODY) - users

    def before(self, expr: Expr, grain: str, start: datetime) -> Users:
        """Who is known to have been in `expr` before the period that begins at `start`.

        The longest stored period that is over tells of each past hour; of a segment that combines
        events of one period, only periods of the same grain do. Who is in it when nothing happens
        has always been.
        """
        telling = ("month", "week", "day", "hour") if may_be_told_by_longer(expr) else (grain,)
        nothing = copy(self)
        nothing.stored = {}
        if values := dimensions_of(expr):  # before any of them is known to have changed
            start_of_time = datetime(1900, 1, 1)
            past = nothing.did(expr, "day", start_of_time)
        else:
            past = nothing.did(expr, grain, start)
        recorded = [self.first_moment[e] for e in events_of(expr) if e in self.first_moment]
        recorded += [self.kept[dimension] for dimension in values]
        hour = start_of("day", min(recorded, default=start))
        while hour < start:
            for g in telling:
                told = start_of(g, hour)
                over = start_of(g, told + LONGER_THAN[g])
                if over <= start:
                    past |= self.did(expr, g, told)
                    hour = over
                    break
            else:
                break
        return past

    def first(self, expr: Expr, grain: str, start: datetime) -> Users:
        """first(e)[p]: those of e[p] who are not known to have been in e before."""
        return self.did(expr, grain, start) - self.before(expr, grain, start)

    def any_of(
        self, expr: Expr, where: Expr | None, grain: str, starts: Iterable[datetime]
    ) -> Users:
        """The OR over periods, `where` evaluated in each."""
        return NOBODY.union(*(self.among(expr, where, grain, start) for start in starts))

    def shift(self, grain: str, start: datetime, count: int) -> datetime:
        return shifted(grain, start, self.zone, count)

    def period_of(self, grain: str, moment: datetime | date) -> datetime:
        return start_of(grain, wall_clock(moment, self.zone))

    def periods(self, grain: str, first: datetime | date, last: datetime | date) -> list[datetime]:
        zone = self.zone
        return between(grain, wall_clock(first, zone), wall_clock(last, zone), zone)


def events_of(expr: Expr) -> set[str]:
    """The names of the events in an expression that are those of the period."""
    kind, *operands = expr
    if kind == "event":
        return {operands[0]}
    if kind in (*UNDATED, "was"):
        return set()
    return set.union(*map(events_of, operands))


def dimensions_of(expr: Expr) -> set[str]:
    """The names of the dimensions whose values then are in an expression."""
    kind, *operands = expr
    if kind == "was":
        return {operands[0]}
    if kind in ("event", *UNDATED):
        return set()
    return set.union(*map(dimensions_of, operands))


def is_dated(expr: Expr) -> bool:
    """Whether who is in it depends on the period."""
    return bool(events_of(expr) or dimensions_of(expr))


def flags_of(expr: Expr) -> set[str]:
    """The names of the flags in an expression."""
    kind, *operands = expr
    if kind == "flag":
        return {operands[0]}
    if kind in ("event", "did", "first", "was"):
        return set()
    return set.union(*map(flags_of, operands))


def may_be_told_by_longer(expr: Expr) -> bool:
    """Whether who is in the segment in a month is who is in it in any of its days."""
    kind, *operands = expr
    if kind in ("event", "was", *UNDATED):
        return True
    left, right = operands
    if kind == "-" and is_dated(right):
        return False
    if kind == "&" and is_dated(left) and is_dated(right):
        return False
    return may_be_told_by_longer(left) and may_be_told_by_longer(right)


# The reports. `periods` are the starts of the rows; `now` is the start of P.


def trend(
    world: World,
    expr: Expr,
    grain: str,
    periods: Sequence[datetime],
    now: datetime,
    where: Expr | None = None,
    rolling: int = 1,
) -> list[tuple[datetime, int, bool]]:
    """(period, users, complete): n(e[p] & S[p]), or of the union of the last `rolling` periods."""
    points = []
    for p in periods:
        window = [world.shift(grain, p, -back) for back in range(rolling)]
        points.append((p, len(world.any_of(expr, where, grain, window)), p < now))
    return points


def active_users(
    world: World,
    expr: Expr,
    periods: Sequence[datetime],
    now: datetime,
    where: Expr | None = None,
) -> list[tuple[datetime, int, int, int, float | None, bool]]:
    """(day, DAU, WAU, MAU, DAU/MAU, complete)."""
    points = []
    for p in periods:
        dau, wau, mau = (
            trend(world, expr, "day", [p], now, where, rolling)[0][1] for rolling in (1, 7, 28)
        )
        points.append((p, dau, wau, mau, dau / mau if mau else None, p < now))
    return points


@dataclass(frozen=True)
class Row:
    """One cohort: (users or None, state) for k = 0..periods."""

    period: datetime
    size: int
    cells: list[tuple[int | None, str]]


def retention(
    world: World,
    cohort: Expr,
    returned: Expr,
    grain: str,
    columns: int,
    periods: Sequence[datetime],
    now: datetime,
    mode: str = "on",
    members: str = "first",
    where: Expr | None = None,
) -> list[Row]:
    """Row i, cell k: who of C[i] came back k periods later; `columns` is the largest k."""
    rows = []
    for i in periods:
        c = members_of(world, cohort, grain, i, members, where)
        cells: list[tuple[int | None, str]] = []
        for k in range(columns + 1):
            asked = world.shift(grain, i, k)
            if asked > now:
                cells.append((None, "future"))
                continue
            back = came_back(world, c, returned, grain, i, asked, now, mode)
            cells.append((len(back), "open" if asked == now else "complete"))
        rows.append(Row(i, len(c), cells))
    return rows


def members_of(
    world: World, cohort: Expr, grain: str, i: datetime, members: str, where: Expr | None
) -> Users:
    """C[i]."""
    c = world.first(cohort, grain, i) if members == "first" else world.did(cohort, grain, i)
    return c if where is None else c & world.did(where, grain, i)


def came_back(
    world: World,
    c: Users,
    returned: Expr,
    grain: str,
    i: datetime,
    asked: datetime,
    now: datetime,
    mode: str,
) -> Users:
    """Who of `c`, the cohort of i, a cell counts whose period is `asked`."""

    def on(j: datetime) -> Users:
        return world.did(returned, grain, j)

    so_far = between(grain, i, asked, world.zone)
    if mode == "on":
        return c & on(asked)
    if mode == "on_or_after":
        return c & NOBODY.union(*map(on, between(grain, asked, now, world.zone)))
    if mode == "on_or_before":
        return c & NOBODY.union(*map(on, so_far))
    if mode == "streak":
        return c.intersection(*map(on, so_far))
    if mode == "first_return":
        return c & on(asked) - NOBODY.union(*map(on, so_far[:-1]))
    raise ValueError(mode)


def average(rows: Sequence[Row]) -> list[tuple[tuple[float, float, float] | None, int]]:
    """Per k: (rate, low, high) pooled over rows with a size whose cell is complete; their number.

    None as the rate where there is no such row.
    """
    averages = []
    for k in range(len(rows[0].cells) if rows else 0):
        counted = [row for row in rows if row.size > 0 and row.cells[k][1] == "complete"]
        users = sum(row.cells[k][0] or 0 for row in counted)
        averages.append((wilson(users, sum(row.size for row in counted)), len(counted)))
    return averages


def lifecycle(
    world: World,
    expr: Expr,
    grain: str,
    periods: Sequence[datetime],
    now: datetime,
    where: Expr | None = None,
) -> list[tuple[datetime, int, int, int, int, bool]]:
    """(period, new, returning, resurrected, dormant, complete)."""
    points = []
    for p in periods:
        groups = lifecycle_groups(world, expr, grain, p, where)
        new, returning, resurrected, dormant = map(len, groups.values())
        points.append((p, new, returning, resurrected, dormant, p < now))
    return points


def lifecycle_groups(
    world: World, expr: Expr, grain: str, p: datetime, where: Expr | None
) -> dict[str, Users]:
    """The users of each group in one period."""
    a = world.among(expr, where, grain, p)
    previous = world.among(expr, where, grain, world.shift(grain, p, -1))
    new = a & world.first(expr, grain, p)
    return {
        "new": new,
        "returning": a & previous,
        "resurrected": a - previous - new,
        "dormant": previous - a,
    }


def window_of(world: World, grain: str, within: int | str, end: datetime | date) -> list[datetime]:
    """The N periods up to and including that of `end`, or the calendar week or month around it."""
    if isinstance(within, int):
        last = world.period_of(grain, end)
        return [world.shift(grain, last, -back) for back in reversed(range(within))]
    start = world.period_of(within, end)
    after = step(within, start, world.zone, 1)
    periods = between(grain, start, after, world.zone)
    return [p for p in periods if start <= p < after]


def stickiness(
    world: World,
    expr: Expr,
    grain: str,
    within: int | str,
    end: datetime | date,
    where: Expr | None = None,
) -> tuple[list[datetime], dict[int, int], int]:
    """(window, {k: users active in exactly k of its periods}, users active in any)."""
    window = window_of(world, grain, within, end)
    days = activity(world, expr, grain, window, where)
    exactly = Counter(days.values())
    return window, {k: exactly[k] for k in range(1, len(window) + 1)}, len(days)


def activity(
    world: World, expr: Expr, grain: str, window: Sequence[datetime], where: Expr | None
) -> Counter[User]:
    """In how many periods of the window each user was active."""
    return Counter(user for p in window for user in world.among(expr, where, grain, p))


def funnel(
    world: World,
    steps: Sequence[Expr],
    grain: str,
    periods: Sequence[datetime],
    now: datetime,
    within: int | None = None,
    order: str = "ordered",
    where: Expr | None = None,
) -> list[int]:
    """Users at each step."""
    return [*map(len, funnel_users(world, steps, grain, periods, now, within, order, where))]


def funnel_users(
    world: World,
    steps: Sequence[Expr],
    grain: str,
    periods: Sequence[datetime],
    now: datetime,
    within: int | None = None,
    order: str = "ordered",
    where: Expr | None = None,
) -> list[Users]:
    """Who reached each step; `where` holds in the period of entry.

    Entries lie in `periods`; their windows may end after these, but not after now.
    """
    horizon = max(periods[-1], now)
    if within is None:
        reached = _funnel_run(world, steps, grain, periods, periods, order, where)
    else:
        reached = [NOBODY] * len(steps)
        for i in periods:
            last = min(world.shift(grain, i, within), horizon)
            window = between(grain, i, last, world.zone)
            # In any order, the first step may come after others, but in the range all the same.
            entries = [j for j in window if j in periods] if order == "any" else [i]
            run = _funnel_run(world, steps, grain, window, entries, order, where)
            reached = [old | new for old, new in zip(reached, run, strict=True)]
    return reached


def funnel_open(
    world: World,
    steps: Sequence[Expr],
    grain: str,
    periods: Sequence[datetime],
    now: datetime,
    within: int | None = None,
    order: str = "ordered",
    where: Expr | None = None,
) -> tuple[list[Users], list[Users]]:
    """Whom each step is open to; and who reached it by an entry whose window is over.

    Open: they entered, their window is not over, and they have not reached the step.
    """

    def reached_in(some: Sequence[datetime]) -> list[Users]:
        return funnel_users(world, steps, grain, some, now, within, order, where)

    reached = reached_in(periods)
    if within is None:
        return [NOBODY] * len(steps), reached
    over = [p for p in periods if world.shift(grain, p, within) < now]
    late = [world.among(steps[0], where, grain, p) for p in periods if p not in over]
    closed = reached_in(over) if over else [NOBODY] * len(steps)
    return [
        NOBODY.union(*late) - users if number else NOBODY for number, users in enumerate(reached)
    ], closed


def _funnel_run(
    world: World,
    steps: Sequence[Expr],
    grain: str,
    periods: Sequence[datetime],
    entries: Sequence[datetime],
    order: str,
    where: Expr | None,
) -> list[Users]:
    """Users who reached each step in `periods`, taking the first in one of `entries`."""

    def on(number: int, j: datetime) -> Users:
        if number > 0:
            return world.did(steps[number], grain, j)
        return world.among(steps[0], where, grain, j) if j in entries else NOBODY

    if order == "any":
        sets = [NOBODY.union(*(on(n, j) for j in periods)) for n in range(len(steps))]
        return [sets[0].intersection(*sets[: n + 1]) for n in range(len(steps))]
    reached = [NOBODY] * len(steps)
    for j in periods:
        earlier = list(reached)
        for number in range(len(steps)):
            if number == 0:
                may = on(0, j)
            elif order == "strict":
                may = on(number, j) & earlier[number - 1]
            else:
                may = on(number, j) & reached[number - 1]
            reached[number] = reached[number] | may
    return reached


def adoption(
    world: World,
    feature: Expr,
    active: Expr,
    grain: str,
    periods: Sequence[datetime],
    where: Expr | None = None,
) -> list[tuple[datetime, int, int, int, float | None]]:
    """(period, active, active who used it, those of them who never had before, rate)."""
    points = []
    for p in periods:
        a = world.among(active, where, grain, p)
        users = a & world.did(feature, grain, p)
        new = users & world.first(feature, grain, p)
        points.append((p, len(a), len(users), len(new), len(users) / len(a) if a else None))
    return points


def overlap(
    world: World,
    exprs: Sequence[Expr],
    grain: str,
    at: datetime,
    where: Expr | None = None,
) -> tuple[list[list[int]], list[list[float | None]]]:
    """Counts of each two events' common users in one period, and their Jaccard index."""
    sets = [world.among(expr, where, grain, at) for expr in exprs]
    counts = [[len(a & b) for b in sets] for a in sets]
    jaccard = [[len(a & b) / len(a | b) if a | b else None for b in sets] for a in sets]
    return counts, jaccard


def churned(
    world: World,
    expr: Expr,
    silent: int,
    grain: str,
    periods: Sequence[datetime],
    now: datetime,
    where: Expr | None = None,
) -> list[tuple[datetime, int]]:
    """(period, users active in p and silent in p+1..p+silent), only where p+silent < P."""
    points = []
    for p in periods:
        later = [world.shift(grain, p, k) for k in range(1, silent + 1)]
        if later[-1] < now:
            gone = world.among(expr, where, grain, p) - world.any_of(expr, where, grain, later)
            points.append((p, len(gone)))
    return points


def compare(
    world: World,
    arms: Sequence[str],
    goal: Expr,
    grain: str,
    periods: Sequence[datetime],
    where: Expr | None = None,
) -> list[tuple[int, int, tuple[float, float, float] | None, tuple[float, float] | None]]:
    """Per arm: (size, converted, (rate, low, high), (z, p) against the first arm).

    With `where`, an arm is those of it who are in the segment in one of the periods.
    """
    done = world.any_of(goal, None, grain, periods)
    members = [world.any_of(("flag", arm), where, grain, periods) for arm in arms]
    sizes = [len(users) for users in members]
    hits = [len(users & done) for users in members]
    return [
        (size, hit, wilson(hit, size), two_proportions(hit, size, hits[0], sizes[0]) if n else None)
        for n, (size, hit) in enumerate(zip(sizes, hits, strict=True))
    ]


def timeline(
    world: World, user: User, first: date, last: date
) -> tuple[dict[str, list[date]], date | None, date | None]:
    """(the days of each event that the user did in the range, the first, the last of them)."""
    found: dict[str, set[date]] = {}
    for entry in world.log:
        day = wall_clock(entry.when, world.zone).date()
        if entry.user == user and first <= day <= last:
            found.setdefault(entry.event, set()).add(day)
    every = [day for days in found.values() for day in days]
    days = {event: sorted(found[event]) for event in sorted(found)}
    return days, min(every, default=None), max(every, default=None)


def get_cohort(
    world: World,
    primary: Expr,
    secondary: Expr,
    grain: str,
    now: datetime,
    rows: int,
    columns: int,
    *,
    with_replacement: bool = False,
) -> tuple[list[list[int | None]], list[datetime], list[int]]:
    """0.1.2's table: the last row is the current period; each user counts at the first k only."""
    table, dates, totals = [], [], []
    for back in reversed(range(rows)):
        i = world.shift(grain, now, -back)
        left = world.did(primary, grain, i)
        dates.append(i)
        totals.append(len(left))
        row: list[int | None] = []
        for k in range(columns):
            asked = world.shift(grain, i, k)
            if not totals[-1] or asked > now:
                row.append(None)
                continue
            found = left & world.did(secondary, grain, asked)
            row.append(len(found))
            if not with_replacement:
                left -= found
        table.append(row)
    return table, dates, totals
