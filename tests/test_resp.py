"""What is packed by hand is what redis-py would send."""

from __future__ import annotations

from typing import Any

import pytest
import redis as redis_py
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist.delivery.bits import Bits
from flask_bitmapist.resp import packed, packed_alike, packed_with
from flask_bitmapist.trip import Questions, Trip, _joined

arguments = st.one_of(st.text(), st.binary(), st.integers())
offsets = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.booleans()), min_size=1, max_size=20)


def by_redis(*command: Any) -> bytes:
    return b"".join(redis_py.Connection().pack_command(*command))


class Sent(Trip):
    """Commands that are looked at instead of being sent."""

    def __init__(self, *, packs: bool) -> None:
        super().__init__(redis_py.Redis() if packs else None)

    @property
    def packed(self) -> bytes:
        return b"".join(_joined(self._packed))


@given(st.lists(arguments))
def test_commands_are_packed_as_redis_py_packs_them(following: list[Any]) -> None:
    assert packed("SET", *following) == by_redis("SET", *following)


@given(st.text(), st.lists(st.text()))
def test_keys_that_begin_alike_are_packed_as_one_command(begin: str, endings: list[str]) -> None:
    in_order = sorted(endings, key=lambda ending: endings_of_length(endings, ending))
    alone = by_redis("EXISTS", *(begin + ending for ending in in_order))
    assert packed_alike("EXISTS", begin, tuple(endings)) == alone


def endings_of_length(endings: list[str], ending: str) -> int:
    """The place of the first of `endings` that is as long as `ending`."""
    return [len(other.encode()) for other in endings].index(len(ending.encode()))


@given(st.lists(arguments), st.lists(st.text()))
def test_questions_about_names_are_packed_as_redis_py_packs_them(
    head: list[Any], names: list[str]
) -> None:
    heads = [("HMGET", *head), ("ZMSCORE",)]
    alone = by_redis("HMGET", *head, *names) + by_redis("ZMSCORE", *names)
    assert b"".join(Questions(heads, names).packed()) == alone


@given(st.binary(max_size=100_000))
def test_a_long_argument_is_packed_beside_its_command(body: bytes) -> None:
    assert b"".join(packed_with("SET", "k", body=body)) == by_redis("SET", "k", body)


@given(offsets, st.booleans(), st.text(min_size=1))
def test_bits_are_the_same_packed_and_as_a_command(
    bits: list[tuple[int, bool]], all_set: bool, key: str
) -> None:
    listed, values = zip(*bits, strict=True)
    written = Bits(listed, None if all_set else values)
    by_hand, by_client = Sent(packs=True), Sent(packs=False)
    for trip in (by_hand, by_client):
        written.queue(trip, key)
    (command,) = by_client.commands
    assert by_hand.packed == by_redis(*command)
    assert by_hand.commands == [command[:2]]


def test_what_was_written_can_be_restored(redis: Any) -> None:
    redis.setbit("k", 3, 1)
    before = redis.get("k")
    for bits in (
        Bits([3, 4, 9], [False, True, False]),
        Bits([5]),
        Bits([3], [False]),
        Bits([7, 7, 3]),
        Bits([7, 7, 3, 3], [True, False, False, True]),
    ):
        trip = Trip(redis)
        bits.queue(trip, "k")
        (reply,) = trip.execute()
        former = bits.restoring(reply)
        assert former is not None
        back = Trip(redis)
        former.queue(back, "k")
        back.execute()
        assert redis.get("k").rstrip(b"\0") == before
    assert Bits([3]).restoring(1) is None
    assert Bits([3]).restoring(redis_py.ResponseError("no")) is None


def test_an_error_among_the_replies_names_its_command(redis: Any) -> None:
    redis.set("k", "text")
    trip = Trip(redis)
    trip.execute_command("SETBIT", "b", 1, 1)
    trip.execute_command("LPUSH", "k", 1)
    assert isinstance(trip.execute()[1], redis_py.ResponseError)
    with pytest.raises(redis_py.ResponseError, match="WRONGTYPE") as caught:
        trip.check()
    assert caught.value.__notes__ == ["in reply to LPUSH k"]
