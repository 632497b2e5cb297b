"""Moments of every form are read on the application's clock, in arrays as one by one."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist.maintenance.moments import Clock
from flask_bitmapist.periods import local

EPOCH = datetime(1970, 1, 1)
ZONES = [
    "UTC",
    "Europe/Berlin",
    "Asia/Kolkata",
    "Africa/Cairo",  # its clocks skip midnight
    "Australia/Lord_Howe",  # they skip half an hour
    "Africa/Monrovia",  # until 1972 they were 44:30 minutes behind
]
zones = st.sampled_from(ZONES).map(ZoneInfo)
naive = st.datetimes(datetime(1930, 1, 1), datetime(2060, 1, 1))
aware = st.datetimes(datetime(1930, 1, 1), datetime(2060, 1, 1), timezones=zones)
texts = (naive | aware).map(lambda moment: moment.isoformat(sep=" "))
usual_texts = naive.map(lambda moment: f"{moment:%Y-%m-%d %H:%M:%S}")


def read(clock: Clock, moments: list[object]) -> list[datetime | None]:
    seconds, is_known = clock.read(moments)
    found = zip(seconds.tolist(), is_known.tolist(), strict=True)
    return [EPOCH + timedelta(seconds=second) if known else None for second, known in found]


def expected(moment: object, zone: ZoneInfo) -> datetime:
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    assert isinstance(moment, datetime)
    return local(moment, zone).replace(microsecond=0)


@given(
    moments=st.one_of(
        *(st.lists(kind, min_size=1) for kind in (naive, aware, texts, usual_texts)),
        st.lists(naive | aware | texts, min_size=1),
    ),
    zone=zones,
)
def test_they_are_where_a_mark_would_be(moments: list[object], zone: ZoneInfo) -> None:
    assert read(Clock(zone), moments) == [expected(moment, zone) for moment in moments]


@given(moments=st.lists(naive, min_size=1), zone=zones)
def test_whole_days_are_those_days(moments: list[object], zone: ZoneInfo) -> None:
    days = [moment and moment.date() for moment in read(Clock(zone, whole_days=True), moments)]
    assert days == [expected(moment, zone).date() for moment in moments]


@given(moments=st.lists(naive, min_size=1), zone=zones, other=zones)
def test_naive_ones_may_be_those_of_another_zone(
    moments: list[object], zone: ZoneInfo, other: ZoneInfo
) -> None:
    shifted = [local(moment, other).replace(tzinfo=other) for moment in moments]  # type: ignore[arg-type]
    assert read(Clock(zone, other), moments) == [expected(one, zone) for one in shifted]


@pytest.mark.parametrize(
    ("moment", "told"),
    [
        (date(2026, 3, 14), datetime(2026, 3, 14)),
        ("2026-03-14", datetime(2026, 3, 14)),
        ("20260314", datetime(2026, 3, 14)),
        (" 2026-03-14T09:26Z ", datetime(2026, 3, 14, 10, 26)),
        (1_700_000_000, datetime(2023, 11, 14, 23, 13, 20)),
        ("1700000000.9", datetime(2023, 11, 14, 23, 13, 20)),
        (Decimal("-0.5"), datetime(1970, 1, 1, 0, 59, 59)),
        (datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1))), datetime(2026, 1, 1)),
    ],
)
def test_forms_of_moments(moment: object, told: datetime) -> None:
    assert read(Clock(ZoneInfo("Europe/Berlin")), [moment, None]) == [told, None]


@pytest.mark.parametrize(
    "moment",
    [
        None,
        "",
        "soon",
        "2026-02-30 00:00:00",
        "0000-03-14 00:00:00",
        "9999999999999999999",
        1e300,
        float("nan"),
        float("inf"),
        True,
        b"2026-03-14",
        datetime.max.replace(tzinfo=UTC),
        1_700_000_000_000,  # milliseconds
    ],
)
def test_what_is_no_moment(moment: object) -> None:
    assert read(Clock(ZoneInfo("Europe/Berlin")), [moment]) == [None]


def test_an_hour_in_which_a_clock_is_changed() -> None:
    moments: list[object] = [datetime(1972, 1, 7, 0, 44, second, tzinfo=UTC) for second in (29, 31)]
    monrovia = ZoneInfo("Africa/Monrovia")  # which then gave up its 44:30 minutes
    told = [datetime(1972, 1, 6, 23, 59, 59), datetime(1972, 1, 7, 0, 44, 31)]
    assert read(Clock(monrovia), moments) == told
