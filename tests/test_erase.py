"""One person is erased, for good: no bit is left, and none comes back."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis as redis_py
from documented import ROOT
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nodes import Cluster
from servers import MortalServer
from test_history import Restored

from flask_bitmapist import analytics, swapping
from flask_bitmapist.erased import ERASED, LAST, Erasure
from flask_bitmapist.id_map import assigning
from flask_bitmapist.id_map.keys import map_keys
from flask_bitmapist.ids import MAPPED, UnusableIdError
from flask_bitmapist.maintenance import clearing
from flask_bitmapist.maintenance import erase as erasing
from flask_bitmapist.maintenance.receipts import ErasedEvent
from flask_bitmapist.marks import Mark, SettledMark
from flask_bitmapist.packed_periods import PACKED_BEFORE, packed_keys
from flask_bitmapist.tracker import Tracker, _Settling

NOON = datetime(2026, 3, 14, 12)
DAY = "trackist_e_2026-3-14"
KEYS = ["trackist_e_2026-3", DAY, "trackist_e_W2026-11"]
ANN, BOB = "ann@example.org", "bob@example.org"


@pytest.fixture
def tracker(process: Callable[..., Tracker], redis_url: str) -> Tracker:
    return process(redis_url)


def bits(client: Any) -> dict[str, list[int]]:
    """The bits of all bitmaps, packed or not."""
    found: dict[str, list[int]] = {}
    for key in sorted(client.scan_iter("trackist_*")):
        held = "".join(f"{byte:08b}" for byte in client.get(key))
        found[key.decode()] = [offset for offset, bit in enumerate(held) if bit == "1"]
    for key in packed_keys(client):
        from flask_bitmapist.reading.both import joined

        packed = joined(key, (None, client.get(f"flask_bitmapist:packed:{{{key}}}")))
        found[key] = sorted({*found.get(key, []), *packed.ids().tolist()})
    return found


def did(tracker: Tracker, user: object) -> dict[str, list[date]]:
    """All that is known of `user`, in any year of the past."""
    found = analytics.profile(user, date(2026, 1, 1), date(2026, 12, 31), tracker=tracker)
    assert bool(found.events) == bool(found.days)
    return found.days | {flag: [] for flag in found.flags}


@pytest.mark.parametrize("id_", [7, ANN])
def test_one_connection_is_enough(
    redis_url: str, redis: Any, process: Callable[..., Tracker], id_: Any
) -> None:
    pool = redis_py.BlockingConnectionPool.from_url(redis_url, max_connections=1, timeout=5)
    tracker = process(client=redis_py.Redis(connection_pool=pool))
    tracker.record([(name, id_, True, True, NOON) for name in ("e", "old")])
    if id_ == 7:  # so that packing saves something
        tracker.record([("old", 90_000, True, True, NOON)])
    else:
        tracker.record([("old", f"u{other}", True, True, NOON) for other in range(3_000)])
    redis.set(PACKED_BEFORE, "2026-04-01")
    for key in swapping.raw_keys(redis, {"old"}, date(2026, 4, 1)):
        swapping.pack(redis, key)
    assert tracker.erase(id_).bits == 6
    assert not did(tracker, id_)


@pytest.mark.parametrize("id_", [7, ANN])
def test_every_bit_goes_and_nobody_elses(redis: Any, tracker: Tracker, id_: int | str) -> None:
    other = 8 if id_ == 7 else BOB
    for person in (other, id_):
        tracker.record(
            [
                ("e", person, True, True, NOON, True),
                ("e", person, True, True, NOON + timedelta(days=30)),
                ("song: played_2", person, True, True, NOON),
                ("premium", person, True, False),
            ]
        )
    before = bits(redis)
    receipt = tracker.erase(id_)
    (offset,) = {*before[DAY]} - {*bits(redis)[DAY]}
    assert bits(redis) == {
        key: [held for held in offsets if held != offset] for key, offsets in before.items()
    }
    assert did(tracker, id_) == {}
    assert set(did(tracker, other)) == {"e", "song: played_2", "premium"}
    assert receipt.events == [
        ErasedEvent("e", date(2026, 3, 14), date(2026, 4, 13), 7),
        ErasedEvent("premium", None, None, 1),
        ErasedEvent("song: played_2", date(2026, 3, 14), date(2026, 3, 14), 3),
    ]
    assert receipt.bits == 11
    assert receipt.entries == (0 if id_ == 7 else 1)
    assert tracker.erase(id_).events == []


def test_a_bitmap_without_any_other_bit_goes(redis: Any, tracker: Tracker) -> None:
    """Its length would tell the id."""
    tracker.record([("e", 7, True, True, NOON)])
    tracker.erase(7)
    assert not [*redis.scan_iter("trackist_*")]


def test_what_remains_does_not_tell_who_it_was(redis: Any, tracker: Tracker) -> None:
    tracker.record([("e", id_, True, True, NOON) for id_ in (ANN, BOB)])
    tracker.record([("plain", 123_456_789 % 2**20, True, True, NOON)])
    tracker.erase(ANN)
    tracker.erase(123_456_789 % 2**20)
    for key in redis.scan_iter("*"):
        value = redis.dump(key)
        assert ANN.encode() not in value
        assert str(123_456_789 % 2**20).encode() not in value
    assert redis.hlen(ERASED) == 4


def test_the_offset_of_an_erased_id_is_given_to_nobody(redis: Any, tracker: Tracker) -> None:
    tracker.record([("e", id_, True, True, NOON) for id_ in (ANN, BOB)])
    tracker.erase(ANN)
    tracker.record([("e", id_, True, True, NOON) for id_ in ("carl", ANN)])
    assert bits(redis)[DAY] == [1, 2, 3]
    assert [*analytics.users("e", at=NOON, tracker=tracker)] == [BOB, "carl", ANN]
    assert did(tracker, ANN) == {"e": [NOON.date()]}


def test_an_index_that_was_lost_is_made_anew_with_its_gaps(
    redis: Any, process: Callable[..., Tracker], redis_url: str
) -> None:
    tracker = process(redis_url)
    tracker.record([("e", id_, True, True, NOON) for id_ in (ANN, BOB)])
    tracker.erase(ANN)
    redis.delete(map_keys(MAPPED).index)
    tracker = process(redis_url)
    tracker.record([("e", "carl", True, True, NOON)])
    assert [*analytics.users("e", at=NOON, tracker=tracker)] == [BOB, "carl"]
    assert bits(redis)[DAY] == [1, 2]


def test_an_index_that_was_lost_before_is_made_anew_first(
    redis: Any, process: Callable[..., Tracker], redis_url: str
) -> None:
    process(redis_url).record([("e", id_, True, True, NOON) for id_ in (ANN, BOB)])
    redis.delete(map_keys(MAPPED).index)
    tracker = process(redis_url)
    assert tracker.erase(ANN).bits == 3
    tracker.record([("e", ANN, True, True, NOON)])
    assert bits(redis)[DAY] == [1, 2]
    assert [*analytics.users("e", at=NOON, tracker=tracker)] == [BOB, ANN]


def test_a_client_that_decodes_replies_meets_no_id_that_is_none(
    tracker: Tracker, process: Callable[..., Tracker], redis_url: str
) -> None:
    tracker.record([("e", id_, True, True, NOON) for id_ in (ANN, BOB)])
    tracker.erase(ANN)
    decoding = process(f"{redis_url}&decode_responses=true")
    assert [*analytics.users("e", at=NOON, tracker=decoding)] == [BOB]
    decoding.erase(BOB)
    assert [*analytics.users("e", at=NOON, tracker=decoding)] == []


def test_composite_and_other_ids_are_taken_as_they_were_marked(tracker: Tracker) -> None:
    for id_ in (UUID(int=7), ("7", "de"), "Ann"):
        tracker.record([("e", id_, True, True, NOON)])
        assert tracker.erase(id_).bits == 3
        assert did(tracker, id_) == {}
    with pytest.raises(UnusableIdError):
        tracker.erase(None)


def test_where_ints_are_mapped_too(process: Callable[..., Tracker], redis_url: str) -> None:
    tracker = process(redis_url, BITMAPIST_ID_MAP="always")
    tracker.record([("e", id_, True, True, NOON) for id_ in (10**15, 7)])
    assert tracker.erase(str(10**15)).bits == 3
    assert [*analytics.users("e", at=NOON, tracker=tracker)] == [7]


def test_every_map_is_gone_through(tracker: Tracker, redis: Any) -> None:
    tracker.record([("e", ANN, True, True, NOON), ("o", ANN, True, True, NOON, None, None, "rows")])
    assert tracker.erase(ANN).entries == 2
    assert not [*redis.scan_iter("trackist_*")]


def test_packed_periods_lose_the_bit_and_stay_packed(redis: Any, tracker: Tracker) -> None:
    tracker.record([("e", id_, True, True, NOON) for id_ in (*range(0, 90_000, 4_500), 7)])
    tracker.record([("alone", 7, True, True, NOON)])
    redis.set(PACKED_BEFORE, "2026-06-01")
    redis.set("trackist_alone_2026-3-14", b"\x01" + b"\0" * 2_000)
    redis.expire(KEYS[0], 10_000)
    for key in [key.decode() for key in redis.scan_iter("trackist_*")]:
        swapping.pack(redis, key)
    packed = {*packed_keys(redis)}
    assert {*KEYS, "trackist_alone_2026-3-14"} <= packed
    before = bits(redis)
    receipt = tracker.erase(7)
    assert [event.bits for event in receipt.events] == [3, 3]
    assert {*packed_keys(redis)} == {*KEYS}
    assert not any(redis.exists(key) for key in KEYS)
    assert 0 < redis.ttl(f"flask_bitmapist:packed:{{{KEYS[0]}}}") <= 10_000
    assert bits(redis) == {key: [held for held in before[key] if held != 7] for key in KEYS}


def test_what_bitmapist_marked_alone_and_what_it_has_worked_out_goes_too(
    redis: Any, tracker: Tracker
) -> None:
    redis.setbit("trackist_theirs_2026-3-14-9", 7, 1)
    redis.setbit("trackist_theirs_2026-3-14-9", 8, 1)
    redis.setbit("trackist_bitop_AND_a-b", 7, 1)
    redis.setbit("trackist_bitop_OR_a-b", 8, 1)
    redis.lpush("trackist_list_2026-3-14", "a list")
    redis.set("trackist_no-event", b"\xff")
    receipt = tracker.erase(7)
    assert receipt.events == [ErasedEvent("theirs", NOON.date(), NOON.date(), 1)]
    assert {*redis.scan_iter("trackist_*")} == {
        b"trackist_theirs_2026-3-14-9",
        b"trackist_bitop_OR_a-b",
        b"trackist_list_2026-3-14",
        b"trackist_no-event",
    }


def test_events_whose_ids_are_not_those_of_users_are_kept(redis: Any, tracker: Tracker) -> None:
    tracker.record([("user:created", 7, True, True, NOON), ("post:created", 7, True, True, NOON)])
    receipt = tracker.erase(7, keep=["post:created"])
    assert [event.event for event in receipt.events] == ["user:created"]
    assert receipt.kept == ["post:created"]
    assert [*did(tracker, 7)] == ["post:created"]
    with pytest.raises(ValueError, match="nobody has ever marked 'post:creatd'"):
        tracker.erase(7, keep=["post:creatd"])


def test_what_is_to_be_kept_is_kept_whatever_was_erased_before(
    redis: Any, process: Callable[..., Tracker], redis_url: str
) -> None:
    tracker, other = process(redis_url), process(redis_url)
    tracker.record([(event, 7, True, True, NOON) for event in ("e", "a", "b")])
    made = time.time()
    tracker.erase(7, keep=["a"])
    tracker.record([(event, 7, True, True, NOON) for event in ("e", "a", "b")])
    tracker.erase(7, keep=["a", "b"])
    assert set(did(tracker, 7)) == {"a", "b"}
    later = NOON + timedelta(days=1)
    for event in ("e", "a", "b"):
        marks = [_settled(other, event, 7, later)]
        other._deliverer()._courier.deliver(marks, made)
    assert {event for event, days in did(tracker, 7).items() if len(days) == 2} == {"a"}


def test_those_who_are_erased_at_once_are_erased(
    process: Callable[..., Tracker], redis_url: str
) -> None:
    trackers = [process(redis_url) for _ in range(4)]
    trackers[0].record([("e", id_, True, True, NOON) for id_ in range(9)])
    made = time.time()
    threads = [
        threading.Thread(target=lambda n=n: [trackers[n].erase(n + 4 * i) for i in range(2)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    late = process(redis_url)
    marks = [_settled(late, "e", id_) for id_ in range(9)]
    late._deliverer()._courier.deliver(marks, made)
    assert [*analytics.users("e", at=NOON, tracker=late)] == [8]
    moments = [Erasure.loads(held).moment for held in _digests(late).values()]
    assert len({*moments}) == 8
    assert int(late.redis.hget(ERASED, LAST)) == max(moments)


def _digests(tracker: Tracker) -> dict[bytes, bytes]:
    held: dict[bytes, bytes] = tracker.redis.hgetall(ERASED)
    return {name: value for name, value in held.items() if name not in (b"salt", b"last")}


def test_a_dry_run_tells_the_same_and_writes_nothing(redis: Any, tracker: Tracker) -> None:
    tracker.record([("e", id_, True, True, NOON) for id_ in (ANN, BOB)])
    before = {key: redis.dump(key) for key in redis.scan_iter("*")}
    told = tracker.erase(ANN, dry_run=True)
    assert {key: redis.dump(key) for key in redis.scan_iter("*")} == before
    done = tracker.erase(ANN)
    assert (told.events, told.entries) == (done.events, done.entries)
    assert told.moment is None
    assert done.moment is not None


def test_without_the_rights_it_does_not_say_that_all_is_gone(
    mortal: MortalServer, process: Callable[..., Tracker]
) -> None:
    tracker = process(mortal.url)
    tracker.record([("e", 7, True, True, NOON)])
    with redis_py.Redis.from_url(mortal.url) as admin:
        admin.lpush("trackist_aaa_2026-3-14", "a list")
        for command in ("getbit", "scan", "setbit", "hset"):
            admin.execute_command("ACL", "SETUSER", "default", f"-{command}")
            with pytest.raises(redis_py.RedisError):
                tracker.erase(7)
            admin.execute_command("ACL", "SETUSER", "default", f"+{command}")
    assert tracker.erase(7).bits == 3


def test_the_rights_that_the_page_on_servers_names_are_enough(
    mortal: MortalServer,
    process: Callable[..., Tracker],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_bitmapist.later.Later.submit", lambda *_: None)
    listed = re.search(r"`(\+@read [^`]*)`", (ROOT / "docs" / "server.md").read_text())
    assert listed
    with redis_py.Redis.from_url(mortal.url) as admin:
        for name, more in (("marks", []), ("erases", ["+time"])):
            admin.execute_command("ACL", "SETUSER", name, "on", ">x", *listed[1].split(), *more)
        socket = mortal.url.removeprefix("unix://")
        one = process(f"unix://erases:x@{socket}", BITMAPIST_SPOOL=str(tmp_path / "one"))
        other = process(f"unix://marks:x@{socket}", BITMAPIST_SPOOL=str(tmp_path / "other"))
        live(other, admin, ANN, BOB)
        one.erase(ANN)
        other.record([("e", ANN, True, True, NOON)])
        assert set(did(other, ANN)) == {"e"}
        assert other.stats().sent == 13
        other.publish([Mark("user", BOB, False, kept=())])
        admin.execute_command("ACL", "SETUSER", "marks", "+time")
        other.publish([Mark("user", BOB, kept=()), Mark("new", BOB)])
        assert other.erase_due().people == 1
        assert set(did(other, BOB)) == {"new"}


def test_an_id_beyond_all_bitmaps_has_no_bits(tracker: Tracker) -> None:
    tracker.record([("e", 7, True, True, NOON)])
    assert tracker.erase(2**40).bits == tracker.erase(2**32 - 1).bits == 0


@pytest.mark.parametrize("also_lost", [(), ("flask_bitmapist:first_days",)])
def test_nothing_is_erased_while_kinds_are_lost(
    redis: Any, tracker: Tracker, also_lost: tuple[str, ...]
) -> None:
    """An offset of somebody else may be the plain id."""
    tracker.record([("e", ANN, True, True, NOON)])
    redis.delete("flask_bitmapist:events", "flask_bitmapist:events:copy", *also_lost)
    with pytest.raises(ValueError, match="has lost which kind of ids the event 'e' has"):
        tracker.erase(0)
    assert bits(redis)[DAY] == [0]


def test_nothing_is_erased_where_no_marks_are_sent(
    redis: Any, process: Callable[..., Tracker], redis_url: str, tracker: Tracker
) -> None:
    tracker.record([("e", 7, True, True, NOON)])
    assert process(redis_url, BITMAPIST_ENABLED=False).erase(7).moment is None
    assert bits(redis)[DAY] == [7]


@pytest.mark.usefixtures("small_steps")
def test_an_event_that_is_new_meanwhile_may_have_mapped_ids(
    process: Callable[..., Tracker], redis_url: str
) -> None:
    tracker, other = process(redis_url), process(redis_url)
    tracker.record([("e", 0, True, True, NOON)])
    tracker.erase(0, watch=lambda _: other.record([("new", BOB, True, True, NOON)]))
    assert set(did(tracker, BOB)) == {"new"}


def map_has(client: Any, id_: str) -> bool:
    """Whether the text of `id_` stands in the id map."""
    keys = map_keys(MAPPED)
    return id_.encode() in client.lrange(keys.block(0), 0, -1)


class TestLateMarks:
    """Marks that were made before, and come afterwards."""

    @pytest.mark.parametrize("knows", [True, False], ids=["warm", "cold"])
    def test_one_that_is_dropped_gets_no_entry_in_the_map(
        self, process: Callable[..., Tracker], redis_url: str, redis: Any, knows: bool
    ) -> None:
        one, late = process(redis_url), process(redis_url)
        (late if knows else one).record([("e", ANN, True, True, NOON)])
        made = time.time()
        one.erase(ANN)
        late._deliverer()._courier.deliver([_settled(late, "e", who) for who in (ANN, BOB)], made)
        assert not map_has(redis, ANN)
        assert [*analytics.users("e", at=NOON, tracker=one)] == [BOB]

    @pytest.mark.parametrize("scripts", [True, False])
    @pytest.mark.parametrize("before", [True, False], ids=["mapped", "never mapped"])
    def test_an_erasure_between_looking_up_and_assigning(
        self,
        process: Callable[..., Tracker],
        redis_url: str,
        redis: Any,
        monkeypatch: pytest.MonkeyPatch,
        before: bool,
        scripts: bool,
    ) -> None:
        if not scripts:
            monkeypatch.setattr(assigning, "_add_by_script", assigning._add_in_transaction)
        one, late = process(redis_url), process(redis_url)
        late.record([("e", BOB, True, True, NOON)])
        if before:
            one.record([("e", ANN, True, True, NOON)])
            one.erase(ANN)
        made = time.time()
        add, erased = assigning._added, list[object]()

        def add_later(*arguments: Any, **named: Any) -> Any:
            if not erased:
                erased.append(one.erase(ANN))
            return add(*arguments, **named)

        monkeypatch.setattr(assigning, "_added", add_later)
        late._deliverer()._courier.deliver([_settled(late, "e", ANN)], made)
        assert erased
        assert not map_has(redis, ANN)
        assert [*analytics.users("e", at=NOON, tracker=one)] == [BOB]

    def test_the_first_id_of_all_gets_none_either(
        self, process: Callable[..., Tracker], redis_url: str, redis: Any
    ) -> None:
        one, late = process(redis_url), process(redis_url)
        made = time.time()
        one.erase(ANN)
        late._deliverer()._courier.deliver([_settled(late, "e", who) for who in (ANN, BOB)], made)
        assert not map_has(redis, ANN)
        assert [*analytics.users("e", at=NOON, tracker=one)] == [BOB]

    def test_a_visitor_who_has_become_the_person_gets_none(
        self, process: Callable[..., Tracker], redis_url: str, redis: Any
    ) -> None:
        one, late = (process(redis_url, BITMAPIST_ID_MAP="always") for _ in range(2))
        visitor = "visitor:0123456789abcdef"
        one.record([("e", visitor, True, True, NOON), ("e", BOB, True, True, NOON)])
        one.promote(visitor, ANN)
        late.record([("e", BOB, True, True, NOON)])
        made = time.time()
        one.erase(ANN)
        late._deliverer()._courier.deliver([_settled(late, "e", visitor)], made)
        assert not map_has(redis, visitor)
        assert [*analytics.users("e", at=NOON, tracker=one)] == [BOB]

    def test_who_is_mapped_first_when_the_erasure_has_begun(
        self, tracker: Tracker, redis: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tracker.record([("e", BOB, True, True, NOON)])
        remember = erasing.Eraser._remember
        marks = [("e", ANN, True, True, NOON)]

        def remember_later(*arguments: Any) -> None:
            if marks:
                tracker.record([marks.pop()])
            remember(*arguments)

        monkeypatch.setattr(erasing.Eraser, "_remember", remember_later)
        receipt = tracker.erase(ANN)
        assert (receipt.bits, receipt.entries) == (3, 1)
        assert not map_has(redis, ANN)
        assert [*analytics.users("e", at=NOON, tracker=tracker)] == [BOB]

    @pytest.mark.parametrize("id_", [7, ANN])
    @pytest.mark.parametrize("knows", [True, False], ids=["warm", "cold"])
    def test_those_that_waited_in_a_spool_are_dropped_and_later_ones_are_kept(
        self,
        mortal: MortalServer,
        process: Callable[..., Tracker],
        tmp_path: Path,
        id_: int | str,
        knows: bool,
    ) -> None:
        other = process(mortal.url, BITMAPIST_SPOOL=str(tmp_path / "other"))
        one = process(mortal.url, BITMAPIST_SPOOL=str(tmp_path / "one"))
        rest = BOB if id_ == ANN else 8
        if knows:
            one.record([("e", id_, True, True, NOON), ("e", rest, True, True, NOON)])
        mortal.kill()
        one.record([("e", id_, True, True, NOON), ("late", id_, True, True, NOON)])
        one.record([("late", rest, True, True, NOON)])
        mortal.start()
        other.erase(id_)
        spool: Any = one._deliverer()._shelter.spool
        spool.append([_settled(one, "back", id_)])
        assert one.flush()
        assert did(other, id_) == {"back": [NOON.date()]}
        assert "late" in did(other, rest)

    def test_those_that_waited_in_a_spool_get_no_entry_in_the_map(
        self, mortal: MortalServer, process: Callable[..., Tracker], tmp_path: Path
    ) -> None:
        one = process(mortal.url, BITMAPIST_SPOOL=str(tmp_path / "one"))
        one.record([("e", ANN, True, True, NOON), ("e", BOB, True, True, NOON)])
        mortal.kill()
        one.record([("late", ANN, True, True, NOON), ("late", BOB, True, True, NOON)])
        mortal.start()
        process(mortal.url, BITMAPIST_SPOOL=str(tmp_path / "other")).erase(ANN)
        assert one.flush()
        assert set(did(one, BOB)) == {"e", "late"}
        with redis_py.Redis.from_url(mortal.url) as client:
            assert not map_has(client, ANN)

    @pytest.mark.parametrize("id_", [7, ANN])
    def test_those_in_a_queue_are_dropped_and_later_ones_are_kept(
        self, process: Callable[..., Tracker], redis_url: str, redis: Any, id_: int | str
    ) -> None:
        one = process(redis_url, BITMAPIST_DELIVERY="background")
        one.record([("e", id_, True, True, NOON)])
        assert one.flush()
        deliverer = one._deliverer()
        with deliverer._flusher.alone(None):  # it delivers nothing meanwhile
            one.record([("e", id_, True, True, NOON), ("late", id_, True, True, NOON)])
            process(redis_url).erase(id_)
        assert one.flush()
        assert did(one, id_) == {}
        assert not map_has(redis, str(id_))
        one.record([("back", id_, True, True, NOON)])
        assert one.flush()
        assert did(one, id_) == {"back": [NOON.date()]}

    def test_what_is_queued_after_a_pause_is_kept(
        self, process: Callable[..., Tracker], redis_url: str, redis: Any
    ) -> None:
        one = process(redis_url, BITMAPIST_DELIVERY="background")
        one.record([("e", 7, True, True, NOON)])
        assert one.flush()
        process(redis_url).erase(7)
        one.record([("e", 7, True, True, NOON)])
        assert one.flush()
        assert bits(redis)[DAY] == [7]

    @pytest.mark.parametrize("id_", [7, ANN])
    def test_another_process_marks_at_once_what_is_new(
        self, process: Callable[..., Tracker], redis_url: str, redis: Any, id_: int | str
    ) -> None:
        """It knows the id's offset, and that it has marked it today."""
        one, other = process(redis_url), process(redis_url)
        other.record(
            [("e", id_, True, True, NOON), ("e", "x" if id_ == ANN else 8, True, True, NOON)]
        )
        one.erase(id_)
        other.record([("e", id_, True, True, NOON)])
        other.mark("now", id_)
        assert set(did(one, id_)) == {"e", "now"}
        assert bits(redis)[DAY] == ([7, 8] if id_ == 7 else [1, 2])

    def test_whoever_is_seen_again_is_marked_again(
        self, process: Callable[..., Tracker], redis_url: str
    ) -> None:
        one, other = process(redis_url), process(redis_url)
        other.publish_seen("seen", 7)
        one.erase(7)
        other.record([("e", 8)])
        other.publish_seen("seen", 7)
        assert [*analytics.users("seen", tracker=one)] == [7]

    def test_a_trip_that_is_under_way_takes_its_bits_back(
        self, process: Callable[..., Tracker], redis_url: str, redis: Any
    ) -> None:
        one, other = process(redis_url), process(redis_url)
        other.record([("e", 7, True, True, NOON)])
        made = time.time()
        one.erase(7)
        other._deliverer()._courier.deliver([_settled(other, "e", id_) for id_ in (7, 8)], made)
        assert bits(redis)[DAY] == [8]

    def test_those_that_come_to_an_empty_server(
        self, process: Callable[..., Tracker], redis_url: str, redis: Any
    ) -> None:
        """Nobody has been marked there yet, when somebody is erased."""
        one, other = process(redis_url), process(redis_url)
        made = time.time()
        one.erase(7)
        marks = [_settled(other, "e", id_) for id_ in (7, 8)]
        other._deliverer()._courier.deliver(marks, made)
        assert bits(redis)[DAY] == [8]

    def test_many_at_once_are_sifted(
        self, process: Callable[..., Tracker], redis_url: str, redis: Any
    ) -> None:
        one, other = process(redis_url), process(redis_url)
        other.record([("e", 5_000, True, True, NOON)])
        made = time.time()
        one.erase(7)
        import numpy as np

        deed, _ = _settled(other, "e", 1)
        other._deliverer()._courier.deliver([(deed, np.arange(2_000)), (deed, [7, 2_000])], made)
        assert bits(redis)[DAY] == [id_ for id_ in range(2_001) if id_ != 7] + [5_000]
        assert not [*redis.scan_iter("flask_bitmapist:merge:*")]

    def test_a_bitmap_that_is_about_to_be_merged_is_not(
        self,
        process: Callable[..., Tracker],
        redis_url: str,
        redis: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        one, other = process(redis_url), process(redis_url)
        writer = other._deliverer()._sender.writer
        finish = writer._finish
        erased: list[object] = []

        def finish_later(*arguments: Any) -> bool:
            if not erased:
                erased.append(one.erase(7))
            return finish(*arguments)

        monkeypatch.setattr(writer, "_finish", finish_later)
        other.record_many("e", list(range(2_000)), True, True, NOON)
        assert erased
        assert bits(redis)[DAY] == [id_ for id_ in range(2_000) if id_ != 7]

    def test_those_that_are_just_leaving_the_spool_are_dropped(
        self,
        mortal: MortalServer,
        process: Callable[..., Tracker],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        one = process(mortal.url)
        other = process(mortal.url, BITMAPIST_SPOOL=str(tmp_path / "other"))
        one.record([("e", 9, True, True, NOON)])
        mortal.kill()
        one.record([("e", id_, True, True, NOON) for id_ in (7, 8)])
        mortal.start()
        writer = one._deliverer()._sender.writer
        write = writer.write

        def write_later(*arguments: Any, **named: Any) -> None:
            monkeypatch.undo()
            other.erase(7)
            write(*arguments, **named)

        monkeypatch.setattr(writer, "write", write_later)
        assert one.flush()
        assert mortal.ids() == [8, 9]

    def test_what_an_earlier_version_has_spooled_was_made_before(
        self, mortal: MortalServer, process: Callable[..., Tracker], tmp_path: Path
    ) -> None:
        one = process(mortal.url)
        mortal.kill()
        one.record([("e", id_, True, True, NOON) for id_ in (7, 8)])
        spool: Any = one._deliverer()._shelter.spool
        with closing(sqlite3.connect(spool.path)) as db:
            for table in ("spooled", "apart"):
                db.execute(f"ALTER TABLE {table} DROP COLUMN made")
            db.commit()
        mortal.start()
        process(mortal.url, BITMAPIST_SPOOL=str(tmp_path / "other")).erase(7)
        spool.file.close()
        one.record([("e", 9, True, True, NOON)])
        assert one.flush()
        assert mortal.ids() == [8, 9]

    def test_kept_events_take_late_marks(
        self, process: Callable[..., Tracker], redis_url: str, redis: Any
    ) -> None:
        one, other = process(redis_url), process(redis_url)
        other.record([("e", 7, True, True, NOON), ("rows", 7, True, True, NOON)])
        made = time.time()
        one.erase(7, keep=["rows"])
        later = NOON + timedelta(days=1)
        for event in ("e", "rows"):
            marks = [_settled(other, event, 7, later)]
            other._deliverer()._courier.deliver(marks, made)
        assert {key for key, held in bits(redis).items() if held} == {
            "trackist_rows_2026-3-14",
            "trackist_rows_2026-3-15",
            "trackist_rows_2026-3",
            "trackist_rows_W2026-11",
        }

    @pytest.mark.parametrize("spool", [True, False])
    def test_what_a_server_has_lost_is_not_sent_again(
        self, process: Callable[..., Tracker], redis_url: str, redis: Any, spool: bool
    ) -> None:
        server = Restored(redis_url)
        one, other = process(redis_url), process(redis_url, BITMAPIST_SPOOL=spool)
        other.record([("e", 1, True, True, NOON)])
        server.remember()
        other.record([("e", 7, True, True, NOON)])
        server.go_back()
        one.erase(7)
        other.record([("e", 8, True, True, NOON)])
        assert other.flush()
        assert bits(redis)[DAY] == [1, 8]

    def test_what_was_kept_apart_is_dropped(
        self, mortal: MortalServer, process: Callable[..., Tracker], tmp_path: Path
    ) -> None:
        one = process(mortal.url)
        with redis_py.Redis.from_url(mortal.url) as admin:
            one.record([("e", 1, True, True, NOON)])
            admin.execute_command("ACL", "SETUSER", "default", "-setbit")
            one.record([("e", 7, True, True, NOON)])
            one.record([("e", 8, True, True, NOON)])
            assert sum(one.stats().waiting.values()) == 2
            admin.execute_command("ACL", "SETUSER", "default", "+setbit")
            process(mortal.url, BITMAPIST_SPOOL=str(tmp_path / "other")).erase(7)
            assert one.flush()
            assert bits(admin)[DAY] == [1, 8]
            assert not one.stats().waiting

    @pytest.mark.parametrize("id_", [7, ANN])
    def test_the_journal_of_a_process_that_was_killed(
        self,
        redis_url: str,
        redis: Any,
        process: Callable[..., Tracker],
        tmp_path: Path,
        id_: int | str,
    ) -> None:
        script = f"""
            import os, signal, sys, time
            from datetime import datetime
            from flask import Flask
            from flask_bitmapist import FlaskBitmapist
            app = Flask("process", instance_path={str(tmp_path / "instance")!r})
            options = {{"BITMAPIST_ENABLED": True, "BITMAPIST_TIMEOUT": 10}}
            options |= {{"BITMAPIST_REDIS_URL": {redis_url!r}, "BITMAPIST_DELIVERY": "background"}}
            tracker = FlaskBitmapist(app, options).tracker_of(app)
            with tracker._deliverer()._flusher.alone(None):
                tracker.record([(sys.argv[1], {id_!r}, True, True, datetime(2026, 3, 14, 12))])
                os.kill(os.getpid(), signal.SIGKILL)
        """
        one = process(redis_url, BITMAPIST_DELIVERY="background")
        subprocess.run([sys.executable, "-c", textwrap.dedent(script), "late"], check=False)
        process(redis_url).erase(id_)
        if id_ == ANN:
            one.record([("e", BOB, True, True, NOON)])
            assert one.flush()
            assert not map_has(redis, ANN)
        time.sleep(1)  # a journal knows whole seconds
        subprocess.run([sys.executable, "-c", textwrap.dedent(script), "back"], check=False)
        one.record([("e", BOB if id_ == ANN else 8, True, True, NOON)])
        assert one.flush()
        assert did(one, id_) == {"back": [NOON.date()]}


def _settled(tracker: Tracker, event: str, id_: int | str, when: datetime = NOON) -> SettledMark:
    """The mark, as it is handed to delivery."""
    return _Settling(tracker)(Mark(event, id_, when=when))


class Stopped(BaseException):
    """As of a process that is killed at this point."""


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clearing, "_KEYS", 2)
    monkeypatch.setattr(clearing, "_PACKED_KEYS", 2)
    monkeypatch.setattr(erasing, "_MARGIN", 2_000)


def live(tracker: Tracker, client: Any, *people: int | str) -> None:
    """Marks of some days, some of which are packed."""
    for person in people:
        for days in range(4):
            tracker.record([("e", person, True, True, NOON + timedelta(days=days))])
        tracker.record([("e", person, True, True, NOON - timedelta(days=70))])
        tracker.record([("premium", person, True, False)])
    client.set(PACKED_BEFORE, "2026-02-01")
    for key in [key.decode() for key in client.scan_iter("trackist_e_*2026-1*")]:
        client.setbit(key, 90_000, 1)
        assert swapping.pack(client, key)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("id_", [7, ANN])
def test_wherever_it_stops_it_goes_on_when_it_is_run_again(
    redis: Any, process: Callable[..., Tracker], redis_url: str, id_: int | str
) -> None:
    rest = BOB if id_ == ANN else 8
    step, stopped = 0, True
    while stopped:
        redis.flushdb()
        tracker, other = process(redis_url), process(redis_url)
        live(tracker, redis, id_, rest)
        made = time.time()
        left = step

        def stop(_: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Stopped

        try:
            tracker.erase(id_, watch=stop)
            stopped = False
        except Stopped:
            # Who comes back in between is somebody new, and is not lost with the next run.
            if id_ == ANN:
                other.record([("back", ANN, True, True, NOON)])
            tracker = process(redis_url)
            tracker.erase(id_)
        marks = [_settled(other, "late", id_)]
        other._deliverer()._courier.deliver(marks, made)
        assert did(tracker, id_) == {}
        assert set(did(tracker, rest)) == {"e", "premium"}
        assert all(len(held) == 2 - (90_000 not in held) for held in bits(redis).values())
        step += 1
    assert step > 5


@pytest.mark.parametrize("id_", [7, ANN])
def test_it_takes_as_many_trips_whatever_somebody_has_done(
    redis: Any, tracker: Tracker, round_trips: list[object], id_: int | str
) -> None:
    """Up to some thousand keys."""
    trips = []
    for number in (2, 90):
        tracker.record([(f"e{n}", id_, True, True, NOON) for n in range(number)])
        round_trips.clear()
        assert tracker.erase(id_).bits == 3 * number
        trips.append(len(round_trips))
    assert trips[1] <= trips[0] + 2
    assert trips[1] < 60


@pytest.mark.usefixtures("small_steps")
def test_it_goes_on_if_it_stops_before_the_map_forgets(
    redis: Any,
    process: Callable[..., Tracker],
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tracker = process(redis_url)
    live(tracker, redis, ANN, BOB)

    def stop(*_: object) -> None:
        raise Stopped

    for method in ("retire", "find"):
        with monkeypatch.context() as patch:
            patch.setattr(tracker._id_map, method, stop)
            with pytest.raises(Stopped):
                tracker.erase(ANN)
    assert tracker.erase(ANN).bits == 11
    assert did(tracker, ANN) == {}


def test_the_server_restarts_in_between(
    mortal: MortalServer, process: Callable[..., Tracker], small_steps: None
) -> None:
    tracker = process(mortal.url)
    with redis_py.Redis.from_url(mortal.url) as client:
        live(tracker, client, ANN, BOB)
        looks = 0

        def restart(_: int) -> None:
            nonlocal looks
            looks += 1
            if looks == 3:
                mortal.kill()
                mortal.start()

        with suppress(redis_py.RedisError):
            tracker.erase(ANN, watch=restart)
        assert looks >= 3
        tracker.erase(ANN)
        assert did(tracker, ANN) == {}
        assert set(did(tracker, BOB)) == {"e", "premium"}
        tracker.record([("e", "carl", True, True, NOON)])
        assert [*analytics.users("e", at=NOON, tracker=tracker)] == [BOB, "carl"]


def test_a_cluster(clusters: Callable[[int], Cluster], process: Callable[..., Tracker]) -> None:
    one, other = process(clusters(2).url), process(clusters(2).url)
    people: list[int | str] = [7, 8, ANN, BOB]
    for number, person in enumerate(people):
        kind = "plain" if number < 2 else "mapped"
        marks = [(f"{kind} {name}", person, True, True, NOON) for name in ("a", "b", "{c}")]
        other.record(marks)
    made = time.time()
    for person in (7, ANN):
        receipt = one.erase(person)
        assert (receipt.bits, len(receipt.events)) == (9, 3)
        kind = "plain a" if person == 7 else "mapped a"
        mark = _settled(other, kind, person)
        other._deliverer()._courier.deliver([mark], made)
        assert did(one, person) == {}
        assert not one._id_map.find(one.redis, MAPPED, [str(person)])
        other.record([(kind, person, True, True, NOON)])
        assert set(did(one, person)) == {kind}
    for person in (8, BOB):
        assert len(did(one, person)) == 3


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["mark", "unmark", "hold", "deliver", "erase", "mark", "hold"]),
            st.integers(0, 1),
            st.integers(0, 3),
            st.integers(0, 2),
        ),
        max_size=25,
    ),
    st.booleans(),
)
@pytest.mark.usefixtures("small_steps")
def test_random_lives_leave_what_sets_say(
    redis: Any,
    redis_url: str,
    tracker_on: Callable[..., Tracker],
    steps: list[tuple[str, int, int, int]],
    mapped: bool,
) -> None:
    """Two processes; some marks wait in them, and are delivered any time later."""
    redis.flushdb()
    trackers = [tracker_on(redis_url), tracker_on(redis_url)]
    truth: set[tuple[int, int]] = set()
    held: list[tuple[int, int, int, float]] = []

    def name(person: int) -> int | str:
        return f"p-{person}" if mapped else person

    for what, which, person, day in steps:
        tracker, when = trackers[which], NOON + timedelta(days=day)
        if what in ("mark", "unmark"):
            tracker.record([("e", name(person), what == "mark", True, when)])
            (truth.add if what == "mark" else truth.discard)((person, day))
        elif what == "hold":
            held.append((which, person, day, time.time()))
        elif what == "erase":
            tracker.erase(name(person))
            truth = {mark for mark in truth if mark[0] != person}
            held = [(*mark[:3], 0.0) if mark[1] == person else mark for mark in held]
        else:
            for holder, one, of_day, made in held:
                deed, _ = _settled(tracker, "e", name(one))
                deed = deed._replace(hour=NOON + timedelta(days=of_day))
                deliverer = trackers[holder]._deliverer()
                deliverer._courier.deliver([(deed, name(one))], made or 1.0)
                if made:
                    truth.add((one, of_day))
            held = []
    for day in range(3):
        expected = sorted(str(name(person)) for person, of_day in truth if of_day == day)
        for tracker in trackers:
            at = NOON + timedelta(days=day)
            found = analytics.users("e", at=at, tracker=tracker)
            assert sorted(map(str, found)) == expected
    assert {*bits(redis).get("trackist_e_2026-3", [])} >= {*bits(redis).get(DAY, [])}


class TestCommand:
    def run(self, app: Flask, *words: str, answer: str = "") -> Any:
        return app.test_cli_runner().invoke(args=["bitmapist", *words], input=answer)

    def test_it_asks_before_it_erases(self, app: Flask, tracker: Tracker) -> None:
        tracker.record([("e", 7, True, True, NOON)])
        assert self.run(app, "erase", "7", answer="n\n").exit_code == 1
        assert did(tracker, 7)
        assert self.run(app, "erase", "7", answer="y\n").exit_code == 0
        assert not did(tracker, 7)

    @pytest.mark.parametrize(
        ("error", "code"), [(KeyboardInterrupt(), 130), (redis_py.ConnectionError("gone"), 1)]
    )
    def test_one_that_is_stopped_says_how_to_go_on(
        self,
        app: Flask,
        tracker: Tracker,
        monkeypatch: pytest.MonkeyPatch,
        error: BaseException,
        code: int,
    ) -> None:
        def stopped(*_: object, **named: object) -> None:
            raise error

        tracker.record([("e", ANN, True, True, NOON)])
        with monkeypatch.context() as patched:
            patched.setattr(clearing.Clearing, "found", stopped)
            told = self.run(app, "erase", ANN, "--yes")
            assert told.exit_code == code
            assert "Not all is done: run the same command again, and it goes on" in told.output
            assert "Not all is done" not in self.run(app, "erase", ANN, "--dry-run").output
        told = self.run(app, "erase", ANN, "--yes")
        assert (told.exit_code, did(tracker, ANN)) == (0, {})

    def test_json_is_a_receipt_without_the_id(self, app: Flask, tracker: Tracker) -> None:
        tracker.record([("e", ANN, True, True, NOON), ("premium", ANN, True, False)])
        done = self.run(app, "erase", ANN, "--yes", "--json")
        told = json.loads(done.stdout)
        assert ANN not in done.output
        assert datetime.fromisoformat(told.pop("moment")).tzinfo is not None
        assert told == {
            "people": 1,
            "bits": 4,
            "entries": 1,
            "kept": [],
            "events": [
                {"event": "e", "first": "2026-03-14", "last": "2026-03-14", "bits": 3},
                {"event": "premium", "first": None, "last": None, "bits": 1},
            ],
        }

    def test_dry_run_and_keep(self, app: Flask, tracker: Tracker) -> None:
        tracker.record([("e", 7, True, True, NOON), ("rows", 7, True, True, NOON)])
        done = self.run(app, "erase", "7", "--dry-run", "--keep", "rows")
        assert done.exit_code == 0
        assert "3 bits of 1 event: would be erased" in done.output
        assert "rows" not in done.output
        assert set(did(tracker, 7)) == {"e", "rows"}
        assert self.run(app, "erase", "7", "--yes", "--keep", "row").exit_code == 2

    @pytest.mark.parametrize("words", [("erase", "None", "--yes"), ("erase", "", "--yes")])
    def test_what_identifies_nobody_is_an_error(self, app: Flask, words: tuple[str, ...]) -> None:
        done = self.run(app, *words)
        assert done.exit_code == 2
        assert "identifies nobody" in done.output

    def test_it_does_nothing_where_no_marks_are_sent(self, app: Flask) -> None:
        app.config["BITMAPIST_ENABLED"] = False
        done = self.run(app, "erase", "7", "--yes")
        assert done.exit_code == 2
        assert "BITMAPIST_ENABLED" in done.output
