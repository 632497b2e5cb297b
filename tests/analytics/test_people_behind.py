"""The people behind each figure of a report: as many as it says, the right ones, page by page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from importlib import import_module
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist import FlaskBitmapist, analytics, mark_unique
from flask_bitmapist.analytics import (
    Flag,
    People,
    compare_people,
    funnel_people,
    lifecycle_people,
    people,
    retention_people,
    stickiness_people,
)
from flask_bitmapist.ids import MAPPED
from flask_bitmapist.marks import Mark
from flask_bitmapist.periods import Grain
from flask_bitmapist.questions.retention import Members, Mode
from flask_bitmapist.reading.reader import Reader
from flask_bitmapist.tracker import Tracker

from . import reference, test_truth
from .test_truth import (
    FLAGS,
    GRAINS,
    MODES,
    Question,
    Server,
    as_object,
    ask,
    expressions,
    truth,
)

truth_server = test_truth.truth_server

bitmaps_module = import_module("flask_bitmapist.reading.bitmaps")

NOW = datetime(2026, 11, 23, 14, 32)  # a Monday
TODAY = NOW.date()
ANN, BOB, EVE = (UUID(int=n << 64 | 7) for n in (1, 2, 3))


@pytest.fixture(params=[False, True], ids=["whole", "sliced"])
def slicing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bitmaps are read whole, or in slices of 8192 users, and worked on 192 users at a time."""
    if request.param:
        monkeypatch.setattr(bitmaps_module, "BUDGET", 0)
        monkeypatch.setattr(bitmaps_module, "_SLICE_UNIT", 1024)
        monkeypatch.setattr(bitmaps_module, "_PART_WORDS", 3)


every_way = pytest.mark.usefixtures("slicing")
grains = st.sampled_from(GRAINS)


def check(
    data: st.DataObject,
    q: Question,
    asked: Callable[..., People],
    figure: int | None,
    expected: frozenset[Any],
) -> None:
    """All pages together are the users of a figure, each of them once, in order.

    :param asked: gives the page of `first` and `limit`.
    :param figure: as the report has it; None is nobody.
    """
    limit = max(1, -(-len(expected) // data.draw(st.integers(1, 3), label="pages")))
    listed: list[Any] = []
    for first in count(0, limit):
        page = asked(first=first, limit=limit)
        assert (page.users, page.first) == (figure or 0, first)
        assert len(page.ids) == min(limit, max(0, page.users - first))
        listed += page.ids
        if not page.ids:
            break
    assert set(listed) == expected
    assert len(listed) == len(expected) == (figure or 0)
    if q.history.mapped:
        places = [q.tracker.reader.offset_of(id_, MAPPED) for id_ in listed]
        assert places == sorted(place for place in places if place is not None)
    else:
        assert listed == sorted(listed)
        assert all(type(id_) is int for id_ in listed)


def partial_of(function: Callable[..., People], *args: Any, **options: Any) -> Any:
    return lambda **page: function(*args, **options, **page)


def a_period(data: st.DataObject, q: Question) -> tuple[int, datetime]:
    """One of the periods of a report: its number, and its start."""
    return data.draw(st.sampled_from([*enumerate(q.periods)]), label="period")


@every_way
@truth
@given(data=st.data(), grain=grains, rolling=st.sampled_from([1, 1, 2, 7]))
def test_a_point_of_a_trend(
    truth_server: Server, data: st.DataObject, grain: Grain, rolling: int
) -> None:
    for q in ask(truth_server, data, grain):
        expr, (i, p) = data.draw(expressions()), a_period(data, q)
        points = analytics.trend(q.form(expr), rolling=rolling, **q.span()).points
        window = [q.world.shift(grain, p, -back) for back in range(rolling)]
        check(
            data,
            q,
            partial_of(people, q.form(expr), by=grain, at=p, rolling=rolling, **q.whom()),
            points[i].users,
            q.world.any_of(expr, q.where, grain, window),
        )


@every_way
@truth
@given(
    data=st.data(),
    grain=grains,
    columns=st.integers(0, 4),
    mode=st.sampled_from(MODES),
    members=st.sampled_from(["first", "every"]),
)
def test_a_row_of_retention_and_each_of_its_cells(
    truth_server: Server,
    data: st.DataObject,
    grain: Grain,
    columns: int,
    mode: Mode,
    members: Members,
) -> None:
    (q,) = ask(truth_server, data, grain, often=1)
    cohort, returned = data.draw(expressions()), data.draw(expressions())
    report = analytics.retention(
        q.form(cohort),
        q.form(returned),
        periods=columns,
        mode=mode,
        members=members,
        **q.span(),
    )
    i, p = a_period(data, q)
    c = reference.members_of(q.world, cohort, grain, p, members, q.where)
    asked = {"by": grain, "at": p, "mode": mode, "members": members, **q.whom()}
    segments = (q.form(cohort), q.form(returned))
    check(data, q, partial_of(retention_people, *segments, **asked), report.rows[i].size, c)
    for k, cell in enumerate(report.rows[i].cells):
        then = q.world.shift(grain, p, k)
        expected: frozenset[Any] = frozenset()
        if then <= q.current:
            expected = reference.came_back(q.world, c, returned, grain, p, then, q.current, mode)
        check(data, q, partial_of(retention_people, *segments, k=k, **asked), cell.users, expected)


@every_way
@truth
@given(data=st.data(), grain=grains)
def test_the_groups_of_a_point_of_a_lifecycle(
    truth_server: Server, data: st.DataObject, grain: Grain
) -> None:
    for q in ask(truth_server, data, grain, often=2):
        expr, (i, p) = data.draw(expressions()), a_period(data, q)
        point = analytics.lifecycle(q.form(expr), **q.span()).points[i]
        groups = reference.lifecycle_groups(q.world, expr, grain, p, q.where)
        assert len(groups) == 4
        for group, expected in groups.items():
            asked = partial_of(lifecycle_people, q.form(expr), group, grain, p, **q.whom())
            check(data, q, asked, getattr(point, group), expected)


@every_way
@truth
@given(data=st.data(), grain=grains)
def test_the_bars_of_stickiness(truth_server: Server, data: st.DataObject, grain: Grain) -> None:
    for q in ask(truth_server, data, grain, often=2):
        calendar = ("week", "month") if grain in ("hour", "day") else ()
        expr, within = data.draw(expressions()), data.draw(st.sampled_from([1, 4, 9, *calendar]))
        asked = {"by": grain, "within": within, "end": q.end, **q.whom()}
        report = analytics.stickiness(q.form(expr), **asked)
        window = reference.window_of(q.world, grain, within, q.end)
        periods = reference.activity(q.world, expr, grain, window, q.where)
        check(
            data,
            q,
            partial_of(stickiness_people, q.form(expr), **asked),
            report.users,
            frozenset(periods),
        )
        for k in {1, data.draw(st.integers(1, len(window))), len(window)}:
            check(
                data,
                q,
                partial_of(stickiness_people, q.form(expr), k, **asked),
                report.counts[k],
                frozenset(user for user, n in periods.items() if n == k),
            )


@every_way
@truth
@given(
    data=st.data(),
    grain=grains,
    order=st.sampled_from(["ordered", "strict", "any"]),
    within=st.none() | st.integers(0, 4),
)
def test_the_steps_of_a_funnel_and_those_lost_before_each(
    truth_server: Server, data: st.DataObject, grain: Grain, order: str, within: int | None
) -> None:
    for q in ask(truth_server, data, grain, often=2):
        steps = data.draw(st.lists(expressions(), min_size=1, max_size=4, unique_by=as_object))
        asked = {"within": within, "order": order, **q.span()}
        segments = [q.form(step) for step in steps]
        report = analytics.funnel(segments, **asked)
        asked_of = (q.world, steps, grain, q.periods, q.current, within, order, q.where)
        reached = reference.funnel_users(*asked_of)
        still_open, _ = reference.funnel_open(*asked_of)
        for step, expected in enumerate(reached):
            users = report.steps[step].users
            check(data, q, partial_of(funnel_people, segments, step, **asked), users, expected)
            if step:
                check(
                    data,
                    q,
                    partial_of(funnel_people, segments, step, dropped=True, **asked),
                    report.lost[step - 1],
                    reached[step - 1] - expected - still_open[step],
                )
                check(
                    data,
                    q,
                    partial_of(funnel_people, segments, step, which="open", **asked),
                    report.steps[step].open,
                    still_open[step],
                )


@every_way
@truth
@given(data=st.data(), grain=grains, arm=st.sampled_from([*FLAGS, "unknown"]))
def test_an_arm_of_an_experiment_those_who_converted_and_those_who_did_not(
    truth_server: Server, data: st.DataObject, grain: Grain, arm: str
) -> None:
    for q in ask(truth_server, data, grain):
        goal = data.draw(expressions())
        (figures,) = analytics.compare([Flag(arm)], q.form(goal), **q.span()).arms
        size, done = figures.size, figures.converted
        members = q.world.any_of(("flag", arm), q.where, grain, q.periods)
        reached = members & q.world.any_of(goal, None, grain, q.periods)
        for converted, figure, expected in (
            (None, size, members),
            (True, done, reached),
            (False, size - done, members - reached),
        ):
            asked = partial_of(
                compare_people, Flag(arm), q.form(goal), converted=converted, **q.span()
            )
            check(data, q, asked, figure, expected)


# Pages, by hand


at_that_time = pytest.mark.usefixtures("at_now")


@at_that_time
def test_a_page_is_a_stretch_of_the_users_in_the_order_of_their_offsets(tracker: Tracker) -> None:
    tracker.record([Mark("web", id_) for id_ in (900_000, 3, 77, 12)])
    assert people("web") == People(4, 0, [3, 12, 77, 900_000])
    assert people("web", limit=2) == People(4, 0, [3, 12])
    assert people("web", first=1, limit=2) == People(4, 1, [12, 77])
    assert people("web", first=3, limit=2) == People(4, 3, [900_000])
    assert people("web", first=4) == People(4, 4, [])
    assert people("web", first=2**32) == People(4, 2**32, [])
    assert people("nothing") == People(0, 0, [])


@at_that_time
def test_people_of_a_range_in_words_are_those_of_any_of_its_periods(tracker: Tracker) -> None:
    for ago in range(4):
        tracker.record([Mark("web", ago, when=NOW - timedelta(days=ago))])
    assert people("web", over="last 3 days").ids == [0, 1, 2]
    assert people("web", over="yesterday").ids == [1]
    assert people("web", rolling=3).ids == [0, 1, 2]
    for asked in ({"at": TODAY}, {"rolling": 1}):
        with pytest.raises(ValueError, match="give one or the other"):
            people("web", over="yesterday", **asked)


@at_that_time
def test_mapped_ids_come_back_as_the_texts_that_were_marked(tracker: Tracker) -> None:
    tracker.record([Mark("web", id_) for id_ in (EVE, "someone@example.org", ANN, (7, "de"))])
    mark_unique("staff", ANN)
    assert people("web").ids == [str(EVE), "someone@example.org", str(ANN), "7:de"]
    assert people("web", first=1, limit=2).ids == ["someone@example.org", str(ANN)]
    assert people("web", where="flag:staff") == People(1, 0, [str(ANN)])


def test_where_all_ids_are_mapped_ints_come_back_as_ints(redis_url: str, tmp_path: Any) -> None:
    app = Flask("always", instance_path=str(tmp_path / "always"))
    app.config.update(BITMAPIST_REDIS_URL=redis_url, BITMAPIST_ID_MAP="always")
    tracker = FlaskBitmapist(app).tracker_of(app)
    tracker.record([Mark("web", id_, when=TODAY) for id_ in (2**60, "42", "007", ANN, 5)])
    found = people("web", at=TODAY, tracker=tracker)
    assert found == People(5, 0, [2**60, 42, "007", str(ANN), 5])
    tracker.redis.close()


@at_that_time
def test_only_the_ids_of_the_page_are_looked_up(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.record([Mark("web", f"user-{n}") for n in range(300)])
    looked_up: list[int] = []
    original = type(tracker.reader).ids_at

    def ids_at(self: Reader, offsets: Any, space: str) -> list[str | None]:
        looked_up.extend(offsets)
        return original(self, offsets, space)

    monkeypatch.setattr(type(tracker.reader), "ids_at", ids_at)
    assert people("web", first=100, limit=3).ids == ["user-100", "user-101", "user-102"]
    assert looked_up == [100, 101, 102]


@at_that_time
def test_nobody_has_come_back_in_the_future_yet(tracker: Tracker) -> None:
    tomorrow = date(2026, 11, 24)
    tracker.record([Mark("web", 1), Mark("web", 1, when=tomorrow)])
    asked: dict[str, Any] = {"by": "day", "at": TODAY, "members": "every"}
    assert retention_people("web", "web", k=0, **asked) == People(1, 0, [1])
    for mode in MODES:
        assert retention_people("web", "web", k=1, mode=mode, **asked) == People(0, 0, [])
    assert retention_people("web", "web", "day", tomorrow, members="every") == People(1, 0, [1])


@at_that_time
def test_a_page_tells_itself_as_dict_and_csv(tracker: Tracker) -> None:
    tracker.record([Mark("web", "=1+1"), Mark("web", "x"), Mark("web", "\uff1d1")])
    assert people("web").to_dict() == {"users": 3, "first": 0, "ids": ["=1+1", "x", "\uff1d1"]}
    assert people("web").to_csv() == "id\r\n'=1+1\r\nx\r\n'\uff1d1\r\n"
    assert people("nothing").to_csv() == "id\r\n"


# What cannot be answered

ASKED: dict[str, Callable[..., People]] = {
    "people": partial_of(people, "a & b", "month"),
    "rolling": partial_of(people, "a", where="flag:vip", rolling=28),
    "retention": partial_of(retention_people, "a", "b", "day", date(2026, 11, 12), 8),
    "a row": partial_of(retention_people, "a", "b", "week", members="every", where="flag:vip"),
    "lifecycle": partial_of(lifecycle_people, "a", "returning", "week", where="flag:vip"),
    "stickiness": partial_of(stickiness_people, "a", 2, where="flag:vip"),
    "funnel": partial_of(funnel_people, ["a", "b", "a"], 1, within=5, where="flag:vip"),
    "dropped": partial_of(funnel_people, ["a", "b"], 1, dropped=True),
    "open": partial_of(funnel_people, ["a", "b"], 1, within=2, which="open"),
    "compare": partial_of(compare_people, "flag:vip", "a", converted=True),
}


@at_that_time
@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize(
    ("page", "told"),
    [
        ({"first": -1}, "first must be a whole number from 0"),
        ({"first": 1.5}, "first must be a whole number from 0"),
        ({"first": True}, "first must be a whole number from 0"),
        ({"limit": 0}, "limit must be a whole number from 1 to 1000"),
        ({"limit": 1001}, "limit must be a whole number from 1 to 1000"),
        ({"limit": "50"}, "limit must be a whole number from 1 to 1000"),
    ],
)
def test_an_invalid_page_is_an_error_before_anything_is_read(
    round_trips: list[Any], asked: str, page: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        ASKED[asked](**page)
    assert not round_trips


@at_that_time
@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (lambda: people("a", "fortnight"), "by must be one of hour, day"),  # type: ignore[arg-type]
        (lambda: people("a", rolling=0), "rolling must be a whole number from 1"),
        (lambda: people("a", at="today"), "must be a date or datetime"),  # type: ignore[arg-type]
        (lambda: people("a &"), "a name is missing"),
        (lambda: retention_people("a", "b", k=-1), "k must be a whole number from 0 to 999"),
        (lambda: retention_people("a", "b", k=1000), "k must be a whole number from 0 to 999"),
        (lambda: retention_people("a", "b", mode="off"), "mode must be one of on, on_or_after"),  # type: ignore[arg-type]
        (lambda: retention_people("a", "b", members="all"), "members must be one of first, every"),  # type: ignore[arg-type]
        (
            lambda: lifecycle_people("a", "old"),  # type: ignore[arg-type]
            "group must be one of new, returning, resurrected, dormant, not 'old'",
        ),
        (lambda: stickiness_people("a", 0), "k must be a whole number from 1 to 28"),
        (lambda: stickiness_people("a", 8, within="week"), "k must be a whole number from 1 to 7"),
        (lambda: stickiness_people("a", within="year"), "within must be 'week', 'month' or"),  # type: ignore[arg-type]
        (lambda: funnel_people(["a", "b"], 2), "step must be a whole number from 0 to 1"),
        (lambda: funnel_people(["a"], -1), "step must be a whole number from 0 to 0"),
        (
            lambda: funnel_people(["a", "b"], 0, dropped=True),
            "step must be a whole number from 1 to 1",
        ),
        (
            lambda: funnel_people(["a", "b"], 0, which="open"),
            "step must be a whole number from 1 to 1",
        ),
        (
            lambda: funnel_people(["a"], 0, which="lost"),  # type: ignore[arg-type]
            "which must be one of reached, dropped, open, not 'lost'",
        ),
        (lambda: funnel_people([], 0), "the number of steps"),
        (lambda: funnel_people("a", 0), "steps must be a list"),
        (lambda: funnel_people(["a"], 0, order="no"), "order must be one of ordered, strict, any"),  # type: ignore[arg-type]
        (lambda: funnel_people(["a"], 0, within=-1), "within must be a whole number from 0"),
        (lambda: compare_people("a", "b", TODAY, date(2026, 11, 1)), "is before the start"),
    ],
)
def test_what_makes_no_sense_is_an_error_before_anything_is_read(
    round_trips: list[Any], asked: Callable[[], People], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        asked()
    assert not round_trips


@at_that_time
@pytest.mark.parametrize("asked", ASKED)
def test_with_strict_a_name_never_marked_is_an_error(asked: str) -> None:
    with pytest.raises(ValueError, match="unknown events or flags: a"):
        ASKED[asked](strict=True)


@at_that_time
@pytest.mark.parametrize("asked", sorted({*ASKED} - {"rolling", "stickiness", "lifecycle"}))
def test_sets_of_different_kinds_of_ids_do_not_combine(tracker: Tracker, asked: str) -> None:
    tracker.record([Mark("a", 7), Mark("b", ANN)])
    tracker.record([Mark("vip", ANN, dated=False)])
    with pytest.raises(ValueError, match="different kinds of ids do not combine"):
        ASKED[asked]()


# How they read


@pytest.mark.parametrize("ids", [[1, 70, 900_000], [ANN, BOB, EVE]], ids=["plain", "mapped"])
@pytest.mark.parametrize("asked", ASKED)
def test_people_are_read_in_at_most_four_round_trips(
    redis: Any,
    tracker: Tracker,
    stranger: Tracker,
    round_trips: list[Any],
    ids: list[Any],
    asked: str,
) -> None:
    days = [date(2026, 11, day) for day in (1, 12, 20, 23)]
    tracker.record([Mark(event, id_, when=day) for event in "ab" for id_ in ids for day in days])
    tracker.record([Mark("vip", ids[0], dated=False)])
    stranger.redis.ping()
    redis.config_resetstat()
    round_trips.clear()
    ASKED[asked](now=NOW, tracker=stranger)
    assert 1 <= len(round_trips) <= 4
    sent = {name.removeprefix("cmdstat_") for name in redis.info("commandstats")}
    reading = {"get", "mget", "strlen", "exists", "hmget", "zmscore", "lrange"}
    assert sent - {"config|resetstat"} <= reading


@pytest.mark.parametrize("asked", ["lifecycle", "retention"])
def test_the_first_day_of_what_bitmapist_wrote_costs_no_fifth_round_trip(
    redis: Any, stranger: Tracker, round_trips: list[Any], asked: str
) -> None:
    for event in "ab":
        for key in ("2026-11", "W2026-47", "W2026-48", "2026-11-12", "2026-11-20"):
            redis.setbit(f"trackist_{event}_{key}", 7, 1)
    redis.setbit("trackist_vip_u", 7, 1)
    stranger.redis.ping()
    round_trips.clear()
    assert ASKED[asked](now=NOW, tracker=stranger) == People(1, 0, [7])
    assert len(round_trips) <= 4
