"""Long replies come straight from the socket; whatever is unusual is left to redis-py."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import redis as redis_py
from numpy.typing import NDArray

from flask_bitmapist.reading import bitmaps
from flask_bitmapist.reading.bitmaps import (
    Counting,
    counts,
    extents,
    lengths,
    octets_of,
    slices,
    union_sizes,
)
from flask_bitmapist.reading.replies import (
    NumbersAsked,
    Octets,
    Part,
    Union,
    read_numbers,
    read_octets,
    read_unions,
    read_words,
)

LENGTHS = [0, 1, 7, 8, 9, 1000, *range(65_520, 65_540), 100_000, 2**20 + 5]


def read_bytes(client: redis_py.Redis, keys: list[str], sizes: list[int]) -> list[bytes] | None:
    words = read_words(client, [("GET", key) for key in keys], sizes)
    return None if words is None else [found.tobytes() for found in words]


def padded(value: bytes) -> bytes:
    return value + bytes(-len(value) % 8)


@pytest.mark.parametrize("decoding", [False, True])
@pytest.mark.parametrize("protocol", [2, 3])
def test_strings_of_all_lengths_come_as_words_padded_with_zeros(
    redis: Any, redis_url: str, decoding: bool, protocol: int
) -> None:
    random = np.random.default_rng(1)
    values = {f"key {length}": random.bytes(length) for length in LENGTHS}
    values |= {"lines": b"$3\r\n" * 1000}
    redis.mset(values)
    keys = ["missing", *values, "gone"]
    expected = [b"", *map(padded, values.values()), b""]
    with redis_py.Redis.from_url(redis_url, decode_responses=decoding, protocol=protocol) as client:
        for sizes in ([0] * len(keys), [1] * len(keys), [2**20] * 2 + [0] * (len(keys) - 2)):
            assert read_bytes(client, keys, sizes) == expected
        assert read_bytes(client, [], []) == []
        assert client.ping()


def test_a_part_of_a_string_comes_as_words(redis: Any) -> None:
    redis.set("x", bytes(range(100)))
    words = read_words(redis, [("GETRANGE", "x", "16", "31")], [2])
    assert words is not None
    (found,) = words
    assert found.tobytes() == bytes(range(16, 32))


def test_an_error_is_raised_by_redis_py(redis: Any) -> None:
    redis.set("string", "x" * 2**19)
    redis.hset("hash", "field", "value")
    assert (
        read_words(redis, [("GET", "string"), ("GET", "hash"), ("GET", "string")], [9] * 3) is None
    )
    assert redis.get("string") == b"x" * 2**19, "no reply of before is taken for this one"
    with pytest.raises(redis_py.ResponseError, match="WRONGTYPE"):
        list(slices(redis, ["string", "hash"]))


@pytest.mark.parametrize("protocol", [2, 3])
def test_single_bytes_come_as_they_are_and_none_beyond_the_end(
    redis: Any, redis_url: str, protocol: int
) -> None:
    redis.set("bytes", bytes(range(256)))
    places = [
        *(Octets("", ("bytes",), index) for index in range(300)),
        Octets("mis", ("sing",), 0),
        Octets("byt", (), 0),
        Octets("byt", ("es",), 2**29 - 1),
    ]
    expected = [bytes([n]) for n in range(256)] + [b""] * 46
    redis.mset({"clé a": b"ab", "clé bcd": b"cd", "key bcd": b"ef"})
    some = [
        Octets(prefix, ("a", "bcd", ""), index) for index in (0, 1) for prefix in ("clé ", "key ")
    ]
    several = [b"a", b"c", b"", b"", b"e", b"", b"b", b"d", b"", b"", b"f", b""]
    with redis_py.Redis.from_url(redis_url, decode_responses=True, protocol=protocol) as client:
        assert read_octets(client, some) == several
        assert read_octets(client, places * 300) == expected * 300
        assert read_octets(client, []) == []
        assert client.ping()


def test_an_error_among_single_bytes_is_raised_by_redis_py(redis: Any) -> None:
    redis.set("string", "x")
    redis.hset("hash", "field", "value")
    places = [Octets("", ("string", "hash", "string"), 0)]
    assert read_octets(redis, places) is None
    assert redis.get("string") == b"x", "no reply of before is taken for this one"
    with pytest.raises(redis_py.ResponseError, match="WRONGTYPE"):
        octets_of(redis, places)


@pytest.mark.parametrize("protocol", [2, 3])
def test_numbers_come_in_the_order_of_their_commands(
    redis: Any, redis_url: str, protocol: int
) -> None:
    values = {f"clé {number}": b"\xff" * number for number in range(3_000)}
    redis.mset(values)
    keys = ["missing", *values]
    with redis_py.Redis.from_url(redis_url, decode_responses=True, protocol=protocol) as client:
        commands = [("BITCOUNT", key) for key in keys] + [("BITPOS", key, "1") for key in keys]
        bits = [8 * number for number in range(3_000)]
        assert read_numbers(client, commands) == [0, *bits, -1, -1, *[0] * 2_999]
        assert read_numbers(client, []) == []
        assert client.ping()
        assert counts(client, [*keys, *keys]) == dict(zip(keys, [0, *bits], strict=True))
        assert lengths(client, keys) == dict(zip(keys, [0, *range(3_000)], strict=True))


def test_an_error_among_numbers_is_raised_by_redis_py(redis: Any) -> None:
    redis.set("string", "x")
    redis.hset("hash", "field", "value")
    commands = [("BITCOUNT", "string"), ("BITCOUNT", "hash"), ("BITCOUNT", "string")]
    assert read_numbers(redis, commands) is None
    assert redis.bitcount("string") == 4, "no reply of before is taken for this one"
    with pytest.raises(redis_py.ResponseError, match="WRONGTYPE"):
        counts(redis, ["string", "hash", "string"])


@pytest.mark.parametrize("connections", [1, 100])
@pytest.mark.parametrize("many", [0, 7, 3_000])
def test_numbers_are_asked_for_before_they_are_read(
    redis: Any, redis_url: str, many: int, connections: int
) -> None:
    values = {f"clé {number}": b"\xff" * number for number in range(many)}
    expected = {key: 8 * number for number, key in enumerate(values)} | {"missing": 0}
    redis.mset({"other": "x"} | values)
    client = redis_py.Redis.from_url(redis_url, max_connections=connections, decode_responses=True)
    with client, closing(Counting(client, [*expected, *expected])) as counting:
        # Nothing keeps others from asking meanwhile, with but one connection neither.
        assert client.get("other") == "x"
        assert counting.read() == expected
        assert client.get("other") == "x"
        assert counting.read() == expected


def test_numbers_that_nobody_reads_are_taken_for_no_others(redis: Any, redis_url: str) -> None:
    redis.set("string", "x")
    with redis_py.Redis.from_url(redis_url) as client:
        for _ in range(30):
            with closing(Counting(client, ["string"] * 2 + ["missing"])):
                pass
        assert client.connection_pool._available_connections[1:] == []
        assert client.get("string") == b"x"


def test_an_error_among_numbers_that_were_asked_for_is_raised_by_redis_py(redis: Any) -> None:
    redis.set("string", "x")
    redis.hset("hash", "field", "value")
    with (
        closing(Counting(redis, ["string", "hash", "string"])) as counting,
        pytest.raises(redis_py.ResponseError, match="WRONGTYPE"),
    ):
        counting.read()
    assert redis.bitcount("string") == 4, "no reply of before is taken for this one"


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("batch", [1, 5, 99])
def test_strings_are_combined_where_they_belong(
    redis: Any, redis_url: str, protocol: int, batch: int
) -> None:
    random = np.random.default_rng(2)
    # Of more than one buffer, and of what looks like a reply.
    values = [random.bytes(length) for length in LENGTHS] + [b"$3\r\n" * 1000, b"\r\n", b"\0" * 9]
    redis.mset({f"clé {n}": value for n, value in enumerate(values)})
    unions, expected = [Union(0, [])], [b""]
    for number in range(30):
        size, parts = int(random.integers(1, 20_000)), []
        combined = np.zeros(size * 8, np.uint8)
        for n in random.integers(0, len(values), number % 4):
            place = int(random.integers(0, 9_000))
            parts.append(Part(("GET", f"clé {n}"), place, len(values[n])))
            told = np.frombuffer(values[n], np.uint8)[: max(0, combined.size - place)]
            combined[place:][: told.size] |= told
        unions.append(Union(size, parts))
        expected.append(combined.tobytes())
    found = list[bytes]()

    def measure(words: NDArray[np.uint64]) -> int:
        found.append(words.tobytes())
        return len(found)

    batches = [unions[first : first + batch] for first in range(0, len(unions), batch)]
    with redis_py.Redis.from_url(redis_url, decode_responses=True, protocol=protocol) as client:
        assert read_unions(client, batches, measure) == [*range(1, len(unions) + 1)]
        assert found == expected
        assert read_unions(client, [], measure) == []
        assert client.ping()


def test_what_is_not_as_expected_is_not_combined(redis: Any) -> None:
    redis.set("string", "x" * 2**19)
    redis.hset("hash", "field", "value")
    for key, least in [("string", 2**19 + 1), ("hash", 1), ("hash", 0), ("missing", 1)]:
        parts = [Part(("GET", one), 0, least) for one in ("string", key, "string")]
        assert read_unions(redis, [[Union(2**16, parts)]] * 3, np.count_nonzero) is None
        assert redis.get("string") == b"x" * 2**19, "no reply of before is taken for this one"


def test_unions_are_counted_as_their_bitmaps_are_when_they_come(redis: Any) -> None:
    for key, offsets in {"a": (7, 300), "b": (300, 9_000), "trackist_c_2026-1": (64,)}.items():
        for offset in offsets:
            redis.setbit(key, offset, 1)
    groups = [("a",), ("a", "b"), ("b", "trackist_c_2026-1", "missing"), ("missing",), ()]
    placed = extents(redis, [key for keys in groups for key in keys])
    assert union_sizes(redis, groups, placed) == [2, 3, 3, 0, 0]
    redis.setbit("a", 310, 1)
    assert union_sizes(redis, groups, placed) == [3, 4, 3, 0, 0]
    redis.delete("trackist_c_2026-1")
    assert union_sizes(redis, groups, placed) == [3, 4, 2, 0, 0]


@pytest.mark.parametrize("budget", [8, 2**28])
def test_unions_are_counted_alike_by_other_clients_and_of_longer_bitmaps_than_fit(
    redis: Any, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    monkeypatch.setattr(bitmaps, "BUDGET", budget)
    monkeypatch.setattr(bitmaps, "_SLICE_UNIT", 8)
    if budget > 8:
        monkeypatch.setattr(bitmaps, "read_unions", lambda *_: None)
    random = np.random.default_rng(3)
    users = {f"{n}": {*map(int, random.integers(999 * n, 3_000, 99))} for n in range(3)}
    for key, offsets in users.items():
        for offset in offsets:
            redis.setbit(key, offset, 1)
    groups = [("0",), ("0", "2"), ("0", "1", "2"), ("missing",)]
    sizes = [len(set().union(*(users.get(key, ()) for key in keys))) for keys in groups]
    placed = extents(redis, [key for keys in groups for key in keys])
    assert union_sizes(redis, groups, placed) == sizes


def without_greeting(connection: redis_py.connection.AbstractConnection) -> None:
    """Send nothing when connected: the first command that the server hears is the test's own."""
    connection._parser.on_connect(connection)


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: read_words(client, [("GET", "x")], [1]),
        lambda client: read_octets(client, [Octets("x", ("",), 0)]),
        lambda client: read_numbers(client, [("STRLEN", "x")]),
        lambda client: NumbersAsked(client, [("STRLEN", "x")]).read(),
        lambda client: read_unions(client, [[Union(99, [Part(("GET", "x"), 0, 1)])]], len),
    ],
)
@pytest.mark.parametrize(
    "reply", [b"", b"$100\r\nabc", b"$100", b"$x\r\n", b"nonsense\r\n", b"$" * 9000]
)
def test_a_server_that_fails_is_left_to_redis_py(
    reply: bytes, ask: Callable[[redis_py.Redis], object]
) -> None:
    class Failing(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(reply)

    with socketserver.TCPServer(("127.0.0.1", 0), Failing) as server:
        server.timeout = 10
        # If the test fails before it asks, the run still ends.
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        host, port = str(server.server_address[0]), server.server_address[1]
        options: dict[str, Any] = {"redis_connect_func": without_greeting, "socket_timeout": 10}
        with redis_py.Redis(host, port, **options) as client:
            assert ask(client) is None
        thread.join()


def test_a_silent_server_is_waited_for_once() -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
        host, port = str(server.server_address[0]), server.server_address[1]
        options: dict[str, Any] = {"redis_connect_func": without_greeting, "socket_timeout": 0.1}
        with (
            redis_py.Redis(host, port, **options) as client,
            pytest.raises(redis_py.TimeoutError, match="silent"),
        ):
            read_words(client, [("GET", "x")], [1])


def test_other_clients_are_left_to_themselves(redis: Any) -> None:
    class OtherClient:
        pipeline = redis.pipeline
        execute_command = redis.execute_command

    redis.setbit("x", 2**23, 1)
    redis.setbit("x", 5, 1)
    client = OtherClient()
    assert read_words(client, [("GET", "x")], [1]) is None
    (found,) = slices(client, ["x"])
    assert found["x"].ids().tolist() == [5, 2**23]
