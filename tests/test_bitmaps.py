"""Bitmaps agree with Python's sets, with Redis and with bitmapist; reading takes one round trip."""

from __future__ import annotations

import weakref
from typing import Any

import bitmapist
import numpy as np
import pytest
import redis as redis_py
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist.reading import bitmaps
from flask_bitmapist.reading.bitmap import EMPTY, Bitmap, UnionSoFar, union
from flask_bitmapist.reading.bitmaps import Bitmaps, counts, parts, slices, tally

offset_sets = st.frozensets(st.integers(0, 300))


def redis_bytes(offsets: frozenset[int]) -> bytes:
    """What SETBIT leaves behind: a string as long as the largest offset needs."""
    value = bytearray(max(offsets, default=-1) // 8 + 1)
    for offset in offsets:
        value[offset // 8] |= 128 >> offset % 8
    return bytes(value)


def bitmap(offsets: frozenset[int]) -> Bitmap:
    return Bitmap.from_bytes(redis_bytes(offsets))


def narrowed(offsets: frozenset[int], padding: int) -> Bitmap:
    """The same set, of fewer words: without those of zeros before it, up to `padding`."""
    whole = bitmap(offsets)
    first = max(0, min(offsets, default=0) // 64 - padding)
    return Bitmap(whole.words[first:], first)


@given(offset_sets, offset_sets)
def test_bitmaps_combine_as_sets_do_whatever_their_lengths(
    left: frozenset[int], right: frozenset[int]
) -> None:
    for combined, expected in (
        (bitmap(left) & bitmap(right), left & right),
        (bitmap(left) | bitmap(right), left | right),
        (bitmap(left) - bitmap(right), left - right),
        (bitmap(left) ^ bitmap(right), left ^ right),
    ):
        assert combined.ids().tolist() == sorted(expected)
        assert len(combined) == len(expected)
        assert bool(combined) == bool(expected)
        assert combined == bitmap(expected)
    assert (bitmap(left) == bitmap(right)) == (left == right)


@pytest.fixture(params=["NumKong", "NumPy"])
def counting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are the same with the extra `fast` and without."""
    if request.param == "NumPy":
        monkeypatch.setattr("flask_bitmapist.reading.bitmap._dot", None)
    else:
        pytest.importorskip("numkong")


@pytest.mark.usefixtures("counting")
@given(offset_sets, offset_sets, st.integers(0, 2), st.integers(0, 2), st.integers(-20, 400))
def test_bitmaps_combine_wherever_their_words_begin(
    left: frozenset[int], right: frozenset[int], before: int, between: int, asked: int
) -> None:
    one, other = narrowed(left, before), narrowed(right, between)
    for combined, expected in (
        (one & other, left & right),
        (one | other, left | right),
        (one - other, left - right),
        (one ^ other, left ^ right),
    ):
        assert combined.ids().tolist() == sorted(expected)
        assert len(combined) == len(expected)
        assert (asked in combined) == (asked in expected)
        parts = [combined.part(begin, begin + 2) for begin in range(0, 6, 2)]
        offsets = [part.ids() + 128 * number for number, part in enumerate(parts)]
        assert np.concatenate(offsets).tolist() == sorted(expected)
    assert one.common(other) == len(left & right)
    assert (one == other) == (left == right)


@given(offset_sets, st.integers(-20, 400))
def test_a_bitmap_contains_its_offsets_and_no_others(offsets: frozenset[int], asked: int) -> None:
    assert (asked in bitmap(offsets)) == (asked in offsets)


@given(st.lists(offset_sets, max_size=5))
def test_a_union_holds_what_any_of_its_bitmaps_holds(sets: list[frozenset[int]]) -> None:
    assert union(map(bitmap, sets)).ids().tolist() == sorted(frozenset().union(*sets))


@given(st.lists(st.tuples(offset_sets, st.integers(0, 2)), max_size=5))
def test_a_union_so_far_holds_all_that_have_come_wherever_their_words_begin(
    sets: list[tuple[frozenset[int], int]],
) -> None:
    given, so_far = [narrowed(*each) for each in sets], UnionSoFar()
    for users in given:
        so_far.add(users)
    expected = sorted(frozenset().union(*(offsets for offsets, _ in sets)))
    assert so_far.bitmap().ids().tolist() == expected
    assert [users.ids().tolist() for users in given] == [sorted(offsets) for offsets, _ in sets]


@given(st.binary(max_size=40))
def test_every_string_that_redis_may_hold_is_a_bitmap(value: bytes) -> None:
    offsets = [i for i in range(8 * len(value)) if value[i // 8] & (128 >> i % 8)]
    assert Bitmap.from_bytes(value).ids().tolist() == offsets


def test_combining_leaves_the_operands_as_they_were() -> None:
    left, right = bitmap(frozenset({1, 200})), bitmap(frozenset({1, 2}))
    left &= right  # a new value under an old name
    assert right.ids().tolist() == [1, 2]
    assert left.ids().tolist() == [1]


def test_the_words_of_a_bitmap_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        (bitmap(frozenset({1})) | EMPTY).words[0] = 0


def test_a_bitmap_is_neither_a_key_nor_a_set() -> None:
    assert bitmap(frozenset({1})) != {1}
    with pytest.raises(TypeError, match="unhashable"):
        hash(EMPTY)


def test_a_bitmap_prints_its_size_and_not_its_bits() -> None:
    assert repr(bitmap(frozenset({1, 70}))) == "<Bitmap of 2 in 16 bytes>"


def test_ids_are_an_array_in_ascending_order() -> None:
    ids = bitmap(frozenset({64, 3, 0})).ids()
    assert isinstance(ids, np.ndarray)
    assert ids.tolist() == [0, 3, 64]
    assert EMPTY.ids().size == 0


def test_fetched_bits_are_those_that_redis_set(redis: Any) -> None:
    for offset in (0, 7, 8, 63, 64, 1000):
        redis.setbit("bits", offset, 1)
    (fetched,) = slices(redis, ["bits", "missing"])
    assert fetched["bits"].ids().tolist() == [0, 7, 8, 63, 64, 1000]
    assert fetched["missing"] == EMPTY


def test_fetched_bits_are_those_that_bitmapist_reads(redis: Any, app: Flask) -> None:
    with app.app_context():
        for user in (1, 2, 9, 512):
            bitmapist.mark_event("song:played", user, system="default")
        collection = bitmapist.DayEvents("song:played")
        (found,) = slices(redis, [collection.redis_key])
        fetched = found[collection.redis_key]
        assert fetched.ids().tolist() == list(collection)
        assert len(fetched) == len(collection)
        assert all((user in fetched) == (user in collection) for user in range(600))


def test_combinations_agree_with_the_operations_of_bitmapist(redis: Any, app: Flask) -> None:
    with app.app_context():
        for user in (1, 2, 300):
            bitmapist.mark_unique("left", user)
        for user in (2, 3):
            bitmapist.mark_unique("right", user)
        left, right = bitmapist.UniqueEvents("left"), bitmapist.UniqueEvents("right")
        (ours,) = slices(redis, [left.redis_key, right.redis_key])
        mine, other = ours[left.redis_key], ours[right.redis_key]
        assert (mine & other).ids().tolist() == list(left & right)
        assert (mine | other).ids().tolist() == list(left | right)
        assert (mine ^ other).ids().tolist() == list(left ^ right)
        bitmapist.delete_runtime_bitop_keys()


def test_counts_are_those_of_the_bitmaps(redis: Any) -> None:
    for offset in (5, 6, 99):
        redis.setbit("bits", offset, 1)
    assert counts(redis, ["bits", "missing"]) == {"bits": 3, "missing": 0}


def test_counting_asks_for_every_key_once_and_in_one_round_trip(
    redis: Any, round_trips: list[object]
) -> None:
    redis.config_resetstat()
    round_trips.clear()
    found = counts(redis, (key for key in ["a", "b", "a", "c", "b"]))
    assert list(found) == ["a", "b", "c"]
    assert len(round_trips) == 1
    assert redis.info("commandstats")["cmdstat_bitcount"]["calls"] == 3


def test_counting_nothing_asks_nobody() -> None:
    nobody = redis_py.Redis(host="nowhere.invalid")
    assert counts(nobody, []) == {}


def test_a_client_that_decodes_replies_still_reads_bitmaps(redis: Any, redis_url: str) -> None:
    redis.setbit("bits", 0, 1)  # the byte 0x80 is no UTF-8
    decoding = redis_py.Redis.from_url(redis_url, decode_responses=True)
    (found,) = slices(decoding, ["bits"])
    assert found["bits"].ids().tolist() == [0]
    assert counts(decoding, ["bits"]) == {"bits": 1}
    decoding.close()


def test_a_key_that_holds_no_string_is_an_error(redis: Any) -> None:
    redis.hset("hash", "field", "value")
    with pytest.raises(redis_py.ResponseError, match="WRONGTYPE"):
        next(slices(redis, ["hash"]))


@pytest.mark.parametrize("decoding", [False, True])
@pytest.mark.parametrize("in_cluster", [False, True])
@pytest.mark.parametrize("budget", [4, 2**28], ids=["sliced", "whole"])
@pytest.mark.parametrize("many", [0, 2**28], ids=["long", "short"])
def test_slices_hold_every_bit_of_every_key(
    redis: Any,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    many: int,
    budget: int,
    in_cluster: bool,
    decoding: bool,
) -> None:
    monkeypatch.setattr(bitmaps, "_MANY_BYTES", many)
    monkeypatch.setattr(bitmaps, "BUDGET", budget)
    monkeypatch.setattr(bitmaps, "_SLICE_UNIT", 8)
    if in_cluster:
        monkeypatch.setattr(bitmaps, "RedisCluster", redis_py.Redis)
        monkeypatch.setattr(bitmaps, "read_words", lambda *_: None)
    offsets = {"a": {0, 7, 64, 200}, "b": {9}, "c": {127}, "d": {1, 511, 512}, "missing": set()}
    for key, users in offsets.items():
        for user in users:
            redis.setbit(key, user, 1)
    client = redis_py.Redis.from_url(redis_url, decode_responses=decoding)
    found: dict[str, set[int]] = {key: set() for key in offsets}
    for part in slices(client, offsets):
        for key in offsets:
            found[key] |= set((part[key].ids() + part.first_offset).tolist())
    assert found == offsets
    client.set("text", "as before")
    assert client.get("text") == ("as before" if decoding else b"as before")
    client.close()


def test_bitmaps_that_have_grown_long_are_measured_the_next_time(
    redis: Any, round_trips: list[object]
) -> None:
    redis.set("x", b"\x80")
    read = []
    for _ in range(4):
        round_trips.clear()
        (found,) = slices(redis, ["x"])
        read.append((found["x"].words.size, len(round_trips)))
        redis.setbit("x", 2**23, 1)
    assert read == [(1, 2), (2**17 + 1, 1), (2**17 + 1, 2), (2**17 + 1, 2)]


USED = {"a": 2, "b": 1, "missing": 1}


def counted_one_by_one(redis: Any, seen: list[Any]) -> list[int]:
    """What is in some bitmaps and in "member", each looked at when the one before is done with.

    :param seen: takes what becomes of their words.
    """

    def count(found: Bitmaps) -> list[int]:
        member, counts = found["member"], []
        for keys in (["a"], ["a", "b"], ["missing"]):
            users = union(found[key] for key in keys)
            counts += [len(users), users.common(member)]
            seen.append([weakref.ref(found[key].words) for key in keys])
            del users
            found.leave(keys)
        return counts

    return tally(redis, ["member", *USED, "unasked"], count, uses=USED)


@pytest.mark.parametrize("arriving", [False, True])
@pytest.mark.parametrize("budget", [16, 2**28], ids=["sliced", "whole"])
@pytest.mark.parametrize("many", [0, 2**28], ids=["long", "short"])
def test_what_is_counted_one_by_one_is_the_same_however_it_is_read(
    redis: Any, monkeypatch: pytest.MonkeyPatch, many: int, budget: int, arriving: bool
) -> None:
    monkeypatch.setattr(bitmaps, "_MANY_BYTES", many)
    monkeypatch.setattr(bitmaps, "BUDGET", budget)
    monkeypatch.setattr(bitmaps, "_SLICE_UNIT", 8)
    if not arriving:
        monkeypatch.setattr(bitmaps, "read_each", lambda *_: None)
    offsets = {"a": {0, 7, 64, 200}, "b": {9}, "member": {7, 9, 600}, "unasked": {1}}
    for key, users in offsets.items():
        for user in users:
            redis.setbit(key, user, 1)
    for _ in range(2):
        assert counted_one_by_one(redis, []) == [4, 1, 5, 2, 0, 0]
    assert redis.ping(), "no reply is left for whoever comes next"


def test_what_is_left_is_held_no_longer(redis: Any, round_trips: list[object]) -> None:
    for key in ("a", "b", "member", "unasked"):
        redis.setbit(key, 2**23, 1)
    round_trips.clear()
    seen: list[Any] = []
    counted_one_by_one(redis, seen)
    assert len(round_trips) == 2
    # What is missing is the one empty set.
    assert [[words() for words in step] for step in seen[:2]] == [[None], [None, None]]


def test_a_fault_in_counting_leaves_no_reply_behind(redis: Any) -> None:
    for key in ("a", "b"):
        redis.setbit(key, 2**23, 1)

    def count(found: Bitmaps) -> list[int]:
        raise ArithmeticError(len(found["a"]))

    with pytest.raises(ArithmeticError, match="1"):
        tally(redis, ["a", "b"], count, uses={"a": 1, "b": 1})
    assert redis.ping()


def test_an_error_among_what_is_counted_one_by_one_is_raised_by_redis_py(redis: Any) -> None:
    redis.setbit("a", 2**23, 1)
    redis.hset("b", "field", "value")
    with pytest.raises(redis_py.ResponseError, match="WRONGTYPE"):
        counted_one_by_one(redis, [])


@pytest.mark.parametrize("budget", [16, 2**28], ids=["sliced", "whole"])
def test_of_long_bitmaps_only_what_is_needed_is_read(
    redis: Any, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    monkeypatch.setattr(bitmaps, "_MANY_BYTES", 0)
    monkeypatch.setattr(bitmaps, "BUDGET", budget)
    monkeypatch.setattr(bitmaps, "_SLICE_UNIT", 8)
    offsets = {"a": {130, 200}, "b": {0, 131, 199, 600}, "unneeded": {140}, "missing": set()}
    for key, users in offsets.items():
        for user in users:
            redis.setbit(key, user, 1)
    redis.set("zeros", b"\0" * 30)
    seen: list[list[tuple[int, ...]]] = []

    def where_a_is(extents: bitmaps.Extents) -> dict[str, bitmaps.Extent]:
        seen.append([tuple(extents[key]) for key in (*offsets, "zeros")])
        return {"a": extents["a"], "b": extents["a"] & extents["b"]}

    found: dict[str, set[int]] = {key: set() for key in offsets}
    for part in slices(redis, [*offsets, "zeros"], where_a_is):
        for key in offsets:
            found[key] |= set((part[key].ids() + part.first_offset).tolist())
    assert seen == [[(2, 4), (0, 10), (2, 3), (0, 0), (0, 0)]]
    assert found == {"a": {130, 200}, "b": {131, 199}, "unneeded": set(), "missing": set()}


def test_between_two_users_far_apart_there_are_no_parts(redis: Any) -> None:
    for user in (3, 2**27 - 1):
        redis.setbit("x", user, 1)
    redis.setbit("y", 4, 1)
    found = [(part.first_offset, part["x"].ids().tolist()) for part in parts(redis, ["x", "y"])]
    assert [[first + n for n in ids] for first, ids in found] == [[3], [2**27 - 1]]


@pytest.mark.parametrize("stored", [None, b"", b"\0" * 300_000])
def test_of_bitmaps_without_anybody_there_is_one_part(redis: Any, stored: bytes | None) -> None:
    if stored is not None:
        redis.set("x", stored)
    (part,) = parts(redis, ["x"])
    assert len(part["x"]) == 0


def test_another_reading_does_not_disturb_one_that_is_under_way(
    redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bitmaps, "_MANY_BYTES", 0)
    monkeypatch.setattr(bitmaps, "BUDGET", 8)
    monkeypatch.setattr(bitmaps, "_SLICE_UNIT", 8)
    monkeypatch.setattr(bitmaps, "_MOST_MEASURED", 0)
    for user in (3, 70):
        redis.setbit("x", user, 1)
    reading = slices(redis, ["x"])
    assert len(next(reading)["x"]) == 1
    assert len([*slices(redis, ["y"])]) == 1  # forgets how long "x" is
    assert len(next(reading)["x"]) == 1


def test_more_offsets_than_16_bits_hold_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_bitmapist.reading.bitmap._dot", None)
    full = Bitmap.from_bytes(b"\xff" * 2**14)
    assert len(full) == full.common(full) == 2**17
