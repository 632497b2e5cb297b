"""A year is read from what is kept of it, in every report, whatever ``BITMAPIST_TTL`` lets go."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist import (
    DayEvents,
    FlaskBitmapist,
    YearEvents,
    analytics,
    get_cohort,
    mark_event,
)
from flask_bitmapist.analytics._overview import busiest_of_year
from flask_bitmapist.current import current_tracker
from flask_bitmapist.periods import Period

#: The server's clock is the real one, and removes what has expired at once. So this is past.
YEAR, NOW = 2025, datetime(2026, 3, 4, 12)

#: No longer than the period lasts.
GONE = timedelta(microseconds=1)

#: How long what is kept; who did something in `YEAR`, and before NOW's, as far as that can tell.
KEPT: dict[str, tuple[dict[str, timedelta], list[int], list[int]]] = {
    "all": ({}, [1, 2, 3], [1, 2, 3]),
    "no months": ({"month": GONE}, [1, 2, 3], [1, 2, 3]),
    "no months or weeks": ({"month": GONE, "week": GONE}, [1, 2, 3], [1, 2, 3]),
    # A week that lies in two years tells of the past, but of neither year.
    "no months or days": ({"month": GONE, "day": GONE}, [2], [1, 2]),
    "months for longer than days": (
        {"month": timedelta(100_000), "week": GONE, "day": GONE},
        [1, 2, 3],
        [1, 2, 3],
    ),
}


@pytest.fixture(params=[*KEPT.values()], ids=[*KEPT])
def kept(request: pytest.FixtureRequest, redis_url: str) -> Iterator[tuple[list[int], list[int]]]:
    """Bitmaps kept for so long; whom they tell of in `YEAR`, and whom before the next."""
    ttl, *known = request.param
    app = Flask("keeping")
    app.config.update(BITMAPIST_REDIS_URL=redis_url, BITMAPIST_TTL=ttl, BITMAPIST_SPOOL=False)
    FlaskBitmapist(app)
    with app.app_context():
        # On the first and the last day, which lie in weeks of two years, and in June.
        for user, (month, day) in enumerate([(1, 1), (6, 15), (12, 31)], start=1):
            mark_event("play", user, now=date(YEAR, month, day))
        with current_tracker().at(NOW):
            yield known
    app.extensions["bitmapist"].tracker_of(app).redis.close()


def test_a_year_is_read_from_what_is_kept_of_it(kept: tuple[list[int], list[int]]) -> None:
    known, _ = kept
    last_day: Any = datetime(YEAR, 12, 31, 12)
    asked: Any = {"by": "year", "start": last_day, "end": last_day}
    assert analytics.trend("play", **asked).points[0].users == len(known)
    assert analytics.count("play & play", "year", last_day) == len(known)
    assert [*analytics.users("play", "year", last_day)] == known
    assert analytics.people("play", "year", last_day).ids == known
    assert [analytics.contains("play", id_, "year", last_day) for id_ in known] == [True] * len(
        known
    )
    assert analytics.lifecycle("play", **asked).points[0].new == len(known)
    assert analytics.retention("play", "play", periods=0, **asked).rows[0].size == len(known)
    overview = analytics.overview(now=last_day)
    assert [event.year for event in overview.events] == [len(known)]
    assert busiest_of_year(["play"], slice(0, 1), now=last_day) == overview.events
    assert list(YearEvents("play", YEAR)) == list(YearEvents("play", YEAR + 1).prev()) == known
    assert list(YearEvents("play", YEAR) & YearEvents("play", YEAR)) == known
    assert get_cohort("play", "play", time_group="years", num_rows=2)[2] == [len(known), 0]


def test_a_user_known_from_an_earlier_year_is_not_new_this_year(
    kept: tuple[list[int], list[int]],
) -> None:
    of_last_year, of_the_past = kept
    mark_event("play", [1, 2, 3, 4])
    (point,) = analytics.lifecycle("play", "year", start=NOW).points
    new = 4 - len(of_the_past)
    assert (point.new, point.returning) == (new, len(of_last_year))
    assert analytics.retention("play", "play", "year", periods=0, start=NOW).rows[0].size == new
    # A segment that combines events is told by years alone.
    asked: Any = {"by": "year", "periods": 0, "start": date(YEAR, 1, 1)}
    rows = analytics.retention("play & play", "play", **asked).rows
    assert [row.size for row in rows] == [len(of_last_year), 4 - len(of_last_year)]
    (row,) = analytics.retention("play & play", "play", "year", periods=0, start=NOW).rows
    assert row.size == 4 - len(of_last_year)


def test_a_years_name_does_not_depend_on_what_is_kept(kept: tuple[list[int], list[int]]) -> None:
    year = YearEvents("play", YEAR)
    assert year.redis_key.count(f"trackist_play_{YEAR}-") == 12
    assert year == YearEvents("play", YEAR)
    assert year != DayEvents("play", YEAR, 1, 1)


ages = st.one_of(st.none(), st.integers(1, 400).map(timedelta))


@given(st.integers(1, 9999), ages, ages, ages)
def test_a_year_is_told_by_periods_that_are_all_of_its_days_and_no_others(
    year: int, day: timedelta | None, week: timedelta | None, month: timedelta | None
) -> None:
    grains: Any = {"day": day, "week": week, "month": month}
    ttl = tuple((grain, age) for grain, age in grains.items() if age is not None)
    parts = Period.containing("year", datetime(year, 7, 1), ttl=ttl).parts
    told = set[int]()
    for part in parts:
        length = {"day": 1, "week": 7, "month": monthrange(year, part.start.month)[1]}
        first = part.start.toordinal()
        told.update(range(first, first + length[part.grain]))
    assert told == {*range(date(year, 1, 1).toordinal(), date(year, 12, 31).toordinal() + 1)}
