"""What differs between rows and marks is found, with its day and whose it is, and repaired."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from typing import Any

import pytest
import redis as redis_py
from flask import Flask
from sqlalchemy import Engine, event

from flask_bitmapist.maintenance.backfill import Backfill
from flask_bitmapist.maintenance.days import Days
from flask_bitmapist.maintenance.reconciling import Reconcile, Reconciled
from flask_bitmapist.marks import Mark
from flask_bitmapist.tracker import Tracker

from .bits import bits_of
from .shops import Customer, moment

NAME = "customer:created"
Compare = Callable[..., Reconciled]
pytestmark = pytest.mark.usefixtures("small_pages")


@pytest.fixture
def compare(tracker: Tracker, shop: Engine) -> Compare:
    """Reconciles the shop's customers, who have been marked before."""

    def compare(days: Days | None = None, tracker: Tracker = tracker, **asked: Any) -> Reconciled:
        job = Backfill(tracker, Customer, "joined", source=shop, days=days)
        return Reconcile(tracker, job).run(**asked)

    Backfill(tracker, Customer, "joined", source=shop).run()
    return compare


def told(done: Reconciled) -> list[tuple[object, ...]]:
    return [tuple(one) for one in done.differences]


def test_nothing_differs_after_a_backfill(compare: Compare) -> None:
    done = compare()
    assert (done.rows, done.differences, done.left) == (200, [], 0)


def test_a_row_without_a_mark_is_found_and_repaired(compare: Compare, tracker: Tracker) -> None:
    before = bits_of(tracker)
    tracker.record([Mark(NAME, 9, False, when=moment(9))])
    day = moment(9).date().isoformat()
    assert told(compare()) == [("missing", NAME, "day", day, 9)]
    assert compare(repair=True).left == 0
    assert bits_of(tracker) == before


def test_a_mark_without_a_row_is_listed_and_taken_back_only_if_asked(
    compare: Compare, tracker: Tracker
) -> None:
    before = bits_of(tracker)
    tracker.record([Mark(NAME, 9, when=moment(9) + timedelta(days=1))])
    tracker.record([Mark(NAME, 7000, when=moment(9))])
    marked = bits_of(tracker)
    day, next_day = (moment(9).date() + timedelta(days=n) for n in (0, 1))
    expected = [
        ("extra", NAME, "day", str(day), 7000),
        ("extra", NAME, "day", str(next_day), 9),
    ]
    assert sorted(told(compare(repair=True))) == sorted(expected)
    assert bits_of(tracker) == marked
    done = compare(clear=True)
    assert (done.cleared, done.left) == (2, 0)
    assert bits_of(tracker) == before


def test_wherever_a_repair_stops_it_goes_on_when_it_is_run_again(
    compare: Compare,
    tracker: Tracker,
    process: Callable[..., Tracker],
    redis_url: str,
    at_every_trip: Callable[[Callable[[], object]], Iterator[None]],
) -> None:
    before = bits_of(tracker)

    def differ() -> None:
        tracker.record([Mark(NAME, 9, False, when=moment(9)), Mark(NAME, 7000, when=moment(9))])
        tracker.record([Mark("customer:vip", 10, False, False)])

    def repair() -> Reconciled:
        return compare(tracker=process(redis_url), repair=True, clear=True)

    stops = 0
    differ()
    for _ in at_every_trip(repair):
        stops += 1
        assert repair().left == 0
        assert bits_of(tracker) == before
        differ()
    assert stops > 3
    assert bits_of(tracker) == before


def test_a_week_or_a_month_may_differ_alone(
    compare: Compare, tracker: Tracker, redis: redis_py.Redis
) -> None:
    before = bits_of(tracker)
    redis.setbit(f"trackist_{NAME}_2021-3", 5, 0)
    redis.setbit(f"trackist_{NAME}_W2021-12", 900, 1)
    assert told(compare(repair=True)) == [
        ("missing", NAME, "month", "2021-03-01", 5),
        ("extra", NAME, "week", "2021-03-22", 900),
    ]
    redis.setbit(f"trackist_{NAME}_W2021-12", 900, 0)
    assert bits_of(tracker) == before


def test_flags_are_compared_too(compare: Compare, tracker: Tracker) -> None:
    before = bits_of(tracker)
    tracker.record(
        [Mark("customer:vip", 10, False, False), Mark("customer:vip", 8000, True, False)]
    )
    assert told(compare(repair=True)) == [
        ("missing", "customer:vip", "unique", "", 10),
        ("extra", "customer:vip", "unique", "", 8000),
    ]
    assert compare(clear=True).left == 0
    assert bits_of(tracker) == before


def test_dimensions_are_compared_too(
    app: Flask,
    shop: Engine,
    tracker: Tracker,
    redis: redis_py.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Customer, "__bitmapist_dimensions__", ("level",))
    job = Backfill(tracker, Customer, "joined", source=shop)
    job.run()
    before = bits_of(tracker)

    def compared(**asked: Any) -> Reconciled:
        return Reconcile(tracker, Backfill(tracker, Customer, "joined", source=shop)).run(**asked)

    assert compared().differences == []
    tracker.record(Mark("customer:level", 3, dated=False, choice=value) for value in ("new", "l1"))
    tracker.record([Mark("customer:level", 4, dated=False, choice="")])
    redis.setbit("trackist_customer:level=l2_u", 9000, 1)
    assert told(compared()) == [
        ("missing", "customer:level=l0", "unique", "", 3),
        ("missing", "customer:level=l1", "unique", "", 4),
        ("extra", "customer:level=l1", "unique", "", 3),
        ("extra", "customer:level=l2", "unique", "", 9000),
    ]
    compared(repair=True)
    assert told(compared()) == [("extra", "customer:level=l2", "unique", "", 9000)]
    assert compared(clear=True).left == 0
    assert bits_of(tracker) == before


def test_only_the_days_that_are_asked_for(compare: Compare, tracker: Tracker) -> None:
    tracker.record([Mark(NAME, id_, False, when=moment(id_)) for id_ in (9, 150)])
    tracker.record([Mark(NAME, 900, when=datetime(2021, 7, 1))])
    day = moment(150).date()
    assert told(compare(Days(day - timedelta(days=3), day))) == [
        ("missing", NAME, "day", str(day), 150)
    ]


def test_hours_are_compared_where_they_are_marked(
    compare: Compare, redis_url: str, process: Callable[..., Tracker], shop: Engine
) -> None:
    hourly = process(redis_url, BITMAPIST_TRACK_HOURLY=True)
    Backfill(hourly, Customer, "joined", source=shop).run()
    before = bits_of(hourly)
    hourly.record([Mark(NAME, 9, False, when=moment(9)), Mark(NAME, 900, when=moment(9))])
    hour = moment(9).replace(minute=0).isoformat(timespec="minutes")
    expected = [("missing", NAME, "hour", hour, 9), ("extra", NAME, "hour", hour, 900)]
    assert told(compare(tracker=hourly)) == expected
    assert compare(tracker=hourly, repair=True, clear=True).left == 0
    assert bits_of(hourly) == before


def test_expired_periods_are_not_missed(
    compare: Compare, redis_url: str, process: Callable[..., Tracker]
) -> None:
    short = process(redis_url, BITMAPIST_TTL={"day": timedelta(days=30)})
    short.redis.delete(*short.redis.keys(f"trackist_{NAME}_2021-3-*"))
    assert told(compare(tracker=short)) == []


def test_ids_that_are_mapped_and_those_that_have_no_bit_yet(
    shop: Engine, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Customer, "__bitmapist_id__", lambda self: f"c{self.id}")
    few = Backfill(tracker, Customer, "joined", source=shop, where="id > 2")
    few.run()
    tracker.record([Mark(NAME, "c9", False, when=moment(9))])
    every = Backfill(tracker, Customer, "joined", source=shop)
    days = [moment(id_).date().isoformat() for id_ in (1, 2, 9)]
    found = told(Reconcile(tracker, every).run(repair=True))
    assert sorted(found) == sorted(
        ("missing", NAME, "day", day, id_)
        for day, id_ in zip(days, ("c1", "c2", "c9"), strict=True)
    )
    assert told(Reconcile(tracker, every).run()) == []


def test_a_row_that_comes_meanwhile_is_no_difference(
    compare: Compare, tracker: Tracker, shop: Engine
) -> None:
    def sign_up(*_: Any) -> None:
        tracker.record([Mark(NAME, 4000, when=datetime(2026, 1, 1))])

    event.listen(shop, "checkin", sign_up, once=True)
    assert told(compare()) == []


def test_an_event_that_nobody_has_marked(tracker: Tracker, shop: Engine) -> None:
    job = Backfill(tracker, Customer, "joined", source=shop, days=Days(until=date(2021, 3, 16)))
    done = Reconcile(tracker, job).run()
    assert done.missing == sum(moment(n).date() <= date(2021, 3, 16) for n in range(1, 201)) + 40
    assert done.left == done.missing
