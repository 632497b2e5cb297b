"""A report broken down: the same one for the people of each value, beside the whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial, reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nodes import Cluster
from redis.cluster import RedisCluster

from flask_bitmapist import analytics
from flask_bitmapist.analytics import people_behind
from flask_bitmapist.dimensions import DIMENSIONS
from flask_bitmapist.marks import Mark
from flask_bitmapist.periods import Grain
from flask_bitmapist.questions import (
    CompareFigure,
    CompareQuestion,
    FunnelFigure,
    FunnelQuestion,
    LifecycleFigure,
    LifecycleQuestion,
    TrendFigure,
    TrendQuestion,
)
from flask_bitmapist.tracker import Tracker

from . import reference, test_truth
from .changing import PLAN, PLANS
from .reference import Expr, World
from .test_truth import (
    FLAGS,
    GRAINS,
    MEMBERS,
    MODES,
    ORDERS,
    Question,
    Server,
    as_object,
    as_text,
    ask,
    expressions,
    moment_of,
    truth,
)

truth_server = test_truth.truth_server
slicing = test_truth.slicing

every_way = pytest.mark.usefixtures("slicing")
grains = st.sampled_from(GRAINS)

NOW = datetime(2026, 11, 23, 14, 32)

#: What a report shows of the people in a segment; None is everybody.
Figures = Callable[[Expr | None], Any]


def broken_down(
    data: st.DataObject, q: Question, ask_for: Callable[..., Any], figures: Figures, shown: Any
) -> None:
    """`ask_for(breakdown=...)` has the `figures` of the whole, and those of each value."""
    values = data.draw(
        st.lists(expressions(1), min_size=1, max_size=3, unique_by=as_object).filter(
            lambda values: len(values) > 1 or values[0][0] != "event"
        ),
        label="values",
    )
    report = ask_for(breakdown=[q.form(value) for value in values])
    assert shown(report) == figures(q.where)
    assert [*report.parts] == [str(as_object(value)) for value in values]
    for value, part in zip(values, report.parts.values(), strict=True):
        narrowed = value if q.where is None else ("&", q.where, value)
        assert shown(part) == figures(narrowed), as_text(value)
        assert not part.parts


@every_way
@truth
@given(data=st.data(), grain=grains, rolling=st.sampled_from([1, 1, 2, 7]))
def test_a_trend(truth_server: Server, data: st.DataObject, grain: Grain, rolling: int) -> None:
    (q,) = ask(truth_server, data, grain, often=1)
    expr, span = data.draw(expressions()), q.span()

    def ask_for(**parts: Any) -> Any:
        return analytics.trend(q.form(expr), rolling=rolling, **parts, **span)

    def figures(where: Expr | None) -> Any:
        return reference.trend(q.world, expr, grain, q.periods, q.current, where, rolling)

    broken_down(data, q, ask_for, figures, trend_shown)
    then(q, expr, ask_for, figures, trend_shown)


def then(
    q: Question, whom: Expr, ask_for: Callable[..., Any], figures: Figures, shown: Any
) -> None:
    """`ask_for` has the figures of those who had each level then, and of those who had none."""
    report = ask_for(breakdown=PLAN, as_of="then")
    assert (report.as_of, shown(report)) == ("then", figures(q.where))
    assert [*report.parts] == [*PLANS, "(no value)"]
    segments: dict[str, Expr] = {value: ("was", PLAN, value) for value in PLANS}
    segments["(no value)"] = reduce(lambda left, right: ("-", left, right), segments.values(), whom)
    for value, segment in segments.items():
        narrowed = segment if q.where is None else ("&", q.where, segment)
        assert shown(report.parts[value]) == figures(narrowed), value


def trend_shown(report: analytics.Trend) -> Any:
    return [(moment_of(p.period_start), p.users, p.complete) for p in report.points]


@every_way
@truth
@given(
    data=st.data(),
    grain=grains,
    columns=st.integers(0, 5),
    mode=st.sampled_from(MODES),
    members=st.sampled_from(MEMBERS),
)
def test_retention(
    truth_server: Server, data: st.DataObject, grain: Grain, columns: int, mode: Any, members: Any
) -> None:
    (q,) = ask(truth_server, data, grain, often=1)
    cohort, returned, span = data.draw(expressions()), data.draw(expressions()), q.span()

    def ask_for(**parts: Any) -> Any:
        return analytics.retention(
            q.form(cohort),
            q.form(returned),
            periods=columns,
            mode=mode,
            members=members,
            **parts,
            **span,
        )

    def figures(where: Expr | None) -> Any:
        return reference.retention(
            q.world,
            cohort,
            returned,
            grain,
            columns,
            q.periods,
            q.current,
            mode,
            members,
            where,
        )

    broken_down(data, q, ask_for, figures, retention_shown)
    then(q, cohort, ask_for, figures, retention_shown)


def retention_shown(report: analytics.Retention) -> Any:
    return [
        reference.Row(
            moment_of(row.period_start), row.size, [(cell.users, cell.state) for cell in row.cells]
        )
        for row in report.rows
    ]


@truth
@given(
    data=st.data(),
    grain=grains,
    order=st.sampled_from(ORDERS),
    within=st.none() | st.integers(0, 4),
)
def test_a_funnel(
    truth_server: Server, data: st.DataObject, grain: Grain, order: Any, within: int | None
) -> None:
    (q,) = ask(truth_server, data, grain, often=1)
    steps = data.draw(st.lists(expressions(), min_size=1, max_size=4, unique_by=as_object))
    span = q.span()

    def ask_for(**parts: Any) -> Any:
        segments = [q.form(step) for step in steps]
        return analytics.funnel(segments, within=within, order=order, **parts, **span)

    def figures(where: Expr | None) -> Any:
        asked = (q.world, steps, grain, q.periods, q.current, within, order, where)
        still_open, over = reference.funnel_open(*asked)
        first = len(over[0])
        return [
            (len(users), len(waiting), len(early) / first if first else None)
            for users, waiting, early in zip(
                reference.funnel_users(*asked), still_open, over, strict=True
            )
        ]

    broken_down(data, q, ask_for, figures, funnel_shown)
    then(q, steps[0], ask_for, figures, funnel_shown)


def funnel_shown(report: analytics.Funnel) -> Any:
    return [(step.users, step.open, step.from_first) for step in report.steps]


@truth
@given(data=st.data(), grain=grains)
def test_a_lifecycle(truth_server: Server, data: st.DataObject, grain: Grain) -> None:
    (q,) = ask(truth_server, data, grain, often=1)
    expr, span = data.draw(expressions()), q.span()

    def ask_for(**parts: Any) -> Any:
        return analytics.lifecycle(q.form(expr), **parts, **span)

    def figures(where: Expr | None) -> Any:
        return reference.lifecycle(q.world, expr, grain, q.periods, q.current, where)

    broken_down(data, q, ask_for, figures, lifecycle_shown)
    then(q, expr, ask_for, figures, lifecycle_shown)


def lifecycle_shown(report: analytics.Lifecycle) -> Any:
    return [
        (moment_of(p.period_start), p.new, p.returning, p.resurrected, p.dormant, p.complete)
        for p in report.points
    ]


@truth
@given(data=st.data(), grain=grains, within=st.sampled_from([1, 4, 9]))
def test_stickiness(truth_server: Server, data: st.DataObject, grain: Grain, within: int) -> None:
    (q,) = ask(truth_server, data, grain, often=1)
    expr, whom = data.draw(expressions()), q.whom()

    def ask_for(**parts: Any) -> Any:
        return analytics.stickiness(
            q.form(expr), by=grain, within=within, end=q.end, **parts, **whom
        )

    def figures(where: Expr | None) -> Any:
        return reference.stickiness(q.world, expr, grain, within, q.end, where)[1:]

    def shown(report: analytics.Stickiness) -> Any:
        return (report.counts, report.users)

    broken_down(data, q, ask_for, figures, shown)
    then(q, expr, ask_for, figures, shown)


@truth
@given(data=st.data(), grain=grains)
def test_a_comparison(truth_server: Server, data: st.DataObject, grain: Grain) -> None:
    (q,) = ask(truth_server, data, grain, often=1)
    goal, span = data.draw(expressions()), q.span()
    arms = data.draw(st.permutations([*FLAGS, "unknown"]))[:2]

    def ask_for(**parts: Any) -> Any:
        segments = [analytics.Flag(arm) for arm in arms]
        return analytics.compare(segments, q.form(goal), **parts, **span)

    def figures(where: Expr | None) -> Any:
        found = reference.compare(q.world, arms, goal, grain, q.periods, where)
        return [(size, converted) for size, converted, _, _ in found]

    broken_down(data, q, ask_for, figures, compare_shown)
    then(q, ("|", *(("flag", arm) for arm in arms)), ask_for, figures, compare_shown)


def compare_shown(report: analytics.Compare) -> Any:
    return [(arm.size, arm.converted) for arm in report.arms]


def at_random(data: st.DataObject, q: Question) -> dict[str, frozenset[Any]]:
    """A dimension of which each user has one value or none; some values nobody has any more."""
    values = ("free", "pro", "a b", "other")
    users = sorted({entry.user for entry in q.world.log}, key=str)
    plans = data.draw(
        st.lists(st.sampled_from([*values, None]), min_size=len(users), max_size=len(users))
        if len(users) < 12
        else st.just([(*values, None)[n % 5] for n in range(len(users))]),
        label="plans",
    )
    held = dict(zip(users, plans, strict=True))
    for value in values:
        # It has been somebody's.
        q.tracker.record([Mark(f"user:tier={value}", held_once(q), dated=False)])
        q.tracker.record([Mark(f"user:tier={value}", held_once(q), value=False, dated=False)])
        q.tracker.record(
            [Mark(f"user:tier={value}", user, dated=False) for user in users if held[user] == value]
        )
    slots = {f"{number}:user:tier": value for number, value in enumerate(values[:-1])}
    q.tracker.redis.hset(DIMENSIONS, mapping=slots)
    groups = {value: frozenset(u for u in users if held[u] == value) for value in values}
    return groups | {"(no value)": frozenset(users) - frozenset().union(*groups.values())}


def held_once(q: Question) -> int | str:
    return test_truth.identity(7, q.history.mapped)


def of_them_alone(world: World, users: frozenset[Any]) -> World:
    """What would have happened without anybody else."""
    return replace(
        world,
        log=[entry for entry in world.log if entry.user in users],
        flags={flag: held & users for flag, held in world.flags.items()},
        changes=[change for change in world.changes if change.user in users],
    )


@every_way
@truth
@given(data=st.data(), grain=grains)
def test_a_part_of_a_dimension_is_the_report_of_a_world_without_the_others(
    truth_server: Server, data: st.DataObject, grain: Grain
) -> None:
    (q,) = ask(truth_server, data, grain, often=1)
    groups = at_random(data, q)
    dated = expressions().filter(
        lambda expr: not (reference.flags_of(expr) or reference.dimensions_of(expr))
    )
    a, b, span = data.draw(dated), data.draw(dated), {**q.span(), "breakdown": "user:tier"}
    steps, within = [a, b] if as_object(a) != as_object(b) else [a], data.draw(st.integers(0, 3))
    asked = (grain, q.periods, q.current)
    cases: dict[str, tuple[Any, Callable[[World], Any], Callable[[Any], Any]]] = {
        "trend": (
            analytics.trend(q.form(a), **span),
            lambda world: reference.trend(world, a, *asked, q.where),
            trend_shown,
        ),
        "lifecycle": (
            analytics.lifecycle(q.form(a), **span),
            lambda world: reference.lifecycle(world, a, *asked, q.where),
            lifecycle_shown,
        ),
        "retention": (
            analytics.retention(q.form(a), q.form(b), periods=2, **span),
            lambda world: reference.retention(
                world, a, b, grain, 2, q.periods, q.current, "on", "first", q.where
            ),
            retention_shown,
        ),
        "funnel": (
            analytics.funnel([q.form(step) for step in steps], within=within, **span),
            lambda world: [
                len(users)
                for users in reference.funnel_users(
                    world, steps, *asked, within, "ordered", q.where
                )
            ],
            lambda report: [step.users for step in report.steps],
        ),
    }
    for name, (report, expected, shown) in cases.items():
        assert [*report.parts] == [*groups], name
        assert shown(report) == expected(q.world), name
        for value, users in groups.items():
            world = of_them_alone(q.world, users)
            assert shown(report.parts[value]) == expected(world), (name, value)


class TestPeople:
    """Behind a figure of a part: those of the whole's who are in it."""

    @pytest.mark.parametrize("ids", [[1, 2, 3, 70], [*"abcd"]], ids=["plain", "mapped"])
    def test_they_have_the_value(self, plans: Callable[..., Tracker], ids: list[Any]) -> None:
        tracker = plans(ids)
        question = TrendQuestion.of(event="seen", breakdown="user:plan", now=NOW)
        found = {
            value: people_behind(question, TrendFigure.of(at=NOW, value=value), tracker=tracker).ids
            for value in (None, "pro", "free", "(no value)")
        }
        assert found == {None: ids, "pro": ids[:1], "free": ids[1:2], "(no value)": ids[2:]}

    def test_those_of_a_segment_are_in_it(self, plans: Callable[..., Tracker]) -> None:
        tracker = plans([1, 2, 3, 70])
        segments = ["flag:user:plan=pro | flag:user:plan=free", "bought"]
        question = LifecycleQuestion.of(event="seen", breakdown=segments, now=NOW)
        found = [
            people_behind(
                question, LifecycleFigure.of(group="new", at=NOW, value=value), tracker=tracker
            ).ids
            for value in segments
        ]
        assert found == [[1, 2], [2, 3]]

    def test_they_are_those_whom_the_report_is_about(self, plans: Callable[..., Tracker]) -> None:
        """Without a value and without a segment: of those of any arm, of the first step's."""
        tracker = plans([1, 2, 3, 70])
        arms = CompareQuestion.of(
            arms=["bought", "seen"], goal="bought", breakdown="user:plan", now=NOW
        )
        steps = FunnelQuestion.of(steps=["seen", "bought"], breakdown="user:plan", now=NOW)
        assert people_behind(
            arms, CompareFigure.of(arm=1, value="(no value)"), tracker=tracker
        ).ids == [3, 70]
        assert people_behind(
            steps, FunnelFigure.of(step=1, value="(no value)"), tracker=tracker
        ).ids == [3]

    @pytest.mark.parametrize(
        ("breakdown", "told"),
        [
            (None, "there is no part 'gold': the question has no breakdown"),
            ("user:plan", "there is no part 'gold': there are free, pro, (no value)"),
        ],
    )
    def test_of_no_part_are_an_error(
        self, plans: Callable[..., Tracker], breakdown: str | None, told: str
    ) -> None:
        question = TrendQuestion.of(event="seen", breakdown=breakdown, now=NOW)
        with pytest.raises(ValueError, match=re.escape(told)):
            people_behind(question, TrendFigure.of(value="gold"), tracker=plans([1, 2, 3, 70]))


@pytest.fixture
def plans(tracker: Tracker) -> Callable[..., Tracker]:
    return partial(mark_plans, tracker)


def mark_plans(tracker: Tracker, ids: list[Any]) -> Tracker:
    """Of four users, the first is pro, the second free; the second and the third bought."""
    tracker.record([Mark("seen", id_, when=NOW) for id_ in ids])
    tracker.record([Mark("bought", id_, when=NOW) for id_ in ids[1:3]])
    tracker.record([Mark("user:plan=pro", ids[0], dated=False)])
    tracker.record([Mark("user:plan=free", ids[1], dated=False)])
    tracker.redis.hset(DIMENSIONS, mapping={"0:user:plan": "free", "1:user:plan": "pro"})
    return tracker


def test_the_tables_have_the_parts_below_the_whole(plans: Callable[..., Tracker]) -> None:
    tracker = plans([1, 2, 3, 70])
    asked: dict[str, Any] = {"start": NOW, "now": NOW, "tracker": tracker}
    report = analytics.trend("seen", breakdown="user:plan", **asked)
    assert report.to_csv().splitlines() == [
        "value,period_start,users,complete",
        "(all),2026-11-23,4,False",
        "free,2026-11-23,1,False",
        "pro,2026-11-23,1,False",
        "(no value),2026-11-23,2,False",
    ]
    assert [*report.to_dict()] == ["parts", "points"]
    assert (
        report.to_dict()["parts"]["pro"]
        == analytics.trend("seen", where="flag:user:plan=pro", **asked).to_dict()
    )
    assert [*report.to_dataframe()["users"]] == [4, 1, 1, 2]
    alone = analytics.trend("seen", **asked)
    assert [*alone.to_dict()] == ["points"]
    assert alone.to_csv().splitlines()[0] == "period_start,users,complete"


def test_a_dimension_that_nobody_has_leaves_everybody_without_a_value(
    plans: Callable[..., Tracker],
) -> None:
    asked: dict[str, Any] = {"start": NOW, "now": NOW, "tracker": plans([1, 2, 3, 70])}
    (whole,) = analytics.trend("seen", **asked).points
    parts = analytics.trend("seen", breakdown="user:country", **asked).parts
    assert {name: part.points for name, part in parts.items()} == {"(no value)": [whole]}
    with pytest.raises(ValueError, match=r"no dimension 'user:country'.*There are: user:plan\."):
        analytics.trend("seen", breakdown="user:country", strict=True, **asked)


def test_who_has_a_value_that_says_so_has_none(plans: Callable[..., Tracker]) -> None:
    tracker = plans([1, 2, 3, 70])
    tracker.record([Mark("user:plan=(no value)", 3, dated=False)])
    tracker.redis.hset(DIMENSIONS, "2:user:plan", "(no value)")
    parts = analytics.trend("seen", breakdown="user:plan", now=NOW, tracker=tracker).parts
    assert [part.points[-1].users for part in parts.values()] == [1, 1, 2]


def test_somebody_between_two_values_does_not_take_another_s_place(
    plans: Callable[..., Tracker],
) -> None:
    """In a cluster one has both for a moment, while they are exchanged."""
    tracker = plans([1, 2, 3, 70])
    tracker.record([Mark("user:plan=pro", 2, dated=False)])
    parts = analytics.trend("seen", breakdown="user:plan", now=NOW, tracker=tracker).parts
    told = {name: part.points[-1].users for name, part in parts.items()}
    assert told == {"free": 1, "pro": 2, "(no value)": 2}


def test_a_value_called_like_the_whole_does_not_replace_it(plans: Callable[..., Tracker]) -> None:
    tracker = plans([1, 2, 3, 70])
    tracker.record([Mark("user:plan=(all)", 3, dated=False)])
    tracker.redis.hset(DIMENSIONS, "2:user:plan", "(all)")
    asked: dict[str, Any] = {"start": NOW, "now": NOW, "tracker": tracker}
    _, rows = analytics.trend("seen", breakdown="user:plan", **asked).exported()
    assert [row[2] for row in rows if row[0] == "(all)"] == [4, 1]


def test_values_of_another_kind_of_ids_do_not_combine(plans: Callable[..., Tracker]) -> None:
    tracker = plans([1, 2, 3, 70])
    tracker.record([Mark("mapped", "x", dated=False)])
    with pytest.raises(ValueError, match="sets of different kinds of ids do not combine"):
        analytics.trend("seen", breakdown="flag:mapped", now=NOW, tracker=tracker)


@pytest.mark.parametrize(
    ("breakdown", "told"),
    [
        (["flag:a", "flag:b", "flag:a"], "breakdown has flag:a twice"),
        ([], "the number of breakdown must be a whole number from 1 to 50, not 0"),
        ([f"flag:{n}" for n in range(51)], "a whole number from 1 to 50, not 51"),
        ("flag:a &", "a name is missing"),
    ],
)
def test_what_is_no_breakdown_is_an_error_before_any_io(
    round_trips: list[object], breakdown: Any, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        TrendQuestion.of(event="seen", breakdown=breakdown)
    assert not round_trips


@pytest.mark.parametrize("breakdown", ["user:plan", '"a name"', ["flag:a"], ["flag:a", "b & c"]])
def test_a_question_s_arguments_ask_it_again(breakdown: Any) -> None:
    question = TrendQuestion.of(event="seen", breakdown=breakdown)
    assert question.arguments["breakdown"] == breakdown
    assert TrendQuestion.of(event="seen", breakdown=question.arguments["breakdown"]) == question
    assert TrendQuestion.of_plain(question.plain) == question
    assert replace(question, rolling=2).breakdown == question.breakdown


BROKEN_DOWN: dict[str, Callable[..., Any]] = {
    "compare": lambda **asked: analytics.compare(["flag:user:plan=pro", "seen"], "bought", **asked),
    "funnel": lambda **asked: analytics.funnel(
        ["seen", "bought"], within=3, previous=True, **asked
    ),
    "lifecycle": lambda **asked: analytics.lifecycle("seen", previous=True, **asked),
    "retention": lambda **asked: analytics.retention(
        "seen", "bought", "day", previous=True, **asked
    ),
    "stickiness": lambda **asked: analytics.stickiness("seen", **asked),
    "trend": lambda **asked: analytics.trend("seen", **asked),
    "trends": lambda **asked: analytics.trends(
        ["seen", "bought"], previous=True, active="bought", **asked
    ),
}


@pytest.mark.parametrize("breakdown", ["user:plan", ["flag:user:plan=pro", "bought"]], ids=str)
@pytest.mark.parametrize("report", BROKEN_DOWN)
def test_it_is_read_in_at_most_four_round_trips(
    plans: Callable[..., Tracker],
    stranger: Tracker,
    round_trips: list[object],
    report: str,
    breakdown: Any,
) -> None:
    plans([1, 2, 3, 5_000_000])
    stranger.redis.ping()
    round_trips.clear()
    BROKEN_DOWN[report](where="seen", breakdown=breakdown, now=NOW, tracker=stranger)
    assert 1 <= len(round_trips) <= 4


def test_a_cluster_tells_the_same(
    clusters: Callable[[int], Cluster],
    tracker_on: Callable[..., Tracker],
    plans: Callable[..., Tracker],
) -> None:
    asked = {"breakdown": "user:plan", "now": NOW}
    alone, client = plans([1, 2, 3, 70]), RedisCluster.from_url(clusters(3).url)
    together = mark_plans(tracker_on(client=client, instance="cluster"), [1, 2, 3, 70])
    for name, report in BROKEN_DOWN.items():
        assert report(tracker=together, **asked) == report(tracker=alone, **asked), name
    client.close()
