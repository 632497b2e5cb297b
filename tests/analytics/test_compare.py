"""compare: the conversion of each arm of an experiment, and its difference from the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta
from statistics import NormalDist
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist.analytics import compare
from flask_bitmapist.marks import Mark
from flask_bitmapist.reading import bitmaps
from flask_bitmapist.reading.segments import Flag
from flask_bitmapist.tracker import Tracker

NOW = datetime(2027, 1, 2, 14, 32)
TODAY = NOW.date()


pytestmark = pytest.mark.usefixtures("at_now")


@pytest.fixture
def mark(tracker: Tracker) -> Callable[..., None]:
    def mark(event: str, users: Iterable[object], when: date = TODAY) -> None:
        tracker.record([Mark(event, user, when=when) for user in users])

    return mark


@pytest.fixture
def flag(tracker: Tracker) -> Callable[..., None]:
    def flag(name: str, users: Iterable[object]) -> None:
        tracker.record([Mark(name, user, dated=False) for user in users])

    return flag


BLUE, GREEN = Flag("blue"), Flag("green")


def test_arms_are_compared_with_the_first(
    mark: Callable[..., None], flag: Callable[..., None]
) -> None:
    # 45 of 100 against 60 of 100: the pooled standard error is sqrt(0.525 * 0.475 * 2 / 100).
    flag("blue", range(100))
    flag("green", range(100, 200))
    mark("bought", [*range(45), *range(100, 160), 500])
    blue, green = compare([BLUE, GREEN], "bought").arms
    assert (blue.segment, blue.size, blue.converted, blue.rate) == ("flag:blue", 100, 45, 0.45)
    assert (green.segment, green.size, green.converted, green.rate) == ("flag:green", 100, 60, 0.6)
    assert (blue.z, blue.p) == (None, None)
    assert green.z == pytest.approx(0.15 / (0.525 * 0.475 * 2 / 100) ** 0.5)
    assert green.p == pytest.approx(0.03367, abs=1e-5)
    # Wilson's interval, as in Newcombe's tables of 1998.
    assert (blue.low, blue.high) == pytest.approx((0.3561, 0.5476), abs=1e-4)
    assert (green.low, green.high) == pytest.approx((0.5020, 0.6906), abs=1e-4)


def test_arms_that_share_users_are_told(
    mark: Callable[..., None], flag: Callable[..., None]
) -> None:
    flag("blue", [1, 2, 3, 70])
    flag("green", [3, 4, 70])
    flag("red", [5])
    flag("nobody", [])
    arms = [BLUE, GREEN, Flag("red"), Flag("nobody")]
    assert compare(arms, "bought").shared == [4, 2, 0, 0]
    assert compare([*arms[2:], *arms[:2]], "bought").shared == [1, 0, 0, 0]
    assert compare([GREEN, BLUE], "bought", where=Flag("red")).shared == [0, 0]


def test_users_are_shared_in_whichever_part_of_the_offsets(
    mark: Callable[..., None], flag: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bitmaps, "_PART_WORDS", 1)
    flag("blue", [1])
    flag("green", [1, 100])
    flag("red", [100])
    assert compare([BLUE, GREEN, Flag("red")], "bought").shared == [1, 1, 0]


def test_the_test_is_two_sided(mark: Callable[..., None], flag: Callable[..., None]) -> None:
    flag("blue", range(100))
    flag("green", range(100, 200))
    mark("bought", [*range(45), *range(100, 160)])
    up = compare([BLUE, GREEN], "bought").arms[1]
    down = compare([GREEN, BLUE], "bought").arms[1]
    assert up.z is not None
    assert down.z is not None
    assert down.z == pytest.approx(-up.z)
    assert down.p == pytest.approx(up.p)
    assert up.p == pytest.approx(2 * (1 - NormalDist().cdf(up.z)))


def test_equal_arms_do_not_differ(mark: Callable[..., None], flag: Callable[..., None]) -> None:
    flag("blue", range(10))
    flag("green", range(10, 20))
    mark("bought", [1, 11])
    arm = compare([BLUE, GREEN], "bought").arms[1]
    assert (arm.z, arm.p) == (0.0, 1.0)


def test_an_empty_arm_has_no_rate_and_no_difference(
    mark: Callable[..., None], flag: Callable[..., None]
) -> None:
    flag("blue", range(10))
    mark("bought", [1])
    for arms, empty in (([BLUE, GREEN], 1), ([GREEN, BLUE], 0)):
        report = compare(arms, "bought").arms
        arm = report[empty]
        assert (arm.size, arm.converted, arm.rate, arm.low, arm.high) == (0, 0, None, None, None)
        assert (report[1].z, report[1].p) == (None, None)


@pytest.mark.parametrize("buyers", [[], range(20)])
def test_where_nobody_or_everybody_converted_there_is_no_difference_to_test(
    mark: Callable[..., None], flag: Callable[..., None], buyers: Iterable[int]
) -> None:
    flag("blue", range(10))
    flag("green", range(10, 20))
    mark("bought", buyers)
    arm = compare([BLUE, GREEN], "bought").arms[1]
    assert arm.rate == (1.0 if buyers else 0.0)
    assert (arm.z, arm.p) == (None, None)


def test_the_goal_counts_in_any_period_of_the_range(
    mark: Callable[..., None], flag: Callable[..., None]
) -> None:
    flag("blue", range(10))
    for user, when in enumerate(
        (date(2026, 12, 30), date(2026, 12, 31), TODAY, date(2026, 12, 29))
    ):
        mark("bought", [user], when)
    (arm,) = compare([BLUE], "bought", start=date(2026, 12, 30), end=date(2027, 1, 1)).arms
    assert (arm.size, arm.converted) == (10, 2)
    (arm,) = compare([BLUE], "bought", date(2026, 12, 1), by="month").arms
    assert arm.converted == 4


def test_arms_may_be_texts_and_dated(mark: Callable[..., None]) -> None:
    mark("web", [1, 2], date(2027, 1, 1))
    mark("web", [2, 3])
    mark("mobile", [4])
    mark("bought", [2, 4], date(2027, 1, 1))
    web, mobile = compare(["web - mobile", "mobile"], "bought").arms
    assert (web.segment, web.size, web.converted) == ("web - mobile", 3, 1)
    assert (mobile.segment, mobile.size, mobile.converted) == ("mobile", 1, 1)


def test_where_cuts_every_arm(mark: Callable[..., None], flag: Callable[..., None]) -> None:
    flag("blue", range(10))
    flag("green", range(10, 20))
    mark("web", [0, 1, 10], date(2027, 1, 1))
    mark("bought", [1, 2, 11])
    report = compare([BLUE, GREEN], "bought", where="web")
    assert [(arm.size, arm.converted) for arm in report.arms] == [(2, 1), (1, 0)]


def test_mapped_users_are_compared_among_themselves_alone(
    mark: Callable[..., None], flag: Callable[..., None]
) -> None:
    ids = [UUID(int=n << 64) for n in range(4)]
    flag("blue", ids[:2])
    flag("green", ids[2:])
    flag("plain", [1])
    mark("bought", ids[1:])
    report = compare([BLUE, GREEN], "bought")
    assert [(arm.size, arm.converted) for arm in report.arms] == [(2, 1), (2, 2)]
    with pytest.raises(ValueError, match="different kinds of ids do not combine"):
        compare([BLUE, Flag("plain")], "bought")


def test_a_comparison_tells_itself_as_dict_and_csv(
    mark: Callable[..., None], flag: Callable[..., None]
) -> None:
    flag("blue", [1, 2])
    report = compare(["flag:blue", "flag:green"], "bought")
    assert report.to_dict()["arms"][1] == {
        "segment": "flag:green",
        **dict.fromkeys(("size", "converted"), 0),
        **dict.fromkeys(("rate", "low", "high", "z", "p")),
    }
    header, blue, green = report.to_csv().splitlines()
    assert header == "segment,size,converted,rate,low,high,z,p"
    assert blue.startswith("flag:blue,2,0,0.0,0.0,0.65")
    assert green == "flag:green,0,0,,,,,"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"arms": "flag:a"}, "arms must be a list of events or segments, not 'flag:a' alone"),
        ({"arms": BLUE}, "arms must be a list of events or segments, not Flag"),
        ({"arms": []}, "the number of arms must be a whole number from 1 to 1000, not 0"),
        ({"by": "decade"}, "by must be one of hour, day, week, month, year"),
        ({"start": TODAY, "end": TODAY - timedelta(1)}, "is before the start"),
        ({"strict": True}, "unknown events or flags: blue, bought, green"),
    ],
)
def test_nonsense_is_an_error_that_says_what_is_allowed(
    tracker: Tracker, arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        compare(**{"arms": [BLUE, GREEN], "goal": "bought", **arguments})


users = st.frozensets(st.integers(0, 200))


@given(
    arms=st.lists(users, min_size=1, max_size=4),
    goals=st.lists(users, min_size=1, max_size=4),
    small=st.booleans(),
)
def test_a_comparison_agrees_with_sets(
    redis: Any,
    tracker: Tracker,
    monkeypatch: pytest.MonkeyPatch,
    arms: list[frozenset[int]],
    goals: list[frozenset[int]],
    small: bool,
) -> None:
    redis.flushdb()
    pipeline = redis.pipeline()
    for number, members in enumerate(arms):
        for user in members:
            pipeline.setbit(f"trackist_arm{number}_u", user, 1)
    for back, members in enumerate(goals):
        when = TODAY - timedelta(days=back)
        for user in members:
            pipeline.setbit(f"trackist_bought_{when.year}-{when.month}-{when.day}", user, 1)
    pipeline.execute()
    with monkeypatch.context() as patch:
        if small:
            patch.setattr(bitmaps, "BUDGET", 0)
            patch.setattr(bitmaps, "_SLICE_UNIT", 16)
            patch.setattr(bitmaps, "_PART_WORDS", 1)
        report = compare([Flag(f"arm{number}") for number in range(len(arms))], "bought")
    bought = frozenset().union(*goals)
    found = [(arm.size, arm.converted) for arm in report.arms]
    assert found == [(len(arm), len(arm & bought)) for arm in arms]
    for arm in report.arms:
        if arm.rate is not None:
            low, high = arm.low, arm.high
            assert low is not None
            assert high is not None
            assert 0 <= low <= arm.rate <= high <= 1
        if arm.p is not None:
            assert 0 <= arm.p <= 1
