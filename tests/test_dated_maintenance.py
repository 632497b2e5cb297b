"""What happens to the months of dated dimensions when a history is moved, mended or cut short."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from conftest import Server
from flask import Flask
from history.shops import Customer, fill
from history.test_round_trip import exported, imported, lines
from months import held_months
from servers import marked
from sqlalchemy import Engine, create_engine
from test_dated_dimensions import (
    NOVEMBER,
    OCTOBER,
    SEPTEMBER,
    a_history,
    choose,
    held,
    in_batches,
    replayed,
)

from flask_bitmapist import Dimension, mark_dimension
from flask_bitmapist.delivery.expiry import Expiries
from flask_bitmapist.dimensions import DIMENSIONS
from flask_bitmapist.maintenance.backfill import Backfill
from flask_bitmapist.maintenance.copying import Copy
from flask_bitmapist.maintenance.days import Days
from flask_bitmapist.maintenance.doctor import examine
from flask_bitmapist.maintenance.prune import prune
from flask_bitmapist.maintenance.reconciling import Reconcile
from flask_bitmapist.marks import Mark
from flask_bitmapist.periods import Grain, local
from flask_bitmapist.registry import FIRST_DAYS, KINDS
from flask_bitmapist.testing import record_marks
from flask_bitmapist.tracker import Tracker

Processes = Callable[..., Tracker]


@pytest.fixture
def other_url(server: Server) -> str:
    return server.fresh_database()


@pytest.fixture
def other(other_url: str) -> Iterator[redis_py.Redis]:
    with redis_py.Redis.from_url(other_url) as client:
        yield client


def this_month(tracker: Tracker) -> str:
    now = tracker.now()
    return f"{now.year}-{now.month}"


def everything(client: Any) -> dict[bytes, bytes]:
    keys = client.keys("trackist_*")
    held = {key: client.get(key).rstrip(b"\0") for key in keys}
    return {key: bits for key, bits in held.items() if bits}


class TestDeclared:
    def test_mark_dimension(self, app: Flask, redis: Any, tracker: Tracker) -> None:
        with app.app_context():
            mark_dimension("user:plan", [1, 2], "free", dated=True)
            mark_dimension("user:plan", 2, "pro")
            mark_dimension("user:country", 2, "de")
        assert held_months(redis) == {this_month(tracker): {"free": {1}, "pro": {2}}}
        assert not held_months(redis, "user:country")

    def test_a_test_sees_it(self, app: Flask) -> None:
        with app.app_context(), record_marks() as marks:
            mark_dimension("user:plan", 7, "free", dated=True)
            mark_dimension("user:plan", 8, "free")
        assert marks == [
            Mark("user:plan", 7, choice="free"),
            Mark("user:plan", 8, dated=False, choice="free"),
        ]
        assert eval(repr(marks)) == marks
        assert not marks.events()
        assert marks.flags() == {"user:plan=free": {7, 8}}


class TestThatStays:
    def test_nothing_takes_them_for_events(self, tracker: Tracker, redis: Any) -> None:
        choose(tracker, (1, "free", OCTOBER), (2, "pro", OCTOBER), (2, None, NOVEMBER))
        months = held_months(redis)
        assert tracker.reindex() == []
        assert tracker.forget_emptied() == []
        assert redis.zrange(FIRST_DAYS, 0, -1) == []
        assert held_months(redis) == months

    def test_neither_prune_nor_a_ttl_takes_them(
        self, redis_url: str, redis: Any, process: Processes
    ) -> None:
        ttl: dict[Grain, timedelta] = {"month": timedelta(days=30), "day": timedelta(days=3)}
        tracker = process(redis_url, BITMAPIST_TTL=ttl)
        long_ago = datetime(2020, 2, 3)
        choose(tracker, (1, "free", long_ago), (1, None, NOVEMBER))
        tracker.record([Mark("user:seen", 1, when=NOVEMBER)])
        expiries = Expiries(ttl, tracker.settings.timezone)
        names = tracker.reader.known(scanned=False).events
        prune(tracker.server.patient, names, expiries)
        assert held_months(redis)["2020-2"] == {"free": {1}}
        assert {redis.ttl(key) for key in redis.keys("trackist_user:plan=*")} == {-1}

    def test_pack_leaves_them_raw(self, app: Flask, tracker: Tracker, redis: Any) -> None:
        long_ago = datetime(2020, 2, 3)
        choose(tracker, *((person, "free", long_ago) for person in range(0, 90_000, 1000)))
        runner = app.test_cli_runner()
        result = runner.invoke(args=["bitmapist", "pack"])
        assert result.exit_code == 0, result.output
        assert not redis.keys("flask_bitmapist:packed:*")
        assert len(held_months(redis)["2020-2"]["free"]) == 90

    def test_the_doctor_calls_them_by_their_names(
        self, app: Flask, tracker: Tracker, redis: Any
    ) -> None:
        choose(tracker, (1, "free", OCTOBER), (2, "pro", OCTOBER), (2, None, NOVEMBER))
        found = examine(app, tracker)
        told = " ".join(one.found for one in found.findings if one.part == "data")
        assert "registered" not in told
        assert {one.event for one in found.events} == {
            "user:plan=",
            "user:plan=free",
            "user:plan=pro",
        }

    def test_the_doctor_does_not_expect_them_to_expire(
        self, app: Flask, tracker: Tracker, redis_url: str, process: Processes
    ) -> None:
        ttl = {"month": timedelta(days=30)}
        choosing = process(redis_url, BITMAPIST_TTL=ttl)
        choose(choosing, (1, "free", datetime(2020, 1, 1)))
        found = examine(app, choosing)
        assert not [one for one in found.findings if "would live longer" in one.found]

    def test_what_is_gone_is_forgotten_with_its_months(
        self, tracker: Tracker, redis: Any, redis_url: str, process: Processes
    ) -> None:
        choose(tracker, (1, "free", OCTOBER), (1, None, NOVEMBER))
        redis.delete("trackist_user:plan=free_u")
        assert tracker.forget_emptied() == []  # its month is there
        redis.delete(*redis.keys("trackist_*"))
        assert process(redis_url).forget_emptied() == ["user:plan=free"]
        assert not redis.hlen(DIMENSIONS)
        assert redis.hkeys(KINDS) == []
        choose(tracker, (2, "pro", NOVEMBER))
        assert held_months(redis) == {"2026-11": {"pro": {2}}}

    def test_a_registry_that_is_lost_does_not_make_events_of_them(
        self, tracker: Tracker, redis: Any, redis_url: str, process: Processes
    ) -> None:
        choose(tracker, (1, "free", OCTOBER), (1, None, NOVEMBER))
        redis.delete(KINDS, "flask_bitmapist:events:copy")
        choose(process(redis_url), (1, "free", NOVEMBER))
        process(redis_url).reindex()
        assert redis.zrange(FIRST_DAYS, 0, -1) == []
        assert held_months(redis) == {"2026-10": {"free": {1}}, "2026-11": {"free": {1}}}


class TestErased:
    @pytest.mark.parametrize("id_map", ["auto", "always"])
    def test_nothing_is_left(
        self, redis_url: str, redis: Any, process: Processes, id_map: str
    ) -> None:
        tracker = process(redis_url, BITMAPIST_ID_MAP=id_map)
        for who in (1, 2):
            for value, when in (("free", SEPTEMBER), ("pro", OCTOBER), (None, NOVEMBER)):
                choose(tracker, (who, value, when))
        (bit,) = {1} if id_map == "auto" else {0}
        assert bit in held_months(redis)["2026-11"][""]
        receipt = tracker.erase(1)
        assert receipt.bits == 3
        assert all(
            len(people) == 1 and bit not in people
            for sets in held_months(redis).values()
            for people in sets.values()
        )

    def test_a_dimension_whose_ids_are_no_persons_is_kept(
        self, tracker: Tracker, redis: Any
    ) -> None:
        choose(tracker, (1, "free", OCTOBER), (1, None, NOVEMBER))
        receipt = tracker.erase(1, keep=["user:plan"])
        assert receipt.kept == ["user:plan", "user:plan=", "user:plan=free"]
        assert held_months(redis) == {"2026-10": {"free": {1}}, "2026-11": {"": {1}}}


class TestPromoted:
    def test_months_move_with_the_user_whose_own_values_stay(
        self, redis_url: str, redis: Any, process: Processes
    ) -> None:
        tracker = process(redis_url, BITMAPIST_ID_MAP="always")
        choose(tracker, ("ann", "free", SEPTEMBER), ("visitor:v", "pro", SEPTEMBER))
        choose(tracker, ("visitor:v", "gold", OCTOBER), ("visitor:v", None, NOVEMBER))
        choose(tracker, ("bob", "gold", NOVEMBER))
        assert tracker.promote("visitor:v", "ann", date(2026, 9, 1))
        ann, bob = 0, 2
        assert held(redis) == {"free": {ann}, "gold": {bob}}
        assert held_months(redis) == {
            "2026-9": {"free": {ann}},
            "2026-10": {"gold": {ann}},
            "2026-11": {"": {ann}, "gold": {bob}},
        }


class TestMoved:
    @pytest.mark.parametrize("form", ["csv", "jsonl"])
    @pytest.mark.parametrize("id_map", ["auto", "always"])
    def test_an_export_that_is_imported_gives_equal_bits(
        self,
        redis_url: str,
        redis: Any,
        other_url: str,
        other: Any,
        process: Processes,
        tmp_path: Path,
        form: str,
        id_map: str,
    ) -> None:
        one = process(redis_url, BITMAPIST_ID_MAP=id_map)
        two = process(other_url, instance="other", BITMAPIST_ID_MAP=id_map)
        given = [(who, "free", SEPTEMBER) for who in range(25)]
        history = [*given, *a_history(7)]
        for batch in in_batches(history, 7):
            choose(one, *batch)
        told = exported(one, form)
        done = imported(two, told, tmp_path, form)
        assert done.rejected == 0

        def named(tracker: Tracker, client: Any) -> dict[str, Any]:
            if id_map == "auto":
                return {"now": held(client), **held_months(client)}
            return {
                month: {
                    value: {*tracker.reader.ids_at(people, "mapped")}
                    for value, people in sets.items()
                }
                for month, sets in {"now": held(client), **held_months(client)}.items()
            }

        assert named(two, other) == named(one, redis)
        assert two.reader.known().dated == one.reader.known().dated
        assert not two.reader.known().events
        imported(two, told, tmp_path, form)
        assert named(two, other) == named(one, redis)

    def test_some_months_of_an_export(self, tracker: Tracker) -> None:
        choose(tracker, (1, "free", SEPTEMBER), (1, "pro", OCTOBER), (1, None, NOVEMBER))
        days = Days(date(2026, 10, 1), date(2026, 11, 30))
        assert lines(exported(tracker, days=days)) == [
            ["user:plan=", "value of month", "2026-11-01", "1", "plain"],
            ["user:plan=pro", "value of month", "2026-10-01", "1", "plain"],
        ]

    def test_no_value_of_now_is_called_nothing(self, tracker: Tracker, tmp_path: Path) -> None:
        wrong = "event,granularity,start,id,kind\nuser:plan=,value,,7,plain\n"
        assert imported(tracker, wrong, tmp_path).rejected == 1

    def test_a_copy_takes_all_of_it(
        self, redis: Any, tracker: Tracker, other_url: str, other: Any, process: Processes
    ) -> None:
        source = process(other_url, instance="other")
        history = a_history(3)
        for batch in in_batches(history, 3):
            choose(source, *batch)
        job = Copy(other, tracker.server.patient, tracker.settings)
        assert not job.run().is_wanting
        assert everything(redis) == everything(other)
        known, wanted = tracker.reader.known(), source.reader.known()
        assert (known.events, known.flags, known.dated) == ({}, wanted.flags, wanted.dated)
        choose(tracker, (1, "pro", NOVEMBER), (2, None, NOVEMBER))
        now, months = replayed([*history, (1, "pro", NOVEMBER), (2, None, NOVEMBER)])
        assert (held(redis), held_months(redis)) == (now, months)

    def test_nobody_has_two_values_of_a_month_after_a_second_copy(
        self, redis: Any, tracker: Tracker, other_url: str, other: Any, process: Processes
    ) -> None:
        source = process(other_url, instance="other")
        month = local(None, tracker.settings.timezone)
        told = this_month(tracker)
        choose(source, (1, "free", month), (2, "free", month), (3, "free", month))
        Copy(other, tracker.server.patient, tracker.settings).run()
        choose(source, (1, "pro", month), (2, None, month))
        Copy(other, tracker.server.patient, tracker.settings).run()
        assert held_months(redis) == {told: {"free": {3}, "pro": {1}, "": {2}}}


class TestRows:
    """Rows say what holds now, and nobody knows since when."""

    @pytest.fixture
    def shop(self, tmp_path: Path) -> Iterator[Engine]:
        engine = create_engine(f"sqlite:///{tmp_path / 'shop.sqlite3'}")
        fill(engine, 12)
        yield engine
        engine.dispose()

    @pytest.fixture(autouse=True)
    def dated(self, monkeypatch: pytest.MonkeyPatch) -> None:
        dimensions = {Dimension("level", dated=True)}
        monkeypatch.setattr(Customer, "__bitmapist_dimensions__", dimensions)
        monkeypatch.setattr(Customer, "__bitmapist_flags__", ())

    def test_who_had_no_value_gets_no_month(
        self, shop: Engine, app: Flask, tracker: Tracker, redis: Any
    ) -> None:
        tracker.record([Mark("customer:level", 900, choice="l0")])
        with app.app_context():
            Backfill(tracker, Customer, "joined", source=shop).run()
        assert held_months(redis, "customer:level") == {this_month(tracker): {"l0": {900}}}
        assert {1, 2} <= {
            person
            for value in ("l1", "l2")
            for person in marked(redis, f"trackist_customer:level={value}_u")
        }

    def test_who_had_another_one_gets_this_month(
        self, shop: Engine, app: Flask, tracker: Tracker, redis: Any
    ) -> None:
        old = datetime(2026, 3, 1)
        tracker.record([Mark("customer:level", 3, when=old, choice="old")])
        with app.app_context():
            Backfill(tracker, Customer, "joined", source=shop).run()
        assert held_months(redis, "customer:level") == {
            "2026-3": {"old": {3}},
            this_month(tracker): {"l0": {3}},
        }

    def test_a_reconciliation_takes_values_away_this_month(
        self, shop: Engine, app: Flask, tracker: Tracker, redis: Any
    ) -> None:
        old = datetime(2026, 3, 1)
        with app.app_context():
            Backfill(tracker, Customer, "joined", source=shop).run()
            tracker.record(
                [
                    Mark("customer:level", 900, when=old, choice="l2"),
                    Mark("customer:level", 4, when=old, choice="l2"),
                ]
            )
            done = Reconcile(tracker, Backfill(tracker, Customer, "joined", source=shop)).run(
                clear=True
            )
        assert done.cleared == 2
        assert held_months(redis, "customer:level") == {
            "2026-3": {"l2": {4, 900}},
            this_month(tracker): {"": {900}, "l1": {4}},
        }
        again = Reconcile(tracker, Backfill(tracker, Customer, "joined", source=shop))
        with app.app_context():
            assert again.run().differences == []
