"""How the id map is kept: its form, what it takes, and how an earlier build's is taken over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis as redis_py
from hypothesis import example, given
from hypothesis import strategies as st

from flask_bitmapist import analytics
from flask_bitmapist.id_map import IdMap
from flask_bitmapist.id_map.assigning import build
from flask_bitmapist.id_map.faults import DamagedMapError, IncompleteMapError
from flask_bitmapist.id_map.index import LOAD, RECORD, buckets, entry, offset_in, restored, stored
from flask_bitmapist.id_map.keys import BLOCK, map_keys
from flask_bitmapist.id_map.known import STATES
from flask_bitmapist.ids import MAPPED
from flask_bitmapist.tracker import Tracker

KEYS = map_keys(MAPPED)
NOON = datetime(2026, 3, 14, 12)


def uuids(size: int) -> list[str]:
    return [str(uuid4()) for _ in range(size)]


texts = st.one_of(
    st.text(min_size=1).filter(lambda text: text.isprintable()),
    st.uuids().map(str),
    st.uuids().map(lambda id_: str(id_).upper()),
    st.uuids().map(lambda id_: id_.hex),
    st.text("0123456789abcdef", min_size=24, max_size=24),
    st.text("0123456789abcdef", min_size=12, max_size=16),
    st.text("é", min_size=5, max_size=9),
)


@given(texts, texts)
@example(str(UUID(bytes=b"0123456789abcdef")), "0123456789abcdef")
@example(b"0123456789ab".hex(), "0123456789ab")
@example("0123456789abcdef", "x0123456789abcdef")
def test_each_id_has_a_stored_form_of_its_own(one: str, other: str) -> None:
    assert restored(stored(one)) == one
    assert (stored(one) == stored(other)) == (one == other)


def test_a_uuid_takes_at_most_a_third_of_what_a_hash_and_a_list_take(redis: Any) -> None:
    ids = uuids(10_000)
    IdMap().offsets(redis, MAPPED, ids)
    earlier_map(redis, "mapped:earlier", ids)
    used = {kind: memory(redis, kind) for kind in (MAPPED, "mapped:earlier")}
    assert used[MAPPED] <= 38 * len(ids)
    assert used[MAPPED] <= used["mapped:earlier"] / 2.8


def memory(redis: Any, kind: str) -> int:
    """The bytes of a map."""
    begin = map_keys(kind).index.removesuffix("index")
    return sum(redis.memory_usage(key, samples=0) for key in redis.keys(f"{begin}*"))


def earlier_map(redis: Any, kind: str, ids: Sequence[str]) -> None:
    """The map of `ids` that an earlier build has left."""
    keys = map_keys(kind)
    for first in range(0, len(ids), 5_000):
        part = ids[first : first + 5_000]
        redis.rpush(keys.order, *part)
        redis.hset(keys.former, mapping={id_: first + n for n, id_ in enumerate(part)})


def scriptless(redis: Any, url: str) -> redis_py.Redis:
    redis.execute_command(
        "ACL", "SETUSER", "scriptless", "on", ">secret", "~*", "+@all", "-@scripting"
    )
    return redis_py.Redis.from_url(f"{url}&username=scriptless&password=secret")


def contents(redis: Any, kind: str) -> tuple[dict[bytes, bytes], list[bytes]]:
    """The buckets of a map, and its order."""
    keys = map_keys(kind)
    index = redis.hgetall(keys.index)
    order = [id_ for n in range(9) for id_ in redis.lrange(keys.block(n * BLOCK), 0, -1)]
    return {field: value for field, value in index.items() if field.isdigit()}, order


def test_the_transaction_does_what_the_script_does(redis: Any, redis_url: str) -> None:
    ids = [*uuids(9_000), *(f"user {n}" for n in range(1_000))]
    with scriptless(redis, redis_url) as client:
        for first, last in ((0, 1), (1, 30), (20, 1_000), (500, 6_000), (5_000, 10_000)):
            part = ids[first:last]
            by_script = IdMap().offsets(redis, "mapped:script", part)
            assert IdMap().offsets(client, "mapped:transaction", part) == by_script
    index, order = contents(redis, "mapped:script")
    assert contents(redis, "mapped:transaction") == (index, order)
    assert order == [*map(stored, ids)]
    assert {*index} == {b"%d" % n for n in range(len(ids) // LOAD + 1)}


def test_each_id_is_in_its_bucket_however_far_the_index_has_grown(redis: Any) -> None:
    ids, id_map = uuids(3_000), IdMap()
    sizes = [*range(1, 100, 7), *range(200, 3_001, 700)]
    for before, size in zip([0, *sizes], sizes, strict=False):
        id_map.offsets(redis, MAPPED, ids[before:size])
        index = redis.hgetall(KEYS.index)
        entries = [entry(stored(id_)) for id_ in ids[:size]]
        digests = [digest for _, digest in entries]
        found = [
            offset_in(index.get(b"%d" % number), digest)
            for number, digest in zip(buckets(digests, size), digests, strict=True)
        ]
        assert found == [*range(size)]


def test_one_process_sees_what_others_have_added_however_much_the_index_grew(redis: Any) -> None:
    ids, one = uuids(5_000), IdMap()
    one.offsets(redis, MAPPED, ids[:10])
    IdMap().offsets(redis, MAPPED, ids)
    assert one.lookup(redis, ids[4_000], [MAPPED]) == {MAPPED: 4_000}
    assert one.offsets(redis, MAPPED, ids[::-1]) == {id_: n for n, id_ in enumerate(ids)}


def test_a_client_that_decodes_replies_reads_and_writes_the_map(redis_url: str) -> None:
    ids = uuids(100)
    with redis_py.Redis.from_url(redis_url, decode_responses=True) as client:
        assert IdMap().offsets(client, MAPPED, ids) == {id_: n for n, id_ in enumerate(ids)}
        assert IdMap().ids(client, MAPPED, range(100)) == ids
        assert IdMap().lookup(client, ids[7], [MAPPED]) == {MAPPED: 7}


def mark(tracker: Tracker, event: str, *ids: object) -> None:
    tracker.record([(event, id_, True, True, NOON) for id_ in ids])


def who(tracker: Tracker, event: str) -> list[Any]:
    return list(analytics.users(event, at=NOON, by="month", tracker=tracker))


def test_a_state_that_the_map_has_forgotten_costs_a_look_up(
    redis: Any, redis_url: str, process: Callable[..., Tracker]
) -> None:
    one, other = process(redis_url), process(redis_url)
    mark(one, "e", "a")
    mark(other, "e", *uuids(STATES))  # which has the place of the state in which one knew 'a'
    mark(one, "late", "a", "b")
    assert who(other, "late") == ["a", "b"]
    assert one.stats().spooled == 0


@pytest.mark.parametrize("scripting", [True, False])
def test_a_map_of_an_earlier_build_is_taken_over_by_the_first_mark(
    redis: Any, redis_url: str, process: Callable[..., Tracker], scripting: bool
) -> None:
    ids = [*uuids(BLOCK + 100), "ann", "a" * 16]
    earlier_map(redis, MAPPED, ids)
    if not scripting:
        scriptless(redis, redis_url)
        redis_url += "&username=scriptless&password=secret"
    tracker = process(redis_url)
    mark(tracker, "e", "new", "ann")
    assert tracker.reader.ids_at(range(len(ids) + 1), MAPPED) == [*ids, "new"]
    assert tracker.reader.offset_of("new", MAPPED) == len(ids)
    assert tracker.reader.offset_of("ann", MAPPED) == len(ids) - 2
    assert who(tracker, "e") == ["ann", "new"]


@pytest.mark.parametrize("begun", [False, True], ids=["first", "second"])
def test_an_earlier_build_gets_an_error_and_no_offset(redis: Any, begun: bool) -> None:
    if begun:
        earlier_map(redis, MAPPED, ["a", "b"])
    IdMap().offsets(redis, MAPPED, ["c"])
    for command in (
        ("HMGET", KEYS.former, "a"),
        ("HLEN", KEYS.former),
        ("LLEN", KEYS.order),
        ("LRANGE", KEYS.order, 0, 9),
    ):
        with pytest.raises(redis_py.ResponseError, match="WRONGTYPE"):
            redis.execute_command(*command)
    assert b"stop the processes that run an earlier" in redis.get(KEYS.former)


def test_a_reader_does_not_take_an_earlier_map_for_an_empty_one(
    redis: Any, redis_url: str, process: Callable[..., Tracker]
) -> None:
    ids = uuids(10)
    tracker = process(redis_url)
    mark(tracker, "e", *ids)
    mark(tracker, "plain", 1)
    redis.delete(*redis.keys("flask_bitmapist:{ids}*"))
    earlier_map(redis, MAPPED, ids)
    reader = process(redis_url)
    for read in (
        lambda: reader.reader.offset_of(ids[3], MAPPED),
        lambda: reader.reader.ids_at([3], MAPPED),
        lambda: who(reader, "e"),
    ):
        with pytest.raises(IncompleteMapError, match="Run: flask bitmapist reindex"):
            read()
    assert process(redis_url).reindex() == []
    assert who(reader, "e") == ids


def test_gaps_of_erased_people_are_taken_over(redis: Any) -> None:
    earlier_map(redis, MAPPED, ["a", "b", "c"])
    gap = b"\xff1"
    redis.lset(KEYS.order, 1, gap)
    redis.hdel(KEYS.former, "b")
    redis.hset(KEYS.former, gap, 1)
    id_map = IdMap()
    assert id_map.offsets(redis, MAPPED, ["c", "b"]) == {"c": 2, "b": 3}
    assert id_map.ids(redis, MAPPED, range(4)) == ["a", None, "c", "b"]


def test_an_offset_that_was_retired_is_known_to_nobody_else(redis: Any) -> None:
    one, other = IdMap(), IdMap()
    before = one.offsets(redis, MAPPED, ["a", "b"])
    other.offsets(redis, MAPPED, ["c"])
    assert other.retire(redis, MAPPED, {"a": 0}) == set()
    assert before.state is not None
    assert redis.hget(KEYS.index, before.state.field) is None
    assert one.offsets(redis, MAPPED, ["a", "b", "d"]) == {"a": 3, "b": 1, "d": 4}
    assert one.ids(redis, MAPPED, range(5)) == [None, "b", "c", "a", "d"]


def test_separate_maps_are_taken_over_separately(
    redis: Any, redis_url: str, process: Callable[..., Tracker]
) -> None:
    tracker = process(redis_url)
    for space, ids in (("", ["a", "b"]), ("posts", ["b", "c"])):
        kind = f"mapped:{space}".removesuffix(":")
        earlier_map(redis, kind, ids)
        redis.hset("flask_bitmapist:events", f"e{space}", kind)
    tracker.reindex()
    assert tracker.reader.ids_at([0, 1], MAPPED) == ["a", "b"]
    assert tracker.reader.ids_at([0, 1], "mapped:posts") == ["b", "c"]


class SeveredError(Exception):
    """The process is killed: nothing more of it reaches the server."""


@pytest.fixture
def severing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """One number: how many commands, or pipelines of them, may still be sent."""
    left: list[int] = []
    send: Any = redis_py.Connection.send_packed_command

    def counted(connection: Any, *args: Any, **options: Any) -> Any:
        if left:
            if not left[0]:
                raise SeveredError
            left[0] -= 1
        return send(connection, *args, **options)

    for kind in (redis_py.Connection, redis_py.UnixDomainSocketConnection):
        monkeypatch.setattr(kind, "send_packed_command", counted)
    yield left
    left.clear()


@pytest.mark.parametrize("lost", ["earlier map", "index"])
def test_taking_over_may_be_killed_at_each_step(
    redis: Any, redis_url: str, severing: list[int], lost: str
) -> None:
    ids = uuids(BLOCK + 3)
    if lost == "index":
        IdMap().offsets(redis, MAPPED, ids)
        redis.delete(KEYS.index)
    else:
        earlier_map(redis, MAPPED, ids)
    for killed in count():
        severing.clear()
        with redis_py.Redis.from_url(redis_url) as client:
            client.ping()
            severing[:] = [killed]  # so that each step is the last one of some process
            with suppress(SeveredError):
                found = IdMap().offsets(client, MAPPED, ["new", ids[-1]])
                break
    severing.clear()
    assert killed > 8
    assert found == {"new": BLOCK + 3, ids[-1]: BLOCK + 2}
    assert IdMap().ids(redis, MAPPED, range(BLOCK + 5)) == [*ids, "new", None]
    index, _ = contents(redis, MAPPED)
    assert sum(map(len, index.values())) == RECORD * (BLOCK + 4)


@pytest.mark.parametrize("scripting", [True, False])
def test_those_who_race_take_a_map_over_once(redis: Any, redis_url: str, scripting: bool) -> None:
    earlier = [*uuids(BLOCK), *(f"user-{n}" for n in range(10))]
    earlier_map(redis, MAPPED, earlier)
    if not scripting:
        scriptless(redis, redis_url).close()
        redis_url += "&username=scriptless&password=secret"

    def race(_: int) -> dict[str, int]:
        with redis_py.Redis.from_url(redis_url) as client:
            return IdMap().offsets(client, MAPPED, [f"user-{n}" for n in range(100)])

    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(race, range(8))]
    assert all(offsets == found[0] for offsets in found)
    ids = [*earlier, *(f"user-{n}" for n in range(10, 100))]
    assert IdMap().ids(redis, MAPPED, range(len(ids) + 1)) == [*ids, None]
    assert {id_: ids[offset] for id_, offset in found[0].items()} == {id_: id_ for id_ in found[0]}


@pytest.mark.parametrize("scripting", [True, False])
def test_who_comes_late_with_a_part_of_an_earlier_map_changes_nothing(
    redis: Any, redis_url: str, scripting: bool
) -> None:
    IdMap().offsets(redis, MAPPED, uuids(100))
    redis.hset(KEYS.index, "built", 0)  # as that process has done
    before = redis.hgetall(KEYS.index)
    late = [entry(stored(id_)) for id_ in uuids(3)]
    with scriptless(redis, redis_url) as client:
        assert not build(redis if scripting else client, KEYS, late, 0, to_order=False)
    assert redis.hgetall(KEYS.index) == before


def test_a_damaged_map_of_an_earlier_build_is_left_as_it_is(redis: Any) -> None:
    earlier_map(redis, MAPPED, ["a", "b", "c"])
    redis.rpop(KEYS.order)
    with pytest.raises(DamagedMapError, match="differ in length"):
        IdMap().offsets(redis, MAPPED, ["d"])
    assert redis.hlen(KEYS.former) == 3
    redis.rpush(KEYS.order, "c")
    assert IdMap().offsets(redis, MAPPED, ["d"]) == {"d": 3}


@pytest.mark.parametrize("lost", [[0], [1], [0, 1]])
def test_an_index_is_not_made_of_an_order_that_has_lost_a_part(redis: Any, lost: list[int]) -> None:
    ids = uuids(2 * BLOCK + 5)
    IdMap().offsets(redis, MAPPED, ids)
    redis.delete(KEYS.index, *(KEYS.block(number * BLOCK) for number in lost))
    if 0 in lost:
        redis.hset(KEYS.index, "built", 0)
    with pytest.raises(DamagedMapError):
        IdMap().offsets(redis, MAPPED, ["new"])
