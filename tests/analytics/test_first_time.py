"""The first time ever: one rule, wherever a range starts, whatever of the past is still stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from flask_bitmapist import FlaskBitmapist, analytics, mark_event, mark_unique
from flask_bitmapist.periods import Grain

from . import reference, test_truth
from .reference import World
from .test_truth import (
    EXAMPLES,
    GRAINS,
    Question,
    Server,
    expressions,
    histories,
    questions,
    truth,
)

truth_server = test_truth.truth_server


def key_of(event: str, grain: str, start: datetime) -> str:
    """bitmapist's key of a stored period."""
    day = f"{start.year}-{start.month}-{start.day}"
    iso = start.isocalendar()
    return (
        f"trackist_{event}_"
        + {
            "hour": f"{day}-{start.hour}",
            "day": day,
            "week": f"W{iso.year}-{iso.week}",
            "month": f"{start.year}-{start.month}",
        }[grain]
    )


def lose_some(data: st.DataObject, world: World, redis: Redis) -> None:
    """Some of what was stored goes: it expires, was never marked, or is unmarked by bitmapist."""
    stored = sorted(world.stored)
    if not stored:
        return
    how = data.draw(st.sampled_from(["by age", "by age", "hours", "at random", "unmarked"]))
    gone: list[tuple[str, str, datetime]] = []
    if how == "by age":
        starts = sorted({start for _, _, start in stored})
        before = data.draw(st.sampled_from(starts[len(starts) // 2 :]))
        short = data.draw(st.sampled_from([("hour",), ("hour", "day"), ("hour", "day", "week")]))
        gone = [key for key in stored if key[1] in short and key[2] < before]
    elif how in ("hours", "at random"):
        candidates = [key for key in stored if key[1] == "hour" or how == "at random"]
        gone = data.draw(st.lists(st.sampled_from(candidates), max_size=len(candidates)))
    elif how == "unmarked":
        for entry in data.draw(st.lists(st.sampled_from(world.log), max_size=3)):
            when = reference.wall_clock(entry.when, world.zone)
            for grain in ("hour", "day", "week", "month"):
                start = reference.start_of(grain, when)
                world.lose(entry.event, grain, start, frozenset({entry.user}))
                # Offsets follow the order of first marks: only of plain ids are they known here.
                redis.setbit(key_of(entry.event, grain, start), int(entry.user), 0)
    for key in gone:
        world.lose(*key)
        redis.delete(key_of(*key))


def new_in_each(q: Question, expr: reference.Expr) -> dict[Any, tuple[int, int, int]]:
    """By period: the new, the size of a cohort, and who adopts it, all for the first time ever."""
    segment = q.form(expr)
    new = [point.new for point in analytics.lifecycle(segment, **q.span()).points]
    cohorts = analytics.retention(segment, "never", periods=0, **q.span()).rows
    adopted = [0] * len(new)
    if reference.events_of(expr):
        adopted = [point.new for point in analytics.adoption(segment, segment, **q.span()).points]
    figures = zip(new, (row.size for row in cohorts), adopted, strict=True)
    return dict(zip(q.periods, figures, strict=True))


@settings(truth, max_examples=4 * EXAMPLES)
@given(data=st.data(), grain=st.sampled_from(GRAINS))
def test_who_is_new_does_not_depend_on_where_the_range_starts(
    truth_server: Server, data: st.DataObject, grain: Grain
) -> None:
    history = data.draw(histories(grain))
    tracker = truth_server.write(history)
    if not history.mapped:
        lose_some(data, history.world, truth_server.client)
    q = data.draw(questions(history, tracker, grain))
    expr = data.draw(expressions())
    figures = new_in_each(q, expr)
    for p, (new, size, adopted) in figures.items():
        first = q.world.first(expr, grain, p)
        here = first if q.where is None else first & q.world.did(q.where, grain, p)
        before = q.world.among(expr, q.where, grain, q.world.shift(grain, p, -1))
        assert size == len(here)
        assert new == len(here - before)
        assert adopted == (size if reference.events_of(expr) else 0)
    start = data.draw(st.sampled_from(q.periods))
    later = new_in_each(replace(q, start=start), expr)
    assert later == {p: figures[p] for p in later}
    asked = {"by": grain, "at": start, **q.whom()}
    people = analytics.retention_people(q.form(expr), "never", limit=1000, **asked)
    first = q.world.first(expr, grain, start)
    assert people.users == figures[start][1]
    assert set(people.ids) == first if q.where is None else set(people.ids) <= first
    assert analytics.lifecycle_people(q.form(expr), "new", **asked).users == figures[start][0]


# By hand: the server's clock is the real one, and removes what has expired at once


def days_ago(days: int) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


@pytest.fixture
def keeping(redis_url: str) -> Iterator[Callable[..., Flask]]:
    """Makes an application that keeps bitmaps for so many days, by grain."""
    apps = []

    def make(**days: int) -> Flask:
        app = Flask("keeping")
        ttl = {grain: timedelta(days=n) for grain, n in days.items()}
        app.config.update(BITMAPIST_REDIS_URL=redis_url, BITMAPIST_TTL=ttl, BITMAPIST_SPOOL=False)
        FlaskBitmapist(app)
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.extensions["bitmapist"].tracker_of(app).redis.close()


def new_now(event: str, by: Grain, periods: int) -> set[int]:
    """How many are new in the present period, by every report, over so many periods."""
    start = days_ago(0) - {"hour": timedelta(hours=1), "day": timedelta(days=1)}[by] * (periods - 1)
    asked: Any = {"by": by, "start": start}
    return {
        analytics.lifecycle(event, **asked).points[-1].new,
        analytics.retention(event, event, periods=0, **asked).rows[-1].size,
        analytics.adoption(event, event, **asked).points[-1].new,
        analytics.lifecycle_people(event, "new", by).users,
        analytics.retention_people(event, event, by).users,
    }


def test_whom_a_removed_day_told_of_is_not_new(keeping: Callable[..., Flask]) -> None:
    with keeping(day=10).app_context():
        mark_event("play", 1, now=days_ago(20))
        mark_event("play", [1, 2])
        for periods in (1, 15, 30, 60):
            assert new_now("play", "day", periods) == {1}, periods


def test_whom_a_removed_hour_told_of_is_not_new(keeping: Callable[..., Flask]) -> None:
    with keeping(hour=14).app_context():
        mark_event("play", 1, now=days_ago(17), track_hourly=True)
        mark_event("play", [1, 2], track_hourly=True)
        for periods in (1, 24, 480):
            assert new_now("play", "hour", periods) == {1}, periods


def test_a_day_on_which_hours_were_not_marked_is_past_when_it_is_over(
    keeping: Callable[..., Flask],
) -> None:
    with keeping().app_context():
        mark_event("play", 1, now=days_ago(1))
        mark_event("play", [1, 2], track_hourly=True)
        for periods in (1, 24, 48, 480):
            assert new_now("play", "hour", periods) == {1}, periods


def test_weeks_and_days_tell_of_months_that_are_kept_for_a_shorter_time(
    keeping: Callable[..., Flask],
) -> None:
    with keeping(month=60).app_context():
        mark_event("play", 1, now=days_ago(120))
        mark_event("play", [1, 2])
        for periods in (1, 30, 200):
            assert new_now("play", "day", periods) == {1}, periods


def test_who_has_a_flag_of_a_segment_has_always_been_in_it(keeping: Callable[..., Flask]) -> None:
    with keeping().app_context():
        mark_unique("premium", [1, 2])
        mark_event("play", [1, 3])
        for periods in (1, 2, 30):
            assert new_now("play | flag:premium", "day", periods) == {1}, periods
            assert new_now("never | flag:premium", "day", periods) == {0}, periods


def test_a_mark_of_long_ago_that_comes_in_late_makes_nobody_new(
    keeping: Callable[..., Flask],
) -> None:
    with keeping().app_context():
        mark_event("play", [1, 2])
        assert new_now("play", "day", 30) == {2}
        mark_event("play", 1, now=date(2019, 12, 31))
        assert new_now("play", "day", 30) == new_now("play", "day", 1) == {1}
