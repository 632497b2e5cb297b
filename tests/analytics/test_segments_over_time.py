"""Who did something in a range of its own: `did(...)` and `first(...)` in every report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from nodes import Cluster
from redis.cluster import RedisCluster

from flask_bitmapist import FlaskBitmapist, analytics, mark_event, mark_unique
from flask_bitmapist.analytics import Did, Event, First
from flask_bitmapist.config import Settings
from flask_bitmapist.current import current_tracker
from flask_bitmapist.marks import Mark
from flask_bitmapist.periods import Period
from flask_bitmapist.questions import AdoptionQuestion, PeopleQuestion, TrendQuestion
from flask_bitmapist.reading.segments import AsOf, parse
from flask_bitmapist.tracker import Tracker

#: A Saturday.
TODAY = date(2026, 11, 28)
#: Who posted, so many days ago.
POSTED = {0: [1], 3: [1, 2], 13: [3], 14: [4], 30: [2, 5], 59: [6], 400: [6, 7]}


@pytest.fixture
def posted(tracker: Tracker) -> Iterator[Tracker]:
    with tracker.at(datetime(2026, 11, 28, 12)):
        for days, users in POSTED.items():
            mark_event("posted", users, now=TODAY - timedelta(days=days))
        mark_event("seen", range(1, 10))
        yield tracker


@pytest.mark.parametrize(
    ("segment", "found"),
    [
        ("did(posted, today)", [1]),
        ("did(posted, last 4 days)", [1, 2]),
        ("did(posted, last 13 days)", [1, 2]),
        ("did(posted, last 14 days)", [1, 2, 3]),
        ("did(posted, last 15 days)", [1, 2, 3, 4]),
        ("did(posted, last week)", []),
        ("did(posted, 2026-W46)", [3, 4]),
        ("did(posted, last month)", [2, 5]),
        ("did(posted, 2026-09)", [6]),
        ("did(posted, 2026-09 to 2026-10)", [2, 5, 6]),
        ("did(posted, 2025)", [6, 7]),
        ("did(posted, since 2026-11-14)", [1, 2, 3, 4]),
        ("did(posted, before 2026)", [6, 7]),
        ("did(posted, ever)", [1, 2, 3, 4, 5, 6, 7]),
        ("did(posted, 2 days of last 30 days)", [1]),
        ("did(posted, 2 days of last 31 days)", [1, 2]),
        ("did(posted, 2 weeks of last 31 days)", [2]),
        ("did(posted, 2 years of ever)", [6]),
        ("did(posted, 3 days of ever)", []),
        ("first(posted, this month)", [1, 3, 4]),
        ("first(posted, 2026-10)", [2, 5]),
        ("first(posted, 2026-09)", []),
        ("first(posted, before 2026)", [6, 7]),
        ("first(posted, 2024)", []),
        ("seen & not did(posted, ever)", [8, 9]),
        ("seen & not did(posted, last 30 days)", [5, 6, 7, 8, 9]),
        ("did(posted, 2025) & not did(posted, 2026)", [7]),
        ("did(never, ever) | first(never, 2026)", []),
        ("did(never, 2 days of ever)", []),
    ],
)
def test_it_holds_those_who_did_it_in_the_range(
    posted: Tracker, segment: str, found: list[int]
) -> None:
    assert [*analytics.users(segment)] == found
    assert analytics.count(segment) == len(found)
    assert [user for user in range(1, 10) if analytics.contains(segment, user)] == found
    assert analytics.people(segment).ids == found


def test_a_range_is_relative_to_the_moment_of_the_question(posted: Tracker) -> None:
    for days, found in ((0, [1, 2, 3]), (10, [3, 4]), (30, [2, 5]), (400, [6, 7])):
        now = TODAY - timedelta(days=days)
        assert [*analytics.users("did(posted, last 14 days)", now=now)] == found
        assert analytics.trend("did(posted, last 14 days)", now=now).points[-1].users == len(found)


def test_it_is_the_same_in_every_period_of_a_report(posted: Tracker) -> None:
    recent = "did(posted, last 14 days)"
    assert {point.users for point in analytics.trend(recent, by="month").points} == {3}
    found = analytics.trend("posted", by="month", where=recent, start=date(2026, 10, 1))
    assert [point.users for point in found.points] == [1, 3]
    cohort = analytics.retention("posted", "posted", by="month", where=recent, now=TODAY)
    assert [row.size for row in cohort.rows][-2:] == [1, 2]
    funnel = analytics.funnel([Did("posted", "2025"), "posted"], by="month")
    assert [step.users for step in funnel.steps] == [2, 1]
    compared = analytics.compare(["did(posted, ever)", "seen & not did(posted, ever)"], "seen")
    assert [(arm.size, arm.converted) for arm in compared.arms] == [(7, 7), (2, 2)]
    shared = analytics.overlap(["did(posted, last 14 days)", First("posted", "2026-11")])
    assert shared.counts == [[3, 2], [2, 3]]


def test_whoever_is_in_it_has_always_been(posted: Tracker) -> None:
    found = analytics.lifecycle("did(posted, last 14 days)", now=TODAY)
    assert {(point.new, point.returning) for point in found.points} == {(0, 3)}
    mixed = analytics.lifecycle("posted & did(posted, 2025)", by="month", now=TODAY)
    assert sum(point.new for point in mixed.points) == 0  # 6 posted in 2025 for the first time
    assert [point.resurrected for point in mixed.points][-3:] == [1, 0, 0]


def test_a_feature_that_is_the_same_in_every_period_is_nonsense() -> None:
    with pytest.raises(ValueError, match="no event, only undated flags or ranges of time"):
        AdoptionQuestion.of(feature="did(posted, ever)", active="seen")


def test_ids_of_any_kind(tracker: Tracker) -> None:
    people = [UUID(int=number << 64) for number in range(3)]
    with tracker.at(datetime(2026, 11, 28, 12)):
        tracker.record(
            Mark("posted", id_, when=date(2026, 9, n + 1)) for n, id_ in enumerate(people)
        )
        mark_event("plain", 1)
        assert analytics.users("did(posted, 2026-09-02)") == [str(people[1])]
        assert analytics.users("first(posted, since 2026-09-02)") == [*map(str, people[1:])]
        assert analytics.contains("did(posted, ever)", people[0])
        with pytest.raises(ValueError, match="do not combine"):
            analytics.count("plain & did(posted, ever)")


def test_events_that_only_others_mark(redis: Any, posted: Tracker, stranger: Tracker) -> None:
    redis.delete(*redis.keys("flask_bitmapist:*"))
    with stranger.at(datetime(2026, 11, 28, 12)):
        found = analytics.users(
            "did(posted, before 2026) | first(posted, 2026-10)", tracker=stranger
        )
        assert [*found] == [2, 5, 6, 7]


def test_a_cluster(clusters: Callable[[int], Cluster], tracker_on: Callable[..., Tracker]) -> None:
    with closing(RedisCluster.from_url(clusters(3).url)) as client:
        tracker = tracker_on(client=client)
        with tracker.at(datetime(2026, 11, 28, 12)):
            for days, users in POSTED.items():
                tracker.record(Mark("posted", u, when=TODAY - timedelta(days=days)) for u in users)
            for segment, found in (
                ("first(posted, 2026-10) | did(posted, 2 years of ever)", [2, 5, 6]),
                ("did(never, ever)", []),
            ):
                assert [*analytics.users(segment, tracker=tracker)] == found
                for user in (2, 3, 9):
                    is_in = analytics.contains(segment, user, tracker=tracker)
                    assert is_in is (user in found)


@pytest.mark.parametrize("breakdown", [None, ["seen", "did(posted, 2026-11-25) & seen"]])
def test_a_bitmap_of_a_period_that_a_range_needs_too_is_held_until_the_end(
    posted: Tracker, stranger: Tracker, breakdown: Any
) -> None:
    """They are long, and are read one after the other."""
    for user in (3, 9_000_000):
        for days in range(5):
            posted.record([Mark("posted", user, when=TODAY - timedelta(days=days))])
    segment = "posted & did(posted, 2026-11-25)" if breakdown is None else "posted"
    asked: dict[str, Any] = {"over": "last 5 days", "now": TODAY, "tracker": stranger}
    found = analytics.trend(segment, breakdown=breakdown, **asked)
    part = found if breakdown is None else found.parts["did(posted, 2026-11-25) & seen"]
    users = [2, 4, 2, 2, 3] if breakdown is None else [0, 0, 0, 0, 2]
    assert [point.users for point in part.points] == users


def test_a_long_past_is_read_from_few_bitmaps() -> None:
    """Whatever is whole is read at once: of two years, months; at the end, weeks and days."""
    now, day = datetime(2026, 11, 28, 12), Period("day", datetime(2026, 11, 28))

    def keys(text: str, **ttl: timedelta) -> list[str]:
        as_of = AsOf(now, Settings(ttl=ttl), {"a": date(2024, 11, 20)})  # type: ignore[arg-type]
        return [key.removeprefix("trackist_a_") for key in parse(text).as_of(as_of).keys(day)]

    months = [f"{2024 + m // 12}-{m % 12 + 1}" for m in range(10, 34)]
    today = [
        *(f"W2026-{w}" for w in (44, 45, 46, 47)),
        *(f"2026-11-{d}" for d in range(23, 29)),
    ]
    assert keys("did(a, ever)") == keys("did(a, since 1001)") == [*months, *today]
    assert keys("first(a, since 1001)")[:1] == ["2024-11"]
    assert len(keys("did(a, 2 days of since 1001)")) == 739
    assert keys("did(a, last 14 days)") == ["2026-11-15", "W2026-47", *today[4:]]
    assert keys("did(a, 2026-01)") == ["2026-1"]
    assert keys("did(a, last 3 hours)") == ["2026-11-28-10", "2026-11-28-11", "2026-11-28-12"]
    assert keys("first(a, 2025)") == [*(f"2025-{m}" for m in range(1, 13)), "2024-11", "2024-12"]
    short = timedelta(days=30)
    assert keys("did(a, 2026-02)", month=short, week=short) == [f"2026-2-{d}" for d in range(1, 29)]


#: The server's clock is the real one, and removes what has expired at once. So this is past.
LONG_AGO = datetime(2025, 6, 18, 12)
GONE = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("ttl", "ever", "month", "days"),
    [
        ({}, [1, 2, 3, 4], [1, 2, 3, 4], [2, 3]),
        ({"month": GONE}, [1, 2, 3, 4], [1, 2, 3, 4], [2, 3]),
        ({"day": GONE}, [1, 2, 3, 4], [1, 2, 3, 4], [2, 3]),
        # Whole weeks alone: of May, from the 5th to the 25th.
        ({"month": GONE, "day": GONE}, [2, 3, 4], [2, 3], [2, 3]),
        ({"week": GONE, "day": GONE}, [1, 2, 3, 4], [1, 2, 3, 4], []),
        ({"month": GONE, "week": GONE}, [1, 2, 3, 4], [1, 2, 3, 4], [2, 3]),
    ],
)
def test_it_is_read_from_what_is_kept(
    redis_url: str,
    ttl: dict[str, timedelta],
    ever: list[int],
    month: list[int],
    days: list[int],
) -> None:
    app = Flask("keeping")
    app.config.update(BITMAPIST_REDIS_URL=redis_url, BITMAPIST_TTL=ttl, BITMAPIST_SPOOL=False)
    FlaskBitmapist(app)
    with app.app_context(), current_tracker().at(LONG_AGO):
        for user, day in enumerate([1, 5, 25, 31], start=1):
            mark_event("play", user, now=date(2025, 5, day))
        assert [*analytics.users("did(play, 2025-05)")] == month
        assert [*analytics.users("did(play, 2025-05-05 to 2025-05-25)")] == days
        assert [*analytics.users("did(play, ever)")] == ever
        assert [*analytics.users("first(play, since 2025-06)")] == []
    app.extensions["bitmapist"].tracker_of(app).redis.close()


def test_a_range_of_very_many_periods_is_refused(posted: Tracker) -> None:
    with pytest.raises(ValueError, match="has more than 1000 hours: shorten it"):
        analytics.count("did(nobody, at least 3 hours of 2026)")


@pytest.mark.parametrize(
    "segment",
    [
        "did(posted, last 3 hours)",
        "did(posted, at least 2 hours of last 30 days)",
        "seen - first(posted, last 48 hours)",
        "seen & did(posted, last hour)",
    ],
)
def test_a_range_in_hours_of_an_event_without_hours_is_an_error(
    posted: Tracker, segment: str
) -> None:
    with pytest.raises(ValueError, match=r"needs hours of posted.*BITMAPIST_TRACK_HOURLY"):
        analytics.count(segment)
    question = PeopleQuestion.of(expression=segment)
    with pytest.raises(ValueError, match="take a range in days"):
        analytics.answer(question)


def test_hours_that_are_marked_are_counted(posted: Tracker) -> None:
    assert analytics.count("did(nobody, last 3 hours)") == 0, "which nobody did on these days"
    mark_event("posted", 9, track_hourly=True)
    assert [*analytics.users("did(posted, last 3 hours)")] == [9]
    mark_event("posted", 8, now=datetime(2026, 11, 27, 9), track_hourly=True)
    assert analytics.count("did(posted, last 3 hours)") == 1
    mark_event("once", 8, now=datetime(2026, 11, 27, 9), track_hourly=True)
    assert analytics.count("did(once, last 3 hours)") == 0, "as its hours are marked"


def test_an_unknown_name_is_pointed_out_in_a_range(posted: Tracker) -> None:
    with pytest.raises(ValueError, match=r"unknown events or flags: post \(did you mean posted"):
        analytics.count("seen - did(post, ever)", strict=True)


def test_a_question_spells_it(posted: Tracker) -> None:
    question = TrendQuestion.of(event="seen", where=Event("seen") - Did("posted", "Last 14 Days"))
    assert question.arguments["where"] == "seen - did(posted, last 14 days)"
    again = TrendQuestion.of(event="seen", where=question.arguments["where"])
    assert again == question
    everyone = PeopleQuestion.of(expression=First("posted", "2026-10"))
    assert everyone.arguments == {"where": "first(posted, 2026-10)"}


def test_flags_and_ranges_combine(posted: Tracker) -> None:
    mark_unique("vip", 2)
    mark_unique("vip", 6)
    assert [*analytics.users("flag:vip & not did(posted, last 30 days)")] == [6]
