"""Every report agrees with brute force on sets, over random histories written to a real server.

``BITMAPIST_TRUTH_EXAMPLES=1000 pytest tests/analytics/test_truth.py`` looks longer.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import bitmapist
import bitmapist.cohort
import pytest
import redis as redis_py
from flask import Flask
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flask_bitmapist import FlaskBitmapist, analytics, get_cohort, mark_event, mark_unique
from flask_bitmapist.marks import Mark
from flask_bitmapist.periods import Grain
from flask_bitmapist.questions.funnel import Order
from flask_bitmapist.questions.retention import Members, Mode
from flask_bitmapist.reading.segments import Did, Event, Expression, First, Flag, Was
from flask_bitmapist.tracker import Tracker

from . import changing, reference
from .changing import PLAN, PLANS
from .reference import Change, Entry, Expr, World

bitmaps_module = import_module("flask_bitmapist.reading.bitmaps")
retention_module = import_module("flask_bitmapist.analytics._retention")

EXAMPLES = int(os.environ.get("BITMAPIST_TRUTH_EXAMPLES", "10"))

truth = settings(max_examples=EXAMPLES)

GRAINS: tuple[Grain, ...] = ("hour", "day", "week", "month", "year")
UNIT = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
    "month": timedelta(days=30, hours=11),
    "year": timedelta(days=365, hours=6),
}

#: Between these, bitmapist's own marks are found without having been registered: since its first
#: release, and no later than the day of the run.
OTHERS_DATA = (datetime(2012, 1, 2, tzinfo=UTC), datetime(2026, 11, 20, tzinfo=UTC))

#: (zone, moment in UTC) around which things are apt to go wrong.
CORNERS = [
    ("UTC", datetime(2026, 11, 11, 12)),
    ("UTC", datetime(1996, 12, 31, 12)),  # 1997-01-01 lies in 1997-W01
    ("UTC", datetime(2020, 12, 31, 22)),  # 2020-W53
    ("Europe/Berlin", datetime(2026, 12, 31, 22)),  # 2026-W53
    ("Europe/Berlin", datetime(2026, 3, 29, 0)),  # 2:00 does not exist
    ("Europe/Berlin", datetime(2026, 10, 25, 0)),  # 2:00 exists twice
    ("America/New_York", datetime(2026, 3, 8, 6)),
    ("America/New_York", datetime(2026, 11, 1, 5)),
    ("America/New_York", datetime(2024, 2, 29, 23)),
    ("Africa/Cairo", datetime(2026, 4, 23, 22)),  # midnight does not exist
    ("Asia/Kathmandu", datetime(2027, 1, 1, 0)),
]

EVENTS = ("sign-up", "song:played", "two words")
FLAGS = ("premium", "user:staff")


@dataclass(frozen=True)
class History:
    """What happened, how it came to be written, and the moment around which it lies."""

    world: World
    anchor: datetime  # naive, UTC
    mapped: bool
    writer: str
    bursts: tuple[tuple[str, datetime, frozenset[Any]], ...]

    def local(self, grain: Grain, offset: int) -> datetime:
        """The wall clock `offset` units away from the anchor."""
        moment = (self.anchor + offset * UNIT[grain]).replace(tzinfo=UTC)
        return reference.wall_clock(moment, self.world.zone)


def identity(number: int, mapped: bool) -> int | str:
    return str(uuid.UUID(int=number * 7919 + 1)) if mapped else number


def spread(start: int, count: int, stride: int) -> frozenset[int]:
    return frozenset(range(start, start + count * stride, stride))


few_users = st.integers(0, 255).map(lambda bits: frozenset(n for n in range(8) if bits >> n & 1))
many_users = st.builds(spread, st.integers(0, 900), st.integers(1, 500), st.integers(1, 3))
distant_users = st.builds(spread, st.integers(0, 20_000), st.integers(1, 60), st.integers(1, 400))

#: Users in 2 to 9 periods that follow one another.
activity = st.lists(few_users, min_size=2, max_size=9)


@st.composite
def histories(draw: st.DrawFn, grain: Grain, events: Sequence[str] = EVENTS) -> History:
    """A few users who are active in many periods, and groups of any size now and then."""
    zone_name, anchor = draw(st.sampled_from(CORNERS))
    zone = ZoneInfo(zone_name)
    mapped = draw(st.booleans())
    writers = ["record", "at", "mark_event"] + ([] if mapped else ["bitmapist"])
    writer = draw(st.sampled_from(writers))
    #: How far apart the ids of the few are: in one word or in many.
    distance = draw(st.sampled_from([1, 1, 40, 2_000]))

    def moment(offset: int, minutes: int) -> datetime:
        return (anchor + offset * UNIT[grain] + timedelta(minutes=minutes)).replace(tzinfo=UTC)

    def group(numbers: frozenset[int], distance: int = 1) -> frozenset[int | str]:
        return frozenset(identity(n * distance, mapped) for n in numbers)

    #: Some began long ago: of hours and days, weeks and months lie between.
    begins = st.sampled_from([-7, -6, -5, -4, -3, -2, -2, -13, -30 if grain == "hour" else -45])
    bursts = []
    runs = st.lists(st.tuples(st.sampled_from(events), begins), min_size=3, max_size=6)
    for event, begin in draw(runs):
        minutes = draw(st.integers(0, 90))
        for offset, users in enumerate(draw(activity), start=begin):
            if users:
                bursts.append((event, moment(offset, minutes), group(users, distance)))
    offsets = st.integers(-6, 3)
    if grain != "hour":  # far in the past, before a gap
        offsets |= st.sampled_from([-13, -40])
    groups = few_users.filter(bool) | many_users | distant_users
    scattered = st.builds(moment, offsets, st.integers(0, 24 * 60))
    more = draw(st.lists(st.tuples(st.sampled_from(events), scattered, groups), max_size=4))
    bursts += [(event, when, group(users)) for event, when, users in more]
    if draw(st.integers(0, 9)) == 9:
        bursts = []
    bursts = draw(st.permutations(bursts))  # backfills

    oldest, newest = OTHERS_DATA
    if writer == "bitmapist" and not all(oldest < when < newest for _, when, _ in bursts):
        writer = "mark_event"
    flagged = {flag: draw(few_users) for flag in FLAGS if draw(st.integers(0, 9)) < 9}
    flags = {flag: group(users, distance) for flag, users in flagged.items() if users}
    log = [Entry(event, user, when) for event, when, users in bursts for user in users]
    months = st.sampled_from([-3, -2, -1, 0, 0, 1])
    changed = draw(
        st.lists(
            st.tuples(
                months, st.integers(0, 27), few_users, st.sampled_from([*PLANS, *PLANS, None])
            ),
            max_size=8,
        )
    )
    changes = [
        Change(PLAN, user, changing.shifted(anchor, month) + timedelta(days=day), value)
        for month, day, users, value in sorted(changed, key=lambda change: change[:2])
        for user in group(users, distance)
    ]
    # Reports read months up to the next one: no server's clock is further ahead.
    last = changing.shifted(datetime.now(zone).replace(tzinfo=None), 2)
    changes = [change for change in changes if change.when < last]
    kept = {PLAN: changing.shifted(anchor, draw(st.sampled_from([-3, -1, 0])))}
    world = World(zone, log, flags, changes=changes, kept=kept)
    return History(world, anchor, mapped, writer, tuple(bursts))


#: Relative to the moment of the question.
RANGES = (
    *("ever", "this week", "last week", "this month", "last month", "this quarter", "last year"),
    *("this day", "last 5 days", "last 14 days", "last 45 days", "last 6 hours"),
    *("last 40 hours", "last 3 weeks", "last 3 months", "last 2 quarters", "last 2 years"),
)


@st.composite
def in_ranges(draw: st.DrawFn, ranges: Sequence[str] = RANGES) -> Expr:
    """Who did an event in a range, or in several of its periods, or for the first time."""
    event, over = draw(st.sampled_from((*EVENTS, *EVENTS, "never"))), draw(st.sampled_from(ranges))
    if draw(st.integers(0, 2)) == 2:
        return ("first", event, over)
    grain = draw(st.sampled_from(GRAINS))
    # No more than 1,000 hours, days or weeks: some histories are decades long.
    hourly = over in ("last 6 hours", "last 40 hours", "last 5 days")
    countable = hourly if grain == "hour" else over != "ever" or grain in ("month", "year")
    periods = draw(st.sampled_from((1, 1, 1, 2, 3))) if countable else 1
    # In any period of a range, whatever the periods are: the same segment is not drawn twice.
    return ("did", event, over, periods, grain if periods > 1 else "day")


@st.composite
def expressions(draw: st.DrawFn, depth: int = 2) -> Expr:
    """A segment; most have no more than one operation."""
    if depth == 0 or draw(st.integers(0, 2)) > 0:
        if draw(st.integers(0, 4)) == 4:
            return draw(in_ranges())
        if draw(st.integers(0, 5)) == 5:
            return ("was", PLAN, draw(st.sampled_from([*PLANS, "unknown"])))
        flag = draw(st.integers(0, 4)) == 4
        names = (*FLAGS, "unknown") if flag else (*EVENTS, *EVENTS, "never")
        return ("flag" if flag else "event", draw(st.sampled_from(names)))
    return (
        draw(st.sampled_from("&|-")),
        draw(expressions(depth - 1)),
        draw(expressions(depth - 1)),
    )


def as_text(expr: Expr) -> str:
    """The text form, every operation in parentheses."""
    kind, *operands = expr
    if kind == "event":
        return f'"{operands[0]}"' if " " in operands[0] else operands[0]
    if kind == "flag":
        return f"flag:{operands[0]}"
    if kind == "was":
        return f'was("{operands[0]}={operands[1]}")'
    if kind in ("did", "first"):
        name, over, *often = operands
        count = f"at least {often[0]} {often[1]}s of " if often and often[0] > 1 else ""
        return f'{kind}("{name}", {count}{over})'
    return f"({as_text(operands[0])} {kind} {as_text(operands[1])})"


def as_object(expr: Expr) -> Expression:
    """The same, written in Python."""
    kind, *operands = expr
    if kind == "event":
        return Event(operands[0])
    if kind == "flag":
        return Flag(operands[0])
    if kind == "did":
        return Did(*operands)
    if kind == "first":
        return First(*operands)
    if kind == "was":
        return Was("=".join(operands))
    left, right = map(as_object, operands)
    if kind == "&":
        return left & right
    return left | right if kind == "|" else left - right


def as_shortest_text(expr: Expr) -> str:
    return str(as_object(expr))


@dataclass(frozen=True)
class Question:
    """The arguments that most reports share, for the package and for the reference."""

    history: History
    tracker: Tracker
    grain: Grain
    start: datetime
    end: datetime
    moment: datetime
    where: Expr | None
    #: How expressions are passed.
    form: Callable[[Expr], str | Expression]
    #: Whether now is passed as an aware datetime, in another zone than the application's.
    aware: bool

    @property
    def world(self) -> World:
        now = datetime.now(self.history.world.zone).replace(tzinfo=None)
        return self.history.world.as_of(self.moment, max(self.moment, now))

    @property
    def periods(self) -> list[datetime]:
        return self.world.periods(self.grain, self.start, self.end)

    @property
    def before(self) -> list[datetime]:
        """As many periods right before."""
        size = len(self.periods)
        first = self.world.shift(self.grain, self.periods[0], -size)
        return [self.world.shift(self.grain, first, number) for number in range(size)]

    @property
    def current(self) -> datetime:
        """P."""
        return self.world.period_of(self.grain, self.moment)

    def span(self) -> dict[str, Any]:
        """Keyword arguments: by, start, end, where, now and tracker."""
        start = self.start if self.grain == "hour" else self.start.date()
        return {"by": self.grain, "start": start, "end": self.end, **self.whom()}

    def whom(self) -> dict[str, Any]:
        """Keyword arguments: where, now and tracker."""
        now = self.moment
        if self.aware:
            now = now.replace(tzinfo=self.world.zone).astimezone(ZoneInfo("Pacific/Auckland"))
        where = None if self.where is None else self.form(self.where)
        return {"where": where, "now": now, "tracker": self.tracker}


#: The ways to pass an expression.
forms: st.SearchStrategy[Callable[[Expr], str | Expression]] = st.sampled_from(
    (as_text, as_object, as_shortest_text)
)


@st.composite
def questions(draw: st.DrawFn, history: History, tracker: Tracker, grain: Grain) -> Question:
    last, length, now = draw(st.integers(-3, 3)), draw(st.integers(1, 9)), draw(st.integers(-2, 4))
    return Question(
        history,
        tracker,
        grain,
        history.local(grain, last + 1 - length),
        history.local(grain, last),
        history.local(grain, now),
        draw(st.none() | st.none() | expressions()),
        draw(forms),
        draw(st.booleans()),
    )


def ask(server: Server, data: st.DataObject, grain: Grain, often: int = 3) -> list[Question]:
    """Several questions about one history."""
    history = data.draw(histories(grain))
    tracker = server.write(history)
    few = st.lists(questions(history, tracker, grain), min_size=1, max_size=often)
    return data.draw(few)


class Server:
    """Writes each example's history to an empty database and hands out a tracker that reads it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.client = redis_py.Redis.from_url(url)
        self._folder = folder
        self._apps: list[Flask] = []

    def app(self, history: History) -> Flask:
        app = Flask("truth", instance_path=str(self._folder))
        app.config.update(
            TESTING=True,
            BITMAPIST_ENABLED=True,
            BITMAPIST_REDIS_URL=self.url,
            BITMAPIST_TIMEZONE=str(history.world.zone),
            BITMAPIST_SPOOL=False,
            BITMAPIST_TIMEOUT=10,
            DISABLE_BLUEPRINT=True,
        )
        FlaskBitmapist(app)
        self._apps.append(app)
        return app

    def write(self, history: History) -> Tracker:
        """`history`, in an otherwise empty database; a tracker that knows nothing of it yet."""
        self.close()
        self.client.flushdb()
        self._write(self.app(history), history)
        return self.tracker(history)

    def tracker(self, history: History) -> Tracker:
        app = self.app(history)
        extension: FlaskBitmapist = app.extensions["bitmapist"]
        return extension.tracker_of(app)

    def _write(self, app: Flask, history: History) -> None:
        tracker = app.extensions["bitmapist"].tracker_of(app)
        with app.app_context():
            for event, when, users in history.bursts:
                if history.writer == "record":
                    tracker.record([Mark(event, u, when=when, hourly=True) for u in users])
                elif history.writer == "at":
                    with tracker.at(when):
                        tracker.record([Mark(event, u, hourly=True) for u in users])
                else:
                    local = reference.wall_clock(when, history.world.zone)
                    if history.writer == "mark_event":
                        mark_event(event, users, now=local, track_hourly=True)
                    else:
                        pipeline: Any = self.client.pipeline(transaction=False)
                        for user in users:
                            bitmapist.mark_event(
                                event, user, system=pipeline, now=local, track_hourly=True
                            )
                        pipeline.execute()
            for flag, users in history.world.flags.items():
                mark_unique(flag, users)
            changing.write(tracker, history.world, mapped=history.mapped)

    def close(self) -> None:
        for app in self._apps:
            tracker = app.extensions["bitmapist"].tracker_of(app)
            tracker.redis.close()
        self._apps.clear()


@pytest.fixture
def truth_server(redis_url: str, tmp_path: Path) -> Iterator[Server]:
    server = Server(redis_url, tmp_path)
    yield server
    server.close()
    server.client.close()


def moment_of(label: date | datetime) -> datetime:
    """A report's `period_start`, as the reference has it."""
    return label if isinstance(label, datetime) else datetime(label.year, label.month, label.day)


def check_labels(labels: Sequence[date | datetime], grain: Grain) -> None:
    """Dates, but datetimes for hours."""
    assert all(type(label) is (datetime if grain == "hour" else date) for label in labels)


def check_exports(report: Any) -> list[list[str]]:
    """Its figures survive JSON and CSV; the rows of the latter, header first."""
    as_dict = report.to_dict()
    assert isinstance(as_dict, dict)
    json.loads(json.dumps(as_dict, allow_nan=False))
    rows = list(csv.reader(io.StringIO(report.to_csv())))
    assert rows
    assert len({len(row) for row in rows}) == 1, "a table is rectangular"
    return rows


def check_point_exports(report: Any, points: Sequence[Any], fields: Sequence[str]) -> None:
    """A report that is a list of points has a line a point, and columns called as its fields."""
    header, *lines = check_exports(report)
    assert len(lines) == len(points)
    for line, point, exported in zip(lines, points, report.to_dict()["points"], strict=True):
        cells = dict(zip(header, line, strict=True))
        for name in fields:
            value = getattr(point, name)
            if isinstance(value, date):
                assert cells[name] == exported[name] == value.isoformat()
            elif value is None:
                assert cells[name] == ""
                assert exported[name] is None
            elif isinstance(value, bool):
                assert exported[name] is value
            else:
                assert float(cells[name]) == exported[name] == value


def same_rate(found: float | None, expected: float | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def same_interval(found: tuple[float | None, ...], expected: tuple[float, ...] | None) -> bool:
    if expected is None:
        return set(found) == {None}
    return all(map(same_rate, found, expected))


@pytest.fixture(params=["short", "long", "sliced"])
def slicing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are right whether bitmaps are read whole, where needed, or in slices of few bytes."""
    if request.param == "long":
        monkeypatch.setattr(bitmaps_module, "_MANY_BYTES", 0)
        monkeypatch.setattr(retention_module, "PAIRED_WORDS", 0)
    elif request.param == "sliced":
        monkeypatch.setattr("flask_bitmapist.reading.bitmap._dot", None)
        monkeypatch.setattr(bitmaps_module, "BUDGET", 64)
        monkeypatch.setattr(bitmaps_module, "_SLICE_UNIT", 32)
        monkeypatch.setattr(retention_module, "_COUNTED_WORDS", 3)


every_way = pytest.mark.usefixtures("slicing")
grains = st.sampled_from(GRAINS)


# The reference itself, by hand


def by_hand() -> World:
    """Ada (1) signs up on the Monday and returns on Wednesday and Thursday; Bob (2) on Tuesday."""
    log = [
        Entry("signup", 1, datetime(2026, 11, 2, 9)),
        Entry("signup", 2, datetime(2026, 11, 3, 23, 59)),
        Entry("visit", 1, datetime(2026, 11, 4)),
        Entry("visit", 1, datetime(2026, 11, 5)),
        Entry("visit", 2, datetime(2026, 11, 3, 12)),
        Entry("signup", 1, datetime(2026, 11, 4, 12)),
    ]
    return World(ZoneInfo("Europe/Berlin"), log, {"blue": frozenset({1}), "red": frozenset({2, 3})})


MONDAY = datetime(2026, 11, 2)
SIGNUP, VISIT = ("event", "signup"), ("event", "visit")


def test_the_reference_counts_as_one_does_by_hand() -> None:
    world, thursday = by_hand(), datetime(2026, 11, 5)
    days = world.periods("day", MONDAY, thursday)
    assert [users for _, users, _ in reference.trend(world, SIGNUP, "day", days, thursday)] == [
        1,
        1,
        1,
        0,
    ]

    def table(mode: str, members: str = "first") -> list[list[int | None]]:
        rows = reference.retention(
            world, SIGNUP, VISIT, "day", 3, days, thursday, mode=mode, members=members
        )
        return [[users for users, _ in row.cells] for row in rows]

    assert table("on") == [[0, 0, 1, 1], [1, 0, 0, None], [0, 0, None, None], [0, None, None, None]]
    assert table("on", "every")[2] == [1, 1, None, None]
    assert table("on_or_after")[:2] == [[1, 1, 1, 1], [1, 0, 0, None]]
    assert table("on_or_before")[:2] == [[0, 0, 1, 1], [1, 1, 1, None]]
    assert table("streak")[:2] == [[0, 0, 0, 0], [1, 0, 0, None]]
    assert table("first_return")[:2] == [[0, 0, 1, 0], [1, 0, 0, None]]
    rows = reference.retention(world, SIGNUP, VISIT, "day", 3, days, thursday)
    assert [state for _, state in rows[1].cells] == ["complete", "complete", "open", "future"]
    assert [(interval and interval[0], n) for interval, n in reference.average(rows)] == [
        (0.5, 2),
        (0.0, 2),
        (1.0, 1),
        (None, 0),
    ]
    assert [p[1:5] for p in reference.lifecycle(world, SIGNUP, "day", days, thursday)] == [
        (1, 0, 0, 0),
        (1, 0, 0, 1),
        (0, 0, 1, 1),  # Ada signed up once more
        (0, 0, 0, 1),
    ]
    assert reference.stickiness(world, VISIT, "day", "week", thursday)[1:] == (
        {1: 1, 2: 1, 3: 0, 4: 0, 5: 0, 6: 0, 7: 0},
        2,
    )
    for order, within, expected in (
        ("ordered", None, [2, 2]),
        ("strict", None, [2, 1]),
        ("ordered", 0, [2, 2]),
        ("strict", 1, [2, 1]),  # Ada, from her second signup
        ("any", 1, [2, 2]),
    ):
        steps = [SIGNUP, VISIT]
        found = reference.funnel(world, steps, "day", days, thursday, within, order)
        assert found == expected, (order, within)
    assert reference.adoption(world, SIGNUP, VISIT, "day", days)[1:] == [
        (days[1], 1, 1, 1, 1.0),
        (days[2], 1, 1, 0, 1.0),
        (days[3], 1, 0, 0, 0.0),
    ]
    assert reference.overlap(world, [SIGNUP, VISIT], "week", MONDAY) == (
        [[2, 2], [2, 2]],
        [[1.0, 1.0], [1.0, 1.0]],
    )
    assert reference.churned(world, VISIT, 1, "day", days, thursday) == [
        (days[0], 0),
        (days[1], 1),
    ]
    assert [e[:2] for e in reference.compare(world, ["red", "blue"], VISIT, "day", days)] == [
        (2, 1),
        (1, 1),
    ]
    told = reference.timeline(world, 1, MONDAY.date(), thursday.date())
    assert told == (
        {
            "signup": [date(2026, 11, 2), date(2026, 11, 4)],
            "visit": [date(2026, 11, 4), date(2026, 11, 5)],
        },
        date(2026, 11, 2),
        date(2026, 11, 5),
    )


def test_the_reference_knows_published_figures() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
    assert reference.wilson(81, 263) == pytest.approx((0.3080, 0.2553, 0.3662), abs=5e-5)
    assert reference.wilson(0, 20) == pytest.approx((0, 0, 0.1611), abs=5e-5)
    # (15 - 5) / 100 / sqrt(0.1 * 0.9 * 2 / 100)
    assert reference.two_proportions(15, 100, 5, 100) == pytest.approx((2.357, 0.01842), abs=5e-4)


def test_the_reference_steps_as_calendars_do() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    spring, autumn = datetime(2026, 3, 29), datetime(2026, 10, 25)
    hours = reference.between("hour", spring, spring.replace(hour=23), berlin)
    assert len(hours) == 23
    assert spring.replace(hour=2) not in hours
    assert len(reference.between("hour", autumn, autumn.replace(hour=23), berlin)) == 24
    assert reference.start_of("week", datetime(1997, 1, 1)) == datetime(1996, 12, 30)
    assert reference.start_of("week", datetime(2027, 1, 3)) == datetime(2026, 12, 28)  # W53
    assert reference.shifted("month", datetime(2024, 1, 1), berlin, 13) == datetime(2025, 2, 1)
    assert reference.shifted("year", datetime(2025, 1, 1), berlin, -2) == datetime(2023, 1, 1)


# Reports


@every_way
@truth
@given(data=st.data(), grain=grains)
def test_trend(truth_server: Server, data: st.DataObject, grain: Grain) -> None:
    for q in ask(truth_server, data, grain):
        expr, rolling = data.draw(expressions()), data.draw(st.sampled_from([1, 2, 7]))
        report = analytics.trend(q.form(expr), rolling=rolling, **q.span())
        found = [(moment_of(p.period_start), p.users, p.complete) for p in report.points]
        assert found == reference.trend(
            q.world, expr, grain, q.periods, q.current, q.where, rolling
        )
        check_labels([p.period_start for p in report.points], grain)
        check_point_exports(report, report.points, ("period_start", "users", "complete"))


@truth
@given(data=st.data())
def test_active_users(truth_server: Server, data: st.DataObject) -> None:
    for q in ask(truth_server, data, "day"):
        expr, arguments = data.draw(expressions()), q.span()
        del arguments["by"]
        report = analytics.active_users(q.form(expr), **arguments)
        found = [
            (moment_of(p.period_start), p.day, p.week, p.month, p.stickiness, p.complete)
            for p in report.points
        ]
        assert found == reference.active_users(q.world, expr, q.periods, q.current, q.where)
        check_point_exports(report, report.points, ("period_start", "day", "week", "month"))


MODES: tuple[Mode, ...] = ("on", "on_or_after", "on_or_before", "streak", "first_return")
MEMBERS: tuple[Members, ...] = ("first", "every")
ORDERS: tuple[Order, ...] = ("ordered", "strict", "any")


@every_way
@truth
@given(data=st.data(), grain=grains, columns=st.integers(0, 6))
def test_retention(truth_server: Server, data: st.DataObject, grain: Grain, columns: int) -> None:
    (q,) = ask(truth_server, data, grain, often=1)
    cohort, returned = data.draw(expressions()), data.draw(expressions())
    beside = data.draw(st.booleans())
    for mode, members in itertools.product(MODES, MEMBERS):
        report = analytics.retention(
            q.form(cohort),
            q.form(returned),
            periods=columns,
            mode=mode,
            members=members,
            previous=beside,
            **q.span(),
        )
        asked = (q.current, mode, members, q.where)
        assert (report.previous is not None) == beside
        for one, periods in ((report, q.periods), (report.previous, q.before)):
            if one is None:
                continue
            expected = reference.retention(
                q.world, cohort, returned, grain, columns, periods, *asked
            )
            found = [
                reference.Row(
                    moment_of(row.period_start),
                    row.size,
                    [(cell.users, cell.state) for cell in row.cells],
                )
                for row in one.rows
            ]
            assert found == expected, (mode, members)
            averages = reference.average(expected)
            assert len(one.average) == columns + 1
            for average, (interval, rows) in zip(one.average, averages, strict=True):
                assert average.rows == rows
                assert same_interval((average.rate, average.low, average.high), interval)
            check_labels([row.period_start for row in one.rows], grain)
        check_exports(report)


@every_way
@truth
@given(data=st.data(), grain=grains)
def test_lifecycle(truth_server: Server, data: st.DataObject, grain: Grain) -> None:
    for q in ask(truth_server, data, grain):
        expr = data.draw(expressions())
        beside = data.draw(st.booleans())
        groups = ("new", "returning", "resurrected", "dormant")
        report = analytics.lifecycle(q.form(expr), previous=beside, **q.span())
        for points, periods in (
            (report.points, q.periods),
            (report.previous, q.before if beside else []),
        ):
            found = [
                (moment_of(p.period_start), *attrgetter(*groups, "complete")(p)) for p in points
            ]
            assert found == reference.lifecycle(q.world, expr, grain, periods, q.current, q.where)
        check_point_exports(report, report.points, ("period_start", *groups, "complete"))


def test_an_and_is_done_for_the_first_time_when_both_fall_into_one_period(
    truth_server: Server,
) -> None:
    """The past is no union of weeks then: one event on Monday and one on Tuesday are no AND."""
    monday = datetime(2026, 11, 2)
    days = {
        "a": [monday, monday + timedelta(days=9)],
        "b": [monday + timedelta(days=n) for n in (1, 9)],
    }
    bursts = tuple((event, when, frozenset({7})) for event in "ab" for when in days[event])
    log = [Entry(event, 7, when) for event, when, _ in bursts]
    history = History(World(ZoneInfo("UTC"), log), monday, False, "record", bursts)
    tracker = truth_server.write(history)
    wednesday = monday + timedelta(days=9)
    asked: dict[str, Any] = {
        "start": wednesday,
        "end": wednesday,
        "now": wednesday,
        "tracker": tracker,
    }
    for segment, new in (("a & b", 1), ("a - b", 0), ("a | b", 0), ("a - (b - a)", 0)):
        (point,) = analytics.lifecycle(segment, "day", **asked).points
        assert point.new == new, segment


@truth
@given(data=st.data(), grain=grains)
def test_the_identities_of_a_lifecycle_hold_for_undated_segments_too(
    truth_server: Server, data: st.DataObject, grain: Grain
) -> None:
    for q in ask(truth_server, data, grain):
        expr = data.draw(expressions())
        points = analytics.lifecycle(q.form(expr), **q.span()).points
        users = [p.users for p in analytics.trend(q.form(expr), **q.span()).points]
        for p, active in zip(points, users, strict=True):
            assert min(p.new, p.returning, p.resurrected, p.dormant) >= 0
            assert p.new + p.returning + p.resurrected == active
        for (before, after), p in zip(itertools.pairwise(users), points[1:], strict=True):
            assert after - before == p.new + p.resurrected - p.dormant


@every_way
@truth
@given(data=st.data(), grain=grains)
def test_stickiness(truth_server: Server, data: st.DataObject, grain: Grain) -> None:
    for q in ask(truth_server, data, grain):
        calendar = ("week", "month") if grain in ("hour", "day") else ()
        longest = {"day": 28, "hour": 24}.get(grain, 12)
        expr, within = (
            data.draw(expressions()),
            data.draw(st.sampled_from([1, 7, longest, *calendar])),
        )
        end = q.end if grain == "hour" else data.draw(st.sampled_from([q.end, q.end.date()]))
        report = analytics.stickiness(q.form(expr), by=grain, within=within, end=end, **q.whom())
        window, counts, users = reference.stickiness(q.world, expr, grain, within, q.end, q.where)
        assert (report.counts, report.users) == (counts, users)
        assert [moment_of(report.start), moment_of(report.end)] == [window[0], window[-1]]
        check_exports(report)


@every_way
@truth
@given(data=st.data(), grain=grains)
def test_funnel(truth_server: Server, data: st.DataObject, grain: Grain) -> None:
    for q in ask(truth_server, data, grain, often=2):
        steps = data.draw(st.lists(expressions(), min_size=1, max_size=4, unique_by=as_object))
        within = data.draw(st.integers(0, 4))
        for order, w in itertools.product(ORDERS, (None, within)):
            report = analytics.funnel(
                [q.form(step) for step in steps], within=w, order=order, **q.span()
            )
            asked = (q.world, steps, grain, q.periods, q.current, w, order, q.where)
            reached = reference.funnel_users(*asked)
            still_open, over = reference.funnel_open(*asked)
            assert [step.users for step in report.steps] == [*map(len, reached)], (order, w)
            assert [step.open for step in report.steps] == [*map(len, still_open)], (order, w)
            rated = [*map(len, over)]
            later = zip(report.steps[1:], rated[1:], rated, strict=False)
            for step, users, previous in later:
                assert same_rate(step.from_first, users / rated[0] if rated[0] else None)
                assert same_rate(step.from_previous, users / previous if previous else None)
            check_exports(report)


@every_way
@truth
@given(data=st.data(), grain=grains)
def test_time_to_convert_and_conversion(
    truth_server: Server, data: st.DataObject, grain: Grain
) -> None:
    for q in ask(truth_server, data, grain):
        steps = data.draw(st.lists(expressions(1), min_size=1, max_size=4, unique=True))
        within = data.draw(st.none() | st.integers(0, 6))
        for order in ORDERS:
            segments = [*map(q.form, steps)]
            report = analytics.time_to_convert(segments, within=within, order=order, **q.span())
            # Without a window, all steps lie in the range.
            last = q.periods[-1] if within is None else q.current
            most = len(q.periods) - 1 if within is None else within
            by_then = [
                reference.funnel_users(q.world, steps, grain, q.periods, last, k, order, q.where)
                for k in range(most + 1)
            ]
            finished = [len(users[-1]) for users in by_then]
            before = [0, *finished]
            found = [taken.users for taken in report.times]
            assert found == [n - m for n, m in zip(finished, before, strict=False)], (order, within)
            assert (report.entered, report.users) == (len(by_then[0][0]), finished[-1])
            check_exports(report)
            if order == "any":
                continue
            w = within or 0
            over_time = analytics.conversion(segments, w, order=order, **q.span())
            assert [point.users for point in over_time.points] == [
                tuple(reference.funnel(q.world, steps, grain, [p], q.current, w, order, q.where))
                for p in q.periods
            ]
            check_exports(over_time)


@every_way
@truth
@given(data=st.data(), grain=grains)
def test_adoption(truth_server: Server, data: st.DataObject, grain: Grain) -> None:
    for q in ask(truth_server, data, grain):
        feature = data.draw(expressions().filter(reference.events_of))
        active = data.draw(expressions())
        report = analytics.adoption(q.form(feature), q.form(active), **q.span())
        found = [
            (moment_of(p.period_start), p.active, p.users, p.new, p.rate) for p in report.points
        ]
        assert found == reference.adoption(q.world, feature, active, grain, q.periods, q.where)
        fields = ("period_start", "active", "users", "new", "rate")
        check_point_exports(report, report.points, fields)


@every_way
@truth
@given(data=st.data(), grain=grains)
def test_overlap(truth_server: Server, data: st.DataObject, grain: Grain) -> None:
    for q in ask(truth_server, data, grain):
        exprs = data.draw(st.lists(expressions(1), min_size=2, max_size=4, unique=True))
        report = analytics.overlap(list(map(q.form, exprs)), by=grain, at=q.end, **q.whom())
        counts, jaccard = reference.overlap(
            q.world, exprs, grain, q.world.period_of(grain, q.end), q.where
        )
        assert [list(row) for row in report.counts] == counts
        for found_row, expected_row in zip(report.jaccard, jaccard, strict=True):
            assert all(map(same_rate, found_row, expected_row))
        check_exports(report)


@every_way
@truth
@given(data=st.data(), grain=grains)
def test_churned(truth_server: Server, data: st.DataObject, grain: Grain) -> None:
    for q in ask(truth_server, data, grain):
        expr, silent = data.draw(expressions()), data.draw(st.integers(1, 4))
        report = analytics.churned(q.form(expr), silent=silent, **q.span())
        assert [(moment_of(p.period_start), p.users) for p in report.points] == reference.churned(
            q.world, expr, silent, grain, q.periods, q.current, q.where
        )
        check_point_exports(report, report.points, ("period_start", "users"))


@every_way
@truth
@given(data=st.data(), grain=grains)
def test_compare(truth_server: Server, data: st.DataObject, grain: Grain) -> None:
    for q in ask(truth_server, data, grain):
        goal = data.draw(expressions())
        arms = data.draw(st.permutations([*FLAGS, "unknown"]))[: data.draw(st.integers(2, 3))]
        report = analytics.compare([Flag(arm) for arm in arms], q.form(goal), **q.span())
        expected = reference.compare(q.world, arms, goal, grain, q.periods, q.where)
        for arm, (size, converted, interval, test) in zip(report.arms, expected, strict=True):
            assert (arm.size, arm.converted) == (size, converted)
            assert same_interval((arm.rate, arm.low, arm.high), interval)
            assert same_interval((arm.z, arm.p), test)
        check_exports(report)


@truth
@given(data=st.data(), number=st.integers(0, 8), span=st.integers(0, 60))
def test_timeline(truth_server: Server, data: st.DataObject, number: int, span: int) -> None:
    history = data.draw(histories("day"))
    tracker = truth_server.write(history)
    user = identity(number, history.mapped)
    end = history.local("day", data.draw(st.integers(-6, 4))).date()
    start = end - timedelta(days=span)
    report = analytics.timeline(user, start=start, end=end, now=end, tracker=tracker)
    days, first, last = reference.timeline(history.world, user, start, end)
    assert {event: list(found) for event, found in report.days.items() if found} == days
    assert (report.first, report.last) == (first, last)
    check_exports(report)


@every_way
@truth
@given(data=st.data(), grain=grains)
def test_users_count_and_contains(truth_server: Server, data: st.DataObject, grain: Grain) -> None:
    for q in ask(truth_server, data, grain):
        expr = data.draw(expressions())
        expected = q.world.did(expr, grain, q.world.period_of(grain, q.end))
        segment = q.form(expr)
        at: dict[str, Any] = {"by": grain, "at": q.end, "now": q.moment, "tracker": q.tracker}
        assert analytics.count(segment, **at) == len(expected)
        found = analytics.users(segment, **at)
        assert len(found) == len(expected)
        assert set(found.tolist() if hasattr(found, "tolist") else found) == expected
        for number in (0, 1, 5, 300, 100_000):
            user = identity(number, q.history.mapped)
            assert analytics.contains(segment, user, **at) is (user in expected)


def test_full_bitmaps_of_many_words(truth_server: Server) -> None:
    """Each of 300,000 users does everything on each of three days: counts that need 19 bits."""
    users, days = 300_000, [datetime(2026, 11, 9) + timedelta(days=n) for n in range(3)]
    empty = World(ZoneInfo("UTC"), [])
    tracker = truth_server.write(History(empty, days[-1], False, "record", ()))
    for event in "ab":
        for key in ("2026-11", "W2026-46", *(f"2026-11-{day.day}" for day in days)):
            truth_server.client.set(f"trackist_{event}_{key}", b"\xff" * (users // 8))
    span: dict[str, Any] = {"start": days[0], "end": days[-1], "now": days[-1], "tracker": tracker}
    assert [p.users for p in analytics.trend("a", rolling=2, **span).points] == [users] * 3
    rows: list[tuple[Mode, list[int]]] = [
        ("on", [users] * 3),
        ("on_or_after", [users] * 3),
        ("on_or_before", [users] * 3),
        ("streak", [users] * 3),
        ("first_return", [users, 0, 0]),
    ]
    for mode, row in rows:
        table = analytics.retention("a", "b", "day", 2, mode=mode, members="every", **span)
        assert [r.size for r in table.rows] == [users] * 3
        assert [cell.users for cell in table.rows[0].cells] == row, mode
    new, *later = analytics.lifecycle("a", "day", **span).points
    assert (new.new, new.returning) == (users, 0)
    assert [(p.new, p.returning, p.dormant) for p in later] == [(0, users, 0)] * 2
    sticky = analytics.stickiness("a", within=3, end=days[-1], now=days[-1], tracker=tracker)
    assert sticky.counts == {1: 0, 2: 0, 3: users}
    steps = analytics.funnel(["a", "b"], order="strict", within=1, **span).steps
    assert [step.users for step in steps] == [users, users]
    assert len(analytics.users("a & b", at=days[0], tracker=tracker)) == users


# Text


@truth
@given(
    data=st.data(),
    leaves=st.lists(st.sampled_from(["a", "b", "flag:premium", "never"]), min_size=1, max_size=6),
)
def test_operators_bind_as_in_python(
    truth_server: Server, data: st.DataObject, leaves: list[str]
) -> None:
    history = data.draw(histories("day", "ab"))
    operators = data.draw(
        st.lists(st.sampled_from("&|-"), min_size=len(leaves) - 1, max_size=len(leaves) - 1)
    )
    text = leaves[0] + "".join(
        f" {operator} {leaf}" for operator, leaf in zip(operators, leaves[1:], strict=True)
    )
    at = history.local("day", 0)
    day = history.world.period_of("day", at)
    sets = {
        "a": history.world.did(("event", "a"), "day", day),
        "b": history.world.did(("event", "b"), "day", day),
        "premium": history.world.did(("flag", "premium"), "day", day),
        "never": frozenset(),
    }
    expected = eval(text.replace("flag:", ""), {"__builtins__": {}}, sets)
    tracker = truth_server.write(history)
    assert analytics.count(text, by="day", at=at, tracker=tracker) == len(expected)


# 0.1.2's and bitmapist's own


@truth
@given(
    data=st.data(),
    grain=st.sampled_from(GRAINS[1:]),
    rows=st.integers(1, 8),
    columns=st.integers(1, 8),
    with_replacement=st.booleans(),
)
def test_get_cohort(
    truth_server: Server,
    data: st.DataObject,
    grain: Grain,
    rows: int,
    columns: int,
    with_replacement: bool,
) -> None:
    history = data.draw(histories(grain))
    primary, secondary = (data.draw(st.sampled_from(EVENTS)) for _ in range(2))
    also = data.draw(
        st.lists(st.tuples(st.sampled_from(EVENTS), st.sampled_from(["and", "or"])), max_size=2)
    )
    now = history.local(grain, data.draw(st.integers(-2, 4)))
    tracker = truth_server.write(history)
    app = truth_server.app(history)
    with app.app_context(), app.extensions["bitmapist"].tracker.at(now):
        found = get_cohort(
            primary,
            secondary,
            [{"name": name, "op": op} for name, op in also],
            time_group=f"{grain}s",
            num_rows=rows,
            num_cols=columns,
            with_replacement=with_replacement,
        )
    groups: list[Expr] = [("event", secondary)]
    for name, op in also:  # a chain is an AND of ORs
        if op == "or":
            groups[-1] = ("|", groups[-1], ("event", name))
        else:
            groups.append(("event", name))
    chained = groups[0]
    for group in groups[1:]:
        chained = ("&", chained, group)
    table, dates, totals = reference.get_cohort(
        history.world,
        ("event", primary),
        chained,
        grain,
        history.world.period_of(grain, now),
        rows,
        columns,
        with_replacement=with_replacement,
    )
    assert found[0] == table
    assert [reference.start_of(grain, when) for when in found[1]] == dates
    assert found[2] == totals
    if not with_replacement and columns > 0:
        report = analytics.retention(
            Event(primary),
            as_object(chained),
            by=grain,
            periods=columns - 1,
            start=dates[0],
            end=dates[-1],
            now=now,
            mode="first_return",
            members="every",
            tracker=tracker,
        )
        assert [row.size for row in report.rows] == totals
        for cells, row in zip(table, report.rows, strict=True):
            if row.size:
                assert [cell.users for cell in row.cells] == cells


@truth
@given(data=st.data(), grain=st.sampled_from(GRAINS[1:]), columns=st.integers(0, 5))
def test_retention_agrees_with_bitmapists_own_cohort_where_that_is_right(
    truth_server: Server,
    monkeypatch: pytest.MonkeyPatch,
    data: st.DataObject,
    grain: Grain,
    columns: int,
) -> None:
    # On the default system, in UTC, up to today: elsewhere bitmapist is wrong by its own rules.
    now = datetime.now(UTC)
    drawn = data.draw(histories(grain, "abc"))
    moved = tuple(
        (event, when - drawn.anchor.replace(tzinfo=UTC) + now, users)
        for event, when, users in drawn.bursts
    )
    world = World(
        ZoneInfo("UTC"), [Entry(event, u, when) for event, when, users in moved for u in users]
    )
    history = History(world, now.replace(tzinfo=None), drawn.mapped, "record", moved)
    narrowed = data.draw(st.booleans())
    tracker = truth_server.write(history)
    monkeypatch.setitem(bitmapist.SYSTEMS, "default", truth_server.client)
    theirs = bitmapist.cohort.get_dates_data(
        "a",
        "b",
        select2b="c" if narrowed else None,
        time_group=f"{grain}s",  # type: ignore[arg-type]
        as_percent=False,
        num_results=data.draw(st.integers(1, 6)),
        num_of_rows=columns,
    )
    assume(datetime.now(UTC).date() == now.date())
    report = analytics.retention(
        "a",
        "b & c" if narrowed else "b",
        by=grain,
        periods=columns,
        start=theirs[0][0].date(),
        end=theirs[-1][0].date(),
        now=now,
        mode="on",
        members="every",
        tracker=tracker,
    )
    assert len(report.rows) == len(theirs)
    for row, (_, size, *cells) in zip(report.rows, theirs, strict=True):
        assert row.size == size
        for cell, their_cell in zip(row.cells, cells, strict=True):
            if cell.state != "future":  # bitmapist looks there, too
                assert cell.users == (their_cell or 0)
