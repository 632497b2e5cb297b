"""Packed periods: every report and question is answered as before, whatever is packed meanwhile."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from nodes import Cluster
from redis.cluster import RedisCluster

from flask_bitmapist import (
    BitOpNot,
    BitOpOr,
    DayEvents,
    FlaskBitmapist,
    MonthEvents,
    analytics,
    packed_periods,
    swapping,
)
from flask_bitmapist.marks import Mark
from flask_bitmapist.packed_periods import PACKED_BEFORE, packed_key, packed_keys
from flask_bitmapist.reading.both import UnreadableError
from flask_bitmapist.tracker import Tracker

pytest.importorskip("pyroaring")

NOW = datetime(2026, 11, 28, 12)
TODAY = NOW.date()
#: Large enough for a day to be worth packing.
CROWD = range(0, 240_000, 42)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every reading asks what is packed, so that packing need not wait."""
    monkeypatch.setattr(packed_periods, "TRUSTED", 0.0)
    monkeypatch.setattr(swapping, "TRUSTED", 0.0)


@pytest.fixture
def marked(tracker: Tracker, at_now: None) -> Tracker:
    for back in range(90):
        with tracker.at(NOW - timedelta(days=back)):
            tracker.record_many("seen", list(CROWD[back::3]))
            tracker.record_many("bought", list(CROWD[back::11]))
    tracker.record([Mark("pro", user, dated=False) for user in CROWD[::7]])
    return tracker


def pack_all(tracker: Tracker, before: date = TODAY) -> list[str]:
    client = tracker.redis
    keys = [*swapping.raw_keys(client, {"seen", "bought"}, before)]
    swapping.announce(client, before)
    return [key for key in keys if swapping.pack(client, key)]


def unpack_all(tracker: Tracker) -> None:
    for key in [*packed_keys(tracker.redis)]:
        swapping.unpack(tracker.redis, key)


def answers() -> Iterator[Any]:
    """What every report and question says."""
    start = TODAY - timedelta(days=80)
    for by in ("day", "week", "month"):
        yield analytics.trend("seen", by=by, start=start).to_dict()
        yield analytics.trend("seen", by=by, start=start, where="bought", rolling=3).to_dict()
        for members in ("first", "every"):
            for mode in ("on", "on_or_after", "on_or_before", "streak", "first_return"):
                yield analytics.retention(
                    "seen", "bought", by=by, periods=4, start=start, mode=mode, members=members
                ).to_dict()
        yield analytics.lifecycle("seen", by=by, start=start).to_dict()
        yield analytics.adoption("bought", "seen", by=by, start=start).to_dict()
        yield analytics.churned("seen", silent=2, by=by, start=start).to_dict()
        for order in ("ordered", "strict", "any"):
            for within in (None, 3):
                yield analytics.funnel(
                    ["seen", "bought"], by=by, start=start, order=order, within=within
                ).to_dict()
        yield analytics.overlap(["seen", "bought"], by=by, at=start).to_dict()
        parts: dict[str, Any] = {"by": by, "start": start, "breakdown": ["flag:pro", "bought"]}
        yield analytics.trend("seen", **parts).to_dict()
        yield analytics.lifecycle("seen", **parts).to_dict()
        yield analytics.retention("seen", "bought", periods=4, **parts).to_dict()
        yield analytics.funnel(["seen", "bought"], within=3, **parts).to_dict()
    yield analytics.stickiness("seen", within=28, end=start + timedelta(days=30)).to_dict()
    yield analytics.active_users("seen", start=start).to_dict()
    yield [*analytics.users("seen - bought", at=start)]
    for segment in ("did(bought, ever)", "first(seen, 2026-09)", "did(seen, 3 days of 2026)"):
        yield [*analytics.users(segment), analytics.contains(segment, CROWD[80])]
        yield analytics.trend("seen", start=start, where=segment).to_dict()
    yield analytics.contains("seen", CROWD[80], at=start)
    yield analytics.timeline(CROWD[80], start).to_dict()
    yield analytics.profile(CROWD[77]).to_dict()
    yield analytics.overview(now=datetime(2026, 10, 3)).to_dict()
    day = DayEvents.from_date("seen", start)
    month = MonthEvents.from_date("bought", start)
    yield [len(day), [*day], CROWD[80] in day, CROWD[0] in day, len(month), [*(day & month)]]
    neither = BitOpNot("default", BitOpOr("default", day, DayEvents.from_date("bought", start)))
    yield [len(neither), 0 in neither, CROWD[80] in neither, CROWD[-1] in neither, 2**20 in neither]


def test_every_report_says_the_same_of_packed_periods(marked: Tracker) -> None:
    before = [*answers()]
    packed = pack_all(marked, TODAY - timedelta(days=20))
    assert len(packed) > 100
    assert not marked.redis.exists(*packed)
    assert [*answers()] == before
    unpack_all(marked)
    assert [*answers()] == before


@pytest.mark.parametrize("together", [1, 2_000])
def test_every_report_says_the_same_of_packed_periods_read_in_parts(
    marked: Tracker, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    before = [*answers()]
    pack_all(marked, TODAY - timedelta(days=20))
    monkeypatch.setattr("flask_bitmapist.reading.packed_parts._HEAD_BYTES", 8)
    monkeypatch.setattr("flask_bitmapist.reading.bitmaps._PACKED_TOGETHER", together)
    assert [*answers()] == before


def test_unpacking_gives_every_bitmap_back_bit_for_bit(marked: Tracker) -> None:
    client = marked.redis
    raw = {key: client.get(key) for key in client.scan_iter("trackist_*")}
    assert pack_all(marked)
    assert {key: client.get(key) for key in client.scan_iter("trackist_*")} != raw
    unpack_all(marked)
    assert {key: client.get(key) for key in client.scan_iter("trackist_*")} == raw


def test_a_late_mark_counts_at_once_and_is_packed_by_the_next_run(marked: Tracker) -> None:
    then = TODAY - timedelta(days=60)
    pack_all(marked)
    with marked.at(then):
        marked.record([("seen", 239_999)])
    assert analytics.contains("seen", 239_999, at=then)
    users = analytics.count("seen", at=then)
    assert len(DayEvents.from_date("seen", then)) == users
    key = DayEvents.from_date("seen", then).redis_key
    assert marked.redis.exists(key, packed_key(key)) == 2
    assert key in pack_all(marked)
    assert marked.redis.exists(key, packed_key(key)) == 1
    assert analytics.contains("seen", 239_999, at=then)
    assert analytics.count("seen", at=then) == users


def test_a_late_unmark_of_a_packed_period_counts_at_once(marked: Tracker) -> None:
    then = TODAY - timedelta(days=60)
    gone = next(iter(analytics.users("seen", at=then)))
    pack_all(marked)
    users = analytics.count("seen", at=then)
    with marked.at(then):
        marked.record([Mark("seen", gone, value=False)])
    assert not analytics.contains("seen", gone, at=then)
    assert analytics.count("seen", at=then) == users - 1


def test_an_event_of_which_all_is_packed_is_not_forgotten(marked: Tracker) -> None:
    pack_all(marked, TODAY + timedelta(days=40))
    assert marked.forget_emptied() == []
    assert analytics.count("seen", by="month", at=TODAY)


def test_what_is_deleted_is_gone_in_both_forms(marked: Tracker) -> None:
    pack_all(marked)
    day = DayEvents.from_date("seen", TODAY - timedelta(days=60))
    assert len(day)
    day.delete()
    assert not len(day)


def test_time_to_live_is_carried_over(marked: Tracker) -> None:
    client, key = marked.redis, DayEvents.from_date("seen", TODAY - timedelta(days=60)).redis_key
    client.expire(key, 1000)
    swapping.pack(client, key)
    assert 990 <= client.ttl(packed_key(key)) <= 1000
    swapping.unpack(client, key)
    assert 990 <= client.ttl(key) <= 1000


def test_a_damaged_bitmap_is_an_error_that_names_it_and_the_rest_still_answers(
    marked: Tracker,
) -> None:
    pack_all(marked)
    broken = TODAY - timedelta(days=60)
    key = DayEvents.from_date("seen", broken).redis_key
    marked.redis.setrange(packed_key(key), 0, b"\xff" * 9)
    for ask in (
        lambda: analytics.count("seen", at=broken),
        lambda: len(DayEvents.from_date("seen", broken)),
        lambda: swapping.unpack(marked.redis, key),
    ):
        with pytest.raises(UnreadableError, match=key):
            ask()
    assert analytics.count("seen", at=broken - timedelta(days=1))
    assert analytics.count("bought", at=broken)


def test_two_that_pack_at_once_pack_each_bitmap_once(marked: Tracker) -> None:
    before = analytics.trend("seen", start=TODAY - timedelta(days=80)).to_dict()
    done: list[list[str]] = []
    threads = [threading.Thread(target=lambda: done.append(pack_all(marked))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 2
    assert not {*done[0]} & {*done[1]}
    assert analytics.trend("seen", start=TODAY - timedelta(days=80)).to_dict() == before


def test_a_mark_between_reading_and_swapping_is_not_lost(
    marked: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, key = marked.redis, DayEvents.from_date("seen", TODAY - timedelta(days=60)).redis_key
    times, executed = iter([True]), swapping._executed

    def mark_first(pipe: Any) -> bool:
        if next(times, False):
            client.setbit(key, 239_998, 1)
        return executed(pipe)

    monkeypatch.setattr(swapping, "_executed", mark_first)
    assert swapping.pack(client, key)
    assert not client.exists(key)
    swapping.announce(client, TODAY)
    assert analytics.contains("seen", 239_998, at=TODAY - timedelta(days=60))


def test_a_swap_in_the_middle_of_a_report_hides_nobody(
    marked: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flask_bitmapist.reading import bitmaps

    then = TODAY - timedelta(days=60)
    users = analytics.count("seen", at=then)
    # Its length is asked for, and then it is packed.
    monkeypatch.setattr(bitmaps, "may_be_packed", lambda client, keys: set())
    monkeypatch.setattr(bitmaps, "_MANY_BYTES", 0)
    read = bitmaps._read_parts

    def swap_first(*arguments: Any) -> Any:
        swapping.pack(marked.redis, DayEvents.from_date("seen", then).redis_key)
        return read(*arguments)

    monkeypatch.setattr(bitmaps, "_read_parts", swap_first)
    assert analytics.count("seen", at=then) == users


@pytest.mark.parametrize("together", [1, 2**20])
@pytest.mark.parametrize("marked_late", [False, True])
def test_a_packed_form_that_is_swapped_in_the_middle_of_a_report_hides_nobody(
    marked: Tracker, monkeypatch: pytest.MonkeyPatch, together: int, marked_late: bool
) -> None:
    from flask_bitmapist.reading import bitmaps, packed_parts

    client, then = marked.redis, TODAY - timedelta(days=60)
    key = DayEvents.from_date("seen", then).redis_key
    one, several = next(iter(analytics.users("seen", at=then))), analytics.count("seen", at=then)
    pack_all(marked)
    monkeypatch.setattr(bitmaps, "_PACKED_TOGETHER", together)

    def swap() -> None:
        """Between the trip that finds it and the one that reads it."""
        if marked_late:
            client.setbit(key, 1, 1)
            swapping.pack(client, key)
        else:
            swapping.unpack(client, key)

    read, begun = bitmaps._read_parts, packed_parts._beginnings

    def read_later(*arguments: Any) -> Any:
        swap()
        return read(*arguments)

    monkeypatch.setattr(bitmaps, "_read_parts", read_later)
    assert one in analytics.users("seen", at=then)
    assert analytics.count("seen & seen", at=then) == several + marked_late

    def found(*arguments: Any) -> Any:
        told = begun(*arguments)
        swap()
        return told

    swapping.pack(client, key)
    monkeypatch.setattr(packed_parts, "_beginnings", found)
    assert analytics.contains("seen", one, at=then)
    assert not analytics.contains("seen", 2, at=then)


def test_the_command_packs_and_unpacks(app: Flask, marked: Tracker) -> None:
    run = app.test_cli_runner().invoke
    before = analytics.trend("seen", start=TODAY - timedelta(days=80)).to_dict()
    told = run(args=["bitmapist", "pack", "--dry-run", "--json"])
    assert told.exit_code == 0, told.output
    assert marked.redis.get(PACKED_BEFORE) is None
    packed = run(args=["bitmapist", "pack", "--json"])
    assert packed.output == told.output
    assert analytics.trend("seen", start=TODAY - timedelta(days=80)).to_dict() == before
    assert '"bitmaps": 0' in run(args=["bitmapist", "pack", "--json"]).output
    assert '"bitmaps": 0' not in run(args=["bitmapist", "unpack", "--json"]).output
    assert not [*packed_keys(marked.redis)]


def test_without_pyroaring_a_packed_period_is_an_error_that_says_what_to_install(
    marked: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_all(marked)
    monkeypatch.delitem(sys.modules, "flask_bitmapist.reading.packed")
    monkeypatch.setitem(sys.modules, "pyroaring", None)
    then = TODAY - timedelta(days=60)
    for ask in (
        lambda: analytics.count("seen & bought", at=then),
        lambda: [*analytics.users("seen", at=then)],
        lambda: [*DayEvents.from_date("seen", then)],
    ):
        with pytest.raises(UnreadableError, match=r"pip install flask-bitmapist\[pack\]"):
            ask()


def test_a_cluster_packs_and_unpacks(clusters: Callable[[int], Cluster], tmp_path: Path) -> None:
    with RedisCluster.from_url(clusters(3).url) as client:
        client.flushall()
        app = Flask("clustered", instance_path=str(tmp_path))
        app.config.update(BITMAPIST_ENABLED=True, DISABLE_BLUEPRINT=True)
        extension = FlaskBitmapist(app, redis_client=client)
        tracker = extension.tracker_of(app)
        with app.app_context(), tracker.at(NOW):
            for back in range(50):
                with tracker.at(NOW - timedelta(days=back)):
                    tracker.record_many("seen", list(CROWD[back::3]))
            start = TODAY - timedelta(days=45)
            before = analytics.retention("seen", "seen", by="day", start=start).to_dict()
            raw = {key: client.get(key) for key in client.scan_iter("trackist_*")}
            assert len(pack_all(tracker)) > 45
            assert analytics.retention("seen", "seen", by="day", start=start).to_dict() == before
            unpack_all(tracker)
            assert {key: client.get(key) for key in client.scan_iter("trackist_*")} == raw
            client.flushall()


_PACK_FOR_EVER = """
import sys
from datetime import date
import redis
from flask_bitmapist import swapping
from flask_bitmapist.packed_periods import packed_keys

client = redis.Redis.from_url(sys.argv[1])
names, before = {"seen", "bought"}, date.fromisoformat(sys.argv[2])
while True:
    for key in swapping.raw_keys(client, names, before):
        swapping.pack(client, key)
        print(key, flush=True)
    for key in packed_keys(client):
        swapping.unpack(client, key)
        print(key, flush=True)
"""


def test_who_is_killed_while_packing_leaves_each_bitmap_in_one_form(
    marked: Tracker, redis_url: str
) -> None:
    client = marked.redis
    raw = {key.decode(): client.get(key) for key in client.scan_iter("trackist_*")}
    swapping.announce(client, TODAY)
    before = analytics.trend("seen", start=TODAY - timedelta(days=80)).to_dict()
    for swaps in (1, 2, 40, 150, 400):
        arguments = [sys.executable, "-c", _PACK_FOR_EVER, redis_url, TODAY.isoformat()]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as packing:
            assert packing.stdout is not None
            for _ in range(swaps):
                assert packing.stdout.readline()
            packing.kill()
        packed = {*packed_keys(client)}
        assert not packed & {key.decode() for key in client.scan_iter("trackist_*")}
        assert analytics.trend("seen", start=TODAY - timedelta(days=80)).to_dict() == before
    unpack_all(marked)
    assert {key.decode(): client.get(key) for key in client.scan_iter("trackist_*")} == raw


class Packing(RuleBasedStateMachine):
    """Marks, packing and unpacking in any order, compared with sets."""

    tracker: Tracker

    @initialize()
    def empty(self) -> None:
        self.tracker.redis.flushdb()
        self.tracker.server.patient.flushdb()
        self.days: dict[int, set[int]] = {back: set() for back in range(3)}

    @rule(back=st.integers(0, 2), first=st.integers(0, 30_000), step=st.integers(3, 9))
    def mark(self, back: int, first: int, step: int) -> None:
        ids = range(first, first + 3000, step)
        with self.tracker.at(NOW - timedelta(days=back)):
            self.tracker.record_many("seen", list(ids))
        self.days[back].update(ids)

    @rule(back=st.integers(0, 2), ids=st.sets(st.integers(0, 33_000), min_size=1, max_size=5))
    def unmark(self, back: int, ids: set[int]) -> None:
        moment = NOW - timedelta(days=back)
        asked = [*ids, *sorted(self.days[back])[:3]]
        with self.tracker.at(moment):
            self.tracker.record([Mark("seen", id_, value=False) for id_ in asked])
        self.days[back].difference_update(asked)

    @rule()
    def pack(self) -> None:
        pack_all(self.tracker, TODAY + timedelta(days=9))

    @rule()
    def unpack(self) -> None:
        unpack_all(self.tracker)

    @rule(back=st.integers(0, 2))
    def report(self, back: int) -> None:
        day = TODAY - timedelta(days=back)
        assert [*analytics.users("seen", at=day)] == sorted(self.days[back])
        assert len(DayEvents.from_date("seen", day)) == len(self.days[back])
        points = analytics.trend("seen", start=TODAY - timedelta(days=2)).points
        assert [point.users for point in points] == [len(self.days[n]) for n in (2, 1, 0)]
        everyone = set[int]().union(*self.days.values())
        assert analytics.count("seen", by="month") == len(everyone)


def test_marks_and_packing_in_any_order(tracker: Tracker, at_now: None) -> None:
    class Bound(Packing):
        pass

    Bound.tracker = tracker
    run_state_machine_as_test(Bound, settings=settings(max_examples=15, stateful_step_count=15))
