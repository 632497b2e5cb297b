"""The normal form of ids, and the map from ids to offsets."""

from __future__ import annotations

import enum
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from uuid import UUID

import bitmapist
import numpy as np
import pytest
import redis as redis_py
from flask import Flask
from hypothesis import example, given
from hypothesis import strategies as st
from racing import RACERS, RACING, racing_offsets
from warm import WARM
from werkzeug.local import LocalProxy

from flask_bitmapist import DayEvents, FlaskBitmapist, mark_event, unmark_event
from flask_bitmapist.id_map import IdMap
from flask_bitmapist.id_map.keys import map_keys
from flask_bitmapist.ids import MAPPED, TextKey, UnusableIdError, normal_form
from flask_bitmapist.tracker import Tracker


class Number(enum.IntEnum):
    SEVEN = 7


class Team(enum.Enum):
    RED = "red"
    SEVENTH = 7


class Colour(str, enum.Enum):  # noqa: UP042 - a StrEnum's str() would be 'red'
    RED = "red"


EVENING = datetime(2026, 11, 28, 21, 30, tzinfo=timezone(timedelta(hours=9)))


@pytest.mark.parametrize(
    ("identifier", "form"),
    [
        (7, 7),
        (0, 0),
        (np.int64(7), 7),
        (Number.SEVEN, 7),
        ("7", 7),
        ("0", 0),
        ("007", "007"),
        ("+7", "+7"),
        (" 7", " 7"),
        ("\u0667", "\u0667"),  # a digit seven, but not an ASCII one
        ("7.0", "7.0"),
        ("alice", "alice"),
        (TextKey("7"), "7"),
        (UUID("12345678-1234-5678-1234-567812345678"), "12345678-1234-5678-1234-567812345678"),
        (("7",), 7),
        ((7, "de"), "7:de"),
        (("a:b", "c"), "a\\:b:c"),
        (("a", "b:c"), "a:b\\:c"),
        ((UUID(int=1), 2), f"{UUID(int=1)}:2"),
        (2**80, 2**80),
        (str(2**80), 2**80),
        (LocalProxy(lambda: "seven"), "seven"),
        ((LocalProxy(lambda: 7), "de"), "7:de"),
        ((7, date(2026, 11, 28)), "7:2026-11-28"),
        (datetime(2026, 11, 28, 12, 30), "2026-11-28T12:30:00"),
        (EVENING, "2026-11-28T12:30:00+00:00"),
        (time(12, 30), "12:30:00"),
        (Decimal(7), 7),
        (Decimal("7.00"), 7),
        (Decimal("1.50"), "1.5"),
        (Decimal(f"{2**100}.5"), f"{2**100}.5"),
        (IPv4Address("192.0.2.1"), "192.0.2.1"),
        (Team.RED, "red"),
        (Team.SEVENTH, 7),
        (Colour.RED, "red"),
        ((7, Colour.RED), "7:red"),
    ],
    ids=repr,
)
def test_each_identifier_has_one_normal_form(identifier: object, form: int | str) -> None:
    found = normal_form(identifier)
    assert found == form
    assert type(found) is type(form)


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        (True, "bool"),
        (np.True_, "not an id"),
        (-1, "negative"),
        (1.0, r"1\.0 \(float\) is not an id"),
        (None, "NoneType"),
        ("", "identifies nobody"),
        ("None", "identifies nobody"),
        (TextKey(""), "identifies nobody"),
        ((), "identifies nobody"),
        ((1, None), "NoneType"),
        (b"7", "bytes"),
        ([7], "list"),
        (Decimal(-1), "not a number of 0 or more"),
        (Decimal("NaN"), "not a number of 0 or more"),
        (Decimal("1e999999"), "not a number of 0 or more"),
        (timedelta(1), "timedelta"),
        ("x" * 513, "513 characters"),
    ],
    ids=repr,
)
def test_what_identifies_nobody_is_an_error(identifier: object, message: str) -> None:
    with pytest.raises(UnusableIdError, match=message):
        normal_form(identifier)


def test_object_ids_become_their_text() -> None:
    bson = pytest.importorskip("bson")
    object_id = bson.ObjectId("65f2c0ffee65f2c0ffee65f2")
    assert normal_form(object_id) == "65f2c0ffee65f2c0ffee65f2"


@given(st.integers(0))
def test_a_number_and_its_decimal_text_are_one_id(number: int) -> None:
    assert normal_form(number) == normal_form(str(number)) == number


parts = st.one_of(st.integers(0), st.text(min_size=1, max_size=20).filter(lambda t: t != "None"))


@given(st.tuples(parts, parts), st.tuples(parts, parts))
@example(("a:b", "c"), ("a", "b:c"))
@example(("a\\", "b"), ("a", "\\b"))
@example(("a\\", "b", "c"), ("a:b", "c"))
@example(("a\\:", "b"), ("a\\", ":b"))
def test_different_composite_keys_stay_different(
    one: tuple[int | str, ...], other: tuple[int | str, ...]
) -> None:
    same = tuple(map(normal_form, one)) == tuple(map(normal_form, other))
    assert (normal_form(one) == normal_form(other)) == same


class TestIdMap:
    """Dense offsets, agreed on by every process."""

    def test_offsets_are_dense_and_lasting(self, redis: Any) -> None:
        first = IdMap().offsets(redis, MAPPED, ["a", "b", "a", "c"])
        assert first == {"a": 0, "b": 1, "c": 2}
        assert IdMap().offsets(redis, MAPPED, ["d", "b"]) == {"d": 3, "b": 1}

    def test_a_batch_beyond_every_limit_of_lua_is_dense(self, redis: Any) -> None:
        ids = [f"user-{number}" for number in range(12_345)]
        offsets = IdMap().offsets(redis, MAPPED, ids)
        assert sorted(offsets.values()) == list(range(12_345))
        assert IdMap().ids(redis, MAPPED, [offsets[id_] for id_ in ids]) == ids

    def test_kinds_are_kept_apart(self, redis: Any) -> None:
        id_map = IdMap()
        assert id_map.offsets(redis, MAPPED, ["a", "b"]) == {"a": 0, "b": 1}
        assert id_map.offsets(redis, "mapped:posts", ["b"]) == {"b": 0}

    def test_a_thousand_known_ids_take_one_round_trip(self, redis: Any) -> None:
        ids = [f"user-{number}" for number in range(1_000)]
        IdMap().offsets(redis, MAPPED, ids)
        id_map = IdMap()
        id_map.offsets(redis, MAPPED, ids[:1])
        redis.config_resetstat()
        id_map.offsets(redis, MAPPED, ids)
        id_map.offsets(redis, MAPPED, ids)
        stats = redis.info("commandstats")
        assert stats["cmdstat_hmget"]["calls"] == 1
        assert "cmdstat_evalsha" not in stats

    def test_what_the_process_remembers_is_bounded(
        self, redis: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flask_bitmapist.id_map.known.CACHE_SIZE", 100)
        id_map, ids = IdMap(), [f"user-{number}" for number in range(1_000)]
        id_map.offsets(redis, MAPPED, ids)
        redis.config_resetstat()
        id_map.offsets(redis, MAPPED, ids[-100:])
        assert "cmdstat_hmget" not in redis.info("commandstats")
        id_map.offsets(redis, MAPPED, ids[-101:-100])
        assert redis.info("commandstats")["cmdstat_hmget"]["calls"] == 1

    def test_lookups_assign_nothing(self, redis: Any) -> None:
        IdMap().offsets(redis, MAPPED, ["a"])
        IdMap().offsets(redis, "mapped:rows", ["z", "a"])
        assert IdMap().lookup(redis, "a", [MAPPED, "mapped:rows", "mapped:none"]) == {
            MAPPED: 0,
            "mapped:rows": 1,
        }
        assert IdMap().lookup(redis, "y", [MAPPED, "mapped:rows"]) == {}
        assert IdMap().ids(redis, MAPPED, [0, 1]) == ["a", None]

    @pytest.mark.parametrize("trip", [10, 100_000])
    def test_ids_are_those_at_each_offset_whatever_lies_between(
        self, redis: Any, monkeypatch: pytest.MonkeyPatch, trip: int
    ) -> None:
        monkeypatch.setattr("flask_bitmapist.id_map._TRIP", trip)
        monkeypatch.setattr("flask_bitmapist.id_map.BATCH", 500)
        id_map, random = IdMap(), np.random.default_rng(1)
        id_map.offsets(redis, MAPPED, [f"user-{number}" for number in range(3_000)])
        for share in (0.0, 0.01, 0.2, 1.0):
            offsets = np.flatnonzero(random.random(3_200) < share)
            expected = [f"user-{offset}" if offset < 3_000 else None for offset in offsets]
            assert id_map.ids(redis, MAPPED, offsets) == expected
            assert id_map.ids(redis, MAPPED, reversed(offsets)) == expected[::-1]
        assert id_map.ids(redis, MAPPED, [5, 2, 5]) == ["user-5", "user-2", "user-5"]

    def test_many_ids_are_read_in_few_round_trips(
        self, redis: Any, round_trips: list[object]
    ) -> None:
        id_map = IdMap()
        id_map.offsets(redis, MAPPED, [f"user-{number}" for number in range(20_000)])
        round_trips.clear()
        assert id_map.ids(redis, MAPPED, range(0, 20_000, 4))[-1] == "user-19996"
        assert len(round_trips) == 1

    def test_the_process_forgets_the_ids_that_it_learnt_first(
        self, redis: Any, monkeypatch: pytest.MonkeyPatch, round_trips: list[object]
    ) -> None:
        monkeypatch.setattr("flask_bitmapist.id_map.known.CACHE_SIZE", 100)
        id_map = IdMap()
        id_map.offsets(redis, MAPPED, [f"user-{number}" for number in range(150)])
        round_trips.clear()
        id_map.offsets(redis, MAPPED, [f"user-{number}" for number in range(50, 150)])
        assert not round_trips
        id_map.offsets(redis, MAPPED, ["user-49"])
        assert round_trips

    @pytest.mark.parametrize("scripting", [True, False])
    def test_racing_processes_agree(self, redis_url: str, redis: Any, scripting: bool) -> None:
        if not scripting:
            redis_url = url_without_scripting(redis, redis_url)
        with WARM.Pool(RACERS) as pool:
            found = pool.starmap(racing_offsets, [(redis_url, seed) for seed in range(RACERS)])
        agreed: dict[str, int] = {}
        for offsets in found:
            for id_, offset in offsets.items():
                assert agreed.setdefault(id_, offset) == offset
        assert sorted(agreed.values()) == list(range(RACING))
        assert IdMap().ids(redis, MAPPED, agreed.values()) == list(agreed)

    def test_without_scripting_a_damaged_map_gives_no_offset(
        self, redis: Any, redis_url: str
    ) -> None:
        with redis_py.Redis.from_url(url_without_scripting(redis, redis_url)) as client:
            assert IdMap().offsets(client, MAPPED, ["a", "b"]) == {"a": 0, "b": 1}
            redis.rpop(map_keys(MAPPED).block(0))
            with pytest.raises(redis_py.ResponseError, match="the id map is damaged"):
                IdMap().offsets(client, MAPPED, ["c"])
            assert IdMap().offsets(client, MAPPED, ["b"]) == {"b": 1}


def url_without_scripting(redis: Any, url: str) -> str:
    """`url` as a user who may run no script."""
    redis.execute_command(
        "ACL", "SETUSER", "scriptless", "on", ">secret", "~*", "+@all", "-@scripting"
    )
    return f"{url}&username=scriptless&password=secret"


@pytest.fixture
def tracker_with(redis_url: str) -> Callable[..., Tracker]:
    def make(**options: Any) -> Tracker:
        app = Flask(__name__)
        return FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": redis_url, **options}).tracker

    return make


class TestModes:
    """``BITMAPIST_ID_MAP`` and ``BITMAPIST_MAX_ID``."""

    def test_always_maps_ints_and_lets_texts_join_them(
        self, tracker_with: Callable[..., Tracker]
    ) -> None:
        tracker = tracker_with(BITMAPIST_ID_MAP="always")
        mark_event("e", [2**63, "alice", 7, "7", TextKey("7")])
        assert list(bitmapist.DayEvents.from_date("e", tracker.now())) == [0, 1, 2]
        assert list(DayEvents("e")) == [2**63, "alice", 7]

    def test_never_refuses_texts_and_names_the_option(
        self, tracker_with: Callable[..., Tracker]
    ) -> None:
        tracker_with(BITMAPIST_ID_MAP="never")
        mark_event("e", [7, "8"])
        with pytest.raises(ValueError, match="'alice'.*BITMAPIST_ID_MAP is 'never'"):
            mark_event("e", "alice")

    def test_an_id_above_the_limit_is_refused_with_its_cost(
        self, tracker_with: Callable[..., Tracker], redis: Any
    ) -> None:
        tracker_with()
        with pytest.raises(ValueError, match="BITMAPIST_MAX_ID.*511 MiB"):
            mark_event("e", 2**32 - 1)
        assert redis.keys("*") == []

    def test_the_limit_can_be_raised(self, tracker_with: Callable[..., Tracker]) -> None:
        tracker = tracker_with(BITMAPIST_MAX_ID=1_000)
        mark_event("e", 1_000)
        with pytest.raises(ValueError, match="BITMAPIST_MAX_ID"):
            mark_event("e", 1_001)
        assert list(DayEvents.from_date("e", tracker.now())) == [1_000]

    def test_an_id_above_the_dense_limit_is_written_and_warned_of_once(
        self, tracker_with: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
    ) -> None:
        tracker = tracker_with(BITMAPIST_DENSE_LIMIT=1_000)
        mark_event("e", 1_000)
        assert not caplog.records
        mark_event("e", 1_001)
        mark_event("e", [1_002, 7])
        mark_event("e", np.array([8, 1_003]))
        (said,) = caplog.messages
        assert "'e'" in said
        assert 'BITMAPIST_ID_MAP="always"' in said
        assert [*DayEvents.from_date("e", tracker.now())] == [7, 8, *range(1_000, 1_004)]
        mark_event("f", [5, 1_004])
        assert [message.split()[0] for message in caplog.messages] == ["'e'", "'f'"]

    def test_an_id_far_from_all_others_is_warned_of(
        self, tracker_with: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
    ) -> None:
        tracker_with()
        mark_event("e", [3, 2_000_000])  # too few to tell
        mark_event("f", [*range(40)])
        mark_event("f", 1_000_000)  # 125 kB
        assert not caplog.records
        mark_event("g", [*range(40)])
        for id_ in (2_000_000, 3_000_000):
            mark_event("g", id_)
        (said,) = caplog.messages
        assert "'g' is marked with an id far above all others" in said
        assert "0.3 MB" in said

    def test_mapped_ids_are_never_warned_of(
        self, tracker_with: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
    ) -> None:
        tracker_with(BITMAPIST_ID_MAP="always", BITMAPIST_DENSE_LIMIT=1)
        mark_event("e", [2**63, 5, 6, "alice"])
        unmark_event("e", 2**63)
        assert not caplog.records

    def test_a_full_map_refuses_what_does_not_fit(
        self, tracker_with: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
    ) -> None:
        tracker = tracker_with(BITMAPIST_MAX_ID=1)
        mark_event("e", ["a", "b", "c"])
        assert "above BITMAPIST_MAX_ID" in caplog.text
        assert list(DayEvents.from_date("e", tracker.now())) == ["a", "b"]


@pytest.fixture
def process(redis_url: str, tmp_path: Path) -> Callable[[], Tracker]:
    """Gives the tracker of a process that remembers nothing."""

    def start() -> Tracker:
        app = Flask("process", instance_path=str(tmp_path))
        return FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": redis_url}).tracker_of(app)

    return start


def test_an_index_that_was_evicted_is_made_anew(process: Callable[[], Tracker], redis: Any) -> None:
    ids = [f"user {n}" for n in range(9_000)]
    process().record([("e", id_) for id_ in ids])
    redis.delete(map_keys(MAPPED).index)
    tracker = process()
    with pytest.raises(redis_py.ResponseError, match="not complete.*flask bitmapist reindex"):
        tracker.reader.offset_of(ids[70], MAPPED)
    tracker.record([("e", "new"), ("e", ids[70])])
    assert tracker.reader.ids_at(range(9_001), MAPPED) == [*ids, "new"]
    assert tracker.reader.offset_of(ids[70], MAPPED) == 70
    assert tracker.reader.offset_of("new", MAPPED) == 9_000


def test_a_damaged_map_gives_no_offset_of_somebody_else(
    process: Callable[[], Tracker], redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = process()
    tracker.record([("e", "a"), ("e", "b")])
    order = map_keys(MAPPED).block(0)
    redis.rpop(order)
    tracker.record([("e", "c")])
    assert "the id map is damaged" in caplog.text
    redis.rpush(order, "b")
    assert tracker.flush()
    assert tracker.reader.ids_at([0, 1, 2], MAPPED) == ["a", "b", "c"]


def test_a_class_that_is_only_called_object_id_is_none() -> None:
    class ObjectId:
        pass

    with pytest.raises(UnusableIdError, match="not an id"):
        normal_form(ObjectId())
