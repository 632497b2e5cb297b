"""A backfill marks what the rows tell: each of them, once, at its moment."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from sqlalchemy import Engine, create_engine, event, insert, text, update
from sqlalchemy.orm import Session

from flask_bitmapist.maintenance import backfill
from flask_bitmapist.maintenance.backfill import Backfill, Backfilled
from flask_bitmapist.maintenance.days import Days
from flask_bitmapist.marks import Mark
from flask_bitmapist.tracker import Tracker

from .bits import bits_for, bits_of, flag_bits
from .shops import Customer, fill, moment, rows

EVERYBODY = range(1, 201)
Filled = Callable[..., Backfilled]
pytestmark = pytest.mark.usefixtures("small_pages")


def marks_of(ids: Any) -> Any:
    return [(id_, moment(id_)) for id_ in ids]


def vips(ids: Any) -> Any:
    return flag_bits("customer:vip", [id_ for id_ in ids if id_ % 5 == 0])


def test_every_row_is_marked_on_its_day_and_its_flag_is_set(
    shop: Engine, filled: Filled, tracker: Tracker
) -> None:
    done = filled(source=shop)
    assert bits_of(tracker) == bits_for("customer:created", marks_of(EVERYBODY)) | vips(EVERYBODY)
    assert (done.rows, done.marked, done.flags) == (200, 200, 40)
    assert (done.first, done.last) == (moment(1).date(), moment(200).date())


def test_a_second_time_changes_nothing(shop: Engine, filled: Filled, tracker: Tracker) -> None:
    filled(source=shop)
    before = bits_of(tracker)
    assert filled(source=shop).flags == 0
    assert bits_of(tracker) == before


def test_an_event_gets_an_earlier_first_day(shop: Engine, filled: Filled, tracker: Tracker) -> None:
    tracker.record([("customer:created", 7)])
    filled(source=shop)
    assert tracker.reader.known().events["customer:created"].first_day == moment(1).date()


def test_a_flag_that_the_row_does_not_have_is_cleared(
    shop: Engine, filled: Filled, tracker: Tracker
) -> None:
    tracker.record([("customer:vip", id_, True, False) for id_ in (3, 5, 900)])
    filled(source=shop)
    assert bits_of(tracker)["trackist_customer:vip_u"] == {*range(5, 201, 5), 900}


def test_a_row_that_changes_meanwhile_has_its_last_word(
    shop: Engine, filled: Filled, tracker: Tracker
) -> None:
    other = create_engine(shop.url)

    def upgrade(*_: Any) -> None:
        with Session(other) as session:
            session.execute(update(Customer).where(Customer.id == 3).values(vip=True))
            session.commit()
        tracker.record([("customer:vip", 3, True, False)])
        other.dispose()

    # When the first page has been read, and not been written.
    event.listen(shop, "checkin", upgrade, once=True)
    filled(source=shop)
    assert 3 in bits_of(tracker)["trackist_customer:vip_u"]


def test_another_id_and_another_event(shop: Engine, filled: Filled, tracker: Tracker) -> None:
    done = filled(source=shop, who="invited_by", event="customer:invited", where="id > 100")
    invited = [(id_ // 2, moment(id_)) for id_ in range(101, 201)]
    found = bits_of(tracker)
    found.pop("trackist_customer:vip_u")
    assert found == bits_for("customer:invited", invited)
    assert done.rows == 100


def test_rows_without_a_time_or_an_id_are_counted(
    shop: Engine, filled: Filled, tracker: Tracker
) -> None:
    with shop.begin() as connection:
        connection.execute(text("UPDATE customer_of_history SET joined = NULL WHERE id IN (3, 4)"))
        connection.execute(text("UPDATE customer_of_history SET invited_by = -7 WHERE id = 9"))
    done = filled(source=shop, who="invited_by")
    assert (done.rows, done.marked) == (200, 196)
    assert (done.without_id, done.without_time, done.unusable) == (1, 2, 1)
    assert "negative" in done.reason


def test_days_that_are_not_asked_for_are_left_out(
    shop: Engine, filled: Filled, tracker: Tracker
) -> None:
    days = Days(date(2021, 3, 20), date(2021, 3, 25))
    done = filled(source=shop, days=days)
    asked = [id_ for id_ in EVERYBODY if days.since <= moment(id_).date() <= days.until]  # type: ignore[operator]
    found = bits_of(tracker)
    found.pop("trackist_customer:vip_u")
    assert found == bits_for("customer:created", marks_of(asked))
    assert (done.marked, done.outside) == (len(asked), 200 - len(asked))


def test_a_dry_run_tells_the_same_and_writes_nothing(
    shop: Engine, filled: Filled, tracker: Tracker
) -> None:
    told = filled(source=shop, run={"dry": True})
    assert bits_of(tracker) == {}
    done = filled(source=shop)
    assert (told.rows, told.marked, told.first, told.last) == (200, 200, done.first, done.last)


def test_a_property_that_is_no_column_is_asked_of_objects(
    shop: Engine, filled: Filled, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Customer, "__bitmapist_flags__", ("vip", "is_lucky"))
    filled(source=shop)
    found = bits_of(tracker)
    assert found["trackist_customer:is_lucky_u"] == {*range(7, 201, 7)}
    assert {key: found[key] for key in vips(EVERYBODY)} == vips(EVERYBODY)


def test_a_method_may_give_the_id(
    shop: Engine, filled: Filled, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Customer, "__bitmapist_id__", lambda self: f"c{self.id}")
    filled(source=shop)
    marks = [(f"c{id_}", when) for id_, when in marks_of(EVERYBODY)]
    expected = bits_for("customer:created", marks)
    assert {key: ids for key, ids in bits_of(tracker).items() if key in expected} == expected


@pytest.mark.parametrize("hourly", [False, True])
def test_hours_are_marked_if_the_application_marks_them(
    hourly: bool, shop: Engine, redis_url: str, process: Callable[..., Tracker]
) -> None:
    tracker = process(redis_url, BITMAPIST_TRACK_HOURLY=hourly)
    Backfill(tracker, Customer, "joined", source=shop).run()
    expected = bits_for("customer:created", marks_of(EVERYBODY), hourly=hourly)
    assert bits_of(tracker) == expected | vips(EVERYBODY)


@pytest.mark.parametrize(
    ("naive_in", "at", "hour"),
    [
        (None, datetime(2026, 3, 29, 2, 30), "2026-3-29-3"),  # Berlin's clocks skip it
        (None, datetime(2026, 10, 25, 2, 30), "2026-10-25-2"),  # they show it twice
        (ZoneInfo("UTC"), datetime(2026, 3, 28, 23, 30), "2026-3-29-0"),
        (ZoneInfo("UTC"), datetime(2026, 3, 29, 1, 30), "2026-3-29-3"),
        (ZoneInfo("Asia/Kolkata"), datetime(2026, 7, 1, 4, 29), "2026-7-1-0"),
        (ZoneInfo("Asia/Kolkata"), datetime(2026, 7, 1, 3, 29), "2026-6-30-23"),
    ],
)
def test_times_without_a_zone_are_in_the_applications_or_in_the_one_that_is_told(
    naive_in: ZoneInfo | None,
    at: datetime,
    hour: str,
    shop: Engine,
    redis_url: str,
    process: Callable[..., Tracker],
) -> None:
    with Session(shop) as session:
        session.execute(update(Customer).values(joined=at))
        session.commit()
    tracker = process(redis_url, BITMAPIST_TIMEZONE="Europe/Berlin", BITMAPIST_TRACK_HOURLY=True)
    Backfill(tracker, Customer, "joined", source=shop, naive_in=naive_in).run()
    hours = {key for key in bits_of(tracker) if key.count("-") == 3}
    assert hours == {f"trackist_customer:created_{hour}"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"at": "jioned"}, "no attribute 'jioned'"),
        ({"who": "who"}, "no attribute 'who'"),
        ({"event": " x"}, "cannot name an event"),
        ({"model": dict}, "is not a model"),
        ({"source": None}, "name an engine or a session"),
    ],
)
def test_what_cannot_be_read_is_an_error_before_anything_is_done(
    options: dict[str, Any], complaint: str, shop: Engine, filled: Filled
) -> None:
    with pytest.raises(ValueError, match=complaint):
        filled(**{"source": shop, **options})


@pytest.mark.parametrize(
    ("option", "value"), [("BITMAPIST_ENABLED", False), ("BITMAPIST_ENABLED", None)]
)
def test_a_run_whose_marks_would_not_arrive_is_an_error(
    option: str, value: Any, app: Flask, shop: Engine, filled: Filled
) -> None:
    app.config[option] = value
    with pytest.raises(ValueError, match="BITMAPIST_ENABLED"):
        filled(source=shop)


def test_ids_of_another_kind_are_an_error(shop: Engine, filled: Filled, tracker: Tracker) -> None:
    tracker.record([("customer:created", "ada")])
    with pytest.raises(ValueError, match="has mapped ids"):
        filled(source=shop)


def levels(ids: Any) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for id_ in ids:
        if id_ % 11:
            found.setdefault(f"trackist_customer:level=l{id_ % 3}_u", set()).add(id_)
    return found


@pytest.fixture
def with_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Customer, "__bitmapist_flags__", ())
    monkeypatch.setattr(Customer, "__bitmapist_dimensions__", ("vip", "level"))


@pytest.mark.usefixtures("with_levels")
def test_dimensions_get_the_values_of_the_rows(
    shop: Engine, filled: Filled, tracker: Tracker
) -> None:
    tracker.record(
        Mark("customer:level", id_, dated=False, choice=choice)
        for id_ in (3, 4, 11)
        for choice in ("l0", "old")
    )
    done = filled(source=shop)
    found = {key: ids for key, ids in bits_of(tracker).items() if ":level=" in key}
    assert found == levels(EVERYBODY)
    assert bits_of(tracker)["trackist_customer:vip=true_u"] == {*range(5, 201, 5)}
    assert len(bits_of(tracker)["trackist_customer:vip=false_u"]) == 160
    assert done.flags == 200 + len(EVERYBODY) - len(range(11, 201, 11)) + 1
    assert filled(source=shop).flags == 0


def test_a_dimension_alone_needs_no_objects(
    shop: Engine, filled: Filled, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Customer, "__bitmapist_flags__", ())
    monkeypatch.setattr(Customer, "__bitmapist_dimensions__", ("invited_by",))
    tracker.settings = replace(tracker.settings, dimension_values=7)
    filled(source=shop, run={"dry": True})
    assert bits_of(tracker) == {}
    filled(source=shop)
    values = tracker.reader.known().dimensions["customer:invited_by"]
    assert values == ("1", "2", "3", "4", "5", "6", "7", "other")
    found = bits_of(tracker)
    assert found["trackist_customer:invited_by=other_u"] == {*range(16, 201)}
    assert filled(source=shop).flags == 0


@pytest.mark.parametrize("flags", [(), ("vip",)])
def test_ten_times_the_rows_take_no_more_memory(
    engine: Engine,
    filled: Filled,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
) -> None:
    monkeypatch.setattr(Customer, "__bitmapist_flags__", flags)
    for name in ("BATCH", "BATCH_WITH_FLAGS"):
        monkeypatch.setattr(backfill, name, 1_000)
    monkeypatch.setattr(backfill, "PAGE", 500)
    monkeypatch.setattr("flask_bitmapist.delivery.recent._MOST", 10_000)  # which it fills at once

    def most(count: int) -> int:
        """The most bytes that were in use while a batch of so many rows was read and written."""
        fill(engine, 0)
        with engine.begin() as connection:  # on few days: what is known of each is remembered
            few = [{**row, "joined": moment(row["id"] % 40)} for row in rows(count)]
            connection.execute(insert(Customer), few)
        del few
        peaks = []

        def note(_: Backfilled) -> None:
            gc.collect()
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.reset_peak()

        tracemalloc.start()
        try:
            assert filled(source=engine, run={"told": note}).rows == count
        finally:
            tracemalloc.stop()
        return max(peaks)

    gc.collect()
    gc.freeze()  # to look through all that pytest has loaded takes the time
    try:
        most(2_000)  # fills what a process remembers
        assert most(20_000) < 1.5 * most(2_000)
    finally:
        gc.unfreeze()
