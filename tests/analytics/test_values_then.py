"""Who had a value of a dated dimension when: `was(...)` in every report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from months import write_months
from nodes import Cluster
from redis.cluster import RedisCluster

from flask_bitmapist import analytics
from flask_bitmapist.analytics import Was, people_behind
from flask_bitmapist.dimensions import NONE
from flask_bitmapist.marks import Mark
from flask_bitmapist.periods import Grain
from flask_bitmapist.questions import (
    CompareFigure,
    CompareQuestion,
    TrendFigure,
    TrendQuestion,
    TrendsFigure,
    TrendsQuestion,
)
from flask_bitmapist.tracker import Tracker

from . import changing, test_truth
from .reference import Change, World
from .test_breakdown import BROKEN_DOWN, trend_shown
from .test_truth import History, Server, identity, truth

truth_server = test_truth.truth_server

#: A Saturday.
NOW = datetime(2026, 11, 28, 12)
#: 1 went from pro to free, 2 has been pro since before all of this, 3 was pro and has no plan, and
#: 4 had some other plan before, 5 was free for some days of September, 6 has just become pro, and 8
#: was free for a month. What 7 had, who was erased, is nowhere.
MONTHS = {
    "2026-08": {"pro": [1, 8]},
    "2026-09": {"pro": [3, 5], "free": [4, 6, 8]},
    "2026-10": {"free": [1], NONE: [3], "pro": [8]},
    "2026-11": {"pro": [6]},
}
TODAY = {"pro": [2, 5, 6, 8], "free": [1, 4]}
PRO = {7: [2], 8: [1, 2, 8], 9: [1, 2, 3, 5], 10: [2, 5, 8], 11: TODAY["pro"]}
FREE: dict[int, list[int]] = {7: [], 8: [], 9: [4, 6, 8], 10: [1, 4, 6], 11: TODAY["free"]}


@pytest.fixture
def plans(tracker: Tracker) -> Tracker:
    return mark_plans(tracker)


def mark_plans(tracker: Tracker) -> Tracker:
    """The plans of eight people, who were seen in every month."""
    write_months(tracker.redis, "user:plan", MONTHS, TODAY)
    for month in range(7, 12):
        tracker.record([Mark("seen", user, when=date(2026, month, 20)) for user in range(1, 9)])
    return tracker


@pytest.mark.parametrize("month", PRO)
def test_it_holds_those_who_had_it_at_the_end_of_the_month(plans: Tracker, month: int) -> None:
    for day in (1, 28):
        for value, then in (("pro", PRO), ("free", FREE)):
            asked: dict[str, Any] = {"at": date(2026, month, day), "now": NOW}
            segment = f"was(user:plan={value})"
            assert [*analytics.users(segment, **asked)] == then[month]
            assert analytics.count(segment, **asked) == len(then[month])
            who = [user for user in range(9) if analytics.contains(segment, user, **asked)]
            assert who == then[month]


@pytest.mark.parametrize(
    ("by", "at", "month"),
    [
        ("hour", datetime(2026, 9, 30, 23), 9),
        ("hour", datetime(2026, 10, 1), 10),
        ("day", date(2026, 9, 30), 9),
        ("week", date(2026, 9, 27), 9),
        ("week", date(2026, 9, 28), 10),
        ("month", date(2026, 9, 1), 9),
        ("year", date(2026, 3, 1), 11),
        ("year", date(2025, 3, 1), 7),
    ],
)
def test_a_period_has_the_month_in_which_it_ends(
    plans: Tracker, by: Grain, at: date, month: int
) -> None:
    assert [*analytics.users("was(user:plan=pro)", by, at, now=NOW)] == PRO[month]


def test_what_counts_as_now_does_not_change_what_was(plans: Tracker) -> None:
    asked = analytics.users("was(user:plan=pro)", now=datetime(2026, 9, 15))
    assert [*asked] == PRO[9]


def test_it_depends_on_the_period_in_every_report(plans: Tracker) -> None:
    was_pro: dict[str, Any] = {"where": Was("user:plan=pro"), "now": NOW, "tracker": plans}
    asked: dict[str, Any] = {"by": "month", "start": date(2026, 7, 1), **was_pro}
    sizes = [len(who) for who in PRO.values()]
    assert [point.users for point in analytics.trend("seen", **asked).points] == sizes
    rows = analytics.retention("seen", "seen", members="every", periods=1, **asked).rows
    assert [row.size for row in rows] == sizes
    funnel = analytics.funnel(["was(user:plan=pro)", "was(user:plan=free)"], **asked)
    assert [step.users for step in funnel.steps] == [6, 2]  # 1 and 8
    found = analytics.lifecycle("seen", **asked).points
    assert [point.returning + point.resurrected + point.new for point in found] == sizes
    stuck = analytics.stickiness("seen", "month", within=5, **was_pro)
    assert stuck.counts == {1: 2, 2: 1, 3: 2, 4: 0, 5: 1}
    compared = analytics.compare(
        ["was(user:plan=pro)", "was(user:plan=free)"], "seen", **{**asked, "where": None}
    )
    assert [arm.size for arm in compared.arms] == [6, 4]


def test_it_is_kept_since_the_present_month_alone(tracker: Tracker) -> None:
    """Then 2 has always been pro, as far as is known, and 6 has just become it."""
    write_months(tracker.redis, "user:plan", {"2026-11": {"pro": [6]}}, {"pro": [2, 6]})
    asked: dict[str, Any] = {"by": "day", "start": date(2026, 11, 27), "now": NOW}
    for event in ("was(user:plan=pro)", "was(user:plan=pro) | unknown"):
        points = analytics.lifecycle(event, **asked).points
        assert [point.returning + point.new for point in points] == [2, 2]
        rows = analytics.retention(event, event, periods=1, **asked).rows
        assert [row.size for row in rows] == [point.new for point in points]
        assert analytics.trend("unknown", where=event, breakdown="user:plan", **asked).points


def test_it_is_new_for_those_who_have_just_got_it(plans: Tracker) -> None:
    asked: dict[str, Any] = {"by": "month", "start": date(2026, 7, 1), "now": NOW}
    points = analytics.lifecycle("was(user:plan=pro)", **asked).points
    assert [point.new for point in points] == [0, 2, 2, 0, 1]
    assert [point.resurrected for point in points] == [0, 0, 0, 1, 0]
    since = {**asked, "start": date(2026, 10, 1)}
    assert analytics.lifecycle("was(user:plan=pro)", **since).points == points[-2:]


def test_of_those_who_have_it_this_month_those_before_are_known(tracker: Tracker) -> None:
    this = changing.shifted(datetime.now(), 0)
    write_months(tracker.redis, "user:plan", {f"{this:%Y-%m}": {"pro": [1]}}, {"pro": [1, 2]})
    (row,) = analytics.retention("was(user:plan=pro)", "seen", "month", start=this).rows
    assert row.size == 1  # 2 had it before


def test_who_did_something_while_being_it_did_it_before_in_that_month_alone(
    plans: Tracker,
) -> None:
    """In no week that begins in the month before: 4 was not free on the 31st of August."""
    plans.record([Mark("a", 4, when=date(2026, 8, 31)), Mark("a", 4, when=date(2026, 9, 9))])
    asked: dict[str, Any] = {"start": date(2026, 9, 9), "end": date(2026, 9, 9), "now": NOW}
    (point,) = analytics.lifecycle("a & was(user:plan=free)", **asked).points
    assert point.new == 1


def test_a_month_that_has_begun_by_the_clock_of_another_process_counts(tracker: Tracker) -> None:
    now = datetime.now()
    last, following = (f"{changing.shifted(now, months):%Y-%m}" for months in (-1, 1))
    months = {last: {"pro": [1]}, following: {"free": [1]}}
    write_months(tracker.redis, "user:plan", months, {"free": [1], "pro": []})
    then = changing.shifted(now, -1)
    assert [*analytics.users("was(user:plan=pro)", at=then)] == [1]
    assert [*analytics.users("was(user:plan=free)", at=then)] == []


def test_of_what_nobody_ever_had_there_is_nobody(plans: Tracker) -> None:
    asked: dict[str, Any] = {"at": date(2026, 9, 1), "now": NOW}
    assert analytics.count("was(user:plan=gold) | was(user:team=a)", **asked) == 0
    assert analytics.lifecycle("was(user:team=a)", now=NOW).points[-1].active == 0
    with pytest.raises(ValueError, match="unknown events or flags: user:plan=gold"):
        analytics.count("was(user:plan=gold)", strict=True, **asked)


def test_of_a_dimension_that_is_not_dated_it_is_an_error_that_says_what_to_do(
    plans: Tracker,
) -> None:
    plans.record([Mark("user:team", 1, choice="a", dated=False)])
    with pytest.raises(ValueError, match="of user:team only the values of now are kept. Declare"):
        analytics.trend("seen", where="was(user:team=a)", now=NOW)


def test_other_kinds_of_ids_do_not_combine(plans: Tracker) -> None:
    plans.record([Mark("opened", "x", when=NOW)])
    with pytest.raises(ValueError, match="sets of different kinds of ids do not combine"):
        analytics.count("opened & was(user:plan=pro)")


def test_a_question_spells_it(plans: Tracker) -> None:
    question = TrendQuestion.of(event="seen", where=Was("user:plan=pro"))
    assert question.arguments["where"] == "was(user:plan=pro)"
    assert TrendQuestion.of(event="seen", where=question.arguments["where"]) == question


@pytest.mark.parametrize("first", ["seen", "was(user:plan=pro)"])
def test_it_is_read_in_at_most_four_round_trips(
    plans: Tracker, stranger: Tracker, round_trips: list[object], first: str
) -> None:
    plans.record([Mark("seen", 5_000_000, when=NOW)])
    stranger.redis.ping()
    for ask in (analytics.lifecycle, analytics.trend):
        round_trips.clear()
        ask(first, where="was(user:plan=free)", now=NOW, tracker=stranger)
        assert 1 <= len(round_trips) <= 4


def test_a_cluster(clusters: Callable[[int], Cluster], tracker_on: Callable[..., Tracker]) -> None:
    with closing(RedisCluster.from_url(clusters(3).url)) as client:
        tracker = mark_plans(tracker_on(client=client))
        for month, users in PRO.items():
            asked: dict[str, Any] = {"at": date(2026, month, 1), "now": NOW, "tracker": tracker}
            assert [*analytics.users("was(user:plan=pro)", **asked)] == users


@truth
@given(data=st.data(), mapped=st.booleans())
def test_what_was_marked_is_what_was(
    truth_server: Server, data: st.DataObject, mapped: bool
) -> None:
    """As people get their values, month by month; before the first month they had them undated."""
    each = st.tuples(st.integers(0, 5), st.integers(1, 6), st.sampled_from([*changing.PLANS, None]))
    marked = sorted(data.draw(st.lists(each, max_size=25)), key=lambda change: change[0])
    world = World(ZoneInfo("Europe/Berlin"), [], present=datetime.max)
    tracker = truth_server.write(History(world, NOW, mapped, "record", ()))
    months = [datetime(2026, 2 + month, 1) for month in range(7)]
    for month, number, value in marked:
        user, when = identity(number, mapped), months[month] + timedelta(days=number)
        with tracker.at(when):
            tracker.record([Mark(changing.PLAN, user, choice=value or NONE, dated=month > 0)])
        world.changes.append(Change(changing.PLAN, user, when, value))
        if month:
            world.kept.setdefault(changing.PLAN, months[month])
    asked: dict[str, Any] = {"by": "month", "tracker": tracker}
    for begin, end in pairwise(months if world.kept else []):
        for value in changing.PLANS:
            found = analytics.users(Was(f"{changing.PLAN}={value}"), at=begin, **asked)
            assert {*found} == world.had(changing.PLAN, value, end), (begin, value)


class TestBrokenDown:
    """By the values of then: everybody counts in each period under the value that they had."""

    def test_a_trend(self, plans: Tracker) -> None:
        asked: dict[str, Any] = {"by": "month", "start": date(2026, 7, 1), "now": NOW}
        report = analytics.trend("seen", breakdown="user:plan", as_of="then", **asked)
        assert trend_shown(report) == trend_shown(analytics.trend("seen", **asked))
        found = {name: [p.users for p in part.points] for name, part in report.parts.items()}
        pro, free = (_sizes(then) for then in (PRO, FREE))
        none = [8 - n - m for n, m in zip(pro, free, strict=True)]
        assert found == {"pro": pro, "free": free, "(no value)": none}

    def test_now_and_then_are_told_apart(self, plans: Tracker) -> None:
        asked: dict[str, Any] = {"breakdown": "user:plan", "start": NOW, "now": NOW}
        now, then = (analytics.trend("seen", as_of=as_of, **asked) for as_of in ("now", "then"))
        assert "as_of" not in now.to_dict()
        assert then.to_dict()["as_of"] == "then"
        assert now.to_csv().startswith("value,period_start")
        assert then.to_csv().startswith("value_then,period_start")
        assert trend_shown(now) == trend_shown(then)

    @pytest.mark.parametrize("value", ["pro", "free", "(no value)"])
    @pytest.mark.parametrize("month", [8, 9, 11])
    def test_the_people_behind_a_figure(self, plans: Tracker, value: str, month: int) -> None:
        plans.record([Mark("seen", 9, when=date(2026, 9, 3))])
        question = TrendsQuestion.of(
            events=["seen"], by="month", breakdown="user:plan", as_of="then", now=NOW
        )
        series = analytics.answer(question, plans).parts[value].series[0]  # type: ignore[attr-defined]
        users = {point.period_start.month: point.users for point in series.points}[month]
        figure = TrendsFigure.of(at=date(2026, month, 2), value=value)
        having = {"pro": PRO[month], "free": FREE[month]}
        seen = [*range(1, 9), *([9] if month == 9 else [])]
        having["(no value)"] = [u for u in seen if u not in (*PRO[month], *FREE[month])]
        people = people_behind(question, figure, tracker=plans)
        assert (people.users, people.ids) == (users, having[value])

    def test_a_part_of_a_comparison_is_of_those_in_an_arm(self, plans: Tracker) -> None:
        question = CompareQuestion.of(
            arms=["flag:user:plan=pro", "flag:user:plan=free"],
            goal="seen",
            breakdown="user:plan",
            as_of="then",
            over="2026-09",
            now=NOW,
        )
        parts = analytics.answer(question, plans).parts  # type: ignore[attr-defined]
        sizes = {name: [arm.size for arm in part.arms] for name, part in parts.items()}
        assert sizes == {"pro": [2, 1], "free": [2, 1], "(no value)": [0, 0]}
        figure = CompareFigure.of(arm=1, value="free")
        assert people_behind(question, figure, tracker=plans).ids == [4]

    def test_of_the_share_of_the_active_those_without_a_value_have_theirs(
        self, plans: Tracker
    ) -> None:
        """Those of the active who did not do it are among them."""
        plans.record([Mark("bought", user, when=date(2026, 8, 9)) for user in (1, 4)])
        asked: dict[str, Any] = {"by": "month", "over": "2026-08", "now": NOW, "active": "seen"}
        for as_of in ("now", "then"):
            report = analytics.trends(["bought"], breakdown="user:plan", as_of=as_of, **asked)
            question = TrendsQuestion.of(
                events=["bought"], breakdown="user:plan", as_of=as_of, **asked
            )
            known = plans.reader.known
            for name, part in report.parts.items():
                alone = analytics.answer(analytics.part_of(question, name, known), plans)
                assert alone.series == part.series, (as_of, name)  # type: ignore[attr-defined]

    @pytest.mark.parametrize("report", BROKEN_DOWN)
    def test_it_is_read_in_at_most_four_round_trips(
        self, plans: Tracker, stranger: Tracker, round_trips: list[object], report: str
    ) -> None:
        plans.record([Mark("bought", 5_000_000, when=NOW)])
        stranger.redis.ping()
        round_trips.clear()
        asked: dict[str, Any] = {"breakdown": "user:plan", "as_of": "then", "now": NOW}
        BROKEN_DOWN[report](where="seen", tracker=stranger, **asked)
        assert 1 <= len(round_trips) <= 4

    @pytest.mark.parametrize("breakdown", [None, ["flag:user:plan=pro"], ["a", "b & c"]])
    def test_of_segments_it_is_an_error_before_any_io(
        self, round_trips: list[object], breakdown: Any
    ) -> None:
        with pytest.raises(ValueError, match=r"of the values of a dated dimension.* take was"):
            TrendQuestion.of(event="seen", breakdown=breakdown, as_of="then")
        with pytest.raises(ValueError, match="as_of must be one of now, then, not 'later'"):
            TrendQuestion.of(event="seen", breakdown="user:plan", as_of="later")
        assert not round_trips

    def test_of_a_dimension_that_is_not_dated_it_is_an_error(self, plans: Tracker) -> None:
        plans.record([Mark("user:team", 1, choice="a", dated=False)])
        with pytest.raises(ValueError, match="of user:team only the values of now are kept"):
            analytics.trend("seen", breakdown="user:team", as_of="then", now=NOW)
        question = TrendQuestion.of(event="seen", breakdown="user:team", as_of="then", now=NOW)
        with pytest.raises(ValueError, match="of user:team only the values of now are kept"):
            people_behind(question, TrendFigure.of(value="a"), tracker=plans)

    def test_of_a_dimension_that_nobody_has_everybody_is_without_a_value(
        self, plans: Tracker
    ) -> None:
        asked: dict[str, Any] = {"breakdown": "user:team", "as_of": "then", "now": NOW}
        report = analytics.trend("seen", over="2026-11", by="month", **asked)
        assert trend_shown(report.parts["(no value)"]) == trend_shown(report)
        with pytest.raises(ValueError, match="There is no dimension 'user:team'"):
            analytics.trend("seen", strict=True, **asked)

    def test_a_question_s_arguments_ask_it_again(self) -> None:
        question = TrendQuestion.of(event="seen", breakdown="user:plan", as_of="then")
        assert question.arguments["as_of"] == "then"
        assert TrendQuestion.of(**question.arguments) == question
        assert TrendQuestion.of_plain(question.plain) == question
        assert "as_of" not in TrendQuestion.of(event="seen", breakdown="user:plan").arguments


def _sizes(then: dict[int, list[int]]) -> list[int]:
    return [len(users) for users in then.values()]
